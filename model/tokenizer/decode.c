/* Decoders as a chain of stages that take tokens and pass on text as soon as it is settled, so that
 * decoding a whole text and streaming it are the same thing. A stage behind one that joins all
 * tokens (ByteLevel, Fuse) sees one long token, in parts. */
#define _GNU_SOURCE /* memmem */
#include "model/tokenizer/tokenizer_impl.h"

#include <string.h>

void trmi_decoder_fini(trmi_decoder *d)
{
    trmi_regex_destroy(d->regex);
    d->regex = NULL;
}

trm_status trmi_chain_init(trmi_chain *c, const trmi_decoder *steps, size_t count)
{
    memset(c, 0, sizeof(*c));
    c->steps = steps;
    c->count = count;
    c->stages = trm_calloc(count + 1, sizeof(*c->stages));
    if (c->stages == NULL)
        return trmi_no_memory("decoders");
    for (size_t i = 0; i < count; i++)
        if (steps[i].regex != NULL)
            return trmi_matcher_create(&c->matcher);
    return TRM_OK;
}

void trmi_chain_fini(trmi_chain *c)
{
    for (size_t i = 0; c->stages != NULL && i < c->count; i++) {
        trmi_buf_fini(&c->stages[i].held);
        trmi_buf_fini(&c->stages[i].temp);
        trmi_buf_fini(&c->stages[i].more);
    }
    trm_free(c->stages);
    trmi_matcher_destroy(c->matcher);
    trmi_buf_fini(&c->out);
    memset(c, 0, sizeof(*c));
}

/* ---- what decoders do to one token ---- */

/* ByteLevel: the bytes, or the token itself if a character of it stands for none. */
static void add_byte_level(trmi_buf *out, const char *p, size_t count)
{
    size_t before = out->count, bytes;

    for (size_t i = 0; i < count; i += bytes) {
        int b = trmi_byte_level_byte(trmi_utf8_get(p + i, &bytes));

        if (b < 0) {
            out->count = before;
            trmi_buf_add(out, p, count);
            return;
        }
        trmi_buf_byte(out, (char)b);
    }
}

static void add_replaced(trmi_buf *out, const char *p, size_t count, const char *from,
                         size_t from_bytes, const char *to, size_t to_bytes)
{
    size_t i = 0;

    while (i < count && from_bytes > 0) {
        const char *hit = memmem(p + i, count - i, from, from_bytes);

        if (hit == NULL)
            break;
        trmi_buf_add(out, p + i, (size_t)(hit - p) - i);
        trmi_buf_add(out, to, to_bytes);
        i = (size_t)(hit - p) + from_bytes;
    }
    trmi_buf_add(out, p + i, count - i);
}

/* Blanks before punctuation and English contractions, as BERT's decoder has it. */
static void clean_up(trmi_buf *text, trmi_buf *spare)
{
    static const char *const rules[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };

    if (text->count == 0 || memchr(text->bytes, ' ', text->count) == NULL)
        return;
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        trmi_buf b;

        trmi_buf_clear(spare);
        add_replaced(spare, text->bytes, text->count, rules[i][0], strlen(rules[i][0]), rules[i][1],
                     strlen(rules[i][1]));
        b = *spare;
        *spare = *text;
        *text = b;
    }
}

static void add_wordpiece(const trmi_decoder *d, trmi_buf *out, trmi_buf *spare, const char *p,
                          size_t count, bool first)
{
    if (!first) {
        if (count >= d->from.count &&
            (d->from.count == 0 || memcmp(p, d->from.bytes, d->from.count) == 0)) {
            p += d->from.count;
            count -= d->from.count;
        } else {
            trmi_buf_byte(out, ' ');
        }
    }
    trmi_buf_add(out, p, count);
    if (d->cleanup)
        clean_up(out, spare);
}

static void add_metaspace(const trmi_decoder *d, trmi_buf *out, const char *p, size_t count,
                          bool first)
{
    for (size_t i = 0, bytes; i < count; i += bytes) {
        if (trmi_utf8_get(p + i, &bytes) != d->c)
            trmi_buf_add(out, p + i, bytes);
        else if (!first || !d->drop_first)
            trmi_buf_byte(out, ' ');
    }
}

static void add_stripped(const trmi_decoder *d, trmi_buf *out, const char *p, size_t count)
{
    char mark[4];
    size_t bytes = trmi_utf8_put(d->c, mark), low = 0, high = count;

    for (size_t i = 0; i < d->start && count - low >= bytes && memcmp(p + low, mark, bytes) == 0;
         i++)
        low += bytes;
    for (size_t i = 0;
         i < d->stop && high - low >= bytes && memcmp(p + high - bytes, mark, bytes) == 0; i++)
        high -= bytes;
    trmi_buf_add(out, p + low, high - low);
}

