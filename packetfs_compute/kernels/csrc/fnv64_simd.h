/* FNV-1a 64 on vectors: how the serial chain of multiplications is broken. docs/fnv.md derives it, in the same words.
 *
 * A template. fnv64_<instruction set>.c includes it after it has said what a vector is:
 *
 *   FNV_NAME           the function to define               FNV_TARGET           what stands before every function
 *   FNV_NARROWER       the kernel for what is too short     FNV_PAD_FROM         bytes from which on a chunk pays
 *   FNV_LANES          128-bit lanes in a vector            vec, lane            the types of a vector and of one lane
 *   V_LOAD(p)          at any alignment                     V_LANES(p)           the lane at p, aligned, in every lane
 *   V_ZERO             V_SPLAT(byte)                        V_TO64(out, a)       stores 2 * FNV_LANES numbers
 *   V_XOR(a, b)        V_XOR3(a, b, c)                      V_AND(a, b)          V_ANDNOT(a, b) is a & ~b
 *   V_LEFT16(a, n)     V_RIGHT16(a, n)                      by a constant in 16-bit lanes; V_LEFT64 in 64-bit lanes
 *   V_KEEP(a, m, b)    m ? a : b for each bit               V_TAKE(a, m, b)      m ? b : a; both only where they are
 *                                                           single instructions, which overwrite a
 *   V_LOW8(a, b)       the bytes of each lane's lower half  V_HIGH8(a, b)        and upper half, a's and b's by turns
 *   V_DIFF_LOW(a, b)   a - b for those bytes, as 16 bits    V_DIFF_HIGH(a, b)
 *   V_DOT(sum, a, b)   sums of 32 bits, plus the products of signed 16 bits, each somewhere in its lane
 *   V_PAIRS64(a)       the sum of each two signed 32 bits   V_ADD64(a, b)        V_MUL64(a, number)
 *   V_TOTAL(a)         the XOR of all lanes, as a lane      V_BEFORE(a)          of the lanes below, for each lane
 *   V_EVERY(x)         a lane in every lane                 L_XOR(x, y)
 *   L_FOLD(x)          in the low 64 bits, a byte for each 16 bits of x: the XOR of their two
 *   L_PREFIX(x)        each of the low 64 bits XOR all below it
 *   L_SPREAD(x)        each of the low 8 bytes twice        L_TOP(x)             bit 63 in every bit
 *   FNV_PREFETCH(p)
 */
#ifndef __wasm__
#include <string.h>
#endif
#include "fnv64_parts.h"

/* Bytes in a segment, each a step in time. */
#define FNV_STEPS 8
/* Of a chunk's 64 vectors, segment (j, r, lane, h), in this order, is half h of a lane of vector 8j + r. In the vectors
 * below it stands at bit r of byte 2j + h of its lane, or, as a byte, at 2j + h in vector r. */

/* FNV_ROLLED is for a compiler that copes badly with long code. */
#ifdef FNV_ROLLED
#define FNV_PART FNV_STAGE
#define FNV_LOOP(i, n) _Pragma("clang loop unroll(disable)") for (int i = 0; i < n; i++)
#else
#define FNV_PART FNV_TARGET static inline
#define FNV_LOOP(i, n) FNV_EACH(i, n)
#endif

/* ---- weights ---- */

/* The weight of byte y, lower than 8, of lane 0 in vector r at step t: p to how many bytes it stands before the end of
 * the last segment that is in this lane and half of the chunk. It is the same in other lanes and in the other half,
 * where y is 8 and more: their sums are moved on by a power of p in the end. */
#define FNV_LEFT(t, r, y) (16 * FNV_LANES * (31 - 8 * ((y) / 2) - (r)) + 8 * (1 - (y) % 2) + FNV_STEPS - (t))
#define FNV_W1(t, r, y, d) FNV_DIGIT(FNV_POWER(FNV_LEFT(t, r, y)), d)
#define FNV_W8(t, r, d)                                                                                               \
    {                                                                                                                 \
        FNV_W1(t, r, 0, d), FNV_W1(t, r, 1, d), FNV_W1(t, r, 2, d), FNV_W1(t, r, 3, d), FNV_W1(t, r, 4, d),            \
            FNV_W1(t, r, 5, d), FNV_W1(t, r, 6, d), FNV_W1(t, r, 7, d)                                                 \
    }
#define FNV_W32(t, r) {FNV_W8(t, r, 0), FNV_W8(t, r, 1), FNV_W8(t, r, 2), FNV_W8(t, r, 3)}
#define FNV_W256(t)                                                                                                   \
    {                                                                                                                 \
        FNV_W32(t, 0), FNV_W32(t, 1), FNV_W32(t, 2), FNV_W32(t, 3), FNV_W32(t, 4), FNV_W32(t, 5), FNV_W32(t, 6),       \
            FNV_W32(t, 7)                                                                                             \
    }
