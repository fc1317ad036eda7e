/* Sampling: the passes over whole rows, a block a part of a row.
 *
 *   begin   counts of slots that begin anew (outside of captures: trmi_cuda_lm_begin)
 *   scan    the largest, and whether all is finite. All that greedy rows without log-probabilities
 *           need: their blocks of the next two end at once
 *   weigh   sums of chunks, or how many tokens and how much weight each bucket of z has
 *   gather  tokens up to the bucket in which top_k or top_p is reached, as a list in any order
 *   draw    lm_sample_draw.cu
 *
 * A row of 128k logits is 512 KB, which the product before has left in L2; a multiprocessor reads
 * some 64 bytes a clock from there, so that a pass by one block takes some 5 us. Few rows are cut
 * in parts for that, so that passes take less than a launch. Reads are 4 bytes a thread, since rows
 * of odd vocabularies are not aligned to more: neighbours are read together anyway, and a thread
 * has 4 or 8 reads under way, some 8 to 16 KB a block.
 *
 * Sums of buckets are made with integer atomics in shared memory: which order they come in changes
 * nothing. 64 bits are two words and a carry, because shared memory adds words natively and 64 bits
 * by compare and swap. */
#include "kernels/cuda/lm_sample.cuh"

using namespace trmi_lms;

namespace
{

struct Range {
    int32_t from, to; /* tokens */
};

__device__ __forceinline__ Range part_of(const trmi_lms_shape &s)
{
    const int32_t width = s.part_chunks * kChunk, from = static_cast<int32_t>(blockIdx.x) * width;

    return {from, min(from + width, s.vocabulary)};
}

/* Whether there is such a row in this step. */
__device__ __forceinline__ bool in_step(const Args &a, uint32_t row)
{
    return row < static_cast<uint32_t>(a.block->sample_count) &&
           a.block->vocabulary == a.shape.vocabulary;
}

/* use(i, load(i)) for this thread's tokens; N loads are under way before the first is used, which a
 * compiler does not do by itself across atomics. */
template <int T, int N, class L, class F>
__device__ __forceinline__ void over(const Range &p, L load, F use)
{
    for (int32_t base = p.from + static_cast<int32_t>(threadIdx.x); base < p.to; base += N * T) {
        float v[N];

#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] = base + j * T < p.to ? load(base + j * T) : 0;
#pragma unroll
        for (int j = 0; j < N; j++)
            if (base + j * T < p.to)
                use(base + j * T, v[j]);
    }
}

/* ---- begin ---- */

constexpr int kBeginThreads = 256;

/* A block clears a range of ids, then marks those of the prompt that are in it: no block waits for
 * another. */
__global__ void __launch_bounds__(kBeginThreads)
    lm_sample_begin(const trmi_lm_block *block, int32_t width)
{
    TRM_KERNEL_BEGIN();
    const trmi_lm_begin *b = TRMI_LM_AT(trmi_lm_begin, block, block->begins_at) + blockIdx.y;
    const int32_t *prompt = TRMI_LM_AT(int32_t, block, b->prompt_at);
    const int32_t from = static_cast<int32_t>(blockIdx.x) * width,
                  to = static_cast<int32_t>(
                      min(static_cast<int64_t>(from) + width, block->vocabulary));
    const int t = static_cast<int>(threadIdx.x);

    if (b->slot < 0 || b->slot >= block->slots)
        return;
    uint16_t *counts = block->slot_counts + static_cast<size_t>(b->slot) * block->vocabulary;
    for (int32_t i = from + t; i < to; i += kBeginThreads)
        counts[i] = 0;
    __syncthreads();
    for (int32_t i = t; i < b->prompt_count; i += kBeginThreads)
        if (prompt[i] >= from && prompt[i] < to)
            counts[prompt[i]] = TRM_STEP_IN_PROMPT;
}

/* ---- scan ---- */

/* Bits of this part's tokens that a bias or an end changes. */
template <int T> __device__ __forceinline__ void mark_touched(const Row &r, const Range &p)
{
    const int t = static_cast<int>(threadIdx.x);

    for (int32_t w = p.from / 32 + t; w < (p.to + 31) / 32; w += T)
        r.touched[w] = 0;
    __syncthreads();
    for (int32_t i = t; i < r.bias_count + r.end_count; i += T) {
        const int32_t id = i < r.bias_count ? r.bias[i].id : r.ends[i - r.bias_count];

        if (id >= p.from && id < p.to)
            atomicOr(&r.touched[id >> 5], 1u << (id & 31));
    }
    __syncthreads();
}

/* This part's share of what the row's passes will add to. */
template <int T> __device__ __forceinline__ void clear_work(const Args &a, const Row &r)
{
    const int step = T * a.shape.parts;

    for (int i = static_cast<int>(blockIdx.x) * T + static_cast<int>(threadIdx.x); i < kBuckets;
         i += step) {
        r.work->masses[i] = 0;
        r.work->counts[i] = 0;
        r.work->top_counts[i] = 0;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        r.work->listed = 0;
        r.work->top_listed = 0;
    }
}

template <int T> __global__ void __launch_bounds__(T) lm_sample_scan(Args a)
{
    __shared__ uint64_t raw_bests[T / 32], bests[T / 32], bads[T / 32];

    TRM_KERNEL_BEGIN();
    const uint32_t row = blockIdx.y;
    const int t = static_cast<int>(threadIdx.x);

    if (!in_step(a, row))
        return;
    const Row r = row_of(a, row);
    const Range p = part_of(a.shape);
    const bool changed = r.changed();
    uint64_t raw_best = 0, best = 0, bad = 0;

    if (r.draws || sample_of(a, row)->sample.logprobs >= 0)
        clear_work<T>(a, r);
    if (r.touched != nullptr)
        mark_touched<T>(r, p);
    over<T, 8>(
        p, [&](int32_t i) { return r.logits[i]; },
        [&](int32_t i, float came) {
            const float v = r.masked(came, i);
            const uint64_t mine = best_of(v, i);

            bad += (__float_as_uint(came) & 0x7f800000u) == 0x7f800000u;
            raw_best = mine > raw_best ? mine : raw_best;
            if (changed) {
                const uint64_t now = best_of(r.change(v, i), i);

                best = now > best ? now : best;
            }
        });
    raw_best = warp_max(raw_best);
    best = changed ? warp_max(best) : raw_best;
    bad = warp_sum(bad);
    if (t % 32 == 0) {
        raw_bests[t / 32] = raw_best;
        bests[t / 32] = best;
        bads[t / 32] = bad;
    }
    __syncthreads();
    if (t != 0)
        return;
    for (int w = 1; w < T / 32; w++) {
        raw_best = raw_bests[w] > raw_best ? raw_bests[w] : raw_best;
        best = bests[w] > best ? bests[w] : best;
        bad += bads[w];
    }
    r.work->parts[blockIdx.x] = {raw_best, best, bad};
}

/* ---- weigh ---- */

/* Sums of exp((row[i] - max) * scale) of this part's chunks: 16 lanes, each in float, these in
 * double, as trmi_row_sum. Half a warp a chunk. */
template <int T, class F>
__device__ __forceinline__ void sum_chunks(const Range &p, double *sums, F weight)
{
    const int t = static_cast<int>(threadIdx.x), lane = t % kLanes;
    const int32_t end = (p.to + kChunk - 1) / kChunk;

    for (int32_t base = p.from / kChunk + t / 32 * 2; base < end; base += T / 16) {
        const int32_t chunk = base + t % 32 / kLanes, first = chunk * kChunk + lane;
        float sum = 0;
        double total = 0;

#pragma unroll 8
        for (int i = 0; i < kChunk; i += kLanes)
            if (first + i < p.to)
                sum = __fadd_rn(sum, weight(first + i));
        for (int k = 0; k < kLanes; k++)
            total = __dadd_rn(total, static_cast<double>(__shfl_sync(kAll, sum, k, kLanes)));
        if (lane == 0 && chunk < end)
            sums[chunk] = total;
    }
}

struct Buckets {
    uint32_t counts[kBuckets], low[kBuckets], high[kBuckets];
};

template <int T>
__device__ __forceinline__ void weigh_buckets(const Args &a, const Row &r, const Range &p,
                                              float max, Buckets &b)
{
    const int t = static_cast<int>(threadIdx.x);

    for (int i = t; i < kBuckets; i += T)
        b.counts[i] = b.low[i] = b.high[i] = 0;
    __syncthreads();
    over<T, 4>(
        p, [&](int32_t i) { return r.value(i); },
        [&](int32_t, float v) {
            const float z = z_of(v, max, r.scale);
            const int at = bucket_of(-z);

            if (!(z >= kLeast)) /* it weighs nothing */
                return;
            if (r.top_k)
                atomicAdd(&b.counts[at], 1u);
            else
                add_mass(fixed_of(exp_of(z), a.shape.shift), &b.low[at], &b.high[at]);
        });
    __syncthreads();
    for (int i = t; i < kBuckets; i += T) {
        const uint64_t mass = static_cast<uint64_t>(b.high[i]) << 32 | b.low[i];

        if (b.counts[i] != 0)
            atomicAdd(&r.work->counts[i], b.counts[i]);
        if (mass != 0)
            atomicAdd(reinterpret_cast<unsigned long long *>(&r.work->masses[i]),
                      static_cast<unsigned long long>(mass));
    }
    __syncthreads();
}

/* Of the row as it came: where its first tokens end. */
template <int T>
__device__ __forceinline__ void count_buckets(const Row &r, const Range &p, float max, Buckets &b)
{
    const int t = static_cast<int>(threadIdx.x);

    for (int i = t; i < kBuckets; i += T)
        b.counts[i] = 0;
    __syncthreads();
    over<T, 8>(
        p, [&](int32_t i) { return r.raw(i); },
        [&](int32_t, float v) {
            if (v != kLowest)
                atomicAdd(&b.counts[bucket_of(-z_of(v, max, 1.0f))], 1u);
        });
    __syncthreads();
    for (int i = t; i < kBuckets; i += T)
        if (b.counts[i] != 0)
            atomicAdd(&r.work->top_counts[i], b.counts[i]);
}

template <int T> __global__ void __launch_bounds__(T) lm_sample_weigh(Args a)
{
    __shared__ Buckets buckets;

    TRM_KERNEL_BEGIN();
    const uint32_t row = blockIdx.y;

    if (!in_step(a, row))
        return;
    const Row r = row_of(a, row);
    const int32_t logprobs = sample_of(a, row)->sample.logprobs;

    if (!r.draws && logprobs < 0)
        return;
    const Head h = head_of(r, a.shape.parts);
    const Range p = part_of(a.shape);
    const float raw_max = h.raw_max(), max = h.max();

    if (h.fails())
        return;
    if (logprobs >= 0)
        sum_chunks<T>(p, r.raw_sums,
                      [&](int32_t i) { return exp_of(z_of(r.raw(i), raw_max, 1.0f)); });
    if (r.draws && !r.filtered())
        sum_chunks<T>(p, r.sums, [&](int32_t i) { return exp_of(z_of(r.value(i), max, r.scale)); });
    if (r.draws && (r.top_k || r.top_p))
        weigh_buckets<T>(a, r, p, max, buckets);
    if (logprobs > 0)
        count_buckets<T>(r, p, raw_max, buckets);
}

/* ---- gather ---- */

/* Appends, in any order, this part's tokens that `takes`; what does not fit is only counted. All
 * threads of a warp take the same number of turns. */
template <int T, class V, class F>
__device__ __forceinline__ void append(const Range &p, trmi_lms_candidate *list, uint32_t room,
                                       uint32_t *count, V value, F takes)
{
    constexpr int kAhead = 4;
    const int t = static_cast<int>(threadIdx.x), lane = t % 32;

    for (int32_t base = p.from; base < p.to; base += kAhead * T) {
        float v[kAhead];

#pragma unroll
        for (int j = 0; j < kAhead; j++)
            v[j] = base + j * T + t < p.to ? value(base + j * T + t) : kLowest;
#pragma unroll
        for (int j = 0; j < kAhead; j++) {
            const int32_t i = base + j * T + t;
            const bool mine = i < p.to && takes(v[j]);
            const uint32_t all = __ballot_sync(kAll, mine);
            uint32_t at = 0;

            if (all == 0)
                continue;
            if (lane == 0)
                at = atomicAdd(count, static_cast<uint32_t>(__popc(all)));
            at = __shfl_sync(kAll, at, 0) + static_cast<uint32_t>(__popc(all & ((1u << lane) - 1)));
            if (mine && at < room)
                list[at] = {i, v[j]};
        }
    }
}

template <int T> __global__ void __launch_bounds__(T) lm_sample_gather(Args a)
{
    __shared__ uint64_t sums[T / 32];
    __shared__ Place place;

    TRM_KERNEL_BEGIN();
    const uint32_t row = blockIdx.y;

    if (!in_step(a, row))
        return;
    const Row r = row_of(a, row);
    const trm_step_sample &s = sample_of(a, row)->sample;
    trmi_lms_work *work = r.work;

    if (!r.listed() && s.logprobs <= 0)
        return;
    const Head h = head_of(r, a.shape.parts);
    const Range p = part_of(a.shape);
    const float raw_max = h.raw_max(), max = h.max();

    if (h.fails())
        return;
    if (r.listed()) {
        float least = kLeast;
        int cut = kBuckets;

        if (r.top_k) {
            cut = static_cast<int>(find_bucket<T>([&](int i) { return work->counts[i]; },
                                                  static_cast<uint64_t>(s.top_k), sums, &place)
                                       .bucket);
        } else if (r.top_p) {
            const auto mass = [&](int i) { return work->masses[i]; };
            const uint64_t total = find_bucket<T>(mass, 1, sums, &place).total;

            cut = static_cast<int>(
                find_bucket<T>(mass, wanted_of(static_cast<double>(s.top_p), total), sums, &place)
                    .bucket);
            if (blockIdx.x == 0 && threadIdx.x == 0)
                work->total = total;
        } else {
            /* a little more than can stay: what stays is decided by weights */
            least = fmaxf(least, logf(s.min_p) - 1e-3f);
        }
        if (blockIdx.x == 0 && threadIdx.x == 0)
            work->cut = cut;
        append<T>(
            p, work->list, TRMI_LMS_LIST, &work->listed, [&](int32_t i) { return r.value(i); },
            [&](float v) {
                const float z = z_of(v, max, r.scale);

                return z >= least && bucket_of(-z) <= cut;
            });
    }
    if (s.logprobs > 0) {
        const int cut =
            static_cast<int>(find_bucket<T>([&](int i) { return work->top_counts[i]; },
                                            static_cast<uint64_t>(s.logprobs), sums, &place)
                                 .bucket);

        append<T>(
            p, work->top_list, TRMI_LMS_TOP_LIST, &work->top_listed,
            [&](int32_t i) { return r.raw(i); },
            [&](float v) { return v != kLowest && bucket_of(-z_of(v, raw_max, 1.0f)) <= cut; });
    }
}

template <int T> trm_status passes(const Args &a, cudaStream_t stream)
{
    const dim3 grid(static_cast<unsigned>(a.shape.parts), static_cast<unsigned>(a.shape.rows));

    TRM_CHECK(
        trmi_launched(TRM_LAUNCH((lm_sample_scan<T>), grid, T, 0, stream, a), "lm_sample_scan"));
    TRM_CHECK(
        trmi_launched(TRM_LAUNCH((lm_sample_weigh<T>), grid, T, 0, stream, a), "lm_sample_weigh"));
    return trmi_launched(TRM_LAUNCH((lm_sample_gather<T>), grid, T, 0, stream, a),
                         "lm_sample_gather");
}

} // namespace

