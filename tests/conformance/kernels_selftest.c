/* Runs every kernel that this machine supports against the definition of its op, one byte and one bit at a time.
 *
 * The C half of test_kernels.py: it needs no Python, so it also runs cross-compiled, under an emulator or a sanitizer.
 * Prints what it checked, and exits 1 at the first difference.
 */
#include "packetfs_kernels_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Past two blocks of every kernel's largest stride, and of the fused pass. */
#define BIG ((size_t)(200 << 10) + 5)
#define SMALL 1000
#define EVERY 5000
#define ALIGNMENTS 64

static uint64_t serial(enum pfs_op op, uint64_t value, const uint8_t *data, size_t len, uint8_t imm)
{
    uint32_t crc = ~(uint32_t)value;
    for (size_t i = 0; i < len; i++) {
        switch (op) {
        case PFS_COUNTEQ: value += data[i] == imm; break;
        case PFS_FNV64: value = (value ^ data[i]) * UINT64_C(1099511628211); break;
        case PFS_XOR: value ^= data[i] ^ imm; break;
        case PFS_ADD: value += (data[i] + imm) % 256; break;
        case PFS_CRC32C:
            crc ^= data[i];
            for (int bit = 0; bit < 8; bit++)
                crc = crc & 1 ? crc >> 1 ^ UINT32_C(0x82f63b78) : crc >> 1;
            break;
        }
    }
    return op == PFS_CRC32C ? (uint32_t)~crc : value;
}

static uint64_t random_state = 1;
static uint64_t random64(void) /* xorshift64*, Vigna 2016 */
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(2685821657736338717);
}

static uint64_t random_value(enum pfs_op op)
{
    return op == PFS_XOR ? random64() % 256 : op == PFS_CRC32C ? (uint32_t)random64() : random64();
}

static void expect(const char *what, const char *name, size_t len, uint64_t got, uint64_t wanted)
{
    if (got == wanted)
        return;
    printf("%s %s: %zu bytes give %llx, not %llx\n", what, name, len, (unsigned long long)got,
           (unsigned long long)wanted);
    exit(1);
}

/* A block that ends where its data does, so that a sanitizer sees the first byte read beyond it. */
static void check(const struct pfs_implementation *kernel, enum pfs_op op, size_t len, size_t offset, int fill, uint8_t imm)
{
    uint8_t *block = malloc(offset + len + !(offset + len));
    if (!block)
        abort();
    uint8_t *data = block + offset;
    for (size_t i = 0; i < len; i++)
        data[i] = fill < 0 ? (uint8_t)random64() : (uint8_t)fill;
    uint64_t value = random_value(op);
    uint64_t wanted = serial(op, value, data, len, imm);
    expect(pfs_op_name(op), kernel->name, len, kernel->run(value, data, len, imm), wanted);
    size_t cut = len ? random64() % len : 0;
    value = kernel->run(value, data, cut, imm);
    expect(pfs_op_name(op), kernel->name, len, kernel->run(value, data + cut, len - cut, imm), wanted);
    free(block);
}

/* Past a turn of every kernel, and what may be left of one; its value grows with the length, and is known for all. */
static void check_every_length(const struct pfs_implementation *kernel, enum pfs_op op, int fill)
{
    uint8_t data[EVERY], imm = fill < 0 ? (uint8_t)random64() : (uint8_t)fill;
    uint64_t value = random_value(op), wanted = value;
    for (size_t len = 0; len <= EVERY; len++) {
        size_t offset = random64() % ALIGNMENTS;
        uint8_t *block = malloc(offset + len + !(offset + len));
        if (!block)
            abort();
        memcpy(block + offset, data, len);
        expect(pfs_op_name(op), kernel->name, len, kernel->run(value, block + offset, len, imm), wanted);
        free(block);
        if (len < EVERY) {
            data[len] = fill < 0 ? (uint8_t)random64() : (uint8_t)fill;
            wanted = serial(op, wanted, data + len, 1, imm);
        }
    }
}