static const _Alignas(64) uint16_t FNV_WEIGHTS[FNV_STEPS][8][4][8] = {
    FNV_W256(0), FNV_W256(1), FNV_W256(2), FNV_W256(3), FNV_W256(4), FNV_W256(5), FNV_W256(6), FNV_W256(7),
};

struct fnv64_chunk {
    vec bytes[FNV_STEPS][8];
    vec plane[FNV_STEPS][8]; /* by bit: of the bytes, then of u; in planes 0 and 1, for a while, of z */
    vec y0, y1;              /* of planes 0 and 1, after the last step that was looked at */
};

struct fnv64_state {
    uint64_t serial; /* the value at the start, moved on as if all bytes were 0 */
    vec sums[2];     /* what the bytes of the halves of the chunks added to it, moved on likewise */
    vec low[8];      /* bit k of the low byte before the next chunk, in every bit */
};

/* ---- transpositions ---- */

/* Lines to bytes: byte t of every segment comes into vector t. */
FNV_STAGE void fnv64_bytes(struct fnv64_chunk *chunk, const uint8_t *data)
{
    for (int r = 0; r < 8; r++) {
        vec a[8], b[8];
        FNV_EACH(j, 8)
            a[j] = V_LOAD(data + (8 * j + r) * (16 * FNV_LANES));
        FNV_SHUFFLE(b, a)
        FNV_SHUFFLE(a, b)
        FNV_SHUFFLE(b, a)
        FNV_SHUFFLE(a, b)
        FNV_EACH(t, 8)
            chunk->bytes[t][r] = a[t];
    }
    chunk->y0 = chunk->y1 = V_ZERO;
}

/* Bytes to bit planes and back: at each place, bit k of x[r] and bit r of x[k] change places. */
#ifdef V_KEEP
#define FNV_SWAP(a, b, n, mask)                                                                                       \
    do {                                                                                                              \
        vec both = V_TAKE(V_LEFT16(b, n), mask, a);                                                                   \
        b = V_KEEP(V_RIGHT16(a, n), mask, b);                                                                         \
        a = both;                                                                                                     \
    } while (0)
#else
#define FNV_SWAP(a, b, n, mask)                                                                                       \
    do {                                                                                                              \
        vec differ = V_AND(V_XOR(V_RIGHT16(a, n), b), mask);                                                          \
        b = V_XOR(b, differ);                                                                                         \
        a = V_XOR(a, V_LEFT16(differ, n));                                                                            \
    } while (0)
#endif

FNV_TARGET static inline void fnv64_transpose(vec x[8])
{
    const vec low4 = V_SPLAT(0x0f), low2 = V_SPLAT(0x33), low1 = V_SPLAT(0x55);
    FNV_SWAP(x[0], x[4], 4, low4);
    FNV_SWAP(x[1], x[5], 4, low4);
    FNV_SWAP(x[2], x[6], 4, low4);
    FNV_SWAP(x[3], x[7], 4, low4);
    FNV_SWAP(x[0], x[2], 2, low2);
    FNV_SWAP(x[1], x[3], 2, low2);
    FNV_SWAP(x[4], x[6], 2, low2);
    FNV_SWAP(x[5], x[7], 2, low2);
    FNV_SWAP(x[0], x[1], 1, low1);
    FNV_SWAP(x[2], x[3], 1, low1);
    FNV_SWAP(x[4], x[5], 1, low1);
    FNV_SWAP(x[6], x[7], 1, low1);
}

/* ---- the low byte's chain ---- */

/* The planes of step t, and what planes 0 and 1 can know before their starts: z, in one pass. */
FNV_PART void fnv64_planes(struct fnv64_chunk *chunk, int t)
{
    vec x[8];
    FNV_EACH(r, 8)
        x[r] = chunk->bytes[t][r];
    fnv64_transpose(x);
    x[0] = chunk->y0 = V_XOR(chunk->y0, x[0]);
    x[1] = V_XOR(chunk->y1, x[1]);
    chunk->y1 = V_XOR(x[1], x[0]);
    FNV_EACH(k, 8)
        chunk->plane[t][k] = x[k];
}

/* Bit k at the start of each segment, from what each segment turns its own into: the XOR of those before it and of
 * *low, which is moved on. */
FNV_PART vec fnv64_starts(vec turns, vec *low)
{
    lane words = V_TOTAL(turns), pairs = L_FOLD(words), prefix = L_PREFIX(pairs);
    vec before = V_BEFORE(turns);
    before = V_XOR3(before, V_LEFT16(before, 8), V_RIGHT16(before, 8));
    before = V_XOR3(before, V_LEFT16(turns, 8), *low);
    *low = V_XOR(*low, V_EVERY(L_TOP(prefix)));
    return V_XOR(before, V_EVERY(L_SPREAD(L_XOR(prefix, pairs))));
}

