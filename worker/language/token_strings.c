/* What a vocabulary's tokens are within a JSON string: which stay in it and how many characters
 * they begin, and where they end it. The same for all grammars, found once a vocabulary by the
 * grammar of any string; strings with lengths then need no walk of their own at every character. */
#include "worker/language/grammar_impl.h"

#include <inttypes.h>
#include <string.h>

struct counting {
    trm_token_trie *t;
    trmi_automaton *a;
    uint32_t inside; /* the state between two characters */
    int32_t *begun;  /* [vocabulary] characters; 0: not within a string */
    size_t end_room;
};

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "what tokens are in strings");
}

static trm_status add_end(struct counting *c, uint32_t at, int32_t chars)
{
    trmi_strings *s = &c->t->strings;

    if (s->end_count == c->end_room) {
        size_t room = c->end_room == 0 ? 256 : c->end_room * 2;
        trmi_counted *grown = trm_realloc(s->ends, room, sizeof(*grown));

        if (grown == NULL)
            return no_memory();
        s->ends = grown;
        c->end_room = room;
    }
    s->ends[s->end_count++] = (trmi_counted){at, chars};
    return TRM_OK;
}

/* All of the trie, from within a string. */
static trm_status count_chars(struct counting *c)
{
    const trm_token_trie *t = c->t;
    int32_t chars[TRMI_TOKEN_BYTES_MAX + 1] = {0};

    c->a->stack[0] = c->inside;
    for (uint32_t i = 0; i < t->count;) {
        const trmi_trie_at *n = &t->nodes[i];
        uint32_t next;

        TRM_CHECK(trmi_automaton_next(c->a, c->a->stack[n->depth - 1], n->byte, &next));
        if (next == TRMI_DEAD) {
            i = n->end;
            continue;
        }
        if (c->a->states[next].accepting) {
            TRM_CHECK(add_end(c, i, chars[n->depth - 1]));
            i = n->end;
            continue;
        }
        c->a->stack[n->depth] = next;
        chars[n->depth] = chars[n->depth - 1] + (next == c->inside);
        for (uint32_t k = n->tokens; k < t->nodes[i + 1].tokens; k++)
            c->begun[t->ids[k]] = chars[n->depth] + (next != c->inside);
        i++;
    }
    return TRM_OK;
}

static trm_status make_masks(struct counting *c)
{
    trmi_strings *s = &c->t->strings;
    size_t words = ((size_t)c->t->vocabulary + 63) / 64, many = 0;

    for (int64_t i = 0; i < c->t->vocabulary; i++)
        many += c->begun[i] > TRMI_CHARS_MAX;
    s->many = trm_malloc(many + 1, sizeof(*s->many));
    if (s->many == NULL)
        return no_memory();
    for (int k = 0; k <= TRMI_CHARS_MAX; k++) {
        s->at_most[k] = trm_calloc(words, sizeof(**s->at_most));
        if (s->at_most[k] == NULL)
            return no_memory();
    }
    for (int64_t i = 0; i < c->t->vocabulary; i++) {
        if (c->begun[i] > TRMI_CHARS_MAX)
            s->many[s->many_count++] = (trmi_counted){(uint32_t)i, c->begun[i]};
        else if (c->begun[i] > 0)
            s->at_most[c->begun[i]][i / 64] |= 1ULL << (i % 64);
    }
    for (int k = 1; k <= TRMI_CHARS_MAX; k++)
        for (size_t w = 0; w < words; w++)
            s->at_most[k][w] |= s->at_most[k - 1][w];
    return TRM_OK;
}

static trm_status count_with(trm_token_trie *t, const trm_grammar *g)
{
    struct counting c = {.t = t};
    uint32_t start;
    trm_status st;

    TRM_CHECK(trmi_automaton_create(g, t, &c.a));
    c.begun = trm_calloc((size_t)t->vocabulary + 1, sizeof(*c.begun));
    if (c.begun == NULL) {
        st = no_memory();
        goto end;
    }
    TRM_TRY(st, trmi_automaton_begin(c.a), end);
    TRM_TRY(st, trmi_automaton_start(c.a, &start), end);
    TRM_TRY(st, trmi_automaton_next(c.a, start, '"', &c.inside), end);
    TRM_TRY(st, count_chars(&c), end);
    st = make_masks(&c);
end:
    trm_free(c.begun);
    trmi_automaton_destroy(c.a);
    return st;
}

trm_status trmi_strings_init(trm_token_trie *t)
{
    json_t *what = json_pack("{s:s, s:{s:s}}", "type", "json_schema", "schema", "type", "string");
    trm_grammar *g = NULL;
    trm_status st = what == NULL ? no_memory() : trm_grammar_compile(what, &g);

    json_decref(what);
    if (st == TRM_OK)
        st = count_with(t, g);
    trm_grammar_destroy(g);
    return st;
}

void trmi_strings_fini(trmi_strings *s)
{
    for (int k = 0; k <= TRMI_CHARS_MAX; k++)
        trm_free(s->at_most[k]);
    trm_free(s->many);
    trm_free(s->ends);
    memset(s, 0, sizeof(*s));
}
