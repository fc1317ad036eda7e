/* Inside the CUDA backend: the device object, the kernel table's row type, packed weights, errors.
 *
 * The backend is a module (libtrireme_cuda.so) that the program opens at run time: it may call what
 * base/ and kernels/device.h declare, and no CUDA library is linked to the program itself. The same
 * C files are also linked with an emulated CUDA runtime (tests/cuda/emulation) for machines without
 * a GPU.
 *
 * A family of operators is three files:
 *   <family>.h   the launchers' contract; C, includes no CUDA header but <cuda_runtime_api.h>
 *   <family>.c   prepare functions: choose, settle layouts, pack weights (C11)
 *   <family>.cu  kernels and `extern "C"` launchers that return trm_status (includes gpu.cuh)
 * and rows in table_<family>.def.
 *
 * Launchers: pointers are device memory; sizes are checked; zero work returns TRM_OK before a
 * launch; nothing is allocated; they end with trmi_launched(TRM_LAUNCH(...), "name"). Tables that a
 * kernel needs (strides, axes) travel by value in its arguments (4 KB at most). Offsets are size_t
 * unless the launcher has checked that 32 bits hold them. */
#ifndef TRM_KERNELS_CUDA_CUDA_H
#define TRM_KERNELS_CUDA_CUDA_H

#include "kernels/device.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_cuda trm_cuda;

struct trm_cuda {
    trm_device base;
    int ordinal; /* of the CUDA runtime */
    char name[96];
    int capability;      /* 90 for sm_90 */
    int multiprocessors; /* grids are sized by it */
    size_t memory_bytes, l2_bytes;
    int shared_bytes_max;       /* dynamic shared memory that a block may ask for */
    cudaStream_t stream;        /* what a NULL trm_stream means; non-blocking */
    struct trmi_pack *packs;    /* packed weights, shared between kernels */
    struct trmi_staging *stage; /* pinned buffers of uploads (staging.c) */
    struct trmi_notes *notes;   /* notes.h */
    void *blaslt;               /* struct of dense_cublaslt.c, made at first use; NULL */
    void *dnn;                  /* struct of dnn.c, likewise */
    void (*blaslt_fini)(trm_cuda *cuda);
    void (*dnn_fini)(trm_cuda *cuda);
};

struct trm_stream {
    cudaStream_t stream;
};

/* Prepares a kernel or fails: UNSUPPORTED (dtype, attribute: say which; the executor then runs the
 * node on the host device, its copies counted) or INVALID_ARG. May change input layouts and set
 * output layouts in `desc`: PLAIN and CHANNELS_LAST exist here, the blocked ones do not. Shapes
 * have been checked by the shape rules; values that come as host data (axes, indices) have not.
 * Must refuse posts (trmi_cuda_begin does) unless it applies them. */
typedef trm_status (*trmi_cuda_prepare)(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out);

/* Base of the backend's kernels: embed it first. */
typedef struct trmi_cuda_kernel {
    trm_kernel base;
    trm_cuda *cuda;
} trmi_cuda_kernel;

/* Zeroed kernel object of `bytes` whose first member is trmi_cuda_kernel. */
TRM_MUST_USE trm_status trmi_cuda_kernel_new(trm_cuda *cuda, size_t bytes,
                                             const trm_kernel_ops *ops, void *kernel_out);
void trmi_cuda_kernel_free(trm_kernel *k); /* a `destroy` for kernels that own nothing else */

/* The stream to launch on. */
static inline cudaStream_t trmi_cuda_stream(const trm_kernel *k, const trm_stream *s)
{
    return s != NULL ? s->stream : ((const trmi_cuda_kernel *)k)->cuda->stream;
}

/* ---- errors (errors.c) ---- */
/* OK, or what the CUDA error means: NO_MEMORY, DEVICE (sticky errors: the context is gone),
 * INTERNAL; the text has CUDA's name and words. */
