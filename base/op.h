/* Operators: identity, table and attributes. Model (which builds graphs of them) and kernels (which
 * run them) both stand on this file, so it knows neither graphs nor devices.
 *
 * The table is base/ops.def: one row an operator. Semantics are ONNX's at the newest opset listed
 * in docs/operators.md; importers rewrite older forms to it, so shape rules and kernels know one
 * form only. Operators whose name starts with "Trm" are ours, made by fusion passes. */
#ifndef TRM_BASE_OP_H
#define TRM_BASE_OP_H

#include "base/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

struct trm_graph; /* bodies of If, Loop and Scan; opaque here */

typedef enum trm_op {
    TRM_OP_NONE = 0,
#define TRM_OP_ROW(name, in_min, in_max, out_min, out_max, shape_inputs, flags) TRM_OP_##name,
#include "base/ops.def"
#undef TRM_OP_ROW
    TRM_OP_COUNT
} trm_op;

#define TRM_ARGS_ANY 1000 /* in_max/out_max of a variadic operator */

enum {
    TRM_OPF_ELEMENTWISE =
        1 << 0, /* out[i] depends on in[i] only, with NumPy broadcasting over all inputs */
    TRM_OPF_DATA_SHAPE = 1 << 1, /* output shape depends on the data: known only after it has run */
    TRM_OPF_CONTROL = 1 << 2,    /* If, Loop, Scan: the executor runs bodies */
    TRM_OPF_VIEW = 1 << 3, /* output is input 0's plain elements under another shape: may alias */
    TRM_OPF_FOLD_OFF = 1 << 4,   /* never folded (random, or too large when expanded) */
    TRM_OPF_INTERNAL = 1 << 5,   /* made by passes; not an ONNX operator */
    TRM_OPF_COLLECTIVE = 1 << 6, /* the executor runs it over its communicator, not the device */
    TRM_OPF_DENSE = 1 << 7,      /* a device's work however small: never left on the host */
    TRM_OPF_STEP = 1 << 8,       /* reads the device's block of the step (kernels/language.h) */
};

typedef struct trm_op_info {
    const char *name; /* as in ONNX */
    int in_min, in_max, out_min, out_max;
    uint32_t shape_inputs; /* bit i: the value of input i must be known on the host before the node
                              can be bound */
    uint32_t flags;
} trm_op_info;

const trm_op_info *trm_op_get(trm_op op);  /* never NULL; NONE has name "none" */
trm_op trm_op_from_name(const char *name); /* TRM_OP_NONE if unknown */

/* The dtype for ONNX's TensorProto.DataType number, as attributes (`to`, `output_dtype`, ...) hold
 * it; NONE if Trireme has no such dtype. And back; 0 for NONE. */
trm_dtype trm_dtype_from_onnx(int64_t number);
int trm_dtype_to_onnx(trm_dtype dtype);

/* ---- attributes: a small list of named values ---- */
typedef enum trm_attr_kind {
    TRM_ATTR_INT,
    TRM_ATTR_FLOAT,
    TRM_ATTR_STRING,
    TRM_ATTR_INTS,
    TRM_ATTR_FLOATS,
    TRM_ATTR_STRINGS,
    TRM_ATTR_TENSOR, /* plain host tensor */
    TRM_ATTR_GRAPH
} trm_attr_kind;

typedef struct trm_attr {
    const char *name;
    trm_attr_kind kind;
    size_t count; /* of ints, floats, strings */
    union {
        int64_t i;
        float f;
        const char *s;
        const int64_t *ints;
        const float *floats;
        const char *const *strings;
        const trm_tensor *tensor;
        struct trm_graph *graph;
    } v;
} trm_attr;

typedef struct trm_attrs {
    trm_attr *items; /* memory belongs to the graph's arena (or to whoever built the list) */
    int count, count_max;
} trm_attrs;

const trm_attr *trm_attr_find(const trm_attrs *attrs,
                              const char *name); /* NULL if absent; attrs may be NULL */
/* The value, or the default where it is absent or of another kind (importers check kinds). */
int64_t trm_attr_int(const trm_attrs *attrs, const char *name, int64_t otherwise);
float trm_attr_float(const trm_attrs *attrs, const char *name, float otherwise);
const char *trm_attr_string(const trm_attrs *attrs, const char *name, const char *otherwise);
const int64_t *trm_attr_ints(const trm_attrs *attrs, const char *name,
                             size_t *count_out); /* NULL, 0 if absent */
const float *trm_attr_floats(const trm_attrs *attrs, const char *name, size_t *count_out);
/* Add or replace; memory from the arena; values are copied. */
TRM_MUST_USE trm_status trm_attr_set(trm_attrs *attrs, trm_arena *arena, const trm_attr *attr);
TRM_MUST_USE trm_status trm_attr_set_int(trm_attrs *attrs, trm_arena *arena, const char *name,
                                         int64_t value);
TRM_MUST_USE trm_status trm_attr_set_float(trm_attrs *attrs, trm_arena *arena, const char *name,
                                           float value);
TRM_MUST_USE trm_status trm_attr_set_string(trm_attrs *attrs, trm_arena *arena, const char *name,
                                            const char *value);
TRM_MUST_USE trm_status trm_attr_set_ints(trm_attrs *attrs, trm_arena *arena, const char *name,
                                          const int64_t *values, size_t count);
void trm_attr_remove(trm_attrs *attrs, const char *name);

/* ---- post-ops: what a fused node does to its output 0 before storing it, in order ---- */
#define TRM_POST_MAX 4
typedef struct trm_post {
    trm_op
        op; /* Add or Mul with node input `input` (same shape as the output, or broadcast along it),
               or a unary: Relu, Clip(alpha=min, beta=max), Sigmoid, Tanh, Gelu(alpha 0 erf, 1
               tanh), LeakyRelu(alpha), Elu(alpha), HardSigmoid(alpha, beta), HardSwish, TrmSilu */
    float alpha, beta;
    int input; /* index into the node's inputs for Add/Mul, else -1 */
} trm_post;

#ifdef __cplusplus
}
#endif
#endif
