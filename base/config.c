/* Binding a parsed file to the structs of its section tables. */
#include "base/config_impl.h"
#include "base/file.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Aliases may make a small file stand for many values; tables nest at most this deep. */
#define VALUES_MAX 1000000
#define SECTION_DEPTH_MAX 16
#define ROWS_MAX 64

struct trm_config {
    trm_arena *arena;
    const char *name;
    const trm_config_node *root;
    void *value;
    int values, depth; /* bound so far; open sections */
};

static trm_status bad(const trm_config *c, const trm_config_node *n, const char *fmt, ...)
    TRM_PRINTF(3, 4);
static trm_status bad(const trm_config *c, const trm_config_node *n, const char *fmt, ...)
{
    char text[768];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return trm_fail(TRM_ERR_CONFIG, "%s:%d:%d: %s", c->name, n->line, n->column, text);
}

static const char *kind_text(const trm_config_node *n)
{
    return n->kind == TRM_CONFIG_KIND_MAP    ? "a map"
           : n->kind == TRM_CONFIG_KIND_LIST ? "a list"
                                             : n->text;
}

static const char *type_text(trm_config_type type)
{
    switch (type) {
    case TRM_CONFIG_BOOL:
        return "true or false";
    case TRM_CONFIG_INT:
        return "a whole number";
    case TRM_CONFIG_FLOAT:
        return "a number";
    case TRM_CONFIG_BYTES:
        return "a size such as 4096, 256MiB or 1.5GB";
    case TRM_CONFIG_DURATION:
        return "a duration such as 250us, 5ms or 2s";
    case TRM_CONFIG_MAP:
        return "a map of settings";
    case TRM_CONFIG_LIST:
        return "a list";
    default:
        return "text";
    }
}

static size_t field_bytes(trm_config_type type, const trm_config_section *section)
{
    switch (type) {
    case TRM_CONFIG_BOOL:
        return sizeof(bool);
    case TRM_CONFIG_CHOICE:
        return sizeof(int);
    case TRM_CONFIG_STRING:
    case TRM_CONFIG_NODE:
        return sizeof(void *);
    case TRM_CONFIG_MAP:
        return section->struct_bytes;
    default:
        return 8;
    }
}

/* Index of `text` in "a|b|c", or -1. */
static int choice_index(const char *choices, const char *text)
{
    size_t n = strlen(text);
    int i = 0;

    for (const char *p = choices; p != NULL; i++) {
        const char *bar = strchr(p, '|');
        size_t m = bar == NULL ? strlen(p) : (size_t)(bar - p);

        if (m == n && memcmp(p, text, n) == 0)
            return i;
        p = bar == NULL ? NULL : bar + 1;
    }
    return -1;
}

static bool parse_int(const char *text, int64_t *out)
{
    char *end;
    long long v;

    if (text[0] == '\0' || text[0] == ' ' || text[0] == '\t')
        return false;
    errno = 0;
    v = strtoll(text, &end, 10);
    *out = v;
    return errno == 0 && *end == '\0' && end != text;
}

static bool parse_float(const char *text, double *out)
{
    char *end;

    if (text[0] == '\0' || strspn(text, "+-.0123456789eE") != strlen(text))
        return false; /* hexadecimal, inf and nan are not meant */
    *out = strtod(text, &end);
    return *end == '\0' && end != text && isfinite(*out);
}

typedef struct scalar_rule {
    const char *name; /* key, for messages */
    trm_config_type type;
    double min, max;
    const char *choices;
} scalar_rule;

static trm_status check_range(const trm_config *c, const trm_config_node *n, const scalar_rule *r,
                              double v)
{
    if ((r->min == 0 && r->max == 0) || (v >= r->min && v <= r->max))
        return TRM_OK;
    return bad(c, n, "key '%s' is %s; right is %.10g to %.10g%s", r->name, n->text, r->min, r->max,
               r->type == TRM_CONFIG_DURATION ? " microseconds"
               : r->type == TRM_CONFIG_BYTES  ? " bytes"
                                              : "");
}

