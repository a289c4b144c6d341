/* FNV-1a 64 with AVX-512 VNNI, GFNI, VBMI and VPCLMULQDQ: the way of fnv64_simd.h with the steps of a segment in a byte.
 *
 * A byte of a plane is a segment's eight steps, so a pass is one multiplication of bits by a matrix, and so is turning
 * eight bytes into their planes, or back. docs/fnv.md tells the rest.
 */
#include "packetfs_kernels_impl.h"

#include <string.h>

#ifdef PFS_X86_64

#define FNV_TARGET                                                                                                    \
    PFS_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,vpclmulqdq,pclmul")
#define FNV_LANES 4
#define FNV_PCLMUL
#define FNV_VNNI
#include "fnv64_x86.h"

#include "fnv64_parts.h"

/* From how many bytes on this is faster. */
#define FNV_FROM (6 * FNV_CHUNK)

/* A chunk is 64 lines of a vector each, in eight blocks: block c is the lines 8a + c. Segment (a, c, lane, h), in this
 * order, is half h of a lane of line 8a + c. As a byte, its place in block c's vectors is 2a + h of its lane; of its
 * eight bits the first step's is the highest. */
struct fnv64_chunk {
    vec plane[8][8]; /* by block and bit: of the bytes, then of u; in between, of u without its start */
};

struct fnv64_state {
    uint64_t serial; /* the value at the start, moved on as if all bytes were 0 */
    vec totals[2];   /* what the bytes of the halves of lanes added to it, moved on likewise */
    vec sums[2][4];  /* what those of a chunk that is not yet among them add */
    vec low[8];      /* bit k of the low byte before the next chunk, in every bit */
};

/* The weight of step t of half a lane of a line: p to how many bytes it stands before the end of the same half and lane
 * of the last line. Halves and lanes are moved on by a power of p in the end. */
#define FNV_W1(line, t, d) FNV_DIGIT(FNV_POWER(64 * (63 - (line)) + 8 - (t)), d)
#define FNV_W8(line, d)                                                                                               \
    {                                                                                                                 \
        FNV_W1(line, 0, d), FNV_W1(line, 1, d), FNV_W1(line, 2, d), FNV_W1(line, 3, d), FNV_W1(line, 4, d),            \
            FNV_W1(line, 5, d), FNV_W1(line, 6, d), FNV_W1(line, 7, d)                                                 \
    }
#define FNV_W32(line) {FNV_W8(line, 0), FNV_W8(line, 1), FNV_W8(line, 2), FNV_W8(line, 3)}
#define FNV_W256(c)                                                                                                   \
    {                                                                                                                 \
        FNV_W32(c), FNV_W32(c + 8), FNV_W32(c + 16), FNV_W32(c + 24), FNV_W32(c + 32), FNV_W32(c + 40),                \
            FNV_W32(c + 48), FNV_W32(c + 56)                                                                           \
    }
static const _Alignas(64) uint16_t FNV_WEIGHTS[8][8][4][8] = {
    FNV_W256(0), FNV_W256(1), FNV_W256(2), FNV_W256(3), FNV_W256(4), FNV_W256(5), FNV_W256(6), FNV_W256(7),
};

/* ---- matrices ---- */

/* Each byte of x times the matrix of bits in its 64: bit j of the product is the parity of x & the matrix's byte 7 - j. */
#define FNV_TIMES(x, matrix) _mm512_gf2p8affine_epi64_epi8(x, matrix, 0)
#define FNV_SPLAT64(n) _mm512_set1_epi64((int64_t)UINT64_C(n))

/* With the vector as the matrices, eight times one bit: the bytes that stand in 64 bits become their planes, bit i of
 * all in byte i, that of the first byte highest; and planes, the last bit's first, become bytes again. */
#define FNV_PLANES(bytes) FNV_TIMES(FNV_SPLAT64(0x8040201008040201), bytes)
#define FNV_BYTES(planes) FNV_TIMES(FNV_SPLAT64(0x0102040810204080), planes)

/* Of each step the XOR of the steps before it; and in the first step's place, before which is none, of all eight. */
#define FNV_PREFIXES FNV_SPLAT64(0xfefcf8f0e0c080ff)
#define FNV_REST V_SPLAT(0x7f)
#define FNV_ALL V_SPLAT(0x80)
/* The highest bit in all eight. */
#define FNV_HIGHEST FNV_SPLAT64(0x8080808080808080)

