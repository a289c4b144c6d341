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

/* A bite of fused's data: long enough for fnv64's fastest kernel, which needs some chunks to get going, and small enough that
 * it is still in any second-level cache when the other kernels come. With GFNI all five ran 7 % faster from memory than with
 * 8 KiB, elsewhere as fast. */
#define FUSED_BLOCK ((size_t)64 << 10)
#define CACHE_LINE 64

/* Best first. A kernel for another instruction set is one more line here, above what it beats. */
static const struct pfs_implementation COUNTEQ[] = {
#ifdef PFS_X86_64
    {"avx512", pfs_counteq_avx512, PFS_CPU_AVX512},
    {"avx2", pfs_counteq_avx2, PFS_CPU_AVX2},
#endif
#ifdef PFS_ARM64
    {"neon", pfs_counteq_neon, 0},
#endif
    {"portable", pfs_counteq_portable, 0},
};
static const struct pfs_implementation CRC32C[] = {
#ifdef PFS_X86_64
    {"avx512", pfs_crc32c_avx512, PFS_CPU_AVX512 | PFS_CPU_VPCLMUL | PFS_CPU_SSE42 | PFS_CPU_PCLMUL},
    {"avx2", pfs_crc32c_avx2, PFS_CPU_AVX2 | PFS_CPU_VPCLMUL | PFS_CPU_SSE42 | PFS_CPU_PCLMUL},
    {"sse42", pfs_crc32c_sse42, PFS_CPU_SSE42 | PFS_CPU_PCLMUL},
#endif
#ifdef PFS_ARM64
    {"arm64", pfs_crc32c_arm64, PFS_CPU_ARM_CRC32},
#endif
    {"portable", pfs_crc32c_portable, 0},
};
static const struct pfs_implementation FNV64[] = {
#ifdef PFS_X86_64
    {"avx512gfni", pfs_fnv64_avx512gfni,
     PFS_CPU_AVX512GFNI | PFS_CPU_AVX512VNNI | PFS_CPU_AVX512 | PFS_CPU_AVX2 | PFS_CPU_PCLMUL},
    {"avx512vnni", pfs_fnv64_avx512vnni, PFS_CPU_AVX512VNNI | PFS_CPU_AVX512 | PFS_CPU_AVX2 | PFS_CPU_PCLMUL},
    {"avx512", pfs_fnv64_avx512, PFS_CPU_AVX512 | PFS_CPU_AVX2 | PFS_CPU_PCLMUL},
    {"avx2", pfs_fnv64_avx2, PFS_CPU_AVX2 | PFS_CPU_PCLMUL},
    {"ssse3", pfs_fnv64_ssse3, PFS_CPU_SSSE3},
    {"sse2", pfs_fnv64_sse2, 0},
#endif
#ifdef PFS_ARM64
    {"neon", pfs_fnv64_neon, 0},
#endif
    {"portable", pfs_fnv64_portable, 0},
};
static const struct pfs_implementation XOR[] = {
#ifdef PFS_X86_64
    {"avx512", pfs_xor_avx512, PFS_CPU_AVX512},
    {"avx2", pfs_xor_avx2, PFS_CPU_AVX2},
#endif
#ifdef PFS_ARM64
    {"neon", pfs_xor_neon, 0},
#endif
    {"portable", pfs_xor_portable, 0},
};
static const struct pfs_implementation ADD[] = {
#ifdef PFS_X86_64
    {"avx512", pfs_add_avx512, PFS_CPU_AVX512},
    {"avx2", pfs_add_avx2, PFS_CPU_AVX2},
#endif
#ifdef PFS_ARM64
    {"neon", pfs_add_neon, 0},
#endif
    {"portable", pfs_add_portable, 0},
};

/* Every name, best first, as in each table: where an op has none of a name that was asked for, what comes next runs it. */
static const char *const LADDER[] = {
    "avx512gfni", "avx512vnni", "avx512", "avx2", "sse42", "ssse3", "sse2", "arm64", "neon", "portable",
};
#define RUNGS (sizeof LADDER / sizeof LADDER[0])

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

/* The place of a name on the ladder, 0 the best; RUNGS where it is on none. */
static size_t rung(const char *name)
{
    size_t i = 0;
    while (i < RUNGS && strcmp(LADDER[i], name))
        i++;
    return i;
}

const struct pfs_implementation *pfs_choose(enum pfs_op op, uint32_t features, const char *name)
{
    size_t count, highest = name ? rung(name) : 0;
    const struct pfs_implementation *known = pfs_implementations(op, &count);
    for (size_t i = 0; highest < RUNGS && i < count; i++)
        if (!(known[i].requires & ~features) && rung(known[i].name) >= highest)
            return &known[i];
    return NULL;
}

pfs_combine pfs_choose_combine(uint32_t features, const char *name)
{
#ifdef PFS_X86_64
    const uint32_t requires = PFS_CPU_SSE42 | PFS_CPU_PCLMUL;
    if (!(requires & ~features) && (!name || rung(name) <= rung("sse42")))
        return pfs_crc32c_combine_sse42;
#else
    (void)features;
    (void)name;
#endif
    return pfs_crc32c_combine;
}

/* The step that goes over each bite before the others: fnv64, which is the slowest, and fetches from memory ahead of itself. */
static size_t leader(const struct pfs_step *steps, size_t count)
{
    size_t known;
    const struct pfs_implementation *fnv64 = pfs_implementations(PFS_FNV64, &known);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < known; k++)
            if (steps[i].run == fnv64[k].run)
                return i;
    return 0;
}

