/* See constraint.h: what a request says becomes rules (the other grammar_*.c), and rules become
 * tables. States from which the end of their rule cannot be reached are known by their `need`: the
 * calls that must at least be opened from there. A text is only led where its stack has room for
 * what is needed, so that it can always be ended. */
#include "worker/language/grammar_impl.h"

#include <string.h>

#define WORK_MAX ((int64_t)100000000)

/* ---- what a request says ---- */

static int put_what(trmi_builder *b, int from, const json_t *what, int depth);

static void compile_rules(trmi_builder *b)
{
    for (; b->st == TRM_OK && b->compiled < b->rule_count; b->compiled++)
        if (b->rules[b->compiled].schema != NULL)
            trmi_schema_compile(b, (int)b->compiled);
    b->path = NULL;
}

static int put_schema(trmi_builder *b, int from, const json_t *schema)
{
    int to = trmi_build_state(b);

    b->root = schema;
    trmi_build_call(b, from, to, trmi_schema_rule(b, schema, ""));
    compile_rules(b);
    return to;
}

static int put_choice(trmi_builder *b, int from, const json_t *choice)
{
    int to = trmi_build_state(b);
    const json_t *v;
    size_t i;

    if (!json_is_array(choice) || json_array_size(choice) == 0 ||
        json_array_size(choice) > TRMI_GRAMMAR_AT_ONCE_MAX) {
        (void)trmi_build_fail(b, TRM_ERR_INVALID_ARG, "'choice': want a list of 1 to %d texts",
                              TRMI_GRAMMAR_AT_ONCE_MAX);
        return 0;
    }
    json_array_foreach(choice, i, v)
    {
        if (!json_is_string(v)) {
            (void)trmi_build_fail(b, TRM_ERR_INVALID_ARG, "'choice'[%zu]: want a string", i);
            return 0;
        }
        trmi_build_jump(b, trmi_put_text(b, from, json_string_value(v), json_string_length(v)), to);
    }
    return to;
}

static int put_optional_text(trmi_builder *b, int from, const json_t *what, const char *key)
{
    const json_t *v = json_object_get(what, key);

    if (v != NULL && !json_is_string(v))
        (void)trmi_build_fail(b, TRM_ERR_INVALID_ARG, "'%s': want a string", key);
    return v == NULL ? from : trmi_put_text(b, from, json_string_value(v), json_string_length(v));
}

static int put_tagged(trmi_builder *b, int from, const json_t *what)
{
    const json_t *schema = json_object_get(what, "schema");

    from = put_optional_text(b, from, what, "begin");
    from = schema == NULL ? trmi_put_any_object(b, from) : put_schema(b, from, schema);
    return put_optional_text(b, from, what, "end");
}

static int put_any_of(trmi_builder *b, int from, const json_t *what, int depth)
{
    const json_t *list = json_object_get(what, "any_of"), *most = json_object_get(what, "most"), *v;
    int64_t times = most == NULL ? 1 : json_integer_value(most);
    int to = trmi_build_state(b), rule;
    size_t i;

    if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > 1024 ||
        times < 1 || times > 1024 || depth > 8) {
        (void)trmi_build_fail(b, TRM_ERR_INVALID_ARG,
                              "'any_of': want a list of 1 to 1024 objects, and 'most' from 1 to "
                              "1024");
        return 0;
    }
    rule = trmi_build_rule_new(b, NULL, NULL);
    json_array_foreach(list, i, v)
    {
        if (b->st != TRM_OK)
            return 0;
        trmi_build_jump(b, put_what(b, b->rules[rule].start, v, depth + 1), b->rules[rule].end);
    }
    for (int64_t n = 0; n < times && b->st == TRM_OK; n++) {
        int next = trmi_build_state(b);

        if (n > 0)
            from = put_optional_text(b, from, what, "separator");
        trmi_build_call(b, from, next, rule);
        trmi_build_jump(b, next, to);
        from = next;
    }
    return to;
}

static int put_what(trmi_builder *b, int from, const json_t *what, int depth)
{
    const char *type = json_string_value(json_object_get(what, "type"));
    const json_t *v;

    if (type != NULL && strcmp(type, "json_object") == 0)
        return trmi_put_any_object(b, from);
    if (type != NULL && strcmp(type, "json_schema") == 0) {
        v = json_object_get(what, "schema");
        if (v == NULL)
            (void)trmi_build_fail(b, TRM_ERR_INVALID_ARG, "'schema' is missing");
        return v == NULL ? 0 : put_schema(b, from, v);
    }
    if (type != NULL && strcmp(type, "choice") == 0)
        return put_choice(b, from, json_object_get(what, "choice"));
    if (type != NULL && strcmp(type, "regex") == 0) {
        v = json_object_get(what, "regex");
        if (!json_is_string(v))
            (void)trmi_build_fail(b, TRM_ERR_INVALID_ARG, "'regex': want a string");
        b->path = "regex";
        return v == NULL ? 0 : trmi_put_regex(b, from, json_string_value(v), true, false, 0, -1);
    }
    if (type != NULL && strcmp(type, "tagged") == 0)
        return put_tagged(b, from, what);
    if (type != NULL && strcmp(type, "any_of") == 0)
        return put_any_of(b, from, what, depth);
    (void)trmi_build_fail(b, TRM_ERR_INVALID_ARG,
                          "'type' of a constraint is '%.40s': want json_object, json_schema, "
                          "choice, regex, tagged or any_of",
                          type != NULL ? type : "");
    return 0;
}

