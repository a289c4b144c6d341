/* CRC-32C in vectors of 64 bytes: see crc32c_fold.h. */
#include "packetfs_kernels_impl.h"

#ifdef PFS_X86_64

#include <immintrin.h>

#define TARGET PFS_TARGET("avx512f,avx512bw,avx512dq,avx512vl,vpclmulqdq,pclmul," PFS_SSE42)
typedef __m512i vector;
#define LOAD(data) _mm512_loadu_si512(data)
#define XOR3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x96)
#define CLMUL(a, b, halves) _mm512_clmulepi64_epi128(a, b, halves)
#define FROM_PAIR(pair) _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(pair)))
#define FROM_64(word) _mm512_zextsi128_si512(_mm_cvtsi64_si128((int64_t)(word)))

TARGET static inline __m128i lanes_added(__m512i v)
{
    __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* Measured on Zen 4, where a carry-less multiplication takes two cycles and a crc32q one, whatever the width. */
#define STEPS 3
#define AHEAD PAIR(0xe9a5d8be, 0x1426a815)
#define LONG {65, 0x7f1291d5, 0x005bb964, 0x359674f7, 0x9ef68d35}
#define SHORT {25, 0x844b5904, 0x00bcf5f6, 0x86d8e4d2, 0x271d9844}
/* Beyond, where memory is the bound, four parts: see below. From 4 to 12 MiB blocks are up to 1.2 times as fast as those. */
#define BLOCKS_UP_TO ((size_t)16 << 20)

#include "crc32c_fold.h"

/* Four parts of whole vectors, each a chain of its own: memory feeds four streams in order faster than one. */
TARGET static inline uint64_t run_parts(uint64_t crc, const uint8_t *data, size_t part)
{
    const vector ahead = FROM_PAIR(TO_THE_END[15 - VECTOR / 16]); /* D = 8 * VECTOR */
    vector v[VECTORS];
    for (int k = 0; k < VECTORS; k++)
        v[k] = LOAD(data + part * k);
    v[0] = XOR3(v[0], FROM_64(crc), FROM_64(0));
    for (size_t i = VECTOR; i < part; i += VECTOR)
        for (int k = 0; k < VECTORS; k++)
            v[k] = folded(v[k], ahead, LOAD(data + part * k + i));
    crc = 0;
    for (int k = 0; k < VECTORS; k++) {
        vector lanes = folded(v[k], LOAD((const uint8_t *)TO_THE_END[16 - VECTOR / 16]), FROM_64(0));
        crc = pfs_crc32c_combine_sse42((uint32_t)crc, (uint32_t)end_of(lanes), part);
    }
    return crc;
}

TARGET uint64_t pfs_crc32c_avx512(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    (void)imm;
    if (len > BLOCKS_UP_TO) {
        size_t head = (0 - (uintptr_t)data) % VECTOR; /* a load that straddles two cache lines costs two */
        value = crc32c(value, data, head);
        data += head;
        len -= head;
        size_t part = pfs_part(len, VECTOR);
        value = (uint32_t)~run_parts((uint32_t)~value, data, part);
        data += VECTORS * part;
        len -= VECTORS * part;
    }
    return crc32c(value, data, len);
}

#else
typedef int pfs_crc32c_avx512_is_for_x86_64; /* ISO C forbids an empty translation unit */
#endif
