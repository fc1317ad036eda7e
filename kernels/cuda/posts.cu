/* Posts in place on what a library has written: d[i] = posts(d[i]).
 *
 * A thread takes vectors of 16 bytes, a grid apart; one element where rows or the pointer are not
 * made of whole vectors. Memory-bound: one read and one write of d, and one read of each operand of
 * the whole shape. */
#include "kernels/cuda/posts.cuh"

namespace
{

constexpr int kThreads = 256;

template <class T, int V, class Index>
__global__ void __launch_bounds__(kThreads)
    posts_kernel(T *d, Index vectors, Index channels, Index inner, trmi_posts posts)
{
    using C = typename trm_compute<T>::type;

    TRM_KERNEL_BEGIN();
    for (Index v = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; v < vectors;
         v += static_cast<Index>(gridDim.x) * kThreads) {
        const Index flat = v * V;
        const Index channel = (inner == 1 ? flat : flat / inner) % channels;
        auto *at = reinterpret_cast<trm_post_pack<T, V> *>(d + flat);
        trm_post_pack<T, V> pack = *at;
        C x[V];

#pragma unroll
        for (int i = 0; i < V; i++)
            x[i] = trm_up(pack.v[i]);
        trm_posts_apply<T, V, C>(posts, flat, channel, x);
#pragma unroll
        for (int i = 0; i < V; i++)
            pack.v[i] = trm_down<T>(x[i]);
        *at = pack;
    }
}

template <class T, int V>
cudaError_t launch(const trm_cuda *cuda, cudaStream_t stream, void *d, size_t elems,
                   size_t channels, size_t inner, const trmi_posts &posts)
{
    const size_t vectors = elems / V, blocks = (vectors + kThreads - 1) / kThreads;
    const size_t most = static_cast<size_t>(cuda->multiprocessors) * 8;
    const unsigned grid = static_cast<unsigned>(blocks < most ? blocks : most);

    if (elems <= INT32_MAX) /* v + a grid stays below 2^32 */
        return TRM_LAUNCH((posts_kernel<T, V, uint32_t>), grid, kThreads, 0, stream,
                          static_cast<T *>(d), static_cast<uint32_t>(vectors),
                          static_cast<uint32_t>(channels), static_cast<uint32_t>(inner), posts);
    return TRM_LAUNCH((posts_kernel<T, V, size_t>), grid, kThreads, 0, stream, static_cast<T *>(d),
                      vectors, channels, inner, posts);
}

} // namespace

extern "C" trm_status trmi_cuda_posts_run(const trm_cuda *cuda, cudaStream_t stream,
                                          trm_dtype dtype, void *d, size_t elems, size_t channels,
                                          size_t inner, const trmi_posts *posts)
{
    bool vectors = reinterpret_cast<uintptr_t>(d) % 16 == 0, by_channel = false;

    if (elems == 0 || posts->count == 0)
        return TRM_OK;
    if (channels == 0 || inner == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "posts of no channels");
    for (int i = 0; i < posts->count; i++) {
        const trmi_post_step *s = &posts->steps[i];

        if (s->mode == TRMI_POST_SAME || s->mode == TRMI_POST_CHANNEL)
            vectors = vectors && reinterpret_cast<uintptr_t>(s->operand) % 16 == 0;
        by_channel = by_channel || s->mode == TRMI_POST_CHANNEL;
    }
    if (!by_channel)
        channels = inner = 1;
    TRM_FLOATS(dtype, T, {
        constexpr int kV = 16 / sizeof(T);

        if (vectors && elems % kV == 0 && (!by_channel || (inner == 1 && channels % kV == 0)))
            return trmi_launched(
                launch<T, kV>(cuda, stream, d, elems, channels, inner, *posts), "posts");
        return trmi_launched(launch<T, 1>(cuda, stream, d, elems, channels, inner, *posts),
                             "posts");
    });
    return trm_fail(TRM_ERR_UNSUPPORTED, "posts on %s", trm_dtype_name(dtype));
}
