/* kernels.c - how close the products and convolutions come to the peak of one core, measured in the same run, and OpenBLAS (one thread, if
 * its library is there) beside the products.
 *
 *     usage: kernels [isa [part of a name]]
 *
 * Each figure is the best of many short runs, alternating with OpenBLAS's, because the machine may be shared. "peak" counts multiply-adds
 * in registers only. The work counted for a convolution is what its definition needs inside the image: no zeros beside it. */
#include "kernels/kernels.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* not what others on the machine take */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *memory(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 4095) / 64 * 64);
    if (!p) exit(2);
    return p;
}

static float *numbers(int64_t n)
{
    float *x = (float *)memory((size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++) x[i] = (float)(i * 2654435761u % 1000) * 0.002f - 1;
    return x;
}

/* ---- the peak ---- */

typedef float vec4 __attribute__((vector_size(16)));
typedef float vec8 __attribute__((vector_size(32)));
typedef float vec16 __attribute__((vector_size(64)));
static volatile float sink;

#define PEAK(name, vec, lanes, attribute)                                                                              \
    attribute static double name(void)                                                                                 \
    {                                                                                                                  \
        vec a0 = { 0 }, a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0, a6 = a0, a7 = a0, a8 = a0, a9 = a0;               \
        const vec x = a0 + 0.999f + sink, y = a0 + 1e-3f;                                                              \
        const int rounds = 200000;                                                                                     \
        const double start = now();                                                                                    \
        for (int i = 0; i < rounds; i++) {                                                                             \
            a0 = a0 * x + y, a1 = a1 * x + y, a2 = a2 * x + y, a3 = a3 * x + y, a4 = a4 * x + y;                       \
            a5 = a5 * x + y, a6 = a6 * x + y, a7 = a7 * x + y, a8 = a8 * x + y, a9 = a9 * x + y;                       \
            __asm__ volatile("" : "+x"(a0), "+x"(a1), "+x"(a2), "+x"(a3), "+x"(a4), "+x"(a5), "+x"(a6), "+x"(a7), "+x"(a8), "+x"(a9)); \
        }                                                                                                              \
        const double time = now() - start;                                                                             \
        const vec s = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9;                                                 \
        sink = s[0] * 0;                                                                                               \
        return 2.0 * 10 * lanes * rounds / time;                                                                       \
    }
PEAK(peak_baseline, vec4, 4, )
#if defined(__x86_64__)
PEAK(peak_avx2, vec8, 8, __attribute__((target("avx2,fma"))))
PEAK(peak_avx512, vec16, 16, __attribute__((target("avx512f"))))
#endif

static double peak_of(const char *isa)
{
#if defined(__x86_64__)
    if (strcmp(isa, "avx2") == 0) return peak_avx2();
    if (strcmp(isa, "avx512") == 0) return peak_avx512();
#endif
    (void)isa;
    return peak_baseline();
}

/* ---- running ---- */

static const bp_kernels *kernels;
static double peak;
static const char *only; /* run what has this in its name */

typedef void work_fn(void *ud);

/* The shortest time of one call out of rounds of about a millisecond, taking turns with the rival. */
static void race(work_fn *ours, work_fn *theirs, void *ud, double work, double time[2])
{
    const int count = work > 1e8 ? 1 : (int)(1e8 / (work + 1e3)) + 1;
    time[0] = time[1] = 1e9;
    const double end = now() + 0.25;
    do {
        for (int side = 0; side < (theirs ? 2 : 1); side++) {
            const double start = now();
            for (int i = 0; i < count; i++) (side ? theirs : ours)(ud);
            const double each = (now() - start) / count;
            if (each < time[side]) time[side] = each;
        }
        const double p = peak_of(kernels->isa);
        if (p > peak) peak = p;
    } while (now() < end);
}

static void report(const char *name, double work, const double time[2], bool rival)
{
    printf("%-44s %8.1f us %7.1f GFLOPS %5.1f %% of peak", name, 1e6 * time[0], 1e-9 * work / time[0], 100 * work / time[0] / peak);
    if (rival) printf("   OpenBLAS %7.1f (x %.2f)", 1e-9 * work / time[1], time[1] / time[0]);
    printf("\n");
    fflush(stdout);
}

/* ---- products ---- */

typedef void sgemm_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb,
                      float beta, float *c, int ldc);
static sgemm_fn *sgemm;

typedef struct product {
    bp_gemm g;
    void *scratch;
} product;

static void run_gemm(void *ud)
{
    product *p = (product *)ud;
    kernels->gemm(&p->g, p->scratch);
}
static void run_blas(void *ud)
{
    const bp_gemm *g = &((product *)ud)->g;
    const bool ta = g->a_row == 1 && g->a_col != 1, tb = g->b_row == 1 && g->b_col != 1;
    sgemm(101, ta ? 112 : 111, tb ? 112 : 111, (int)g->m, (int)g->n, (int)g->k, 1, (const float *)g->a, (int)(ta ? g->a_col : g->a_row),
          (const float *)g->b, (int)(tb ? g->b_col : g->b_row), 0, (float *)g->c, (int)g->c_row);
}

