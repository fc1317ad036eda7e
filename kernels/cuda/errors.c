/* CUDA's error codes as ours. */
#include "kernels/cuda/cuda.h"

/* Errors after which the context can do nothing more: only a new process can use the device. */
static bool is_sticky(cudaError_t e)
{
    switch (e) {
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorAssert:
    case cudaErrorDevicesUnavailable:
    case cudaErrorContextIsDestroyed:
    case cudaErrorUnknown:
    case cudaErrorMpsRpcFailure:
    case cudaErrorExternalDevice:
#if CUDART_VERSION >= 13000
    case cudaErrorContained:
    case cudaErrorTensorMemoryLeak:
#endif
        return true;
    default:
        return false;
    }
}

/* The runtime finds nothing to work with, whatever the driver said. */
static bool cannot_start(cudaError_t e)
{
    return e == cudaErrorInsufficientDriver || e == cudaErrorNoDevice ||
           e == cudaErrorStubLibrary || e == cudaErrorInitializationError ||
           e == cudaErrorSystemDriverMismatch || e == cudaErrorCompatNotSupportedOnDevice ||
           e == cudaErrorNoKernelImageForDevice;
}

trm_status trmi_cuda_check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return TRM_OK;
    if (is_sticky(error))
        return trm_fail(TRM_ERR_DEVICE,
                        "the GPU failed (%s, CUDA error %d: %s), seen at %s; the process must be "
                        "started anew to use it",
                        cudaGetErrorName(error), (int)error, cudaGetErrorString(error), what);
    (void)cudaGetLastError(); /* not sticky: the runtime forgets it */
    if (cannot_start(error))
        return trm_fail(TRM_ERR_UNSUPPORTED, "CUDA does not start: %s", cudaGetErrorString(error));
    if (error == cudaErrorMemoryAllocation)
        return trm_fail(TRM_ERR_NO_MEMORY, "%s: out of device memory", what);
    return trm_fail(TRM_ERR_INTERNAL, "%s: %s (CUDA error %d: %s)", what, cudaGetErrorName(error),
                    (int)error, cudaGetErrorString(error));
}

trm_status trmi_launched(cudaError_t error, const char *kernel)
{
    return trmi_cuda_check(error, kernel); /* the launch gives its own error */
}

trm_status trmi_cuda_bad_dtype(const trm_op_desc *desc, int input, const char *want)
{
    return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': input %d is %s: want %s",
                    trm_op_get(desc->op)->name, desc->name, input,
                    trm_dtype_name(desc->inputs[input].dtype), want);
}
