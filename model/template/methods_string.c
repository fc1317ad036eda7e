/* Methods of str: stripping, splitting, searching, replacing. Positions are code points. */
#define _GNU_SOURCE /* memmem */
#include "model/template/template_impl.h"

#include <string.h>

static trm_status piece(trmi_run *r, const trmi_string *s, size_t from, size_t end, trmi_value *out)
{
    return trmi_borrow_string(r, s->data + from, end - from, out);
}

static trm_status want_string(trmi_run *r, const trmi_call *call, trmi_value v)
{
    if (v.kind == TRMI_V_STRING)
        return TRM_OK;
    if (v.kind == TRMI_V_UNDEFINED)
        return trmi_fail_undefined(r, v);
    return trm_fail(TRM_ERR_INVALID_ARG, "%s: expected str, not %s", call->what, trmi_type_name(v));
}

static trm_status want_int(const trmi_call *call, trmi_value v, int64_t fallback, int64_t *out)
{
    *out = fallback;
    if (v.kind == TRMI_V_ABSENT)
        return TRM_OK;
    if (!trmi_is_int(v))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: '%s' object cannot be interpreted as an integer",
                        call->what, trmi_type_name(v));
    *out = trmi_as_int(v);
    return TRM_OK;
}

static bool in_set(const trmi_string *set, const char *data, size_t bytes, int32_t c)
{
    if (set == NULL)
        return trmi_is_space(c);
    for (size_t i = 0; i < set->bytes;) {
        size_t n;

        (void)trmi_decode(set->data + i, set->bytes - i, &n);
        if (n == bytes && memcmp(set->data + i, data, n) == 0)
            return true;
        i += n;
    }
    return false;
}

static trm_status strip_some(trmi_run *r, trmi_value self, const trmi_call *call, bool left,
                             bool right, trmi_value *out)
{
    const trmi_string *s = self.as.string, *set = NULL;
    size_t from = 0, end = s->bytes, n;
    trmi_value chars;

    TRM_CHECK(trmi_template_bind(r, call, "chars", 0, &chars));
    if (chars.kind != TRMI_V_ABSENT && chars.kind != TRMI_V_NONE) {
        TRM_CHECK(want_string(r, call, chars));
        set = chars.as.string;
    }
    while (left && from < end) {
        int32_t c = trmi_decode(s->data + from, end - from, &n);

        if (!in_set(set, s->data + from, n, c))
            break;
        from += n;
        TRM_CHECK(trmi_charge(r, set != NULL ? set->bytes : 0));
    }
    while (right && end > from) {
        size_t at = end - 1;
        int32_t c;

        while (((unsigned char)s->data[at] & 0xc0) == 0x80)
            at--;
        c = trmi_decode(s->data + at, end - at, &n);
        if (!in_set(set, s->data + at, n, c))
            break;
        end = at;
        TRM_CHECK(trmi_charge(r, set != NULL ? set->bytes : 0));
    }
    TRM_CHECK(trmi_charge(r, (s->bytes - (end - from)) / 8));
    return piece(r, s, from, end, out);
}

static trm_status strip(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return strip_some(r, self, call, true, true, out);
}

static trm_status lstrip(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return strip_some(r, self, call, true, false, out);
}

static trm_status rstrip(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return strip_some(r, self, call, false, true, out);
}

static const char *find_last(const char *data, size_t bytes, const char *what, size_t what_bytes)
{
    if (what_bytes > bytes)
        return NULL;
    for (size_t i = bytes - what_bytes + 1; i-- > 0;)
        if (what_bytes == 0 || memcmp(data + i, what, what_bytes) == 0)
            return data + i;
    return NULL;
}

static const char *find_first(const char *data, size_t bytes, const char *what, size_t what_bytes)
{
    return what_bytes == 0 ? data : bytes == 0 ? NULL : memmem(data, bytes, what, what_bytes);
}

static trm_status push_piece(trmi_run *r, trmi_list *list, const trmi_string *s, size_t from,
                             size_t end)
{
    trmi_value v;

    TRM_CHECK(piece(r, s, from, end, &v));
    return trmi_list_push(r, list, v);
}

static size_t space_run(const trmi_string *s, size_t at, bool want)
{
    while (at < s->bytes) {
        size_t n;

        if (trmi_is_space(trmi_decode(s->data + at, s->bytes - at, &n)) != want)
            break;
        at += n;
    }
    return at;
}

static trm_status split_space(trmi_run *r, const trmi_string *s, int64_t max, trmi_list *list)
{
    for (size_t at = space_run(s, 0, true); at < s->bytes;) {
        size_t end = space_run(s, at, false);

        if (max-- == 0) /* the rest as it stands */
            return push_piece(r, list, s, at, s->bytes);
        TRM_CHECK(push_piece(r, list, s, at, end));
        at = space_run(s, end, true);
    }
    return TRM_OK;
}

