/* What the attention kernels share: which keys a row sees, the mask, elements of any float dtype.
 */
#ifndef TRM_KERNELS_CUDA_ATTENTION_CUH
#define TRM_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/gpu.cuh" /* first: it may emulate CUDA's headers */

#include "kernels/cuda/attention.h"

#include <math.h>

#define ATTENTION_KEYS 64 /* keys of a block */

struct attention_range {
    int first, last; /* keys [first, last) */
};

/* Keys that row i of batch b may see. Both ends rise with i. */
__device__ __forceinline__ attention_range attention_seen(const trmi_attention &a, int b, int i)
{
    int64_t lo = 0, hi = a.kv_len, at = static_cast<int64_t>(i) + a.offset;

    if (a.nonpad != nullptr) {
        const int64_t valid = a.nonpad[b];

        hi = valid < hi ? valid : hi;
        at = i + valid - a.q_len;
    }
    if (a.causal != 0 && at + 1 < hi)
        hi = at + 1;
    if (a.right >= 0 && at + a.right + 1 < hi)
        hi = at + a.right + 1;
    if (a.left >= 0 && at - a.left > lo)
        lo = at - a.left;
    if (a.mask.dtype != TRM_DTYPE_NONE && a.mask_len < hi)
        hi = a.mask_len;
    hi = hi > 0 ? hi : 0;
    lo = lo < hi ? lo : hi;
    return attention_range{static_cast<int>(lo), static_cast<int>(hi)};
}

/* Keys that any of rows [first, first + rows) may see, from a whole block of keys on. */
__device__ __forceinline__ attention_range attention_block_seen(const trmi_attention &a, int b,
                                                                int first, int rows)
{
    const int last = first + rows < a.q_len ? first + rows - 1 : a.q_len - 1;
    const int lo = attention_seen(a, b, first).first, hi = attention_seen(a, b, last).last;

    return attention_range{lo / ATTENTION_KEYS * ATTENTION_KEYS, hi};
}

/* Element `at` of memory of a float dtype. */
template <class F>
__device__ __forceinline__ F attention_element(const void *p, trm_dtype dtype, size_t at)
{
    switch (dtype) {
    case TRM_DTYPE_F32:
        return static_cast<F>(static_cast<const float *>(p)[at]);
    case TRM_DTYPE_F16:
        return static_cast<F>(__half2float(static_cast<const __half *>(p)[at]));
    case TRM_DTYPE_BF16:
        return static_cast<F>(__bfloat162float(static_cast<const __nv_bfloat16 *>(p)[at]));
    default:
        return static_cast<F>(static_cast<const double *>(p)[at]);
    }
}

template <class F>
__device__ __forceinline__ void attention_put(void *p, trm_dtype dtype, size_t at, F x)
{
    switch (dtype) {
    case TRM_DTYPE_F32:
        static_cast<float *>(p)[at] = static_cast<float>(x);
        break;
    case TRM_DTYPE_F16:
        static_cast<__half *>(p)[at] = __float2half_rn(static_cast<float>(x));
        break;
    case TRM_DTYPE_BF16:
        static_cast<__nv_bfloat16 *>(p)[at] = __float2bfloat16_rn(static_cast<float>(x));
        break;
    default:
        static_cast<double *>(p)[at] = static_cast<double>(x);
        break;
    }
}

/* What the mask adds to the score of key j in row i of head (b, h). */
template <class F>
__device__ __forceinline__ F attention_mask(const trmi_attention &a, int b, int h, int i, int j)
{
    const trmi_attention_view &m = a.mask;
    const int64_t at = b * m.batch + h * m.head + i * m.row + j * m.column;

    if (m.dtype == TRM_DTYPE_NONE)
        return F(0);
    if (m.dtype == TRM_DTYPE_BOOL)
        return static_cast<const uint8_t *>(m.data)[at] != 0 ? F(0) : -static_cast<F>(INFINITY);
    return attention_element<F>(m.data, m.dtype, static_cast<size_t>(at));
}

#endif
