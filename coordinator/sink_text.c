/* .jsonl and .csv. */
#include "coordinator/lines.h"
#include "coordinator/sink.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct text_sink {
    trm_sink base;
    trm_sink_options options;
    trm_lines lines;
};

/* What of the records taken is in the file now: all, or as many as before. */
static trm_status settle(struct text_sink *m, trm_status written)
{
    if (written == TRM_OK && m->lines.complete == 0)
        m->base.at = (trm_journal_mark){
            .records = m->base.rows, .errors = m->base.errors, .bytes = m->lines.bytes};
    return written;
}

static trm_status text_flush(trm_sink *s)
{
    struct text_sink *m = (struct text_sink *)s;

    return settle(m, trm_lines_flush(&m->lines));
}

static trm_status text_close(trm_sink *s)
{
    struct text_sink *m = (struct text_sink *)s;
    trm_status st = trm_lines_close(&m->lines);

    trm_free(m);
    return st;
}

static trm_status open_lines(const char *path, const trm_sink_ops *ops,
                             const trm_sink_options *options, const trm_journal_mark *from,
                             struct text_sink **sink_out)
{
    struct text_sink *m = trm_calloc(1, sizeof(*m));
    trm_status st;

    if (m == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "output '%s'", path);
    m->base.ops = ops;
    m->options = *options;
    st = trm_lines_open(&m->lines, path, from->bytes, &m->base.hash);
    if (st != TRM_OK) {
        trm_free(m);
        return st;
    }
    *sink_out = m;
    return TRM_OK;
}

/* Element i of a decoded tensor, whose bytes may be misaligned. */
static trm_tensor element(const trm_tensor *t, size_t i, uint64_t *room)
{
    size_t bytes = trm_dtype_bytes(t->dtype);

    *room = 0;
    memcpy(room, (const char *)t->data + i * bytes, bytes);
    return (trm_tensor){.dtype = t->dtype, .data = room};
}

/* As short as keeps the value; what JSON cannot say (NaN, infinity) is null there. */
static void put_number(trm_lines *l, const trm_tensor *t, size_t i, const char *not_finite)
{
    uint64_t room;
    trm_tensor one = element(t, i, &room);

    if (!trm_dtype_is_float(t->dtype)) {
        if (t->dtype == TRM_DTYPE_U64)
            trm_lines_format(l, "%llu", (unsigned long long)room);
        else
            trm_lines_format(l, "%lld", (long long)trm_tensor_get_i64(&one, 0));
    } else if (!isfinite(trm_tensor_get_f64(&one, 0)) && not_finite != NULL) {
        trm_lines_text(l, not_finite);
    } else {
        trm_lines_format(l, t->dtype == TRM_DTYPE_F64 ? "%.17g" : "%.9g",
                         trm_tensor_get_f64(&one, 0));
    }
}

/* ---- .jsonl ---- */

static void put_json_text(trm_lines *l, const char *text)
{
    json_t *v = json_string(text);
    char *dump = v != NULL ? json_dumps(v, JSON_ENCODE_ANY) : NULL;

    if (dump != NULL) {
        trm_lines_text(l, dump);
    } else { /* not UTF-8: every other byte as it is, those as '?' */
        trm_lines_text(l, "\"");
        for (const char *p = text; *p != '\0'; p++) {
            bool plain = *p >= 0x20 && *p < 0x7f && *p != '"' && *p != '\\';

            trm_lines_put(l, plain ? p : "?", 1);
        }
        trm_lines_text(l, "\"");
    }
    free(dump);
    json_decref(v);
}

static void put_nested(trm_lines *l, const trm_tensor *t, int depth, size_t *at)
{
    if (depth == t->rank) {
        put_number(l, t, (*at)++, "null");
        return;
    }
    trm_lines_text(l, "[");
    for (int64_t i = 0; i < t->dims[depth]; i++) {
        if (i > 0)
            trm_lines_text(l, ",");
        put_nested(l, t, depth + 1, at);
    }
    trm_lines_text(l, "]");
}

static trm_status request_write(struct text_sink *m, const trm_taken *taken)
{
    const trm_wire_result *r = &taken->result;
    const trm_wire_tensor *line = trmi_sink_output(r, "line");
    trm_lines *l = &m->lines;
    char number[24];

    if (line != NULL && line->tensor.dtype == TRM_DTYPE_U8) {
        trm_lines_put(l, line->tensor.data, trm_tensor_numel(&line->tensor));
        return settle(m, trm_lines_end(l));
    }
    trm_lines_format(l, "{\"index\":%llu", (unsigned long long)r->id);
    snprintf(number, sizeof(number), "%llu", (unsigned long long)r->id);
    if (strcmp(taken->name, number) != 0) { /* a name that it brought, and was not given */
        trm_lines_text(l, ",\"id\":");
        put_json_text(l, taken->name);
    }
    trm_lines_text(l, ",\"error\":{\"message\":");
    put_json_text(l, r->status != TRM_OK ? r->message : "the replica sent no answer");
    trm_lines_text(l, ",\"type\":\"invalid_request_error\",\"param\":null,\"code\":");
    put_json_text(l, trm_status_name(r->status));
    trm_lines_text(l, "}}");
    return settle(m, trm_lines_end(l));
}

