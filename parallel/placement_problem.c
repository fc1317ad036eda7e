/* The placement search's problem: strategies, forms, prices and readers looked up once. */
#include "parallel/placement_impl.h"

#include <math.h>
#include <string.h>

/* Shared constants below this share of all constants are priced by reader: too small to matter, and
 * a graph may have hundreds. */
#define SHARED_SHARE 1000

size_t trmi_constant_bytes(const trm_sharding *s, int value, trm_form form, int rank)
{
    trm_tensor t = trm_sharding_local(s, value, form, rank);
    size_t bytes;

    if (trm_tensor_bytes(&t, &bytes) != TRM_OK)
        return 0; /* no constant has an unknown dim */
    return bytes;
}

typedef struct build {
    trmi_problem *p;
    const trm_graph *g;
    int *open;       /* [value_count] index into opens or -1 */
    uint16_t *forms; /* [value_count] that can come up */
    int *readers;    /* [value_count] nodes that read it */
    bool *output;    /* [value_count] */
    size_t shared_min;
} build;

static bool reads_before(const trm_node *n, int i)
{
    for (int j = 0; j < i; j++)
        if (n->inputs[j] == n->inputs[i])
            return true;
    return false;
}

/* Which forms of each value can come up, and who reads it. */
static trm_status survey(build *b)
{
    const trm_sharding *s = b->p->s;
    size_t total = 0;

    for (int i = 0; i < b->g->input_count; i++)
        b->forms[b->g->inputs[i]] |= 1U << TRM_FORM_WHOLE;
    for (int i = 0; i < b->g->output_count; i++) {
        b->forms[b->g->outputs[i]] |= 1U << TRM_FORM_WHOLE;
        b->output[b->g->outputs[i]] = true;
    }
    for (int n = 0; n < b->g->node_count; n++) {
        const trm_node *node = &b->g->nodes[n];
        int strategies = trm_sharding_strategy_count(s, n);

        for (int i = 0; i < node->input_count; i++)
            if (node->inputs[i] != TRM_NO_VALUE && !reads_before(node, i))
                b->readers[node->inputs[i]]++;
        for (int st = 0; st < strategies; st++) {
            if (!trm_sharding_possible(s, n, st))
                continue;
            for (int i = 0; i < node->input_count; i++)
                if (node->inputs[i] != TRM_NO_VALUE)
                    b->forms[node->inputs[i]] |= (uint16_t)(1U << trm_sharding_wants(s, n, st, i));
            for (int i = 0; i < node->output_count; i++)
                if (node->outputs[i] != TRM_NO_VALUE)
                    b->forms[node->outputs[i]] |=
                        (uint16_t)(1U << trm_sharding_yields(s, n, st, i));
        }
    }
    for (int v = 0; v < b->g->value_count; v++)
        if (b->readers[v] > 0 && trm_graph_is_constant(b->g, v))
            total += trmi_constant_bytes(s, v, TRM_FORM_WHOLE, 0);
    b->shared_min = total / SHARED_SHARE + 1;
    return TRM_OK;
}

static bool is_open(const build *b, int v)
{
    if ((b->forms[v] & (b->forms[v] - 1U)) == 0)
        return false;
    if (!trm_graph_is_constant(b->g, v))
        return true;
    return b->readers[v] > 1 && trmi_constant_bytes(b->p->s, v, TRM_FORM_WHOLE, 0) >= b->shared_min;
}

static trm_status make_opens(build *b)
{
    trmi_problem *p = b->p;
    const trm_sharding *s = p->s;
    int count = 0;

    for (int v = 0; v < b->g->value_count; v++)
        b->open[v] = is_open(b, v) ? count++ : -1;
    p->opens = trm_arena_alloc(p->arena, (size_t)count + 1, sizeof(*p->opens));
    if (p->opens == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "placement: %d values", count);
    p->open_count = count;
    for (int v = 0; v < b->g->value_count; v++) {
        trmi_open *o;

        if (b->open[v] < 0)
            continue;
        o = &p->opens[b->open[v]];
        o->value = v;
        o->constant = trm_graph_is_constant(b->g, v);
        o->output = b->output[v];
        o->readers = trm_arena_alloc(p->arena, (size_t)b->readers[v] + 1, sizeof(int));
        o->later = trm_arena_alloc(p->arena, (size_t)b->readers[v] + 1, sizeof(uint16_t));
        if (o->readers == NULL || o->later == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "placement: readers of '%s'", b->g->values[v].name);
        for (int f = 0; f < TRM_FORM_COUNT; f++) {
            for (int w = 0; w < TRM_FORM_COUNT; w++)
                o->change[f][w] = -1;
            if (o->constant && (b->forms[v] >> f & 1) != 0)
                o->bytes[f] = (double)trmi_constant_bytes(s, v, (trm_form)f, s->ranks - 1);
        }
    }
    return TRM_OK;
}

