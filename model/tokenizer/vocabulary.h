/* Tokens by id and ids by token: one string pool, flat tables, no allocation a token. And a trie
 * over tokens, for what looks for the longest or for all that a text begins with. */
#ifndef TRM_MODEL_TOKENIZER_VOCABULARY_H
#define TRM_MODEL_TOKENIZER_VOCABULARY_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_IDS_MAX ((size_t)1 << 24)
#define TRMI_POOL_BYTES_MAX ((size_t)1 << 31)

typedef struct trmi_token {
    uint32_t at, bytes; /* in the pool; at UINT32_MAX: no such id */
} trmi_token;
typedef struct trmi_vocabulary {
    char *pool; /* tokens, each with a NUL behind it */
    size_t pool_bytes, pool_room;
    trmi_token *tokens;
    size_t ids, ids_room; /* largest id + 1 */
    uint64_t *slots;      /* hash's upper half and id + 1; 0: free */
    size_t mask, used;
    size_t longest; /* bytes of the longest token */
} trmi_vocabulary;

/* Zeroed memory is an empty vocabulary. Room for `count` tokens of `bytes` together (a guess). */
TRM_MUST_USE trm_status trmi_vocabulary_reserve(trmi_vocabulary *v, size_t count, size_t bytes);
void trmi_vocabulary_fini(trmi_vocabulary *v);
/* A token that is there already gets the new id. BAD_FILE: an id out of bounds, or text that was
 * chosen to collide. */
TRM_MUST_USE trm_status trmi_vocabulary_add(trmi_vocabulary *v, const char *token, size_t bytes,
                                            size_t id);
int32_t trmi_vocabulary_find(const trmi_vocabulary *v, const char *token, size_t bytes);
/* Borrowed; NULL: no such id. */
const char *trmi_vocabulary_token(const trmi_vocabulary *v, size_t id, size_t *bytes_out);
uint64_t trmi_hash(const void *bytes, size_t count);

/* ---- trie ---- */
/* A token longer than this is refused where a trie or a search by prefixes is needed: what a
 * hostile text may cost is its length times the longest token. */
#define TRMI_TRIE_BYTES_MAX 1024
typedef struct trmi_trie_node {
    uint32_t first; /* its children are nodes first .. first + children - 1, by ascending byte */
    uint16_t children;
    uint8_t byte;
    int32_t value; /* -1: no key ends here */
} trmi_trie_node;
typedef struct trmi_trie {
    trmi_trie_node *nodes; /* 0 is the root */
    size_t count;
    uint32_t root[256]; /* the root's children */
} trmi_trie;
typedef struct trmi_trie_key {
    const char *bytes;
    size_t count;
    int32_t value;
} trmi_trie_key;
/* Sorts the keys. Of equal ones the last in their order here keeps its value; empty ones are left
 * out. UNSUPPORTED: longer than TRMI_TRIE_BYTES_MAX. */
TRM_MUST_USE trm_status trmi_trie_create(trmi_trie_key *keys, size_t count, trmi_trie **trie_out);
void trmi_trie_destroy(trmi_trie *t);
/* The child of `node` by `byte`, 0: none. */
uint32_t trmi_trie_step(const trmi_trie *t, uint32_t node, unsigned char byte);
/* The value of the longest key that the text begins with, and its bytes; -1: none. */
int32_t trmi_trie_longest(const trmi_trie *t, const char *text, size_t count, size_t *bytes_out);

#ifdef __cplusplus
}
#endif
#endif
