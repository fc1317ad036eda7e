/* A tensor model behind a leader: what fits, stacks of records, results of rows. score_run.c runs
 * them. */
#include "worker/score_model.h"
#include "worker/score_impl.h"

#include <stdio.h>
#include <string.h>

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
bool trmi_score_batch(const trm_tensor_model *model, int64_t *fixed_out)
{
    const trm_graph *g = model->graph;
    int64_t fixed = -1;

    *fixed_out = 0;
    if (trm_tensor_model_batches(model))
        return true;
    for (int i = 0; i < g->input_count; i++) {
        const trm_tensor *d = &g->values[g->inputs[i]].desc;

        if (d->rank < 1 || d->dims[0] < 1 || (fixed >= 0 && d->dims[0] != fixed))
            return false;
        fixed = d->dims[0];
    }
    for (int i = 0; i < g->output_count; i++) {
        const trm_tensor *d = &g->values[g->outputs[i]].desc;

        if (d->rank < 1 || d->dims[0] != fixed)
            return false;
    }
    if (fixed > 1)
        *fixed_out = fixed;
    return fixed > 1;
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
    s->stacks = trmi_score_batch(model, &s->fixed_batch);
    s->run_batch = options->batch;
    if (model->parallel.pipeline > 1) /* a batch keeps the pipeline full */
        s->run_batch = (options->batch + model->parallel.pipeline - 1) / model->parallel.pipeline;
    s->ring_max = trm_replica_depth(model->replica);
    s->ring = trm_calloc((size_t)s->ring_max, sizeof(*s->ring));
    s->in = trm_calloc(inputs, sizeof(*s->in));
    s->out = trm_calloc(outputs + 1, sizeof(*s->out));
    s->stacked = trm_calloc(inputs, sizeof(*s->stacked));
    s->stacked_bytes = trm_calloc(inputs, sizeof(*s->stacked_bytes));
    if (s->in == NULL || s->out == NULL || s->stacked == NULL || s->stacked_bytes == NULL ||
        s->ring == NULL) {
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
    trm_free(score->ring);
    trm_free(score->in);
    trm_free(score->out);
    trm_free(score);
}

/* ---- one run ---- */

trm_status trmi_score_stack(trm_score_model *s, const trmi_prepared *records, int n, int64_t batch)
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

trm_status trmi_score_split(const trm_score_model *s, int64_t k, int64_t batch, trm_arena *scratch,
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

bool trmi_score_splits(const trm_score_model *s, int64_t batch)
{
    for (int i = 0; i < s->model->graph->output_count; i++)
        if (s->out[i].rank < 1 || s->out[i].dims[0] != batch)
            return false;
    return true;
}
