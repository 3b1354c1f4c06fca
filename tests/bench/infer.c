/* infer.c - one sample through the nets of infer_mlp and infer_cnn from a C program: bp.h alone, no Lua. A net is a captured plan; the
 * weights are random, which a product does not mind. Speaks the protocol of peers/protocol.py: list, run WORKLOAD VARIANT STEPS. */
#include "bp.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SAMPLES = 24, RELU = 1 };

static bp_ctx *bp;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void check(bp_status status)
{
    if (status == BP_OK) return;
    fprintf(stderr, "infer: %s\n", bp_message(bp));
    exit(2);
}

/* ---- layers ---- */

static bp_tensor *numbers(int ndim, const int64_t *shape, float scale)
{
    bp_tensor *t = NULL;
    check(bp_tensor_new(bp, BP_F32, ndim, shape, &t));
    float *p = (float *)bp_tensor_data(t);
    for (int64_t i = 0; i < bp_tensor_count(t); i++) p[i] = scale * ((float)(i * 2654435761u % 2000) * 0.001f - 1);
    return t;
}

static bp_tensor *apply(const char *op, int n_in, bp_tensor *const *in, int n_args, const bp_arg *args)
{
    bp_tensor *out[2] = { NULL, NULL };
    check(bp_apply(bp, bp_op_find(op), n_in, in, n_args, args, out));
    bp_tensor_release(in[0]);
    bp_tensor_release(out[1]);
    return out[0];
}

typedef struct weights {
    bp_tensor *w, *b;
} weights;

static weights dense_weights(int64_t in, int64_t out)
{
    return (weights){ numbers(2, (int64_t[]){ in, out }, 1 / sqrtf((float)in)), numbers(1, &out, 0.1f) };
}
static weights conv_weights(int64_t in, int64_t out)
{
    return (weights){ numbers(4, (int64_t[]){ 3, 3, in, out }, 1 / sqrtf(9 * (float)in)), numbers(1, &out, 0.1f) };
}

static bp_tensor *dense(bp_tensor *x, weights p, int activation)
{
    return apply("linear", 3, (bp_tensor *[]){ x, p.w, p.b }, 1, (bp_arg[]){ bp_int(activation) });
}
static bp_tensor *conv(bp_tensor *x, weights p)
{
    const bp_arg options[] = { bp_default(), bp_default(), bp_default(), bp_int(RELU) };
    return apply("conv2d", 3, (bp_tensor *[]){ x, p.w, p.b }, 4, options);
}

/* ---- nets ---- */

typedef struct net {
    const char *name;
    bp_tensor *samples[SAMPLES];
    bp_plan *plan;
} net;

static void prepare(net *n)
{
    const bool mlp = strcmp(n->name, "infer_mlp") == 0;
    weights p[4] = { { NULL, NULL } };
    if (mlp)
        p[0] = dense_weights(10, 32), p[1] = dense_weights(32, 1);
    else
        p[0] = conv_weights(1, 32), p[1] = conv_weights(32, 64), p[2] = dense_weights(9216, 128), p[3] = dense_weights(128, 10);
    for (int i = 0; i < SAMPLES; i++)
        n->samples[i] = mlp ? numbers(2, (int64_t[]){ 1, 10 }, 1) : numbers(4, (int64_t[]){ 1, 28, 28, 1 }, 1);

    check(bp_plan_begin(bp, 1, n->samples));
    bp_tensor *x = bp_tensor_retain(n->samples[0]);
    if (mlp) {
        x = dense(dense(x, p[0], RELU), p[1], 0);
    } else {
        x = apply("max_pool2d", 1, (bp_tensor *[]){ conv(conv(x, p[0]), p[1]) }, 0, NULL);
        x = apply("reshape", 1, (bp_tensor *[]){ x }, 1, (bp_arg[]){ bp_list(2, (int64_t[]){ 1, 9216 }) });
        x = dense(dense(x, p[2], RELU), p[3], 0);
    }
    check(bp_plan_end(bp, 1, &x, &n->plan));
    bp_tensor_release(x);
    for (int i = 0; i < 4; i++) bp_tensor_release(p[i].w), bp_tensor_release(p[i].b); /* the plan holds them */
}

static void steps(net *n, int count)
{
    for (int i = 0; i < count; i++) {
        bp_tensor *y = NULL;
        check(bp_plan_run(n->plan, 1, &n->samples[i % SAMPLES], &y));
        bp_tensor_release(y);
    }
}

static void close_net(net *n)
{
    if (!n->plan) return;
    bp_plan_release(n->plan);
    for (int i = 0; i < SAMPLES; i++) bp_tensor_release(n->samples[i]);
}

int main(int argc, char **argv)
{
    net nets[2] = { { .name = "infer_mlp" }, { .name = "infer_cnn" } };
    bp_config config = BP_CONFIG_INIT;
    if (argc > 2 && strcmp(argv[1], "--threads") == 0) config.threads = atoi(argv[2]);
    if (bp_open(&config, &bp) != BP_OK) return 2;
    bp_set_grad_enabled(bp, false);
    char line[200], name[64], variant[64];
    int count;
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        if (strncmp(line, "quit", 4) == 0) break;
        if (strncmp(line, "list", 4) == 0) {
            printf("{\"peer\": \"bplua\", \"threads\": %d, \"versions\": {\"bplua\": \"%s\"}, \"workloads\": {\"infer_mlp\": [\"c\"], "
                   "\"infer_cnn\": [\"c\"]}}\n",
                   bp_threads(bp), BP_VERSION);
        } else if (sscanf(line, "run %63s %63s %d", name, variant, &count) == 3) {
            net *n = strcmp(name, nets[0].name) == 0 ? &nets[0] : &nets[1];
            if (!n->plan) {
                prepare(n);
                steps(n, 200);
            }
            const double start = now();
            steps(n, count);
            printf("{\"workload\": \"%s\", \"variant\": \"c\", \"steps\": %d, \"seconds\": %.9f}\n", n->name, count, now() - start);
        } else if (strncmp(line, "drop", 4) == 0) {
            printf("{}\n");
        } else {
            printf("{\"error\": \"unknown command\"}\n");
        }
    }
    close_net(&nets[0]);
    close_net(&nets[1]);
    bp_close(bp);
    return 0;
}
