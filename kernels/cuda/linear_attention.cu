/* LinearAttention: the columns of a state are independent, so that a warp takes 32 of them, one a
 * lane, and walks the sequence without barriers beyond its own. The columns lie in shared memory,
 * [dk][32], beside this element's key, decay and query. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/linear_attention.h"

namespace
{

constexpr int kColumns = 32;

__device__ __forceinline__ float input(const trmi_linear_attention &a, int i, size_t at)
{
    return attention_element<float>(a.from[i], a.in[i], at);
}

__global__ void __launch_bounds__(kColumns) linear_attention(const trmi_linear_attention a)
{
    TRM_DYN_SMEM(float, state); /* [dk][32] */
    float *const key = state + a.dk * kColumns, *const keep = key + a.dk;
    float *const query = keep + a.dk;
    const int lane = static_cast<int>(threadIdx.x);
    const int h = static_cast<int>(blockIdx.x) % a.heads,
              b = static_cast<int>(blockIdx.x) / a.heads;
    const int column = static_cast<int>(blockIdx.y) * kColumns + lane;
    const int share = a.q_heads / a.heads;
    const bool own = column < a.dv;
    const size_t state_at = static_cast<size_t>(blockIdx.x) * a.dk * a.dv + column;

    TRM_KERNEL_BEGIN();
    for (int d = 0; d < a.dk; d++)
        state[d * kColumns + lane] =
            own && a.in[TRMI_LINEAR_STATE] != TRM_DTYPE_NONE
                ? input(a, TRMI_LINEAR_STATE, state_at + static_cast<size_t>(d) * a.dv)
                : 0.0f;
    for (int t = 0; t < a.length; t++) {
        const size_t at = static_cast<size_t>(b) * a.length + t;

        __syncwarp();
        for (int d = lane; d < a.dk; d += kColumns) {
            key[d] = input(a, TRMI_LINEAR_KEY, (at * a.heads + h) * a.dk + d);
            if (a.gated) {
                const int i = a.decay_wide == a.heads ? h : h * a.dk + d;

                keep[d] = expf(input(a, TRMI_LINEAR_DECAY, at * a.decay_wide + i));
            }
        }
        __syncwarp();
        float value = own ? input(a, TRMI_LINEAR_VALUE, (at * a.heads + h) * a.dv + column) : 0.0f;
        if (a.gated)
            for (int d = 0; d < a.dk; d++)
                state[d * kColumns + lane] *= keep[d];
        if (a.delta) {
            for (int d = 0; d < a.dk; d++)
                value -= state[d * kColumns + lane] * key[d];
            value *= input(a, TRMI_LINEAR_BETA, at * a.beta_wide + (a.beta_wide == 1 ? 0 : h));
        }
        for (int d = 0; d < a.dk; d++)
            state[d * kColumns + lane] += key[d] * value;
        for (int g = h * share; g < (h + 1) * share; g++) {
            float sum = 0.0f;

            __syncwarp();
            for (int d = lane; d < a.dk; d += kColumns)
                query[d] = a.scale * input(a, TRMI_LINEAR_QUERY, (at * a.q_heads + g) * a.dk + d);
            __syncwarp();
            for (int d = 0; d < a.dk; d++)
                sum += query[d] * state[d * kColumns + lane];
            if (own)
                attention_put<float>(a.to, a.out, (at * a.q_heads + g) * a.dv + column, sum);
        }
    }
    if (!own || a.state == TRM_DTYPE_NONE)
        return;
    for (int d = 0; d < a.dk; d++)
        attention_put<float>(a.state_to, a.state, state_at + static_cast<size_t>(d) * a.dv,
                             state[d * kColumns + lane]);
}

} // namespace

extern "C" size_t trmi_cuda_linear_attention_smem(const trmi_linear_attention *a)
{
    return static_cast<size_t>(a->dk) * (kColumns + 3) * sizeof(float);
}

extern "C" trm_status trmi_cuda_linear_attention(const trmi_linear_attention *a,
                                                 cudaStream_t stream)
{
    const size_t bytes = trmi_cuda_linear_attention_smem(a);
    const int64_t pairs = static_cast<int64_t>(a->batch) * a->heads;
    const int slices = (a->dv + kColumns - 1) / kColumns;

    if (pairs == 0 || slices == 0)
        return TRM_OK;
    if (pairs > INT32_MAX || slices > UINT16_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "LinearAttention of %lld heads",
                        static_cast<long long>(pairs));
    static size_t allowed = 48 * 1024; /* never lowered: captured launches rely on it; one thread */

    if (bytes > allowed) {
        TRM_CHECK(TRMI_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void *>(linear_attention),
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(bytes))));
        allowed = bytes;
    }
    return trmi_launched(
        TRM_LAUNCH(linear_attention,
                   dim3(static_cast<unsigned>(pairs), static_cast<unsigned>(slices)), kColumns,
                   bytes, stream, *a),
        "linear_attention");
}
