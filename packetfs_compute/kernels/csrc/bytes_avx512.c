/* counteq, xor and add with AVX-512: one walk over the data in vectors of 64 bytes, with three bodies; and all at once.
 *
 * The walk is the same for all: up to a 64-byte boundary with a masked load (CPython's bytes begin 16 bytes off one at
 * best, and a load that straddles two cache lines costs two), then four vectors a turn into four accumulators, and a
 * masked load for what is left. A lane that the mask leaves out is not read at all, so none of it can fault.
 */
#include "packetfs_kernels_impl.h"

#ifdef PFS_X86_64

#include <immintrin.h>

#define AVX512 PFS_TARGET("avx512f,avx512bw,avx512dq,avx512vl")
#define VECTOR 64
#define ACCUMULATORS 4
#define TURN (ACCUMULATORS * VECTOR)
/* counteq's accumulators count in bytes, which hold 255 hits. */
#define MAX_TURNS 255
/* Where the data come from memory rather than a cache, four parts side by side are read up to 1.4 times as fast as one. */
#define FAR_FROM ((size_t)4 << 20)
/* Beyond the third-level cache too, each line is asked for so many bytes ahead of itself, into the second-level one, where the
 * CPU foresees nothing of the next page of 4 KiB. Measured on Zen 4: xor is 1.1 to 1.2 times as fast by it, add and counteq
 * 1.03 to 1.07; half as far gains less, and with twice as far and more those two lose up to a sixth. Of what is in the
 * third-level cache it would cost a fifth. */
#define COLD_FROM ((size_t)32 << 20)
#define AHEAD 1024

/* What add and counteq have summed up is in eight 64-bit lanes; what xor has folded is the whole vector. */
AVX512 static inline __m512i absorb(enum pfs_op op, __m512i sum, __m512i data, __m512i imm, __mmask64 lanes)
{
    switch (op) {
    case PFS_COUNTEQ:
        return _mm512_mask_sub_epi8(sum, _mm512_mask_cmpeq_epi8_mask(lanes, data, imm), sum, _mm512_set1_epi8(-1));
    case PFS_ADD:
        return _mm512_add_epi64(sum, _mm512_sad_epu8(_mm512_maskz_add_epi8(lanes, data, imm), _mm512_setzero_si512()));
    default:
        return _mm512_xor_si512(sum, data);
    }
}

/* Moves what an accumulator holds over to the total. */
AVX512 static inline __m512i flush(enum pfs_op op, __m512i total, __m512i sum)
{
    switch (op) {
    case PFS_COUNTEQ:
        return _mm512_add_epi64(total, _mm512_sad_epu8(sum, _mm512_setzero_si512()));
    case PFS_ADD:
        return _mm512_add_epi64(total, sum);
    default:
        return _mm512_xor_si512(total, sum);
    }
}

AVX512 static inline __m512i some(enum pfs_op op, __m512i total, const uint8_t *data, size_t len, __m512i imm)
{
    __mmask64 lanes = len < VECTOR ? (UINT64_C(1) << len) - 1 : UINT64_MAX;
    return flush(op, total, absorb(op, _mm512_setzero_si512(), _mm512_maskz_loadu_epi8(lanes, data), imm, lanes));
}

/* So many turns: each accumulator takes a vector, and they are `gap` apart: neighbours, or each in a part of its own, where
 * what comes `ahead` bytes later may be prefetched. That may be beyond the data: a prefetch reads nothing. */
AVX512 static inline __m512i turns(enum pfs_op op, __m512i total, const uint8_t *data, size_t count, size_t gap,
                                   size_t ahead, __m512i imm)
{
    const size_t step = gap == VECTOR ? TURN : VECTOR;
    while (count) {
        size_t now = count < MAX_TURNS ? count : MAX_TURNS;
        __m512i sums[ACCUMULATORS];
        for (int k = 0; k < ACCUMULATORS; k++)
            sums[k] = _mm512_setzero_si512();
        for (size_t i = 0; i < now; i++, data += step)
            for (int k = 0; k < ACCUMULATORS; k++) {
                if (ahead)
                    _mm_prefetch((const char *)((uintptr_t)data + gap * k + ahead), _MM_HINT_T1);
                sums[k] = absorb(op, sums[k], _mm512_loadu_si512(data + gap * k), imm, UINT64_MAX);
            }
        for (int k = 0; k < ACCUMULATORS; k++)
            total = flush(op, total, sums[k]);
        count -= now;
    }
    return total;
}