static trm_status bind_scalar(const trm_config *c, const trm_config_node *n, const scalar_rule *r,
                              void *field)
{
    const char *t = n->text;
    bool ok = n->kind == TRM_CONFIG_KIND_SCALAR;
    int64_t i = 0;
    double d = 0;
    int word;

    /* `key:` with nothing behind it, and null, are no value */
    if (ok && !n->quoted && (t[0] == '\0' || strcmp(t, "~") == 0 || strcmp(t, "null") == 0))
        return bad(c, n, "key '%s' has no value; right is %s%s", r->name,
                   r->type == TRM_CONFIG_CHOICE ? "one of " : type_text(r->type),
                   r->type == TRM_CONFIG_CHOICE ? r->choices : "");
    if (r->type == TRM_CONFIG_STRING && ok) {
        memcpy(field, &t, sizeof(t));
        return TRM_OK;
    }
    word = ok && r->choices != NULL ? choice_index(r->choices, t) : -1;
    if (r->type == TRM_CONFIG_CHOICE) {
        if (word < 0)
            return bad(c, n, "key '%s' is %s; right is one of %s", r->name, kind_text(n),
                       r->choices);
        memcpy(field, &word, sizeof(word));
        return TRM_OK;
    }
    if (word >= 0) { /* "auto" in place of a number */
        i = -1 - word;
        memcpy(field, &i, sizeof(i));
        return TRM_OK;
    }
    /* a size or a duration has a unit: quotes, which JSON has around it, make it nothing else */
    ok = ok && (!n->quoted || r->type == TRM_CONFIG_BYTES || r->type == TRM_CONFIG_DURATION);
    switch (r->type) {
    case TRM_CONFIG_BOOL: {
        bool b = ok && (strcmp(t, "true") == 0 || strcmp(t, "True") == 0);

        ok = ok && (b || strcmp(t, "false") == 0 || strcmp(t, "False") == 0);
        if (ok)
            memcpy(field, &b, sizeof(b));
        break;
    }
    case TRM_CONFIG_FLOAT:
        ok = ok && parse_float(t, &d);
        if (ok)
            memcpy(field, &d, sizeof(d));
        break;
    case TRM_CONFIG_INT:
        ok = ok && parse_int(t, &i);
        break;
    case TRM_CONFIG_BYTES:
        ok = ok && trmi_config_bytes(t, &i);
        break;
    case TRM_CONFIG_DURATION:
        ok = ok && trmi_config_duration(t, &i);
        break;
    default:
        ok = false;
    }
    if (!ok)
        return bad(c, n, "key '%s' is %s%s%s; right is %s%s%s", r->name,
                   n->kind == TRM_CONFIG_KIND_SCALAR ? "'" : "", kind_text(n),
                   n->kind == TRM_CONFIG_KIND_SCALAR ? "'" : "", type_text(r->type),
                   r->choices != NULL ? ", or " : "", r->choices != NULL ? r->choices : "");
    if (r->type == TRM_CONFIG_BOOL)
        return TRM_OK;
    if (r->type != TRM_CONFIG_FLOAT) {
        memcpy(field, &i, sizeof(i));
        d = (double)i;
    }
    return check_range(c, n, r, d);
}

static trm_status bind_section(trm_config *c, const trm_config_node *n,
                               const trm_config_section *section, const char *key, void *out);

