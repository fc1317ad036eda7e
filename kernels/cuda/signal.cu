/* DFT and STFT: a block a transform, self-sorting mixed radix (Stockham; Cochran et al. 1967): step
 * by step, with s the product of the factors done and m = n / (s p),
 *   out[q + s (p k + i)] = w(s k i) * sum over j < p of in[q + s (k + m j)] * w(i j n / p),
 * for q < s, k < m, i < p, w(a) the twiddle exp(-2 pi sqrt(-1) a / n). A thread computes whole
 * outputs; the two buffers lie in shared memory, or in the workspace where n is large. */
#include "kernels/cuda/image_common.cuh"

#include "kernels/cuda/signal.h"

#define FOURIER_BLOCK 256

template <class T> struct fourier_wide {
    using type = float;
};
template <> struct fourier_wide<double> {
    using type = double;
};

template <class C> struct alignas(2 * sizeof(C)) fourier_complex {
    C re, im;
};

template <class C>
__device__ __forceinline__ fourier_complex<C> fourier_times(const fourier_complex<C> &a,
                                                            const fourier_complex<C> &b)
{
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

template <class C>
__device__ __forceinline__ C fourier_window(const void *window, trm_dtype dtype, uint32_t i)
{
    if (dtype == TRM_DTYPE_NONE)
        return 1;
    if (dtype == TRM_DTYPE_F64)
        return static_cast<C>(static_cast<const double *>(window)[i]);
    return static_cast<C>(trm_load_f32(window, dtype, i));
}

/* One step with factor p; n outputs over the block's threads. */
template <class C>
__device__ __forceinline__ void fourier_step(fourier_complex<C> *out, const fourier_complex<C> *in,
                                             const fourier_complex<C> *__restrict__ twiddles,
                                             uint32_t n, uint32_t p, uint32_t s)
{
    const uint32_t m = n / (s * p), turn_of_p = n / p;

    for (uint32_t t = threadIdx.x; t < n; t += blockDim.x) {
        const uint32_t q = t % s, i = t / s % p, k = t / s / p, step = i * turn_of_p;
        fourier_complex<C> sum = {0, 0};
        uint32_t turn = 0;

        for (uint32_t j = 0; j < p; j++) {
            const fourier_complex<C> x =
                fourier_times(in[q + s * (k + m * j)], twiddles[turn]);

            sum.re += x.re;
            sum.im += x.im;
            turn += step;
            turn -= turn >= n ? n : 0;
        }
        out[t] = fourier_times(sum, twiddles[s * k * i]); /* s k i < n */
    }
}

template <class T>
__global__ void __launch_bounds__(FOURIER_BLOCK)
fourier(const T *__restrict__ x, const void *__restrict__ window,
        const fourier_complex<typename fourier_wide<T>::type> *__restrict__ twiddles,
        T *__restrict__ y, fourier_complex<typename fourier_wide<T>::type> *workspace,
        trmi_fourier f)
{
    using C = typename fourier_wide<T>::type;
    TRM_DYN_SMEM(fourier_complex<C>, shared);
    fourier_complex<C> *buffers =
        workspace != nullptr ? workspace + 2 * static_cast<size_t>(blockIdx.x) * f.n : shared;
    const size_t series = f.outer * f.frames * f.inner, parts = f.real_out ? 1 : 2;
    const C scale = f.inverse ? C(1) / static_cast<C>(f.n) : C(1);

    TRM_KERNEL_BEGIN();
    for (size_t one = blockIdx.x; one < series; one += gridDim.x) {
        const size_t inner = one % f.inner, o = one / f.inner;
        const size_t first = o % f.frames * f.frame_step, outer = o / f.frames;
        fourier_complex<C> *from = buffers, *to = buffers + f.n;
        uint32_t s = 1;

        for (uint32_t i = threadIdx.x; i < f.n; i += blockDim.x) {
            /* the other half of a real signal's spectrum */
            const bool mirrored = f.inverse && f.onesided && i > f.n / 2;
            const size_t sample = first + (mirrored ? f.n - i : i);
            fourier_complex<C> v = {0, 0};

            if (sample < f.in_len) {
                const size_t at = ((outer * f.in_len + sample) * f.inner + inner) * f.in_parts;
                const C w = fourier_window<C>(window, f.window_dtype, mirrored ? f.n - i : i);

                v.re = w * static_cast<C>(trm_up(x[at]));
                if (f.in_parts == 2)
                    v.im = w * static_cast<C>(trm_up(x[at + 1])) * (mirrored ? -1 : 1);
            }
            from[i] = v;
        }
        __syncthreads();
        for (int step = 0; step < f.factor_count; step++) {
            fourier_complex<C> *next = from;

            fourier_step(to, from, twiddles, f.n, f.factors[step], s);
            s *= f.factors[step];
            from = to;
            to = next;
            __syncthreads();
        }
        for (uint32_t i = threadIdx.x; i < f.out_len; i += blockDim.x) {
            const size_t at = ((o * f.out_len + i) * f.inner + inner) * parts;

            y[at] = trm_down<T>(from[i].re * scale);
            if (parts == 2)
                y[at + 1] = trm_down<T>(from[i].im * scale);
        }
        __syncthreads();
    }
}

trm_status trmi_cuda_fourier_launch(const trmi_fourier *f, const void *x, const void *window,
                                    const void *twiddles, void *y, void *workspace,
                                    cudaStream_t stream)
{
    const size_t series = f->outer * f->frames * f->inner;
    const bool spills = trmi_fourier_workspace(f) > 0;
    const unsigned block = f->n >= FOURIER_BLOCK ? FOURIER_BLOCK : (f->n + 31) / 32 * 32;

    if (series == 0 || f->out_len == 0 || f->n == 0)
        return TRM_OK;
    TRM_FLOATS(f->dtype, T, {
        using complex = fourier_complex<typename fourier_wide<T>::type>;
        const size_t smem = spills ? 0 : 2 * sizeof(complex) * f->n;

        return trmi_launched(TRM_LAUNCH(fourier<T>, static_cast<unsigned>(f->blocks), block, smem,
                                        stream, static_cast<const T *>(x), window,
                                        static_cast<const complex *>(twiddles),
                                        static_cast<T *>(y),
                                        spills ? static_cast<complex *>(workspace) : nullptr, *f),
                             "fourier");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "transform of %s", trm_dtype_name(f->dtype));
}
