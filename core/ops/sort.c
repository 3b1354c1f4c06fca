/* sort.c - sorting along a dimension.
 *
 * Every element becomes a key of 64 bits that orders as its value does; keys are sorted with their positions by merging, which keeps equal
 * elements in their order. NaN counts as greater than everything. */
#include "elementwise.h"

#include "../base/memory.h"

#include <string.h>

typedef struct keyed {
    uint64_t key;
    int64_t at;
} keyed;

/* Bits of a float order like its value once negative ones are inverted and positive ones set above them. */
static uint64_t key_of_double(double v)
{
    uint64_t bits;
    if (v != v) return UINT64_MAX;
    v += 0.0; /* -0 and 0 are equal */
    memcpy(&bits, &v, sizeof bits);
    return bits >> 63 ? ~bits : bits | (uint64_t)1 << 63;
}
static uint64_t key_of_integer(int64_t v) { return (uint64_t)v ^ (uint64_t)1 << 63; }

static uint64_t key_at(bp_dtype dtype, const char *x, int64_t i)
{
    switch (dtype) {
    case BP_F32: return key_of_double((double)((const float *)(const void *)x)[i]);
    case BP_F64: return key_of_double(((const double *)(const void *)x)[i]);
    case BP_I32: return key_of_integer(((const int32_t *)(const void *)x)[i]);
    case BP_I64: return key_of_integer(((const int64_t *)(const void *)x)[i]);
    default: return ((const uint8_t *)x)[i];
    }
}

/* Sorts a[0..n-1] with room b; returns where the result is. Runs of RUN are sorted by insertion, then merged in pairs. */
static keyed *merge_sort(keyed *a, keyed *b, int64_t n)
{
    enum { RUN = 8 };
    for (int64_t begin = 0; begin < n; begin += RUN) {
        const int64_t end = n - begin < RUN ? n : begin + RUN;
        for (int64_t i = begin + 1; i < end; i++) {
            const keyed v = a[i];
            int64_t k = i;
            for (; k > begin && a[k - 1].key > v.key; k--) a[k] = a[k - 1];
            a[k] = v;
        }
    }
    for (int64_t width = RUN; width < n; width *= 2) {
        for (int64_t begin = 0; begin < n; begin += 2 * width) {
            const int64_t middle = n - begin < width ? n : begin + width, end = n - begin < 2 * width ? n : begin + 2 * width;
            int64_t i = begin, k = middle;
            for (int64_t out = begin; out < end; out++) b[out] = k == end || (i < middle && a[i].key <= a[k].key) ? a[i++] : a[k++];
        }
        keyed *swap = a;
        a = b;
        b = swap;
    }
    return a;
}

typedef struct job {
    bp_dtype dtype;
    bool descending;
    int64_t n, inner, lines, per; /* lines of n elements, `inner` apart; lines per chunk */
    int64_t base;
    const char *x;
    char *values; /* NULL for argsort */
    int64_t *index;
    keyed *scratch; /* 2 * n for each worker */
} job;

static void sort_chunk(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const size_t size = bp_dtype_size(j->dtype);
    const int64_t first = number * j->per, end = j->lines - first < j->per ? j->lines : first + j->per;
    keyed *a = j->scratch + 2 * j->n * worker;
    for (int64_t line = first; line < end; line++) {
        const int64_t begin = line / j->inner * j->n * j->inner + line % j->inner;
        for (int64_t i = 0; i < j->n; i++) {
            const uint64_t key = key_at(j->dtype, j->x, begin + i * j->inner);
            a[i] = (keyed){ j->descending ? ~key : key, i };
        }
        const keyed *sorted = merge_sort(a, a + j->n, j->n);
        for (int64_t i = 0; i < j->n; i++) {
            const int64_t to = begin + i * j->inner;
            j->index[to] = sorted[i].at + j->base;
            if (j->values) memcpy(j->values + (size_t)to * size, j->x + (size_t)(begin + sorted[i].at * j->inner) * size, size);
        }
    }
}