static trm_status bind_list(trm_config *c, const trm_config_node *n, const trm_config_row *row,
                            trm_config_list *list)
{
    scalar_rule rule = {row->name, row->item, row->item_min, row->item_max, row->choices};
    size_t bytes = field_bytes(row->item, row->section);
    bool one = n->kind != TRM_CONFIG_KIND_LIST;
    int count = one ? 1 : n->count;
    const trm_config_entry *e = n->first;
    unsigned char *items;

    if (one && ((row->flags & TRM_CONFIG_ONE_OK) == 0 || n->kind != TRM_CONFIG_KIND_SCALAR))
        return bad(c, n, "key '%s' is %s; right is a list", row->name, kind_text(n));
    if ((row->min != 0 || row->max != 0) && (count < row->min || count > row->max))
        return bad(c, n, "key '%s' has %d items; right is %.0f to %.0f", row->name, count, row->min,
                   row->max);
    if (count > VALUES_MAX - c->values)
        return bad(c, n, "too many values");
    c->values += count;
    items = (unsigned char *)trm_arena_alloc(c->arena, (size_t)count, bytes);
    if (items == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%s: configuration", c->name);
    for (int i = 0; i < count; i++) {
        const trm_config_node *item = one ? n : e->value;

        if (row->item == TRM_CONFIG_MAP)
            TRM_CHECK(bind_section(c, item, row->section, row->name, items + bytes * (size_t)i));
        else
            TRM_CHECK(bind_scalar(c, item, &rule, items + bytes * (size_t)i));
        e = one ? NULL : e->next;
    }
    list->items = items;
    list->count = count;
    return TRM_OK;
}

static trm_status bind_row(trm_config *c, const trm_config_node *n, const trm_config_row *row,
                           void *field)
{
    scalar_rule rule = {row->name, row->type, row->min, row->max, row->choices};

    switch (row->type) {
    case TRM_CONFIG_NODE:
        memcpy(field, &n, sizeof(n));
        return TRM_OK;
    case TRM_CONFIG_LIST:
        return bind_list(c, n, row, (trm_config_list *)field);
    case TRM_CONFIG_MAP: {
        void *s = trm_arena_alloc(c->arena, 1, row->section->struct_bytes);

        if (s == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "%s: configuration", c->name);
        memcpy(field, &s, sizeof(s));
        return bind_section(c, n, row->section, row->name, s);
    }
    default:
        return bind_scalar(c, n, &rule, field);
    }
}

/* What an absent key gives. Defaults go through the same code as values, at the section's place. */
static trm_status bind_absent(trm_config *c, const trm_config_node *n, const trm_config_row *row,
                              const trm_config_section *section, void *field)
{
    trm_config_node d = {
        TRM_CONFIG_KIND_SCALAR, n->line, n->column, row->otherwise, false, 0, NULL, NULL};

    if ((row->flags & TRM_CONFIG_REQUIRED) != 0)
        return bad(c, n, "%s lacks key '%s': %s", section->name, row->name, row->help);
    if (row->type == TRM_CONFIG_MAP && (row->flags & TRM_CONFIG_OPTIONAL) == 0) {
        d.kind = TRM_CONFIG_KIND_MAP;
        return bind_row(c, &d, row, field);
    }
    return row->otherwise == NULL ? TRM_OK : bind_row(c, &d, row, field);
}

static trm_status unknown_key(const trm_config *c, const trm_config_node *key,
                              const trm_config_section *section)
{
    const char *names[ROWS_MAX], *near;
    char known[512] = "";
    size_t at = 0;
    int count = section->row_count < ROWS_MAX ? section->row_count : ROWS_MAX;

    for (int i = 0; i < count; i++) {
        names[i] = section->rows[i].name;
        if (at < sizeof(known))
            at += (size_t)snprintf(known + at, sizeof(known) - at, "%s%s", i > 0 ? ", " : "",
                                   names[i]);
    }
    near = trm_config_nearest(key->text, names, count);
    return bad(c, key, "key '%.100s' unknown in %s; %s%s%sknown: %s", key->text, section->name,
               near != NULL ? "did you mean '" : "", near != NULL ? near : "",
               near != NULL ? "'? " : "", known);
}

static trm_status bind_section(trm_config *c, const trm_config_node *n,
                               const trm_config_section *section, const char *key, void *out)
{
    unsigned char *fields = (unsigned char *)out;

    if (n->kind != TRM_CONFIG_KIND_MAP) {
        /* `section:` with nothing behind it is a section of defaults */
        if (n->kind != TRM_CONFIG_KIND_SCALAR || n->quoted || n->text[0] != '\0')
            return bad(c, n, "%s%s%s is %s; right is a map of settings", key != NULL ? "key '" : "",
                       key != NULL ? key : section->name, key != NULL ? "'" : "", kind_text(n));
    }
    if (c->depth == SECTION_DEPTH_MAX)
        return bad(c, n, "nested too deeply");
    if ((c->values += section->row_count) > VALUES_MAX)
        return bad(c, n, "too many values");
    c->depth++;
    for (const trm_config_entry *e = n->first; e != NULL; e = e->next) {
        bool found = false;

        for (int i = 0; i < section->row_count && !found; i++)
            found = strcmp(section->rows[i].name, e->key->text) == 0;
        if (!found)
            return unknown_key(c, e->key, section);
    }
    for (int i = 0; i < section->row_count; i++) {
        const trm_config_row *row = &section->rows[i];
        const trm_config_entry *e = n->first;

        while (e != NULL && strcmp(row->name, e->key->text) != 0)
            e = e->next;
        if (e != NULL)
            TRM_CHECK(bind_row(c, e->value, row, fields + row->offset));
        else
            TRM_CHECK(bind_absent(c, n, row, section, fields + row->offset));
    }
    c->depth--;
    return TRM_OK;
}

trm_status trm_config_parse(const char *text, size_t bytes, const char *name,
                            const trm_config_section *section, trm_config **config_out)
{
    trm_config *c = (trm_config *)trm_calloc(1, sizeof(*c));
    trm_status st;

    if (c == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%s: configuration", name);
    TRM_TRY(st, trm_arena_create(0, &c->arena), fail);
    c->name = trm_arena_strdup(c->arena, name);
    c->value = trm_arena_alloc(c->arena, 1, section->struct_bytes);
    if (c->name == NULL || c->value == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "%s: configuration", name);
        goto fail;
    }
    TRM_TRY(st, trmi_config_tree(text, bytes, c->name, c->arena, &c->root), fail);
    TRM_TRY(st, bind_section(c, c->root, section, NULL, c->value), fail);
    *config_out = c;
    return TRM_OK;
fail:
    trm_config_destroy(c);
    return st;
}

trm_status trm_config_load(const char *path, const trm_config_section *section,
                           trm_config **config_out)
{
    trm_file *file;
    trm_status st;

    TRM_CHECK(trm_file_open(path, &file));
    st = trm_config_parse((const char *)trm_file_data(file), trm_file_bytes(file), path, section,
                          config_out);
    trm_file_unref(file);
    return st;
}

void trm_config_destroy(trm_config *config)
{
    if (config == NULL)
        return;
    trm_arena_destroy(config->arena);
    trm_free(config);
}

const void *trm_config_get(const trm_config *config)
{
    return config->value;
}

/* Walks `path` as far as it goes; the last node reached, and whether that was all of it. */
static const trm_config_node *walk(const trm_config *config, const char *path, bool *whole)
{
    const trm_config_node *n = config->root;

    *whole = false;
    while (*path != '\0') {
        size_t m = strcspn(path, ".");
        const trm_config_entry *e = n->first;
        long index = strtol(path, NULL, 10);

        for (long i = 0; e != NULL; e = e->next, i++)
            if (n->kind == TRM_CONFIG_KIND_LIST
                    ? i == index
                    : strlen(e->key->text) == m && memcmp(e->key->text, path, m) == 0)
                break;
        if (e == NULL)
            return n;
        n = e->value;
        path += m + (path[m] == '.');
    }
    *whole = true;
    return n;
}

const trm_config_node *trm_config_find(const trm_config *config, const char *path)
{
    bool whole;
    const trm_config_node *n = walk(config, path, &whole);

    return whole ? n : NULL;
}

trm_status trm_config_fail(const trm_config *config, const char *path, const char *fmt, ...)
{
    bool whole;
    const trm_config_node *n = walk(config, path, &whole);
    char text[768];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return bad(config, n, "%s", text);
}
