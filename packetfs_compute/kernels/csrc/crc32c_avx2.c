/* CRC-32C in vectors of 32 bytes: see crc32c_fold.h. */
#include "packetfs_kernels_impl.h"

#ifdef PFS_X86_64

#include <immintrin.h>

#define TARGET PFS_TARGET("avx2,vpclmulqdq,pclmul," PFS_SSE42)
typedef __m256i vector;
#define LOAD(data) _mm256_loadu_si256((const __m256i *)(const void *)(data))
#define XOR3(a, b, c) _mm256_xor_si256(_mm256_xor_si256(a, b), c)
#define CLMUL(a, b, halves) _mm256_clmulepi64_epi128(a, b, halves)
#define FROM_PAIR(pair) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(pair)))
#define FROM_64(word) _mm256_zextsi128_si256(_mm_cvtsi64_si128((int64_t)(word)))

TARGET static inline __m128i lanes_added(__m256i v)
{
    return _mm_xor_si128(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}

/* Measured on Zen 4, where a carry-less multiplication takes two cycles and a crc32q one, whatever the width. */
#define STEPS 5
#define AHEAD PAIR(0x6577b245, 0x7417153f)
#define LONG {65, 0x3b9b9a4f, 0xf7ac8f1f, 0xca110698, 0x22c3799f}
#define SHORT {17, 0x82f89c77, 0xf48642e9, 0xdd66cbbb, 0x6b749fb2}
/* Beyond, where memory is the bound, folding alone reads in order, which it feeds faster than a block's four streams. */
#define BLOCKS_UP_TO ((size_t)32 << 20)

#include "crc32c_fold.h"

TARGET uint64_t pfs_crc32c_avx2(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    (void)imm;
    return crc32c(value, data, len);
}

#else
typedef int pfs_crc32c_avx2_is_for_x86_64; /* ISO C forbids an empty translation unit */
#endif
