/* NodeProto and AttributeProto as they stand in the file. */
#include "model/onnx/onnx_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "onnx node");
}

const char *trmi_node_text(const trmi_node *node, int64_t opset, char *buf, size_t buf_bytes)
{
    const char *name = node->name;
    const char *what = "node";

    if (name[0] == '\0' && node->output_count > 0) {
        name = node->outputs[0];
        what = "node of";
    }
    snprintf(buf, buf_bytes, "%s '%.200s' (%.60s%s%.60s, opset %" PRId64 ")", what, name,
             node->domain, node->domain[0] == '\0' ? "" : ".", node->op, opset);
    return buf;
}

const trmi_attribute *trmi_attribute_find(const trmi_attribute *attrs, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(attrs[i].name, name) == 0)
            return &attrs[i];
    return NULL;
}

enum { A_NAME = 1, A_F, A_I, A_S, A_T, A_G, A_FLOATS, A_INTS, A_STRINGS };
enum { A_TYPE = 20, A_REF = 21, A_SPARSE = 22 };

/* Counts of the repeated fields, to size the arrays. */
typedef struct list_counts {
    size_t floats, ints, strings;
} list_counts;

static trm_status count_lists(trmi_pb r, list_counts *n)
{
    size_t count;
    bool more;

    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            return TRM_OK;
        if (r.field == A_FLOATS) {
            TRM_CHECK(trmi_pb_count(&r, TRMI_PB_FIXED32, &count));
            n->floats += count;
        } else if (r.field == A_INTS) {
            TRM_CHECK(trmi_pb_count(&r, TRMI_PB_VARINT, &count));
            n->ints += count;
        } else if (r.field == A_STRINGS) {
            TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
            n->strings++;
        }
    }
}

typedef struct lists {
    float *floats;
    int64_t *ints;
    const char **strings;
    list_counts at;
} lists;

static trm_status take_numbers(const trmi_pb *r, lists *l)
{
    int wire = r->field == A_FLOATS ? TRMI_PB_FIXED32 : TRMI_PB_VARINT;
    uint64_t *numbers;
    size_t count;
    trm_status st;

    TRM_CHECK(trmi_pb_count(r, wire, &count));
    numbers = (uint64_t *)trm_malloc(count, sizeof(uint64_t));
    if (numbers == NULL)
        return no_memory();
    TRM_TRY(st, trmi_pb_take(r, wire, numbers, count), done);
    for (size_t i = 0; i < count; i++) {
        if (r->field == A_FLOATS)
            l->floats[l->at.floats++] = trmi_float_bits(numbers[i]);
        else
            l->ints[l->at.ints++] = (int64_t)numbers[i];
    }
done:
    trm_free(numbers);
    return st;
}

static const struct {
    trm_attr_kind kind;
    uint32_t field;
} forms[] = {
    [TRMI_ATTR_FLOAT] = {TRM_ATTR_FLOAT, A_F},
    [TRMI_ATTR_INT] = {TRM_ATTR_INT, A_I},
    [TRMI_ATTR_STRING] = {TRM_ATTR_STRING, A_S},
    [TRMI_ATTR_TENSOR] = {TRM_ATTR_TENSOR, A_T},
    [TRMI_ATTR_GRAPH] = {TRM_ATTR_GRAPH, A_G},
    [TRMI_ATTR_FLOATS] = {TRM_ATTR_FLOATS, A_FLOATS},
    [TRMI_ATTR_INTS] = {TRM_ATTR_INTS, A_INTS},
    [TRMI_ATTR_STRINGS] = {TRM_ATTR_STRINGS, A_STRINGS},
};

static trm_status parse_field(trmi_import *im, trmi_pb *r, trmi_attribute *a, lists *l, float *f,
                              int64_t *i, const char **s)
{
    switch (r->field) {
    case A_NAME:
        return trmi_pb_string(r, im->scratch, &a->name);
    case A_REF:
        return trmi_pb_string(r, im->scratch, &a->ref);
    case A_TYPE:
        return trmi_pb_int(r, &a->type);
    case A_F:
        TRM_CHECK(trmi_pb_want(r, TRMI_PB_FIXED32));
        *f = trmi_float_bits(r->number);
        return TRM_OK;
    case A_I:
        return trmi_pb_int(r, i);
    case A_S:
        TRM_CHECK(trmi_pb_want(r, TRMI_PB_BYTES));
        *s = trm_arena_strndup(im->scratch, (const char *)r->bytes.data, r->bytes.bytes);
        return *s == NULL ? no_memory() : TRM_OK;
    case A_T:
    case A_G:
    case A_SPARSE:
        TRM_CHECK(trmi_pb_want(r, TRMI_PB_BYTES));
        a->message = r->bytes;
        return TRM_OK;
    case A_FLOATS:
    case A_INTS:
        return take_numbers(r, l);
    case A_STRINGS:
        TRM_CHECK(trmi_pb_want(r, TRMI_PB_BYTES));
        l->strings[l->at.strings] =
            trm_arena_strndup(im->scratch, (const char *)r->bytes.data, r->bytes.bytes);
        return l->strings[l->at.strings++] == NULL ? no_memory() : TRM_OK;
    default:
        return TRM_OK;
    }
}

