/* GGUF's key-value pairs: read once, checked, kept as places in the mapped file; asked by key. */
#include "model/language/language_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define KEY_BYTES_MAX 65535
#define PAIR_BYTES_MIN 14 /* length, one byte of key, kind, one byte of value */

static const struct {
    const char *name;
    size_t bytes; /* of a value; 0: varies */
} kinds[] = {
    [TRM_GGUF_U8] = {"u8", 1},         [TRM_GGUF_I8] = {"i8", 1},
    [TRM_GGUF_U16] = {"u16", 2},       [TRM_GGUF_I16] = {"i16", 2},
    [TRM_GGUF_U32] = {"u32", 4},       [TRM_GGUF_I32] = {"i32", 4},
    [TRM_GGUF_F32] = {"f32", 4},       [TRM_GGUF_BOOL] = {"bool", 1},
    [TRM_GGUF_STRING] = {"string", 0}, [TRM_GGUF_ARRAY] = {"array", 0},
    [TRM_GGUF_U64] = {"u64", 8},       [TRM_GGUF_I64] = {"i64", 8},
    [TRM_GGUF_F64] = {"f64", 8},
};
#define KIND_COUNT (sizeof(kinds) / sizeof(kinds[0]))

const char *trmi_gguf_kind_name(trm_gguf_kind kind)
{
    return (unsigned)kind < KIND_COUNT ? kinds[kind].name : "unknown";
}

/* ---- reading ---- */

typedef struct reader {
    trm_gguf *g;
    trm_cursor *c;
    const char *path, *key; /* key: of the pair that is read */
} reader;

static trm_status cut(const reader *r)
{
    return trm_fail(TRM_ERR_BAD_FILE,
                    "'%s': the value of '%.200s' goes past the end of the file at byte %zu: it is "
                    "cut or damaged",
                    r->path, r->key, trm_cursor_offset(r->c));
}

static trm_status read_string(const reader *r, const unsigned char **data_out, size_t *count_out)
{
    uint64_t n = trm_cursor_u64(r->c);

    if (r->c->failed || n > trm_cursor_left(r->c))
        return cut(r);
    *count_out = (size_t)n;
    *data_out = trm_cursor_bytes(r->c, (size_t)n);
    return TRM_OK;
}

/* Moves over `count` values of a kind of fixed size. */
static trm_status skip_values(const reader *r, trm_gguf_kind kind, uint64_t count)
{
    const unsigned char *p;

    if (count > trm_cursor_left(r->c) / kinds[kind].bytes)
        return cut(r);
    p = trm_cursor_bytes(r->c, (size_t)count * kinds[kind].bytes);
    if (p == NULL)
        return cut(r);
    for (uint64_t i = 0; kind == TRM_GGUF_BOOL && i < count; i++)
        if (p[i] > 1)
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': '%.200s' has the bool %d: want 0 or 1",
                            r->path, r->key, p[i]);
    return TRM_OK;
}

static trm_status read_array(const reader *r, trmi_gguf_entry *e)
{
    uint32_t kind = trm_cursor_u32(r->c);
    uint64_t count = trm_cursor_u64(r->c);

    if (r->c->failed)
        return cut(r);
    if (kind >= KIND_COUNT)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': '%.200s' is an array of kind %u: want 0 to %zu",
                        r->path, r->key, kind, KIND_COUNT - 1);
    if (kind == TRM_GGUF_ARRAY)
        return trm_fail(TRM_ERR_UNSUPPORTED, "'%s': '%.200s' is an array of arrays", r->path,
                        r->key);
    e->item = (trm_gguf_kind)kind;
    e->data = r->c->at;
    if (kind != TRM_GGUF_STRING) {
        TRM_CHECK(skip_values(r, e->item, count));
    } else {
        if (count > trm_cursor_left(r->c) / sizeof(uint64_t))
            return cut(r);
        for (uint64_t i = 0; i < count; i++) {
            const unsigned char *data;
            size_t bytes;

            TRM_CHECK(read_string(r, &data, &bytes));
        }
    }
    e->count = (size_t)count;
    return TRM_OK;
}

