/* Sampling, the last step: a block a row, which has the row's largest, sums, and the list of its
 * candidates; gives the token and what is reported of it.
 *
 * Candidates stay where they are. top_k, top_p and typical_p each leave those whose key comes up to
 * a bound, a key being what worker/language/candidates.c sorts by and then the id, so that no two
 * are equal; `select` finds the bound by counting, or adding weights, in buckets of some bits of
 * the key, from the highest that differ on, as a radix sort would. The draw is the same search:
 * for the key at which the sum of weights passes a random part of the whole. Order: what
 * candidates.c has in its list: tokens before the bucket in which top_p (typical_p) was reached in
 * the order they had before, those in that bucket by their key; hence up to three segments.
 *
 * Where the list was too short for the candidates, each pass reads the row again and finds them by
 * the same rule as lm_sample_gather: slower, the same result. */
#include "kernels/cuda/lm_sample.cuh"

using namespace trmi_lms;

namespace
{

constexpr int kDigit = 11; /* bits of a key that a level of the search looks at */
static_assert(1 << kDigit == kBuckets, "a bucket a digit");

union Levels {
    struct {
        uint32_t counts[kBuckets], low[kBuckets], high[kBuckets], owners[kBuckets];
    } buckets;
    double sums[2 * kBuckets]; /* of chunks */
};
static_assert(TRMI_LMS_VOCABULARY_MAX / kChunk <= 2 * kBuckets, "sums of chunks fit");

struct Shared {
    Levels levels;
    uint64_t sums[32], words[4];
    Place place;
    int32_t id;
    uint32_t top_count;
    uint64_t top_keys[TRM_STEP_TOP_MAX];
    double log_sum;
    uint32_t larger;
};

struct Item {
    int32_t id;
    float value, z;
};

/* Which tokens there are at first. */
struct Source {
    const Row *row;
    const trmi_lms_candidate *list; /* NULL: all of the row that is not too small */
    int32_t count;
    bool raw; /* the row as it came: for what is reported */
    float max, scale, least;
    int cut;

    __device__ __forceinline__ bool get(int32_t j, Item *q) const
    {
        if (list != nullptr) {
            q->id = list[j].id;
            q->value = list[j].value;
            q->z = z_of(q->value, max, scale);
            return true;
        }
        q->id = j;
        q->value = raw ? row->raw(j) : row->value(j);
        q->z = z_of(q->value, max, scale);
        return q->value != kLowest && (raw || q->z >= least) && bucket_of(-q->z) <= cut;
    }
};

enum Key { kById, kByValue, kByZ, kByTypical };

/* What is left of them. */
struct Filter {
    bool top_k, top_p, min_p, typical;
    Key first; /* order before top_p */
    uint64_t top_k_at, top_p_at;
    int top_p_bucket;
    double min_weight;
    double log_total, entropy;
    uint32_t typical_at;
    int typical_bucket;

