/* Pipeline cuts by dynamic programming over node positions.
 *
 * Twice: the first pass finds the least possible slowest stage, the second the least sum among the
 * cuts that reach it (one pass with pairs would not be exact: a prefix with a slower stage may have
 * the better sum once a later stage is slower still). A value that crosses several cuts is handed
 * on at each of them. */
#include "parallel/stages.h"

#include "parallel/planner_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef enum goal { GOAL_SLOWEST, GOAL_SUM, GOAL_BYTES } goal;

/* A constant that a node reads, and the next node that reads it too. */
struct reading {
    size_t bytes;
    int next;
};

struct cutter {
    const trm_graph *g;
    const trm_stage_costs *costs;
    int nodes, count;
    size_t limit;     /* of a stage's weights; SIZE_MAX: none */
    double bound;     /* of a stage, GOAL_SUM */
    size_t *crossing; /* [nodes + 1] bytes of what is made before node p and read from p on */
    double *send_us;  /* [nodes + 1] 0 at both ends */
    int *first;       /* [nodes + 1] into readings */
    struct reading *readings;
    double *best; /* [count + 1][nodes + 1] of the first j nodes in s stages */
    int *from;    /* [count + 1][nodes + 1] where the last of them begins */
    int *scratch; /* [value_count] */
};

static bool is_constant(const trm_graph *g, int v)
{
    return v != TRM_NO_VALUE && trm_graph_is_constant(g, v);
}

static trm_status allocate(struct cutter *c)
{
    size_t positions = (size_t)c->nodes + 1, inputs = 1, table = 0;

    for (int n = 0; n < c->nodes; n++)
        inputs += (size_t)c->g->nodes[n].input_count;
    if (!trm_mul_ok(positions, (size_t)c->count + 1, &table))
        return trm_fail(TRM_ERR_NO_MEMORY, "stages of %d nodes", c->nodes);
    c->crossing = trm_calloc(positions, sizeof(size_t));
    c->send_us = trm_calloc(positions, sizeof(double));
    c->first = trm_calloc(positions, sizeof(int));
    c->readings = trm_calloc(inputs, sizeof(struct reading));
    c->best = trm_calloc(table, sizeof(double));
    c->from = trm_calloc(table, sizeof(int));
    c->scratch = trm_calloc((size_t)c->g->value_count + 1, sizeof(int));
    if (c->crossing == NULL || c->send_us == NULL || c->first == NULL || c->readings == NULL ||
        c->best == NULL || c->from == NULL || c->scratch == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "stages of %d nodes", c->nodes);
    return TRM_OK;
}

static void cutter_fini(struct cutter *c)
{
    trm_free(c->crossing);
    trm_free(c->send_us);
    trm_free(c->first);
    trm_free(c->readings);
    trm_free(c->best);
    trm_free(c->from);
    trm_free(c->scratch);
}

/* crossing[p] and its price: every value adds to the cuts between its producer and its last
 * reader. Graph inputs are there from the start; outputs go to the leader by their own way. */
static void measure_crossing(struct cutter *c)
{
    const trm_graph *g = c->g;
    int *last = c->scratch;

    for (int v = 0; v < g->value_count; v++)
        last[v] = -1;
    for (int n = 0; n < c->nodes; n++)
        for (int i = 0; i < g->nodes[n].input_count; i++)
            if (g->nodes[n].inputs[i] != TRM_NO_VALUE)
                last[g->nodes[n].inputs[i]] = n;
    /* differences first (unsigned wrap undoes itself), then their running sum */
    for (int v = 0; v < g->value_count; v++) {
        int made = g->values[v].producer;

        if (is_constant(g, v) || last[v] <= made)
            continue;
        c->crossing[made + 1] += c->costs->value_bytes[v];
        if (last[v] < c->nodes)
            c->crossing[last[v] + 1] -= c->costs->value_bytes[v];
    }
    for (int p = 1; p <= c->nodes; p++)
        c->crossing[p] += c->crossing[p - 1];
    for (int p = 1; p < c->nodes; p++)
        c->send_us[p] = c->costs->message_us(c->costs->ctx, c->crossing[p]);
}

