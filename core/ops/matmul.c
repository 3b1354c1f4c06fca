/* matmul.c - the matrix product, with NumPy's rules for vectors and batches. */
#include "fusing.h"
#include "op.h"
#include "product.h"
#include "relu_mask.h"

#include <string.h>

/* Both operands seen as [batch...][m][k] and [batch...][k][n]. A vector on the left is one row, on the right one column; the
 * dimension added for it is left out of the result. Strides are 0 where the batch is broadcast. */
typedef struct look {
    bool a_vector, b_vector;
    int64_t m, n, k, b_inner;
    int64_t a_row, a_col, b_row, b_col;
    int batch_ndim;
    int64_t batch[BP_MAX_DIMS], a_stride[BP_MAX_DIMS], b_stride[BP_MAX_DIMS];
} look;

static void batch_strides(const bp_meta *t, int own, int ndim, const int64_t *batch, int64_t *stride)
{
    for (int d = 0; d < ndim; d++) {
        int at = d - (ndim - own);
        stride[d] = at < 0 || t->shape[at] != batch[d] || batch[d] == 1 ? 0 : t->stride[at];
    }
}

static bp_status look_at(bp_call *call, look *l)
{
    const bp_meta *a = &call->in[0]->m, *b = &call->in[1]->m;
    char ta[200], tb[200];
    if (a->ndim == 0 || b->ndim == 0)
        return bp_op_fail(call, BP_EINVAL, "a is %s and b is %s; both need at least one dimension; multiply by a number with mul",
                          bp_shape_text(a->ndim, a->shape, ta), bp_shape_text(b->ndim, b->shape, tb));
    const int na = a->ndim - 1, nb = b->ndim - 1; /* the last dimensions */
    l->a_vector = na == 0;
    l->b_vector = nb == 0;
    l->k = a->shape[na];
    l->a_col = a->stride[na];
    l->m = l->a_vector ? 1 : a->shape[na - 1];
    l->a_row = l->a_vector ? l->k : a->stride[na - 1];
    l->b_inner = b->shape[l->b_vector ? 0 : nb - 1];
    l->b_row = b->stride[l->b_vector ? 0 : nb - 1];
    l->n = l->b_vector ? 1 : b->shape[nb];
    l->b_col = l->b_vector ? 1 : b->stride[nb];
    if (l->k != l->b_inner)
        return bp_op_fail(
            call, BP_EINVAL,
            "a is %s and b is %s: rows of %lld meet columns of %lld; the last size of a must equal the %s of b; transpose one of them?",
            bp_shape_text(a->ndim, a->shape, ta), bp_shape_text(b->ndim, b->shape, tb), (long long)l->k, (long long)l->b_inner,
            l->b_vector ? "size" : "last but one");
    const int a_own = l->a_vector ? 0 : na - 1, b_own = l->b_vector ? 0 : nb - 1;
    if (bp_shape_broadcast(call->ctx, "matmul", a_own, a->shape, b_own, b->shape, &l->batch_ndim, l->batch) != BP_OK)
        return bp_op_fail(call, BP_EINVAL, "a is %s and b is %s: the sizes before the last two must be equal or 1",
                          bp_shape_text(a->ndim, a->shape, ta), bp_shape_text(b->ndim, b->shape, tb));
    batch_strides(a, a_own, l->batch_ndim, l->batch, l->a_stride);
    batch_strides(b, b_own, l->batch_ndim, l->batch, l->b_stride);
    return BP_OK;
}

static bp_status matmul_infer(bp_call *call)
{
    look l;
    int64_t shape[BP_MAX_DIMS + 2];
    BP_TRY(look_at(call, &l));
    int ndim = l.batch_ndim;
    memcpy(shape, l.batch, sizeof *shape * (size_t)ndim);
    if (!l.a_vector) shape[ndim++] = l.m;
    if (!l.b_vector) shape[ndim++] = l.n;
    if (ndim > BP_MAX_DIMS)
        return bp_op_fail(call, BP_EINVAL, "the result would have %d dimensions; at most %d are possible", ndim, BP_MAX_DIMS);
    bp_out(call, 0, call->in[0]->m.dtype, ndim, shape);
    return BP_OK;
}

/* Where b is the same for a whole batch dimension of a and a's matrices lie one below the other, they are rows of one product. */
static void fold_batch(look *l)
{
    while (l->batch_ndim > 0) {
        int d = l->batch_ndim - 1;
        int64_t n = l->batch[d];
        if (n != 1) {
            if (l->b_stride[d] != 0 || (l->m != 1 && l->a_stride[d] != l->m * l->a_row)) return;
            if (l->m == 1) l->a_row = l->a_stride[d];
            l->m *= n;
        }
        l->batch_ndim--;
    }
}

