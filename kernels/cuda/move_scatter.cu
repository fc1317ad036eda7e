/* ScatterElements, ScatterND and TensorScatter.
 *
 * The result is that of applying the updates one after another, whatever indices repeat, and does
 * not depend on the order in which threads run:
 *  1. scatter_link finds the slice of each update. Without a reduction the highest update number of
 *     a slice is kept (atomicMax); with one, the updates of a slice are linked to a list whose head
 *     is kept (atomicExch): the lists are unordered, the sets are not;
 *  2. the update that is its slice's head applies all of the slice's, in ascending order: short
 *     lists by picking the next larger number again and again, long ones by going through the
 *     slices of all updates. */
#include "kernels/cuda/move_tile.cuh"

constexpr uint32_t kScatterShort = 24; /* lists up to this long are sorted by picking */

/* Thread: update i. slice[i]: where it goes, -1: nowhere. */
template <class I>
static __global__ void __launch_bounds__(kMoveThreads)
    scatter_link(const void *__restrict__ index, int64_t *__restrict__ slice,
                 uint32_t *__restrict__ head, uint32_t *__restrict__ next, int64_t *bad,
                 const trmi_scatter s)
{
    TRM_KERNEL_BEGIN();
    const bool wide = s.index_dtype == TRM_DTYPE_I64;

    MOVE_LOOP(I, i, s.count)
    {
        const int count = s.depth > 0 ? s.depth : 1;
        bool good = true;
        int64_t at = 0;
        I rest = i;

        for (int d = s.rank - 1; d >= 0 && s.depth == 0; d--) {
            const int64_t x = static_cast<int64_t>(move_split(rest, s.dims[d]));

            at += d == s.axis ? 0 : x * s.steps[d];
        }
        for (int d = 0; d < count && good; d++) {
            const int axis = s.depth > 0 ? d : s.axis;
            const uint64_t element = static_cast<uint64_t>(i) * count + d;
            const int64_t v = move_index(index, wide, element), limit = s.limits[axis];

            good = v >= -limit && v < limit;
            if (good)
                at += (v < 0 ? v + limit : v) * s.steps[axis];
            else
                move_note(bad, v, element, -limit, limit - 1);
        }
        slice[i] = good ? at : -1;
        if (!good)
            continue;
        if (s.reduction == TRMI_SCATTER_NONE)
            atomicMax(head + at, static_cast<uint32_t>(i) + 1);
        else
            next[i] = atomicExch(head + at, static_cast<uint32_t>(i) + 1);
    }
}

/* Thread: one unit of an update; written if the update is the last of its slice. */
template <class V, class I>
static __global__ void __launch_bounds__(kMoveThreads)
    scatter_last(const V *__restrict__ updates, V *__restrict__ out,
                 const int64_t *__restrict__ slice, const uint32_t *__restrict__ head,
                 uint64_t count, const trmi_div units)
{
    TRM_KERNEL_BEGIN();
    MOVE_LOOP(I, i, count)
    {
        I update = i;
        const I unit = move_split(update, units);
        const int64_t at = slice[update];

        if (at >= 0 && head[at] == static_cast<uint32_t>(update) + 1)
            out[at * static_cast<int64_t>(units.by) + unit] = updates[i];
    }
}

/* a (reduction) b as the CPU's kernel does it; integers wrap. */
template <class T> struct scatter_apply {
    using U = typename move_unsigned<T>::type;
    __device__ static T to(T a, T b, trmi_scatter_reduction r)
    {
        switch (r) {
        case TRMI_SCATTER_ADD:
            return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
        case TRMI_SCATTER_MUL:
            return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
        case TRMI_SCATTER_MAX:
            return a > b ? a : b;
        default:
            return a < b ? a : b;
        }
    }
};
template <> struct scatter_apply<float> {
    __device__ static float to(float a, float b, trmi_scatter_reduction r)
    {
        return r == TRMI_SCATTER_ADD   ? a + b
               : r == TRMI_SCATTER_MUL ? a * b
               : r == TRMI_SCATTER_MAX ? (a > b ? a : b)
                                       : (a < b ? a : b);
    }
};
template <> struct scatter_apply<double> {
    __device__ static double to(double a, double b, trmi_scatter_reduction r)
    {
        return r == TRMI_SCATTER_ADD   ? a + b
               : r == TRMI_SCATTER_MUL ? a * b
               : r == TRMI_SCATTER_MAX ? (a > b ? a : b)
                                       : (a < b ? a : b);
    }
};
template <> struct scatter_apply<__half> {
    __device__ static __half to(__half a, __half b, trmi_scatter_reduction r)
    {
        return trm_down<__half>(scatter_apply<float>::to(trm_up(a), trm_up(b), r));
    }
};
template <> struct scatter_apply<__nv_bfloat16> {
    __device__ static __nv_bfloat16 to(__nv_bfloat16 a, __nv_bfloat16 b, trmi_scatter_reduction r)
    {
        return trm_down<__nv_bfloat16>(scatter_apply<float>::to(trm_up(a), trm_up(b), r));
    }
};
/* Both bits: add is or, mul is and. */
struct scatter_bool {
    uint8_t v;
};
template <> struct scatter_apply<scatter_bool> {
    __device__ static scatter_bool to(scatter_bool a, scatter_bool b, trmi_scatter_reduction r)
    {
        const uint8_t any = a.v | b.v, both = a.v & b.v;

        return {r == TRMI_SCATTER_ADD || r == TRMI_SCATTER_MAX ? any : both};
    }
};