static void list_readings(struct cutter *c)
{
    const trm_graph *g = c->g;
    int *next = c->scratch, count = 0;

    for (int n = 0; n < c->nodes; n++) {
        c->first[n] = count;
        for (int i = 0; i < g->nodes[n].input_count; i++)
            if (is_constant(g, g->nodes[n].inputs[i]))
                count++;
    }
    c->first[c->nodes] = count;
    for (int v = 0; v < g->value_count; v++)
        next[v] = c->nodes;
    for (int n = c->nodes - 1; n >= 0; n--) {
        int at = c->first[n];

        for (int i = 0; i < g->nodes[n].input_count; i++) {
            int v = g->nodes[n].inputs[i];

            if (!is_constant(g, v))
                continue;
            /* read twice by this node: the second reading has no later reader of its own, and is
             * not counted because its next is this node */
            c->readings[at++] =
                (struct reading){.bytes = c->costs->weight_bytes[v], .next = next[v]};
            next[v] = n;
        }
    }
}

/* Constants of node n that no node of [n + 1, end) reads. */
static size_t fresh_bytes(const struct cutter *c, int n, int end)
{
    size_t bytes = 0;

    for (int r = c->first[n]; r < c->first[n + 1]; r++)
        if (c->readings[r].next >= end)
            bytes += c->readings[r].bytes;
    return bytes;
}

/* What waits in front of a stage that begins there. */
static size_t held_messages(const struct cutter *c, int begin)
{
    return begin == 0 ? 0 : (size_t)c->costs->messages * c->crossing[begin];
}

static double *best_at(const struct cutter *c, int stages, int end)
{
    return &c->best[(size_t)stages * ((size_t)c->nodes + 1) + (size_t)end];
}

static int *from_at(const struct cutter *c, int stages, int end)
{
    return &c->from[(size_t)stages * ((size_t)c->nodes + 1) + (size_t)end];
}

/* The worst of what is known for `end`: a stage dearer than that improves nothing. */
static double worst_known(const struct cutter *c, int end)
{
    double worst = 0;

    for (int s = 1; s <= c->count && s <= end; s++) {
        double known = *best_at(c, s, end);

        worst = known > worst ? known : worst;
    }
    return worst;
}

static void cut_before(struct cutter *c, goal want, int end)
{
    double us = 0, worst;
    size_t bytes = 0;
    bool better = false;

    for (int s = 0; s <= c->count; s++)
        *best_at(c, s, end) = s == 0 && end == 0 ? 0 : INFINITY;
    worst = worst_known(c, end);
    for (int begin = end - 1; begin >= 0; begin--) {
        double stage, least;
        size_t held;

        us += c->costs->node_us[begin];
        bytes += fresh_bytes(c, begin, end);
        if (c->costs->node_bytes != NULL)
            bytes += c->costs->node_bytes[begin];
        held = bytes + held_messages(c, begin);
        /* what only grows as the stage does ends the loop, what may shrink skips a beginning */
        least = want == GOAL_BYTES ? (double)bytes : us;
        stage = want == GOAL_BYTES ? (double)held : us + c->send_us[end];
        if ((want != GOAL_BYTES && bytes > c->limit) || (want == GOAL_SUM && least > c->bound) ||
            least > worst)
            break;
        if ((want != GOAL_BYTES && held > c->limit) || (want == GOAL_SUM && stage > c->bound))
            continue;
        for (int s = 1; s <= c->count && s <= begin + 1; s++) {
            double before = *best_at(c, s - 1, begin);
            double all = want == GOAL_SUM ? before + stage : before > stage ? before : stage;

            if (all < *best_at(c, s, end)) { /* ties: the latest cut, behind views and post-ops */
                *best_at(c, s, end) = all;
                *from_at(c, s, end) = begin;
                better = true;
            }
        }
        if (better)
            worst = worst_known(c, end);
        better = false;
    }
}

/* The best value of all nodes in `count` stages; INFINITY: none. */
static double solve(struct cutter *c, goal want)
{
    for (int end = 0; end <= c->nodes; end++)
        cut_before(c, want, end);
    return *best_at(c, c->count, c->nodes);
}