extern "C" trm_status trmi_cuda_lm_sample(const trmi_lms_shape *shape, const trmi_lm_block *block,
                                          const float *logits, trm_step_sampled *out,
                                          void *workspace, cudaStream_t stream)
{
    const Args a = {*shape, block, logits, static_cast<unsigned char *>(workspace), out};

    if (shape->rows == 0)
        return TRM_OK;
    if (shape->vocabulary <= TRMI_LMS_SMALL)
        TRM_CHECK(passes<128>(a, stream));
    else
        TRM_CHECK(passes<512>(a, stream));
    return trmi_cuda_lm_sample_draw(shape, block, logits, out, workspace, stream);
}

extern "C" trm_status trmi_cuda_lm_begin(const trmi_lm_block *block, const trm_step *step,
                                         cudaStream_t stream)
{
    const int64_t width = 8192, parts = (step->vocabulary + width - 1) / width;

    if (step->begin_count == 0 || step->slot_counts == NULL || parts == 0)
        return TRM_OK;
    if (step->begin_count > UINT16_MAX || step->vocabulary > INT32_MAX - width)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%d slots begin, %lld tokens",
                        static_cast<int>(step->begin_count),
                        static_cast<long long>(step->vocabulary));
    return trmi_launched(
        TRM_LAUNCH(lm_sample_begin,
                   dim3(static_cast<unsigned>(parts), static_cast<unsigned>(step->begin_count)),
                   kBeginThreads, 0, stream, block, static_cast<int32_t>(width)),
        "lm_sample_begin");
}
