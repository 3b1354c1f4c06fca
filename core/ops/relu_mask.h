/* relu_mask.h - the gradient of relu, or of dropout after relu, undone on a result before it is stored: u = t where y > 0, else 0, with
 * dropout t / (1 - p) there. To the bits of relu_grad and relu_dropout_grad. */
#ifndef BP_RELU_MASK_H
#define BP_RELU_MASK_H

#include "op.h"

typedef struct bp_relu_mask {
    const void *y; /* what relu gave, or dropout after it; laid out as the result, which may be written over it */
    bp_binary_fn *undo;
    double scale;
    int64_t size; /* bytes of an element */
} bp_relu_mask;

/* clang-format off */
#define BP_RELU_MASK_INPUT(shape) \
    { "y", BP_IN_OPTIONAL, shape " result of relu, or of dropout after it: the gradient is undone through these, too" }
#define BP_RELU_MASK_OPTION                                                    \
    { .name = "p", .kind = BP_OPT_FLOAT, .def = 0, .min = 0, .max = 1,         \
      .help = "chance that the dropout after relu drops an element; 0: there was none" }
/* clang-format on */

static inline bp_relu_mask bp__relu_mask(const bp_call *call, const bp_tensor *y, double p)
{
    const bp_kernels *k = bp_kernels_of(call->ctx, y->m.dtype);
    return (bp_relu_mask){ bp_data(y), k->binary[p > 0 ? BP_BINARY_relu_dropout_grad : BP_BINARY_relu_grad], p < 1 ? 1 / (1 - p) : 0,
                           (int64_t)bp_dtype_size(y->m.dtype) };
}

/* Elements at..at+n-1 of the result, which begins at `out`. */
static inline void bp__undo_relu(const bp_relu_mask *m, const void *t, int64_t at, int64_t n, void *out)
{
    m->undo(n, t, 1, (const char *)m->y + at * m->size, 1, (char *)out + at * m->size, 1, m->scale);
}

/* t with the gradient of relu undone through y, if there is one: for gradients. */
static inline bp_tensor *bp__g_undo_relu(bp_grad *g, bp_tensor *t, bp_tensor *y, double p)
{
    if (!y) return t;
    bp_arg chance = bp_float(p);
    return p > 0 ? bp_g(g, &bp__op_relu_dropout_grad, 1, &chance, 2, t, y) : G2(g, relu_grad, t, y);
}

#endif
