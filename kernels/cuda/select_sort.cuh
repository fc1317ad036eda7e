/* Keys that order values, and sorting by a block: what TopK and NonMaxSuppression share. Items are
 * pairs (key, low) in falling order; low is n - index, so that no two items are equal and equal
 * keys come by lower index, whatever order the items were collected in. The item (0, 0) sorts
 * behind every real one and pads lists to a power of two. */
#ifndef TRM_KERNELS_CUDA_SELECT_SORT_CUH
#define TRM_KERNELS_CUDA_SELECT_SORT_CUH

#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/select.h"

template <class U> struct trm_key_of {
    using type = uint32_t;
};
template <> struct trm_key_of<uint64_t> {
    using type = uint64_t;
};

template <class K> struct alignas(2 * sizeof(K)) trm_ranked {
    K key;
    uint32_t low;
};

template <class K>
__device__ __forceinline__ bool trm_before(const trm_ranked<K> &a, const trm_ranked<K> &b)
{
    return a.key > b.key || (a.key == b.key && a.low > b.low);
}

struct trm_key_rule {
    trmi_key_kind kind;
    uint64_t infinity; /* bits of +infinity, for floats */
    bool flip;         /* the smallest first */
};

static inline trm_key_rule trm_key_rule_of(trm_dtype dtype, bool flip)
{
    trm_key_rule r = {TRMI_KEY_UNSIGNED, 0, flip};

    if (trm_dtype_is_float(dtype)) {
        r.kind = TRMI_KEY_FLOAT;
        r.infinity = dtype == TRM_DTYPE_F32    ? UINT64_C(0x7f800000)
                     : dtype == TRM_DTYPE_F16  ? UINT64_C(0x7c00)
                     : dtype == TRM_DTYPE_BF16 ? UINT64_C(0x7f80)
                                               : UINT64_C(0x7ff0000000000000);
    } else if (trm_dtype_is_signed_int(dtype)) {
        r.kind = TRMI_KEY_SIGNED;
    }
    return r;
}

/* Larger keys first: the key has as many bits as the value. */
template <class U>
__device__ __forceinline__ typename trm_key_of<U>::type trm_sort_key(const trm_key_rule &r, U raw)
{
    using K = typename trm_key_of<U>::type;
    const K ones = static_cast<K>(static_cast<U>(~U(0))), top = ones ^ (ones >> 1);
    K u = static_cast<K>(raw);

    if (r.kind == TRMI_KEY_SIGNED) {
        u ^= top;
    } else if (r.kind == TRMI_KEY_FLOAT) {
        if ((u & (ones ^ top)) > static_cast<K>(r.infinity))
            u = ones;
        else if (u == top || (u & top) == 0)
            u |= top;
        else
            u = ones ^ u;
    }
    return r.flip ? ones ^ u : u;
}

/* One exchange of a bitonic network (Batcher 1968): t-th pair of this stride; `index` of an item
 * decides the direction of its run of `size`. */
template <class K>
__device__ __forceinline__ void trm_exchange(trm_ranked<K> *items, uint32_t t, uint32_t stride,
                                             uint32_t size, uint32_t index_base)
{
    const uint32_t i = 2 * t - (t & (stride - 1));
    const trm_ranked<K> a = items[i], b = items[i + stride];

    if (trm_before(b, a) == (((index_base + i) & size) == 0)) {
        items[i] = b;
        items[i + stride] = a;
    }
}

/* Sorts n items (a power of two) by the whole block. The items are there for all threads (a barrier
 * lies before), and are sorted for all on return. */
template <class K> __device__ __forceinline__ void trm_block_sort(trm_ranked<K> *items, uint32_t n)
{
    for (uint32_t size = 2; size <= n; size *= 2) {
        for (uint32_t stride = size / 2; stride > 0; stride /= 2) {
            for (uint32_t t = threadIdx.x; t < n / 2; t += blockDim.x)
                trm_exchange(items, t, stride, size, 0);
            __syncthreads();
        }
    }
}

static inline uint32_t trm_power_of_two(uint32_t n) /* >= n, n <= 2^31 */
{
    uint32_t p = 1;

    while (p < n)
        p *= 2;
    return p;
}

#endif
