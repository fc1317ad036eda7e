/* Reading messages. A pull reader over the byte cursor and not msgpack-c's unpacker: that one
 * builds a tree whose nodes it allocates by the counts a frame claims, before it has seen their
 * bytes. Here every count is held against the bytes left (an element takes at least one) and
 * against a limit first, nothing is built that the schema does not ask for, and nesting is as deep
 * as the schema. */
#include "base/wire_impl.h"

#include <string.h>

static const char *const kind_names[TRM_WIRE_KIND_COUNT] = {
    [TRM_WIRE_HELLO] = "hello",   [TRM_WIRE_READY] = "ready",
    [TRM_WIRE_CREDIT] = "credit", [TRM_WIRE_BATCH] = "batch",
    [TRM_WIRE_RESULT] = "result", [TRM_WIRE_HEARTBEAT] = "heartbeat",
    [TRM_WIRE_ERROR] = "error",   [TRM_WIRE_DRAIN] = "drain",
    [TRM_WIRE_STOP] = "stop",     [TRM_WIRE_REQUEST] = "request",
    [TRM_WIRE_CANCEL] = "cancel", [TRM_WIRE_PART] = "part",
    [TRM_WIRE_ANSWER] = "answer", [TRM_WIRE_LOAD] = "load",
    [TRM_WIRE_UNLOAD] = "unload", [TRM_WIRE_MODEL] = "model",
    [TRM_WIRE_STATS] = "stats",   [TRM_WIRE_RELEASE] = "release",
};
static const char *const phase_names[TRM_PHASE_COUNT] = {"loading", "idle", "first step", "steady"};

const char *trm_wire_kind_name(trm_wire_kind kind)
{
    if ((unsigned)kind >= TRM_WIRE_KIND_COUNT || kind_names[kind] == NULL)
        return "unknown";
    return kind_names[kind];
}

const char *trm_wire_phase_name(trm_wire_phase phase)
{
    return (unsigned)phase < TRM_PHASE_COUNT ? phase_names[phase] : "unknown";
}

void trmi_wire_bad(struct trmi_reader *r, const char *what)
{
    if (r->st == TRM_OK)
        r->st = trm_fail(TRM_ERR_COMM, "wire: message is malformed at byte %zu: %s",
                         trm_cursor_offset(&r->in), what);
}

