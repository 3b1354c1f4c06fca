/* csv.c - tables of text into columns. Two passes over the text: the first checks its form, counts rows and settles what each column holds;
 * the second fills tensors of exactly that size. */
#include "csv_scan.h"
#include "gzip.h"
#include "json.h"

#include "../bp_io.h"
#include "../tensor/tensor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Text rarely shrinks to less than a tenth; what claims to inflate by more than this is a bomb. */
enum { MAX_RATIO = 200 };

/* A cell of a column of classes. */
typedef struct label {
    const char *text;
    size_t n;
    double number;
    int64_t row;
} label;

typedef struct loader {
    bp_ctx *ctx;
    const char *path;
    const bp_csv_options *options;
    bp_buffer text;
    bp_csv_scan start; /* at the first row of data */
    bp_csv_numbers numbers;
    bp_csv *csv;
    label **labels; /* per column, NULL where it holds numbers */
} loader;

/* ---- text --------------------------------------------------------------------------------------------------------- */

static int64_t line_of(const bp_buffer *text, size_t offset)
{
    int64_t line = 1;
    for (size_t i = 0; i < offset; i++) line += text->data[i] == '\n';
    return line;
}

static bp_status read_text(loader *l)
{
    bp_source *source;
    BP_TRY(bp_source_open(l->ctx, l->path, &source));
    bp_status status = bp_source_rest(source, (size_t)bp_source_size(source) * MAX_RATIO + (1 << 20), &l->text);
    bp_source_close(source);
    BP_TRY(status);
    char *text = l->text.data;
    size_t n = l->text.size;
    const unsigned char *u = (const unsigned char *)text;
    if (n >= 2 && ((u[0] == 0xff && u[1] == 0xfe) || (u[0] == 0xfe && u[1] == 0xff)))
        return bp_fail(l->ctx, BP_EFORMAT, "%s: offset 0: found UTF-16; expected UTF-8: convert it with iconv -f UTF-16 -t UTF-8", l->path);
    size_t bad = bp_utf8_check(text, n);
    const char *zero = (const char *)memchr(text, 0, n);
    if (zero && (size_t)(zero - text) < bad) bad = (size_t)(zero - text);
    if (bad < n)
        return bp_fail(l->ctx, BP_EFORMAT,
                       "%s:%lld: offset %zu: found byte 0x%02x; expected UTF-8 text: convert it, for example with iconv -f "
                       "LATIN1 -t UTF-8",
                       l->path, (long long)line_of(&l->text, bad), bad, u[bad]);
    size_t bom = n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    l->start = (bp_csv_scan){ l->ctx, l->path, text + bom, text + n, l->options->separator, 1, 1 };
    if (!l->start.separator) l->start.separator = bp_csv_guess_separator(text + bom, text + n, l->numbers.decimal);
    return BP_OK;
}

static bool is_missing(const loader *l, const bp_csv_cell *cell)
{
    const char *na = l->options->na;
    return cell->n == 0 || (na && strlen(na) == cell->n && memcmp(na, cell->text, cell->n) == 0);
}

/* A failure at a cell: "path:line:column: column "name": found "text"; ...". */
static bp_status cell_fail(const loader *l, const bp_csv_scan *s, int64_t column, const bp_csv_cell *cell, const char *expected)
{
    int shown = cell->n < 60 ? (int)cell->n : 60;
    return bp_fail(l->ctx, BP_EFORMAT, "%s:%lld:%lld: column \"%.60s\": found \"%.*s\"; %s", l->path, (long long)s->cell_line,
                   (long long)column, l->csv->columns[column - 1].name, shown, cell->text, expected);
}

