/* One record to the tensors that the graph's inputs want. */
#include "base/file.h"
#include "worker/score_impl.h"

#include <stdio.h>
#include <string.h>

static trm_status no_memory(size_t bytes)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "%zu bytes for a record", bytes);
}

static trm_status fits(const trm_value *input, const trm_tensor *t);

static trm_status preprocess(const trm_tensor_model *model, const trm_wire_record *record,
                             const void *data, size_t bytes, trm_arena *scratch, trm_tensor *t)
{
    const trm_preprocess *p = &model->package->preprocess;
    trm_image image = {0};
    size_t need = 0;
    trm_status st;

    TRM_TRY(st, trm_image_decode(data, bytes, record->name, &image), done);
    memset(t, 0, sizeof(*t));
    t->dtype = p->dtype;
    t->rank = 3;
    trm_preprocess_shape(p, image.width, image.height, t->dims);
    TRM_TRY(st, fits(&model->graph->values[model->graph->inputs[0]], t), done);
    TRM_TRY(st, trm_tensor_bytes(t, &need), done);
    t->data = trm_arena_alloc_aligned(scratch, need + 1);
    st = t->data == NULL ? no_memory(need) : trm_preprocess_run(p, &image, t->data);
done:
    trm_image_fini(&image);
    return st;
}

static trm_status image(const trm_tensor_model *model, const trm_wire_record *record,
                        trm_arena *scratch, trm_tensor *t)
{
    trm_file *file = NULL;
    trm_status st;
    char *path;

    if (!model->package->has_preprocess || model->graph->input_count != 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: this model does not take images", record->name);
    if (record->kind == TRM_RECORD_IMAGE_BYTES)
        return preprocess(model, record, record->bytes, record->byte_count, scratch, t);
    path = trm_arena_strndup(scratch, record->bytes, record->byte_count);
    if (path == NULL)
        return no_memory(record->byte_count);
    TRM_CHECK(trm_file_open(path, &file));
    st = preprocess(model, record, trm_file_data(file), trm_file_bytes(file), scratch, t);
    trm_file_unref(file);
    return st;
}

static bool converts(trm_dtype from, trm_dtype to)
{
    return from == to || trm_dtype_is_float(to) || !trm_dtype_is_float(from);
}

/* A copy in scratch, aligned and of the wanted dtype. */
static trm_status convert(const trm_value *input, const trm_tensor *from, trm_arena *scratch,
                          trm_tensor *to)
{
    trm_dtype want = input->desc.dtype;
    trm_tensor aligned = *from;
    size_t elems = 0, bytes = 0;

    *to = *from;
    if (!converts(from->dtype, want))
        return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is %s, want %s", input->name,
                        trm_dtype_name(from->dtype), trm_dtype_name(want));
    TRM_CHECK(trm_tensor_elems(from, &elems));
    TRM_CHECK(trm_tensor_bytes(from, &bytes));
    aligned.data = trm_arena_alloc_aligned(scratch, bytes + 1);
    if (aligned.data == NULL)
        return no_memory(bytes);
    memcpy(aligned.data, from->data, bytes);
    if (from->dtype == want) {
        *to = aligned;
        return TRM_OK;
    }
    to->dtype = want;
    TRM_CHECK(trm_tensor_bytes(to, &bytes));
    to->data = trm_arena_alloc_aligned(scratch, bytes + 1);
    if (to->data == NULL)
        return no_memory(bytes);
    for (size_t i = 0; i < elems; i++) {
        if (trm_dtype_is_float(want))
            trm_tensor_set_f64(to, i, trm_tensor_get_f64(&aligned, i));
        else
            trm_tensor_set_i64(to, i, trm_tensor_get_i64(&aligned, i));
    }
    return TRM_OK;
}

static int find_input(const trm_graph *g, const char *name)
{
    if (name[0] == '\0' && g->input_count == 1)
        return 0;
    for (int i = 0; i < g->input_count; i++)
        if (strcmp(g->values[g->inputs[i]].name, name) == 0)
            return i;
    return -1;
}

/* A record's tensor against what the graph declares: without the batch dim, or with it. */
static trm_status fits(const trm_value *input, const trm_tensor *t)
{
    const trm_tensor *d = &input->desc;
    int shift = d->rank - t->rank;
    char have[TRM_SHAPE_TEXT_BYTES], want[TRM_SHAPE_TEXT_BYTES];
    trm_tensor one = *d;
    bool ok;

    if (!converts(t->dtype, d->dtype))
        return trm_fail(TRM_ERR_INVALID_ARG, "input '%s': the records are %s, the model wants %s",
                        input->name, trm_dtype_name(t->dtype), trm_dtype_name(d->dtype));
    if (d->rank < 1)
        return TRM_OK;
    ok = shift == 0 || shift == 1;
    for (int i = 0; ok && i < t->rank; i++)
        if (i + shift > 0 && d->dims[i + shift] >= 0 && d->dims[i + shift] != t->dims[i])
            ok = false;
    if (ok)
        return TRM_OK;
    one.rank--;
    memmove(one.dims, one.dims + 1, (size_t)one.rank * sizeof(*one.dims));
    return trm_fail(TRM_ERR_INVALID_ARG,
                    "input '%s': a record is %s, the model wants %s (without the batch dim)",
                    input->name, trm_tensor_shape_text(t, have, sizeof(have)),
                    trm_tensor_shape_text(&one, want, sizeof(want)));
}

