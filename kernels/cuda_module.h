/* The CUDA backend from the program's side: a probe that costs a millisecond and loads no CUDA
 * library but the driver's, and the device, whose module (libtrireme_cuda.so) is opened at run
 * time. The module is looked for beside the program, then in ../lib beside it, then where the
 * loader looks; TRM_CUDA_MODULE names another file, TRM_CUDA_DRIVER another libcuda.so.1 (tests).
 */
#ifndef TRM_KERNELS_CUDA_MODULE_H
#define TRM_KERNELS_CUDA_MODULE_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_CUDA_DEVICES_MAX 16
#ifndef TRM_CUDA_DRIVER_MIN /* the toolkit's major version: any driver of it serves */
#define TRM_CUDA_DRIVER_MIN 13000
#endif

typedef enum trm_cuda_link {
    TRM_CUDA_LINK_NONE, /* no peer access */
    TRM_CUDA_LINK_PCI,
    TRM_CUDA_LINK_NVLINK
} trm_cuda_link;

typedef struct trm_cuda_found {
    char name[96];
    char pci[24];   /* "0000:17:00.0" */
    int capability; /* 90 for sm_90 */
    int multiprocessors;
    size_t memory_bytes;
    trm_cuda_link link[TRM_CUDA_DEVICES_MAX]; /* to each device */
} trm_cuda_found;

typedef struct trm_cuda_probe_result {
    int driver_version; /* 13000; 0: unknown */
    int count;          /* 0: see why */
    trm_cuda_found found[TRM_CUDA_DEVICES_MAX];
    char why[512]; /* one line: why CUDA cannot be used, e.g. "no driver: libcuda.so.1: cannot open
                      shared object file"; "" if it can */
} trm_cuda_probe_result;

/* What is here, by the driver alone. Never fails: `why` says what is missing. */
void trm_cuda_probe(trm_cuda_probe_result *result_out);

typedef struct trm_cuda_options {
    int device; /* index in the driver's order (CUDA_VISIBLE_DEVICES applies) */
} trm_cuda_options;

/* The module's libraries, "cuBLASLt 13.1, cuDNN 9.19, NCCL 2.28.9, built for sm_80 sm_90a";
 * UNSUPPORTED with the loader's words where the module or a library it needs is missing. */
TRM_MUST_USE trm_status trm_cuda_module_versions(char *text, size_t bytes);
/* Opens the module and device `options->device`. `host`: see trm_device.host. UNSUPPORTED: no
 * driver, no device, too old a driver, missing library: one line; NO_MEMORY; DEVICE. */
TRM_MUST_USE trm_status trm_device_cuda_create(const trm_cuda_options *options, trm_device *host,
                                               trm_device **device_out);

/* ---- between the program and the module ---- */
#define TRM_CUDA_MODULE_ABI 1
typedef struct trm_cuda_module {
    int abi;
    size_t device_bytes, ops_bytes, kernel_bytes, op_count; /* what it was built with: a stale one
                                                               is refused */
    trm_status (*create)(const trm_cuda_options *options, trm_device *host,
                         trm_device **device_out);
    void (*versions)(char *text, size_t bytes);
} trm_cuda_module;
/* The module's only exported symbol. */
typedef const trm_cuda_module *(*trm_cuda_module_entry)(void);
#define TRM_CUDA_MODULE_ENTRY "trm_cuda_module_get"

#ifdef __cplusplus
}
#endif
#endif
