/* Stacks prepared records, runs the engine, splits what comes out. */
#include "worker/score_model.h"
#include "base/log.h"
#include "worker/score_impl.h"

#include <stdio.h>
#include <string.h>

struct trm_score_model {
    trm_tensor_model *model;
    trm_score_model_options options;
    int scores;          /* output that holds class scores */
    int only;            /* the one output sent, -1: all */
    int64_t fixed_batch; /* dim 0 of every input is this constant; 0: it is open */
    bool stacks;         /* records can share a run */
    trm_tensor *in, *out;
    void **stacked; /* [graph inputs] grown buffers */
    size_t *stacked_bytes;
};

trm_status trm_score_model_output(const trm_tensor_model *model, const char *name, int *output_out)
{
    const trm_graph *g = model->graph;
    char list[400] = "";

    for (int i = 0; i < g->output_count; i++) {
        const char *have = g->values[g->outputs[i]].name;
        size_t used = strlen(list);

        if (strcmp(have, name) == 0) {
            *output_out = i;
            return TRM_OK;
        }
        snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "", have);
    }
    return trm_fail(TRM_ERR_INVALID_ARG, "the model has no output '%s'; it has %s", name, list);
}

/* The batch dim: open, or one constant for all inputs. */
static void find_batch(trm_score_model *s)
{
    const trm_graph *g = s->model->graph;
    int64_t fixed = -1;

    s->stacks = trm_tensor_model_batches(s->model);
    if (s->stacks)
        return;
    for (int i = 0; i < g->input_count; i++) {
        const trm_tensor *d = &g->values[g->inputs[i]].desc;

        if (d->rank < 1 || d->dims[0] < 1 || (fixed >= 0 && d->dims[0] != fixed))
            return;
        fixed = d->dims[0];
    }
    for (int i = 0; i < g->output_count; i++) {
        const trm_tensor *d = &g->values[g->outputs[i]].desc;

        if (d->rank < 1 || d->dims[0] != fixed)
            return;
    }
    if (fixed > 1) {
        s->fixed_batch = fixed;
        s->stacks = true;
    }
}

trm_status trm_score_model_create(trm_tensor_model *model, const trm_score_model_options *options,
                                  trm_score_model **score_out)
{
    const trm_graph *g = model->graph;
    size_t inputs = (size_t)g->input_count, outputs = (size_t)g->output_count;
    trm_score_model *s = trm_calloc(1, sizeof(*s));
    trm_status st = TRM_OK;

    if (s == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "score model");
    s->model = model;
    s->options = *options;
    s->only = -1;
    if (inputs == 0) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "%s has no input to score", model->package->model_path);
        goto fail;
    }
    if (options->images && inputs != 1) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "%s has %zu inputs: images want a model with one",
                      model->package->model_path, inputs);
        goto fail;
    }
    if (options->images && !model->package->has_preprocess)
        TRM_TRY(st, trm_package_default_preprocess(model->package), fail);
    TRM_TRY(st, trm_tensor_model_scores(model, &s->scores), fail);
    if (options->output != NULL) {
        TRM_TRY(st, trm_score_model_output(model, options->output, &s->only), fail);
        s->scores = s->only;
    }
    if (options->top > 0) {
        const trm_value *v = &g->values[g->outputs[s->scores]];

        if (!trm_dtype_is_float(v->desc.dtype)) {
            st = trm_fail(TRM_ERR_INVALID_ARG, "output '%s' is %s: labels want floating scores",
                          v->name, trm_dtype_name(v->desc.dtype));
            goto fail;
        }
    }
    find_batch(s);
    s->in = trm_calloc(inputs, sizeof(*s->in));
    s->out = trm_calloc(outputs + 1, sizeof(*s->out));
    s->stacked = trm_calloc(inputs, sizeof(*s->stacked));
    s->stacked_bytes = trm_calloc(inputs, sizeof(*s->stacked_bytes));
    if (s->in == NULL || s->out == NULL || s->stacked == NULL || s->stacked_bytes == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "score model");
        goto fail;
    }
    *score_out = s;
    return TRM_OK;

fail:
    trm_score_model_destroy(s);
    return st;
}

void trm_score_model_destroy(trm_score_model *score)
{
    if (score == NULL)
        return;
    for (int i = 0; score->stacked != NULL && i < score->model->graph->input_count; i++)
        trm_aligned_free(score->stacked[i]);
    trm_free(score->stacked);
    trm_free(score->stacked_bytes);
    trm_free(score->in);
    trm_free(score->out);
    trm_free(score);
}

