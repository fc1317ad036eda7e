/* Around the products of lm_float.h: weights are laid out once, rows are rounded, and sums that
 * several blocks share are folded. */
#include "kernels/cuda/lm_float.cuh"

using namespace trmi_lmf;

namespace
{

constexpr int kThreads = 256;

/* ---- weights ---- */

/* A thread has 8 elements of a row: what a lane of the kernels reads at once. */
template <class T> __global__ void lm_lay_out(const trmi_lmf_lay l, size_t groups, size_t works)
{
    TRM_KERNEL_BEGIN();
    const size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
    const T *const from = static_cast<const T *>(l.from);

    if (i >= works)
        return;
    /* neighbours along what lies together in the source */
    const bool along = l.column_step == 1;
    const size_t rows = works / groups;
    const size_t row = along ? i / groups : i % rows, at = (along ? i % groups : i / rows) * 8;
    const size_t r = l.row + row, c = l.column + at;
    T v[8];

#pragma unroll
    for (int e = 0; e < 8; e++)
        v[e] = row < l.rows && at + e < l.columns && r < l.n && c + e < l.k
                   ? from[row * l.row_step + (at + e) * l.column_step]
                   : trm_down<T>(0.0f);
    const size_t in = r % TRMI_LMF_PANEL;
    unsigned char *const to = static_cast<unsigned char *>(l.to) +
                              r / TRMI_LMF_PANEL * l.form.panel + in / 8 * l.form.half +
                              in % 8 * l.form.row + c / TRMI_LMF_CHUNK * l.form.chunk +
                              c % TRMI_LMF_CHUNK / 8 * (8 * sizeof(T));
#pragma unroll
    for (int e = 0; e < static_cast<int>(8 * sizeof(T) / sizeof(quad)); e++) {
        quad q;

        memcpy(&q, reinterpret_cast<const unsigned char *>(v) + e * sizeof(q), sizeof(q));
        reinterpret_cast<quad *>(to)[e] = q;
    }
}

/* ---- activations ---- */

template <class T>
__global__ void lm_round(const __grid_constant__ trmi_lmf_args a, size_t groups, size_t works)
{
    TRM_KERNEL_BEGIN();
    const size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
    const size_t row = i / groups, at = i % groups * 8, k = static_cast<size_t>(a.k);

    if (i >= works || (a.experts > 0 && row >= static_cast<size_t>(a.starts[a.experts])))
        return;
    const size_t source = a.row_of != nullptr ? static_cast<size_t>(a.row_of[row]) : row;
    const float *const x = a.x + source * k;
    float v[8];

    if (at + 8 <= k && k % 4 == 0 && reinterpret_cast<uintptr_t>(a.x) % 16 == 0) {
        const float4 p = *reinterpret_cast<const float4 *>(x + at);
        const float4 q = *reinterpret_cast<const float4 *>(x + at + 4);

        v[0] = p.x;
        v[1] = p.y;
        v[2] = p.z;
        v[3] = p.w;
        v[4] = q.x;
        v[5] = q.y;
        v[6] = q.z;
        v[7] = q.w;
    } else {
#pragma unroll
        for (int e = 0; e < 8; e++)
            v[e] = at + e < k ? x[at + e] : 0.0f;
    }
    static_cast<quad *>(const_cast<void *>(a.rounded))[i] =
        quad{{pair<T>(v[0], v[1]), pair<T>(v[2], v[3]), pair<T>(v[4], v[5]), pair<T>(v[6], v[7])}};
}

/* ---- sums ---- */

/* A thread has a column of a row, and with gated its neighbour panel's too. Slots are asked for
 * kAtOnce at a time; what waits for its sibling is in shared memory. */
constexpr int kAtOnce = 8;
template <bool kGated>
__global__ void __launch_bounds__(kThreads)
    lm_fold(const __grid_constant__ trmi_lmf_args a, size_t columns, size_t works)
{
    constexpr int kBy = kGated ? 2 : 1;
    __shared__ float stack[TRM_TREE_DEPTH_MAX][kBy][kThreads];
    const trmi_lmf_plan &plan = a.plan;
    const size_t width = static_cast<size_t>(a.panels) * TRMI_LMF_PANEL;
    const size_t level = static_cast<size_t>(a.m) * width;
    const int id = static_cast<int>(threadIdx.x);

    TRM_KERNEL_BEGIN();
    for (size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x; i < works;
         i += static_cast<size_t>(gridDim.x) * kThreads) {
        const int row = static_cast<int>(i / columns), in = static_cast<int>(i % columns);
        const int panel = in / TRMI_LMF_PANEL * kBy, column = in % TRMI_LMF_PANEL;
        const float *const slots = a.slots + row * width + panel * TRMI_LMF_PANEL + column;
        int depth = 0, part = 0;

        if (a.experts > 0 && row >= a.starts[a.experts])
            return;
        for (int s0 = 0; s0 < plan.slots; s0 += kAtOnce) {
            float v[kAtOnce][kBy];

#pragma unroll
            for (int s = 0; s < kAtOnce; s++)
#pragma unroll
                for (int p = 0; p < kBy; p++)
                    v[s][p] = s0 + s < plan.slots
                                  ? __ldcs(slots + (s0 + s) * level + p * TRMI_LMF_PANEL)
                                  : 0.0f;
#pragma unroll
            for (int s = 0; s < kAtOnce; s++) {
                if (s0 + s >= plan.slots)
                    break;
                for (int j = plan.folds[s0 + s]; j > 0; j--) {
                    depth--;
#pragma unroll
                    for (int p = 0; p < kBy; p++)
                        v[s][p] = __fadd_rn(stack[depth][p][id], v[s][p]);
                }
                if (s0 + s + 1 == plan.last[part]) {
                    store(a, place_of(a, panel), column, part++, row, v[s][0], v[s][kBy - 1]);
                } else {
#pragma unroll
                    for (int p = 0; p < kBy; p++)
                        stack[depth][p][id] = v[s][p];
                    depth++;
                }
            }
        }
    }
}

__global__ void lm_gate(int act, int rounds, void *out, const float *y, const float *up, size_t n)
{
    TRM_KERNEL_BEGIN();
    for (size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x; i < n;
         i += static_cast<size_t>(gridDim.x) * kThreads)
        put(out, rounds, i, trm_lm_gated(act, y[i], up[i]));
}

unsigned blocks_of(size_t works)
{
    return static_cast<unsigned>((works + kThreads - 1) / kThreads);
}

} // namespace