static void run_step(struct pfs_step *step, const uint8_t *data, size_t len)
{
    step->value = step->run(step->value, data, len, step->imm);
}

/* Steps that one kernel runs together, so that each byte is loaded once for all three; else none. */
struct together {
    struct pfs_step *counteq, *xor, *add;
};

#ifdef PFS_X86_64
static struct pfs_step *first_of(struct pfs_step *steps, size_t count, pfs_kernel run)
{
    for (size_t i = 0; i < count; i++)
        if (steps[i].run == run)
            return &steps[i];
    return NULL;
}

static struct together together_of(struct pfs_step *steps, size_t count)
{
    const struct together none = {NULL, NULL, NULL}, all = {first_of(steps, count, pfs_counteq_avx512),
                                                            first_of(steps, count, pfs_xor_avx512),
                                                            first_of(steps, count, pfs_add_avx512)};
    return all.counteq && all.xor && all.add ? all : none;
}

static void run_together(const struct together *these, const uint8_t *data, size_t len)
{
    pfs_bytes_avx512(these->counteq, these->xor, these->add, data, len);
}
#else
static struct together together_of(struct pfs_step *steps, size_t count)
{
    (void)steps, (void)count;
    return (struct together){NULL, NULL, NULL};
}

static void run_together(const struct together *these, const uint8_t *data, size_t len)
{
    (void)these, (void)data, (void)len;
}
#endif

static int is_among(const struct together *these, const struct pfs_step *step)
{
    return step == these->counteq || step == these->xor || step == these->add;
}

void pfs_fused(struct pfs_step *steps, size_t count, const uint8_t *data, size_t len)
{
    struct pfs_step *first = steps + leader(steps, count);
    const struct together these = together_of(steps, count);
    while (len && count) {
        size_t block = FUSED_BLOCK - (uintptr_t)data % CACHE_LINE; /* so that all but the first are aligned */
        if (block > len)
            block = len;
        if (!is_among(&these, first))
            run_step(first, data, block);
        if (these.counteq)
            run_together(&these, data, block);
        for (struct pfs_step *step = steps; step < steps + count; step++)
            if (step != first && !is_among(&these, step))
                run_step(step, data, block);
        data += block;
        len -= block;
    }
}

#if defined(PFS_X86_64)

/* Zeros for a leaf that the CPU does not know: asked for one beyond its last, it answers with its last. */
static void cpuid(uint32_t leaf, uint32_t out[4])
{
    memset(out, 0, 4 * sizeof out[0]);
#if defined(_MSC_VER)
    int registers[4];
    __cpuid(registers, 0);
    if ((uint32_t)registers[0] < leaf)
        return;
    __cpuidex(registers, (int)leaf, 0);
    for (int i = 0; i < 4; i++)
        out[i] = (uint32_t)registers[i];
#else
    __get_cpuid_count(leaf, 0, &out[0], &out[1], &out[2], &out[3]);
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

/* XCR0's bits (Intel's SDM, volume 1, section 13.3): SSE; AVX; opmask, the upper halves of zmm0-15, and zmm16-31. */
#define SAVES_XMM 0x02
#define SAVES_YMM (SAVES_XMM | 0x04)
#define SAVES_ZMM (SAVES_YMM | 0xe0)

/* A feature of the CPU, which counts only where the OS saves the registers that its instructions write. */
struct feature {
    uint32_t bit;
    uint64_t saved;
    uint32_t ebx7, ecx7, ecx1; /* what CPUID's leaves 7 and 1 must say, all of it (SDM, volume 2) */
};
#define B(n) (UINT32_C(1) << (n))
static const struct feature FEATURES[] = {
    {PFS_CPU_SSSE3, SAVES_XMM, 0, 0, B(9)},
    {PFS_CPU_SSE42, SAVES_XMM, 0, 0, B(20)},
    {PFS_CPU_PCLMUL, SAVES_XMM, 0, 0, B(1)},
    {PFS_CPU_AVX2, SAVES_YMM, B(5), 0, B(28)},
    {PFS_CPU_VPCLMUL, SAVES_YMM, 0, B(10), B(28)},
    {PFS_CPU_AVX512, SAVES_ZMM, B(16) | B(17) | B(30) | B(31), 0, 0},
    {PFS_CPU_AVX512VNNI, SAVES_ZMM, B(16), B(11), 0},
    {PFS_CPU_AVX512GFNI, SAVES_ZMM, B(16), B(1) | B(8) | B(10), 0},
};

uint32_t pfs_features_of(uint32_t ecx1, uint32_t ebx7, uint32_t ecx7, uint64_t saved)
{
    uint32_t features = 0;
    for (size_t i = 0; i < sizeof FEATURES / sizeof FEATURES[0]; i++) {
        const struct feature *f = &FEATURES[i];
        if (!(f->saved & ~saved) && !(f->ebx7 & ~ebx7) && !(f->ecx7 & ~ecx7) && !(f->ecx1 & ~ecx1))
            features |= f->bit;
    }
    return features;
}

uint32_t pfs_cpu_features(void)
{
    uint32_t leaf1[4], leaf7[4];
    cpuid(1, leaf1);
    cpuid(7, leaf7);
    /* An OS without XSAVE still saves the SSE registers: the x86-64 ABI needs them. */
    uint64_t saved = leaf1[2] & B(27) ? os_saved_registers() : SAVES_XMM;
    return pfs_features_of(leaf1[2], leaf7[1], leaf7[2], saved);
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
