/* CRC-32C by carry-less multiplication beside the CRC instruction: included by crc32c_sse42.c, crc32c_avx2.c and
 * crc32c_avx512.c, which have the same loops over vectors of 16, 32 and 64 bytes.
 *
 * Folding (Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel, 2009): 16
 * bytes are a polynomial V of degree 127, whose highest power is the first bit of the first byte. Mod P, V may be added
 * D bits further on as V * x^D = first * x^(D + 64) + last * x^D, first and last its halves, the powers mod P. Halves and
 * powers are bit-reflected; x^0 stands in bit 63 of both, and in bit 126 of their product of 128, one too low. So the
 * factors are x^(D + 63) and x^(D - 1). Four vectors side by side, a stride, are folded onto the next stride; at the end
 * each 16 bytes are folded onto the last ones, by a way of their own, which for the last is D = 0. What is left is V, and
 * the register after it is V * x^32 mod P: what crc32q makes of its two halves.
 *
 * Streams (Gopal et al., "Fast CRC Computation for iSCSI Polynomial Using CRC32 Instruction", Intel, 2011): crc32q takes
 * eight bytes and has a latency of three cycles but a throughput of one, so three neighbours run side by side.
 *
 * The two use different units of the CPU, so a block is both at once: a folded part F and, behind it, the streams A, B, C:
 * crc * x^(all bits) + F * x^(3n) + A * x^(2n) + B * x^n + C for streams of n bits. Multiplying a register by x^k is
 * crc32q(0, clmul(register, x^(k - 33))): crc32q multiplies by x^32, and the product of two reflected polynomials of 32
 * bits stands one power too high in 64.
 *
 * The file that includes this defines TARGET, vector and its operations LOAD, XOR3, CLMUL, FROM_PAIR, FROM_64 and
 * lanes_added; STEPS, the 8-byte steps of each stream a stride; AHEAD, a pair for D = 8 * STRIDE; the blocks LONG and
 * SHORT; BLOCKS_UP_TO, the bytes up to which blocks are faster than folding alone. tests/unit/kernels/test_kernels_crc.py
 * computes every constant anew.
 */
#define VECTOR ((int)sizeof(vector))
#define VECTORS 4
#define STRIDE ((size_t)(VECTORS * VECTOR))
/* The cache lines of a block, a stride, rounded. */
#define LINES ((STRIDE + 3 * 8 * STEPS + 32) / 64)

/* The two factors for one D, in the upper half of 64 bits each. */
#define PAIR(first, last) {0, UINT32_C(first), 0, UINT32_C(last)}

/* For D = 128 * (15 - i), i = 0..15. */
static const uint32_t TO_THE_END[16][4] = {
    PAIR(0xce937661, 0x048dc5cc), PAIR(0x0d62d3a3, 0xad327462), PAIR(0xe6040d5a, 0x57060022),
    PAIR(0x7ccbbbf2, 0x31c94608), PAIR(0xacecf924, 0xc54608cd), PAIR(0x3207b4fe, 0x3fc16b86),
    PAIR(0xcf23ab10, 0xcf519517), PAIR(0x6577b245, 0x7417153f), PAIR(0x169472b6, 0x963e61cd),
    PAIR(0xc92f998d, 0x3365346a), PAIR(0x1c42da43, 0x6d883e38), PAIR(0x1c19243b, 0x75bba45b),
    PAIR(0xa46ef4aa, 0x6051243f), PAIR(0x33ccbbbc, 0xa2158b34), PAIR(0x3743f7bd, 0x3171d430),
    PAIR(0xdd45aab8, 0x05ec76f1),
};

/* A block of F, A, B, C: so many strides are folded and, but for the first, each has its steps of the streams. */
struct block {
    size_t strides;
    uint32_t x_all, x_3n, x_2n, x_n; /* the exponents less 33 */
};

static const struct block LONG_BLOCK = LONG, SHORT_BLOCK = SHORT;

/* With constants for arguments, so that the compiler unrolls and knows every address. */
static inline size_t stream_bytes(const struct block *block)
{
    return 8 * STEPS * (block->strides - 1);
}

static inline size_t block_bytes(const struct block *block)
{
    return STRIDE * block->strides + 3 * stream_bytes(block);
}

TARGET static inline vector folded(vector v, vector power, vector onto)
{
    return XOR3(CLMUL(v, power, 0x00), CLMUL(v, power, 0x11), onto);
}

