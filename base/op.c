/* The operator table and attribute lists. */
#include "base/op.h"

#include <string.h>

static const trm_op_info table[TRM_OP_COUNT] = {
    [TRM_OP_NONE] = {"none", 0, 0, 0, 0, 0, 0},
#define TRM_OP_ROW(name, in_min, in_max, out_min, out_max, shape_inputs, flags)                    \
    [TRM_OP_##name] = {#name, in_min, in_max, out_min, out_max, shape_inputs, flags},
#include "base/ops.def"
#undef TRM_OP_ROW
};

const trm_op_info *trm_op_get(trm_op op)
{
    return (unsigned)op < TRM_OP_COUNT ? &table[op] : &table[TRM_OP_NONE];
}

trm_op trm_op_from_name(const char *name)
{
    for (int i = 1; i < TRM_OP_COUNT; i++)
        if (strcmp(table[i].name, name) == 0)
            return (trm_op)i;
    return TRM_OP_NONE;
}

static const unsigned char onnx_numbers[TRM_DTYPE_COUNT] = {
    [TRM_DTYPE_F32] = 1,   [TRM_DTYPE_U8] = 2,   [TRM_DTYPE_I8] = 3,   [TRM_DTYPE_U16] = 4,
    [TRM_DTYPE_I16] = 5,   [TRM_DTYPE_I32] = 6,  [TRM_DTYPE_I64] = 7,  [TRM_DTYPE_BOOL] = 9,
    [TRM_DTYPE_F16] = 10,  [TRM_DTYPE_F64] = 11, [TRM_DTYPE_U32] = 12, [TRM_DTYPE_U64] = 13,
    [TRM_DTYPE_BF16] = 16,
};

trm_dtype trm_dtype_from_onnx(int64_t number)
{
    for (int i = 1; i < TRM_DTYPE_COUNT; i++)
        if (onnx_numbers[i] == number)
            return (trm_dtype)i;
    return TRM_DTYPE_NONE;
}

int trm_dtype_to_onnx(trm_dtype dtype)
{
    return (unsigned)dtype < TRM_DTYPE_COUNT ? onnx_numbers[dtype] : 0;
}

const trm_attr *trm_attr_find(const trm_attrs *attrs, const char *name)
{
    if (attrs == NULL)
        return NULL;
    for (int i = 0; i < attrs->count; i++)
        if (strcmp(attrs->items[i].name, name) == 0)
            return &attrs->items[i];
    return NULL;
}

int64_t trm_attr_int(const trm_attrs *attrs, const char *name, int64_t otherwise)
{
    const trm_attr *a = trm_attr_find(attrs, name);

    return a != NULL && a->kind == TRM_ATTR_INT ? a->v.i : otherwise;
}

float trm_attr_float(const trm_attrs *attrs, const char *name, float otherwise)
{
    const trm_attr *a = trm_attr_find(attrs, name);

    return a != NULL && a->kind == TRM_ATTR_FLOAT ? a->v.f : otherwise;
}

const char *trm_attr_string(const trm_attrs *attrs, const char *name, const char *otherwise)
{
    const trm_attr *a = trm_attr_find(attrs, name);

    return a != NULL && a->kind == TRM_ATTR_STRING ? a->v.s : otherwise;
}

const int64_t *trm_attr_ints(const trm_attrs *attrs, const char *name, size_t *count_out)
{
    const trm_attr *a = trm_attr_find(attrs, name);

    *count_out = 0;
    if (a == NULL || a->kind != TRM_ATTR_INTS)
        return NULL;
    *count_out = a->count;
    return a->v.ints;
}

const float *trm_attr_floats(const trm_attrs *attrs, const char *name, size_t *count_out)
{
    const trm_attr *a = trm_attr_find(attrs, name);

    *count_out = 0;
    if (a == NULL || a->kind != TRM_ATTR_FLOATS)
        return NULL;
    *count_out = a->count;
    return a->v.floats;
}

static void *copy_block(trm_arena *arena, const void *from, size_t count, size_t size)
{
    void *to = trm_arena_alloc(arena, count == 0 ? 1 : count, size);

    if (to != NULL && count > 0)
        memcpy(to, from, count * size);
    return to;
}

static bool copy_value(trm_arena *arena, trm_attr *a)
{
    switch (a->kind) {
    case TRM_ATTR_STRING:
        a->v.s = trm_arena_strdup(arena, a->v.s);
        return a->v.s != NULL;
    case TRM_ATTR_INTS:
        a->v.ints = (const int64_t *)copy_block(arena, a->v.ints, a->count, sizeof(int64_t));
        return a->v.ints != NULL;
    case TRM_ATTR_FLOATS:
        a->v.floats = (const float *)copy_block(arena, a->v.floats, a->count, sizeof(float));
        return a->v.floats != NULL;
    case TRM_ATTR_STRINGS: {
        const char **list = (const char **)trm_arena_alloc(arena, a->count + 1, sizeof(char *));

        if (list == NULL)
            return false;
        for (size_t i = 0; i < a->count; i++) {
            list[i] = trm_arena_strdup(arena, a->v.strings[i]);
            if (list[i] == NULL)
                return false;
        }
        a->v.strings = list;
        return true;
    }
    case TRM_ATTR_TENSOR:
        a->v.tensor = (const trm_tensor *)copy_block(arena, a->v.tensor, 1, sizeof(trm_tensor));
        return a->v.tensor != NULL;
    case TRM_ATTR_INT:
    case TRM_ATTR_FLOAT:
    case TRM_ATTR_GRAPH:
        break;
    }
    return true;
}

trm_status trm_attr_set(trm_attrs *attrs, trm_arena *arena, const trm_attr *attr)
{
    trm_attr copy = *attr;
    trm_attr *old = (trm_attr *)trm_attr_find(attrs, attr->name); /* items are ours to change */

    if (!copy_value(arena, &copy))
        return trm_fail(TRM_ERR_NO_MEMORY, "attribute '%s'", attr->name);
    if (old != NULL) {
        copy.name = old->name;
        *old = copy;
        return TRM_OK;
    }
    copy.name = trm_arena_strdup(arena, attr->name);
    if (copy.name == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "attribute '%s'", attr->name);
    if (attrs->count == attrs->count_max) {
        int max = attrs->count_max == 0 ? 4 : attrs->count_max * 2;
        trm_attr *items = (trm_attr *)trm_arena_alloc(arena, (size_t)max, sizeof(trm_attr));

        if (items == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "attribute '%s'", attr->name);
        if (attrs->count > 0)
            memcpy(items, attrs->items, (size_t)attrs->count * sizeof(trm_attr));
        attrs->items = items;
        attrs->count_max = max;
    }
    attrs->items[attrs->count++] = copy;
    return TRM_OK;
}

trm_status trm_attr_set_int(trm_attrs *attrs, trm_arena *arena, const char *name, int64_t value)
{
    trm_attr a = {.name = name, .kind = TRM_ATTR_INT, .count = 1, .v = {.i = value}};

    return trm_attr_set(attrs, arena, &a);
}

trm_status trm_attr_set_float(trm_attrs *attrs, trm_arena *arena, const char *name, float value)
{
    trm_attr a = {.name = name, .kind = TRM_ATTR_FLOAT, .count = 1, .v = {.f = value}};

    return trm_attr_set(attrs, arena, &a);
}

trm_status trm_attr_set_string(trm_attrs *attrs, trm_arena *arena, const char *name,
                               const char *value)
{
    trm_attr a = {.name = name, .kind = TRM_ATTR_STRING, .count = 1, .v = {.s = value}};

    return trm_attr_set(attrs, arena, &a);
}

trm_status trm_attr_set_ints(trm_attrs *attrs, trm_arena *arena, const char *name,
                             const int64_t *values, size_t count)
{
    trm_attr a = {.name = name, .kind = TRM_ATTR_INTS, .count = count, .v = {.ints = values}};

    return trm_attr_set(attrs, arena, &a);
}

void trm_attr_remove(trm_attrs *attrs, const char *name)
{
    for (int i = 0; i < attrs->count; i++)
        if (strcmp(attrs->items[i].name, name) == 0)
            attrs->items[i--] = attrs->items[--attrs->count];
}
