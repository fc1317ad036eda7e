/* A device backend: memory, streams, and kernels for operators. The CPU backend is kernels/cpu; a
 * CUDA backend fills the same table.
 *
 * Life of a kernel: `supports` says whether a node can run here; `prepare` chooses an
 * implementation for concrete shapes, settles layouts, packs weights; `run` enqueues on a stream
 * and allocates nothing. Kernels know tensors, not graphs.
 *
 * Devices with memory of their own (host_memory false) have a `host` beside them, a device with
 * host memory: there run the operators for which they have no kernel, and whatever must be computed
 * while binding. The executor copies between the two.
 *
 * A lost device or an error that the driver keeps reporting: every call fails with
 * TRM_ERR_DEVICE from then on; nothing computed since the last successful stream_wait counts.
 *
 * Threads: a device has one owner, the executor thread. */
#ifndef TRM_KERNELS_DEVICE_H
#define TRM_KERNELS_DEVICE_H

#include "base/op.h"
#include "base/rounding.h"
#include "kernels/weight_store.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_device trm_device;
typedef struct trm_stream trm_stream; /* NULL: the backend's default stream. The CPU has only that
                                         one, and is synchronous */
typedef struct trm_event trm_event;
typedef struct trm_kernel trm_kernel;
typedef struct trm_capture trm_capture; /* a captured sequence of launches (a CUDA graph) */

typedef enum trm_memory_kind {
    TRM_MEMORY_DEVICE, /* where kernels read and write; on the CPU plain host memory, TRM_ALIGN
                          aligned */
    TRM_MEMORY_PINNED  /* host memory that copies asynchronously; on the CPU the same */
} trm_memory_kind;

/* One node with concrete shapes, as a kernel sees it. */
typedef struct trm_op_desc {
    trm_op op;
    const trm_attrs *attrs;
    const char *name; /* for messages */
    int input_count, output_count;
    /* [input_count] dtype NONE: absent. dims concrete. layout: in: how it will arrive; prepare may
     * set the layout it wants instead (the executor converts, once for all readers). data: plain
     * host value where it is constant for the kernel's life (weights; shape inputs always), else
     * NULL. Host data stays valid for the kernel's life, unless the kernel says that it has
     * copied it (copied_inputs). */
    trm_tensor *inputs;
    /* [output_count] dtype NONE: not wanted. dtype and dims as inferred (data-dependent dims:
     * TRM_DIM_UNKNOWN). layout: PLAIN on entry; prepare sets what it will produce. */
    trm_tensor *outputs;
    /* [input_count] identity of a constant input, 0 for none: packed weights are cached under it,
     * so that kernels of several shape buckets share one copy. Unique in the process while the
     * device lives; with TRM_WEIGHT_SHARED_KEY in all processes that share the store `weights`. */
    const uint64_t *weight_keys;
    trm_post posts[TRM_POST_MAX];
    int post_count;
} trm_op_desc;

/* Gives memory to outputs whose shape depends on the data: called from run_dynamic once per wanted
 * output. */
typedef struct trm_output_sink {
    trm_status (*alloc)(void *ctx, int output, int rank, const int64_t *dims, void **data_out);
    void *ctx;
} trm_output_sink;

typedef struct trm_kernel_ops {
    const char *name; /* implementation, for traces: "dnnl conv jit:avx512_core" */
    /* required unless run_dynamic: enqueue on `s`; no waiting, no allocation, so that it can be
     * captured. in[i]: device memory in the layout settled by prepare
     * (NULL: absent, or listed in packed_inputs); out[i]: device memory (NULL: not wanted).
     * workspace: at least workspace_bytes, TRM_ALIGN aligned. */
    trm_status (*run)(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                      void *workspace);
    /* for operators with TRM_OPF_DATA_SHAPE: asks the sink for each output's memory when its shape
     * is known; synchronous */
    trm_status (*run_dynamic)(trm_kernel *k, trm_stream *s, const void *const *in,
                              const trm_output_sink *sink, void *workspace);
    void (*destroy)(trm_kernel *k);
} trm_kernel_ops;

