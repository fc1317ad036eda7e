/* A grammar as one automaton whose states are sets of (state, stack), made as they are met.
 *
 * A stack is a node: the places where its topmost call may go on, each with the stack below it, or
 * 0, the bottom. Calls of one rule that begin at the same byte share a node, so that alternatives
 * which nest do not multiply (Lang 1974, Tomita 1985: a stack that is a graph). Equal nodes are one
 * node, equal sets one state: within a string, or at the same place of the next element of a list,
 * the automaton is where it was, and what was found out about it holds. */
#include "worker/language/grammar_impl.h"

#include <stdlib.h>
#include <string.h>

/* Above these an operation that begins drops what nobody is at; above the harder ones it fails. */
#define STATES_SOFT 16384
#define STATES_HARD 131072
#define CONFIGS_SOFT ((size_t)1 << 20)
#define CONFIGS_HARD ((size_t)1 << 22)
#define NODES_SOFT 65536
#define NODES_HARD 1048576
#define BYTES_SOFT ((size_t)16 << 20) /* of masks and rows of states */
#define BYTES_HARD ((size_t)64 << 20)
#define SET_MAX 8192    /* configurations of a state */
#define BUDGET 40000000 /* edges that one operation may look at: a fraction of a second */

struct trmi_node {
    uint32_t first, count, hash;
    uint32_t depth; /* calls, by the shortest way to the bottom */
    uint32_t pop;   /* the state behind it, TRMI_UNKNOWN */
};

struct trmi_call {
    uint32_t rule, to, node;
};

static trm_status complex_grammar(const char *what)
{
    return trm_fail(TRM_ERR_UNSUPPORTED, "the constraint becomes too complex: %s", what);
}

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "a constraint's states");
}

/* `items` with room for more than `count`; NULL: no memory, and they are as they were. */
static void *room_for(void *items, size_t count, size_t *room, size_t size)
{
    size_t wanted = *room == 0 ? 256 : *room;
    void *grown;

    if (count < *room)
        return items;
    while (wanted <= count)
        wanted *= 2;
    grown = trm_realloc(items, wanted, size);
    if (grown != NULL)
        *room = wanted;
    return grown;
}
#define RESERVE(items, count, room)                                                                \
    do {                                                                                           \
        void *grown_items = room_for((items), (count), &(room), sizeof(*(items)));                 \
        if (grown_items == NULL)                                                                   \
            return no_memory();                                                                    \
        (items) = grown_items;                                                                     \
    } while (0)

static uint32_t mix(uint32_t hash, uint32_t value)
{
    hash = (hash ^ value) * 0x9e3779b1u;
    return hash ^ hash >> 15;
}

static uint32_t hash_configs(const trmi_config *c, size_t count, uint32_t hash)
{
    for (size_t i = 0; i < count; i++)
        hash = mix(mix(hash, c[i].state), c[i].node);
    return hash;
}

static int by_node(const void *x, const void *y)
{
    const trmi_config *a = x, *b = y;

    if (a->node != b->node)
        return a->node < b->node ? -1 : 1;
    return a->state != b->state ? (a->state < b->state ? -1 : 1) : 0;
}

static size_t sort_configs(trmi_config *c, size_t count)
{
    size_t kept = 0;

    if (count > 1)
        qsort(c, count, sizeof(*c), by_node);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || by_node(&c[i], &c[kept - 1]) != 0)
            c[kept++] = c[i];
    return kept;
}

/* ---- tables of what is there ---- */

/* Twice the size, where it is half full; all entries are put in again by the caller. */
static trm_status grow_index(uint32_t **index, size_t *size, size_t count, bool *grown_out)
{
    size_t wanted = *size == 0 ? 1024 : *size * 2;
    uint32_t *grown;

    *grown_out = false;
    if (count * 2 < *size)
        return TRM_OK;
    grown = trm_calloc(wanted, sizeof(*grown));
    if (grown == NULL)
        return no_memory();
    trm_free(*index);
    *index = grown;
    *size = wanted;
    *grown_out = true;
    return TRM_OK;
}

static void put_index(uint32_t *index, size_t size, uint32_t hash, uint32_t value)
{
    size_t at = hash & (size - 1);

    while (index[at] != 0)
        at = (at + 1) & (size - 1);
    index[at] = value + 1;
}

static trm_status reserve_states(trmi_automaton *a)
{
    bool grown;

    RESERVE(a->states, a->state_count, a->state_room);
    TRM_CHECK(grow_index(&a->state_index, &a->state_index_size, a->state_count + 1, &grown));
    for (size_t i = 0; grown && i < a->state_count; i++)
        put_index(a->state_index, a->state_index_size, a->states[i].hash, (uint32_t)i);
    return TRM_OK;
}

