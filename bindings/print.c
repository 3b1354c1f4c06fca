/* print.c - tostring of a tensor.
 *
 *   [bp.Tensor f32 2x3]        matrices in aligned columns; more dimensions as one matrix after another,
 *    1.0000  2.5000 -3.0000    each under its position "(2,.,.)"; a tensor of more than MANY values shows
 *    4.0000  0.1000  6.0000    EDGE at either end of each dimension.
 *
 * All numbers of a tensor share one format: whole, fixed or scientific, whichever shows them all. */
#include "lbp.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MANY = 1000, EDGE = 3, LINE = 96 };
typedef enum number_style { STYLE_WHOLE, STYLE_FIXED, STYLE_SCIENTIFIC } number_style;

typedef struct printer {
    luaL_Buffer b;
    const bp_tensor *t;
    bool elide;
    number_style style;
    int width;
} printer;

/* ---- one number ---- */

static double real_at(const bp_tensor *t, const char *p) { return t->m.dtype == BP_F32 ? (double)*(const float *)p : *(const double *)p; }

static int format_element(const printer *pr, const char *p, char *text, size_t size)
{
    switch (pr->t->m.dtype) {
    case BP_I32: return snprintf(text, size, "%d", *(const int32_t *)p);
    case BP_I64: return snprintf(text, size, "%lld", (long long)*(const int64_t *)p);
    case BP_U8: return snprintf(text, size, "%d", *(const uint8_t *)p);
    case BP_BOOL: return snprintf(text, size, "%s", *(const uint8_t *)p ? "true" : "false");
    default: break;
    }
    double v = real_at(pr->t, p);
    if (isnan(v)) return snprintf(text, size, "nan");
    if (isinf(v)) return snprintf(text, size, v > 0 ? "inf" : "-inf");
    return snprintf(text, size, pr->style == STYLE_WHOLE ? "%.0f" : pr->style == STYLE_FIXED ? "%.4f" : "%.4e", v);
}

/* ---- which positions are shown ---- */

static int64_t shown(const printer *pr, int dim)
{
    int64_t n = pr->t->m.shape[dim];
    return pr->elide && n > 2 * EDGE ? 2 * EDGE : n;
}

static int64_t shown_at(const printer *pr, int dim, int64_t i)
{
    int64_t n = pr->t->m.shape[dim];
    return i < EDGE || shown(pr, dim) == n ? i : n - 2 * EDGE + i;
}

/* Something is left out before shown entry i. */
static bool gap_before(const printer *pr, int dim, int64_t i) { return i == EDGE && shown(pr, dim) < pr->t->m.shape[dim]; }

static const char *address(const printer *pr, const char *p, int dim, int64_t i)
{
    return p + shown_at(pr, dim, i) * pr->t->m.stride[dim] * (int64_t)bp_dtype_size(pr->t->m.dtype);
}

/* ---- the common format ---- */

typedef struct survey {
    double largest, smallest; /* of the magnitudes that are finite and not zero */
    bool whole;
} survey;

static void look_at(const printer *pr, int dim, const char *p, survey *s)
{
    if (dim < pr->t->m.ndim) {
        for (int64_t i = 0; i < shown(pr, dim); i++) look_at(pr, dim + 1, address(pr, p, dim, i), s);
        return;
    }
    double v = fabs(real_at(pr->t, p));
    if (!isfinite(v) || v == 0) return;
    if (v > s->largest) s->largest = v;
    if (v < s->smallest) s->smallest = v;
    if (v != floor(v)) s->whole = false;
}

static void measure_width(printer *pr, int dim, const char *p)
{
    if (dim < pr->t->m.ndim) {
        for (int64_t i = 0; i < shown(pr, dim); i++) measure_width(pr, dim + 1, address(pr, p, dim, i));
        return;
    }
    char text[64];
    int n = format_element(pr, p, text, sizeof text);
    if (n > pr->width) pr->width = n;
}

static void choose_format(printer *pr)
{
    const char *p = bp_data(pr->t);
    if (bp_is_float(pr->t->m.dtype)) {
        survey s = { 0, HUGE_VAL, true };
        look_at(pr, 0, p, &s);
        bool far_apart = s.largest > 100 * s.smallest; /* fixed would lose digits of the small, or give the large many columns */
        if (s.largest == 0 || (s.whole && s.largest < 1e9))
            pr->style = STYLE_WHOLE;
        else if (s.largest >= 1e6 || s.largest < 1e-3 || (far_apart && s.smallest < 1e-3))
            pr->style = STYLE_SCIENTIFIC;
        else
            pr->style = STYLE_FIXED;
    }
    measure_width(pr, 0, p);
}

/* ---- rows, matrices, blocks ---- */

