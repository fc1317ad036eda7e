/* Text to token ids and back, for the tokenizers that published language models come with.
 *
 * A tokenizer is made from a Hugging Face folder (tokenizer.json; tokenizer.model where that is
 * missing) or from the vocabulary inside a GGUF file. Its stages are those of the `tokenizers`
 * library, and the ids are the same: added tokens are cut out of the text, the rest is normalised,
 * pre-tokenized into words, each word is cut into tokens by the model (BPE on bytes or on
 * characters with byte fallback, WordPiece, Unigram), and a post-processor adds special tokens.
 *
 * Input text is any bytes: what is not UTF-8 is read as U+FFFD, as Python's errors="replace" does.
 * Files are hostile input. Threads: a tokenizer is read-only once made and may be shared; a
 * trm_detokenizer has one owner. */
#ifndef TRM_MODEL_TOKENIZER_TOKENIZER_H
#define TRM_MODEL_TOKENIZER_TOKENIZER_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_tokenizer trm_tokenizer;

/* ---- making one ---- */
/* From the bytes of a tokenizer.json. `name` is for messages (the path). BAD_FILE: malformed, says
 * where; UNSUPPORTED: names the component and those that are supported. */
TRM_MUST_USE trm_status trm_tokenizer_from_json(const char *name, const void *bytes, size_t count,
                                                trm_tokenizer **tokenizer_out);
/* From the bytes of a SentencePiece tokenizer.model (protobuf; BPE and Unigram). */
TRM_MUST_USE trm_status trm_tokenizer_from_sentencepiece(const char *name, const void *bytes,
                                                         size_t count,
                                                         trm_tokenizer **tokenizer_out);
/* From what a GGUF file's metadata holds. Strings are not NUL-terminated and need not be UTF-8;
 * everything is copied. */
typedef struct trm_text {
    const char *bytes;
    size_t count;
} trm_text;
typedef struct trm_gguf_vocabulary {
    const char *model; /* tokenizer.ggml.model: "llama" (SentencePiece BPE by scores), "gpt2"
                          (byte-level BPE), "bert" (WordPiece), "t5" (Unigram) */
    const char *pre;   /* tokenizer.ggml.pre: which pre-tokenizer pattern ("llama-bpe", "qwen2",
                          "gpt-2", "default", ...); NULL: absent */
    size_t count;
    const trm_text *tokens;
    const float *scores;  /* [count] or NULL */
    const int32_t *types; /* [count] or NULL: 1 normal, 2 unknown, 3 control, 4 user defined,
                             5 unused, 6 byte */
    const trm_text *merges;
    size_t merge_count;
    int32_t bos, eos, unknown, separator, padding, cls, mask; /* -1: absent */
    int add_bos, add_eos, add_space_prefix;                   /* -1: absent */
    /* what few files have; zeroed memory is their absence */
    trm_text charsmap; /* tokenizer.ggml.precompiled_charsmap ("t5"); bytes NULL: absent */
    int remove_extra_whitespaces; /* 0 or absent: no */
    int keep_case;                /* "bert": 1 where tokenizer.ggml.normalizer.lowercase is false */
} trm_gguf_vocabulary;
TRM_MUST_USE trm_status trm_tokenizer_from_gguf(const char *name,
                                                const trm_gguf_vocabulary *vocabulary,
                                                trm_tokenizer **tokenizer_out);
void trm_tokenizer_destroy(trm_tokenizer *t); /* takes NULL */

/* ---- using it ---- */
size_t trm_tokenizer_count(const trm_tokenizer *t); /* largest id + 1, added tokens included */
/* "bpe", "wordpiece", "unigram" and what else describes it in one line: for `inspect`. */
const char *trm_tokenizer_description(const trm_tokenizer *t);

typedef enum trm_encode_flags {
    TRM_ENCODE_SPECIAL = 1, /* run the post-processor: BOS, [CLS] and such */
    TRM_ENCODE_PLAIN = 2    /* special tokens' names in the text are text, not tokens */
} trm_encode_flags;
/* Ids of `text`; *ids_out from trm_malloc (freed with trm_free), NULL and 0 for none. */
TRM_MUST_USE trm_status trm_tokenizer_encode(const trm_tokenizer *t, const char *text, size_t bytes,
                                             int flags, int32_t **ids_out, size_t *count_out);
/* A pair, as WordPiece models want it ([CLS] a [SEP] b [SEP]); types_out [count]: 0 or 1 a token.
 */
TRM_MUST_USE trm_status trm_tokenizer_encode_pair(const trm_tokenizer *t, const char *a,
                                                  size_t a_bytes, const char *b, size_t b_bytes,
                                                  int32_t **ids_out, int32_t **types_out,
                                                  size_t *count_out);
/* The text of ids, NUL-terminated, from trm_malloc; ids that do not exist are INVALID_ARG.
 * skip_special leaves out special tokens. The same as the `tokenizers` library's decode. */
TRM_MUST_USE trm_status trm_tokenizer_decode(const trm_tokenizer *t, const int32_t *ids,
                                             size_t count, bool skip_special, char **text_out,
                                             size_t *bytes_out);
/* The piece as the vocabulary spells it (for logprobs and inspect): borrowed, may hold any bytes;
 * NULL: no such id. */
const char *trm_tokenizer_token(const trm_tokenizer *t, int32_t id, size_t *bytes_out);
/* The bytes that a token stands for in decoded text ("Ġthe" -> " the", "<0x0A>" -> "\n"), without
 * what decode does at the start of a text; special tokens: their name. Into buf (cut there);
 * returns the whole length. */
size_t trm_tokenizer_token_bytes(const trm_tokenizer *t, int32_t id, char *buf, size_t buf_bytes);
int32_t trm_tokenizer_find(const trm_tokenizer *t, const char *token, size_t bytes); /* -1: none */
bool trm_tokenizer_is_special(const trm_tokenizer *t, int32_t id);
int32_t trm_tokenizer_unknown(const trm_tokenizer *t); /* -1: none */

/* ---- streaming ---- */
/* Text as tokens come: what is given out is always whole UTF-8 characters, and all pieces together
 * are what decode gives for all ids (bytes that never become a character come out as U+FFFD, at
 * the latest at the end). */
typedef struct trm_detokenizer trm_detokenizer;
TRM_MUST_USE trm_status trm_detokenizer_create(const trm_tokenizer *t, bool skip_special,
                                               trm_detokenizer **detokenizer_out);
void trm_detokenizer_destroy(trm_detokenizer *d);
/* `before`: tokens that the new ones continue (the prompt): they decide whether a first space is
 * kept; their text is not given out. Before the first push; may be left out. */
TRM_MUST_USE trm_status trm_detokenizer_start(trm_detokenizer *d, const int32_t *before,
                                              size_t count);
/* New text, borrowed until the next call; may be empty. */
TRM_MUST_USE trm_status trm_detokenizer_push(trm_detokenizer *d, int32_t id, const char **text_out,
                                             size_t *bytes_out);
/* What is left at the end. */
TRM_MUST_USE trm_status trm_detokenizer_finish(trm_detokenizer *d, const char **text_out,
                                               size_t *bytes_out);

#ifdef __cplusplus
}
#endif
#endif
