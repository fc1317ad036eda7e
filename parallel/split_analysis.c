/* Which dims can be dealt out, and in which stretches.
 *
 * A dim starts as one stretch of single elements. An axis asks that the dims that carry it are cut
 * alike, so taking an axis in refines both: borders are united, units become the least common
 * multiple, and what changed is handed on to the other axes of those dims until nothing changes
 * (borders and units only ever get finer and larger, so this ends). An axis that would leave some
 * stretch with fewer units than ranks, or a dim in too many stretches, is taken out again with all
 * it did, and dropped: it excludes axes that were taken before it. So order is preference: axes
 * that leave dims as they are, then those that cut or scale dims, then those of merged dims
 * (Reshape and the like), where mostly one of several can be had; by weight, which is handed from
 * the operators that compute to the dims that lead there. */
#include "parallel/sharding_impl.h"

#include <stdlib.h>
#include <string.h>

#define REFINEMENTS_MAX 100000 /* of one axis taken in: an axis that costs more is left out */

typedef struct place {
    int node, axis;
} place;

typedef struct undo {
    trm_split *split;
    trm_split old;
} undo;

typedef struct analysis {
    trm_sharding *s;
    trm_arena *arena; /* scratch */
    int *first;       /* [value_count + 1] into `touching` */
    int *touching;    /* nodes that read or make a value */
    bool **taken;     /* [node][axis] */
    bool **queued;
    unsigned char (*weights)[TRM_RANK_MAX]; /* [value] */
    place *queue;
    int queue_count, queue_max;
    undo *log;
    int log_count, log_max;
} analysis;

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "analysis of splits");
}

static int64_t gcd(int64_t a, int64_t b)
{
    while (b != 0) {
        int64_t r = a % b;

        a = b;
        b = r;
    }
    return a;
}

/* ---- what touches what ---- */

typedef trm_status (*visit)(void *ctx, int value, trm_axis_dim *dim);

/* Every dim that carries an axis. */
static trm_status each_carried(const trm_graph *g, int node, trm_axis *axis, visit f, void *ctx)
{
    const trm_node *n = &g->nodes[node];

    for (int i = 0; i < n->input_count; i++)
        if (n->inputs[i] != TRM_NO_VALUE && axis->in[i].dim >= 0)
            TRM_CHECK(f(ctx, n->inputs[i], &axis->in[i]));
    for (int i = 0; i < n->output_count; i++)
        if (n->outputs[i] != TRM_NO_VALUE && axis->out[i].dim >= 0)
            TRM_CHECK(f(ctx, n->outputs[i], &axis->out[i]));
    return TRM_OK;
}

static trm_status index_values(analysis *a)
{
    const trm_graph *g = a->s->graph;
    int total = 0;

    a->first = (int *)trm_arena_alloc(a->arena, (size_t)g->value_count + 2, sizeof(int));
    for (int n = 0; n < g->node_count; n++)
        total += g->nodes[n].input_count + g->nodes[n].output_count;
    a->touching = (int *)trm_arena_alloc(a->arena, (size_t)total + 1, sizeof(int));
    if (a->first == NULL || a->touching == NULL)
        return no_memory();
    for (int fill = 0; fill < 2; fill++) { /* count, then place */
        for (int n = 0; n < g->node_count; n++) {
            const trm_node *node = &g->nodes[n];

            for (int i = 0; i < node->input_count + node->output_count; i++) {
                int v =
                    i < node->input_count ? node->inputs[i] : node->outputs[i - node->input_count];

                if (v == TRM_NO_VALUE)
                    continue;
                if (fill)
                    a->touching[a->first[v + 1]] = n;
                a->first[v + (fill ? 1 : 2)]++;
            }
        }
        for (int v = 0; v < g->value_count && !fill; v++)
            a->first[v + 2] += a->first[v + 1];
    }
    return TRM_OK;
}

/* ---- partitions of an axis ---- */

typedef struct cuts {
    int64_t extent;
    int count; /* stretches */
    int64_t end[TRM_SPLIT_STRETCHES_MAX];
    int64_t units_of[TRM_SPLIT_STRETCHES_MAX];
} cuts;

static bool cut_at(cuts *c, int64_t at)
{
    int i = 0;

    if (at <= 0 || at >= c->extent)
        return true;
    while (c->end[i] < at)
        i++;
    if (c->end[i] == at)
        return true;
    if (c->count == TRM_SPLIT_STRETCHES_MAX)
        return false;
    memmove(&c->end[i + 1], &c->end[i], (size_t)(c->count - i) * sizeof(int64_t));
    memmove(&c->units_of[i + 1], &c->units_of[i], (size_t)(c->count - i) * sizeof(int64_t));
    c->end[i] = at;
    c->count++;
    return true;
}

