/* Placement under a limit of weight bytes: the search with a price on every byte, the least price
 * at which the limit is met (Lagrangian relaxation, Everett 1963), then single changes that use
 * what room is left, because no price may hit the limit exactly. */
#include "parallel/placement_impl.h"

#include <math.h>
#include <string.h>

#define PRICING_BEAM 128 /* while the price is looked for */
#define PRICING_ROUNDS 16
#define GAP 1e-3 /* stop when the bound says that no more than this share can be gained */
#define BIGGEST 5
#define IMPROVE_ROUNDS 3

static double us_of(const trm_placement *p)
{
    return p->compute_us + p->collective_us;
}

/* "a 12 MiB, b 3 MiB": the biggest constants that are read. */
static void biggest_text(const trm_sharding *s, char *text, size_t bytes)
{
    const trm_graph *g = s->graph;
    int best[BIGGEST], count = 0;
    size_t used = 0;

    for (int v = 0; v < g->value_count; v++) {
        size_t mine =
            trm_graph_is_constant(g, v) ? trmi_constant_bytes(s, v, TRM_FORM_WHOLE, 0) : 0;
        int at = count;

        if (mine == 0 || trm_graph_use_count(g, v) == 0)
            continue;
        while (at > 0 && trmi_constant_bytes(s, best[at - 1], TRM_FORM_WHOLE, 0) < mine)
            at--;
        if (at == BIGGEST)
            continue;
        count += count < BIGGEST;
        memmove(best + at + 1, best + at, (size_t)(count - 1 - at) * sizeof(*best));
        best[at] = v;
    }
    text[0] = '\0';
    for (int i = 0; i < count && used < bytes; i++)
        used += (size_t)snprintf(
            text + used, bytes - used, "%s'%.60s' %.4g MiB", i ? ", " : "", g->values[best[i]].name,
            (double)trmi_constant_bytes(s, best[i], TRM_FORM_WHOLE, 0) / (1 << 20));
}

static trm_status cannot(const trm_sharding *s, size_t least, size_t bytes_max)
{
    char items[600];

    biggest_text(s, items, sizeof(items));
    return trm_fail(TRM_ERR_NO_MEMORY,
                    "weights need at least %zu bytes (%.4g MiB) on each of %d ranks, limit %zu "
                    "bytes (%.4g MiB); the biggest: %s",
                    least, (double)least / (1 << 20), s->ranks, bytes_max,
                    (double)bytes_max / (1 << 20), items);
}

/* The plan at one price. */
static trm_status at_price(trmi_problem *p, const trmi_price *price, int beam, trm_placement *plan,
                           double *sum_out)
{
    TRM_CHECK(trmi_problem_run(p, price, beam, plan->strategy, sum_out, &plan->exact));
    return trm_placement_cost(p->s, p->costs, plan);
}

static void adopt(trm_placement *to, const trm_placement *from, int nodes)
{
    int *strategy = to->strategy;

    memcpy(strategy, from->strategy, (size_t)nodes * sizeof(*strategy));
    *to = *from;
    to->strategy = strategy;
}

/* Changes of one node's strategy that cost less and still fit, while there are any. */
static trm_status improve(trmi_problem *p, size_t bytes_max, trm_placement *best,
                          trm_placement *trial)
{
    int nodes = p->s->graph->node_count;
    bool better = true;

    for (int round = 0; better && round < IMPROVE_ROUNDS; round++) {
        better = false;
        for (int n = 0; n < nodes; n++)
            for (int c = 0; c < p->steps[n].choice_count; c++) {
                int was = best->strategy[n], st = p->steps[n].choices[c].strategy;

                if (st == was)
                    continue;
                memcpy(trial->strategy, best->strategy, (size_t)nodes * sizeof(int));
                trial->strategy[n] = st;
                if (trm_placement_cost(p->s, p->costs, trial) != TRM_OK)
                    continue; /* a form that cannot be made */
                if (trial->weight_bytes > bytes_max || us_of(trial) >= us_of(best))
                    continue;
                trial->exact = best->exact;
                adopt(best, trial, nodes);
                better = true;
            }
    }
    return TRM_OK;
}

/* Narrows [low, high] around the least price at which the limit is met; best: met at `high`. */
static trm_status narrow(trmi_problem *p, size_t bytes_max, int beam, trmi_price price,
                         trm_placement *best, trm_placement *trial)
{
    double low = 0, high = price.byte, bound = 0;
    int nodes = p->s->graph->node_count;

    for (int i = 0; i < PRICING_ROUNDS; i++) {
        double sum;

        if (us_of(best) <= bound * (1 + GAP))
            break;
        price.byte = low > 0 ? sqrt(low * high) : high / 8;
        TRM_CHECK(at_price(p, &price, beam, trial, &sum));
        /* of every plan that fits: us >= us + price * (bytes - limit) >= the least of that */
        bound = fmax(bound, sum - price.byte * (double)bytes_max);
        if (trial->weight_bytes > bytes_max) {
            low = price.byte;
        } else {
            high = price.byte;
            if (us_of(trial) < us_of(best))
                adopt(best, trial, nodes);
        }
        if (low > 0 && high < low * 1.001)
            break;
    }
    return TRM_OK;
}

trm_status trmi_placement_meet(trmi_problem *p, size_t bytes_max, int beam,
                               trm_placement *placement_inout)
{
    int nodes = p->s->graph->node_count;
    int pricing = beam < PRICING_BEAM ? beam : PRICING_BEAM;
    size_t unlimited = placement_inout->weight_bytes;
    double us = us_of(placement_inout), sum;
    trmi_price price = {.us = 1e-6, .byte = 1}; /* bytes alone; time decides between equals */
    trm_placement trial = {0}, best = {0};
    trm_status st;

    trial.strategy = trm_calloc((size_t)nodes + 1, sizeof(int));
    best.strategy = trm_calloc((size_t)nodes + 1, sizeof(int));
    if (trial.strategy == NULL || best.strategy == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "placement: %d nodes", nodes);
        goto done;
    }
    TRM_TRY(st, at_price(p, &price, beam, &trial, &sum), done);
    if (trial.weight_bytes > bytes_max) {
        st = cannot(p->s, trial.weight_bytes, bytes_max);
        goto done;
    }
    adopt(&best, &trial, nodes);
    /* first price: what the unlimited plan pays in time, over its bytes */
    price = (trmi_price){.us = 1, .byte = us / (double)unlimited + 1e-12};
    for (int i = 0; i < 12; i++) {
        TRM_TRY(st, at_price(p, &price, pricing, &trial, &sum), done);
        if (trial.weight_bytes <= bytes_max)
            break;
        price.byte *= 8;
    }
    if (trial.weight_bytes <= bytes_max && us_of(&trial) < us_of(&best))
        adopt(&best, &trial, nodes);
    TRM_TRY(st, narrow(p, bytes_max, pricing, price, &best, &trial), done);
    TRM_TRY(st, improve(p, bytes_max, &best, &trial), done);
    adopt(placement_inout, &best, nodes);

done:
    trm_free(trial.strategy);
    trm_free(best.strategy);
    return st;
}
