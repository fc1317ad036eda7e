/* Language models on accelerators: how long the steps take that matter, one token of each sequence
 * of a batch, and prompts. Ledgers are of the largest step; layouts are chosen by these times. */
#include "parallel/planner_impl.h"
#include "parallel/rates_impl.h"
#include "parallel/shapes.h"

#include <math.h>
#include <string.h>

/* Inputs of a step of `rows` tokens of which `picks` are asked for (model/language/language.h). */
static void step_inputs(const trmi_planner *p, int64_t rows, int64_t picks, trm_tensor *in)
{
    const trm_graph *g = p->g;

    for (int i = 0; i < g->input_count; i++) {
        const trm_value *v = &g->values[g->inputs[i]];
        bool few = strcmp(v->name, "rows") == 0 || strcmp(v->name, "step") == 0;

        in[i] = p->inputs[i];
        for (int d = 0; d < in[i].rank; d++)
            if (v->desc.dims[d] < 0)
                in[i].dims[d] = few ? picks : rows;
    }
}

static int most_arguments(const trm_graph *g)
{
    int most = 1;

    for (int n = 0; n < g->node_count; n++) {
        most = g->nodes[n].input_count > most ? g->nodes[n].input_count : most;
        most = g->nodes[n].output_count > most ? g->nodes[n].output_count : most;
    }
    return most;
}

/* Each node's microseconds into the stage that has it. */
static trm_status stage_times(const trmi_planner *p, trmi_division *d, const trm_cost_context *c,
                              const trm_stages *s, int64_t rows, double *stage_us)
{
    trm_graph *g = d->finished;
    size_t most = (size_t)most_arguments(g);
    trm_tensor *inputs, *descs, *in, *out;
    trm_arena *arena = NULL;
    trm_status st;

    TRM_CHECK(trm_arena_create(0, &arena));
    inputs = trm_arena_alloc(arena, (size_t)p->g->input_count + 1, sizeof(trm_tensor));
    descs = trm_arena_alloc(arena, (size_t)g->value_count + 1, sizeof(trm_tensor));
    in = trm_arena_alloc(arena, most, sizeof(trm_tensor));
    out = trm_arena_alloc(arena, most, sizeof(trm_tensor));
    if (inputs == NULL || descs == NULL || in == NULL || out == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "plan of %d nodes", g->node_count);
        goto done;
    }
    step_inputs(p, rows, c->load->sequences, inputs);
    TRM_TRY(st, trm_shapes_bind(g, inputs, arena, descs), done);
    memset(stage_us, 0, (size_t)s->count * sizeof(*stage_us));
    for (int n = 0; n < g->node_count; n++) {
        trmi_absorbed absorbed = trmi_gpu_language_absorbed(g, n);
        double us = absorbed == TRMI_ABSORBED
                        ? 0
                        : trmi_division_node_us(c, d, descs, &g->nodes[n], in, out);
        int stage = 0;

        if (absorbed == TRMI_ABSORBED_GAP)
            us = fmax(0, us - trmi_gpu_language_gap_us(c->rates));
        while (stage + 1 < s->count && d->host_of[n] >= s->cuts[stage + 1])
            stage++;
        stage_us[stage] += us;
    }
done:
    trm_arena_destroy(arena);
    return st;
}

/* Positions that the cache would have room for with what the layout leaves. */
static double pool_tokens(const trmi_planner *p, const trmi_division *d, const trm_candidate *c)
{
    const trm_plan_options *o = p->options;
    double each, spare = p->limit > c->memory ? (double)(p->limit - c->memory) : 0;

    if (o->kv_tokens < 1 || d->all_kv_bytes == 0)
        return HUGE_VAL;
    each = (double)d->all_kv_bytes / (double)o->kv_tokens / c->parallel.pipeline;
    return (double)o->kv_tokens + (o->kv_tokens_max > o->kv_tokens ? spare / each : 0);
}

static trm_status one_phase(const trmi_planner *p, trmi_division *d, const trm_candidate *c,
                            const trm_stages *s, const trm_phase *phase, trm_cost_context context,
                            trm_phase_time *time)
{
    double room = pool_tokens(p, d, c) / (double)phase->context, sum = 0, slowest = 0;
    double stage_us[TRM_STAGES_MAX];
    int64_t sequences = phase->sequences, all, rows, steps, most = p->batch;
    trm_step_load load;

    if (room < (double)sequences)
        sequences = room < 1 ? 1 : (int64_t)room;
    all = sequences * phase->tokens;
    if (phase->tokens == 1) /* sequences are dealt to as many steps as there are stages */
        most = (sequences + s->count - 1) / s->count;
    rows = p->batch < most ? p->batch : most;
    rows = rows < all ? rows : all;
    steps = (all + rows - 1) / rows;
    load.sequences = rows / phase->tokens > 1 ? rows / phase->tokens : 1;
    load.seen = (double)phase->context - ((double)phase->tokens - 1) / 2;
    context.load = &load;
    TRM_CHECK(stage_times(p, d, &context, s, rows, stage_us));
    for (int i = 0; i < s->count; i++) {
        if (i + 1 < s->count) {
            double bytes = (double)s->crossing_bytes[i] * (double)rows / (double)p->batch;

            stage_us[i] +=
                trm_cost_collective_us(&context, TRM_COLLECTIVE_MESSAGE, 2, (size_t)bytes);
        }
        sum += stage_us[i];
        slowest = fmax(slowest, stage_us[i]);
    }
    sum += trm_cost_step_us(&context, 0, 1);
    if (s->count == 1)
        slowest = sum;
    *time = (trm_phase_time){.sequences = sequences, .steps = steps, .step_us = sum};
    /* a step that decodes waits for the one before it of the same sequences */
    time->all_us = phase->tokens == 1 ? fmax(sum, (double)steps * slowest)
                                      : sum + (double)(steps - 1) * slowest;
    time->tokens_s = c->parallel.data * (double)all * 1e6 / time->all_us;
    return TRM_OK;
}

trm_status trmi_predict_phases(const trmi_planner *p, trmi_division *d, const trm_stages *s,
                               trm_link_kind link, trm_candidate *c)
{
    const trm_plan_options *o = p->options;

    if (!d->language || !trm_rates_is_gpu(o->rates))
        return TRM_OK;
    for (int i = 0; i < o->phase_count && i < TRM_PHASES_MAX; i++) {
        trm_cost_context context = {.rates = o->rates,
                                    .threads = o->threads,
                                    .busy_ranks = 1,
                                    .link = link,
                                    .staged = trmi_is_staged(o),
                                    .dtype = o->dtype,
                                    .kv_dtype = o->kv_dtype};

        TRM_CHECK(one_phase(p, d, c, s, &o->phases[i], context, &c->phases[i]));
    }
    return TRM_OK;
}
