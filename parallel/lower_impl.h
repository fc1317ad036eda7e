/* Shared by the files that lower a graph; not for its readers. */
#ifndef TRM_PARALLEL_LOWER_IMPL_H
#define TRM_PARALLEL_LOWER_IMPL_H

#include "parallel/lower.h"
#include "parallel/sharding_impl.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_NAME_MAX 1024

typedef struct trmi_lower {
    const trm_sharding *s;
    const trm_graph *g;
    trm_graph *local;
    int rank;
    int (*forms)[TRM_FORM_COUNT]; /* [value of g]: value of `local`, or TRM_NO_VALUE */
    bool *output;                 /* [value of g]: a graph output: its whole form has its name */
    int first;                    /* bool scalar: this is rank 0 */
    int zero[TRM_DTYPE_COUNT];    /* scalars */
} trmi_lower;

/* ---- lower.c ---- */
/* The local value that holds `value` in `want`; makes it where it is not there yet. */
TRM_MUST_USE trm_status trmi_lower_form(trmi_lower *lw, int value, trm_form want, int *local_out);
/* A new local value for what a node yields. */
TRM_MUST_USE trm_status trmi_lower_result(trmi_lower *lw, int value, trm_form form, int *local_out);
/* The descriptor of a form in the graph's own dims (symbols stay). */
trm_tensor trmi_lower_desc(const trmi_lower *lw, int value, trm_form form);
/* A value or constant of the lowering's own: "<base>:<suffix>". */
TRM_MUST_USE trm_status trmi_lower_value(trmi_lower *lw, const char *base, const char *suffix,
                                         const trm_tensor *desc, int *local_out);
TRM_MUST_USE trm_status trmi_lower_constant(trmi_lower *lw, const char *base, const char *suffix,
                                            const trm_tensor *tensor, int *local_out);
TRM_MUST_USE trm_status trmi_lower_ints(trmi_lower *lw, const char *base, const char *suffix,
                                        const int64_t *values, int count, int *local_out);
/* A node of one output. */
TRM_MUST_USE trm_status trmi_lower_add(trmi_lower *lw, trm_op op, const char *name,
                                       const int *inputs, int count, int output, int *node_out);
TRM_MUST_USE trm_status trmi_copy_attrs(trm_graph *to, trm_node *node, const trm_attrs *attrs);
/* A graph with g's symbols under their numbers. */
TRM_MUST_USE trm_status trmi_graph_like(const trm_graph *g, trm_graph **graph_out);

/* ---- lower_norm.c ---- */
/* Nodes that make local value `out` of local inputs `in`, `axis` being one of a row's. */
TRM_MUST_USE trm_status trmi_lower_norm(trmi_lower *lw, int node, const trm_axis *axis,
                                        const int *in, int out);

/* ---- lower_language.c ---- */
/* Nodes that make local value `out`, whole, of local inputs `in`, by axis->tree. */
TRM_MUST_USE trm_status trmi_lower_tree(trmi_lower *lw, int node, const trm_axis *axis,
                                        const int *in, int out);
/* Of whole local k and v, in[1] and in[2] of a TrmPagedAttention whose query heads `axis` shares,
 * what this rank's heads read. */
TRM_MUST_USE trm_status trmi_lower_kv(trmi_lower *lw, int node, const trm_axis *axis, int *in);
/* Attributes of local node `n`, a TrmPagedAttention shared along `axis`. */
TRM_MUST_USE trm_status trmi_lower_heads(trmi_lower *lw, int node, const trm_axis *axis,
                                         trm_node *n);

/* ---- lower_node.c ---- */
TRM_MUST_USE trm_status trmi_lower_node(trmi_lower *lw, int node, int strategy);

#ifdef __cplusplus
}
#endif
#endif
