/* buffer.h - bytes that grow. The first failed allocation is remembered, so that a run of additions needs one check at its end. */
#ifndef BP_BUFFER_H
#define BP_BUFFER_H

#include "memory.h"

typedef struct bp_buffer {
    bp_ctx *ctx;
    char *data;
    size_t size, cap;
    bp_status status;
} bp_buffer;

static inline bp_buffer bp_buffer_new(bp_ctx *ctx)
{
    bp_buffer b = { ctx, NULL, 0, 0, BP_OK };
    return b;
}
/* n more bytes, not yet set, at the address returned; NULL after a failure. */
char *bp_buffer_extend(bp_buffer *b, size_t n);
void bp_buffer_add(bp_buffer *b, const void *bytes, size_t n);
void bp_buffer_text(bp_buffer *b, const char *text);
/* Hands the bytes over in a block of exactly their size; the buffer is empty afterwards. */
bp_status bp_buffer_take(bp_buffer *b, char **data, size_t *n);
void bp_buffer_free(bp_buffer *b);

#endif
