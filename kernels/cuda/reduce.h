/* Folds of a tensor over any set of axes: the reductions of ONNX, ArgMax and ArgMin, and the
 * moments that normalisations start from.
 *
 * The dims are taken in the order of memory (a layout only changes that order) and neighbours of
 * one kind, kept or reduced, are merged. What remains is folded in one of two shapes: rows     the
 * innermost group is reduced: 1 to 32 lanes or a block of 256 threads fold one output columns  the
 * innermost group is kept: x threads stand side by side on it, y threads share the reduced
 * positions and where outputs are too few for the device, `splits` blocks fold parts of one output
 * into the workspace, and a second kernel merges them. The order of additions is a function of
 * shape and device, never of timing. f32, f16 and bf16 are summed in fp32 over partial sums of
 * threads and vector slots; f64 in f64; integers in 64 bits (roots and logarithms of integers in
 * f64). */
#ifndef TRM_KERNELS_CUDA_REDUCE_H
#define TRM_KERNELS_CUDA_REDUCE_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trmi_reduce_kind {
    TRMI_REDUCE_SUM,
    TRMI_REDUCE_ABS,    /* sum of |x| */
    TRMI_REDUCE_SQUARE, /* sum of x^2 */
    TRMI_REDUCE_MAX,    /* NaN wins */
    TRMI_REDUCE_MIN,
    TRMI_REDUCE_PROD,
    TRMI_REDUCE_EXP,    /* log of the sum of exponentials */
    TRMI_REDUCE_ARGMAX, /* of one axis: i64 index; NaN beats everything */
    TRMI_REDUCE_ARGMIN,
    TRMI_REDUCE_MOMENTS /* floats: out has two f64 an output, mean and variance (of the population)
                         */
} trmi_reduce_kind;

typedef enum trmi_reduce_finish {
    TRMI_REDUCE_AS_IS,
    TRMI_REDUCE_MEAN,
    TRMI_REDUCE_SQRT,
    TRMI_REDUCE_LOG
} trmi_reduce_finish;

typedef struct trmi_reduce {
    /* set by the caller */
    trmi_reduce_kind kind;
    trmi_reduce_finish finish;
    trm_dtype out; /* of the output; ARG: I64, MOMENTS: F64 */
    bool last;     /* ARG: of equals the last */
    /* set by plan */
    trm_dtype in, work;
    int kept, reduced; /* groups but the last one, outermost first */
    uint32_t kept_dims[TRM_RANK_MAX], reduced_dims[TRM_RANK_MAX];
    size_t kept_strides[TRM_RANK_MAX], reduced_strides[TRM_RANK_MAX];
    bool by_rows;            /* the last group is reduced */
    uint32_t inner;          /* length of the last group */
    uint32_t outer, rows;    /* products of the kept and the reduced groups but the last */
    uint32_t count;          /* elements an output */
    size_t outputs;          /* outer, times inner by columns */
    int vector;              /* elements of a load; 1 where 16 bytes do not fit */
    int lanes, x, y, splits; /* rows: lanes an output (256: a block); columns: a block is x * y */
    size_t workspace_bytes;  /* 0 with one split */
} trmi_reduce;

/* Plans the fold of `in` (dtype, dims, layout) over the axes in `mask` (bit d: dim d). Outputs come
 * in the order in which the kept dims lie in memory. UNSUPPORTED: dtypes the kind has no meaning
 * for; 2^31 outputs, or elements an output, and more. */
TRM_MUST_USE trm_status trmi_cuda_reduce_plan(const trm_cuda *cuda, trmi_reduce *r,
                                              const trm_tensor *in, uint32_t mask);
/* in: any alignment (16-byte loads are used where it allows them). Empty reductions give the value
 * of an empty fold: 0, 1, the limits of the dtype, -infinity (EXP), index 0. */
TRM_MUST_USE trm_status trmi_cuda_reduce_run(const trmi_reduce *r, cudaStream_t stream,
                                             const void *in, void *out, void *workspace);
/* What an empty fold of integers starts from. */
int64_t trmi_cuda_reduce_start(const trmi_reduce *r);

/* the launchers behind it, one file each for the time they take to compile */
trm_status trmi_cuda_reduce_f32(const trmi_reduce *r, cudaStream_t stream, const void *in,
                                void *out, void *workspace);
trm_status trmi_cuda_reduce_f16(const trmi_reduce *r, cudaStream_t stream, const void *in,
                                void *out, void *workspace);
trm_status trmi_cuda_reduce_bf16(const trmi_reduce *r, cudaStream_t stream, const void *in,
                                 void *out, void *workspace);
trm_status trmi_cuda_reduce_f64(const trmi_reduce *r, cudaStream_t stream, const void *in,
                                void *out, void *workspace);
trm_status trmi_cuda_reduce_int(const trmi_reduce *r, cudaStream_t stream, const void *in,
                                void *out, void *workspace);

#ifdef __cplusplus
}
#endif
#endif
