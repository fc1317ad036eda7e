/* Rewriting a graph inside a pass: who reads a value, and changes that keep the count.
 *
 * Node and value numbers are stable while a pass runs (nodes are appended and marked removed); the
 * pass ends with trm_graph_sort, which orders and drops. */
#ifndef TRM_MODEL_PASSES_REWRITE_H
#define TRM_MODEL_PASSES_REWRITE_H

#include "model/graph.h"

typedef struct trmi_rw {
    trm_graph *g;
    int *uses;        /* node inputs that read a value */
    int64_t *readers; /* sum of the readers' numbers: the reader itself where uses is 1 */
    bool *output;     /* a graph output */
    int value_max;    /* entries of the arrays */
} trmi_rw;

TRM_MUST_USE trm_status trmi_rw_init(trmi_rw *rw, trm_graph *g);
void trmi_rw_fini(trmi_rw *rw);
TRM_MUST_USE trm_status trmi_rw_recount(trmi_rw *rw); /* after changes made past the rewriter */

/* The only reader of a value that is no graph output; -1: several, none, or an output. */
int trmi_rw_reader(const trmi_rw *rw, int value);
/* The node that makes `value` if its operator is `op`; NULL otherwise. */
trm_node *trmi_rw_made_by(const trmi_rw *rw, int value, trm_op op);

void trmi_rw_set_input(trmi_rw *rw, int node, int i, int value);
TRM_MUST_USE trm_status trmi_rw_append_input(trmi_rw *rw, int node, int value);
/* Appends absent inputs until there are `count`. */
TRM_MUST_USE trm_status trmi_rw_pad_inputs(trmi_rw *rw, int node, int count);
void trmi_rw_remove(trmi_rw *rw, int node);
/* `node` now makes `value` as its output 0; whoever made it before must be removed. */
void trmi_rw_take_output(trmi_rw *rw, int node, int value);
/* Replaces `node` by operator `op` on the given inputs, making the same output 0; attributes are
 * empty. */
TRM_MUST_USE trm_status trmi_rw_become(trmi_rw *rw, int node, trm_op op, const int *inputs,
                                       int count);
/* A constant of the graph's arena; name from `base`. */
TRM_MUST_USE trm_status trmi_rw_constant(trmi_rw *rw, const char *base, const trm_tensor *t,
                                         int *value_out);
/* Constant `value` with its rows scaled (trm_graph_add_scaled). */
TRM_MUST_USE trm_status trmi_rw_scaled(trmi_rw *rw, int value, const double *scale, int *value_out);
TRM_MUST_USE trm_status trmi_rw_value(trmi_rw *rw, const char *base, const trm_tensor *desc,
                                      int *value_out);
TRM_MUST_USE trm_status trmi_rw_node(trmi_rw *rw, trm_op op, const char *name, const int *inputs,
                                     int input_count, int output, int *node_out);

/* ---- looking at values ---- */
/* One-element constant. */
bool trmi_scalar(const trm_graph *g, int value, double *out);
/* One-element constant within 1e-3 of `want`, relative. */
bool trmi_scalar_is(const trm_graph *g, int value, double want);
/* Binary node with one scalar operand: the other operand in *other, the scalar in *scalar. Operands
 * of commutative operators in either order, else the scalar is the second. */
bool trmi_with_scalar(const trm_graph *g, const trm_node *n, int *other, double *scalar);
/* The other input of a binary node. */
static inline int trmi_other(const trm_node *n, int value)
{
    return n->inputs[0] == value ? n->inputs[1] : n->inputs[0];
}
/* Shapes known and equal, symbols counted as equal to themselves. */
bool trmi_same_shape(const trm_tensor *a, const trm_tensor *b);
const trm_tensor *trmi_desc(const trm_graph *g, int value);
/* Runs `pass` on every body of g's nodes, then on g. */
typedef trm_status (*trmi_graph_pass)(trm_graph *g, const void *ctx);
TRM_MUST_USE trm_status trmi_each_graph(trm_graph *g, trmi_graph_pass pass, const void *ctx,
                                        int depth);

/* ---- fusions, in the order they run; one file each ---- */
TRM_MUST_USE trm_status trmi_fuse_views(trmi_rw *rw);       /* fuse_views.c */
TRM_MUST_USE trm_status trmi_fuse_activations(trmi_rw *rw); /* fuse_activation.c */
TRM_MUST_USE trm_status trmi_fuse_norms(trmi_rw *rw);       /* fuse_norm.c */
TRM_MUST_USE trm_status trmi_fuse_attention(trmi_rw *rw);   /* fuse_attention.c */
TRM_MUST_USE trm_status trmi_fuse_channels(trmi_rw *rw);    /* fuse_channel.c */
TRM_MUST_USE trm_status trmi_fuse_posts(trmi_rw *rw);       /* fuse_posts.c */
TRM_MUST_USE trm_status trmi_fuse_language(trmi_rw *rw);    /* fuse_language.c */

#endif
