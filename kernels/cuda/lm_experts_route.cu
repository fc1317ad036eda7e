/* Routes of TrmExperts. A warp has a token: an expert's score is in lane id % 32, and the best is
 * found top_k times by a butterfly over (score, id).
 *
 * Rows are ranked without sorting: a token takes an expert at most once, so that the row's place
 * among those of its expert is the number of bits below its own in a mask of tokens. Up to
 * TRMI_EXPERTS_ALONE tokens one block does all of it, in one launch. Beyond, a launch chooses, and
 * counts every expert's rows of each TRMI_EXPERTS_COUNTED tokens; the next sums the counts of the
 * tokens before its own and places them. Only integers are added in an order that nobody knows. */
#include "kernels/cuda/lm_act.cuh"
#include "kernels/cuda/lm_experts.h"

namespace
{

constexpr unsigned kAll = 0xffffffffu;
constexpr int kRouteWarps = 8, kPlaceThreads = 1024;
constexpr int kPlaced = 256; /* tokens that a block places */

struct Best {
    float score;
    int id;
};

/* higher score, then lower id */
__device__ __forceinline__ Best better(const Best &a, const Best &b)
{
    return b.score > a.score || (b.score == a.score && b.id < a.id) ? b : a;
}

/* Token t, by a whole warp. kPer: scores of a lane. */
template <int kPer>
__device__ __forceinline__ void route_token(const trmi_experts &e, const float *logits,
                                            const trmi_experts_routes &r, int t)
{
    const int lane = static_cast<int>(threadIdx.x % 32);
    float s[kPer], most = -INFINITY, sum = 0.0f, chosen_sum = 0.0f, mine = 0.0f;
    int chosen = e.all, rank = 0;

    logits += static_cast<size_t>(t) * static_cast<size_t>(e.all);
#pragma unroll
    for (int i = 0; i < kPer; i++) {
        s[i] = i * 32 + lane < e.all ? logits[i * 32 + lane] : -INFINITY;
        most = fmaxf(most, s[i]);
    }
#pragma unroll
    for (int d = 16; d > 0; d /= 2)
        most = fmaxf(most, __shfl_xor_sync(kAll, most, d));
#pragma unroll
    for (int i = 0; i < kPer; i++) {
        s[i] = i * 32 + lane < e.all ? trmi_act::exp(__fadd_rn(s[i], -most)) : 0.0f;
        sum = __fadd_rn(sum, s[i]);
    }
#pragma unroll
    for (int d = 16; d > 0; d /= 2)
        sum = __fadd_rn(sum, __shfl_xor_sync(kAll, sum, d));
    const bool number = sum == sum; /* else all scores are NaN, and the first experts chosen */
    const float inverse = __fdiv_rn(1.0f, sum);

#pragma unroll
    for (int i = 0; i < kPer; i++) {
        s[i] = number ? __fmul_rn(s[i], inverse) : 0.0f;
        if (i * 32 + lane >= e.all)
            s[i] = -1.0f;
    }
    for (int c = 0; c < e.top_k; c++) {
        Best best = {-2.0f, INT32_MAX};

#pragma unroll
        for (int i = 0; i < kPer; i++)
            best = better(best, {s[i], i * 32 + lane});
#pragma unroll
        for (int d = 16; d > 0; d /= 2) {
            const Best other = {__shfl_xor_sync(kAll, best.score, d),
                                __shfl_xor_sync(kAll, best.id, d)};

            best = better(best, other);
        }
#pragma unroll
        for (int i = 0; i < kPer; i++)
            if (i * 32 + lane == best.id)
                s[i] = -1.0f; /* taken */
        if (!number)
            best.score = sum;
        chosen_sum = __fadd_rn(chosen_sum, best.score);
        if (lane == c) {
            chosen = best.id;
            mine = best.score;
        }
    }
    if (e.normalize)
        mine = __fdiv_rn(mine, chosen_sum);
    for (int c = 0; c < e.top_k; c++)
        rank += __shfl_sync(kAll, chosen, c) < chosen ? 1 : 0;
    if (lane < e.top_k) {
        const size_t at =
            static_cast<size_t>(t) * static_cast<size_t>(e.top_k) + static_cast<size_t>(rank);

        r.chosen[at] = chosen;
        r.shares[at] = mine;
    }
}

/* Tokens [begin, begin + tokens) of a block get their rows. masks: bit t of word w of an expert is
 * token begin + 32 * w + t; before: rows of an expert that come before this block's; totals: all of
 * an expert. Both are of the block's threads; totals becomes starts. */
struct Place {
    uint32_t masks[TRMI_EXPERTS_MAX][kPlaced / 32];
    int32_t before[TRMI_EXPERTS_MAX], totals[TRMI_EXPERTS_MAX];
};

__device__ __forceinline__ void mark_rows(const trmi_experts &e, const trmi_experts_routes &r,
                                          Place &p, int begin, int tokens)
{
    for (int i = static_cast<int>(threadIdx.x); i < tokens * e.top_k;
         i += static_cast<int>(blockDim.x)) {
        const int t = i / e.top_k;
        const int x = r.chosen[static_cast<size_t>(begin) * static_cast<size_t>(e.top_k) +
                               static_cast<size_t>(i)] -
                      e.first;

        if (x >= 0 && x < e.local)
            atomicOr(&p.masks[x][t / 32], 1u << (t % 32));
    }
}

/* totals to starts, by the first warp; `keep`: to memory too */
__device__ __forceinline__ void scan_starts(const trmi_experts &e, const trmi_experts_routes &r,
                                            Place &p, bool keep)
{
    const int lane = static_cast<int>(threadIdx.x);
    int at = 0;

    if (lane >= 32)
        return;
    for (int x = lane; x - lane < e.local; x += 32) {
        const int own = x < e.local ? p.totals[x] : 0;
        int sum = own;

#pragma unroll
        for (int d = 1; d < 32; d *= 2) {
            const int other = __shfl_up_sync(kAll, sum, d);

            sum += lane >= d ? other : 0;
        }
        if (x < e.local) {
            p.totals[x] = at + sum - own;
            if (keep)
                r.starts[x] = at + sum - own;
        }
        at += __shfl_sync(kAll, sum, 31);
    }
    if (keep && lane == 0)
        r.starts[e.local] = at;
}

__device__ __forceinline__ void place_rows(const trmi_experts &e, const trmi_experts_routes &r,
                                           const Place &p, int begin, int tokens)
{
    for (int i = static_cast<int>(threadIdx.x); i < tokens * e.top_k;
         i += static_cast<int>(blockDim.x)) {
        const int t = i / e.top_k;
        const size_t at =
            static_cast<size_t>(begin) * static_cast<size_t>(e.top_k) + static_cast<size_t>(i);
        const int x = r.chosen[at] - e.first;
        int row = -1;

        if (x >= 0 && x < e.local) {
            row = p.totals[x] + p.before[x] + __popc(p.masks[x][t / 32] & ((1u << (t % 32)) - 1u));
            for (int w = 0; w < t / 32; w++)
                row += __popc(p.masks[x][w]);
            r.row_of[row] = begin + t;
        }
        r.rows[at] = row;
    }
}

template <int kPer>
__global__ void __launch_bounds__(kPlaceThreads)
    lm_route_alone(trmi_experts e, const float *logits, trmi_experts_routes r)
{
    TRM_KERNEL_BEGIN();
    __shared__ Place p;
    constexpr int kWords = TRMI_EXPERTS_ALONE / 32;

    for (int x = static_cast<int>(threadIdx.x); x < e.local; x += kPlaceThreads) {
        p.before[x] = 0;
#pragma unroll
        for (int w = 0; w < kWords; w++)
            p.masks[x][w] = 0;
    }
    for (int t = static_cast<int>(threadIdx.x) / 32; t < e.tokens; t += kPlaceThreads / 32)
        route_token<kPer>(e, logits, r, t);
    __syncthreads(); /* what the block wrote to memory is seen by it, too */
    mark_rows(e, r, p, 0, e.tokens);
    __syncthreads();
    for (int x = static_cast<int>(threadIdx.x); x < e.local; x += kPlaceThreads) {
        int total = 0;

#pragma unroll
        for (int w = 0; w < kWords; w++)
            total += __popc(p.masks[x][w]);
        p.totals[x] = total;
    }
    __syncthreads();
    scan_starts(e, r, p, true);
    __syncthreads();
    place_rows(e, r, p, 0, e.tokens);
}

template <int kPer>
__global__ void __launch_bounds__(kRouteWarps * 32)
    lm_route(trmi_experts e, const float *logits, trmi_experts_routes r)
{
    TRM_KERNEL_BEGIN();
    __shared__ int32_t counts[TRMI_EXPERTS_MAX];
    const int begin = static_cast<int>(blockIdx.x) * TRMI_EXPERTS_COUNTED;
    const int end =
        e.tokens - begin < TRMI_EXPERTS_COUNTED ? e.tokens : begin + TRMI_EXPERTS_COUNTED;

    for (int x = static_cast<int>(threadIdx.x); x < e.local; x += kRouteWarps * 32)
        counts[x] = 0;
    for (int t = begin + static_cast<int>(threadIdx.x) / 32; t < end; t += kRouteWarps)
        route_token<kPer>(e, logits, r, t);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < (end - begin) * e.top_k;
         i += kRouteWarps * 32) {
        const int x = r.chosen[static_cast<size_t>(begin) * static_cast<size_t>(e.top_k) +
                               static_cast<size_t>(i)] -
                      e.first;

        if (x >= 0 && x < e.local)
            atomicAdd(&counts[x], 1);
    }
    __syncthreads();
    for (int x = static_cast<int>(threadIdx.x); x < e.local; x += kRouteWarps * 32)
        r.counts[static_cast<size_t>(blockIdx.x) * static_cast<size_t>(e.local) +
                 static_cast<size_t>(x)] = counts[x];
}

