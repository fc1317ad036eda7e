/* 8-bit floating point of weights: E4M3 of the OCP 8-bit floating point specification (bias 7,
 * subnormals, no infinities). Block types of it: base/tensor.h. */
#ifndef TRM_BASE_F8_H
#define TRM_BASE_F8_H

#include "base/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

static inline bool trm_dtype_is_f8(trm_dtype dtype)
{
    return dtype == TRM_DTYPE_F8_ROW || dtype == TRM_DTYPE_F8_128;
}

static inline bool trm_e4m3_is_nan(unsigned char b)
{
    return (b & 0x7f) == 0x7f;
}

static inline float trm_e4m3_to_f32(unsigned char b)
{
    uint32_t sign = (uint32_t)(b & 0x80) << 24, e = b >> 3 & 15, m = b & 7;
    union {
        uint32_t u;
        float f;
    } v;

    if (trm_e4m3_is_nan(b)) {
        v.u = sign | 0x7fc00000u;
    } else if (e == 0) {
        v.f = (float)m * 0x1p-9f;
        v.u |= sign;
    } else {
        v.u = sign | (e + 120) << 23 | m << 20;
    }
    return v.f;
}

#ifdef __cplusplus
}
#endif
#endif
