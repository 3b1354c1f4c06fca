/* create.c - tensors out of nothing. */
#include "elementwise.h"

#include <math.h>
#include <string.h>

static const bp_input no_inputs[] = { { 0 } };

#define DTYPE_OPTION                                                                                      \
    {                                                                                                     \
        .name = "dtype", .kind = BP_OPT_DTYPE, .def = BP_F32, .min = 1, .max = 0, .help = "of the result" \
    }

/* Whether a dtype holds the value as it is; floats round. */
static bool holds(bp_dtype dtype, double v)
{
    switch (dtype) {
    case BP_I32: return v == floor(v) && v >= INT32_MIN && v <= INT32_MAX;
    case BP_I64: return v == floor(v) && v >= -0x1p63 && v < 0x1p63;
    case BP_U8: return v == floor(v) && v >= 0 && v <= UINT8_MAX;
    case BP_BOOL: return v == 0 || v == 1;
    default: return true;
    }
}

static bp_status need_holds(bp_call *call, const char *what, double v, bp_dtype dtype)
{
    if (holds(dtype, v)) return BP_OK;
    return bp_op_fail(call, BP_EINVAL, "%s is %g, which %s cannot hold; choose another dtype", what, v, bp_dtype_name(dtype));
}

static void store(bp_dtype dtype, void *p, int64_t i, double v)
{
    switch (dtype) {
    case BP_F32: ((float *)p)[i] = (float)v; break;
    case BP_F64: ((double *)p)[i] = v; break;
    case BP_I32: ((int32_t *)p)[i] = (int32_t)v; break;
    case BP_I64: ((int64_t *)p)[i] = (int64_t)v; break;
    default: ((uint8_t *)p)[i] = (uint8_t)v; break;
    }
}

/* ---- full ---- */

static bp_status full_infer(bp_call *call)
{
    const bp_arg *shape = &call->args[0];
    const bp_dtype dtype = (bp_dtype)call->args[2].as.i;
    if (bp_shape_count(shape->count, shape->as.list) < 0) {
        char text[200];
        return bp_op_fail(call, BP_EINVAL, "shape %s has more elements than can be addressed",
                          bp_shape_text(shape->count, shape->as.list, text));
    }
    BP_TRY(need_holds(call, "value", call->args[1].as.f, dtype));
    bp_out(call, 0, dtype, shape->count, shape->as.list);
    return BP_OK;
}

#define FILL(name, T)                                                              \
    static void name(int64_t n, char *const *p, const int64_t *s, const void *arg) \
    {                                                                              \
        const T v = *(const T *)arg;                                               \
        for (int64_t i = 0; i < n; i++) ((T *)(void *)p[0])[i * s[0]] = v;         \
    }
FILL(fill_1, uint8_t)
FILL(fill_4, uint32_t)
FILL(fill_8, uint64_t)

static bp_status full_run(bp_call *call)
{
    const bp_dtype dtype = call->out[0]->m.dtype;
    const size_t size = bp_dtype_size(dtype);
    uint64_t value = 0;
    store(dtype, &value, 0, call->args[1].as.f);
    bp__elementwise(call->out[0], 0, NULL, size == 1 ? fill_1 : size == 4 ? fill_4 : fill_8, &value);
    return BP_OK;
}

const bp_op bp__op_full = {
    .name = "full",
    .group = "creation",
    .summary = "a tensor of one value",
    .inputs = no_inputs,
    .options = (const bp_option[]){ { .name = "shape",
                                      .kind = BP_OPT_INTS,
                                      .min = 0,
                                      .max = 0x1p62,
                                      .required = true,
                                      .help = "of the result; {} for a single number" },
                                    { .name = "value", .kind = BP_OPT_FLOAT, .def = 0, .min = 1, .max = 0, .help = "of every element" },
                                    DTYPE_OPTION,
                                    { 0 } },
    .n_out = 1,
    .outputs = "y: shape",
    .flags = BP_OP_NO_GRADIENT | BP_OP_STRIDED,
    .promote = BP_PROMOTE_NONE,
    .infer = full_infer,
    .run = full_run,
    .cases = (const bp_case[]){ { "", "shape=2,3 value=1.5", 0, 0, 0 },
                                { "", "shape=0,3", 0, 0, 0 },
                                { "", "shape=4 value=7 dtype=i64", 0, 0, 0 },
                                { 0 } },
};

/* ---- arange ---- */

