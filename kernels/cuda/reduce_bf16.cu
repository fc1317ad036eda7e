/* Reductions of bf16 (reduce.h). */
#include "kernels/cuda/reduce.cuh"

extern "C" trm_status trmi_cuda_reduce_bf16(const trmi_reduce *r, cudaStream_t stream,
                                          const void *in, void *out, void *workspace)
{
    return trmi_rows::fold_floats<__nv_bfloat16>(r, stream, in, out, workspace);
}
