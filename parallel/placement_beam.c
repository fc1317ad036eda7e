/* One run of the placement search's dynamic program at given prices.
 *
 * A state is the mask of forms of each open value that is alive; between two nodes only the
 * cheapest way to a state is kept. A state B is also dropped where another state A can do whatever
 * B will do for no more: cost(A) plus, for each value, the most that A's forms may have to pay
 * beyond B's (trmi_problem_extra) is at most cost(B). That is exact, and it is what keeps states
 * few where many values are alive: a DenseNet block has up to 24. What is left beyond the beam goes
 * by cost. */
#include "parallel/placement_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Cheapest states that others are compared with, while there are few and when there are many: the
 * rest rarely dominates anything. DenseNet-121 at 4 ranks, beam 512: 8 give the same plan as 48 in
 * a quarter of the time (docs/measurements/2026-11-21-placement.md). */
#define DOMINATORS 48
#define DOMINATORS_MANY 8
#define MANY 512
/* A network may need many states for a while (YOLO at its heads: 2,600); one that needs them all
 * along (DenseNet) gets them for SPREE states in all and goes on with a narrow beam. */
#define SPREE 65536
#define NARROW 512
#define LANES 4      /* masks compared at a time: the width of keys is a multiple */
#define EXTRAS 65536 /* remembered answers of trmi_problem_extra; a power of two */

typedef struct states {
    int count, max;
    uint16_t *keys; /* [max][width] */
    double *cost;   /* [max] */
} states;

typedef struct origin {
    int parent, choice;
} origin;

typedef struct ranked {
    double cost;
    int state;
} ranked;

typedef struct run {
    trmi_problem *p;
    const trmi_price *price;
    int beam, width;
    int64_t spree;  /* states of steps that kept more than a narrow beam */
    int *slot;      /* [open_count] place in the key, or -1: not part of it */
    int *slot_open; /* [width] who has it now, or -1 */
    int *done;      /* [open_count] readers behind us */
    states now, next;
    origin *next_origin; /* [next.max] */
    int *table;          /* hash: index into next or -1 */
    int table_size;
    uint16_t *scratch; /* one key */
    origin *trail;     /* of every kept state of every step */
    size_t trail_count, trail_max;
    size_t *trail_step; /* [node_count] where each step begins; SIZE_MAX: no decision there */
    struct {
        uint64_t key;
        double extra;
    } extras[EXTRAS];
    ranked *order; /* of next */
    bool exact;
} run;

static bool has_slot(const run *r, const trmi_open *o)
{
    return !o->constant || r->price->byte > 0;
}

static int last_step(const trmi_open *o)
{
    return o->reader_count > 0 ? o->readers[o->reader_count - 1] : -1;
}

/* Gives every open value a place in the key for its life; width: how many are alive at most. */
static trm_status give_slots(run *r)
{
    trmi_problem *p = r->p;
    const trm_graph *g = p->s->graph;
    int *free_slots = trm_malloc((size_t)p->open_count + 1, sizeof(int));
    int free_count = 0;

    if (free_slots == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "placement: slots");
    for (int i = 0; i < p->open_count; i++) {
        const trmi_open *o = &p->opens[i];

        r->slot[i] = -1;
        if (has_slot(r, o) && !o->constant && g->values[o->value].producer < 0 &&
            o->reader_count > 0)
            r->slot[i] = r->width++; /* a graph input */
    }
    for (int n = 0; n < g->node_count; n++) {
        const trmi_step *step = &p->steps[n];

        for (int pass = 0; pass < 2; pass++) /* constants begin at their first reader */
            for (int i = 0; i < (pass ? step->write_count : step->read_count); i++) {
                int k = pass ? step->writes[i] : step->reads[i];

                if (r->slot[k] < 0 && has_slot(r, &p->opens[k]))
                    r->slot[k] = free_count > 0 ? free_slots[--free_count] : r->width++;
            }
        for (int pass = 0; pass < 2; pass++)
            for (int i = 0; i < (pass ? step->write_count : step->read_count); i++) {
                int k = pass ? step->writes[i] : step->reads[i];
                bool twice = false;

                for (int j = 0; !pass && j < i; j++)
                    twice = twice || step->reads[j] == k;
                if (!twice && r->slot[k] >= 0 && last_step(&p->opens[k]) <= n)
                    free_slots[free_count++] = r->slot[k];
            }
    }
    trm_free(free_slots);
    return TRM_OK;
}