static trm_status add_replace_regex(const trmi_decoder *d, trmi_matcher *m, trmi_buf *out,
                                    const char *p, size_t count)
{
    size_t from = 0, done = 0, start, end, last_end = SIZE_MAX;
    bool found;

    while (count > 0 && from <= count) {
        TRM_CHECK(trmi_regex_find(d->regex, m, p, count, from, &found, &start, &end));
        if (!found)
            break;
        if (start == end && end == last_end) {
            size_t bytes = 1;

            if (from < count)
                (void)trmi_utf8_get(p + from, &bytes);
            from += bytes;
            continue;
        }
        trmi_buf_add(out, p + done, start - done);
        trmi_buf_add(out, d->to.bytes, d->to.count);
        from = done = last_end = end;
    }
    trmi_buf_add(out, p + done, count - done);
    return TRM_OK;
}

/* ---- stages ---- */

static trm_status deliver(trmi_chain *c, size_t i, const char *p, size_t count);

static trm_status pass_temp(trmi_chain *c, size_t i)
{
    trmi_stage *g = &c->stages[i];

    TRM_CHECK(trmi_buf_status(&g->temp, "decoded text"));
    TRM_CHECK(trmi_buf_status(&g->held, "decoded text"));
    return deliver(c, i + 1, g->temp.count == 0 ? "" : g->temp.bytes, g->temp.count);
}

/* ByteLevel: what is whole of the bytes so far. */
static trm_status pass_characters(trmi_chain *c, size_t i, bool end)
{
    trmi_stage *g = &c->stages[i];
    size_t at = 0, bytes;
    uint32_t k;

    trmi_buf_clear(&g->temp);
    while (at < g->held.count) {
        size_t good = trmi_utf8_good(g->held.bytes + at, g->held.count - at);

        trmi_buf_add(&g->temp, g->held.bytes + at, good);
        at += good;
        if (at == g->held.count)
            break;
        if (trmi_utf8_look(g->held.bytes + at, g->held.count - at, &k, &bytes) == TRMI_UTF8_CUT &&
            !end)
            break;
        trmi_buf_char(&g->temp, TRMI_REPLACEMENT);
        at += bytes;
    }
    if (at > 0)
        memmove(g->held.bytes, g->held.bytes + at, g->held.count - at);
    g->held.count -= at;
    return g->temp.count == 0 ? trmi_buf_status(&g->held, "decoded text") : pass_temp(c, i);
}

/* ByteFallback: the bytes that byte tokens have gathered, as text if all of them are, or one
 * U+FFFD for each. */
static trm_status pass_bytes(trmi_chain *c, size_t i)
{
    trmi_stage *g = &c->stages[i];

    if (g->held.count == 0)
        return TRM_OK;
    trmi_buf_clear(&g->temp);
    if (trmi_utf8_good(g->held.bytes, g->held.count) == g->held.count)
        trmi_buf_add(&g->temp, g->held.bytes, g->held.count);
    else
        for (size_t k = 0; k < g->held.count; k++)
            trmi_buf_char(&g->temp, TRMI_REPLACEMENT);
    trmi_buf_clear(&g->held);
    return pass_temp(c, i);
}

/* BPE: the token that waited; its suffix is a blank, or nothing at the end. */
static trm_status pass_waiting(trmi_chain *c, size_t i, bool end)
{
    const trmi_decoder *d = &c->steps[i];
    trmi_stage *g = &c->stages[i];

    if (!g->holds)
        return TRM_OK;
    trmi_buf_clear(&g->temp);
    add_replaced(&g->temp, g->held.bytes, g->held.count, d->from.bytes, d->from.count, " ",
                 end ? 0 : 1);
    trmi_buf_clear(&g->held);
    g->holds = false;
    return pass_temp(c, i);
}

