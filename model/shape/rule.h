/* Shared by the shape rules: looking at inputs, small known values, checks with messages, outputs.
 *
 * Conventions. An input that is there but whose shape is not known has rank -1; a rule then says
 * what it can (often only the dtype). Rules never trust ranks, axes or values: whatever a file can
 * hold arrives here. Messages go through trmi_shape_bad, which adds operator, node and the shapes
 * seen. */
#ifndef TRM_MODEL_SHAPE_RULE_H
#define TRM_MODEL_SHAPE_RULE_H

#include "model/shape/shape.h"

typedef const trm_shape_io *trmi_io; /* every rule's argument */

/* Operands of the operator itself: inputs that post-ops read come after them and do not count. */
int trmi_shape_operands(trmi_io io);
bool trmi_shape_has(trmi_io io, int i);        /* input i is there (its dtype may be unknown) */
int trmi_shape_rank(trmi_io io, int i);        /* -1: unknown or absent */
trm_dtype trmi_shape_dtype(trmi_io io, int i); /* NONE: unknown or absent */
const trm_tensor *trmi_shape_data(trmi_io io, int i); /* with host data, else NULL */

/* INVALID_ARG: "Conv 'name': <text> (inputs f32 [1, 3, 8, 8], ...)". */
trm_status trmi_shape_bad(trmi_io io, const char *fmt, ...) TRM_PRINTF(2, 3);

/* Axis in [-rank, rank) to [0, rank). */
TRM_MUST_USE trm_status trmi_shape_axis(trmi_io io, int64_t axis, int rank, int *axis_out);
/* Input i must have rank `rank` (or unknown). */
TRM_MUST_USE trm_status trmi_shape_want_rank(trmi_io io, int i, int rank);

/* Dims. */
int64_t trmi_shape_op(trmi_io io, char op, int64_t a, int64_t b); /* symbols need io->graph */
static inline bool trmi_shape_differ(int64_t a, int64_t b)        /* surely different */
{
    return a >= 0 && b >= 0 && a != b;
}
/* Two dims that must be equal: the one that says more. `what` is for the message. */
TRM_MUST_USE trm_status trmi_shape_same(trmi_io io, const char *what, int64_t a, int64_t b,
                                        int64_t *dim_out);
/* shape := shape broadcast with `with` (NumPy). */
TRM_MUST_USE trm_status trmi_shape_broadcast(trmi_io io, trm_tensor *shape, const trm_tensor *with);
/* Product of dims [from, to). */
int64_t trmi_shape_product(trmi_io io, const trm_tensor *t, int from, int to);

/* Outputs; all ignore a k past the node's outputs. */
void trmi_shape_out(trmi_io io, int k, trm_dtype dtype, const trm_tensor *shape);
void trmi_shape_out_dims(trmi_io io, int k, trm_dtype dtype, int rank, const int64_t *dims);

/* Small values: elements of an integer tensor (or of a float one that holds integers). */
enum trmi_elem_kind {
    TRMI_ELEM_UNKNOWN = 0,
    TRMI_ELEM_EXACT, /* the number itself, negative ones too */
    TRMI_ELEM_DIM    /* a symbol */
};
typedef struct trmi_elems {
    int count;
    int64_t v[TRM_SHAPE_VALUES_MAX];
    unsigned char kind[TRM_SHAPE_VALUES_MAX];
} trmi_elems;
/* False where nothing is known of input i's elements, not even their number, or there are too many.
 */
bool trmi_shape_elems(trmi_io io, int i, trmi_elems *elems_out);
/* As above, and every element is exact. */
bool trmi_shape_exact(trmi_io io, int i, trmi_elems *elems_out);
/* One exact element. */
bool trmi_shape_scalar(trmi_io io, int i, int64_t *value_out);
/* Element as a dim: exact and >= 0, or symbol; else unknown. */
int64_t trmi_elem_dim(const trmi_elems *e, int i);
void trmi_elem_set(trmi_elems *e, int i, int64_t dim); /* from a dim */
void trmi_shape_out_elems(trmi_io io, int k, const trmi_elems *e);
/* Elements of a 1-D integer input, or -1 where its length is not known. */
int64_t trmi_shape_length(trmi_io io, int i);