/* Stretch [begin, end) of single pieces of `unit`. */
static bool cut_stretch(cuts *c, int64_t begin, int64_t end, int64_t unit)
{
    int64_t at = 0;

    if (!cut_at(c, begin) || !cut_at(c, end))
        return false;
    for (int i = 0; i < c->count; at = c->end[i++])
        if (at >= begin && c->end[i] <= end)
            c->units_of[i] = c->units_of[i] / gcd(c->units_of[i], unit) * unit;
    return true;
}

/* The partition of one carrying dim, seen from the axis. */
static bool cut_by_dim(cuts *c, const trm_split *split, const trm_axis_dim *d)
{
    int64_t whole = d->length * d->scale, at = 0; /* of one repeat */

    if (!cut_at(c, d->offset) || !cut_at(c, d->offset + d->length))
        return false;
    for (int i = 0; i < split->count; i++) {
        int64_t unit = split->stretches[i].unit, end = at + split->stretches[i].units * unit;
        int64_t axis_unit = unit / gcd(unit, d->scale); /* both grids met */

        while (at < end) {
            int64_t base = at / whole * whole, to = end < base + whole ? end : base + whole;

            if ((at - base) % d->scale != 0 || (to - base) % d->scale != 0 || (to - at) % unit != 0)
                return false;
            if (!cut_stretch(c, d->offset + (at - base) / d->scale,
                             d->offset + (to - base) / d->scale, axis_unit))
                return false;
            at = to;
        }
    }
    return true;
}

typedef struct gathering {
    analysis *a;
    cuts *c;
    bool ok;
} gathering;

static trm_status gather_dim(void *ctx, int value, trm_axis_dim *d)
{
    gathering *t = ctx;
    const trm_split *split = &t->a->s->splits[value][d->dim];

    t->ok = t->ok && split->count > 0 && cut_by_dim(t->c, split, d);
    return TRM_OK;
}

static bool enough(const cuts *c, int ranks)
{
    int64_t at = 0;

    for (int i = 0; i < c->count; at = c->end[i++])
        if ((c->end[i] - at) % c->units_of[i] != 0 || (c->end[i] - at) / c->units_of[i] < ranks)
            return false;
    return true;
}

/* ---- handing it back to the dims ---- */

static trm_status remember(analysis *a, trm_split *split)
{
    if (a->log_count == a->log_max) {
        int max = a->log_max == 0 ? 64 : 2 * a->log_max;
        undo *grown = trm_realloc(a->log, (size_t)max, sizeof(undo));

        if (grown == NULL)
            return no_memory();
        a->log = grown;
        a->log_max = max;
    }
    a->log[a->log_count++] = (undo){split, *split};
    return TRM_OK;
}

static trm_status enqueue(analysis *a, int node, int axis)
{
    if (a->queued[node][axis])
        return TRM_OK;
    if (a->queue_count == a->queue_max) {
        int max = a->queue_max == 0 ? 64 : 2 * a->queue_max;
        place *grown = trm_realloc(a->queue, (size_t)max, sizeof(place));

        if (grown == NULL)
            return no_memory();
        a->queue = grown;
        a->queue_max = max;
    }
    a->queue[a->queue_count++] = (place){node, axis};
    a->queued[node][axis] = true;
    return TRM_OK;
}

static bool carries(const trm_node *n, const trm_axis *axis, int value, int dim)
{
    for (int i = 0; i < n->input_count; i++)
        if (n->inputs[i] == value && axis->in[i].dim == dim)
            return true;
    for (int i = 0; i < n->output_count; i++)
        if (n->outputs[i] == value && axis->out[i].dim == dim)
            return true;
    return false;
}

/* The dim's partition as the axis has it; false: too many stretches. */
static bool pull(const cuts *c, const trm_axis_dim *d, trm_stretch *out, int *count_out)
{
    int count = 0;

    for (int64_t r = 0; r < d->repeat; r++) {
        int64_t at = 0;

        for (int i = 0; i < c->count; at = c->end[i++]) {
            if (at < d->offset || c->end[i] > d->offset + d->length)
                continue;
            if (count == TRM_SPLIT_STRETCHES_MAX)
                return false;
            out[count++] =
                (trm_stretch){(c->end[i] - at) / c->units_of[i], c->units_of[i] * d->scale};
        }
    }
    *count_out = count;
    return true;
}