/* The first stride; the register is added to its first four bytes. */
TARGET static inline void begin(vector *v, const uint8_t *data, uint64_t crc)
{
    for (int k = 0; k < VECTORS; k++)
        v[k] = LOAD(data + VECTOR * k);
    v[0] = XOR3(v[0], FROM_64(crc), FROM_64(0));
}

TARGET static inline void next(vector *v, const uint8_t *data, vector ahead)
{
    for (int k = 0; k < VECTORS; k++)
        v[k] = folded(v[k], ahead, LOAD(data + VECTOR * k));
}

/* The register after the last 16 bytes, onto which all others were folded, a part of them in each lane. */
TARGET static inline uint64_t end_of(vector lanes)
{
    __m128i last = lanes_added(lanes);
    return _mm_crc32_u64(_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(last)), (uint64_t)_mm_extract_epi64(last, 1));
}

/* The register after all that was folded. */
TARGET static inline uint64_t finish(const vector *v)
{
    vector sum = FROM_64(0);
    for (int k = 0; k < VECTORS; k++)
        sum = folded(v[k], LOAD((const uint8_t *)TO_THE_END[16 - (VECTORS - k) * VECTOR / 16]), sum);
    return end_of(sum);
}

TARGET static inline __m128i product(uint64_t crc, uint32_t power)
{
    return _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)crc), _mm_cvtsi64_si128((int64_t)power), 0);
}

/* Prefetches the next block: four streams at once are more than the CPU foresees, and cold memory would halve the speed.
 * It is a hint, which reads nothing, also where there is no next block. */
TARGET static inline uint64_t run_block(uint64_t crc, const uint8_t *data, const struct block *block)
{
    static const uint32_t ahead_pair[4] = AHEAD;
    const vector ahead = FROM_PAIR(ahead_pair);
    const uint8_t *stream = data + STRIDE * block->strides;
    const uintptr_t after = (uintptr_t)data + block_bytes(block);
    const size_t length = stream_bytes(block);
    uint64_t a = 0, b = 0, c = 0;
    vector v[VECTORS];
    begin(v, data, 0);
    for (size_t i = 1; i < block->strides; i++) {
        next(v, data + STRIDE * i, ahead);
        for (size_t line = 0; line < LINES; line++)
            _mm_prefetch((const char *)(after + 64 * (LINES * i + line)), _MM_HINT_T1);
        for (int step = 0; step < STEPS; step++, stream += 8) {
            a = _mm_crc32_u64(a, pfs_load64le(stream));
            b = _mm_crc32_u64(b, pfs_load64le(stream + length));
            c = _mm_crc32_u64(c, pfs_load64le(stream + 2 * length));
        }
    }
    __m128i sum = _mm_xor_si128(_mm_xor_si128(product(crc, block->x_all), product(finish(v), block->x_3n)),
                                _mm_xor_si128(product(a, block->x_2n), product(b, block->x_n)));
    return c ^ _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(sum));
}

/* Whole strides, at least one, by folding alone. */
TARGET static inline uint64_t run_strides(uint64_t crc, const uint8_t *data, size_t strides)
{
    static const uint32_t ahead_pair[4] = AHEAD;
    const vector ahead = FROM_PAIR(ahead_pair);
    vector v[VECTORS];
    begin(v, data, crc);
    for (size_t i = 1; i < strides; i++)
        next(v, data + STRIDE * i, ahead);
    return finish(v);
}

TARGET static inline uint64_t crc32c(uint64_t value, const uint8_t *data, size_t len)
{
    uint64_t crc = (uint32_t)~value;
    if (len <= BLOCKS_UP_TO) {
        for (; len >= block_bytes(&LONG_BLOCK); data += block_bytes(&LONG_BLOCK), len -= block_bytes(&LONG_BLOCK))
            crc = run_block(crc, data, &LONG_BLOCK);
        for (; len >= block_bytes(&SHORT_BLOCK); data += block_bytes(&SHORT_BLOCK), len -= block_bytes(&SHORT_BLOCK))
            crc = run_block(crc, data, &SHORT_BLOCK);
    }
    if (len >= STRIDE) {
        crc = run_strides(crc, data, len / STRIDE);
        data += len - len % STRIDE;
        len %= STRIDE;
    }
    for (; len >= 8; data += 8, len -= 8)
        crc = _mm_crc32_u64(crc, pfs_load64le(data));
    for (; len; data++, len--)
        crc = _mm_crc32_u8((uint32_t)crc, *data);
    return (uint32_t)~crc;
}