/* ---- header ------------------------------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static bp_status check_names(loader *l)
{
    bp_csv *csv = l->csv;
    size_t bytes = (size_t)csv->n_columns * sizeof(char *);
    const char **names = (const char **)bp_mem_new(l->ctx, bytes);
    if (!names) return BP_ENOMEM;
    for (int64_t i = 0; i < csv->n_columns; i++) names[i] = csv->columns[i].name;
    qsort(names, (size_t)csv->n_columns, sizeof *names, by_text);
    bp_status status = BP_OK;
    for (int64_t i = 1; i < csv->n_columns && status == BP_OK; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            status = bp_fail(l->ctx, BP_EFORMAT, "%s:1: two columns are called \"%.100s\"; give each a name of its own", l->path, names[i]);
    bp_mem_free(l->ctx, names, bytes);
    return status;
}

/* Names from the first row, or "1", "2", ...; leaves l->start at the first row of data. */
static bp_status read_header(loader *l)
{
    bp_csv *csv = l->csv;
    bp_csv_scan s = l->start;
    bp_csv_cell cell;
    bp_status status;
    bool numbers = false;
    int64_t n = 0;
    do {
        double v;
        if (!bp_csv_next(&s, ++n, &cell, &status))
            return status != BP_OK ? status : bp_fail(l->ctx, BP_EFORMAT, "%s: empty; expected rows of cells", l->path);
        numbers = numbers || bp_csv_number(&l->numbers, cell.text, cell.n, &v);
    } while (!cell.last);
    csv->columns = (bp_csv_column *)bp_mem_zeroed(l->ctx, (size_t)n * sizeof *csv->columns);
    if (!csv->columns) return BP_ENOMEM;
    csv->n_columns = n;
    bool header = l->options->header == 1 || (l->options->header < 0 && !numbers);
    s = l->start;
    for (int64_t i = 0; i < n; i++) {
        char number[24];
        snprintf(number, sizeof number, "%lld", (long long)i + 1);
        bp_csv_next(&s, i + 1, &cell, &status);
        if (header) bp_csv_unquote(&cell);
        const char *name = header ? cell.text : number;
        size_t size = header ? cell.n : strlen(number);
        if (!(csv->columns[i].name = (char *)bp_mem_new(l->ctx, size + 1))) return BP_ENOMEM;
        memcpy(csv->columns[i].name, name, size);
        csv->columns[i].name[size] = '\0';
    }
    if (!header) return BP_OK;
    l->start = s;
    return check_names(l);
}

static bp_status choose_kinds(loader *l)
{
    bp_csv *csv = l->csv;
    for (int64_t i = 0; i < csv->n_columns; i++) csv->columns[i].kind = l->options->others;
    for (int64_t k = 0; k < l->options->n_kinds; k++) {
        int64_t i = 0;
        while (i < csv->n_columns && strcmp(csv->columns[i].name, l->options->kinds[k].name) != 0) i++;
        if (i < csv->n_columns) {
            csv->columns[i].kind = l->options->kinds[k].kind;
            continue;
        }
        char list[400] = "";
        for (int64_t c = 0; c < csv->n_columns && strlen(list) < 300; c++) {
            size_t used = strlen(list);
            snprintf(list + used, sizeof list - used, "%s\"%.40s\"%s", c ? ", " : "", csv->columns[c].name,
                     strlen(list) > 250 ? ", ..." : "");
        }
        return bp_fail(l->ctx, BP_EINVAL, "%s: has no column \"%.60s\"; its %lld columns are %s", l->path, l->options->kinds[k].name,
                       (long long)csv->n_columns, list);
    }
    return BP_OK;
}

/* ---- first pass --------------------------------------------------------------------------------------------------- */

static bp_status ragged(const loader *l, const bp_csv_scan *s, int64_t cells)
{
    const char separator[] = { s->separator, '\0' };
    return bp_fail(l->ctx, BP_EFORMAT, "%s:%lld:%lld: found a row of %s%lld cells; expected %lld, as in the first row (separator '%s')",
                   l->path, (long long)s->cell_line, (long long)cells, cells > l->csv->n_columns ? "more than " : "",
                   (long long)(cells > l->csv->n_columns ? l->csv->n_columns : cells), (long long)l->csv->n_columns,
                   s->separator == '\t' ? "tab" : separator);
}

/* Checks one cell and settles the kind of its column; *missing is set when the cell is missing. */
static bp_status first_look(loader *l, const bp_csv_scan *s, int64_t column, const bp_csv_cell *cell, bool *missing)
{
    bp_csv_column *c = &l->csv->columns[column - 1];
    double v;
    if (c->kind == BP_CSV_SKIP) return BP_OK;
    if (is_missing(l, cell)) {
        *missing = true;
        if (l->options->missing != BP_CSV_MISSING_ERROR) return BP_OK;
        return cell_fail(l, s, column, cell, "expected a value; missing = \"skip\" leaves such rows out, \"nan\" keeps them");
    }
    bool number = bp_csv_number(&l->numbers, cell->text, cell->n, &v);
    if (c->kind == BP_CSV_AUTO) c->kind = number ? BP_CSV_NUMBER : BP_CSV_CLASS;
    if (c->kind != BP_CSV_NUMBER) return BP_OK;
    if (!number)
        return cell_fail(l, s, column, cell,
                         memchr(cell->text, ',', cell->n) && l->numbers.decimal == '.'
                             ? "expected a number; decimal = \",\" reads a comma as the point"
                             : "expected a number, as in the rows before; name the column in classes if it holds classes");
    if (isinf(v)) return cell_fail(l, s, column, cell, "too large for f64");
    if (l->options->dtype == BP_F32 && isinf((float)v)) return cell_fail(l, s, column, cell, "too large for f32; use dtype = \"f64\"");
    return BP_OK;
}

