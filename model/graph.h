/* The graph: what every importer builds, every pass changes, the planner places and the executor
 * lowers.
 *
 * Values are tensors (inputs, constants, results), nodes are operators of base/ops.def in ONNX's
 * newest semantics. A graph and everything in it lives in its arena; constants point into mapped
 * files or into the arena. One owner while it is built and changed; read-only and shared
 * afterwards.
 *
 * Dims: >= 0 constant; TRM_DIM_UNKNOWN (-1); <= -2 a symbol ("batch", "seq*12") of the root graph's
 * table. Equal symbols are equal dims. Arithmetic on symbols makes symbols named by the expression.
 *
 * Bodies of If, Loop and Scan are closed graphs: what an ONNX body takes from outside is passed
 * explicitly. Node inputs are the operator's own inputs followed by the captures; attribute
 * "captures" counts them; every body graph of the node has those captures as its last inputs, in
 * the same order (If: they are its only inputs). Constants from outside are no captures: the body
 * has a constant of its own over the same bytes. */
#ifndef TRM_MODEL_GRAPH_H
#define TRM_MODEL_GRAPH_H

#include "base/file.h"
#include "base/op.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_NO_VALUE (-1) /* an absent optional input or output of a node */

typedef struct trm_value {
    const char *name; /* unique in its graph */
    trm_tensor desc;  /* data: NULL, or the constant's plain bytes on the host (may be misaligned:
                         trm_graph_constant) */
    int producer;     /* index of the node that makes it, -1 for inputs and constants */
    trm_file *file;   /* constants from a file: where their bytes lie; the graph holds a reference.
                         NULL: arena memory */
    uint64_t file_offset;
    size_t bytes;          /* of a constant */
    struct trm_lazy *lazy; /* a constant whose bytes are made when they are asked for: desc.data is
                              where they will be, and not readable before. NULL: others */
} trm_value;

typedef struct trm_node {
    trm_op op;        /* TRM_OP_NONE: removed, dropped by trm_graph_sort */
    const char *name; /* for messages; may be "" */
    int *inputs;      /* value ids or TRM_NO_VALUE */
    int *outputs;
    int input_count, output_count;
    trm_attrs attrs;
    trm_post posts[TRM_POST_MAX]; /* applied to output 0 in order */
    int post_count;
} trm_node;

typedef struct trm_graph {
    trm_arena *arena;
    const char *name;
    trm_value *values;
    int value_count, value_count_max;
    trm_node *nodes; /* topological order after trm_graph_sort */
    int node_count, node_count_max;
    int *inputs; /* value ids, in the file's order, without initialisers */
    int input_count;
    int *outputs;
    int output_count;
    struct trm_graph *root; /* holds the symbols and files; itself for a top graph */
    const char **symbols;   /* root only */
    int symbol_count, symbol_count_max;
    trm_file **files; /* root only: references released on destroy */
    int file_count, file_count_max;
    struct trm_lazy *lazies; /* root only: a list, released on destroy */
    struct trm_graph *kept;  /* root only: trm_graph_keep */
    struct trm_lazy_bytes {
        size_t now, most;
    } lazy_bytes; /* root only: trm_graph_lazy_bytes */
    /* metadata for `inspect` */
    const char *format;   /* "onnx", ... */
    const char *producer; /* "pytorch 1.13" or "" */
    int64_t opset;
} trm_graph;

/* `root` NULL makes a top graph with an arena of its own; a body shares its root's arena. */
TRM_MUST_USE trm_status trm_graph_create(trm_graph *root, const char *name, trm_graph **graph_out);
void trm_graph_destroy(
    trm_graph *graph); /* a top graph with all its bodies; takes NULL; no-op for a body */
/* Top graphs. `graph` takes `source`, whose memory its constants point into: it is destroyed after
 * graph. One source a graph. */
void trm_graph_keep(trm_graph *graph, trm_graph *source);

/* All strings and arrays are copied into the arena. Ids are stable until trm_graph_sort (values:
 * always). */
TRM_MUST_USE trm_status trm_graph_add_value(trm_graph *g, const char *name, const trm_tensor *desc,
                                            int *value_out);
/* A constant whose `desc->data` bytes are copied into the arena. */
TRM_MUST_USE trm_status trm_graph_add_constant(trm_graph *g, const char *name,
                                               const trm_tensor *desc, int *value_out);
/* A constant that stays in `file` (referenced). Checks that offset and size lie in the file. */
TRM_MUST_USE trm_status trm_graph_add_weight(trm_graph *g, const char *name, const trm_tensor *desc,
                                             trm_file *file, uint64_t offset, int *value_out);
/* Appends a node; sets the producer of its outputs. Input values may be made later: trm_graph_sort
 * checks. */
TRM_MUST_USE trm_status trm_graph_add_node(trm_graph *g, trm_op op, const char *name,
                                           const int *inputs, int input_count, const int *outputs,
                                           int output_count, int *node_out);