/* Sums counts over all chunks and over those before the block's: threads of one expert take every
 * `slices`-th chunk, four on their way. */
__global__ void __launch_bounds__(kPlaceThreads)
    lm_route_place(trmi_experts e, trmi_experts_routes r, int chunks)
{
    TRM_KERNEL_BEGIN();
    __shared__ Place p;
    const int begin = static_cast<int>(blockIdx.x) * kPlaced;
    const int tokens = e.tokens - begin < kPlaced ? e.tokens - begin : kPlaced;
    const int mine = begin / TRMI_EXPERTS_COUNTED;
    const int slices = kPlaceThreads / e.local < 1 ? 1 : kPlaceThreads / e.local;
    const int slice = static_cast<int>(threadIdx.x) / e.local;

    for (int x = static_cast<int>(threadIdx.x); x < e.local; x += kPlaceThreads) {
        p.before[x] = 0;
        p.totals[x] = 0;
#pragma unroll
        for (int w = 0; w < kPlaced / 32; w++)
            p.masks[x][w] = 0;
    }
    __syncthreads();
    mark_rows(e, r, p, begin, tokens);
    if (slice < slices) {
        const int x = static_cast<int>(threadIdx.x) - slice * e.local;
        int before = 0, total = 0;

#pragma unroll 4
        for (int c = slice; c < chunks; c += slices) {
            const int n = r.counts[static_cast<size_t>(c) * static_cast<size_t>(e.local) +
                                   static_cast<size_t>(x)];

            before += c < mine ? n : 0;
            total += n;
        }
        atomicAdd(&p.before[x], before);
        atomicAdd(&p.totals[x], total);
    }
    __syncthreads();
    scan_starts(e, r, p, blockIdx.x == 0);
    __syncthreads();
    place_rows(e, r, p, begin, tokens);
}

