#include "kernels/cuda/gpu.cuh"
template <class T> __global__ void trm_selftest_add(T *to, const T *a, const T *b, int n)
{
    TRM_KERNEL_BEGIN();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        to[i] = trm_down<T>(trm_up(a[i]) + trm_up(b[i]));
}
extern "C" cudaError_t trmi_selftest_add(float *to, const float *a, const float *b, int n, cudaStream_t s)
{
    return TRM_LAUNCH(trm_selftest_add<float>, (n + 255) / 256, 256, 0, s, to, a, b, n);
}
