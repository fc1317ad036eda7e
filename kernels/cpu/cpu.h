/* Inside the CPU backend: the device object, the kernel table's row type, the cache of packed
 * weights.
 *
 * To add a kernel: write <family>.c with a prepare function, add rows to kernels/cpu/table.def. */
#ifndef TRM_KERNELS_CPU_CPU_H
#define TRM_KERNELS_CPU_CPU_H

#include "base/team.h"
#include "kernels/device.h"

typedef struct trm_cpu trm_cpu;

/* Prepares a kernel or fails: UNSUPPORTED (dtype, attribute: say which) or INVALID_ARG. May change
 * input layouts and set output layouts in `desc`. Must check dtypes: shapes have been checked by
 * the shape rules, but values (indices, axes that come as host data) have not. */
typedef trm_status (*trmi_cpu_prepare)(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out);
/* Kernels built on oneDNN live in *_dnnl.c; the engine and stream come from
 * trmi_cpu_engine()/trmi_cpu_stream() declared in dnnl_util.h. */

struct trm_cpu {
    trm_device base;
    int threads;
    void *dnnl_engine, *dnnl_stream; /* dnnl_engine_t, dnnl_stream_t: opaque here */
    struct trmi_pack *packs;         /* list of packed weights, shared between kernels */
};

/* Packed weights: freed with the last kernel that holds them. */
typedef struct trmi_pack {
    struct trmi_pack *next;
    uint64_t key;
    char *form;
    void *memory;
    size_t bytes;
    int holders;
    bool shared; /* memory is the weight store's */
} trmi_pack;

/* Memory packed from constant `key` in the form named by `form` (any text that determines the
 * packed bytes). If it is there, *found_out is true; else a block of `bytes` is made for the caller
 * to fill and then call trmi_cpu_pack_settle. Key 0 is never shared. The caller holds it until
 * trmi_cpu_pack_release. */
TRM_MUST_USE trm_status trmi_cpu_pack(trm_cpu *cpu, uint64_t key, const char *form, size_t bytes,
                                      trmi_pack **pack_out, bool *found_out);
void trmi_cpu_pack_settle(trm_cpu *cpu, const trmi_pack *pack, bool ok);
void trmi_cpu_pack_release(trm_cpu *cpu, trmi_pack *pack);

/* Calloc of a kernel object whose first member is trm_kernel; sets ops. */
TRM_MUST_USE trm_status trmi_kernel_new(size_t bytes, const trm_kernel_ops *ops, void *kernel_out);
void trmi_kernel_free(trm_kernel *k); /* a `destroy` for kernels that own nothing else */

/* ISA levels for run-time dispatch of our own kernels; TRM_CPU_ISA=scalar|avx2|avx512 lowers it
 * (tests). */
typedef enum trm_isa {
    TRM_ISA_SCALAR,
    TRM_ISA_AVX2,   /* avx2 fma f16c */
    TRM_ISA_AVX512, /* f bw dq vl */
    TRM_ISA_AVX512_VNNI,
    TRM_ISA_AVX512_BF16
} trm_isa;
trm_isa trmi_cpu_isa(void);

/* oneDNN's engine and stream (dnnl_util.c) */
TRM_MUST_USE trm_status trmi_dnnl_init(trm_cpu *cpu);
void trmi_dnnl_fini(trm_cpu *cpu);
/* reorder_dnnl.c: layouts and float dtypes of one logical tensor */
TRM_MUST_USE trm_status trmi_cpu_prepare_reorder(trm_device *d, const trm_tensor *from,
                                                 const trm_tensor *to, trm_kernel **kernel_out);

/* table.c */
trmi_cpu_prepare trmi_cpu_kernel(trm_op op); /* NULL: no kernel */

/* prepare functions, one a family */
#define TRM_CPU_ROW(op, fn) trm_status fn(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out);
#include "kernels/cpu/table.def"
#undef TRM_CPU_ROW

#endif