static trm_status split(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    const trmi_string *s = self.as.string;
    trmi_value args[2];
    int64_t max;
    size_t from = 0;

    TRM_CHECK(trmi_template_bind(r, call, "sep maxsplit", 0, args));
    TRM_CHECK(want_int(call, args[1], -1, &max));
    TRM_CHECK(trmi_charge(r, s->bytes / 8));
    TRM_CHECK(trmi_make_list(r, TRMI_V_LIST, out));
    if (args[0].kind == TRMI_V_ABSENT || args[0].kind == TRMI_V_NONE)
        return split_space(r, s, max, out->as.list);
    TRM_CHECK(want_string(r, call, args[0]));
    if (args[0].as.string->bytes == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "empty separator");
    for (; max != 0; max--) {
        const char *hit = find_first(s->data + from, s->bytes - from, args[0].as.string->data,
                                     args[0].as.string->bytes);

        if (hit == NULL)
            break;
        TRM_CHECK(push_piece(r, out->as.list, s, from, (size_t)(hit - s->data)));
        from = (size_t)(hit - s->data) + args[0].as.string->bytes;
    }
    return push_piece(r, out->as.list, s, from, s->bytes);
}

static void reverse(trmi_list *list)
{
    for (size_t i = 0; i < list->count / 2; i++) {
        trmi_value v = list->items[i];

        list->items[i] = list->items[list->count - 1 - i];
        list->items[list->count - 1 - i] = v;
    }
}

static trm_status rsplit_space(trmi_run *r, const trmi_string *s, int64_t max, trmi_list *list)
{
    trmi_value all = {.kind = TRMI_V_ABSENT};
    int64_t extra;

    TRM_CHECK(trmi_make_list(r, TRMI_V_LIST, &all));
    TRM_CHECK(split_space(r, s, -1, all.as.list));
    extra = max < 0 ? 0 : (int64_t)all.as.list->count - max;
    if (extra > 0) { /* the first of them stay together as they stand */
        const trmi_string *last = all.as.list->items[extra - 1].as.string;

        TRM_CHECK(push_piece(r, list, s, 0, (size_t)(last->data - s->data) + last->bytes));
    }
    for (int64_t i = extra > 0 ? extra : 0; i < (int64_t)all.as.list->count; i++)
        TRM_CHECK(trmi_list_push(r, list, all.as.list->items[i]));
    return TRM_OK;
}

static trm_status rsplit(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    const trmi_string *s = self.as.string;
    size_t end = s->bytes;
    trmi_value args[2];
    int64_t max;

    TRM_CHECK(trmi_template_bind(r, call, "sep maxsplit", 0, args));
    TRM_CHECK(want_int(call, args[1], -1, &max));
    TRM_CHECK(trmi_charge(r, s->bytes / 8));
    TRM_CHECK(trmi_make_list(r, TRMI_V_LIST, out));
    if (args[0].kind == TRMI_V_ABSENT || args[0].kind == TRMI_V_NONE)
        return rsplit_space(r, s, max, out->as.list);
    TRM_CHECK(want_string(r, call, args[0]));
    if (args[0].as.string->bytes == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "empty separator");
    for (; max != 0; max--) {
        const char *hit =
            find_last(s->data, end, args[0].as.string->data, args[0].as.string->bytes);

        if (hit == NULL)
            break;
        TRM_CHECK(push_piece(r, out->as.list, s, (size_t)(hit - s->data) + args[0].as.string->bytes,
                             end));
        end = (size_t)(hit - s->data);
    }
    TRM_CHECK(push_piece(r, out->as.list, s, 0, end));
    reverse(out->as.list);
    return TRM_OK;
}

