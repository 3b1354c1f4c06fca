/* kernel.h - what every kernel source begins with: the element type, the vector type of this build, and the name of a kernel in it.
 * KREAL (float or double), KLANES (elements per vector) and KBUILD (e.g. f32_avx2) come from the Makefile. */
#ifndef BP_KERNEL_H
#define BP_KERNEL_H

#include "kernels.h"

#ifndef KREAL
#error "compile kernel sources with -DKREAL= -DKLANES= -DKBUILD="
#endif

#define KPASTE2(a, b) a##_##b
#define KPASTE(a, b) KPASTE2(a, b)
/* K(gemm) is bp__k_gemm_f32_avx2 in that build. */
#define K(name) KPASTE(bp__k_##name, KBUILD)

typedef KREAL real;
/* A vector of KLANES elements; vec_u may lie at any address. */
typedef KREAL vec __attribute__((vector_size(KLANES * sizeof(KREAL))));
typedef KREAL vec_u __attribute__((vector_size(KLANES * sizeof(KREAL)), aligned(sizeof(KREAL)), may_alias));

static inline vec vec_load(const real *p) { return *(const vec_u *)p; }
static inline void vec_store(real *p, vec v) { *(vec_u *)p = v; }
static inline vec vec_set(real x) { return x - (vec){ 0 }; }

#define BP_KERNEL(result, name, parameters) result K(name) parameters;
#include "kernels.def"
#undef BP_KERNEL

/* The rows of elementwise.def: K(unary_exp), K(binary_add), K(compare_lt). */
#define BP_UNARY(name, ...) bp_unary_fn K(unary_##name);
#define BP_BINARY(name, ...) bp_binary_fn K(binary_##name);
#define BP_COMPARE(name, ...) bp_compare_fn K(compare_##name);
#include "elementwise.def"
#undef BP_UNARY
#undef BP_BINARY
#undef BP_COMPARE

#endif
