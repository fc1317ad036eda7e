/* Each node into the graph: names to values, attributes, canonicalisation; Constant nodes. */
#include "model/onnx/onnx_impl.h"

#include <string.h>

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "onnx node");
}

/* An attribute's ref_attr_name stands for an attribute of the function's call, or its default.
 * Attributes that then stand for nothing are dropped. */
static trm_status resolve_refs(trmi_scope *s, trmi_node *n)
{
    int kept = 0;

    for (int i = 0; i < n->attr_count; i++) {
        const trmi_attribute *a = &n->attrs[i], *given = NULL;
        const char *name = a->name;

        if (a->ref == NULL || a->ref[0] == '\0') {
            n->attrs[kept++] = *a;
            continue;
        }
        if (s->call != NULL)
            given = trmi_attribute_find(s->call->attrs, s->call->attr_count, a->ref);
        if (given == NULL && s->function != NULL)
            given = trmi_attribute_find(s->function->defaults, s->function->default_count, a->ref);
        if (given == NULL)
            continue;
        if (given->type == TRMI_ATTR_GRAPH)
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "function '%s' takes a graph as its attribute '%s'",
                            s->function == NULL ? "" : s->function->name, a->ref);
        n->attrs[kept] = *given;
        n->attrs[kept].name = n->attrs[kept].value.name = name;
        n->attrs[kept++].ref = NULL;
    }
    n->attr_count = kept;
    return TRM_OK;
}

static trm_status parse(trmi_scope *s, trmi_bytes message, trmi_node *n)
{
    TRM_CHECK(trmi_node_parse(s->im, message, n));
    return resolve_refs(s, n);
}

static bool is_constant(const trmi_node *n)
{
    return n->domain[0] == '\0' && strcmp(n->op, "Constant") == 0;
}

/* value_int, value_ints, value_float, value_floats */
static trm_status constant_of_list(trmi_scope *s, const char *name, const trm_attr *a)
{
    trm_tensor desc = {.dtype = TRM_DTYPE_I64, .rank = 0};
    int64_t i = 0;
    float f = 0;
    int value;

    switch (a->kind) {
    case TRM_ATTR_INT:
        i = a->v.i;
        desc.data = &i;
        break;
    case TRM_ATTR_FLOAT:
        f = a->v.f;
        desc.data = &f;
        desc.dtype = TRM_DTYPE_F32;
        break;
    case TRM_ATTR_INTS:
        desc.rank = 1;
        desc.dims[0] = (int64_t)a->count;
        desc.data = (void *)(uintptr_t)a->v.ints; /* only read */
        break;
    default:
        desc.rank = 1;
        desc.dims[0] = (int64_t)a->count;
        desc.dtype = TRM_DTYPE_F32;
        desc.data = (void *)(uintptr_t)a->v.floats;
        break;
    }
    return trmi_scope_constant(s, name, &desc, true, &value);
}

