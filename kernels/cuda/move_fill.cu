/* Generated data: fills, ranges, Shape, EyeLike, Trilu, OneHot. */
#include "kernels/cuda/move_tile.cuh"

struct fill_ints {
    int64_t v[TRM_RANK_MAX];
};

/* Thread: units V, then elements T of the rest. The unit is filled with the element. */
template <class V, class T>
static __global__ void __launch_bounds__(kMoveThreads)
    fill_units(V *__restrict__ out, V unit, uint64_t units, T element, uint64_t elements)
{
    TRM_KERNEL_BEGIN();
    MOVE_LOOP(uint64_t, i, units)
    {
        out[i] = unit;
    }
    MOVE_LOOP(uint64_t, i, elements)
    {
        reinterpret_cast<T *>(out + units)[i] = element;
    }
}

template <class V, class T>
static trm_status fill(const trm_cuda *cuda, cudaStream_t stream, void *out, V unit, T element,
                       size_t count)
{
    const uint64_t units = count / (sizeof(V) / sizeof(T));

    const uint32_t blocks = move_blocks(cuda, units > 0 ? units : count);

    return trmi_launched(TRM_LAUNCH((fill_units<V, T>), blocks, kMoveThreads, 0, stream,
                                    static_cast<V *>(out), unit, units, element,
                                    count - units * (sizeof(V) / sizeof(T))),
                         "fill_units");
}

template <class T>
static trm_status fill_with(const trm_cuda *cuda, cudaStream_t stream, void *out, uint64_t value,
                            size_t count)
{
    if (move_address(out) % 16 != 0)
        return fill<T, T>(cuda, stream, out, static_cast<T>(value), static_cast<T>(value), count);
    for (size_t bits = sizeof(T) * 8; bits < 64; bits *= 2)
        value = (value & ((uint64_t{1} << bits) - 1)) | value << bits;
    return fill<move_wide, T>(cuda, stream, out, move_wide{value, value}, static_cast<T>(value),
                              count);
}

extern "C" trm_status trmi_cuda_fill(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                     uint64_t value, size_t elem, size_t count)
{
    if (count == 0)
        return TRM_OK;
    switch (elem) {
    case 1:
        return fill_with<uint8_t>(cuda, stream, out, value, count);
    case 2:
        return fill_with<uint16_t>(cuda, stream, out, value, count);
    case 4:
        return fill_with<uint32_t>(cuda, stream, out, value, count);
    default:
        return fill_with<uint64_t>(cuda, stream, out, value, count);
    }
}

static __global__ void fill_store_ints(int64_t *__restrict__ out, const fill_ints values, int count)
{
    TRM_KERNEL_BEGIN();
    const int i = static_cast<int>(threadIdx.x);

    if (i < count)
        out[i] = values.v[i];
}

extern "C" trm_status trmi_cuda_store_ints(cudaStream_t stream, int64_t *out, const int64_t *values,
                                           int count)
{
    fill_ints v = {};

    if (count == 0)
        return TRM_OK;
    for (int i = 0; i < count; i++)
        v.v[i] = values[i];
    return trmi_launched(TRM_LAUNCH(fill_store_ints, 1, 32, 0, stream, out, v, count),
                         "fill_store_ints");
}

/* start + i * delta with two roundings, as on the CPU: no fused multiply-add. */
template <class T> struct fill_range_of {
    __device__ static T at(uint64_t i, double start, double delta, int64_t, int64_t)
    {
        return move_convert<T, double>::from(
            __dadd_rn(start, __dmul_rn(static_cast<double>(i), delta)));
    }
};
#define FILL_RANGE_INT(type)                                                                       \
    template <> struct fill_range_of<type> {                                                       \
        __device__ static type at(uint64_t i, double, double, int64_t start, int64_t delta)        \
        {                                                                                          \
            return static_cast<type>(static_cast<uint64_t>(start) +                                \
                                     i * static_cast<uint64_t>(delta));                            \
        }                                                                                          \
    };
FILL_RANGE_INT(int8_t)
FILL_RANGE_INT(uint8_t)
FILL_RANGE_INT(int16_t)
FILL_RANGE_INT(uint16_t)
FILL_RANGE_INT(int32_t)
FILL_RANGE_INT(uint32_t)
FILL_RANGE_INT(int64_t)
FILL_RANGE_INT(uint64_t)

template <class T>
static __global__ void __launch_bounds__(kMoveThreads)
    fill_range(T *__restrict__ out, uint64_t count, double start, double delta, int64_t start_int,
               int64_t delta_int)
{
    TRM_KERNEL_BEGIN();
    MOVE_LOOP(uint64_t, i, count)
    {
        out[i] = fill_range_of<T>::at(i, start, delta, start_int, delta_int);
    }
}

template <class T>
static trm_status range(const trm_cuda *cuda, cudaStream_t stream, void *out, uint64_t count,
                        double start, double delta, int64_t start_int, int64_t delta_int)
{
    return trmi_launched(TRM_LAUNCH(fill_range<T>, move_blocks(cuda, count), kMoveThreads, 0,
                                    stream, static_cast<T *>(out), count, start, delta, start_int,
                                    delta_int),
                         "fill_range");
}

extern "C" trm_status trmi_cuda_range(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                      trm_dtype dtype, size_t count, double start, double delta,
                                      int64_t start_int, int64_t delta_int)
{
    if (count == 0)
        return TRM_OK;
    TRM_INTS(dtype, T,
             { return range<T>(cuda, stream, out, count, start, delta, start_int, delta_int); })
    TRM_FLOATS(dtype, T,
               { return range<T>(cuda, stream, out, count, start, delta, start_int, delta_int); })
    return trm_fail(TRM_ERR_UNSUPPORTED, "range: dtype %s", trm_dtype_name(dtype));
}

