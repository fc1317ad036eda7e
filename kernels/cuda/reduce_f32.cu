/* Reductions of f32 (reduce.h). */
#include "kernels/cuda/reduce.cuh"

extern "C" trm_status trmi_cuda_reduce_f32(const trmi_reduce *r, cudaStream_t stream,
                                          const void *in, void *out, void *workspace)
{
    return trmi_rows::fold_floats<float>(r, stream, in, out, workspace);
}