/* A whole token. */
static trm_status take_token(trmi_chain *c, size_t i, const char *p, size_t count)
{
    const trmi_decoder *d = &c->steps[i];
    trmi_stage *g = &c->stages[i];
    bool first = g->index++ == 0;
    int b;

    trmi_buf_clear(&g->temp);
    switch (d->kind) {
    case TRMI_DECODER_BYTE_LEVEL:
        add_byte_level(&g->held, p, count);
        return pass_characters(c, i, false);
    case TRMI_DECODER_BYTE_FALLBACK:
        b = trmi_byte_token(p, count);
        if (b >= 0) {
            trmi_buf_byte(&g->held, (char)b);
            return trmi_buf_status(&g->held, "decoded text");
        }
        TRM_CHECK(pass_bytes(c, i));
        return deliver(c, i + 1, p, count);
    case TRMI_DECODER_BPE:
        TRM_CHECK(pass_waiting(c, i, false));
        trmi_buf_add(&g->held, p, count);
        g->holds = true;
        return trmi_buf_status(&g->held, "decoded text");
    case TRMI_DECODER_FUSE:
        return deliver(c, i + 1, p, count);
    case TRMI_DECODER_WORDPIECE:
        add_wordpiece(d, &g->temp, &g->more, p, count, first);
        break;
    case TRMI_DECODER_METASPACE:
        add_metaspace(d, &g->temp, p, count, first);
        break;
    case TRMI_DECODER_STRIP:
        add_stripped(d, &g->temp, p, count);
        break;
    case TRMI_DECODER_REPLACE:
        if (d->regex != NULL)
            TRM_CHECK(add_replace_regex(d, c->matcher, &g->temp, p, count));
        else
            add_replaced(&g->temp, p, count, d->from.bytes, d->from.count, d->to.bytes,
                         d->to.count);
        break;
    case TRMI_DECODER_JOIN:
        if (!first)
            trmi_buf_byte(&g->temp, ' ');
        trmi_buf_add(&g->temp, p, count);
        break;
    }
    return pass_temp(c, i);
}

/* Strip of one long token from its start: index counts what it has taken off. */
static trm_status take_start(trmi_chain *c, size_t i, const char *p, size_t count)
{
    const trmi_decoder *d = &c->steps[i];
    trmi_stage *g = &c->stages[i];

    while (count > 0 && !g->holds) {
        size_t bytes;

        if (g->index == d->start || trmi_utf8_get(p, &bytes) != d->c) {
            g->holds = true;
            break;
        }
        g->index++;
        p += bytes;
        count -= bytes;
    }
    return count == 0 ? TRM_OK : deliver(c, i + 1, p, count);
}

/* Replace in one long token: what may be the start of the pattern waits. */
static trm_status take_replaced(trmi_chain *c, size_t i, const char *p, size_t count)
{
    const trmi_decoder *d = &c->steps[i];
    trmi_stage *g = &c->stages[i];
    size_t at = 0, keep;

    trmi_buf_add(&g->held, p, count);
    TRM_CHECK(trmi_buf_status(&g->held, "decoded text"));
    trmi_buf_clear(&g->temp);
    while (g->held.count - at >= d->from.count) {
        const char *hit =
            memmem(g->held.bytes + at, g->held.count - at, d->from.bytes, d->from.count);

        if (hit == NULL)
            break;
        trmi_buf_add(&g->temp, g->held.bytes + at, (size_t)(hit - g->held.bytes) - at);
        trmi_buf_add(&g->temp, d->to.bytes, d->to.count);
        at = (size_t)(hit - g->held.bytes) + d->from.count;
    }
    for (keep = d->from.count - 1; keep > 0; keep--)
        if (g->held.count - at >= keep &&
            memcmp(g->held.bytes + g->held.count - keep, d->from.bytes, keep) == 0)
            break;
    trmi_buf_add(&g->temp, g->held.bytes + at, g->held.count - at - keep);
    memmove(g->held.bytes, g->held.bytes + g->held.count - keep, keep);
    g->held.count = keep;
    return g->temp.count == 0 ? trmi_buf_status(&g->temp, "decoded text") : pass_temp(c, i);
}

/* Whether a stage can work on one long token in parts. */
static bool takes_parts(const trmi_decoder *d)
{
    return d->kind == TRMI_DECODER_FUSE || d->kind == TRMI_DECODER_METASPACE ||
           d->kind == TRMI_DECODER_JOIN || (d->kind == TRMI_DECODER_STRIP && d->stop == 0) ||
           (d->kind == TRMI_DECODER_REPLACE && d->regex == NULL && d->from.count > 0);
}

static trm_status take_part(trmi_chain *c, size_t i, const char *p, size_t count)
{
    const trmi_decoder *d = &c->steps[i];
    trmi_stage *g = &c->stages[i];

    if (!takes_parts(d)) {
        trmi_buf_add(&g->held, p, count);
        return trmi_buf_status(&g->held, "decoded text");
    }
    if (d->kind == TRMI_DECODER_STRIP)
        return take_start(c, i, p, count);
    if (d->kind == TRMI_DECODER_REPLACE)
        return take_replaced(c, i, p, count);
    if (d->kind != TRMI_DECODER_METASPACE)
        return deliver(c, i + 1, p, count);
    trmi_buf_clear(&g->temp);
    add_metaspace(d, &g->temp, p, count, true);
    return pass_temp(c, i);
}

