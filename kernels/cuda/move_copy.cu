/* The strided copy engine on the device: flat copies, walks over the output, tiles. */
#include "kernels/cuda/move_tile.cuh"

/* Thread: vectors V, then single bytes of the rest. */
template <class V>
static __global__ void __launch_bounds__(kMoveThreads)
    move_flat(const V *__restrict__ in, V *__restrict__ out, uint64_t vectors, uint64_t bytes)
{
    TRM_KERNEL_BEGIN();
    MOVE_LOOP(uint64_t, i, vectors)
    {
        out[i] = in[i];
    }
    MOVE_LOOP(uint64_t, i, bytes - vectors * sizeof(V))
    {
        const uint64_t at = vectors * sizeof(V) + i;

        reinterpret_cast<uint8_t *>(out)[at] = reinterpret_cast<const uint8_t *>(in)[at];
    }
}

/* Thread: `pack` units that lie together in the output. */
template <class V, int pack, class I>
static __global__ void __launch_bounds__(kMoveThreads)
    move_walk(const V *__restrict__ in, V *__restrict__ out, const trmi_move_walk w)
{
    TRM_KERNEL_BEGIN();
    MOVE_LOOP(I, i, w.count)
    {
        I rest = i;
        int64_t in_at = 0, out_at = 0;
        move_pack<V, pack> x;

        for (int d = w.rank - 1; d > 0; d--) {
            const I at = move_split(rest, w.dims[d]);

            in_at += static_cast<int64_t>(at) * w.in[d];
            out_at += static_cast<int64_t>(at) * w.out[d];
        }
        in_at += static_cast<int64_t>(rest) * w.in[0];
        out_at += static_cast<int64_t>(rest) * w.out[0];
#pragma unroll
        for (int j = 0; j < pack; j++)
            x.v[j] = in[in_at + j * w.in_step];
        *reinterpret_cast<move_pack<V, pack> *>(out + out_at) = x;
    }
}

template <class V>
static trm_status flat(const trm_cuda *cuda, cudaStream_t stream, void *out, const void *in,
                       size_t bytes)
{
    const uint64_t vectors = bytes / sizeof(V);

    return trmi_launched(TRM_LAUNCH(move_flat<V>, move_blocks(cuda, vectors > 0 ? vectors : bytes),
                                    kMoveThreads, 0, stream, static_cast<const V *>(in),
                                    static_cast<V *>(out), vectors, static_cast<uint64_t>(bytes)),
                         "move_flat");
}

extern "C" trm_status trmi_cuda_copy_flat(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                          const void *in, size_t bytes)
{
    if (bytes == 0 || in == out)
        return TRM_OK;
    MOVE_UNITS(move_unit(move_address(in) | move_address(out)), V,
               { return flat<V>(cuda, stream, out, in, bytes); })
}

template <class V, int pack>
static trm_status walk(const trm_cuda *cuda, cudaStream_t stream, const trmi_move_walk *w,
                       const void *in, void *out)
{
    MOVE_INDEX(w->count, I, {
        return trmi_launched(TRM_LAUNCH((move_walk<V, pack, I>), move_blocks(cuda, w->count),
                                        kMoveThreads, 0, stream, static_cast<const V *>(in),
                                        static_cast<V *>(out), *w),
                             "move_walk");
    })
}

extern "C" trm_status trmi_cuda_move_run(const trm_cuda *cuda, cudaStream_t stream,
                                         const trmi_move_copy *c, const trmi_move_plan *plan,
                                         const void *in, void *out)
{
    const uint64_t bits = move_address(in) | move_address(out);
    trmi_move_plan narrow;

    if (plan->kind == TRMI_MOVE_NOTHING)
        return TRM_OK;
    if (bits % plan->align != 0) {
        trmi_cuda_move_plan(c, move_unit(bits), &narrow);
        plan = &narrow;
    }
    in = static_cast<const unsigned char *>(in) + plan->in_offset;
    out = static_cast<unsigned char *>(out) + plan->out_offset;
    if (plan->kind == TRMI_MOVE_FLAT)
        return trmi_cuda_copy_flat(cuda, stream, out, in, plan->bytes);
    if (plan->kind == TRMI_MOVE_TILES) {
        MOVE_UNITS(plan->unit, V, {
            return trmi_launched(TRM_LAUNCH((move_tiles<V, V>), plan->tile.blocks, kMoveThreads, 0,
                                            stream, static_cast<const V *>(in),
                                            static_cast<V *>(out), plan->tile),
                                 "move_tiles");
        })
    }
    if (plan->pack == 4) {
        if (plan->unit == 1)
            return walk<uint8_t, 4>(cuda, stream, &plan->walk, in, out);
        if (plan->unit == 2)
            return walk<uint16_t, 4>(cuda, stream, &plan->walk, in, out);
        return walk<uint32_t, 4>(cuda, stream, &plan->walk, in, out);
    }
    MOVE_UNITS(plan->unit, V, { return walk<V, 1>(cuda, stream, &plan->walk, in, out); })
}
