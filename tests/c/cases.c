/* cases.c - see cases.h. */
#include "cases.h"

#include "../../core/base/random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double uniform(uint64_t seed, int64_t i) { return ((double)bp_philox_at(seed, 1, (uint64_t)i) + 0.5) / 4294967296.0; }

static double normal(uint64_t seed, int64_t i)
{
    return sqrt(-2 * log(uniform(seed, 2 * i))) * cos(6.283185307179586 * uniform(seed, 2 * i + 1));
}

static double value_of(const bp_op *op, const bp_case *c, uint64_t seed, int64_t i)
{
    if (c->low != 0 || c->high != 0) return c->low + (c->high - c->low) * uniform(seed, i);
    double v = normal(seed, i);
    if (op->flags & BP_OP_KINKED) v += v < 0 ? -0.1 : 0.1; /* away from the kink at 0, with no two values close */
    return v;
}

/* "2x3'" or "s", with an optional "dtype:" before and "<limit" behind. */
static bool parse_input(const char *word, bp_dtype real, bp_dtype *dtype, int *ndim, int64_t *shape, bool *gaps, double *limit)
{
    char text[64];
    if (strlen(word) >= sizeof text) return false;
    strcpy(text, word);
    *dtype = real;
    *gaps = false;
    *limit = 0;
    *ndim = 0;
    char *p = text, *colon = strchr(text, ':'), *less = strchr(text, '<');
    if (less) {
        *limit = atof(less + 1);
        *less = 0;
    }
    if (colon) {
        *colon = 0;
        if (strcmp(text, "f") != 0 && !bp_dtype_find(text, dtype)) return false;
        p = colon + 1;
    }
    size_t n = strlen(p);
    if (n && p[n - 1] == '\'') {
        *gaps = true;
        p[n - 1] = 0;
    }
    if (strcmp(p, "s") == 0) return true;
    for (char *size = strtok(p, "x"); size; size = strtok(NULL, "x")) {
        if (*ndim == BP_MAX_DIMS) return false;
        shape[(*ndim)++] = atoll(size);
    }
    return true;
}

/* A tensor of that shape whose elements do not lie next to each other: every second column of one twice as wide, its first two dimensions
 * swapped. */
static bp_status with_gaps(bp_ctx *ctx, bp_dtype dtype, int ndim, const int64_t *shape, bp_tensor **out)
{
    bp_meta wide, m;
    int64_t s[BP_MAX_DIMS];
    memcpy(s, shape, sizeof *s * (size_t)ndim);
    if (ndim > 1) {
        s[0] = shape[1];
        s[1] = shape[0];
    }
    s[ndim - 1] *= 2;
    bp_meta_set(&wide, dtype, ndim, s);
    bp_tensor *base;
    BP_TRY(bp_tensor_like(ctx, &wide, &base));
    memset(bp_data(base), 0, base->storage->bytes);
    m = base->m;
    memcpy(m.shape, shape, sizeof *s * (size_t)ndim);
    m.stride[ndim - 1] *= 2;
    if (ndim > 1) {
        int64_t t = m.stride[0];
        m.stride[0] = m.stride[1];
        m.stride[1] = t;
    }
    bp_status status = bp_tensor_over(ctx, &m, base->storage, out);
    bp_tensor_release(base);
    return status;
}

