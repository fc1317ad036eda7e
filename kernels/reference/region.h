/* References of the convolution and pooling variants that only run as references. */
#ifndef TRM_KERNELS_REFERENCE_REGION_H
#define TRM_KERNELS_REFERENCE_REGION_H

#include "kernels/reference/reference.h"

/* in: x [N, C, H, W], w [M, C/group, kh, kw], offset [N, og*kh*kw*2, OH, OW], bias [M], mask [N,
 * og*kh*kw, OH, OW]; window, group, i[0] offset groups. Bilinear samples, zero outside. Item: one
 * element of out[0]. */
void trm_deform_conv_reference(const trm_ref *r, size_t begin, size_t end);
/* in: x [N, C, H, W], rois [R, 5] (image, x1, y1, x2, y2); f[0] spatial scale. Item: one element of
 * out[0]; a bin without samples, or of an image that does not exist, is zero. */
void trm_max_roi_pool_reference(const trm_ref *r, size_t begin, size_t end);
/* in: x, indices into the unpooled tensor, whose spatial dims are window.out; what lies beyond
 * out[0]'s dims, or outside the tensor, is dropped. One item. */
void trm_max_unpool_reference(const trm_ref *r, size_t begin, size_t end);
/* in: x [N, C, L], w [C, 1, K], bias [C], past [N, C, K - 1]; out: y [N, C, L], the last K - 1
 * inputs; b[0]: SiLU. Item: one (n, c). */
void trm_causal_conv_reference(const trm_ref *r, size_t begin, size_t end);

#endif
