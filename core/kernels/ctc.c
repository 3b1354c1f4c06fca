/* ctc.c - connectionist temporal classification for one sequence: forward and backward sums over all alignments (Graves et al. 2006).
 *
 * A label of l classes is read as s = 2l+1 states: blank, class, blank, ..., class, blank. With e_t(k) the log probability of state k's
 * class at time t,
 *
 *     a_t(k) = e_t(k) + log(sum of exp a_{t-1} over k, k-1 and, between different classes, k-2)
 *     b_t(k) =          log(sum of exp (e_{t+1} + b_{t+1}) over k, k+1 and, between different classes, k+2)
 *     loss   = -log(exp a_T(s) + exp a_T(s-1)),    P(state k at time t) = exp(a_t(k) + b_t(k) + loss)
 *
 * and the derivative by the logit of class c at time t is softmax(x_t)_c less the sum of P over the states of c. b is held from the last
 * state to the first, so that one function takes both steps. After each step the greatest element is taken off the row and added to
 * a sum in double: what is left stays near zero however long the sequence. NEVER stands for the logarithm of 0 and stays finite. */
#include "vmath.h"

#define NEVER ((real)-1e30)

static int64_t lines(int64_t n) { return (n + KLANES - 1) / KLANES * KLANES; }
/* A row of states: two elements NEVER before the first, lanes to spare behind the last. */
static int64_t row_size(int64_t states) { return KLANES + lines(states); }

typedef struct task {
    int64_t time, classes, states;
    const int64_t *label;
    int64_t blank;
    real *logs;            /* [time][classes] log softmax; a single row when there is no gradient */
    real *alpha;           /* [time] rows of states; two rows when there is no gradient */
    real *beta[2], *e, *u; /* rows */
    real *skip, *back;     /* [states] 0 where a step of two is allowed, else NEVER; for a and for b */
    double *shift;         /* [time] what was taken off each row of alpha, summed */
} task;

static int64_t class_of(const task *p, int64_t state) { return state % 2 ? p->label[state / 2] : p->blank; }

size_t K(ctc_scratch)(int64_t time, int64_t classes, int64_t label, bool gradient)
{
    const int64_t row = row_size(2 * label + 1), rows = (gradient ? time : 2) + 6;
    return (size_t)((gradient ? time : 1) * lines(classes) + rows * row + KLANES) * sizeof(real) + ((size_t)time + 8) * sizeof(double);
}

static real *take(real **at, int64_t n)
{
    real *p = *at;
    *at += n;
    return p;
}

/* Pointer to the first state of a fresh row. */
static real *take_row(real **at, int64_t states)
{
    const int64_t n = row_size(states);
    real *p = take(at, n);
    for (int64_t i = 0; i < n; i++) p[i] = NEVER;
    return p + KLANES;
}

static task lay_out(int64_t time, int64_t classes, int64_t length, const int64_t *label, int64_t blank, bool gradient, void *scratch)
{
    task p = { time, classes, 2 * length + 1, label, blank, NULL, NULL, { NULL, NULL }, NULL, NULL, NULL, NULL, (double *)scratch };
    real *at = (real *)(void *)((char *)scratch + ((size_t)time + 8) / 8 * 8 * sizeof(double));
    p.logs = take(&at, (gradient ? time : 1) * classes);
    p.e = take_row(&at, p.states);
    p.u = take_row(&at, p.states);
    p.skip = take_row(&at, p.states);
    p.back = take_row(&at, p.states);
    p.beta[0] = take_row(&at, p.states);
    p.beta[1] = take_row(&at, p.states);
    p.alpha = at + KLANES;
    for (int64_t t = 0; t < (gradient ? time : 2); t++) take_row(&at, p.states);
    for (int64_t k = 3; k < p.states; k += 2) {
        if (label[k / 2] == label[k / 2 - 1]) continue;
        p.skip[k] = 0;
        p.back[p.states - 1 - (k - 2)] = 0;
    }
    return p;
}