static void check_kernel(const struct pfs_implementation *kernel, enum pfs_op op)
{
    static const int FILLS[] = {-1, 0x00, 0xff, 0x80};
    for (size_t i = 0; i < sizeof FILLS / sizeof FILLS[0]; i++)
        check_every_length(kernel, op, FILLS[i]);
    /* Several chunks of fnv64's widest kernel, of 4 KiB, and any rest. */
    for (size_t len = EVERY; op == PFS_FNV64 && len <= 4 * EVERY; len += 61)
        check(kernel, op, len, len % ALIGNMENTS, -1, 0);
    for (size_t offset = 0; offset < ALIGNMENTS; offset++)
        check(kernel, op, 4 * SMALL + offset, offset, -1, (uint8_t)random64());
    for (size_t i = 0; i < sizeof FILLS / sizeof FILLS[0]; i++) {
        check(kernel, op, BIG, 3, FILLS[i], (uint8_t)FILLS[i]); /* where a narrow counter of hits would overflow */
        check(kernel, op, BIG, 5, FILLS[i], (uint8_t)random64());
        for (size_t len = 3 * 4096 - 9; len <= 3 * 4096 + 9; len++) /* about one block of three streams */
            check(kernel, op, len, len % 8, FILLS[i], (uint8_t)FILLS[i]);
    }
    expect(pfs_op_name(op), kernel->name, 0, kernel->run(7, NULL, 0, 1), 7);
    printf("ok %s %s\n", pfs_op_name(op), kernel->name);
}

static void check_dispatch(enum pfs_op op)
{
    size_t count;
    const struct pfs_implementation *known = pfs_implementations(op, &count);
    if (strcmp(known[count - 1].name, "portable") || known[count - 1].requires) {
        printf("%s: the last implementation is not portable\n", pfs_op_name(op));
        exit(1);
    }
    size_t plain = 0;
    while (known[plain].requires)
        plain++;
    expect("choose", "without features", 0, (uintptr_t)pfs_choose(op, 0, NULL), (uintptr_t)&known[plain]);
    expect("choose", "with all", 0, (uintptr_t)pfs_choose(op, UINT32_MAX, NULL), (uintptr_t)&known[0]);
    expect("choose", "unknown", 0, (uintptr_t)pfs_choose(op, UINT32_MAX, "nonsense"), 0);
    for (size_t i = 0; i < count; i++)
        expect("choose", known[i].name, 0, (uintptr_t)pfs_choose(op, UINT32_MAX, known[i].name), (uintptr_t)&known[i]);
    /* A name that the op lacks, or the machine: the best of those below. */
    expect("choose", "lacking", 0, (uintptr_t)pfs_choose(op, 0, "avx512gfni"), (uintptr_t)pfs_choose(op, 0, NULL));
}

#ifdef PFS_X86_64
/* By the bits of CPUID and XCR0, from Intel's manual: the registers of a set must be saved, all of them. */
static void check_features(void)
{
    const uint32_t ecx1 = UINT32_C(1) << 28 | UINT32_C(1) << 20 | UINT32_C(1) << 9 | UINT32_C(1) << 1;
    const uint32_t ebx7 = UINT32_C(1) << 5 | UINT32_C(1) << 16 | UINT32_C(1) << 17 | UINT32_C(1) << 30 | UINT32_C(1) << 31;
    const uint32_t ecx7 = UINT32_C(1) << 1 | UINT32_C(1) << 8 | UINT32_C(1) << 10 | UINT32_C(1) << 11;
    const uint32_t sse = PFS_CPU_SSSE3 | PFS_CPU_SSE42 | PFS_CPU_PCLMUL, avx = sse | PFS_CPU_AVX2 | PFS_CPU_VPCLMUL;
    const uint32_t all = avx | PFS_CPU_AVX512 | PFS_CPU_AVX512VNNI | PFS_CPU_AVX512GFNI;
    expect("features", "all", 0, pfs_features_of(ecx1, ebx7, ecx7, 0xe7), all);
    expect("features", "no opmask", 0, pfs_features_of(ecx1, ebx7, ecx7, 0xc7), avx);
    expect("features", "no zmm0-15", 0, pfs_features_of(ecx1, ebx7, ecx7, 0xa7), avx);
    expect("features", "no zmm16-31", 0, pfs_features_of(ecx1, ebx7, ecx7, 0x67), avx);
    expect("features", "no ymm", 0, pfs_features_of(ecx1, ebx7, ecx7, 0xe3), sse);
    expect("features", "no xmm", 0, pfs_features_of(ecx1, ebx7, ecx7, 0), 0);
    for (int bit = 0; bit < 32; bit++) {
        uint32_t without = UINT32_MAX ^ UINT32_C(1) << bit;
        uint32_t foundation = bit == 16 ? PFS_CPU_AVX512VNNI | PFS_CPU_AVX512GFNI : 0;
        uint32_t vector = ebx7 >> bit & 1 && bit != 5 ? PFS_CPU_AVX512 | foundation : 0;
        uint32_t gfni = bit == 1 || bit == 8 || bit == 10 ? PFS_CPU_AVX512GFNI : 0;
        expect("features", "ebx7", (size_t)bit, pfs_features_of(ecx1, ebx7 & without, ecx7, 0xe7),
               all & ~(vector | (bit == 5 ? PFS_CPU_AVX2 : 0)));
        expect("features", "ecx7", (size_t)bit, pfs_features_of(ecx1, ebx7, ecx7 & without, 0xe7),
               all & ~(gfni | (bit == 10 ? PFS_CPU_VPCLMUL : 0) | (bit == 11 ? PFS_CPU_AVX512VNNI : 0)));
    }
    const uintptr_t fast = (uintptr_t)pfs_crc32c_combine_sse42, plain = (uintptr_t)pfs_crc32c_combine;
    expect("choose", "combine", 0, (uintptr_t)pfs_choose_combine(sse, NULL), fast);
    expect("choose", "combine under avx2", 0, (uintptr_t)pfs_choose_combine(sse, "avx2"), fast);
    expect("choose", "combine under portable", 0, (uintptr_t)pfs_choose_combine(all, "portable"), plain);
    expect("choose", "combine without PCLMUL", 0, (uintptr_t)pfs_choose_combine(PFS_CPU_SSE42, NULL), plain);
    printf("ok features\n");
}
#endif