/* For vpermb: from byte 2a + h of a lane to 7 - (2 * lane + h) of the a-th 64 bits, and from 2 * lane + h there back. */
#define FNV_TO(a) 49 + 2 * (a), 48 + 2 * (a), 33 + 2 * (a), 32 + 2 * (a), 17 + 2 * (a), 16 + 2 * (a), 1 + 2 * (a), 2 * (a)
#define FNV_FROM2(lane, a) 8 * (a) + 2 * (lane), 8 * (a) + 2 * (lane) + 1
#define FNV_FROM16(lane)                                                                                              \
    FNV_FROM2(lane, 0), FNV_FROM2(lane, 1), FNV_FROM2(lane, 2), FNV_FROM2(lane, 3), FNV_FROM2(lane, 4),                \
        FNV_FROM2(lane, 5), FNV_FROM2(lane, 6), FNV_FROM2(lane, 7)
static const _Alignas(64) uint8_t FNV_IN_TIME[64] = {
    FNV_TO(0), FNV_TO(1), FNV_TO(2), FNV_TO(3), FNV_TO(4), FNV_TO(5), FNV_TO(6), FNV_TO(7),
};
static const _Alignas(64) uint8_t FNV_IN_PLACE[64] = {FNV_FROM16(0), FNV_FROM16(1), FNV_FROM16(2), FNV_FROM16(3)};

/* Matrices: for each 64 bits the bits of the earlier ones. */
#define FNV_BELOW(i) ((1 << (i)) - 1) * UINT64_C(0x0101010101010101)
static const _Alignas(64) uint64_t FNV_EARLIER[8] = {
    FNV_BELOW(0), FNV_BELOW(1), FNV_BELOW(2), FNV_BELOW(3), FNV_BELOW(4), FNV_BELOW(5), FNV_BELOW(6), FNV_BELOW(7),
};

/* ---- the low byte's chain ---- */

FNV_WITHIN void fnv64_planes(struct fnv64_chunk *chunk, const uint8_t *data, int c)
{
    vec x[8], y[8];
    FNV_EACH(a, 8)
        x[a] = FNV_PLANES(V_LOAD(data + 64 * (8 * a + c)));
    FNV_SHUFFLE(y, x)
    FNV_SHUFFLE(x, y)
    FNV_SHUFFLE(y, x)
    FNV_SHUFFLE(x, y)
    FNV_EACH(k, 8)
        chunk->plane[c][k] = x[k];
}

/* Bit k at the start of each segment, from what each turns its own into: the XOR of those before it and of *low, which is
 * moved on. Block c is bit c of turns, and bit 7 - c of the starts. */
FNV_WITHIN vec fnv64_starts(vec turns, vec *low)
{
    const vec ones = V_SPLAT(0xff);
    /* 512 bits in the order of time, and of each 64 of them the prefix XOR: the carry-less product with all ones. */
    vec bits = FNV_PLANES(_mm512_permutexvar_epi8(_mm512_load_si512(FNV_IN_TIME), turns));
    vec prefix = _mm512_unpacklo_epi64(_mm512_clmulepi64_epi128(bits, ones, 0x00),
                                       _mm512_clmulepi64_epi128(bits, ones, 0x01));
    /* The last bit of each 64, all in one byte, which is everywhere. */
    vec last = FNV_TIMES(V_SPLAT(0x80), _mm512_permutexvar_epi8(FNV_SPLAT64(0x070f171f272f373f), prefix));
    vec before = FNV_TIMES(last, _mm512_load_si512(FNV_EARLIER));
    before = V_XOR(before, V_XOR3(prefix, bits, *low));
    *low = V_XOR(*low, FNV_TIMES(last, ones));
    return _mm512_permutexvar_epi8(_mm512_load_si512(FNV_IN_PLACE), FNV_PLANES(before));
}

/* ---- the dot product ---- */

/* Block c's bytes u, a vector a line, but for the matrix that makes them bytes. */
#define FNV_LINES(lines, chunk, c)                                                                                    \
    do {                                                                                                              \
        vec planes[8];                                                                                                \
        FNV_EACH(k, 8)                                                                                                \
            planes[7 - k] = (chunk)->plane[c][k];                                                                     \
        FNV_SHUFFLE(lines, planes)                                                                                    \
        FNV_SHUFFLE(planes, lines)                                                                                    \
        FNV_SHUFFLE(lines, planes)                                                                                    \
    } while (0)

/* Keeps compilers from fetching a whole chunk at once, which is more than the CPU can ask memory for: p waits for a. */
#if defined(__GNUC__)
#define FNV_AFTER(p, a) __asm__("" : "+r"(p) : "v"(a))
#else
#define FNV_AFTER(p, a)
#endif

/* Add line a of block c: each d = u - l times its weight, where l, the low byte before the XOR, is u ^ byte. A line of
 * what comes is fetched, one after the other. */