static trm_status read_value(const reader *r, trmi_gguf_entry *e)
{
    uint32_t kind = trm_cursor_u32(r->c);

    if (r->c->failed)
        return cut(r);
    if (kind >= KIND_COUNT)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': '%.200s' is of kind %u: want 0 to %zu", r->path,
                        r->key, kind, KIND_COUNT - 1);
    e->kind = (trm_gguf_kind)kind;
    if (kind == TRM_GGUF_ARRAY)
        return read_array(r, e);
    if (kind == TRM_GGUF_STRING) {
        TRM_CHECK(read_string(r, &e->data, &e->count));
        if (memchr(e->data, 0, e->count) == NULL) {
            e->text = trm_arena_strndup(r->g->arena, (const char *)e->data, e->count);
            if (e->text == NULL)
                return trm_fail(TRM_ERR_NO_MEMORY, "'%s': '%.200s'", r->path, r->key);
        }
        return TRM_OK;
    }
    e->data = r->c->at;
    e->count = 1;
    return skip_values(r, e->kind, 1);
}

static trm_status read_pair(reader *r, trmi_gguf_entry *e)
{
    uint64_t n = trm_cursor_u64(r->c);
    size_t at = trm_cursor_offset(r->c);
    const char *key;

    if (r->c->failed || n > trm_cursor_left(r->c) || n > KEY_BYTES_MAX)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': a key of %" PRIu64 " bytes at byte %zu, %zu are left: want at most "
                        "%d",
                        r->path, n, at, trm_cursor_left(r->c), KEY_BYTES_MAX);
    key = (const char *)trm_cursor_bytes(r->c, (size_t)n);
    if (n > TRMI_NAME_BYTES || !trmi_name_ok(key, (size_t)n))
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': the key at byte %zu has %" PRIu64
                        " bytes or control characters: want 1 to %d printable ones",
                        r->path, at, n, TRMI_NAME_BYTES);
    e->key = trm_arena_strndup(r->g->arena, key, (size_t)n);
    if (e->key == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': metadata", r->path);
    r->key = e->key;
    return read_value(r, e);
}

typedef struct named {
    const char *key;
    uint32_t index;
} named;

static int by_key(const void *a, const void *b)
{
    return strcmp(((const named *)a)->key, ((const named *)b)->key);
}

static trm_status sort_keys(trm_gguf *g)
{
    named *names = (named *)trm_malloc(g->entry_count + 1, sizeof(*names));
    trm_status st = TRM_OK;

    g->order = (uint32_t *)trm_malloc(g->entry_count + 1, sizeof(*g->order));
    if (names == NULL || g->order == NULL) {
        trm_free(names);
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': metadata", trm_file_path(g->file));
    }
    for (size_t i = 0; i < g->entry_count; i++) {
        names[i].key = g->entries[i].key;
        names[i].index = (uint32_t)i;
    }
    qsort(names, g->entry_count, sizeof(*names), by_key);
    for (size_t i = 0; i < g->entry_count && st == TRM_OK; i++) {
        g->order[i] = names[i].index;
        if (i > 0 && strcmp(names[i - 1].key, names[i].key) == 0)
            st = trm_fail(TRM_ERR_BAD_FILE, "'%s': key '%s' is there twice: want it once",
                          trm_file_path(g->file), names[i].key);
    }
    trm_free(names);
    return st;
}

trm_status trmi_gguf_read_metadata(trm_gguf *g, trm_cursor *c, uint64_t count)
{
    reader r = {g, c, trm_file_path(g->file), ""};

    if (count > trm_cursor_left(c) / PAIR_BYTES_MIN || count > UINT32_MAX)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s' announces %" PRIu64 " metadata pairs; %zu bytes are left", r.path,
                        count, trm_cursor_left(c));
    g->entries = (trmi_gguf_entry *)trm_calloc((size_t)count + 1, sizeof(*g->entries));
    if (g->entries == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': metadata", r.path);
    g->entry_count = (size_t)count;
    for (size_t i = 0; i < g->entry_count; i++)
        TRM_CHECK(read_pair(&r, &g->entries[i]));
    return sort_keys(g);
}

/* ---- asking ---- */

