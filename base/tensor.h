/* Tensor descriptor: dtype, layout, shape and (borrowed) data pointer. Row-major unless `layout`
 * says otherwise. */
#ifndef TRM_BASE_TENSOR_H
#define TRM_BASE_TENSOR_H

#include "base/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_RANK_MAX 8
#define TRM_DIM_MAX ((int64_t)1 << 40)
#define TRM_DIM_UNKNOWN ((int64_t)-1)

typedef enum trm_dtype {
    TRM_DTYPE_NONE = 0, /* an absent optional tensor, or not known yet */
    TRM_DTYPE_F32,
    TRM_DTYPE_F16,
    TRM_DTYPE_BF16,
    TRM_DTYPE_F64,
    TRM_DTYPE_I8,
    TRM_DTYPE_U8,
    TRM_DTYPE_I16,
    TRM_DTYPE_U16,
    TRM_DTYPE_I32,
    TRM_DTYPE_U32,
    TRM_DTYPE_I64,
    TRM_DTYPE_U64,
    TRM_DTYPE_BOOL, /* one byte, 0 or 1 */
    /* Weights in blocks along the last dim: only the operators of language models take them. Those
     * of GGUF files first. */
    TRM_DTYPE_Q4_0,
    TRM_DTYPE_Q4_1,
    TRM_DTYPE_Q5_0,
    TRM_DTYPE_Q5_1,
    TRM_DTYPE_Q8_0,
    TRM_DTYPE_Q2_K,
    TRM_DTYPE_Q3_K,
    TRM_DTYPE_Q4_K,
    TRM_DTYPE_Q5_K,
    TRM_DTYPE_Q6_K,
    /* Weights in 8-bit floating point (OCP E4M3: bias 7, no infinities, 0x7f and 0xff are NaN). A
     * block is an fp32 scale, then its elements, a byte each: weight = scale * element. */
    TRM_DTYPE_F8_ROW, /* 32 elements; all blocks of a row have the same scale */
    TRM_DTYPE_F8_128, /* 128 elements, scales of their own */
    TRM_DTYPE_COUNT
} trm_dtype;
#define TRM_DTYPE_PLAIN_COUNT TRM_DTYPE_Q4_0 /* dtypes below it have elements of their own */

size_t trm_dtype_bytes(trm_dtype dtype); /* of an element; 0 for NONE and block types */
/* Elements and bytes of a block: 1 and the element's for other dtypes, 0 and 0 for NONE. */
size_t trm_dtype_block_elems(trm_dtype dtype);
size_t trm_dtype_block_bytes(trm_dtype dtype);
bool trm_dtype_is_block(trm_dtype dtype);
const char *trm_dtype_name(trm_dtype dtype); /* "f32", ... */
trm_dtype
trm_dtype_from_name(const char *name); /* "f32", "fp32", "float32", ...; NONE if unknown */
bool trm_dtype_is_float(trm_dtype dtype);
bool trm_dtype_is_signed_int(trm_dtype dtype);
bool trm_dtype_is_unsigned_int(trm_dtype dtype); /* without bool */

/* How the elements of an activation lie in memory. The blocked layouts split dim 1 (channels,
 * rounded up to whole blocks, padding is zero) into blocks of 8 or 16 that become the innermost
 * dim: [N, ceil(C/B), spatial..., B]. CHANNELS_LAST is [N, spatial..., C]. Dims in the descriptor
 * are always the logical N, C, spatial... */
typedef enum trm_layout {
    TRM_LAYOUT_PLAIN = 0,
    TRM_LAYOUT_CHANNELS_LAST,
    TRM_LAYOUT_BLOCK8,
    TRM_LAYOUT_BLOCK16,
    TRM_LAYOUT_COUNT
} trm_layout;

typedef struct trm_tensor {
    trm_dtype dtype;
    trm_layout layout;
    int rank;                   /* -1: unknown */
    int64_t dims[TRM_RANK_MAX]; /* TRM_DIM_UNKNOWN: not known before the producer has run */
    void *data;                 /* borrowed; NULL in a pure descriptor */
} trm_tensor;

/* Elements of the logical shape; status if a dim is unknown, negative, over TRM_DIM_MAX or the
 * product overflows. */
TRM_MUST_USE trm_status trm_tensor_elems(const trm_tensor *t, size_t *elems_out);
/* Bytes of storage, with the padding of blocked layouts. A block type's last dim must be whole
 * blocks. */
TRM_MUST_USE trm_status trm_tensor_bytes(const trm_tensor *t, size_t *bytes_out);
/* Unchecked product of dims [from, to) of a tensor whose shape has been checked. */
size_t trm_tensor_count(const trm_tensor *t, int from, int to);
static inline size_t trm_tensor_numel(const trm_tensor *t)
{
    return trm_tensor_count(t, 0, t->rank);
}
bool trm_tensor_same_shape(const trm_tensor *a, const trm_tensor *b);
bool trm_tensor_is_concrete(const trm_tensor *t); /* rank and every dim known */
/* "[2, ?, 224]" into buf; returns buf. */
char *trm_tensor_shape_text(const trm_tensor *t, char *buf, size_t buf_bytes);
#define TRM_SHAPE_TEXT_BYTES 200

/* Element i of plain host data as double / int64 (floats truncate toward zero); and back. Slow: for
 * parameters. */
double trm_tensor_get_f64(const trm_tensor *t, size_t i);
int64_t trm_tensor_get_i64(const trm_tensor *t, size_t i);
void trm_tensor_set_f64(trm_tensor *t, size_t i, double value);
void trm_tensor_set_i64(trm_tensor *t, size_t i, int64_t value);

/* Scalar conversions; to 16 bits rounds to nearest even, overflow to infinity, NaN stays NaN. */
float trm_f16_to_f32(uint16_t h);
uint16_t trm_f32_to_f16(float f);
uint16_t trm_f64_to_f16(double f); /* one rounding, not two */
static inline float trm_bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v;

    v.u = (uint32_t)h << 16;
    return v.f;
}
uint16_t trm_f32_to_bf16(float f);

#ifdef __cplusplus
}
#endif
#endif
