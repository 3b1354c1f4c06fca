/* json_write.c - the pieces of which JSON text is made. */
#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The table of well-formed sequences of the Unicode standard (3.9, table 3-7): no surrogates, nothing overlong, nothing above U+10FFFF. */
size_t bp_utf8_check(const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t i = 0;
    while (i < n) {
        unsigned char c = s[i];
        size_t more = c < 0x80 ? 0 : c >= 0xc2 && c <= 0xdf ? 1 : c >= 0xe0 && c <= 0xef ? 2 : c >= 0xf0 && c <= 0xf4 ? 3 : n;
        if (more > n - i - 1) return i;
        unsigned char low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80, high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
        if (more > 0 && (s[i + 1] < low || s[i + 1] > high)) return i;
        for (size_t k = 2; k <= more; k++)
            if (s[i + k] < 0x80 || s[i + k] > 0xbf) return i;
        i += more + 1;
    }
    return n;
}

void bp_json_put_string(bp_buffer *out, const char *text, size_t n)
{
    bp_buffer_add(out, "\"", 1);
    size_t plain = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        static const char from[] = "\"\\\n\t\r\b\f", to[] = "\"\\ntrbf";
        const char *known = c ? strchr(from, c) : NULL;
        char escape[8] = { '\\', 0 };
        if (known)
            escape[1] = to[known - from];
        else
            snprintf(escape, sizeof escape, "\\u%04x", (unsigned)c);
        bp_buffer_add(out, text + plain, i - plain);
        bp_buffer_text(out, escape);
        plain = i + 1;
    }
    bp_buffer_add(out, text + plain, n - plain);
    bp_buffer_add(out, "\"", 1);
}

void bp_json_put_int(bp_buffer *out, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    bp_buffer_text(out, text);
}

/* printf and strtod agree on the locale's decimal point, so the search for enough digits works in any; the point is put right afterwards.
 */
void bp_json_put_real(bp_buffer *out, double value)
{
    char text[64], clean[64];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    size_t n = 0;
    bool marked = false, in_point = false;
    for (const char *p = text; *p; p++) {
        bool other = !strchr("0123456789+-e", *p);
        if (!other || !in_point) clean[n++] = other ? '.' : *p;
        in_point = other;
        marked = marked || other || *p == 'e';
    }
    bp_buffer_add(out, clean, n);
    if (!marked) bp_buffer_text(out, ".0");
}
