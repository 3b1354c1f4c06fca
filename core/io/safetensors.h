/* safetensors.h - what reading and writing share.
 *
 * The format (github.com/huggingface/safetensors): u64 little-endian length n of the header; n bytes of JSON, one object, padded with
 * spaces: name -> {dtype, shape, data_offsets [begin, end)}, and "__metadata__" -> {string: string}; then the data, little-endian,
 * row-major, offsets counted from its start, without holes or overlap.
 *
 * The metadata entry "bplua.crc32" that we add holds numbers of eight hexadecimal digits: first the CRC-32 of the header, these first eight
 * digits read as '0', then that of each tensor's bytes in the order of the file. */
#ifndef BP_SAFETENSORS_H
#define BP_SAFETENSORS_H

#include "../base/files.h"
#include "../bp_io.h"

#define BP_ST_MAX_HEADER 100000000 /* the reference implementation's limit */
#define BP_ST_CRC_KEY "bplua.crc32"
enum { BP_ST_CRC_DIGITS = 8 };

#endif
