/* buffer.c - see buffer.h. */
#include "buffer.h"

#include <string.h>

char *bp_buffer_extend(bp_buffer *b, size_t n)
{
    if (b->status != BP_OK) return NULL;
    if (b->cap - b->size < n) {
        size_t want = b->size + n, cap = b->cap < 256 ? 256 : b->cap + b->cap / 2;
        if (want < n) {
            b->status = bp_fail(b->ctx, BP_ENOMEM, "out of memory: %zu bytes wanted after %zu", n, b->size);
            return NULL;
        }
        if (cap < want) cap = want;
        char *data = (char *)bp_mem_resize(b->ctx, b->data, b->cap, cap);
        if (!data) {
            b->status = BP_ENOMEM;
            return NULL;
        }
        b->data = data;
        b->cap = cap;
    }
    char *at = b->data + b->size;
    b->size += n;
    return at;
}

void bp_buffer_add(bp_buffer *b, const void *bytes, size_t n)
{
    char *at = bp_buffer_extend(b, n);
    if (at && n) memcpy(at, bytes, n);
}

void bp_buffer_text(bp_buffer *b, const char *text) { bp_buffer_add(b, text, strlen(text)); }

bp_status bp_buffer_take(bp_buffer *b, char **data, size_t *n)
{
    if (b->status != BP_OK) return b->status;
    char *exact = (char *)bp_mem_resize(b->ctx, b->data, b->cap, b->size);
    if (!exact) return BP_ENOMEM;
    *data = exact;
    *n = b->size;
    b->data = NULL;
    b->size = b->cap = 0;
    return BP_OK;
}

void bp_buffer_free(bp_buffer *b)
{
    bp_mem_free(b->ctx, b->data, b->cap);
    b->data = NULL;
    b->size = b->cap = 0;
}
