/* a.b, a[b] and slices: for a.b Jinja asks for the attribute first and the item then, for a["b"]
 * the other way round; what is neither is undefined. */
#include "model/template/template_impl.h"

#include <string.h>

static trm_status make_method(trmi_run *r, const trmi_function *f, trmi_value self, trmi_value *out)
{
    trmi_method *m;
    void *block;

    TRM_CHECK(trmi_alloc(r, 1, sizeof(*m), &block));
    m = block;
    m->function = f;
    m->self = self;
    out->kind = TRMI_V_METHOD;
    out->as.method = m;
    return TRM_OK;
}

static trm_status make_unsafe(trmi_run *r, const trmi_string *name, trmi_value of, trmi_value *out)
{
    TRM_CHECK(trmi_make_undefined(r, name, of, NULL, out));
    out->as.undefined->unsafe = true;
    return TRM_OK;
}

/* What the sandbox does not let templates change. */
static bool is_mutating(trmi_value of, const trmi_string *name)
{
    static const char *const of_list[] = {"append", "clear",  "pop",    "reverse", "insert",
                                          "sort",   "extend", "remove", NULL};
    static const char *const of_dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    const char *const *names = of.kind == TRMI_V_LIST   ? of_list
                               : of.kind == TRMI_V_DICT ? of_dict
                                                        : NULL;

    for (; names != NULL && *names != NULL; names++)
        if (trmi_string_is(name, *names))
            return true;
    return false;
}

static bool is_private(const trmi_string *name)
{
    return name->bytes > 4 && memcmp(name->data, "__", 2) == 0 &&
           memcmp(name->data + name->bytes - 2, "__", 2) == 0;
}

/* *found: `out` is an attribute in Python's sense. */
static trm_status attribute(trmi_run *r, trmi_value of, const trmi_string *name, bool *found,
                            trmi_value *out)
{
    const trmi_function *f;
    trmi_value *v;

    *found = true;
    if (is_private(name) || is_mutating(of, name))
        return make_unsafe(r, name, of, out);
    if (of.kind == TRMI_V_NAMESPACE) {
        v = trmi_dict_find_name(of.as.dict, name);
        *found = v != NULL;
        if (*found)
            *out = *v;
        return TRM_OK;
    }
    if (of.kind == TRMI_V_LOOP)
        return trmi_loop_attribute(r, of.as.loop, name, found, out);
    if (of.kind == TRMI_V_MACRO && trmi_string_is(name, "name") && of.as.macro->node->text) {
        out->kind = TRMI_V_STRING;
        out->as.string = of.as.macro->node->text;
        return TRM_OK;
    }
    if (of.kind == TRMI_V_CYCLER && trmi_string_is(name, "current")) {
        *out = of.as.cycler->items->items[of.as.cycler->at];
        return TRM_OK;
    }
    f = trmi_find_method(of, name);
    *found = f != NULL;
    return f == NULL ? TRM_OK : make_method(r, f, of, out);
}

trm_status trmi_get_attribute(trmi_run *r, trmi_value of, trmi_string *name, trmi_value *out)
{
    bool found = false;
    trmi_value *item;

    if (of.kind == TRMI_V_UNDEFINED)
        return trmi_fail_undefined(r, of);
    TRM_CHECK(attribute(r, of, name, &found, out));
    if (found)
        return TRM_OK;
    item = of.kind == TRMI_V_DICT ? trmi_dict_find_name(of.as.dict, name) : NULL;
    if (item == NULL)
        return trmi_make_undefined(r, name, of, NULL, out);
    *out = *item;
    return TRM_OK;
}

