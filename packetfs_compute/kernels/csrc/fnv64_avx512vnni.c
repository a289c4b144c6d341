/* FNV-1a 64 with AVX-512 VNNI, whose vpdpwssd is the dot product's two instructions in one. */
#include "packetfs_kernels_impl.h"

#ifdef PFS_X86_64

#define FNV_NAME pfs_fnv64_avx512vnni
#define FNV_TARGET PFS_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,pclmul")
#define FNV_LANES 4
#define FNV_PCLMUL
#define FNV_VNNI
#define FNV_NARROWER pfs_fnv64_avx2
#define FNV_PAD_FROM 2240
#include "fnv64_x86.h"
#include "fnv64_simd.h"

#else
typedef int pfs_fnv64_avx512vnni_is_for_x86_64; /* ISO C forbids an empty translation unit */
#endif
