/* What the files of this directory share and nobody else sees: each instruction set's version of each kernel.
 *
 * A new kernel is declared here, defined in <op>_<instruction set>.c, and entered in dispatch.c's table.
 */
#ifndef PACKETFS_KERNELS_IMPL_H
#define PACKETFS_KERNELS_IMPL_H

#include "packetfs_kernels.h"

/* 64-bit only: crc32q does not exist in 32-bit mode. */
#if defined(__x86_64__) || defined(_M_X64)
#define PFS_X86_64 1
#endif
/* Little-endian, and a compiler with GNU assembly (gcc, clang); others get the portable kernels. */
#if defined(__aarch64__) && defined(__GNUC__) && !defined(__AARCH64EB__)
#define PFS_ARM64 1
#endif

/* Instruction sets are enabled per function, so that one set of compiler flags builds every file and no instruction
 * can leak into code that runs before the CPU was asked. MSVC knows every intrinsic everywhere. */
#if defined(__GNUC__)
#define PFS_TARGET(sets) __attribute__((target(sets)))
#else
#define PFS_TARGET(sets)
#endif

/* portable.c: plain C11 */
uint64_t pfs_counteq_portable(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_crc32c_portable(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_fnv64_portable(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_xor_portable(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);
uint64_t pfs_add_portable(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);

/* crc32c_sse42.c: requires PFS_CPU_SSE42 and PFS_CPU_PCLMUL */
uint64_t pfs_crc32c_sse42(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);

/* crc32c_arm64.c: requires PFS_CPU_ARM_CRC32 */
uint64_t pfs_crc32c_arm64(uint64_t value, const uint8_t *data, size_t len, uint8_t imm);

/* crc32c_combine.c: polynomials mod P over GF(2), bit-reflected: bit 31 is the coefficient of x^0. */
#define PFS_CRC32C_POLY UINT32_C(0x82f63b78)
uint32_t pfs_crc32c_multiply(uint32_t a, uint32_t b);
extern const uint32_t pfs_crc32c_x2n[31]; /* [k] = x^(2^k) mod P */

/* The idiom that gcc and clang turn into one load, on either byte order, without undefined behaviour. */
static inline uint64_t pfs_load64le(const uint8_t *p)
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 |
           (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
}

#endif