/* ---- tables ---- */

/* A state whose only edge is a jump is what it jumps to. */
static trm_status forward(const trmi_builder *b, int32_t **to_out)
{
    size_t n = (size_t)b->state_count;
    int32_t *to = trm_malloc(n + 1, sizeof(*to)), *edges = trm_calloc(n + 1, sizeof(*edges));

    if (to == NULL || edges == NULL) {
        trm_free(to);
        trm_free(edges);
        return trm_fail(TRM_ERR_NO_MEMORY, "a grammar of %zu states", n);
    }
    for (size_t i = 0; i < n; i++)
        to[i] = -1;
    for (size_t i = 0; i < b->edge_count; i++) {
        const trmi_build_edge *e = &b->edges[i];

        edges[e->from]++;
        if (e->rule == TRMI_JUMP)
            to[e->from] = e->to;
    }
    for (size_t i = 0; i < n; i++)
        if (edges[i] != 1 || to[i] == (int32_t)i)
            to[i] = -1;
    for (size_t i = 0; i < n; i++) { /* follow chains; where they run in a circle: anywhere in it */
        int32_t at = (int32_t)i;

        for (int k = 0; k < 1000 && to[at] >= 0; k++)
            at = to[at];
        edges[i] = at;
    }
    trm_free(to);
    *to_out = edges;
    return TRM_OK;
}

static int order_of(int32_t rule)
{
    return rule == TRMI_JUMP ? 0 : rule == TRMI_BYTES ? 2 : 1;
}

