/* Gather, GatherElements, GatherND and TrmGatherPart: a thread writes one unit of the output. */
#include "kernels/cuda/move_tile.cuh"

/* Where a row of the whole lies: every row is here. */
struct gather_whole {
    __device__ int64_t at(int64_t row) const
    {
        return row;
    }
};
/* The rows of some ranges are here, -1: elsewhere. */
struct gather_ranges {
    int count;
    int64_t range[TRMI_GATHER_RANGES][2];

    __device__ int64_t at(int64_t row) const
    {
        int64_t before = 0;

        for (int i = 0; i < count; i++) {
            if (row >= range[i][0] && row < range[i][1])
                return before + row - range[i][0];
            before += range[i][1] - range[i][0];
        }
        return -1;
    }
};

struct gather_shape {
    uint64_t count;          /* units of the output */
    trmi_div units, indices; /* units of a row, rows of a slice */
    int64_t limit, held;
    bool wide; /* indices are i64 */
};

template <class V, class I, class R>
static __global__ void __launch_bounds__(kMoveThreads)
    gather_rows(const V *__restrict__ in, const void *__restrict__ index, V *__restrict__ out,
                int64_t *bad, const gather_shape g, const R ranges)
{
    TRM_KERNEL_BEGIN();
    MOVE_LOOP(I, i, g.count)
    {
        I outer = i;
        const I unit = move_split(outer, g.units);
        const I k = move_split(outer, g.indices);
        const int64_t v = move_index(index, g.wide, k);
        int64_t row = -1;
        V x = {};

        if (v < -g.limit || v >= g.limit)
            move_note(bad, v, k, -g.limit, g.limit - 1);
        else
            row = ranges.at(v < 0 ? v + g.limit : v);
        if (row >= 0)
            x = in[(static_cast<int64_t>(outer) * g.held + row) * static_cast<int64_t>(g.units.by) +
                   unit];
        out[i] = x;
    }
}

template <class V, class R>
static trm_status launch_rows(const trm_cuda *cuda, cudaStream_t stream, const void *in,
                              const void *index, void *out, void *bad, const gather_shape *g,
                              const R *ranges)
{
    MOVE_INDEX(g->count, I, {
        return trmi_launched(TRM_LAUNCH((gather_rows<V, I, R>), move_blocks(cuda, g->count),
                                        kMoveThreads, 0, stream, static_cast<const V *>(in), index,
                                        static_cast<V *>(out), static_cast<int64_t *>(bad), *g,
                                        *ranges),
                             "gather_rows");
    })
}

extern "C" trm_status trmi_cuda_gather_rows(const trm_cuda *cuda, cudaStream_t stream,
                                            const trmi_gather *p, const void *in,
                                            const void *index, void *out, void *bad)
{
    const uint32_t unit = move_unit(p->inner_bytes | move_address(in) | move_address(out));
    gather_shape g = {};

    g.units = trmi_cuda_div(p->inner_bytes / unit);
    g.indices = trmi_cuda_div(p->indices);
    g.count = static_cast<uint64_t>(p->outer) * p->indices * (p->inner_bytes / unit);
    g.limit = p->limit;
    g.held = p->held;
    g.wide = p->index_dtype == TRM_DTYPE_I64;
    if (g.count == 0)
        return TRM_OK;
    if (p->range_count == 0) {
        const gather_whole whole = {};

        MOVE_UNITS(unit, V, {
            return launch_rows<V>(cuda, stream, in, index, out, bad, &g, &whole);
        })
    }
    gather_ranges ranges = {};

    ranges.count = p->range_count;
    for (int i = 0; i < p->range_count; i++)
        for (int j = 0; j < 2; j++)
            ranges.range[i][j] = p->ranges[i][j];
    MOVE_UNITS(unit, V,
               { return launch_rows<V>(cuda, stream, in, index, out, bad, &g, &ranges); })
}

template <class T, class I>
static __global__ void __launch_bounds__(kMoveThreads)
    gather_elements(const T *__restrict__ in, const void *__restrict__ index, T *__restrict__ out,
                    int64_t *bad, const trmi_gather_elements g)
{
    TRM_KERNEL_BEGIN();
    const bool wide = g.index_dtype == TRM_DTYPE_I64;

    MOVE_LOOP(I, i, g.count)
    {
        const int64_t v = move_index(index, wide, i);
        const bool good = v >= -g.limit && v < g.limit;
        I rest = i;
        int64_t at = good ? (v < 0 ? v + g.limit : v) * g.steps[g.axis] : 0;

        for (int d = g.rank - 1; d >= 0; d--) {
            const int64_t x = static_cast<int64_t>(move_split(rest, g.dims[d]));

            at += d == g.axis ? 0 : x * g.steps[d];
        }
        if (!good)
            move_note(bad, v, i, -g.limit, g.limit - 1);
        out[i] = good ? in[at] : T(0);
    }
}

