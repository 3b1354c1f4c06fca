/* optimizer_adaptive.c - the optimizers beyond sgd, adam and rmsprop: each a single pass in place, as in optimizer.c. */
#include "optimizer.h"

#include <math.h>

#define STATE(name, text)             \
    {                                 \
        name, BP_IN_MUTATED, text     \
    }
#define NUMBER_OPTION(label, number, least, most, text)                                                   \
    {                                                                                                     \
        .name = label, .kind = BP_OPT_FLOAT, .def = number, .min = least, .max = most, .help = text       \
    }
#define BOOL_OPTION(label, text)                                                                \
    {                                                                                           \
        .name = label, .kind = BP_OPT_BOOL, .def = 0, .min = 0, .max = 1, .help = text          \
    }
#define BETA_MOST 0.9999999999
#define BETA1_OPTION(number) NUMBER_OPTION("beta1", number, 0, BETA_MOST, "share of m that is kept")
#define BETA2_OPTION(number) NUMBER_OPTION("beta2", number, 0, BETA_MOST, "share of v that is kept")
#define DECOUPLED_OPTION BOOL_OPTION("decoupled", "shrink the parameters by lr * weight_decay instead of adding to the gradient")

#define UPDATE(which)                                                                                                   \
    .outputs = "none", .flags = BP_OP_NO_GRADIENT, .promote = BP_PROMOTE_NONE, .infer = which##_infer, .run = which##_run

/* What every chunk begins with. */
#define CHUNK                                        \
    const bp_step_job *j = (const bp_step_job *)arg; \
    (void)worker;
#define PIECE(i) piece(j, i, chunk)
#define OPTION(i) j->args[i].as.f

/* Steps count from 1. */
static bp_status count_steps(bp_call *call, int step, bp_step_job *j)
{
    j->step = bp__step_count(call->in[step]);
    if (j->step >= 1) return BP_OK;
    return bp_op_fail(call, BP_EINVAL, "'step' is %lld; steps count from 1: apply increment before the first step", (long long)j->step);
}

static void correct_bias(bp_step_job *j, double beta1, double beta2)
{
    j->bias1 = 1 - pow(beta1, (double)j->step);
    j->bias2 = 1 - pow(beta2, (double)j->step);
}

/* ---- adagrad ---- */

enum { ADAGRAD_SUM = 2, ADAGRAD_LR, ADAGRAD_STEP };
enum { ADAGRAD_EPS, ADAGRAD_LR_DECAY, ADAGRAD_DECAY, ADAGRAD_INSIDE };

static bp_status adagrad_infer(bp_call *call) { return bp__step_check(call, ADAGRAD_SUM, ADAGRAD_SUM, ADAGRAD_LR, ADAGRAD_STEP); }

static void adagrad_chunk(void *arg, int64_t chunk, int worker)
{
    CHUNK
    j->kernels->adagrad(length(j, chunk), PIECE(W), PIECE(G), PIECE(ADAGRAD_SUM), j->factor[0], OPTION(ADAGRAD_EPS), OPTION(ADAGRAD_DECAY),
                        j->args[ADAGRAD_INSIDE].as.i != 0);
}

static bp_status adagrad_run(bp_call *call)
{
    if (bp__step_idle(call, ADAGRAD_LR)) return BP_OK;
    bp_step_job job = bp__step_job(call, 3, ADAGRAD_LR), *j = &job;
    BP_TRY(count_steps(call, ADAGRAD_STEP, j));
    j->factor[0] = j->lr / (1 + (double)(j->step - 1) * OPTION(ADAGRAD_LR_DECAY));
    return bp__step_run(call, j, adagrad_chunk);
}

const bp_op bp__op_adagrad_step = {
    .name = "adagrad_step",
    .group = "optimizers",
    .summary = "one step of Adagrad",
    .detail = "g = g + weight_decay * w;  sum = sum + g^2;  w = w - lr / (1 + (step - 1) * lr_decay) * g / (sqrt(sum) + eps)\n"
              "Duchi, Hazan and Singer, 2011. PyTorch's; Keras starts sum at 0.1 and adds its eps (1e-7) under the root: eps_inside.",
    .inputs = (const bp_input[]){ W_INPUT, G_INPUT, STATE("sum", "state: sum of squared gradients"), LR_INPUT, STEP_INPUT, { 0 } },
    .options = (const bp_option[]){ NUMBER_OPTION("eps", 1e-10, 0, 1e300, "keeps the divisor away from 0"),
                                    NUMBER_OPTION("lr_decay", 0, 0, 1e300, "how fast the learning rate falls"),
                                        WEIGHT_DECAY_OPTION(L2_TEXT),
                                    BOOL_OPTION("eps_inside", "add eps under the root, as Keras does"), { 0 } },
    UPDATE(adagrad),
};