static trm_status give_dim(void *ctx, int value, trm_axis_dim *d)
{
    gathering *t = ctx;
    analysis *a = t->a;
    trm_split *split = &a->s->splits[value][d->dim];
    trm_stretch made[TRM_SPLIT_STRETCHES_MAX], *kept;
    int count;

    t->ok = t->ok && pull(t->c, d, made, &count);
    if (!t->ok || (count == split->count &&
                   memcmp(made, split->stretches, (size_t)count * sizeof(trm_stretch)) == 0))
        return TRM_OK;
    kept = (trm_stretch *)trm_arena_alloc(a->s->arena, (size_t)count, sizeof(trm_stretch));
    if (kept == NULL)
        return no_memory();
    memcpy(kept, made, (size_t)count * sizeof(trm_stretch));
    TRM_CHECK(remember(a, split));
    *split = (trm_split){count, kept};
    for (int i = a->first[value]; i < a->first[value + 1]; i++) {
        int n = a->touching[i];

        for (int k = 0; k < a->s->axes[n].axis_count; k++)
            if (a->taken[n][k] &&
                carries(&a->s->graph->nodes[n], &a->s->axes[n].axes[k], value, d->dim))
                TRM_CHECK(enqueue(a, n, k));
    }
    return TRM_OK;
}

static trm_status refine(analysis *a, place p, bool *ok_out)
{
    trm_axis *axis = &a->s->axes[p.node].axes[p.axis];
    cuts c = {.extent = axis->extent, .count = 1};
    gathering t = {.a = a, .c = &c, .ok = true};

    c.end[0] = axis->extent;
    c.units_of[0] = axis->unit;
    TRM_CHECK(each_carried(a->s->graph, p.node, axis, gather_dim, &t));
    t.ok = t.ok && enough(&c, a->s->ranks) && (c.count == 1 || !axis->contiguous);
    if (t.ok)
        TRM_CHECK(each_carried(a->s->graph, p.node, axis, give_dim, &t));
    *ok_out = t.ok;
    return TRM_OK;
}

/* Takes an axis in, with all that follows, or leaves everything as it was. */
static trm_status take(analysis *a, place p)
{
    bool ok = true;
    trm_status st = TRM_OK;

    a->log_count = a->queue_count = 0;
    a->taken[p.node][p.axis] = true;
    TRM_CHECK(enqueue(a, p.node, p.axis));
    for (int i = 0; i < a->queue_count; i++) {
        place next = a->queue[i];

        a->queued[next.node][next.axis] = false;
        if (ok && st == TRM_OK)
            st = refine(a, next, &ok);
        ok = ok && i < REFINEMENTS_MAX;
    }
    if (!ok) {
        while (a->log_count > 0) {
            undo *u = &a->log[--a->log_count];

            *u->split = u->old;
        }
        a->taken[p.node][p.axis] = false;
    }
    return st;
}

/* ---- order ---- */

typedef struct candidate {
    place at;
    int phase, weight;
    int64_t extent;
} candidate;

static int by_preference(const void *pa, const void *pb)
{
    const candidate *a = pa, *b = pb;

    if (a->phase != b->phase)
        return a->phase < b->phase ? -1 : 1;
    if (a->weight != b->weight)
        return a->weight > b->weight ? -1 : 1;
    if (a->phase == 2 && a->extent != b->extent)
        return a->extent > b->extent ? -1 : 1;
    if (a->at.node != b->at.node)
        return a->at.node < b->at.node ? -1 : 1;
    return a->at.axis < b->at.axis ? -1 : a->at.axis > b->at.axis;
}

typedef struct looking {
    analysis *a;
    bool scaled, cut, repeated;
    int weight;
    int64_t extent;
    bool changed;
} looking;

static trm_status look(void *ctx, int value, trm_axis_dim *d)
{
    looking *l = ctx;
    unsigned char w = l->a->weights[value][d->dim];

    l->scaled |= d->scale > 1;
    l->repeated |= d->repeat > 1;
    l->cut |= d->length != l->extent;
    if (d->repeat == 1 && w > l->weight)
        l->weight = w;
    return TRM_OK;
}

static trm_status raise_weight(void *ctx, int value, trm_axis_dim *d)
{
    looking *l = ctx;
    unsigned char *w = &l->a->weights[value][d->dim];

    if (d->scale == 1 && d->repeat == 1 && *w < l->weight) {
        *w = (unsigned char)l->weight;
        l->changed = true;
    }
    return TRM_OK;
}

static looking look_at(analysis *a, place p)
{
    trm_axis *axis = &a->s->axes[p.node].axes[p.axis];
    looking l = {.a = a, .weight = axis->weight, .extent = axis->extent};

    /* cannot fail: look() does not */
    if (each_carried(a->s->graph, p.node, axis, look, &l) != TRM_OK)
        l.weight = 0;
    return l;
}