const trmi_gguf_entry *trmi_gguf_find(const trm_gguf *g, const char *key)
{
    size_t low = 0, high = g->entry_count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const trmi_gguf_entry *e = &g->entries[g->order[mid]];
        int c = strcmp(key, e->key);

        if (c == 0)
            return e;
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

const char *trm_gguf_key(const trm_gguf *g, size_t i)
{
    return i < g->entry_count ? g->entries[i].key : NULL;
}

/* The low `bits` of v, a two's complement number. */
static int64_t signed_of(uint64_t v, int bits)
{
    uint64_t sign = (uint64_t)1 << (bits - 1);

    return (int64_t)((v ^ sign) - sign);
}

/* Value i of a stretch as an integer; false: another kind, or it does not fit. */
static bool int_at(trm_gguf_kind kind, const unsigned char *data, size_t i, int64_t *value_out)
{
    trm_cursor c;
    uint64_t u;

    if (kind == TRM_GGUF_F32 || kind == TRM_GGUF_F64 || kinds[kind].bytes == 0)
        return false;
    c = trm_cursor_make(data + i * kinds[kind].bytes, kinds[kind].bytes);
    switch (kind) {
    case TRM_GGUF_I8:
        *value_out = signed_of(trm_cursor_u8(&c), 8);
        return true;
    case TRM_GGUF_I16:
        *value_out = signed_of(trm_cursor_u16(&c), 16);
        return true;
    case TRM_GGUF_I32:
        *value_out = signed_of(trm_cursor_u32(&c), 32);
        return true;
    case TRM_GGUF_I64:
        *value_out = (int64_t)trm_cursor_u64(&c);
        return true;
    case TRM_GGUF_U16:
        *value_out = trm_cursor_u16(&c);
        return true;
    case TRM_GGUF_U32:
        *value_out = trm_cursor_u32(&c);
        return true;
    case TRM_GGUF_U64:
        u = trm_cursor_u64(&c);
        *value_out = (int64_t)u;
        return u <= INT64_MAX;
    default: /* U8, BOOL */
        *value_out = trm_cursor_u8(&c);
        return true;
    }
}

static bool float_at(trm_gguf_kind kind, const unsigned char *data, size_t i, double *value_out)
{
    trm_cursor c;
    int64_t n;

    if (kind == TRM_GGUF_F32) {
        uint32_t bits;
        float f;

        c = trm_cursor_make(data + i * 4, 4);
        bits = trm_cursor_u32(&c);
        memcpy(&f, &bits, sizeof(f));
        *value_out = (double)f;
        return true;
    }
    if (kind == TRM_GGUF_F64) {
        uint64_t bits;

        c = trm_cursor_make(data + i * 8, 8);
        bits = trm_cursor_u64(&c);
        memcpy(value_out, &bits, sizeof(*value_out));
        return true;
    }
    if (kind == TRM_GGUF_BOOL || !int_at(kind, data, i, &n))
        return false;
    *value_out = (double)n;
    return true;
}

bool trm_gguf_int(const trm_gguf *g, const char *key, int64_t *value_out)
{
    const trmi_gguf_entry *e = trmi_gguf_find(g, key);

    return e != NULL && e->kind != TRM_GGUF_BOOL && int_at(e->kind, e->data, 0, value_out);
}

bool trm_gguf_float(const trm_gguf *g, const char *key, double *value_out)
{
    const trmi_gguf_entry *e = trmi_gguf_find(g, key);

    return e != NULL && float_at(e->kind, e->data, 0, value_out);
}

bool trm_gguf_bool(const trm_gguf *g, const char *key, bool *value_out)
{
    const trmi_gguf_entry *e = trmi_gguf_find(g, key);

    if (e == NULL || e->kind != TRM_GGUF_BOOL)
        return false;
    *value_out = e->data[0] != 0;
    return true;
}

bool trm_gguf_text(const trm_gguf *g, const char *key, trm_text *text_out)
{
    const trmi_gguf_entry *e = trmi_gguf_find(g, key);

    if (e == NULL || e->kind != TRM_GGUF_STRING)
        return false;
    text_out->bytes = (const char *)e->data;
    text_out->count = e->count;
    return true;
}

const char *trmi_gguf_string(const trm_gguf *g, const char *key)
{
    const trmi_gguf_entry *e = trmi_gguf_find(g, key);

    return e == NULL ? NULL : e->text;
}

bool trm_gguf_array(const trm_gguf *g, const char *key, trm_gguf_kind *kind_out, size_t *count_out)
{
    const trmi_gguf_entry *e = trmi_gguf_find(g, key);

    if (e == NULL || e->kind != TRM_GGUF_ARRAY)
        return false;
    *kind_out = e->item;
    *count_out = e->count;
    return true;
}

bool trm_gguf_array_int(const trm_gguf *g, const char *key, size_t i, int64_t *value_out)
{
    const trmi_gguf_entry *e = trmi_gguf_find(g, key);

    return e != NULL && e->kind == TRM_GGUF_ARRAY && i < e->count &&
           int_at(e->item, e->data, i, value_out);
}

/* ---- whole arrays ---- */

/* The array `key`, and room for its elements. */
static trm_status open_array(const trm_gguf *g, const char *key, const char *wanted, size_t size,
                             const trmi_gguf_entry **entry_out, void **block_out)
{
    const trmi_gguf_entry *e = trmi_gguf_find(g, key);

    if (e == NULL)
        return trm_fail(TRM_ERR_NOT_FOUND, "'%s' has no '%s'", trm_file_path(g->file), key);
    if (e->kind != TRM_GGUF_ARRAY)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': '%s' is a %s: want an array of %s",
                        trm_file_path(g->file), key, trmi_gguf_kind_name(e->kind), wanted);
    *block_out = trm_malloc(e->count, size);
    if (*block_out == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': '%s' of %zu elements", trm_file_path(g->file),
                        key, e->count);
    *entry_out = e;
    return TRM_OK;
}