/* Pass k: u of plane k - 1, then g (and w) from it, then z of plane k. Its starts take long, and nothing else of this
 * chunk can go on without them: meanwhile a step of the next chunk does. */
#define FNV_PASS(k, g_and_w, y_and_f)                                                                                 \
    y = V_ZERO;                                                                                                       \
    FNV_LOOP(t, 8) {                                                                                                  \
        vec *u = chunk->plane[t];                                                                                     \
        u[k - 1] = V_XOR(z[t], starts);                                                                               \
        g_and_w;                                                                                                      \
        z[t] = y = V_XOR(y, u[k]);                                                                                    \
        y = y_and_f;                                                                                                  \
    }                                                                                                                 \
    starts = fnv64_starts(y, &state->low[k]);                                                                         \
    if (next)                                                                                                         \
        fnv64_planes(next, k);
#define FNV_G(k) V_ANDNOT(V_XOR(u[k], u[k - 1]), g[t])
#define FNV_W(v, below, above) V_XOR3(above, below, V_AND(w[t], V_XOR(v, below)))

/* Planes of u, but for the last, which lacks the starts that are returned. 0xb3 * u is 3u + 16 * 3u + 128u: bit k of 3u
 * is v = u ^ g, and bit k of 3u + 16 * 3u is v ^ w. */
FNV_STAGE vec fnv64_passes(struct fnv64_chunk *chunk, struct fnv64_state *state, struct fnv64_chunk *next)
{
    vec z[8], g[8], w[8], y = V_ZERO;
    vec starts = fnv64_starts(chunk->y0, &state->low[0]), starts1 = fnv64_starts(chunk->y1, &state->low[1]);
    if (next) {
        fnv64_planes(next, 0);
        fnv64_planes(next, 1);
    }
    FNV_LOOP(t, 8) {
        vec *u = chunk->plane[t];
        u[0] = V_XOR(u[0], starts);
        /* f of plane 1 is u0, for which the pass took z0: after every other step the starts that it lacks are seen. */
        u[1] = V_XOR(u[1], starts1);
        starts1 = V_XOR(starts1, starts);
        g[t] = V_ANDNOT(u[1], u[0]);
        z[t] = y = V_XOR(y, u[2]);
        y = V_XOR(y, g[t]);
    }
    starts = fnv64_starts(y, &state->low[2]);
    if (next)
        fnv64_planes(next, 2);
    FNV_PASS(3, g[t] = FNV_G(2), V_XOR(y, g[t]))
    FNV_PASS(4, g[t] = FNV_G(3), V_XOR3(y, g[t], u[0]))
    FNV_PASS(5, w[t] = V_XOR3(u[1], u[0], V_AND(u[0], V_XOR(u[4], g[t]))); g[t] = FNV_G(4), V_XOR3(y, g[t], w[t]))
    FNV_PASS(6, vec v1 = V_XOR(u[1], u[0]); vec v2 = V_XOR(u[2], V_ANDNOT(u[1], u[0]));
             w[t] = FNV_W(V_XOR(u[5], g[t]), v1, v2); g[t] = FNV_G(5), V_XOR3(y, g[t], w[t]))
    FNV_PASS(7, vec g2 = V_ANDNOT(u[1], u[0]); vec v2 = V_XOR(u[2], g2);
             vec v3 = V_XOR(u[3], V_ANDNOT(V_XOR(u[2], u[1]), g2));
             w[t] = FNV_W(V_XOR(u[6], g[t]), v2, v3); g[t] = FNV_G(6), V_XOR3(y, V_XOR(g[t], w[t]), u[0]))
    FNV_LOOP(t, 8)
        chunk->plane[t][7] = z[t];
    return starts;
}

/* ---- the dot product ---- */

/* Keeps gcc from adding up products first and the sum last, for which it runs out of registers. */
#if defined(__GNUC__) && !defined(__clang__) && defined(PFS_X86_64)
#define FNV_SETTLE(sum) __asm__("" : "+x"(sum))
#else
#define FNV_SETTLE(sum)
#endif