/* Base of every kernel: embed it first. Filled in by prepare. */
struct trm_kernel {
    const trm_kernel_ops *ops;
    size_t workspace_bytes;
    uint32_t
        packed_inputs; /* bit i: the kernel keeps constant input i itself; run gets NULL for it */
    uint32_t copied_inputs; /* bit i, of packed_inputs: it keeps a copy of its own, so that the host
                               data of input i is not read again after prepare */
    uint32_t
        in_place; /* bit i: output 0 may lie where input i lies (same dtype, shape and layout) */
    bool uncapturable; /* run waits or copies to the host: it cannot be part of a capture */
};

/* A block [d0][d1][d2][run] from one tensor to another: element (a, b, c) is `run` bytes at
 * at + a * step[0] + b * step[1] + c * step[2], bytes. */
typedef struct trm_block {
    size_t dims[3], run;
    size_t from_at, from_step[3];
    size_t to_at, to_step[3];
} trm_block;
#define TRM_BLOCKS_MAX 256

struct trm_step; /* kernels/language.h */

/* Inputs of a language model's graph that travel with the step. */
typedef enum trm_step_input {
    TRM_STEP_TOKENS,    /* [token_rows] I32 */
    TRM_STEP_POSITIONS, /* [token_rows] I32 */
    TRM_STEP_ROWS,      /* [pick_rows] I32 */
    TRM_STEP_TYPES,     /* [token_rows] I32 */
    TRM_STEP_SELF       /* what kernels take as `step` */
} trm_step_input;

typedef struct trm_device_info {
    char name[128]; /* "AMD EPYC, 2 threads, avx512_core_bf16" */
    size_t memory_bytes;
    int threads;
    char identity[64]; /* of the physical device ("0000:17:00.0"); "" for a CPU: ranks of a host can
                          tell whether they share one */
    bool bf16_fast;    /* bf16 matrix instructions: worth using */
} trm_device_info;

