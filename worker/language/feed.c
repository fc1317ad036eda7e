/* See feed.h. */
#include "worker/language/feed.h"

#include "base/log.h"
#include "base/memory.h"
#include "worker/language/feed_device.h"
#include "worker/language/grammars.h"
#include "worker/language/sampler_step.h"

#include <assert.h>
#include <string.h>

enum fed { FED_TOKENS, FED_POSITIONS, FED_STEP, FED_ROWS, FED_TYPES, FED_COUNT };
static const char *const fed_names[FED_COUNT] = {"tokens", "positions", "step", "rows",
                                                 "token_types"};

struct trm_lm_feed {
    trm_lm_feed_options options;
    bool encoder;
    int row_max; /* of tokens: a size of the grid */
    int32_t *tokens, *positions, *types, *rows;
    int64_t *address; /* of `step`; encoders: as long as there are sequences */
    trm_step step;
    trm_step_sequence *sequences;
    trm_kv_layer *layers;
    void *cache;              /* one slab; layers point into it */
    trmi_feed_device *away;   /* NULL: the device's memory is the host's */
    trm_sampler_steps *there; /* the graph draws (TrmSample); NULL: samplers here do */
    trm_tensor *inputs;
    int *fed;               /* [graph inputs] which, or -1 */
    trm_sampler **samplers; /* [batch] by slot */
    trm_status *begun;      /* [batch] why a slot has no sampler */
    trm_grammars *grammars; /* of their constraints; made with the first */
    trm_sampled *results;
    trm_tensor result;
};

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "what a step needs on this rank");
}

static int fed_of(const char *name)
{
    for (int i = 0; i < FED_COUNT; i++)
        if (strcmp(name, fed_names[i]) == 0)
            return i;
    return -1;
}

bool trm_lm_feed_is_fed(const char *name)
{
    return fed_of(name) >= 0;
}

/* ---- the cache ---- */

static bool has_cache(const trm_node *n)
{
    return n->op == TRM_OP_TrmPagedAttention && trm_attr_int(&n->attrs, "encoder", 0) == 0;
}

static size_t node_page_bytes(const trm_lm_feed *f, const trm_node *n)
{
    return trm_kv_page_bytes(trm_attr_int(&n->attrs, "kv_heads", 0),
                             trm_attr_int(&n->attrs, "head_dim", 0), f->options.kv_dtype);
}

/* Zeros, so that what was never written is finite; in host memory the system makes them when they
 * are first touched: a large cache costs nothing until it is used. */
static trm_status make_slab(trm_lm_feed *f, size_t bytes, unsigned char **base_out)
{
    void *memory = NULL;

    if (f->away != NULL) {
        trm_status st = trmi_feed_device_cache(f->away, bytes + TRM_ALIGN, &memory);

        *base_out = memory;
        return st == TRM_OK ? st
                            : trm_fail_context(st,
                                               "the KV cache of %zu bytes: want a smaller one "
                                               "(kv_cache, --kv-cache) or context",
                                               bytes);
    }
    f->cache = trm_calloc(bytes + TRM_ALIGN, 1);
    if (f->cache == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY,
                        "the KV cache of %zu bytes cannot be had on this rank: want a smaller "
                        "KV cache (kv_cache, --kv-cache) or context",
                        bytes);
    *base_out = (unsigned char *)trm_align_up((size_t)(uintptr_t)f->cache, TRM_ALIGN);
    return TRM_OK;
}

static trm_status make_cache(trm_lm_feed *f)
{
    const trm_graph *g = f->options.graph;
    size_t page = trm_lm_page_bytes(g, f->options.kv_dtype), bytes = 0, at = 0;
    int64_t layers = 0;
    unsigned char *base = NULL;

    for (int n = 0; n < g->node_count; n++) {
        int64_t layer = trm_attr_int(&g->nodes[n].attrs, "layer", 0);

        if (has_cache(&g->nodes[n]) && layer >= layers)
            layers = layer + 1;
    }
    f->layers = trm_calloc((size_t)layers + 1, sizeof(*f->layers));
    if (f->layers == NULL || !trm_mul_ok(page, (size_t)f->options.pages, &bytes))
        return no_memory();
    TRM_CHECK(make_slab(f, bytes, &base));
    for (int n = 0; n < g->node_count; n++) {
        const trm_node *node = &g->nodes[n];
        trm_kv_layer *l;

        if (!has_cache(node))
            continue;
        l = &f->layers[trm_attr_int(&node->attrs, "layer", 0)];
        l->page_bytes = node_page_bytes(f, node);
        l->pages = base + at;
        at += l->page_bytes * (size_t)f->options.pages;
    }
    f->step.layers = f->layers;
    f->step.layer_count = (int32_t)layers;
    f->step.kv_dtype = f->options.kv_dtype;
    return TRM_OK;
}