/* Rules, one a row of the table in table.c. */
#define TRMI_RULE(name) trm_status trmi_rule_##name(trmi_io io)
/* elementwise.c */
TRMI_RULE(same);
TRMI_RULE(unary_bool);
TRMI_RULE(broadcast);
TRMI_RULE(compare);
TRMI_RULE(where);
TRMI_RULE(prelu);
TRMI_RULE(clip);
TRMI_RULE(cast);
TRMI_RULE(cast_like);
TRMI_RULE(bit_cast);
TRMI_RULE(dropout);
TRMI_RULE(identical);
/* arithmetic on small values, elementwise_values.c */
void trmi_shape_values_elementwise(trmi_io io);
/* norm.c */
TRMI_RULE(axis_like);
TRMI_RULE(cumulative);
TRMI_RULE(batch_norm);
TRMI_RULE(channel_norm);
TRMI_RULE(layer_norm);
TRMI_RULE(rms_norm);
TRMI_RULE(nll_loss);
TRMI_RULE(softmax_loss);
/* reduce.c */
TRMI_RULE(reduce);
TRMI_RULE(arg_reduce);
TRMI_RULE(top_k);
TRMI_RULE(non_zero);
TRMI_RULE(unique);
TRMI_RULE(compress);
TRMI_RULE(nms);
/* conv.c */
TRMI_RULE(conv);
TRMI_RULE(conv_integer);
TRMI_RULE(qlinear_conv);
TRMI_RULE(conv_transpose);
TRMI_RULE(deform_conv);
TRMI_RULE(causal_conv);
/* pool.c */
TRMI_RULE(pool);
TRMI_RULE(global_pool);
TRMI_RULE(max_roi_pool);
TRMI_RULE(roi_align);
TRMI_RULE(max_unpool);
TRMI_RULE(col2im);
/* matmul.c */
TRMI_RULE(matmul);
TRMI_RULE(matmul_integer);
TRMI_RULE(qlinear_matmul);
TRMI_RULE(gemm);
TRMI_RULE(det);
TRMI_RULE(einsum);
/* attention.c */
TRMI_RULE(attention);
TRMI_RULE(trm_attention);
TRMI_RULE(attention_packed);
TRMI_RULE(linear_attention);
TRMI_RULE(rotary);
/* view.c */
TRMI_RULE(reshape);
TRMI_RULE(flatten);
TRMI_RULE(squeeze);
TRMI_RULE(unsqueeze);
TRMI_RULE(transpose);
TRMI_RULE(shape);
TRMI_RULE(size);
TRMI_RULE(expand);
TRMI_RULE(tile);
/* move.c */
TRMI_RULE(concat);
TRMI_RULE(split);
TRMI_RULE(slice);
TRMI_RULE(pad);
TRMI_RULE(center_crop_pad);
TRMI_RULE(depth_to_space);
TRMI_RULE(space_to_depth);
TRMI_RULE(reverse_sequence);
TRMI_RULE(resize);
/* gather.c */
TRMI_RULE(gather);
TRMI_RULE(gather_part);
TRMI_RULE(image_table);
TRMI_RULE(gather_elements);
TRMI_RULE(gather_nd);
TRMI_RULE(scatter_elements);
TRMI_RULE(scatter_nd);
TRMI_RULE(tensor_scatter);
TRMI_RULE(grid_sample);
TRMI_RULE(affine_grid);
/* generate.c */
TRMI_RULE(constant_of_shape);
TRMI_RULE(range);
TRMI_RULE(eye_like);
TRMI_RULE(one_hot);
TRMI_RULE(window);
TRMI_RULE(mel);
TRMI_RULE(dft);
TRMI_RULE(stft);
/* recurrent.c */
TRMI_RULE(recurrent);
/* quantize.c */
TRMI_RULE(quantize);
TRMI_RULE(dequantize);
TRMI_RULE(dynamic_quantize);
/* control.c */
TRMI_RULE(if);
TRMI_RULE(loop);
TRMI_RULE(scan);
/* collective.c */
TRMI_RULE(all_gather);
TRMI_RULE(shard);
TRMI_RULE(all_to_all);
/* language.c */
TRMI_RULE(lm_embed);
TRMI_RULE(lm_norm);
TRMI_RULE(lm_add_norm);
TRMI_RULE(lm_linear);
TRMI_RULE(lm_linears);
TRMI_RULE(lm_rope);
TRMI_RULE(lm_attention);
TRMI_RULE(lm_gated);
TRMI_RULE(lm_experts);
TRMI_RULE(lm_rows);
TRMI_RULE(lm_pool);
TRMI_RULE(lm_reduce_tree);
#undef TRMI_RULE

/* Spatial window geometry, shared by conv.c and pool.c. */
typedef struct trmi_window {
    int rank; /* spatial */
    int64_t kernel[TRM_RANK_MAX], stride[TRM_RANK_MAX], dilation[TRM_RANK_MAX];
    int64_t pad_begin[TRM_RANK_MAX], pad_end[TRM_RANK_MAX];
    bool ceil;
    enum { TRMI_PAD_EXPLICIT, TRMI_PAD_SAME, TRMI_PAD_VALID } pad;
} trmi_window;
/* Reads strides, dilations, pads, auto_pad, ceil_mode; `kernel` is set by the caller. */
TRM_MUST_USE trm_status trmi_window_read(trmi_io io, int spatial, trmi_window *w);
/* Output dim of spatial axis i. */
TRM_MUST_USE trm_status trmi_window_out(trmi_io io, const trmi_window *w, int i, int64_t in,
                                        int64_t *out);
/* Attribute kernel_shape of `spatial` entries >= 1; found_out false where it is absent. */
TRM_MUST_USE trm_status trmi_window_kernel(trmi_io io, int spatial, int64_t *kernel,
                                           bool *found_out);

#endif
