/* Cutting lists out of a body: see lists.h. This looks at strings and brackets only; whether what
 * is left is JSON is found by the parser, and whether a list is one when it is read. */
#include "coordinator/gateway/lists.h"

#include "coordinator/gateway/text.h"

#include <stdio.h>
#include <string.h>

struct cutter {
    const char *p, *end, *from; /* from: what has not been copied yet begins here */
    trmi_lists_where where;
    char open[TRMI_LISTS_DEPTH];
    int depth;
    bool inputs_key; /* the last key of the outer object was "inputs" */
    bool in_inputs;  /* inside its list */
    trmi_lists out;
    trm_arena *arena;
    trmi_text rest;
};

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
        p++;
    return p;
}

/* Behind the closing quote of a string whose first byte is p; NULL: it does not end. */
static const char *string_end(const char *p, const char *end)
{
    while (p < end && *p != '"') {
        if (*p == '\\' && p + 1 < end)
            p++;
        p++;
    }
    return p < end ? p + 1 : NULL;
}

/* Behind the bracket that closes the one at p; NULL: there is none. */
static const char *list_end(const char *p, const char *end)
{
    int64_t depth = 0;

    while (p < end) {
        if (*p == '"') {
            p = string_end(p + 1, end);
            if (p == NULL)
                return NULL;
            continue;
        }
        if (*p == '[')
            depth++;
        else if (*p == ']' && --depth == 0)
            return p + 1;
        p++;
    }
    return NULL;
}

static trm_status cut_one(struct cutter *c)
{
    const char *last = list_end(c->p, c->end);
    trmi_list *list;
    char number[16];

    if (last == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "the body is not JSON: a list does not end");
    if (c->out.count == TRMI_LISTS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "more than %d tensors", TRMI_LISTS_MAX);
    if (c->out.lists == NULL) {
        c->out.lists = trm_arena_alloc(c->arena, TRMI_LISTS_MAX, sizeof(*c->out.lists));
        if (c->out.lists == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "lists of a body");
    }
    list = &c->out.lists[c->out.count];
    list->begin = c->p;
    list->end = last;
    c->out.bytes += (size_t)(last - c->p);
    trmi_text_add(&c->rest, c->from, (size_t)(c->p - c->from));
    snprintf(number, sizeof(number), "%d", c->out.count++);
    trmi_text_put(&c->rest, number);
    c->p = c->from = last;
    return TRM_OK;
}

static bool is_key(const char *p, const char *last, const char *key)
{
    size_t n = strlen(key);

    return (size_t)(last - p) == n + 2 && memcmp(p + 1, key, n) == 0;
}

/* At a quote. */
static trm_status string(struct cutter *c)
{
    const char *first = c->p, *last = string_end(first + 1, c->end), *next;
    bool wanted;

    if (last == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "the body is not JSON: a string does not end");
    c->p = last;
    next = skip_space(last, c->end);
    if (next == c->end || *next != ':' || c->depth == 0 || c->open[c->depth - 1] != '{')
        return TRM_OK;
    c->p = skip_space(next + 1, c->end);
    if (c->depth == 1)
        c->inputs_key = is_key(first, last, "inputs");
    if (c->where == TRMI_LISTS_INPUTS)
        wanted = c->depth == 3 && c->in_inputs && is_key(first, last, "data");
    else
        wanted = c->depth == 1 && (is_key(first, last, "data") || is_key(first, last, "instances"));
    return wanted && c->p < c->end && *c->p == '[' ? cut_one(c) : TRM_OK;
}

static trm_status scan(struct cutter *c)
{
    while (c->p < c->end) {
        char byte = *c->p;

        if (byte == '"') {
            TRM_CHECK(string(c));
            continue;
        }
        if (byte == '{' || byte == '[') {
            if (c->depth == TRMI_LISTS_DEPTH)
                return trm_fail(TRM_ERR_INVALID_ARG, "the body is nested more than %d deep",
                                TRMI_LISTS_DEPTH);
            c->open[c->depth++] = byte;
            if (c->depth == 2)
                c->in_inputs = byte == '[' && c->inputs_key;
        } else if ((byte == '}' || byte == ']') && c->depth > 0) {
            c->depth--;
        }
        c->p++;
        if (c->rest.bytes + (size_t)(c->p - c->from) > TRMI_LISTS_REST_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG, "over %zu bytes of JSON beside the tensors' data",
                            TRMI_LISTS_REST_MAX);
    }
    trmi_text_add(&c->rest, c->from, (size_t)(c->p - c->from));
    return c->rest.failed ? trm_fail(TRM_ERR_NO_MEMORY, "a body's JSON") : TRM_OK;
}

trm_status trmi_lists_cut(const char *body, size_t bytes, trmi_lists_where where, trm_arena *arena,
                          trmi_lists *lists_out)
{
    struct cutter c = {
        .p = body, .end = body + bytes, .from = body, .where = where, .arena = arena};
    json_error_t error;
    trm_status st;

    st = scan(&c);
    if (st == TRM_OK && c.rest.bytes > TRMI_LISTS_REST_MAX)
        st = trm_fail(TRM_ERR_INVALID_ARG, "over %zu bytes of JSON beside the tensors' data",
                      TRMI_LISTS_REST_MAX);
    if (st == TRM_OK) {
        c.out.root = json_loadb(c.rest.data == NULL ? "" : c.rest.data, c.rest.bytes,
                                JSON_REJECT_DUPLICATES, &error);
        if (c.out.root == NULL)
            st = trm_fail(TRM_ERR_INVALID_ARG, "the body is not JSON: %.200s", error.text);
        else if (!json_is_object(c.out.root))
            st = trm_fail(TRM_ERR_INVALID_ARG, "the body is no JSON object");
    }
    trmi_text_fini(&c.rest);
    if (st != TRM_OK) {
        json_decref(c.out.root);
        return st;
    }
    *lists_out = c.out;
    return TRM_OK;
}

const trmi_list *trmi_lists_of(const trmi_lists *lists, const json_t *value)
{
    json_int_t i;

    if (!json_is_integer(value))
        return NULL;
    i = json_integer_value(value);
    return i >= 0 && i < lists->count ? &lists->lists[i] : NULL;
}