static trm_status jsonl_write(trm_sink *s, const trm_taken *taken)
{
    struct text_sink *m = (struct text_sink *)s;
    const trm_wire_result *r = &taken->result;
    trm_lines *l = &m->lines;

    if (m->options.requests)
        return request_write(m, taken);

    trm_lines_format(l, "{\"index\":%llu,\"%s\":", (unsigned long long)r->id,
                     m->options.images ? "file" : "id");
    put_json_text(l, taken->name);
    if (r->status != TRM_OK) {
        trm_lines_text(l, ",\"error\":");
        put_json_text(l, r->message);
    } else if (m->options.label_count > 0) {
        trm_lines_text(l, ",\"labels\":[");
        for (int i = 0; i < r->label_count; i++) {
            trm_lines_format(l, "%s{\"index\":%d,\"label\":", i > 0 ? "," : "", r->labels[i].index);
            put_json_text(l, r->labels[i].text);
            trm_lines_text(l, ",\"score\":");
            trm_lines_format(l, isfinite(r->labels[i].score) ? "%.9g}" : "null}",
                             (double)r->labels[i].score);
        }
        trm_lines_text(l, "]");
    } else {
        trm_lines_text(l, ",\"outputs\":{");
        for (int i = 0; i < r->output_count; i++) {
            size_t at = 0;

            if (i > 0)
                trm_lines_text(l, ",");
            put_json_text(l, r->outputs[i].name);
            trm_lines_text(l, ":");
            put_nested(l, &r->outputs[i].tensor, 0, &at);
        }
        trm_lines_text(l, "}");
    }
    trm_lines_text(l, "}");
    return settle(m, trm_lines_end(l));
}

static const trm_sink_ops jsonl_ops = {
    .name = "jsonl", .write = jsonl_write, .flush = text_flush, .close = text_close};

trm_status trmi_sink_jsonl(const char *path, const trm_sink_options *options,
                           const trm_journal_mark *from, trm_sink **sink_out)
{
    struct text_sink *m = NULL;

    TRM_CHECK(open_lines(path, &jsonl_ops, options, from, &m));
    *sink_out = &m->base;
    return TRM_OK;
}

/* ---- .csv ---- */

/* Quoted where needed; line ends inside a field become blanks, so that a record is one line. */
static void put_field(trm_lines *l, const char *text)
{
    bool quote = strpbrk(text, ",\"\r\n") != NULL;

    if (quote)
        trm_lines_text(l, "\"");
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"')
            trm_lines_text(l, "\"\"");
        else
            trm_lines_put(l, *p == '\n' || *p == '\r' ? " " : p, 1);
    }
    if (quote)
        trm_lines_text(l, "\"");
}

static void csv_header(trm_lines *l, const trm_sink_options *o)
{
    trm_lines_text(l, o->images ? "file" : "id");
    for (int i = 0; i < o->label_count; i++) {
        if (i == 0)
            trm_lines_text(l, ",label,score");
        else
            trm_lines_format(l, ",label_%d,score_%d", i + 1, i + 1);
    }
    for (int64_t i = 0; o->label_count == 0 && i < o->columns; i++)
        trm_lines_format(l, ",%.100s_%lld", o->column_name != NULL ? o->column_name : "output",
                         (long long)i);
    trm_lines_text(l, ",error\n");
}

static trm_status csv_write(trm_sink *s, const trm_taken *taken)
{
    struct text_sink *m = (struct text_sink *)s;
    const trm_sink_options *o = &m->options;
    const trm_wire_result *r = &taken->result;
    const trm_wire_tensor *out = trmi_sink_output(r, o->output);
    const char *error = r->status != TRM_OK ? r->message : "";
    size_t elems = 0;
    trm_lines *l = &m->lines;

    if (r->status == TRM_OK && o->label_count == 0 &&
        (out == NULL || trm_tensor_elems(&out->tensor, &elems) != TRM_OK ||
         (int64_t)elems != o->columns))
        error = "the output has another number of elements than the file has columns";
    put_field(l, taken->name);
    for (int i = 0; i < o->label_count; i++) {
        trm_lines_text(l, ",");
        if (*error == '\0' && i < r->label_count)
            put_field(l, r->labels[i].text);
        trm_lines_text(l, ",");
        if (*error == '\0' && i < r->label_count)
            trm_lines_format(l, "%.9g", (double)r->labels[i].score);
    }
    for (int64_t i = 0; o->label_count == 0 && i < o->columns; i++) {
        trm_lines_text(l, ",");
        if (*error == '\0')
            put_number(l, &out->tensor, (size_t)i, NULL);
    }
    trm_lines_text(l, ",");
    put_field(l, error);
    return settle(m, trm_lines_end(l));
}

static const trm_sink_ops csv_ops = {
    .name = "csv", .write = csv_write, .flush = text_flush, .close = text_close};

trm_status trmi_sink_csv(const char *path, const trm_sink_options *options,
                         const trm_journal_mark *from, trm_sink **sink_out)
{
    struct text_sink *m = NULL;

    TRM_CHECK(open_lines(path, &csv_ops, options, from, &m));
    if (from->bytes == 0) {
        csv_header(&m->lines, options);
        m->lines.complete = m->lines.used;
        if (m->lines.no_memory) {
            (void)!text_close(&m->base);
            return trm_fail(TRM_ERR_NO_MEMORY, "output '%s': its header", path);
        }
    }
    *sink_out = &m->base;
    return TRM_OK;
}