/* ---- adadelta ---- */

enum { ADADELTA_V = 2, ADADELTA_DELTA, ADADELTA_LR };
enum { ADADELTA_RHO, ADADELTA_EPS, ADADELTA_DECAY };

static bp_status adadelta_infer(bp_call *call) { return bp__step_check(call, ADADELTA_V, ADADELTA_DELTA, ADADELTA_LR, -1); }

static void adadelta_chunk(void *arg, int64_t chunk, int worker)
{
    CHUNK
    j->kernels->adadelta(length(j, chunk), PIECE(W), PIECE(G), PIECE(ADADELTA_V), PIECE(ADADELTA_DELTA), j->lr, OPTION(ADADELTA_RHO),
                         OPTION(ADADELTA_EPS), OPTION(ADADELTA_DECAY));
}

static bp_status adadelta_run(bp_call *call)
{
    if (bp__step_idle(call, ADADELTA_LR)) return BP_OK;
    bp_step_job j = bp__step_job(call, 4, ADADELTA_LR);
    return bp__step_run(call, &j, adadelta_chunk);
}

const bp_op bp__op_adadelta_step = {
    .name = "adadelta_step",
    .group = "optimizers",
    .summary = "one step of Adadelta",
    .detail = "g = g + weight_decay * w;  v = rho * v + (1 - rho) * g^2;  u = sqrt(delta + eps) / sqrt(v + eps) * g\n"
              "delta = rho * delta + (1 - rho) * u^2;  w = w - lr * u\n"
              "Zeiler, 2012. PyTorch's defaults are lr 1, rho 0.9, eps 1e-6; Keras' lr 1e-3, rho 0.95, eps 1e-7.",
    .inputs = (const bp_input[]){ W_INPUT, G_INPUT, STATE("v", "state, zeros at first: mean of squared gradients"),
                                  STATE("delta", "state, zeros at first: mean of squared updates"), LR_INPUT, { 0 } },
    .options = (const bp_option[]){ NUMBER_OPTION("rho", 0.9, 0, 1, "share of the means that is kept"),
                                    NUMBER_OPTION("eps", 1e-6, 0, 1e300, "keeps the roots away from 0"), WEIGHT_DECAY_OPTION(L2_TEXT),
                                        { 0 } },
    UPDATE(adadelta),
};

/* ---- nadam ---- */

enum { NADAM_M = 2, NADAM_V, NADAM_LR, NADAM_STEP, NADAM_PRODUCT };
enum { NADAM_BETA1, NADAM_BETA2, NADAM_EPS, NADAM_MOMENTUM_DECAY, NADAM_DECAY, NADAM_DECOUPLED };

static double nadam_mu(double beta1, double decay, double step) { return beta1 * (1 - 0.5 * pow(0.96, step * decay)); }

static bp_status check_product(bp_call *call, int i)
{
    const bp_tensor *t = call->in[i];
    char text[200];
    if (t->m.dtype == BP_F64 && bp_count(t) == 1) return BP_OK;
    return bp_op_fail(call, BP_EINVAL, "'product' is %s %s; a single f64 number is expected, 1 at first", bp_dtype_name(t->m.dtype),
                      bp_shape_text(t->m.ndim, t->m.shape, text));
}

static bp_status nadam_infer(bp_call *call)
{
    BP_TRY(check_product(call, NADAM_PRODUCT));
    return bp__step_check(call, NADAM_M, NADAM_V, NADAM_LR, NADAM_STEP);
}

static void nadam_chunk(void *arg, int64_t chunk, int worker)
{
    CHUNK
    const bool decoupled = j->args[NADAM_DECOUPLED].as.i != 0;
    j->kernels->nadam(length(j, chunk), PIECE(W), PIECE(G), PIECE(NADAM_M), PIECE(NADAM_V), j->factor[0], j->factor[1], OPTION(NADAM_BETA1),
                      OPTION(NADAM_BETA2), 1 / sqrt(j->bias2), OPTION(NADAM_EPS), decoupled ? 0 : OPTION(NADAM_DECAY),
                      decoupled ? 1 - j->lr * OPTION(NADAM_DECAY) : 1);
}

