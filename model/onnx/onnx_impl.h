/* What the files of the ONNX importer share.
 *
 *   import.c    ModelProto: opsets, the top graph
 *   graph.c     GraphProto; bodies and what they capture
 *   scope.c     names -> values, constants
 *   node.c      NodeProto and AttributeProto as they stand in the file
 *   nodes.c     each node into the graph
 *   function.c  model-local functions, inlined
 *   types.c     ValueInfoProto, TypeProto
 *   tensor.c    TensorProto: where the bytes lie, typed fields; external.c: data in other files
 *   canon*.c    older forms of operators rewritten to the newest; build.c: what they share
 *
 * Messages are bounded by their parents' bytes; bodies and function calls may nest TRMI_DEPTH_MAX
 * deep, everything else is flat. */
#ifndef TRM_MODEL_ONNX_IMPL_H
#define TRM_MODEL_ONNX_IMPL_H

#include "model/onnx/names.h"
#include "model/onnx/onnx.h"
#include "model/onnx/protobuf.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_DEPTH_MAX 32
#define TRMI_OPSET_MAX 28
#define TRMI_SYMBOLS_MAX 10000     /* they are searched one by one */
#define TRMI_INLINED_MAX (1 << 17) /* nodes from function bodies: calls can multiply */
#define TRMI_DECODED_MAX                                                                           \
    ((size_t)256 << 20) /* plus 16 times the file: bytes of constants that do not                  \
                           lie in the file as they are; bounds what sparse                         \
                           tensors and repeated function calls can blow up */

/* ---- tensors ---- */
typedef struct trmi_onnx_tensor {
    const char *name;
    trm_tensor desc;
    int64_t data_type;   /* ONNX's number */
    size_t elems, bytes; /* of desc */
    trmi_bytes plain;    /* data NULL, or all elements as they lie in memory */
    bool external;
    const char *location;
    uint64_t offset;
    int64_t length;     /* -1: not given */
    trmi_bytes message; /* for typed fields */
    const unsigned char *base;
} trmi_onnx_tensor;
/* Parses and checks all but external data; UNSUPPORTED dtypes name the tensor. `context` names it
 * where it has no name of its own. */
TRM_MUST_USE trm_status trmi_tensor_parse(trmi_bytes message, const unsigned char *base,
                                          trm_arena *arena, const char *context,
                                          trmi_onnx_tensor *tensor_out);
/* UNSUPPORTED names `what` 'name' and lists what is supported. */
TRM_MUST_USE trm_status trmi_dtype_parse(int64_t number, const char *what, const char *name,
                                         trm_dtype *dtype_out);
/* Writes the elements (not of external tensors) to `out`, t->bytes long. */
TRM_MUST_USE trm_status trmi_tensor_decode(const trmi_onnx_tensor *t, void *out);

/* ---- the import ---- */
typedef struct trmi_opset {
    const char *domain;
    int64_t version;
} trmi_opset;

typedef struct trmi_opsets {
    trmi_opset *items;
    int count;
} trmi_opsets;

typedef struct trmi_function {
    const char *domain, *name, *overload;
    trmi_bytes message;
    trmi_opsets opsets;
    const char **inputs, **outputs;
    int input_count, output_count;
    struct trmi_attribute *defaults; /* attribute_proto */
    int default_count;
} trmi_function;

typedef struct trmi_import {
    trm_file *file;
    const unsigned char *base;
    trm_graph *top;
    trm_arena *scratch; /* names and nodes while they are read */
    trmi_opsets opsets;
    trmi_function *functions;
    int function_count;
    trm_names function_names; /* "domain:name:overload" -> index */
    int64_t ir_version;
    int inlined;          /* nodes from functions so far */
    int calls;            /* numbers function calls */
    size_t decoded_bytes; /* of constants in the arena */
    char *folder;         /* real path of the model's folder; NULL: not asked yet */
    trm_file **extern_files;
    const char **extern_names;
    int extern_count;
} trmi_import;

struct trmi_build;

