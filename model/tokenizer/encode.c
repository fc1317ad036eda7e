/* Text to ids: added tokens are cut out, the rest is normalized, added tokens are looked for again,
 * what is left is cut into words, and the model cuts the words. Then special tokens are added. */
#include "model/tokenizer/tokenizer_impl.h"

#include <string.h>

static trm_status encode_words(const trm_tokenizer *t, trmi_scratch *s, const char *text,
                               size_t bytes, bool head)
{
    const trmi_words *w = &s->words;

    TRM_CHECK(trmi_pretokenize(t->pretokenizers, t->pretokenizer_count, s->matcher, text, bytes,
                               head, &s->words));
    for (size_t i = 0; i < w->now.count; i++)
        TRM_CHECK(trmi_model_encode(&t->model, s, w->text + w->now.v[i].at, w->now.v[i].bytes));
    return TRM_OK;
}

/* What lies between added tokens. */
static trm_status encode_part(const trm_tokenizer *t, trmi_scratch *s, const char *text,
                              size_t bytes, bool head, bool plain)
{
    trmi_scan scan;
    trmi_found found;

    if (t->normalizer_count > 0) {
        trmi_buf_clear(&s->line.now);
        trmi_buf_add(&s->line.now, text, bytes);
        TRM_CHECK(trmi_buf_status(&s->line.now, "a text"));
        s->line.head = head;
        TRM_CHECK(trmi_normalize(t->normalizers, t->normalizer_count, s->matcher, &s->line));
        text = s->line.now.bytes;
        bytes = s->line.now.count;
        head = s->line.head;
    }
    trmi_scan_begin(&scan, &t->added, true, plain, text, bytes);
    while (trmi_scan_next(&scan, &found)) {
        if (found.id >= 0)
            trmi_ids_add(&s->ids, found.id);
        else
            TRM_CHECK(encode_words(t, s, text + found.at, found.bytes, head && found.at == 0));
    }
    return TRM_OK;
}

/* Ids of one text without special tokens around it, added to s->ids. */
static trm_status encode_text(const trm_tokenizer *t, trmi_scratch *s, const char *text,
                              size_t bytes, bool plain)
{
    trmi_scan scan;
    trmi_found found;

    if (bytes > TRMI_TEXT_BYTES_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "a text of %zu bytes; at most %zu are encoded", bytes,
                        TRMI_TEXT_BYTES_MAX);
    if (s->matcher == NULL)
        TRM_CHECK(trmi_matcher_create(&s->matcher));
    if (bytes > 0 && trmi_utf8_good(text, bytes) != bytes) {
        trmi_buf_clear(&s->clean);
        trmi_utf8_add_lossy(&s->clean, text, bytes);
        TRM_CHECK(trmi_buf_status(&s->clean, "a text"));
        text = s->clean.bytes;
        bytes = s->clean.count;
    }
    trmi_scan_begin(&scan, &t->added, false, plain, text, bytes);
    while (trmi_scan_next(&scan, &found)) {
        if (found.id >= 0)
            trmi_ids_add(&s->ids, found.id);
        else
            TRM_CHECK(encode_part(t, s, text + found.at, found.bytes, found.at == 0, plain));
    }
    return s->ids.failed ? trmi_no_memory("ids of a text") : TRM_OK;
}

/* ids[0 .. split) are text A's, the rest text B's. */
static trm_status add_special(const trmi_post_item *items, size_t item_count, bool special,
                              const trmi_ids *ids, size_t split, int32_t **ids_out,
                              int32_t **types_out, size_t *count_out)
{
    size_t count = 0, at = 0;
    int32_t *out = NULL, *types = NULL;

    for (size_t i = 0; i < item_count; i++)
        count += items[i].sequence == 0   ? split
                 : items[i].sequence == 1 ? ids->count - split
                 : special                ? items[i].count
                                          : 0;
    *count_out = count;
    *ids_out = NULL;
    if (types_out != NULL)
        *types_out = NULL;
    if (count == 0)
        return TRM_OK;
    out = trm_malloc(count, sizeof(*out));
    types = types_out == NULL ? NULL : trm_malloc(count, sizeof(*types));
    if (out == NULL || (types == NULL && types_out != NULL)) {
        trm_free(out);
        return trmi_no_memory("ids of a text");
    }
    for (size_t i = 0; i < item_count; i++) {
        const trmi_post_item *item = &items[i];
        const int32_t *from =
            item->sequence < 0 ? item->ids : ids->ids + (item->sequence == 0 ? 0 : split);
        size_t n = item->sequence == 0   ? split
                   : item->sequence == 1 ? ids->count - split
                   : special             ? item->count
                                         : 0;

        if (n == 0)
            continue;
        memcpy(out + at, from, n * sizeof(*out));
        for (size_t k = 0; types != NULL && k < n; k++)
            types[at + k] = item->type;
        at += n;
    }
    *ids_out = out;
    if (types_out != NULL)
        *types_out = types;
    return TRM_OK;
}

trm_status trm_tokenizer_encode(const trm_tokenizer *t, const char *text, size_t bytes, int flags,
                                int32_t **ids_out, size_t *count_out)
{
    static const trmi_post_item alone = {0, 0, NULL, 0};
    trmi_scratch s;
    trm_status st;

    memset(&s, 0, sizeof(s));
    TRM_TRY(st, encode_text(t, &s, text, bytes, (flags & TRM_ENCODE_PLAIN) != 0), end);
    if (t->post.single == NULL)
        st = add_special(&alone, 1, false, &s.ids, s.ids.count, ids_out, NULL, count_out);
    else
        st = add_special(t->post.single, t->post.single_count, (flags & TRM_ENCODE_SPECIAL) != 0,
                         &s.ids, s.ids.count, ids_out, NULL, count_out);
end:
    trmi_scratch_fini(&s);
    return st;
}

trm_status trm_tokenizer_encode_pair(const trm_tokenizer *t, const char *a, size_t a_bytes,
                                     const char *b, size_t b_bytes, int32_t **ids_out,
                                     int32_t **types_out, size_t *count_out)
{
    static const trmi_post_item both[] = {{0, 0, NULL, 0}, {1, 1, NULL, 0}};
    trmi_scratch s;
    size_t split;
    trm_status st;

    memset(&s, 0, sizeof(s));
    TRM_TRY(st, encode_text(t, &s, a, a_bytes, false), end);
    split = s.ids.count;
    TRM_TRY(st, encode_text(t, &s, b, b_bytes, false), end);
    if (t->post.pair == NULL)
        st = add_special(both, 2, false, &s.ids, split, ids_out, types_out, count_out);
    else
        st = add_special(t->post.pair, t->post.pair_count, true, &s.ids, split, ids_out, types_out,
                         count_out);
end:
    trmi_scratch_fini(&s);
    return st;
}
