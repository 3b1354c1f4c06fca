/* optimizer.c - updates in place, one pass over parameter, gradient and state; and clipping by norm.
 *
 * Learning rate and number of the step are tensors, so that a captured step replays with new values. The equations are those of PyTorch;
 * where Keras differs, the row says so. All per-step factors are worked out in f64. Chunks depend on the number of elements alone. */
#include "optimizer.h"
#include "../base/memory.h"
#include "element.h"

#include <math.h>

bp_status bp__step_check(bp_call *call, int first_state, int last_state, int lr, int step)
{
    const bp_meta *w = &call->in[W]->m;
    char tw[200], t[200];
    if (!bp_is_float(w->dtype))
        return bp_op_fail(call, BP_EINVAL, "'%s' is %s; f32 or f64 is expected", call->op->inputs[W].name, bp_dtype_name(w->dtype));
    for (int i = G; i <= last_state; i++) {
        if (!call->in[i] || (i > G && i < first_state)) continue;
        const bp_meta *m = &call->in[i]->m;
        if (m->dtype != w->dtype || !bp_shape_equal(m->ndim, m->shape, w->ndim, w->shape))
            return bp_op_fail(call, BP_EINVAL, "'%s' is %s %s but '%s' is %s %s; they must look alike", call->op->inputs[i].name,
                              bp_dtype_name(m->dtype), bp_shape_text(m->ndim, m->shape, t), call->op->inputs[W].name,
                              bp_dtype_name(w->dtype), bp_shape_text(w->ndim, w->shape, tw));
        if (i > G && call->in[i]->storage == call->in[W]->storage && m->offset == w->offset && bp_count(call->in[i]) > 0)
            return bp_op_fail(call, BP_EINVAL, "'%s' and '%s' are the same memory", call->op->inputs[i].name, call->op->inputs[W].name);
    }
    if (call->in[lr]->m.dtype != BP_F64 || bp_count(call->in[lr]) != 1)
        return bp_op_fail(call, BP_EINVAL, "'lr' is %s %s; a single f64 number is expected", bp_dtype_name(call->in[lr]->m.dtype),
                          bp_shape_text(call->in[lr]->m.ndim, call->in[lr]->m.shape, t));
    if (step >= 0 && (call->in[step]->m.dtype != BP_I64 || bp_count(call->in[step]) != 1))
        return bp_op_fail(call, BP_EINVAL, "'step' is %s %s; a single i64 number is expected", bp_dtype_name(call->in[step]->m.dtype),
                          bp_shape_text(call->in[step]->m.ndim, call->in[step]->m.shape, t));
    return BP_OK;
}

bp_status bp__step_state(bp_call *call, int i, bool wanted, const char *why)
{
    const char *name = call->op->inputs[i].name;
    if (wanted && !call->in[i])
        return bp_op_fail(call, BP_EINVAL, "'%s' is missing but %s; give zeros of the parameter's shape", name, why);
    if (!wanted && call->in[i]) return bp_op_fail(call, BP_EINVAL, "'%s' is given but not used unless %s; leave it out", name, why);
    return BP_OK;
}

bool bp__step_idle(const bp_call *call, int lr) { return bp__step_number(call->in[lr]) < 0; }

bp_status bp__step_moving(bp_call *call, int i)
{
    const bp_tensor *t = i < call->n_in ? call->in[i] : NULL;
    if (!t || (t->m.dtype == BP_F64 && bp_count(t) == 1)) return BP_OK;
    return bp_op_fail(call, BP_EINVAL, "'%s' is %s; a single f64 number is expected", call->op->inputs[i].name, bp_dtype_name(t->m.dtype));
}

double bp__step_moved(const bp_call *call, int i, int option)
{
    return i < call->n_in && call->in[i] ? bp__step_number(call->in[i]) : call->args[option].as.f;
}

bp_step_job bp__step_job(bp_call *call, int arrays, int lr)
{
    const bp_tensor *w = call->in[W];
    bp_step_job j;
    j.kernels = bp_kernels_of(call->ctx, w->m.dtype);
    j.args = call->args;
    j.n = bp_count(w);
    j.size = (int64_t)bp_dtype_size(w->m.dtype);
    j.lr = bp__step_number(call->in[lr]);
    j.bias1 = j.bias2 = j.factor[0] = j.factor[1] = 0;
    j.step = 0;
    for (int i = 0; i < BP_STEP_ARRAYS; i++) j.array[i] = i < arrays && call->in[i] ? bp_data(call->in[i]) : NULL;
    return j;
}