/* A token (or, where all are one, a part of it) for stage i; behind the last stage it is text. */
static trm_status deliver(trmi_chain *c, size_t i, const char *p, size_t count)
{
    if (i == c->count) {
        trmi_utf8_add_lossy(&c->out, p, count);
        return trmi_buf_status(&c->out, "decoded text");
    }
    return c->steps[i].fused ? take_part(c, i, p, count) : take_token(c, i, p, count);
}

trm_status trmi_chain_push(trmi_chain *c, const char *token, size_t bytes)
{
    return deliver(c, 0, token, bytes);
}

static trm_status end_stage(trmi_chain *c, size_t i)
{
    const trmi_decoder *d = &c->steps[i];
    trmi_stage *g = &c->stages[i];

    if (d->fused && d->kind == TRMI_DECODER_REPLACE && takes_parts(d)) {
        trmi_buf_clear(&g->temp);
        trmi_buf_add(&g->temp, g->held.bytes, g->held.count);
        return g->temp.count == 0 ? TRM_OK : pass_temp(c, i);
    }
    if (d->fused && !takes_parts(d)) {
        trmi_buf all = g->held;
        trm_status st;

        memset(&g->held, 0, sizeof(g->held));
        st = take_token(c, i, all.count == 0 ? "" : all.bytes, all.count);
        trmi_buf_fini(&all);
        TRM_CHECK(st);
    }
    switch (d->kind) {
    case TRMI_DECODER_BYTE_LEVEL:
        return pass_characters(c, i, true);
    case TRMI_DECODER_BYTE_FALLBACK:
        return pass_bytes(c, i);
    case TRMI_DECODER_BPE:
        return pass_waiting(c, i, true);
    default:
        return TRM_OK;
    }
}

trm_status trmi_chain_finish(trmi_chain *c)
{
    for (size_t i = 0; i < c->count; i++)
        TRM_CHECK(end_stage(c, i));
    return TRM_OK;
}

/* ---- one token ---- */

static trm_status decode_step(const trmi_decoder *d, const trmi_buf *in, trmi_buf *out,
                              trmi_buf *spare)
{
    const char *p = in->count == 0 ? "" : in->bytes;
    trmi_matcher *m = NULL;
    trm_status st = TRM_OK;
    int b;

    switch (d->kind) {
    case TRMI_DECODER_BYTE_LEVEL:
        add_byte_level(out, p, in->count);
        break;
    case TRMI_DECODER_BYTE_FALLBACK:
        b = trmi_byte_token(p, in->count);
        if (b >= 0)
            trmi_buf_byte(out, (char)b);
        else
            trmi_buf_add(out, p, in->count);
        break;
    case TRMI_DECODER_WORDPIECE:
        add_wordpiece(d, out, spare, p, in->count, false);
        break;
    case TRMI_DECODER_METASPACE:
        add_metaspace(d, out, p, in->count, false);
        break;
    case TRMI_DECODER_BPE:
        add_replaced(out, p, in->count, d->from.bytes, d->from.count, " ", 1);
        break;
    case TRMI_DECODER_REPLACE:
        if (d->regex == NULL) {
            add_replaced(out, p, in->count, d->from.bytes, d->from.count, d->to.bytes, d->to.count);
            break;
        }
        TRM_CHECK(trmi_matcher_create(&m));
        st = add_replace_regex(d, m, out, p, in->count);
        trmi_matcher_destroy(m);
        break;
    case TRMI_DECODER_STRIP:
        if (!d->fused) {
            add_stripped(d, out, p, in->count);
            break;
        }
        trmi_buf_add(out, p, in->count);
        break;
    case TRMI_DECODER_FUSE:
    case TRMI_DECODER_JOIN:
        trmi_buf_add(out, p, in->count);
        break;
    }
    return st;
}

trm_status trmi_decode_token(const trmi_decoder *steps, size_t count, const char *token,
                             size_t bytes, trmi_buf *out)
{
    trmi_buf in = {0}, spare = {0};
    trm_status st = TRM_OK;

    trmi_buf_clear(out);
    trmi_buf_add(out, token, bytes);
    for (size_t i = 0; i < count && st == TRM_OK; i++) {
        trmi_buf b = in;

        /* a byte that is no whole character says nothing to decoders of characters */
        if (trmi_utf8_good(out->count == 0 ? "" : out->bytes, out->count) != out->count)
            break;
        in = *out;
        *out = b;
        trmi_buf_clear(out);
        st = decode_step(&steps[i], &in, out, &spare);
    }
    if (st == TRM_OK)
        st = trmi_buf_status(out, "a token's text");
    trmi_buf_fini(&in);
    trmi_buf_fini(&spare);
    return st;
}