/* ---- life ---- */

static trm_status find_inputs(trm_lm_feed *f)
{
    const trm_graph *g = f->options.graph;

    f->inputs = trm_calloc((size_t)g->input_count + 1, sizeof(*f->inputs));
    f->fed = trm_calloc((size_t)g->input_count + 1, sizeof(*f->fed));
    if (f->inputs == NULL || f->fed == NULL)
        return no_memory();
    for (int i = 0; i < g->input_count; i++)
        f->fed[i] = fed_of(g->values[g->inputs[i]].name);
    return TRM_OK;
}

static trm_status make_room(trm_lm_feed *f)
{
    const trm_lm_feed_options *o = &f->options;
    size_t rows = (size_t)trm_lm_grid(o->step_tokens), picks = (size_t)trm_lm_grid(o->picks);

    f->row_max = (int)rows;
    f->tokens = trm_calloc(rows + 1, sizeof(*f->tokens));
    f->positions = trm_calloc(rows + 1, sizeof(*f->positions));
    f->types = trm_calloc(rows + 1, sizeof(*f->types));
    f->rows = trm_calloc(picks + 1, sizeof(*f->rows));
    f->sequences = trm_calloc((size_t)o->batch + 1, sizeof(*f->sequences));
    f->address = trm_calloc((size_t)trm_lm_grid(o->batch) + 1, sizeof(*f->address));
    if (f->address == NULL || f->tokens == NULL || f->positions == NULL || f->types == NULL ||
        f->rows == NULL || f->sequences == NULL)
        return no_memory();
    f->address[0] = (int64_t)(intptr_t)&f->step;
    if (!o->samples)
        return TRM_OK;
    f->samplers = trm_calloc((size_t)o->batch, sizeof(*f->samplers));
    f->begun = trm_calloc((size_t)o->batch, sizeof(*f->begun));
    f->results = trm_calloc((size_t)o->picks + 1, sizeof(*f->results));
    return f->samplers == NULL || f->begun == NULL || f->results == NULL ? no_memory() : TRM_OK;
}

/* What makes the graph's last output; NULL: an input. */
static const trm_node *last_node(const trm_graph *g)
{
    int producer = g->values[g->outputs[g->output_count - 1]].producer;

    return producer < 0 ? NULL : &g->nodes[producer];
}

/* Rows, sequences with their pages (each in one of them, as a rule), and what they draw by. */
static size_t usual_bytes(const trm_lm_feed *f)
{
    const trm_lm_feed_options *o = &f->options;

    return (size_t)f->row_max * 32 + (size_t)trm_lm_grid(o->picks) * 32 + (size_t)o->batch * 512 +
           (size_t)o->pages * sizeof(int32_t);
}

static trm_status make_away(trm_lm_feed *f)
{
    static const enum fed fed[TRM_STEP_SELF + 1] = {[TRM_STEP_TOKENS] = FED_TOKENS,
                                                    [TRM_STEP_POSITIONS] = FED_POSITIONS,
                                                    [TRM_STEP_ROWS] = FED_ROWS,
                                                    [TRM_STEP_TYPES] = FED_TYPES,
                                                    [TRM_STEP_SELF] = FED_STEP};
    const trm_lm_feed_options *o = &f->options;
    int inputs[TRM_STEP_SELF + 1];
    const trm_tensor *logits;
    const trm_node *sample;

    if (o->device == NULL || o->device->host_memory)
        return TRM_OK;
    if (o->device->ops->step_encode == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "language models on %s", o->device->ops->name);
    for (int i = 0; i <= TRM_STEP_SELF; i++) {
        inputs[i] = -1;
        for (int k = 0; k < o->graph->input_count; k++)
            if (f->fed[k] == (int)fed[i])
                inputs[i] = k;
    }
    f->step.token_max = f->row_max;
    f->step.pick_max = trm_lm_grid(o->picks);
    f->step.token_ids = f->tokens;
    f->step.positions = f->positions;
    f->step.types = trm_lm_feed_has_types(o->graph) ? f->types : NULL;
    f->step.rows = f->rows;
    sample = o->samples ? last_node(o->graph) : NULL;
    if (sample == NULL || sample->op != TRM_OP_TrmSample) {
        TRM_CHECK(trmi_feed_device_create(o->device, o->engine, inputs, 0, 0, &f->away));
        trmi_feed_device_expect(f->away, usual_bytes(f));
        return TRM_OK;
    }
    logits = &o->graph->values[sample->inputs[0]].desc;
    TRM_CHECK(
        trm_sampler_steps_create(o->batch, o->picks, logits->dims[1], o->language, &f->there));
    TRM_CHECK(
        trmi_feed_device_create(o->device, o->engine, inputs, o->batch, logits->dims[1], &f->away));
    trmi_feed_device_expect(f->away, usual_bytes(f));
    return TRM_OK;
}

