/* Stands in for parts of the backend that a build has not got. */
#include "kernels/cuda/cuda.h"

extern "C" __attribute__((weak)) trm_status trmi_cuda_prepare_reorder(trm_device *, const trm_tensor *,
                                                                      const trm_tensor *,
                                                                      trm_kernel **)
{
    return trm_fail(TRM_ERR_UNSUPPORTED, "no reorder kernels in this build");
}
