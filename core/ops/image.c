/* image.c - resampling and cropping batches of images: what augmentation is made of. The draws are made by the caller, image by image. */
#include "../base/memory.h"
#include "../base/pool.h"
#include "element.h"
#include "op.h"
#include "product.h"

#include <string.h>

/* Rows of all images together are cut into chunks; fn gets one piece of one image at a time. */
typedef struct job {
    bp_call *call;
    int64_t rows, chunk; /* rows per image, and per chunk */
    int64_t total;
    void (*piece)(const struct job *j, int64_t image, int64_t i0, int64_t i1);
    const int64_t *offsets;
} job;

static void run_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const job *j = (const job *)arg;
    int64_t at = chunk * j->chunk, end = at + j->chunk < j->total ? at + j->chunk : j->total;
    while (at < end) {
        int64_t image = at / j->rows, i0 = at % j->rows, i1 = end - image * j->rows < j->rows ? end - image * j->rows : j->rows;
        j->piece(j, image, i0, i1);
        at = image * j->rows + i1;
    }
}

static void over_images(job *j)
{
    const int64_t *y = j->call->out[0]->m.shape, row = y[2] * y[3];
    j->rows = y[1];
    j->total = y[0] * y[1];
    j->chunk = row < BP_MEMORY_GRAIN ? BP_MEMORY_GRAIN / (row + 1) + 1 : 1;
    if (bp_count(j->call->out[0]) > 0) bp_parallel(j->call->ctx, bp_chunks(j->total, j->chunk), run_chunk, j);
}

/* ---- image_affine ---- */

static const char *const interpolations[] = { "bilinear", "nearest", NULL };
static const char *const fills[] = { "constant", "reflect", "nearest", NULL }; /* in the order of bp_fill */
enum { INTERPOLATION, FILL, VALUE };

static bp_status affine_infer(bp_call *call)
{
    const bp_meta *x = &call->in[0]->m, *m = &call->in[1]->m;
    BP_TRY(bp_need_ndim(call, 0, 4, "[n][h][w][channels]"));
    if (x->dtype != BP_F32 && x->dtype != BP_F64 && x->dtype != BP_U8)
        return bp_op_fail(call, BP_EINVAL, "images are %s; f32, f64 or u8 is expected; cast them", bp_dtype_name(x->dtype));
    if (!bp_is_float(m->dtype))
        return bp_op_fail(call, BP_EINVAL, "'matrix' is %s; f32 or f64 is expected; cast it", bp_dtype_name(m->dtype));
    const int64_t shape[2] = { x->shape[0], 6 };
    BP_TRY(bp_need_shape(call, 1, 2, shape));
    return bp_infer_same(call);
}

static void affine_piece(const job *j, int64_t image, int64_t i0, int64_t i1)
{
    const bp_tensor *x = j->call->in[0], *m = j->call->in[1];
    const bp_arg *args = j->call->args;
    const bp_dtype dtype = x->m.dtype;
    bp_affine s = { .h = x->m.shape[1],
                    .w = x->m.shape[2],
                    .c = x->m.shape[3],
                    .bilinear = args[INTERPOLATION].as.i == 0,
                    .fill = (bp_fill)args[FILL].as.i,
                    .value = args[VALUE].as.f };
    const int64_t at = image * s.h * s.w * s.c * (int64_t)bp_dtype_size(dtype);
    for (int k = 0; k < 6; k++) s.m[k] = bp_element(m->m.dtype, bp_data(m), image * 6 + k);
    const bp_kernels *kernels = bp_kernels_of(j->call->ctx, dtype == BP_U8 ? BP_F32 : dtype);
    char *y = bp_data(j->call->out[0]) + at;
    if (dtype == BP_U8)
        kernels->image_affine_u8(&s, bp_data(x) + at, y, i0, i1);
    else
        kernels->image_affine(&s, bp_data(x) + at, y, i0, i1);
}

static bp_status affine_run(bp_call *call)
{
    job j = { .call = call, .piece = affine_piece };
    over_images(&j);
    return BP_OK;
}

const bp_op bp__op_image_affine = {
    .name = "image_affine",
    .group = "images",
    .summary = "resamples every image of a batch through its own affine map: rotation, scaling, shearing, translation, flips",
    .detail =
        "A map is six numbers {a, b, tx, c, d, ty} and goes from the result to the source: the pixel at column u and row v of the "
        "result, counted in pixels from "
        "the image's centre (columns to the right, rows downwards), gets the colour of the source at column a*u + b*v + tx and row c*u + "
        "d*v + ty, counted from "
        "the centre too. {1, 0, 0, 0, 1, 0} leaves an image as it is; {-1, 0, 0, 0, 1, 0} flips left and right; {cos t, -sin t, 0, sin "
        "t, cos t, 0} turns it "
        "counterclockwise by t; {1/s, 0, 0, 0, 1/s, 0} enlarges it s times; {1, 0, -p, 0, 1, -q} moves it p to the right and q down. "
        "Bytes are rounded to the nearest value. A map that holds NaN gives an image of the fill value.",
    .inputs =
        (const bp_input[]){
            { "x", 0, "[n][h][w][c] images: f32, f64 or u8" },
            { "matrix", 0, "[n][6] maps" },
            { 0 },
        },
    .options =
        (const bp_option[]){
            { .name = "interpolation",
              .kind = BP_OPT_CHOICE,
              .def = 0,
              .min = 0,
              .max = 1,
              .choices = interpolations,
              .help = "\"bilinear\": between the four pixels around; \"nearest\": the nearest pixel" },
            { .name = "fill",
              .kind = BP_OPT_CHOICE,
              .def = 0,
              .min = 0,
              .max = 2,
              .choices = fills,
              .help = "what lies outside the source: \"constant\": `value`; \"reflect\": the image mirrored at its edges; \"nearest\": the "
                      "pixel at the edge" },
            { .name = "value", .kind = BP_OPT_FLOAT, .def = 0, .min = -1e300, .max = 1e300, .help = "fill value of \"constant\"" },
            { 0 },
        },
    .n_out = 1,
    .outputs = "y: like x",
    .flags = BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .infer = affine_infer,
    .run = affine_run,
    .cases =
        (const bp_case[]){
            { "2x4x5x3 2x6", "", 0, 0, 0 },
            { "1x1x1x1 1x6", "interpolation=nearest fill=reflect", 0, 0, 0 },
            { "u8:2x4x5x1<255 2x6'", "fill=nearest", 0, 0, 0 },
            { "0x4x5x3 0x6", "value=0.5", 0, 0, 0 },
            { 0 },
        },
};