trm_status trm_lm_feed_create(const trm_lm_feed_options *options, trm_lm_feed **feed_out)
{
    trm_lm_feed *f = trm_calloc(1, sizeof(*f));
    trm_status st;

    if (f == NULL)
        return no_memory();
    f->options = *options;
    f->encoder = options->pages == 0;
    TRM_TRY(st, find_inputs(f), fail);
    TRM_TRY(st, make_room(f), fail);
    TRM_TRY(st, make_away(f), fail);
    TRM_TRY(st, make_cache(f), fail);
    *feed_out = f;
    return TRM_OK;
fail:
    trm_lm_feed_destroy(f);
    return st;
}

void trm_lm_feed_destroy(trm_lm_feed *f)
{
    if (f == NULL)
        return;
    for (int i = 0; f->samplers != NULL && i < f->options.batch; i++)
        trm_sampler_destroy(f->samplers[i]);
    trm_grammars_destroy(f->grammars);
    trm_free(f->samplers);
    trm_free(f->begun);
    trm_free(f->results);
    trm_free(f->tokens);
    trm_free(f->positions);
    trm_free(f->types);
    trm_free(f->rows);
    trm_free(f->address);
    trm_free(f->sequences);
    trm_free(f->layers);
    trm_free(f->cache);
    trmi_feed_device_destroy(f->away);
    trm_sampler_steps_destroy(f->there);
    trm_free(f->inputs);
    trm_free(f->fed);
    trm_free(f);
}

bool trm_lm_feed_has_types(const trm_graph *graph)
{
    for (int i = 0; i < graph->input_count; i++)
        if (fed_of(graph->values[graph->inputs[i]].name) == FED_TYPES)
            return true;
    return false;
}

/* ---- inputs ---- */

static trm_status constrain(trm_lm_feed *f, const trm_lm_begin *b, int64_t vocabulary,
                            trm_sampler *s)
{
    trm_constraint *c;

    if (f->grammars == NULL)
        TRM_CHECK(trm_grammars_create(f->options.language, vocabulary, &f->grammars));
    TRM_CHECK(trm_grammars_start(f->grammars, b->constraint, b->constraint_bytes, b->sampling->end,
                                 b->sampling->end_count, &c));
    trm_sampler_constrain(s, c);
    return TRM_OK;
}

static trm_status begin_one(trm_lm_feed *f, const trm_lm_begin *b)
{
    const trm_graph *g = f->options.graph;
    const trm_tensor *logits = &g->values[g->outputs[g->output_count - 1]].desc;
    int64_t vocabulary = logits->dims[logits->rank - 1];
    trm_sampling *whole = trm_calloc(1, sizeof(*whole));
    trm_sampler *s = NULL;
    trm_status st;

    if (whole == NULL)
        return no_memory();
    memcpy(whole, b->sampling,
           offsetof(trm_sampling, bias) + (size_t)b->bias_count * sizeof(trm_logit_bias));
    TRM_TRY(st, trm_sampler_create(whole, vocabulary, b->prompt, (size_t)b->prompt_count, &s), end);
    if (b->constraint != NULL)
        TRM_TRY(st, constrain(f, b, vocabulary, s), end);
    f->samplers[b->slot] = s;
    s = NULL;
end:
    trm_sampler_destroy(s);
    trm_free(whole);
    return st;
}

void trm_lm_feed_begin(trm_lm_feed *f, const trm_lm_step *step)
{
    if (f->there != NULL) {
        trm_sampler_steps_begin(f->there, step);
        return;
    }
    for (int i = 0; f->options.samples && i < step->begin_count; i++) {
        const trm_lm_begin *b = &step->begins[i];

        if (b->slot < 0 || b->slot >= f->options.batch)
            continue;
        trm_sampler_destroy(f->samplers[b->slot]);
        f->samplers[b->slot] = NULL;
        f->begun[b->slot] = begin_one(f, b);
        if (f->begun[b->slot] != TRM_OK)
            TRM_LOG(TRM_LOG_WARN, "language", "a sampler: %s", trm_message());
    }
}

