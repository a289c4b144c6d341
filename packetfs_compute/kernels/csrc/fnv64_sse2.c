/* FNV-1a 64 with SSE2, which every x86-64 has. */
#include "packetfs_kernels_impl.h"

#ifdef PFS_X86_64

#define FNV_NAME pfs_fnv64_sse2
#define FNV_TARGET
#define FNV_LANES 1
#define FNV_NARROWER pfs_fnv64_portable
#define FNV_PAD_FROM 384
#include "fnv64_x86.h"
#define V_DIFF_LOW(a, b) _mm_sub_epi16(V_LOW8(a, V_ZERO), V_LOW8(b, V_ZERO))
#define V_DIFF_HIGH(a, b) _mm_sub_epi16(V_HIGH8(a, V_ZERO), V_HIGH8(b, V_ZERO))
#include "fnv64_simd.h"

#else
typedef int pfs_fnv64_sse2_is_for_x86_64; /* ISO C forbids an empty translation unit */
#endif