/* Thread: one element of an update, all updates of its slice if it is the head. */
template <class T, class I>
static __global__ void __launch_bounds__(kMoveThreads)
    scatter_reduce(const T *__restrict__ updates, T *__restrict__ out,
                   const int64_t *__restrict__ slice, const uint32_t *__restrict__ head,
                   const uint32_t *__restrict__ next, uint64_t count, uint32_t update_count,
                   const trmi_div inner, trmi_scatter_reduction reduction)
{
    TRM_KERNEL_BEGIN();
    MOVE_LOOP(I, i, count)
    {
        I update = i;
        const I element = move_split(update, inner);
        const int64_t at = slice[update];
        uint32_t length = 0;

        if (at < 0 || head[at] != static_cast<uint32_t>(update) + 1)
            continue;
        for (uint32_t j = head[at]; j != 0 && length <= kScatterShort; j = next[j - 1])
            length++;
        T *y = out + at * static_cast<int64_t>(inner.by) + element;
        const T *x = updates + element;
        T sum = *y;

        if (length <= kScatterShort) {
            uint32_t done = 0; /* numbers count from 1 */

            for (uint32_t n = 0; n < length; n++) {
                uint32_t least = UINT32_MAX;

                for (uint32_t j = head[at]; j != 0; j = next[j - 1])
                    least = j > done && j < least ? j : least;
                sum = scatter_apply<T>::to(sum, x[(least - 1) * inner.by], reduction);
                done = least;
            }
        } else {
            for (uint32_t j = 0; j < update_count; j++)
                if (slice[j] == at)
                    sum = scatter_apply<T>::to(sum, x[j * inner.by], reduction);
        }
        *y = sum;
    }
}

static size_t slices_bytes(const trmi_scatter *s)
{
    return (s->count * sizeof(int64_t) + 255) / 256 * 256;
}

static size_t heads_bytes(const trmi_scatter *s)
{
    return (s->slots * sizeof(uint32_t) + 255) / 256 * 256;
}

extern "C" size_t trmi_cuda_scatter_workspace(const trmi_scatter *s)
{
    return slices_bytes(s) + heads_bytes(s) +
           (s->reduction == TRMI_SCATTER_NONE ? 0 : s->count * sizeof(uint32_t));
}

struct scatter_lists {
    int64_t *slice;
    uint32_t *head, *next;
};

template <class T>
static trm_status reduce(const trm_cuda *cuda, cudaStream_t stream, const trmi_scatter *s,
                         const void *updates, void *out, const scatter_lists *l)
{
    const uint64_t count = static_cast<uint64_t>(s->count) * s->inner;

    MOVE_INDEX(count, I, {
        return trmi_launched(
            TRM_LAUNCH((scatter_reduce<T, I>), move_blocks(cuda, count), kMoveThreads, 0, stream,
                       static_cast<const T *>(updates), static_cast<T *>(out), l->slice, l->head,
                       l->next, count, static_cast<uint32_t>(s->count), trmi_cuda_div(s->inner),
                       s->reduction),
            "scatter_reduce");
    })
}