static void fill_rows(trm_lm_feed *f, const trm_lm_step *step)
{
    for (int i = 0; i < step->token_rows; i++) {
        bool used = i < step->token_count;

        f->tokens[i] = used ? step->tokens[i] : -1;
        f->positions[i] = 0;
        f->types[i] = used && step->has_types ? step->types[i] : 0;
    }
    for (int i = 0; i < step->part_count; i++) {
        const trm_lm_part *p = &step->parts[i];

        for (int k = 0; k < p->tokens; k++)
            f->positions[p->row + k] = p->position + k;
        f->sequences[i] = (trm_step_sequence){.row = p->row,
                                              .tokens = p->tokens,
                                              .position = p->position,
                                              .pages = step->pages + p->page_first};
    }
    for (int i = 0; i < step->pick_rows; i++)
        f->rows[i] = i < step->pick_count ? step->picks[i].row : -1;
    f->step.token_rows = step->token_rows;
    f->step.pick_rows = step->pick_rows;
    f->step.tokens = step->token_count;
    f->step.sequence_count = step->part_count;
    f->step.sequences_padded = f->encoder ? step->part_rows : step->part_count;
    f->step.sequences = f->sequences;
}

bool trm_lm_feed_ahead(const trm_lm_feed *f, const trm_lm_step *step)
{
    return f->there == NULL || !trm_sampler_steps_waits(f->there, step);
}

/* What kernels index by, whoever decided it. */
static trm_status check_step(const trm_lm_feed *f, const trm_lm_step *step)
{
    for (int i = 0; i < step->page_count; i++)
        if (step->pages[i] < 0 || step->pages[i] >= f->options.pages)
            return trm_fail(TRM_ERR_INTERNAL, "a step wants page %d of %d", step->pages[i],
                            f->options.pages);
    for (int i = 0; i < step->part_count && !f->encoder; i++) {
        const trm_lm_part *p = &step->parts[i];

        if (p->page_count * TRM_KV_PAGE < p->position + p->tokens)
            return trm_fail(TRM_ERR_INTERNAL, "a step's sequence %d has %d pages for %d positions",
                            i, p->page_count, p->position + p->tokens);
    }
    if (step->token_rows > f->row_max || step->pick_rows > trm_lm_grid(f->options.picks))
        return trm_fail(TRM_ERR_INTERNAL, "a step of %d rows and %d picks", step->token_rows,
                        step->pick_rows);
    return TRM_OK;
}

/* To the device; with TrmSample, what it needs to draw. */
static trm_status send_away(trm_lm_feed *f, const trm_lm_step *step)
{
    trm_status st;

    if (f->there == NULL)
        return trmi_feed_device_send(f->away, &f->step);
    TRM_CHECK(
        trmi_feed_device_slots(f->away, &f->step, trm_sampler_steps_penalises(f->there, step)));
    TRM_CHECK(trm_sampler_steps_fill(f->there, step, &f->step));
    st = trmi_feed_device_send(f->away, &f->step);
    if (st != TRM_OK)
        trm_sampler_steps_undo(f->there);
    return st;
}

trm_status trm_lm_feed_inputs(trm_lm_feed *f, const trm_lm_step *step, const trm_tensor *crossing,
                              int count, trm_tensor **inputs_out)
{
    const trm_graph *g = f->options.graph;
    int taken = 0;

    *inputs_out = NULL;
    TRM_CHECK(check_step(f, step));
    fill_rows(f, step);
    for (int i = 0; i < g->input_count; i++) {
        trm_tensor *t = &f->inputs[i];

        *t = (trm_tensor){.dtype = TRM_DTYPE_I32, .rank = 1, .dims = {step->token_rows}};
        switch (f->fed[i]) {
        case FED_TOKENS:
            t->data = f->tokens;
            break;
        case FED_POSITIONS:
            t->data = f->positions;
            break;
        case FED_TYPES:
            t->data = f->types;
            break;
        case FED_ROWS:
            t->data = f->rows;
            t->dims[0] = step->pick_rows;
            break;
        case FED_STEP:
            t->data = f->address;
            t->dtype = TRM_DTYPE_I64;
            t->dims[0] = f->encoder ? step->part_rows : 1;
            break;
        default:
            if (taken >= count)
                return trm_fail(TRM_ERR_INTERNAL, "the stage before sent %d tensors, not '%s'",
                                count, g->values[g->inputs[i]].name);
            *t = crossing[taken++];
        }
    }
    *inputs_out = f->inputs;
    return f->away == NULL ? TRM_OK : send_away(f, step);
}

/* ---- results ---- */