/* Weights reach along axes that leave dims as they are, and from a merged dim to its outermost
 * factor; forth and back over the nodes until they have (few rounds: order is topological). */
static trm_status spread_weights(analysis *a)
{
    const trm_graph *g = a->s->graph;
    bool changed = true;

    for (int round = 0; changed && round < 16; round++) {
        changed = false;
        for (int i = 0; i < g->node_count; i++) {
            int n = round % 2 == 0 ? g->node_count - 1 - i : i;

            for (int k = 0; k < a->s->axes[n].axis_count; k++) {
                looking l = look_at(a, (place){n, k});

                if (l.weight > 0)
                    TRM_CHECK(each_carried(g, n, &a->s->axes[n].axes[k], raise_weight, &l));
                changed |= l.changed;
            }
        }
    }
    return TRM_OK;
}

static trm_status take_all(analysis *a)
{
    const trm_sharding *s = a->s;
    int count = 0, n_all = 0;
    candidate *list;

    for (int n = 0; n < s->graph->node_count; n++)
        n_all += s->axes[n].axis_count;
    list = (candidate *)trm_arena_alloc(a->arena, (size_t)n_all + 1, sizeof(candidate));
    if (list == NULL)
        return no_memory();
    for (int n = 0; n < s->graph->node_count; n++)
        for (int k = 0; k < s->axes[n].axis_count; k++) {
            looking l = look_at(a, (place){n, k});
            bool merges = l.scaled && s->axes[n].axes[k].weight == 0;

            list[count++] = (candidate){.at = {n, k},
                                        .phase = l.repeated || merges ? 2
                                                 : l.scaled || l.cut  ? 1
                                                                      : 0,
                                        .weight = l.weight,
                                        .extent = l.extent};
        }
    qsort(list, (size_t)count, sizeof(*list), by_preference);
    for (int i = 0; i < count; i++)
        TRM_CHECK(take(a, list[i].at));
    return TRM_OK;
}

/* Axes that were not taken leave the lists. */
static void drop_others(analysis *a)
{
    for (int n = 0; n < a->s->graph->node_count; n++) {
        trm_axes *axes = &a->s->axes[n];
        int kept = 0;

        for (int k = 0; k < axes->axis_count; k++)
            if (a->taken[n][k])
                axes->axes[kept++] = axes->axes[k];
        axes->axis_count = kept;
    }
}

static trm_status start(analysis *a)
{
    trm_sharding *s = a->s;
    const trm_graph *g = s->graph;

    for (int v = 0; v < g->value_count; v++) {
        const trm_tensor *t = &g->values[v].desc;

        for (int d = 0; d < t->rank; d++) {
            trm_stretch *one;

            if (t->dims[d] < s->ranks || t->dims[d] < 2)
                continue;
            one = (trm_stretch *)trm_arena_alloc(s->arena, 1, sizeof(*one));
            if (one == NULL)
                return no_memory();
            *one = (trm_stretch){t->dims[d], 1};
            s->splits[v][d] = (trm_split){1, one};
        }
    }
    a->taken = (bool **)trm_arena_alloc(a->arena, (size_t)g->node_count + 1, sizeof(bool *));
    a->queued = (bool **)trm_arena_alloc(a->arena, (size_t)g->node_count + 1, sizeof(bool *));
    a->weights = (unsigned char(*)[TRM_RANK_MAX])trm_arena_alloc(
        a->arena, (size_t)g->value_count + 1, sizeof(*a->weights));
    if (a->taken == NULL || a->queued == NULL || a->weights == NULL)
        return no_memory();
    for (int n = 0; n < g->node_count; n++) {
        size_t count = (size_t)s->axes[n].axis_count + 1;

        a->taken[n] = (bool *)trm_arena_alloc(a->arena, count, sizeof(bool));
        a->queued[n] = (bool *)trm_arena_alloc(a->arena, count, sizeof(bool));
        if (a->taken[n] == NULL || a->queued[n] == NULL)
            return no_memory();
    }
    return index_values(a);
}

trm_status trmi_split_analysis(trm_sharding *s)
{
    analysis a = {.s = s};
    trm_status st;

    TRM_CHECK(trm_arena_create(0, &a.arena));
    TRM_TRY(st, start(&a), done);
    TRM_TRY(st, spread_weights(&a), done);
    TRM_TRY(st, take_all(&a), done);
    drop_others(&a);
done:
    trm_free(a.queue);
    trm_free(a.log);
    trm_arena_destroy(a.arena);
    return st;
}
