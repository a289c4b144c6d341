/* FNV-1a 64 with AVX2 and PCLMUL. */
#include "packetfs_kernels_impl.h"

#ifdef PFS_X86_64

#define FNV_NAME pfs_fnv64_avx2
#define FNV_TARGET PFS_TARGET("avx2,pclmul")
#define FNV_LANES 2
#define FNV_PCLMUL
#define FNV_NARROWER pfs_fnv64_portable
#define FNV_PAD_FROM 384
#include "fnv64_x86.h"
#include "fnv64_simd.h"

#else
typedef int pfs_fnv64_avx2_is_for_x86_64; /* ISO C forbids an empty translation unit */
#endif