FNV_WITHIN void fnv64_add(vec sums[2][4], const uint8_t *data, vec line, int c, int a)
{
    vec u = FNV_BYTES(line), l = V_XOR(u, V_LOAD(data + 64 * (8 * a + c)));
    vec low = V_DIFF_LOW(u, l), high = V_DIFF_HIGH(u, l);
    uintptr_t ahead = (uintptr_t)data + FNV_AHEAD;
    FNV_AFTER(ahead, u);
    FNV_PREFETCH(ahead + 64 * (8 * c + a));
    FNV_EACH(d, 4) {
        vec weights = V_LANES(FNV_WEIGHTS[c][a][d]);
        sums[0][d] = V_DOT(sums[0][d], low, weights);
        sums[1][d] = V_DOT(sums[1][d], high, weights);
    }
}

/* A sum of 32 bits takes 64 vectors, of each two products of at most 255 * 2^15: together 2^30. */
FNV_WITHIN void fnv64_sum_up(struct fnv64_state *state)
{
    FNV_EACH(half, 2) {
        state->totals[half] = fnv64_moved_on(state->totals[half], state->sums[half]);
        FNV_EACH(d, 4)
            state->sums[half][d] = V_ZERO;
    }
}

/* ---- the passes ---- */

/* Of block c: u of plane k without its starts, and what each segment turns its start into, a block a bit. */
#define FNV_CARRY(k, byte_and_f)                                                                                      \
    do {                                                                                                              \
        vec before = FNV_TIMES(byte_and_f, FNV_PREFIXES);                                                             \
        u[k] = _mm512_ternarylogic_epi64(u[k], before, FNV_REST, 0x78); /* u ^ (before & rest) */                     \
        turns = V_KEEP(before, FNV_ALL, V_RIGHT16(turns, 1));                                                         \
        if (last)                                                                                                     \
            fnv64_add(sums, last, lines[c], k, c);                                                                    \
    } while (0)

/* The starts take long, and nothing else of this chunk can go on without them: meanwhile a block of the next one does. */
#define FNV_START(k)                                                                                                  \
    do {                                                                                                              \
        starts = fnv64_starts(turns, &state->low[k]);                                                                 \
        if (next)                                                                                                     \
            fnv64_planes(other, next, k);                                                                             \
        if (last && k < 7)                                                                                            \
            FNV_LINES(lines, other, (k + 1) % 8);                                                                     \
    } while (0)

/* Pass k: u of plane k - 1, then g (and w) from it, then plane k. Beside each block goes a line of the last chunk. */
#define FNV_PASS(k, g_and_w, byte_and_f)                                                                              \
    turns = V_ZERO;                                                                                                   \
    FNV_EACH(c, 8) {                                                                                                  \
        vec *u = now->plane[c];                                                                                       \
        u[k - 1] = V_XOR(u[k - 1], FNV_TIMES(starts, FNV_HIGHEST));                                                   \
        starts = _mm512_add_epi8(starts, starts);                                                                     \
        g_and_w;                                                                                                      \
        FNV_CARRY(k, byte_and_f);                                                                                     \
    }                                                                                                                 \
    FNV_START(k)
#define FNV_G(k) V_ANDNOT(V_XOR(u[k], u[k - 1]), g[c])
#define FNV_W(v, below, above) V_XOR3(above, below, V_AND(w[c], V_XOR(v, below)))

/* The planes of u of this chunk, while the other holds the last one's, which are added up block by block, and takes the
 * next one's in their place. f is made of g and w as in fnv64_simd.h. */
