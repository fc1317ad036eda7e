/* Writing messages with msgpack-c's packer. */
#include "base/wire.h"

#include <msgpack.h>
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

/* `bad` collects what was wrong: packing goes on, and the end looks at it once */
struct writer {
    msgpack_packer pk;
    const char *bad;
    bool no_memory;
};

static void note(struct writer *w, int rc)
{
    if (rc != 0)
        w->no_memory = true;
}

static void put_array(struct writer *w, size_t n)
{
    note(w, msgpack_pack_array(&w->pk, n));
}

static void put_int(struct writer *w, int64_t v)
{
    note(w, msgpack_pack_int64(&w->pk, v));
}

static void put_uint(struct writer *w, uint64_t v)
{
    note(w, msgpack_pack_uint64(&w->pk, v));
}

static void put_text(struct writer *w, const char *text)
{
    size_t n = text != NULL ? strlen(text) : 0;

    if (n > TRM_WIRE_TEXT_MAX)
        n = TRM_WIRE_TEXT_MAX; /* messages and labels may be cut; names are checked below */
    note(w, msgpack_pack_str(&w->pk, n));
    if (n > 0)
        note(w, msgpack_pack_str_body(&w->pk, text, n));
}

static void put_name(struct writer *w, const char *name)
{
    if (name != NULL && strlen(name) > TRM_WIRE_TEXT_MAX)
        w->bad = "a name is too long";
    put_text(w, name);
}

static void put_bin(struct writer *w, const void *data, size_t bytes)
{
    if (bytes > TRM_WIRE_FRAME_MAX) {
        w->bad = "a record is over 2 GiB";
        bytes = 0;
    }
    note(w, msgpack_pack_bin(&w->pk, bytes));
    if (bytes > 0)
        note(w, msgpack_pack_bin_body(&w->pk, data, bytes));
}

static void put_tensors(struct writer *w, const trm_wire_tensor *tensors, int count)
{
    if (count > TRM_WIRE_TENSORS_MAX) {
        w->bad = "too many tensors";
        count = 0;
    }
    put_array(w, (size_t)count);
    for (int i = 0; i < count; i++) {
        const trm_tensor *t = &tensors[i].tensor;
        size_t bytes = 0;

        if (t->layout != TRM_LAYOUT_PLAIN || !trm_tensor_is_concrete(t) ||
            trm_tensor_bytes(t, &bytes) != TRM_OK) {
            w->bad = "a tensor has no plain, known shape";
            put_array(w, 0);
            continue;
        }
        put_array(w, 4);
        put_name(w, tensors[i].name);
        put_int(w, t->dtype);
        put_array(w, (size_t)t->rank);
        for (int d = 0; d < t->rank; d++)
            put_int(w, t->dims[d]);
        put_bin(w, t->data, bytes);
    }
}

static void put_record(struct writer *w, const trm_wire_record *r)
{
    put_array(w, 5);
    put_uint(w, r->id);
    put_int(w, r->kind);
    put_name(w, r->name);
    put_bin(w, r->bytes, r->kind == TRM_RECORD_TENSORS ? 0 : r->byte_count);
    put_tensors(w, r->tensors, r->kind == TRM_RECORD_TENSORS ? r->tensor_count : 0);
}

static void put_result(struct writer *w, const trm_wire_result *r)
{
    int labels = r->label_count;

    if (labels > TRM_WIRE_LABELS_MAX) {
        w->bad = "too many labels";
        labels = 0;
    }
    put_array(w, 5);
    put_uint(w, r->id);
    put_int(w, r->status);
    put_text(w, r->message);
    put_tensors(w, r->outputs, r->output_count);
    put_array(w, (size_t)labels);
    for (int i = 0; i < labels; i++) {
        put_array(w, 3);
        put_int(w, r->labels[i].index);
        note(w, msgpack_pack_float(&w->pk, r->labels[i].score));
        put_text(w, r->labels[i].text);
    }
}

static void begin(struct writer *w, trm_wire_buffer *out)
{
    memset(w, 0, sizeof(*w));
    msgpack_packer_init(&w->pk, out, append);
}

static void head(struct writer *w, trm_wire_kind kind, size_t fields)
{
    put_array(w, 2 + fields);
    put_uint(w, TRM_WIRE_VERSION);
    put_uint(w, (uint64_t)kind);
}

/* Takes back what was written if anything was wrong. */
static trm_status finish(struct writer *w, trm_wire_buffer *out, size_t before)
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
    struct writer w;

    begin(&w, out);
    put_record(&w, record);
    return finish(&w, out, before);
}

trm_status trm_wire_encode_batch(const trm_wire_buffer *const *records, int count,
                                 trm_wire_buffer *out)
{
    size_t before = out->bytes;
    struct writer w;

    begin(&w, out);
    head(&w, TRM_WIRE_BATCH, 1);
    if (count > TRM_WIRE_RECORDS_MAX) {
        w.bad = "too many records";
        count = 0;
    }
    put_array(&w, (size_t)count);
    for (int i = 0; i < count; i++)
        note(&w, append(out, (const char *)records[i]->data, records[i]->bytes));
    return finish(&w, out, before);
}

trm_status trm_wire_encode(const trm_wire_message *m, trm_wire_buffer *out)
{
    size_t before = out->bytes;
    int count = m->count;
    struct writer w;

    begin(&w, out);
    if ((m->kind == TRM_WIRE_BATCH || m->kind == TRM_WIRE_RESULT) &&
        (count < 0 || count > TRM_WIRE_RECORDS_MAX)) {
        w.bad = "too many records";
        count = 0;
    }
    switch (m->kind) {
    case TRM_WIRE_HELLO:
        head(&w, m->kind, 3);
        put_name(&w, m->host);
        put_int(&w, m->rank);
        put_int(&w, m->pid);
        break;
    case TRM_WIRE_READY:
        head(&w, m->kind, 2);
        put_uint(&w, m->credits);
        put_uint(&w, m->batch_max);
        break;
    case TRM_WIRE_CREDIT:
        head(&w, m->kind, 1);
        put_uint(&w, m->credits);
        break;
    case TRM_WIRE_BATCH:
        head(&w, m->kind, 1);
        put_array(&w, (size_t)count);
        for (int i = 0; i < count; i++)
            put_record(&w, &m->records[i]);
        break;
    case TRM_WIRE_RESULT:
        head(&w, m->kind, 1);
        put_array(&w, (size_t)count);
        for (int i = 0; i < count; i++)
            put_result(&w, &m->results[i]);
        break;
    case TRM_WIRE_HEARTBEAT:
        head(&w, m->kind, 2);
        put_uint(&w, (uint64_t)m->phase);
        put_uint(&w, m->progress);
        break;
    case TRM_WIRE_ERROR:
        head(&w, m->kind, 2);
        put_int(&w, m->status);
        put_text(&w, m->message);
        break;
    case TRM_WIRE_DRAIN:
        head(&w, m->kind, 0);
        break;
    case TRM_WIRE_STOP:
        head(&w, m->kind, 1);
        put_uint(&w, m->lost ? 1 : 0);
        break;
    default:
        w.bad = "unknown kind";
    }
    return finish(&w, out, before);
}
