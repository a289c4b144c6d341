/* FNV-1a 64 with NEON, which every aarch64 has. */
#include "packetfs_kernels_impl.h"

#ifdef PFS_ARM64

#include <arm_neon.h>

#define FNV_NAME pfs_fnv64_neon
#define FNV_TARGET
#define FNV_LANES 1
#define FNV_NARROWER pfs_fnv64_portable
#define FNV_PAD_FROM 450
#define FNV_PREFETCH(p) __builtin_prefetch((const void *)(p))

/* A vector is bytes to the compiler; these say what else. */
#define U16(a) vreinterpretq_u16_u8(a)
#define U64(a) vreinterpretq_u64_u8(a)
#define S16(a) vreinterpretq_s16_u8(a)
#define S32(a) vreinterpretq_s32_u8(a)
#define S64(a) vreinterpretq_s64_u8(a)

typedef uint8x16_t lane;
#define L_XOR(x, y) veorq_u8(x, y)
#define L_TOP(x) vreinterpretq_u8_s64(vdupq_laneq_s64(vshrq_n_s64(S64(x), 63), 0))
#define L_SPREAD(x) vzip1q_u8(x, x)
#define L_PREFIX(x) fnv64_prefix(x)
#define L_FOLD(x) vcombine_u8(vmovn_u16(U16(veorq_u8(x, V_RIGHT16(x, 8)))), vdup_n_u8(0))

typedef uint8x16_t vec;
#define V_LOAD(p) vld1q_u8(p)
#define V_LANES(p) vld1q_u8((const uint8_t *)(p))
#define V_EVERY(x) (x)
#define V_TOTAL(a) (a)
#define V_BEFORE(a) V_ZERO
#define V_TO64(out, a) vst1q_u64(out, U64(a))
#define V_ZERO vdupq_n_u8(0)
#define V_SPLAT(byte) vdupq_n_u8(byte)
#define V_XOR(a, b) veorq_u8(a, b)
#define V_XOR3(a, b, c) veorq_u8(veorq_u8(a, b), c)
#define V_AND(a, b) vandq_u8(a, b)
#define V_ANDNOT(a, b) vbicq_u8(a, b)
#define V_KEEP(a, m, b) vbslq_u8(m, a, b)
#define V_TAKE(a, m, b) vbslq_u8(m, b, a)
#define V_LEFT16(a, n) vreinterpretq_u8_u16(vshlq_n_u16(U16(a), n))
#define V_RIGHT16(a, n) vreinterpretq_u8_u16(vshrq_n_u16(U16(a), n))
#define V_LEFT64(a, n) vreinterpretq_u8_u64(vshlq_n_u64(U64(a), n))
#define V_LOW8(a, b) vzip1q_u8(a, b)
#define V_HIGH8(a, b) vzip2q_u8(a, b)
#define V_DIFF_LOW(a, b) vreinterpretq_u8_u16(vsubl_u8(vget_low_u8(a), vget_low_u8(b)))
#define V_DIFF_HIGH(a, b) vreinterpretq_u8_u16(vsubl_high_u8(a, b))
#define V_DOT(sum, a, b) fnv64_dot16(sum, a, b)
#define V_ADD64(a, b) vreinterpretq_u8_u64(vaddq_u64(U64(a), U64(b)))
#define V_MUL64(a, n) fnv64_mul64(a, n)
#define V_PAIRS64(a) vreinterpretq_u8_s64(vpaddlq_s32(S32(a)))

static inline lane fnv64_prefix(lane x)
{
    x = veorq_u8(x, V_LEFT64(x, 1));
    x = veorq_u8(x, V_LEFT64(x, 2));
    x = veorq_u8(x, V_LEFT64(x, 4));
    x = veorq_u8(x, V_LEFT64(x, 8));
    x = veorq_u8(x, V_LEFT64(x, 16));
    return veorq_u8(x, V_LEFT64(x, 32));
}

static inline vec fnv64_dot16(vec sum, vec a, vec b)
{
    int32x4_t low = vmlal_s16(S32(sum), vget_low_s16(S16(a)), vget_low_s16(S16(b)));
    return vreinterpretq_u8_s32(vmlal_high_s16(low, S16(a), S16(b)));
}

/* One after the other: there is no 64-bit product of vectors, and this is done six times a chunk. */
static inline vec fnv64_mul64(vec a, uint64_t n)
{
    uint64x2_t products = vdupq_n_u64(vgetq_lane_u64(U64(a), 0) * n);
    return vreinterpretq_u8_u64(vsetq_lane_u64(vgetq_lane_u64(U64(a), 1) * n, products, 1));
}

#include "fnv64_simd.h"

#else
typedef int pfs_fnv64_neon_is_for_aarch64; /* ISO C forbids an empty translation unit */
#endif
