/* kann_peer.c - KANN (https://github.com/attractivechaos/kann) behind the protocol of peers/protocol.py. peers.sh builds it.
 *
 * KANN has no Adam and no momentum: it trains with RMSprop, its own, which does less work; so its losses are not compared with ours. It
 * stores images as NCHW and takes a mask instead of a label. Variants: "rmsprop", with as many threads as --threads says. */
#include <kann.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { POOL = 24 };
static const double WARM_SECONDS = 0.3;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- data: a safetensors file of x and y ---- */

typedef struct array {
    char *bytes;
    long size;
} array;

/* The bytes of one tensor: "name":{...,"data_offsets":[from,to]}. */
static array find(const char *header, char *body, const char *name)
{
    char key[32];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *at = strstr(header, key);
    at = at ? strstr(at, "data_offsets") : NULL;
    at = at ? strchr(at, '[') : NULL;
    long from = 0, to = 0;
    if (!at || sscanf(at + 1, "%ld ,%ld", &from, &to) != 2) exit(2);
    return (array){ body + from, to - from };
}

static void read_data(const char *workload, array *x, array *y)
{
    const char *folder = getenv("BP_BENCH_DATA");
    char path[1000];
    snprintf(path, sizeof path, "%s/%s.safetensors", folder ? folder : ".", workload);
    FILE *f = fopen(path, "rb");
    unsigned char length[8];
    if (!f || fread(length, 1, 8, f) != 8) exit(2);
    long header_size = 0;
    for (int i = 7; i >= 0; i--) header_size = header_size * 256 + length[i];
    fseek(f, 0, SEEK_END);
    const long rest = ftell(f) - 8 - header_size;
    char *header = (char *)calloc((size_t)header_size + 1, 1), *body = (char *)malloc((size_t)rest);
    fseek(f, 8, SEEK_SET);
    if (fread(header, 1, (size_t)header_size, f) != (size_t)header_size || fread(body, 1, (size_t)rest, f) != (size_t)rest) exit(2);
    fclose(f);
    *x = find(header, body, "x");
    *y = find(header, body, "y");
    free(header);
}

/* ---- nets ---- */

static kad_node_t *dense_relu(kad_node_t *t, int units) { return kad_relu(kann_layer_dense(t, units)); }
static kad_node_t *conv_relu(kad_node_t *t, int filters, int taps, int pad)
{
    return kad_relu(kann_layer_conv2d(t, filters, taps, taps, 1, 1, pad, pad));
}

static kad_node_t *image(void)
{
    kad_node_t *t = kad_feed(4, 1, 1, 28, 28);
    t->ext_flag |= KANN_F_IN;
    return t;
}

static kann_t *net_of(const char *name)
{
    kad_node_t *t;
    if (strcmp(name, "mlp_tiny") == 0) return kann_new(kann_layer_cost(dense_relu(kann_layer_input(10), 32), 1, KANN_C_MSE), 0);
    if (strcmp(name, "mlp_784") == 0) {
        t = kann_layer_dropout(dense_relu(kann_layer_input(784), 512), 0.2f);
        t = kann_layer_dropout(dense_relu(t, 512), 0.2f);
        return kann_new(kann_layer_cost(t, 10, KANN_C_CEM), 0);
    }
    if (strcmp(name, "cnn_mnist") == 0) {
        t = kad_max2d(conv_relu(conv_relu(image(), 32, 3, 0), 64, 3, 0), 2, 2, 2, 2, 0, 0);
        t = kann_layer_dropout(dense_relu(kann_layer_dropout(t, 0.25f), 128), 0.5f);
        return kann_new(kann_layer_cost(t, 10, KANN_C_CEM), 0);
    }
    if (strcmp(name, "lenet5") == 0) {
        t = kad_max2d(conv_relu(image(), 6, 5, 2), 2, 2, 2, 2, 0, 0);
        t = kad_max2d(conv_relu(t, 16, 5, 0), 2, 2, 2, 2, 0, 0);
        return kann_new(kann_layer_cost(dense_relu(dense_relu(t, 120), 84), 10, KANN_C_CEM), 0);
    }
    return NULL;
}

