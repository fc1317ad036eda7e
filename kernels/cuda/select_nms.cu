/* NonMaxSuppression. A block takes a line (image, class): it collects the boxes above the score
 * threshold, sorts them by falling score (in shared memory where they are TRMI_SORT_SHARED at most,
 * else in its scratch), and then, once for each box that it keeps, marks in parallel the later ones
 * that overlap it too much. So the steps in sequence are as many as boxes kept. Products are
 * rounded one by one (no fma): the comparison with the threshold must fall as on the CPU. */
#include "kernels/cuda/select_sort.cuh"

struct nms_box {
    float x0, y0, x1, y1;
};

__device__ __forceinline__ nms_box nms_corners(const float4 b, bool center)
{
    nms_box r;

    if (center) {
        r.x0 = b.x - b.z / 2;
        r.x1 = b.x + b.z / 2;
        r.y0 = b.y - b.w / 2;
        r.y1 = b.y + b.w / 2;
    } else { /* any two opposite corners, y first */
        r.y0 = b.x < b.z ? b.x : b.z;
        r.y1 = b.x < b.z ? b.z : b.x;
        r.x0 = b.y < b.w ? b.y : b.w;
        r.x1 = b.y < b.w ? b.w : b.y;
    }
    return r;
}

__device__ __forceinline__ bool nms_overlaps(const nms_box &a, const nms_box &b, float threshold)
{
    const float x0 = a.x0 > b.x0 ? a.x0 : b.x0, x1 = a.x1 < b.x1 ? a.x1 : b.x1;
    const float y0 = a.y0 > b.y0 ? a.y0 : b.y0, y1 = a.y1 < b.y1 ? a.y1 : b.y1;

    if (x1 <= x0 || y1 <= y0)
        return false;
    const float both = __fmul_rn(x1 - x0, y1 - y0);
    const float area_a = __fmul_rn(a.x1 - a.x0, a.y1 - a.y0);
    const float area_b = __fmul_rn(b.x1 - b.x0, b.y1 - b.y0);
    const float all = area_a + area_b - both;
    if (both <= 0 || area_a <= 0 || area_b <= 0 || all <= 0)
        return false;
    return both / all > threshold;
}

/* A block's scratch: items [power of two >= n], boxes [n], marks [n]. */
size_t trmi_nms_scratch(uint32_t n)
{
    const size_t items = trm_power_of_two(n) * sizeof(trm_ranked<uint32_t>);

    return (items + n * (sizeof(nms_box) + 1) + 255) / 256 * 256;
}