static trm_status grow_next(run *r, int wanted)
{
    states *s = &r->next;
    uint16_t *keys;
    double *cost;
    origin *o;
    ranked *order;
    int *table;
    int size = 64;

    if (wanted <= s->max)
        return TRM_OK;
    while (size < 2 * wanted)
        size *= 2;
    keys = trm_realloc(s->keys, (size_t)wanted, (size_t)r->width * sizeof(*keys));
    s->keys = keys != NULL ? keys : s->keys;
    cost = trm_realloc(s->cost, (size_t)wanted, sizeof(*cost));
    s->cost = cost != NULL ? cost : s->cost;
    o = trm_realloc(r->next_origin, (size_t)wanted, sizeof(*o));
    r->next_origin = o != NULL ? o : r->next_origin;
    order = trm_realloc(r->order, (size_t)wanted, sizeof(*order));
    r->order = order != NULL ? order : r->order;
    table = trm_realloc(r->table, (size_t)size, sizeof(*table));
    r->table = table != NULL ? table : r->table;
    if (keys == NULL || cost == NULL || o == NULL || order == NULL || table == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "placement: %d states", wanted);
    s->max = wanted;
    r->table_size = size;
    return TRM_OK;
}

static uint64_t hash_key(const uint16_t *key, int width)
{
    uint64_t h = 0x9e3779b97f4a7c15U;

    for (int i = 0; i < width; i++) {
        h = (h ^ key[i]) * 0xff51afd7ed558ccdU;
        h ^= h >> 32;
    }
    return h;
}

static void insert(run *r, const uint16_t *key, double cost, origin from)
{
    states *s = &r->next;
    size_t bytes = (size_t)r->width * sizeof(*key);
    uint64_t at = hash_key(key, r->width);

    for (;; at++) {
        int *entry = &r->table[at & (uint64_t)(r->table_size - 1)];

        if (*entry < 0) {
            *entry = s->count;
            memcpy(s->keys + (size_t)s->count * (size_t)r->width, key, bytes);
            s->cost[s->count] = cost;
            r->next_origin[s->count++] = from;
            return;
        }
        if (memcmp(s->keys + (size_t)*entry * (size_t)r->width, key, bytes) == 0) {
            if (cost < s->cost[*entry]) {
                s->cost[*entry] = cost;
                r->next_origin[*entry] = from;
            }
            return;
        }
    }
}

/* What values this node touches, after it: dead ones leave the key, the others keep only forms
 * that matter. Pays for outputs of the graph that nobody reads any more. */
static double settle(run *r, const trmi_step *step, uint16_t *key)
{
    double cost = 0;

    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < (pass ? step->write_count : step->read_count); i++) {
            int k = pass ? step->writes[i] : step->reads[i];
            trmi_open *o = &r->p->opens[k];
            uint16_t *mask;

            if (r->slot[k] < 0)
                continue;
            mask = &key[r->slot[k]];
            if (*mask == 0)
                continue; /* seen already, as another input */
            if (r->done[k] < o->reader_count) {
                *mask = (uint16_t)trmi_problem_lean(r->p, o, *mask, o->later[r->done[k]], r->price);
            } else {
                if (o->output)
                    cost += trmi_problem_price(r->p, o, *mask, TRM_FORM_WHOLE, r->price);
                *mask = 0;
            }
        }
    return cost;
}

static void expand(run *r, int n, int parent)
{
    const trmi_step *step = &r->p->steps[n];
    const uint16_t *key = r->now.keys + (size_t)parent * (size_t)r->width;

    for (int c = 0; c < step->choice_count; c++) {
        const trmi_choice *choice = &step->choices[c];
        double cost =
            r->now.cost[parent] + r->price->us * choice->us + r->price->byte * choice->bytes;

        memcpy(r->scratch, key, (size_t)r->width * sizeof(*key));
        for (int i = 0; i < step->read_count; i++) {
            trmi_open *o = &r->p->opens[step->reads[i]];
            int slot = r->slot[step->reads[i]];

            if (slot < 0)
                continue;
            cost += trmi_problem_price(r->p, o, r->scratch[slot], choice->wants[i], r->price);
            r->scratch[slot] =
                (uint16_t)trmi_problem_after(r->p, o, r->scratch[slot], choice->wants[i]);
        }
        for (int i = 0; i < step->write_count; i++)
            r->scratch[r->slot[step->writes[i]]] = (uint16_t)(1U << choice->yields[i]);
        cost += settle(r, step, r->scratch);
        if (!isinf(cost))
            insert(r, r->scratch, cost, (origin){parent, c});
    }
}

