/* The five byte kernels of PacketFS, as any C program may use them.
 *
 *   counteq  number of bytes equal to imm                    starts from 0
 *   crc32c   CRC-32C (RFC 3720), the finished value          starts from 0
 *   fnv64    FNV-1a 64 (draft-eastlake-fnv)                  starts from PFS_FNV64_OFFSET
 *   xor      XOR over the bytes of (byte ^ imm), 0..255      starts from 0
 *   add      sum over the bytes of ((byte + imm) mod 256)    starts from 0
 *
 * Every implementation of every op has one shape, pfs_kernel: it takes the value over the bytes before and returns
 * the value over those and these, so that a stream is a chain of calls and where it is cut does not matter.
 * counteq and add wrap at 2^64, which 255 * 2^56 bytes would take.
 *
 * Nothing here allocates, locks, keeps state or fails; data may be NULL when len is 0, and needs no alignment.
 */
#ifndef PACKETFS_KERNELS_H
#define PACKETFS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PFS_FNV64_OFFSET UINT64_C(0xcbf29ce484222325)

enum pfs_op { PFS_COUNTEQ, PFS_CRC32C, PFS_FNV64, PFS_XOR, PFS_ADD };
#define PFS_OPS 5

/* imm is ignored by crc32c and fnv64. */
typedef uint64_t (*pfs_kernel)(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);

struct pfs_implementation {
    const char *name; /* "portable", "sse42", ... : one name an instruction set, the same for every op */
    pfs_kernel run;
    uint32_t requires; /* PFS_CPU_* bits that the machine must have, all of them */
};

/* What the CPU has and the OS saves across a context switch. A bit that is not understood here is never set. */
#define PFS_CPU_SSE42 (UINT32_C(1) << 0)
#define PFS_CPU_PCLMUL (UINT32_C(1) << 1)
#define PFS_CPU_ARM_CRC32 (UINT32_C(1) << 2)
#define PFS_CPU_SSSE3 (UINT32_C(1) << 3)
#define PFS_CPU_AVX2 (UINT32_C(1) << 4)
#define PFS_CPU_VPCLMUL (UINT32_C(1) << 5)
#define PFS_CPU_AVX512 (UINT32_C(1) << 6) /* F, BW, DQ and VL: every CPU that has BW has all four */
#define PFS_CPU_AVX512VNNI (UINT32_C(1) << 7)
#define PFS_CPU_AVX512GFNI (UINT32_C(1) << 8) /* with GFNI, VBMI and VPCLMULQDQ, on vectors of 512 bits */

uint32_t pfs_cpu_features(void);

/* The op's name as Python and the wire know it: "counteq", ... */
const char *pfs_op_name(enum pfs_op op);

/* The implementations of op that were compiled in, best first; the last is always "portable", which requires nothing.
 * *count gets their number. One may be run only where (requires & ~pfs_cpu_features()) is 0. */
const struct pfs_implementation *pfs_implementations(enum pfs_op op, size_t *count);

/* The best implementation of op on a machine with these features; with a name, the one so called or, where op has none,
 * the best of those below it on the ladder of names (dispatch.c); NULL where the name is on no rung. */
const struct pfs_implementation *pfs_choose(enum pfs_op op, uint32_t features, const char *name);

/* Several ops in one pass over memory: data is walked once in blocks that stay in the cache while each step's kernel
 * runs over them. Each step's value goes in as the running value and comes out as the new one. */
struct pfs_step {
    pfs_kernel run;
    uint64_t value;
    uint8_t imm;
};
void pfs_fused(struct pfs_step *steps, size_t count, const uint8_t *data, size_t len);

/* The CRC-32C of the bytes of a followed by the len_b bytes of b, from the two values alone. */
uint32_t pfs_crc32c_combine(uint32_t a, uint32_t b, uint64_t len_b);

/* The same, and faster where the features allow; name as in pfs_choose. */
typedef uint32_t (*pfs_combine)(uint32_t a, uint32_t b, uint64_t len_b);
pfs_combine pfs_choose_combine(uint32_t features, const char *name);

#ifdef __cplusplus
}
#endif

#endif