template <class T>
static __global__ void __launch_bounds__(kMoveThreads)
    fill_eye(T *__restrict__ out, T one, uint64_t count, uint64_t columns, int64_t k)
{
    TRM_KERNEL_BEGIN();
    MOVE_LOOP(uint64_t, i, count)
    {
        const uint64_t r = i / columns, c = i - r * columns;

        out[i] = static_cast<int64_t>(c) == static_cast<int64_t>(r) + k ? one : T(0);
    }
}

extern "C" trm_status trmi_cuda_eye(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                    size_t elem, uint64_t one, size_t rows, size_t columns,
                                    int64_t k)
{
    const uint64_t count = static_cast<uint64_t>(rows) * columns;

    if (count == 0)
        return TRM_OK;
    MOVE_ELEMENTS(elem, T, {
        return trmi_launched(TRM_LAUNCH(fill_eye<T>, move_blocks(cuda, count), kMoveThreads, 0,
                                        stream, static_cast<T *>(out), static_cast<T>(one), count,
                                        static_cast<uint64_t>(columns), k),
                             "fill_eye");
    })
}

/* Thread: one element; in may be out. */
template <class T, class I>
static __global__ void __launch_bounds__(kMoveThreads)
    fill_trilu(const T *in, T *out, uint64_t count, const trmi_div rows, const trmi_div columns,
               int64_t k, bool upper)
{
    TRM_KERNEL_BEGIN();
    MOVE_LOOP(I, i, count)
    {
        I rest = i;
        const int64_t c = static_cast<int64_t>(move_split(rest, columns));
        const int64_t cut = static_cast<int64_t>(move_split(rest, rows)) + k;

        out[i] = (upper ? c >= cut : c <= cut) ? in[i] : T(0);
    }
}

extern "C" trm_status trmi_cuda_trilu(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                      const void *in, size_t elem, size_t matrices, size_t rows,
                                      size_t columns, int64_t k, bool upper)
{
    const uint64_t count = static_cast<uint64_t>(matrices) * rows * columns;

    if (count == 0)
        return TRM_OK;
    MOVE_ELEMENTS(elem, T, {
        MOVE_INDEX(count, I, {
            return trmi_launched(TRM_LAUNCH((fill_trilu<T, I>), move_blocks(cuda, count),
                                            kMoveThreads, 0, stream, static_cast<const T *>(in),
                                            static_cast<T *>(out), count, trmi_cuda_div(rows),
                                            trmi_cuda_div(columns), k, upper),
                                 "fill_trilu");
        })
    })
}

/* As trm_tensor_get_i64 says: floats truncate, NaN is 0. */
__device__ inline int64_t one_hot_index(const void *index, trm_dtype dtype, uint64_t i)
{
    double v;

    switch (dtype) {
    case TRM_DTYPE_I8:
        return static_cast<const int8_t *>(index)[i];
    case TRM_DTYPE_U8:
    case TRM_DTYPE_BOOL:
        return static_cast<const uint8_t *>(index)[i];
    case TRM_DTYPE_I16:
        return static_cast<const int16_t *>(index)[i];
    case TRM_DTYPE_U16:
        return static_cast<const uint16_t *>(index)[i];
    case TRM_DTYPE_I32:
        return static_cast<const int32_t *>(index)[i];
    case TRM_DTYPE_U32:
        return static_cast<const uint32_t *>(index)[i];
    case TRM_DTYPE_F32:
        v = static_cast<const float *>(index)[i];
        break;
    case TRM_DTYPE_F16:
        v = trm_up(static_cast<const __half *>(index)[i]);
        break;
    case TRM_DTYPE_BF16:
        v = trm_up(static_cast<const __nv_bfloat16 *>(index)[i]);
        break;
    case TRM_DTYPE_F64:
        v = static_cast<const double *>(index)[i];
        break;
    default:
        return static_cast<const int64_t *>(index)[i];
    }
    return v != v            ? 0
           : v >= 9.2e18     ? INT64_MAX
           : v <= -9.2e18    ? INT64_MIN
                             : static_cast<int64_t>(v);
}

template <class T, class I>
static __global__ void __launch_bounds__(kMoveThreads)
    fill_one_hot(const T *__restrict__ values, const void *__restrict__ index, T *__restrict__ out,
                 uint64_t count, const trmi_div depth, const trmi_div inner, trm_dtype index_dtype)
{
    TRM_KERNEL_BEGIN();
    const T off = values[0], on = values[1];

    MOVE_LOOP(I, i, count)
    {
        I outer = i;
        const I n = move_split(outer, inner);
        const int64_t d = static_cast<int64_t>(move_split(outer, depth));
        const int64_t v =
            one_hot_index(index, index_dtype, static_cast<uint64_t>(outer) * inner.by + n);

        out[i] = v == d || v == d - static_cast<int64_t>(depth.by) ? on : off;
    }
}

extern "C" trm_status trmi_cuda_one_hot(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                        const void *values, size_t elem, const void *index,
                                        trm_dtype index_dtype, size_t outer, size_t depth,
                                        size_t inner)
{
    const uint64_t count = static_cast<uint64_t>(outer) * depth * inner;

    if (count == 0)
        return TRM_OK;
    MOVE_ELEMENTS(elem, T, {
        MOVE_INDEX(count, I, {
            return trmi_launched(TRM_LAUNCH((fill_one_hot<T, I>), move_blocks(cuda, count),
                                            kMoveThreads, 0, stream,
                                            static_cast<const T *>(values), index,
                                            static_cast<T *>(out), count, trmi_cuda_div(depth),
                                            trmi_cuda_div(inner), index_dtype),
                                 "fill_one_hot");
        })
    })
}