static trm_status index_at(trmi_run *r, trmi_value of, int64_t i, bool *found, trmi_value *out)
{
    int64_t n = 0;
    size_t at, length;

    *found = false;
    if (of.kind == TRMI_V_VIEW || !trmi_length(of, &n))
        return TRM_OK;
    if (i < 0)
        i += n;
    if (i < 0 || i >= n)
        return TRM_OK;
    *found = true;
    if (of.kind == TRMI_V_RANGE) {
        *out = trmi_int(of.as.range->start + i * of.as.range->step);
        return TRM_OK;
    }
    if (of.kind != TRMI_V_STRING) {
        *out = of.as.list->items[i];
        return TRM_OK;
    }
    TRM_CHECK(trmi_charge(r, of.as.string->bytes / 16));
    at = trmi_offset(of.as.string, (size_t)i);
    (void)trmi_decode(of.as.string->data + at, of.as.string->bytes - at, &length);
    return trmi_make_string(r, of.as.string->data + at, length, out);
}

/* One bound of a slice as PySlice_AdjustIndices has it. */
static trm_status bound(trmi_value v, int64_t n, bool down, int64_t fallback, int64_t *out)
{
    int64_t i;

    if (v.kind == TRMI_V_NONE) {
        *out = fallback;
        return TRM_OK;
    }
    if (!trmi_is_int(v))
        return trm_fail(TRM_ERR_INVALID_ARG, "slice indices must be integers or None, not %s",
                        trmi_type_name(v));
    i = trmi_as_int(v);
    if (i < 0) {
        i += n;
        *out = i < 0 ? (down ? -1 : 0) : i;
    } else {
        *out = i >= n ? (down ? n - 1 : n) : i;
    }
    return TRM_OK;
}

static trm_status slice_string(trmi_run *r, trmi_string *s, int64_t start, int64_t step,
                               int64_t count, trmi_value *out)
{
    trmi_output to = {NULL, 0, 0};
    trm_status st = TRM_OK;

    if (step == 1) {
        size_t from = trmi_offset(s, (size_t)start), end = trmi_offset(s, (size_t)(start + count));

        TRM_CHECK(trmi_charge(r, s->bytes / 16));
        return trmi_borrow_string(r, s->data + from, end - from, out);
    }
    TRM_CHECK(trmi_charge(r, s->bytes / 4));
    if (trmi_chars(s) == s->bytes) {
        for (int64_t i = 0; i < count && st == TRM_OK; i++)
            st = trmi_append(r, &to, s->data + start + i * step, 1);
    } else { /* walks the code points once, in the direction of the slice */
        size_t at = count > 0 ? trmi_offset(s, (size_t)start) : 0, length;

        for (int64_t i = 0; i < count && st == TRM_OK; i++) {
            (void)trmi_decode(s->data + at, s->bytes - at, &length);
            st = trmi_append(r, &to, s->data + at, length);
            for (int64_t k = 0; k < (step > 0 ? step : -step) && i + 1 < count; k++) {
                if (step > 0) {
                    (void)trmi_decode(s->data + at, s->bytes - at, &length);
                    at += length;
                } else {
                    do
                        at--;
                    while (((unsigned char)s->data[at] & 0xc0) == 0x80);
                }
            }
        }
    }
    return trmi_take(r, st, &to, out);
}

static trm_status slice_range(trmi_run *r, const trmi_range *of, int64_t start, int64_t step,
                              int64_t count, trmi_value *out)
{
    trmi_range *range;
    void *block;

    TRM_CHECK(trmi_alloc(r, 1, sizeof(*range), &block));
    range = block;
    range->start = of->start + start * of->step;
    if (__builtin_mul_overflow(of->step, step, &range->step) ||
        __builtin_mul_overflow(count, range->step, &range->stop) ||
        __builtin_add_overflow(range->start, range->stop, &range->stop))
        return trm_fail(TRM_ERR_UNSUPPORTED, "an integer is beyond 64 bits");
    range->count = (size_t)count;
    out->kind = TRMI_V_RANGE;
    out->as.range = range;
    return TRM_OK;
}

