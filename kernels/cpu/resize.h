/* Resize, between its two files: resize.c reads the parameters and makes one table an axis,
 * resize_run.c applies the tables. */
#ifndef TRM_KERNELS_CPU_RESIZE_H
#define TRM_KERNELS_CPU_RESIZE_H

#include "kernels/cpu/data.h"

#define TRMI_RESIZE_RANK (TRM_RANK_MAX + 1) /* storage dims of a blocked layout */

/* One resized axis: out[j] = sum over t of weight[j * taps + t] * in[index[j * taps + t]]. Nearest
 * has one tap and no weights. outside[j]: the extrapolation value instead. */
typedef struct trmi_resize_axis {
    size_t in, out, taps;
    int32_t *index;
    float *weight;
    unsigned char *outside;
} trmi_resize_axis;

typedef struct trmi_resize {
    trm_kernel base;
    trm_dtype dtype;
    bool nearest;
    float extrapolation;
    uint64_t extrapolation_elem; /* its first bytes are it as an element of dtype */
    int rank;                    /* of the storage, trailing untouched dims merged */
    size_t in_dims[TRMI_RESIZE_RANK], out_dims[TRMI_RESIZE_RANK];
    bool resized[TRMI_RESIZE_RANK];
    trmi_resize_axis axis[TRMI_RESIZE_RANK];
    size_t unit_bytes; /* nearest: bytes behind the last resized axis */
    size_t in_elems, out_elems, scratch_elems;
} trmi_resize;

void trmi_resize_nearest(const trmi_resize *r, const void *in, void *out);
/* workspace: 2 * scratch_elems floats, and the converted input where dtype is not f32. */
void trmi_resize_weighted(const trmi_resize *r, const void *in, void *out, float *workspace);

#endif
