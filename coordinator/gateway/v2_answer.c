/* An answer's outputs as v2's response: numbers in the JSON, or their bytes behind it. */
#include "coordinator/gateway/v2_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LONG_ELEMS 8192 /* some 30 to 60 ns each: half a millisecond */

/* One output of the response. */
struct shown {
    const trm_wire_tensor *tensor; /* NULL: the labels */
    const char *name;
    bool binary;
    trmi_text texts; /* of the labels: as JSON, or each behind its length */
};

static const trm_wire_tensor *find(const trm_wire_answer *answer, const char *name)
{
    for (int i = 0; i < answer->output_count; i++)
        if (strcmp(answer->outputs[i].name, name) == 0)
            return &answer->outputs[i];
    return NULL;
}

/* "score:index" or "score:index:label". A replica without labels says the index in their place. */
static void label_text(trmi_text *t, const trm_wire_label *label)
{
    char index[16];

    snprintf(index, sizeof(index), "%" PRId32, label->index);
    trmi_text_f32(t, label->score);
    trmi_text_print(t, ":%s", index);
    if (label->text != NULL && label->text[0] != '\0' && strcmp(label->text, index) != 0) {
        trmi_text_add(t, ":", 1);
        trmi_text_put(t, label->text);
    }
}

static void add_label(trmi_text *all, const trm_wire_label *label, bool binary)
{
    trmi_text one = {0};

    label_text(&one, label);
    if (binary) {
        unsigned char length[4];

        for (int i = 0; i < 4; i++)
            length[i] = (unsigned char)(one.bytes >> 8 * i);
        trmi_text_add(all, length, 4);
        trmi_text_add(all, one.data, one.bytes);
    } else {
        trmi_text_put(all, all->bytes == 0 ? "[" : ",");
        trmi_text_string(all, one.data == NULL ? "" : one.data, one.bytes);
    }
    all->failed = all->failed || one.failed;
    trmi_text_fini(&one);
}

static void show_labels(struct shown *s, const trm_wire_answer *answer)
{
    for (int i = 0; i < answer->label_count; i++)
        add_label(&s->texts, &answer->labels[i], s->binary);
    if (!s->binary)
        trmi_text_put(&s->texts, answer->label_count == 0 ? "[]" : "]");
}

static size_t shown_bytes(const struct shown *s)
{
    return s->tensor == NULL
               ? s->texts.bytes
               : trm_tensor_numel(&s->tensor->tensor) * trm_dtype_bytes(s->tensor->tensor.dtype);
}

static void put_shape(trmi_text *t, const trm_tensor *tensor)
{
    for (int i = 0; i < tensor->rank; i++)
        trmi_text_print(t, "%s%" PRId64, i > 0 ? "," : "", tensor->dims[i]);
}

static void put_output(trmi_text *t, const struct shown *s, const trm_wire_answer *answer)
{
    trmi_text_put(t, "{\"name\":");
    trmi_text_string(t, s->name, strlen(s->name));
    trmi_text_print(t, ",\"datatype\":\"%s\",\"shape\":[",
                    s->tensor == NULL ? "BYTES" : trmi_v2_datatype(s->tensor->tensor.dtype));
    if (s->tensor != NULL)
        put_shape(t, &s->tensor->tensor);
    else
        trmi_text_print(t, "%d,%d", answer->label_rows,
                        answer->label_rows > 0 ? answer->label_count / answer->label_rows : 0);
    if (s->binary) {
        trmi_text_print(t, "],\"parameters\":{\"binary_data_size\":%zu}}", shown_bytes(s));
        return;
    }
    trmi_text_put(t, "],\"data\":");
    if (s->tensor != NULL)
        trmi_text_elements(t, &s->tensor->tensor);
    else
        trmi_text_add(t, s->texts.data, s->texts.bytes);
    trmi_text_put(t, "}");
}

static void put_head(trmi_text *t, const trmi_v2_form *form, const trm_wire_answer *answer)
{
    trmi_text_put(t, "{");
    if (form->id != NULL) {
        trmi_text_put(t, "\"id\":");
        trmi_text_string(t, form->id, strlen(form->id));
        trmi_text_put(t, ",");
    }
    trmi_text_put(t, "\"model_name\":");
    trmi_text_string(t, answer->model, strlen(answer->model));
    trmi_text_print(t, ",\"model_version\":\"%" PRId64 "\",\"outputs\":[", answer->version);
}

/* Which outputs, in which form. INTERNAL: one that was asked for is not there. */
static trm_status choose(const trmi_v2_form *form, const trm_wire_answer *answer,
                         struct shown *shown, int count)
{
    for (int i = 0; i < count; i++) {
        struct shown *s = &shown[i];

        if (form->outputs == NULL) {
            s->tensor = &answer->outputs[i];
            s->name = s->tensor->name;
            s->binary = form->binary;
            continue;
        }
        s->name = form->outputs[i].name;
        s->binary = form->outputs[i].binary;
        if (form->outputs[i].classes > 0) {
            show_labels(s, answer);
            continue;
        }
        s->tensor = find(answer, s->name);
        if (s->tensor == NULL)
            return trm_fail(TRM_ERR_INTERNAL, "output '%.100s' is not in the answer", s->name);
    }
    return TRM_OK;
}

