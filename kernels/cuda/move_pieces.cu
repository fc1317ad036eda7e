/* Concat and Split in one launch: a thread moves one unit of the whole; the table of pieces lies in
 * the kernel's arguments. */
#include "kernels/cuda/move_tile.cuh"

/* What a launch covers of the whole: row_units of each row, pitch apart. In units V. */
struct move_pieces_view {
    uint64_t count, pitch;
    trmi_div row_units;
    int pieces;
    unsigned char *piece[TRMI_MOVE_PIECES];
    uint64_t start[TRMI_MOVE_PIECES + 1];
};

template <class V, class I, bool join>
static __global__ void __launch_bounds__(kMoveThreads)
    move_pieces(V *__restrict__ whole, const move_pieces_view v)
{
    TRM_KERNEL_BEGIN();
    MOVE_LOOP(I, i, v.count)
    {
        I row = i;
        const uint64_t at = move_split(row, v.row_units);
        int low = 0, high = v.pieces - 1;

        while (low < high) { /* the last piece that begins at or before `at` */
            const int middle = (low + high + 1) / 2;

            if (v.start[middle] <= at)
                low = middle;
            else
                high = middle - 1;
        }
        V *piece = reinterpret_cast<V *>(v.piece[low]);
        const uint64_t length = v.start[low + 1] - v.start[low];
        const uint64_t in_piece = row * length + (at - v.start[low]);
        const uint64_t in_whole = row * v.pitch + at;

        if (join)
            whole[in_whole] = piece[in_piece];
        else if (piece != nullptr)
            piece[in_piece] = whole[in_whole];
    }
}

template <class V, bool join>
static trm_status launch(const trm_cuda *cuda, cudaStream_t stream, V *whole,
                         const move_pieces_view *v)
{
    MOVE_INDEX(v->count, I, {
        return trmi_launched(TRM_LAUNCH((move_pieces<V, I, join>), move_blocks(cuda, v->count),
                                        kMoveThreads, 0, stream, whole, *v),
                             "move_pieces");
    })
}

extern "C" trm_status trmi_cuda_move_pieces(const trm_cuda *cuda, cudaStream_t stream,
                                            const trmi_move_pieces *p, bool join)
{
    const size_t first = p->start[0], row = p->start[p->count] - first;
    unsigned char *whole = const_cast<unsigned char *>(p->whole) + first;
    uint64_t bits = p->row_bytes | move_address(whole);
    move_pieces_view v = {};
    uint32_t unit;

    if (p->rows == 0 || row == 0)
        return TRM_OK;
    for (int i = 0; i < p->count; i++) {
        const size_t length = p->start[i + 1] - p->start[i];

        if (length > 0)
            bits |= length | move_address(p->piece[i]);
    }
    unit = move_unit(bits);
    v.pieces = p->count;
    v.row_units = trmi_cuda_div(row / unit);
    v.count = static_cast<uint64_t>(p->rows) * (row / unit);
    v.pitch = p->row_bytes / unit;
    for (int i = 0; i <= p->count; i++) {
        v.start[i] = (p->start[i] - first) / unit;
        if (i < p->count)
            v.piece[i] = p->piece[i];
    }
    MOVE_UNITS(unit, V, {
        return join ? launch<V, true>(cuda, stream, reinterpret_cast<V *>(whole), &v)
                    : launch<V, false>(cuda, stream, reinterpret_cast<V *>(whole), &v);
    })
}
