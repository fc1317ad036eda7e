/* What the kernels of sampling share: a row and how it is changed, numbers that order values,
 * weights, random bits, and finding a place in sums of buckets.
 *
 * Whatever decides which token comes is computed as worker/language/ does, operation by operation:
 * _rn intrinsics, because a multiplication and an addition must not become one. */
#ifndef TRM_KERNELS_CUDA_LM_SAMPLE_CUH
#define TRM_KERNELS_CUDA_LM_SAMPLE_CUH

#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/lm_sample.h"

namespace trmi_lms
{

constexpr float kLowest = -INFINITY, kLargest = 3.402823466e+38f;
constexpr float kLeast = -87.0f; /* exp below it counts as 0 */
constexpr uint32_t kAll = 0xffffffffu;
constexpr int kChunk = TRMI_LMS_CHUNK, kBuckets = TRMI_LMS_BUCKETS;
constexpr int kLanes = 16; /* that a chunk is summed in */
constexpr int kTopScan = 64;

/* ---- numbers ---- */

/* exp(x) for x <= 0: worker/language/logits.c, exp_lane. */
__device__ __forceinline__ float exp_of(float x)
{
    const float shift = 12582912.0f;
    const float y = x < kLeast ? kLeast : x;
    const float n = __fsub_rn(__fadd_rn(__fmul_rn(y, 1.44269504088896341f), shift), shift);
    const float r =
        __fadd_rn(__fsub_rn(y, __fmul_rn(n, 0.693359375f)), __fmul_rn(n, 2.12194440e-4f));
    float p = 1.9875691500e-4f;

    p = __fadd_rn(__fmul_rn(p, r), 1.3981999507e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2f);
    p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1f);
    p = __fadd_rn(__fmul_rn(p, r), 5.0000001201e-1f);
    p = __fadd_rn(__fadd_rn(__fmul_rn(p, __fmul_rn(r, r)), r), 1.0f);
    p = __fmul_rn(p, __int_as_float((static_cast<int>(n) + 127) * (1 << 23)));
    return x < kLeast ? 0.0f : p;
}

/* (v - max) * scale */
__device__ __forceinline__ float z_of(float v, float max, float scale)
{
    return __fmul_rn(__fsub_rn(v, max), scale);
}

/* Never falls as key grows. */
__device__ __forceinline__ int bucket_of(float key)
{
    const float b = __fmul_rn(key, 32.0f);

    return b < 0 ? 0 : b < kBuckets - 1 ? static_cast<int>(b) : kBuckets - 1;
}