static bp_status sort_along(bp_call *call, bp_tensor *values, bp_tensor *index)
{
    const bp_tensor *x = call->in[0];
    int axis;
    BP_TRY(bp_shape_axis(call->ctx, call->op->name, call->args[0].as.i, x->m.ndim, &axis));
    job j = { .dtype = x->m.dtype,
              .descending = call->args[1].as.i != 0,
              .n = x->m.shape[axis],
              .inner = 1,
              .base = call->ctx->base,
              .x = bp_data(x),
              .values = values ? bp_data(values) : NULL,
              .index = (int64_t *)(void *)bp_data(index) };
    if (bp_count(x) == 0) return BP_OK;
    for (int i = axis + 1; i < x->m.ndim; i++) j.inner *= x->m.shape[i];
    j.lines = bp_count(x) / j.n;
    j.per = j.n >= BP_ELEMENT_GRAIN / 8 ? 1 : BP_ELEMENT_GRAIN / 8 / j.n;
    j.scratch = (keyed *)bp__scratch(call->ctx, 2 * (size_t)j.n * sizeof *j.scratch * (size_t)bp_threads(call->ctx));
    if (!j.scratch) return BP_ENOMEM;
    bp_parallel(call->ctx, bp_chunks(j.lines, j.per), sort_chunk, &j);
    return BP_OK;
}

static bp_status sort_run(bp_call *call) { return sort_along(call, call->out[0], call->out[1]); }
static bp_status argsort_run(bp_call *call) { return sort_along(call, NULL, call->out[0]); }

static bp_status infer(bp_call *call)
{
    const bp_meta *x = &call->in[0]->m;
    int axis;
    BP_TRY(bp_shape_axis(call->ctx, call->op->name, call->args[0].as.i, x->ndim, &axis));
    if (call->n_out == 2) bp_out(call, 0, x->dtype, x->ndim, x->shape);
    bp_out(call, call->n_out - 1, BP_I64, x->ndim, x->shape);
    return BP_OK;
}

static void sort_gradient(bp_grad *g)
{
    int axis;
    if (!g->dout[0]) return;
    if (g->status == BP_OK) g->status = bp_shape_axis(g->ctx, "sort", g->args[0].as.i, g->in[0]->m.ndim, &axis);
    if (g->status != BP_OK) return;
    const bp_arg args[2] = { bp_int(axis), bp_int(g->in[0]->m.shape[axis]) };
    bp_grad_set(g, 0, bp_g(g, &bp__op_gather_grad, 2, args, 2, g->dout[0], g->out[1]));
}

static const bp_input x_input[] = { { "x", 0, "values of any shape" }, { 0 } };
static const bp_option options[] = {
    { .name = "axis", .kind = BP_OPT_AXIS, .def = -1, .min = 1, .max = 0, .help = "the dimension to sort along" },
    { .name = "descending", .kind = BP_OPT_BOOL, .min = 1, .max = 0, .help = "the greatest first" },
    { 0 },
};

const bp_op bp__op_sort = {
    .name = "sort",
    .group = "sorting",
    .summary = "the elements of a dimension in order, and where each came from",
    .detail = "Equal elements keep their order. NaN counts as greatest.",
    .inputs = x_input,
    .options = options,
    .n_out = 2,
    .outputs = "y: like x; index: i64 positions in x, so that y = gather(x, index)",
    .flags = BP_OP_METHOD | BP_OP_KINKED,
    .promote = BP_PROMOTE_NONE,
    .needs_out = 2,
    .infer = infer,
    .run = sort_run,
    .gradient = sort_gradient,
    .cases = (const bp_case[]){ { "2x5", "", 0, 0, 0 },
                                { "2x3x4'", "axis=1 descending=1", 0, 0, 0 },
                                { "1", "", 0, 0, 0 },
                                { "40", "axis=0", 0, 0, 0 },
                                { "0x3", "", 0, 0, 0 },
                                { 0 } },
};

const bp_op bp__op_argsort = {
    .name = "argsort",
    .group = "sorting",
    .summary = "the positions that would sort a dimension",
    .detail = "gather(x, argsort(x)) is sorted. Equal elements keep their order. NaN counts as greatest.",
    .inputs = x_input,
    .options = options,
    .n_out = 1,
    .outputs = "index: i64 positions, the shape of x",
    .flags = BP_OP_METHOD | BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .infer = infer,
    .run = argsort_run,
    .cases = (const bp_case[]){ { "2x5", "", 0, 0, 0 }, { "i64:9<4", "descending=1", 0, 0, 0 }, { "2x3x4'", "axis=0", 0, 0, 0 }, { 0 } },
};
