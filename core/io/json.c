/* json.c - reading JSON through jansson. */
#include "json.h"

#include <jansson.h>

/* Walks over the text before jansson does, since a bracket costs jansson some fifty times its byte. */
static bp_status check_limits(bp_ctx *ctx, const char *where, const char *text, size_t n, int64_t max_values)
{
    int64_t values = 1, line = 1;
    int depth = 0;
    size_t line_start = 0;
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (c == '\n') line++, line_start = i + 1;
        if (quoted) {
            if (c == '\\') i++;
            if (c == '"') quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '[' || c == '{') {
            values++;
            if (++depth > BP_JSON_DEPTH)
                return bp_fail(ctx, BP_ELIMIT, "%s: line %lld, column %zu: JSON nested more than %d deep", where, (long long)line,
                               i - line_start + 1, BP_JSON_DEPTH);
        } else if (c == ']' || c == '}') {
            depth--;
        } else if (c == ',') {
            values++;
        }
        if (values > max_values)
            return bp_fail(ctx, BP_ELIMIT, "%s: line %lld, column %zu: JSON with more than %lld values", where, (long long)line,
                           i - line_start + 1, (long long)max_values);
    }
    return BP_OK;
}

bp_status bp_json_parse(bp_ctx *ctx, const char *where, const char *text, size_t n, int64_t max_values, bp_json **root)
{
    *root = NULL;
    BP_TRY(check_limits(ctx, where, text, n, max_values));
    json_error_t error;
    json_t *v = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (v) {
        *root = (bp_json *)v;
        return BP_OK;
    }
    if (json_error_code(&error) == json_error_out_of_memory)
        return bp_fail(ctx, BP_ENOMEM, "%s: out of memory parsing %zu bytes of JSON", where, n);
    return bp_fail(ctx, BP_EFORMAT, "%s: line %d, column %d (byte %d): not valid JSON: %s", where, error.line, error.column, error.position,
                   error.text);
}

static const json_t *in(const bp_json *v) { return (const json_t *)v; }

void bp_json_free(bp_json *root) { json_decref((json_t *)root); }

bp_json_kind bp_json_kind_of(const bp_json *v)
{
    switch (json_typeof(in(v))) {
    case JSON_OBJECT: return BP_JSON_OBJECT;
    case JSON_ARRAY: return BP_JSON_ARRAY;
    case JSON_STRING: return BP_JSON_STRING;
    case JSON_INTEGER: return BP_JSON_INT;
    case JSON_REAL: return BP_JSON_REAL;
    case JSON_TRUE:
    case JSON_FALSE: return BP_JSON_BOOL;
    default: return BP_JSON_NULL;
    }
}

bool bp_json_bool(const bp_json *v) { return json_is_true(in(v)); }
int64_t bp_json_int(const bp_json *v) { return (int64_t)json_integer_value(in(v)); }
double bp_json_real(const bp_json *v) { return json_real_value(in(v)); }

const char *bp_json_string(const bp_json *v, size_t *n)
{
    *n = json_string_length(in(v));
    return json_string_value(in(v));
}

int64_t bp_json_count(const bp_json *v) { return (int64_t)(json_is_array(in(v)) ? json_array_size(in(v)) : json_object_size(in(v))); }

const bp_json *bp_json_at(const bp_json *array, int64_t i) { return (const bp_json *)json_array_get(in(array), (size_t)i); }
const bp_json *bp_json_get(const bp_json *object, const char *key) { return (const bp_json *)json_object_get(in(object), key); }

/* jansson's iterators want a json_t * that they do not change. */
void *bp_json_first(const bp_json *object) { return json_object_iter((json_t *)object); }
void *bp_json_next(const bp_json *object, void *i) { return json_object_iter_next((json_t *)object, i); }
const char *bp_json_key(void *i) { return json_object_iter_key(i); }
const bp_json *bp_json_value(void *i) { return (const bp_json *)json_object_iter_value(i); }
