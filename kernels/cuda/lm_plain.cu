/* Plain products: kernels/cuda/lm_experts.h. A warp has one output of one row. Lane l takes quads
 * l, l + 32, ... of a leaf; a leaf is summed by a butterfly, leaves by their tree: an order that
 * depends on K and its leaves only. */
#include "kernels/cuda/lm_act.cuh"
#include "kernels/cuda/lm_dequantize.cuh"
#include "kernels/cuda/lm_experts.h"

namespace
{

constexpr unsigned kAll = 0xffffffffu;
constexpr int kWarps = 4;

template <class T> struct Plain {
    __device__ static __forceinline__ void load(const unsigned char *row, uint32_t quad, uint32_t k,
                                                float (&w)[4])
    {
#pragma unroll
        for (int j = 0; j < 4; j++)
            w[j] = 4 * quad + j < k ? trm_up(reinterpret_cast<const T *>(row)[4 * quad + j]) : 0.0f;
    }
};
template <int kType> struct Block {
    __device__ static __forceinline__ void load(const unsigned char *row, uint32_t quad, uint32_t,
                                                float (&w)[4])
    {
        trmi_blocks::load_quad<kType>(row, quad, w);
    }
};

struct Params {
    trmi_lmc_leaves leaves;
    const float *x;
    size_t m;
    uint32_t k;
    int segments, gated, experts;
    const int32_t *starts, *row_of;
    struct {
        const unsigned char *weight;
        const float *bias;
        float *out;
        size_t n, row_bytes, stride;
    } segment[TRMI_LMC_SEGMENTS];
};

/* Parts of the product of row x with weight row w; all lanes have them. Returns the last. */
template <class Reader>
__device__ float dot(const Params &p, const unsigned char *w, const float *x,
                     float (&parts)[TRM_TREE_PARTS_MAX])
{
    const uint32_t lane = threadIdx.x % 32;
    float stack[TRM_TREE_DEPTH_MAX];
    int depth = 0, part = 0;

    for (int leaf = 0; leaf < p.leaves.count; leaf++) {
        const uint32_t end = static_cast<uint32_t>(p.leaves.begin[leaf + 1]);
        float sum = 0.0f;

        for (uint32_t e = static_cast<uint32_t>(p.leaves.begin[leaf]) + 4 * lane; e < end;
             e += 128) {
            float v[4];

            Reader::load(w, e / 4, p.k, v);
            for (uint32_t j = 0; j < 4 && e + j < end; j++)
                sum = __fmaf_rn(x[e + j], v[j], sum);
        }
        for (int d = 16; d > 0; d /= 2)
            sum = __fadd_rn(sum, __shfl_xor_sync(kAll, sum, d));
        stack[depth++] = sum;
        for (int i = p.leaves.merges[leaf]; i > 0; i--, depth--)
            stack[depth - 2] = __fadd_rn(stack[depth - 2], stack[depth - 1]);
        if (leaf + 1 == p.leaves.ends[part])
            parts[part++] = stack[--depth];
    }
    return parts[0];
}

template <class Reader> __global__ void __launch_bounds__(kWarps * 32) lm_plain(Params p)
{
    TRM_KERNEL_BEGIN();
    const size_t row = blockIdx.x, lane = threadIdx.x % 32;
    const size_t n = static_cast<size_t>(blockIdx.y) * kWarps + threadIdx.x / 32;
    const float *x = p.x;
    int expert = 0;

    if (p.experts > 0) {
        if (row >= static_cast<size_t>(p.starts[p.experts]))
            return;
        while (row >= static_cast<size_t>(p.starts[expert + 1]))
            expert++;
    }
    x += (p.row_of != nullptr ? static_cast<size_t>(p.row_of[row]) : row) * p.k;
    float first = 0.0f;

    for (int s = 0; s < p.segments; s++) {
        float parts[TRM_TREE_PARTS_MAX];

        if (n >= p.segment[s].n) /* whole warps */
            continue;
        float y =
            dot<Reader>(p,
                        p.segment[s].weight + static_cast<size_t>(expert) * p.segment[s].stride +
                            n * p.segment[s].row_bytes,
                        x, parts);

        if (p.segment[s].bias != nullptr)
            y = __fadd_rn(y, p.segment[s].bias[n]);
        if (p.gated != TRMI_LMC_ACT_COUNT) {
            if (s == 1 && lane == 0)
                p.segment[0].out[row * p.segment[0].n + n] = trm_lm_gated(p.gated, first, y);
            first = y;
            continue;
        }
        parts[0] = y;
        for (int i = 0; i < p.leaves.parts; i++)
            if (lane == 0)
                p.segment[s].out[(static_cast<size_t>(i) * p.m + row) * p.segment[s].n + n] =
                    parts[i];
    }
}

template <class Reader> trm_status launch(cudaStream_t stream, const Params &p, size_t n)
{
    const size_t blocks = (n + kWarps - 1) / kWarps;

    if (p.m > INT32_MAX || blocks > 65535)
        return trm_fail(TRM_ERR_UNSUPPORTED, "plain products of %zu rows, %zu outputs", p.m, n);
    return trmi_launched(TRM_LAUNCH((lm_plain<Reader>),
                                    dim3(static_cast<unsigned>(p.m), static_cast<unsigned>(blocks)),
                                    kWarps * 32, 0, stream, p),
                         "lm plain");
}

#define BLOCKS(type)                                                                               \
    case type:                                                                                     \
        return launch<Block<type>>(stream, p, n);

} // namespace

extern "C" trm_status trmi_cuda_lm_plain(cudaStream_t stream, const trmi_lmc_product *product)
{
    const trm_dtype dtype = product->segment[0].weight->dtype;
    Params p = {};
    size_t n = 0;

    p.leaves = *product->leaves;
    p.x = product->x;
    p.m = product->m;
    p.k = static_cast<uint32_t>(product->k);
    p.segments = product->segments;
    p.gated = product->gated;
    p.experts = product->experts;
    p.starts = product->starts;
    p.row_of = product->row_of;
    for (int i = 0; i < p.segments; i++) {
        const trmi_lmc_weight *w = product->segment[i].weight;

        p.segment[i].weight = static_cast<const unsigned char *>(w->data);
        p.segment[i].bias = product->segment[i].bias;
        p.segment[i].out = product->segment[i].out;
        p.segment[i].n = w->n;
        p.segment[i].row_bytes = w->k / trm_dtype_block_elems(dtype) * trm_dtype_block_bytes(dtype);
        p.segment[i].stride = w->stride;
        n = w->n > n ? w->n : n;
    }
    if (p.m == 0 || n == 0)
        return TRM_OK;
    TRM_HALVES(dtype, T, { return launch<Plain<T>>(stream, p, n); })
    switch (dtype) {
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
        return trm_fail(TRM_ERR_UNSUPPORTED, "plain products with %s", trm_dtype_name(dtype));
    }
}
