/* TopK. Three ways, by size:
 *  - few of a short line (k <= 8): a warp (or, where lines interleave, a thread) a line looks k
 *    times for the best item behind the last one;
 *  - else a block a line: a radix select by 8-bit digits from the top (Alabi et al. 2012) narrows
 *    the items down until exactly k are at or above a threshold; ties go on into the digits of
 *    the index, so the k are unique. They are collected in any order and sorted in shared memory.
 *    Short lines skip the select and are sorted whole;
 *  - where more than TRMI_SORT_SHARED remain, they are collected in the workspace and sorted by a
 *    bitonic network of several launches. */
#include "kernels/cuda/select_sort.cuh"

struct topk_params {
    size_t lines, inner;
    uint32_t n, k, padded; /* padded: items that are sorted, a power of two */
    uint32_t low_bytes;    /* bytes of n */
    bool take_all;
    trm_key_rule rule;
};

template <class U>
__device__ __forceinline__ trm_ranked<typename trm_key_of<U>::type>
topk_item(const topk_params &p, const U *__restrict__ x, uint32_t j)
{
    trm_ranked<typename trm_key_of<U>::type> e;

    e.key = trm_sort_key<U>(p.rule, x[static_cast<size_t>(j) * p.inner]);
    e.low = p.n - j;
    return e;
}

template <class K> __device__ __forceinline__ trm_ranked<K> topk_nothing()
{
    trm_ranked<K> e;

    e.key = 0;
    e.low = 0;
    return e;
}

/* at: j-th result of line `line`. */
template <class U>
__device__ __forceinline__ void topk_put(const topk_params &p, const U *__restrict__ in,
                                         U *__restrict__ values, int64_t *__restrict__ indices,
                                         size_t line, uint32_t j, uint32_t index)
{
    const size_t o = line / p.inner, i = line % p.inner;
    const size_t at = (o * p.k + j) * p.inner + i;

    if (values != nullptr)
        values[at] = in[(o * p.n + index) * p.inner + i];
    if (indices != nullptr)
        indices[at] = index;
}

template <class U, int kLanes>
__global__ void __launch_bounds__(256)
topk_lanes(const U *__restrict__ in, U *__restrict__ values, int64_t *__restrict__ indices,
           topk_params p)
{
    using K = typename trm_key_of<U>::type;
    const size_t thread = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t line = thread / kLanes;
    const uint32_t lane = static_cast<uint32_t>(thread % kLanes);
    trm_ranked<K> last = topk_nothing<K>();

    TRM_KERNEL_BEGIN();
    if (line >= p.lines)
        return; /* whole warps where lanes > 1 */
    const U *x = in + line / p.inner * p.n * p.inner + line % p.inner;
    for (uint32_t r = 0; r < p.k; r++) {
        trm_ranked<K> best = topk_nothing<K>();

        for (uint32_t j = lane; j < p.n; j += kLanes) {
            const trm_ranked<K> e = topk_item<U>(p, x, j);

            if ((r == 0 || trm_before(last, e)) && trm_before(e, best))
                best = e;
        }
        for (int step = kLanes / 2; step > 0; step /= 2) {
            trm_ranked<K> other;

            other.key = __shfl_xor_sync(0xffffffffu, best.key, step);
            other.low = __shfl_xor_sync(0xffffffffu, best.low, step);
            if (trm_before(other, best))
                best = other;
        }
        last = best;
        if (lane == 0)
            topk_put<U>(p, in, values, indices, line, r, p.n - best.low);
    }
}

/* What a pass of the radix select leaves behind. */
struct topk_found {
    uint32_t digit, need, done;
};

/* By one warp: the digit whose items hold the need-th largest. */
__device__ __forceinline__ void topk_find_digit(const uint32_t *bins, uint32_t need,
                                                topk_found *found)
{
    const uint32_t lane = threadIdx.x; /* owns bins 255 - 8 lane and the 7 below */
    uint32_t own = 0, upto;

    for (uint32_t b = 0; b < 8; b++)
        own += bins[255 - 8 * lane - b];
    upto = own;
    for (int step = 1; step < 32; step *= 2) {
        const uint32_t before = __shfl_up_sync(0xffffffffu, upto, step);

        if (lane >= static_cast<uint32_t>(step))
            upto += before;
    }
    if (upto - own < need && upto >= need) {
        uint32_t above = upto - own, digit = 255 - 8 * lane;

        while (above + bins[digit] < need)
            above += bins[digit--];
        found->digit = digit;
        found->need = need - above;
        found->done = bins[digit] == need - above;
    }
}

