/* libyaml's events to a tree. Explicit stack, so depth is a limit and not the C stack's end. An
 * anchor is known only when its node is complete: an alias inside itself is an error, so the tree
 * has no cycle, and an alias costs one pointer, so it has no billion laughs either. */
#include "base/config_impl.h"

#include <string.h>
#include <yaml.h>

#define DEPTH_MAX 32
#define NODES_MAX 200000
#define ANCHORS_MAX 256
#define TEXT_BYTES_MAX ((size_t)4 << 20)

typedef struct frame {
    trm_config_node *node;
    const trm_config_node *key; /* of a map: read, its value is awaited */
    const char *anchor;
} frame;

typedef struct builder {
    trm_arena *arena;
    const char *name;
    frame stack[DEPTH_MAX];
    int depth;
    struct {
        const char *name;
        const trm_config_node *node;
    } anchors[ANCHORS_MAX];
    int anchor_count, node_count;
    const trm_config_node *root;
} builder;

static trm_status fail_at(const builder *b, const yaml_mark_t *mark, const char *text)
{
    return trm_fail(TRM_ERR_CONFIG, "%s:%zu:%zu: %s", b->name, mark->line + 1, mark->column + 1,
                    text);
}

static trm_status no_memory(const builder *b)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "%s: configuration", b->name);
}

static trm_status node_new(builder *b, const yaml_event_t *e, trm_config_kind kind,
                           const yaml_char_t *tag, trm_config_node **node_out)
{
    trm_config_node *n;

    if (tag != NULL)
        return fail_at(b, &e->start_mark, "YAML tags ('!...') are not used here");
    if (++b->node_count > NODES_MAX)
        return fail_at(b, &e->start_mark, "too many values in one file");
    n = (trm_config_node *)trm_arena_alloc(b->arena, 1, sizeof(*n));
    if (n == NULL)
        return no_memory(b);
    n->kind = kind;
    n->line = (int)e->start_mark.line + 1;
    n->column = (int)e->start_mark.column + 1;
    *node_out = n;
    return TRM_OK;
}

static trm_status anchor_copy(builder *b, const yaml_char_t *anchor, const char **out)
{
    *out = NULL;
    if (anchor == NULL)
        return TRM_OK;
    *out = trm_arena_strdup(b->arena, (const char *)anchor);
    return *out == NULL ? no_memory(b) : TRM_OK;
}

static trm_status anchor_add(builder *b, const char *anchor, const trm_config_node *node,
                             const yaml_mark_t *mark)
{
    if (anchor == NULL)
        return TRM_OK;
    if (b->anchor_count == ANCHORS_MAX)
        return fail_at(b, mark, "too many anchors in one file");
    b->anchors[b->anchor_count].name = anchor;
    b->anchors[b->anchor_count++].node = node;
    return TRM_OK;
}

/* Puts a complete value where the innermost open collection wants it. */
static trm_status place(builder *b, const trm_config_node *n, const yaml_mark_t *mark)
{
    frame *f;
    trm_config_entry *entry;

    if (b->depth == 0) {
        b->root = n;
        return TRM_OK;
    }
    f = &b->stack[b->depth - 1];
    if (f->node->kind == TRM_CONFIG_KIND_MAP && f->key == NULL) {
        if (n->kind != TRM_CONFIG_KIND_SCALAR)
            return fail_at(b, mark, "a key must be a plain word");
        for (const trm_config_entry *e = f->node->first; e != NULL; e = e->next)
            if (strcmp(e->key->text, n->text) == 0)
                return trm_fail(TRM_ERR_CONFIG,
                                "%s:%zu:%zu: key '%s' is given twice, first in line %d", b->name,
                                mark->line + 1, mark->column + 1, n->text, e->key->line);
        f->key = n;
        return TRM_OK;
    }
    entry = (trm_config_entry *)trm_arena_alloc(b->arena, 1, sizeof(*entry));
    if (entry == NULL)
        return no_memory(b);
    entry->key = f->key;
    entry->value = n;
    f->key = NULL;
    if (f->node->last == NULL)
        f->node->first = entry;
    else
        f->node->last->next = entry;
    f->node->last = entry;
    f->node->count++;
    return TRM_OK;
}

static trm_status open_collection(builder *b, const yaml_event_t *e, trm_config_kind kind,
                                  const yaml_char_t *anchor, const yaml_char_t *tag)
{
    trm_config_node *n = NULL;
    frame *f;

    if (b->depth == DEPTH_MAX)
        return fail_at(b, &e->start_mark, "nested too deeply");
    TRM_CHECK(node_new(b, e, kind, tag, &n));
    if (b->depth > 0 && b->stack[b->depth - 1].node->kind == TRM_CONFIG_KIND_MAP &&
        b->stack[b->depth - 1].key == NULL)
        return fail_at(b, &e->start_mark, "a key must be a plain word");
    f = &b->stack[b->depth++];
    f->node = n;
    f->key = NULL;
    return anchor_copy(b, anchor, &f->anchor);
}

