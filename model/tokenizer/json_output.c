/* tokenizer.json: post-processors (as templates) and decoders. */
#include "model/tokenizer/json_impl.h"

#include <string.h>

#define NESTING_MAX 16
#define TEMPLATE_MAX 4096

/* ---- post-processors ---- */

static trm_status read_id(const json_t *v, const char *what, int32_t *id_out)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0 ||
        json_integer_value(v) >= (json_int_t)TRMI_IDS_MAX)
        return trm_fail(TRM_ERR_BAD_FILE, "%s is no id", what);
    *id_out = (int32_t)json_integer_value(v);
    return TRM_OK;
}

static trmi_post_item *new_items(trm_tokenizer *t, size_t count)
{
    return trm_arena_alloc(t->arena, count + 1, sizeof(trmi_post_item));
}

/* The ids behind a template's name for a special token. */
static trm_status read_special(trm_tokenizer *t, const json_t *map, const json_t *name,
                               trmi_post_item *item)
{
    const char *key = json_string_value(name);
    const json_t *ids = trmi_json_get(key == NULL ? NULL : json_object_get(map, key), "ids");
    int32_t *out;

    if (!json_is_array(ids))
        return trm_fail(TRM_ERR_BAD_FILE, "special token '%s' of the template has no ids",
                        key == NULL ? "" : key);
    item->count = json_array_size(ids);
    out = trm_arena_alloc(t->arena, item->count + 1, sizeof(*out));
    if (out == NULL)
        return trmi_no_memory("a template");
    for (size_t i = 0; i < item->count; i++)
        TRM_CHECK(read_id(json_array_get(ids, i), "an entry of a template's \"ids\"", &out[i]));
    item->ids = out;
    item->sequence = -1;
    return TRM_OK;
}

static trm_status read_template(trm_tokenizer *t, const json_t *list, const json_t *map,
                                const trmi_post_item **items_out, size_t *count_out)
{
    size_t count = json_array_size(list);
    trmi_post_item *items = new_items(t, count);

    if (!json_is_array(list) || count > TEMPLATE_MAX)
        return trm_fail(TRM_ERR_BAD_FILE, "a template is no array of at most %d", TEMPLATE_MAX);
    if (items == NULL)
        return trmi_no_memory("a template");
    for (size_t i = 0; i < count; i++) {
        const json_t *v = json_array_get(list, i);
        const json_t *special = trmi_json_get(v, "SpecialToken"),
                     *sequence = trmi_json_get(v, "Sequence");
        const json_t *both = special != NULL ? special : sequence;
        const char *id = json_string_value(json_object_get(both, "id"));
        int64_t type;

        if (id == NULL)
            return trm_fail(TRM_ERR_BAD_FILE,
                            "entry %zu of a template is neither SpecialToken nor Sequence", i);
        TRM_CHECK(trmi_json_count(both, "type_id", 0, INT32_MAX, &type));
        items[i].type = (int)type;
        if (special != NULL)
            TRM_CHECK(read_special(t, map, json_object_get(special, "id"), &items[i]));
        else
            items[i].sequence = strcmp(id, "B") == 0;
    }
    *items_out = items;
    *count_out = count;
    return TRM_OK;
}

/* ["[CLS]", 101] */
static trm_status read_pair(trm_tokenizer *t, const json_t *v, const char *name,
                            trmi_post_item *item)
{
    const json_t *pair = json_object_get(v, name);
    int32_t *id = trm_arena_alloc(t->arena, 1, sizeof(*id));

    if (id == NULL)
        return trmi_no_memory("a post-processor");
    if (json_array_size(pair) != 2)
        return trm_fail(TRM_ERR_BAD_FILE, "\"%s\" is no [token, id]", name);
    TRM_CHECK(read_id(json_array_get(pair, 1), name, id));
    item->sequence = -1;
    item->ids = id;
    item->count = 1;
    return TRM_OK;
}

/* [CLS] A [SEP] B [SEP], and Roberta's <s> A </s></s> B </s> without types. */
static trm_status read_bert(trm_tokenizer *t, const json_t *v, bool roberta)
{
    trmi_post_item *items = new_items(t, 6), cls = {0}, sep = {0};
    trmi_post_item a = {0, 0, NULL, 0}, b = {1, roberta ? 0 : 1, NULL, 0};
    size_t n = 0;

    if (items == NULL)
        return trmi_no_memory("a post-processor");
    TRM_CHECK(read_pair(t, v, "cls", &cls));
    TRM_CHECK(read_pair(t, v, "sep", &sep));
    items[n++] = cls;
    items[n++] = a;
    items[n++] = sep;
    t->post.single = t->post.pair = items;
    t->post.single_count = n;
    if (roberta)
        items[n++] = sep;
    items[n++] = b;
    items[n] = sep;
    items[n++].type = b.type;
    t->post.pair_count = n;
    return TRM_OK;
}

static trm_status add_post(trm_tokenizer *t, const json_t *v, int depth)
{
    const char *type = trmi_json_type(v);

    if (strcmp(type, "ByteLevel") == 0)
        return TRM_OK; /* offsets only */
    if (strcmp(type, "Sequence") == 0) {
        const json_t *parts = json_object_get(v, "processors");

        if (depth > NESTING_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED, "Sequences nested more than %d deep", NESTING_MAX);
        for (size_t i = 0; i < json_array_size(parts); i++)
            TRM_CHECK(add_post(t, json_array_get(parts, i), depth + 1));
        return TRM_OK;
    }
    if (strcmp(type, "TemplateProcessing") != 0 && strcmp(type, "BertProcessing") != 0 &&
        strcmp(type, "RobertaProcessing") != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "post_processor '%s' (supported: Sequence, TemplateProcessing, "
                        "BertProcessing, RobertaProcessing, ByteLevel)",
                        type);
    if (t->post.single != NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "two post-processors that add tokens (one is supported)");
    if (*type != 'T')
        return read_bert(t, v, *type == 'R');
    TRM_CHECK(read_template(t, json_object_get(v, "single"), json_object_get(v, "special_tokens"),
                            &t->post.single, &t->post.single_count));
    return read_template(t, json_object_get(v, "pair"), json_object_get(v, "special_tokens"),
                         &t->post.pair, &t->post.pair_count);
}

