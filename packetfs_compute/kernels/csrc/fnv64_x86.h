/* What fnv64_simd.h asks for, on x86-64: a lane is 128 bits, FNV_LANES says how many are a vector.
 *
 * Who includes it has defined FNV_TARGET, FNV_LANES, and FNV_PCLMUL where there is that instruction, and adds for one
 * lane V_DIFF_LOW and V_DIFF_HIGH, for four V_DOT, unless it has defined FNV_VNNI.
 */
#include <immintrin.h>
#include <stdint.h>

typedef __m128i lane;
#define L_XOR(x, y) _mm_xor_si128(x, y)
#define L_TOP(x) _mm_shuffle_epi32(_mm_srai_epi32(x, 31), 0x55)
#define L_SPREAD(x) _mm_unpacklo_epi8(x, x)
#define L_PREFIX(x) fnv64_prefix(x)
#define L_FOLD(x) fnv64_fold(x)
#define FNV_PREFETCH(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)

FNV_TARGET static inline lane fnv64_fold(lane x)
{
    lane pairs = _mm_and_si128(_mm_xor_si128(x, _mm_srli_epi16(x, 8)), _mm_set1_epi16(0xff));
    return _mm_packus_epi16(pairs, pairs);
}

FNV_TARGET static inline lane fnv64_prefix(lane x)
{
#ifdef FNV_PCLMUL
    /* The carry-less product with all ones. */
    return _mm_clmulepi64_si128(x, _mm_set1_epi32(-1), 0);
#else
    x = _mm_xor_si128(x, _mm_slli_epi64(x, 1));
    x = _mm_xor_si128(x, _mm_slli_epi64(x, 2));
    x = _mm_xor_si128(x, _mm_slli_epi64(x, 4));
    x = _mm_xor_si128(x, _mm_slli_epi64(x, 8));
    x = _mm_xor_si128(x, _mm_slli_epi64(x, 16));
    return _mm_xor_si128(x, _mm_slli_epi64(x, 32));
#endif
}

/* The lane at p, whose type the instructions take for granted. */
#define FNV_LANE_AT(p) _mm_load_si128((const __m128i *)(const void *)(p))

#if FNV_LANES == 1

typedef __m128i vec;
#define V_LOAD(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define V_LANES(p) FNV_LANE_AT(p)
#define V_EVERY(x) (x)
#define V_TOTAL(a) (a)
#define V_BEFORE(a) _mm_setzero_si128()
#define V_TO64(out, a) _mm_storeu_si128((__m128i *)(void *)(out), a)
#define V_ZERO _mm_setzero_si128()
#define V_SPLAT(byte) _mm_set1_epi8((char)(byte))
#define V_XOR(a, b) _mm_xor_si128(a, b)
#define V_AND(a, b) _mm_and_si128(a, b)
#define V_ANDNOT(a, b) _mm_andnot_si128(b, a)
#define V_LEFT16(a, n) _mm_slli_epi16(a, n)
#define V_RIGHT16(a, n) _mm_srli_epi16(a, n)
#define V_LEFT64(a, n) _mm_slli_epi64(a, n)
#define V_RIGHT64(a, n) _mm_srli_epi64(a, n)
#define V_LOW8(a, b) _mm_unpacklo_epi8(a, b)
#define V_HIGH8(a, b) _mm_unpackhi_epi8(a, b)
#define V_DOT(sum, a, b) _mm_add_epi32(sum, _mm_madd_epi16(a, b))
#define V_ADD64(a, b) _mm_add_epi64(a, b)
#define V_SUB64(a, b) _mm_sub_epi64(a, b)
#define V_SPLAT64(n) _mm_set1_epi64x((int64_t)(n))
#define V_MUL32(a, b) _mm_mul_epu32(a, b)

#elif FNV_LANES == 2

typedef __m256i vec;
#define V_LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define V_LANES(p) _mm256_broadcastsi128_si256(FNV_LANE_AT(p))
#define V_EVERY(x) _mm256_broadcastsi128_si256(x)
#define V_TOTAL(a) _mm_xor_si128(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1))
#define V_BEFORE(a) _mm256_permute2x128_si256(a, a, 0x08) /* zero, and the lower lane in the upper */
#define V_TO64(out, a) _mm256_storeu_si256((__m256i *)(void *)(out), a)
#define V_ZERO _mm256_setzero_si256()
#define V_SPLAT(byte) _mm256_set1_epi8((char)(byte))
#define V_XOR(a, b) _mm256_xor_si256(a, b)
#define V_AND(a, b) _mm256_and_si256(a, b)
#define V_ANDNOT(a, b) _mm256_andnot_si256(b, a)
#define V_LEFT16(a, n) _mm256_slli_epi16(a, n)
#define V_RIGHT16(a, n) _mm256_srli_epi16(a, n)
#define V_LEFT64(a, n) _mm256_slli_epi64(a, n)
#define V_RIGHT64(a, n) _mm256_srli_epi64(a, n)
#define V_LOW8(a, b) _mm256_unpacklo_epi8(a, b)
#define V_HIGH8(a, b) _mm256_unpackhi_epi8(a, b)
#define V_DIFF_LOW(a, b) _mm256_maddubs_epi16(V_LOW8(a, b), _mm256_set1_epi16(FNV_PLUS_MINUS))
#define V_DIFF_HIGH(a, b) _mm256_maddubs_epi16(V_HIGH8(a, b), _mm256_set1_epi16(FNV_PLUS_MINUS))
#define V_DOT(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
#define V_ADD64(a, b) _mm256_add_epi64(a, b)
#define V_SUB64(a, b) _mm256_sub_epi64(a, b)
#define V_SPLAT64(n) _mm256_set1_epi64x((int64_t)(n))
#define V_MUL32(a, b) _mm256_mul_epu32(a, b)

