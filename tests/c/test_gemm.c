/* test_gemm.c - products of matrices against the plain f64 loops, on random shapes, and the rule that a result does not depend, bit for
 * bit, on how a caller cut the work, nor on who made copies of its operands. */
#include "tables.h"

static int small_products;

/* Parts that share copies of the operands, made a few steps at a time and in any order, give the bits of the whole. */
static int copies_made[2];
static void test_copies(const bp_gemm *whole, const array *before, const array *c)
{
    array pieces = copy_of(before);
    const int64_t rows = 12 * between(1, 1 + whole->m / 12), cols = 64 * between(1, 1 + whole->n / 64), depth = between(1, 100);
    const size_t own = kernels->gemm_scratch(whole);
    char *const scratch = scratch_of(own), *copy[2];
    size_t bytes[2];
    for (int right = 0; right < 2; right++) {
        bytes[right] = chance(80) ? kernels->gemm_copy_size(whole, right) : 0;
        copy[right] = scratch_of(bytes[right]);
        copies_made[right] += bytes[right] > 0;
    }
    const int64_t size = (int64_t)real_size();
    for (int pass = 0; pass < 2; pass++) /* make the copies, then multiply */
        for (int64_t i = 0; i < whole->m; i += rows)
            for (int64_t j = 0; j < whole->n; j += cols) {
                bp_gemm part = *whole;
                part.m = whole->m - i < rows ? whole->m - i : rows, part.n = whole->n - j < cols ? whole->n - j : cols;
                part.a = at((void *)(uintptr_t)whole->a, i * whole->a_row), part.b = at((void *)(uintptr_t)whole->b, j * whole->b_col);
                part.c = at(pieces.real, i * whole->c_row + j);
                if (whole->bias) part.bias = at((void *)(uintptr_t)whole->bias, j);
                char *const a_copy = copy[0] + i * whole->k * size, *const b_copy = copy[1] + j * whole->k * size;
                for (int64_t p = (whole->k - 1) / depth * depth; p >= 0 && pass == 0; p -= depth) {
                    const int64_t count = whole->k - p < depth ? whole->k - p : depth;
                    if (bytes[0] && j == 0) kernels->gemm_copy(&part, false, a_copy, p, count);
                    if (bytes[1] && i == 0) kernels->gemm_copy(&part, true, b_copy, p, count);
                }
                part.a_copy = bytes[0] ? a_copy : NULL, part.b_copy = bytes[1] ? b_copy : NULL;
                if (pass == 1) kernels->gemm(&part, scratch);
            }
    check(same_bits(c, &pieces), "gemm %ldx%ldx%ld a %ld,%ld b %ld,%ld: parts of %ldx%ld with copies of%s%s differ", (long)whole->m,
          (long)whole->k, (long)whole->n, (long)whole->a_row, (long)whole->a_col, (long)whole->b_row, (long)whole->b_col, (long)rows,
          (long)cols, bytes[0] ? " a" : "", bytes[1] ? " b" : "");
    scratch_drop(scratch, own), scratch_drop(copy[0], bytes[0]), scratch_drop(copy[1], bytes[1]);
    drop(&pieces);
}

