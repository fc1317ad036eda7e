/* oneDNN from C: engine, stream, status translation, memory descriptors from trm_tensor, and the
 * kernel object that most kernels on oneDNN share: a short list of primitives (a reorder of weights
 * that arrive as an input, the main one, post-ops it cannot fuse) whose arguments are bound to
 * inputs, outputs, workspace or fixed memory.
 *
 * Memory objects are made by prepare; run only sets their handles, and only those that have changed
 * since the last run, because setting one also zeroes the padding of blocked layouts. */
#ifndef TRM_KERNELS_CPU_DNNL_UTIL_H
#define TRM_KERNELS_CPU_DNNL_UTIL_H

#include "kernels/cpu/cpu.h"

#include <dnnl.h>

static inline dnnl_engine_t trmi_cpu_engine(trm_cpu *cpu)
{
    return (dnnl_engine_t)cpu->dnnl_engine;
}
static inline dnnl_stream_t trmi_cpu_stream(trm_cpu *cpu)
{
    return (dnnl_stream_t)cpu->dnnl_stream;
}
/* OK, or the translated status with "oneDNN <what>: <its status>". dnnl_unimplemented and
 * dnnl_invalid_arguments (what a primitive's checks say to combinations they do not take) become
 * UNSUPPORTED. */
trm_status trmi_dnnl_status(dnnl_status_t status, const char *what);

/* dnnl_data_type_undef where oneDNN has no such type */
dnnl_data_type_t trmi_dnnl_dtype(trm_dtype dtype);
/* Descriptor of `t` in `layout`; UNSUPPORTED for dtypes or ranks that oneDNN lacks. */
TRM_MUST_USE trm_status trmi_dnnl_md(const trm_tensor *t, trm_layout layout,
                                     dnnl_memory_desc_t *md_out);
/* The same with the format left to the primitive. */
TRM_MUST_USE trm_status trmi_dnnl_md_any(const trm_tensor *t, dnnl_memory_desc_t *md_out);
/* Row-major descriptor of any shape (rank 0 becomes [1]). */
TRM_MUST_USE trm_status trmi_dnnl_md_plain(int rank, const int64_t *dims, trm_dtype dtype,
                                           dnnl_memory_desc_t *md_out);
/* Which of our layouts `md` is for a tensor with t's dims; false: none of them. */
bool trmi_dnnl_layout(const dnnl_memory_desc_t *md, const trm_tensor *t, trm_layout *layout_out);
/* True where the bytes of `t` are the same in both layouts ([N, C, 1, 1] with whole blocks). */
bool trmi_layout_same_bytes(const trm_tensor *t, trm_layout a, trm_layout b);

#define TRMI_DNNL_ARGS 12
#define TRMI_DNNL_STEPS 6
#define TRMI_DNNL_PACKS 4

typedef enum trmi_bind_kind {
    TRMI_BIND_INPUT,     /* at: input index */
    TRMI_BIND_OUTPUT,    /* at: output index */
    TRMI_BIND_WORKSPACE, /* at: byte offset */
    TRMI_BIND_FIXED      /* handle set by prepare */
} trmi_bind_kind;

typedef struct trmi_bind {
    trmi_bind_kind kind;
    size_t at;
    const void *fixed;
} trmi_bind;

typedef struct trmi_dnnl_step {
    dnnl_primitive_t primitive;
    int arg_count;
    dnnl_exec_arg_t args[TRMI_DNNL_ARGS];
    trmi_bind binds[TRMI_DNNL_ARGS];
    const void *handles[TRMI_DNNL_ARGS]; /* as last set */
} trmi_dnnl_step;

typedef struct trmi_dnnl_kernel {
    trm_kernel base;
    trm_cpu *cpu;
    int step_count;
    trmi_dnnl_step steps[TRMI_DNNL_STEPS];
    trmi_pack *packs[TRMI_DNNL_PACKS]; /* weights held */
    int pack_count;
    char impl[64]; /* implementation of the main primitive */
} trmi_dnnl_kernel;

