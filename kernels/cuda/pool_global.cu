/* Poolings over whole planes, in a fixed order.
 *
 * Plain: a warp a plane; lanes stride over it, then join by shuffles.
 * Channels-last: a block has up to 32 neighbouring pieces of 16 bytes (or single channels) of one
 * image, and as many rows of such lanes as make 256 threads; row r takes the positions r, r + rows,
 * ...; then the rows join in a tree. */
#include "kernels/cuda/pool.cuh"

#define WARPS 4
#define THREADS 256

template <class T, class A, int kMode>
__global__ void __launch_bounds__(WARPS * 32)
    planes_kernel(const T *__restrict__ x, T *__restrict__ y, size_t planes, int space, int power)
{
    TRM_KERNEL_BEGIN();
    const size_t plane = (size_t)blockIdx.x * WARPS + threadIdx.x / 32;
    const int lane = (int)(threadIdx.x % 32);
    A sum = kMode == TRMI_POOL_MAX ? pool_compute<T>::lowest() : A(0);

    if (plane >= planes) /* a whole warp */
        return;
    const T *from = x + plane * (size_t)space;

    for (int i = lane; i < space; i += 32)
        sum = pool_join<A, kMode>(sum, pool_term<A, kMode>(A(pool_up(from[i])), power));
    for (int other = 16; other > 0; other /= 2)
        sum = pool_join<A, kMode>(sum, __shfl_down_sync(0xffffffffu, sum, (unsigned)other));
    if (lane == 0)
        y[plane] = pool_down<T>::from(pool_result<A, kMode>(sum, space, power));
}

template <class T, class A, int kVec, int kMode>
__global__ void __launch_bounds__(THREADS)
    columns_kernel(const T *__restrict__ x, T *__restrict__ y, int channels, int space, int lanes,
                   int power)
{
    __shared__ A part[kVec][THREADS];
    TRM_KERNEL_BEGIN();
    const int t = (int)threadIdx.x, rows = THREADS / lanes, r = t / lanes;
    const int c = ((int)blockIdx.x * lanes + t % lanes) * kVec;
    const T *from = x + (size_t)blockIdx.y * (size_t)space * (size_t)channels + c;
    A sum[kVec];

#pragma unroll
    for (int e = 0; e < kVec; e++)
        sum[e] = kMode == TRMI_POOL_MAX ? pool_compute<T>::lowest() : A(0);
    for (int i = r; i < space && c < channels; i += rows) {
        const pool_vec<T, kVec> v =
            *reinterpret_cast<const pool_vec<T, kVec> *>(from + (size_t)i * (size_t)channels);

#pragma unroll
        for (int e = 0; e < kVec; e++)
            sum[e] = pool_join<A, kMode>(sum[e], pool_term<A, kMode>(A(pool_up(v.v[e])), power));
    }
#pragma unroll
    for (int e = 0; e < kVec; e++)
        part[e][t] = sum[e];
    for (int half = THREADS / 2; half >= lanes; half /= 2) {
        __syncthreads();
        if (t < half)
#pragma unroll
            for (int e = 0; e < kVec; e++)
                part[e][t] = pool_join<A, kMode>(part[e][t], part[e][t + half]);
    }
    if (r > 0 || c >= channels)
        return;
    pool_vec<T, kVec> out;

#pragma unroll
    for (int e = 0; e < kVec; e++)
        out.v[e] = pool_down<T>::from(pool_result<A, kMode>(part[e][t], space, power));
    *reinterpret_cast<pool_vec<T, kVec> *>(y + (size_t)blockIdx.y * (size_t)channels + c) = out;
}

template <class T, class A, int kVec, int kMode>
static trm_status columns_launch(cudaStream_t stream, const trmi_pool *p, const T *x, T *y,
                                 int space)
{
    const int pieces = p->channels / kVec;
    int lanes = 1;

    while (lanes < pieces && lanes < 32)
        lanes *= 2;
    return trmi_launched(
        TRM_LAUNCH((columns_kernel<T, A, kVec, kMode>),
                   dim3((unsigned)((pieces + lanes - 1) / lanes), (unsigned)p->batch), THREADS, 0,
                   stream, x, y, p->channels, space, lanes, p->power),
        "global pool");
}

template <class T, class A, int kMode>
static trm_status global_launch(cudaStream_t stream, const trmi_pool *p, const void *x, void *y)
{
    constexpr int vec = 16 / sizeof(T);
    const int space = p->in[0] * p->in[1] * p->in[2];
    const size_t planes = (size_t)p->batch * (size_t)p->channels;
    const T *from = static_cast<const T *>(x);
    T *to = static_cast<T *>(y);

    if (!p->channels_last)
        return trmi_launched(TRM_LAUNCH((planes_kernel<T, A, kMode>),
                                        (unsigned)((planes + WARPS - 1) / WARPS), WARPS * 32, 0,
                                        stream, from, to, planes, space, p->power),
                             "global pool");
    if (p->channels % vec == 0)
        return columns_launch<T, A, vec, kMode>(stream, p, from, to, space);
    return columns_launch<T, A, 1, kMode>(stream, p, from, to, space);
}

extern "C" trm_status trmi_cuda_pool_global(cudaStream_t stream, const trmi_pool *p,
                                            trm_dtype dtype, const void *x, void *y)
{
    const size_t planes = (size_t)p->batch * (size_t)p->channels;

    if (planes == 0)
        return TRM_OK;
    if (planes >= (size_t)1 << 31 ||
        (size_t)p->in[0] * (size_t)p->in[1] * (size_t)p->in[2] >= (size_t)1 << 31 ||
        (p->channels_last && p->batch > 65535))
        return trm_fail(TRM_ERR_UNSUPPORTED, "pool of %zu planes", planes);
    TRM_FLOATS(dtype, T, {
        using A = typename pool_compute<T>::type;

        switch (p->mode) {
        case TRMI_POOL_MAX:
            return global_launch<T, A, TRMI_POOL_MAX>(stream, p, x, y);
        case TRMI_POOL_AVERAGE:
            return global_launch<T, A, TRMI_POOL_AVERAGE>(stream, p, x, y);
        default:
            return global_launch<T, A, TRMI_POOL_LP>(stream, p, x, y);
        }
    })
    if (dtype == TRM_DTYPE_I8 && p->mode == TRMI_POOL_MAX)
        return global_launch<int8_t, int, TRMI_POOL_MAX>(stream, p, x, y);
    if (dtype == TRM_DTYPE_U8 && p->mode == TRMI_POOL_MAX)
        return global_launch<uint8_t, int, TRMI_POOL_MAX>(stream, p, x, y);
    return trm_fail(TRM_ERR_UNSUPPORTED, "pool of %s", trm_dtype_name(dtype));
}
