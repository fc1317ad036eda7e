/* Pad and ReverseSequence: a thread writes one unit of the output. */
#include "kernels/cuda/move_tile.cuh"

/* Axes from the outermost; the last one counts units. */
struct pad_shape {
    uint64_t count;
    trmi_pad_mode mode;
    int rank;
    trmi_div out_dims[TRM_RANK_MAX];
    int64_t begin[TRM_RANK_MAX], low[TRM_RANK_MAX], kept[TRM_RANK_MAX];
    int64_t steps[TRM_RANK_MAX]; /* of the input, in units */
    uint32_t elem;               /* bytes of the pad value */
};

/* Position i, relative to n kept elements, as one of them; -1: the pad value. */
__device__ __forceinline__ int64_t pad_source(trmi_pad_mode mode, int64_t i, int64_t n)
{
    if (i >= 0 && i < n)
        return i;
    if (mode == TRMI_PAD_CONSTANT)
        return -1;
    if (mode == TRMI_PAD_EDGE)
        return i < 0 ? 0 : n - 1;
    if (n == 1)
        return 0;
    const int64_t period = mode == TRMI_PAD_WRAP ? n : 2 * (n - 1);

    i %= period;
    i = i < 0 ? i + period : i;
    return i < n ? i : period - i;
}

/* A unit that is filled with the element at `value`. */
template <class V> __device__ V pad_fill(const unsigned char *value, uint32_t elem)
{
    union {
        V unit;
        unsigned char bytes[sizeof(V)];
    } x;

    for (uint32_t i = 0; i < sizeof(V); i++)
        x.bytes[i] = value == nullptr ? 0 : value[i % elem];
    return x.unit;
}

template <class V, class I>
static __global__ void __launch_bounds__(kMoveThreads)
    pad_units(const V *__restrict__ in, const unsigned char *__restrict__ value,
              V *__restrict__ out, const pad_shape p)
{
    TRM_KERNEL_BEGIN();
    const V outside = pad_fill<V>(value, p.elem);

    MOVE_LOOP(I, i, p.count)
    {
        I rest = i;
        int64_t at = 0;
        bool inside = true;

        for (int d = p.rank - 1; d >= 0; d--) {
            const int64_t x = static_cast<int64_t>(move_split(rest, p.out_dims[d]));
            const int64_t from = pad_source(p.mode, x - p.begin[d], p.kept[d]);

            inside = inside && from >= 0;
            at += (from + p.low[d]) * p.steps[d];
        }
        out[i] = inside ? in[at] : outside;
    }
}

template <class V>
static trm_status launch_pad(const trm_cuda *cuda, cudaStream_t stream, const pad_shape *p,
                             const void *in, const void *value, void *out)
{
    MOVE_INDEX(p->count, I, {
        return trmi_launched(TRM_LAUNCH((pad_units<V, I>), move_blocks(cuda, p->count),
                                        kMoveThreads, 0, stream, static_cast<const V *>(in),
                                        static_cast<const unsigned char *>(value),
                                        static_cast<V *>(out), *p),
                             "pad_units");
    })
}

/* Axes that are not padded join the axis before them; the last one, where it is not padded, is
 * counted in wide units. */
extern "C" trm_status trmi_cuda_pad(const trm_cuda *cuda, cudaStream_t stream, const trmi_pad *p,
                                    const void *in, const void *value, void *out)
{
    uint64_t in_dims[TRM_RANK_MAX + 1], inner = 1, length;
    pad_shape s = {};
    uint32_t unit;
    int n = 0;

    s.count = 1;
    s.mode = p->mode;
    s.elem = static_cast<uint32_t>(p->elem);
    for (int d = 0; d < p->rank; d++) {
        const bool whole = p->begin[d] == 0 && p->low[d] == 0 &&
                           p->kept[d] == static_cast<int64_t>(p->in_dims[d]) &&
                           p->in_dims[d] == p->out_dims[d];

        s.count *= p->out_dims[d];
        if (whole) {
            inner *= p->in_dims[d];
            continue;
        }
        if (inner > 1) { /* axes before this one that stay whole */
            in_dims[n] = inner;
            s.out_dims[n] = trmi_cuda_div(inner);
            s.kept[n++] = static_cast<int64_t>(inner);
            inner = 1;
        }
        in_dims[n] = p->in_dims[d];
        s.out_dims[n] = trmi_cuda_div(p->out_dims[d]);
        s.begin[n] = p->begin[d];
        s.low[n] = p->low[d];
        s.kept[n++] = p->kept[d];
    }
    if (s.count == 0)
        return TRM_OK;
    length = inner * p->elem; /* bytes that are copied or filled together */
    unit = move_unit(length | move_address(in) | move_address(out));
    s.count = s.count / inner * (length / unit);
    if (length > unit) {
        in_dims[n] = length / unit;
        s.out_dims[n] = trmi_cuda_div(length / unit);
        s.kept[n++] = static_cast<int64_t>(length / unit);
    }
    s.rank = n;
    for (int64_t d = n - 1, step = 1; d >= 0; d--) {
        s.steps[d] = step;
        step *= static_cast<int64_t>(in_dims[d]);
    }
    MOVE_UNITS(unit, V, { return launch_pad<V>(cuda, stream, &s, in, value, out); })
}

template <class V>
static __global__ void __launch_bounds__(kMoveThreads)
    reverse_units(const V *__restrict__ in, const void *__restrict__ lengths, V *__restrict__ out,
                  int64_t *bad, uint64_t count, uint64_t units, const trmi_reverse r)
{
    TRM_KERNEL_BEGIN();
    const int64_t steps = static_cast<int64_t>(r.time_first ? r.d0 : r.d1);

    MOVE_LOOP(uint64_t, i, count)
    {
        const uint64_t row = i / units, unit = i - row * units;
        const uint64_t x0 = row / r.d1, x1 = row - x0 * r.d1;
        const uint64_t batch = r.time_first ? x1 : x0;
        const int64_t t = static_cast<int64_t>(r.time_first ? x0 : x1);
        const int64_t length = move_index(lengths, r.index_dtype == TRM_DTYPE_I64, batch);
        V x = {};

        if (length < 0 || length > steps) {
            move_note(bad, length, batch, 0, steps);
        } else {
            const uint64_t from = static_cast<uint64_t>(t < length ? length - 1 - t : t);

            x = in[(r.time_first ? from * r.d1 + x1 : x0 * r.d1 + from) * units + unit];
        }
        out[i] = x;
    }
}

extern "C" trm_status trmi_cuda_reverse(const trm_cuda *cuda, cudaStream_t stream,
                                        const trmi_reverse *r, const void *in,
                                        const void *lengths, void *out, void *bad)
{
    const uint32_t unit = move_unit(r->inner_bytes | move_address(in) | move_address(out));
    const uint64_t units = r->inner_bytes / unit;
    const uint64_t count = static_cast<uint64_t>(r->d0) * r->d1 * units;

    if (count == 0)
        return TRM_OK;
    MOVE_UNITS(unit, V, {
        return trmi_launched(TRM_LAUNCH(reverse_units<V>, move_blocks(cuda, count), kMoveThreads, 0,
                                        stream, static_cast<const V *>(in), lengths,
                                        static_cast<V *>(out), static_cast<int64_t *>(bad), count,
                                        units, *r),
                             "reverse_units");
    })
}