static trm_status last(const trm_cuda *cuda, cudaStream_t stream, const trmi_scatter *s,
                       const void *updates, void *out, const scatter_lists *l)
{
    const size_t bytes = s->inner * trm_dtype_bytes(s->dtype);
    const uint32_t unit = move_unit(bytes | move_address(updates) | move_address(out));
    const uint64_t count = static_cast<uint64_t>(s->count) * (bytes / unit);
    const trmi_div units = trmi_cuda_div(bytes / unit);

    MOVE_UNITS(unit, V, {
        MOVE_INDEX(count, I, {
            return trmi_launched(TRM_LAUNCH((scatter_last<V, I>), move_blocks(cuda, count),
                                            kMoveThreads, 0, stream,
                                            static_cast<const V *>(updates),
                                            static_cast<V *>(out), l->slice, l->head, count, units),
                                 "scatter_last");
        })
    })
}

extern "C" trm_status trmi_cuda_scatter(const trm_cuda *cuda, cudaStream_t stream,
                                        const trmi_scatter *s, const void *index,
                                        const void *updates, void *out, void *workspace, void *bad)
{
    unsigned char *at = static_cast<unsigned char *>(workspace);
    scatter_lists l = {};
    trm_status st = TRM_OK;

    if (s->count == 0 || s->inner == 0)
        return TRM_OK;
    l.slice = reinterpret_cast<int64_t *>(at);
    l.head = reinterpret_cast<uint32_t *>(at + slices_bytes(s));
    l.next = reinterpret_cast<uint32_t *>(at + slices_bytes(s) + heads_bytes(s));
    TRM_CHECK(trmi_cuda_fill(cuda, stream, l.head, 0, sizeof(uint32_t), s->slots));
    MOVE_INDEX(s->count, I, {
        st = trmi_launched(TRM_LAUNCH((scatter_link<I>), move_blocks(cuda, s->count), kMoveThreads,
                                      0, stream, index, l.slice, l.head, l.next,
                                      static_cast<int64_t *>(bad), *s),
                           "scatter_link");
    })
    TRM_CHECK(st);
    if (s->reduction == TRMI_SCATTER_NONE)
        return last(cuda, stream, s, updates, out, &l);
    if (s->dtype == TRM_DTYPE_BOOL)
        return reduce<scatter_bool>(cuda, stream, s, updates, out, &l);
    TRM_INTS(s->dtype, T, { return reduce<T>(cuda, stream, s, updates, out, &l); })
    TRM_FLOATS(s->dtype, T, { return reduce<T>(cuda, stream, s, updates, out, &l); })
    return trm_fail(TRM_ERR_UNSUPPORTED, "scatter: dtype %s", trm_dtype_name(s->dtype));
}

/* Thread: one unit of the update. */
template <class V>
static __global__ void __launch_bounds__(kMoveThreads)
    tensor_scatter(const V *__restrict__ update, const void *__restrict__ firsts,
                   V *__restrict__ out, int64_t *bad, uint64_t count, uint64_t units,
                   const trmi_tensor_scatter t)
{
    TRM_KERNEL_BEGIN();
    MOVE_LOOP(uint64_t, i, count)
    {
        const uint64_t row = i / units, unit = i - row * units;
        const uint64_t matrix = row / t.rows, r = row - matrix * t.rows;
        const uint64_t batch = matrix / t.middle;
        const int64_t high = t.circular ? t.limit - 1 : t.limit - static_cast<int64_t>(t.rows);
        int64_t first = 0;

        if (firsts != nullptr)
            first = move_index(firsts, t.index_dtype == TRM_DTYPE_I64, batch);
        if (first < 0 || first > high) {
            move_note(bad, first, batch, 0, high);
            continue;
        }
        int64_t to = first + static_cast<int64_t>(r);

        to = to >= t.limit ? to - t.limit : to;
        out[(static_cast<int64_t>(matrix) * t.limit + to) * static_cast<int64_t>(units) + unit] =
            update[i];
    }
}

extern "C" trm_status trmi_cuda_tensor_scatter(const trm_cuda *cuda, cudaStream_t stream,
                                               const trmi_tensor_scatter *t, const void *update,
                                               const void *first, void *out, void *bad)
{
    const uint32_t unit = move_unit(t->row_bytes | move_address(update) | move_address(out));
    const uint64_t units = t->row_bytes / unit;
    const uint64_t count = static_cast<uint64_t>(t->batches) * t->middle * t->rows * units;

    if (count == 0)
        return TRM_OK;
    MOVE_UNITS(unit, V, {
        return trmi_launched(TRM_LAUNCH(tensor_scatter<V>, move_blocks(cuda, count), kMoveThreads,
                                        0, stream, static_cast<const V *>(update), first,
                                        static_cast<V *>(out), static_cast<int64_t *>(bad), count,
                                        units, *t),
                             "tensor_scatter");
    })
}