static void check_combine(const char *name, const uint8_t *data)
{
    pfs_combine combine = pfs_choose_combine(pfs_cpu_features(), name);
    for (size_t len = 0; len <= BIG; len = len * 3 + 1) {
        size_t cut = random64() % (len + 1);
        uint32_t a = (uint32_t)serial(PFS_CRC32C, 0, data, cut, 0);
        uint32_t b = (uint32_t)serial(PFS_CRC32C, 0, data + cut, len - cut, 0);
        expect("combine", "", len, combine(a, b, len - cut), serial(PFS_CRC32C, 0, data, len, 0));
    }
    for (int bits = 0; bits < 64; bits++) { /* shifts add up, and 2^31 - 1 of them are none */
        uint32_t crc = (uint32_t)random64();
        uint64_t first = random64() >> bits >> 1, second = random64() >> bits >> 1;
        expect("combine", "shifts", 0, combine(combine(crc, 0, first), 5, second), combine(crc, 5, first + second));
        expect("combine", "none", 0, combine(crc, 9, UINT64_C(0x7fffffff) * (uint64_t)(bits + 1)), crc ^ 9);
        uint64_t ones = UINT64_MAX >> bits;
        expect("combine", "ones", (size_t)bits, combine(crc, 0, ones), pfs_crc32c_combine(crc, 0, ones));
        expect("combine", "portable", 0, combine(crc, 0, first), pfs_crc32c_combine(crc, 0, first));
    }
    printf("ok combine\n");
}

static void check_fused(const uint8_t *data)
{
    struct pfs_step steps[PFS_OPS];
    uint64_t wanted[PFS_OPS];
    for (int op = 0; op < PFS_OPS; op++) {
        uint64_t value = random_value((enum pfs_op)op);
        steps[op] = (struct pfs_step){pfs_choose((enum pfs_op)op, pfs_cpu_features(), NULL)->run, value, 10};
        wanted[op] = serial((enum pfs_op)op, value, data, BIG, 10);
    }
    pfs_fused(steps, PFS_OPS, data, BIG);
    for (int op = 0; op < PFS_OPS; op++)
        expect("fused", pfs_op_name((enum pfs_op)op), BIG, steps[op].value, wanted[op]);
    printf("ok fused\n");
}

int main(void)
{
    uint8_t *data = malloc(BIG);
    if (!data)
        abort();
    for (size_t i = 0; i < BIG; i++)
        data[i] = (uint8_t)random64();
    for (int op = 0; op < PFS_OPS; op++) {
        size_t count;
        const struct pfs_implementation *known = pfs_implementations((enum pfs_op)op, &count);
        for (size_t i = 0; i < count; i++)
            if (!(known[i].requires & ~pfs_cpu_features()))
                check_kernel(&known[i], (enum pfs_op)op);
        check_dispatch((enum pfs_op)op);
    }
    check_combine(NULL, data);
    check_combine("portable", data);
    check_fused(data);
#ifdef PFS_X86_64
    check_features();
#endif
    free(data);
    return 0;
}
