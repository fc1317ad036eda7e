/* Collectives between CUDA devices (kernels/device_group.h): NCCL, and for small sums between ranks
 * of one host kernels of our own (group_sum.h). */
#ifndef TRM_KERNELS_CUDA_GROUP_H
#define TRM_KERNELS_CUDA_GROUP_H

#include "kernels/cuda/cuda.h"
#include "kernels/device_group.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const trm_device_group_ops trmi_cuda_group_ops;

#ifdef __cplusplus
}
#endif
#endif