static void read_back(const struct cutter *c, trm_stages *out)
{
    memset(out, 0, sizeof(*out));
    out->count = c->count;
    out->cuts[c->count] = c->nodes;
    for (int s = c->count; s > 0; s--)
        out->cuts[s - 1] = *from_at(c, s, out->cuts[s]);
    for (int s = 0; s < c->count; s++) {
        int end = out->cuts[s + 1];

        for (int n = end - 1; n >= out->cuts[s]; n--) {
            out->stage_us[s] += c->costs->node_us[n];
            out->stage_bytes[s] += fresh_bytes(c, n, end);
        }
        out->stage_us[s] += c->send_us[end];
        out->crossing_bytes[s] = end < c->nodes ? c->crossing[end] : 0;
    }
}

/* The constants that weigh most, as "'a' (50.0 MB), 'b' (20.0 MB)". */
char *trmi_biggest_weights(const trm_graph *g, const size_t *bytes, char *buf, size_t room)
{
    size_t above = SIZE_MAX, used = 0;
    int above_id = -1;

    buf[0] = '\0';
    for (int round = 0; round < 3; round++) {
        char amount[TRMI_BYTES_TEXT];
        int best = -1;

        for (int v = 0; v < g->value_count; v++) {
            bool below = bytes[v] < above || (bytes[v] == above && v > above_id);

            if (is_constant(g, v) && below && (best < 0 || bytes[v] > bytes[best]))
                best = v;
        }
        if (best < 0 || bytes[best] == 0)
            break;
        used += (size_t)snprintf(buf + used, room - used, "%s'%.60s' (%s)", round > 0 ? ", " : "",
                                 g->values[best].name, trmi_bytes_text(bytes[best], amount));
        if (used >= room)
            break;
        above = bytes[best];
        above_id = best;
    }
    return buf;
}

static trm_status too_little_memory(struct cutter *c)
{
    char limit[TRMI_BYTES_TEXT], least[TRMI_BYTES_TEXT], biggest[320];
    double bytes = solve(c, GOAL_BYTES);

    trmi_bytes_text(c->costs->memory_bytes, limit);
    trmi_bytes_text((size_t)bytes + c->costs->activation_bytes, least);
    trmi_biggest_weights(c->g, c->costs->weight_bytes, biggest, sizeof(biggest));
    return trm_fail(TRM_ERR_NO_MEMORY,
                    "%d stages need at least %s each, the limit is %s; the biggest weights are %s",
                    c->count, least, limit, biggest);
}

trm_status trm_stages_cut(const trm_graph *g, const trm_stage_costs *costs, int count,
                          trm_stages *stages_out)
{
    struct cutter c = {
        .g = g, .costs = costs, .nodes = g->node_count, .count = count, .limit = SIZE_MAX};
    trm_status st = TRM_OK;

    if (count < 1 || count > TRM_STAGES_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "pipeline=%d: there can be 1 to %d stages", count,
                        TRM_STAGES_MAX);
    if (count > g->node_count)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "pipeline=%d: the model has only %d nodes, so pipeline=%d at most", count,
                        g->node_count, g->node_count);
    if (costs->memory_bytes > 0)
        c.limit = costs->memory_bytes > costs->activation_bytes
                      ? costs->memory_bytes - costs->activation_bytes
                      : 0;
    TRM_TRY(st, allocate(&c), done);
    measure_crossing(&c);
    list_readings(&c);
    c.bound = solve(&c, GOAL_SLOWEST);
    if (!isfinite(c.bound)) {
        st = too_little_memory(&c);
        goto done;
    }
    (void)solve(&c, GOAL_SUM);
    read_back(&c, stages_out);
done:
    cutter_fini(&c);
    return st;
}

double trm_stages_bubble(const trm_stages *s, int micro, int64_t steps)
{
    double sum = 0, slowest = 0, period, time;

    for (int i = 0; i < s->count; i++) {
        sum += s->stage_us[i];
        slowest = fmax(slowest, s->stage_us[i]);
    }
    if (s->count <= 0 || sum <= 0 || steps == 0)
        return 0;
    /* a micro-batch enters when the slowest stage is free, and when one of `micro` has ended */
    period = fmax(slowest, sum / (micro > 0 ? micro : 1));
    time = steps < 0 ? period : (sum + (double)(steps - 1) * period) / (double)steps;
    return fmax(0, 1 - sum / (s->count * time));
}