template <class T>
static trm_status launch_elements(const trm_cuda *cuda, cudaStream_t stream, const void *in,
                                  const void *index, void *out, void *bad,
                                  const trmi_gather_elements *g)
{
    MOVE_INDEX(g->count, I, {
        return trmi_launched(TRM_LAUNCH((gather_elements<T, I>), move_blocks(cuda, g->count),
                                        kMoveThreads, 0, stream, static_cast<const T *>(in), index,
                                        static_cast<T *>(out), static_cast<int64_t *>(bad), *g),
                             "gather_elements");
    })
}

extern "C" trm_status trmi_cuda_gather_elements(const trm_cuda *cuda, cudaStream_t stream,
                                                const trmi_gather_elements *g, const void *in,
                                                const void *index, void *out, void *bad)
{
    if (g->count == 0)
        return TRM_OK;
    MOVE_ELEMENTS(g->elem, T,
                  { return launch_elements<T>(cuda, stream, in, index, out, bad, g); })
}

struct gather_nd_shape {
    uint64_t count; /* units of the output */
    trmi_div units, per_batch;
    int depth;
    int64_t dims[TRM_RANK_MAX], steps[TRM_RANK_MAX]; /* steps in slices */
    int64_t batch_slices;
    bool wide;
};

template <class V, class I>
static __global__ void __launch_bounds__(kMoveThreads)
    gather_nd(const V *__restrict__ in, const void *__restrict__ index, V *__restrict__ out,
              int64_t *bad, const gather_nd_shape g)
{
    TRM_KERNEL_BEGIN();
    MOVE_LOOP(I, i, g.count)
    {
        I tuple = i;
        const I unit = move_split(tuple, g.units);
        I batch = tuple;
        bool good = true;
        V x = {};

        (void)move_split(batch, g.per_batch);
        int64_t slice = static_cast<int64_t>(batch) * g.batch_slices;
        for (int d = 0; d < g.depth; d++) {
            const uint64_t at = static_cast<uint64_t>(tuple) * g.depth + d;
            const int64_t v = move_index(index, g.wide, at);

            if (v < -g.dims[d] || v >= g.dims[d]) {
                move_note(bad, v, at, -g.dims[d], g.dims[d] - 1);
                good = false;
                break;
            }
            slice += (v < 0 ? v + g.dims[d] : v) * g.steps[d];
        }
        if (good)
            x = in[slice * static_cast<int64_t>(g.units.by) + unit];
        out[i] = x;
    }
}

template <class V>
static trm_status launch_nd(const trm_cuda *cuda, cudaStream_t stream, const void *in,
                            const void *index, void *out, void *bad, const gather_nd_shape *g)
{
    MOVE_INDEX(g->count, I, {
        return trmi_launched(TRM_LAUNCH((gather_nd<V, I>), move_blocks(cuda, g->count),
                                        kMoveThreads, 0, stream, static_cast<const V *>(in), index,
                                        static_cast<V *>(out), static_cast<int64_t *>(bad), *g),
                             "gather_nd");
    })
}

extern "C" trm_status trmi_cuda_gather_nd(const trm_cuda *cuda, cudaStream_t stream,
                                          const trmi_gather_nd *p, const void *in,
                                          const void *index, void *out, void *bad)
{
    const uint32_t unit = move_unit(p->inner_bytes | move_address(in) | move_address(out));
    gather_nd_shape g = {};

    g.units = trmi_cuda_div(p->inner_bytes / unit);
    g.per_batch = trmi_cuda_div(p->per_batch);
    g.count = static_cast<uint64_t>(p->tuples) * (p->inner_bytes / unit);
    g.depth = p->depth;
    for (int d = 0; d < p->depth; d++) {
        g.dims[d] = p->dims[d];
        g.steps[d] = p->steps[d];
    }
    g.batch_slices = p->batch_slices;
    g.wide = p->index_dtype == TRM_DTYPE_I64;
    if (g.count == 0)
        return TRM_OK;
    MOVE_UNITS(unit, V, { return launch_nd<V>(cuda, stream, in, index, out, bad, &g); })
}
