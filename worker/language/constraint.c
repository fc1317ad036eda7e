/* Masks, and where one sequence is.
 *
 * A state's configurations are taken a stack at a time. For each, what its topmost rule alone says
 * of the vocabulary does not depend on the stack (XGrammar's tokens that do not depend on the
 * context, Dong et al. 2024): found by one walk over the trie and kept, with the places where the
 * rule ends on the way. Only from these the walk goes on with the stack, over the few tokens that
 * begin so. The whole mask is kept with the state, too. */
#include "worker/language/grammar_impl.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define ENDS_MAX 64
#define LOOPS_LEAST 24 /* nodes below which looking for a jump costs more than walking */

static size_t words_of(const trm_token_trie *t)
{
    return ((size_t)t->vocabulary + 63) / 64;
}

static void allow(uint64_t *mask, const trm_token_trie *t, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++)
        mask[(uint32_t)t->ids[i] / 64] |= 1ULL << ((uint32_t)t->ids[i] % 64);
}

static trm_status add_exit(trmi_exits *x, uint32_t at)
{
    if (x->count == x->room) {
        size_t room = x->room == 0 ? 64 : x->room * 2;
        uint32_t *grown = trm_realloc(x->at, room, sizeof(*grown));

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "a mask");
        x->at = grown;
        x->room = room;
    }
    x->at[x->count++] = at;
    return TRM_OK;
}

static void raise_to(uint32_t *most, uint32_t value)
{
    *most = value > *most ? value : *most;
}

/* What a walk finds. */
struct found {
    uint64_t *mask;
    trmi_exits exits; /* where `exits_wanted` */
    bool exits_wanted;
    uint32_t reach;
};

/* Nodes [from, end), all below one node of depth `depth`, to which `state` belongs. */
static trm_status walk(trmi_automaton *a, uint32_t from, uint32_t end, uint32_t depth,
                       uint32_t state, struct found *f)
{
    const trm_token_trie *t = a->trie;

    a->stack[depth] = state;
    for (uint32_t i = from; i < end;) {
        const trmi_trie_at *n = &t->nodes[i];
        const trmi_dstate *s;
        uint32_t next;

        TRM_CHECK(trmi_automaton_next(a, a->stack[n->depth - 1], n->byte, &next));
        raise_to(&f->reach, a->states[a->stack[n->depth - 1]].reach);
        if (--a->budget < 0)
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "the constraint becomes too complex: too much work for one token");
        if (next == TRMI_DEAD) {
            i = n->end;
            continue;
        }
        s = &a->states[next];
        if (n->end - i >= LOOPS_LEAST && !s->accepting) {
            uint64_t loops = s->loops;

            if (!s->looped)
                TRM_CHECK(trmi_automaton_loops(a, next, &loops));
            if ((n->classes & ~loops) == 0) {
                raise_to(&f->reach, a->states[next].reach);
                allow(f->mask, t, n->tokens, t->nodes[n->end].tokens);
                i = n->end;
                continue;
            }
        }
        allow(f->mask, t, n->tokens, t->nodes[i + 1].tokens);
        if (f->exits_wanted && a->states[next].accepting)
            TRM_CHECK(add_exit(&f->exits, i));
        a->stack[n->depth] = next;
        i++;
    }
    return TRM_OK;
}