trm_status trmi_cuda_check(cudaError_t error, const char *what);
#define TRMI_CUDA(call) trmi_cuda_check((call), #call)
/* The same behind a launch. */
trm_status trmi_launched(cudaError_t error, const char *kernel);
/* "Relu 'name': input 0 is u8: want ..." UNSUPPORTED */
trm_status trmi_cuda_bad_dtype(const trm_op_desc *desc, int input, const char *want);

/* ---- what prepare functions share (prepare.c) ---- */
/* Asks for plain inputs; UNSUPPORTED where posts are attached. */
TRM_MUST_USE trm_status trmi_cuda_begin(trm_op_desc *desc);
static inline bool trmi_cuda_has_input(const trm_op_desc *desc, int i)
{
    return i < desc->input_count && desc->inputs[i].dtype != TRM_DTYPE_NONE;
}
static inline bool trmi_cuda_has_output(const trm_op_desc *desc, int i)
{
    return i < desc->output_count && desc->outputs[i].dtype != TRM_DTYPE_NONE;
}
/* `axis` of a tensor of `rank` dims made non-negative; INVALID_ARG names the node. */
TRM_MUST_USE trm_status trmi_cuda_axis(const trm_op_desc *desc, int64_t axis, int rank,
                                       int *axis_out);
/* Integer elements of shape input i, whose value is host data at prepare. *count_out is 0 where it
 * is absent; INVALID_ARG: longer than max, no integers; UNSUPPORTED: not known. */
TRM_MUST_USE trm_status trmi_cuda_ints(const trm_op_desc *desc, int input, int64_t *values_out,
                                       int max, int *count_out);
/* Strides in elements of a tensor's dims where they lie in its layout (PLAIN, CHANNELS_LAST). */
void trmi_cuda_strides(const trm_tensor *t, int64_t strides_out[TRM_RANK_MAX]);

/* ---- packed weights (packs.c) ---- */
typedef struct trmi_pack {
    struct trmi_pack *next;
    uint64_t key;
    char *form;
    void *memory; /* device */
    size_t bytes;
    int holders;
} trmi_pack;
/* Device memory packed from constant `key` in the form named by `form` (any text that determines
 * the packed bytes). *found_out: it is there; else the caller fills it (trmi_cuda_upload). Key 0 is
 * never shared. Held until trmi_cuda_pack_release (takes NULL). */
TRM_MUST_USE trm_status trmi_cuda_pack(trm_cuda *cuda, uint64_t key, const char *form, size_t bytes,
                                       trmi_pack **pack_out, bool *found_out);
void trmi_cuda_pack_release(trm_cuda *cuda, trmi_pack *pack);
/* Constant input i as it is, in device memory, as a pack. */
TRM_MUST_USE trm_status trmi_cuda_pack_plain(trm_cuda *cuda, const trm_op_desc *desc, int input,
                                             trmi_pack **pack_out);
/* Host bytes to the device through a ring of pinned buffers, which the team's threads fill; the
 * source may be reused on return, the copy is ordered before whatever is enqueued later on any
 * stream. */
TRM_MUST_USE trm_status trmi_cuda_upload(trm_cuda *cuda, void *device_to, const void *host_from,
                                         size_t bytes);
void trmi_cuda_staging_fini(trm_cuda *cuda);

/* overlap.cu: launches may overlap with the end of the kernel before them. */
bool trmi_cuda_overlap_compiled(void);

/* table.c */
trmi_cuda_prepare trmi_cuda_kernel_of(trm_op op); /* NULL: no kernel */
/* Between layouts (PLAIN, CHANNELS_LAST) and float dtypes of one logical tensor (reorder.c). */
TRM_MUST_USE trm_status trmi_cuda_prepare_reorder(trm_device *d, const trm_tensor *from,
                                                  const trm_tensor *to, trm_kernel **kernel_out);

#define TRM_CUDA_ROW(op, fn)                                                                       \
    trm_status fn(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out);
#include "kernels/cuda/table.def"
#undef TRM_CUDA_ROW

#ifdef __cplusplus
}
#endif
#endif
