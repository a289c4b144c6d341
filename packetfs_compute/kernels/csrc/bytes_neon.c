/* counteq, xor and add with NEON: one walk over the data in vectors of 16 bytes, with three bodies.
 *
 * The head is not peeled off: the cores that servers have load 16 bytes from anywhere at nearly the same price. What is
 * less than a turn is left to the portable kernel.
 */
#include "packetfs_kernels_impl.h"

#ifdef PFS_ARM64

#include <arm_neon.h>

#define VECTOR 16
#define ACCUMULATORS 4
#define TURN (ACCUMULATORS * VECTOR)
/* counteq's accumulators count in bytes, which hold 255 hits; add's in 16 bits, which hold 128 pairs of bytes. */
#define MAX_TURNS 128

/* counteq: bytes; add: eight 16-bit lanes; xor: bytes. */
static inline uint8x16_t absorb(enum pfs_op op, uint8x16_t sum, uint8x16_t data, uint8x16_t imm)
{
    switch (op) {
    case PFS_COUNTEQ:
        return vsubq_u8(sum, vceqq_u8(data, imm));
    case PFS_ADD:
        return vreinterpretq_u8_u16(vpadalq_u8(vreinterpretq_u16_u8(sum), vaddq_u8(data, imm)));
    default:
        return veorq_u8(sum, data);
    }
}

/* The bytes up to the last whole turn. */
static inline uint64_t walk(enum pfs_op op, uint64_t value, const uint8_t *data, size_t len, uint8_t byte)
{
    const uint8x16_t imm = vdupq_n_u8(byte);
    while (len >= TURN) {
        size_t turns = len / TURN < MAX_TURNS ? len / TURN : MAX_TURNS;
        uint8x16_t sums[ACCUMULATORS];
        for (int k = 0; k < ACCUMULATORS; k++)
            sums[k] = vdupq_n_u8(0);
        for (size_t i = 0; i < turns; i++, data += TURN)
            for (int k = 0; k < ACCUMULATORS; k++)
                sums[k] = absorb(op, sums[k], vld1q_u8(data + VECTOR * k), imm);
        for (int k = 0; k < ACCUMULATORS; k++) {
            uint64x2_t word = vreinterpretq_u64_u8(sums[k]);
            if (op == PFS_COUNTEQ)
                value += vaddlvq_u8(sums[k]);
            else if (op == PFS_ADD)
                value += vaddlvq_u16(vreinterpretq_u16_u8(sums[k]));
            else
                value ^= pfs_fold_bytes(vgetq_lane_u64(word, 0) ^ vgetq_lane_u64(word, 1));
        }
        len -= TURN * turns;
    }
    return value;
}

uint64_t pfs_counteq_neon(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    if (len < TURN)
        return pfs_counteq_portable(value, data, len, imm);
    size_t tail = len % TURN;
    return pfs_counteq_portable(walk(PFS_COUNTEQ, value, data, len, imm), data + len - tail, tail, imm);
}

uint64_t pfs_add_neon(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    if (len < TURN)
        return pfs_add_portable(value, data, len, imm);
    size_t tail = len % TURN;
    return pfs_add_portable(walk(PFS_ADD, value, data, len, imm), data + len - tail, tail, imm);
}

/* A turn has an even number of bytes, so that imm cancels in it. */
uint64_t pfs_xor_neon(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    if (len < TURN)
        return pfs_xor_portable(value, data, len, imm);
    size_t tail = len % TURN;
    return pfs_xor_portable(walk(PFS_XOR, value, data, len, imm), data + len - tail, tail, imm);
}

#else
typedef int pfs_bytes_neon_is_for_aarch64; /* ISO C forbids an empty translation unit */
#endif
