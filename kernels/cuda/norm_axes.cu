/* LpNormalization and MeanVarianceNormalization: the pass over the elements (norm_axes.h). */
#include "kernels/cuda/rows.cuh"

#include "kernels/cuda/norm_axes.h"

using namespace trmi_rows;

namespace
{

struct Shape {
    int groups;
    Div dims[TRM_RANK_MAX];
    size_t steps[TRM_RANK_MAX];
    uint32_t count;
};

template <class T, bool kMoments>
__global__ void __launch_bounds__(256)
    apply_entries(Shape s, const T *x, const void *__restrict__ entries, T *y)
{
    using W = typename Work<T>::type;

    TRM_KERNEL_BEGIN();
    for (uint32_t i = blockIdx.x * 256 + threadIdx.x; i < s.count; i += gridDim.x * 256) {
        uint32_t index = i;
        size_t at = 0;

        for (int g = s.groups - 1; g >= 0; g--) {
            const uint32_t q = quotient(s.dims[g], index);

            at += (index - q * s.dims[g].d) * s.steps[g];
            index = q;
        }
        if (kMoments) {
            const double *m = static_cast<const double *>(entries) + 2 * at;
            const double v = static_cast<double>(trm_up(x[i]));

            y[i] = trm_down<T>(static_cast<W>((v - m[0]) / (sqrt(m[1]) + 1e-9)));
        } else {
            const W norm = static_cast<const W *>(entries)[at];

            y[i] = trm_down<T>(norm == 0 ? static_cast<W>(0)
                                         : static_cast<W>(trm_up(x[i])) / norm);
        }
    }
}

} // namespace

extern "C" trm_status trmi_cuda_norm_axes_run(const trmi_norm_axes *n, cudaStream_t stream,
                                              const void *x, const void *entries, void *y)
{
    Shape s = {};

    if (n->count == 0)
        return TRM_OK;
    s.groups = n->groups;
    for (int g = 0; g < n->groups; g++) {
        s.dims[g] = div_of(n->dims[g]);
        s.steps[g] = n->steps[g];
    }
    s.count = static_cast<uint32_t>(n->count);
    const unsigned blocks = s.count / 256 / 4 + 1;

    TRM_FLOATS(n->dtype, T, {
        if (n->moments)
            return trmi_launched(TRM_LAUNCH((apply_entries<T, true>), blocks, 256, 0, stream, s,
                                            static_cast<const T *>(x), entries,
                                            static_cast<T *>(y)),
                                 "mean and variance normalisation");
        return trmi_launched(TRM_LAUNCH((apply_entries<T, false>), blocks, 256, 0, stream, s,
                                        static_cast<const T *>(x), entries, static_cast<T *>(y)),
                             "Lp normalisation");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "normalisation of %s", trm_dtype_name(n->dtype));
}
