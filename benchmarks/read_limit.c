/* The read limit of this machine: every byte loaded into a register, and nothing done with it.
 *
 * kernels.py compiles it with the cc that is here. The loads are assembly, which no compiler can leave out. Which width
 * is the fastest differs from CPU to CPU and from cache to memory, so each is measured, and the best one counts.
 */
#include <stddef.h>
#include <stdint.h>

/* `passes` times over all bytes, 256 at least, in four lines of 64 a turn: neighbours, or, where `apart` is not 0, one of each
 * of four parts that far apart, and neighbours for what is behind them. Each line is prefetched into the second-level cache
 * where it is to come `ahead` bytes later (0: none). In a small buffer the call from Python would cost more than the reading,
 * memory feeds several streams in order faster than one, and a CPU may foresee nothing beyond a page. A load that straddles
 * two lines costs two, so the first byte of a line is where it begins; the few bytes before are made up for by the last turn. */
#define READ(name, declare, loads, ...)                                                                               \
    declare static const uint8_t *name##_turns(const uint8_t *data, size_t count, size_t apart, size_t ahead)          \
    {                                                                                                                  \
        const size_t gap = apart ? apart : 64;                                                                         \
        for (; count; count--, data += apart ? 64 : 256) {                                                             \
            for (size_t i = 0; ahead && i < 4; i++)                                                                    \
                __builtin_prefetch((const void *)((uintptr_t)data + gap * i + ahead), 0, 2);                           \
            __asm__ volatile(loads : : "r"(data), "r"(data + gap), "r"(data + 2 * gap), "r"(data + 3 * gap)            \
                             : __VA_ARGS__);                                                                           \
        }                                                                                                              \
        return data;                                                                                                   \
    }                                                                                                                  \
    declare void name(const uint8_t *data, size_t len, size_t passes, size_t apart, size_t ahead)                      \
    {                                                                                                                  \
        const uint8_t *end = data + len, *aligned = data + (0 - (uintptr_t)data) % 64;                                 \
        for (; passes; passes--) {                                                                                     \
            const uint8_t *at = aligned;                                                                               \
            if (apart)                                                                                                 \
                at = name##_turns(at, apart / 64, apart, ahead) + 3 * apart;                                           \
            at = name##_turns(at, (size_t)(end - at) / 256, 0, ahead);                                                 \
            if (at < end)                                                                                              \
                name##_turns(end - 256, 1, 0, 0);                                                                      \
        }                                                                                                              \
    }

#if defined(__x86_64__)

#define FOUR(load, r, a, b, c, d)                                                                                     \
    load " " a ", %%" r "0\n\t" load " " b ", %%" r "1\n\t" load " " c ", %%" r "2\n\t" load " " d ", %%" r "3\n\t"
READ(read_16, , FOUR("movdqu", "xmm", "(%0)", "16(%0)", "32(%0)", "48(%0)")
     FOUR("movdqu", "xmm", "(%1)", "16(%1)", "32(%1)", "48(%1)")
     FOUR("movdqu", "xmm", "(%2)", "16(%2)", "32(%2)", "48(%2)")
     FOUR("movdqu", "xmm", "(%3)", "16(%3)", "32(%3)", "48(%3)"),
     "xmm0", "xmm1", "xmm2", "xmm3")
READ(read_32, __attribute__((target("avx"))), FOUR("vmovdqu", "ymm", "(%0)", "32(%0)", "(%1)", "32(%1)")
     FOUR("vmovdqu", "ymm", "(%2)", "32(%2)", "(%3)", "32(%3)") "vzeroupper", "xmm0", "xmm1", "xmm2", "xmm3")
READ(read_64, __attribute__((target("avx512f"))), FOUR("vmovdqu64", "zmm", "(%0)", "(%1)", "(%2)", "(%3)") "vzeroupper",
     "xmm0", "xmm1", "xmm2", "xmm3")

/* The widest load here, in bytes. */
size_t widest(void)
{
    return __builtin_cpu_supports("avx512f") ? 64 : __builtin_cpu_supports("avx") ? 32 : 16;
}

#elif defined(__aarch64__)

#define LINE(at) "ldp q0, q1, [" at "]\n\tldp q2, q3, [" at ", #32]\n\t"
READ(read_16, , LINE("%0") LINE("%1") LINE("%2") LINE("%3"), "v0", "v1", "v2", "v3")

size_t widest(void)
{
    return 16;
}

#endif