static trm_status new_mask(trmi_automaton *a, uint64_t **mask_out)
{
    *mask_out = trm_calloc(words_of(a->trie), sizeof(**mask_out));
    if (*mask_out == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a mask of %" PRId64 " tokens", a->trie->vocabulary);
    return TRM_OK;
}

/* What the topmost rule alone says. */
static trm_status find_local(trmi_automaton *a, uint32_t local)
{
    struct found f = {.exits_wanted = true};
    trm_status st;

    if (a->states[local].local != NULL)
        return TRM_OK;
    TRM_CHECK(new_mask(a, &f.mask));
    st = walk(a, 0, a->trie->count, 0, local, &f);
    if (st != TRM_OK) {
        trm_free(f.mask);
        trm_free(f.exits.at);
        return st;
    }
    a->states[local].local = f.mask;
    a->states[local].exits = f.exits;
    a->states[local].local_reach = f.reach;
    a->bytes += words_of(a->trie) * sizeof(*f.mask) + f.exits.room * sizeof(*f.exits.at);
    return TRM_OK;
}

/* Configurations [first, first + count), which have one stack. */
static trm_status add_group(trmi_automaton *a, uint32_t first, uint32_t count, uint64_t *mask)
{
    uint32_t node = a->configs[first].node, local, behind, whole;
    const trm_token_trie *t = a->trie;
    struct found f = {.mask = mask};

    TRM_CHECK(trmi_automaton_part(a, first, count, true, &local));
    TRM_CHECK(find_local(a, local));
    if (trmi_automaton_depth(a, node) + a->states[local].local_reach > TRMI_GRAMMAR_STACK_MAX) {
        /* so deep that the stack's limit matters: by the stack itself */
        TRM_CHECK(trmi_automaton_part(a, first, count, false, &whole));
        return walk(a, 0, t->count, 0, whole, &f);
    }
    for (size_t i = 0; i < words_of(t); i++)
        mask[i] |= a->states[local].local[i];
    if (node == 0 || a->states[local].exits.count == 0)
        return TRM_OK;
    TRM_CHECK(trmi_automaton_pop(a, node, &behind));
    for (size_t i = 0; i < a->states[local].exits.count; i++) {
        uint32_t at = a->states[local].exits.at[i];

        if (t->nodes[at].end > at + 1)
            TRM_CHECK(walk(a, at + 1, t->nodes[at].end, t->nodes[at].depth, behind, &f));
    }
    return TRM_OK;
}

/* ---- strings ---- */

/* Whether all of them are within strings, and the stack has room for what characters call. */
static bool are_chains(const trmi_automaton *a, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++)
        if (a->g->states[a->configs[i].state].chain == 0 ||
            trmi_automaton_depth(a, a->configs[i].node) + 2 > TRMI_GRAMMAR_STACK_MAX)
            return false;
    return count > 0;
}

/* Of the configurations of `state`: those with this stack. */
static uint32_t group_of(const trmi_automaton *a, uint32_t state, uint32_t node, uint32_t *first)
{
    uint32_t i = a->states[state].first, end = i + a->states[state].count;

    while (i < end && a->configs[i].node != node)
        i++;
    *first = i;
    while (i < end && a->configs[i].node == node)
        i++;
    return i - *first;
}

/* Characters that take several bytes are a call of the chain's, of which the chain knows all. */
static bool is_of_chains(const trmi_automaton *a, uint32_t state, trmi_config c)
{
    uint32_t count, first, n;
    const trmi_config *items;

    if (c.state != a->g->char_start)
        return false;
    items = trmi_automaton_items(a, c.node, &count);
    for (uint32_t i = 0; i < count; i++) {
        n = group_of(a, state, items[i].node, &first);
        if (!are_chains(a, first, n))
            return false;
    }
    return count > 0;
}

static trm_status add_chain(trmi_automaton *a, trmi_config c, uint64_t *mask)
{
    const trmi_chain chain = a->g->chains[a->g->states[c.state].chain - 1];
    const trm_token_trie *t = a->trie;
    const trmi_strings *s = &t->strings;
    bool any = chain.most < 0 || chain.most > TRMI_CHARS_MAX;
    const uint64_t *inside = s->at_most[any ? TRMI_CHARS_MAX : chain.most];
    struct found f = {.mask = mask};
    uint32_t behind;

    for (size_t i = 0; i < words_of(t); i++)
        mask[i] |= inside[i];
    for (size_t i = 0; any && i < s->many_count; i++)
        if (chain.most < 0 || s->many[i].chars <= chain.most)
            mask[s->many[i].at / 64] |= 1ULL << (s->many[i].at % 64);
    TRM_CHECK(trmi_automaton_at(a, chain.after, c.node, &behind));
    for (size_t i = 0; i < s->end_count && behind != TRMI_DEAD; i++) {
        const trmi_trie_at *n = &t->nodes[s->ends[i].at];

        if (s->ends[i].chars < chain.least || (chain.most >= 0 && s->ends[i].chars > chain.most))
            continue;
        allow(mask, t, n->tokens, n[1].tokens);
        if (n->end > s->ends[i].at + 1)
            TRM_CHECK(walk(a, s->ends[i].at + 1, n->end, n->depth, behind, &f));
    }
    return TRM_OK;
}