/* y(k) = log(exp x(k) + exp x(k-1) + exp(x(k-2) + skip(k))) + e(k); returns what was taken off, the greatest y. */
static real advance(int64_t states, const real *x, const real *skip, const real *e, real *y)
{
    vec top = vec_set(-VEC_INF);
    for (int64_t k = 0; k < states; k += KLANES) {
        const vec a = vec_load(x + k), b = vec_load(x + k - 1), c = vec_load(x + k - 2) + vec_load(skip + k);
        const vec m = vec_max(a, vec_max(b, c));
        vec v = m + vec_log(vec_exp(a - m) + vec_exp(b - m) + vec_exp(c - m));
        if (e) v += vec_load(e + k);
        vec_store(y + k, vec_select(v < NEVER, vec_set(NEVER), v));
    }
    for (int64_t k = states; k < lines(states); k++) y[k] = NEVER;
    for (int64_t k = 0; k < states; k += KLANES) top = vec_max(vec_load(y + k), top);
    real most = top[0];
    for (int i = 1; i < KLANES; i++)
        if (top[i] > most || top[i] != top[i]) most = top[i];
    if (most <= NEVER / 2) return 0;
    for (int64_t k = 0; k < states; k++) y[k] = y[k] <= NEVER / 2 ? NEVER : y[k] - most;
    return most;
}

static void emissions(const task *p, const real *logs)
{
    for (int64_t k = 0; k < p->states; k++) p->e[k] = logs[class_of(p, k)];
}

/* Fills alpha and shift; returns the loss, infinite when there is no alignment. */
static double forward(const task *p, const real *logits, bool gradient)
{
    const int64_t row = row_size(p->states);
    real *a = p->alpha;
    for (int64_t t = 0; t < p->time; t++) {
        real *logs = p->logs + (gradient ? t * p->classes : 0);
        K(log_softmax)(1, p->classes, logits + t * p->classes, logs);
        emissions(p, logs);
        if (t == 0) {
            a[0] = p->e[0];
            if (p->states > 1) a[1] = p->e[1];
            p->shift[0] = 0;
            continue;
        }
        real *next = gradient ? a + row : p->alpha + (t % 2) * row;
        p->shift[t] = p->shift[t - 1] + (double)advance(p->states, a, p->skip, p->e, next);
        a = next;
    }
    const double last = (double)a[p->states - 1], before = p->states > 1 ? (double)a[p->states - 2] : (double)NEVER;
    const double m = last > before ? last : before;
    if (m <= (double)NEVER / 2) return (double)INFINITY;
    return -(m + log(exp(last - m) + exp(before - m)) + p->shift[p->time - 1]);
}

/* dx[t] = dloss * (softmax(x_t) - P(t)) */
static void backward(const task *p, double loss, double dloss, real *dx)
{
    const int64_t row = row_size(p->states), s = p->states;
    real *b = p->beta[0], *next = p->beta[1];
    const real scale = (real)dloss;
    double shift = 0;
    b[0] = 0;
    if (s > 1) b[1] = 0;
    for (int64_t t = p->time - 1; t >= 0; t--) {
        const real *const logs = p->logs + t * p->classes, *const a = p->alpha + t * row;
        real *const to = dx + t * p->classes;
        const vec level = vec_set((real)(p->shift[t] + shift + loss));
        for (int64_t k = 0; k < s; k++) p->u[k] = b[s - 1 - k];
        for (int64_t k = 0; k < s; k += KLANES) vec_store(p->u + k, vec_exp(vec_load(a + k) + vec_load(p->u + k) + level));
        for (int64_t c = 0; c < p->classes; c += KLANES) {
            real line[KLANES];
            for (int i = 0; i < KLANES; i++) line[i] = c + i < p->classes ? logs[c + i] : 0;
            const vec v = vec_exp(vec_load(line)) * scale;
            for (int i = 0; i < KLANES && c + i < p->classes; i++) to[c + i] = v[i];
        }
        for (int64_t k = 0; k < s; k++) to[class_of(p, k)] -= scale * p->u[k];
        if (t == 0) break;
        emissions(p, logs);
        for (int64_t k = 0; k < s; k++) p->u[k] = b[k] + p->e[s - 1 - k];
        for (int64_t k = s; k < lines(s); k++) p->u[k] = NEVER;
        shift += (double)advance(s, p->u, p->back, NULL, next);
        real *const swap = b;
        b = next;
        next = swap;
    }
}

double K(ctc)(int64_t time, int64_t classes, int64_t length, const void *logits, const int64_t *label, int64_t blank, double dloss,
              void *dx, void *scratch)
{
    if (time == 0) return length == 0 ? 0 : (double)INFINITY;
    const task p = lay_out(time, classes, length, label, blank, dx != NULL, scratch);
    const double loss = forward(&p, (const real *)logits, dx != NULL);
    if (dx && loss != (double)INFINITY) backward(&p, loss, dloss, (real *)dx);
    return loss;
}