static double extra(run *r, int k, uint32_t a, uint32_t b)
{
    trmi_open *o = &r->p->opens[k];
    uint64_t key =
        (((uint64_t)(unsigned)k << 18 ^ (uint64_t)(unsigned)r->done[k]) << 20 | a << 10 | b) + 1;
    size_t at = (size_t)(key * 0x9e3779b97f4a7c15U >> 40) & (EXTRAS - 1);

    if (r->extras[at].key != key) {
        r->extras[at].extra = trmi_problem_extra(r->p, o, a, b, o->later[r->done[k]], r->price);
        r->extras[at].key = key;
    }
    return r->extras[at].extra;
}

static bool dominates(run *r, int a, int b)
{
    const uint16_t *ka = r->next.keys + (size_t)a * (size_t)r->width;
    const uint16_t *kb = r->next.keys + (size_t)b * (size_t)r->width;
    double sum = r->next.cost[a] - r->next.cost[b];

    for (int i = 0; i < r->width; i += LANES) {
        uint64_t wa, wb;

        memcpy(&wa, ka + i, sizeof(wa));
        memcpy(&wb, kb + i, sizeof(wb));
        if (wa == wb)
            continue;
        for (int k = i; k < i + LANES; k++)
            if (ka[k] != kb[k])
                sum += extra(r, r->slot_open[k], ka[k], kb[k]);
        if (isinf(sum))
            return false;
    }
    return sum <= 0;
}

static int by_cost(const void *x, const void *y)
{
    const ranked *a = x, *b = y;

    return a->cost < b->cost ? -1 : a->cost > b->cost ? 1 : a->state - b->state;
}

/* From `next`, deduplicated, to `now`: without dominated states, in the order of cost, at most a
 * beam of them. */
static trm_status keep_best(run *r, int n)
{
    states *from = &r->next, *to = &r->now;
    size_t width = (size_t)r->width;
    int kept = 0, dominators = from->count <= MANY ? DOMINATORS : DOMINATORS_MANY;
    int beam = r->spree < SPREE || r->beam < NARROW ? r->beam : NARROW;

    for (int i = 0; i < from->count; i++)
        r->order[i] = (ranked){from->cost[i], i};
    qsort(r->order, (size_t)from->count, sizeof(*r->order), by_cost);
    for (int i = 0; i < from->count; i++) {
        int b = r->order[i].state;
        bool dominated = false;

        for (int j = 0; !dominated && j < kept && j < dominators; j++)
            dominated = dominates(r, r->order[j].state, b);
        if (dominated)
            continue;
        if (kept == beam) {
            r->exact = false;
            break;
        }
        r->order[kept++].state = b;
    }
    if (kept > to->max) {
        uint16_t *keys = trm_realloc(to->keys, (size_t)kept, width * sizeof(*keys));
        double *cost;

        to->keys = keys != NULL ? keys : to->keys;
        cost = trm_realloc(to->cost, (size_t)kept, sizeof(*cost));
        to->cost = cost != NULL ? cost : to->cost;
        if (keys == NULL || cost == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "placement: %d states", kept);
        to->max = kept;
    }
    if (r->trail_count + (size_t)kept > r->trail_max) {
        size_t max = 2 * r->trail_max + (size_t)kept;
        origin *trail = trm_realloc(r->trail, max, sizeof(*trail));

        if (trail == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "placement: trail of %zu states", max);
        r->trail = trail;
        r->trail_max = max;
    }
    r->spree += kept > NARROW ? kept : 0;
    r->trail_step[n] = r->trail_count;
    for (int i = 0; i < kept; i++) {
        size_t k = (size_t)r->order[i].state;

        memcpy(to->keys + (size_t)i * width, from->keys + k * width, width * sizeof(uint16_t));
        to->cost[i] = from->cost[k];
        r->trail[r->trail_count++] = r->next_origin[k];
    }
    to->count = kept;
    return TRM_OK;
}

/* Readers passed, and who has each slot, as after node n. */
static void advance(run *r, int n)
{
    const trmi_step *step = &r->p->steps[n];

    for (int i = 0; i < step->read_count; i++) {
        int k = step->reads[i];
        const trmi_open *o = &r->p->opens[k];

        if (r->done[k] < o->reader_count && o->readers[r->done[k]] == n)
            r->done[k]++;
        if (r->slot[k] >= 0)
            r->slot_open[r->slot[k]] = k;
    }
    for (int i = 0; i < step->write_count; i++)
        if (r->slot[step->writes[i]] >= 0)
            r->slot_open[r->slot[step->writes[i]]] = step->writes[i];
}

