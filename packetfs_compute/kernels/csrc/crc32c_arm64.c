/* CRC-32C with ARMv8's CRC32 instructions in three streams.
 *
 * As in crc32c_sse42.c: crc32cx takes eight bytes with a latency of two or three cycles and a throughput of one, so
 * three neighbours of equal length run side by side and are joined afterwards. Joining is done with the portable
 * multiplication, not PMULL, which is another feature to ask for: two of them cost about 200 cycles for every 12 KiB.
 */
#include "packetfs_kernels_impl.h"

#ifdef PFS_ARM64

/* 16^3, so that x^(8 * STREAM) is in the table of powers. */
#define STREAM 4096
#define STREAM_DIGIT 3

/* Assembly rather than arm_acle.h, whose functions older clangs declare only under -march=...+crc. */
static inline uint32_t crc_8_bytes(uint32_t crc, uint64_t word)
{
    uint32_t result;
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w1, %x2" : "=r"(result) : "r"(crc), "r"(word));
    return result;
}

static inline uint32_t crc_1_byte(uint32_t crc, uint8_t byte)
{
    uint32_t result;
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w1, %w2" : "=r"(result) : "r"(crc), "r"((uint32_t)byte));
    return result;
}

static inline uint32_t three_streams(uint32_t crc, const uint8_t *data)
{
    uint32_t b = 0, c = 0;
    for (size_t i = 0; i < STREAM; i += 8) {
        crc = crc_8_bytes(crc, pfs_load64le(data + i));
        b = crc_8_bytes(b, pfs_load64le(data + STREAM + i));
        c = crc_8_bytes(c, pfs_load64le(data + 2 * STREAM + i));
    }
    crc = pfs_crc32c_multiply(crc, pfs_crc32c_x8n[STREAM_DIGIT][2]);
    return c ^ crc ^ pfs_crc32c_multiply(b, pfs_crc32c_x8n[STREAM_DIGIT][1]);
}

uint64_t pfs_crc32c_arm64(uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    (void)imm;
    uint32_t crc = ~(uint32_t)value;
    for (; len && (uintptr_t)data % 8; data++, len--)
        crc = crc_1_byte(crc, *data);
    for (; len >= 3 * STREAM; data += 3 * STREAM, len -= 3 * STREAM)
        crc = three_streams(crc, data);
    for (; len >= 8; data += 8, len -= 8)
        crc = crc_8_bytes(crc, pfs_load64le(data));
    for (; len; data++, len--)
        crc = crc_1_byte(crc, *data);
    return (uint32_t)~crc;
}

#else
typedef int pfs_crc32c_arm64_is_for_aarch64; /* ISO C forbids an empty translation unit */
#endif
