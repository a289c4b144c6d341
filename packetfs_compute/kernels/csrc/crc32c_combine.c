/* CRC-32C of a concatenation, and the arithmetic mod P that it takes.
 *
 * The finished CRC of A || B is crc(A) * x^(8 * len_b) + crc(B) mod P: the inversions before and after cancel (Mark
 * Adler's argument for zlib's crc32_combine).
 */
#include "packetfs_kernels_impl.h"

/* P is (x + 1) times a primitive polynomial of degree 31, so x^(2^31 - 1) = 1 and 31 powers are all there are. */
#define ORDER UINT64_C(0x7fffffff)

/* Each is the square of the one before; the first is x itself, bit 30. */
const uint32_t pfs_crc32c_x2n[31] = {
    0x40000000, 0x20000000, 0x08000000, 0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18,
    0x510ac59a, 0xb82be955, 0xb8fdb1e7, 0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a, 0x35d73a62,
    0x28461564, 0xbf455269, 0xe2ea32dc, 0xfe7740e6, 0xf946610b, 0x3c204f8f, 0x538586e3, 0x59726915,
    0x734d5309, 0xbc1ac763, 0x7d0722cc, 0xd289cabe, 0xe94ca9bc, 0x05b74f3f, 0xa51e1f42,
};

/* a * b mod P, by Horner's rule from b's highest power (bit 0) down. Without branches: a CRC's bits cannot be
 * predicted. */
uint32_t pfs_crc32c_multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (int i = 0; i < 32; i++) {
        product = product >> 1 ^ (PFS_CRC32C_POLY & (0 - (product & 1)));
        product ^= a & (0 - (b >> i & 1));
    }
    return product;
}

uint32_t pfs_crc32c_combine(uint32_t a, uint32_t b, uint64_t len_b)
{
    /* Reduced before the multiplication by 8, which it keeps from overflowing. */
    uint64_t exponent = len_b % ORDER * 8 % ORDER;
    for (int k = 0; exponent; k++, exponent >>= 1)
        if (exponent & 1)
            a = pfs_crc32c_multiply(a, pfs_crc32c_x2n[k]);
    return a ^ b;
}