/* ---- attributes and nodes as they stand in the file ---- */
enum { /* AttributeProto.type */
       TRMI_ATTR_FLOAT = 1,
       TRMI_ATTR_INT,
       TRMI_ATTR_STRING,
       TRMI_ATTR_TENSOR,
       TRMI_ATTR_GRAPH,
       TRMI_ATTR_FLOATS,
       TRMI_ATTR_INTS,
       TRMI_ATTR_STRINGS,
       TRMI_ATTR_SPARSE = 11
};

typedef struct trmi_attribute {
    const char *name;
    const char *ref;    /* name of the function's attribute that it stands for, or NULL */
    int64_t type;       /* one of the above, or another of ONNX's (tensors, graphs, type protos) */
    trm_attr value;     /* kinds INT to STRINGS */
    trmi_bytes message; /* TENSOR, GRAPH, SPARSE */
} trmi_attribute;

typedef struct trmi_node {
    const char *name, *op, *domain, *overload;
    const char **inputs, **outputs; /* "" where absent */
    int input_count, output_count;
    trmi_attribute *attrs;
    int attr_count;
    size_t offset; /* in the file */
} trmi_node;

TRM_MUST_USE trm_status trmi_node_parse(trmi_import *im, trmi_bytes message, trmi_node *node_out);
TRM_MUST_USE trm_status trmi_attribute_parse(trmi_import *im, trmi_bytes message,
                                             trmi_attribute *attr_out);
const trmi_attribute *trmi_attribute_find(const trmi_attribute *attrs, int count, const char *name);
/* "node 'x' (Conv, opset 13)" into buf for messages; returns buf. */
const char *trmi_node_text(const trmi_node *node, int64_t opset, char *buf, size_t buf_bytes);
#define TRMI_NODE_TEXT_BYTES 400

/* ---- scopes ---- */
#define TRMI_ABSENT (-2) /* in trmi_scope.visible: a function's input that the call leaves out */

/* A graph under construction and the names in use in it. */
typedef struct trmi_body {
    trm_graph *g;
    trm_names names; /* of all values of g */
} trmi_body;

/* Where names are looked up. The scope of a body goes on to the scope around it and captures what
 * it finds there; the scope of a function call does not. */
typedef struct trmi_scope {
    trmi_import *im;
    trmi_body *body;
    struct trmi_scope *outer; /* of bodies */
    trm_names visible;        /* name as the file spells it -> value of body->g */
    trm_names bound;          /* of functions: output name -> the call's value, until declared */
    const trmi_opsets *opsets;
    const trmi_node *call;         /* of functions: whose attributes ref_attr_name means */
    const trmi_function *function; /* of functions */
    const char *prefix;            /* of functions: before the names of inner values; else "" */
    int depth;
    int *captures; /* of bodies: pairs (value of outer->body->g, value here) */
    int capture_count, capture_max;
} trmi_scope;

int64_t trmi_opset_of(const trmi_scope *s, const char *domain); /* 0: not imported */
/* The value `name` means in this scope, capturing where need be; BAD_FILE names the reader. "" is
 * TRM_NO_VALUE. */
TRM_MUST_USE trm_status trmi_scope_find(trmi_scope *s, const char *name, const char *reader,
                                        int *value_out);
/* A new value visible as `name`; BAD_FILE if there is one. */
TRM_MUST_USE trm_status trmi_scope_declare(trmi_scope *s, const char *name, const trm_tensor *desc,
                                           int *value_out);
/* A new value no name of the file means; named after `base`. */
TRM_MUST_USE trm_status trmi_scope_temp(trmi_scope *s, const char *base, const trm_tensor *desc,
                                        int *value_out);
/* A constant made of host data: visible as `base`, or a temporary named after it. */
TRM_MUST_USE trm_status trmi_scope_constant(trmi_scope *s, const char *base, const trm_tensor *desc,
                                            bool visible, int *value_out);
/* A TensorProto (SparseTensorProto) as a constant visible as `name`; NULL: as its own name. */
TRM_MUST_USE trm_status trmi_scope_add_tensor(trmi_scope *s, const char *name, trmi_bytes message);
TRM_MUST_USE trm_status trmi_scope_add_sparse(trmi_scope *s, const char *name, trmi_bytes message);
/* A GraphProto into s->body->g, up to but without the sort. */
TRM_MUST_USE trm_status trmi_graph_fill(trmi_scope *s, trmi_bytes message);
/* The GraphProto attributes of a control node as bodies: appends captures to b->inputs, sets the
 * attributes. */
