/* Elementwise operators on the device. Launchers' contract; prepare functions are in elementwise.c
 * and elementwise_many.c, plans of broadcasts in elementwise_map.c.
 *
 *   unary    out[i] = f(x[i])                      flat: any layout, n elements
 *   binary   out[e] = f(a[e], b[e])                over a map
 *   where    out[e] = c[e] ? x[e] : y[e]           over a map
 *   many     out[e] = in[0][e] + in[1][e] + ...    over a map; or maximum, minimum
 *
 * 16-bit floats are computed in fp32, f64 in double, integers as the CPU backend does: they wrap,
 * division by zero gives 0, shifts by the width or more leave what sign extension alone gives.
 * `out` may be any input that has its dtype and is not broadcast. Pointers need the alignment of
 * their elements; 16-byte aligned ones are read in vectors. Errors: UNSUPPORTED (operator and dtype
 * do not meet), or what the launch says. */
#ifndef TRM_KERNELS_CUDA_ELEMENTWISE_H
#define TRM_KERNELS_CUDA_ELEMENTWISE_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A function is a trm_op, or one of these where an attribute chooses another form of it. */
enum {
    TRMI_FN_GELU_TANH = TRM_OP_COUNT,
    TRMI_FN_FMOD,        /* Mod with C's sign rule */
    TRMI_FN_SHIFT_RIGHT, /* BitShift to the right */
};

/* ---- maps: how operands lie under the output (elementwise_map.c) ---- */
#define TRMI_MAP_INPUTS 8
/* Elements that a launch may have: 32-bit indices, and room for fast division. */
#define TRMI_MAP_LIMIT ((int64_t)1 << 30)

/* The output is dense, its dims in the order of its memory, outermost first, merged as far as all
 * inputs allow. rank is at least 1; total is the product of dims. */
typedef struct trmi_cuda_map {
    int inputs, rank;
    int64_t total;
    int64_t dims[TRM_RANK_MAX];
    int64_t strides[TRMI_MAP_INPUTS][TRM_RANK_MAX]; /* in elements; 0: broadcast */
} trmi_cuda_map;

/* Settles on layouts for the first `inputs` inputs and output 0: CHANNELS_LAST where an input of
 * the output's shape arrives in it, and then for all of that shape; smaller ones stay as they
 * arrive. */
void trmi_cuda_map_settle(trm_op_desc *desc, int inputs);
/* From the layouts that are settled; INVALID_ARG: an input does not broadcast to the output. */
TRM_MUST_USE trm_status trmi_cuda_map_init(trmi_cuda_map *m, const trm_op_desc *desc,
                                           const trm_tensor *const *in, int inputs);

/* Calls fn for pieces of at most `limit` elements that cover the map: `piece` is a map of its own,
 * whose operands begin in_at[] and out_at elements further on. Stops at the first failure. */
typedef trm_status (*trmi_map_fn)(void *ctx, const trmi_cuda_map *piece, const int64_t *in_at,
                                  int64_t out_at);
trm_status trmi_cuda_map_each(const trmi_cuda_map *m, int64_t limit, trmi_map_fn fn, void *ctx);

/* Bit i, for the kernel's in_place, where input i may be the output. */
uint32_t trmi_cuda_may_lie_in(const trm_op_desc *desc, int input);

/* ---- unary (elementwise_unary.cu, elementwise_clip.cu, elementwise_int.cu) ---- */
/* a, b: the operator's numbers (alpha, beta; Selu: alpha, gamma; Shrink: lambd, bias). Floats. */
trm_status trmi_cuda_unary(const trm_cuda *cuda, cudaStream_t stream, int fn, trm_dtype dtype,
                           const void *x, void *out, size_t n, float a, float b);
/* Abs, Neg, Sign, Relu, BitwiseNot of integers; Not of bool. */
trm_status trmi_cuda_unary_int(const trm_cuda *cuda, cudaStream_t stream, int fn, trm_dtype dtype,
                               const void *x, void *out, size_t n);
/* Floats to bool. mode 0: IsNaN; else bit 1: negative, bit 2: positive infinity. */
trm_status trmi_cuda_classify(const trm_cuda *cuda, cudaStream_t stream, trm_dtype dtype, int mode,
                              const void *x, void *out, size_t n);

/* One limit of Clip: none, a value of the tensor's dtype in `bits`, or one in device memory. */
typedef struct trmi_clip_limit {
    const void *at; /* NULL: in bits */
    bool set;
    uint64_t bits; /* its first bytes are the value */
} trmi_clip_limit;
/* First the lower limit, then the upper one; NaN stays. All dtypes but bool. */
trm_status trmi_cuda_clip(const trm_cuda *cuda, cudaStream_t stream, trm_dtype dtype, const void *x,
                          void *out, size_t n, trmi_clip_limit lo, trmi_clip_limit hi);

/* ---- over maps; at most TRMI_MAP_LIMIT elements ---- */
/* a, b of dtype; out too, or bool for comparisons. alpha: SwiGLU's (a sigmoid(alpha a) b). */
trm_status trmi_cuda_binary(const trm_cuda *cuda, cudaStream_t stream, int fn, trm_dtype dtype,
                            const trmi_cuda_map *m, const void *a, const void *b, void *out,
                            float alpha);
/* The same for integers and bool. */
trm_status trmi_cuda_binary_int(const trm_cuda *cuda, cudaStream_t stream, int fn, trm_dtype dtype,
                                const trmi_cuda_map *m, const void *a, const void *b, void *out);
bool trmi_cuda_is_compare(int fn);
/* Pow of operands of two dtypes, each converted to `work` (F32, F64 or I64) and the result to
 * a_dtype, by the rules of Cast. */
trm_status trmi_cuda_pow_mixed(const trm_cuda *cuda, cudaStream_t stream, trm_dtype work,
                               const trmi_cuda_map *m, const void *a, trm_dtype a_dtype,
                               const void *b, trm_dtype b_dtype, void *out);
/* c: bool; x, y, out: elements of `bytes` (1, 2, 4, 8). */
trm_status trmi_cuda_where(const trm_cuda *cuda, cudaStream_t stream, size_t bytes,
                           const trmi_cuda_map *m, const void *c, const void *x, const void *y,
                           void *out);
/* fn: Sum, Max, Min, of m->inputs operands in their order; floats in fp32 or double until the end.
 * divisor: what the result is divided by at last, 0 for nothing (floats only). */
trm_status trmi_cuda_many(const trm_cuda *cuda, cudaStream_t stream, int fn, trm_dtype dtype,
                          const trmi_cuda_map *m, const void *const *in, void *out, double divisor);

#ifdef __cplusplus
}
#endif
#endif
