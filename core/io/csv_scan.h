/* csv_scan.h - text into cells, cells into numbers. */
#ifndef BP_CSV_SCAN_H
#define BP_CSV_SCAN_H

#include "../base/context.h"

#include <locale.h>

typedef struct bp_csv_scan {
    bp_ctx *ctx;
    const char *path;
    char *at, *end;
    char separator;
    int64_t line;      /* of `at`, from 1 */
    int64_t cell_line; /* where the last cell began */
} bp_csv_scan;

typedef struct bp_csv_cell {
    char *text;
    size_t n;
    bool quoted, doubled; /* doubled: holds quotes written twice */
    bool last;            /* ends its row */
} bp_csv_cell;

/* The next cell; false at the end of the text, where *status is BP_OK, and after a failure. column counts from 1, for messages. Empty lines
 * before the first cell of a row are passed over. */
bool bp_csv_next(bp_csv_scan *s, int64_t column, bp_csv_cell *cell, bp_status *status);
/* Makes doubled quotes single, in place. The text cannot be scanned again afterwards. */
void bp_csv_unquote(bp_csv_cell *cell);
/* Whichever of ; tab and , stands most often in the first line, outside quotes; the decimal point is none of them. A tie goes to the one
 * named first, since commas are common inside cells. ',' when there is none. */
char bp_csv_guess_separator(const char *text, const char *end, char decimal);

/* Reads decimal numbers whatever the process's locale. */
typedef struct bp_csv_numbers {
    char decimal;
    locale_t c_locale; /* opened when first needed */
} bp_csv_numbers;
/* False when the text, spaces around it aside, is not a number. One beyond f64's range becomes infinite. */
bool bp_csv_number(bp_csv_numbers *numbers, const char *text, size_t n, double *value);
void bp_csv_numbers_close(bp_csv_numbers *numbers);

#endif