/* ---- one run ---- */

static trm_status stack(trm_score_model *s, const trmi_prepared *records, int n, int64_t batch)
{
    for (int i = 0; i < s->model->graph->input_count; i++) {
        const trm_tensor *one = &records[0].inputs[i];
        size_t bytes = 0, all;

        TRM_CHECK(trm_tensor_bytes(one, &bytes));
        if (one->rank == TRM_RANK_MAX || !trm_mul_ok(bytes, (size_t)batch, &all))
            return trm_fail(TRM_ERR_UNSUPPORTED, "input %d cannot be stacked", i);
        if (all > s->stacked_bytes[i] || s->stacked[i] == NULL) {
            trm_aligned_free(s->stacked[i]);
            s->stacked_bytes[i] = 0;
            s->stacked[i] = trm_aligned_malloc(all + 1);
            if (s->stacked[i] == NULL)
                return trm_fail(TRM_ERR_NO_MEMORY, "a batch of %zu bytes", all);
            s->stacked_bytes[i] = all;
        }
        for (int64_t k = 0; k < batch; k++) /* a fixed batch is filled up with the last record */
            memcpy((char *)s->stacked[i] + (size_t)k * bytes,
                   records[k < n ? k : n - 1].inputs[i].data, bytes);
        s->in[i] = *one;
        memmove(s->in[i].dims + 1, one->dims, (size_t)one->rank * sizeof(*one->dims));
        s->in[i].rank++;
        s->in[i].dims[0] = batch;
        s->in[i].data = s->stacked[i];
    }
    return TRM_OK;
}

/* Labels of one record from its part of the scores. */
static trm_status add_labels(const trm_score_model *s, const trm_tensor *scores, trm_arena *scratch,
                             trm_wire_result *result)
{
    size_t classes = trm_tensor_numel(scores);
    int k = s->options.top;
    trm_wire_label *labels;
    trm_label *best;
    float *f32;

    if ((size_t)k > classes)
        k = (int)classes;
    f32 = trm_arena_alloc(scratch, classes + 1, sizeof(*f32));
    best = trm_arena_alloc(scratch, (size_t)k + 1, sizeof(*best));
    labels = trm_arena_alloc(scratch, (size_t)k + 1, sizeof(*labels));
    if (f32 == NULL || best == NULL || labels == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "labels of %zu classes", classes);
    if (scores->dtype == TRM_DTYPE_F32)
        memcpy(f32, scores->data, classes * sizeof(*f32));
    else
        for (size_t i = 0; i < classes; i++)
            f32[i] = (float)trm_tensor_get_f64(scores, i);
    k = trm_package_top(s->model->package, f32, classes, k, best);
    for (int i = 0; i < k; i++) {
        labels[i].index = best[i].index;
        labels[i].score = best[i].score;
        labels[i].text = best[i].text;
        if (best[i].text == NULL) { /* without a label file a class is called by its number */
            char number[16];

            snprintf(number, sizeof(number), "%d", best[i].index);
            labels[i].text = trm_arena_strdup(scratch, number);
            if (labels[i].text == NULL)
                return trm_fail(TRM_ERR_NO_MEMORY, "label");
        }
    }
    result->labels = labels;
    result->label_count = k;
    return TRM_OK;
}

/* The part of every output that belongs to record `k` of a stack of `batch`; batch 0: all of it. */
static trm_status split(const trm_score_model *s, int64_t k, int64_t batch, trm_arena *scratch,
                        trm_wire_result *result)
{
    const trm_graph *g = s->model->graph;
    trm_wire_tensor *outputs =
        trm_arena_alloc(scratch, (size_t)g->output_count + 1, sizeof(*outputs));
    int count = 0;

    memset(result, 0, sizeof(*result));
    result->message = "";
    if (outputs == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "outputs");
    for (int i = 0; i < g->output_count; i++) {
        trm_tensor part = s->out[i];
        size_t bytes = 0;
        void *copy;

        if (batch > 0) {
            part.rank--;
            memmove(part.dims, part.dims + 1, (size_t)part.rank * sizeof(*part.dims));
        }
        TRM_CHECK(trm_tensor_bytes(&part, &bytes));
        if (batch > 0)
            part.data = (char *)part.data + (size_t)k * bytes;
        if (s->options.top > 0 && i == s->scores)
            TRM_CHECK(add_labels(s, &part, scratch, result));
        if (!s->options.keep_outputs || (s->only >= 0 && i != s->only))
            continue;
        copy = trm_arena_alloc_aligned(scratch, bytes + 1); /* the engine's until its next run */
        if (copy == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "an output of %zu bytes", bytes);
        memcpy(copy, part.data, bytes);
        part.data = copy;
        outputs[count].name = g->values[g->outputs[i]].name;
        outputs[count].tensor = part;
        count++;
    }
    result->outputs = outputs;
    result->output_count = count;
    return TRM_OK;
}

