/* The kernels as a WebAssembly module: no imports, one memory of a fixed size, nothing allocated.
 *
 * The host copies bytes to input() and steps to steps(), calls fused(), and copies the steps back: each step's value is
 * the running value before and the new one after, so that no 64-bit number crosses into JavaScript on the way.
 */
#include "portable.c" /* in one piece with this file, which needs the CRC's table */

#define EXPORT(name) __attribute__((export_name(name)))
#define INPUT_BYTES (1 << 18)
#define MAX_STEPS 16
/* What is walked by every step before the next is looked at: it stays in the first-level cache. */
#define BLOCK (1 << 14)

struct step {
    uint64_t value;
    uint32_t op; /* enum pfs_op */
    uint32_t imm;
};

static uint8_t input[INPUT_BYTES] __attribute__((aligned(64)));
static struct step steps[MAX_STEPS];

#ifdef __wasm_simd128__
#include "fnv64_simd128.h"
#include "simd.h"
#define COUNTEQ pfs_counteq_simd128
#define FNV64 pfs_fnv64_simd128
#define XOR pfs_xor_simd128
#define ADD pfs_add_simd128
#else
#define COUNTEQ pfs_counteq_portable
#define FNV64 pfs_fnv64_portable
#define XOR pfs_xor_portable
#define ADD pfs_add_portable
#endif

/* Half a block: one power of x joins the halves, that of 2 * 16^3 bytes. */
#define CRC_HALF (1 << 13)
#define CRC_JOIN pfs_crc32c_x8n[3][2]

static inline uint32_t crc32c_step(uint32_t crc, const uint8_t *data)
{
    uint32_t low, high;
    memcpy(&low, data, 4);
    memcpy(&high, data + 4, 4);
    low ^= crc;
    return pfs_crc32c_table[7][low & 255] ^ pfs_crc32c_table[6][low >> 8 & 255] ^
           pfs_crc32c_table[5][low >> 16 & 255] ^ pfs_crc32c_table[4][low >> 24] ^ pfs_crc32c_table[3][high & 255] ^
           pfs_crc32c_table[2][high >> 8 & 255] ^ pfs_crc32c_table[1][high >> 16 & 255] ^
           pfs_crc32c_table[0][high >> 24];
}

/* Two halves of a block side by side, 1.4 times as fast as one: each is a chain in which every look-up waits for the
 * one before. The second starts from an empty register, over whose bytes the first is then moved on: the register is
 * linear in both (crc32c_combine.c). */
static uint64_t crc32c(uint64_t value, const uint8_t *data, size_t len)
{
    for (; len >= 2 * CRC_HALF; data += 2 * CRC_HALF, len -= 2 * CRC_HALF) {
        uint32_t first = ~(uint32_t)value, second = 0;
        for (size_t i = 0; i < CRC_HALF; i += 8) {
            first = crc32c_step(first, data + i);
            second = crc32c_step(second, data + CRC_HALF + i);
        }
        value = (uint32_t) ~(pfs_crc32c_multiply(first, CRC_JOIN) ^ second);
    }
    return pfs_crc32c_portable(value, data, len, 0);
}

/* Direct calls, not a table of pointers: an indirect call checks the callee's type each time. */
static uint64_t run(uint32_t op, uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    switch (op) {
    case PFS_COUNTEQ:
        return COUNTEQ(value, data, len, imm);
    case PFS_CRC32C:
        return crc32c(value, data, len);
    case PFS_FNV64:
        return FNV64(value, data, len, imm);
    case PFS_XOR:
        return XOR(value, data, len, imm);
    case PFS_ADD:
        return ADD(value, data, len, imm);
    }
    __builtin_trap();
}

EXPORT("input") uint8_t *pfs_input(void) { return input; }
EXPORT("inputBytes") uint32_t pfs_input_bytes(void) { return INPUT_BYTES; }
EXPORT("steps") struct step *pfs_steps(void) { return steps; }

/* 1 where the module needs SIMD: its name in health must not be a guess. */
EXPORT("simd") uint32_t pfs_simd(void)
{
#ifdef __wasm_simd128__
    return 1;
#else
    return 0;
#endif
}

/* Run the first `count` steps over the first `len` bytes of the input. */
EXPORT("fused") void pfs_run(uint32_t count, uint32_t len)
{
    if (count > MAX_STEPS || len > INPUT_BYTES)
        __builtin_trap();
    for (uint32_t at = 0; at < len; at += BLOCK) {
        uint32_t block = len - at < BLOCK ? len - at : BLOCK;
        for (uint32_t i = 0; i < count; i++)
            steps[i].value = run(steps[i].op, steps[i].value, input + at, block, (uint8_t)steps[i].imm);
    }
}
