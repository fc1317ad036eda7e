/* Conversions between layouts and float dtypes: a tiled transposition (move_tile.cuh), one thread
 * an element where a matrix is too small for a tile, and a flat conversion in vectors of four. */
#include "kernels/cuda/move_tile.cuh"

#include "kernels/cuda/reorder.h"

/* Thread: output element. Small matrices: neighbours' reads share cache lines. */
template <class TI, class TO>
static __global__ void __launch_bounds__(kMoveThreads)
    reorder_small(const TI *__restrict__ in, TO *__restrict__ out, uint64_t count, uint64_t rows,
                  uint64_t columns)
{
    TRM_KERNEL_BEGIN();
    const uint64_t matrix = rows * columns;

    MOVE_LOOP(uint64_t, i, count)
    {
        const uint64_t b = i / matrix, at = i - b * matrix;
        const uint64_t c = at / rows, r = at - c * rows;

        out[i] = move_convert<TO, TI>::from(in[b * matrix + r * columns + c]);
    }
}

/* Thread: four elements, then one of the rest. */
template <class TI, class TO>
static __global__ void __launch_bounds__(kMoveThreads)
    reorder_flat(const TI *__restrict__ in, TO *__restrict__ out, uint64_t count, uint64_t packs)
{
    TRM_KERNEL_BEGIN();
    const uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
    const uint64_t first = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;

    for (uint64_t i = first; i < packs; i += step) {
        const move_pack<TI, 4> x = reinterpret_cast<const move_pack<TI, 4> *>(in)[i];
        move_pack<TO, 4> y;

#pragma unroll
        for (int j = 0; j < 4; j++)
            y.v[j] = move_convert<TO, TI>::from(x.v[j]);
        reinterpret_cast<move_pack<TO, 4> *>(out)[i] = y;
    }
    for (uint64_t i = packs * 4 + first; i < count; i += step)
        out[i] = move_convert<TO, TI>::from(in[i]);
}

template <class TI, class TO>
static trm_status transpose(const trm_cuda *cuda, cudaStream_t stream, void *out, const void *in,
                            size_t batch, size_t rows, size_t columns)
{
    trmi_move_tile t = {};

    t.outer_rank = 1;
    t.outer[0] = batch;
    t.outer_in[0] = t.outer_out[0] = static_cast<int64_t>(rows * columns);
    t.a_count = t.b_in = static_cast<int64_t>(columns);
    t.b_count = t.a_out = static_cast<int64_t>(rows);
    if (!trmi_cuda_tile_shape(&t, sizeof(TO))) {
        const uint64_t count = static_cast<uint64_t>(batch) * rows * columns;

        return trmi_launched(TRM_LAUNCH((reorder_small<TI, TO>), move_blocks(cuda, count),
                                        kMoveThreads, 0, stream, static_cast<const TI *>(in),
                                        static_cast<TO *>(out), count,
                                        static_cast<uint64_t>(rows),
                                        static_cast<uint64_t>(columns)),
                             "reorder_small");
    }
    return trmi_launched(TRM_LAUNCH((move_tiles<TI, TO>), t.blocks, kMoveThreads, 0, stream,
                                    static_cast<const TI *>(in), static_cast<TO *>(out), t),
                         "reorder");
}

template <class TI, class TO>
static trm_status flat(const trm_cuda *cuda, cudaStream_t stream, void *out, const void *in,
                       size_t count)
{
    const uintptr_t bits = (reinterpret_cast<uintptr_t>(in) % alignof(move_pack<TI, 4>)) |
                           (reinterpret_cast<uintptr_t>(out) % alignof(move_pack<TO, 4>));
    const uint64_t packs = bits == 0 ? count / 4 : 0;
    const uint64_t units = packs > 0 ? packs : count;

    return trmi_launched(TRM_LAUNCH((reorder_flat<TI, TO>), move_blocks(cuda, units), kMoveThreads,
                                    0, stream, static_cast<const TI *>(in), static_cast<TO *>(out),
                                    static_cast<uint64_t>(count), packs),
                         "reorder_flat");
}

static trm_status bad_pair(trm_dtype from, trm_dtype to)
{
    return trm_fail(TRM_ERR_UNSUPPORTED, "reorder: %s to %s: want floats, or one dtype",
                    trm_dtype_name(from), trm_dtype_name(to));
}

extern "C" trm_status trmi_cuda_reorder_transpose(const trm_cuda *cuda, cudaStream_t stream,
                                                  void *out, trm_dtype out_dtype, const void *in,
                                                  trm_dtype in_dtype, size_t batch, size_t rows,
                                                  size_t columns)
{
    if (batch == 0 || rows == 0 || columns == 0)
        return TRM_OK;
    if (in_dtype == out_dtype) {
        TRM_WIDTHS(in_dtype, T,
                   { return transpose<T, T>(cuda, stream, out, in, batch, rows, columns); })
        return bad_pair(in_dtype, out_dtype);
    }
    TRM_FLOATS(in_dtype, TI, {
        TRM_FLOATS(out_dtype, TO,
                   { return transpose<TI, TO>(cuda, stream, out, in, batch, rows, columns); })
    })
    return bad_pair(in_dtype, out_dtype);
}

extern "C" trm_status trmi_cuda_reorder_flat(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                             trm_dtype out_dtype, const void *in,
                                             trm_dtype in_dtype, size_t count)
{
    if (count == 0)
        return TRM_OK;
    if (in_dtype == out_dtype)
        return trmi_cuda_copy_flat(cuda, stream, out, in, count * trm_dtype_bytes(in_dtype));
    TRM_FLOATS(in_dtype, TI, {
        TRM_FLOATS(out_dtype, TO, { return flat<TI, TO>(cuda, stream, out, in, count); })
    })
    return bad_pair(in_dtype, out_dtype);
}