static inline trmi_bind trmi_bind_input(int i)
{
    return (trmi_bind){.kind = TRMI_BIND_INPUT, .at = (size_t)i};
}
static inline trmi_bind trmi_bind_output(int i)
{
    return (trmi_bind){.kind = TRMI_BIND_OUTPUT, .at = (size_t)i};
}
static inline trmi_bind trmi_bind_workspace(size_t offset)
{
    return (trmi_bind){.kind = TRMI_BIND_WORKSPACE, .at = offset};
}
static inline trmi_bind trmi_bind_fixed(const void *p)
{
    return (trmi_bind){.kind = TRMI_BIND_FIXED, .fixed = p};
}

TRM_MUST_USE trm_status trmi_dnnl_kernel_new(trm_cpu *cpu, trmi_dnnl_kernel **kernel_out);
/* Appends a primitive (pd stays the caller's) and binds its user scratchpad to workspace. `index`
 * 0: before the steps there are, e.g. a reorder of an input. */
TRM_MUST_USE trm_status trmi_dnnl_step_add(trmi_dnnl_kernel *k, const_dnnl_primitive_desc_t pd,
                                           trmi_dnnl_step **step_out);
TRM_MUST_USE trm_status trmi_dnnl_step_arg(trmi_dnnl_kernel *k, trmi_dnnl_step *step, int arg,
                                           const dnnl_memory_desc_t *md, trmi_bind bind);
/* Appends a reorder of a value bound to `from_bind`. */
TRM_MUST_USE trm_status trmi_dnnl_step_reorder(trmi_dnnl_kernel *k, const dnnl_memory_desc_t *from,
                                               trmi_bind from_bind, const dnnl_memory_desc_t *to,
                                               trmi_bind to_bind);
void trmi_dnnl_kernel_destroy(trm_kernel *k);

/* Constant or run-time weights in the descriptor a primitive wants. Constant: packed once under
 * the input's key, `*bind_out` is fixed and the input's bit is set in packed_inputs; else a reorder
 * step into workspace (none where the descriptors are equal). */
TRM_MUST_USE trm_status trmi_dnnl_weights(trmi_dnnl_kernel *k, const trm_op_desc *desc, int input,
                                          const dnnl_memory_desc_t *user,
                                          const dnnl_memory_desc_t *wanted, trmi_bind *bind_out);

/* Attributes with user scratchpad; destroy with dnnl_primitive_attr_destroy. */
TRM_MUST_USE trm_status trmi_dnnl_attr(dnnl_primitive_attr_t *attr_out);

/* posts_dnnl.c: post-ops of a fused node.
 *
 * A post input is described against an output whose dims may have been collapsed (a MatMul's batch
 * dims into M): `rank` and `dims` are the output's as the primitive sees it. */
typedef struct trmi_dnnl_posts {
    int count;
    dnnl_memory_desc_t mds[TRM_POST_MAX]; /* of Add and Mul inputs */
} trmi_dnnl_posts;
/* Describes the inputs of Add/Mul posts; where one has the shape of output 0 its layout in desc
 * becomes `layout`, else PLAIN. UNSUPPORTED: a shape that does not broadcast in the collapsed form.
 */
TRM_MUST_USE trm_status trmi_dnnl_posts_describe(trm_op_desc *desc, trm_layout layout, int rank,
                                                 const int64_t *dims, trmi_dnnl_posts *posts_out);
/* Puts them into `attr`. */
TRM_MUST_USE trm_status trmi_dnnl_posts_attr(const trm_op_desc *desc, const trmi_dnnl_posts *posts,
                                             dnnl_primitive_attr_t attr);
/* Binds the inputs of fused posts to arguments of the main step. */
TRM_MUST_USE trm_status trmi_dnnl_posts_bind(trmi_dnnl_kernel *k, trmi_dnnl_step *step,
                                             const trm_op_desc *desc, const trmi_dnnl_posts *posts);
/* Instead: one primitive a post, in place on output 0 in `dst`. */
TRM_MUST_USE trm_status trmi_dnnl_posts_steps(trmi_dnnl_kernel *k, const trm_op_desc *desc,
                                              const trmi_dnnl_posts *posts,
                                              const dnnl_memory_desc_t *dst);
/* True for implementation names that are worth avoiding ("ref", "simple"). */
bool trmi_dnnl_impl_slow(const_dnnl_primitive_desc_t pd);

#endif
