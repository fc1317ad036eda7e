/* Writing messages with msgpack-c's packer. */
#include "base/wire_impl.h"

#include <string.h>

static int append(void *ctx, const char *data, size_t bytes)
{
    trm_wire_buffer *b = ctx;
    size_t want;

    if (!trm_add_ok(b->bytes, bytes, &want))
        return -1;
    if (want > b->bytes_max) {
        size_t room = b->bytes_max < 256 ? 256 : b->bytes_max;
        unsigned char *grown;

        while (room < want)
            if (!trm_mul_ok(room, (size_t)2, &room))
                return -1;
        grown = trm_realloc(b->data, room, 1);
        if (grown == NULL)
            return -1;
        b->data = grown;
        b->bytes_max = room;
    }
    if (bytes > 0)
        memcpy(b->data + b->bytes, data, bytes);
    b->bytes = want;
    return 0;
}

void trm_wire_buffer_fini(trm_wire_buffer *buffer)
{
    trm_free(buffer->data);
    memset(buffer, 0, sizeof(*buffer));
}

void trmi_wire_note(struct trmi_writer *w, int rc)
{
    if (rc != 0)
        w->no_memory = true;
}

void trmi_wire_put_array(struct trmi_writer *w, size_t n)
{
    trmi_wire_note(w, msgpack_pack_array(&w->pk, n));
}

void trmi_wire_put_int(struct trmi_writer *w, int64_t v)
{
    trmi_wire_note(w, msgpack_pack_int64(&w->pk, v));
}

void trmi_wire_put_uint(struct trmi_writer *w, uint64_t v)
{
    trmi_wire_note(w, msgpack_pack_uint64(&w->pk, v));
}

static void put_str(struct trmi_writer *w, const char *text, size_t n)
{
    trmi_wire_note(w, msgpack_pack_str(&w->pk, n));
    if (n > 0)
        trmi_wire_note(w, msgpack_pack_str_body(&w->pk, text, n));
}

void trmi_wire_put_text(struct trmi_writer *w, const char *text)
{
    size_t n = text != NULL ? strlen(text) : 0;

    if (n > TRM_WIRE_TEXT_MAX) { /* messages and labels may be cut; names are checked below */
        n = TRM_WIRE_TEXT_MAX;
        while (n > TRM_WIRE_TEXT_MAX - 4 && ((unsigned char)text[n] & 0xc0) == 0x80)
            n--; /* not inside a character */
    }
    put_str(w, text, n);
}

void trmi_wire_put_name(struct trmi_writer *w, const char *name)
{
    if (name != NULL && strlen(name) > TRM_WIRE_TEXT_MAX)
        w->bad = "a name is too long";
    trmi_wire_put_text(w, name);
}

void trmi_wire_put_json(struct trmi_writer *w, const char *text)
{
    size_t n = text != NULL ? strlen(text) : 0;

    if (n > TRM_WIRE_JSON_MAX) {
        w->bad = "settings or metadata are over 1 MiB";
        n = 0;
    }
    put_str(w, text, n);
}

void trmi_wire_put_bin(struct trmi_writer *w, const void *data, size_t bytes)
{
    if (bytes > TRM_WIRE_FRAME_MAX) {
        w->bad = "a record is over 2 GiB";
        bytes = 0;
    }
    trmi_wire_note(w, msgpack_pack_bin(&w->pk, bytes));
    if (bytes > 0)
        trmi_wire_note(w, msgpack_pack_bin_body(&w->pk, data, bytes));
}

/* the bytes themselves, or where they are */
static void put_data(struct trmi_writer *w, const trm_wire_tensor *t, size_t bytes, bool shared)
{
    if (t->shared && !shared)
        w->bad = "a record's tensor lies in shared memory";
    if (!t->shared && t->tensor.data == NULL && bytes > 0) {
        w->bad = "a tensor has no data";
        bytes = 0;
    }
    if (!t->shared) {
        trmi_wire_put_bin(w, t->tensor.data, bytes);
        return;
    }
    trmi_wire_put_array(w, 2);
    trmi_wire_put_uint(w, t->offset);
    trmi_wire_put_uint(w, bytes);
}

