/* json.h - reading and writing JSON (RFC 8259), UTF-8 only. json.c is the only file that sees jansson. */
#ifndef BP_JSON_H
#define BP_JSON_H

#include "../base/buffer.h"

/* ---- reading ------------------------------------------------------------------------------------------------------ */

enum { BP_JSON_DEPTH = 64 }; /* arrays and objects within each other */

typedef enum bp_json_kind {
    BP_JSON_NULL,
    BP_JSON_BOOL,
    BP_JSON_INT,
    BP_JSON_REAL,
    BP_JSON_STRING,
    BP_JSON_ARRAY,
    BP_JSON_OBJECT
} bp_json_kind;

/* A value inside a parsed document; borrowed from its root. */
typedef struct bp_json bp_json;

/* Parses n bytes of text holding one value. Keys that stand twice in an object are refused, and so are numbers that do not fit int64 or
 * f64. BP_EFORMAT with `where`, line and column; BP_ELIMIT for more than `max_values` values or too much depth, found before anything is
 * built. The tree lives in malloc's memory, not the context's: jansson knows only one allocator per process, which is the host's to choose.
 * Keep it for a short time. */
bp_status bp_json_parse(bp_ctx *ctx, const char *where, const char *text, size_t n, int64_t max_values, bp_json **root);
void bp_json_free(bp_json *root);

bp_json_kind bp_json_kind_of(const bp_json *v);
bool bp_json_bool(const bp_json *v);
int64_t bp_json_int(const bp_json *v);
double bp_json_real(const bp_json *v);
/* The bytes of a string, zero-terminated; they may contain zeros. */
const char *bp_json_string(const bp_json *v, size_t *n);
/* Number of elements of an array or of members of an object. */
int64_t bp_json_count(const bp_json *v);
const bp_json *bp_json_at(const bp_json *array, int64_t i);
const bp_json *bp_json_get(const bp_json *object, const char *key); /* NULL: no such member */

/* for (void *i = bp_json_first(object); i; i = bp_json_next(object, i)): members in the order of the text. */
void *bp_json_first(const bp_json *object);
void *bp_json_next(const bp_json *object, void *i);
const char *bp_json_key(void *i);
const bp_json *bp_json_value(void *i);

/* ---- writing: json_write.c. Brackets, commas and colons are the caller's. ------------------------------------------ */

/* Offset of the first byte that is not valid UTF-8, or n. */
size_t bp_utf8_check(const char *text, size_t n);
/* A quoted string. The text must be valid UTF-8. */
void bp_json_put_string(bp_buffer *out, const char *text, size_t n);
void bp_json_put_int(bp_buffer *out, int64_t value);
/* A finite number, with as few digits as bring the same bits back, and always with a point or an exponent, whatever the locale. */
void bp_json_put_real(bp_buffer *out, double value);

#endif
