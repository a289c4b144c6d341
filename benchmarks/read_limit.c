/* The read limit of this machine: every byte loaded into a register, and nothing done with it.
 *
 * kernels.py compiles it with the cc that is here. The loads are assembly, which no compiler can leave out. Which width
 * is the fastest differs from CPU to CPU and from cache to memory, so each is measured, and the best one counts.
 */
#include <stddef.h>
#include <stdint.h>

/* `passes` times over all whole KiB, in `parts` (1 or 4) side by side, each line of 64 bytes prefetched into the second-level
 * cache where it is to come `ahead` bytes later (0: none): in a small buffer the call from Python would cost more than the
 * reading, memory feeds several streams in order faster than one, and a CPU may foresee nothing beyond a page. */
#define READ(name, declare, loads, ...)                                                                               \
    declare void name(const uint8_t *data, size_t len, size_t passes, size_t parts, size_t ahead)                      \
    {                                                                                                                  \
        const size_t part = len / 1024 * 1024 / parts;                                                                 \
        for (; passes; passes--)                                                                                       \
            for (size_t at = 0; at < part; at += 256)                                                                  \
                for (size_t i = 0; i < parts; i++) {                                                                   \
                    for (size_t line = 0; ahead && line < 256; line += 64)                                             \
                        __builtin_prefetch((const void *)((uintptr_t)data + part * i + at + ahead + line), 0, 2);      \
                    __asm__ volatile(loads : : "r"(data + part * i + at) : __VA_ARGS__);                               \
                }                                                                                                      \
    }

#if defined(__x86_64__)

#define FOUR(load, r, a, b, c, d)                                                                                     \
    load " " #a "(%0), %%" r "0\n\t" load " " #b "(%0), %%" r "1\n\t" load " " #c "(%0), %%" r "2\n\t" load " " #d     \
         "(%0), %%" r "3\n\t"
READ(read_16, , FOUR("movdqu", "xmm", 0, 16, 32, 48) FOUR("movdqu", "xmm", 64, 80, 96, 112)
     FOUR("movdqu", "xmm", 128, 144, 160, 176) FOUR("movdqu", "xmm", 192, 208, 224, 240),
     "xmm0", "xmm1", "xmm2", "xmm3")
READ(read_32, __attribute__((target("avx"))), FOUR("vmovdqu", "ymm", 0, 32, 64, 96)
     FOUR("vmovdqu", "ymm", 128, 160, 192, 224) "vzeroupper", "xmm0", "xmm1", "xmm2", "xmm3")
READ(read_64, __attribute__((target("avx512f"))), FOUR("vmovdqu64", "zmm", 0, 64, 128, 192) "vzeroupper",
     "xmm0", "xmm1", "xmm2", "xmm3")

/* The widest load here, in bytes. */
size_t widest(void)
{
    return __builtin_cpu_supports("avx512f") ? 64 : __builtin_cpu_supports("avx") ? 32 : 16;
}

#elif defined(__aarch64__)

#define FOUR(a, b) "ldp q0, q1, [%0, #" #a "]\n\tldp q2, q3, [%0, #" #b "]\n\t"
READ(read_16, , FOUR(0, 32) FOUR(64, 96) FOUR(128, 160) FOUR(192, 224), "v0", "v1", "v2", "v3")

size_t widest(void)
{
    return 16;
}

#endif