/* Add step t: each d = u - l times its weight, where l, the low byte before the XOR, is u ^ byte. */
FNV_TARGET static inline void fnv64_add(vec sums[2][4], const struct fnv64_chunk *chunk, int t, vec starts7)
{
    vec u[8];
    FNV_EACH(k, 7)
        u[k] = chunk->plane[t][k];
    u[7] = V_XOR(chunk->plane[t][7], starts7);
    fnv64_transpose(u);
    FNV_LOOP(r, 8) {
        vec l = V_XOR(u[r], chunk->bytes[t][r]), low = V_DIFF_LOW(u[r], l), high = V_DIFF_HIGH(u[r], l);
        FNV_EACH(d, 4) {
            vec weights = V_LANES(FNV_WEIGHTS[t][r][d]);
            sums[0][d] = V_DOT(sums[0][d], low, weights);
            sums[1][d] = V_DOT(sums[1][d], high, weights);
            FNV_SETTLE(sums[0][d]);
            FNV_SETTLE(sums[1][d]);
        }
    }
}

/* The chunk's share of the sums. As many bytes ahead are fetched meanwhile.
 *
 * A sum of 32 bits takes 64 vectors, of each two products of at most 255 * 2^15: together 2^30. */
FNV_STAGE void fnv64_dot(const struct fnv64_chunk *chunk, struct fnv64_state *state, vec starts7, uintptr_t ahead)
{
    vec sums[2][4] = {{V_ZERO, V_ZERO, V_ZERO, V_ZERO}, {V_ZERO, V_ZERO, V_ZERO, V_ZERO}};
    for (int t = 0; t < FNV_STEPS; t++) {
        for (int i = 0; i < FNV_CHUNK / FNV_STEPS; i += 64)
            FNV_PREFETCH(ahead + t * (FNV_CHUNK / FNV_STEPS) + i);
        fnv64_add(sums, chunk, t, starts7);
    }
    FNV_EACH(half, 2)
        state->sums[half] = fnv64_moved_on(state->sums[half], sums[half]);
    state->serial *= FNV_POWER(FNV_CHUNK);
}

/* ---- the kernel ---- */

/* The input, in chunks. What is left in the end is filled up with zeros where that pays: a zero only multiplies the
 * value by p, which is undone. */
struct fnv64_input {
    const uint8_t *data;
    size_t len, zeros;
    uint8_t padded[FNV_CHUNK];
};

static inline const uint8_t *fnv64_take(struct fnv64_input *input)
{
    const uint8_t *chunk = input->data;
    if (input->len >= FNV_CHUNK) {
        input->data += FNV_CHUNK;
        input->len -= FNV_CHUNK;
        return chunk;
    }
#if FNV_PAD_FROM < FNV_CHUNK
    if (input->len >= FNV_PAD_FROM) {
        input->zeros = FNV_CHUNK - input->len;
        memcpy(input->padded, chunk, input->len);
        memset(input->padded + input->len, 0, input->zeros);
        input->len = 0;
        return input->padded;
    }
#endif
    return NULL;
}

FNV_TARGET static inline uint64_t fnv64_finish(const struct fnv64_state *state, size_t zeros)
{
    uint64_t lanes[2 * FNV_LANES], value = 0, inverse = FNV_INVERSE;
    V_TO64(lanes, V_ADD64(V_MUL64(state->sums[0], FNV_POWER(FNV_CHUNK / 2)), state->sums[1]));
    for (int i = 0; i < FNV_LANES; i++)
        value = value * FNV_POWER(16) + lanes[2 * i] + lanes[2 * i + 1];
    value += state->serial;
    for (; zeros; zeros >>= 1, inverse *= inverse)
        value *= zeros & 1 ? inverse : 1;
    return value;
}

FNV_TARGET uint64_t FNV_NAME(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    if (len < FNV_PAD_FROM)
        return FNV_NARROWER(value, data, len, imm);
    struct fnv64_chunk chunks[2], *now = &chunks[0], *next = &chunks[1];
    struct fnv64_state state; /* set field by field: without a libc there is no memset */
    state.serial = value;
    state.sums[0] = state.sums[1] = V_ZERO;
    for (int k = 0; k < 8; k++)
        state.low[k] = V_SPLAT(value >> k & 1 ? 0xff : 0);
    struct fnv64_input input;
    input.data = data;
    input.len = len;
    input.zeros = 0;
    const uint8_t *at = fnv64_take(&input);
    fnv64_bytes(now, at);
    for (int t = 0; t < FNV_STEPS; t++)
        fnv64_planes(now, t);
    while (now) {
        const uint8_t *chunk = fnv64_take(&input);
        if (chunk)
            fnv64_bytes(next, chunk);
        vec starts7 = fnv64_passes(now, &state, chunk ? next : NULL);
        fnv64_dot(now, &state, starts7, (uintptr_t)at + FNV_AHEAD);
        at = chunk;
        struct fnv64_chunk *done = now;
        now = chunk ? next : NULL;
        next = done;
    }
    return FNV_NARROWER(fnv64_finish(&state, input.zeros), input.data, input.len, imm);
}