    __device__ __forceinline__ float typical_of(const Item &q) const
    {
        return static_cast<float>(
            fabs(__dsub_rn(__dsub_rn(log_total, static_cast<double>(q.z)), entropy)));
    }
    __device__ __forceinline__ uint64_t key_of(Key key, const Item &q) const
    {
        const uint32_t high = key == kById      ? 0
                              : key == kByValue ? order_of(-q.value)
                              : key == kByZ     ? order_of(-q.z)
                                                : order_of(typical_of(q));

        return static_cast<uint64_t>(high) << 32 | static_cast<uint32_t>(q.id);
    }
    __device__ __forceinline__ bool keeps(const Item &q) const
    {
        if (top_k && key_of(first, q) > top_k_at)
            return false;
        if (top_p && key_of(kByZ, q) > top_p_at)
            return false;
        if (min_p && static_cast<double>(exp_of(q.z)) < min_weight)
            return false;
        return !typical || order_of(typical_of(q)) <= typical_at;
    }
    __device__ __forceinline__ bool any() const
    {
        return top_k || top_p || min_p || typical;
    }
    /* Which part of the order it is in. */
    __device__ __forceinline__ int segment_of(const Item &q) const
    {
        if (typical && bucket_of(typical_of(q)) >= typical_bucket)
            return 2;
        return top_p && bucket_of(-q.z) >= top_p_bucket ? 1 : 0;
    }
};

template <int T> struct Block {
    const Source *source;
    Shared *shared;
    int shift;

    __device__ __forceinline__ int thread() const
    {
        return static_cast<int>(threadIdx.x);
    }
    __device__ __forceinline__ uint64_t weight_of(const Item &q) const
    {
        return fixed_of(exp_of(q.z), shift);
    }
    /* Of all threads. */
    __device__ uint64_t sum(uint64_t v) const
    {
        uint64_t total = 0;

        v = warp_sum(v);
        if (thread() % 32 == 0)
            shared->sums[thread() / 32] = v;
        __syncthreads();
        for (int w = 0; w < T / 32; w++)
            total += shared->sums[w];
        __syncthreads();
        return total;
    }
    __device__ uint64_t largest(uint64_t v) const
    {
        uint64_t most = 0;

        v = warp_max(v);
        if (thread() % 32 == 0)
            shared->sums[thread() / 32] = v;
        __syncthreads();
        for (int w = 0; w < T / 32; w++)
            most = shared->sums[w] > most ? shared->sums[w] : most;
        __syncthreads();
        return most;
    }
    /* Calls f(item) for each that the filter keeps. */
    template <class F> __device__ __forceinline__ void each(const Filter &filter, F f) const
    {
        for (int32_t j = thread(); j < source->count; j += T) {
            Item q;

            if (source->get(j, &q) && filter.keeps(q))
                f(q, j);
        }
    }
    __device__ __attribute__((noinline)) uint64_t weight(const Filter &filter) const
    {
        uint64_t w = 0;

        each(filter, [&](const Item &q, int32_t) { w += weight_of(q); });
        return sum(w);
    }
    __device__ __attribute__((noinline)) uint64_t count(const Filter &filter) const
    {
        uint64_t n = 0;

        if (source->list != nullptr && !filter.any())
            return static_cast<uint64_t>(source->count);
        each(filter, [&](const Item &, int32_t) { n++; });
        return sum(n);
    }
    __device__ __attribute__((noinline)) uint64_t select(const Filter &filter, Key key, int segment,
                                                         bool by_weight, uint64_t target) const;
};

/* The least key so that what the filter keeps of the segment (-1: of all) up to it reaches the
 * target: in tokens, or in weight. There is such a one. */
template <int T>
__device__ __attribute__((noinline)) uint64_t
Block<T>::select(const Filter &filter, Key key, int segment, bool by_weight, uint64_t target) const
{
    auto &b = shared->levels.buckets;
    uint64_t least = ~0ull, most = 0, known;
    int shift;

    each(filter, [&](const Item &q, int32_t) {
        if (segment >= 0 && filter.segment_of(q) != segment)
            return;
        const uint64_t k = filter.key_of(key, q);

        least = k < least ? k : least;
        most = k > most ? k : most;
    });
    most = largest(most);
    least = ~largest(~least);
    if (least >= most)
        return most;
    shift = 64 - __clzll(static_cast<long long>(least ^ most));
    known = shift < 64 ? most >> shift : 0;
    while (shift > 0) {
        const int above = shift, digit = shift < kDigit ? shift : kDigit;

        shift -= digit;
        for (int i = thread(); i < kBuckets; i += T)
            b.counts[i] = b.low[i] = b.high[i] = b.owners[i] = 0;
        __syncthreads();
        each(filter, [&](const Item &q, int32_t j) {
            const uint64_t k = filter.key_of(key, q);

            if ((segment >= 0 && filter.segment_of(q) != segment) ||
                (above < 64 ? k >> above : 0) != known)
                return;
            const uint32_t at = static_cast<uint32_t>(k >> shift) & ((1u << digit) - 1);

            atomicAdd(&b.counts[at], 1u);
            atomicMax(&b.owners[at], static_cast<uint32_t>(j));
            if (by_weight)
                add_mass(weight_of(q), &b.low[at], &b.high[at]);
        });
        __syncthreads();
        const Place p = find_bucket<T>(
            [&](int i) {
                return by_weight ? static_cast<uint64_t>(b.high[i]) << 32 | b.low[i]
                                 : static_cast<uint64_t>(b.counts[i]);
            },
            target, shared->sums, &shared->place);

        if (b.counts[p.bucket] == 1) { /* found before all bits are */
            Item q;

            (void)source->get(static_cast<int32_t>(b.owners[p.bucket]), &q);
            known = filter.key_of(key, q);
            shift = 0;
        } else {
            known = known << digit | p.bucket;
            target -= p.before;
        }
        __syncthreads();
    }
    return known;
}

/* ---- the draw ---- */

/* Draws from a row that nothing cuts: the chunk by the chunks' sums, which are the CPU's, the token
 * within it. */
template <int T>
__device__ __forceinline__ int32_t draw_row(const Row &r, const Block<T> &b, int chunks, float max,
                                            double u)
{
    Shared &sh = *b.shared;
    double *sums = sh.levels.sums;
    const int t = b.thread();

    for (int i = t; i < chunks; i += T)
        sums[i] = r.sums[i];
    __syncthreads();
    if (t < 32) {
        double total = 0, sum = 0;
        int chunk = 0;

        for (int i = 0; i < chunks; i++)
            total = __dadd_rn(total, sums[i]);
        const double at = __dmul_rn(u, total);

        for (int i = 0; i < chunks; i++) {
            const double s = sums[i];

            if (s == 0)
                continue;
            chunk = i;
            if (__dadd_rn(sum, s) > at)
                break;
            sum = __dadd_rn(sum, s);
        }
        if (sum > at) /* past the end by rounding: the last chunk that holds anything */
            sum = at;
        /* a lane a range of the chunk */
        const int32_t first = chunk * kChunk + t * (kChunk / 32);
        const auto weight = [&](int32_t i) {
            return i < r.vocabulary ? static_cast<double>(exp_of(z_of(r.value(i), max, r.scale)))
                                    : 0.0;
        };
        double own = 0, upto;
        int32_t last = -1, hit = -1;

        for (int i = 0; i < kChunk / 32; i++)
            own = __dadd_rn(own, weight(first + i));
        upto = own;
        for (int d = 1; d < 32; d *= 2) {
            const double w = __shfl_up_sync(kAll, upto, d);

            upto = t >= d ? __dadd_rn(upto, w) : upto;
        }
        double at_lane = __shfl_up_sync(kAll, upto, 1);

        at_lane = t == 0 ? sum : __dadd_rn(sum, at_lane);
        for (int i = 0; i < kChunk / 32 && hit < 0; i++) {
            const double w = weight(first + i);

            if (w == 0)
                continue;
            last = first + i;
            at_lane = __dadd_rn(at_lane, w);
            hit = at_lane > at ? last : -1;
        }
        const uint32_t hits = __ballot_sync(kAll, hit >= 0), lasts = __ballot_sync(kAll, last >= 0);
        const int lane = hits != 0 ? __ffs(static_cast<int>(hits)) - 1 : 31 - __clz(lasts);
        const int32_t id = __shfl_sync(kAll, hits != 0 ? hit : last, lane & 31);

        if (t == 0)
            sh.id = id;
    }
    __syncthreads();
    return sh.id;
}

/* top_k, top_p, min_p and typical_p make the filter, one after the other. */
template <int T>
__device__ __forceinline__ int32_t draw_candidates(const Block<T> &b, const Row &r,
                                                   const trm_step_sample &s)
{
    Filter f = {};
    uint64_t total, key;
    Item q;

    f.first = !r.top_k ? kById : s.top_k <= kTopScan ? kByValue : kByZ;
    if (r.top_k && b.count(f) > static_cast<uint64_t>(s.top_k)) {
        key = b.select(f, f.first, -1, false, static_cast<uint64_t>(s.top_k));
        f.top_k_at = key;
        f.top_k = true;
    }
    if (r.top_p) {
        total = r.top_k ? b.weight(f) : r.work->total;
        key = b.select(f, kByZ, -1, true, wanted_of(static_cast<double>(s.top_p), total));
        f.top_p_at = key;
        f.top_p_bucket =
            bucket_of(-z_of(r.value(static_cast<int32_t>(key)), b.source->max, r.scale));
        f.top_p = true;
    }
    if (r.min_p) { /* the largest weighs 1, and is always there */
        f.min_weight = static_cast<double>(s.min_p);
        f.min_p = true;
    }
    if (r.typical) {
        uint64_t mean = 0;
        const double scale = static_cast<double>(1ull << b.shift);

        total = b.weight(f);
        b.each(f, [&](const Item &i, int32_t) {
            mean += __double2ull_rn(static_cast<double>(exp_of(i.z)) * static_cast<double>(-i.z) *
                                    scale);
        });
        mean = b.sum(mean);
        f.log_total = log(static_cast<double>(total) / scale);
        f.entropy = f.log_total + static_cast<double>(mean) / static_cast<double>(total);
        key = b.select(f, kByTypical, -1, true, wanted_of(static_cast<double>(s.typical_p), total));
        q.z = z_of(r.value(static_cast<int32_t>(key)), b.source->max, r.scale);
        f.typical_at = static_cast<uint32_t>(key >> 32);
        f.typical_bucket = bucket_of(f.typical_of(q));
        f.typical = true;
    }
    /* the draw */
    uint64_t w[3] = {0, 0, 0};

    b.each(f, [&](const Item &i, int32_t) {
        const uint64_t x = b.weight_of(i);
        const int at = f.segment_of(i);

        w[0] += at == 0 ? x : 0;
        w[1] += at == 1 ? x : 0;
        w[2] += at == 2 ? x : 0;
    });
    for (int i = 0; i < 3; i++)
        w[i] = b.sum(w[i]);
    total = w[0] + w[1] + w[2];
    uint64_t target =
        static_cast<uint64_t>(floor(__dmul_rn(uniform(s), static_cast<double>(total)))) + 1;
    int segment = 0;

    target = target < total ? target : total;
    while (segment < 2 && target > w[segment])
        target -= w[segment++];
    key = b.select(f,
                   segment == 0   ? f.first
                   : segment == 1 ? kByZ
                                  : kByTypical,
                   segment, true, target);
    return static_cast<int32_t>(key);
}

template <int T>
__device__ __forceinline__ int32_t draw(const Args &a, const Row &r, const Head &h,
                                        const trm_step_sample &s, Shared *shared)
{
    const float max = h.max();
    Source source = {};
    Block<T> b = {&source, shared, a.shape.shift};

    if (!r.draws)
        return best_id(h.best);
    if (!r.filtered())
        return draw_row<T>(r, b, a.shape.chunks, max, uniform(s));
    source.row = &r;
    source.max = max;
    source.scale = r.scale;
    source.cut = kBuckets;
    source.least = kLeast;
    source.count = r.vocabulary;
    if (r.listed()) {
        const uint32_t listed = r.work->listed;

        source.cut = r.work->cut;
        if (!r.top_k && !r.top_p)
            source.least = fmaxf(kLeast, logf(s.min_p) - 1e-3f);
        if (listed <= TRMI_LMS_LIST) {
            source.list = r.work->list;
            source.count = static_cast<int32_t>(listed);
        }
    }
    return draw_candidates<T>(b, r, s);
}

/* ---- what is reported ---- */

/* Tokens of the row as it came that are likelier than `id`. */
template <int T>
__device__ __forceinline__ uint32_t likelier(const Row &r, const Block<T> &b, int32_t id)
{
    const float value = r.raw(id);
    uint64_t larger = 0;

#pragma unroll 8
    for (int32_t i = b.thread(); i < r.vocabulary; i += T) {
        const float v = r.raw(i);

        larger += v > value || (v == value && i < id);
    }
    return static_cast<uint32_t>(b.sum(larger));
}

template <int T>
__device__ __forceinline__ void report_top(const Row &r, const Head &h, const Block<T> &b,
                                           Source *source, int32_t wanted, double log_sum,
                                           trm_step_sampled *out)
{
    Shared &sh = *b.shared;
    Filter f = {};
    const uint32_t listed = r.work->top_listed;
    uint64_t bound = ~0ull;

    source->row = &r;
    source->list = listed <= TRMI_LMS_TOP_LIST ? r.work->top_list : nullptr;
    source->count = source->list != nullptr ? static_cast<int32_t>(listed) : r.vocabulary;
    source->raw = true;
    source->max = h.raw_max();
    source->scale = 1;
    source->cut = kBuckets;
    if (b.count(f) > static_cast<uint64_t>(wanted))
        bound = b.select(f, kByValue, -1, false, static_cast<uint64_t>(wanted));
    if (b.thread() == 0)
        sh.top_count = 0;
    __syncthreads();
    b.each(f, [&](const Item &q, int32_t) {
        const uint64_t key = f.key_of(kByValue, q);

        if (key > bound)
            return;
        const uint32_t at = atomicAdd(&sh.top_count, 1u);

        if (at < TRM_STEP_TOP_MAX)
            sh.top_keys[at] = key;
    });
    __syncthreads();
    const int count = static_cast<int>(min(sh.top_count, static_cast<uint32_t>(TRM_STEP_TOP_MAX)));
    const int t = b.thread();

    if (t == 0)
        out->top_count = count;
    if (t >= count)
        return;
    const int32_t id = static_cast<int32_t>(sh.top_keys[t]);
    int at = 0;

    for (int i = 0; i < count; i++)
        at += sh.top_keys[i] < sh.top_keys[t];
    out->top_ids[at] = id;
    out->top_logprobs[at] = static_cast<float>(__dsub_rn(static_cast<double>(r.raw(id)), log_sum));
}

template <int T>
__device__ __forceinline__ void report(const Args &a, const Row &r, const Head &h, int32_t id,
                                       int32_t logprobs, Shared *shared, trm_step_sampled *out)
{
    Source source = {};
    Block<T> b = {&source, shared, a.shape.shift};
    double *sums = shared->levels.sums;
    const int t = b.thread();
    uint32_t rank = 1;

    for (int i = t; i < a.shape.chunks; i += T)
        sums[i] = r.raw_sums[i];
    __syncthreads();
    if (t == 0) {
        double total = 0;

        for (int i = 0; i < a.shape.chunks; i++)
            total = __dadd_rn(total, sums[i]);
        shared->log_sum = static_cast<double>(h.raw_max()) + log(total);
    }
    __syncthreads();
    const double log_sum = shared->log_sum;

    if (id != best_id(h.raw_best))
        rank += likelier<T>(r, b, id);
    if (t == 0) {
        out->logprob = static_cast<float>(__dsub_rn(static_cast<double>(r.raw(id)), log_sum));
        out->rank = static_cast<int32_t>(rank);
    }
    if (logprobs > 0)
        report_top<T>(r, h, b, &source, min(logprobs, TRM_STEP_TOP_MAX), log_sum, out);
}

/* ---- the kernel ---- */

/* What else than a token comes of the row; 0: nothing else. */
__device__ __forceinline__ int32_t failure(const Args &a, const Row &r, const Head &h,
                                           const trm_step_sample &s)
{
    if (a.block->vocabulary != a.shape.vocabulary || h.bad ||
        (s.row_kind != 0 && (s.target < 0 || s.target >= r.vocabulary)))
        return TRM_STEP_SAMPLED_NOTHING;
    if (h.fails())
        return r.allowed != nullptr ? TRM_STEP_SAMPLED_CONSTRAINED : TRM_STEP_SAMPLED_NOTHING;
    return 0;
}

/* The slot's last token, and its count. */
__device__ __forceinline__ void keep(const Args &a, const Row &r, const trm_step_sample &s,
                                     int32_t id)
{
    const trmi_lm_block *block = a.block;

    if (s.slot < 0 || s.slot >= block->slots)
        return;
    if (block->slot_tokens != nullptr)
        block->slot_tokens[s.slot] = id;
    if (r.counts == nullptr)
        return;
    uint16_t *count = block->slot_counts + static_cast<size_t>(s.slot) * r.vocabulary + id;

    if ((*count & TRM_STEP_COUNT_MAX) < TRM_STEP_COUNT_MAX)
        *count = static_cast<uint16_t>(*count + 1);
}

template <int T> __global__ void __launch_bounds__(T, 1) lm_sample_draw(Args a)
{
    __shared__ Shared shared;

    TRM_KERNEL_BEGIN();
    const uint32_t row = blockIdx.x;

    if (row >= static_cast<uint32_t>(a.block->sample_count))
        return;
    const Row r = row_of(a, row);
    const trm_step_sample &s = sample_of(a, row)->sample;
    const Head h = head_of(r, a.shape.parts);
    const int32_t failed = failure(a, r, h, s);
    trm_step_sampled *out = a.out + row;
    const int t = static_cast<int>(threadIdx.x);

    for (int i = t; i < static_cast<int>(sizeof(*out) / sizeof(int32_t)); i += T)
        reinterpret_cast<int32_t *>(out)[i] = 0;
    __syncthreads();
    if (failed != 0) {
        if (t == 0)
            out->id = failed;
        return;
    }
    const int32_t id = s.row_kind != 0 ? s.target : draw<T>(a, r, h, s, &shared);

    if (t == 0)
        out->id = id;
    __syncthreads();
    if (s.logprobs >= 0)
        report<T>(a, r, h, id, s.logprobs, &shared, out);
    if (t == 0 && s.row_kind == 0) /* nobody reads the counts any more */
        keep(a, r, s, id);
}

} // namespace

extern "C" trm_status trmi_cuda_lm_sample_draw(const trmi_lms_shape *shape,
                                               const trmi_lm_block *block, const float *logits,
                                               trm_step_sampled *out, void *workspace,
                                               cudaStream_t stream)
{
    const Args a = {*shape, block, logits, static_cast<unsigned char *>(workspace), out};
    const unsigned rows = static_cast<unsigned>(shape->rows);

    if (rows == 0)
        return TRM_OK;
    return shape->vocabulary <= TRMI_LMS_SMALL
               ? trmi_launched(TRM_LAUNCH((lm_sample_draw<128>), rows, 128, 0, stream, a),
                               "lm_sample_draw")
               : trmi_launched(TRM_LAUNCH((lm_sample_draw<512>), rows, 512, 0, stream, a),
                               "lm_sample_draw");
}
