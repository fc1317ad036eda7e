/* Scalar references: the plain meaning of the dense operators, for any dtype in plain layout. They
 * run what the fast kernels do not take, and the tests compare fast kernels with them.
 *
 * A reference computes the items [begin, end) of its output (what an item is says each function),
 * so that a caller may spread items over threads. It sums in double (floats) or modulo 2^64
 * (integers) and rounds once. */
#ifndef TRM_KERNELS_REFERENCE_REFERENCE_H
#define TRM_KERNELS_REFERENCE_REFERENCE_H

#include "kernels/reference/window.h"

#define TRM_REF_IN 10
#define TRM_REF_OUT 4

/* What a reference is given; operators use the fields they need. Shapes have been checked. */
typedef struct trm_ref {
    trm_tensor in[TRM_REF_IN];   /* plain; dtype NONE: absent */
    trm_tensor out[TRM_REF_OUT]; /* plain; dtype NONE: not wanted */
    trm_post posts[TRM_POST_MAX];
    int post_count;
    trm_window window;
    int64_t group, i[4]; /* integers and floats by operator: see each function */
    double f[6];
    bool b[4];
    double *scratch;      /* scratch_elems per thread range; see trm_ref_op */
    size_t scratch_elems; /* of one item */
} trm_ref;

typedef void (*trm_ref_range)(const trm_ref *r, size_t begin, size_t end);

/* Stores `value` as element i of out[0], after the posts. */
void trm_ref_store(const trm_ref *r, size_t i, double value);
/* Index into a tensor that broadcasts to `full` of the element that meets element i of `full`. */
size_t trm_ref_broadcast(const trm_tensor *t, const trm_tensor *full, size_t i);

#endif