static trm_status make_choice(build *b, int n, int st, const trmi_step *step, trmi_choice *c)
{
    trmi_problem *p = b->p;
    const trm_sharding *s = p->s;
    const trm_node *node = &b->g->nodes[n];
    uint8_t *wants = trm_arena_alloc(p->arena, (size_t)step->read_count + 1, 1);
    uint8_t *yields = trm_arena_alloc(p->arena, (size_t)step->write_count + 1, 1);
    int r = 0, w = 0;

    if (wants == NULL || yields == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "placement: choices of node %d", n);
    *c = (trmi_choice){.strategy = st,
                       .us = p->costs->node_us(p->costs->ctx, s, n, st),
                       .wants = wants,
                       .yields = yields};
    for (int i = 0; i < node->input_count; i++) {
        int v = node->inputs[i];

        if (v == TRM_NO_VALUE)
            continue;
        if (b->open[v] >= 0)
            wants[r++] = (uint8_t)trm_sharding_wants(s, n, st, i);
        else if (trm_graph_is_constant(b->g, v) && !reads_before(node, i))
            c->bytes +=
                (double)trmi_constant_bytes(s, v, trm_sharding_wants(s, n, st, i), s->ranks - 1) /
                b->readers[v];
    }
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != TRM_NO_VALUE && b->open[node->outputs[i]] >= 0)
            yields[w++] = (uint8_t)trm_sharding_yields(s, n, st, i);
    return TRM_OK;
}

static trm_status make_step(build *b, int n)
{
    trmi_problem *p = b->p;
    const trm_node *node = &b->g->nodes[n];
    trmi_step *step = &p->steps[n];
    int strategies = trm_sharding_strategy_count(p->s, n);
    int *reads = trm_arena_alloc(p->arena, (size_t)node->input_count + 1, sizeof(int));
    int *writes = trm_arena_alloc(p->arena, (size_t)node->output_count + 1, sizeof(int));

    step->choices = trm_arena_alloc(p->arena, (size_t)strategies, sizeof(*step->choices));
    if (reads == NULL || writes == NULL || step->choices == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "placement: node %d", n);
    for (int i = 0; i < node->input_count; i++) {
        int v = node->inputs[i];

        if (v == TRM_NO_VALUE || b->open[v] < 0)
            continue;
        reads[step->read_count++] = b->open[v];
        if (!reads_before(node, i)) {
            trmi_open *o = &p->opens[b->open[v]];

            o->readers[o->reader_count++] = n;
        }
    }
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != TRM_NO_VALUE && b->open[node->outputs[i]] >= 0)
            writes[step->write_count++] = b->open[node->outputs[i]];
    step->reads = reads;
    step->writes = writes;
    for (int st = 0; st < strategies; st++) {
        if (!trm_sharding_possible(p->s, n, st))
            continue;
        TRM_CHECK(make_choice(b, n, st, step, &step->choices[step->choice_count]));
        step->choice_count++;
    }
    return TRM_OK;
}

/* What readers i and after may want: readers are few, so their steps are looked through again. */
static void make_later(trmi_problem *p, trmi_open *o)
{
    int index = (int)(o - p->opens);

    o->later[o->reader_count] = o->output ? 1U << TRM_FORM_WHOLE : 0;
    for (int i = o->reader_count - 1; i >= 0; i--) {
        const trmi_step *step = &p->steps[o->readers[i]];

        o->later[i] = o->later[i + 1];
        for (int c = 0; c < step->choice_count; c++)
            for (int r = 0; r < step->read_count; r++)
                if (step->reads[r] == index)
                    o->later[i] |= (uint16_t)(1U << step->choices[c].wants[r]);
    }
}

static void make_changes(trmi_problem *p)
{
    for (uint32_t mask = 0; mask < TRMI_MASKS; mask++)
        for (int f = 0; f < TRM_FORM_COUNT; f++) {
            trm_change c;

            p->from[mask][f] = TRMI_FROM_NONE;
            if (mask == 0)
                continue;
            c = trm_form_change(mask, (trm_form)f);
            if ((mask >> c.from & 1) == 0 || (c.op == TRM_OP_NONE && (int)c.from != f))
                continue;
            p->from[mask][f] = (uint8_t)c.from;
            p->op[mask][f] = (uint16_t)c.op;
        }
}

