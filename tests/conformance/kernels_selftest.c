/* Runs every kernel that this machine supports against the definition of its op, one byte and one bit at a time.
 *
 * The C half of test_kernels.py: it needs no Python, so it also runs cross-compiled, under an emulator or a sanitizer.
 * Prints what it checked, and exits 1 at the first difference.
 */
#include "packetfs_kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Past two blocks of every kernel's largest stride, and of the fused pass. */
#define BIG ((size_t)(200 << 10) + 5)
#define SMALL 1000
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
static void check(const struct pfs_implementation *kernel, enum pfs_op op, size_t len, size_t offset, int fill)
{
    uint8_t *block = malloc(offset + len + !(offset + len));
    if (!block)
        abort();
    uint8_t *data = block + offset;
    for (size_t i = 0; i < len; i++)
        data[i] = fill < 0 ? (uint8_t)random64() : (uint8_t)fill;
    uint8_t imm = len % 3 ? (uint8_t)random64() : (uint8_t)fill;
    uint64_t value = random_value(op);
    uint64_t wanted = serial(op, value, data, len, imm);
    expect(pfs_op_name(op), kernel->name, len, kernel->run(value, data, len, imm), wanted);
    size_t cut = len ? random64() % len : 0;
    value = kernel->run(value, data, cut, imm);
    expect(pfs_op_name(op), kernel->name, len, kernel->run(value, data + cut, len - cut, imm), wanted);
    free(block);
}

static void check_kernel(const struct pfs_implementation *kernel, enum pfs_op op)
{
    static const int FILLS[] = {-1, 0x00, 0xff, 0x80};
    for (size_t len = 0; len <= SMALL; len++)
        check(kernel, op, len, len % ALIGNMENTS, -1);
    for (size_t offset = 0; offset < ALIGNMENTS; offset++)
        check(kernel, op, 4 * SMALL + offset, offset, -1);
    for (size_t i = 0; i < sizeof FILLS / sizeof FILLS[0]; i++) {
        check(kernel, op, BIG, 3, FILLS[i]);
        for (size_t len = 3 * 4096 - 9; len <= 3 * 4096 + 9; len++) /* about one block of three streams */
            check(kernel, op, len, len % 8, FILLS[i]);
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
    expect("choose", "without features", 0, (uintptr_t)pfs_choose(op, 0, NULL), (uintptr_t)&known[count - 1]);
    expect("choose", "with all", 0, (uintptr_t)pfs_choose(op, UINT32_MAX, NULL), (uintptr_t)&known[0]);
    expect("choose", "unknown", 0, (uintptr_t)pfs_choose(op, UINT32_MAX, "nonsense"), 0);
}

static void check_combine(const uint8_t *data)
{
    for (size_t len = 0; len <= BIG; len = len * 3 + 1) {
        size_t cut = random64() % (len + 1);
        uint32_t a = (uint32_t)serial(PFS_CRC32C, 0, data, cut, 0);
        uint32_t b = (uint32_t)serial(PFS_CRC32C, 0, data + cut, len - cut, 0);
        expect("combine", "", len, pfs_crc32c_combine(a, b, len - cut), serial(PFS_CRC32C, 0, data, len, 0));
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
    check_combine(data);
    check_fused(data);
    free(data);
    return 0;
}
