/* Requests to a tensor model become inputs with a batch dim; outputs become answers. */
#include "worker/score_impl.h"
#include "worker/serve_tensor_impl.h"

#include <stdio.h>
#include <string.h>

#define LABELS_SENT 20   /* of PREDICT, at least */
#define CLASSES_MAX 1000 /* of a classification */

/* ---- what the model is ---- */

trm_status trmi_serve_tensor_inspect(struct trmi_serve_tensor *s)
{
    const trm_graph *g = s->model->graph;

    if (g->input_count == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s has no input: nothing can be asked of it",
                        s->model->path);
    s->stacks = trmi_score_batch(s->model, &s->fixed_batch) && s->options.batching;
    s->image = s->model->package->has_preprocess ||
               trm_package_default_preprocess(s->model->package) == TRM_OK;
    TRM_CHECK(trm_tensor_model_scores(s->model, &s->scores));
    if (!trm_dtype_is_float(g->values[g->outputs[s->scores]].desc.dtype))
        s->scores = -1;
    return TRM_OK;
}

static const char *datatype(trm_dtype t)
{
    switch (t) {
    case TRM_DTYPE_F32:
        return "FP32";
    case TRM_DTYPE_F16:
        return "FP16";
    case TRM_DTYPE_BF16:
        return "BF16";
    case TRM_DTYPE_F64:
        return "FP64";
    case TRM_DTYPE_I8:
        return "INT8";
    case TRM_DTYPE_U8:
        return "UINT8";
    case TRM_DTYPE_I16:
        return "INT16";
    case TRM_DTYPE_U16:
        return "UINT16";
    case TRM_DTYPE_I32:
        return "INT32";
    case TRM_DTYPE_U32:
        return "UINT32";
    case TRM_DTYPE_I64:
        return "INT64";
    case TRM_DTYPE_U64:
        return "UINT64";
    case TRM_DTYPE_BOOL:
        return "BOOL";
    default:
        return "BYTES";
    }
}

static json_t *values_json(const trm_graph *g, const int *values, int count)
{
    json_t *list = json_array();

    for (int i = 0; i < count; i++) {
        const trm_value *v = &g->values[values[i]];
        json_t *shape = json_array();

        for (int d = 0; d < v->desc.rank; d++)
            json_array_append_new(shape, json_integer(v->desc.dims[d] < 0 ? -1 : v->desc.dims[d]));
        json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "name", v->name, "datatype",
                                              datatype(v->desc.dtype), "shape", shape));
    }
    return list;
}

static json_t *preferred_json(const struct trmi_serve_tensor *s)
{
    json_t *list = json_array();

    for (int i = 0; i < s->batcher.preferred_count; i++)
        json_array_append_new(list, json_integer(s->batcher.preferred[i]));
    return list;
}

json_t *trmi_serve_tensor_metadata(const trm_serve_model *m)
{
    const struct trmi_serve_tensor *s = (const struct trmi_serve_tensor *)m;
    const trm_graph *g = s->model->graph;
    const trm_parallel *p = &s->model->parallel;
    char layout[64];

    snprintf(layout, sizeof(layout), "tensor=%d,pipeline=%d", p->tensor, p->pipeline);
    return json_pack(
        "{s:s, s:s, s:o, s:o, s:i, s:b, s:b, s:I, s:s, s:I, s:o, s:s}", "kind", "tensor",
        "platform", "onnx", "inputs", values_json(g, g->inputs, g->input_count), "outputs",
        values_json(g, g->outputs, g->output_count), "max_batch",
        s->stacks ? s->batcher.max_batch : 0, "labels", s->model->package->labels != NULL, "image",
        s->image, "parameters", (json_int_t)trm_graph_parameter_count(g), "layout", layout,
        "max_delay_us", (json_int_t)s->batcher.max_delay_us, "preferred_batch_sizes",
        preferred_json(s), "device", s->model->device->ops->name);
}

/* ---- requests ---- */

static trm_status find_output(const struct trmi_serve_tensor *s, const char *name, int *out)
{
    return trm_score_model_output(s->model, name, out);
}