static void add_element(printer *pr, const char *p)
{
    char text[64], padded[96];
    format_element(pr, p, text, sizeof text);
    int n = snprintf(padded, sizeof padded, " %*s", pr->width, text);
    luaL_addlstring(&pr->b, padded, (size_t)n);
}

/* Columns first..last of a row. */
static void add_columns(printer *pr, int dim, const char *p, int64_t first, int64_t last)
{
    for (int64_t i = first; i <= last; i++) {
        if (gap_before(pr, dim, i)) luaL_addstring(&pr->b, " ...");
        add_element(pr, address(pr, p, dim, i));
    }
    luaL_addchar(&pr->b, '\n');
}

static int64_t columns_of_a_line(const printer *pr)
{
    int64_t n = LINE / (pr->width + 1);
    return n > 0 ? n : 1;
}

static void add_row(printer *pr, int dim, const char *p)
{
    int64_t n = shown(pr, dim), step = columns_of_a_line(pr);
    for (int64_t first = 0; first < n; first += step) add_columns(pr, dim, p, first, first + step < n ? first + step - 1 : n - 1);
}

static void add_matrix(printer *pr, int dim, const char *p)
{
    int64_t n = shown(pr, dim + 1), step = columns_of_a_line(pr);
    for (int64_t first = 0; first < n; first += step) {
        int64_t last = first + step < n ? first + step - 1 : n - 1;
        if (step < n) {
            char text[80];
            snprintf(text, sizeof text, " columns %lld to %lld\n", (long long)shown_at(pr, dim + 1, first) + 1,
                     (long long)shown_at(pr, dim + 1, last) + 1);
            luaL_addstring(&pr->b, text);
        }
        for (int64_t i = 0; i < shown(pr, dim); i++) {
            if (gap_before(pr, dim, i)) luaL_addstring(&pr->b, " ...\n");
            add_columns(pr, dim + 1, address(pr, p, dim, i), first, last);
        }
    }
}

/* at[0..dim-1]: the position of this block. */
static void add_blocks(printer *pr, int dim, const char *p, int64_t *at)
{
    int rest = pr->t->m.ndim - dim;
    if (rest > 2) {
        for (int64_t i = 0; i < shown(pr, dim); i++) {
            at[dim] = shown_at(pr, dim, i) + 1;
            if (gap_before(pr, dim, i)) luaL_addstring(&pr->b, " ...\n");
            add_blocks(pr, dim + 1, address(pr, p, dim, i), at);
        }
        return;
    }
    if (dim > 0) {
        luaL_addchar(&pr->b, '(');
        for (int i = 0; i < dim; i++) {
            char text[32];
            snprintf(text, sizeof text, "%lld,", (long long)at[i]);
            luaL_addstring(&pr->b, text);
        }
        luaL_addstring(&pr->b, ".,.)\n");
    }
    add_matrix(pr, dim, p);
}

/* "[bp.Tensor f32 2x3]" */
static void add_head(luaL_Buffer *b, const bp_tensor *t, const char *note)
{
    char shape[200], text[300];
    bp_shape_text(t->m.ndim, t->m.shape, shape);
    shape[strlen(shape) - 1] = '\0';
    snprintf(text, sizeof text, "[%s %s%s%s%s]", LBP_TENSOR, bp_dtype_name(t->m.dtype), t->m.ndim ? " " : "", shape + 1, note);
    luaL_addstring(b, text);
}

int lbp_tensor_tostring(lua_State *L)
{
    lbp_box *box = lbp_testbox(L, 1);
    if (!box || !box->tensor) {
        lua_pushfstring(L, "[%s %s]", LBP_TENSOR, box ? "freed" : "?");
        return 1;
    }
    bp_tensor *t = lbp_hold(L, 1);
    bool known = t->storage && bp_tensor_readable(t) == BP_OK;
    printer pr;
    memset(&pr, 0, sizeof pr);
    pr.t = t;
    pr.elide = bp_count(t) > MANY;
    if (known && bp_count(t)) choose_format(&pr);
    luaL_buffinit(L, &pr.b);
    add_head(&pr.b, t, known ? "" : ", its value is not known while capturing");
    int64_t at[BP_MAX_DIMS];
    if (known && t->m.ndim == 0)
        add_element(&pr, bp_data(t));
    else if (known && bp_count(t)) {
        luaL_addchar(&pr.b, '\n');
        if (t->m.ndim == 1)
            add_row(&pr, 0, bp_data(t));
        else
            add_blocks(&pr, 0, bp_data(t), at);
        luaL_buffsub(&pr.b, 1); /* the last newline */
    }
    luaL_pushresult(&pr.b);
    return 1;
}