/* A part of constant `value` of graph `from`, whose files are referenced and whose other memory
 * must live on: along `dim` only ranges[count][2] (begin, end; ascending; whole blocks along the
 * last dim of a block dtype). dim -1: all of it. Where the part is no contiguous stretch of the
 * source and not small, the value is lazy. Parts of parts, along the same or another dim, are
 * parts. */
TRM_MUST_USE trm_status trm_graph_add_part(trm_graph *g, const char *name, const trm_graph *from,
                                           int value, int dim, const int64_t (*ranges)[2],
                                           int count, int *value_out);
/* The F32 constant `value` with row i of dim 0 multiplied by scale[i] [dims[0]], in double: lazy
 * unless it is small. Scaling what is scaled already multiplies the scales. */
TRM_MUST_USE trm_status trm_graph_add_scaled(trm_graph *g, const char *name, int value,
                                             const double *scale, int *value_out);
/* Constants of equal shape [..] and dtype, none of them lazy, as one constant [count, ..]: lazy
 * unless it is small. Parts of it are gathered without making the whole. The values stay. */
TRM_MUST_USE trm_status trm_graph_add_stacked(trm_graph *g, const char *name, const int *values,
                                              int count, int *value_out);
/* A constant whose bytes `make` writes when they are asked for: blocks [block, block + count) of
 * all of desc's, in row-major order (elements for plain dtypes). `ctx` and what it points to
 * outlive the graph and its parts. Parts are made without making the whole. */
typedef void (*trm_graph_maker)(const void *ctx, size_t block, size_t count, void *to);
TRM_MUST_USE trm_status trm_graph_add_made(trm_graph *g, const char *name, const trm_tensor *desc,
                                           trm_graph_maker make, const void *ctx, int *value_out);
TRM_MUST_USE trm_status trm_graph_set_inputs(trm_graph *g, const int *values, int count);
TRM_MUST_USE trm_status trm_graph_set_outputs(trm_graph *g, const int *values, int count);
TRM_MUST_USE trm_status trm_node_add_input(trm_graph *g, trm_node *node,
                                           int value); /* appends one input */

/* Orders nodes topologically (stable), drops removed nodes and nodes no output needs, rebuilds
 * producers. BAD_FILE: a cycle, or a value that nothing makes; names it. */
TRM_MUST_USE trm_status trm_graph_sort(trm_graph *g);
/* Every reader of `from` and every graph output `from` becomes `to`. */
void trm_graph_replace_uses(trm_graph *g, int from, int to);
int trm_graph_use_count(const trm_graph *g, int value);         /* node inputs plus graph outputs */
int trm_graph_find_value(const trm_graph *g, const char *name); /* -1 */
bool trm_graph_is_constant(const trm_graph *g, int value);
bool trm_graph_is_output(const trm_graph *g, int value);
/* The constant as a plain, aligned host tensor: the mapped bytes where they are aligned, else a
 * copy made once in the arena; a lazy one is made and stays. INVALID_ARG if it is no constant. */
TRM_MUST_USE trm_status trm_graph_constant(trm_graph *g, int value, trm_tensor *tensor_out);
/* The same for a while: a lazy constant is made for the first borrower and dropped when the last
 * has returned it, so that loading needs memory for few of them at a time. Its address is the same
 * each time. Others: as trm_graph_constant, and the return does nothing. */
TRM_MUST_USE trm_status trm_graph_constant_borrow(trm_graph *g, int value, trm_tensor *tensor_out);
void trm_graph_constant_return(trm_graph *g, int value);
/* Bytes of lazy constants that are made now, and the most there were at once. */
void trm_graph_lazy_bytes(const trm_graph *g, size_t *now_out, size_t *most_out);
/* Between graph.c and graph_part.c. */
trm_status trmi_graph_keep_lazy(trm_graph *g, int value, trm_tensor *tensor_out);
void trmi_graph_free_lazies(trm_graph *root);
/* A fresh value name "<base>_<n>" that no value has yet; arena memory, NULL: no memory. */
char *trm_graph_fresh_name(trm_graph *g, const char *base);

/* Symbols. */
TRM_MUST_USE trm_status trm_graph_symbol(trm_graph *g, const char *name,
                                         int64_t *dim_out); /* interned */
const char *trm_graph_dim_name(const trm_graph *g,
                               int64_t dim); /* symbol's name; "?" for unknown; NULL for >= 0 */
static inline bool trm_dim_is_symbol(int64_t dim)
{
    return dim <= -2;
}
/* a op b for op one of + - * / (exact division where known, else floor) with symbols; unknown gives
 * unknown. */
int64_t trm_graph_dim_op(trm_graph *g, char op, int64_t a, int64_t b);

/* Parameters: elements of all floating constants that something reads, blocks and bodies included.
 */
int64_t trm_graph_parameter_count(const trm_graph *g);

#ifdef __cplusplus
}
#endif
#endif