static trm_status reserve_nodes(trmi_automaton *a)
{
    bool grown;

    RESERVE(a->nodes, a->node_count, a->node_room);
    TRM_CHECK(grow_index(&a->node_index, &a->node_index_size, a->node_count + 1, &grown));
    for (size_t i = 1; grown && i < a->node_count; i++)
        put_index(a->node_index, a->node_index_size, a->nodes[i].hash, (uint32_t)i);
    return TRM_OK;
}

/* Of sorted configurations. */
static trm_status state_of(trmi_automaton *a, const trmi_config *c, size_t count, bool accepting,
                           uint32_t *state_out)
{
    uint32_t hash = hash_configs(c, count, accepting ? 7 : 5);
    trmi_dstate *s;

    TRM_CHECK(reserve_states(a));
    for (size_t at = hash & (a->state_index_size - 1); a->state_index[at] != 0;
         at = (at + 1) & (a->state_index_size - 1)) {
        s = &a->states[a->state_index[at] - 1];
        if (s->hash == hash && s->count == count && s->accepting == accepting &&
            (count == 0 || memcmp(a->configs + s->first, c, count * sizeof(*c)) == 0)) {
            *state_out = a->state_index[at] - 1;
            return TRM_OK;
        }
    }
    if (a->state_count >= STATES_HARD || a->config_count + count > CONFIGS_HARD)
        return complex_grammar("too many states");
    RESERVE(a->configs, a->config_count + count, a->config_room);
    if (count > 0)
        memcpy(a->configs + a->config_count, c, count * sizeof(*c));
    a->states[a->state_count] = (trmi_dstate){.first = (uint32_t)a->config_count,
                                              .count = (uint32_t)count,
                                              .hash = hash,
                                              .accepting = accepting};
    a->config_count += count;
    put_index(a->state_index, a->state_index_size, hash, (uint32_t)a->state_count);
    *state_out = (uint32_t)a->state_count++;
    return TRM_OK;
}

/* Of items, which are sorted here. */
static trm_status node_of(trmi_automaton *a, trmi_config *items, size_t count, uint32_t *node_out)
{
    uint32_t hash, depth = UINT32_MAX;

    count = sort_configs(items, count);
    hash = hash_configs(items, count, 3);
    TRM_CHECK(reserve_nodes(a));
    for (size_t at = hash & (a->node_index_size - 1); a->node_index[at] != 0;
         at = (at + 1) & (a->node_index_size - 1)) {
        const struct trmi_node *n = &a->nodes[a->node_index[at] - 1];

        if (n->hash == hash && n->count == count &&
            memcmp(a->items + n->first, items, count * sizeof(*items)) == 0) {
            *node_out = a->node_index[at] - 1;
            return TRM_OK;
        }
    }
    if (a->node_count >= NODES_HARD || a->item_count + count > CONFIGS_HARD)
        return complex_grammar("too many stacks");
    RESERVE(a->items, a->item_count + count, a->item_room);
    memcpy(a->items + a->item_count, items, count * sizeof(*items));
    for (size_t i = 0; i < count; i++)
        depth = a->nodes[items[i].node].depth < depth ? a->nodes[items[i].node].depth : depth;
    a->nodes[a->node_count] = (struct trmi_node){.first = (uint32_t)a->item_count,
                                                 .count = (uint32_t)count,
                                                 .hash = hash,
                                                 .depth = depth + 1,
                                                 .pop = TRMI_UNKNOWN};
    a->item_count += count;
    put_index(a->node_index, a->node_index_size, hash, (uint32_t)a->node_count);
    *node_out = (uint32_t)a->node_count++;
    return TRM_OK;
}

/* ---- closure: all that can be reached without a byte ---- */

static bool fits(trmi_automaton *a, uint32_t state, uint32_t node)
{
    uint32_t need = a->g->states[state].need, reach = a->nodes[node].depth + need;

    if (need != UINT16_MAX && reach > a->reach)
        a->reach = reach;
    return need != UINT16_MAX && reach <= TRMI_GRAMMAR_STACK_MAX;
}

static void begin_closure(trmi_automaton *a)
{
    if (a->seen != NULL)
        memset(a->seen, 0, a->seen_size * sizeof(*a->seen));
    a->work_count = a->call_count = 0;
    a->reach = 0;
}