static bool is_line_end(int32_t c)
{
    return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

static trm_status splitlines(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    const trmi_string *s = self.as.string;
    size_t from = 0;
    trmi_value keep;
    bool keeps = false;

    TRM_CHECK(trmi_template_bind(r, call, "keepends", 0, &keep));
    TRM_CHECK(trmi_truth(r, keep, &keeps));
    TRM_CHECK(trmi_charge(r, s->bytes / 8));
    TRM_CHECK(trmi_make_list(r, TRMI_V_LIST, out));
    for (size_t i = 0; i < s->bytes;) {
        size_t n, end = i;
        int32_t c = trmi_decode(s->data + i, s->bytes - i, &n);

        i += n;
        if (!is_line_end(c))
            continue;
        if (c == '\r' && i < s->bytes && s->data[i] == '\n')
            i++;
        TRM_CHECK(push_piece(r, out->as.list, s, from, keeps ? i : end));
        from = i;
    }
    return from < s->bytes ? push_piece(r, out->as.list, s, from, s->bytes) : TRM_OK;
}

/* The part of s between two optional positions. */
static trm_status window(const trmi_call *call, trmi_string *s, const trmi_value *bounds,
                         trmi_string *out, bool *possible)
{
    int64_t n = (int64_t)trmi_chars(s), from, end;

    TRM_CHECK(want_int(call, bounds[0].kind == TRMI_V_NONE ? trmi_absent() : bounds[0], 0, &from));
    TRM_CHECK(want_int(call, bounds[1].kind == TRMI_V_NONE ? trmi_absent() : bounds[1], n, &end));
    from = from < 0 ? (from + n < 0 ? 0 : from + n) : from;
    end = end < 0 ? (end + n < 0 ? 0 : end + n) : end > n ? n : end;
    *possible = from <= end;
    *out = *s;
    if (*possible) {
        size_t begin = trmi_offset(s, (size_t)from);

        out->data = s->data + begin;
        out->bytes = trmi_offset(s, (size_t)end) - begin;
    }
    return TRM_OK;
}

static trm_status affix(trmi_run *r, trmi_value self, const trmi_call *call, bool front,
                        trmi_value *out)
{
    trmi_value args[3], list;
    trmi_string part;
    bool possible = false, yes = false;

    TRM_CHECK(trmi_template_bind(r, call, "prefix start end", 1, args));
    TRM_CHECK(window(call, self.as.string, args + 1, &part, &possible));
    if (args[0].kind == TRMI_V_TUPLE) {
        list = args[0];
    } else {
        TRM_CHECK(want_string(r, call, args[0]));
        TRM_CHECK(trmi_make_list(r, TRMI_V_TUPLE, &list));
        TRM_CHECK(trmi_list_push(r, list.as.list, args[0]));
    }
    for (size_t i = 0; i < list.as.list->count && !yes; i++) {
        const trmi_string *what = list.as.list->items[i].as.string;

        TRM_CHECK(want_string(r, call, list.as.list->items[i]));
        yes = possible && what->bytes <= part.bytes &&
              (what->bytes == 0 || memcmp(part.data + (front ? 0 : part.bytes - what->bytes),
                                          what->data, what->bytes) == 0);
    }
    *out = trmi_bool(yes);
    return TRM_OK;
}

static trm_status startswith(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return affix(r, self, call, true, out);
}

static trm_status endswith(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return affix(r, self, call, false, out);
}

static trm_status search(trmi_run *r, trmi_value self, const trmi_call *call, bool last, bool must,
                         trmi_value *out)
{
    trmi_value args[3];
    trmi_string part, before;
    const char *hit = NULL;
    bool possible = false;

    TRM_CHECK(trmi_template_bind(r, call, "sub start end", 1, args));
    TRM_CHECK(want_string(r, call, args[0]));
    TRM_CHECK(window(call, self.as.string, args + 1, &part, &possible));
    TRM_CHECK(trmi_charge(r, part.bytes / 8));
    if (possible)
        hit = (last ? find_last : find_first)(part.data, part.bytes, args[0].as.string->data,
                                              args[0].as.string->bytes);
    if (hit == NULL && must)
        return trm_fail(TRM_ERR_INVALID_ARG, "substring not found");
    *out = trmi_int(-1);
    if (hit != NULL) {
        before = *self.as.string;
        before.bytes = (size_t)(hit - before.data);
        before.chars = SIZE_MAX;
        *out = trmi_int((int64_t)trmi_chars(&before));
    }
    return TRM_OK;
}

static trm_status find(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return search(r, self, call, false, false, out);
}

static trm_status rfind(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return search(r, self, call, true, false, out);
}

static trm_status index_of(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return search(r, self, call, false, true, out);
}

static trm_status rindex_of(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return search(r, self, call, true, true, out);
}

static trm_status count(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    trmi_value args[3];
    trmi_string part;
    const trmi_string *what;
    bool possible = false;
    int64_t n = 0;

    TRM_CHECK(trmi_template_bind(r, call, "sub start end", 1, args));
    TRM_CHECK(want_string(r, call, args[0]));
    TRM_CHECK(window(call, self.as.string, args + 1, &part, &possible));
    TRM_CHECK(trmi_charge(r, part.bytes / 8));
    what = args[0].as.string;
    part.chars = SIZE_MAX;
    if (possible && what->bytes == 0)
        n = (int64_t)trmi_chars(&part) + 1;
    for (size_t at = 0; possible && what->bytes > 0; n++) {
        const char *hit = find_first(part.data + at, part.bytes - at, what->data, what->bytes);

        if (hit == NULL)
            break;
        at = (size_t)(hit - part.data) + what->bytes;
    }
    *out = trmi_int(n);
    return TRM_OK;
}

static trm_status replace_in(trmi_run *r, const trmi_string *s, const trmi_string *old,
                             const trmi_string *with, int64_t max, trmi_output *to)
{
    size_t from = 0, at = 0;

    while (max != 0 && at <= s->bytes) {
        size_t n = old->bytes;
        const char *hit = find_first(s->data + at, s->bytes - at, old->data, old->bytes);

        if (hit == NULL)
            break;
        max--;
        TRM_CHECK(trmi_append(r, to, s->data + from, (size_t)(hit - s->data) - from));
        TRM_CHECK(trmi_append(r, to, with->data, with->bytes));
        from = (size_t)(hit - s->data) + n;
        at = from;
        if (n == 0) { /* between all code points */
            if (at == s->bytes)
                break;
            (void)trmi_decode(s->data + at, s->bytes - at, &n);
            at += n;
        }
    }
    return trmi_append(r, to, s->data + from, s->bytes - from);
}

static trm_status replace(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    trmi_output to = {NULL, 0, 0};
    trmi_value args[3];
    int64_t max;

    TRM_CHECK(trmi_template_bind(r, call, "old new count", 2, args));
    TRM_CHECK(want_string(r, call, args[0]));
    TRM_CHECK(want_string(r, call, args[1]));
    TRM_CHECK(want_int(call, args[2], -1, &max));
    TRM_CHECK(trmi_charge(r, self.as.string->bytes / 16));
    return trmi_take(
        r, replace_in(r, self.as.string, args[0].as.string, args[1].as.string, max, &to), &to, out);
}

static trm_status join(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    trmi_output to = {NULL, 0, 0};
    trmi_value of, list;
    trm_status st = TRM_OK;

    TRM_CHECK(trmi_template_bind(r, call, "iterable", 1, &of));
    TRM_CHECK(trmi_to_list(r, of, TRMI_V_LIST, &list));
    for (size_t i = 0; i < list.as.list->count && st == TRM_OK; i++) {
        trmi_value item = list.as.list->items[i];

        if (i > 0)
            st = trmi_append(r, &to, self.as.string->data, self.as.string->bytes);
        if (st == TRM_OK)
            st = want_string(r, call, item);
        if (st == TRM_OK)
            st = trmi_append(r, &to, item.as.string->data, item.as.string->bytes);
    }
    return trmi_take(r, st, &to, out);
}

static trm_status partition_at(trmi_run *r, trmi_value self, const trmi_call *call, bool last,
                               trmi_value *out)
{
    const trmi_string *s = self.as.string;
    const char *hit;
    trmi_value separator;
    size_t at, end;

    TRM_CHECK(trmi_template_bind(r, call, "sep", 1, &separator));
    TRM_CHECK(want_string(r, call, separator));
    if (separator.as.string->bytes == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "empty separator");
    TRM_CHECK(trmi_charge(r, s->bytes / 8));
    hit = (last ? find_last : find_first)(s->data, s->bytes, separator.as.string->data,
                                          separator.as.string->bytes);
    at = hit != NULL ? (size_t)(hit - s->data) : last ? 0 : s->bytes;
    end = hit != NULL ? at + separator.as.string->bytes : at;
    TRM_CHECK(trmi_make_list(r, TRMI_V_TUPLE, out));
    TRM_CHECK(push_piece(r, out->as.list, s, 0, at));
    TRM_CHECK(push_piece(r, out->as.list, s, at, end));
    return push_piece(r, out->as.list, s, end, s->bytes);
}

static trm_status partition(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return partition_at(r, self, call, false, out);
}

static trm_status rpartition(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return partition_at(r, self, call, true, out);
}

static trm_status remove_affix(trmi_run *r, trmi_value self, const trmi_call *call, bool front,
                               trmi_value *out)
{
    const trmi_string *s = self.as.string;
    trmi_value what, has = trmi_bool(false);
    size_t n;

    TRM_CHECK(trmi_template_bind(r, call, "affix", 1, &what));
    TRM_CHECK(want_string(r, call, what));
    TRM_CHECK(affix(r, self, call, front, &has));
    n = has.as.truth ? what.as.string->bytes : 0;
    return front ? piece(r, s, n, s->bytes, out) : piece(r, s, 0, s->bytes - n, out);
}

static trm_status removeprefix(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return remove_affix(r, self, call, true, out);
}

static trm_status removesuffix(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return remove_affix(r, self, call, false, out);
}

const trmi_function trmi_methods_string[] = {
    {"strip", strip},
    {"lstrip", lstrip},
    {"rstrip", rstrip},
    {"split", split},
    {"rsplit", rsplit},
    {"splitlines", splitlines},
    {"startswith", startswith},
    {"endswith", endswith},
    {"find", find},
    {"rfind", rfind},
    {"index", index_of},
    {"rindex", rindex_of},
    {"count", count},
    {"replace", replace},
    {"join", join},
    {"partition", partition},
    {"rpartition", rpartition},
    {"removeprefix", removeprefix},
    {"removesuffix", removesuffix},
    {NULL, NULL},
};
