/* References of pooling. in[0] x [N, C, in...], out[0] y [N, C, out...]; item: one element of y. */
#ifndef TRM_KERNELS_REFERENCE_POOL_H
#define TRM_KERNELS_REFERENCE_POOL_H

#include "kernels/reference/reference.h"

/* out[1]: optional indices into x as one flat array (i64); b[0]: storage_order 1, counted with the
 * first spatial dim fastest */
void trm_max_pool_reference(const trm_ref *r, size_t begin, size_t end);
/* b[0]: count_include_pad */
void trm_average_pool_reference(const trm_ref *r, size_t begin, size_t end);
/* i[0]: p */
void trm_lp_pool_reference(const trm_ref *r, size_t begin, size_t end);

#endif