/* Larger for larger values, the same for both zeros. */
__device__ __forceinline__ uint32_t order_of(float v)
{
    const uint32_t bits = __float_as_uint(__fadd_rn(v, 0.0f));

    return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float value_of(uint32_t order)
{
    return __uint_as_float(order >> 31 != 0 ? order & 0x7fffffffu : ~order);
}

/* The larger value, then the lower id. */
__device__ __forceinline__ uint64_t best_of(float v, int32_t id)
{
    return static_cast<uint64_t>(order_of(v)) << 32 | (kAll - static_cast<uint32_t>(id));
}
__device__ __forceinline__ float best_value(uint64_t best)
{
    return value_of(static_cast<uint32_t>(best >> 32));
}
__device__ __forceinline__ int32_t best_id(uint64_t best)
{
    return static_cast<int32_t>(kAll - static_cast<uint32_t>(best));
}

/* A weight as an integer; 2^shift is exact, and so is the product. */
__device__ __forceinline__ uint64_t fixed_of(float weight, int shift)
{
    return __float2ull_rn(weight * static_cast<float>(1ull << shift));
}

/* Adds to a sum of 64 bits in shared memory, in whatever order: shared memory adds words natively,
 * and 64 bits only by compare and swap. */
__device__ __forceinline__ void add_mass(uint64_t mass, uint32_t *low, uint32_t *high)
{
    const uint32_t x = static_cast<uint32_t>(mass), old = atomicAdd(low, x);
    const uint32_t y = static_cast<uint32_t>(mass >> 32) + (old + x < old ? 1u : 0u);

    if (y != 0)
        atomicAdd(high, y);
}

/* ---- random bits: worker/language/philox.c ---- */
__device__ __forceinline__ double uniform(const trm_step_sample &s)
{
    const uint64_t position = static_cast<uint64_t>(s.position);
    uint32_t c[4] = {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32),
                     s.stream, 0};
    uint32_t k0 = static_cast<uint32_t>(s.seed), k1 = static_cast<uint32_t>(s.seed >> 32);

    for (int round = 0; round < 10; round++) {
        const uint64_t a = static_cast<uint64_t>(0xd2511f53u) * c[0];
        const uint64_t b = static_cast<uint64_t>(0xcd9e8d57u) * c[2];

        c[0] = static_cast<uint32_t>(b >> 32) ^ c[1] ^ k0;
        c[1] = static_cast<uint32_t>(b);
        c[2] = static_cast<uint32_t>(a >> 32) ^ c[3] ^ k1;
        c[3] = static_cast<uint32_t>(a);
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return __ddiv_rn(__dadd_rn(__dmul_rn(static_cast<double>(c[0] >> 5), 67108864.0),
                               static_cast<double>(c[1] >> 6)),
                     9007199254740992.0);
}

/* ---- a row ---- */

struct Args {
    trmi_lms_shape shape;
    const trmi_lm_block *block;
    const float *logits;
    unsigned char *workspace;
    trm_step_sampled *out;
};

__device__ __forceinline__ float limited(float before, float now)
{
    if (before == kLowest)
        return before; /* forbidden before */
    return now > kLargest ? kLargest : now < -kLargest ? -kLargest : now;
}

struct Row {
    const float *logits;
    const uint32_t *allowed; /* NULL: all */
    const uint16_t *counts;  /* NULL: nothing is penalised */
    uint32_t *touched;       /* bits of tokens in `bias` or `ends`; NULL: neither is there */
    const trm_step_bias *bias;
    const int32_t *ends;
    int32_t bias_count, end_count;
    float repetition, presence, frequency;
    int32_t vocabulary;
    /* what is wanted of it */
    bool draws; /* not the largest, and not a score */
    bool top_k, top_p, min_p, typical;
    float scale;
    trmi_lms_work *work;
    double *raw_sums, *sums;

    __device__ __forceinline__ bool filtered() const
    {
        return top_k || top_p || min_p || typical;
    }
    /* its candidates are listed; by typical_p alone they are nearly all of the row */
    __device__ __forceinline__ bool listed() const
    {
        return draws && (top_k || top_p || min_p);
    }
    __device__ __forceinline__ bool changed() const
    {
        return counts != nullptr || touched != nullptr;
    }
    __device__ __forceinline__ float masked(float v, int32_t i) const
    {
        return allowed == nullptr || (allowed[i >> 5] >> (i & 31) & 1) != 0 ? v : kLowest;
    }
    __device__ __forceinline__ float raw(int32_t i) const
    {
        return masked(logits[i], i);
    }
    __device__ float biased(float v, int32_t i) const /* bias: by ascending id */
    {
        int32_t from = 0, to = bias_count;

        while (from < to) {
            const int32_t middle = (from + to) / 2;

            if (bias[middle].id < i)
                from = middle + 1;
            else
                to = middle;
        }
        for (; from < bias_count && bias[from].id == i; from++)
            v = limited(v, __fadd_rn(v, bias[from].bias));
        return v;
    }
    __device__ __forceinline__ float penalised(float v, uint32_t count) const
    {
        const uint32_t outputs = count & TRM_STEP_COUNT_MAX;
        float now = v > 0 ? __fdiv_rn(v, repetition) : __fmul_rn(v, repetition);

        if (outputs > 0)
            now = __fsub_rn(now,
                            __fadd_rn(presence, __fmul_rn(frequency, static_cast<float>(outputs))));
        return limited(v, now);
    }
    /* raw(i) with bias, penalties and forbidden ends, in this order */
    __device__ __forceinline__ float change(float v, int32_t i) const
    {
        const bool hit = touched != nullptr && (touched[i >> 5] >> (i & 31) & 1) != 0;

        if (hit)
            v = biased(v, i);
        if (counts != nullptr) {
            const uint32_t count = counts[i];

            if (count != 0)
                v = penalised(v, count);
        }
        for (int32_t e = 0; hit && e < end_count; e++)
            v = ends[e] == i ? kLowest : v;
        return v;
    }
    __device__ __forceinline__ float value(int32_t i) const
    {
        return change(raw(i), i);
    }
};

__device__ __forceinline__ const trmi_lm_sample *sample_of(const Args &a, uint32_t row)
{
    return TRMI_LM_AT(trmi_lm_sample, a.block, a.block->samples_at) + row;
}

/* The row's part of the block and of the workspace. */
__device__ __forceinline__ Row row_of(const Args &a, uint32_t row)
{
    const trmi_lm_sample *q = sample_of(a, row);
    const trm_step_sample &s = q->sample;
    unsigned char *work = a.workspace + static_cast<size_t>(row) * a.shape.row_bytes;
    const int32_t vocabulary = a.shape.vocabulary;
    const bool next = s.row_kind == 0;
    Row r = {};

    r.logits = a.logits + static_cast<size_t>(row) * vocabulary;
    r.vocabulary = vocabulary;
    r.work = reinterpret_cast<trmi_lms_work *>(work);
    r.raw_sums = reinterpret_cast<double *>(work + a.shape.raw_sums_at);
    r.sums = reinterpret_cast<double *>(work + a.shape.sums_at);
    if (!next)
        return r;
    r.allowed = q->allowed_at != 0 ? TRMI_LM_AT(uint32_t, a.block, q->allowed_at) : nullptr;
    r.bias_count = q->bias_at != 0 ? s.bias_count : 0;
    r.end_count = q->ends_at != 0 ? s.end_count : 0;
    r.bias = TRMI_LM_AT(trm_step_bias, a.block, q->bias_at);
    r.ends = TRMI_LM_AT(int32_t, a.block, q->ends_at);
    if (r.bias_count > 0 || r.end_count > 0)
        r.touched = reinterpret_cast<uint32_t *>(work + a.shape.touched_at);
    r.repetition = s.repetition_penalty;
    r.presence = s.presence_penalty;
    r.frequency = s.frequency_penalty;
    if ((r.repetition != 1 || r.presence != 0 || r.frequency != 0) &&
        a.block->slot_counts != nullptr && s.slot >= 0 && s.slot < a.block->slots)
        r.counts = a.block->slot_counts + static_cast<size_t>(s.slot) * vocabulary;
    r.draws = s.temperature != 0;
    r.top_k = s.top_k > 0 && s.top_k < vocabulary;
    r.top_p = s.top_p < 1;
    r.min_p = s.min_p > 0;
    r.typical = s.typical_p < 1;
    r.scale = r.draws ? __fdiv_rn(1.0f, s.temperature) : 1.0f;
    r.scale = r.scale < 1e30f ? r.scale : 1e30f; /* differences times this stay numbers */
    return r;
}

/* ---- what a row's parts have seen ---- */
struct Head {
    uint64_t raw_best, best;
    bool bad;

    __device__ __forceinline__ float raw_max() const
    {
        return best_value(raw_best);
    }
    __device__ __forceinline__ float max() const
    {
        return best_value(best);
    }
    /* there is nothing to weigh */
    __device__ __forceinline__ bool fails() const
    {
        return bad || raw_max() == kLowest || max() == kLowest;
    }
};

__device__ __forceinline__ uint64_t warp_max(uint64_t v)
{
#pragma unroll
    for (int d = 16; d > 0; d /= 2) {
        const uint64_t w = __shfl_xor_sync(kAll, static_cast<unsigned long long>(v), d);

        v = w > v ? w : v;
    }
    return v;
}
__device__ __forceinline__ uint64_t warp_sum(uint64_t v)
{
#pragma unroll
    for (int d = 16; d > 0; d /= 2)
        v += __shfl_xor_sync(kAll, static_cast<unsigned long long>(v), d);
    return v;
}

/* By whole warps. */
__device__ __forceinline__ Head head_of(const Row &r, int parts)
{
    static_assert(TRMI_LMS_PARTS == 32, "a lane a part");
    const int lane = static_cast<int>(threadIdx.x % 32);
    trmi_lms_part p = {0, 0, 0};
    Head h;

    if (lane < parts)
        p = r.work->parts[lane];
    h.raw_best = warp_max(p.raw_best);
    h.best = warp_max(p.best);
    h.bad = __any_sync(kAll, p.bad != 0) != 0;
    return h;
}

/* ---- a place in sums of buckets ---- */
struct Place {
    uint32_t bucket;
    uint32_t unused;
    uint64_t before, total; /* of the buckets before it; of all */
};

/* The first bucket with which the sum reaches `target` (where none does: the last), by a block of T
 * threads, all of which call and get it. `shared`: [T / 32 + 1] and a Place, free to be used. */
template <int T, class F>
__device__ __forceinline__ Place find_bucket(F amount, uint64_t target, uint64_t *sums,
                                             Place *place)
{
    constexpr int kEach = kBuckets / T;
    const int t = static_cast<int>(threadIdx.x), lane = t % 32, warp = t / 32;
    uint64_t own = 0, upto, before = 0, total = 0;

    for (int i = 0; i < kEach; i++)
        own += amount(t * kEach + i);
    upto = own;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
        const uint64_t w = __shfl_up_sync(kAll, static_cast<unsigned long long>(upto), d);

        upto += lane >= d ? w : 0;
    }
    if (lane == 31)
        sums[warp] = upto;
    __syncthreads();
    for (int w = 0; w < T / 32; w++) {
        before += w < warp ? sums[w] : 0;
        total += sums[w];
    }
    before += upto - own;
    if (t == 0 && target > total) {
        place->bucket = kBuckets - 1;
        place->before = total - amount(kBuckets - 1);
        place->total = total;
    }
    if (before < target && target <= before + own)
        for (int i = 0; i < kEach; i++) {
            const uint64_t x = amount(t * kEach + i);

            if (target <= before + x) {
                place->bucket = static_cast<uint32_t>(t * kEach + i);
                place->before = before;
                place->total = total;
                break;
            }
            before += x;
        }
    __syncthreads();
    const Place found = *place;
    __syncthreads();
    return found;
}

/* How much of `total` is wanted, as an integer that a sum must reach. */
__device__ __forceinline__ uint64_t wanted_of(double share, uint64_t total)
{
    const double w = ceil(__dmul_rn(share, static_cast<double>(total)));
    const uint64_t n = static_cast<uint64_t>(w);

    return n < 1 ? 1 : n > total ? total : n;
}

} // namespace trmi_lms

#endif
