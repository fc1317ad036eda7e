/* Sentencepiece models and GGUF vocabularies. */
#include "model/tokenizer/tokenizer_impl.h"

trm_status trm_tokenizer_from_sentencepiece(const char *name, const void *bytes, size_t count,
                                            trm_tokenizer **tokenizer_out)
{
    (void)bytes;
    (void)count;
    (void)tokenizer_out;
    return trm_fail(TRM_ERR_UNSUPPORTED, "%s: sentencepiece models are not read", name);
}

trm_status trm_tokenizer_from_gguf(const char *name, const trm_gguf_vocabulary *vocabulary,
                                   trm_tokenizer **tokenizer_out)
{
    (void)vocabulary;
    (void)tokenizer_out;
    return trm_fail(TRM_ERR_UNSUPPORTED, "%s: GGUF vocabularies are not read", name);
}