static void one_product(const char *kind, bool ta, bool tb, int64_t m, int64_t k, int64_t n)
{
    char name[80];
    snprintf(name, sizeof name, "gemm %s %ldx%ldx%ld", kind, (long)m, (long)k, (long)n);
    if (only && !strstr(name, only)) return;
    float *a = numbers(m * k), *b = numbers(k * n), *c = numbers(m * n);
    product p = { { .m = m,
                    .n = n,
                    .k = k,
                    .a = a,
                    .a_row = ta ? 1 : k,
                    .a_col = ta ? m : 1,
                    .b = b,
                    .b_row = tb ? 1 : n,
                    .b_col = tb ? k : 1,
                    .c = c,
                    .c_row = n },
                  NULL };
    p.scratch = memory(kernels->gemm_scratch(&p.g));
    const double work = 2.0 * (double)m * (double)n * (double)k;
    double time[2];
    race(run_gemm, sgemm ? run_blas : NULL, &p, work, time);
    report(name, work, time, sgemm != NULL);
    free(a), free(b), free(c), free(p.scratch);
}

/* y = x w, dx = dy w^T, dw = x^T dy */
static void dense(int64_t batch, int64_t in, int64_t out)
{
    one_product("y ", false, false, batch, in, out);
    one_product("dx", false, true, batch, out, in);
    one_product("dw", true, false, in, batch, out);
}

/* ---- convolutions ---- */

typedef struct convolution {
    bp_conv_shape s;
    float *x, *w, *y, *bias;
    void *scratch;
} convolution;

static void run_forward(void *ud)
{
    convolution *c = (convolution *)ud;
    kernels->conv2d_forward(&c->s, c->x, c->w, c->bias, BP_ACT_RELU, c->y, 0, c->s.n, c->scratch);
}
static void run_grad_input(void *ud)
{
    convolution *c = (convolution *)ud;
    kernels->conv2d_grad_input(&c->s, c->y, c->w, c->x, 0, c->s.n, c->scratch);
}
static void run_grad_weight(void *ud)
{
    convolution *c = (convolution *)ud;
    kernels->conv2d_grad_weight(&c->s, c->x, c->y, c->w, 0, c->s.n, 0, c->s.oc, c->scratch);
}

/* The same by Winograd's algorithm, weights transformed in each call; its share of the peak counts the multiplications it saves. */
static int64_t tiles_of(int64_t h, int64_t w) { return (h + 3) / 4 * ((w + 3) / 4); }
static void *transformed;
static void run_winograd_forward(void *ud)
{
    convolution *c = (convolution *)ud;
    kernels->winograd_weights(&c->s, false, c->w, transformed, 0, c->s.c, 0, c->s.oc, c->scratch);
    kernels->winograd_forward(&c->s, c->x, transformed, c->bias, BP_ACT_RELU, c->y, 0, c->s.n * tiles_of(c->s.oh, c->s.ow), 0, c->s.oc,
                              c->scratch);
}
static void run_winograd_grad_input(void *ud)
{
    convolution *c = (convolution *)ud;
    kernels->winograd_weights(&c->s, true, c->w, transformed, 0, c->s.oc, 0, c->s.c, c->scratch);
    kernels->winograd_grad_input(&c->s, c->y, transformed, c->x, 0, c->s.n * tiles_of(c->s.h, c->s.w), 0, c->s.c, c->scratch);
}
static void run_winograd_grad_weight(void *ud)
{
    convolution *c = (convolution *)ud;
    kernels->winograd_grad_weight(&c->s, c->x, c->y, c->w, 0, c->s.n * tiles_of(c->s.oh, c->s.ow), c->scratch);
}

/* How many (output, tap) pairs of one axis lie inside the image. */
static double pairs(int64_t out, int64_t taps, int64_t stride, int64_t before, int64_t size)
{
    double n = 0;
    for (int64_t i = 0; i < out; i++)
        for (int64_t a = 0; a < taps; a++) n += i * stride - before + a >= 0 && i * stride - before + a < size;
    return n;
}