int chunks_of(const trmi_experts *e, size_t tokens)
{
    (void)e;
    return static_cast<int>((tokens + TRMI_EXPERTS_COUNTED - 1) / TRMI_EXPERTS_COUNTED);
}

template <int kPer>
trm_status run(cudaStream_t stream, const trmi_experts *e, const float *logits,
               const trmi_experts_routes *r)
{
    const int chunks = chunks_of(e, static_cast<size_t>(e->tokens));

    if (e->tokens <= TRMI_EXPERTS_ALONE)
        return trmi_launched(
            TRM_LAUNCH((lm_route_alone<kPer>), 1, kPlaceThreads, 0, stream, *e, logits, *r),
            "lm route");
    TRM_CHECK(trmi_launched(TRM_LAUNCH((lm_route<kPer>), static_cast<unsigned>(chunks),
                                       kRouteWarps * 32, 0, stream, *e, logits, *r),
                            "lm route"));
    return trmi_launched(TRM_LAUNCH(lm_route_place,
                                    static_cast<unsigned>((e->tokens + kPlaced - 1) / kPlaced),
                                    kPlaceThreads, 0, stream, *e, *r, chunks),
                         "lm route place");
}

} // namespace

extern "C" size_t trmi_experts_counts(const trmi_experts *e, size_t tokens)
{
    return static_cast<size_t>(chunks_of(e, tokens)) * static_cast<size_t>(e->local);
}

extern "C" trm_status trmi_cuda_experts_route(cudaStream_t stream, const trmi_experts *e,
                                              const float *logits, const trmi_experts_routes *r)
{
    if (e->all < 1 || e->all > TRMI_EXPERTS_MAX || e->local < 1 || e->first + e->local > e->all ||
        e->top_k < 1 || e->top_k > e->all || e->top_k > TRMI_EXPERTS_TOP_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "routes to %d of %d experts, %d here", e->top_k,
                        e->all, e->local);
    if (e->tokens == 0)
        return TRM_OK;
    if (e->all <= 64)
        return run<2>(stream, e, logits, r);
    if (e->all <= 128)
        return run<4>(stream, e, logits, r);
    if (e->all <= 256)
        return run<8>(stream, e, logits, r);
    if (e->all <= 512)
        return run<16>(stream, e, logits, r);
    return run<32>(stream, e, logits, r);
}
