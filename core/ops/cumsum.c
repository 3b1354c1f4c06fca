/* cumsum.c - running sums along a dimension. */
#include "elementwise.h"

enum { COLUMNS = 64 };

typedef void scan_fn(int64_t r, int64_t inner, int64_t columns, const void *x, void *y);

typedef struct job {
    scan_fn *fn;
    int64_t r, inner, pieces; /* x is [outer][r][inner], cut into pieces of COLUMNS columns */
    size_t x_size, y_size;
    const char *x;
    char *y;
} job;

/* Sums are carried in A, which is wider than the result where that is f32. */
#define SCAN(name, T, R, A)                                                               \
    static void name(int64_t r, int64_t inner, int64_t columns, const void *x_, void *y_) \
    {                                                                                     \
        const T *x = (const T *)x_;                                                       \
        R *y = (R *)y_;                                                                   \
        A sum[COLUMNS] = { 0 };                                                           \
        for (int64_t i = 0; i < r; i++, x += inner, y += inner)                           \
            for (int64_t j = 0; j < columns; j++) {                                       \
                sum[j] += (A)x[j];                                                        \
                y[j] = (R)sum[j];                                                         \
            }                                                                             \
    }
SCAN(scan_f32, float, float, double)
SCAN(scan_f64, double, double, double)
SCAN(scan_i32, int32_t, int64_t, uint64_t)
SCAN(scan_i64, int64_t, int64_t, uint64_t)
SCAN(scan_u8, uint8_t, int64_t, uint64_t)

static void run_chunk(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const int64_t column = number % j->pieces * COLUMNS, begin = number / j->pieces * j->r * j->inner + column;
    const int64_t columns = j->inner - column < COLUMNS ? j->inner - column : COLUMNS;
    (void)worker;
    j->fn(j->r, j->inner, columns, j->x + (size_t)begin * j->x_size, j->y + (size_t)begin * j->y_size);
}

static bp_status cumsum_infer(bp_call *call)
{
    const bp_meta *x = &call->in[0]->m;
    int axis;
    BP_TRY(bp_shape_axis(call->ctx, call->op->name, call->args[0].as.i, x->ndim, &axis));
    bp_out(call, 0, bp_is_float(x->dtype) ? x->dtype : BP_I64, x->ndim, x->shape);
    return BP_OK;
}

static bp_status cumsum_run(bp_call *call)
{
    static scan_fn *const scans[BP_DTYPE_COUNT] = { scan_f32, scan_f64, scan_i32, scan_i64, scan_u8, scan_u8 };
    const bp_tensor *x = call->in[0], *y = call->out[0];
    int64_t outer = 1;
    int axis;
    BP_TRY(bp_shape_axis(call->ctx, call->op->name, call->args[0].as.i, x->m.ndim, &axis));
    job j = { .fn = scans[x->m.dtype],
              .r = x->m.shape[axis],
              .inner = 1,
              .x_size = bp_dtype_size(x->m.dtype),
              .y_size = bp_dtype_size(y->m.dtype),
              .x = bp_data(x),
              .y = bp_data(y) };
    for (int i = 0; i < axis; i++) outer *= x->m.shape[i];
    for (int i = axis + 1; i < x->m.ndim; i++) j.inner *= x->m.shape[i];
    j.pieces = (j.inner + COLUMNS - 1) / COLUMNS;
    bp__spread(call->ctx, bp_count(x), outer * j.pieces, run_chunk, &j);
    return BP_OK;
}

/* dx[i] = sum of dy[k] for k >= i: the running sum from the other end */
static void cumsum_gradient(bp_grad *g)
{
    const bp_arg axes = bp_list(1, &g->args[0].as.i);
    bp_tensor *backwards = bp_g(g, &bp__op_flip, 1, &axes, 1, g->dout[0]);
    bp_grad_set(g, 0, bp_g(g, &bp__op_flip, 1, &axes, 1, bp_g(g, &bp__op_cumsum, 1, g->args, 1, backwards)));
}

const bp_op bp__op_cumsum = {
    .name = "cumsum",
    .group = "reductions",
    .summary = "running sums along a dimension",
    .detail = "y[i] = x[first] + ... + x[i] along axis. Integers and bool are summed in i64.",
    .inputs = (const bp_input[]){ { "x", 0, "values of any shape" }, { 0 } },
    .options = (const bp_option[]){ { .name = "axis",
                                      .kind = BP_OPT_AXIS,
                                      .min = 1,
                                      .max = 0,
                                      .required = true,
                                      .help = "the dimension to sum along" },
                                    { 0 } },
    .n_out = 1,
    .outputs = "y: the shape of x",
    .flags = BP_OP_METHOD,
    .promote = BP_PROMOTE_NONE,
    .infer = cumsum_infer,
    .run = cumsum_run,
    .gradient = cumsum_gradient,
    .cases = (const bp_case[]){ { "2x3", "axis=1", 0, 0, 0 },
                                { "1", "axis=0", 0, 0, 0 },
                                { "2x3x4'", "axis=1", 0, 0, 0 },
                                { "3x70", "axis=0", 0, 0, 0 },
                                { "0x3", "axis=0", 0, 0, 0 },
                                { 0 } },
};
