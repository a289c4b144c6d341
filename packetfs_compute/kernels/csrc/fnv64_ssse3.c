/* FNV-1a 64 with SSSE3: pmaddubsw subtracts bytes as it widens them. */
#include "packetfs_kernels_impl.h"

#ifdef PFS_X86_64

#define FNV_NAME pfs_fnv64_ssse3
#define FNV_TARGET PFS_TARGET("ssse3")
#define FNV_LANES 1
#define FNV_NARROWER pfs_fnv64_portable
#define FNV_PAD_FROM 384
#include "fnv64_x86.h"
#define V_DIFF_LOW(a, b) _mm_maddubs_epi16(V_LOW8(a, b), _mm_set1_epi16(FNV_PLUS_MINUS))
#define V_DIFF_HIGH(a, b) _mm_maddubs_epi16(V_HIGH8(a, b), _mm_set1_epi16(FNV_PLUS_MINUS))
#include "fnv64_simd.h"

#else
typedef int pfs_fnv64_ssse3_is_for_x86_64; /* ISO C forbids an empty translation unit */
#endif
