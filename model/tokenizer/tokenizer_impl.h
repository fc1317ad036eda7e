/* What the tokenizer's files share: the stages of a tokenizer, read-only once made, and the scratch
 * memory of one call. The stages' meaning is that of the `tokenizers` library, version 0.23. */
#ifndef TRM_MODEL_TOKENIZER_TOKENIZER_IMPL_H
#define TRM_MODEL_TOKENIZER_TOKENIZER_IMPL_H

#include "base/memory.h"
#include "model/tokenizer/regex.h"
#include "model/tokenizer/text.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/vocabulary.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_TEXT_BYTES_MAX ((size_t)1 << 29)
#define TRMI_STEPS_MAX 256 /* normalizers, pre-tokenizers or decoders of one tokenizer */

/* ---- normalizers ---- */
typedef struct trmi_precompiled trmi_precompiled;
typedef enum trmi_normalizer_kind {
    TRMI_NORMALIZER_NFC,
    TRMI_NORMALIZER_NFD,
    TRMI_NORMALIZER_NFKC,
    TRMI_NORMALIZER_NFKD,
    TRMI_NORMALIZER_LOWERCASE,
    TRMI_NORMALIZER_STRIP,
    TRMI_NORMALIZER_STRIP_ACCENTS,
    TRMI_NORMALIZER_REPLACE,
    TRMI_NORMALIZER_PREPEND,
    TRMI_NORMALIZER_PRECOMPILED,
    TRMI_NORMALIZER_BERT_CLEAN,   /* BertNormalizer is up to four steps: control characters, */
    TRMI_NORMALIZER_BERT_CHINESE, /* blanks around ideographs, */
    TRMI_NORMALIZER_BERT_ACCENTS, /* nonspacing marks (after NFD), and LOWERCASE */
    TRMI_NORMALIZER_NMT,
    TRMI_NORMALIZER_BYTE_LEVEL,
    TRMI_NORMALIZER_SENTENCEPIECE /* the whole of sentencepiece's own normalizer */
} trmi_normalizer_kind;
typedef struct trmi_normalizer {
    trmi_normalizer_kind kind;
    bool left, right;      /* STRIP */
    trm_text from, to;     /* REPLACE (from unless regex), PREPEND (to) */
    trmi_regex *regex;     /* REPLACE, or NULL */
    trmi_precompiled *map; /* PRECOMPILED; SENTENCEPIECE: or NULL */
    trmi_trie *whole;      /* SENTENCEPIECE: user-defined tokens, left as they are, or NULL */
    bool dummy_prefix, remove_extra, escape, suffix; /* SENTENCEPIECE */
} trmi_normalizer;
/* Text on its way through the normalizers. `head`: its first character is the text's first, or
 * stands in its place (what prepend_scheme "first" asks). */
typedef struct trmi_line {
    trmi_buf now, next;
    bool head;
} trmi_line;
void trmi_normalizer_fini(trmi_normalizer *n);
/* line->now becomes its normalized form. */
TRM_MUST_USE trm_status trmi_normalize(const trmi_normalizer *steps, size_t count, trmi_matcher *m,
                                       trmi_line *line);
void trmi_line_swap(trmi_line *line);
TRM_MUST_USE trm_status trmi_normalize_unicode(trmi_normalizer_kind kind, trmi_line *line);
TRM_MUST_USE trm_status trmi_normalize_sentencepiece(const trmi_normalizer *n, trmi_line *line);
/* Each byte as one of 256 printable characters, GPT-2's way. */
void trmi_byte_level_add(trmi_buf *out, const char *text, size_t bytes);
/* The byte that a character stands for, -1: none. */
int trmi_byte_level_byte(uint32_t c);

/* A sentencepiece character map, from its bytes (decoded from base64 already). */
TRM_MUST_USE trm_status trmi_precompiled_create(const char *bytes, size_t count,
                                                trmi_precompiled **map_out);
void trmi_precompiled_destroy(trmi_precompiled *map);
TRM_MUST_USE trm_status trmi_precompiled_apply(const trmi_precompiled *map, trmi_line *line);
/* The longest rule that the text begins with: its bytes and what replaces them; false: none. */
bool trmi_precompiled_longest(const trmi_precompiled *map, const char *text, size_t count,
                              size_t *bytes_out, trm_text *to_out);