typedef struct trm_device_ops {
    const char *name; /* "cpu", "cuda" */
    void (*info)(trm_device *d, trm_device_info *info_out);
    /* dtypes and attributes only, no shapes needed: decides placement before anything runs. False
     * sets the message */
    bool (*supports)(trm_device *d, const trm_op_desc *desc);
    trm_status (*prepare)(trm_device *d, trm_op_desc *desc, trm_kernel **kernel_out);
    /* converts between layouts and dtypes of the same logical tensor */
    trm_status (*prepare_reorder)(trm_device *d, const trm_tensor *from, const trm_tensor *to,
                                  trm_kernel **kernel_out);
    trm_status (*alloc)(trm_device *d, trm_memory_kind kind, size_t bytes, void **memory_out);
    void (*free)(trm_device *d, trm_memory_kind kind, void *memory);
    /* enqueued: pinned host memory stays as it is until the stream has passed the copy; other host
     * memory may make the call wait */
    trm_status (*copy_in)(trm_device *d, trm_stream *s, void *device_to, const void *host_from,
                          size_t bytes);
    trm_status (*copy_out)(trm_device *d, trm_stream *s, void *host_to, const void *device_from,
                           size_t bytes);
    trm_status (*fill_zero)(trm_device *d, trm_stream *s, void *device_to, size_t bytes);
    /* optional: NULL: collectives go over host memory */
    const struct trm_device_group_ops *group;
    /* optional with `group`: a kernel that copies `count` blocks from
     * in[0] to out[0]; blocks do not overlap in the result */
    trm_status (*prepare_blocks)(trm_device *d, const trm_block *blocks, int count,
                                 trm_kernel **kernel_out);
    /* optional: NULL where device memory is the host's. Weights: host bytes to the device, in
     * bounded pieces; the source may be reused on return, and whatever is enqueued later sees them
     */
    trm_status (*upload)(trm_device *d, void *device_to, const void *host_from, size_t bytes);
    trm_status (*copy_within)(trm_device *d, trm_stream *s, void *device_to,
                              const void *device_from, size_t bytes);
    /* optional: what kernels noted about the data of a step, such as an index out of range, which
     * they cannot return. notes_bytes: 0: nothing can have been noted. fetch enqueues a copy to
     * pinned host memory and a clearing; check makes an error of what it brought */
    size_t (*notes_bytes)(trm_device *d);
    trm_status (*notes_fetch)(trm_device *d, trm_stream *s, void *host_to, size_t bytes);
    trm_status (*notes_check)(trm_device *d, const void *host, size_t bytes);
    /* optional from here: NULL means synchronous, one stream, no capture */
    trm_status (*stream_create)(trm_device *d, trm_stream **stream_out);
    void (*stream_destroy)(trm_device *d, trm_stream *s);
    trm_status (*stream_wait)(trm_device *d,
                              trm_stream *s); /* host waits until the stream is done */
    trm_status (*event_create)(trm_device *d, trm_event **event_out);
    void (*event_destroy)(trm_device *d, trm_event *e);
    trm_status (*event_record)(trm_device *d, trm_event *e, trm_stream *s);
    trm_status (*event_wait)(trm_device *d, trm_event *e,
                             trm_stream *s); /* the stream waits for the event */
    /* whether what was recorded has run; for waits with a deadline */
    trm_status (*event_done)(trm_device *d, trm_event *e, bool *done_out);
    /* From capture_begin to capture_end what is enqueued on `s`, and on streams that wait for its
     * events, is recorded and not run; launch runs it with the same pointers. After a failed
     * capture_end nothing is recorded, and the stream can be used. */
    trm_status (*capture_begin)(trm_device *d, trm_stream *s);
    trm_status (*capture_end)(trm_device *d, trm_stream *s, trm_capture **capture_out);
    trm_status (*capture_launch)(trm_device *d, trm_capture *c, trm_stream *s);
    void (*capture_destroy)(trm_device *d, trm_capture *c);
    /* optional: names what is enqueued until the matching mark_end, for profilers; they nest */
    void (*mark_begin)(trm_device *d, const char *name);
    void (*mark_end)(trm_device *d);
    /* Steps of language models, optional: NULL: kernels read the trm_step itself. A device with
     * memory of its own reads a block in its memory instead, which encode makes in host memory and
     * send copies there (both ends stay until the stream has passed the copy). Inputs of the graph
     * lie in it, at places that depend on the step's *_max only.
     * encode: *bytes_out: what it takes; NO_MEMORY: `host_max` is less. */
    trm_status (*step_encode)(trm_device *d, const struct trm_step *step, void *host,
                              size_t host_max, size_t *bytes_out);
    trm_status (*step_send)(trm_device *d, trm_stream *s, const struct trm_step *step, void *block,
                            const void *host, size_t bytes);
    size_t (*step_input_at)(trm_device *d, const struct trm_step *step, trm_step_input input);
    /* optional: how much device memory nobody has taken */
    trm_status (*memory_free)(trm_device *d, size_t *bytes_out);
    void (*destroy)(trm_device *d);
} trm_device_ops;

/* Base of every device: embed it first. */
struct trm_device {
    const trm_device_ops *ops;
    bool host_memory;          /* device memory is host memory: outputs and inputs need no copies */
    trm_weight_store *weights; /* where weights are packed that other processes share; NULL:
                                  nowhere. Set before kernels are prepared */
    trm_device *host; /* with host_memory false: see above; borrowed, outlives the device */
    /* Language models may add in whatever order is fastest: results then depend on batch and layout
     * in their last bits (--deterministic off). Set before kernels are prepared; the CPU ignores
     * it. */
    bool order_free;
    trm_rounding_fn *rounding;         /* language models; NULL: rows stay F32 */
    size_t packed_bytes, shared_bytes; /* packed weights now: this process's own, and shared */
};

/* Where operators run that `d` has no kernel for: `d` itself if its memory is the host's. */
static inline trm_device *trm_device_host(trm_device *d)
{
    return d->host_memory ? d : d->host;
}

/* threads: of the executor's team (base/team), 0: all allowed CPUs. */
TRM_MUST_USE trm_status trm_device_cpu_create(int threads, trm_device **device_out);
/* Level of the instruction set that our own CPU kernels use here (0: plain C): ranks of one job can
 * compare. */
int trm_device_isa(void);
void trm_device_destroy(trm_device *device); /* takes NULL; kernels must be gone */
static inline void trm_kernel_destroy(trm_kernel *k)
{
    if (k != NULL)
        k->ops->destroy(k);
}

#ifdef __cplusplus
}
#endif
#endif
