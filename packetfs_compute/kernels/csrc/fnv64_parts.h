/* What the two ways of fnv64 on vectors share, fnv64_simd.h and fnv64_avx512gfni.c. Who includes it has said what a vector
 * is, as fnv64_simd.h asks for. docs/fnv.md derives it.
 */

/* Bytes that are hashed together: 64 vectors. */
#define FNV_CHUNK (1024 * FNV_LANES)
/* How many bytes ahead of a chunk whose products are added up memory is fetched: with less it comes too late, with more it is
 * slower as well, in cache too. It may be beyond the input, where pfs_fused's next block stands, of which this kernel has all
 * the time to fetch it; a prefetch reads nothing. */
#define FNV_AHEAD (3 * FNV_CHUNK)

#if defined(__clang__)
#define FNV_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define FNV_UNROLL _Pragma("GCC unroll 8")
#else
#define FNV_UNROLL
#endif
#define FNV_EACH(i, n) FNV_UNROLL for (int i = 0; i < n; i++)

/* Stages apart from each other, or the compiler moves so much between them that it runs out of registers. */
#if defined(__GNUC__)
#define FNV_STAGE FNV_TARGET __attribute__((noinline)) static
#define FNV_WITHIN FNV_TARGET __attribute__((always_inline)) static inline
#else
#define FNV_STAGE FNV_TARGET static
#define FNV_WITHIN FNV_TARGET static inline
#endif

/* p^e mod 2^64 for a constant e below 2^13: each of these powers is the square of the one before. */
#define FNV_BIT(e, b, power) ((e) >> (b)&1 ? UINT64_C(power) : UINT64_C(1))
#define FNV_POWER(e)                                                                                                  \
    (FNV_BIT(e, 0, 0x00000100000001b3) * FNV_BIT(e, 1, 0x000366000002e329) * FNV_BIT(e, 2, 0x9ffaac085635bc91) *       \
     FNV_BIT(e, 3, 0x1efac7090aef4a21) * FNV_BIT(e, 4, 0x4efe15c813151841) * FNV_BIT(e, 5, 0x0558b2e6a2f64081) *       \
     FNV_BIT(e, 6, 0x0e9be24f4c2cc101) * FNV_BIT(e, 7, 0xf2457d0981da8201) * FNV_BIT(e, 8, 0xbeba0f98adb90401) *       \
     FNV_BIT(e, 9, 0xbd84745023820801) * FNV_BIT(e, 10, 0xc87ab8dc67441001) * FNV_BIT(e, 11, 0x4e98c8b14f882001) *     \
     FNV_BIT(e, 12, 0x62231d84a3104001))
#define FNV_INVERSE UINT64_C(0xce965057aff6957b) /* p * this is 1 mod 2^64 */

/* Digit d of four of a weight, signed: the digits times 2^16d add up to it. Adding 2^15 at each digit and XORing it
 * away again carries from the digits that are negative. */
#define FNV_SIGNS UINT64_C(0x8000800080008000)
#define FNV_DIGIT(weight, d) (uint16_t)((((weight) + FNV_SIGNS) ^ FNV_SIGNS) >> 16 * (d))

/* A stage of turning eight vectors: the bytes of two by turns. In four of them, all equal, byte i of the upper and of the
 * lower half of every lane comes into vector i; after three, byte i of every vector into half a lane. */
#define FNV_SHUFFLE(to, from)                                                                                         \
    FNV_EACH(j, 4) {                                                                                                  \
        to[2 * j] = V_LOW8(from[j], from[j + 4]);                                                                     \
        to[2 * j + 1] = V_HIGH8(from[j], from[j + 4]);                                                                \
    }

/* Sums of bytes further back, moved on by a chunk, and that chunk's share: four sums of 32 bits, one for each digit. */
FNV_TARGET static inline vec fnv64_moved_on(vec total, const vec sums[4])
{
    total = V_ADD64(V_MUL64(total, FNV_POWER(FNV_CHUNK)), V_PAIRS64(sums[0]));
    total = V_ADD64(total, V_LEFT64(V_PAIRS64(sums[1]), 16));
    total = V_ADD64(total, V_LEFT64(V_PAIRS64(sums[2]), 32));
    return V_ADD64(total, V_LEFT64(V_PAIRS64(sums[3]), 48));
}