trm_status trm_score_model_fits(const trm_tensor_model *model, const trm_wire_tensor *tensors,
                                int count)
{
    const trm_graph *g = model->graph;

    for (int k = 0; k < count; k++) {
        int i = find_input(g, tensors[k].name);

        if (i < 0 && tensors[k].name[0] == '\0')
            return trm_fail(
                TRM_ERR_INVALID_ARG,
                "the model has %d inputs ('%s', ...): want a .npz with an array for each",
                g->input_count, g->values[g->inputs[0]].name);
        if (i < 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "the model has no input '%s'; its first is '%s'",
                            tensors[k].name, g->values[g->inputs[0]].name);
        TRM_CHECK(fits(&g->values[g->inputs[i]], &tensors[k].tensor));
    }
    for (int i = 0; i < g->input_count; i++) {
        bool given = false;

        for (int k = 0; k < count; k++)
            given = given || find_input(g, tensors[k].name) == i;
        if (!given)
            return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is missing in the records",
                            g->values[g->inputs[i]].name);
    }
    return TRM_OK;
}

static trm_status tensors(const trm_tensor_model *model, const trm_wire_record *record,
                          trm_arena *scratch, trmi_prepared *p)
{
    const trm_graph *g = model->graph;
    int with_batch = 0, without = 0;

    for (int k = 0; k < record->tensor_count; k++) {
        const trm_wire_tensor *t = &record->tensors[k];
        int i = find_input(g, t->name);

        if (i < 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "the model has no input '%s'; its first is '%s'",
                            t->name, g->values[g->inputs[0]].name);
        if (p->inputs[i].dtype != TRM_DTYPE_NONE)
            return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is given twice", t->name);
        TRM_CHECK(convert(&g->values[g->inputs[i]], &t->tensor, scratch, &p->inputs[i]));
    }
    for (int i = 0; i < g->input_count; i++) {
        const trm_value *v = &g->values[g->inputs[i]];
        trm_tensor *t = &p->inputs[i];

        if (t->dtype == TRM_DTYPE_NONE)
            return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is missing", v->name);
        if (t->rank == v->desc.rank - 1) {
            without++;
        } else if (t->rank == v->desc.rank || v->desc.rank < 0) {
            with_batch++;
        } else {
            char have[TRM_SHAPE_TEXT_BYTES];

            return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is %s, want %d dims without a batch",
                            v->name, trm_tensor_shape_text(t, have, sizeof(have)),
                            v->desc.rank - 1);
        }
    }
    if (with_batch > 0 && without > 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "some inputs have a batch dim and some have none");
    p->whole = with_batch > 0;
    return TRM_OK;
}

/* Inputs that bring a batch dim of 1 are stacked like those that bring none. */
static void drop_batch_of_one(const trm_graph *g, trmi_prepared *p)
{
    for (int i = 0; i < g->input_count; i++)
        if (p->inputs[i].rank < 1 || p->inputs[i].dims[0] != 1)
            return;
    for (int i = 0; i < g->input_count; i++) {
        trm_tensor *t = &p->inputs[i];

        t->rank--;
        memmove(t->dims, t->dims + 1, (size_t)t->rank * sizeof(*t->dims));
    }
    p->whole = false;
}

void trmi_score_prepare(const trm_tensor_model *model, const trm_wire_record *record,
                        trm_arena *scratch, trmi_prepared *prepared_out)
{
    trmi_prepared p = {.st = TRM_OK, .message = ""};

    p.inputs = trm_arena_alloc(scratch, (size_t)model->graph->input_count + 1, sizeof(*p.inputs));
    if (p.inputs == NULL) {
        p.st = no_memory(0);
    } else if (record->kind == TRM_RECORD_TENSORS) {
        p.st = tensors(model, record, scratch, &p);
        if (p.st == TRM_OK && p.whole)
            drop_batch_of_one(model->graph, &p);
    } else {
        p.st = image(model, record, scratch, &p.inputs[0]);
    }
    if (p.st != TRM_OK) {
        p.message = trm_arena_strdup(scratch, trm_message());
        if (p.message == NULL)
            p.message = "out of memory";
    }
    *prepared_out = p;
}
