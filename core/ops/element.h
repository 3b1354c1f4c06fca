/* element.h - single elements of an array of either float dtype, for the few places where a loop is not worth a kernel. */
#ifndef BP_ELEMENT_H
#define BP_ELEMENT_H

#include "../bp.h"

static inline double bp_element(bp_dtype dtype, const void *array, int64_t i)
{
    return dtype == BP_F32 ? (double)((const float *)array)[i] : ((const double *)array)[i];
}

static inline void bp_element_set(bp_dtype dtype, void *array, int64_t i, double value)
{
    if (dtype == BP_F32)
        ((float *)array)[i] = (float)value;
    else
        ((double *)array)[i] = value;
}

#endif
