/* one_hot.c - labels as rows with a single one. */
#include "op.h"

#include "../base/memory.h"

#include <string.h>

static bp_status one_hot_infer(bp_call *call)
{
    const bp_meta *labels = &call->in[0]->m;
    int64_t shape[BP_MAX_DIMS + 1];
    memcpy(shape, labels->shape, sizeof(int64_t) * (size_t)labels->ndim);
    shape[labels->ndim] = call->args[0].as.i;
    if (labels->ndim == BP_MAX_DIMS || bp_shape_count(labels->ndim + 1, shape) < 0) {
        char text[200];
        return bp_op_fail(call, BP_EINVAL, "'labels' of shape %s and %lld classes give a result too large",
                          bp_shape_text(labels->ndim, labels->shape, text), (long long)shape[labels->ndim]);
    }
    bp_out(call, 0, (bp_dtype)call->args[1].as.i, labels->ndim + 1, shape);
    return BP_OK;
}

static bp_status one_hot_run(bp_call *call)
{
    const bp_tensor *y = call->out[0];
    const int64_t n = bp_count(call->in[0]), classes = call->args[0].as.i;
    int64_t *label = (int64_t *)bp__scratch(call->ctx, (size_t)n * sizeof *label);
    char *data = bp_data(y);
    if (!label) return BP_ENOMEM;
    BP_TRY(bp_read_indices(call, call->in[0], "label", classes, label));
    memset(data, 0, (size_t)bp_count(y) * bp_dtype_size(y->m.dtype));
    for (int64_t i = 0; i < n; i++) {
        static const uint8_t one = 1;
        bp_convert_run(BP_U8, y->m.dtype, 1, &one, 1, data + (size_t)(i * classes + label[i]) * bp_dtype_size(y->m.dtype), 1);
    }
    return BP_OK;
}

const bp_op bp__op_one_hot = {
    .name = "one_hot",
    .group = "indexing",
    .summary = "labels as rows with a single one",
    .detail = "y[.., c] = 1 where labels[..] = c, else 0",
    .inputs = (const bp_input[]){ { "labels", BP_IN_INDEX, "labels of any shape" }, { 0 } },
    .options = (const bp_option[]){ { .name = "classes",
                                      .kind = BP_OPT_INT,
                                      .min = 1,
                                      .max = 0x1p40,
                                      .required = true,
                                      .help = "how many labels there are" },
                                    { .name = "dtype", .kind = BP_OPT_DTYPE, .def = BP_F32, .min = 1, .max = 0, .help = "of the result" },
                                    { 0 } },
    .n_out = 1,
    .outputs = "y: [..][classes]",
    .flags = BP_OP_METHOD | BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .infer = one_hot_infer,
    .run = one_hot_run,
    .cases = (const bp_case[]){ { "i64:5<4", "classes=4", 0, 0, 0 },
                                { "u8:2x3<2", "classes=2 dtype=i32", 0, 0, 0 },
                                { "i64:0<3", "classes=3", 0, 0, 0 },
                                { 0 } },
};