/* ---- pre-tokenizers ---- */
typedef enum trmi_behavior {
    TRMI_REMOVED,
    TRMI_ISOLATED,
    TRMI_MERGED_WITH_PREVIOUS,
    TRMI_MERGED_WITH_NEXT,
    TRMI_CONTIGUOUS
} trmi_behavior;
typedef enum trmi_prepend {
    TRMI_PREPEND_NEVER,
    TRMI_PREPEND_FIRST,
    TRMI_PREPEND_ALWAYS
} trmi_prepend;
typedef enum trmi_pretokenizer_kind {
    TRMI_PRETOKENIZER_BYTE_LEVEL,
    TRMI_PRETOKENIZER_METASPACE,
    TRMI_PRETOKENIZER_SPLIT,      /* by regex, or by the string `pattern` */
    TRMI_PRETOKENIZER_CHARACTERS, /* by `is`, a class of characters */
    TRMI_PRETOKENIZER_WHITESPACE  /* \w+|[^\w\s]+ */
} trmi_pretokenizer_kind;
typedef struct trmi_pretokenizer {
    trmi_pretokenizer_kind kind;
    trmi_behavior behavior; /* SPLIT, CHARACTERS */
    bool invert;            /* SPLIT */
    bool add_prefix_space;  /* BYTE_LEVEL */
    trmi_regex *regex;      /* SPLIT, BYTE_LEVEL (NULL: does not split) */
    trm_text pattern;       /* SPLIT without a regex */
    bool (*is)(uint32_t c); /* CHARACTERS, unless `delimiter` */
    uint32_t delimiter;     /* CHARACTERS: this one; METASPACE: the replacement */
    trmi_prepend prepend;   /* METASPACE */
    bool split;             /* METASPACE */
} trmi_pretokenizer;
typedef struct trmi_piece {
    size_t at, bytes;
    bool head; /* as trmi_line's */
} trmi_piece;
typedef struct trmi_pieces {
    trmi_piece *v;
    size_t count, room;
    bool failed;
} trmi_pieces;
typedef struct trmi_words {
    const char *text; /* what pieces lie in */
    trmi_pieces now, next;
    trmi_buf buffers[2]; /* where steps that change the text write, in turns */
    int turn;
} trmi_words;
void trmi_pretokenizer_fini(trmi_pretokenizer *p);
void trmi_words_fini(trmi_words *w);
/* Cuts text (UTF-8, which must outlive w's use) into w->now. */
TRM_MUST_USE trm_status trmi_pretokenize(const trmi_pretokenizer *steps, size_t count,
                                         trmi_matcher *m, const char *text, size_t bytes, bool head,
                                         trmi_words *w);
/* GPT-2's pattern, which ByteLevel has built in. */
extern const char trmi_gpt2_pattern[];

/* ---- models ---- */
typedef enum trmi_model_kind {
    TRMI_MODEL_BPE,
    TRMI_MODEL_WORDPIECE,
    TRMI_MODEL_WORDLEVEL,
    TRMI_MODEL_UNIGRAM
} trmi_model_kind;
typedef struct trmi_merge {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: a free slot */
    uint32_t rank;
    int32_t id; /* what they become */
} trmi_merge;
typedef struct trmi_model {
    trmi_model_kind kind;
    trmi_vocabulary vocabulary;
    int32_t unknown; /* -1: none */
    bool byte_fallback;
    int32_t bytes[256]; /* byte_fallback: ids of <0x00> ... <0xFF>; -1: none */

    /* BPE */
    trmi_merge *merges; /* a hash table by pair */
    size_t merge_mask, merge_count;
    trm_text prefix, suffix; /* continuing_subword_prefix, end_of_word_suffix */
    bool fuse_unknown, ignore_merges;
    bool unknown_missing;     /* unk_token is named but no token: an error when it is needed */
    uint32_t *ranks;          /* [ids] by scores, as sentencepiece merges: any two symbols that make
                                 a token; UINT32_MAX: not by merging. NULL: by merges */
    bool cuts_at_space;       /* no merge makes a token with U+2581 behind another character */
    int32_t low_chars[0x250]; /* ids of the first characters, -1: none */

    /* WordPiece (prefix too) */
    size_t word_chars_max;
    trmi_trie *start, *inside; /* tokens at a word's start; those with the prefix, without it */

    /* Unigram */
    double *scores; /* [ids] */
    double unknown_score;
    bool single; /* sums in single precision, as sentencepiece has them */
    trmi_trie *trie;
} trmi_model;