AVX512 static inline __m512i walk(enum pfs_op op, const uint8_t *data, size_t len, uint8_t byte)
{
    const __m512i imm = _mm512_set1_epi8((char)byte);
    __m512i total = _mm512_setzero_si512();
    size_t head = (0 - (uintptr_t)data) % VECTOR;
    if (head && len >= TURN) {
        total = some(op, total, data, head, imm);
        data += head;
        len -= head;
    }
    if (len >= FAR_FROM) {
        size_t part = pfs_part(len, VECTOR);
        total = len < COLD_FROM ? turns(op, total, data, part / VECTOR, part, 0, imm)
                                : turns(op, total, data, part / VECTOR, part, AHEAD, imm);
        data += ACCUMULATORS * part;
        len -= ACCUMULATORS * part;
    }
    total = turns(op, total, data, len / TURN, VECTOR, 0, imm);
    data += len - len % TURN;
    len %= TURN;
    for (; len >= VECTOR; data += VECTOR, len -= VECTOR)
        total = some(op, total, data, VECTOR, imm);
    return len ? some(op, total, data, len, imm) : total;
}

AVX512 static inline uint64_t total_of(__m512i lanes)
{
    return (uint64_t)_mm512_reduce_add_epi64(lanes);
}

/* The XOR of all bytes. */
AVX512 static inline uint64_t byte_of(__m512i folded)
{
    __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(folded), _mm512_extracti64x4_epi64(folded, 1));
    __m128i quarter = _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    return pfs_fold_bytes((uint64_t)(_mm_cvtsi128_si64(quarter) ^ _mm_extract_epi64(quarter, 1)));
}

AVX512 uint64_t pfs_counteq_avx512(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    return value + total_of(walk(PFS_COUNTEQ, data, len, imm));
}

AVX512 uint64_t pfs_add_avx512(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    return value + total_of(walk(PFS_ADD, data, len, imm));
}

AVX512 uint64_t pfs_xor_avx512(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    /* imm comes in once a byte: an even number of times it cancels. */
    return value ^ byte_of(walk(PFS_XOR, data, len, 0)) ^ (len % 2 ? imm : 0);
}

/* Vectors a turn of all three together, whose accumulators take the registers that four vectors of one would. Of a plan with
 * all five ops it saves a twentieth, from memory as in cache. */
#define SHARED 2

AVX512 void pfs_bytes_avx512(struct pfs_step *counteq, struct pfs_step *xor, struct pfs_step *add, const uint8_t *data,
                             size_t len)
{
    const __m512i wanted = _mm512_set1_epi8((char)counteq->imm), added = _mm512_set1_epi8((char)add->imm);
    __m512i hits = _mm512_setzero_si512(), sum = hits, folded = hits;
    size_t turns = len / (SHARED * VECTOR);
    len -= turns * SHARED * VECTOR;
    while (turns) {
        size_t now = turns < MAX_TURNS ? turns : MAX_TURNS;
        __m512i h[SHARED], s[SHARED], f[SHARED];
        for (int k = 0; k < SHARED; k++)
            h[k] = s[k] = f[k] = _mm512_setzero_si512();
        for (size_t i = 0; i < now; i++)
            for (int k = 0; k < SHARED; k++, data += VECTOR) {
                __m512i v = _mm512_loadu_si512(data);
                h[k] = absorb(PFS_COUNTEQ, h[k], v, wanted, UINT64_MAX);
                s[k] = absorb(PFS_ADD, s[k], v, added, UINT64_MAX);
                f[k] = absorb(PFS_XOR, f[k], v, v, UINT64_MAX);
            }
        for (int k = 0; k < SHARED; k++) {
            hits = flush(PFS_COUNTEQ, hits, h[k]);
            sum = flush(PFS_ADD, sum, s[k]);
            folded = flush(PFS_XOR, folded, f[k]);
        }
        turns -= now;
    }
    counteq->value = pfs_counteq_avx512(counteq->value + total_of(hits), data, len, counteq->imm);
    add->value = pfs_add_avx512(add->value + total_of(sum), data, len, add->imm);
    xor->value = pfs_xor_avx512(xor->value ^ byte_of(folded), data, len, xor->imm);
}

#else
typedef int pfs_bytes_avx512_is_for_x86_64; /* ISO C forbids an empty translation unit */
#endif