bp_status bp__step_run(bp_call *call, bp_step_job *j, bp_chunk_fn *chunk)
{
    bp_parallel(call->ctx, bp_chunks(j->n, BP_MEMORY_GRAIN), chunk, j);
    return BP_OK;
}

/* ---- sgd ---- */

enum { SGD_VELOCITY = 2, SGD_LR, SGD_STEP, SGD_NOW, SGD_ROWS };
enum { SGD_MOMENTUM, SGD_DAMPENING, SGD_NESTEROV, SGD_DECAY };

static bp_status sgd_rows_infer(bp_call *call)
{
    const bp_tensor *rows = call->in[SGD_ROWS];
    char t[200];
    if (!rows) return BP_OK;
    if (rows->m.dtype != BP_I64 || rows->m.ndim != 1 || rows->m.shape[0] < 1 || !bp_tensor_is_contiguous(rows))
        return bp_op_fail(call, BP_EINVAL, "'rows' is %s %s; i64 [1 + n] without gaps is expected", bp_dtype_name(rows->m.dtype),
                          bp_shape_text(rows->m.ndim, rows->m.shape, t));
    BP_TRY(bp_need_ndim(call, W, 2, "[rows][..], when 'rows' is given"));
    if (call->in[SGD_VELOCITY] || call->args[SGD_DECAY].as.f != 0)
        return bp_op_fail(call, BP_EINVAL, "'rows' is given with momentum or weight_decay, which move other rows too; leave it out");
    return BP_OK;
}

static bp_status sgd_infer(bp_call *call)
{
    const double momentum = call->args[SGD_MOMENTUM].as.f;
    if (call->args[SGD_NESTEROV].as.i && (momentum == 0 || call->args[SGD_DAMPENING].as.f != 0))
        return bp_op_fail(call, BP_EINVAL, "nesterov needs momentum > 0 and dampening 0; momentum is %g and dampening %g", momentum,
                          call->args[SGD_DAMPENING].as.f);
    BP_TRY(bp__step_state(call, SGD_VELOCITY, momentum != 0, "momentum is not 0"));
    BP_TRY(bp__step_moving(call, SGD_NOW));
    BP_TRY(sgd_rows_infer(call));
    return bp__step_check(call, SGD_VELOCITY, SGD_VELOCITY, SGD_LR, SGD_STEP);
}

static void sgd_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const bp_step_job *j = (const bp_step_job *)arg;
    j->kernels->sgd(length(j, chunk), piece(j, W, chunk), piece(j, G, chunk), piece(j, SGD_VELOCITY, chunk), j->lr, j->factor[0],
                    j->args[SGD_DAMPENING].as.f, j->args[SGD_NESTEROV].as.i != 0, j->args[SGD_DECAY].as.f, j->step == 1);
}

/* The rows that have a gradient, when it is known which; the kernel leaves the others as they are. */
typedef struct sgd_rows {
    bp_step_job all;
    const int64_t *row; /* [n] */
    int64_t n, width, per;
} sgd_rows;

static void sgd_rows_chunk(void *arg, int64_t chunk, int worker)
{
    const sgd_rows *s = (const sgd_rows *)arg;
    const int64_t first = chunk * s->per, end = first + s->per < s->n ? first + s->per : s->n, bytes = s->width * s->all.size;
    (void)worker;
    for (int64_t i = first; i < end; i++)
        s->all.kernels->sgd(s->width, s->all.array[W] + s->row[i] * bytes, s->all.array[G] + s->row[i] * bytes, NULL, s->all.lr, 0, 0,
                            false, 0, false);
}

