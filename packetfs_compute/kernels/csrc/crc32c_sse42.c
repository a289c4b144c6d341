/* CRC-32C with SSE4.2's crc32 instruction in three streams (Gopal et al., "Fast CRC Computation for iSCSI Polynomial
 * Using CRC32 Instruction", Intel, 2011).
 *
 * crc32q takes eight bytes and has a latency of three cycles but a throughput of one: three independent streams keep
 * it busy. They are neighbours A, B, C of equal length, joined afterwards: crc(A) * x^2n + crc(B) * x^n + crc(C) for n
 * bits each. A carry-less product of two reflected 32-bit polynomials stands one power of x too high in 64 bits, and
 * crc32q(0, v) is v * x^32 mod P, so multiplying by x^n is crc32q(0, clmul(crc, x^(n - 33) mod P)).
 */
#include "packetfs_kernels_impl.h"

#ifdef PFS_X86_64

#include <nmmintrin.h>
#include <wmmintrin.h>

/* Two sizes: the long one makes joining cheap, the short one takes up what is left and small inputs. */
#define LONG 4096
#define LONG_X1 0x82f89c77 /* x^(8 * LONG - 33) mod P */
#define LONG_X2 0x54a86326 /* x^(16 * LONG - 33) mod P */
#define SHORT 256
#define SHORT_X1 0xb9e02b86
#define SHORT_X2 0xdd7e3b0c

PFS_TARGET("sse4.2,pclmul")
static inline uint64_t product(uint64_t crc, uint32_t power)
{
    __m128i wide = _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)crc), _mm_cvtsi64_si128((int64_t)power), 0);
    return (uint64_t)_mm_cvtsi128_si64(wide);
}

PFS_TARGET("sse4.2,pclmul")
static inline uint64_t three_streams(uint64_t crc, const uint8_t *data, size_t stream, uint32_t x1, uint32_t x2)
{
    uint64_t b = 0, c = 0;
    for (size_t i = 0; i < stream; i += 8) {
        crc = _mm_crc32_u64(crc, pfs_load64le(data + i));
        b = _mm_crc32_u64(b, pfs_load64le(data + stream + i));
        c = _mm_crc32_u64(c, pfs_load64le(data + 2 * stream + i));
    }
    return c ^ _mm_crc32_u64(0, product(crc, x2) ^ product(b, x1));
}

PFS_TARGET("sse4.2,pclmul")
uint64_t pfs_crc32c_sse42(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    (void)imm;
    uint64_t crc = (uint32_t)~value;
    /* Up to an 8-byte boundary, so that no load straddles two cache lines. */
    for (; len && (uintptr_t)data % 8; data++, len--)
        crc = _mm_crc32_u8((uint32_t)crc, *data);
    for (; len >= 3 * LONG; data += 3 * LONG, len -= 3 * LONG)
        crc = three_streams(crc, data, LONG, LONG_X1, LONG_X2);
    for (; len >= 3 * SHORT; data += 3 * SHORT, len -= 3 * SHORT)
        crc = three_streams(crc, data, SHORT, SHORT_X1, SHORT_X2);
    for (; len >= 8; data += 8, len -= 8)
        crc = _mm_crc32_u64(crc, pfs_load64le(data));
    for (; len; data++, len--)
        crc = _mm_crc32_u8((uint32_t)crc, *data);
    return (uint32_t)~crc;
}

#else
typedef int pfs_crc32c_sse42_is_for_x86_64; /* ISO C forbids an empty translation unit */
#endif