static trm_status slice(trmi_run *r, trmi_value of, const trmi_value *parts, trmi_value *out)
{
    int64_t n = 0, start, stop, step = 1, count;
    trmi_value list;
    bool down;

    if (of.kind != TRMI_V_STRING && of.kind != TRMI_V_LIST && of.kind != TRMI_V_TUPLE &&
        of.kind != TRMI_V_RANGE)
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s' object cannot be sliced", trmi_type_name(of));
    (void)trmi_length(of, &n);
    if (trmi_is_int(parts[2]))
        step = trmi_as_int(parts[2]);
    else if (parts[2].kind != TRMI_V_NONE)
        return trm_fail(TRM_ERR_INVALID_ARG, "slice indices must be integers or None, not %s",
                        trmi_type_name(parts[2]));
    if (step == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "slice step cannot be zero");
    if (step > n + 1) /* beyond: the first only */
        step = n + 1;
    if (step < -n - 1)
        step = -n - 1;
    down = step < 0;
    TRM_CHECK(bound(parts[0], n, down, down ? n - 1 : 0, &start));
    TRM_CHECK(bound(parts[1], n, down, down ? -1 : n, &stop));
    count = down ? (start - stop - step - 1) / -step : (stop - start + step - 1) / step;
    if (down ? start <= stop : start >= stop)
        count = 0;
    if (of.kind == TRMI_V_STRING)
        return slice_string(r, of.as.string, start, step, count, out);
    if (of.kind == TRMI_V_RANGE)
        return slice_range(r, of.as.range, start, step, count, out);
    TRM_CHECK(trmi_make_list(r, of.kind, &list));
    for (int64_t i = 0; i < count; i++)
        TRM_CHECK(trmi_list_push(r, list.as.list, of.as.list->items[start + i * step]));
    *out = list;
    return trmi_charge(r, (size_t)count);
}

trm_status trmi_get_item(trmi_run *r, trmi_value of, trmi_value key, trmi_value *out)
{
    const trmi_string *name = key.kind == TRMI_V_STRING ? key.as.string : NULL;
    bool found = false;
    trmi_value *item = NULL;

    if (of.kind == TRMI_V_UNDEFINED)
        return trmi_fail_undefined(r, of);
    if (of.kind == TRMI_V_STRING && of.as.string->markup && key.kind != TRMI_V_STRING) {
        trmi_value plain = of;

        TRM_CHECK(trmi_borrow_string(r, of.as.string->data, of.as.string->bytes, &plain));
        TRM_CHECK(trmi_get_item(r, plain, key, out));
        return trmi_mark(r, *out, out);
    }
    if (key.kind == TRMI_V_SLICE)
        return slice(r, of, key.as.slice, out);
    if (of.kind == TRMI_V_DICT) {
        if (trmi_dict_find(r, of.as.dict, key, &item) == TRM_OK && item != NULL) {
            *out = *item;
            return TRM_OK;
        }
    } else if (trmi_is_int(key) && of.kind != TRMI_V_NAMESPACE) {
        TRM_CHECK(index_at(r, of, trmi_as_int(key), &found, out));
    }
    if (!found && name != NULL)
        TRM_CHECK(attribute(r, of, name, &found, out));
    return found ? TRM_OK : trmi_make_undefined(r, name, of, NULL, out);
}

trm_status trmi_get_path(trmi_run *r, trmi_value of, trmi_value path, trmi_value *out)
{
    const trmi_string *s;

    *out = of;
    if (path.kind == TRMI_V_NONE || path.kind == TRMI_V_ABSENT)
        return TRM_OK;
    if (path.kind != TRMI_V_STRING)
        return trmi_get_item(r, of, path, out);
    s = path.as.string;
    for (size_t from = 0; from <= s->bytes;) {
        const char *dot = from < s->bytes ? memchr(s->data + from, '.', s->bytes - from) : NULL;
        size_t end = dot != NULL ? (size_t)(dot - s->data) : s->bytes;
        bool number = end > from && end - from < 19;
        int64_t index = 0;
        trmi_value part;

        for (size_t i = from; i < end && number; i++) {
            number = s->data[i] >= '0' && s->data[i] <= '9';
            index = index * 10 + (s->data[i] - '0');
        }
        part = trmi_int(index);
        if (!number)
            TRM_CHECK(trmi_borrow_string(r, s->data + from, end - from, &part));
        TRM_CHECK(trmi_get_item(r, *out, part, out));
        from = end + 1;
    }
    return TRM_OK;
}