static void test_gemm(void)
{
    const int64_t m = chance(8) ? between(190, 420) : size_up_to(150),
                  n = m == 1 && chance(40) ? between(200, 5000)
                      : chance(20)         ? (kernels->lanes > 8 ? between(500, 800) : size_up_to(800))
                                           : size_up_to(140),
                  k = chance(5)    ? 0
                      : chance(15) ? between(300, 900)
                                   : size_up_to(140);
    const bool a_turned = chance(40), b_turned = chance(40);
    const int64_t a_step = chance(20) ? 2 : 1, b_step = chance(20) ? 2 : 1; /* no unit stride */
    const int64_t gap = chance(50) ? 0 : chance(20) ? 1024 : between(0, 9);
    bp_gemm g = { .m = m, .n = n, .k = k, .act = chance(30) ? BP_ACT_RELU : BP_ACT_NONE, .accumulate = chance(30) };
    g.a_row = a_turned ? a_step : k * a_step + gap;
    g.a_col = a_turned ? m * a_step + gap : a_step;
    g.b_row = b_turned ? b_step : n * b_step + gap;
    g.b_col = b_turned ? k * b_step + gap : b_step;
    g.c_row = n + (chance(50) ? 0 : between(0, 5));
    array a = make((m - 1) * g.a_row + (k ? (k - 1) * g.a_col + 1 : 1)), b = make((k ? (k - 1) * g.b_row : 0) + (n - 1) * g.b_col + 1);
    array bias = make(n), c = make(m * g.c_row);
    array pieces = copy_of(&c), before = copy_of(&c);
    const bool biased = chance(50);

    bp_gemm p = g;
    p.a = a.plain, p.b = b.plain, p.c = c.plain, p.bias = biased ? bias.plain : NULL;
    plain_gemm(&p);
    g.a = a.real, g.b = b.real, g.c = c.real, g.bias = biased ? bias.real : NULL;
    const size_t bytes = kernels->gemm_scratch(&g);
    char *scratch = scratch_of(bytes);
    kernels->gemm(&g, scratch);
    const double off = worst(&c, eps * ((double)k + 4));
    check(off <= 1, "gemm %ldx%ldx%ld a %ld,%ld b %ld,%ld%s%s: off by %g times the bound", (long)m, (long)k, (long)n, (long)g.a_row,
          (long)g.a_col, (long)g.b_row, (long)g.b_col, g.accumulate ? " +=" : "", biased ? " bias" : "", off);

    for (int64_t i = 0, rows; i < m; i += rows) {
        rows = chance(30) ? 1 : between(1, m - i);
        for (int64_t j = 0, cols; j < n; j += cols) {
            cols = chance(30) ? 1 : between(1, n - j);
            bp_gemm part = g;
            part.m = rows, part.n = cols;
            part.a = at(a.real, i * g.a_row), part.b = at(b.real, j * g.b_col), part.c = at(pieces.real, i * g.c_row + j);
            if (biased) part.bias = at(bias.real, j);
            check(kernels->gemm_scratch(&part) <= bytes, "gemm: a part wants more scratch than the whole");
            kernels->gemm(&part, scratch);
        }
    }
    check(same_bits(&c, &pieces), "gemm %ldx%ldx%ld a %ld,%ld b %ld,%ld: bits depend on the cut", (long)m, (long)k, (long)n, (long)g.a_row,
          (long)g.a_col, (long)g.b_row, (long)g.b_col);
    test_copies(&g, &before, &c);

    /* one column of it, to where its elements lie side by side */
    const int64_t j = between(0, n - 1);
    bp_gemm one = g;
    one.n = one.c_row = 1, one.b = at(b.real, j * g.b_col);
    if (biased) one.bias = at(bias.real, j);
    array column = make(m);
    for (int64_t i = 0; i < m; i++) set(column.real, i, get(before.real, i * g.c_row + j));
    one.c = column.real;
    kernels->gemm(&one, scratch);
    bool same = true;
    for (int64_t i = 0; i < m; i++) same = same && get(column.real, i) == get(c.real, i * g.c_row + j);
    check(same, "gemm %ldx%ldx%ld a %ld,%ld: column %ld by itself has other bits", (long)m, (long)k, (long)n, (long)g.a_row, (long)g.a_col,
          (long)j);
    drop(&column);
    scratch_drop(scratch, bytes);
    drop(&a), drop(&b), drop(&bias), drop(&c), drop(&pieces), drop(&before);
}

/* Small products, and single columns of any length, against one element at a time. */
static void test_gemm_small(void)
{
    const bool column = chance(40), turned = column && chance(30), bad = chance(10);
    const int64_t m = column ? size_up_to(300) : size_up_to(70), n = column ? 1 : size_up_to(70);
    const int64_t k = column && chance(20) ? between(300, 1000) : chance(3) ? 0 : size_up_to(140);
    const int64_t gap = chance(50) ? 0 : between(0, 9);
    bp_gemm g = { .m = m, .n = n, .k = k, .act = chance(30) ? BP_ACT_RELU : BP_ACT_NONE, .accumulate = chance(30) };
    g.a_row = turned || (!column && chance(30)) ? 1 : k + gap;
    g.a_col = g.a_row == 1 && (turned || k + gap != 1) ? m + gap : 1;
    g.b_row = n + gap;
    g.b_col = 1;
    g.c_row = n + (column || chance(50) ? 0 : between(0, 5));
    array a = make((m - 1) * g.a_row + (k ? (k - 1) * g.a_col : 0) + 1), b = make((k ? (k - 1) * g.b_row : 0) + n);
    array bias = make(n), c = make(m * g.c_row), single = copy_of(&c);
    if (bad) {
        set(a.real, between(0, a.n - 1), -0.0);
        if (chance(50)) /* not both: which NaN survives is nobody's promise */
            set(a.real, between(0, a.n - 1), NAN);
        else
            set(b.real, between(0, b.n - 1), INFINITY);
    }
    g.a = a.real, g.b = b.real, g.c = c.real, g.bias = chance(50) ? bias.real : NULL;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            bp_gemm one = g;
            one.m = one.n = 1;
            one.a = at(a.real, i * g.a_row), one.b = at(b.real, j), one.c = at(single.real, i * g.c_row + j);
            if (g.bias) one.bias = at(bias.real, j);
            kernels->gemm(&one, NULL);
        }
    const bool small = kernels->gemm_small(&g);
    if (!small) {
        const size_t bytes = kernels->gemm_scratch(&g);
        char *scratch = scratch_of(bytes);
        kernels->gemm(&g, scratch);
        scratch_drop(scratch, bytes);
    }
    small_products += small;
    check(same_bits(&c, &single), "gemm of %ldx%ldx%ld a %ld,%ld%s%s: bits differ from element by element", (long)m, (long)k, (long)n,
          (long)g.a_row, (long)g.a_col, small ? " small" : "", bad ? " with NaN" : "");
    drop(&a), drop(&b), drop(&bias), drop(&c), drop(&single);
}