static bp_status sgd_some_rows(bp_call *call, const bp_step_job *j, bool *done)
{
    const int64_t *rows = (const int64_t *)(const void *)bp_data(call->in[SGD_ROWS]), all = call->in[W]->m.shape[0];
    sgd_rows s = { .all = *j, .row = rows + 1, .n = rows[0], .width = call->in[W]->m.shape[1] };
    const double lr = call->in[W]->m.dtype == BP_F32 ? (double)(float)j->lr : j->lr; /* as the kernel rounds it: 1e39 is infinite */
    *done = s.n >= 0 && 2 * s.n <= all && lr - lr == 0;
    if (!*done) return BP_OK;
    if (s.n >= call->in[SGD_ROWS]->m.shape[0])
        return bp_op_fail(call, BP_EINVAL, "'rows' speaks of %lld rows, more than it names", (long long)s.n);
    for (int64_t i = 0; i < s.n; i++)
        if (s.row[i] < 0 || s.row[i] >= all)
            return bp_op_fail(call, BP_EINVAL, "'rows' names row %lld of %lld", (long long)s.row[i], (long long)all);
    s.per = BP_MEMORY_GRAIN / (s.width + 1) + 1;
    bp_parallel(call->ctx, bp_chunks(s.n, s.per), sgd_rows_chunk, &s);
    return BP_OK;
}

static bp_status sgd_run(bp_call *call)
{
    if (bp__step_idle(call, SGD_LR)) return BP_OK;
    bp_step_job j = bp__step_job(call, 3, SGD_LR);
    bool done = false;
    if (call->in[SGD_ROWS]) BP_TRY(sgd_some_rows(call, &j, &done));
    if (done) return BP_OK;
    j.step = bp__step_count(call->in[SGD_STEP]);
    j.factor[0] = bp__step_moved(call, SGD_NOW, SGD_MOMENTUM);
    return bp__step_run(call, &j, sgd_chunk);
}

const bp_op bp__op_sgd_step = {
    .name = "sgd_step",
    .group = "optimizers",
    .summary = "one step of stochastic gradient descent, with momentum or Nesterov's",
    .detail = "d = g + weight_decay * w\n"
              "velocity = momentum * velocity + (1 - dampening) * d; in step 1 it is d itself\n"
              "w = w - lr * velocity, with nesterov w - lr * (d + momentum * velocity), without momentum w - lr * d\n"
              "PyTorch's SGD. The learning rate multiplies the velocity when it is used; in Keras it is part of the velocity, so the two "
              "differ once the "
              "learning rate changes. Torch7 damped by the momentum itself; here dampening is 0 unless asked for.",
    .inputs = (const bp_input[]){ W_INPUT,
                                  G_INPUT,
                                  { "velocity", BP_IN_OPTIONAL | BP_IN_MUTATED, "state, present when momentum is not 0" },
                                  LR_INPUT,
                                  STEP_INPUT,
                                  MOVING_INPUT("momentum"),
                                  { "rows", BP_IN_OPTIONAL | BP_IN_RAW,
                                    "i64 [1 + n] how many rows of w have a gradient, and which; given by a plan" },
                                  { 0 } },
    .options =
        (const bp_option[]){
            { .name = "momentum", .kind = BP_OPT_FLOAT, .def = 0, .min = 0, .max = 1, .help = "share of the velocity that is kept" },
            { .name = "dampening",
              .kind = BP_OPT_FLOAT,
              .def = 0,
              .min = 0,
              .max = 1,
              .help = "share of the gradient that is kept out of the velocity" },
            { .name = "nesterov", .kind = BP_OPT_BOOL, .def = 0, .min = 0, .max = 1, .help = "look ahead along the velocity" },
            WEIGHT_DECAY_OPTION(L2_TEXT),
            { 0 },
        },
    .outputs = "none",
    .flags = BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .infer = sgd_infer,
    .run = sgd_run,
};

/* ---- adam ---- */

enum { ADAM_M = 2, ADAM_V, ADAM_VMAX, ADAM_LR, ADAM_STEP, ADAM_NOW };
enum { ADAM_BETA1, ADAM_BETA2, ADAM_EPS, ADAM_DECAY, ADAM_DECOUPLED };

static bp_status adam_infer(bp_call *call)
{
    BP_TRY(bp__step_moving(call, ADAM_NOW));
    return bp__step_check(call, ADAM_M, ADAM_VMAX, ADAM_LR, ADAM_STEP);
}