static bp_status arange_infer(bp_call *call)
{
    const double start = call->args[0].as.f, stop = call->args[1].as.f, step = call->args[2].as.f;
    const bp_dtype dtype = (bp_dtype)call->args[3].as.i;
    if (step == 0 || !isfinite(step) || !isfinite(start) || !isfinite(stop))
        return bp_op_fail(call, BP_EINVAL, "start %g, stop %g, step %g; finite numbers and a step other than 0 are expected", start, stop,
                          step);
    const double n = ceil((stop - start) / step);
    if (n > 0x1p40)
        return bp_op_fail(call, BP_EINVAL, "start %g, stop %g, step %g give %g elements, more than can be addressed", start, stop, step, n);
    const int64_t count = n > 0 ? (int64_t)n : 0;
    if (count > 0) {
        BP_TRY(need_holds(call, "the first element", start, dtype));
        BP_TRY(need_holds(call, "step", dtype == BP_U8 ? fabs(step) : step, dtype == BP_BOOL ? BP_F32 : dtype));
        BP_TRY(need_holds(call, "the last element", start + (double)(count - 1) * step, dtype));
    }
    bp_out(call, 0, dtype, 1, &count);
    return BP_OK;
}

static bp_status arange_run(bp_call *call)
{
    const double start = call->args[0].as.f, step = call->args[2].as.f;
    const bp_tensor *y = call->out[0];
    const int64_t n = bp_count(y);
    for (int64_t i = 0; i < n; i++) store(y->m.dtype, bp_data(y), i, start + (double)i * step);
    return BP_OK;
}

const bp_op bp__op_arange = {
    .name = "arange",
    .group = "creation",
    .summary = "numbers in even steps",
    .detail = "y_i = start + i step for as long as it does not reach stop; each is rounded once.",
    .inputs = no_inputs,
    .options = (const bp_option[]){ { .name = "start", .kind = BP_OPT_FLOAT, .def = 0, .min = 1, .max = 0, .help = "the first element" },
                                    { .name = "stop",
                                      .kind = BP_OPT_FLOAT,
                                      .min = 1,
                                      .max = 0,
                                      .required = true,
                                      .help = "where to end, itself left out" },
                                    { .name = "step",
                                      .kind = BP_OPT_FLOAT,
                                      .def = 1,
                                      .min = 1,
                                      .max = 0,
                                      .help = "from one element to the next; may be negative" },
                                    DTYPE_OPTION,
                                    { 0 } },
    .n_out = 1,
    .outputs = "y: [n]",
    .flags = BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .infer = arange_infer,
    .run = arange_run,
    .cases = (const bp_case[]){ { "", "stop=5", 0, 0, 0 },
                                { "", "start=3 stop=-1 step=-0.5", 0, 0, 0 },
                                { "", "start=2 stop=2 dtype=i64", 0, 0, 0 },
                                { 0 } },
};

/* ---- eye ---- */

static bp_status eye_infer(bp_call *call)
{
    const int64_t n = call->args[0].as.i, m = call->args[1].as.i, shape[2] = { n, m < 0 ? n : m };
    if (bp_shape_count(2, shape) < 0) {
        char text[200];
        return bp_op_fail(call, BP_EINVAL, "shape %s has more elements than can be addressed", bp_shape_text(2, shape, text));
    }
    bp_out(call, 0, (bp_dtype)call->args[2].as.i, 2, shape);
    return BP_OK;
}

static bp_status eye_run(bp_call *call)
{
    const bp_tensor *y = call->out[0];
    const int64_t rows = y->m.shape[0], columns = y->m.shape[1];
    memset(bp_data(y), 0, (size_t)(rows * columns) * bp_dtype_size(y->m.dtype));
    for (int64_t i = 0; i < rows && i < columns; i++) store(y->m.dtype, bp_data(y), i * columns + i, 1);
    return BP_OK;
}

const bp_op bp__op_eye = {
    .name = "eye",
    .group = "creation",
    .summary = "a matrix with ones on its diagonal",
    .detail = "y[i, j] = 1 where i = j, else 0",
    .inputs = no_inputs,
    .options = (const bp_option[]){ { .name = "n",
                                      .kind = BP_OPT_INT,
                                      .min = 0,
                                      .max = 0x1p62,
                                      .required = true,
                                      .help = "number of rows" },
                                    { .name = "m",
                                      .kind = BP_OPT_INT,
                                      .def = -1,
                                      .min = -1,
                                      .max = 0x1p62,
                                      .help = "number of columns; -1: as many as rows" },
                                    DTYPE_OPTION,
                                    { 0 } },
    .n_out = 1,
    .outputs = "y: [n][m]",
    .flags = BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .infer = eye_infer,
    .run = eye_run,
    .cases = (const bp_case[]){ { "", "n=3", 0, 0, 0 }, { "", "n=2 m=4 dtype=f64", 0, 0, 0 }, { "", "n=0", 0, 0, 0 }, { 0 } },
};