/* A product of k = 1 with relu, or dropout after it, undone, against the two; y may lie where the result goes. */
static void test_outer_masked(void)
{
    const int64_t m = size_up_to(70), n = size_up_to(140), step = chance(50) ? 1 : between(1, 5);
    const double scale = chance(50) ? 1 : 1 / (1 - 0.3);
    const bool over = chance(50);
    array a = make((m - 1) * step + 1), b = make(n), y = make(m * n), t = make(m * n), c = make(m * n), u = make(m * n);
    for (int64_t i = 0; i < y.n; i++)
        if (chance(30)) set(y.real, i, chance(50) ? 0 : -0.0);
    if (chance(20)) set(a.real, 0, NAN), set(b.real, n - 1, -0.0);
    bp_gemm g = { .m = m, .n = n, .k = 1, .a = a.real, .a_row = step, .a_col = 1, .b = b.real, .b_row = n, .b_col = 1, .c_row = n };
    g.c = t.real;
    const size_t bytes = kernels->gemm_scratch(&g);
    char *scratch = scratch_of(bytes);
    kernels->gemm(&g, scratch);
    scratch_drop(scratch, bytes);
    kernels->binary[scale == 1 ? BP_BINARY_relu_grad : BP_BINARY_relu_dropout_grad](m * n, t.real, 1, y.real, 1, u.real, 1, scale);
    g.c = over ? y.real : c.real;
    kernels->gemm_outer_masked(&g, y.real, scale);
    check(same_bits(over ? &y : &c, &u), "outer product of %ld and %ld, masked%s: other bits than the two steps", (long)m, (long)n,
          over ? ", over y" : "");
    drop(&a), drop(&b), drop(&y), drop(&t), drop(&c), drop(&u);
}

/* ---- a number that must go through ---- */

static void test_nan(void)
{
    array a = make(7 * 20), b = make(20 * 19), c = make(7 * 19);
    set(a.real, 3 * 20 + 5, NAN);
    const bp_gemm g = { .m = 7,
                        .n = 19,
                        .k = 20,
                        .a = a.real,
                        .a_row = 20,
                        .a_col = 1,
                        .b = b.real,
                        .b_row = 19,
                        .b_col = 1,
                        .c = c.real,
                        .c_row = 19,
                        .act = BP_ACT_RELU };
    const size_t bytes = kernels->gemm_scratch(&g);
    char *scratch = scratch_of(bytes);
    kernels->gemm(&g, scratch);
    bool right = true;
    for (int64_t i = 0; i < c.n; i++) right = right && isnan(get(c.real, i)) == (i / 19 == 3);
    check(right, "gemm with relu: NaN stays in its row and is not hidden");
    scratch_drop(scratch, bytes);
    drop(&a), drop(&b), drop(&c);
}

static void test_products(void)
{
    test_nan();
    copies_made[0] = copies_made[1] = 0;
    for (int i = 0; i < 300; i++) test_gemm();
    /* a copy of A pays for many panels, which with many lanes are wide products */
    check((kernels->lanes > 8 || copies_made[0] > 3) && copies_made[1] > 10, "%d copies of A and %d of B were shared", copies_made[0],
          copies_made[1]);
    small_products = 0;
    for (int i = 0; i < 1000; i++) test_gemm_small();
    check(small_products > 100, "%d of the products were small", small_products);
    for (int i = 0; i < 300; i++) test_outer_masked();
}

int main(void) { return over_tables(test_products); }