static trm_status add_constant(trmi_scope *s, const trmi_node *n, const char *text)
{
    static const struct {
        const char *name;
        int64_t type;
    } forms[] = {{"value", TRMI_ATTR_TENSOR},      {"sparse_value", TRMI_ATTR_SPARSE},
                 {"value_int", TRMI_ATTR_INT},     {"value_ints", TRMI_ATTR_INTS},
                 {"value_float", TRMI_ATTR_FLOAT}, {"value_floats", TRMI_ATTR_FLOATS}};

    if (n->output_count != 1 || n->outputs[0][0] == '\0')
        return trm_fail(TRM_ERR_BAD_FILE, "%s has %d outputs, want 1", text, n->output_count);
    for (size_t f = 0; f < sizeof(forms) / sizeof(forms[0]); f++) {
        const trmi_attribute *a = trmi_attribute_find(n->attrs, n->attr_count, forms[f].name);

        if (a == NULL)
            continue;
        if (a->type != forms[f].type)
            return trm_fail(TRM_ERR_BAD_FILE, "%s: attribute '%s' has the wrong type", text,
                            a->name);
        if (a->type == TRMI_ATTR_TENSOR)
            return trmi_scope_add_tensor(s, n->outputs[0], a->message);
        if (a->type == TRMI_ATTR_SPARSE)
            return trmi_scope_add_sparse(s, n->outputs[0], a->message);
        return constant_of_list(s, n->outputs[0], &a->value);
    }
    if (trmi_attribute_find(n->attrs, n->attr_count, "value_string") != NULL ||
        trmi_attribute_find(n->attrs, n->attr_count, "value_strings") != NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s is a string; supported are numbers", text);
    return trm_fail(TRM_ERR_BAD_FILE, "%s has no value", text);
}

static trm_status declare(trmi_scope *s, const trmi_node *n)
{
    char text[TRMI_NODE_TEXT_BYTES];
    int64_t opset = trmi_opset_of(s, n->domain);
    int value;

    trmi_node_text(n, opset, text, sizeof(text));
    if (trmi_function_find(s->im, n) == NULL) {
        if (is_constant(n))
            return add_constant(s, n, text);
        if (trmi_canon_op(n->domain, n->op) == TRM_OP_NONE)
            return trm_fail(
                TRM_ERR_UNSUPPORTED,
                "%s: operator %s%s%s is not supported (docs/operators.md lists what is)", text,
                n->domain, n->domain[0] == '\0' ? "" : ".", n->op);
        if (opset == 0 && n->domain[0] == '\0')
            return trm_fail(TRM_ERR_BAD_FILE, "%s: the model imports no opset of its domain", text);
    }
    for (int i = 0; i < n->output_count; i++)
        if (n->outputs[i][0] != '\0')
            TRM_CHECK(trmi_scope_declare(s, n->outputs[i], NULL, &value));
    return TRM_OK;
}

/* Attribute kinds, by name: they mean the same in every operator, but for the few with two. */
static bool kind_fits(const char *name, trm_attr_kind kind, const char **want_out)
{
#define TRM_ATTR_ROW(attr, k1, k2)                                                                 \
    if (strcmp(name, #attr) == 0) {                                                                \
        *want_out = #k1;                                                                           \
        return kind == TRM_ATTR_##k1 || kind == TRM_ATTR_##k2;                                     \
    }
#include "model/onnx/attributes.def"
#undef TRM_ATTR_ROW
    return true;
}

static trm_status set_tensor_attr(trmi_build *b, const trmi_attribute *a)
{
    trm_arena *arena = b->scope->body->g->arena;
    trm_attr attr = {.name = a->name, .kind = TRM_ATTR_TENSOR, .count = 1};
    trmi_onnx_tensor t;
    trm_tensor value;

    TRM_CHECK(
        trmi_tensor_parse(a->message, b->scope->im->base, b->scope->im->scratch, a->name, &t));
    if (t.external)
        return trmi_build_unsupported(b, "an attribute in external data");
    value = t.desc;
    value.data = trm_arena_alloc_aligned(arena, t.bytes == 0 ? 1 : t.bytes);
    if (value.data == NULL)
        return no_memory();
    TRM_CHECK(trmi_tensor_decode(&t, value.data));
    attr.v.tensor = &value;
    return trm_attr_set(&b->attrs, arena, &attr);
}

static trm_status set_attrs(trmi_build *b)
{
    static const char *const kinds[] = {"an int", "a float", "a string", "ints",
                                        "floats", "strings", "a tensor", "a graph"};
    const char *want;

    for (int i = 0; i < b->node->attr_count; i++) {
        const trmi_attribute *a = &b->node->attrs[i];

        if (trmi_attribute_find(b->node->attrs, i, a->name) != NULL)
            return trm_fail(TRM_ERR_BAD_FILE, "%s: attribute '%s' is there twice", b->text,
                            a->name);
        if (a->type < TRMI_ATTR_FLOAT || a->type > TRMI_ATTR_STRINGS)
            continue; /* no operator we have takes other kinds */
        if (!kind_fits(a->name, a->value.kind, &want))
            return trm_fail(TRM_ERR_BAD_FILE, "%s: attribute '%s' is %s, want %s", b->text, a->name,
                            kinds[a->value.kind], want);
        if (a->type == TRMI_ATTR_TENSOR)
            TRM_CHECK(set_tensor_attr(b, a));
        else if (a->type != TRMI_ATTR_GRAPH)
            TRM_CHECK(trm_attr_set(&b->attrs, b->scope->body->g->arena, &a->value));
    }
    return TRM_OK;
}

static trm_status find_values(trmi_build *b)
{
    trmi_scope *s = b->scope;
    const trmi_node *n = b->node;
    int value;

    for (int i = 0; i < n->input_count; i++) {
        TRM_CHECK(trmi_scope_find(s, n->inputs[i], b->text, &value));
        TRM_CHECK(trmi_build_set_input(b, i, value));
    }
    b->outputs = (int *)trm_arena_alloc(s->im->scratch, (size_t)n->output_count + 1, sizeof(int));
    if (b->outputs == NULL)
        return no_memory();
    for (int i = 0; i < n->output_count; i++)
        TRM_CHECK(trmi_scope_find(s, n->outputs[i], b->text, &b->outputs[i]));
    b->output_count = n->output_count;
    return TRM_OK;
}

static trm_status add(trmi_scope *s, const trmi_node *n)
{
    const trmi_function *f = trmi_function_find(s->im, n);
    trmi_build b;

    if (f != NULL)
        return trmi_function_inline(s, n, f);
    if (is_constant(n))
        return TRM_OK; /* made when it was declared */
    memset(&b, 0, sizeof(b));
    b.scope = s;
    b.node = n;
    b.opset = trmi_opset_of(s, n->domain);
    b.op = trmi_canon_op(n->domain, n->op);
    trmi_node_text(n, b.opset, b.text, sizeof(b.text));
    TRM_CHECK(find_values(&b));
    TRM_CHECK(set_attrs(&b));
    if (trm_op_get(b.op)->flags & TRM_OPF_CONTROL) {
        const trm_op_info *info = trm_op_get(b.op);

        if (b.input_count < info->in_min || b.input_count > info->in_max)
            return trm_fail(TRM_ERR_BAD_FILE, "%s has %d inputs, want %d to %d", b.text,
                            b.input_count, info->in_min, info->in_max);
    }
    TRM_CHECK(trmi_canon_apply(&b));
    return b.done ? TRM_OK : trmi_build_emit(&b);
}

static trm_status each_node(trmi_scope *s, trmi_bytes message, uint32_t field,
                            trm_status (*fn)(trmi_scope *, const trmi_node *))
{
    trmi_pb r = trmi_pb_make(message, s->im->base, field == 1 ? "GraphProto" : "FunctionProto");
    trmi_node n;
    bool more;

    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            return TRM_OK;
        if (r.field != field)
            continue;
        TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
        TRM_CHECK(parse(s, r.bytes, &n));
        TRM_CHECK(fn(s, &n));
    }
}

trm_status trmi_nodes_declare(trmi_scope *s, trmi_bytes message, uint32_t field)
{
    return each_node(s, message, field, declare);
}

trm_status trmi_nodes_add(trmi_scope *s, trmi_bytes message, uint32_t field)
{
    return each_node(s, message, field, add);
}
