/* What the arithmetic families share: row functions and their dispatch by instruction set, chunked
 * conversion between dtypes, broadcasting, layout requests. */
#ifndef TRM_KERNELS_CPU_MATH_UTIL_H
#define TRM_KERNELS_CPU_MATH_UTIL_H

#include "kernels/cpu/cpu.h"

#define TRMI_GRAIN 16384 /* elements of cheap work that are worth a thread */
#define TRMI_CHUNK 512   /* elements staged on the stack where a dtype must be converted */
#define TRMI_ROW_INPUTS 3

/* Numbers an elementwise function needs besides its operands. */
typedef struct trmi_row_params {
    float alpha, beta, gamma;
    double lo, hi;     /* Clip's limits as doubles (floats) */
    int64_t ilo, ihi;  /* and as integers */
    uint64_t ulo, uhi; /* and for u64 */
    int mode;
} trmi_row_params;

/* out[i] = f(in[0][i * step[0]], ...) for i < n; steps are 0 (one value for the row) or 1. `out`
 * may be one of the inputs. */
typedef void (*trmi_row)(const trmi_row_params *p, size_t n, void *out, const void *const *in,
                         const size_t *step);

/* Reductions of contiguous floats; sums run in 64 lanes whatever the instruction set. */
typedef enum trmi_fold {
    TRMI_FOLD_SUM,
    TRMI_FOLD_ABS,    /* sum of |x| */
    TRMI_FOLD_SQUARE, /* sum of x^2 */
    TRMI_FOLD_MAX,    /* NaN wins */
    TRMI_FOLD_MIN,
    TRMI_FOLD_PROD,
    TRMI_FOLD_EXP, /* sum of exp(x - shift) */
    TRMI_FOLD_COUNT
} trmi_fold;

/* Functions on fp32 rows for one instruction set. All pointers are set unless said otherwise. */
typedef struct trmi_vec {
    trmi_row unary[TRM_OP_COUNT];  /* NULL: no vector form */
    trmi_row binary[TRM_OP_COUNT]; /* NULL likewise */
    trmi_row gelu_tanh;
    void (*f16_to_f32)(float *out, const uint16_t *in, size_t n);
    void (*f32_to_f16)(uint16_t *out, const float *in, size_t n);
    void (*bf16_to_f32)(float *out, const uint16_t *in, size_t n);
    void (*f32_to_bf16)(uint16_t *out, const float *in, size_t n);
    float (*fold)(trmi_fold kind, const float *x, size_t n, float shift);
    /* acc[i] = acc[i] (kind) x[i]; shift: one value an element, for FOLD_EXP only */
    void (*fold_columns)(trmi_fold kind, float *acc, const float *x, size_t n, const float *shift);
    /* out = softmax(x), or log-softmax; out may be x */
    void (*softmax)(float *out, const float *x, size_t n, bool log);
    /* out = (x - mean) * scale * gain[i] + bias[i]; gain and bias may be NULL; out may be x */
    void (*normalise)(float *out, const float *x, size_t n, float mean, float scale,
                      const float *gain, const float *bias);
    float (*square_deviation)(const float *x, size_t n, float mean); /* sum of (x - mean)^2 */
} trmi_vec;
const trmi_vec *trmi_vec_get(void);
extern const trmi_vec trmi_vec_base, trmi_vec_avx2, trmi_vec_avx512;

/* Converts n plain elements. Float to integer truncates, saturates, and takes NaN as 0; to bool:
 * not equal to 0. */
void trmi_convert(trm_dtype to_dtype, void *to, trm_dtype from_dtype, const void *from, size_t n);
static inline bool trmi_is_half(trm_dtype d)
{
    return d == TRM_DTYPE_F16 || d == TRM_DTYPE_BF16;
}

/* Asks for plain inputs; UNSUPPORTED where post-ops are attached (none of these families takes
 * them). */
TRM_MUST_USE trm_status trmi_math_begin(trm_op_desc *desc);
/* "Relu 'name': input 0 is u8: want ..." */
trm_status trmi_bad_dtype(const trm_op_desc *desc, int input, const char *want);
static inline bool trmi_has_input(const trm_op_desc *desc, int i)
{
    return i < desc->input_count && desc->inputs[i].dtype != TRM_DTYPE_NONE;
}
static inline bool trmi_has_output(const trm_op_desc *desc, int i)
{
    return i < desc->output_count && desc->outputs[i].dtype != TRM_DTYPE_NONE;
}
/* `axis` of a tensor of `rank` dims made non-negative; INVALID_ARG with the node's name otherwise.
 */
TRM_MUST_USE trm_status trmi_axis(const trm_op_desc *desc, int64_t axis, int rank, int *axis_out);

/* Broadcasting: output dims merged as far as all inputs allow. */
typedef struct trmi_broadcast {
    int inputs, rank;
    size_t total; /* output elements */
    size_t dims[TRM_RANK_MAX];
    size_t strides[TRMI_ROW_INPUTS][TRM_RANK_MAX]; /* in elements; innermost 0 or 1 */
} trmi_broadcast;
/* Shapes must broadcast to `out` (INVALID_ARG names the node otherwise). */
TRM_MUST_USE trm_status trmi_broadcast_init(trmi_broadcast *b, const trm_op_desc *desc,
                                            const trm_tensor *out, const trm_tensor *const *in,
                                            int inputs);
/* One row over a broadcast: staged through fp32 where a side is 16 bits wide. */
typedef struct trmi_map {
    trmi_broadcast shape;
    trmi_row row;
    trmi_row_params params;
    trm_dtype in_dtype[TRMI_ROW_INPUTS], out_dtype;
    trm_dtype stage; /* NONE: rows take the data as it is; else inputs and output are converted to
                        this dtype chunk by chunk (f32 or f64) */
    size_t grain;
} trmi_map;
void trmi_map_run(const trmi_map *m, void *out, const void *const *in);

#endif
