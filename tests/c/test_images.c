/* test_images.c - resampling and cropping against their definitions, pixel by pixel. */
#include "layers.h"

enum { BILINEAR, NEAREST };
enum { CONSTANT, REFLECT, EDGE };

/* The pixel at row i, column j of an image that goes on for ever. */
static double pixel(const plain *x, int64_t n, int64_t i, int64_t j, int64_t c, int fill, double value)
{
    const int64_t size[2] = { x->shape[1], x->shape[2] };
    int64_t at[2] = { i, j };
    for (int d = 0; d < 2; d++) {
        if (fill == CONSTANT && (at[d] < 0 || at[d] >= size[d])) return value;
        while (fill == REFLECT && (at[d] < 0 || at[d] >= size[d])) at[d] = at[d] < 0 ? -1 - at[d] : 2 * size[d] - 1 - at[d];
        if (fill == EDGE) at[d] = at[d] < 0 ? 0 : at[d] >= size[d] ? size[d] - 1 : at[d];
    }
    return x->v[((n * size[0] + at[0]) * size[1] + at[1]) * x->shape[3] + c];
}

static double *plain_affine(const plain *x, const plain *m, int interpolation, int fill, double value)
{
    const int64_t h = x->shape[1], w = x->shape[2], channels = x->shape[3];
    double *y = zeros(x->shape[0] * h * w * channels), *at = y;
    for (int64_t n = 0; n < x->shape[0]; n++)
        for (int64_t i = 0; i < h; i++)
            for (int64_t j = 0; j < w; j++)
                for (int64_t c = 0; c < channels; c++) {
                    const double *k = m->v + 6 * n, u = (double)j - (double)(w - 1) / 2, v = (double)i - (double)(h - 1) / 2;
                    const double column = k[0] * u + k[1] * v + k[2] + (double)(w - 1) / 2,
                                 row = k[3] * u + k[4] * v + k[5] + (double)(h - 1) / 2;
                    if (isnan(column) || isnan(row))
                        *at++ = value;
                    else if (interpolation == NEAREST)
                        *at++ = pixel(x, n, (int64_t)floor(row + 0.5), (int64_t)floor(column + 0.5), c, fill, value);
                    else {
                        const int64_t top = (int64_t)floor(row), left = (int64_t)floor(column);
                        const double down = row - floor(row), right = column - floor(column);
                        *at++ = (1 - down) * ((1 - right) * pixel(x, n, top, left, c, fill, value) +
                                              right * pixel(x, n, top, left + 1, c, fill, value)) +
                                down * ((1 - right) * pixel(x, n, top + 1, left, c, fill, value) +
                                        right * pixel(x, n, top + 1, left + 1, c, fill, value));
                    }
                }
    return y;
}