static void adam_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const bp_step_job *j = (const bp_step_job *)arg;
    j->kernels->adam(length(j, chunk), piece(j, W, chunk), piece(j, G, chunk), piece(j, ADAM_M, chunk), piece(j, ADAM_V, chunk),
                     piece(j, ADAM_VMAX, chunk), j->lr, j->factor[0], j->args[ADAM_BETA2].as.f, j->args[ADAM_EPS].as.f,
                     j->args[ADAM_DECAY].as.f, j->args[ADAM_DECOUPLED].as.i != 0, j->bias1, j->bias2);
}

static bp_status adam_run(bp_call *call)
{
    if (bp__step_idle(call, ADAM_LR)) return BP_OK;
    bp_step_job j = bp__step_job(call, 5, ADAM_LR);
    j.step = bp__step_count(call->in[ADAM_STEP]);
    if (j.step < 1)
        return bp_op_fail(call, BP_EINVAL, "'step' is %lld; steps count from 1: apply increment before the first step", (long long)j.step);
    j.factor[0] = bp__step_moved(call, ADAM_NOW, ADAM_BETA1);
    j.bias1 = 1 - pow(j.factor[0], (double)j.step);
    j.bias2 = 1 - pow(call->args[ADAM_BETA2].as.f, (double)j.step);
    return bp__step_run(call, &j, adam_chunk);
}

const bp_op bp__op_adam_step = {
    .name = "adam_step",
    .group = "optimizers",
    .summary = "one step of Adam, AdamW (decoupled) or AMSGrad (with vmax)",
    .detail =
        "g = g + weight_decay * w, or with decoupled w = w - lr * weight_decay * w\n"
        "m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;  vmax = max(vmax, v)\n"
        "w = w - lr / (1 - beta1^step) * m / (sqrt(v or vmax) / sqrt(1 - beta2^step) + eps)\n"
        "Kingma and Ba, \"Adam\", 2015; Loshchilov and Hutter, \"Decoupled weight decay regularization\", 2019; Reddi et al., \"On the "
        "convergence of Adam "
        "and beyond\", 2018. eps stands outside the root and is added after the correction of v, as in PyTorch; Keras' default eps is "
        "1e-7 and is added before "
        "that correction, tiny-dnn's stands inside the root. AdamW's weight_decay is 0.01 in PyTorch and 0.004 in Keras.",
    .inputs = (const bp_input[]){ W_INPUT,
                                  G_INPUT,
                                  { "m", BP_IN_MUTATED, "state, zeros at first: mean of gradients" },
                                  { "v", BP_IN_MUTATED, "state, zeros at first: mean of their squares" },
                                  { "vmax", BP_IN_OPTIONAL | BP_IN_MUTATED, "state, zeros at first: its presence makes this AMSGrad" },
                                  LR_INPUT,
                                  STEP_INPUT,
                                  MOVING_INPUT("beta1"),
                                  { 0 } },
    .options =
        (const bp_option[]){
            { .name = "beta1", .kind = BP_OPT_FLOAT, .def = 0.9, .min = 0, .max = 0.9999999999, .help = "share of m that is kept" },
            { .name = "beta2", .kind = BP_OPT_FLOAT, .def = 0.999, .min = 0, .max = 0.9999999999, .help = "share of v that is kept" },
            EPS_OPTION("added to the root of v, outside it"),
            WEIGHT_DECAY_OPTION("decay of the parameters; see decoupled"),
            { .name = "decoupled",
              .kind = BP_OPT_BOOL,
              .def = 0,
              .min = 0,
              .max = 1,
              .help = "AdamW: shrink the parameters by lr * weight_decay instead of adding to the gradient" },
            { 0 },
        },
    .outputs = "none",
    .flags = BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .infer = adam_infer,
    .run = adam_run,
};

/* ---- rmsprop ---- */

enum { RMS_V = 2, RMS_BUFFER, RMS_AVERAGE, RMS_LR };
enum { RMS_RHO, RMS_EPS, RMS_MOMENTUM, RMS_DECAY, RMS_INSIDE };

static bp_status rmsprop_infer(bp_call *call)
{
    BP_TRY(bp__step_state(call, RMS_BUFFER, call->args[RMS_MOMENTUM].as.f != 0, "momentum is not 0"));
    return bp__step_check(call, RMS_V, RMS_AVERAGE, RMS_LR, -1);
}