/* The smallest of the k largest items, or a lower bound of it that no other item reaches. */
template <class U>
__device__ trm_ranked<typename trm_key_of<U>::type>
topk_threshold(const topk_params &p, const U *__restrict__ x)
{
    using K = typename trm_key_of<U>::type;
    __shared__ uint32_t bins[256];
    __shared__ topk_found found;
    trm_ranked<K> prefix = topk_nothing<K>(), mask = topk_nothing<K>();
    uint32_t need = p.k;

    for (uint32_t step = 0; step < sizeof(U) + p.low_bytes; step++) {
        const bool in_key = step < sizeof(U);
        const uint32_t bytes = static_cast<uint32_t>(sizeof(U)) + (in_key ? 0 : p.low_bytes);
        const uint32_t shift = 8 * (bytes - 1 - step);

        for (uint32_t b = threadIdx.x; b < 256; b += blockDim.x)
            bins[b] = 0;
        __syncthreads();
        for (uint32_t base = 0; base < p.n; base += blockDim.x) {
            const uint32_t j = base + threadIdx.x;
            uint32_t digit = 256, same;

            if (j < p.n) {
                const trm_ranked<K> e = topk_item<U>(p, x, j);

                if ((e.key & mask.key) == prefix.key && (e.low & mask.low) == prefix.low)
                    digit = (in_key ? static_cast<uint32_t>(e.key >> shift) : e.low >> shift) & 255;
            }
            /* one addition a warp and digit: scores often share their top digit */
            same = __match_any_sync(0xffffffffu, digit);
            if (digit < 256 && (threadIdx.x & 31) == static_cast<uint32_t>(__ffs(same) - 1))
                atomicAdd(&bins[digit], static_cast<uint32_t>(__popc(same)));
        }
        __syncthreads();
        if (threadIdx.x < 32)
            topk_find_digit(bins, need, &found);
        __syncthreads();
        if (in_key) {
            prefix.key |= static_cast<K>(found.digit) << shift;
            mask.key |= static_cast<K>(255) << shift;
        } else {
            prefix.low |= found.digit << shift;
            mask.low |= 255u << shift;
        }
        need = found.need;
        if (found.done)
            break; /* the same for all threads: nothing writes `found` before the next barrier */
    }
    return prefix;
}

/* spill: NULL, or [lines, padded] items in global memory that are left unsorted there. */
template <class U>
__global__ void __launch_bounds__(1024)
topk_select(const U *__restrict__ in, U *__restrict__ values, int64_t *__restrict__ indices,
            trm_ranked<typename trm_key_of<U>::type> *__restrict__ spill, topk_params p)
{
    using K = typename trm_key_of<U>::type;
    TRM_DYN_SMEM(trm_ranked<K>, shared_items);
    __shared__ uint32_t taken;

    TRM_KERNEL_BEGIN();
    for (size_t line = blockIdx.x; line < p.lines; line += gridDim.x) {
        const U *x = in + line / p.inner * p.n * p.inner + line % p.inner;
        trm_ranked<K> *items = spill != nullptr ? spill + line * p.padded : shared_items;
        trm_ranked<K> threshold = topk_nothing<K>();

        for (uint32_t j = threadIdx.x; j < p.padded; j += blockDim.x)
            items[j] = topk_nothing<K>();
        if (threadIdx.x == 0)
            taken = 0;
        __syncthreads();
        if (!p.take_all)
            threshold = topk_threshold<U>(p, x);
        for (uint32_t j = threadIdx.x; j < p.n; j += blockDim.x) {
            const trm_ranked<K> e = topk_item<U>(p, x, j);

            if (!trm_before(threshold, e))
                items[atomicAdd(&taken, 1u)] = e;
        }
        __syncthreads();
        if (spill == nullptr) {
            trm_block_sort(items, p.padded);
            for (uint32_t j = threadIdx.x; j < p.k; j += blockDim.x)
                topk_put<U>(p, in, values, indices, line, j, p.n - items[j].low);
        }
        __syncthreads();
    }
}

