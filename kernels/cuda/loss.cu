/* Losses over classes (loss.h): a warp a position where its classes lie close together, else a
 * thread; then one block adds up the positions. */
#include "kernels/cuda/rows.cuh"

#include "kernels/cuda/loss.h"

using namespace trmi_rows;

namespace
{

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    losses(trmi_loss l, uint32_t lanes, const void *__restrict__ x,
           const void *__restrict__ target, const void *__restrict__ weight, void *__restrict__ out,
           void *__restrict__ logs, double *__restrict__ sums)
{
    const uint32_t positions = static_cast<uint32_t>(l.n * l.d), d = static_cast<uint32_t>(l.d);
    const uint32_t i = blockIdx.x * (kThreads / lanes) + threadIdx.x / lanes;
    const uint32_t lane = threadIdx.x % lanes;
    double shift = 0, max = -INFINITY, sum = 0, loss = 0, w = 0;

    TRM_KERNEL_BEGIN();
    const bool inside = i < positions;
    const size_t base =
        inside ? i / d * (l.classes * l.d) + i % d : 0; /* of the position's scores */

    if (l.softmax) {
        for (size_t c = lane; inside && c < l.classes; c += lanes)
            max = fmax(max, get_float(x, l.x, base + c * l.d));
        for (uint32_t step = lanes / 2; step > 0; step /= 2)
            max = fmax(max, __shfl_xor_sync(kAll, max, static_cast<int>(step)));
        for (size_t c = lane; inside && c < l.classes; c += lanes)
            sum += exp(get_float(x, l.x, base + c * l.d) - max);
        for (uint32_t step = lanes / 2; step > 0; step /= 2)
            sum += __shfl_xor_sync(kAll, sum, static_cast<int>(step));
        shift = max + log(sum);
    }
    if (!inside)
        return;
    for (size_t c = lane; logs != nullptr && c < l.classes; c += lanes)
        put_float(logs, l.x, base + c * l.d, get_float(x, l.x, base + c * l.d) - shift);
    if (lane != 0)
        return;
    const int64_t wanted = l.target == TRM_DTYPE_I32
                               ? static_cast<int64_t>(static_cast<const int32_t *>(target)[i])
                               : static_cast<const int64_t *>(target)[i];

    if (!l.has_ignore || wanted != l.ignore) {
        const size_t at = static_cast<size_t>(wanted);

        if (wanted < 0 || at >= l.classes) {
            loss = w = NAN;
        } else {
            w = l.weight != TRM_DTYPE_NONE ? get_float(weight, l.weight, at) : 1;
            loss = w * (shift - get_float(x, l.x, base + at * l.d));
        }
    }
    if (sums != nullptr) {
        sums[i] = loss;
        sums[positions + i] = w;
    } else {
        put_float(out, l.out, i, loss);
    }
}

__global__ void __launch_bounds__(kThreads)
    total(trmi_loss l, const double *__restrict__ sums, void *__restrict__ out)
{
    __shared__ double scratch[32];
    const size_t positions = l.n * l.d;
    double loss = 0, weight = 0;

    TRM_KERNEL_BEGIN();
    for (size_t i = threadIdx.x; i < positions; i += kThreads) {
        loss += sums[i];
        weight += sums[positions + i];
    }
    loss = block_fold(Sum(), loss, scratch);
    weight = block_fold(Sum(), weight, scratch);
    if (threadIdx.x == 0)
        put_float(out, l.out, 0, l.reduction == TRMI_LOSS_MEAN ? loss / weight : loss);
}

} // namespace

extern "C" size_t trmi_cuda_loss_workspace_bytes(const trmi_loss *l)
{
    return l->reduction == TRMI_LOSS_NONE ? 0 : 2 * l->n * l->d * sizeof(double);
}

extern "C" trm_status trmi_cuda_loss_run(const trmi_loss *l, cudaStream_t stream, const void *x,
                                         const void *target, const void *weight, void *out,
                                         void *logs, void *workspace)
{
    const uint32_t lanes = l->d >= 32 ? 1 : 32;
    const size_t positions = l->n * l->d;
    double *sums = l->reduction != TRMI_LOSS_NONE ? static_cast<double *>(workspace) : nullptr;

    if (positions > INT32_MAX || l->classes > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a loss of %zu positions", positions);
    const unsigned blocks = static_cast<unsigned>((positions * lanes + kThreads - 1) / kThreads);

    if (positions > 0)
        TRM_CHECK(trmi_launched(TRM_LAUNCH(losses, blocks, kThreads, 0, stream, *l, lanes, x,
                                           target, weight, out, logs, sums),
                                "losses"));
    if (sums == nullptr)
        return TRM_OK;
    return trmi_launched(TRM_LAUNCH(total, 1, kThreads, 0, stream, *l,
                                    static_cast<const double *>(sums), out),
                         "total of losses");
}