static void layer(const char *net, int64_t n, int64_t size, int64_t c, int64_t oc, int64_t taps, int64_t stride, int64_t before)
{
    const int64_t out = (size + 2 * before - taps) / stride + 1;
    convolution v = { .s = { n, size, size, c, out, out, oc, taps, taps, stride, stride, 1, 1, before, before } };
    v.x = numbers(n * size * size * c), v.w = numbers(taps * taps * c * oc), v.y = numbers(n * out * out * oc), v.bias = numbers(oc);
    const size_t direct = kernels->conv2d_scratch(&v.s), winograd = kernels->winograd_scratch(&v.s);
    v.scratch = memory(direct > winograd ? direct : winograd);
    transformed = memory(kernels->winograd_weights_size(&v.s));
    const double inside = pairs(out, taps, stride, before, size), work = 2 * inside * inside * (double)(n * c * oc);
    work_fn *const parts[] = { run_forward,          run_grad_input,          run_grad_weight,
                               run_winograd_forward, run_winograd_grad_input, run_winograd_grad_weight };
    static const char *const names[] = { "y", "dx", "dw", "y winograd", "dx winograd", "dw winograd" };
    for (int i = 0; i < (taps == 3 && stride == 1 ? 6 : 3); i++) {
        double time[2];
        char name[120];
        snprintf(name, sizeof name, "conv %s %ldx%ldx%ldx%ld, %ldx%ldx%ld/%ld %s", net, (long)n, (long)size, (long)size, (long)c,
                 (long)taps, (long)taps, (long)oc, (long)stride, names[i]);
        if (only && !strstr(name, only)) continue;
        race(parts[i], NULL, &v, work, time);
        report(name, work, time, false);
    }
    free(v.x), free(v.w), free(v.y), free(v.bias), free(v.scratch), free(transformed);
}

int main(int argc, char **argv)
{
    kernels = bp_kernels_f32(argc > 1 ? argv[1] : NULL);
    only = argc > 2 ? argv[2] : NULL;
    if (!kernels) {
        printf("no such instruction set here: %s\n", argv[1]);
        return 2;
    }
    void *blas = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (blas) {
        void (*set_threads)(int);
        *(void **)&set_threads = dlsym(blas, "openblas_set_num_threads");
        *(void **)&sgemm = dlsym(blas, "cblas_sgemm");
        if (set_threads) set_threads(1);
    }
    for (int i = 0; i < 20; i++) {
        const double p = peak_of(kernels->isa);
        if (p > peak) peak = p;
    }
    printf("%s, peak of one core %.1f GFLOPS\n", kernels->isa, 1e-9 * peak);

    dense(32, 10, 32);
    dense(32, 32, 1);
    dense(128, 784, 512);
    dense(128, 512, 512);
    dense(128, 512, 10);
    dense(1, 512, 512);
    dense(17, 512, 512);
    dense(61, 127, 93);
    dense(128, 9216, 128);
    dense(512, 1024, 1024);
    layer("mnist 1", 8, 28, 1, 32, 3, 1, 0);
    layer("mnist 2", 8, 26, 32, 64, 3, 1, 0);
    layer("lenet 1", 8, 28, 1, 6, 5, 1, 2);
    layer("lenet 2", 8, 14, 6, 16, 5, 1, 0);
    layer("resnet 1", 8, 32, 3, 16, 3, 1, 1);
    layer("resnet 2", 8, 32, 16, 16, 3, 1, 1);
    layer("resnet 3", 8, 32, 16, 32, 3, 2, 1);
    layer("resnet 4", 8, 16, 32, 32, 3, 1, 1);
    layer("resnet 5", 8, 8, 64, 64, 3, 1, 1);
    layer("1x1", 8, 14, 256, 64, 1, 1, 0);
    layer("wide", 2, 14, 256, 256, 3, 1, 1);
    /* Neighbours of those: odd sizes, other kernels and strides, batches of 1 and 17. */
    layer("odd", 17, 13, 48, 80, 3, 1, 1);
    layer("odd", 5, 7, 20, 36, 3, 1, 1);
    layer("odd", 8, 15, 20, 36, 5, 1, 0);
    layer("5x5", 1, 28, 32, 64, 5, 1, 2);
    layer("7x7", 4, 64, 3, 32, 7, 2, 3);
    layer("strided", 8, 27, 24, 40, 3, 2, 1);
    layer("single", 1, 56, 64, 64, 3, 1, 1);
    layer("1x1", 17, 9, 100, 100, 1, 1, 0);
    layer("1x1", 16, 14, 128, 128, 1, 1, 0);
    /* Features that are no multiple of the lanes, few of them, large kernels, strides. */
    layer("tail", 8, 12, 20, 50, 5, 1, 0);
    layer("few", 8, 24, 8, 8, 3, 1, 1);
    layer("tail", 8, 33, 12, 12, 7, 2, 3);
    layer("tail", 8, 31, 16, 24, 3, 2, 1);
    layer("few", 1, 64, 64, 3, 9, 1, 4);
    layer("wide", 1, 14, 256, 256, 3, 1, 1);
    printf("peak of one core, best seen %.1f GFLOPS\n", 1e-9 * peak);
    return 0;
}
