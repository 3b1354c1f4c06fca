/* bytes.h - the order of bytes in files and in this machine. */
#ifndef BP_BYTES_H
#define BP_BYTES_H

#include <stddef.h>
#include <stdint.h>

enum { BP_HOST_BIG_ENDIAN = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ };

/* Reverses the bytes of each of n elements. */
static inline void bp_swap_bytes(void *data, size_t size, int64_t n)
{
    unsigned char *p = (unsigned char *)data;
    for (int64_t i = 0; i < n; i++, p += size)
        for (size_t a = 0, b = size - 1; a < b; a++, b--) {
            unsigned char c = p[a];
            p[a] = p[b];
            p[b] = c;
        }
}

#endif
