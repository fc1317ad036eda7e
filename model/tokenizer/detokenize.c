/* Decoding: all at once, and streamed. Both push tokens through the decoders' chain. */
#include "model/tokenizer/tokenizer_impl.h"

struct trm_detokenizer {
    const trm_tokenizer *t;
    bool skip_special;
    bool started;
    trmi_chain chain;
};

static trm_status push(trmi_chain *c, const trm_tokenizer *t, bool skip_special, int32_t id)
{
    size_t bytes;
    const char *token = trm_tokenizer_token(t, id, &bytes);

    if (token == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "token %d: the tokenizer has ids 0 to %zu", (int)id,
                        trm_tokenizer_count(t) - 1);
    if (skip_special && trm_tokenizer_is_special(t, id))
        return TRM_OK;
    return trmi_chain_push(c, token, bytes);
}

trm_status trm_tokenizer_decode(const trm_tokenizer *t, const int32_t *ids, size_t count,
                                bool skip_special, char **text_out, size_t *bytes_out)
{
    trmi_chain c;
    trm_status st;

    TRM_TRY(st, trmi_chain_init(&c, t->decoders, t->decoder_count), end);
    for (size_t i = 0; i < count; i++)
        TRM_TRY(st, push(&c, t, skip_special, ids[i]), end);
    TRM_TRY(st, trmi_chain_finish(&c), end);
    trmi_buf_byte(&c.out, '\0');
    TRM_TRY(st, trmi_buf_status(&c.out, "decoded text"), end);
    *text_out = c.out.bytes;
    *bytes_out = c.out.count - 1;
    c.out.bytes = NULL;
end:
    trmi_chain_fini(&c);
    return st;
}

trm_status trm_detokenizer_create(const trm_tokenizer *t, bool skip_special,
                                  trm_detokenizer **detokenizer_out)
{
    trm_detokenizer *d = trm_calloc(1, sizeof(*d));
    trm_status st;

    if (d == NULL)
        return trmi_no_memory("a detokenizer");
    d->t = t;
    d->skip_special = skip_special;
    st = trmi_chain_init(&d->chain, t->decoders, t->decoder_count);
    if (st != TRM_OK) {
        trm_detokenizer_destroy(d);
        return st;
    }
    *detokenizer_out = d;
    return TRM_OK;
}

void trm_detokenizer_destroy(trm_detokenizer *d)
{
    if (d == NULL)
        return;
    trmi_chain_fini(&d->chain);
    trm_free(d);
}

trm_status trm_detokenizer_start(trm_detokenizer *d, const int32_t *before, size_t count)
{
    if (d->started)
        return trm_fail(TRM_ERR_INVALID_ARG, "a detokenizer is started before its first token");
    for (size_t i = 0; i < count; i++) {
        TRM_CHECK(push(&d->chain, d->t, d->skip_special, before[i]));
        trmi_buf_clear(&d->chain.out);
    }
    return TRM_OK;
}

static void give(trm_detokenizer *d, const char **text_out, size_t *bytes_out)
{
    *text_out = d->chain.out.count == 0 ? "" : d->chain.out.bytes;
    *bytes_out = d->chain.out.count;
}

trm_status trm_detokenizer_push(trm_detokenizer *d, int32_t id, const char **text_out,
                                size_t *bytes_out)
{
    d->started = true;
    trmi_buf_clear(&d->chain.out);
    TRM_CHECK(push(&d->chain, d->t, d->skip_special, id));
    give(d, text_out, bytes_out);
    return TRM_OK;
}

trm_status trm_detokenizer_finish(trm_detokenizer *d, const char **text_out, size_t *bytes_out)
{
    d->started = true;
    trmi_buf_clear(&d->chain.out);
    TRM_CHECK(trmi_chain_finish(&d->chain));
    give(d, text_out, bytes_out);
    return TRM_OK;
}