/* ---- the long sort: runs of TRMI_SORT_SHARED by blocks, then across ---- */

/* whole: every size up to a chunk; else the strides of one `size` that fit a chunk. Items of a line
 * are `padded`, a multiple of the chunk. */
template <class K>
__global__ void __launch_bounds__(1024)
topk_sort_chunks(trm_ranked<K> *__restrict__ items, uint32_t padded, uint32_t size, bool whole)
{
    TRM_DYN_SMEM(trm_ranked<K>, chunk);
    trm_ranked<K> *mine = items + static_cast<size_t>(blockIdx.x) * TRMI_SORT_SHARED;
    const uint32_t base =
        static_cast<uint32_t>((static_cast<size_t>(blockIdx.x) * TRMI_SORT_SHARED) & (padded - 1));

    TRM_KERNEL_BEGIN();
    for (uint32_t i = threadIdx.x; i < TRMI_SORT_SHARED; i += blockDim.x)
        chunk[i] = mine[i];
    __syncthreads();
    for (uint32_t s = whole ? 2 : size; s <= (whole ? TRMI_SORT_SHARED : size); s *= 2) {
        for (uint32_t stride = (s < TRMI_SORT_SHARED ? s : TRMI_SORT_SHARED) / 2; stride > 0;
             stride /= 2) {
            for (uint32_t t = threadIdx.x; t < TRMI_SORT_SHARED / 2; t += blockDim.x)
                trm_exchange(chunk, t, stride, s, base);
            __syncthreads();
        }
    }
    for (uint32_t i = threadIdx.x; i < TRMI_SORT_SHARED; i += blockDim.x)
        mine[i] = chunk[i];
}

template <class K>
__global__ void __launch_bounds__(256)
topk_sort_step(trm_ranked<K> *__restrict__ items, size_t pairs, uint32_t padded, uint32_t stride,
               uint32_t size)
{
    const size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t line = t / (padded / 2);

    TRM_KERNEL_BEGIN();
    if (t < pairs)
        trm_exchange(items + line * padded, static_cast<uint32_t>(t % (padded / 2)), stride, size,
                     0);
}

template <class U>
__global__ void __launch_bounds__(256)
topk_write(const U *__restrict__ in, U *__restrict__ values, int64_t *__restrict__ indices,
           const trm_ranked<typename trm_key_of<U>::type> *__restrict__ items, topk_params p)
{
    const size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t line = t / p.k;
    const uint32_t j = static_cast<uint32_t>(t % p.k);

    TRM_KERNEL_BEGIN();
    if (line < p.lines)
        topk_put<U>(p, in, values, indices, line, j, p.n - items[line * p.padded + j].low);
}

/* ---- launchers ---- */

static bool topk_is_few(const trmi_topk *t)
{
    return t->k <= 8 && t->n <= (t->inner >= 32 ? 4096u : 2048u);
}

/* Items that are collected a line. */
static uint32_t topk_padded(const trmi_topk *t)
{
    return trm_power_of_two(t->n <= TRMI_SORT_SHARED ? t->n : t->k);
}

size_t trmi_topk_workspace(const trmi_topk *t)
{
    if (topk_is_few(t) || topk_padded(t) <= TRMI_SORT_SHARED)
        return 0;
    return t->outer * t->inner * topk_padded(t) * trmi_sort_item_bytes(t->dtype);
}

static unsigned blocks_of(size_t threads, unsigned block)
{
    return static_cast<unsigned>((threads + block - 1) / block);
}