typedef struct trmi_symbol {
    int32_t id;
    uint32_t at, bytes; /* in the word; bytes 0: merged into another */
    int32_t before, after;
} trmi_symbol;
typedef struct trmi_candidate {
    uint32_t rank, at; /* at: the left symbol's index */
    int32_t id;
} trmi_candidate;
typedef struct trmi_best {
    double score;
    uint32_t from; /* where the best token that ends here begins; UINT32_MAX: none */
    int32_t id;
} trmi_best;
/* Memory of one encode call. */
typedef struct trmi_scratch {
    trmi_matcher *matcher;
    trmi_line line;
    trmi_words words;
    trmi_buf clean, spelled; /* the text as UTF-8; a character with a prefix or suffix */
    trmi_symbol *symbols;
    size_t symbol_room;
    trmi_candidate *heap;
    size_t heap_count, heap_room;
    trmi_best *best;
    size_t best_room;
    trmi_ids ids; /* the words' */
} trmi_scratch;
void trmi_scratch_fini(trmi_scratch *s);
/* Makes [*block] room for at least `count` elements; false: no memory. */
bool trmi_grow(void **block, size_t *room, size_t count, size_t size);

void trmi_model_fini(trmi_model *m);
/* Ids of one word (UTF-8, not empty), added to s->ids. */
TRM_MUST_USE trm_status trmi_model_encode(const trmi_model *m, trmi_scratch *s, const char *word,
                                          size_t bytes);
TRM_MUST_USE trm_status trmi_bpe_encode(const trmi_model *m, trmi_scratch *s, const char *word,
                                        size_t bytes);
TRM_MUST_USE trm_status trmi_wordpiece_encode(const trmi_model *m, trmi_scratch *s,
                                              const char *word, size_t bytes);
TRM_MUST_USE trm_status trmi_unigram_encode(const trmi_model *m, trmi_scratch *s, const char *word,
                                            size_t bytes);
/* After vocabulary and options are set: tables that encoding needs. */
TRM_MUST_USE trm_status trmi_model_finish(trmi_model *m);
TRM_MUST_USE trm_status trmi_bpe_merges_reserve(trmi_model *m, size_t count);
/* The merge of two tokens, of the next rank; a pair that is there already gets the new rank.
 * BAD_FILE: a part or the whole is no token. */
TRM_MUST_USE trm_status trmi_bpe_merges_add(trmi_model *m, const char *left, size_t left_bytes,
                                            const char *right, size_t right_bytes, uint32_t rank,
                                            trmi_buf *spare);
void trmi_bpe_finish(trmi_model *m);
TRM_MUST_USE trm_status trmi_wordpiece_finish(trmi_model *m);
TRM_MUST_USE trm_status trmi_unigram_finish(trmi_model *m);
/* "<0x1F>" -> 31; -1: not such a token. */
int trmi_byte_token(const char *token, size_t bytes);

/* ---- added tokens ---- */
typedef struct trmi_added_token {
    int32_t id; /* -1: not an added token */
    bool special, normalized, lstrip, rstrip, single_word;
} trmi_added_token;
typedef struct trmi_added {
    trmi_vocabulary vocabulary; /* by their ids, which may be the model's too */
    trmi_added_token *tokens;   /* [token_room], by id */
    size_t token_room;
    trmi_trie *plain, *normalized; /* by spelling; NULL: none */
} trmi_added;
typedef struct trmi_found {
    size_t at, bytes;
    int32_t id; /* -1: the text between */
} trmi_found;
typedef struct trmi_scan {
    const trmi_added *added;
    const trmi_trie *trie;
    const char *text;
    size_t bytes, at, done;
    bool plain; /* special tokens are text */
    trmi_found waiting;
    bool is_waiting;
} trmi_scan;
void trmi_added_fini(trmi_added *a);
TRM_MUST_USE trm_status trmi_added_add(trmi_added *a, const char *token, size_t bytes,
                                       const trmi_added_token *how);
/* Builds the tries; normalizers for the tokens that are looked for in normalized text. */
TRM_MUST_USE trm_status trmi_added_finish(trmi_added *a, const trmi_normalizer *steps,
                                          size_t count);
const trmi_added_token *trmi_added_get(const trmi_added *a, int32_t id);
/* Walks over text: added tokens and what lies between them, in order. */
void trmi_scan_begin(trmi_scan *s, const trmi_added *a, bool normalized, bool plain,
                     const char *text, size_t bytes);
bool trmi_scan_next(trmi_scan *s, trmi_found *found_out);

/* ---- post-processor ---- */
typedef struct trmi_post_item {
    int sequence; /* 0: text A, 1: text B, -1: the special tokens `ids` */
    int type;
    const int32_t *ids;
    size_t count;
} trmi_post_item;
typedef struct trmi_post {
    const trmi_post_item *single, *pair; /* NULL: A, or A of type 0 and B of type 1 */
    size_t single_count, pair_count;
} trmi_post;