extern "C" trm_status trmi_lmf_lay_out(const trmi_lmf_lay *l, cudaStream_t stream)
{
    const size_t groups = trm_align_up(l->columns, TRMI_LMF_CHUNK) / 8;
    const size_t works = groups * trm_align_up(l->rows, TRMI_LMF_PANEL);

    if (works == 0)
        return TRM_OK;
    if (works / kThreads > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a piece of a weight of %zu rows of %zu", l->rows,
                        l->columns);
    TRM_HALVES(l->form.dtype, T, {
        return trmi_launched(
            TRM_LAUNCH((lm_lay_out<T>), blocks_of(works), kThreads, 0, stream, *l, groups, works),
            "lm_lay_out");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "weights of %s", trm_dtype_name(l->form.dtype));
}

extern "C" trm_status trmi_lmf_round(const trmi_lmf_args *a, cudaStream_t stream)
{
    const size_t groups = a->form.k_padded / 8, works = groups * static_cast<size_t>(a->m);

    if (works == 0)
        return TRM_OK;
    if (works / kThreads > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a product of %d rows of %d", a->m, a->k);
    if (a->form.dtype == TRM_DTYPE_F16)
        return trmi_launched(TRM_LAUNCH((lm_round<__half>), blocks_of(works), kThreads, 0, stream,
                                        *a, groups, works),
                             "lm_round");
    return trmi_launched(TRM_LAUNCH((lm_round<__nv_bfloat16>), blocks_of(works), kThreads, 0,
                                    stream, *a, groups, works),
                         "lm_round");
}

extern "C" trm_status trmi_lmf_fold(const trmi_lmf_args *a, int multiprocessors,
                                    cudaStream_t stream)
{
    const bool gated = a->gated != TRMI_LMC_ACT_COUNT;
    const size_t panels = static_cast<size_t>(a->panels);
    const size_t columns = (gated ? panels / 2 : panels) * TRMI_LMF_PANEL;
    const size_t works = columns * static_cast<size_t>(a->m);
    const size_t most = static_cast<size_t>(multiprocessors) * 8;
    const size_t blocks = (works + kThreads - 1) / kThreads;

    const unsigned grid = static_cast<unsigned>(blocks < most ? blocks : most);

    return trmi_launched(
        gated ? TRM_LAUNCH((lm_fold<true>), grid, kThreads, 0, stream, *a, columns, works)
              : TRM_LAUNCH((lm_fold<false>), grid, kThreads, 0, stream, *a, columns, works),
        "lm_fold");
}

extern "C" trm_status trmi_lmf_gate(trmi_lmc_act act, trm_dtype rounds, void *out, const float *y,
                                    const float *up, size_t n, int multiprocessors,
                                    cudaStream_t stream)
{
    const size_t most = static_cast<size_t>(multiprocessors) * 8;
    const size_t blocks = (n + kThreads - 1) / kThreads;

    if (n == 0)
        return TRM_OK;
    return trmi_launched(TRM_LAUNCH(lm_gate, static_cast<unsigned>(blocks < most ? blocks : most),
                                    kThreads, 0, stream, static_cast<int>(act),
                                    static_cast<int>(rounds), out, y, up, n),
                         "lm_gate");
}