TRM_MUST_USE trm_status trmi_bodies_import(struct trmi_build *b);

/* nodes.c: the nodes of a GraphProto (field 1) or FunctionProto (field 7). First: checks that each
 * operator is known, makes constants, declares outputs. Second: adds them to the graph. */
TRM_MUST_USE trm_status trmi_nodes_declare(trmi_scope *s, trmi_bytes message, uint32_t field);
TRM_MUST_USE trm_status trmi_nodes_add(trmi_scope *s, trmi_bytes message, uint32_t field);

/* types.c: the name, and the type where there is one. `have_type_out` false: none given. */
TRM_MUST_USE trm_status trmi_value_info_parse(trmi_import *im, trmi_bytes message,
                                              const char **name_out, trm_tensor *desc_out,
                                              bool *have_type_out);
/* external.c: the mapped file that holds an external tensor; checks that its bytes lie in it. */
TRM_MUST_USE trm_status trmi_external_open(trmi_import *im, const trmi_onnx_tensor *t,
                                           trm_file **file_out);
/* function.c */
TRM_MUST_USE trm_status trmi_functions_parse(trmi_import *im, trmi_bytes model);
const trmi_function *trmi_function_find(const trmi_import *im, const trmi_node *node);
TRM_MUST_USE trm_status trmi_function_inline(trmi_scope *s, const trmi_node *node,
                                             const trmi_function *f);
/* The OperatorSetIdProtos in `field` of a message. */
TRM_MUST_USE trm_status trmi_opsets_parse(trmi_import *im, trmi_bytes message, uint32_t field,
                                          trmi_opsets *opsets);

/* ---- canonicalisation ---- */
/* A node on its way into the graph. Rewrites change it in place, or emit other nodes before it. */
typedef struct trmi_build {
    trmi_scope *scope;
    const trmi_node *node;
    int64_t opset;
    trm_op op;
    int *inputs;
    int input_count, input_max;
    int *outputs;
    int output_count;
    trm_attrs attrs;
    char text[TRMI_NODE_TEXT_BYTES]; /* names the node in messages */
    bool done;                       /* a rewrite has emitted everything itself */
} trmi_build;

/* The operator that domain and name stand for, under its newest name. NONE: unknown. */
trm_op trmi_canon_op(const char *domain, const char *name);
/* Rewrites to the newest form. */
TRM_MUST_USE trm_status trmi_canon_apply(trmi_build *b);
/* Adds the node after checking counts against the table. */
TRM_MUST_USE trm_status trmi_build_emit(trmi_build *b);

/* helpers for rewrites (build.c) */
TRM_MUST_USE trm_status trmi_build_set_input(trmi_build *b, int index, int value);
TRM_MUST_USE trm_status trmi_build_ints_input(trmi_build *b, int index, const char *name,
                                              const int64_t *values, size_t count);
TRM_MUST_USE trm_status trmi_build_int_input(trmi_build *b, int index, const char *name,
                                             int64_t value);
TRM_MUST_USE trm_status trmi_build_floats_input(trmi_build *b, int index, const char *name,
                                                const float *values, size_t count);
/* Moves an INTS attribute to input `index`; absent: leaves things as they are. */
TRM_MUST_USE trm_status trmi_build_move_ints(trmi_build *b, const char *attr, int index);
/* A scalar float constant of the dtype of input 0, as input `index`. */
TRM_MUST_USE trm_status trmi_build_float_input(trmi_build *b, int index, const char *name,
                                               float value);
/* Emits op(inputs) with one fresh output. */
TRM_MUST_USE trm_status trmi_build_before(trmi_build *b, trm_op op, const int *inputs, int count,
                                          const trm_attrs *attrs, int *value_out);
TRM_MUST_USE trm_status trmi_build_unsupported(const trmi_build *b, const char *why);
const trm_value *trmi_build_input(const trmi_build *b, int index); /* NULL: absent */

#ifdef __cplusplus
}
#endif
#endif