FNV_WITHIN void fnv64_passes(struct fnv64_chunk *now, struct fnv64_chunk *other, struct fnv64_state *state,
                                           const uint8_t *next, const uint8_t *last)
{
    vec lines[8], g[8], w[8], turns = V_ZERO, starts, sums[2][4];
    FNV_EACH(d, 4) {
        sums[0][d] = state->sums[0][d];
        sums[1][d] = state->sums[1][d];
    }
    if (last)
        FNV_LINES(lines, other, 0);
    FNV_EACH(c, 8) {
        vec *u = now->plane[c];
        FNV_CARRY(0, u[0]);
    }
    FNV_START(0);
    FNV_PASS(1, , V_XOR(u[1], u[0]));
    FNV_PASS(2, g[c] = V_ANDNOT(u[1], u[0]), V_XOR(u[2], g[c]));
    FNV_PASS(3, g[c] = FNV_G(2), V_XOR(u[3], g[c]));
    FNV_PASS(4, g[c] = FNV_G(3), V_XOR3(u[4], g[c], u[0]));
    FNV_PASS(5, w[c] = V_XOR3(u[1], u[0], V_AND(u[0], V_XOR(u[4], g[c]))); g[c] = FNV_G(4), V_XOR3(u[5], g[c], w[c]));
    FNV_PASS(6, vec v1 = V_XOR(u[1], u[0]); vec v2 = V_XOR(u[2], V_ANDNOT(u[1], u[0]));
             w[c] = FNV_W(V_XOR(u[5], g[c]), v1, v2); g[c] = FNV_G(5), V_XOR3(u[6], g[c], w[c]));
    FNV_PASS(7, vec g2 = V_ANDNOT(u[1], u[0]); vec v2 = V_XOR(u[2], g2);
             vec v3 = V_XOR(u[3], V_ANDNOT(V_XOR(u[2], u[1]), g2));
             w[c] = FNV_W(V_XOR(u[6], g[c]), v2, v3); g[c] = FNV_G(6), V_XOR(V_XOR3(u[7], g[c], w[c]), u[0]));
    FNV_EACH(c, 8) {
        now->plane[c][7] = V_XOR(now->plane[c][7], FNV_TIMES(starts, FNV_HIGHEST));
        starts = _mm512_add_epi8(starts, starts);
    }
    FNV_EACH(d, 4) {
        state->sums[0][d] = sums[0][d];
        state->sums[1][d] = sums[1][d];
    }
    state->serial *= FNV_POWER(FNV_CHUNK);
    if (last)
        fnv64_sum_up(state);
}

/* ---- the kernel ---- */

FNV_STAGE void fnv64_first(struct fnv64_chunk *now, struct fnv64_chunk *other, struct fnv64_state *state,
                           const uint8_t *data)
{
    for (int c = 0; c < 8; c++)
        fnv64_planes(now, data, c);
    fnv64_passes(now, other, state, data + FNV_CHUNK, NULL);
}

FNV_STAGE void fnv64_middle(struct fnv64_chunk *now, struct fnv64_chunk *other, struct fnv64_state *state,
                            const uint8_t *data)
{
    fnv64_passes(now, other, state, data + FNV_CHUNK, data - FNV_CHUNK);
}

FNV_STAGE void fnv64_last(struct fnv64_chunk *now, struct fnv64_chunk *other, struct fnv64_state *state,
                          const uint8_t *data)
{
    fnv64_passes(now, other, state, NULL, data - FNV_CHUNK);
    for (int c = 0; c < 8; c++) {
        vec lines[8];
        FNV_LINES(lines, now, c);
        FNV_EACH(a, 8)
            fnv64_add(state->sums, data, lines[a], c, a);
    }
    fnv64_sum_up(state);
}

FNV_TARGET static inline uint64_t fnv64_finish(const struct fnv64_state *state)
{
    uint64_t lanes[2 * FNV_LANES], value = 0;
    V_TO64(lanes, V_ADD64(V_MUL64(state->totals[0], FNV_POWER(8)), state->totals[1]));
    for (int i = 0; i < FNV_LANES; i++)
        value = value * FNV_POWER(16) + lanes[2 * i] + lanes[2 * i + 1];
    return value + state->serial;
}

/* Loads that straddle no two cache lines are 1.03 times as fast from memory; in cache they gain nothing. */
#define ALIGNED_FROM ((size_t)1 << 20)

FNV_TARGET uint64_t pfs_fnv64_avx512gfni(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    if (len < FNV_FROM)
        return pfs_fnv64_avx512vnni(value, data, len, imm);
    if (len >= ALIGNED_FROM) {
        size_t head = (0 - (uintptr_t)data) % 64;
        value = pfs_fnv64_portable(value, data, head, imm);
        data += head;
        len -= head;
    }
    struct fnv64_chunk chunks[2], *now = &chunks[0], *other = &chunks[1];
    struct fnv64_state state;
    memset(&state, 0, sizeof state);
    state.serial = value;
    for (int k = 0; k < 8; k++)
        state.low[k] = V_SPLAT(value >> k & 1 ? 0xff : 0);
    const uint8_t *end = data + len / FNV_CHUNK * FNV_CHUNK, *last = end - FNV_CHUNK;
    fnv64_first(now, other, &state, data);
    for (data += FNV_CHUNK;; data += FNV_CHUNK) {
        struct fnv64_chunk *next = now;
        now = other;
        other = next;
        if (data == last)
            break;
        fnv64_middle(now, other, &state, data);
    }
    fnv64_last(now, other, &state, data);
    return pfs_fnv64_avx512vnni(fnv64_finish(&state), end, len % FNV_CHUNK, imm);
}

#else
typedef int pfs_fnv64_avx512gfni_is_for_x86_64; /* ISO C forbids an empty translation unit */
#endif
