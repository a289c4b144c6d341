/* FNV-1a 64 with AVX-512 (F, BW, DQ, VL) and PCLMUL. */
#include "packetfs_kernels_impl.h"

#ifdef PFS_X86_64

#define FNV_NAME pfs_fnv64_avx512
#define FNV_TARGET PFS_TARGET("avx512f,avx512bw,avx512dq,avx512vl,pclmul")
#define FNV_LANES 4
#define FNV_PCLMUL
#define FNV_NARROWER pfs_fnv64_avx2
#define FNV_PAD_FROM 2240
#include "fnv64_x86.h"
#define V_DOT(sum, a, b) _mm512_add_epi32(sum, _mm512_madd_epi16(a, b))
#include "fnv64_simd.h"

#else
typedef int pfs_fnv64_avx512_is_for_x86_64; /* ISO C forbids an empty translation unit */
#endif