/* Two matrices, whose sizes infer has found to meet. */
static void plain_product(const bp_meta *a, const bp_meta *b, bp_product *p)
{
    p->one = (bp_gemm){ .m = a->shape[0],
                        .n = b->shape[1],
                        .k = a->shape[1],
                        .a_row = a->stride[0],
                        .a_col = a->stride[1],
                        .b_row = b->stride[0],
                        .b_col = b->stride[1],
                        .c_row = b->shape[1] };
    p->dtype = a->dtype;
    p->mask = NULL;
    p->sum = NULL;
    p->ndim = 0;
}

static bp_status product_of(bp_call *call, bp_product *p)
{
    look l;
    if (call->in[0]->m.ndim == 2 && call->in[1]->m.ndim == 2) {
        plain_product(&call->in[0]->m, &call->in[1]->m, p);
        return BP_OK;
    }
    BP_TRY(look_at(call, &l));
    fold_batch(&l);
    p->dtype = call->in[0]->m.dtype; /* of the batch only what there is is filled in */
    p->one = (bp_gemm){
        .m = l.m, .n = l.n, .k = l.k, .a_row = l.a_row, .a_col = l.a_col, .b_row = l.b_row, .b_col = l.b_col, .c_row = l.n
    };
    p->mask = NULL;
    p->sum = NULL;
    p->ndim = l.batch_ndim;
    for (int d = 0; d < p->ndim; d++) {
        p->shape[d] = l.batch[d];
        p->a_stride[d] = l.a_stride[d];
        p->b_stride[d] = l.b_stride[d];
    }
    return BP_OK;
}

static bp_status multiply(bp_call *call, const bp_relu_mask *mask)
{
    bp_product p;
    BP_TRY(product_of(call, &p));
    p.one.a = bp_data(call->in[0]);
    p.one.b = bp_data(call->in[1]);
    p.one.c = bp_data(call->out[0]);
    p.mask = mask;
    return bp__product(call->ctx, &p);
}

static bp_status matmul_run(bp_call *call) { return multiply(call, NULL); }

/* ---- with a relu undone ---- */

static bp_status masked_infer(bp_call *call)
{
    BP_TRY(matmul_infer(call));
    return bp_need_shape(call, 2, call->meta[0].ndim, call->meta[0].shape);
}

static bp_status masked_run(bp_call *call)
{
    const bp_relu_mask mask = bp__relu_mask(call, call->in[2], call->args[0].as.f);
    return multiply(call, &mask);
}

bool bp__matmul_mask_pays(bp_call *call)
{
    bp_product p;
    return product_of(call, &p) == BP_OK && bp__product_mask_pays(&p);
}

/* ---- gradient: dA = dY * B^T, dB = A^T * dY, summed over what was broadcast ---- */

static bp_tensor *unsqueezed(bp_grad *g, bp_tensor *t, int axis)
{
    bp_arg at = bp_int(axis);
    return bp_g(g, &bp__op_unsqueeze, 1, &at, 1, t);
}

static bp_tensor *reshaped(bp_grad *g, bp_tensor *t, int ndim, const int64_t *shape)
{
    bp_arg to = bp_list(ndim, shape);
    return bp_g(g, &bp__op_reshape, 1, &to, 1, t);
}

static bp_tensor *transposed(bp_grad *g, bp_tensor *t)
{
    if (!t) return NULL;
    int64_t axes[BP_MAX_DIMS];
    int n = t->m.ndim;
    for (int d = 0; d < n; d++) axes[d] = d;
    axes[n - 1] = n - 2;
    axes[n - 2] = n - 1;
    bp_arg order = bp_list(n, axes);
    return bp_g(g, &bp__op_permute, 1, &order, 1, t);
}

/* [..][m][n] -> [..*m][n] */
static bp_tensor *as_rows(bp_grad *g, bp_tensor *t)
{
    if (!t || t->m.ndim == 2) return t;
    int64_t rows = 1, last = t->m.shape[t->m.ndim - 1];
    for (int d = 0; d < t->m.ndim - 1; d++) rows *= t->m.shape[d];
    const int64_t shape[2] = { rows, last };
    return reshaped(g, t, 2, shape);
}

