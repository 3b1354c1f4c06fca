/* test_attention.c - attention and its gradient against plain loops in f64, in every build of the kernels and with one to three threads. */
#include "layers.h"

typedef struct shape {
    int64_t batch, tq, tk, heads, d, dv;
    bool causal, lengths;
    double scale;
} shape;

/* One query of one head: its row of y and lse; dq, dk and dv are added to. Pointers are to the head's first row; steps between rows follow.
 */
static void one_query(const shape *s, int64_t i, int64_t keys, const double *q, const double *k, const double *v, const double *dy,
                      double *y, double *lse, double *dq, double *dk, double *dv)
{
    const int64_t row = s->heads * s->d, vrow = s->heads * s->dv, n = s->causal && i + 1 < keys ? i + 1 : keys;
    const double scale = s->scale > 0 ? s->scale : 1 / sqrt((double)s->d);
    double *w = (double *)malloc((size_t)(n + 1) * sizeof *w), *dw = (double *)malloc((size_t)(n + 1) * sizeof *dw), most = -INFINITY,
           sum = 0;
    double dot = 0;
    if (!w || !dw) abort();
    for (int64_t j = 0; j < n; j++) {
        w[j] = 0;
        for (int64_t c = 0; c < s->d; c++) w[j] += scale * q[i * row + c] * k[j * row + c];
        most = fmax(most, w[j]);
    }
    for (int64_t j = 0; j < n; j++) sum += exp(w[j] - most);
    *lse = n ? most + log(sum) : 0;
    for (int64_t j = 0; j < n; j++) {
        w[j] = exp(w[j] - most) / sum;
        dw[j] = 0;
        for (int64_t c = 0; c < s->dv; c++) {
            y[i * vrow + c] += w[j] * v[j * vrow + c];
            dv[j * vrow + c] += w[j] * dy[i * vrow + c];
            dw[j] += dy[i * vrow + c] * v[j * vrow + c];
        }
        dot += w[j] * dw[j];
    }
    for (int64_t j = 0; j < n; j++)
        for (int64_t c = 0; c < s->d; c++) {
            dq[i * row + c] += scale * w[j] * (dw[j] - dot) * k[j * row + c];
            dk[j * row + c] += scale * w[j] * (dw[j] - dot) * q[i * row + c];
        }
    free(w);
    free(dw);
}

static void test_shape(bp_ctx *ctx, const shape *s)
{
    plain q = RANDOM(s->batch, s->tq, s->heads * s->d), k = RANDOM(s->batch, s->tk, s->heads * s->d);
    plain v = RANDOM(s->batch, s->tk, s->heads * s->dv), dy = RANDOM(s->batch, s->tq, s->heads * s->dv);
    plain lse = RANDOM(s->batch, s->heads, s->tq);
    plain lengths = RANDOM(s->batch), used = RANDOM(2);
    const int64_t n_q = s->batch * s->tq * s->heads, n_k = s->batch * s->tk * s->heads;
    double *y = zeros(n_q * s->dv), *sums = zeros(n_q), *dq = zeros(n_q * s->d), *dk = zeros(n_k * s->d), *dv = zeros(n_k * s->dv);
    lengths.dtype = used.dtype = BP_I64;
    used.v = zeros(2);
    for (int64_t b = 0; b < s->batch; b++) {
        const int64_t keys = s->lengths ? (s->tk + 1) * (b * 7 % 5) / 5 : s->tk;
        ((double *)lengths.v)[b] = (double)keys;
        for (int64_t h = 0; h < s->heads; h++) {
            const int64_t at = b * s->tq * s->heads * s->d + h * s->d, key = b * s->tk * s->heads * s->d + h * s->d;
            const int64_t value = b * s->tk * s->heads * s->dv + h * s->dv, out = b * s->tq * s->heads * s->dv + h * s->dv;
            for (int64_t i = 0; i < s->tq; i++)
                one_query(s, i, keys, q.v + at, k.v + key, v.v + value, dy.v + out, y + out, &sums[(b * s->heads + h) * s->tq + i], dq + at,
                          dk + key, dv + value);
        }
    }
    if (!s->lengths) lengths.v = NULL;
    trial t = { .op = "attention",
                .n_in = 4,
                .in = { q, k, v, lengths },
                .n_args = 3,
                .args = { bp_int(s->heads), bp_int(s->causal), bp_float(s->scale) },
                .out = { y, sums },
                .tolerance = 1e-4 };
    judge(ctx, &t);
    lse.v = sums;
    t = (trial){ .op = "attention_grad",
                 .n_in = 7,
                 .in = { dy, q, k, v, lse, used, lengths },
                 .n_args = 3,
                 .args = { bp_int(s->heads), bp_int(s->causal), bp_float(s->scale) },
                 .out = { dq, dk, dv },
                 .tolerance = 1e-4 };
    judge(ctx, &t);
    free_numbers();
}

int main(void)
{
    static const shape shapes[] = {
        { 1, 1, 1, 1, 1, 1, false, false, 0 },      { 2, 3, 5, 2, 4, 4, false, false, 0 },     { 3, 17, 17, 3, 8, 5, true, false, 0.3 },
        { 5, 9, 12, 2, 16, 16, false, true, 0 },    { 5, 33, 33, 1, 32, 32, true, true, 0 },   { 2, 200, 70, 2, 24, 24, false, false, 0 },
        { 1, 130, 300, 1, 64, 64, true, false, 0 }, { 1, 60, 2500, 1, 4, 3, false, false, 0 }, { 2, 5, 0, 1, 4, 4, false, false, 0 },
    };
    counting c = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&c);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) test_shape(ctx, &shapes[i]);
    trial t = { .op = "attention", .n_in = 3, .in = { RANDOM(2, 3, 4), RANDOM(2, 3, 6), RANDOM(2, 3, 4) } };
    refuse(ctx, &t, "[2x3x4]|[2x3x6]|the same");
    t = (trial){ .op = "attention", .n_in = 3, .in = { RANDOM(2, 3, 4), RANDOM(2, 3, 4), RANDOM(2, 5, 4) } };
    refuse(ctx, &t, "[2x3x4]|[2x5x4]|time");
    t = (trial){ .op = "attention", .n_in = 3, .in = { RANDOM(3, 4), RANDOM(2, 3, 4), RANDOM(2, 3, 4) } };
    refuse(ctx, &t, "[3x4]|[batch][queries]");
    free_numbers();
    close_counting(ctx, &c);
    return report();
}