/* Sends the text, with the binary outputs behind it if there are any. */
static void send(trm_http_exchange *x, trmi_text *t, const struct shown *shown, int count)
{
    size_t header = t->bytes, all = 0;
    bool binary = false;
    char number[32];

    for (int i = 0; i < count; i++) {
        if (shown[i].binary) {
            binary = true;
            all += shown_bytes(&shown[i]);
        }
    }
    (void)trmi_text_reserve(t, all);
    for (int i = 0; i < count; i++)
        if (shown[i].binary)
            trmi_text_add(
                t, shown[i].tensor == NULL ? shown[i].texts.data : shown[i].tensor->tensor.data,
                shown_bytes(&shown[i]));
    if (t->failed) {
        trmi_text_fini(t);
        trmi_gateway_fail(x, TRM_ERR_NO_MEMORY, "no memory for a response");
        return;
    }
    if (binary) {
        snprintf(number, sizeof(number), "%zu", header);
        trm_http_set_header(x, "Inference-Header-Content-Length", number);
    }
    trm_http_answer_take(x, 200, binary ? "application/octet-stream" : "application/json", t->data,
                         t->bytes);
}

bool trmi_v2_answer_is_long(const trmi_v2_form *form, const trm_wire_answer *answer)
{
    size_t elems = 0;

    if (answer->status != TRM_OK)
        return false;
    for (int i = 0; i < answer->output_count; i++) {
        bool binary = form->binary;

        for (int k = 0; k < form->output_count; k++)
            if (strcmp(form->outputs[k].name, answer->outputs[i].name) == 0)
                binary = form->outputs[k].binary;
        if (!binary)
            elems += trm_tensor_numel(&answer->outputs[i].tensor);
    }
    return elems > LONG_ELEMS;
}

static bool copy_outputs(trm_arena *arena, const trm_wire_answer *from, trm_wire_answer *to)
{
    trm_wire_tensor *outputs =
        trm_arena_alloc(arena, (size_t)from->output_count + 1, sizeof(*outputs));

    for (int i = 0; outputs != NULL && i < from->output_count; i++) {
        const trm_tensor *t = &from->outputs[i].tensor;
        size_t bytes = trm_tensor_numel(t) * trm_dtype_bytes(t->dtype);

        outputs[i] = from->outputs[i];
        outputs[i].name = trm_arena_strdup(arena, from->outputs[i].name);
        outputs[i].tensor.data = trm_arena_alloc(arena, bytes + 1, 1);
        if (outputs[i].name == NULL || outputs[i].tensor.data == NULL)
            return false;
        if (bytes > 0)
            memcpy(outputs[i].tensor.data, t->data, bytes);
    }
    to->outputs = outputs;
    return outputs != NULL;
}

static bool copy_labels(trm_arena *arena, const trm_wire_answer *from, trm_wire_answer *to)
{
    trm_wire_label *labels = trm_arena_alloc(arena, (size_t)from->label_count + 1, sizeof(*labels));

    for (int i = 0; labels != NULL && i < from->label_count; i++) {
        labels[i] = from->labels[i];
        labels[i].text =
            trm_arena_strdup(arena, from->labels[i].text == NULL ? "" : from->labels[i].text);
        if (labels[i].text == NULL)
            return false;
    }
    to->labels = labels;
    return labels != NULL;
}

trm_wire_answer *trmi_v2_answer_copy(trm_arena *arena, const trm_wire_answer *answer)
{
    trm_wire_answer *copy = trm_arena_alloc(arena, 1, sizeof(*copy));

    if (copy == NULL)
        return NULL;
    *copy = *answer;
    copy->body = NULL;
    copy->body_bytes = 0;
    copy->message = "";
    copy->model = trm_arena_strdup(arena, answer->model);
    return copy->model != NULL && copy_outputs(arena, answer, copy) &&
                   copy_labels(arena, answer, copy)
               ? copy
               : NULL;
}

void trmi_v2_answer(trm_http_exchange *x, const trmi_v2_form *form, const trm_wire_answer *answer)
{
    int count = form->outputs == NULL ? answer->output_count : form->output_count;
    struct shown *shown;
    trmi_text t = {0};
    trm_status st;

    if (answer->status != TRM_OK) {
        trmi_gateway_fail(x, answer->status, answer->message);
        return;
    }
    shown = trm_calloc((size_t)count + 1, sizeof(*shown));
    st = shown == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "no memory for a response")
                       : choose(form, answer, shown, count);
    if (st != TRM_OK) {
        trmi_gateway_fail(x, st, trm_message());
    } else {
        put_head(&t, form, answer);
        for (int i = 0; i < count; i++) {
            trmi_text_put(&t, i > 0 ? "," : "");
            put_output(&t, &shown[i], answer);
            t.failed = t.failed || shown[i].texts.failed;
        }
        trmi_text_put(&t, "]}");
        send(x, &t, shown, count);
    }
    for (int i = 0; shown != NULL && i < count; i++)
        trmi_text_fini(&shown[i].texts);
    trm_free(shown);
}