static trm_status take_scalar(builder *b, const yaml_event_t *e)
{
    trm_config_node *n = NULL;
    const char *anchor;

    TRM_CHECK(node_new(b, e, TRM_CONFIG_KIND_SCALAR, e->data.scalar.tag, &n));
    n->text =
        trm_arena_strndup(b->arena, (const char *)e->data.scalar.value, e->data.scalar.length);
    if (n->text == NULL)
        return no_memory(b);
    if (memchr(e->data.scalar.value, '\0', e->data.scalar.length) != NULL)
        return fail_at(b, &e->start_mark, "a zero byte inside a value");
    n->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    TRM_CHECK(anchor_copy(b, e->data.scalar.anchor, &anchor));
    TRM_CHECK(anchor_add(b, anchor, n, &e->start_mark));
    return place(b, n, &e->start_mark);
}

static trm_status take_alias(builder *b, const yaml_event_t *e)
{
    for (int i = b->anchor_count - 1; i >= 0; i--) /* the last one of a name counts */
        if (strcmp(b->anchors[i].name, (const char *)e->data.alias.anchor) == 0)
            return place(b, b->anchors[i].node, &e->start_mark);
    return trm_fail(TRM_ERR_CONFIG, "%s:%zu:%zu: '*%s' refers to no complete '&%s' before it",
                    b->name, e->start_mark.line + 1, e->start_mark.column + 1,
                    (const char *)e->data.alias.anchor, (const char *)e->data.alias.anchor);
}

static trm_status take_event(builder *b, const yaml_event_t *e)
{
    frame f;

    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        return b->root == NULL ? TRM_OK
                               : fail_at(b, &e->start_mark, "a second document in one file");
    case YAML_SCALAR_EVENT:
        return take_scalar(b, e);
    case YAML_ALIAS_EVENT:
        return take_alias(b, e);
    case YAML_SEQUENCE_START_EVENT:
        return open_collection(b, e, TRM_CONFIG_KIND_LIST, e->data.sequence_start.anchor,
                               e->data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
        return open_collection(b, e, TRM_CONFIG_KIND_MAP, e->data.mapping_start.anchor,
                               e->data.mapping_start.tag);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        f = b->stack[--b->depth];
        TRM_CHECK(anchor_add(b, f.anchor, f.node, &e->start_mark));
        return place(b, f.node, &e->start_mark);
    default:
        return TRM_OK;
    }
}

trm_status trmi_config_tree(const char *text, size_t bytes, const char *name, trm_arena *arena,
                            const trm_config_node **root_out)
{
    yaml_parser_t parser;
    builder *b;
    trm_status st = TRM_OK;
    bool done = false;

    if (bytes > TEXT_BYTES_MAX)
        return trm_fail(TRM_ERR_CONFIG, "%s: %zu bytes; a configuration has at most %zu", name,
                        bytes, TEXT_BYTES_MAX);
    b = (builder *)trm_arena_alloc(arena, 1, sizeof(*b));
    if (b == NULL || !yaml_parser_initialize(&parser))
        return trm_fail(TRM_ERR_NO_MEMORY, "%s: configuration", name);
    b->arena = arena;
    b->name = name;
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
    while (!done && st == TRM_OK) {
        yaml_event_t e;

        if (!yaml_parser_parse(&parser, &e)) {
            st = trm_fail(TRM_ERR_CONFIG, "%s:%zu:%zu: %s%s%s", name, parser.problem_mark.line + 1,
                          parser.problem_mark.column + 1,
                          parser.problem == NULL ? "not YAML" : parser.problem,
                          parser.context == NULL ? "" : " ",
                          parser.context == NULL ? "" : parser.context);
            break;
        }
        done = e.type == YAML_STREAM_END_EVENT;
        st = take_event(b, &e);
        yaml_event_delete(&e);
    }
    yaml_parser_delete(&parser);
    if (st != TRM_OK)
        return st;
    if (b->root == NULL || (b->root->kind == TRM_CONFIG_KIND_SCALAR && b->root->text[0] == '\0')) {
        trm_config_node *empty = (trm_config_node *)trm_arena_alloc(arena, 1, sizeof(*empty));

        if (empty == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "%s: configuration", name);
        empty->kind = TRM_CONFIG_KIND_MAP;
        empty->line = empty->column = 1;
        b->root = empty;
    }
    *root_out = b->root;
    return TRM_OK;
}
