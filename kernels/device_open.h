/* A device by its name on a command line. */
#ifndef TRM_KERNELS_DEVICE_OPEN_H
#define TRM_KERNELS_DEVICE_OPEN_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_DEVICE_FORMS "auto, cpu, cuda, or cuda:0,2 (devices by the local number of a rank)"

/* A device and, where its memory is not the host's, the host device beside it. */
typedef struct trm_device_pair {
    trm_device *device;
    trm_device *host; /* == device for the CPU */
    char note[600];   /* why auto does not use CUDA; "" where it does or was not asked */
} trm_device_pair;

/* INVALID_ARG lists the forms. */
TRM_MUST_USE trm_status trm_device_name_check(const char *name);
/* `name`: as above; "cuda": rank `local_rank` of its host takes device local_rank modulo their
 * number, "cuda:0,2" the entry of the list in the same way. auto: CUDA where it can be used, else
 * the CPU. threads: of the CPU device. Errors as trm_device_cuda_create. */
TRM_MUST_USE trm_status trm_device_open(const char *name, int local_rank, int threads,
                                        trm_device_pair *pair_out);
void trm_device_close(trm_device_pair *pair); /* takes a zeroed one */

#ifdef __cplusplus
}
#endif
#endif