static trm_status visit(trmi_automaton *a, uint32_t state, uint32_t node)
{
    size_t at;

    if (!fits(a, state, node))
        return TRM_OK;
    if (a->work_count * 2 >= a->seen_size) {
        size_t size = a->seen_size == 0 ? 64 : a->seen_size * 2;
        uint32_t *grown = trm_calloc(size, sizeof(*grown));

        if (grown == NULL)
            return no_memory();
        trm_free(a->seen);
        a->seen = grown;
        a->seen_size = size;
        for (size_t i = 0; i < a->work_count; i++)
            put_index(grown, size, mix(mix(1, a->work[i].state), a->work[i].node), (uint32_t)i);
    }
    for (at = mix(mix(1, state), node) & (a->seen_size - 1); a->seen[at] != 0;
         at = (at + 1) & (a->seen_size - 1)) {
        const trmi_config *c = &a->work[a->seen[at] - 1];

        if (c->state == state && c->node == node)
            return TRM_OK;
    }
    if (a->work_count >= 4 * SET_MAX)
        return complex_grammar("too many ways at once");
    RESERVE(a->work, a->work_count, a->work_room);
    a->seen[at] = (uint32_t)a->work_count + 1;
    a->work[a->work_count++] = (trmi_config){state, node};
    return TRM_OK;
}

/* Jumps and ends of one configuration; its calls are put off. */
static trm_status expand(trmi_automaton *a, trmi_config c, bool *accepting)
{
    const trmi_state *s = &a->g->states[c.state];
    const trmi_edge *e = a->g->edges + s->first;

    a->budget -= 1 + (int64_t)s->jumps + (int64_t)s->calls;
    for (uint32_t i = 0; i < s->jumps; i++)
        TRM_CHECK(visit(a, e[i].to, c.node));
    for (uint32_t i = s->jumps; i < s->jumps + s->calls; i++) {
        if (trmi_state_is_end(
                &a->g->states[e[i].to])) { /* nothing follows: the stack need not grow */
            TRM_CHECK(visit(a, a->g->rules[e[i].rule].start, c.node));
            continue;
        }
        if (!fits(a, e[i].to, c.node))
            continue;
        RESERVE(a->calls, a->call_count, a->call_room);
        a->calls[a->call_count++] = (struct trmi_call){e[i].rule, e[i].to, c.node};
    }
    if (!s->last)
        return TRM_OK;
    *accepting |= c.node == 0;
    for (uint32_t i = 0; c.node != 0 && i < a->nodes[c.node].count; i++) {
        trmi_config item = a->items[a->nodes[c.node].first + i];

        a->budget--;
        TRM_CHECK(visit(a, item.state, item.node));
    }
    return TRM_OK;
}

static int by_rule(const void *x, const void *y)
{
    const struct trmi_call *a = x, *b = y;

    return a->rule != b->rule ? (a->rule < b->rule ? -1 : 1) : 0;
}

/* Calls of one rule at this byte share a stack. */
static trm_status expand_calls(trmi_automaton *a)
{
    size_t count = a->call_count, end;

    if (count > 1)
        qsort(a->calls, count, sizeof(*a->calls), by_rule);
    RESERVE(a->spare, count, a->spare_room);
    for (size_t i = 0; i < count; i = end) {
        uint32_t node = 0;

        for (end = i; end < count && a->calls[end].rule == a->calls[i].rule; end++)
            a->spare[end - i] = (trmi_config){a->calls[end].to, a->calls[end].node};
        TRM_CHECK(node_of(a, a->spare, end - i, &node));
        TRM_CHECK(visit(a, a->g->rules[a->calls[i].rule].start, node));
    }
    a->call_count = 0;
    return TRM_OK;
}

/* What was visited, as a state. */
static trm_status close_up(trmi_automaton *a, uint32_t *state_out)
{
    bool accepting = false;
    size_t kept = 0;

    for (size_t i = 0; i < a->work_count || a->call_count > 0;) {
        if (i < a->work_count)
            TRM_CHECK(expand(a, a->work[i++], &accepting));
        else
            TRM_CHECK(expand_calls(a));
        if (a->budget < 0)
            return complex_grammar("too much work for one token");
    }
    for (size_t i = 0; i < a->work_count; i++)
        if (a->g->states[a->work[i].state].bytes > 0)
            a->work[kept++] = a->work[i];
    if (kept > SET_MAX)
        return complex_grammar("too many ways at once");
    kept = sort_configs(a->work, kept);
    return state_of(a, a->work, kept, accepting, state_out);
}

/* ---- steps ---- */

