/* Between the files that prepare convolutions. */
#ifndef TRM_KERNELS_CUDA_CONV_IMPL_H
#define TRM_KERNELS_CUDA_CONV_IMPL_H

#include "kernels/cuda/conv.h"
#include "kernels/cuda/dnn.h"
#include "kernels/reference/window.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trmi_conv_operand {
    TRMI_CONV_NO_OPERAND,
    TRMI_CONV_ONE,     /* a single number */
    TRMI_CONV_CHANNEL, /* [filters] */
    TRMI_CONV_FULL     /* as y */
} trmi_conv_operand;

/* A bias or a post of the node. */
typedef struct trmi_conv_step {
    trm_op op;
    trmi_conv_operand operand;
    int input; /* of the node; -1: none */
    float alpha, beta;
    trmi_pack *pack; /* constants: [filters]; NULL: run is given it */
    bool wide;       /* the pack is fp32, y has 16 bits */
} trmi_conv_step;

typedef enum trmi_conv_path {
    TRMI_CONV_NOTHING, /* no output elements */
    TRMI_CONV_BY_DNN,
    TRMI_CONV_DIRECT,
    TRMI_CONV_DEPTHWISE
} trmi_conv_path;

typedef struct trmi_conv_kernel {
    trmi_cuda_kernel base;
    trmi_conv_path path;
    trmi_conv_shape shape; /* as the node says, before padding */
    trm_dtype dtype;       /* of x and y */
    trmi_conv_step steps[TRMI_POSTS_MAX];
    int step_count, fused; /* fused: by cuDNN; the others follow */
    trmi_dnn_plan *plan;
    bool padded; /* x is copied into a padded one first */
    trmi_conv_padding padding;
    trmi_conv_arrange arrange;
    trmi_pack *weights;                 /* NULL: arranged in every run */
    size_t weights_at, x_at, dnn_at;    /* in the workspace */
    size_t weights_bytes, padded_bytes; /* there */
} trmi_conv_kernel;

#define TRMI_CONV_ALIGN ((size_t)256)

/* Layouts of activations: channels-last, unless the bytes are the same. */
bool trmi_cuda_conv_same_bytes(const trm_tensor *t);
/* Dims of a window as 3, the missing ones first. UNSUPPORTED: more than 3; sizes beyond 31 bits. */
TRM_MUST_USE trm_status trmi_cuda_conv_shape_of(const trm_op_desc *desc, const trm_window *w,
                                                int64_t group, bool transposed,
                                                trmi_conv_shape *shape_out);

/* Whether cuDNN takes it: fills in plan, fused, padding and arrange. UNSUPPORTED: no. */
TRM_MUST_USE trm_status trmi_cuda_conv_dnn(trmi_conv_kernel *k, const trm_op_desc *desc,
                                           const trm_window *w);
/* Order of weights [taps, channels / group, filters] for our own kernels. */
void trmi_cuda_conv_direct_order(trmi_conv_kernel *k, const trm_op_desc *desc);
/* Weights of constant input `input` in the order `a`, as a pack. */
TRM_MUST_USE trm_status trmi_cuda_conv_pack(trm_cuda *cuda, const trm_op_desc *desc, int input,
                                            const trmi_conv_arrange *a, trmi_pack **pack_out);
/* Constant input `input`, one number or one a channel, as [filters] of `dtype`. */
TRM_MUST_USE trm_status trmi_cuda_conv_pack_channels(trm_cuda *cuda, const trm_op_desc *desc,
                                                     int input, int filters, trm_dtype dtype,
                                                     trmi_pack **pack_out);
extern const trm_kernel_ops trmi_cuda_conv_dnn_ops, trmi_cuda_conv_direct_ops,
    trmi_cuda_conv_depthwise_ops;

#ifdef __cplusplus
}
#endif
#endif