static void rmsprop_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const bp_step_job *j = (const bp_step_job *)arg;
    j->kernels->rmsprop(length(j, chunk), piece(j, W, chunk), piece(j, G, chunk), piece(j, RMS_V, chunk), piece(j, RMS_BUFFER, chunk),
                        piece(j, RMS_AVERAGE, chunk), j->lr, j->args[RMS_RHO].as.f, j->args[RMS_EPS].as.f, j->args[RMS_MOMENTUM].as.f,
                        j->args[RMS_DECAY].as.f, j->args[RMS_INSIDE].as.i != 0);
}

static bp_status rmsprop_run(bp_call *call)
{
    if (bp__step_idle(call, RMS_LR)) return BP_OK;
    bp_step_job j = bp__step_job(call, 5, RMS_LR);
    return bp__step_run(call, &j, rmsprop_chunk);
}

const bp_op bp__op_rmsprop_step = {
    .name = "rmsprop_step",
    .group = "optimizers",
    .summary = "one step of RMSprop, plain, centred (with avg) or with momentum",
    .detail =
        "g = g + weight_decay * w;  v = rho * v + (1 - rho) * g^2;  avg = rho * avg + (1 - rho) * g\n"
        "r = sqrt(v - avg^2) + eps, or sqrt(v - avg^2 + eps) with eps_inside\n"
        "buf = momentum * buf + g / r;  w = w - lr * buf, without momentum w - lr * g / r\n"
        "Tieleman and Hinton, lecture 6.5, 2012. rho is PyTorch's alpha (0.99 there, 0.9 in Keras); PyTorch adds eps outside the root, "
        "Keras (1e-7) inside it; "
        "the learning rate is outside the buffer as in PyTorch.",
    .inputs = (const bp_input[]){ W_INPUT,
                                  G_INPUT,
                                  { "v", BP_IN_MUTATED, "state, zeros at first: mean of squared gradients" },
                                  { "buf", BP_IN_OPTIONAL | BP_IN_MUTATED, "state, zeros at first, present when momentum is not 0" },
                                  { "avg", BP_IN_OPTIONAL | BP_IN_MUTATED,
                                    "state, zeros at first: mean of gradients; its presence makes this the centred form" },
                                  LR_INPUT,
                                  { 0 } },
    .options =
        (const bp_option[]){
            { .name = "rho", .kind = BP_OPT_FLOAT, .def = 0.9, .min = 0, .max = 1, .help = "share of v that is kept" },
            EPS_OPTION("keeps the divisor away from 0"),
            { .name = "momentum", .kind = BP_OPT_FLOAT, .def = 0, .min = 0, .max = 1, .help = "share of the buffer that is kept" },
            WEIGHT_DECAY_OPTION(L2_TEXT),
            { .name = "eps_inside", .kind = BP_OPT_BOOL, .def = 0, .min = 0, .max = 1, .help = "add eps under the root, as Keras does" },
            { 0 },
        },
    .outputs = "none",
    .flags = BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .infer = rmsprop_infer,
    .run = rmsprop_run,
};

/* ---- increment ---- */

static bp_status increment_infer(bp_call *call)
{
    char t[200];
    const bp_meta *m = &call->in[0]->m;
    if (m->dtype == BP_I64 && bp_count(call->in[0]) == 1) return BP_OK;
    return bp_op_fail(call, BP_EINVAL, "'step' is %s %s; a single i64 number is expected", bp_dtype_name(m->dtype),
                      bp_shape_text(m->ndim, m->shape, t));
}

static bp_status increment_run(bp_call *call)
{
    int64_t *step = (int64_t *)(void *)bp_data(call->in[0]);
    if (*step == INT64_MAX) return bp_op_fail(call, BP_EINVAL, "'step' is at its greatest value");
    ++*step;
    return BP_OK;
}

const bp_op bp__op_increment = {
    .name = "increment",
    .group = "optimizers",
    .summary = "adds 1 to a counter in place: the number of the step, before the updates of that step",
    .inputs = (const bp_input[]){ { "step", BP_IN_MUTATED, "one i64 number" }, { 0 } },
    .outputs = "none",
    .flags = BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .infer = increment_infer,
    .run = increment_run,
};

/* ---- clip_norm ---- */