trm_status trmi_problem_create(const trm_sharding *s, const trm_placement_costs *costs,
                               trmi_problem **problem_out)
{
    trmi_problem *p = trm_calloc(1, sizeof(*p));
    size_t values = (size_t)s->graph->value_count + 1;
    build b = {.p = p, .g = s->graph};
    trm_status st;

    if (p == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "placement: host object");
    p->s = s;
    p->costs = costs;
    TRM_TRY(st, trm_arena_create(0, &p->arena), fail);
    b.open = trm_arena_alloc(p->arena, values, sizeof(*b.open));
    b.forms = trm_arena_alloc(p->arena, values, sizeof(*b.forms));
    b.readers = trm_arena_alloc(p->arena, values, sizeof(*b.readers));
    b.output = trm_arena_alloc(p->arena, values, sizeof(*b.output));
    p->steps = trm_arena_alloc(p->arena, (size_t)s->graph->node_count + 1, sizeof(*p->steps));
    if (b.open == NULL || b.forms == NULL || b.readers == NULL || b.output == NULL ||
        p->steps == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "placement: %d nodes", s->graph->node_count);
        goto fail;
    }
    make_changes(p);
    TRM_TRY(st, survey(&b), fail);
    TRM_TRY(st, make_opens(&b), fail);
    for (int n = 0; n < s->graph->node_count; n++)
        TRM_TRY(st, make_step(&b, n), fail);
    for (int i = 0; i < p->open_count; i++)
        make_later(p, &p->opens[i]);
    *problem_out = p;
    return TRM_OK;

fail:
    trmi_problem_destroy(p);
    return st;
}

void trmi_problem_destroy(trmi_problem *p)
{
    if (p == NULL)
        return;
    trm_arena_destroy(p->arena);
    trm_free(p);
}

double trmi_problem_price(trmi_problem *p, trmi_open *o, uint32_t mask, int want,
                          const trmi_price *price)
{
    double *us;
    int from;

    if ((mask >> want & 1) != 0)
        return 0;
    if (o->constant)
        return price->byte * o->bytes[want];
    from = p->from[mask][want];
    if (from == TRMI_FROM_NONE)
        return INFINITY;
    us = &o->change[from][want];
    if (*us < 0)
        *us = p->costs->change_us(p->costs->ctx, p->s, o->value,
                                  (trm_change){(trm_form)from, (trm_op)p->op[mask][want]},
                                  (trm_form)want);
    return price->us * *us;
}

uint32_t trmi_problem_after(const trmi_problem *p, const trmi_open *o, uint32_t mask, int want)
{
    if (o->constant || (mask >> want & 1) != 0)
        return mask | 1U << want;
    return trmi_form_after(mask, (trm_op)p->op[mask][want], (trm_form)want);
}

/* The search for the worst continuation: what is still to be wanted decides, and whether the whole
 * form has come into being on the way. */
#define WORST_FORMS 6

typedef struct worst {
    trmi_problem *p;
    trmi_open *o;
    const trmi_price *price;
    int forms[WORST_FORMS], count;
    bool known[4 << WORST_FORMS];
    double memo[4 << WORST_FORMS];
} worst;

/* left: bit i: forms[i] may still be wanted. */
static double worst_of(worst *w, uint32_t a, uint32_t b, uint32_t left, double at_least)
{
    uint32_t at = left << 2 | (a & 1) << 1 | (b & 1);
    double most = at_least;

    if (w->known[at])
        return w->memo[at];
    for (int i = 0; i < w->count; i++) {
        int f = w->forms[i];
        double pay_a, pay_b, more;

        if ((left >> i & 1) == 0)
            continue;
        pay_b = trmi_problem_price(w->p, w->o, b, f, w->price);
        if (isinf(pay_b))
            continue; /* whatever follows b does not want it */
        pay_a = trmi_problem_price(w->p, w->o, a, f, w->price);
        if (isinf(pay_a))
            return INFINITY;
        more = pay_a - pay_b +
               worst_of(w, trmi_problem_after(w->p, w->o, a, f),
                        trmi_problem_after(w->p, w->o, b, f), left & ~(1U << i), 0);
        most = more > most ? more : most;
    }
    w->known[at] = true;
    w->memo[at] = most;
    return most;
}

double trmi_problem_extra(trmi_problem *p, trmi_open *o, uint32_t a, uint32_t b, uint32_t later,
                          const trmi_price *price)
{
    worst w = {.p = p, .o = o, .price = price};
    /* what both have is free for both, and may be all that is wanted */
    double at_least = (later & a & b) != 0 ? 0 : -INFINITY;

    if (a == b)
        return 0;
    later &= ~(a & b);
    if (__builtin_popcount(later) > WORST_FORMS)
        return (a & b) == b ? 0 : INFINITY;
    for (int f = 0; f < TRM_FORM_COUNT; f++)
        if ((later >> f & 1) != 0)
            w.forms[w.count++] = f;
    return worst_of(&w, a, b, (1U << w.count) - 1, at_least);
}

uint32_t trmi_problem_lean(trmi_problem *p, trmi_open *o, uint32_t mask, uint32_t later,
                           const trmi_price *price)
{
    if (o->constant)
        return mask & later;
    for (int f = 0; f < TRM_FORM_COUNT; f++) {
        uint32_t less = mask & ~(1U << f);
        bool same = less != mask && less != 0;

        for (int w = 0; same && w < TRM_FORM_COUNT; w++)
            if ((later >> w & 1) != 0 && trmi_problem_price(p, o, less, w, price) !=
                                             trmi_problem_price(p, o, mask, w, price))
                same = false;
        if (same)
            mask = less;
    }
    return mask;
}