static bp_status nadam_run(bp_call *call)
{
    if (bp__step_idle(call, NADAM_LR)) return BP_OK;
    bp_step_job job = bp__step_job(call, 4, NADAM_LR), *j = &job;
    BP_TRY(count_steps(call, NADAM_STEP, j));
    correct_bias(j, OPTION(NADAM_BETA1), OPTION(NADAM_BETA2));
    const double product = bp__step_number(call->in[NADAM_PRODUCT]), decay = OPTION(NADAM_MOMENTUM_DECAY), step = (double)j->step;
    const double mu = nadam_mu(OPTION(NADAM_BETA1), decay, step), next = nadam_mu(OPTION(NADAM_BETA1), decay, step + 1);
    j->factor[0] = j->lr * (1 - mu) / (1 - product);
    j->factor[1] = j->lr * next / (1 - product * next);
    return bp__step_run(call, j, nadam_chunk);
}

const bp_op bp__op_nadam_step = {
    .name = "nadam_step",
    .group = "optimizers",
    .summary = "one step of NAdam: Adam with Nesterov's look ahead",
    .detail = "m and v as in adam_step; mu(t) = beta1 * (1 - 0.96^(t * momentum_decay) / 2); product = mu(1) * ... * "
        "mu(step), see nadam_product\n"
              "w = w - lr * ((1 - mu(step)) / (1 - product) * g + mu(step + 1) / (1 - product * mu(step + 1)) * m) / (sqrt(v / (1 - "
              "beta2^step)) + eps)\n"
              "Dozat, 2016. PyTorch's; Keras' is momentum_decay 1 (PyTorch: 0.004) and eps 1e-7.",
    .inputs = (const bp_input[]){ W_INPUT, G_INPUT, STATE("m", "state, zeros at first: mean of gradients"),
                                  STATE("v", "state, zeros at first: mean of their squares"), LR_INPUT, STEP_INPUT,
                                  { "product", BP_IN_RAW, "one f64 number: the product of mu up to this step" }, { 0 } },
    .options = (const bp_option[]){ BETA1_OPTION(0.9), BETA2_OPTION(0.999), EPS_OPTION("added to the root of v, outside it"),
                                    NUMBER_OPTION("momentum_decay", 4e-3, 0, 1e300, "how fast mu grows to beta1"),
                                    WEIGHT_DECAY_OPTION("decay of the parameters; see decoupled"), DECOUPLED_OPTION, { 0 } },
    UPDATE(nadam),
};

/* ---- nadam_product ---- */

enum { PRODUCT, PRODUCT_LR, PRODUCT_STEP };

static bp_status nadam_product_infer(bp_call *call) { return check_product(call, PRODUCT); }

static bp_status nadam_product_run(bp_call *call)
{
    if (bp__step_idle(call, PRODUCT_LR)) return BP_OK;
    *(double *)(void *)bp_data(call->in[PRODUCT]) *= nadam_mu(call->args[0].as.f, call->args[1].as.f,
                                                              (double)bp__step_count(call->in[PRODUCT_STEP]));
    return BP_OK;
}

const bp_op bp__op_nadam_product = {
    .name = "nadam_product",
    .group = "optimizers",
    .summary = "multiplies a number in place with NAdam's mu of a step: before the nadam_step of that step",
    .inputs = (const bp_input[]){ STATE("product", "one f64 number, 1 at first"), LR_INPUT, STEP_INPUT, { 0 } },
    .options = (const bp_option[]){ BETA1_OPTION(0.9), NUMBER_OPTION("momentum_decay", 4e-3, 0, 1e300, "how fast mu grows to "
        "beta1"), { 0 } },
    UPDATE(nadam_product),
};

/* ---- adamax ---- */

enum { ADAMAX_M = 2, ADAMAX_U, ADAMAX_LR, ADAMAX_STEP };
enum { ADAMAX_BETA1, ADAMAX_BETA2, ADAMAX_EPS, ADAMAX_DECAY };

static bp_status adamax_infer(bp_call *call) { return bp__step_check(call, ADAMAX_M, ADAMAX_U, ADAMAX_LR, ADAMAX_STEP); }

static void adamax_chunk(void *arg, int64_t chunk, int worker)
{
    CHUNK
    j->kernels->adamax(length(j, chunk), PIECE(W), PIECE(G), PIECE(ADAMAX_M), PIECE(ADAMAX_U), j->lr / j->bias1, OPTION(ADAMAX_BETA1),
                       OPTION(ADAMAX_BETA2), OPTION(ADAMAX_EPS), OPTION(ADAMAX_DECAY));
}