typedef struct training {
    char name[32];
    kann_t *net;
    float *slots, *x, *y; /* x[POOL][batch][inputs], y[POOL][batch][outputs] */
    float rate;
    int batch, inputs, outputs, at;
} training;

static training *prepare(const char *name, int threads)
{
    training *t = (training *)calloc(1, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", name);
    kann_srand(1);
    t->net = net_of(name);
    if (!t->net) return NULL;
    array x, y;
    read_data(name, &x, &y);
    t->inputs = kann_dim_in(t->net), t->outputs = kann_dim_out(t->net);
    t->batch = (int)(x.size / (long)sizeof(float) / POOL / t->inputs);
    t->x = (float *)x.bytes;
    t->rate = strcmp(name, "mlp_tiny") == 0 ? 0.01f : 0.001f;
    if (t->outputs == 1) {
        t->y = (float *)y.bytes;
    } else {
        t->y = (float *)calloc((size_t)(POOL * t->batch * t->outputs), sizeof(float));
        for (int i = 0; i < POOL * t->batch; i++) t->y[i * t->outputs + ((long long *)y.bytes)[i]] = 1;
    }
    t->slots = (float *)calloc((size_t)kann_size_var(t->net), sizeof(float));
    kann_switch(t->net, 1);
    if (threads > 1) kann_mt(t->net, threads, t->batch);
    kann_set_batch_size(t->net, t->batch);
    return t;
}

static float step(training *t)
{
    float *x = t->x + (size_t)t->at * (size_t)(t->batch * t->inputs), *y = t->y + (size_t)t->at * (size_t)(t->batch * t->outputs);
    kann_feed_bind(t->net, KANN_F_IN, 0, &x);
    kann_feed_bind(t->net, KANN_F_TRUTH, 0, &y);
    const float loss = kann_cost(t->net, 0, 1);
    kann_RMSprop(kann_size_var(t->net), t->rate, 0, 0.9f, t->net->g, t->net->x, t->slots);
    t->at = (t->at + 1) % POOL;
    return loss;
}

static void run(const char *name, int steps, int threads)
{
    static training *built[8];
    training *t = NULL;
    int i = 0;
    for (; i < 8 && built[i]; i++)
        if (strcmp(built[i]->name, name) == 0) t = built[i];
    if (!t) {
        t = built[i % 8] = prepare(name, threads);
        if (!t) {
            printf("{\"error\": \"no workload called %s\"}\n", name);
            return;
        }
        const double warm = now();
        while (now() - warm < WARM_SECONDS) step(t);
    }
    const double start = now();
    float loss = 0;
    for (int k = 0; k < steps; k++) loss = step(t);
    printf("{\"workload\": \"%s\", \"variant\": \"rmsprop\", \"steps\": %d, \"seconds\": %.9f, \"loss\": %g}\n", name, steps, now() - start,
           (double)loss);
}

int main(int argc, char **argv)
{
    const int threads = argc > 2 && strcmp(argv[1], "--threads") == 0 ? atoi(argv[2]) : 1;
    char line[200], name[64], variant[64];
    int steps;
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        if (strncmp(line, "quit", 4) == 0) break;
        if (strncmp(line, "list", 4) == 0)
            printf("{\"peer\": \"kann\", \"threads\": %d, \"versions\": {\"kann\": \"%s\"}, \"workloads\": {\"mlp_tiny\": [\"rmsprop\"], "
                   "\"mlp_784\": [\"rmsprop\"], \"cnn_mnist\": [\"rmsprop\"], \"lenet5\": [\"rmsprop\"]}}\n",
                   threads, KANN_VERSION);
        else if (sscanf(line, "run %63s %63s %d", name, variant, &steps) == 3)
            run(name, steps, threads);
        else if (strncmp(line, "drop", 4) == 0)
            printf("{}\n");
        else
            printf("{\"error\": \"unknown command\"}\n");
    }
    return 0;
}
