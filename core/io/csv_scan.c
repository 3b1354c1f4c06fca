/* csv_scan.c - see csv_scan.h. */
#define _GNU_SOURCE /* strtod_l */
#include "csv_scan.h"

#include <stdlib.h>
#include <string.h>

/* Steps over a line end of any kind: \n, \r\n, \r. */
static void line_end(bp_csv_scan *s)
{
    if (*s->at == '\r' && s->at + 1 < s->end && s->at[1] == '\n') s->at++;
    s->at++;
    s->line++;
}

static bool at_line_end(const bp_csv_scan *s) { return *s->at == '\n' || *s->at == '\r'; }

static bp_status quoted_cell(bp_csv_scan *s, int64_t column, bp_csv_cell *cell)
{
    cell->text = ++s->at;
    for (;; s->at++) {
        if (s->at == s->end)
            return bp_fail(s->ctx, BP_EFORMAT, "%s:%lld:%lld: the quote opened here is never closed; write quotes inside a cell twice",
                           s->path, (long long)s->cell_line, (long long)column);
        if (*s->at == '\n' || (*s->at == '\r' && !(s->at + 1 < s->end && s->at[1] == '\n'))) s->line++;
        if (*s->at != '"') continue;
        if (s->at + 1 == s->end || s->at[1] != '"') break;
        cell->doubled = true;
        s->at++;
    }
    cell->n = (size_t)(s->at - cell->text);
    cell->quoted = true;
    s->at++;
    if (s->at == s->end || *s->at == s->separator || at_line_end(s)) return BP_OK;
    return bp_fail(s->ctx, BP_EFORMAT, "%s:%lld:%lld: found '%c' after the closing quote; expected '%c' or the end of the line", s->path,
                   (long long)s->line, (long long)column, *s->at, s->separator);
}

bool bp_csv_next(bp_csv_scan *s, int64_t column, bp_csv_cell *cell, bp_status *status)
{
    *status = BP_OK;
    memset(cell, 0, sizeof *cell);
    if (column == 1) {
        while (s->at < s->end && at_line_end(s)) line_end(s);
        if (s->at == s->end) return false;
    }
    s->cell_line = s->line;
    if (s->at < s->end && *s->at == '"') {
        *status = quoted_cell(s, column, cell);
        if (*status != BP_OK) return false;
    } else {
        cell->text = s->at;
        while (s->at < s->end && *s->at != s->separator && !at_line_end(s)) s->at++;
        cell->n = (size_t)(s->at - cell->text);
    }
    cell->last = s->at == s->end || at_line_end(s);
    if (s->at == s->end) return true;
    if (cell->last)
        line_end(s);
    else
        s->at++;
    return true;
}

void bp_csv_unquote(bp_csv_cell *cell)
{
    if (!cell->doubled) return;
    size_t n = 0;
    for (size_t i = 0; i < cell->n; i++) {
        cell->text[n++] = cell->text[i];
        if (cell->text[i] == '"') i++;
    }
    cell->n = n;
    cell->doubled = false;
}

char bp_csv_guess_separator(const char *text, const char *end, char decimal)
{
    static const char candidates[] = { ';', '\t', ',' };
    int64_t count[3] = { 0, 0, 0 };
    bool quoted = false;
    for (const char *p = text; p < end && (quoted || (*p != '\n' && *p != '\r')); p++) {
        if (*p == '"') quoted = !quoted;
        for (int k = 0; k < 3; k++) count[k] += !quoted && *p == candidates[k] && *p != decimal;
    }
    int best = 2;
    for (int k = 2; k >= 0; k--)
        if (count[k] > 0 && count[k] >= count[best]) best = k;
    return candidates[best];
}

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* For more digits than a double holds exactly: strtod under the C locale, on a copy with a point. */
static bool slow_number(bp_csv_numbers *numbers, const char *text, size_t n, double *value)
{
    char copy[1024];
    if (n >= sizeof copy) return false;
    memcpy(copy, text, n);
    copy[n] = '\0';
    for (char *p = copy; *p; p++)
        if (*p == numbers->decimal) *p = '.';
    if (!numbers->c_locale) numbers->c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!numbers->c_locale) return false;
    *value = strtod_l(copy, NULL, numbers->c_locale);
    return true;
}

/* A mantissa below 2^53 times or over a power of ten up to 10^22 is exact in both factors, so one rounding makes it right
 * (Clinger, "How to read floating point numbers accurately", PLDI 1990). */
bool bp_csv_number(bp_csv_numbers *numbers, const char *text, size_t n, double *value)
{
    static const double powers[] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                     1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };
    while (n > 0 && (*text == ' ' || *text == '\t')) text++, n--;
    while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\t')) n--;
    const char *p = text, *end = text + n;
    bool negative = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+')) p++;
    uint64_t mantissa = 0;
    int digits = 0, exponent = 0, seen = 0;
    bool point = false;
    for (; p < end && (is_digit(*p) || (*p == numbers->decimal && !point)); p++) {
        if (*p == numbers->decimal) {
            point = true;
            continue;
        }
        seen = 1;
        if (mantissa || *p != '0') digits++;
        if (digits <= 18) mantissa = mantissa * 10 + (uint64_t)(*p - '0');
        if (point) exponent--;
    }
    if (!seen) return false;
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        bool down = p < end && *p == '-';
        if (p < end && (*p == '-' || *p == '+')) p++;
        if (p == end || !is_digit(*p)) return false;
        int e = 0;
        for (; p < end && is_digit(*p); p++)
            if (e < 100000) e = e * 10 + (*p - '0');
        exponent += down ? -e : e;
    }
    if (p != end) return false;
    if (digits > 18 || mantissa >> 53 || exponent < -22 || exponent > 22) return slow_number(numbers, text, n, value);
    double v = (double)mantissa;
    v = exponent < 0 ? v / powers[-exponent] : v * powers[exponent];
    *value = negative ? -v : v;
    return true;
}

void bp_csv_numbers_close(bp_csv_numbers *numbers)
{
    if (numbers->c_locale) freelocale(numbers->c_locale);
    numbers->c_locale = (locale_t)0;
}
