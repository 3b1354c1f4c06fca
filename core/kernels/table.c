/* table.c - this build's table of kernels, from the same two lists that declare them. */
#include "kernel.h"

#define BP_TEXT2(x) #x
#define BP_TEXT(x) BP_TEXT2(x)

extern const bp_kernels KPASTE(bp__kernels, KBUILD);

const bp_kernels KPASTE(bp__kernels, KBUILD) = {
    /* KBUILD is f32_avx2 or the like, or f64: what follows the dtype names the instruction set. */
    .isa = sizeof(BP_TEXT(KBUILD)) > 5 ? &BP_TEXT(KBUILD)[4] : "baseline",
    .lanes = KLANES,
    .unary = {
#define BP_UNARY(name, ...) [BP_UNARY_##name] = K(unary_##name),
#define BP_BINARY(name, ...)
#define BP_COMPARE(name, ...)
#include "elementwise.def"
#undef BP_UNARY
#undef BP_BINARY
    },
    .binary = {
#define BP_UNARY(name, ...)
#define BP_BINARY(name, ...) [BP_BINARY_##name] = K(binary_##name),
#include "elementwise.def"
#undef BP_BINARY
#undef BP_COMPARE
    },
    .compare = {
#define BP_BINARY(name, ...)
#define BP_COMPARE(name, ...) [BP_COMPARE_##name] = K(compare_##name),
#include "elementwise.def"
#undef BP_UNARY
#undef BP_BINARY
#undef BP_COMPARE
    },
#define BP_KERNEL(result, name, parameters) .name = K(name),
#include "kernels.def"
#undef BP_KERNEL
};
