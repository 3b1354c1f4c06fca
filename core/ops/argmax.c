/* argmax.c - argmax and argmin: where along a dimension the greatest or least element stands. */
#include "elementwise.h"

#include <string.h>

typedef struct job {
    const bp_kernels *kernels;
    bp_dtype dtype;
    int sign;                /* +1: the greatest, -1: the least */
    int64_t outer, r, inner; /* x is [outer][r][inner] */
    int64_t outers;          /* per chunk */
    int64_t base;
    const char *x;
    int64_t *y;
} job;

#define LOOP(name, T)                                                                               \
    static void name(int sign, int64_t outer, int64_t r, int64_t inner, const void *x_, int64_t *y) \
    {                                                                                               \
        const T *x = (const T *)x_;                                                                 \
        for (int64_t o = 0; o < outer; o++, x += r * inner, y += inner) {                           \
            for (int64_t j = 0; j < inner; j++) y[j] = 0;                                           \
            for (int64_t i = 1; i < r; i++)                                                         \
                for (int64_t j = 0; j < inner; j++) {                                               \
                    const T v = x[i * inner + j], best = x[y[j] * inner + j];                       \
                    if (sign > 0 ? v > best : v < best) y[j] = i;                                   \
                }                                                                                   \
        }                                                                                           \
    }
LOOP(arg_i32, int32_t)
LOOP(arg_i64, int64_t)
LOOP(arg_u8, uint8_t)

static void run_chunk(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const int64_t o = number * j->outers, outer = j->outer - o < j->outers ? j->outer - o : j->outers;
    const void *x = j->x + (size_t)(o * j->r * j->inner) * bp_dtype_size(j->dtype);
    int64_t *y = j->y + o * j->inner;
    (void)worker;
    switch (j->dtype) {
    case BP_I32: arg_i32(j->sign, outer, j->r, j->inner, x, y); break;
    case BP_I64: arg_i64(j->sign, outer, j->r, j->inner, x, y); break;
    case BP_U8:
    case BP_BOOL: arg_u8(j->sign, outer, j->r, j->inner, x, y); break;
    default: j->kernels->reduce_arg(j->sign, outer, j->r, j->inner, x, y); break;
    }
    for (int64_t i = 0; i < outer * j->inner; i++) y[i] += j->base;
}

static bp_status arg_infer(bp_call *call)
{
    const bp_meta *x = &call->in[0]->m;
    int64_t shape[BP_MAX_DIMS];
    int axis, ndim = 0;
    BP_TRY(bp_shape_axis(call->ctx, call->op->name, call->args[0].as.i, x->ndim, &axis));
    if (x->shape[axis] == 0) {
        char text[200];
        return bp_op_fail(call, BP_EINVAL, "'x' has shape %s: among no elements there is none to choose; leave empty tensors out",
                          bp_shape_text(x->ndim, x->shape, text));
    }
    for (int i = 0; i < x->ndim; i++)
        if (i != axis || call->args[1].as.i) shape[ndim++] = i == axis ? 1 : x->shape[i];
    bp_out(call, 0, BP_I64, ndim, shape);
    return BP_OK;
}

static bp_status arg_run(bp_call *call, int sign)
{
    const bp_tensor *x = call->in[0];
    int axis;
    BP_TRY(bp_shape_axis(call->ctx, call->op->name, call->args[0].as.i, x->m.ndim, &axis));
    job j = { .kernels = bp_kernels_of(call->ctx, x->m.dtype),
              .dtype = x->m.dtype,
              .sign = sign,
              .outer = 1,
              .r = x->m.shape[axis],
              .inner = 1,
              .base = call->ctx->base,
              .x = bp_data(x),
              .y = (int64_t *)(void *)bp_data(call->out[0]) };
    for (int i = 0; i < axis; i++) j.outer *= x->m.shape[i];
    for (int i = axis + 1; i < x->m.ndim; i++) j.inner *= x->m.shape[i];
    if (j.outer * j.inner == 0) return BP_OK;
    j.outers = j.r * j.inner >= BP_ELEMENT_GRAIN ? 1 : BP_ELEMENT_GRAIN / (j.r * j.inner);
    bp_parallel(call->ctx, bp_chunks(j.outer, j.outers), run_chunk, &j);
    return BP_OK;
}
static bp_status argmax_run(bp_call *call) { return arg_run(call, 1); }
static bp_status argmin_run(bp_call *call) { return arg_run(call, -1); }

#define ROW(NAME, WORD)                                                                     \
    const bp_op bp__op_##NAME = {                                                           \
        .name = #NAME,                                                                      \
        .group = "reductions",                                                              \
        .summary = "where along a dimension the " WORD " element stands",                   \
        .detail = "The position of the first of the " WORD " elements; NaN counts as one.", \
        .inputs = (const bp_input[]){ { "x", 0, "values of any shape" }, { 0 } },           \
        .options = (const bp_option[]){ { .name = "axis",                                   \
                                          .kind = BP_OPT_AXIS,                              \
                                          .min = 1,                                         \
                                          .max = 0,                                         \
                                          .required = true,                                 \
                                          .help = "the dimension to look along" },          \
                                        { .name = "keepdims",                               \
                                          .kind = BP_OPT_BOOL,                              \
                                          .min = 1,                                         \
                                          .max = 0,                                         \
                                          .help = "keep that dimension with size 1" },      \
                                        { 0 } },                                            \
        .n_out = 1,                                                                         \
        .outputs = "y: i64 positions, x without the dimension",                             \
        .flags = BP_OP_METHOD | BP_OP_NO_GRADIENT,                                          \
        .promote = BP_PROMOTE_NONE,                                                         \
        .infer = arg_infer,                                                                 \
        .run = NAME##_run,                                                                  \
        .cases = (const bp_case[]){ { "2x3", "axis=1", 0, 0, 0 },                           \
                                    { "2x3x4'", "axis=1 keepdims=1", 0, 0, 0 },             \
                                    { "i64:5<9", "axis=0", 0, 0, 0 },                       \
                                    { 0 } },                                                \
    };
ROW(argmax, "greatest")
ROW(argmin, "least")
