/* test_json.c - what is JSON and what is not; numbers and strings written as they can be read again. */
#include "../../core/io/json.h"
#include "check.h"

#include <float.h>
#include <locale.h>
#include <math.h>

static bp_status parse(bp_ctx *ctx, const char *text, bp_json **v) { return bp_json_parse(ctx, "j", text, strlen(text), 1000, v); }

static const struct {
    const char *text, *says;
} refused[] = {
    { "", "line 1" },
    { "{\"a\":1,\"a\":2}", "duplicate object key" },
    { "[1,]", "line 1, column 4" },
    { "[1]\n[2]", "line 2, column 1" },
    { "{'a':1}", "line 1" },
    { "[01]", "line 1" },
    { "[.5]", "line 1" },
    { "[NaN]", "line 1" },
    { "[1e999]", "overflow" },
    { "[9223372036854775808]", "too big integer" },
    { "\"\xff\"", "decode byte 0xff" },
    { "\"\\ud800\"", "line 1" },
    { "\"a\nb\"", "line 1" },
    { "{\"a\\u0000\":1}", "line 1" },
    { "// no\n1", "line 1" },
};

static void reading(bp_ctx *ctx)
{
    bp_json *v;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        CHECK(parse(ctx, refused[i].text, &v) == BP_EFORMAT && !v, "%s is refused", refused[i].text);
        CHECK(strncmp(bp_message(ctx), "j: line ", 8) == 0 && strstr(bp_message(ctx), refused[i].says), "%s: %s; expected to say %s",
              refused[i].text, bp_message(ctx), refused[i].says);
    }
    char deep[300];
    for (int depth = BP_JSON_DEPTH; depth <= BP_JSON_DEPTH + 1; depth++) {
        memset(deep, '[', (size_t)depth);
        memset(deep + depth, ']', (size_t)depth);
        deep[2 * depth] = '\0';
        CHECK(parse(ctx, deep, &v) == (depth == BP_JSON_DEPTH ? BP_OK : BP_ELIMIT), "depth %d: %s", depth, bp_message(ctx));
        if (v) bp_json_free(v);
    }
    CHECK(bp_json_parse(ctx, "j", "[1,2,3]", 7, 3, &v) == BP_ELIMIT, "%s", bp_message(ctx));
    CHECK(bp_json_parse(ctx, "j", "[1,2,3]", 7, 4, &v) == BP_OK, "%s", bp_message(ctx));
    bp_json_free(v);
    CHECK(bp_json_parse(ctx, "j", "[\"],,,[\\\",\"]", 12, 2, &v) == BP_OK, "brackets in strings do not count: %s", bp_message(ctx));
    bp_json_free(v);

    CHECK(parse(ctx, "{\"z\":[true,null,-7,2.5,\"a\\u0000b\\u00e4\"],\"a\":{}}", &v) == BP_OK, "%s", bp_message(ctx));
    const bp_json *z = bp_json_get(v, "z");
    size_t n;
    CHECK(bp_json_count(v) == 2 && z && bp_json_count(z) == 5 && !bp_json_get(v, "b"), "counts");
    CHECK(strcmp(bp_json_key(bp_json_first(v)), "z") == 0 && !bp_json_next(v, bp_json_next(v, bp_json_first(v))),
          "members in the order of the text");
    CHECK(bp_json_bool(bp_json_at(z, 0)) && bp_json_kind_of(bp_json_at(z, 1)) == BP_JSON_NULL && bp_json_int(bp_json_at(z, 2)) == -7,
          "values");
    CHECK(bp_json_real(bp_json_at(z, 3)) == 2.5 && memcmp(bp_json_string(bp_json_at(z, 4), &n), "a\0b\xc3\xa4", 5) == 0 && n == 5,
          "values");
    bp_json_free(v);
}

static const char *real(bp_buffer *b, double value)
{
    b->size = 0;
    bp_json_put_real(b, value);
    bp_buffer_add(b, "", 1);
    return b->data;
}

static void writing(bp_ctx *ctx)
{
    bp_buffer b = bp_buffer_new(ctx);
    static const struct {
        double value;
        const char *text;
    } reals[] = { { 1, "1.0" },
                  { -0.0, "-0.0" },
                  { 0.1, "0.1" },
                  { 1e300, "1e+300" },
                  { 1.0 / 3, "0.3333333333333333" },
                  { 1e15, "1e+15" },
                  { 123456, "123456.0" },
                  { 5e-324, "4.94065645841247e-324" } };
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        CHECK(strcmp(real(&b, reals[i].value), reals[i].text) == 0, "%s; expected %s", b.data, reals[i].text);
    uint64_t state = 1, wrong = 0;
    for (int i = 0; i < 100000; i++) {
        double x;
        state = state * 6364136223846793005u + 1442695040888963407u;
        memcpy(&x, &state, sizeof x);
        if (isfinite(x)) wrong += strtod(real(&b, x), NULL) != x;
    }
    CHECK(wrong == 0, "%llu of 100000 numbers come back changed", (unsigned long long)wrong);
    b.size = 0;
    bp_json_put_string(&b, "a\"\\\n\x01\x7f\xc3\xa4/\0b", 11);
    bp_buffer_add(&b, "", 1);
    CHECK(strcmp(b.data, "\"a\\\"\\\\\\n\\u0001\x7f\xc3\xa4/\\u0000b\"") == 0, "%s", b.data);
    b.size = 0;
    bp_json_put_int(&b, INT64_MIN);
    bp_buffer_add(&b, "", 1);
    CHECK(strcmp(b.data, "-9223372036854775808") == 0, "%s", b.data);
    /* wherever the process's locale has a comma; skipped where no such locale is installed */
    if (setlocale(LC_NUMERIC, "de_DE.UTF-8") || setlocale(LC_NUMERIC, "fr_FR.UTF-8")) {
        CHECK(strcmp(real(&b, 2.5), "2.5") == 0, "%s", b.data);
        setlocale(LC_NUMERIC, "C");
    }
    bp_buffer_free(&b);
}

static void utf8(void)
{
    static const struct {
        const char *text;
        size_t n, bad;
    } cases[] = {
        { "", 0, 0 },
        { "a\x7f", 2, 2 },
        { "\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 21, 21 },
        { "a\x80", 2, 1 },
        { "\xc1\xbf", 2, 0 },
        { "\xe0\x9f\xbf", 3, 0 },
        { "\xed\xa0\x80", 3, 0 },
        { "\xf0\x8f\xbf\xbf", 4, 0 },
        { "\xf4\x90\x80\x80", 4, 0 },
        { "\xf5\x80\x80\x80", 4, 0 },
        { "ab\xe4\xb8", 4, 2 },
        { "\xe4\xb8\x41", 3, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK(bp_utf8_check(cases[i].text, cases[i].n) == cases[i].bad, "case %zu: %zu", i, bp_utf8_check(cases[i].text, cases[i].n));
}

int main(void)
{
    counting c = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&c);
    reading(ctx);
    writing(ctx);
    utf8();
    close_counting(ctx, &c);
    return report();
}