void trmi_wire_put_tensors(struct trmi_writer *w, const trm_wire_tensor *tensors, int count,
                           bool shared)
{
    if (count < 0 || count > TRM_WIRE_TENSORS_MAX) {
        w->bad = "too many tensors";
        count = 0;
    }
    trmi_wire_put_array(w, (size_t)count);
    for (int i = 0; i < count; i++) {
        const trm_tensor *t = &tensors[i].tensor;
        size_t bytes = 0;

        if (t->layout != TRM_LAYOUT_PLAIN || t->rank > TRM_RANK_MAX || !trm_tensor_is_concrete(t) ||
            trm_tensor_bytes(t, &bytes) != TRM_OK) {
            w->bad = "a tensor has no plain, known shape";
            trmi_wire_put_array(w, 0);
            continue;
        }
        trmi_wire_put_array(w, 4);
        trmi_wire_put_name(w, tensors[i].name);
        trmi_wire_put_int(w, t->dtype);
        trmi_wire_put_array(w, (size_t)t->rank);
        for (int d = 0; d < t->rank; d++)
            trmi_wire_put_int(w, t->dims[d]);
        put_data(w, &tensors[i], bytes, shared);
    }
}

void trmi_wire_put_labels(struct trmi_writer *w, const trm_wire_label *labels, int count)
{
    if (count < 0 || count > TRM_WIRE_LABELS_MAX) {
        w->bad = "too many labels";
        count = 0;
    }
    trmi_wire_put_array(w, (size_t)count);
    for (int i = 0; i < count; i++) {
        trmi_wire_put_array(w, 3);
        trmi_wire_put_int(w, labels[i].index);
        trmi_wire_note(w, msgpack_pack_float(&w->pk, labels[i].score));
        trmi_wire_put_text(w, labels[i].text);
    }
}

static void put_record(struct trmi_writer *w, const trm_wire_record *r)
{
    trmi_wire_put_array(w, 5);
    trmi_wire_put_uint(w, r->id);
    trmi_wire_put_int(w, r->kind);
    trmi_wire_put_name(w, r->name);
    trmi_wire_put_bin(w, r->bytes, r->kind == TRM_RECORD_TENSORS ? 0 : r->byte_count);
    trmi_wire_put_tensors(w, r->tensors, r->kind == TRM_RECORD_TENSORS ? r->tensor_count : 0,
                          false);
}

static void put_result(struct trmi_writer *w, const trm_wire_result *r)
{
    trmi_wire_put_array(w, 5);
    trmi_wire_put_uint(w, r->id);
    trmi_wire_put_int(w, r->status);
    trmi_wire_put_text(w, r->message);
    trmi_wire_put_tensors(w, r->outputs, r->output_count, false);
    trmi_wire_put_labels(w, r->labels, r->label_count);
}

static void begin(struct trmi_writer *w, trm_wire_buffer *out)
{
    memset(w, 0, sizeof(*w));
    msgpack_packer_init(&w->pk, out, append);
}

void trmi_wire_head(struct trmi_writer *w, trm_wire_kind kind, size_t fields)
{
    trmi_wire_put_array(w, 2 + fields);
    trmi_wire_put_uint(w, TRM_WIRE_VERSION);
    trmi_wire_put_uint(w, (uint64_t)kind);
}

/* Takes back what was written if anything was wrong. */
static trm_status finish(struct trmi_writer *w, trm_wire_buffer *out, size_t before)
{
    if (w->bad == NULL && !w->no_memory && out->bytes - before > TRM_WIRE_FRAME_MAX)
        w->bad = "it is over 2 GiB";
    if (w->bad == NULL && !w->no_memory)
        return TRM_OK;
    out->bytes = before;
    if (w->no_memory)
        return trm_fail(TRM_ERR_NO_MEMORY, "wire: no memory for a message");
    return trm_fail(TRM_ERR_INVALID_ARG, "wire: message cannot be sent: %s", w->bad);
}

