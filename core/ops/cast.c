/* cast.c - other dtypes, and copies in row-major order. */
#include "elementwise.h"

/* ---- loops ---- */

/* Bytes to floats are what images need: the kernel where both lie side by side. */
static void from_u8_run(int64_t n, char *const *p, const int64_t *s, const void *arg)
{
    const bp_tensor *y = (const bp_tensor *)arg;
    if (s[0] == 1 && s[1] == 1)
        bp_kernels_of(y->ctx, y->m.dtype)->from_u8(n, (const uint8_t *)p[1], p[0]);
    else
        bp_convert_run(BP_U8, y->m.dtype, n, p[1], s[1], p[0], s[0]);
}

static void convert_run(int64_t n, char *const *p, const int64_t *s, const void *arg)
{
    const bp_dtype *dtypes = (const bp_dtype *)arg;
    bp_convert_run(dtypes[0], dtypes[1], n, p[1], s[1], p[0], s[0]);
}

static void convert(bp_call *call)
{
    const bp_dtype from = call->in[0]->m.dtype, to = call->out[0]->m.dtype, dtypes[2] = { from, to };
    if (from == to)
        bp__copy(call->out[0], call->in[0]);
    else if (from == BP_U8 && bp_is_float(to))
        bp__elementwise(call->out[0], 1, call->in, from_u8_run, call->out[0]);
    else
        bp__elementwise(call->out[0], 1, call->in, convert_run, dtypes);
}

static bp_status run(bp_call *call)
{
    convert(call);
    return BP_OK;
}

/* ---- rows ---- */

static const bp_input x_input[] = { { "x", 0, "values of any shape" }, { 0 } };

static bp_status cast_infer(bp_call *call)
{
    const bp_meta *x = &call->in[0]->m;
    bp_out(call, 0, (bp_dtype)call->args[0].as.i, x->ndim, x->shape);
    return BP_OK;
}

/* Between floats only: integers carry no gradient. */
static void cast_gradient(bp_grad *g)
{
    const bp_arg dtype = bp_int(g->in[0]->m.dtype);
    bp_grad_set(g, 0, bp_g(g, &bp__op_cast, 1, &dtype, 1, g->dout[0]));
}

static void copy_gradient(bp_grad *g) { bp_grad_set(g, 0, g->dout[0]); }

static const bp_case copy_cases[] = {
    { "2x3", "", 0, 0, 0 }, { "s", "", 0, 0, 0 }, { "3x4'", "", 0, 0, 0 }, { "2x1x3'", "", 0, 0, 0 }, { "0x2", "", 0, 0, 0 }, { 0 },
};

const bp_op bp__op_cast = {
    .name = "cast",
    .group = "creation",
    .summary = "the same values in another dtype",
    .detail =
        "Floats become integers by dropping the fraction and stop at the ends of the range; NaN becomes 0. To bool: whether it is not 0.",
    .inputs = x_input,
    .options = (const bp_option[]){ { .name = "dtype",
                                      .kind = BP_OPT_DTYPE,
                                      .def = BP_F32,
                                      .min = 1,
                                      .max = 0,
                                      .required = true,
                                      .help = "of the result" },
                                    { 0 } },
    .n_out = 1,
    .outputs = "y: the shape of x",
    .flags = BP_OP_STRIDED | BP_OP_METHOD,
    .promote = BP_PROMOTE_NONE,
    .infer = cast_infer,
    .run = run,
    .gradient = cast_gradient,
    .cases = (const bp_case[]){ { "2x3", "dtype=f64", 0, 0, 0 },
                                { "1", "dtype=f64", 0, 0, 0 },
                                { "3x4'", "dtype=f64", 0, 0, 0 },
                                { "0x2", "dtype=f64", 0, 0, 0 },
                                { 0 } },
};

#define ROW(NAME, SUMMARY, DETAIL)             \
    const bp_op bp__op_##NAME = {              \
        .name = #NAME,                         \
        .group = "creation",                   \
        .summary = SUMMARY,                    \
        .detail = DETAIL,                      \
        .inputs = x_input,                     \
        .n_out = 1,                            \
        .outputs = "y: like x",                \
        .flags = BP_OP_STRIDED | BP_OP_METHOD, \
        .promote = BP_PROMOTE_NONE,            \
        .infer = bp_infer_same,                \
        .run = run,                            \
        .gradient = copy_gradient,             \
        .cases = copy_cases,                   \
    };
ROW(contiguous, "the same elements in row-major order", "A copy without gaps, in the order in which its indices count up.")
ROW(copy, "a copy with memory of its own", "Writing into the copy leaves x alone. In place it fills a tensor, views with gaps too.")