#elif FNV_LANES == 4

typedef __m512i vec;
#define V_LOAD(p) _mm512_loadu_si512(p)
#define V_LANES(p) _mm512_broadcast_i32x4(FNV_LANE_AT(p))
#define V_EVERY(x) _mm512_broadcast_i32x4(x)
#define V_TOTAL(a) fnv64_total(a)
#define V_BEFORE(a) fnv64_before(a)
#define V_TO64(out, a) _mm512_storeu_si512(out, a)
#define V_ZERO _mm512_setzero_si512()
#define V_SPLAT(byte) _mm512_set1_epi8((char)(byte))
#define V_XOR(a, b) _mm512_xor_si512(a, b)
#define V_AND(a, b) _mm512_and_si512(a, b)
#define V_ANDNOT(a, b) _mm512_andnot_si512(b, a)
/* Any function of three bits is one instruction, whose constant is the function's table. */
#define V_XOR3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x96)
#define V_KEEP(a, m, b) _mm512_ternarylogic_epi64(a, m, b, 0xe2)
#define V_TAKE(a, m, b) _mm512_ternarylogic_epi64(a, m, b, 0xb8)
#define V_LEFT16(a, n) _mm512_slli_epi16(a, n)
#define V_RIGHT16(a, n) _mm512_srli_epi16(a, n)
#define V_LEFT64(a, n) _mm512_slli_epi64(a, n)
#define V_LOW8(a, b) _mm512_unpacklo_epi8(a, b)
#define V_HIGH8(a, b) _mm512_unpackhi_epi8(a, b)
#define V_DIFF_LOW(a, b) _mm512_maddubs_epi16(V_LOW8(a, b), _mm512_set1_epi16(FNV_PLUS_MINUS))
#define V_DIFF_HIGH(a, b) _mm512_maddubs_epi16(V_HIGH8(a, b), _mm512_set1_epi16(FNV_PLUS_MINUS))
#define V_ADD64(a, b) _mm512_add_epi64(a, b)
#define V_MUL64(a, n) _mm512_mullo_epi64(a, _mm512_set1_epi64((int64_t)(n)))
#define V_PAIRS64(a) _mm512_add_epi64(_mm512_srai_epi64(a, 32), _mm512_srai_epi64(_mm512_slli_epi64(a, 32), 32))

FNV_TARGET static inline lane fnv64_total(vec a)
{
    __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
    return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

#ifdef FNV_VNNI
#define V_DOT(sum, a, b) fnv64_dot16(sum, a, b)

FNV_TARGET static inline vec fnv64_dot16(vec sum, vec a, vec b)
{
#if defined(__GNUC__)
    /* Assembly, because clang takes the intrinsic apart into the two instructions again: their latency is less, but
     * there are eight sums to fill it. */
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
#else
    return _mm512_dpwssd_epi32(sum, a, b);
#endif
}
#endif

/* Lanes 0, a0, a1, a2 and then 0, 0, 0, a0 and 0, 0, a0, a0 ^ a1. */
FNV_TARGET static inline vec fnv64_before(vec a)
{
    vec one = _mm512_maskz_shuffle_i64x2(0xfc, a, a, 0x90), two = _mm512_xor_si512(one, a);
    return _mm512_xor_si512(one, _mm512_maskz_shuffle_i64x2(0xf0, two, two, 0x40));
}

#endif

/* For pmaddubsw: of each two bytes, the first less the second. */
#define FNV_PLUS_MINUS ((int16_t)-255)

#if FNV_LANES < 4
#define V_XOR3(a, b, c) V_XOR(V_XOR(a, b), c)
#define V_MUL64(a, n) fnv64_mul64(a, n)
#define V_PAIRS64(a) fnv64_pairs64(a)

FNV_TARGET static inline vec fnv64_mul64(vec a, uint64_t n)
{
    const vec low = V_SPLAT64(n), high = V_SPLAT64(n >> 32);
    vec crossed = V_ADD64(V_MUL32(V_RIGHT64(a, 32), low), V_MUL32(a, high));
    return V_ADD64(V_MUL32(a, low), V_LEFT64(crossed, 32));
}

/* There is no signed widening here: 2^31 is added to each, and taken off again from the sum of the two. */
FNV_TARGET static inline vec fnv64_pairs64(vec a)
{
    a = V_XOR(a, V_SPLAT64(UINT64_C(0x8000000080000000)));
    return V_SUB64(V_ADD64(V_AND(a, V_SPLAT64(UINT32_MAX)), V_RIGHT64(a, 32)), V_SPLAT64(UINT64_C(1) << 32));
}
#endif
