/* elementwise.h - running a function over tensors element by element, whatever their strides and however they broadcast. */
#ifndef BP_ELEMENTWISE_H
#define BP_ELEMENTWISE_H

#include "../base/pool.h"
#include "op.h"

/* Elements worth handing to a thread. Less work than this runs inline. */
#define BP_ELEMENT_GRAIN 32768

/* bp_parallel, but inline when there are fewer elements than one grain. */
void bp__spread(bp_ctx *ctx, int64_t elements, int64_t chunks, bp_chunk_fn *fn, void *arg);

/* One run: n elements of each operand. p[0] is where the output begins, p[1].. the inputs; operand k advances by s[k] elements. */
typedef void bp_run_fn(int64_t n, char *const *p, const int64_t *s, const void *arg);

/* Runs fn over out and its inputs (each broadcast to out's shape, at most BP_WALK_MAX - 1 of them), in parallel. */
void bp__elementwise(bp_tensor *out, int n_in, bp_tensor *const *in, bp_run_fn *fn, const void *arg);

/* out = in (broadcast), moved as they are: both of one dtype, any strides, negative ones too. */
void bp__copy(bp_tensor *out, bp_tensor *in);

/* out[0] = kernel(in[0]), kernel(in[0], in[1]); all of one float dtype, the output of a comparison bool. */
void bp__run_unary(bp_call *call, bp_unary_id kernel, double p);
void bp__run_binary(bp_call *call, bp_binary_id kernel, double p);
void bp__run_compare(bp_call *call, bp_compare_id kernel);

/* Loops over both integer dtypes that promotion leaves: defines NAME_i32 and NAME_i64, each a bp_run_fn. Arithmetic wraps around: U is the
 * unsigned type to write it in. */
#define BP_INTEGER_LOOP1(name, T, UNSIGNED, value)                                 \
    static void name(int64_t n, char *const *p, const int64_t *s, const void *arg) \
    {                                                                              \
        typedef UNSIGNED U;                                                        \
        (void)arg;                                                                 \
        for (int64_t i = 0; i < n; i++) {                                          \
            const T x = ((const T *)(const void *)p[1])[i * s[1]];                 \
            ((T *)(void *)p[0])[i * s[0]] = (T)(value);                            \
        }                                                                          \
        (void)sizeof(U);                                                           \
    }
#define BP_INTEGER_UNARY(name, value)                      \
    BP_INTEGER_LOOP1(name##_i32, int32_t, uint32_t, value) \
    BP_INTEGER_LOOP1(name##_i64, int64_t, uint64_t, value)
/* R is the type of the result: T, or uint8_t for truth. */
#define BP_INTEGER_LOOP2(name, T, UNSIGNED, R, value)                                                             \
    static void name(int64_t n, char *const *p, const int64_t *s, const void *arg)                                \
    {                                                                                                             \
        typedef UNSIGNED U;                                                                                       \
        (void)arg;                                                                                                \
        for (int64_t i = 0; i < n; i++) {                                                                         \
            const T a = ((const T *)(const void *)p[1])[i * s[1]], b = ((const T *)(const void *)p[2])[i * s[2]]; \
            ((R *)(void *)p[0])[i * s[0]] = (R)(value);                                                           \
        }                                                                                                         \
        (void)sizeof(U);                                                                                          \
    }

/* ---- for gradients: t times, plus a number ---- */
static inline bp_tensor *bp__g_times(bp_grad *g, bp_tensor *t, double number) { return G2(g, mul, t, bp_g_number(g, t, number)); }
static inline bp_tensor *bp__g_plus(bp_grad *g, bp_tensor *t, double number) { return G2(g, add, t, bp_g_number(g, t, number)); }

#endif