static void matmul_gradient(bp_grad *g)
{
    bp_tensor *const a0 = g->in[0], *const b0 = g->in[1];
    bp_tensor *a = a0, *b = b0, *dy = g->dout[0];
    if (a0->m.ndim == 1) {
        a = unsqueezed(g, a0, 0);
        dy = unsqueezed(g, dy, dy->m.ndim - (b0->m.ndim == 1 ? 0 : 1));
    }
    if (dy && b0->m.ndim == 1) {
        b = unsqueezed(g, b0, 1);
        dy = unsqueezed(g, dy, dy->m.ndim);
    }
    if (g->status != BP_OK) return;
    if (g->want[0]) {
        bp_tensor *da = bp_g_unbroadcast(g, G2(g, matmul, dy, transposed(g, b)), a);
        bp_grad_set(g, 0, a == a0 ? da : reshaped(g, da, 1, a0->m.shape));
    }
    if (g->want[1]) {
        /* one b for a whole batch: the sum over the batch is part of the product */
        bp_tensor *db = b->m.ndim == 2 ? G2(g, matmul, transposed(g, as_rows(g, a)), as_rows(g, dy))
                                       : bp_g_unbroadcast(g, G2(g, matmul, transposed(g, a), dy), b);
        bp_grad_set(g, 1, b == b0 ? db : reshaped(g, db, 1, b0->m.shape));
    }
}

const bp_op bp__op_matmul = {
    .name = "matmul",
    .group = "linear algebra",
    .summary = "matrix product of a and b, with NumPy's rules for vectors and batches",
    .detail =
        "y[.., i, j] = sum over p of a[.., i, p] * b[.., p, j]\n"
        "The last size of a and the last but one of b must be equal. Dimensions before the last two are batches and are broadcast. A "
        "vector a "
        "counts as one row and a vector b as one column; that dimension is missing from the result, so the product of two vectors is a "
        "number. "
        "Transposed and sliced operands are read in place.",
    .inputs =
        (const bp_input[]){
            { "a", 0, "[..][m][k], or [k]" },
            { "b", 0, "[..][k][n], or [k]" },
            { 0 },
        },
    .n_out = 1,
    .outputs = "y: [..][m][n]",
    .flags = BP_OP_STRIDED | BP_OP_METHOD,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 3,
    .infer = matmul_infer,
    .run = matmul_run,
    .gradient = matmul_gradient,
    .cases =
        (const bp_case[]){
            { "2x3 3x4", "", 0, 0, 0 },
            { "1x1 1x1", "", 0, 0, 0 },
            { "5x7' 7x3'", "", 0, 0, 0 },
            { "4 4", "", 0, 0, 0 },
            { "4 4x3", "", 0, 0, 0 },
            { "3x4 4'", "", 0, 0, 0 },
            { "2x3x4 4x5", "", 0, 0, 0 },
            { "2x3x4 2x4x2", "", 0, 0, 0 },
            { "2x1x3x4 5x4x2'", "", 0, 0, 0 },
            { "3x4 2x4x2", "", 0, 0, 0 },
            { "2x3x4 4", "", 0, 0, 0 },
            { "4 2x4x3", "", 0, 0, 0 },
            { "3x0 0x2", "", 0, 0, 0 },
            { "0x3 3x2", "", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_matmul_relu_grad = {
    .name = "matmul_relu_grad",
    .group = "linear algebra",
    .summary = "a product through which relu is undone: what a plan makes of matmul and relu_grad",
    .detail = "u = relu_grad(matmul(a, b), y), with p relu_dropout_grad(matmul(a, b), y), to the bits of the two.",
    .inputs =
        (const bp_input[]){
            { "a", 0, "[..][m][k], or [k]" },
            { "b", 0, "[..][k][n], or [k]" },
            { "y", 0, "[..][m][n] result of relu, or of dropout after it" },
            { 0 },
        },
    .options = (const bp_option[]){ BP_RELU_MASK_OPTION, { 0 } },
    .n_out = 1,
    .outputs = "u: [..][m][n]",
    .flags = BP_OP_NO_GRADIENT | BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .over = { 1 << 2 },
    .infer = masked_infer,
    .run = masked_run,
    .cases =
        (const bp_case[]){
            { "3x4 4x2 3x2", "", 0, 0, 0 },
            { "2x3x4 4x2 2x3x2", "p=0.25", 0, 0, 0 },
            { "2x3x4 2x4x2 2x3x2", "", 0, 0, 0 },
            { "0x4 4x2 0x2", "", 0, 0, 0 },
            { 0 },
        },
};