static trm_status wrong_item(const trm_gguf *g, const trmi_gguf_entry *e, size_t i,
                             const char *wanted)
{
    return trm_fail(TRM_ERR_BAD_FILE, "'%s': '%s' holds %s, element %zu does not fit: want %s",
                    trm_file_path(g->file), e->key, trmi_gguf_kind_name(e->item), i, wanted);
}

trm_status trm_gguf_texts(const trm_gguf *g, const char *key, trm_text **texts_out,
                          size_t *count_out)
{
    const trmi_gguf_entry *e = NULL;
    void *block = NULL;
    trm_text *texts;
    trm_cursor c;

    TRM_CHECK(open_array(g, key, "strings", sizeof(trm_text), &e, &block));
    texts = (trm_text *)block;
    if (e->item != TRM_GGUF_STRING) {
        trm_free(block);
        return wrong_item(g, e, 0, "strings");
    }
    /* the lengths were checked when the file was opened */
    c = trm_cursor_make(e->data,
                        trm_file_bytes(g->file) - (size_t)(e->data - trm_file_data(g->file)));
    for (size_t i = 0; i < e->count; i++) {
        texts[i].count = (size_t)trm_cursor_u64(&c);
        texts[i].bytes = (const char *)trm_cursor_bytes(&c, texts[i].count);
    }
    if (c.failed) {
        trm_free(block);
        return trm_fail(TRM_ERR_INTERNAL, "'%s': '%s' changed", trm_file_path(g->file), key);
    }
    *texts_out = texts;
    *count_out = e->count;
    return TRM_OK;
}

trm_status trm_gguf_floats(const trm_gguf *g, const char *key, float **values_out,
                           size_t *count_out)
{
    const trmi_gguf_entry *e = NULL;
    void *block = NULL;
    float *values;

    TRM_CHECK(open_array(g, key, "numbers", sizeof(float), &e, &block));
    values = (float *)block;
    for (size_t i = 0; i < e->count; i++) {
        double v;

        if (!float_at(e->item, e->data, i, &v)) {
            trm_free(block);
            return wrong_item(g, e, i, "numbers");
        }
        values[i] = (float)v;
    }
    *values_out = values;
    *count_out = e->count;
    return TRM_OK;
}

trm_status trm_gguf_ints(const trm_gguf *g, const char *key, int32_t **values_out,
                         size_t *count_out)
{
    const trmi_gguf_entry *e = NULL;
    void *block = NULL;
    int32_t *values;

    TRM_CHECK(open_array(g, key, "32-bit integers", sizeof(int32_t), &e, &block));
    values = (int32_t *)block;
    for (size_t i = 0; i < e->count; i++) {
        int64_t v;

        if (!int_at(e->item, e->data, i, &v) || v < INT32_MIN || v > INT32_MAX) {
            trm_free(block);
            return wrong_item(g, e, i, "32-bit integers");
        }
        values[i] = (int32_t)v;
    }
    *values_out = values;
    *count_out = e->count;
    return TRM_OK;
}