/* ---- decoders ---- */
typedef enum trmi_decoder_kind {
    TRMI_DECODER_BYTE_LEVEL,
    TRMI_DECODER_WORDPIECE,
    TRMI_DECODER_METASPACE,
    TRMI_DECODER_BPE,
    TRMI_DECODER_BYTE_FALLBACK,
    TRMI_DECODER_FUSE,
    TRMI_DECODER_STRIP,
    TRMI_DECODER_REPLACE,
    TRMI_DECODER_JOIN /* no decoder: tokens with a blank between them */
} trmi_decoder_kind;
typedef struct trmi_decoder {
    trmi_decoder_kind kind;
    trm_text from, to;  /* REPLACE; WORDPIECE (from: prefix); BPE (from: suffix) */
    trmi_regex *regex;  /* REPLACE, or NULL */
    bool cleanup;       /* WORDPIECE */
    uint32_t c;         /* METASPACE: replacement; STRIP: what is stripped */
    bool drop_first;    /* METASPACE: the replacement in the first token is nothing */
    size_t start, stop; /* STRIP: at most so many */
    bool fused;         /* all tokens come as one, from a decoder before */
} trmi_decoder;
void trmi_decoder_fini(trmi_decoder *d);
/* Decoders at work: tokens in, text out as soon as it is settled. */
typedef struct trmi_stage {
    size_t index;        /* tokens so far */
    trmi_buf held;       /* what is not settled yet */
    trmi_buf temp, more; /* where it writes */
    bool holds;          /* BPE: held is a token; STRIP: the start is behind */
} trmi_stage;
typedef struct trmi_chain {
    const trmi_decoder *steps;
    size_t count;
    trmi_stage *stages;
    trmi_matcher *matcher;
    trmi_buf out;
} trmi_chain;
TRM_MUST_USE trm_status trmi_chain_init(trmi_chain *c, const trmi_decoder *steps, size_t count);
void trmi_chain_fini(trmi_chain *c);
TRM_MUST_USE trm_status trmi_chain_push(trmi_chain *c, const char *token, size_t bytes);
TRM_MUST_USE trm_status trmi_chain_finish(trmi_chain *c);
/* The bytes of one token in the middle of a text. */
TRM_MUST_USE trm_status trmi_decode_token(const trmi_decoder *steps, size_t count,
                                          const char *token, size_t bytes, trmi_buf *out);

/* ---- the whole ---- */
struct trm_tokenizer {
    trm_arena *arena; /* patterns, templates, arrays of steps */
    trmi_added added;
    trmi_normalizer *normalizers;
    size_t normalizer_count;
    trmi_pretokenizer *pretokenizers;
    size_t pretokenizer_count;
    trmi_model model;
    trmi_post post;
    trmi_decoder *decoders;
    size_t decoder_count;
    char description[256];
};
/* An empty tokenizer with its arena. */
TRM_MUST_USE trm_status trmi_tokenizer_create(trm_tokenizer **tokenizer_out);
/* After all stages are set: what they need of each other, and the description. */
TRM_MUST_USE trm_status trmi_tokenizer_finish(trm_tokenizer *t, const char *origin);
/* Vocabulary, model, added tokens, normalizer and decoder of a sentencepiece model, from scored
 * tokens; `unigram` or BPE by scores. The normalizer's options are set in `n`, whose map it takes
 * over, also after failure. `user_in_normalized`: user-defined tokens are looked for in normalized
 * text, as sentencepiece does; otherwise in the text as it comes, as GGUF readers do. */
TRM_MUST_USE trm_status trmi_build_scored(trm_tokenizer *t, const trm_gguf_vocabulary *v,
                                          bool unigram, const trmi_normalizer *n,
                                          bool user_in_normalized);
/* The post-processor: `first` before a text and `last` behind it (-1: none). */
TRM_MUST_USE trm_status trmi_build_post(trm_tokenizer *t, int32_t first, int32_t last);
/* A token's text made UTF-8 and never empty, in `spare`. */
TRM_MUST_USE trm_status trmi_clean_token(const trm_gguf_vocabulary *v, size_t id, trmi_buf *spare);

/* A piece of text kept in the arena. */
TRM_MUST_USE trm_status trmi_keep(trm_tokenizer *t, const char *bytes, size_t count,
                                  trm_text *text_out);
TRM_MUST_USE trm_status trmi_no_memory(const char *what);

#ifdef __cplusplus
}
#endif
#endif
