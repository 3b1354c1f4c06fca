/* bp_io.h - files for hosts in C and C++: weights (safetensors), IDX, CSV and pictures.
 *
 * Every reader treats its file as hostile: lengths and offsets are checked against the file's size before anything of that size is
 * allocated, so memory follows the size of the file. A wrong, damaged, cut or foreign file is BP_EFORMAT, with path, place, what was found
 * and what was expected; a file that exceeds a limit is BP_ELIMIT; the operating system's refusals are BP_EIO. Every writer puts the whole
 * new file in place of the old one, or leaves the old one as it was. */
#ifndef BP_IO_H
#define BP_IO_H

#include "bp.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- weights: safetensors ----------------------------------------------------------------------------------------- */

typedef struct bp_named_tensor {
    const char *name;
    bp_tensor *tensor;
} bp_named_tensor;

typedef struct bp_named_text {
    const char *name, *text;
} bp_named_text;

/* What a safetensors file holds, in the order of the file. Belongs to its context; free it before that is closed. */
typedef struct bp_weights {
    bp_ctx *ctx;
    int64_t n_tensors, n_texts;
    bp_named_tensor *tensors;
    bp_named_text *texts; /* the metadata */
} bp_weights;

/* Reads a safetensors file, or n bytes in memory, whose name for messages is `where`. F16 and BF16 become f32; I8, I16 and U16 become i32
 * and U32 i64, which hold every value of theirs; U64 and 8-bit floats are refused by name. Where the file has our checksums, they are
 * verified, and left out of the texts. */
bp_status bp_weights_load(bp_ctx *ctx, const char *path, bp_weights **weights);
bp_status bp_weights_load_memory(bp_ctx *ctx, const char *where, const void *data, size_t n, bp_weights **weights);
void bp_weights_free(bp_weights *weights);
/* Borrowed; NULL when there is none of that name. */
bp_tensor *bp_weights_tensor(const bp_weights *weights, const char *name);
const char *bp_weights_text(const bp_weights *weights, const char *name);

/* Writes tensors (any strides) and metadata. Names are UTF-8 and differ. Equal content gives equal bytes whatever the order: tensors
 * are sorted by falling element size, then name; metadata by name. An entry "bplua.crc32" is added: CRC-32 of the header and of each
 * tensor. */
bp_status bp_weights_save(bp_ctx *ctx, const char *path, int64_t n_tensors, const bp_named_tensor *tensors, int64_t n_texts,
                          const bp_named_text *texts);
/* The same into memory, which bp_bytes_free gives back. */
bp_status bp_weights_save_memory(bp_ctx *ctx, int64_t n_tensors, const bp_named_tensor *tensors, int64_t n_texts,
                                 const bp_named_text *texts, char **data, size_t *n);
void bp_bytes_free(bp_ctx *ctx, void *data, size_t n);

/* ---- IDX, the format of the MNIST family -------------------------------------------------------------------------- */

/* Reads an IDX file, plain or gzip'd. Bytes become u8, I8 and I16 i32, and so on; labels keep their numbers, which count from 0. */
bp_status bp_idx_load(bp_ctx *ctx, const char *path, bp_tensor **out);

/* ---- CSV ---------------------------------------------------------------------------------------------------------- */

typedef enum bp_csv_kind {
    BP_CSV_AUTO, /* by the first cell that is not missing: a number makes a column of numbers, anything else one of classes */
    BP_CSV_NUMBER,
    BP_CSV_CLASS,
    BP_CSV_SKIP
} bp_csv_kind;

typedef enum bp_csv_missing {
    BP_CSV_MISSING_ERROR, /* a missing number is an error that names line and column */
    BP_CSV_MISSING_NAN,
    BP_CSV_MISSING_SKIP /* the row is left out, and counted */
} bp_csv_missing;

typedef struct bp_csv_column_kind {
    const char *name;
    bp_csv_kind kind;
} bp_csv_column_kind;

typedef struct bp_csv_options {
    char separator; /* 0: whichever of ; tab and , stands most often in the first line */
    char decimal;   /* 0: '.' */
    int header;     /* 1: the first line holds names; 0: it does not; -1: it does when none of its cells is a number */
    bp_csv_missing missing;
    const char *na; /* a cell with this text is missing, as an empty one always is; NULL: only empty ones */
    bp_dtype dtype; /* of numbers: BP_F32 or BP_F64 */
    /* Columns whose kind is given by name (or by "1", "2", ... where there is no header); the others have `others`. */
    int64_t n_kinds;
    const bp_csv_column_kind *kinds;
    bp_csv_kind others;
} bp_csv_options;

#define BP_CSV_OPTIONS_INIT                                                \
    {                                                                      \
        0, 0, -1, BP_CSV_MISSING_ERROR, NULL, BP_F32, 0, NULL, BP_CSV_AUTO \
    }

typedef struct bp_csv_column {
    char *name;
    bp_csv_kind kind;  /* BP_CSV_NUMBER or BP_CSV_CLASS */
    bp_tensor *values; /* [rows]: numbers, or i64 class numbers counted from the context's base */
    int64_t n_classes;
    char **classes; /* sorted: as numbers where all are, else by bytes */
} bp_csv_column;

typedef struct bp_csv {
    bp_ctx *ctx;
    int64_t rows, skipped; /* skipped: rows left out for a missing value */
    int64_t n_columns;
    bp_csv_column *columns;
} bp_csv;

/* Reads a table of UTF-8 text, plain or gzip'd: quotes as in RFC 4180, any line ends, a byte order mark, empty lines ignored. Every row
 * must have as many cells as the first. Errors name line and column (the number of the cell). options NULL: BP_CSV_OPTIONS_INIT. */
bp_status bp_csv_load(bp_ctx *ctx, const char *path, const bp_csv_options *options, bp_csv **csv);
void bp_csv_free(bp_csv *csv);

/* ---- pictures ----------------------------------------------------------------------------------------------------- */

enum { BP_IMAGE_MAX_SIDE = 32768 }; /* pixels */
#define BP_IMAGE_MAX_PIXELS ((int64_t)1 << 27)

/* Reads a PNG, baseline or progressive JPEG, or BMP as u8 [height][width][channels]. channels: 1 (grey), 3, 4 (with alpha), or 0 for what
 * the file has. height and width 0: as in the file; else it is resized (bp_image_resize). 16-bit samples keep their upper 8 bits; a JPEG is
 * turned as its Exif orientation says. Structure and checksums are verified before any pixel is decoded. */
bp_status bp_image_load(bp_ctx *ctx, const char *path, int channels, int64_t height, int64_t width, bp_tensor **out);
bp_status bp_image_load_memory(bp_ctx *ctx, const char *where, const void *data, size_t n, int channels, int64_t height, int64_t width,
                               bp_tensor **out);
/* u8 [h][w][c] to [height][width][c]: linear interpolation between pixel centres; where it shrinks, the triangle widens with the step, so
 * that every pixel counts. */
bp_status bp_image_resize(bp_tensor *image, int64_t height, int64_t width, bp_tensor **out);
/* Writes u8 [h][w][c], c 1 to 4, or [h][w], as PNG. */
bp_status bp_image_save(bp_tensor *image, const char *path);
bp_status bp_image_save_memory(bp_tensor *image, char **data, size_t *n);

#ifdef __cplusplus
}
#endif
#endif
