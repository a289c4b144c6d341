/* Every kernel in plain C11: no intrinsics, no libc beyond memcpy.
 *
 * This file runs everywhere, is what the others are tested against at speed, and is compiled to WebAssembly. It works
 * on eight bytes in a 64-bit word ("SIMD within a register"), a form that a compiler also vectorises by itself.
 */
#include "packetfs_kernels_impl.h"

#ifdef __wasm__
#define memcpy __builtin_memcpy /* freestanding clang has no string.h */
#else
#include <string.h>
#endif

#define EACH_BYTE UINT64_C(0x0101010101010101) /* times b: b in each byte of the word */
#define LOW_7_BITS UINT64_C(0x7f7f7f7f7f7f7f7f)
#define EVEN_BYTES UINT64_C(0x00ff00ff00ff00ff)
#define FNV64_PRIME UINT64_C(0x00000100000001b3)

/* In the machine's byte order: for kernels to which the order of the bytes in a word is all one. */
static inline uint64_t load64(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* The sum of four 16-bit lanes. */
static inline uint64_t sum_lanes16(uint64_t lanes)
{
    lanes = (lanes & UINT64_C(0x0000ffff0000ffff)) + (lanes >> 16 & UINT64_C(0x0000ffff0000ffff));
    return (lanes & UINT32_MAX) + (lanes >> 32);
}

uint64_t pfs_counteq_portable(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    const uint64_t wanted = EACH_BYTE * imm;
    while (len >= 8) {
        /* A byte-wide counter holds 255 hits. */
        size_t words = len / 8 < 255 ? len / 8 : 255;
        uint64_t hits = 0;
        for (size_t i = 0; i < words; i++) {
            uint64_t differs = load64(data + 8 * i) ^ wanted;
            /* Bit 7 of each byte: set unless the byte is 0. The sum of two 7-bit numbers carries into no neighbour, so
             * this is exact, unlike the shorter (x - 0x01..) & ~x. */
            uint64_t nonzero = ((differs & LOW_7_BITS) + LOW_7_BITS) | differs;
            hits += ~nonzero >> 7 & EACH_BYTE;
        }
        value += sum_lanes16((hits & EVEN_BYTES) + (hits >> 8 & EVEN_BYTES));
        data += 8 * words;
        len -= 8 * words;
    }
    for (size_t i = 0; i < len; i++)
        value += data[i] == imm;
    return value;
}

uint64_t pfs_xor_portable(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    uint64_t folded = 0;
    /* imm comes in once a byte: an even number of times it cancels. */
    uint8_t result = (uint8_t)value ^ (len % 2 ? imm : 0);
    size_t words = len / 8;
    for (size_t i = 0; i < words; i++)
        folded ^= load64(data + 8 * i);
    for (size_t i = 8 * words; i < len; i++)
        result ^= data[i];
    folded ^= folded >> 32;
    folded ^= folded >> 16;
    folded ^= folded >> 8;
    return (uint8_t)(result ^ folded);
}

uint64_t pfs_add_portable(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    const uint64_t addend = EACH_BYTE * imm;
    const uint64_t addend_low = addend & LOW_7_BITS;
    while (len >= 8) {
        /* A 16-bit lane holds 257 bytes of 255. */
        size_t words = len / 8 < 256 ? len / 8 : 256;
        uint64_t even = 0, odd = 0;
        for (size_t i = 0; i < words; i++) {
            uint64_t word = load64(data + 8 * i);
            /* Eight sums mod 256: the low seven bits cannot carry out, the top bit is added without carry. */
            uint64_t sums = ((word & LOW_7_BITS) + addend_low) ^ ((word ^ addend) & ~LOW_7_BITS);
            even += sums & EVEN_BYTES;
            odd += sums >> 8 & EVEN_BYTES;
        }
        value += sum_lanes16(even) + sum_lanes16(odd);
        data += 8 * words;
        len -= 8 * words;
    }
    for (size_t i = 0; i < len; i++)
        value += (uint8_t)(data[i] + imm);
    return value;
}

/* The definition itself: a chain of one multiply a byte. */
uint64_t pfs_fnv64_portable(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    (void)imm;
    for (size_t i = 0; i < len; i++)
        value = (value ^ data[i]) * FNV64_PRIME;
    return value;
}

/* CRC-32C eight bytes at a time ("slicing by 8": Kounavis and Berry, 2008).
 *
 * pfs_crc32c_table[s][n] is the register after byte n and s zero bytes: n(x) * x^(32 + 8s) mod P. That is linear in n, so each row
 * is spanned by eight powers of x, x^(32 + 8s) for bit 7 of n up to x^(39 + 8s) for bit 0, each of which is the one
 * before times x: (p >> 1) ^ (p & 1 ? PFS_CRC32C_POLY : 0). The rows below are those powers, and the preprocessor makes
 * the other 248 entries of each, so that the table is constant data and nothing is initialised at run time.
 */
#define BIT(n, k, power) ((n) >> (k)&1 ? UINT32_C(power) : 0)
#define E1(n, a, b, c, d, e, f, g, h)                                                                                 \
    (BIT(n, 7, a) ^ BIT(n, 6, b) ^ BIT(n, 5, c) ^ BIT(n, 4, d) ^ BIT(n, 3, e) ^ BIT(n, 2, f) ^ BIT(n, 1, g) ^          \
     BIT(n, 0, h))
#define E4(n, a, b, c, d, e, f, g, h)                                                                                 \
    E1(n, a, b, c, d, e, f, g, h), E1(n + 1, a, b, c, d, e, f, g, h), E1(n + 2, a, b, c, d, e, f, g, h),               \
        E1(n + 3, a, b, c, d, e, f, g, h)
#define E16(n, a, b, c, d, e, f, g, h)                                                                                \
    E4(n, a, b, c, d, e, f, g, h), E4(n + 4, a, b, c, d, e, f, g, h), E4(n + 8, a, b, c, d, e, f, g, h),               \
        E4(n + 12, a, b, c, d, e, f, g, h)
#define E64(n, a, b, c, d, e, f, g, h)                                                                                \
    E16(n, a, b, c, d, e, f, g, h), E16(n + 16, a, b, c, d, e, f, g, h), E16(n + 32, a, b, c, d, e, f, g, h),          \
        E16(n + 48, a, b, c, d, e, f, g, h)
#define ROW(a, b, c, d, e, f, g, h)                                                                                   \
    {                                                                                                                 \
        E64(0, a, b, c, d, e, f, g, h), E64(64, a, b, c, d, e, f, g, h), E64(128, a, b, c, d, e, f, g, h),             \
            E64(192, a, b, c, d, e, f, g, h)                                                                          \
    }

const uint32_t pfs_crc32c_table[8][256] = {
    ROW(0x82f63b78, 0x417b1dbc, 0x20bd8ede, 0x105ec76f, 0x8ad958cf, 0xc79a971f, 0xe13b70f7, 0xf26b8303),
    ROW(0xfbc3faf9, 0xff17c604, 0x7f8be302, 0x3fc5f181, 0x9d14c3b8, 0x4e8a61dc, 0x274530ee, 0x13a29877),
    ROW(0x8b277743, 0xc76580d9, 0xe144fb14, 0x70a27d8a, 0x38513ec5, 0x9edea41a, 0x4f6f520d, 0xa541927e),
    ROW(0x52a0c93f, 0xaba65fe7, 0xd725148b, 0xe964b13d, 0xf64463e6, 0x7b2231f3, 0xbf672381, 0xdd45aab8),
    ROW(0x6ea2d55c, 0x37516aae, 0x1ba8b557, 0x8f2261d3, 0xc5670b91, 0xe045beb0, 0x7022df58, 0x38116fac),
    ROW(0x1c08b7d6, 0x0e045beb, 0x85f4168d, 0xc00c303e, 0x6006181f, 0xb2f53777, 0xdb8ca0c3, 0xef306b19),
    ROW(0xf56e0ef4, 0x7ab7077a, 0x3d5b83bd, 0x9c5bfaa6, 0x4e2dfd53, 0xa5e0c5d1, 0xd0065990, 0x68032cc8),
    ROW(0x34019664, 0x1a00cb32, 0x0d006599, 0x847609b4, 0x423b04da, 0x211d826d, 0x9278fa4e, 0x493c7d27),
};

uint64_t pfs_crc32c_portable(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    (void)imm;
    uint32_t crc = ~(uint32_t)value;
    for (; len >= 8; data += 8, len -= 8) {
        uint64_t word = pfs_load64le(data) ^ crc;
        crc = pfs_crc32c_table[7][word & 255] ^ pfs_crc32c_table[6][word >> 8 & 255] ^
              pfs_crc32c_table[5][word >> 16 & 255] ^ pfs_crc32c_table[4][word >> 24 & 255] ^
              pfs_crc32c_table[3][word >> 32 & 255] ^ pfs_crc32c_table[2][word >> 40 & 255] ^
              pfs_crc32c_table[1][word >> 48 & 255] ^ pfs_crc32c_table[0][word >> 56];
    }
    for (; len; data++, len--)
        crc = crc >> 8 ^ pfs_crc32c_table[0][(crc ^ *data) & 255];
    return (uint32_t)~crc;
}