static bool splits(const trm_score_model *s, int64_t batch)
{
    for (int i = 0; i < s->model->graph->output_count; i++)
        if (s->out[i].rank < 1 || s->out[i].dims[0] != batch)
            return false;
    return true;
}

static void set_error(trm_wire_result *result, trm_status st, trm_arena *scratch)
{
    const char *text = trm_arena_strdup(scratch, trm_message());

    memset(result, 0, sizeof(*result));
    result->status = st;
    result->message = text != NULL ? text : trm_status_name(st);
}

/* Records [0, n) of one shape in one run; a failure is each one's own, found by running it alone.
 */
static void run_stack(trm_score_model *s, const trmi_prepared *records, int n, trm_arena *scratch,
                      trm_wire_result *results)
{
    int64_t batch = s->fixed_batch > 0 ? s->fixed_batch : n;
    trm_status st;

    if (records[0].whole) {
        memcpy(s->in, records[0].inputs, (size_t)s->model->graph->input_count * sizeof(*s->in));
        st = TRM_OK;
    } else {
        st = stack(s, records, n, batch);
    }
    if (st == TRM_OK)
        st = trm_engine_run(s->model->engine, s->in, s->out);
    if (st == TRM_OK && n > 1 && !splits(s, batch)) {
        TRM_LOG(TRM_LOG_INFO, "score", "outputs are not one row a record: no more batches");
        s->stacks = false;
        st = TRM_ERR_UNSUPPORTED;
    }
    if (st == TRM_OK) {
        /* an output that is not one row a record goes out as it is */
        int64_t rows = !records[0].whole && splits(s, batch) ? batch : 0;

        for (int k = 0; k < n && st == TRM_OK; k++)
            st = split(s, k, rows, scratch, &results[k]);
    }
    if (st == TRM_OK)
        return;
    if (n == 1) {
        set_error(&results[0], st, scratch);
        return;
    }
    for (int k = 0; k < n; k++)
        run_stack(s, records + k, 1, scratch, results + k);
}

static bool same_inputs(const trm_score_model *s, const trmi_prepared *a, const trmi_prepared *b)
{
    if (a->whole || b->whole)
        return false;
    for (int i = 0; i < s->model->graph->input_count; i++)
        if (a->inputs[i].dtype != b->inputs[i].dtype ||
            !trm_tensor_same_shape(&a->inputs[i], &b->inputs[i]))
            return false;
    return true;
}

/* The size of the next run of up to `n` records: see the header. */
static int run_size(const trm_score_model *s, int n)
{
    int size = 1;

    if (!s->stacks)
        return 1;
    if (s->fixed_batch > 0)
        return n < s->fixed_batch ? n : (int)s->fixed_batch;
    if (n >= s->options.batch)
        return s->options.batch;
    while (size * 2 <= n)
        size *= 2;
    return size;
}

static trm_status run(void *ctx, trm_leader *leader, const trm_wire_record *records, int n,
                      trm_arena *scratch, trm_wire_result *results_out)
{
    trm_score_model *s = ctx;
    trmi_prepared *prepared = trm_arena_alloc(scratch, (size_t)n + 1, sizeof(*prepared));

    if (prepared == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a batch of %d records", n);
    for (int i = 0; i < n; i++) {
        trmi_score_prepare(s->model, &records[i], scratch, &prepared[i]);
        if (leader != NULL)
            trm_leader_progress(leader);
    }
    for (int at = 0; at < n;) {
        int same = 1, size;

        if (prepared[at].st != TRM_OK) {
            results_out[at] =
                (trm_wire_result){.status = prepared[at].st, .message = prepared[at].message};
            at++;
            continue;
        }
        while (at + same < n && prepared[at + same].st == TRM_OK &&
               same_inputs(s, &prepared[at], &prepared[at + same]))
            same++;
        size = run_size(s, same);
        run_stack(s, prepared + at, size, scratch, results_out + at);
        at += size;
        if (leader != NULL)
            trm_leader_progress(leader);
    }
    return TRM_OK;
}

trm_leader_model trm_score_model_callback(trm_score_model *score)
{
    trm_leader_model m = {.ctx = score, .batch_max = score->options.batch, .run = run};

    return m;
}
