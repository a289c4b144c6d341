/* counteq, xor and add with AVX2: one walk over the data in vectors of 32 bytes, with three bodies.
 *
 * As in bytes_avx512.c, but there are no masked loads of bytes: the head and the tail are whole vectors inside the data,
 * of which only the bytes are kept that no other vector covers. Less than a vector is left to the portable kernel.
 */
#include "packetfs_kernels_impl.h"

#ifdef PFS_X86_64

#include <immintrin.h>

#define AVX2 PFS_TARGET("avx2")
#define VECTOR 32
#define ACCUMULATORS 4
#define TURN (ACCUMULATORS * VECTOR)
/* counteq's accumulators count in bytes, which hold 255 hits. */
#define MAX_TURNS 255
/* Where the data come from memory rather than a cache, four parts side by side are read up to 1.4 times as fast as one. */
#define FAR_FROM ((size_t)4 << 20)

/* What add and counteq have summed up is in four 64-bit lanes; what xor has folded is the whole vector. */
AVX2 static inline __m256i absorb(enum pfs_op op, __m256i sum, __m256i data, __m256i imm)
{
    switch (op) {
    case PFS_COUNTEQ:
        return _mm256_sub_epi8(sum, _mm256_cmpeq_epi8(data, imm));
    case PFS_ADD:
        return _mm256_add_epi64(sum, _mm256_sad_epu8(_mm256_add_epi8(data, imm), _mm256_setzero_si256()));
    default:
        return _mm256_xor_si256(sum, data);
    }
}

/* Moves what an accumulator holds over to the total. */
AVX2 static inline __m256i flush(enum pfs_op op, __m256i total, __m256i sum)
{
    switch (op) {
    case PFS_COUNTEQ:
        return _mm256_add_epi64(total, _mm256_sad_epu8(sum, _mm256_setzero_si256()));
    case PFS_ADD:
        return _mm256_add_epi64(total, sum);
    default:
        return _mm256_xor_si256(total, sum);
    }
}

AVX2 static inline __m256i load(const uint8_t *data)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)data);
}

/* ff in the first `count` bytes. */
AVX2 static inline __m256i first(size_t count)
{
    static const uint8_t SLIDE[2 * VECTOR] = {
        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    };
    return load(SLIDE + VECTOR - count);
}

/* One vector, of which the kept bytes count. In the others stands what counts as nothing: where counteq looks for imm
 * anything else, where add makes bytes of 0 its negation. */
AVX2 static inline __m256i some(enum pfs_op op, __m256i total, __m256i data, __m256i keep, __m256i imm)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i nothing = op == PFS_COUNTEQ ? _mm256_cmpeq_epi8(imm, zero) : op == PFS_ADD ? _mm256_sub_epi8(zero, imm) : zero;
    return flush(op, total, absorb(op, zero, _mm256_blendv_epi8(nothing, data, keep), imm));
}

/* So many turns: each accumulator takes a vector, and they are `gap` apart: neighbours, or each in a part of its own. */
AVX2 static inline __m256i turns(enum pfs_op op, __m256i total, const uint8_t *data, size_t count, size_t gap, __m256i imm)
{
    const size_t step = gap == VECTOR ? TURN : VECTOR;
    while (count) {
        size_t now = count < MAX_TURNS ? count : MAX_TURNS;
        __m256i sums[ACCUMULATORS];
        for (int k = 0; k < ACCUMULATORS; k++)
            sums[k] = _mm256_setzero_si256();
        for (size_t i = 0; i < now; i++, data += step)
            for (int k = 0; k < ACCUMULATORS; k++)
                sums[k] = absorb(op, sums[k], load(data + gap * k), imm);
        for (int k = 0; k < ACCUMULATORS; k++)
            total = flush(op, total, sums[k]);
        count -= now;
    }
    return total;
}

/* Of VECTOR bytes and more. */
AVX2 static inline __m256i walk(enum pfs_op op, const uint8_t *data, size_t len, uint8_t byte)
{
    const __m256i imm = _mm256_set1_epi8((char)byte);
    __m256i total = _mm256_setzero_si256();
    size_t head = (0 - (uintptr_t)data) % VECTOR;
    if (head && len >= TURN) {
        total = some(op, total, load(data), first(head), imm);
        data += head;
        len -= head;
    }
    if (len >= FAR_FROM) {
        size_t part = pfs_part(len, VECTOR);
        total = turns(op, total, data, part / VECTOR, part, imm);
        data += ACCUMULATORS * part;
        len -= ACCUMULATORS * part;
    }
    total = turns(op, total, data, len / TURN, VECTOR, imm);
    data += len - len % TURN;
    len %= TURN;
    for (; len >= VECTOR; data += VECTOR, len -= VECTOR)
        total = flush(op, total, absorb(op, _mm256_setzero_si256(), load(data), imm));
    if (len) {
        __m256i last = _mm256_xor_si256(first(VECTOR - len), _mm256_set1_epi8(-1));
        total = some(op, total, load(data + len - VECTOR), last, imm);
    }
    return total;
}

/* The sum of four 64-bit lanes. */
AVX2 static inline uint64_t sum_of(__m256i lanes)
{
    __m128i half = _mm_add_epi64(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    return (uint64_t)_mm_cvtsi128_si64(half) + (uint64_t)_mm_extract_epi64(half, 1);
}

AVX2 uint64_t pfs_counteq_avx2(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    if (len < VECTOR)
        return pfs_counteq_portable(value, data, len, imm);
    return value + sum_of(walk(PFS_COUNTEQ, data, len, imm));
}

AVX2 uint64_t pfs_add_avx2(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    if (len < VECTOR)
        return pfs_add_portable(value, data, len, imm);
    return value + sum_of(walk(PFS_ADD, data, len, imm));
}

AVX2 uint64_t pfs_xor_avx2(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    if (len < VECTOR)
        return pfs_xor_portable(value, data, len, imm);
    __m256i folded = walk(PFS_XOR, data, len, 0);
    __m128i half = _mm_xor_si128(_mm256_castsi256_si128(folded), _mm256_extracti128_si256(folded, 1));
    uint64_t word = (uint64_t)(_mm_cvtsi128_si64(half) ^ _mm_extract_epi64(half, 1));
    /* imm comes in once a byte: an even number of times it cancels. */
    return value ^ pfs_fold_bytes(word) ^ (len % 2 ? imm : 0);
}

#else
typedef int pfs_bytes_avx2_is_for_x86_64; /* ISO C forbids an empty translation unit */
#endif