bool case_make(bp_ctx *ctx, const bp_op *op, const bp_case *c, bp_dtype real, uint64_t seed, case_inputs *in)
{
    char text[256];
    memset(in, 0, sizeof *in);
    snprintf(text, sizeof text, "%s", c->inputs);
    char *next = text;
    while (*next) {
        char *word = next;
        next += strcspn(next, " ");
        if (*next) *next++ = 0;
        if (!*word) continue;
        int k = in->n++;
        if (strcmp(word, "-") == 0) continue;
        bp_dtype dtype;
        int ndim;
        int64_t shape[BP_MAX_DIMS];
        bool gaps, ok;
        double limit;
        if (strcmp(word, "rng") == 0) {
            int64_t two = 2, state[2] = { (int64_t)bp_stream_key(seed, 3), 5 };
            ok = bp_tensor_new(ctx, BP_I64, 1, &two, &in->t[k]) == BP_OK && bp_tensor_write(in->t[k], BP_I64, state, 2) == BP_OK;
            if (!ok) return false;
            continue;
        }
        if (!parse_input(word, real, &dtype, &ndim, shape, &gaps, &limit)) {
            printf("%s: case input '%s' is not understood\n", op->name, word);
            return false;
        }
        ok = (gaps && ndim ? with_gaps(ctx, dtype, ndim, shape, &in->t[k]) : bp_tensor_new(ctx, dtype, ndim, shape, &in->t[k])) == BP_OK;
        if (!ok) {
            printf("%s: %s\n", op->name, bp_message(ctx));
            return false;
        }
        int64_t n = bp_count(in->t[k]);
        double *v = (double *)malloc(sizeof *v * (size_t)(n + 1));
        for (int64_t i = 0; i < n; i++) {
            uint64_t s = seed * 31 + (uint64_t)k;
            if (bp_is_float(dtype))
                v[i] = value_of(op, c, s, i);
            else
                v[i] = floor(uniform(s, i) * (limit > 0 ? limit : dtype == BP_BOOL ? 2 : 5));
        }
        ok = bp_tensor_write(in->t[k], BP_F64, v, n) == BP_OK;
        free(v);
        in->differentiable[k] = bp_is_float(dtype) && dtype == real;
        if (!ok) return false;
    }
    const bp_input *d = op->inputs;
    for (int k = 0; k < in->n && d->name; k++, d += !(d->flags & BP_IN_VARIADIC))
        if (d->flags & (BP_IN_INDEX | BP_IN_STREAM | BP_IN_MUTATED)) in->differentiable[k] = false;
    return true;
}

void case_free(case_inputs *in)
{
    for (int i = 0; i < in->n; i++) bp_tensor_release(in->t[i]);
}

bool case_args(const bp_op *op, const char *text, bp_arg *args)
{
    memset(args, 0, sizeof *args * BP_MAX_ARGS);
    char buf[256];
    snprintf(buf, sizeof buf, "%s", text ? text : "");
    char *save = NULL;
    for (char *word = strtok_r(buf, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        char *value = strchr(word, '=');
        if (!value) return false;
        *value++ = 0;
        int i = 0;
        const bp_option *o = op->options;
        while (o && o->name && strcmp(o->name, word) != 0) o++, i++;
        if (!o || !o->name) {
            printf("%s: case option '%s' is not one of its options\n", op->name, word);
            return false;
        }
        bp_arg *a = &args[i];
        a->set = 1;
        a->count = 1;
        bp_dtype dtype;
        switch (o->kind) {
        case BP_OPT_FLOAT: a->as.f = atof(value); break;
        case BP_OPT_BOOL: a->as.i = strcmp(value, "true") == 0 || strcmp(value, "1") == 0; break;
        case BP_OPT_CHOICE:
            a->as.i = -1;
            for (int k = 0; o->choices[k]; k++)
                if (strcmp(o->choices[k], value) == 0) a->as.i = k;
            if (a->as.i < 0) return false;
            break;
        case BP_OPT_DTYPE:
            if (!bp_dtype_find(value, &dtype)) return false;
            a->as.i = dtype;
            break;
        case BP_OPT_AXES:
        case BP_OPT_INDICES:
        case BP_OPT_INTS: {
            char *more = NULL;
            a->count = 0;
            for (char *v = strtok_r(value, ",", &more); v; v = strtok_r(NULL, ",", &more)) a->as.list[a->count++] = atoll(v);
            break;
        }
        default: a->as.i = atoll(value); break;
        }
    }
    return true;
}
