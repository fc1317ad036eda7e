/* TrmEmbed and TrmRows: rows picked from a table in whatever dtype a file has it, or from where it
 * lies for a product, whose pieces of a row are at least 64 bytes, two sectors. A thread does V
 * neighbours, twice a block's width apart: what is read is a sixteenth to a half of what is
 * written, and stores are of 16 bytes. */
#include "kernels/cuda/lm_dequantize.cuh"
#include "kernels/cuda/lm_rows.h"
#include "kernels/cuda/rows.cuh"

using namespace trmi_rows;

namespace
{

constexpr int kThreads = 256, kVectors = 2;

/* How elements [v * V, v * V + V) of a row are read. */
template <class T, int V> struct Floats {
    __device__ static __forceinline__ void load(const unsigned char *row, size_t chunk, uint32_t v,
                                                float (&x)[V])
    {
        constexpr uint32_t kPiece = 32 / V; /* vectors of a piece */
        const Pack<T, V> p =
            reinterpret_cast<const Pack<T, V> *>(row + v / kPiece * chunk)[v % kPiece];

#pragma unroll
        for (int j = 0; j < V; j++)
            x[j] = trm_up(p.v[j]);
    }
};
template <int kType> struct Blocks {
    __device__ static __forceinline__ void load(const unsigned char *row, size_t, uint32_t v,
                                                float (&x)[4])
    {
        trmi_blocks::load_quad<kType>(row, v, x);
    }
};

struct Params {
    size_t table_rows, panel, half, row, chunk; /* trmi_lmc_pick */
    uint32_t vectors;                           /* of a row */
    float scale;
};

template <class Reader, int V>
__global__ void __launch_bounds__(kThreads)
    lm_pick(Params p, const int32_t *ids, const unsigned char *table, float *out)
{
    TRM_KERNEL_BEGIN();
    const int32_t id = ids[blockIdx.x];
    const bool here = id >= 0 && static_cast<size_t>(id) < p.table_rows;
    const size_t r = here ? static_cast<size_t>(id) : 0;
    const unsigned char *row = table + (r >> 4) * p.panel + (r >> 3 & 1) * p.half + (r & 7) * p.row;
    const uint32_t first = blockIdx.y * (kThreads * kVectors) + threadIdx.x;
    float *to = out + static_cast<size_t>(blockIdx.x) * p.vectors * V;
    float x[kVectors][V];

#pragma unroll
    for (int i = 0; i < kVectors; i++) {
#pragma unroll
        for (int j = 0; j < V; j++)
            x[i][j] = 0.0f;
        if (here && first + i * kThreads < p.vectors)
            Reader::load(row, p.chunk, first + i * kThreads, x[i]);
    }
#pragma unroll
    for (int i = 0; i < kVectors; i++) {
        Pack<float, V> y;

#pragma unroll
        for (int j = 0; j < V; j++)
            y.v[j] = __fmul_rn(x[i][j], p.scale);
        if (first + i * kThreads < p.vectors)
            reinterpret_cast<Pack<float, V> *>(to)[first + i * kThreads] = y;
    }
}

template <class Reader, int V>
trm_status launch(cudaStream_t stream, const trmi_lmc_pick *p, const int32_t *ids,
                  const void *table, float *out)
{
    const size_t vectors = p->width / V;
    const size_t blocks = (vectors + kThreads * kVectors - 1) / (kThreads * kVectors);
    Params a = {};

    if (p->rows > INT32_MAX || blocks > 65535)
        return trm_fail(TRM_ERR_INVALID_ARG, "%zu rows of %zu elements", p->rows, p->width);
    a.table_rows = p->table_rows;
    a.panel = p->panel;
    a.half = p->half;
    a.row = p->row;
    a.chunk = p->chunk;
    a.vectors = static_cast<uint32_t>(vectors);
    a.scale = p->scale;
    return trmi_launched(
        TRM_LAUNCH((lm_pick<Reader, V>),
                   dim3(static_cast<unsigned>(p->rows), static_cast<unsigned>(blocks)), kThreads, 0,
                   stream, a, ids, static_cast<const unsigned char *>(table), out),
        "lm pick");
}

#define BLOCKS(type)                                                                               \
    case type:                                                                                     \
        return launch<Blocks<type>, 4>(stream, p, ids, table, out);

} // namespace

extern "C" trm_status trmi_cuda_lm_pick(cudaStream_t stream, const trmi_lmc_pick *p,
                                        const int32_t *ids, const void *table, float *out)
{
    const bool wide = p->width % 4 == 0 && aligned16(table) && aligned16(out);

    if (p->rows == 0 || p->width == 0)
        return TRM_OK;
    if (trm_dtype_is_block(p->dtype) && (p->width % 32 != 0 || !aligned16(table)))
        return trm_fail(TRM_ERR_INVALID_ARG, "rows of %zu in %s: want whole blocks", p->width,
                        trm_dtype_name(p->dtype));
    TRM_HALVES(p->dtype, T, {
        return wide ? launch<Floats<T, 4>, 4>(stream, p, ids, table, out)
                    : launch<Floats<T, 1>, 1>(stream, p, ids, table, out);
    })
    switch (p->dtype) {
        BLOCKS(TRM_DTYPE_Q4_0)
        BLOCKS(TRM_DTYPE_Q4_1)
        BLOCKS(TRM_DTYPE_Q5_0)
        BLOCKS(TRM_DTYPE_Q5_1)
        BLOCKS(TRM_DTYPE_Q8_0)
        BLOCKS(TRM_DTYPE_Q2_K)
        BLOCKS(TRM_DTYPE_Q3_K)
        BLOCKS(TRM_DTYPE_Q4_K)
        BLOCKS(TRM_DTYPE_Q5_K)
        BLOCKS(TRM_DTYPE_Q6_K)
    default:
        return trm_fail(TRM_ERR_UNSUPPORTED, "rows of %s", trm_dtype_name(p->dtype));
    }
}