static trm_status step_node(run *r, int n)
{
    const trmi_step *step = &r->p->steps[n];
    bool quiet = step->choice_count == 1 && step->write_count == 0;

    for (int i = 0; i < step->read_count; i++)
        quiet = quiet && r->slot[step->reads[i]] < 0;
    advance(r, n);
    if (quiet) { /* nothing to decide, nothing changes but what is paid */
        const trmi_choice *c = &step->choices[0];

        for (int i = 0; i < r->now.count; i++)
            r->now.cost[i] += r->price->us * c->us + r->price->byte * c->bytes;
        r->trail_step[n] = SIZE_MAX;
        return TRM_OK;
    }
    TRM_CHECK(grow_next(r, r->now.count * step->choice_count));
    r->next.count = 0;
    memset(r->table, -1, (size_t)r->table_size * sizeof(*r->table));
    for (int i = 0; i < r->now.count; i++)
        expand(r, n, i);
    if (r->next.count == 0)
        return trm_fail(TRM_ERR_INTERNAL, "placement: no way to give node '%s' what it wants",
                        r->p->s->graph->nodes[n].name);
    return keep_best(r, n);
}

static trm_status start(run *r)
{
    trmi_problem *p = r->p;
    const trm_graph *g = p->s->graph;
    size_t opens = (size_t)p->open_count + 1;

    r->slot = trm_malloc(opens, sizeof(int));
    r->done = trm_calloc(opens, sizeof(int));
    r->trail_step = trm_malloc((size_t)g->node_count + 1, sizeof(*r->trail_step));
    if (r->slot == NULL || r->done == NULL || r->trail_step == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "placement: %d nodes", g->node_count);
    r->width = 1; /* slot 0 is never used: a graph may have no open values */
    TRM_CHECK(give_slots(r));
    r->width = (r->width + LANES - 1) / LANES * LANES;
    r->scratch = trm_calloc((size_t)r->width, sizeof(*r->scratch));
    r->slot_open = trm_malloc((size_t)r->width, sizeof(int));
    r->now.keys = trm_calloc((size_t)r->width, sizeof(uint16_t));
    r->now.cost = trm_calloc(1, sizeof(double));
    if (r->scratch == NULL || r->slot_open == NULL || r->now.keys == NULL || r->now.cost == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "placement: states of %d values", r->width);
    r->now.count = r->now.max = 1;
    for (int i = 0; i < p->open_count; i++) {
        const trmi_open *o = &p->opens[i];

        if (r->slot[i] >= 0 && !o->constant && g->values[o->value].producer < 0) {
            r->now.keys[r->slot[i]] = 1U << TRM_FORM_WHOLE;
            r->slot_open[r->slot[i]] = i;
        }
    }
    return TRM_OK;
}

static void follow_back(const run *r, int *strategy_out)
{
    int at = 0; /* the cheapest */

    for (int n = r->p->s->graph->node_count - 1; n >= 0; n--) {
        const trmi_step *step = &r->p->steps[n];
        int choice = 0;

        if (r->trail_step[n] != SIZE_MAX) {
            const origin *o = &r->trail[r->trail_step[n] + (size_t)at];

            choice = o->choice;
            at = o->parent;
        }
        strategy_out[n] = step->choices[choice].strategy;
    }
}

trm_status trmi_problem_run(trmi_problem *p, const trmi_price *price, int beam, int *strategy_out,
                            double *sum_out, bool *exact_out)
{
    run *r = trm_calloc(1, sizeof(*r));
    trm_status st;

    if (r == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "placement: host object");
    r->p = p;
    r->price = price;
    r->beam = beam;
    r->exact = true;
    TRM_TRY(st, start(r), done);
    for (int n = 0; n < p->s->graph->node_count; n++)
        TRM_TRY(st, step_node(r, n), done);
    follow_back(r, strategy_out);
    *sum_out = r->now.cost[0];
    *exact_out = r->exact;

done:
    trm_free(r->slot);
    trm_free(r->slot_open);
    trm_free(r->done);
    trm_free(r->now.keys);
    trm_free(r->now.cost);
    trm_free(r->next.keys);
    trm_free(r->next.cost);
    trm_free(r->next_origin);
    trm_free(r->table);
    trm_free(r->scratch);
    trm_free(r->trail);
    trm_free(r->trail_step);
    trm_free(r->order);
    trm_free(r);
    return st;
}
