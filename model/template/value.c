/* Strings, lists and dicts of a rendering, in its arena. */
#include "model/template/template_impl.h"

#include <string.h>

#define INDEX_FROM 8 /* pairs: fewer are searched one by one */

/* Room after the end of a concatenation's result: `x = x + y` in a loop copies each byte a constant
 * number of times. A string whose end is the room's end may grow into it; others keep their own
 * length and see nothing of it. */
typedef struct trmi_append {
    char *data;
    size_t used, room;
} trmi_append_room;

trm_status trmi_charge(trmi_run *r, size_t work)
{
    if (work > (size_t)r->steps) {
        r->steps = 0;
        return trm_fail(TRM_ERR_UNSUPPORTED, "more than %d steps", TRMI_TEMPLATE_STEPS_MAX);
    }
    r->steps -= (int64_t)work;
    return TRM_OK;
}

trm_status trmi_enter(trmi_run *r)
{
    if (r->depth >= TRMI_TEMPLATE_DEPTH_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "calls and values nest more than %d levels deep",
                        TRMI_TEMPLATE_DEPTH_MAX);
    r->depth++;
    return TRM_OK;
}

void trmi_leave(trmi_run *r)
{
    r->depth--;
}

trm_status trmi_alloc(trmi_run *r, size_t count, size_t size, void **out)
{
    size_t bytes;

    if (!trm_mul_ok(count, size, &bytes) || bytes > TRMI_TEMPLATE_BYTES_MAX - r->bytes)
        return trm_fail(TRM_ERR_UNSUPPORTED, "more than %zu bytes of values and text",
                        TRMI_TEMPLATE_BYTES_MAX);
    TRM_CHECK(trmi_charge(r, 1 + bytes / 64));
    r->bytes += bytes;
    *out = trm_arena_alloc(r->arena, count == 0 ? 1 : count, size);
    if (*out == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%zu bytes", bytes);
    return TRM_OK;
}

trm_status trmi_borrow_string(trmi_run *r, const char *data, size_t bytes, trmi_value *out)
{
    void *block;
    trmi_string *s;

    TRM_CHECK(trmi_alloc(r, 1, sizeof(*s), &block));
    s = block;
    s->data = data;
    s->bytes = bytes;
    s->chars = SIZE_MAX;
    out->kind = TRMI_V_STRING;
    out->as.string = s;
    return TRM_OK;
}

trm_status trmi_make_string(trmi_run *r, const char *data, size_t bytes, trmi_value *out)
{
    void *block;

    TRM_CHECK(trmi_alloc(r, bytes + 1, 1, &block));
    if (bytes > 0)
        memcpy(block, data, bytes);
    return trmi_borrow_string(r, block, bytes, out);
}

trm_status trmi_join_strings(trmi_run *r, trmi_string *a, const trmi_string *b, trmi_value *out)
{
    trmi_append_room *room = a->room;
    size_t bytes = a->bytes + b->bytes;
    void *block;

    if (room != NULL && a->data + a->bytes == room->data + room->used &&
        b->bytes <= room->room - room->used) {
        TRM_CHECK(trmi_charge(r, 1 + b->bytes / 64));
        if (b->bytes > 0)
            memcpy(room->data + room->used, b->data, b->bytes);
        room->used += b->bytes;
        TRM_CHECK(trmi_borrow_string(r, a->data, bytes, out));
        out->as.string->room = room;
        return TRM_OK;
    }
    TRM_CHECK(trmi_alloc(r, 1, sizeof(*room), &block));
    room = block;
    room->room = a->room != NULL ? bytes * 2 : bytes; /* once grown, likely to grow again */
    TRM_CHECK(trmi_alloc(r, room->room + 1, 1, &block));
    room->data = block;
    room->used = bytes;
    if (a->bytes > 0)
        memcpy(room->data, a->data, a->bytes);
    if (b->bytes > 0)
        memcpy(room->data + a->bytes, b->data, b->bytes);
    TRM_CHECK(trmi_borrow_string(r, room->data, bytes, out));
    out->as.string->room = room;
    return TRM_OK;
}

size_t trmi_chars(trmi_string *s)
{
    size_t n = 0;

    if (s->chars != SIZE_MAX)
        return s->chars;
    for (size_t i = 0; i < s->bytes; i++)
        n += ((unsigned char)s->data[i] & 0xc0) != 0x80;
    s->chars = n;
    return n;
}

size_t trmi_offset(trmi_string *s, size_t chars)
{
    size_t i = 0;

    if (trmi_chars(s) == s->bytes)
        return chars < s->bytes ? chars : s->bytes;
    for (; i < s->bytes; i++) {
        if (((unsigned char)s->data[i] & 0xc0) == 0x80)
            continue;
        if (chars-- == 0)
            break;
    }
    return i;
}

trm_status trmi_mark(trmi_run *r, trmi_value v, trmi_value *out)
{
    if (v.kind == TRMI_V_STRING) {
        const trmi_string *s = v.as.string;

        TRM_CHECK(trmi_borrow_string(r, s->data, s->bytes, &v));
        v.as.string->markup = true;
    } else if (v.kind == TRMI_V_LIST || v.kind == TRMI_V_TUPLE) {
        for (size_t i = 0; i < v.as.list->count; i++)
            TRM_CHECK(trmi_mark(r, v.as.list->items[i], &v.as.list->items[i]));
    }
    *out = v;
    return TRM_OK;
}

trm_status trmi_make_list(trmi_run *r, trmi_kind kind, trmi_value *out)
{
    void *block;

    TRM_CHECK(trmi_alloc(r, 1, sizeof(trmi_list), &block));
    out->kind = kind;
    out->as.list = block;
    return TRM_OK;
}

trm_status trmi_list_push(trmi_run *r, trmi_list *list, trmi_value item)
{
    if (list->count == list->room) {
        size_t room = list->room == 0 ? 4 : list->room * 2;
        void *block;

        TRM_CHECK(trmi_alloc(r, room, sizeof(*list->items), &block));
        if (list->count > 0)
            memcpy(block, list->items, list->count * sizeof(*list->items));
        list->items = block;
        list->room = room;
    }
    list->items[list->count++] = item;
    return TRM_OK;
}

trm_status trmi_make_dict(trmi_run *r, trmi_kind kind, trmi_value *out)
{
    void *block;

    TRM_CHECK(trmi_alloc(r, 1, sizeof(trmi_dict), &block));
    out->kind = kind;
    out->as.dict = block;
    return TRM_OK;
}

static uint64_t hash_bytes(const void *data, size_t bytes, uint64_t h)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < bytes; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* Equal values have equal hashes: 1, 1.0 and True too. */
static trm_status hash(trmi_run *r, trmi_value v, uint64_t *h)
{
    double d;

    switch (v.kind) {
    case TRMI_V_STRING:
        *h = hash_bytes(v.as.string->data, v.as.string->bytes, *h);
        return TRM_OK;
    case TRMI_V_BOOL:
    case TRMI_V_INT:
    case TRMI_V_FLOAT:
        d = trmi_as_real(v) + 0.0; /* -0.0 is 0.0 */
        *h = hash_bytes(&d, sizeof(d), *h);
        return TRM_OK;
    case TRMI_V_NONE:
    case TRMI_V_UNDEFINED:
        *h = hash_bytes(&v.kind, sizeof(v.kind), *h);
        return TRM_OK;
    case TRMI_V_TUPLE:
        TRM_CHECK(trmi_enter(r));
        TRM_CHECK(trmi_charge(r, v.as.list->count));
        for (size_t i = 0; i < v.as.list->count; i++)
            TRM_CHECK(hash(r, v.as.list->items[i], h));
        trmi_leave(r);
        return TRM_OK;
    default:
        return trm_fail(TRM_ERR_INVALID_ARG, "unhashable type: '%s'", trmi_type_name(v));
    }
}

static trm_status find(trmi_run *r, const trmi_dict *d, trmi_value key, uint64_t h, size_t *at)
{
    bool same = false;

    *at = SIZE_MAX;
    if (d->index == NULL) {
        for (size_t i = 0; i < d->count; i++) {
            TRM_CHECK(trmi_equal(r, d->pairs[i].key, key, &same));
            if (same) {
                *at = i;
                return TRM_OK;
            }
        }
        return TRM_OK;
    }
    for (size_t i = h & (d->index_size - 1); d->index[i] != 0; i = (i + 1) & (d->index_size - 1)) {
        TRM_CHECK(trmi_charge(r, 1));
        TRM_CHECK(trmi_equal(r, d->pairs[d->index[i] - 1].key, key, &same));
        if (same) {
            *at = d->index[i] - 1;
            return TRM_OK;
        }
    }
    return TRM_OK;
}

#define HASH_SEED UINT64_C(0xcbf29ce484222325)

static trm_status add_to_index(trmi_run *r, trmi_dict *d, size_t pair)
{
    uint64_t h = HASH_SEED;
    size_t i;

    TRM_CHECK(hash(r, d->pairs[pair].key, &h));
    h ^= h >> 32;
    for (i = h & (d->index_size - 1); d->index[i] != 0; i = (i + 1) & (d->index_size - 1))
        TRM_CHECK(trmi_charge(r, 1));
    d->index[i] = (uint32_t)pair + 1;
    return TRM_OK;
}

static trm_status grow_dict(trmi_run *r, trmi_dict *d)
{
    size_t room = d->room == 0 ? 4 : d->room * 2;
    void *block;

    if (room > UINT32_MAX / 4)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a dict has %zu keys", d->count);
    TRM_CHECK(trmi_alloc(r, room, sizeof(*d->pairs), &block));
    if (d->count > 0)
        memcpy(block, d->pairs, d->count * sizeof(*d->pairs));
    d->pairs = block;
    d->room = room;
    if (room <= INDEX_FROM)
        return TRM_OK;
    TRM_CHECK(trmi_alloc(r, room * 2, sizeof(*d->index), &block));
    d->index = block;
    d->index_size = room * 2;
    for (size_t i = 0; i < d->count; i++)
        TRM_CHECK(add_to_index(r, d, i));
    return TRM_OK;
}

trm_status trmi_dict_put(trmi_run *r, trmi_dict *d, trmi_value key, trmi_value value)
{
    uint64_t h = HASH_SEED;
    size_t at;

    TRM_CHECK(hash(r, key, &h));
    TRM_CHECK(find(r, d, key, h ^ h >> 32, &at));
    if (at != SIZE_MAX) {
        d->pairs[at].value = value;
        return TRM_OK;
    }
    if (d->count == d->room)
        TRM_CHECK(grow_dict(r, d));
    d->pairs[d->count].key = key;
    d->pairs[d->count].value = value;
    d->count++;
    return d->index != NULL ? add_to_index(r, d, d->count - 1) : TRM_OK;
}

trm_status trmi_dict_find(trmi_run *r, const trmi_dict *d, trmi_value key, trmi_value **out)
{
    uint64_t h = HASH_SEED;
    size_t at;

    *out = NULL;
    TRM_CHECK(hash(r, key, &h));
    TRM_CHECK(find(r, d, key, h ^ h >> 32, &at));
    if (at != SIZE_MAX)
        *out = &d->pairs[at].value;
    return TRM_OK;
}

trmi_value *trmi_dict_find_name(const trmi_dict *d, const trmi_string *name)
{
    uint64_t h = HASH_SEED;

    if (d->index == NULL) {
        for (size_t i = 0; i < d->count; i++)
            if (d->pairs[i].key.kind == TRMI_V_STRING &&
                trmi_string_same(d->pairs[i].key.as.string, name))
                return &d->pairs[i].value;
        return NULL;
    }
    h = hash_bytes(name->data, name->bytes, h);
    h ^= h >> 32;
    for (size_t i = h & (d->index_size - 1); d->index[i] != 0; i = (i + 1) & (d->index_size - 1)) {
        trmi_pair *pair = &d->pairs[d->index[i] - 1];

        if (pair->key.kind == TRMI_V_STRING && trmi_string_same(pair->key.as.string, name))
            return &pair->value;
    }
    return NULL;
}

trm_status trmi_make_undefined(trmi_run *r, const trmi_string *name, trmi_value of,
                               const char *hint, trmi_value *out)
{
    void *block;

    TRM_CHECK(trmi_alloc(r, 1, sizeof(trmi_undefined), &block));
    out->kind = TRMI_V_UNDEFINED;
    out->as.undefined = block;
    out->as.undefined->name = name;
    out->as.undefined->of = of;
    out->as.undefined->hint = hint;
    return TRM_OK;
}

trm_status trmi_fail_undefined(trmi_run *r, trmi_value v)
{
    const trmi_undefined *u = v.as.undefined;
    const char *name = u->name != NULL ? u->name->data : "";
    int n = u->name != NULL ? (int)(u->name->bytes < 100 ? u->name->bytes : 100) : 0;

    (void)r;
    if (u->unsafe)
        return trm_fail(TRM_ERR_INVALID_ARG, "access to attribute '%.*s' of '%s' object is unsafe",
                        n, name, trmi_type_name(u->of));
    if (u->hint != NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s", u->hint);
    if (u->of.kind == TRMI_V_ABSENT)
        return trm_fail(TRM_ERR_INVALID_ARG, "'%.*s' is undefined", n, name);
    if (u->name == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s%s has no such element", trmi_type_name(u->of),
                        u->of.kind == TRMI_V_NONE ? "" : " object");
    return trm_fail(TRM_ERR_INVALID_ARG, "'%s%s' has no attribute '%.*s'",
                    u->of.kind == TRMI_V_NONE ? "None" : trmi_type_name(u->of),
                    u->of.kind == TRMI_V_NONE ? "" : " object", n, name);
}

const char *trmi_type_name(trmi_value v)
{
    static const char *const names[] = {
        [TRMI_V_ABSENT] = "nothing",
        [TRMI_V_UNDEFINED] = "Undefined",
        [TRMI_V_NONE] = "NoneType",
        [TRMI_V_BOOL] = "bool",
        [TRMI_V_INT] = "int",
        [TRMI_V_FLOAT] = "float",
        [TRMI_V_STRING] = "str",
        [TRMI_V_LIST] = "list",
        [TRMI_V_TUPLE] = "tuple",
        [TRMI_V_DICT] = "dict",
        [TRMI_V_RANGE] = "range",
        [TRMI_V_VIEW] = "dict view",
        [TRMI_V_GENERATOR] = "generator",
        [TRMI_V_NAMESPACE] = "Namespace",
        [TRMI_V_LOOP] = "LoopContext",
        [TRMI_V_MACRO] = "Macro",
        [TRMI_V_METHOD] = "method",
        [TRMI_V_FUNCTION] = "function",
        [TRMI_V_CYCLER] = "Cycler",
        [TRMI_V_JOINER] = "Joiner",
        [TRMI_V_SLICE] = "slice",
    };

    return names[v.kind];
}
