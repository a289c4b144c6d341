/* Which implementations there are, what this machine can run, and the choice between them.
 *
 * The tables are constant data and the features are a pure function of the machine, so there is nothing to initialise
 * and nothing to lock: a caller asks once and keeps the function pointers.
 */
#include "packetfs_kernels_impl.h"

#include <string.h>

#if defined(PFS_X86_64)
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(PFS_ARM64) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(PFS_ARM64) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

/* A bite of fused's data: large enough that a kernel's start-up cost is nothing, and small enough that it is still in
 * any L2 (256 KiB and more) when the next kernel comes. 32 to 256 KiB measured the same within 10 %. */
#define FUSED_BLOCK ((size_t)64 << 10)

/* Best first. A kernel for another instruction set is one more line here, above what it beats. */
static const struct pfs_implementation COUNTEQ[] = {
    {"portable", pfs_counteq_portable, 0},
};
static const struct pfs_implementation CRC32C[] = {
#ifdef PFS_X86_64
    {"sse42", pfs_crc32c_sse42, PFS_CPU_SSE42 | PFS_CPU_PCLMUL},
#endif
#ifdef PFS_ARM64
    {"arm64", pfs_crc32c_arm64, PFS_CPU_ARM_CRC32},
#endif
    {"portable", pfs_crc32c_portable, 0},
};
static const struct pfs_implementation FNV64[] = {
    {"portable", pfs_fnv64_portable, 0},
};
static const struct pfs_implementation XOR[] = {
    {"portable", pfs_xor_portable, 0},
};
static const struct pfs_implementation ADD[] = {
    {"portable", pfs_add_portable, 0},
};

#define TABLE_OF(name, implementations) {name, implementations, sizeof(implementations) / sizeof((implementations)[0])}

/* In the order of enum pfs_op. */
static const struct {
    const char *name;
    const struct pfs_implementation *implementations;
    size_t count;
} OPS[PFS_OPS] = {
    TABLE_OF("counteq", COUNTEQ), TABLE_OF("crc32c", CRC32C), TABLE_OF("fnv64", FNV64),
    TABLE_OF("xor", XOR),         TABLE_OF("add", ADD),
};

const char *pfs_op_name(enum pfs_op op)
{
    return OPS[op].name;
}

const struct pfs_implementation *pfs_implementations(enum pfs_op op, size_t *count)
{
    *count = OPS[op].count;
    return OPS[op].implementations;
}

const struct pfs_implementation *pfs_choose(enum pfs_op op, uint32_t features, const char *name)
{
    size_t count;
    const struct pfs_implementation *known = pfs_implementations(op, &count);
    for (size_t i = 0; i < count; i++)
        if (!(known[i].requires & ~features) && (!name || !strcmp(known[i].name, name)))
            return &known[i];
    return NULL;
}

void pfs_fused(struct pfs_step *steps, size_t count, const uint8_t *data, size_t len)
{
    while (len) {
        size_t block = len < FUSED_BLOCK ? len : FUSED_BLOCK;
        for (size_t i = 0; i < count; i++)
            steps[i].value = steps[i].run(steps[i].value, data, block, steps[i].imm);
        data += block;
        len -= block;
    }
}

#if defined(PFS_X86_64)

static void cpuid(uint32_t leaf, uint32_t out[4])
{
#if defined(_MSC_VER)
    int registers[4];
    __cpuidex(registers, (int)leaf, 0);
    for (int i = 0; i < 4; i++)
        out[i] = (uint32_t)registers[i];
#else
    if (!__get_cpuid_count(leaf, 0, &out[0], &out[1], &out[2], &out[3]))
        out[0] = out[1] = out[2] = out[3] = 0;
#endif
}

/* XCR0: which registers the OS saves. Only where CPUID says OSXSAVE; otherwise xgetbv is an illegal instruction. */
static uint64_t os_saved_registers(void)
{
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
#endif
}

/* Bits as in Intel's SDM, volume 2, CPUID leaf 1, and volume 1, section 13.3 (XCR0). */
uint32_t pfs_cpu_features(void)
{
    uint32_t leaf1[4], features = 0;
    cpuid(1, leaf1);
    uint32_t ecx = leaf1[2];
    /* An OS without XSAVE still saves the SSE registers: the x86-64 ABI needs them. */
    uint64_t saved = ecx >> 27 & 1 ? os_saved_registers() : 2;
    if (saved & 2) {
        features |= ecx >> 20 & 1 ? PFS_CPU_SSE42 : 0;
        features |= ecx >> 1 & 1 ? PFS_CPU_PCLMUL : 0;
    }
    /* AVX2 goes here, under (saved & 0x6) == 0x6; AVX-512 under (saved & 0xe6) == 0xe6; both with leaf 7. */
    return features;
}

#elif defined(PFS_ARM64) && defined(__linux__)

uint32_t pfs_cpu_features(void)
{
    return getauxval(AT_HWCAP) & 1 << 7 /* HWCAP_CRC32, Linux's arch/arm64/include/uapi/asm/hwcap.h */
               ? PFS_CPU_ARM_CRC32
               : 0;
}

#elif defined(PFS_ARM64) && defined(__APPLE__)

uint32_t pfs_cpu_features(void)
{
    int present = 0;
    size_t size = sizeof present;
    if (sysctlbyname("hw.optional.armv8_crc32", &present, &size, NULL, 0) != 0)
        return 0;
    return present ? PFS_CPU_ARM_CRC32 : 0;
}

#else

uint32_t pfs_cpu_features(void)
{
    return 0;
}

#endif