static bp_status clip_infer(bp_call *call)
{
    bp_dtype widest = BP_F32;
    for (int i = 0; i < call->n_in; i++) {
        bp_dtype dtype = call->in[i]->m.dtype;
        if (!bp_is_float(dtype))
            return bp_op_fail(call, BP_EINVAL, "gradient %d is %s; f32 or f64 is expected", i + call->ctx->base, bp_dtype_name(dtype));
        if (dtype == BP_F64) widest = BP_F64;
    }
    bp_out(call, 0, widest, 0, NULL);
    return BP_OK;
}

typedef struct clip_job {
    const bp_kernels *kernels;
    int64_t n, size;
    char *g;
    double *sums; /* of squares, one per chunk */
    double factor;
} clip_job;

static void squares_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const clip_job *j = (const clip_job *)arg;
    int64_t first = chunk * BP_MEMORY_GRAIN, n = j->n - first < BP_MEMORY_GRAIN ? j->n - first : BP_MEMORY_GRAIN;
    j->sums[chunk] = j->kernels->dot(n, j->g + first * j->size, j->g + first * j->size);
}

static void scale_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const clip_job *j = (const clip_job *)arg;
    int64_t first = chunk * BP_MEMORY_GRAIN, n = j->n - first < BP_MEMORY_GRAIN ? j->n - first : BP_MEMORY_GRAIN;
    j->kernels->unary[BP_UNARY_scale](n, j->g + first * j->size, 1, j->g + first * j->size, 1, j->factor);
}

static clip_job clip_job_of(bp_call *call, int i, double *sums)
{
    const bp_tensor *t = call->in[i];
    return (clip_job){ bp_kernels_of(call->ctx, t->m.dtype), bp_count(t), (int64_t)bp_dtype_size(t->m.dtype), bp_data(t), sums, 0 };
}

static bp_status clip_run(bp_call *call)
{
    const double max_norm = call->args[0].as.f;
    int64_t most = 1;
    double total = 0;
    for (int i = 0; i < call->n_in; i++) {
        int64_t chunks = bp_chunks(bp_count(call->in[i]), BP_MEMORY_GRAIN);
        if (chunks > most) most = chunks;
    }
    double *sums = (double *)bp__scratch(call->ctx, (size_t)most * sizeof(double));
    if (!sums) return BP_ENOMEM;
    for (int i = 0; i < call->n_in; i++) {
        clip_job j = clip_job_of(call, i, sums);
        int64_t chunks = bp_chunks(j.n, BP_MEMORY_GRAIN);
        bp_parallel(call->ctx, chunks, squares_chunk, &j);
        for (int64_t c = 0; c < chunks; c++) total += sums[c];
    }
    const double norm = sqrt(total), factor = max_norm / (norm + 1e-6);
    bp_element_set(call->out[0]->m.dtype, bp_data(call->out[0]), 0, norm);
    if (!(factor < 1)) return BP_OK;
    for (int i = 0; i < call->n_in; i++) {
        clip_job j = clip_job_of(call, i, sums);
        j.factor = factor;
        bp_parallel(call->ctx, bp_chunks(j.n, BP_MEMORY_GRAIN), scale_chunk, &j);
    }
    return BP_OK;
}

const bp_op bp__op_clip_norm = {
    .name = "clip_norm",
    .group = "optimizers",
    .summary = "scales gradients in place so that their joint norm is at most max_norm, and returns the norm they had",
    .detail =
        "norm = sqrt(sum over all elements of all gradients of g^2);  g = g * min(1, max_norm / (norm + 1e-6))\n"
        "PyTorch's clip_grad_norm_. The squares are summed in f64 and in a fixed order. A norm that is NaN leaves the gradients as they "
        "are: look at the "
        "result before stepping.",
    .inputs = (const bp_input[]){ { "grads", BP_IN_VARIADIC | BP_IN_MUTATED, "gradients of any shapes, scaled in place" }, { 0 } },
    .options =
        (const bp_option[]){
            { .name = "max_norm", .kind = BP_OPT_FLOAT, .min = 0, .max = 1e300, .required = true, .help = "greatest norm to leave" },
            { 0 },
        },
    .n_out = 1,
    .outputs = "norm: a single number",
    .flags = BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .infer = clip_infer,
    .run = clip_run,
};
