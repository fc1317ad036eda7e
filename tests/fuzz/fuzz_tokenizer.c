/* libFuzzer: any bytes as a tokenizer.json and as a sentencepiece model, and what comes of it used.
 * The text to encode is what follows the last NUL byte, or a text of its own. */
#define _GNU_SOURCE /* memrchr */
#include "base/memory.h"
#include "model/tokenizer/tokenizer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const char sample[] =
    "The  quick\tfox's 123,456 caf\xC3\xA9 \xE6\x97\xA5\xE6\x9C\xAC\xF0\x9F"
    "\x98\x80 <s> [CLS]\r\n a\xCC\x81 \xFF\xC0 __aaaaaaaaaaaaaaaaaaaaaaaa";

/* Decoding and streaming of ids that encode gave must work, and agree. */
static void decode(const trm_tokenizer *t, const int32_t *ids, size_t count)
{
    trm_detokenizer *d;
    char *text;
    const char *piece;
    size_t all, got = 0, n;

    if (trm_tokenizer_decode(t, ids, count, false, &text, &all) != TRM_OK)
        return;
    if (trm_detokenizer_create(t, false, &d) != TRM_OK)
        abort();
    for (size_t i = 0; i <= count; i++) {
        trm_status st = i < count ? trm_detokenizer_push(d, ids[i], &piece, &n)
                                  : trm_detokenizer_finish(d, &piece, &n);

        if (st != TRM_OK || got + n > all || memcmp(piece, text + got, n) != 0)
            abort();
        got += n;
    }
    if (got != all)
        abort();
    trm_detokenizer_destroy(d);
    trm_free(text);
}

static void use(trm_tokenizer *t, const char *text, size_t bytes)
{
    int32_t *ids, *types;
    size_t count;
    char piece[16];

    for (int flags = 0; flags < 4; flags++)
        if (trm_tokenizer_encode(t, text, bytes, flags, &ids, &count) == TRM_OK) {
            decode(t, ids, count);
            for (size_t i = 0; i < count && i < 8; i++)
                (void)trm_tokenizer_token_bytes(t, ids[i], piece, sizeof(piece));
            trm_free(ids);
        }
    if (trm_tokenizer_encode_pair(t, text, bytes, sample, sizeof(sample) - 1, &ids, &types,
                                  &count) == TRM_OK) {
        trm_free(ids);
        trm_free(types);
    }
    trm_tokenizer_destroy(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const uint8_t *nul = bytes == 0 ? NULL : memrchr(data, 0, bytes);
    size_t file = nul == NULL ? bytes : (size_t)(nul - data);
    const char *text = nul == NULL ? sample : (const char *)nul + 1;
    size_t text_bytes = nul == NULL ? sizeof(sample) - 1 : bytes - file - 1;
    trm_tokenizer *t;

    if (trm_tokenizer_from_json("fuzz", data, file, &t) == TRM_OK)
        use(t, text, text_bytes > 4096 ? 4096 : text_bytes);
    if (trm_tokenizer_from_sentencepiece("fuzz", data, bytes, &t) == TRM_OK)
        use(t, sample, sizeof(sample) - 1);
    if (trm_alloc_live() != 0)
        abort();
    return 0;
}
