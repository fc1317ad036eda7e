/* Gain and bias of a normalisation whose shape or dtype is not what the kernels read (norm.h). */
#include "kernels/cuda/rows.cuh"

#include "kernels/cuda/norm.h"

using namespace trmi_rows;

namespace
{

struct Shape {
    int rank, from_type;
    Div dims[TRM_RANK_MAX];
    int64_t strides[TRM_RANK_MAX];
    uint32_t count;
};

template <class W>
__global__ void __launch_bounds__(256)
    expand(Shape s, const void *__restrict__ from, W *__restrict__ to)
{
    const uint32_t i = blockIdx.x * 256 + threadIdx.x;
    uint32_t index = i;
    int64_t at = 0;

    TRM_KERNEL_BEGIN();
    if (i >= s.count)
        return;
    for (int d = s.rank - 1; d >= 0; d--) {
        const uint32_t q = quotient(s.dims[d], index);

        at += static_cast<int64_t>(index - q * s.dims[d].d) * s.strides[d];
        index = q;
    }
    to[i] = static_cast<W>(get_float(from, s.from_type, static_cast<size_t>(at)));
}

} // namespace

extern "C" trm_status trmi_cuda_norm_expand(trm_dtype type, void *to, trm_dtype from_type,
                                            const void *from, int rank, const int64_t *dims,
                                            const int64_t *strides, cudaStream_t stream)
{
    Shape s = {};
    size_t count = 1;

    s.rank = rank;
    s.from_type = from_type;
    for (int d = 0; d < rank; d++) {
        s.dims[d] = div_of(static_cast<size_t>(dims[d]));
        s.strides[d] = strides[d];
        count *= static_cast<size_t>(dims[d]);
    }
    if (count == 0)
        return TRM_OK;
    if (count > INT32_MAX || !trm_dtype_is_float(from_type))
        return trm_fail(TRM_ERR_UNSUPPORTED, "expansion of %s to %zu elements",
                        trm_dtype_name(from_type), count);
    s.count = static_cast<uint32_t>(count);
    const unsigned blocks = (s.count + 255) / 256;

    if (type == TRM_DTYPE_F64)
        return trmi_launched(TRM_LAUNCH((expand<double>), blocks, 256, 0, stream, s, from,
                                        static_cast<double *>(to)),
                             "expansion of a gain");
    return trmi_launched(
        TRM_LAUNCH((expand<float>), blocks, 256, 0, stream, s, from, static_cast<float *>(to)),
        "expansion of a gain");
}