template <class K>
static trm_status topk_sort(trm_ranked<K> *items, size_t lines, uint32_t padded,
                            cudaStream_t stream)
{
    const size_t smem = TRMI_SORT_SHARED * sizeof(trm_ranked<K>), total = lines * padded;
    const unsigned chunks = static_cast<unsigned>(total / TRMI_SORT_SHARED);

    TRM_CHECK(trmi_launched(
        TRM_LAUNCH(topk_sort_chunks<K>, chunks, 1024, smem, stream, items, padded, 0u, true),
        "topk_sort_chunks"));
    for (uint32_t size = 2 * TRMI_SORT_SHARED; size != 0 && size <= padded; size *= 2) {
        for (uint32_t stride = size / 2; stride >= TRMI_SORT_SHARED; stride /= 2)
            TRM_CHECK(trmi_launched(TRM_LAUNCH(topk_sort_step<K>, blocks_of(total / 2, 256), 256, 0,
                                               stream, items, total / 2, padded, stride, size),
                                    "topk_sort_step"));
        TRM_CHECK(trmi_launched(
            TRM_LAUNCH(topk_sort_chunks<K>, chunks, 1024, smem, stream, items, padded, size, false),
            "topk_sort_chunks"));
    }
    return TRM_OK;
}

template <class U>
static trm_status topk_run(const trm_cuda *cuda, const trmi_topk *t, const U *x, U *values,
                           int64_t *indices, void *workspace, cudaStream_t stream)
{
    using K = typename trm_key_of<U>::type;
    topk_params p = {};
    const unsigned block = t->n <= 256 ? 128 : t->n <= 8192 ? 256 : 1024;
    const size_t wanted = static_cast<size_t>(cuda->multiprocessors) * (block == 1024 ? 2 : 8);
    trm_ranked<K> *spill = nullptr;
    size_t grid, smem;

    p.lines = t->outer * t->inner;
    p.inner = t->inner;
    p.n = t->n;
    p.k = t->k;
    p.take_all = t->n <= TRMI_SORT_SHARED || t->k == t->n;
    p.padded = topk_padded(t);
    for (uint32_t rest = t->n; rest != 0; rest >>= 8)
        p.low_bytes++;
    p.rule = trm_key_rule_of(t->dtype, t->smallest);
    if (topk_is_few(t)) {
        if (t->inner >= 32)
            return trmi_launched(TRM_LAUNCH((topk_lanes<U, 1>), blocks_of(p.lines, 256), 256, 0,
                                            stream, x, values, indices, p),
                                 "topk_lanes");
        return trmi_launched(TRM_LAUNCH((topk_lanes<U, 32>), blocks_of(p.lines * 32, 128), 128, 0,
                                        stream, x, values, indices, p),
                             "topk_lanes");
    }
    if (p.padded > TRMI_SORT_SHARED)
        spill = static_cast<trm_ranked<K> *>(workspace);
    grid = p.lines < wanted ? p.lines : wanted;
    smem = spill != nullptr ? 0 : p.padded * sizeof(trm_ranked<K>);
    TRM_CHECK(trmi_launched(TRM_LAUNCH(topk_select<U>, static_cast<unsigned>(grid), block, smem,
                                       stream, x, values, indices, spill, p),
                            "topk_select"));
    if (spill == nullptr)
        return TRM_OK;
    TRM_CHECK(topk_sort<K>(spill, p.lines, p.padded, stream));
    return trmi_launched(TRM_LAUNCH(topk_write<U>, blocks_of(p.lines * p.k, 256), 256, 0, stream, x,
                                    values, indices, spill, p),
                         "topk_write");
}

trm_status trmi_cuda_topk_launch(const trm_cuda *cuda, const trmi_topk *t, const void *x,
                                 void *values, int64_t *indices, void *workspace,
                                 cudaStream_t stream)
{
    const size_t lines = t->outer * t->inner;

    if (lines == 0 || t->k == 0)
        return TRM_OK;
    if (t->k > t->n || t->n > UINT32_C(1) << 31 || lines > (size_t)1 << 31 ||
        lines * t->k / 256 >= (size_t)1 << 31 || trmi_topk_workspace(t) / 16384 >= (size_t)1 << 31)
        return trm_fail(TRM_ERR_UNSUPPORTED, "top %u of %u in %zu lines", t->k, t->n, lines);
    TRM_WIDTHS(t->dtype, U, {
        return topk_run<U>(cuda, t, static_cast<const U *>(x), static_cast<U *>(values), indices,
                           workspace, stream);
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "top k of %s", trm_dtype_name(t->dtype));
}