static trm_status make_tables(const trmi_builder *b, const int32_t *to, trm_grammar *g)
{
    uint32_t at = 0;

    g->state_count = (uint32_t)b->state_count;
    g->edge_count = (uint32_t)b->edge_count;
    g->rule_count = (uint32_t)b->rule_count;
    g->states = trm_calloc((size_t)g->state_count + 1, sizeof(*g->states));
    g->edges = trm_calloc((size_t)g->edge_count + 1, sizeof(*g->edges));
    g->rules = trm_calloc((size_t)g->rule_count + 1, sizeof(*g->rules));
    if (g->states == NULL || g->edges == NULL || g->rules == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a grammar of %u states", g->state_count);
    for (size_t i = 0; i < b->edge_count; i++) {
        trmi_state *s = &g->states[b->edges[i].from];

        *(order_of(b->edges[i].rule) == 0   ? &s->jumps
          : order_of(b->edges[i].rule) == 1 ? &s->calls
                                            : &s->bytes) += 1;
    }
    for (uint32_t i = 0; i < g->state_count; i++) {
        g->states[i].first = at;
        at += g->states[i].jumps + g->states[i].calls + g->states[i].bytes;
    }
    for (int pass = 0; pass < 3; pass++) /* `first` runs ahead, and is put back below */
        for (size_t i = 0; i < b->edge_count; i++) {
            const trmi_build_edge *e = &b->edges[i];

            if (order_of(e->rule) == pass)
                g->edges[g->states[e->from].first++] =
                    (trmi_edge){.to = (uint32_t)to[e->to],
                                .rule = e->rule < 0 ? 0 : (uint32_t)e->rule,
                                .lo = e->lo,
                                .hi = e->hi};
        }
    for (uint32_t i = 0; i < g->state_count; i++)
        g->states[i].first -= g->states[i].jumps + g->states[i].calls + g->states[i].bytes;
    for (size_t i = 0; i < b->rule_count; i++) {
        g->rules[i].start = (uint32_t)to[b->rules[i].start];
        g->rules[i].end = (uint32_t)b->rules[i].end;
        g->states[b->rules[i].end].last = true;
    }
    return TRM_OK;
}

static trm_status make_chains(const trmi_builder *b, const int32_t *to, trm_grammar *g)
{
    int rule = trmi_memo_get(b, "char");

    g->char_start = rule < 0 ? UINT32_MAX : g->rules[rule].start;
    g->chains = trm_malloc(b->chain_count + 1, sizeof(*g->chains));
    if (g->chains == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a grammar of %u states", g->state_count);
    for (size_t i = 0; i < b->chain_count; i++) {
        const trmi_build_chain *c = &b->chains[i];

        g->chains[i] = (trmi_chain){(uint32_t)to[c->after], c->least, c->most};
        g->states[c->state].chain = (uint32_t)i + 1;
    }
    g->chain_count = (uint32_t)b->chain_count;
    return TRM_OK;
}

static void make_classes(trm_grammar *g)
{
    bool cut[257] = {false};

    for (uint32_t i = 0; i < g->state_count; i++) {
        const trmi_state *s = &g->states[i];

        for (uint32_t k = s->first + s->jumps + s->calls;
             k < s->first + s->jumps + s->calls + s->bytes; k++) {
            cut[g->edges[k].lo] = true;
            cut[g->edges[k].hi + 1] = true;
        }
    }
    g->class_count = 0;
    for (int c = 0; c < 256; c++) {
        g->class_count += c > 0 && cut[c];
        g->class_of[c] = (uint8_t)g->class_count;
    }
    g->class_count++;
}

static uint16_t need_of(const trm_grammar *g, const trmi_state *s)
{
    uint32_t least = s->last ? 0 : UINT16_MAX;

    for (uint32_t k = 0; k < s->jumps + s->calls + s->bytes; k++) {
        const trmi_edge *e = &g->edges[s->first + k];
        uint32_t need = g->states[e->to].need;

        if (k >= s->jumps && k < s->jumps + s->calls) {
            uint32_t inside = g->states[g->rules[e->rule].start].need;

            /* where nothing follows the stack does not grow */
            inside += inside < UINT16_MAX && !trmi_state_is_end(&g->states[e->to]);
            need = inside > need ? inside : need;
        }
        least = need < least ? need : least;
    }
    return (uint16_t)least;
}

/* The least fixed point. Rules that are called come later than their callers mostly, so that few
 * rounds do; these run both ways. */
static trm_status find_needs(trm_grammar *g)
{
    int64_t work = 0;
    bool changed = true, down = true;

    for (uint32_t i = 0; i < g->state_count; i++)
        g->states[i].need = UINT16_MAX;
    while (changed) {
        changed = false;
        for (uint32_t n = 0; n < g->state_count; n++) {
            trmi_state *s = &g->states[down ? g->state_count - 1 - n : n];
            uint16_t need = need_of(g, s);

            if (need < s->need) {
                s->need = need;
                changed = true;
            }
        }
        down = !down;
        work += g->edge_count + g->state_count;
        if (work > WORK_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED, "the grammar is too intricate");
    }
    if (g->states[g->rules[0].start].need == UINT16_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "the schema allows no value at all");
    if (g->states[g->rules[0].start].need > TRMI_GRAMMAR_STACK_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "the schema's values nest too deep: above %d levels",
                        TRMI_GRAMMAR_STACK_MAX);
    return TRM_OK;
}

static trm_status finish(const trmi_builder *b, trm_grammar *g)
{
    int32_t *to = NULL;
    trm_status st;

    TRM_CHECK(forward(b, &to));
    st = make_tables(b, to, g);
    if (st == TRM_OK)
        st = make_chains(b, to, g);
    trm_free(to);
    if (st != TRM_OK)
        return st;
    make_classes(g);
    return find_needs(g);
}

/* ---- life ---- */

static void fini_builder(trmi_builder *b)
{
    trm_free(b->edges);
    trm_free(b->rules);
    trm_free(b->chains);
    json_decref(b->memo);
    json_decref(b->kept);
    trm_arena_destroy(b->arena);
}

static trm_status compile(trmi_builder *b, const json_t *what, trm_grammar *g)
{
    int root, end;

    TRM_CHECK(trm_arena_create(0, &b->arena));
    b->memo = json_object();
    b->kept = json_array();
    if (b->memo == NULL || b->kept == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a grammar");
    root = trmi_build_rule_new(b, NULL, NULL);
    end = put_what(b, root, what, 0);
    if (b->st != TRM_OK)
        return b->st;
    trmi_build_jump(b, end, b->rules[root].end);
    return b->st != TRM_OK ? b->st : finish(b, g);
}

trm_status trm_grammar_compile(const json_t *what, trm_grammar **grammar_out)
{
    trmi_builder b = {.st = TRM_OK};
    trm_grammar *g;
    trm_status st;
    size_t bytes = json_dumpb(what, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY);

    if (!json_is_object(what) || bytes == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "a constraint: want a JSON object");
    if (bytes > TRMI_GRAMMAR_BYTES_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a schema of %zu bytes: want at most %zu", bytes,
                        TRMI_GRAMMAR_BYTES_MAX);
    g = trm_calloc(1, sizeof(*g));
    if (g == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a grammar");
    st = compile(&b, what, g);
    fini_builder(&b);
    if (st != TRM_OK) {
        trm_grammar_destroy(g);
        return st;
    }
    *grammar_out = g;
    return TRM_OK;
}

void trm_grammar_destroy(trm_grammar *g)
{
    if (g == NULL)
        return;
    trmi_automaton_destroy(g->automaton);
    trm_free(g->states);
    trm_free(g->edges);
    trm_free(g->rules);
    trm_free(g->chains);
    trm_free(g);
}