static trm_status pick_one(trm_lm_feed *f, const trm_lm_pick *p, float *logits, trm_sampled *out)
{
    trm_sampler *s = p->slot >= 0 && p->slot < f->options.batch ? f->samplers[p->slot] : NULL;

    if (s == NULL)
        return p->slot >= 0 && p->slot < f->options.batch && f->begun[p->slot] != TRM_OK
                   ? f->begun[p->slot]
                   : TRM_ERR_INTERNAL;
    if (p->kind != TRM_LM_PICK_NEXT)
        return trm_sampler_score(s, logits, p->target, out);
    TRM_CHECK(trm_sampler_next(s, logits, p->position, out));
    return TRM_OK;
}

static void pick(trm_lm_feed *f, const trm_lm_pick *p, float *logits, trm_sampled *out)
{
    trm_status st;

    memset(out, 0, sizeof(*out));
    st = pick_one(f, p, logits, out);
    if (st == TRM_OK)
        return;
    /* its sequence fails, the others go on */
    out->id = st == TRM_ERR_UNSUPPORTED ? TRM_SAMPLED_CONSTRAINED : TRM_SAMPLED_NOTHING;
    if (st == TRM_ERR_UNSUPPORTED && f->samplers[p->slot] != NULL)
        TRM_LOG(TRM_LOG_WARN, "language", "a constraint: %s", trm_message());
}

static void set_result(trm_lm_feed *f, int count)
{
    f->result = (trm_tensor){.dtype = TRM_DTYPE_U8,
                             .rank = 1,
                             .dims = {(int64_t)((size_t)count * sizeof(*f->results))},
                             .data = f->results};
}

/* What the device has drawn. */
static trm_status take_drawn(trm_lm_feed *f, int count, const trm_tensor *out)
{
    static_assert(sizeof(trm_sampled) == sizeof(trm_step_sampled), "one form of results");
    if (out->dtype != TRM_DTYPE_U8 ||
        trm_tensor_numel(out) < (size_t)count * sizeof(trm_step_sampled))
        return trm_fail(TRM_ERR_INTERNAL, "what was drawn is %s of rank %d",
                        trm_dtype_name(out->dtype), out->rank);
    if (count > 0)
        memcpy(f->results, out->data, (size_t)count * sizeof(*f->results));
    TRM_CHECK(trm_sampler_steps_took(f->there, f->results, count));
    set_result(f, count);
    return TRM_OK;
}

void trm_lm_feed_nothing(trm_lm_feed *f, int count)
{
    if (f->there == NULL)
        return;
    for (int i = 0; i < count; i++)
        f->results[i].id = TRM_SAMPLED_NOTHING;
    if (trm_sampler_steps_took(f->there, f->results, count) != TRM_OK)
        TRM_LOG(TRM_LOG_DEBUG, "language", "a failed step: %s", trm_message());
}

trm_status trm_lm_feed_outputs(trm_lm_feed *f, const trm_lm_pick *picks, int count,
                               trm_tensor *outputs)
{
    trm_tensor *out = &outputs[f->options.graph->output_count - 1];
    size_t width;

    if (!f->options.samples)
        return TRM_OK;
    if (f->there != NULL)
        return take_drawn(f, count, out);
    if (out->dtype != TRM_DTYPE_F32 || out->rank != 2)
        return trm_fail(TRM_ERR_INTERNAL, "logits are %s of rank %d", trm_dtype_name(out->dtype),
                        out->rank);
    if (f->encoder) {
        f->result = *out;
        return TRM_OK;
    }
    width = (size_t)out->dims[1];
    for (int i = 0; i < count; i++)
        pick(f, &picks[i], (float *)out->data + (size_t)i * width, &f->results[i]);
    set_result(f, count);
    return TRM_OK;
}

trm_tensor trm_lm_feed_result(const trm_lm_feed *f)
{
    return f->result;
}

trm_status trm_lm_feed_results(const trm_tensor *result, int picks, int part_rows, double us,
                               trm_lm_results *out)
{
    memset(out, 0, sizeof(*out));
    out->us = us;
    if (result->dtype == TRM_DTYPE_F32) {
        if (result->rank != 2 || result->dims[0] != part_rows)
            return trm_fail(TRM_ERR_COMM, "results of a step have another shape");
        out->rows = result->data;
        out->width = result->dims[1];
        return TRM_OK;
    }
    if (result->dtype != TRM_DTYPE_U8 ||
        trm_tensor_numel(result) != (size_t)picks * sizeof(trm_sampled))
        return trm_fail(TRM_ERR_COMM, "results of a step: %d were awaited", picks);
    out->picks = result->data;
    return TRM_OK;
}
