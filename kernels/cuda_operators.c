/* The rows of the CUDA backend's table as a set. */
#include "kernels/cuda_operators.h"

static const bool has[TRM_OP_COUNT] = {
#define TRM_CUDA_ROW(op, fn) [TRM_OP_##op] = true,
#include "kernels/cuda/table.def"
#undef TRM_CUDA_ROW
};

bool trm_cuda_has_operator(trm_op op)
{
    return (unsigned)op < TRM_OP_COUNT && has[op];
}
