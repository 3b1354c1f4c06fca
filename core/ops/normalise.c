/* normalise.c - the gradient of a normalisation in simple ops, where it is to be differentiated again or where the statistics themselves
 * were used. Everything is worked out anew from x, so that the history of the gradient reaches x in every way it depends on it:
 *
 *     d = x - mean(x)    inv = 1 / sqrt(mean(d^2) + eps)    n = d * inv    g = dy * scale
 *     dx = inv * (g - mean(g) - n * mean(g * n)) + dmean / count - dinv * inv^3 * d / count
 *
 * Without a centre d = x, and mean(g) and dmean fall away. */
#include "normalise.h"

static bp_tensor *shaped(bp_grad *g, bp_tensor *t, int ndim, const int64_t *shape)
{
    bp_arg to = bp_list(ndim, shape);
    return bp_g(g, &bp__op_reshape, 1, &to, 1, t);
}

static bp_tensor *shaped_like(bp_grad *g, bp_tensor *t, const bp_tensor *like) { return shaped(g, t, like->m.ndim, like->m.shape); }

static bp_tensor *mean_over(bp_grad *g, const bp_normalised *n, bp_tensor *t)
{
    bp_arg args[2] = { bp_list(n->n_over, n->over), bp_int(1) };
    return bp_g(g, &bp__op_mean, 2, args, 1, t);
}

/* The sum over all dimensions that scale and shift are repeated along, in the shape of `like`. */
static bp_tensor *over_samples(bp_grad *g, const bp_normalised *n, bp_tensor *t, const bp_tensor *like)
{
    bp_arg args[2] = { bp_default(), bp_int(0) };
    args[0].set = 1;
    for (int d = 0; d < n->ndim; d++)
        if (n->channel[d] != n->work[d] || n->channel[d] == 1) args[0].as.list[args[0].count++] = d;
    return shaped_like(g, bp_g(g, &bp__op_sum, 2, args, 1, t), like);
}

void bp__normalise_gradient(bp_grad *g, const bp_normalised *n)
{
    const int inv_out = n->center ? 2 : 1;
    bp_tensor *dy = g->dout[0], *dmean = n->center ? g->dout[1] : NULL, *dinv = g->dout[inv_out];
    if (bp_count(g->in[0]) == 0) return;
    int64_t statistic[4], count = 1;
    for (int i = 0; i < n->ndim; i++) statistic[i] = n->work[i];
    for (int i = 0; i < n->n_over; i++) {
        count *= n->work[n->over[i]];
        statistic[n->over[i]] = 1;
    }
    bp_tensor *x = shaped(g, g->in[0], n->ndim, n->work);
    bp_tensor *scale = g->in[1] ? shaped(g, g->in[1], n->ndim, n->channel) : NULL;
    bp_tensor *d = n->center ? G2(g, sub, x, mean_over(g, n, x)) : x;
    bp_tensor *inv = G1(g, rsqrt, G2(g, add, mean_over(g, n, G1(g, square, d)), bp_g_number(g, g->in[0], n->eps)));
    bp_tensor *dx = NULL;
    if (dy) {
        dy = shaped(g, dy, n->ndim, n->work);
        bp_tensor *normal = G2(g, mul, d, inv), *dn = scale ? G2(g, mul, dy, scale) : dy;
        bp_tensor *along = G2(g, mul, normal, mean_over(g, n, G2(g, mul, dn, normal)));
        dx = G2(g, mul, inv, G2(g, sub, n->center ? G2(g, sub, dn, mean_over(g, n, dn)) : dn, along));
        if (scale && g->want[1]) bp_grad_set(g, 1, over_samples(g, n, G2(g, mul, dy, normal), g->in[1]));
        if (n->center && g->in[2] && g->want[2]) bp_grad_set(g, 2, over_samples(g, n, dy, g->in[2]));
    } else {
        dx = G2(g, mul, x, bp_g_number(g, g->in[0], 0));
    }
    bp_tensor *share = bp_g_number(g, g->in[0], 1 / (double)count);
    if (dmean) dx = G2(g, add, dx, G2(g, mul, shaped(g, dmean, n->ndim, statistic), share));
    if (dinv) {
        bp_tensor *cube = G2(g, mul, inv, G1(g, square, inv)), *back = G2(g, mul, shaped(g, dinv, n->ndim, statistic), share);
        dx = G2(g, sub, dx, G2(g, mul, d, G2(g, mul, cube, back)));
    }
    if (g->want[0]) bp_grad_set(g, 0, shaped_like(g, dx, g->in[0]));
}