/* {"outputs": [names], "classification": {name: count}} */
static trm_status read_wishes(const struct trmi_serve_tensor *s, struct trmi_serve_item *it,
                              const json_t *wishes)
{
    const json_t *outputs = json_object_get(wishes, "outputs"),
                 *classes = json_object_get(wishes, "classification");
    const char *key;
    json_t *v;
    size_t i;

    if (json_array_size(outputs) > 0) {
        memset(it->wanted, 0, (size_t)s->model->graph->output_count * sizeof(bool));
        json_array_foreach(outputs, i, v)
        {
            int at;

            if (!json_is_string(v))
                return trm_fail(TRM_ERR_INVALID_ARG, "an output's name is no text");
            TRM_CHECK(find_output(s, json_string_value(v), &at));
            it->wanted[at] = true;
        }
    }
    if (json_object_size(classes) > 1)
        return trm_fail(TRM_ERR_UNSUPPORTED, "classification of %zu outputs: want one a request",
                        json_object_size(classes));
    json_object_foreach((json_t *)(uintptr_t)classes, key, v)
    {
        TRM_CHECK(find_output(s, key, &it->classified));
        if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > CLASSES_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "classification of output '%s': want a count from 1 to %d", key,
                            CLASSES_MAX);
        it->classes = (int)json_integer_value(v);
        it->wanted[it->classified] = false; /* it comes as labels */
    }
    return TRM_OK;
}

static trm_status read_body(const struct trmi_serve_tensor *s, struct trmi_serve_item *it)
{
    const trm_wire_request *r = it->request;
    json_error_t error;
    json_t *wishes;
    trm_status st;

    if (r->kind != TRM_REQUEST_INFER || r->body_bytes == 0)
        return TRM_OK;
    wishes = json_loadb(r->body, r->body_bytes, 0, &error);
    if (!json_is_object(wishes)) {
        json_decref(wishes);
        return trm_fail(TRM_ERR_INVALID_ARG, "what is asked of the outputs is no JSON object");
    }
    st = read_wishes(s, it, wishes);
    json_decref(wishes);
    return st;
}

/* Puts the batch dim in front where there is none, and finds how many rows there are. */
static trm_status settle_rows(const struct trmi_serve_tensor *s, struct trmi_serve_item *it,
                              const trmi_prepared *p)
{
    const trm_graph *g = s->model->graph;

    it->inputs = p->inputs;
    for (int i = 0; i < g->input_count && !p->whole; i++) {
        trm_tensor *t = &it->inputs[i];

        if (t->rank == TRM_RANK_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED, "input %d has too many dims", i);
        memmove(t->dims + 1, t->dims, (size_t)t->rank * sizeof(*t->dims));
        t->dims[0] = 1;
        t->rank++;
    }
    if (!s->stacks)
        return TRM_OK; /* the engine checks what it gets */
    for (int i = 0; i < g->input_count; i++) {
        const trm_tensor *t = &it->inputs[i];

        if (t->rank < 1 || t->dims[0] < 1 || (i > 0 && t->dims[0] != it->inputs[0].dims[0]))
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "input '%s': want a batch dim of at least 1, the same for all inputs",
                            g->values[g->inputs[i]].name);
    }
    it->rows = it->inputs[0].dims[0];
    if (it->rows > s->batcher.max_batch)
        return trm_fail(TRM_ERR_INVALID_ARG, "a batch of %lld rows: want at most %d",
                        (long long)it->rows, s->batcher.max_batch);
    return TRM_OK;
}

