/* What convolutions read and store at once: 16 bytes of channels, or one element. */
#ifndef TRM_KERNELS_CUDA_CONV_VEC_CUH
#define TRM_KERNELS_CUDA_CONV_VEC_CUH

#include "kernels/cuda/posts.cuh"

#include "kernels/cuda/conv.h"

/* 16 bytes as elements */
template <class T> struct __align__(16) conv_vec {
    T v[16 / sizeof(T)];
};

/* kN elements as what they are computed in */
template <class T, class A, int kN>
__device__ __forceinline__ void conv_load(const T *p, A (&v)[kN])
{
    if constexpr (kN == 1) {
        v[0] = trm_up(*p);
    } else {
        const conv_vec<T> raw = *reinterpret_cast<const conv_vec<T> *>(p);

#pragma unroll
        for (int e = 0; e < kN; e++)
            v[e] = trm_up(raw.v[e]);
    }
}

/* Posts, then to elements `at`... of y, in channels `channel`... */
template <class T, class A, int kN>
__device__ __forceinline__ void conv_store(T *y, A (&v)[kN], const trmi_posts &posts, size_t at,
                                           int channel)
{
    trm_posts_apply<T, kN, A, false>(posts, at, (size_t)channel, v);
    if constexpr (kN == 1) {
        y[at] = trm_down<T>(v[0]);
    } else {
        conv_vec<T> out;

#pragma unroll
        for (int e = 0; e < kN; e++)
            out.v[e] = trm_down<T>(v[e]);
        *reinterpret_cast<conv_vec<T> *>(y + at) = out;
    }
}

/* Where tap k of output o reads along one dim; negative: nowhere. */
template <bool kTransposed>
__device__ __forceinline__ int conv_tap(const trmi_conv_shape &s, int d, int o, int k)
{
    if (!kTransposed) {
        const int at = o * s.stride[d] - s.pad[d] + k * s.dilation[d];

        return at < s.in[d] ? at : -1;
    }
    const int at = o + s.pad[d] - k * s.dilation[d];

    if (at < 0 || at % s.stride[d] != 0)
        return -1;
    return at / s.stride[d] < s.in[d] ? at / s.stride[d] : -1;
}

#endif
