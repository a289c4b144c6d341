/* CRC-32C in vectors of 16 bytes: see crc32c_fold.h. */
#include "packetfs_kernels_impl.h"

#ifdef PFS_X86_64

#include <immintrin.h>

#define TARGET PFS_TARGET("pclmul," PFS_SSE42)
typedef __m128i vector;
#define LOAD(data) _mm_loadu_si128((const __m128i *)(const void *)(data))
#define XOR3(a, b, c) _mm_xor_si128(_mm_xor_si128(a, b), c)
#define CLMUL(a, b, halves) _mm_clmulepi64_si128(a, b, halves)
#define FROM_PAIR(pair) LOAD(pair)
#define FROM_64(word) _mm_cvtsi64_si128((int64_t)(word))

TARGET static inline __m128i lanes_added(__m128i v)
{
    return v;
}

/* Measured on Zen 4, where a carry-less multiplication takes two cycles and a crc32q one, whatever the width. */
#define STEPS 5
#define AHEAD PAIR(0x1c19243b, 0x75bba45b)
#define LONG {88, 0xcf61890b, 0x445561ff, 0x54aba205, 0x9decdda2}
#define SHORT {8, 0x397d84a1, 0xd8d26619, 0xc7a68855, 0xf37c5aee}
/* Folding alone is slower than memory. */
#define BLOCKS_UP_TO SIZE_MAX

#include "crc32c_fold.h"

TARGET uint64_t pfs_crc32c_sse42(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    (void)imm;
    return crc32c(value, data, len);
}

/* x^(8 * i * 16^7 - 136): the last digit's powers, which also make good for all the powers that the steps below put in. */
static const uint32_t LAST_DIGIT[8] = {
    0x230238a0, 0x11811c50, 0x08c08e28, 0x04604714, 0x0230238a, 0x011811c5, 0x827a339a, 0x413d19cd,
};

TARGET static inline __m128i times(__m128i a, __m128i b)
{
    return _mm_clmulepi64_si128(a, b, 0);
}

/* A product of 128 bits mod P, times x^32. */
TARGET static inline __m128i reduced(__m128i v)
{
    uint64_t low = (uint64_t)_mm_cvtsi128_si64(v), high = (uint64_t)_mm_extract_epi64(v, 1);
    return _mm_cvtsi64_si128((int64_t)_mm_crc32_u64(_mm_crc32_u64(0, low), high));
}

/* As pfs_crc32c_combine, without a branch: a tree of products, whose upper two rows are not reduced. The x^0 of a product
 * stands at bit 62, 124 and, with a, 93: 3 powers too low of 128 bits twice, and 34. With the 32 of each reduction that is
 * 2 * (3 + 32) + 34 + 32 = 136. */
TARGET uint32_t pfs_crc32c_combine_sse42(uint32_t a, uint32_t b, uint64_t len_b)
{
    uint32_t digits = pfs_crc32c_cycle(len_b);
    __m128i d[8];
    for (int j = 0; j < 7; j++)
        d[j] = _mm_cvtsi32_si128((int)pfs_crc32c_x8n[j][digits >> 4 * j & 15]);
    d[7] = _mm_cvtsi32_si128((int)LAST_DIGIT[digits >> 28]);
    __m128i low = reduced(times(times(d[0], d[1]), times(d[2], d[3])));
    __m128i high = reduced(times(times(d[4], d[5]), times(d[6], d[7])));
    __m128i moved = reduced(times(times(low, high), _mm_cvtsi32_si128((int)a)));
    return (uint32_t)_mm_cvtsi128_si32(moved) ^ b;
}

#else
typedef int pfs_crc32c_sse42_is_for_x86_64; /* ISO C forbids an empty translation unit */
#endif