trm_status trmi_attribute_parse(trmi_import *im, trmi_bytes message, trmi_attribute *a)
{
    trmi_pb r = trmi_pb_make(message, im->base, "AttributeProto");
    list_counts n = {0, 0, 0};
    lists l;
    int64_t seen = 0, i = 0;
    float f = 0;
    const char *s = "";
    bool more;

    memset(a, 0, sizeof(*a));
    memset(&l, 0, sizeof(l));
    a->name = "";
    TRM_CHECK(count_lists(r, &n));
    l.floats = (float *)trm_arena_alloc(im->scratch, n.floats + 1, sizeof(float));
    l.ints = (int64_t *)trm_arena_alloc(im->scratch, n.ints + 1, sizeof(int64_t));
    l.strings = (const char **)trm_arena_alloc(im->scratch, n.strings + 1, sizeof(char *));
    if (l.floats == NULL || l.ints == NULL || l.strings == NULL)
        return no_memory();
    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            break;
        TRM_CHECK(parse_field(im, &r, a, &l, &f, &i, &s));
        for (int t = TRMI_ATTR_FLOAT; t <= TRMI_ATTR_STRINGS; t++)
            if (forms[t].field == r.field)
                seen = t;
        if (r.field == A_SPARSE)
            seen = TRMI_ATTR_SPARSE;
    }
    if (a->name[0] == '\0')
        return trm_fail(TRM_ERR_BAD_FILE, "AttributeProto before byte %zu has no name",
                        trmi_pb_offset(&r));
    if (a->type == 0)
        a->type = seen; /* files of IR version 1 have no type field */
    if (a->type < TRMI_ATTR_FLOAT || a->type > TRMI_ATTR_STRINGS)
        return TRM_OK;
    if ((a->type == TRMI_ATTR_TENSOR || a->type == TRMI_ATTR_GRAPH) && a->ref == NULL &&
        seen != a->type)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "attribute '%s' before byte %zu says that it is a %s but has none", a->name,
                        trmi_pb_offset(&r), a->type == TRMI_ATTR_GRAPH ? "graph" : "tensor");
    a->value.name = a->name;
    a->value.kind = forms[a->type].kind;
    a->value.count = 1;
    switch (a->type) {
    case TRMI_ATTR_FLOAT:
        a->value.v.f = f;
        break;
    case TRMI_ATTR_INT:
        a->value.v.i = i;
        break;
    case TRMI_ATTR_STRING:
        a->value.v.s = s;
        break;
    case TRMI_ATTR_FLOATS:
        a->value.v.floats = l.floats;
        a->value.count = n.floats;
        break;
    case TRMI_ATTR_INTS:
        a->value.v.ints = l.ints;
        a->value.count = n.ints;
        break;
    case TRMI_ATTR_STRINGS:
        a->value.v.strings = l.strings;
        a->value.count = n.strings;
        break;
    default:
        break;
    }
    return TRM_OK;
}

#define NODE_ARGS_MAX 100000

enum { N_INPUT = 1, N_OUTPUT, N_NAME, N_OP, N_ATTRIBUTE, N_DOMAIN = 7, N_OVERLOAD };

static trm_status alloc_lists(trmi_import *im, trmi_pb r, trmi_node *n)
{
    size_t inputs = 0, outputs = 0, attrs = 0;
    bool more;

    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            break;
        inputs += r.field == N_INPUT;
        outputs += r.field == N_OUTPUT;
        attrs += r.field == N_ATTRIBUTE;
    }
    if (inputs > NODE_ARGS_MAX || outputs > NODE_ARGS_MAX || attrs > NODE_ARGS_MAX)
        return trm_fail(
            TRM_ERR_BAD_FILE,
            "NodeProto at byte %zu has %zu inputs, %zu outputs, %zu attributes: want at "
            "most %d of each",
            n->offset, inputs, outputs, attrs, NODE_ARGS_MAX);
    n->inputs = (const char **)trm_arena_alloc(im->scratch, inputs + 1, sizeof(char *));
    n->outputs = (const char **)trm_arena_alloc(im->scratch, outputs + 1, sizeof(char *));
    n->attrs = (trmi_attribute *)trm_arena_alloc(im->scratch, attrs + 1, sizeof(trmi_attribute));
    return n->inputs == NULL || n->outputs == NULL || n->attrs == NULL ? no_memory() : TRM_OK;
}

trm_status trmi_node_parse(trmi_import *im, trmi_bytes message, trmi_node *n)
{
    trmi_pb r = trmi_pb_make(message, im->base, "NodeProto");
    bool more;

    memset(n, 0, sizeof(*n));
    n->name = n->op = n->domain = n->overload = "";
    n->offset = (size_t)(message.data - im->base);
    TRM_CHECK(alloc_lists(im, r, n));
    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            break;
        switch (r.field) {
        case N_INPUT:
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &n->inputs[n->input_count++]));
            break;
        case N_OUTPUT:
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &n->outputs[n->output_count++]));
            break;
        case N_NAME:
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &n->name));
            break;
        case N_OP:
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &n->op));
            break;
        case N_DOMAIN:
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &n->domain));
            break;
        case N_OVERLOAD:
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &n->overload));
            break;
        case N_ATTRIBUTE:
            TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
            TRM_CHECK(trmi_attribute_parse(im, r.bytes, &n->attrs[n->attr_count++]));
            break;
        default:
            break;
        }
    }
    if (n->op[0] == '\0')
        return trm_fail(TRM_ERR_BAD_FILE, "NodeProto at byte %zu has no op_type", n->offset);
    if (strcmp(n->domain, "ai.onnx") == 0)
        n->domain = "";
    return TRM_OK;
}