trm_status trmi_serve_tensor_read(struct trmi_serve_tensor *s, struct trmi_serve_item *it)
{
    const trm_wire_request *r = it->request;
    int outputs = s->model->graph->output_count;
    trm_wire_record record = {.name = "the request", .kind = TRM_RECORD_TENSORS};
    trmi_prepared p;

    it->classified = -1;
    it->wanted = trm_arena_alloc(it->scratch, (size_t)outputs + 1, sizeof(*it->wanted));
    if (it->wanted == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a request");
    for (int i = 0; i < outputs; i++)
        it->wanted[i] = true;
    record.tensors = r->tensors;
    record.tensor_count = r->tensor_count;
    if (r->kind == TRM_REQUEST_PREDICT && s->scores < 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "model '%s' has no class scores: ask it by infer",
                        s->name);
    if (r->kind == TRM_REQUEST_PREDICT && r->tensor_count == 0) {
        record.kind = TRM_RECORD_IMAGE_BYTES;
        record.bytes = r->body;
        record.byte_count = r->body_bytes;
        if (!s->image)
            return trm_fail(TRM_ERR_INVALID_ARG, "model '%s' takes no images", s->name);
    } else if (r->kind != TRM_REQUEST_INFER && r->kind != TRM_REQUEST_PREDICT) {
        return trm_fail(TRM_ERR_INVALID_ARG, "model '%s' is no language model: it does not take %s",
                        s->name, trm_request_kind_name(r->kind));
    }
    TRM_CHECK(read_body(s, it));
    trmi_score_prepare(s->model, &record, it->scratch, &p);
    if (p.st != TRM_OK)
        return trm_fail(p.st, "%s", p.message);
    return settle_rows(s, it, &p);
}

bool trmi_serve_tensor_alike(const struct trmi_serve_tensor *s, const struct trmi_serve_item *a,
                             const struct trmi_serve_item *b)
{
    if (a == b)
        return true;
    if (!s->stacks || a->rows == 0 || b->rows == 0 || a->alone || b->alone)
        return false;
    for (int i = 0; i < s->model->graph->input_count; i++) {
        const trm_tensor *x = &a->inputs[i], *y = &b->inputs[i];

        if (x->dtype != y->dtype || x->rank != y->rank ||
            memcmp(x->dims + 1, y->dims + 1, (size_t)(x->rank - 1) * sizeof(*x->dims)) != 0)
            return false;
    }
    return true;
}

/* ---- stacks ---- */

static trm_status room(struct trmi_serve_tensor *s, int i, size_t bytes)
{
    if (bytes <= s->stacked_bytes[i] && s->stacked[i] != NULL)
        return TRM_OK;
    trm_aligned_free(s->stacked[i]);
    s->stacked_bytes[i] = 0;
    s->stacked[i] = trm_aligned_malloc(bytes + 1);
    if (s->stacked[i] == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a batch of %zu bytes", bytes);
    s->stacked_bytes[i] = bytes;
    return TRM_OK;
}

trm_status trmi_serve_tensor_stack(struct trmi_serve_tensor *s, struct trmi_serve_batch *b)
{
    int inputs = s->model->graph->input_count;

    b->ran_rows = s->fixed_batch > 0 && s->stacks ? s->fixed_batch : b->rows;
    memcpy(s->in, b->items->inputs, (size_t)inputs * sizeof(*s->in));
    if (b->count == 1 && b->ran_rows == b->rows)
        return TRM_OK; /* as it is */
    for (int i = 0; i < inputs; i++) {
        trm_tensor one = b->items->inputs[i];
        size_t row = 0, all, at = 0;

        one.dims[0] = 1;
        TRM_CHECK(trm_tensor_bytes(&one, &row));
        if (!trm_mul_ok(row, (size_t)b->ran_rows, &all))
            return trm_fail(TRM_ERR_INVALID_ARG, "a batch of %lld rows", (long long)b->ran_rows);
        TRM_CHECK(room(s, i, all));
        for (const struct trmi_serve_item *it = b->items; it != NULL; it = it->next) {
            size_t bytes = row * (size_t)it->rows;

            memcpy((char *)s->stacked[i] + at, it->inputs[i].data, bytes);
            at += bytes;
        }
        for (; at < all; at += row) /* a fixed batch is filled up with the last row */
            memcpy((char *)s->stacked[i] + at, (char *)s->stacked[i] + at - row, row);
        s->in[i].dims[0] = b->ran_rows;
        s->in[i].data = s->stacked[i];
    }
    return TRM_OK;
}

bool trmi_serve_tensor_splits(const struct trmi_serve_tensor *s, int64_t rows)
{
    for (int i = 0; i < s->model->graph->output_count; i++)
        if (s->out[i].rank < 1 || s->out[i].dims[0] != rows)
            return false;
    return true;
}

/* ---- answers ---- */

/* The best `k` of each row of `t`; raw scores, or after the package's activation. */
static trm_status add_labels(const struct trmi_serve_tensor *s, const trm_tensor *t, int k,
                             bool probabilities, trm_arena *scratch, trm_wire_answer *a)
{
    trm_package raw = *s->model->package;
    int rows = t->rank > 1 ? (int)t->dims[0] : 1;
    size_t all = trm_tensor_numel(t), classes = rows > 0 ? all / (size_t)rows : 0;
    trm_wire_label *labels;
    trm_label *best;
    float *f32;

    if (!trm_dtype_is_float(t->dtype) || classes == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "the output is no list of floating scores");
    if ((size_t)k > classes)
        k = (int)classes;
    if (!probabilities)
        raw.activation = TRM_ACTIVATION_NONE;
    f32 = trm_arena_alloc(scratch, classes + 1, sizeof(*f32));
    best = trm_arena_alloc(scratch, (size_t)k + 1, sizeof(*best));
    labels = trm_arena_alloc(scratch, (size_t)k * (size_t)rows + 1, sizeof(*labels));
    if (f32 == NULL || best == NULL || labels == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "labels of %zu classes", classes);
    for (int r = 0; r < rows; r++) {
        int n;

        for (size_t i = 0; i < classes; i++)
            f32[i] = t->dtype == TRM_DTYPE_F32
                         ? ((const float *)t->data)[(size_t)r * classes + i]
                         : (float)trm_tensor_get_f64(t, (size_t)r * classes + i);
        n = trm_package_top(&raw, f32, classes, k, best);
        for (int i = 0; i < n; i++) {
            trm_wire_label *l = &labels[r * k + i];
            char number[16];

            l->index = best[i].index;
            l->score = best[i].score;
            l->text = best[i].text;
            snprintf(number, sizeof(number), "%d", best[i].index);
            if (l->text == NULL && (l->text = trm_arena_strdup(scratch, number)) == NULL)
                return trm_fail(TRM_ERR_NO_MEMORY, "label");
        }
    }
    a->labels = labels;
    a->label_rows = rows;
    a->label_count = rows * k;
    return TRM_OK;
}

static trm_status fill(struct trmi_serve_tensor *s, struct trmi_serve_item *it, int64_t row,
                       bool split, trm_wire_answer *a)
{
    const trm_graph *g = s->model->graph;
    trm_wire_tensor *outputs =
        trm_arena_alloc(it->scratch, (size_t)g->output_count + 1, sizeof(*outputs));
    bool predict = it->request->kind == TRM_REQUEST_PREDICT;

    if (outputs == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "outputs");
    memset(outputs, 0, ((size_t)g->output_count + 1) * sizeof(*outputs));
    for (int i = 0; i < g->output_count; i++) {
        trm_tensor part = s->out[i];

        if (split) {
            size_t bytes;

            part.dims[0] = 1;
            TRM_CHECK(trm_tensor_bytes(&part, &bytes));
            part.dims[0] = it->rows;
            part.data = (char *)part.data + (size_t)row * bytes;
        }
        if (predict && i == s->scores) {
            int k = s->model->package->top_k > LABELS_SENT ? s->model->package->top_k : LABELS_SENT;

            TRM_CHECK(add_labels(s, &part, k, true, it->scratch, a));
        } else if (it->classes > 0 && i == it->classified) {
            TRM_CHECK(add_labels(s, &part, it->classes, false, it->scratch, a));
        }
        if (predict || !it->wanted[i])
            continue;
        outputs[a->output_count].name = g->values[g->outputs[i]].name;
        outputs[a->output_count++].tensor = part; /* is encoded before the engine's next run */
    }
    a->outputs = outputs;
    return TRM_OK;
}

void trmi_serve_tensor_reply(struct trmi_serve_tensor *s, struct trmi_serve_item *it,
                             const struct trmi_serve_batch *b, int64_t row)
{
    trm_wire_answer a = {.batch = (uint32_t)(b->rows > 0 ? b->rows : 1)};
    bool split = s->stacks && it->rows > 0 && trmi_serve_tensor_splits(s, b->ran_rows);
    char text[512];

    a.status = fill(s, it, row, split, &a);
    if (a.status != TRM_OK) {
        snprintf(text, sizeof(text), "%s", trm_message());
        a.message = text;
        a.output_count = a.label_count = a.label_rows = 0;
    }
    trmi_serve_tensor_answer(s, it, &a);
}
