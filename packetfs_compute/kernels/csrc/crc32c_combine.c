/* CRC-32C of a concatenation, and the arithmetic mod P that it takes.
 *
 * The finished CRC of A || B is crc(A) * x^(8 * len_b) + crc(B) mod P: the inversions before and after cancel (Mark
 * Adler's argument for zlib's crc32_combine). The power of x is a product of one of 16 for each hexadecimal digit of
 * len_b.
 */
#include "packetfs_kernels_impl.h"

const uint32_t pfs_crc32c_x8n[8][16] = {
    {0x80000000, 0x00800000, 0x00008000, 0x00000080, 0x82f63b78, 0xfbc3faf9, 0x8b277743, 0x52a0c93f,
     0x6ea2d55c, 0x1c08b7d6, 0xf56e0ef4, 0x34019664, 0xa66805eb, 0x7a1f6b24, 0xe75d06aa, 0xc94ec098},
    {0x80000000, 0x18b8ea18, 0x510ac59a, 0xb2dea967, 0xb82be955, 0x36c41f1c, 0x19b29a35, 0xc9e90b9e,
     0xb8fdb1e7, 0xe55ef1f3, 0x1fe0b5c3, 0xe0553f1e, 0x18e4a304, 0x2b830011, 0x56993a31, 0x0246e2e6},
    {0x80000000, 0x88e56f72, 0x74c360a4, 0x631bb273, 0xe4172b16, 0x71892b1b, 0x835305c9, 0x196b1eae,
     0x0d65762a, 0xafc81338, 0xb5a50ab7, 0xf373c3ac, 0x5f60970f, 0xd46d3063, 0x3a5275ea, 0x02331c01},
    {0x80000000, 0x35d73a62, 0x28461564, 0x43eefc9f, 0xbf455269, 0x5edcdeb9, 0x65059450, 0x4e6f41a4,
     0xe2ea32dc, 0xf5b95b32, 0x695a4c87, 0xf204502c, 0x9a4f01b6, 0x941a0916, 0x4303cb97, 0x4c3d3d65},
    {0x80000000, 0xfe7740e6, 0xf946610b, 0xa0a51f5f, 0x3c204f8f, 0x40f28a69, 0x35af26b2, 0xda70c2a6,
     0x538586e3, 0x78edc103, 0xf0f3875e, 0xefb7cf1d, 0x683988b2, 0xe5dbb221, 0x0fc062f5, 0xd7b17b91},
    {0x80000000, 0x59726915, 0x734d5309, 0xdb1b3315, 0xbc1ac763, 0x11b31f9d, 0x5414bce3, 0x54f2f77b,
     0x7d0722cc, 0xbae70d08, 0x238acb2b, 0xd2074e2b, 0x546dfa6e, 0x3f76a96c, 0xa3aa3946, 0xf054ca48},
    {0x80000000, 0xd289cabe, 0xe94ca9bc, 0x6ac5538f, 0x05b74f3f, 0x9e0b2298, 0x14de47cd, 0x3a9fb07d,
     0xa51e1f42, 0xfe578179, 0x038d778c, 0x5fe3cf44, 0xb7c64e40, 0x20cbb8e3, 0x4f04f803, 0x56745358},
    {0x80000000, 0x40000000, 0x20000000, 0x10000000, 0x08000000, 0x04000000, 0x02000000, 0x01000000,
     0x00800000, 0x00400000, 0x00200000, 0x00100000, 0x00080000, 0x00040000, 0x00020000, 0x00010000},
};

/* a * b: a carry-less multiplication by those with carry. Of each operand every fourth bit is left, so that the products' sums
 * of at most eight bits stay in four, of which the lowest is the XOR (Thomas Pornin's way, in BearSSL's GHASH). Which bits of
 * a and b meet in bit 4n + k of the product: those of i and k - i mod 4. */
static inline uint64_t product(uint32_t a, uint32_t b)
{
    uint64_t sum = 0;
    for (int k = 0; k < 4; k++) {
        uint64_t sums = 0;
        for (int i = 0; i < 4; i++)
            sums ^= (uint64_t)(a & UINT32_C(0x11111111) << i) * (b & UINT32_C(0x11111111) << ((k - i) & 3));
        sum |= sums & UINT64_C(0x1111111111111111) << k;
    }
    return sum;
}

/* a * b mod P. The product's x^0 stands in bit 62; moved to bit 63, its upper half is done, and the lower one is what a CRC
 * makes of four bytes. Without branches: a CRC's bits cannot be predicted. */
uint32_t pfs_crc32c_multiply(uint32_t a, uint32_t b)
{
    uint64_t word = product(a, b) << 1;
    return (uint32_t)(word >> 32) ^ pfs_crc32c_table[3][word & 255] ^ pfs_crc32c_table[2][word >> 8 & 255] ^
           pfs_crc32c_table[1][word >> 16 & 255] ^ pfs_crc32c_table[0][word >> 24 & 255];
}

uint32_t pfs_crc32c_combine(uint32_t a, uint32_t b, uint64_t len_b)
{
    uint32_t digits = pfs_crc32c_cycle(len_b);
    for (int j = 0; digits; j++, digits >>= 4)
        if (digits & 15)
            a = pfs_crc32c_multiply(a, pfs_crc32c_x8n[j][digits & 15]);
    return a ^ b;
}
