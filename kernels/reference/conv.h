/* References of convolutions. */
#ifndef TRM_KERNELS_REFERENCE_CONV_H
#define TRM_KERNELS_REFERENCE_CONV_H

#include "kernels/reference/reference.h"

/* Both: in[0] x [N, C, in...], in[1] w, in[2] optional bias [M], out[0] y [N, M, out...]; item: one
 * element of y. */

/* w [M, C/group, kernel...] */
void trm_conv_reference(const trm_ref *r, size_t begin, size_t end);
/* w [C, M/group, kernel...] */
void trm_conv_transpose_reference(const trm_ref *r, size_t begin, size_t end);

#endif