/* ---- image_crop ---- */

enum { HEIGHT, WIDTH };

static bp_status crop_infer(bp_call *call)
{
    const bp_meta *x = &call->in[0]->m;
    const int64_t height = call->args[HEIGHT].as.i, width = call->args[WIDTH].as.i;
    char text[200];
    BP_TRY(bp_need_ndim(call, 0, 4, "[n][h][w][channels]"));
    const int64_t pairs[2] = { x->shape[0], 2 };
    BP_TRY(bp_need_shape(call, 1, 2, pairs));
    if (height > x->shape[1] || width > x->shape[2])
        return bp_op_fail(call, BP_EINVAL, "a crop of %lldx%lld is larger than images %s; crop less, or enlarge the images before",
                          (long long)height, (long long)width, bp_shape_text(x->ndim, x->shape, text));
    const int64_t shape[4] = { x->shape[0], height, width, x->shape[3] };
    bp_out(call, 0, x->dtype, 4, shape);
    return BP_OK;
}

static void crop_piece(const job *j, int64_t image, int64_t i0, int64_t i1)
{
    const bp_tensor *x = j->call->in[0];
    const int64_t *in = x->m.shape, *out = j->call->out[0]->m.shape, *from = j->offsets + 2 * image;
    const int64_t pixel = in[3] * (int64_t)bp_dtype_size(x->m.dtype);
    for (int64_t i = i0; i < i1; i++)
        memcpy(bp_data(j->call->out[0]) + (image * out[1] + i) * out[2] * pixel,
               bp_data(x) + ((image * in[1] + from[0] + i) * in[2] + from[1]) * pixel, (size_t)(out[2] * pixel));
}

static bp_status crop_run(bp_call *call)
{
    const int64_t *in = call->in[0]->m.shape, *out = call->out[0]->m.shape, base = call->ctx->base;
    int64_t *offsets = (int64_t *)bp__scratch(call->ctx, (size_t)(2 * in[0] + 1) * sizeof(int64_t));
    if (!offsets) return BP_ENOMEM;
    bp_integer_values(call->in[1], offsets);
    for (int64_t k = 0; k < 2 * in[0]; k++) {
        const int64_t most = k % 2 ? in[2] - out[2] : in[1] - out[1];
        if (offsets[k] < base || offsets[k] - base > most)
            return bp_op_fail(call, BP_EINVAL,
                              "the crop of image %lld begins at %s %lld; %lld..%lld is expected for a crop of %lldx%lld out of %lldx%lld",
                              (long long)(k / 2 + base), k % 2 ? "column" : "row", (long long)offsets[k], (long long)base,
                              (long long)(most + base), (long long)out[1], (long long)out[2], (long long)in[1], (long long)in[2]);
        offsets[k] -= base;
    }
    job j = { .call = call, .piece = crop_piece, .offsets = offsets };
    over_images(&j);
    return BP_OK;
}

const bp_op bp__op_image_crop = {
    .name = "image_crop",
    .group = "images",
    .summary = "cuts a rectangle out of every image of a batch, each at its own place",
    .detail = "y[n, i, j, c] = x[n, row[n] + i, column[n] + j, c]",
    .inputs =
        (const bp_input[]){
            { "x", 0, "[n][h][w][c] images of any dtype" },
            { "offsets", BP_IN_INDEX, "[n][2] first row and first column of every crop" },
            { 0 },
        },
    .options =
        (const bp_option[]){
            { .name = "height", .kind = BP_OPT_INT, .min = 0, .max = 1e9, .required = true, .help = "rows to keep" },
            { .name = "width", .kind = BP_OPT_INT, .min = 0, .max = 1e9, .required = true, .help = "columns to keep" },
            { 0 },
        },
    .n_out = 1,
    .outputs = "y: [n][height][width][c]",
    .flags = BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .infer = crop_infer,
    .run = crop_run,
    .cases =
        (const bp_case[]){
            { "2x4x5x3 i64:2x2<2", "height=3 width=2", 0, 0, 0 },
            { "1x1x1x1 i64:1x2<1", "height=1 width=1", 0, 0, 0 },
            { "u8:3x4x5x1<255 i64:3x2<2", "height=2 width=4", 0, 0, 0 },
            { 0 },
        },
};