static bp_status first_pass(loader *l)
{
    bp_csv_scan s = l->start;
    bp_csv_cell cell;
    bp_status status;
    while (bp_csv_next(&s, 1, &cell, &status)) {
        bool missing = false;
        for (int64_t column = 1;;) {
            BP_TRY(first_look(l, &s, column, &cell, &missing));
            if (cell.last) {
                if (column < l->csv->n_columns) return ragged(l, &s, column);
                break;
            }
            if (++column > l->csv->n_columns) return ragged(l, &s, column);
            if (!bp_csv_next(&s, column, &cell, &status)) return status;
        }
        if (missing && l->options->missing == BP_CSV_MISSING_SKIP)
            l->csv->skipped++;
        else
            l->csv->rows++;
    }
    BP_TRY(status);
    if (l->csv->rows > 0) return BP_OK;
    return bp_fail(l->ctx, BP_EFORMAT, "%s: has no rows of data%s", l->path,
                   l->csv->skipped ? ": each lacks a value" : " after its header");
}

/* ---- second pass -------------------------------------------------------------------------------------------------- */

static bp_status make_columns(loader *l)
{
    bp_csv *csv = l->csv;
    if (!(l->labels = (label **)bp_mem_zeroed(l->ctx, (size_t)csv->n_columns * sizeof *l->labels))) return BP_ENOMEM;
    for (int64_t i = 0; i < csv->n_columns; i++) {
        bp_csv_column *c = &csv->columns[i];
        if (c->kind == BP_CSV_AUTO) c->kind = BP_CSV_NUMBER; /* every cell is missing */
        if (c->kind == BP_CSV_SKIP) continue;
        if (c->kind == BP_CSV_CLASS && !(l->labels[i] = (label *)bp_mem_new(l->ctx, (size_t)csv->rows * sizeof(label)))) return BP_ENOMEM;
        BP_TRY(bp_tensor_new(l->ctx, c->kind == BP_CSV_CLASS ? BP_I64 : l->options->dtype, 1, &csv->rows, &c->values));
    }
    return BP_OK;
}

static void keep_cell(loader *l, int64_t i, bp_csv_cell *cell, int64_t row)
{
    bp_csv_column *c = &l->csv->columns[i];
    double v = NAN;
    if (c->kind == BP_CSV_SKIP) return;
    bool missing = is_missing(l, cell);
    if (c->kind == BP_CSV_CLASS) {
        bp_csv_unquote(cell);
        if (!bp_csv_number(&l->numbers, cell->text, cell->n, &v)) v = NAN;
        l->labels[i][row] = (label){ cell->text, cell->n, v, row };
        return;
    }
    if (!missing) bp_csv_number(&l->numbers, cell->text, cell->n, &v);
    if (l->options->dtype == BP_F32)
        ((float *)(void *)bp_data(c->values))[row] = (float)v;
    else
        ((double *)(void *)bp_data(c->values))[row] = v;
}

/* A row that will be left out is noticed at its first missing cell, and overwritten by the next. */
static void second_pass(loader *l)
{
    bp_csv_scan s = l->start;
    bp_csv_cell cell;
    bp_status status;
    int64_t row = 0;
    while (row < l->csv->rows && bp_csv_next(&s, 1, &cell, &status)) {
        bool missing = false;
        for (int64_t i = 0;; bp_csv_next(&s, ++i + 1, &cell, &status)) {
            missing = missing || (l->csv->columns[i].kind != BP_CSV_SKIP && is_missing(l, &cell));
            keep_cell(l, i, &cell, row);
            if (cell.last) break;
        }
        if (!missing || l->options->missing != BP_CSV_MISSING_SKIP) row++;
    }
}

/* ---- classes ------------------------------------------------------------------------------------------------------ */

