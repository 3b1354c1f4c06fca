/* linear_scan.c - y[t] = x[t] + decay[t] y[t-1] along a dimension, from either end: discounted returns, advantages, moving averages. */
#include "elementwise.h"

enum { COLUMNS = 64 };

typedef void scan_fn(int64_t r, int64_t step, int64_t columns, const void *x, const void *decay, void *y);

typedef struct job {
    scan_fn *fn;
    int64_t r, inner, pieces; /* x is [outer][r][inner], cut into pieces of COLUMNS columns */
    bool reverse;
    size_t size;
    const char *x, *decay;
    char *y;
} job;

/* The running value is carried in f64. decay of the first element met is not looked at: it has nothing before it. */
#define SCAN(name, T)                                                                                                     \
    static void name(int64_t r, int64_t step, int64_t columns, const void *x_, const void *decay_, void *y_)              \
    {                                                                                                                     \
        const T *x = (const T *)x_, *decay = (const T *)decay_;                                                           \
        T *y = (T *)y_;                                                                                                   \
        double state[COLUMNS];                                                                                            \
        for (int64_t j = 0; j < columns; j++) state[j] = (double)x[j];                                                    \
        for (int64_t i = 0; i < r; i++, x += step, decay += step, y += step)                                              \
            for (int64_t j = 0; j < columns; j++) {                                                                       \
                if (i > 0) state[j] = (double)x[j] + (double)decay[j] * state[j];                                         \
                y[j] = (T)state[j];                                                                                       \
            }                                                                                                             \
    }
SCAN(scan_f32, float)
SCAN(scan_f64, double)

static void run_chunk(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const int64_t column = number % j->pieces * COLUMNS;
    const int64_t begin = number / j->pieces * j->r * j->inner + column + (j->reverse ? (j->r - 1) * j->inner : 0);
    const int64_t columns = j->inner - column < COLUMNS ? j->inner - column : COLUMNS;
    (void)worker;
    j->fn(j->r, j->reverse ? -j->inner : j->inner, columns, j->x + (size_t)begin * j->size, j->decay + (size_t)begin * j->size,
          j->y + (size_t)begin * j->size);
}

static bp_status linear_scan_infer(bp_call *call)
{
    const bp_meta *x = &call->in[0]->m;
    int axis;
    BP_TRY(bp_shape_axis(call->ctx, call->op->name, call->args[0].as.i, x->ndim, &axis));
    BP_TRY(bp_need_shape(call, 1, x->ndim, x->shape));
    bp_out(call, 0, x->dtype, x->ndim, x->shape);
    return BP_OK;
}

static bp_status linear_scan_run(bp_call *call)
{
    const bp_tensor *x = call->in[0];
    int64_t outer = 1;
    int axis;
    BP_TRY(bp_shape_axis(call->ctx, call->op->name, call->args[0].as.i, x->m.ndim, &axis));
    job j = { .fn = x->m.dtype == BP_F64 ? scan_f64 : scan_f32,
              .r = x->m.shape[axis],
              .inner = 1,
              .reverse = call->args[1].as.i != 0,
              .size = bp_dtype_size(x->m.dtype),
              .x = bp_data(x),
              .decay = bp_data(call->in[1]),
              .y = bp_data(call->out[0]) };
    for (int i = 0; i < axis; i++) outer *= x->m.shape[i];
    for (int i = axis + 1; i < x->m.ndim; i++) j.inner *= x->m.shape[i];
    j.pieces = (j.inner + COLUMNS - 1) / COLUMNS;
    if (bp_count(x) > 0) bp__spread(call->ctx, bp_count(x), outer * j.pieces, run_chunk, &j);
    return BP_OK;
}

/* y[t] = x[t - 1], the place left free zero; forwards = false: y[t] = x[t + 1]. */
static bp_tensor *shifted(bp_grad *g, bp_tensor *x, int64_t axis, bool forwards)
{
    int at;
    if (g->status == BP_OK) g->status = bp_shape_axis(g->ctx, "linear_scan", axis, g->in[0]->m.ndim, &at);
    if (g->status != BP_OK) return NULL;
    const int64_t n = g->in[0]->m.shape[at];
    if (n == 0) return x;
    const bp_arg cut[] = { bp_int(axis), bp_int(forwards ? 0 : 1), bp_int(forwards ? n - 1 : n), bp_int(1) };
    const bp_arg place[] = { bp_int(axis), bp_int(forwards ? 1 : 0), bp_int(1), bp_int(n) };
    return bp_g(g, &bp__op_slice_grad, 4, place, 1, bp_g(g, &bp__op_slice, 4, cut, 1, x));
}

/* With s the step back (forwards: t - 1) and e the scan from the other end over decay moved by one:
 * dx[t] = dy[t] + decay[t+1] dx[t+1],  ddecay[t] = dx[t] y[s]. */
static void linear_scan_gradient(bp_grad *g)
{
    const int64_t axis = g->args[0].as.i;
    const bool reverse = g->args[1].as.i != 0;
    const bp_arg back[] = { bp_int(axis), bp_int(!reverse) };
    bp_tensor *dx = bp_g(g, &bp__op_linear_scan, 2, back, 2, g->dout[0], shifted(g, g->in[1], axis, reverse));
    bp_grad_set(g, 0, dx);
    if (g->want[1]) bp_grad_set(g, 1, G2(g, mul, dx, shifted(g, g->out[0], axis, !reverse)));
}

const bp_op bp__op_linear_scan = {
    .name = "linear_scan",
    .group = "reductions",
    .summary = "running sums that decay: discounted returns, advantages, moving averages",
    .detail = "y[t] = x[t] + decay[t] y[t-1] along axis; reverse: y[t] = x[t] + decay[t] y[t+1]. Discounted returns of an episode are\n"
              "linear_scan(rewards, gamma (1 - done), axis = 1, reverse = true).",
    .inputs = (const bp_input[]){ { "x", 0, "values of any shape" }, { "decay", 0, "the shape of x: the share of its neighbour" }, { 0 } },
    .options = (const bp_option[]){ { .name = "axis",
                                      .kind = BP_OPT_AXIS,
                                      .min = 1,
                                      .max = 0,
                                      .required = true,
                                      .help = "the dimension to go along" },
                                    { .name = "reverse",
                                      .kind = BP_OPT_BOOL,
                                      .min = 1,
                                      .max = 0,
                                      .help = "go from the last element to the first" },
                                    { 0 } },
    .n_out = 1,
    .outputs = "y: the shape of x",
    .flags = BP_OP_METHOD,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 2,
    .needs_out = 1,
    .infer = linear_scan_infer,
    .run = linear_scan_run,
    .gradient = linear_scan_gradient,
    .cases = (const bp_case[]){ { "2x3 2x3", "axis=1", 0, 0, 0 },
                                { "4 4", "axis=0 reverse=1", 0, 0, 0 },
                                { "1 1", "axis=0", 0, 0, 0 },
                                { "2x3x4' 2x3x4", "axis=1 reverse=1", 0, 0, 0 },
                                { "3x70 3x70", "axis=0 reverse=1", 0, 0, 0 },
                                { "0x3 0x3", "axis=0", 0, 0, 0 },
                                { 0 } },
};