static bp_status adamax_run(bp_call *call)
{
    if (bp__step_idle(call, ADAMAX_LR)) return BP_OK;
    bp_step_job job = bp__step_job(call, 4, ADAMAX_LR), *j = &job;
    BP_TRY(count_steps(call, ADAMAX_STEP, j));
    correct_bias(j, OPTION(ADAMAX_BETA1), 0);
    return bp__step_run(call, j, adamax_chunk);
}

const bp_op bp__op_adamax_step = {
    .name = "adamax_step",
    .group = "optimizers",
    .summary = "one step of Adamax: Adam with the largest gradient so far in place of the second moment",
    .detail = "g = g + weight_decay * w;  m = beta1 * m + (1 - beta1) * g;  u = max(beta2 * u, |g| + eps)\n"
              "w = w - lr / (1 - beta1^step) * m / u\n"
              "Kingma and Ba, 2015. PyTorch's; Keras adds its eps (1e-7) to u when it divides.",
    .inputs = (const bp_input[]){ W_INPUT, G_INPUT, STATE("m", "state, zeros at first: mean of gradients"),
                                  STATE("u", "state, zeros at first: their largest size, decaying"), LR_INPUT, STEP_INPUT, { 0 } },
    .options = (const bp_option[]){ BETA1_OPTION(0.9), NUMBER_OPTION("beta2", 0.999, 0, BETA_MOST, "share of u that is kept"),
                                    EPS_OPTION("keeps u away from 0"), WEIGHT_DECAY_OPTION(L2_TEXT), { 0 } },
    UPDATE(adamax),
};

/* ---- rprop ---- */

enum { RPROP_PREVIOUS = 2, RPROP_SIZE, RPROP_LR };
enum { RPROP_SHRINK, RPROP_GROW, RPROP_LEAST, RPROP_MOST, RPROP_DECAY };

static bp_status rprop_infer(bp_call *call) { return bp__step_check(call, RPROP_PREVIOUS, RPROP_SIZE, RPROP_LR, -1); }

static void rprop_chunk(void *arg, int64_t chunk, int worker)
{
    CHUNK
    j->kernels->rprop(length(j, chunk), PIECE(W), PIECE(G), PIECE(RPROP_PREVIOUS), PIECE(RPROP_SIZE), OPTION(RPROP_SHRINK),
                      OPTION(RPROP_GROW), OPTION(RPROP_LEAST), OPTION(RPROP_MOST), OPTION(RPROP_DECAY));
}

static bp_status rprop_run(bp_call *call)
{
    if (bp__step_idle(call, RPROP_LR)) return BP_OK;
    bp_step_job j = bp__step_job(call, 4, RPROP_LR);
    return bp__step_run(call, &j, rprop_chunk);
}

const bp_op bp__op_rprop_step = {
    .name = "rprop_step",
    .group = "optimizers",
    .summary = "one step of resilient propagation: only the signs of the gradient count",
    .detail = "size = size * grow where g has the sign of the last gradient, * shrink where it turned, kept within least..most\n"
              "g = 0 where it turned;  w = w - sign(g) * size;  previous = g\n"
              "Riedmiller and Braun, 1993; PyTorch's form. For whole data sets rather than batches. The learning rate is what "
                  "sizes start "
              "with.",
    .inputs = (const bp_input[]){ W_INPUT, G_INPUT, STATE("previous", "state, zeros at first: the last gradient"),
                                  STATE("size", "state, the learning rate at first: how far each parameter goes"), LR_INPUT, { 0 } },
    .options = (const bp_option[]){ NUMBER_OPTION("shrink", 0.5, 0, 1, "factor where the sign turned"),
                                    NUMBER_OPTION("grow", 1.2, 1, 1e300, "factor where it did not"),
                                    NUMBER_OPTION("least", 1e-6, 0, 1e300, "smallest size"), NUMBER_OPTION("most", 50, 0, 1e300,
                                        "largest size"),
                                    WEIGHT_DECAY_OPTION(L2_TEXT), { 0 } },
    UPDATE(rprop),
};

/* ---- lion ---- */

enum { LION_M = 2, LION_LR };
enum { LION_BETA1, LION_BETA2, LION_DECAY };

static bp_status lion_infer(bp_call *call) { return bp__step_check(call, LION_M, LION_M, LION_LR, -1); }

static void lion_chunk(void *arg, int64_t chunk, int worker)
{
    CHUNK
    j->kernels->lion(length(j, chunk), PIECE(W), PIECE(G), PIECE(LION_M), j->lr, OPTION(LION_BETA1), OPTION(LION_BETA2),
                     1 - j->lr * OPTION(LION_DECAY));
}