/* An id that no token has would come out of encode and be refused by decode. */
static trm_status check_ids(const trm_tokenizer *t, const trmi_post_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; items[i].sequence < 0 && k < items[i].count; k++) {
            size_t bytes;

            if (trm_tokenizer_token(t, items[i].ids[k], &bytes) == NULL)
                return trm_fail(TRM_ERR_BAD_FILE,
                                "the post-processor adds id %d, which no token has",
                                (int)items[i].ids[k]);
        }
    return TRM_OK;
}

trm_status trmi_json_post(trm_tokenizer *t, const json_t *post)
{
    TRM_CHECK(add_post(t, post, 0));
    TRM_CHECK(check_ids(t, t->post.single, t->post.single_count));
    return check_ids(t, t->post.pair, t->post.pair_count);
}

/* ---- decoders ---- */

static trm_status count_decoders(const json_t *v, int depth, size_t *count)
{
    const json_t *parts = json_object_get(v, "decoders");

    if (depth > NESTING_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "Sequences nested more than %d deep", NESTING_MAX);
    if (strcmp(trmi_json_type(v), "Sequence") != 0) {
        (*count)++;
        return *count > TRMI_STEPS_MAX
                   ? trm_fail(TRM_ERR_UNSUPPORTED, "more than %d decoders", TRMI_STEPS_MAX)
                   : TRM_OK;
    }
    for (size_t i = 0; i < json_array_size(parts); i++)
        TRM_CHECK(count_decoders(json_array_get(parts, i), depth + 1, count));
    return TRM_OK;
}

static trm_status read_strip(const json_t *v, trmi_decoder *d)
{
    int64_t start, stop;

    d->kind = TRMI_DECODER_STRIP;
    TRM_CHECK(trmi_json_char(v, "content", " ", &d->c));
    TRM_CHECK(trmi_json_count(v, "start", 0, INT32_MAX, &start));
    TRM_CHECK(trmi_json_count(v, "stop", 0, INT32_MAX, &stop));
    d->start = (size_t)start;
    d->stop = (size_t)stop;
    return TRM_OK;
}

static trm_status read_metaspace(const json_t *v, trmi_decoder *d)
{
    const char *scheme = json_string_value(json_object_get(v, "prepend_scheme"));

    d->kind = TRMI_DECODER_METASPACE;
    d->drop_first =
        scheme != NULL ? strcmp(scheme, "never") != 0 : trmi_json_bool(v, "add_prefix_space", true);
    return trmi_json_char(v, "replacement", NULL, &d->c);
}

static trm_status add_decoders(trm_tokenizer *t, const json_t *v)
{
    const char *type = trmi_json_type(v);
    trmi_decoder *d;

    if (strcmp(type, "Sequence") == 0) {
        const json_t *parts = json_object_get(v, "decoders");

        for (size_t i = 0; i < json_array_size(parts); i++)
            TRM_CHECK(add_decoders(t, json_array_get(parts, i)));
        return TRM_OK;
    }
    d = &t->decoders[t->decoder_count++];
    if (strcmp(type, "ByteLevel") == 0) {
        d->kind = TRMI_DECODER_BYTE_LEVEL;
    } else if (strcmp(type, "ByteFallback") == 0) {
        d->kind = TRMI_DECODER_BYTE_FALLBACK;
    } else if (strcmp(type, "Fuse") == 0) {
        d->kind = TRMI_DECODER_FUSE;
    } else if (strcmp(type, "WordPiece") == 0) {
        d->kind = TRMI_DECODER_WORDPIECE;
        d->cleanup = trmi_json_bool(v, "cleanup", true);
        return trmi_json_text(t, v, "prefix", "##", &d->from);
    } else if (strcmp(type, "BPEDecoder") == 0) {
        d->kind = TRMI_DECODER_BPE;
        return trmi_json_text(t, v, "suffix", "</w>", &d->from);
    } else if (strcmp(type, "Replace") == 0) {
        d->kind = TRMI_DECODER_REPLACE;
        TRM_CHECK(trmi_json_pattern(t, v, &d->regex, &d->from));
        return trmi_json_text(t, v, "content", NULL, &d->to);
    } else if (strcmp(type, "Metaspace") == 0) {
        return read_metaspace(v, d);
    } else if (strcmp(type, "Strip") == 0) {
        return read_strip(v, d);
    } else {
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "decoder '%s' (supported: Sequence, ByteLevel, WordPiece, Metaspace, "
                        "BPEDecoder, ByteFallback, Fuse, Strip, Replace)",
                        type);
    }
    return TRM_OK;
}

trm_status trmi_json_decoder(trm_tokenizer *t, const json_t *decoder)
{
    size_t count = 0;

    TRM_CHECK(count_decoders(decoder, 0, &count));
    t->decoders = trm_arena_alloc(t->arena, count + 1, sizeof(*t->decoders));
    if (t->decoders == NULL)
        return trmi_no_memory("decoders");
    return add_decoders(t, decoder);
}
