/* Element-wise reductions over the ranks' vectors, in rank order. Work goes in blocks that stay in
 * the first-level cache; loops over a whole block have a constant length, which the compiler turns
 * into vector code also at -O2. */
#include "parallel/comm_impl.h"

#include <string.h>

#define BLOCK 512

bool trmi_sum_supports(trm_dtype dtype)
{
    switch (dtype) {
    case TRM_DTYPE_F32:
    case TRM_DTYPE_F64:
    case TRM_DTYPE_F16:
    case TRM_DTYPE_BF16:
    case TRM_DTYPE_I32:
    case TRM_DTYPE_I64:
        return true;
    default:
        return false;
    }
}

#define ADD(T, a, b) ((a) + (b))
/* two's complement, without signed overflow; b is of type T, a of the accumulator's */
#define ADD_INT(T, a, b) ((T)((T)(a) + (T)(b)))
/* a NaN stays whichever side has it */
#define MAX_FLOAT(T, a, b) ((a) != (a) || (a) >= (b) ? (a) : (b))
#define MAX_INT(T, a, b) ((a) >= (b) ? (a) : (b))

/* U: the type that OP computes in, of T's size */
#define TRM_REDUCER(name, T, U, OP)                                                                \
    static void name(const void *const *srcs, int count, size_t at, size_t elems, void *to)        \
    {                                                                                              \
        T acc[BLOCK], *out = to;                                                                   \
                                                                                                   \
        for (size_t i = 0; i < elems; i += BLOCK) {                                                \
            size_t n = elems - i < BLOCK ? elems - i : BLOCK;                                      \
                                                                                                   \
            memcpy(acc, (const T *)srcs[0] + at + i, n * sizeof(T));                               \
            for (int s = 1; s < count; s++) {                                                      \
                const T *in = (const T *)srcs[s] + at + i;                                         \
                                                                                                   \
                if (n == BLOCK)                                                                    \
                    for (size_t j = 0; j < BLOCK; j++)                                             \
                        acc[j] = (T)OP(U, acc[j], in[j]);                                          \
                else                                                                               \
                    for (size_t j = 0; j < n; j++)                                                 \
                        acc[j] = (T)OP(U, acc[j], in[j]);                                          \
            }                                                                                      \
            memcpy(out + i, acc, n * sizeof(T));                                                   \
        }                                                                                          \
    }

TRM_REDUCER(sum_f32, float, float, ADD)
TRM_REDUCER(sum_f64, double, double, ADD)
TRM_REDUCER(sum_i32, int32_t, uint32_t, ADD_INT)
TRM_REDUCER(sum_i64, int64_t, uint64_t, ADD_INT)
TRM_REDUCER(max_f32, float, float, MAX_FLOAT)
TRM_REDUCER(max_f64, double, double, MAX_FLOAT)
TRM_REDUCER(max_i32, int32_t, int32_t, MAX_INT)
TRM_REDUCER(max_i64, int64_t, int64_t, MAX_INT)

/* 16-bit floats: widened, summed in fp32 over all ranks, rounded once */
static void widen(const uint16_t *in, size_t n, bool bf16, float *out)
{
    if (bf16)
        for (size_t i = 0; i < n; i++)
            out[i] = trm_bf16_to_f32(in[i]);
    else
        for (size_t i = 0; i < n; i++)
            out[i] = trm_f16_to_f32(in[i]);
}

static void reduce_half(const void *const *srcs, int count, size_t at, size_t elems, bool bf16,
                        trm_reduction reduction, uint16_t *out)
{
    float acc[BLOCK], next[BLOCK];

    for (size_t i = 0; i < elems; i += BLOCK) {
        size_t n = elems - i < BLOCK ? elems - i : BLOCK;

        widen((const uint16_t *)srcs[0] + at + i, n, bf16, acc);
        for (int s = 1; s < count; s++) {
            widen((const uint16_t *)srcs[s] + at + i, n, bf16, next);
            if (reduction == TRM_REDUCE_SUM)
                for (size_t j = 0; j < n; j++)
                    acc[j] += next[j];
            else
                for (size_t j = 0; j < n; j++)
                    acc[j] = MAX_FLOAT(float, acc[j], next[j]);
        }
        for (size_t j = 0; j < n; j++)
            out[i + j] = bf16 ? trm_f32_to_bf16(acc[j]) : trm_f32_to_f16(acc[j]);
    }
}

void trmi_sum(const void *const *srcs, int count, size_t at, size_t elems, trm_dtype dtype,
              trm_reduction reduction, void *out)
{
    bool sum = reduction == TRM_REDUCE_SUM;

    switch (dtype) {
    case TRM_DTYPE_F32:
        (sum ? sum_f32 : max_f32)(srcs, count, at, elems, out);
        break;
    case TRM_DTYPE_F64:
        (sum ? sum_f64 : max_f64)(srcs, count, at, elems, out);
        break;
    case TRM_DTYPE_I32:
        (sum ? sum_i32 : max_i32)(srcs, count, at, elems, out);
        break;
    case TRM_DTYPE_I64:
        (sum ? sum_i64 : max_i64)(srcs, count, at, elems, out);
        break;
    case TRM_DTYPE_F16:
    case TRM_DTYPE_BF16:
        reduce_half(srcs, count, at, elems, dtype == TRM_DTYPE_BF16, reduction, out);
        break;
    default:
        TRM_ASSERT(false);
    }
}