static trm_status fill_mask(trmi_automaton *a, uint32_t state, uint64_t *mask)
{
    uint32_t first = a->states[state].first, count = a->states[state].count, end;

    for (uint32_t i = 0; i < count; i = end) {
        for (end = i; end < count && a->configs[first + end].node == a->configs[first + i].node;)
            end++;
        if (end - i == 1 && is_of_chains(a, state, a->configs[first + i]))
            continue;
        if (!are_chains(a, first + i, end - i)) {
            TRM_CHECK(add_group(a, first + i, end - i, mask));
            continue;
        }
        for (uint32_t k = i; k < end; k++)
            TRM_CHECK(add_chain(a, a->configs[first + k], mask));
    }
    return TRM_OK;
}

static trm_status find_mask(trmi_automaton *a, uint32_t state)
{
    uint64_t *mask;
    trm_status st;

    if (a->states[state].mask != NULL)
        return TRM_OK;
    TRM_CHECK(new_mask(a, &mask));
    st = fill_mask(a, state, mask);
    if (st != TRM_OK) {
        trm_free(mask);
        return st;
    }
    a->states[state].mask = mask;
    a->bytes += words_of(a->trie) * sizeof(*mask);
    return TRM_OK;
}

/* ---- one sequence ---- */

trm_status trm_constraint_create(trm_grammar *grammar, const trm_token_trie *trie,
                                 const int32_t *ends, int end_count,
                                 trm_constraint **constraint_out)
{
    trm_constraint *c;
    trmi_automaton *a;
    trm_status st;

    if (grammar->automaton == NULL)
        TRM_CHECK(trmi_automaton_create(grammar, trie, &grammar->automaton));
    a = grammar->automaton;
    if (a == NULL || a->trie != trie)
        return trm_fail(TRM_ERR_INVALID_ARG, "a grammar has one vocabulary");
    if (end_count < 0 || end_count > ENDS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "%d end tokens: want at most %d", end_count, ENDS_MAX);
    for (int i = 0; i < end_count; i++)
        if (ends[i] < 0 || ends[i] >= trie->vocabulary)
            return trm_fail(TRM_ERR_INVALID_ARG, "end token %" PRId32 " of %" PRId64, ends[i],
                            trie->vocabulary);
    c = trm_calloc(1, sizeof(*c));
    if (c == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a constraint");
    c->ends = trm_malloc((size_t)end_count + 1, sizeof(*c->ends));
    if (c->ends == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a constraint");
        goto fail;
    }
    if (end_count > 0)
        memcpy(c->ends, ends, (size_t)end_count * sizeof(*ends));
    c->end_count = end_count;
    TRM_TRY(st, trmi_automaton_begin(a), fail);
    TRM_TRY(st, trmi_automaton_start(a, &c->at), fail);
    c->a = a;
    c->next = a->constraints;
    if (c->next != NULL)
        c->next->prev = c;
    a->constraints = c;
    *constraint_out = c;
    return TRM_OK;
fail:
    trm_constraint_destroy(c);
    return st;
}

void trm_constraint_destroy(trm_constraint *c)
{
    if (c == NULL)
        return;
    if (c->a != NULL) {
        if (c->prev != NULL)
            c->prev->next = c->next;
        else
            c->a->constraints = c->next;
        if (c->next != NULL)
            c->next->prev = c->prev;
    }
    trm_free(c->ends);
    trm_free(c);
}

static bool is_end(const trm_constraint *c, int32_t token)
{
    for (int i = 0; i < c->end_count; i++)
        if (c->ends[i] == token)
            return true;
    return false;
}

/* -infinity where the mask has no bit; returns whether any bit is left. */
static bool apply(const uint64_t *mask, float *logits, int64_t count)
{
    uint64_t any = 0;

    for (int64_t from = 0; from < count; from += 64) {
        uint64_t bits = mask[from / 64];
        int64_t n = count - from < 64 ? count - from : 64;

        any |= bits;
        if (bits == UINT64_MAX)
            continue;
        for (int64_t i = 0; bits == 0 && i < n; i++)
            logits[from + i] = -INFINITY;
        if (bits == 0)
            continue;
        for (int64_t i = 0; i < n; i++)
            logits[from + i] = bits >> i & 1 ? logits[from + i] : -INFINITY;
    }
    return any != 0;
}

/* The mask of where the constraint is; *may_end_out: end tokens may come, too. */
static trm_status mask_now(trm_constraint *c, int64_t vocabulary, const uint64_t **mask_out,
                           bool *may_end_out)
{
    trmi_automaton *a = c->a;

    if (vocabulary != a->trie->vocabulary)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "a row of %" PRId64 " logits, the vocabulary has %" PRId64, vocabulary,
                        a->trie->vocabulary);
    TRM_CHECK(trmi_automaton_begin(a));
    TRM_CHECK(find_mask(a, c->at));
    *may_end_out = trm_constraint_may_end(c);
    *mask_out = a->states[c->at].mask;
    return TRM_OK;
}