static trm_status step(trmi_automaton *a, uint32_t state, uint8_t byte, uint32_t *next_out)
{
    uint32_t first = a->states[state].first, count = a->states[state].count;

    begin_closure(a);
    for (uint32_t i = 0; i < count; i++) {
        trmi_config c = a->configs[first + i];
        const trmi_state *s = &a->g->states[c.state];
        const trmi_edge *e = a->g->edges + s->first + s->jumps + s->calls;

        a->budget -= s->bytes;
        for (uint32_t k = 0; k < s->bytes; k++)
            if (byte >= e[k].lo && byte <= e[k].hi)
                TRM_CHECK(visit(a, e[k].to, c.node));
    }
    return close_up(a, next_out);
}

trm_status trmi_automaton_next(trmi_automaton *a, uint32_t state, uint8_t byte, uint32_t *next_out)
{
    size_t row = (size_t)a->g->class_count * sizeof(uint32_t);
    trmi_dstate *s = &a->states[state];
    int class_of = a->g->class_of[byte];

    if (s->next == NULL) {
        if (a->bytes + row > BYTES_HARD)
            return complex_grammar("too many states");
        s->next = trm_malloc(row, 1);
        if (s->next == NULL)
            return no_memory();
        a->bytes += row;
        memset(s->next, 0xff, row);
    }
    if (s->next[class_of] == TRMI_UNKNOWN) {
        uint32_t next;

        TRM_CHECK(step(a, state, byte, &next));
        s = &a->states[state]; /* states may have moved */
        s->next[class_of] = next;
        s->reach = a->reach > s->reach ? a->reach : s->reach;
    }
    *next_out = a->states[state].next[class_of];
    return TRM_OK;
}

trm_status trmi_automaton_start(trmi_automaton *a, uint32_t *state_out)
{
    begin_closure(a);
    TRM_CHECK(visit(a, a->g->rules[0].start, 0));
    return close_up(a, state_out);
}

trm_status trmi_automaton_part(trmi_automaton *a, uint32_t first, uint32_t count, bool local,
                               uint32_t *state_out)
{
    RESERVE(a->spare, count, a->spare_room);
    for (uint32_t i = 0; i < count; i++)
        a->spare[i] =
            (trmi_config){a->configs[first + i].state, local ? 0 : a->configs[first + i].node};
    return state_of(a, a->spare, count, false, state_out);
}

trm_status trmi_automaton_at(trmi_automaton *a, uint32_t state, uint32_t node, uint32_t *state_out)
{
    begin_closure(a);
    TRM_CHECK(visit(a, state, node));
    return close_up(a, state_out);
}

const trmi_config *trmi_automaton_items(const trmi_automaton *a, uint32_t node, uint32_t *count_out)
{
    *count_out = a->nodes[node].count;
    return a->items + a->nodes[node].first;
}

uint32_t trmi_automaton_depth(const trmi_automaton *a, uint32_t node)
{
    return a->nodes[node].depth;
}

trm_status trmi_automaton_pop(trmi_automaton *a, uint32_t node, uint32_t *state_out)
{
    uint32_t state = a->nodes[node].pop;

    if (state == TRMI_UNKNOWN) {
        begin_closure(a);
        for (uint32_t i = 0; i < a->nodes[node].count; i++) {
            trmi_config item = a->items[a->nodes[node].first + i];

            TRM_CHECK(visit(a, item.state, item.node));
        }
        TRM_CHECK(close_up(a, &state));
        a->nodes[node].pop = state;
    }
    *state_out = state;
    return TRM_OK;
}

trm_status trmi_automaton_loops(trmi_automaton *a, uint32_t state, uint64_t *loops_out)
{
    if (!a->states[state].looped) {
        uint64_t away = 0;

        for (unsigned c = 0; c < 256; c++) {
            uint32_t next;

            TRM_CHECK(trmi_automaton_next(a, state, (uint8_t)c, &next));
            if (next != state)
                away |= 1ULL << trmi_byte_kind(c);
        }
        a->states[state].loops = ~away;
        a->states[state].looped = true;
    }
    *loops_out = a->states[state].loops;
    return TRM_OK;
}

/* ---- life ---- */

static void drop_states(trmi_automaton *a)
{
    for (size_t i = 0; i < a->state_count; i++) {
        trm_free(a->states[i].next);
        trm_free(a->states[i].mask);
        trm_free(a->states[i].local);
        trm_free(a->states[i].exits.at);
    }
    a->state_count = a->config_count = a->bytes = 0;
    if (a->state_index != NULL)
        memset(a->state_index, 0, a->state_index_size * sizeof(*a->state_index));
}

static trm_status make_dead(trmi_automaton *a)
{
    uint32_t dead;

    return state_of(a, NULL, 0, false, &dead); /* the first is number 0 */
}