static void test_affine(bp_ctx *ctx)
{
    static const int64_t cases[][4] = {
        { 1, 1, 1, 1 }, { 3, 6, 7, 3 }, { 0, 4, 4, 1 }, { 5, 1, 9, 2 }, { 40, 28, 28, 1 }, { 2, 130, 70, 4 }
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (int way = 0; way < 6; way++) {
            plain x = RANDOM(cases[k][0], cases[k][1], cases[k][2], cases[k][3]), m = RANDOM(cases[k][0], 6);
            double *v = (double *)m.v;
            for (int64_t n = 0; n < cases[k][0]; n++) { /* turned, moved, and one far away */
                v[6 * n] += 1, v[6 * n + 4] += 1, v[6 * n + 2] *= 8, v[6 * n + 5] *= 8;
                if (n == 1) v[6 * n + 2] = 1000;
                if (n == 2) v[6 * n + 3] = NAN;
            }
            const int interpolation = way % 2, fill = way / 2;
            trial t = { .op = "image_affine",
                        .n_in = 2,
                        .in = { x, m },
                        .n_args = 3,
                        .args = { bp_int(interpolation), bp_int(fill), bp_float(0.25) },
                        .out = { plain_affine(&x, &m, interpolation, fill, 0.25) } };
            judge(ctx, &t);

            /* bytes: the same, rounded */
            const int64_t count = cases[k][0] * cases[k][1] * cases[k][2] * cases[k][3];
            double *bytes = copied(count, x.v);
            for (int64_t i = 0; i < count; i++) bytes[i] = floor(fabs(bytes[i]) * 255);
            x.v = bytes;
            x.dtype = BP_U8;
            double *y = plain_affine(&x, &m, interpolation, fill, 300);
            for (int64_t i = 0; i < count; i++) y[i] = y[i] > 255 ? 255 : floor(y[i] + 0.5);
            t = (trial){ .op = "image_affine",
                         .n_in = 2,
                         .in = { x, m },
                         .n_args = 3,
                         .args = { bp_int(interpolation), bp_int(fill), bp_float(300) },
                         .out = { y } };
            judge(ctx, &t);
            free_numbers();
        }

    /* what the manual says of some maps */
    static const double maps[][6] = { { 1, 0, 0, 0, 1, 0 }, { -1, 0, 0, 0, 1, 0 }, { 1, 0, -1, 0, 1, -1 }, { 0, -1, 0, 1, 0, 0 } };
    static const double results[][9] = {
        { 1, 2, 3, 4, 5, 6, 7, 8, 9 }, { 3, 2, 1, 6, 5, 4, 9, 8, 7 }, { 0, 0, 0, 0, 1, 2, 0, 4, 5 }, { 3, 6, 9, 2, 5, 8, 1, 4, 7 }
    };
    for (int k = 0; k < 4; k++) {
        plain x = { .v = results[0], .ndim = 4, .shape = { 1, 3, 3, 1 } }, m = { .v = maps[k], .ndim = 2, .shape = { 1, 6 } };
        trial t = { .op = "image_affine", .n_in = 2, .in = { x, m }, .out = { results[k] } };
        judge(ctx, &t);
    }
    trial t = { .op = "image_affine", .n_in = 2, .in = { RANDOM(2, 3, 3, 1), RANDOM(3, 6) } };
    refuse(ctx, &t, "'matrix'|[3x6]|[2x6]");
    plain whole = { .v = same(1, 1), .ndim = 4, .shape = { 1, 1, 1, 1 }, .dtype = BP_I64 };
    t = (trial){ .op = "image_affine", .n_in = 2, .in = { whole, RANDOM(1, 6) } };
    refuse(ctx, &t, "i64|u8|cast");
    free_numbers();
}

static void test_crop(bp_ctx *ctx)
{
    static const int64_t cases[][6] = {
        { 1, 1, 1, 1, 1, 1 }, { 4, 6, 7, 3, 2, 5 }, { 60, 36, 36, 1, 28, 28 }, { 0, 4, 4, 1, 2, 2 }, { 2, 5, 5, 2, 0, 3 }
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const int64_t n = cases[k][0], h = cases[k][1], w = cases[k][2], c = cases[k][3], height = cases[k][4], width = cases[k][5];
        plain x = RANDOM(n, h, w, c), from = { .v = zeros(2 * n), .ndim = 2, .shape = { n, 2 }, .dtype = BP_I64 };
        double *at = (double *)from.v, *y = zeros(n * height * width * c);
        for (int64_t i = 0; i < n; i++) {
            at[2 * i] = floor(fabs(number()) * (double)(h - height + 1) * 0.999);
            at[2 * i + 1] = floor(fabs(number()) * (double)(w - width + 1) * 0.999);
        }
        for (int64_t i = 0; i < n * height * width * c; i++) {
            const int64_t image = i / c / width / height, row = i / c / width % height + (int64_t)at[2 * image],
                          column = i / c % width + (int64_t)at[2 * image + 1];
            y[i] = x.v[((image * h + row) * w + column) * c + i % c];
        }
        trial t = {
            .op = "image_crop", .n_in = 2, .in = { x, from }, .n_args = 2, .args = { bp_int(height), bp_int(width) }, .out = { y }
        };
        judge(ctx, &t);
        free_numbers();
    }
    plain from = { .v = copied(4, (const double[]){ 0, 0, 1, 3 }), .ndim = 2, .shape = { 2, 2 }, .dtype = BP_I64 };
    trial t = { .op = "image_crop", .n_in = 2, .in = { RANDOM(2, 4, 5, 1), from }, .n_args = 2, .args = { bp_int(3), bp_int(3) } };
    refuse(ctx, &t, "image 1|column 3|0..2|3x3|4x5");
    t.args[0] = bp_int(9);
    refuse(ctx, &t, "9x3|[2x4x5x1]|larger");
    free_numbers();
}

int main(void)
{
    counting c = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&c);
    test_affine(ctx);
    test_crop(ctx);
    close_counting(ctx, &c);
    return report();
}