trm_status trm_wire_encode_record(const trm_wire_record *record, trm_wire_buffer *out)
{
    size_t before = out->bytes;
    struct trmi_writer w;

    begin(&w, out);
    put_record(&w, record);
    return finish(&w, out, before);
}

trm_status trm_wire_encode_batch(const trm_wire_buffer *const *records, int count,
                                 trm_wire_buffer *out)
{
    size_t before = out->bytes;
    struct trmi_writer w;

    begin(&w, out);
    trmi_wire_head(&w, TRM_WIRE_BATCH, 1);
    if (count > TRM_WIRE_RECORDS_MAX) {
        w.bad = "too many records";
        count = 0;
    }
    trmi_wire_put_array(&w, (size_t)count);
    for (int i = 0; i < count; i++)
        trmi_wire_note(&w, append(out, (const char *)records[i]->data, records[i]->bytes));
    return finish(&w, out, before);
}

trm_status trm_wire_encode(const trm_wire_message *m, trm_wire_buffer *out)
{
    size_t before = out->bytes;
    int count = m->count;
    struct trmi_writer w;

    begin(&w, out);
    if ((m->kind == TRM_WIRE_BATCH || m->kind == TRM_WIRE_RESULT) &&
        (count < 0 || count > TRM_WIRE_RECORDS_MAX)) {
        w.bad = "too many records";
        count = 0;
    }
    switch (m->kind) {
    case TRM_WIRE_HELLO:
        trmi_wire_head(&w, m->kind, 5);
        trmi_wire_put_name(&w, m->host);
        trmi_wire_put_int(&w, m->rank);
        trmi_wire_put_int(&w, m->pid);
        trmi_wire_put_name(&w, m->segment);
        trmi_wire_put_uint(&w, m->segment_bytes);
        break;
    case TRM_WIRE_READY:
        trmi_wire_head(&w, m->kind, 2);
        trmi_wire_put_uint(&w, m->credits);
        trmi_wire_put_uint(&w, m->batch_max);
        break;
    case TRM_WIRE_CREDIT:
        trmi_wire_head(&w, m->kind, 1);
        trmi_wire_put_uint(&w, m->credits);
        break;
    case TRM_WIRE_BATCH:
        trmi_wire_head(&w, m->kind, 1);
        trmi_wire_put_array(&w, (size_t)count);
        for (int i = 0; i < count; i++)
            put_record(&w, &m->records[i]);
        break;
    case TRM_WIRE_RESULT:
        trmi_wire_head(&w, m->kind, 1);
        trmi_wire_put_array(&w, (size_t)count);
        for (int i = 0; i < count; i++)
            put_result(&w, &m->results[i]);
        break;
    case TRM_WIRE_HEARTBEAT:
        trmi_wire_head(&w, m->kind, 2);
        trmi_wire_put_uint(&w, (uint64_t)m->phase);
        trmi_wire_put_uint(&w, m->progress);
        break;
    case TRM_WIRE_ERROR:
        trmi_wire_head(&w, m->kind, 2);
        trmi_wire_put_int(&w, m->status);
        trmi_wire_put_text(&w, m->message);
        break;
    case TRM_WIRE_DRAIN:
        trmi_wire_head(&w, m->kind, 0);
        break;
    case TRM_WIRE_STOP:
        trmi_wire_head(&w, m->kind, 1);
        trmi_wire_put_uint(&w, m->lost ? 1 : 0);
        break;
    default:
        if (!trmi_wire_put_serve(&w, m))
            w.bad = "unknown kind";
    }
    return finish(&w, out, before);
}