trm_status trmi_automaton_create(const trm_grammar *g, const trm_token_trie *trie,
                                 trmi_automaton **automaton_out)
{
    trmi_automaton *a = trm_calloc(1, sizeof(*a));
    trm_status st;

    if (a == NULL)
        return no_memory();
    a->g = g;
    a->trie = trie;
    a->states_soft = STATES_SOFT;
    TRM_TRY(st, reserve_nodes(a), fail);
    a->nodes[a->node_count++] = (struct trmi_node){.pop = TRMI_DEAD};
    TRM_TRY(st, make_dead(a), fail);
    *automaton_out = a;
    return TRM_OK;
fail:
    trmi_automaton_destroy(a);
    return st;
}

void trmi_automaton_destroy(trmi_automaton *a)
{
    if (a == NULL)
        return;
    drop_states(a);
    trm_free(a->states);
    trm_free(a->configs);
    trm_free(a->state_index);
    trm_free(a->nodes);
    trm_free(a->items);
    trm_free(a->node_index);
    trm_free(a->work);
    trm_free(a->calls);
    trm_free(a->seen);
    trm_free(a->spare);
    trm_free(a);
}

/* ---- giving back ---- */

/* Stacks below others have lower numbers. map[node]: its new number, or UINT32_MAX. */
static void keep_nodes(trmi_automaton *a, uint32_t *map)
{
    size_t kept = 1, items = 0;

    for (size_t i = a->node_count; i-- > 1;)
        for (uint32_t k = 0; map[i] == 0 && k < a->nodes[i].count; k++)
            map[a->items[a->nodes[i].first + k].node] = 0;
    map[0] = 0;
    memset(a->node_index, 0, a->node_index_size * sizeof(*a->node_index));
    for (size_t i = 1; i < a->node_count; i++) {
        struct trmi_node n = a->nodes[i];

        if (map[i] != 0)
            continue;
        for (uint32_t k = 0; k < n.count; k++) {
            trmi_config item = a->items[n.first + k];

            a->items[items + k] = (trmi_config){item.state, map[item.node]};
        }
        n.first = (uint32_t)items;
        n.pop = TRMI_UNKNOWN;
        (void)sort_configs(a->items + items, n.count); /* numbers fell, their order is the same */
        n.hash = hash_configs(a->items + items, n.count, 3);
        items += n.count;
        a->nodes[kept] = n;
        put_index(a->node_index, a->node_index_size, n.hash, (uint32_t)kept);
        map[i] = (uint32_t)kept++;
    }
    a->node_count = kept;
    a->item_count = items;
}

/* Keeps what constraints are at; all else is found out again when it is needed. */
static trm_status collect(trmi_automaton *a)
{
    uint32_t *map = trm_malloc(a->node_count + 1, sizeof(*map));
    trmi_config *held = NULL;
    size_t count = 0, at = 0;
    bool *accepting = NULL;
    size_t constraints = 0, n = 0;
    trm_status st = TRM_OK;

    for (trm_constraint *c = a->constraints; c != NULL; c = c->next, constraints++)
        count += a->states[c->at].count;
    held = trm_malloc(count + 1, sizeof(*held));
    accepting = trm_malloc(constraints + 1, sizeof(*accepting));
    if (map == NULL || held == NULL || accepting == NULL) {
        st = no_memory();
        goto end;
    }
    memset(map, 0xff, a->node_count * sizeof(*map));
    for (trm_constraint *c = a->constraints; c != NULL; c = c->next) {
        const trmi_dstate *s = &a->states[c->at];

        for (uint32_t i = 0; i < s->count; i++) {
            held[at] = a->configs[s->first + i];
            map[held[at++].node] = 0;
        }
        accepting[n++] = s->accepting;
        c->held = s->count;
    }
    keep_nodes(a, map);
    drop_states(a);
    TRM_TRY(st, make_dead(a), end); /* has room: nothing is there */
    at = n = 0;
    for (trm_constraint *c = a->constraints; c != NULL; c = c->next) {
        for (uint32_t i = 0; i < c->held; i++)
            held[at + i].node = map[held[at + i].node];
        TRM_TRY(st, state_of(a, held + at, c->held, accepting[n++], &c->at), end);
        at += c->held;
    }
end:
    trm_free(map);
    trm_free(held);
    trm_free(accepting);
    return st;
}

trm_status trmi_automaton_begin(trmi_automaton *a)
{
    a->budget = BUDGET;
    if (a->state_count < a->states_soft && a->config_count < CONFIGS_SOFT &&
        a->node_count < NODES_SOFT && a->item_count < CONFIGS_SOFT && a->bytes < BYTES_SOFT)
        return TRM_OK;
    return collect(a);
}