/* msgpack is big-endian */
static uint64_t big(struct trmi_reader *r, int bytes)
{
    const unsigned char *p = trm_cursor_bytes(&r->in, (size_t)bytes);
    uint64_t v = 0;

    if (p == NULL) {
        trmi_wire_bad(r, "it ends too early");
        return 0;
    }
    for (int i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

static unsigned tag(struct trmi_reader *r)
{
    return r->st == TRM_OK ? (unsigned)big(r, 1) : 0xc1; /* 0xc1 is never used by msgpack */
}

/* An unsigned integer of any width up to `max`. */
uint64_t trmi_wire_get_uint(struct trmi_reader *r, uint64_t max, const char *what)
{
    unsigned t = tag(r);
    uint64_t v = 0;

    if (t <= 0x7f)
        v = t;
    else if (t >= 0xcc && t <= 0xcf)
        v = big(r, 1 << (t - 0xcc));
    else
        trmi_wire_bad(r, what);
    if (r->st == TRM_OK && v > max)
        trmi_wire_bad(r, what);
    return r->st == TRM_OK ? v : 0;
}

int64_t trmi_wire_get_int(struct trmi_reader *r, int64_t min, int64_t max, const char *what)
{
    unsigned t = tag(r);
    int64_t v = 0;

    if (t <= 0x7f) {
        v = (int64_t)t;
    } else if (t >= 0xe0) {
        v = (int64_t)t - 256;
    } else if (t >= 0xcc && t <= 0xcf) {
        uint64_t u = big(r, 1 << (t - 0xcc));

        if (u > INT64_MAX)
            trmi_wire_bad(r, what);
        else
            v = (int64_t)u;
    } else if (t >= 0xd0 && t <= 0xd3) {
        int bytes = 1 << (t - 0xd0);
        uint64_t u = big(r, bytes);
        uint64_t sign = (uint64_t)1 << (8 * bytes - 1);

        v = (int64_t)((u ^ sign) - sign);
    } else {
        trmi_wire_bad(r, what);
    }
    if (r->st == TRM_OK && (v < min || v > max))
        trmi_wire_bad(r, what);
    return r->st == TRM_OK ? v : 0;
}

bool trmi_wire_get_bool(struct trmi_reader *r, const char *what)
{
    unsigned t = tag(r);

    if (t == 0xc2 || t == 0xc3) /* what other programs' packers write */
        return t == 0xc3;
    if (t > 1)
        trmi_wire_bad(r, what);
    return t == 1;
}

float trmi_wire_get_float(struct trmi_reader *r, const char *what)
{
    union {
        uint32_t u;
        float f;
    } v = {0};

    if (tag(r) != 0xca)
        trmi_wire_bad(r, what);
    else
        v.u = (uint32_t)big(r, 4);
    return v.f;
}

int trmi_wire_get_array(struct trmi_reader *r, int max, const char *what)
{
    unsigned t = tag(r);
    uint64_t n = 0;

    if (t >= 0x90 && t <= 0x9f)
        n = t & 15;
    else if (t == 0xdc || t == 0xdd)
        n = big(r, t == 0xdc ? 2 : 4);
    else
        trmi_wire_bad(r, what);
    if (r->st == TRM_OK && (n > (uint64_t)max || n > trm_cursor_left(&r->in)))
        trmi_wire_bad(r, what);
    return r->st == TRM_OK ? (int)n : 0;
}

void trmi_wire_expect_array(struct trmi_reader *r, int n, const char *what)
{
    if (trmi_wire_get_array(r, n, what) != n)
        trmi_wire_bad(r, what);
}

const char *trmi_wire_get_text(struct trmi_reader *r, size_t max, const char *what)
{
    unsigned t = tag(r);
    const unsigned char *p = NULL;
    uint64_t n = 0;
    char *text;

    if (t >= 0xa0 && t <= 0xbf)
        n = t & 31;
    else if (t >= 0xd9 && t <= 0xdb)
        n = big(r, 1 << (t - 0xd9));
    else
        trmi_wire_bad(r, what);
    if (r->st == TRM_OK && n > max)
        trmi_wire_bad(r, what);
    if (r->st == TRM_OK)
        p = trm_cursor_bytes(&r->in, (size_t)n);
    if (r->st != TRM_OK || p == NULL || memchr(p, 0, (size_t)n) != NULL) {
        trmi_wire_bad(r, what);
        return "";
    }
    text = trm_arena_strndup(r->arena, (const char *)p, (size_t)n);
    if (text == NULL) {
        r->st = trm_fail(TRM_ERR_NO_MEMORY, "wire: no memory for a text");
        return "";
    }
    return text;
}

const unsigned char *trmi_wire_get_bin(struct trmi_reader *r, size_t *bytes_out, const char *what)
{
    unsigned t = tag(r);
    const unsigned char *p = NULL;
    uint64_t n = 0;

    if (t >= 0xc4 && t <= 0xc6)
        n = big(r, 1 << (t - 0xc4));
    else
        trmi_wire_bad(r, what);
    if (r->st == TRM_OK)
        p = trm_cursor_bytes(&r->in, (size_t)n);
    if (p == NULL)
        trmi_wire_bad(r, what);
    *bytes_out = r->st == TRM_OK ? (size_t)n : 0;
    return p;
}

void *trmi_wire_get_room(struct trmi_reader *r, int count, size_t size)
{
    void *room =
        count > 0 && r->st == TRM_OK ? trm_arena_alloc(r->arena, (size_t)count, size) : NULL;

    if (count > 0 && r->st == TRM_OK && room == NULL)
        r->st = trm_fail(TRM_ERR_NO_MEMORY, "wire: no memory for %d elements", count);
    return room;
}

/* A reference into the sender's segment, [offset, bytes]: trm_wire_resolve finds the bytes. */
static size_t get_reference(struct trmi_reader *r, trm_wire_tensor *t)
{
    uint64_t bytes;

    trmi_wire_expect_array(r, 2, "a tensor's reference wants offset and bytes");
    t->shared = true;
    t->offset = trmi_wire_get_uint(r, UINT64_MAX, "tensor offset");
    bytes = trmi_wire_get_uint(r, SIZE_MAX, "tensor bytes");
    return (size_t)bytes;
}

const trm_wire_tensor *trmi_wire_get_tensors(struct trmi_reader *r, int *count_out, bool shared)
{
    int n = trmi_wire_get_array(r, TRM_WIRE_TENSORS_MAX, "tensors");
    trm_wire_tensor *tensors = trmi_wire_get_room(r, n, sizeof(*tensors));

    for (int i = 0; i < n && r->st == TRM_OK; i++) {
        trm_tensor *t = &tensors[i].tensor;
        const unsigned char *data = NULL;
        size_t have = 0, want = 0;

        trmi_wire_expect_array(r, 4, "a tensor wants four fields");
        tensors[i].name = trmi_wire_get_text(r, TRM_WIRE_TEXT_MAX, "tensor name");
        t->dtype = (trm_dtype)trmi_wire_get_int(r, TRM_DTYPE_NONE + 1, TRM_DTYPE_PLAIN_COUNT - 1,
                                                "tensor dtype");
        t->rank = trmi_wire_get_array(r, TRM_RANK_MAX, "tensor dims");
        for (int d = 0; d < t->rank; d++)
            t->dims[d] = trmi_wire_get_int(r, 0, TRM_DIM_MAX, "tensor dim");
        if (shared && r->st == TRM_OK && trm_cursor_left(&r->in) > 0 && *r->in.at == 0x92)
            have = get_reference(r, &tensors[i]);
        else
            data = trmi_wire_get_bin(r, &have, "tensor data");
        if (r->st != TRM_OK)
            break;
        if (trm_tensor_bytes(t, &want) != TRM_OK || want != have)
            trmi_wire_bad(r, "tensor data has not the size of its shape");
        /* the cast drops const: a decoded tensor is read only, as its header says */
        t->data = (void *)(uintptr_t)data;
    }
    *count_out = r->st == TRM_OK ? n : 0;
    return tensors;
}

static const trm_wire_record *get_records(struct trmi_reader *r, int *count_out)
{
    int n = trmi_wire_get_array(r, TRM_WIRE_RECORDS_MAX, "records");
    trm_wire_record *records = trmi_wire_get_room(r, n, sizeof(*records));

    for (int i = 0; i < n && r->st == TRM_OK; i++) {
        trm_wire_record *rec = &records[i];

        trmi_wire_expect_array(r, 5, "a record wants five fields");
        rec->id = trmi_wire_get_uint(r, UINT64_MAX, "record id");
        rec->kind = (trm_record_kind)trmi_wire_get_uint(r, TRM_RECORD_REQUEST, "record kind");
        rec->name = trmi_wire_get_text(r, TRM_WIRE_TEXT_MAX, "record name");
        rec->bytes = trmi_wire_get_bin(r, &rec->byte_count, "record bytes");
        rec->tensors = trmi_wire_get_tensors(r, &rec->tensor_count, false);
        rec->message = "";
    }
    *count_out = r->st == TRM_OK ? n : 0;
    return records;
}

const trm_wire_label *trmi_wire_get_labels(struct trmi_reader *r, int *count_out)
{
    int n = trmi_wire_get_array(r, TRM_WIRE_LABELS_MAX, "labels");
    trm_wire_label *labels = trmi_wire_get_room(r, n, sizeof(*labels));

    for (int k = 0; k < n && r->st == TRM_OK; k++) {
        trmi_wire_expect_array(r, 3, "a label wants three fields");
        labels[k].index = (int32_t)trmi_wire_get_int(r, INT32_MIN, INT32_MAX, "label index");
        labels[k].score = trmi_wire_get_float(r, "label score");
        labels[k].text = trmi_wire_get_text(r, TRM_WIRE_TEXT_MAX, "label text");
    }
    *count_out = r->st == TRM_OK ? n : 0;
    return labels;
}

static const trm_wire_result *get_results(struct trmi_reader *r, int *count_out)
{
    int n = trmi_wire_get_array(r, TRM_WIRE_RECORDS_MAX, "results");
    trm_wire_result *results = trmi_wire_get_room(r, n, sizeof(*results));

    for (int i = 0; i < n && r->st == TRM_OK; i++) {
        trm_wire_result *res = &results[i];

        trmi_wire_expect_array(r, 5, "a result wants five fields");
        res->id = trmi_wire_get_uint(r, UINT64_MAX, "result id");
        res->status =
            (trm_status)trmi_wire_get_int(r, TRM_OK, TRM_STATUS_COUNT - 1, "result status");
        res->message = trmi_wire_get_text(r, TRM_WIRE_TEXT_MAX, "result message");
        res->outputs = trmi_wire_get_tensors(r, &res->output_count, false);
        res->labels = trmi_wire_get_labels(r, &res->label_count);
    }
    *count_out = r->st == TRM_OK ? n : 0;
    return results;
}

static const unsigned char fields_of[TRM_WIRE_REQUEST] = {
    [TRM_WIRE_HELLO] = 5, [TRM_WIRE_READY] = 2,  [TRM_WIRE_CREDIT] = 1,
    [TRM_WIRE_BATCH] = 1, [TRM_WIRE_RESULT] = 1, [TRM_WIRE_HEARTBEAT] = 2,
    [TRM_WIRE_ERROR] = 2, [TRM_WIRE_DRAIN] = 0,  [TRM_WIRE_STOP] = 1,
};

static int fields(trm_wire_kind kind)
{
    return kind >= TRM_WIRE_REQUEST ? trmi_wire_serve_fields(kind) : fields_of[kind];
}

trm_wire_kind trm_wire_peek(const void *frame, size_t bytes)
{
    const unsigned char *p = frame;

    /* array, version and kind take one byte each in every message */
    if (bytes < 3 || p[0] >> 4 != 9 || p[1] != TRM_WIRE_VERSION || p[2] >= TRM_WIRE_KIND_COUNT)
        return (trm_wire_kind)0;
    return (trm_wire_kind)p[2];
}

trm_status trm_wire_decode(const void *frame, size_t bytes, trm_arena *arena,
                           trm_wire_message *message_out)
{
    struct trmi_reader r = {.in = trm_cursor_make(frame, bytes), .arena = arena, .st = TRM_OK};
    trm_wire_message m;
    uint64_t version;
    int n;

    memset(&m, 0, sizeof(m));
    m.host = m.message = m.segment = "";
    n = trmi_wire_get_array(&r, 15, "not a message");
    version = trmi_wire_get_uint(&r, UINT64_MAX, "version");
    if (r.st == TRM_OK && version != TRM_WIRE_VERSION)
        return trm_fail(TRM_ERR_COMM, "wire: message of version %llu, want %d: mixed programs?",
                        (unsigned long long)version, TRM_WIRE_VERSION);
    m.kind =
        (trm_wire_kind)trmi_wire_get_uint(&r, TRM_WIRE_KIND_COUNT - 1, "unknown kind of message");
    if (r.st == TRM_OK && (m.kind == 0 || n != 2 + fields(m.kind)))
        trmi_wire_bad(&r, "wrong number of fields for its kind");
    if (r.st != TRM_OK)
        return r.st;
    switch (m.kind) {
    case TRM_WIRE_HELLO:
        m.host = trmi_wire_get_text(&r, TRM_WIRE_TEXT_MAX, "host");
        m.rank = (int32_t)trmi_wire_get_int(&r, 0, INT32_MAX, "rank");
        m.pid = (int32_t)trmi_wire_get_int(&r, 0, INT32_MAX, "pid");
        m.segment = trmi_wire_get_text(&r, TRM_WIRE_TEXT_MAX, "segment");
        m.segment_bytes = trmi_wire_get_uint(&r, UINT64_MAX, "segment bytes");
        break;
    case TRM_WIRE_READY:
        m.credits = (uint32_t)trmi_wire_get_uint(&r, UINT32_MAX, "credits");
        m.batch_max = (uint32_t)trmi_wire_get_uint(&r, TRM_WIRE_RECORDS_MAX, "batch_max");
        break;
    case TRM_WIRE_CREDIT:
        m.credits = (uint32_t)trmi_wire_get_uint(&r, UINT32_MAX, "credits");
        break;
    case TRM_WIRE_BATCH:
        m.records = get_records(&r, &m.count);
        break;
    case TRM_WIRE_RESULT:
        m.results = get_results(&r, &m.count);
        break;
    case TRM_WIRE_HEARTBEAT:
        m.phase = (trm_wire_phase)trmi_wire_get_uint(&r, TRM_PHASE_COUNT - 1, "phase");
        m.progress = trmi_wire_get_uint(&r, UINT64_MAX, "progress");
        break;
    case TRM_WIRE_ERROR:
        m.status = (trm_status)trmi_wire_get_int(&r, TRM_OK + 1, TRM_STATUS_COUNT - 1, "status");
        m.message = trmi_wire_get_text(&r, TRM_WIRE_TEXT_MAX, "message");
        break;
    case TRM_WIRE_STOP:
        m.lost = trmi_wire_get_uint(&r, 1, "lost") != 0;
        break;
    case TRM_WIRE_DRAIN:
        break;
    default:
        trmi_wire_get_serve(&r, &m);
    }
    if (r.st == TRM_OK && trm_cursor_left(&r.in) != 0)
        trmi_wire_bad(&r, "bytes follow the message");
    if (r.st == TRM_OK)
        *message_out = m;
    return r.st;
}