static trm_status none_left(void)
{
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "no token of the vocabulary can follow in the constraint's text");
}

trm_status trm_constraint_mask(trm_constraint *c, float *logits, int64_t vocabulary)
{
    const uint64_t *mask;
    float kept[ENDS_MAX];
    bool may_end, any;

    TRM_CHECK(mask_now(c, vocabulary, &mask, &may_end));
    for (int i = 0; i < c->end_count; i++)
        kept[i] = logits[c->ends[i]];
    any = apply(mask, logits, vocabulary);
    for (int i = 0; i < c->end_count; i++) /* none of them is text */
        logits[c->ends[i]] = may_end ? kept[i] : -INFINITY;
    return any || (may_end && c->end_count > 0) ? TRM_OK : none_left();
}

trm_status trm_constraint_allowed(trm_constraint *c, uint32_t *allowed, int64_t vocabulary)
{
    const uint64_t *mask;
    uint64_t any = 0;
    bool may_end;

    TRM_CHECK(mask_now(c, vocabulary, &mask, &may_end));
    for (int64_t w = 0; w < (vocabulary + 31) / 32; w++)
        allowed[w] = (uint32_t)(mask[w / 2] >> (w % 2 * 32));
    for (int64_t w = 0; w < (vocabulary + 63) / 64; w++)
        any |= mask[w];
    for (int i = 0; i < c->end_count; i++) { /* none of them is text */
        uint32_t bit = 1u << (c->ends[i] % 32), *word = &allowed[c->ends[i] / 32];

        *word = may_end ? *word | bit : *word & ~bit;
    }
    return any != 0 || (may_end && c->end_count > 0) ? TRM_OK : none_left();
}

trm_status trm_constraint_accept(trm_constraint *c, int32_t token)
{
    trmi_automaton *a = c->a;
    const trm_token_trie *t = a->trie;
    uint32_t at;

    if (token >= 0 && is_end(c, token)) {
        if (!trm_constraint_may_end(c))
            return trm_fail(TRM_ERR_INVALID_ARG, "the text cannot end here");
        c->over = true;
        return TRM_OK;
    }
    if (token < 0 || token >= t->vocabulary || t->offsets[token] == t->offsets[token + 1] ||
        c->over)
        return trm_fail(TRM_ERR_INVALID_ARG, "token %" PRId32 " is no text that may come", token);
    TRM_CHECK(trmi_automaton_begin(a));
    at = c->at;
    for (uint32_t i = t->offsets[token]; i < t->offsets[token + 1]; i++) {
        TRM_CHECK(trmi_automaton_next(a, at, (uint8_t)t->pool[i], &at));
        if (at == TRMI_DEAD)
            return trm_fail(TRM_ERR_INVALID_ARG, "token %" PRId32 " may not come here", token);
    }
    c->at = at;
    return TRM_OK;
}

bool trm_constraint_complete(const trm_constraint *c)
{
    return c->over || (c->a->states[c->at].accepting && c->a->states[c->at].count == 0);
}

bool trm_constraint_may_end(const trm_constraint *c)
{
    return c->over || c->a->states[c->at].accepting;
}