static int by_bytes(const label *x, const label *y)
{
    int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

static int labels_by_bytes(const void *a, const void *b) { return by_bytes((const label *)a, (const label *)b); }

static int labels_by_number(const void *a, const void *b)
{
    const label *x = (const label *)a, *y = (const label *)b;
    return x->number != y->number ? (x->number < y->number ? -1 : 1) : by_bytes(x, y);
}

static bp_status number_classes(loader *l, bp_csv_column *c, label *labels)
{
    int64_t rows = l->csv->rows, n = 1;
    bool numbers = true;
    for (int64_t i = 0; i < rows; i++) numbers = numbers && !isnan(labels[i].number);
    qsort(labels, (size_t)rows, sizeof *labels, numbers ? labels_by_number : labels_by_bytes);
    for (int64_t i = 1; i < rows; i++) n += by_bytes(&labels[i - 1], &labels[i]) != 0;
    if (!(c->classes = (char **)bp_mem_zeroed(l->ctx, (size_t)n * sizeof *c->classes))) return BP_ENOMEM;
    c->n_classes = n;
    int64_t *codes = (int64_t *)(void *)bp_data(c->values), k = -1;
    for (int64_t i = 0; i < rows; i++) {
        if (i == 0 || by_bytes(&labels[i - 1], &labels[i]) != 0) {
            if (!(c->classes[++k] = (char *)bp_mem_new(l->ctx, labels[i].n + 1))) return BP_ENOMEM;
            memcpy(c->classes[k], labels[i].text, labels[i].n);
            c->classes[k][labels[i].n] = '\0';
        }
        codes[labels[i].row] = k + l->ctx->base;
    }
    return BP_OK;
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

static void free_column(bp_ctx *ctx, bp_csv_column *c)
{
    if (c->name) bp_mem_free(ctx, c->name, strlen(c->name) + 1);
    bp_tensor_release(c->values);
    for (int64_t k = 0; k < c->n_classes; k++)
        if (c->classes[k]) bp_mem_free(ctx, c->classes[k], strlen(c->classes[k]) + 1);
    bp_mem_free(ctx, c->classes, (size_t)c->n_classes * sizeof *c->classes);
}

/* Moves the columns that were read to the front of a block of their own. */
static bp_status drop_skipped(loader *l)
{
    bp_csv *csv = l->csv;
    int64_t n = 0;
    for (int64_t i = 0; i < csv->n_columns; i++) n += csv->columns[i].kind != BP_CSV_SKIP;
    bp_csv_column *kept = (bp_csv_column *)bp_mem_new(l->ctx, (size_t)n * sizeof *kept);
    if (!kept) return BP_ENOMEM;
    n = 0;
    for (int64_t i = 0; i < csv->n_columns; i++)
        if (csv->columns[i].kind != BP_CSV_SKIP)
            kept[n++] = csv->columns[i];
        else
            free_column(l->ctx, &csv->columns[i]);
    bp_mem_free(l->ctx, csv->columns, (size_t)csv->n_columns * sizeof *csv->columns);
    csv->columns = kept;
    csv->n_columns = n;
    return BP_OK;
}

static bp_status load(loader *l)
{
    BP_TRY(read_text(l));
    BP_TRY(read_header(l));
    BP_TRY(choose_kinds(l));
    BP_TRY(first_pass(l));
    BP_TRY(make_columns(l));
    second_pass(l);
    for (int64_t i = 0; i < l->csv->n_columns; i++)
        if (l->labels[i]) BP_TRY(number_classes(l, &l->csv->columns[i], l->labels[i]));
    return BP_OK;
}

bp_status bp_csv_load(bp_ctx *ctx, const char *path, const bp_csv_options *options, bp_csv **out)
{
    static const bp_csv_options defaults = BP_CSV_OPTIONS_INIT;
    loader l;
    memset(&l, 0, sizeof l);
    *out = NULL;
    l.ctx = ctx;
    l.path = path;
    l.options = options ? options : &defaults;
    l.text = bp_buffer_new(ctx);
    l.numbers.decimal = l.options->decimal ? l.options->decimal : '.';
    if (!(l.csv = (bp_csv *)bp_mem_zeroed(ctx, sizeof *l.csv))) return BP_ENOMEM;
    l.csv->ctx = ctx;
    bp_status status = load(&l);
    if (l.labels)
        for (int64_t i = 0; i < l.csv->n_columns; i++) bp_mem_free(ctx, l.labels[i], (size_t)l.csv->rows * sizeof(label));
    bp_mem_free(ctx, l.labels, (size_t)l.csv->n_columns * sizeof *l.labels);
    if (status == BP_OK) status = drop_skipped(&l);
    bp_csv_numbers_close(&l.numbers);
    bp_buffer_free(&l.text);
    if (status == BP_OK)
        *out = l.csv;
    else
        bp_csv_free(l.csv);
    return status;
}

void bp_csv_free(bp_csv *csv)
{
    if (!csv) return;
    for (int64_t i = 0; i < csv->n_columns; i++) free_column(csv->ctx, &csv->columns[i]);
    bp_mem_free(csv->ctx, csv->columns, (size_t)csv->n_columns * sizeof *csv->columns);
    bp_mem_free(csv->ctx, csv, sizeof *csv);
}
