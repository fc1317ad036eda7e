/* Operator -> prepare function. */
#include "kernels/cuda/cuda.h"

static const trmi_cuda_prepare table[TRM_OP_COUNT] = {
#define TRM_CUDA_ROW(op, fn) [TRM_OP_##op] = (fn),
#include "kernels/cuda/table.def"
#undef TRM_CUDA_ROW
};

trmi_cuda_prepare trmi_cuda_kernel_of(trm_op op)
{
    return (unsigned)op < TRM_OP_COUNT ? table[op] : NULL;
}