__global__ void __launch_bounds__(512)
nms_lines(trmi_nms p, size_t scratch_bytes, uint32_t items_max, trm_key_rule rule)
{
    __shared__ trm_ranked<uint32_t> few[TRMI_SORT_SHARED];
    __shared__ uint32_t count, next;
    unsigned char *scratch = static_cast<unsigned char *>(p.scratch) + blockIdx.x * scratch_bytes;
    trm_ranked<uint32_t> *many = reinterpret_cast<trm_ranked<uint32_t> *>(scratch);
    nms_box *sorted = reinterpret_cast<nms_box *>(many + items_max);
    unsigned char *dead = reinterpret_cast<unsigned char *>(sorted + p.n);
    const size_t lines = p.batches * p.classes;
    uint32_t limit = 0;

    TRM_KERNEL_BEGIN();
    const float iou = p.iou != nullptr ? *p.iou : 0.0f;
    const float least = p.score != nullptr ? *p.score : 0.0f;
    if (p.most != nullptr) {
        const int64_t most = p.most_is_i32 ? *static_cast<const int32_t *>(p.most)
                                           : *static_cast<const int64_t *>(p.most);
        limit = most <= 0 ? 0 : most < p.n ? static_cast<uint32_t>(most) : p.n;
        limit = limit < p.capacity ? limit : p.capacity;
    }
    if (!(iou >= 0 && iou <= 1))
        limit = 0; /* the host reports it */
    if (blockIdx.x == 0 && threadIdx.x == 0)
        p.offsets[lines + 1] = static_cast<int64_t>(__float_as_uint(iou));
    for (size_t line = blockIdx.x; line < lines; line += gridDim.x) {
        const float *scores = p.scores + line * p.n;
        const float4 *boxes =
            reinterpret_cast<const float4 *>(p.boxes) + line / p.classes * p.n;
        uint32_t *chosen = p.chosen + line * p.capacity;
        uint32_t kept = 0, padded = 1;

        if (threadIdx.x == 0)
            count = 0;
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < p.n && limit > 0; i += blockDim.x) {
            const float score = scores[i];
            trm_ranked<uint32_t> e;

            if (p.score != nullptr && !(score > least))
                continue;
            const uint32_t at = atomicAdd(&count, 1u);
            e.key = trm_sort_key<uint32_t>(rule, __float_as_uint(score));
            e.low = p.n - i;
            if (at < TRMI_SORT_SHARED)
                few[at] = e;
            many[at] = e;
        }
        __syncthreads();
        const uint32_t candidates = count;
        trm_ranked<uint32_t> *items = candidates <= TRMI_SORT_SHARED ? few : many;
        while (padded < candidates)
            padded *= 2;
        for (uint32_t i = candidates + threadIdx.x; i < padded; i += blockDim.x) {
            items[i].key = 0;
            items[i].low = 0;
        }
        __syncthreads();
        trm_block_sort(items, padded);
        for (uint32_t i = threadIdx.x; i < candidates; i += blockDim.x) {
            sorted[i] = nms_corners(boxes[p.n - items[i].low], p.center);
            dead[i] = 0;
        }
        __syncthreads();
        for (uint32_t from = 0; kept < limit && from < candidates;) {
            uint32_t found = UINT32_MAX;

            for (uint32_t base = from; base < candidates; base += blockDim.x) {
                const uint32_t i = base + threadIdx.x;

                if (threadIdx.x == 0)
                    next = UINT32_MAX;
                __syncthreads();
                if (i < candidates && dead[i] == 0)
                    atomicMin(&next, i);
                __syncthreads();
                found = next;
                __syncthreads();
                if (found != UINT32_MAX)
                    break;
            }
            if (found == UINT32_MAX)
                break;
            if (threadIdx.x == 0)
                chosen[kept] = p.n - items[found].low;
            kept++;
            const nms_box b = sorted[found];
            for (uint32_t i = found + 1 + threadIdx.x; i < candidates; i += blockDim.x)
                if (dead[i] == 0 && nms_overlaps(sorted[i], b, iou))
                    dead[i] = 1;
            __syncthreads();
            from = found + 1;
        }
        if (threadIdx.x == 0)
            p.counts[line] = kept;
        __syncthreads();
    }
}

/* A warp a line. */
__global__ void __launch_bounds__(256) nms_write(trmi_nms p, int64_t *__restrict__ y)
{
    const size_t line = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;

    TRM_KERNEL_BEGIN();
    if (line >= p.batches * p.classes)
        return;
    int64_t *to = y + p.offsets[line] * 3;
    const uint32_t kept = p.counts[line];
    for (uint32_t j = threadIdx.x & 31; j < kept; j += 32) {
        to[3 * j] = static_cast<int64_t>(line / p.classes);
        to[3 * j + 1] = static_cast<int64_t>(line % p.classes);
        to[3 * j + 2] = p.chosen[line * p.capacity + j];
    }
}

trm_status trmi_cuda_nms_launch(const trmi_nms *p, cudaStream_t stream)
{
    const size_t lines = p->batches * p->classes;

    if (lines == 0 || p->n == 0 || p->blocks < 1)
        return TRM_OK;
    TRM_CHECK(trmi_launched(TRM_LAUNCH(nms_lines, static_cast<unsigned>(p->blocks), 512, 0, stream,
                                       *p, trmi_nms_scratch(p->n), trm_power_of_two(p->n),
                                       trm_key_rule_of(TRM_DTYPE_F32, false)),
                            "nms_lines"));
    return trmi_cuda_running_sums_launch(p->counts, lines, p->offsets, stream);
}

trm_status trmi_cuda_nms_write_launch(const trmi_nms *p, int64_t *y, cudaStream_t stream)
{
    const size_t lines = p->batches * p->classes;

    if (lines == 0)
        return TRM_OK;
    return trmi_launched(TRM_LAUNCH(nms_write, static_cast<unsigned>((lines * 32 + 255) / 256), 256,
                                    0, stream, *p, y),
                         "nms_write");
}
