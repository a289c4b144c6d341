/* What the files of this directory share and nobody else sees: each instruction set's version of each kernel.
 *
 * A new kernel is declared here, defined in <op>_<instruction set>.c (bytes_: counteq, xor and add, which are one loop
 * with three bodies), and entered in dispatch.c's table.
 */
#ifndef PACKETFS_KERNELS_IMPL_H
#define PACKETFS_KERNELS_IMPL_H

#include "packetfs_kernels.h"

/* 64-bit only: crc32q does not exist in 32-bit mode. */
#if defined(__x86_64__) || defined(_M_X64)
#define PFS_X86_64 1
#endif
/* Little-endian, and a compiler with GNU assembly (gcc, clang); others get the portable kernels. */
#if defined(__aarch64__) && defined(__GNUC__) && !defined(__AARCH64EB__)
#define PFS_ARM64 1
#endif

/* Instruction sets are enabled per function, so that one set of compiler flags builds every file and no instruction
 * can leak into code that runs before the CPU was asked. MSVC knows every intrinsic everywhere. */
#if defined(__GNUC__)
#define PFS_TARGET(sets) __attribute__((target(sets)))
#else
#define PFS_TARGET(sets)
#endif

/* SSE 4.2 with its CRC instruction, which clang since 14 counts as a set of its own. Others need not know it as one. */
#if defined(__clang__) && __clang_major__ >= 14
#define PFS_SSE42 "sse4.2,crc32"
#else
#define PFS_SSE42 "sse4.2"
#endif

/* portable.c: plain C11 */
uint64_t pfs_counteq_portable(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_crc32c_portable(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_fnv64_portable(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_xor_portable(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_add_portable(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);

/* bytes_avx2.c: requires PFS_CPU_AVX2 */
uint64_t pfs_counteq_avx2(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_xor_avx2(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_add_avx2(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);

/* bytes_avx512.c: requires PFS_CPU_AVX512 */
uint64_t pfs_counteq_avx512(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_xor_avx512(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_add_avx512(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
/* One step of each of the three. */
void pfs_bytes_avx512(struct pfs_step *counteq, struct pfs_step *xor, struct pfs_step *add, const uint8_t *data, size_t len);

/* bytes_neon.c: requires nothing, every aarch64 has it */
uint64_t pfs_counteq_neon(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_xor_neon(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_add_neon(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);

/* fnv64_sse2.c: requires nothing, every x86-64 has it */
uint64_t pfs_fnv64_sse2(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);

/* fnv64_ssse3.c: requires PFS_CPU_SSSE3 */
uint64_t pfs_fnv64_ssse3(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);

/* fnv64_avx2.c: requires PFS_CPU_AVX2 and PFS_CPU_PCLMUL */
uint64_t pfs_fnv64_avx2(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);

/* fnv64_avx512.c, fnv64_avx512vnni.c: require those two, PFS_CPU_AVX512, and the second PFS_CPU_AVX512VNNI */
uint64_t pfs_fnv64_avx512(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_fnv64_avx512vnni(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);

/* fnv64_avx512gfni.c: requires PFS_CPU_AVX512GFNI, and what fnv64_avx512vnni.c does, to which short ranges are left */
uint64_t pfs_fnv64_avx512gfni(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);

/* fnv64_neon.c: requires nothing, every aarch64 has it */
uint64_t pfs_fnv64_neon(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);

/* crc32c_sse42.c: requires PFS_CPU_SSE42 and PFS_CPU_PCLMUL */
uint64_t pfs_crc32c_sse42(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint32_t pfs_crc32c_combine_sse42(uint32_t a, uint32_t b, uint64_t len_b);

/* crc32c_avx2.c, crc32c_avx512.c: require those two, PFS_CPU_VPCLMUL, and PFS_CPU_AVX2 or PFS_CPU_AVX512 */
uint64_t pfs_crc32c_avx2(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_crc32c_avx512(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);

/* crc32c_arm64.c: requires PFS_CPU_ARM_CRC32 */
uint64_t pfs_crc32c_arm64(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);

/* dispatch.c: pfs_cpu_features() as a function of what CPUID's leaves 1 and 7 say, and of XCR0; for x86-64. */
uint32_t pfs_features_of(uint32_t ecx1, uint32_t ebx7, uint32_t ecx7, uint64_t saved);

/* crc32c_combine.c: polynomials mod P over GF(2), bit-reflected: bit 31 is the coefficient of x^0. */
#define PFS_CRC32C_POLY UINT32_C(0x82f63b78)
uint32_t pfs_crc32c_multiply(uint32_t a, uint32_t b);
extern const uint32_t pfs_crc32c_table[8][256]; /* portable.c: [s][n] is the register after byte n and s zero bytes */
extern const uint32_t pfs_crc32c_x8n[8][16]; /* [j][i] = x^(8 * i * 16^j) mod P: i * 16^j zero bytes more */

/* A number of bytes with the same x^(8n), of at most 31 bits: P is (x + 1) times a primitive polynomial of degree 31, so
 * x^(2^31 - 1) = 1. Numbers of 31 bits are added, as nines are cast out: three, and twice the carry. */
static inline uint32_t pfs_crc32c_cycle(uint64_t n)
{
    n = (n & 0x7fffffff) + (n >> 31 & 0x7fffffff) + (n >> 62);
    n = (n & 0x7fffffff) + (n >> 31);
    return (uint32_t)((n & 0x7fffffff) + (n >> 31));
}

/* The idiom that gcc and clang turn into one load, on either byte order, without undefined behaviour. */
static inline uint64_t pfs_load64le(const uint8_t *p)
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 |
           (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
}

/* How many bytes each of four parts has that are read side by side, of `len` or a little less: whole vectors. From 128 MiB on
 * they are not as far apart as they might be: where that is a power of two, or little more, all four seem to want the same
 * entries of the CPU's tables, page after page. On Zen 4 crc32c of 1 GiB had a third of its speed by that, add half to two thirds. */
static inline size_t pfs_part(size_t len, size_t vector)
{
    const size_t page = 4096, pages = len / (4 * page);
    if (len < (size_t)128 << 20)
        return len / (4 * vector) * vector;
    return ((pages - 63) / 64 * 64 + 62) * page + page / 4 + 64; /* two pages less than a multiple of 64, and a bit */
}

/* The XOR of a word's bytes. */
static inline uint8_t pfs_fold_bytes(uint64_t word)
{
    word ^= word >> 32;
    word ^= word >> 16;
    return (uint8_t)(word ^ word >> 8);
}

#endif