static bp_status lion_run(bp_call *call)
{
    if (bp__step_idle(call, LION_LR)) return BP_OK;
    bp_step_job j = bp__step_job(call, 3, LION_LR);
    return bp__step_run(call, &j, lion_chunk);
}

const bp_op bp__op_lion_step = {
    .name = "lion_step",
    .group = "optimizers",
    .summary = "one step of Lion: the sign of a mean of gradients",
    .detail = "w = (1 - lr * weight_decay) * w - lr * sign(beta1 * m + (1 - beta1) * g);  m = beta2 * m + (1 - beta2) * g\n"
              "Chen et al., \"Symbolic discovery of optimization algorithms\", 2023. Keras' has the same equations.",
    .inputs = (const bp_input[]){ W_INPUT, G_INPUT, STATE("m", "state, zeros at first: mean of gradients"), LR_INPUT, { 0 } },
    .options = (const bp_option[]){ NUMBER_OPTION("beta1", 0.9, 0, BETA_MOST, "share of m in the step"),
                                    NUMBER_OPTION("beta2", 0.99, 0, BETA_MOST, "share of m that is kept"),
                                    WEIGHT_DECAY_OPTION("takes lr * weight_decay * w off w"), { 0 } },
    UPDATE(lion),
};

/* ---- radam ---- */

enum { RADAM_M = 2, RADAM_V, RADAM_LR, RADAM_STEP };
enum { RADAM_BETA1, RADAM_BETA2, RADAM_EPS, RADAM_DECAY, RADAM_DECOUPLED };

static bp_status radam_infer(bp_call *call) { return bp__step_check(call, RADAM_M, RADAM_V, RADAM_LR, RADAM_STEP); }

static void radam_chunk(void *arg, int64_t chunk, int worker)
{
    CHUNK
    const bool decoupled = j->args[RADAM_DECOUPLED].as.i != 0;
    j->kernels->radam(length(j, chunk), PIECE(W), PIECE(G), PIECE(RADAM_M), PIECE(RADAM_V), j->lr / j->bias1, OPTION(RADAM_BETA1),
                      OPTION(RADAM_BETA2), j->factor[0], OPTION(RADAM_EPS), decoupled ? 0 : OPTION(RADAM_DECAY),
                      decoupled ? 1 - j->lr * OPTION(RADAM_DECAY) : 1);
}

/* The length of the average that v is, and the rectification where it is long enough to have a variance. */
static double rectification(double beta2, double step)
{
    const double power = pow(beta2, step), most = 2 / (1 - beta2) - 1, now = most - 2 * step * power / (1 - power);
    if (!(now > 5)) return 0;
    return sqrt((now - 4) * (now - 2) * most / ((most - 4) * (most - 2) * now));
}

static bp_status radam_run(bp_call *call)
{
    if (bp__step_idle(call, RADAM_LR)) return BP_OK;
    bp_step_job job = bp__step_job(call, 4, RADAM_LR), *j = &job;
    BP_TRY(count_steps(call, RADAM_STEP, j));
    correct_bias(j, OPTION(RADAM_BETA1), OPTION(RADAM_BETA2));
    j->factor[0] = rectification(OPTION(RADAM_BETA2), (double)j->step) * sqrt(j->bias2);
    return bp__step_run(call, j, radam_chunk);
}

const bp_op bp__op_radam_step = {
    .name = "radam_step",
    .group = "optimizers",
    .summary = "one step of rectified Adam: the second moment is left out until it is known well enough",
    .detail = "m and v as in adam_step; r = 2 / (1 - beta2) - 1, r(t) = r - 2 t beta2^t / (1 - beta2^t)\n"
              "r(step) > 5: w = w - lr * m / (1 - beta1^step) * sqrt((r(t) - 4) (r(t) - 2) r / ((r - 4) (r - 2) r(t))) * "
                  "sqrt(1 - beta2^step) / "
              "(sqrt(v) + eps);  else w = w - lr * m / (1 - beta1^step)\n"
              "Liu et al., \"On the variance of the adaptive learning rate and beyond\", 2020; PyTorch's form.",
    .inputs = (const bp_input[]){ W_INPUT, G_INPUT, STATE("m", "state, zeros at first: mean of gradients"),
                                  STATE("v", "state, zeros at first: mean of their squares"), LR_INPUT, STEP_INPUT, { 0 } },
    .options = (const bp_option[]){ BETA1_OPTION(0.9), BETA2_OPTION(0.999), EPS_OPTION("added to the root of v, outside it"),
                                    WEIGHT_DECAY_OPTION("decay of the parameters; see decoupled"), DECOUPLED_OPTION, { 0 } },
    UPDATE(radam),
};
