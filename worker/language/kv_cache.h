/* Which pages of the key/value cache belong to whom. Arithmetic of the leader alone: every rank has
 * the same number of pages, and page p of one rank and page p of another are the same positions of
 * the same sequence.
 *
 * A page holds TRM_KV_PAGE positions. Sequences hold pages by reference; a full page whose content
 * is known by the tokens up to its end can be found again by another sequence that begins with the
 * same tokens (prefix reuse; vLLM's automatic prefix caching has the same idea). A page that nobody
 * holds stays findable until its memory is needed, the one that was let go first goes first.
 * Nothing is allocated after creation but a sequence's list. One owner. */
#ifndef TRM_WORKER_LANGUAGE_KV_CACHE_H
#define TRM_WORKER_LANGUAGE_KV_CACHE_H

#include "base/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_kv_cache trm_kv_cache;

/* A sequence's pages, in order of positions. Zeroed: none. */
typedef struct trm_kv_table {
    int32_t *pages;
    int count, max;
    int known; /* pages from the front that can be found by others: trm_kv_commit */
} trm_kv_table;

TRM_MUST_USE trm_status trm_kv_cache_create(int pages, bool prefix, trm_kv_cache **cache_out);
void trm_kv_cache_destroy(trm_kv_cache *c);
/* Pages that could be had now: free ones and those that nobody holds. */
int trm_kv_cache_available(const trm_kv_cache *c);

/* Gives an empty table the known pages that hold the longest prefix of tokens[0, count) in whole
 * pages, but never all of them: the last token is left to compute. Returns positions found. */
int trm_kv_match(trm_kv_cache *c, const int32_t *tokens, int count, trm_kv_table *table);
/* Pages for `positions` positions. false: there are not enough, nothing changed. NO_MEMORY does not
 * come through here: a table's list has room for all pages of the cache once trm_kv_table_init has
 * made it. */
bool trm_kv_grow(trm_kv_cache *c, int positions, trm_kv_table *table);
/* tokens[0, positions) are computed: whole pages of them become known. */
void trm_kv_commit(trm_kv_cache *c, const int32_t *tokens, int positions, trm_kv_table *table);
/* Lets all pages go; what is known stays findable. */
void trm_kv_release(trm_kv_cache *c, trm_kv_table *table);
/* Room for `positions` positions in the list. */
TRM_MUST_USE trm_status trm_kv_table_init(trm_kv_table *table, int positions);
void trm_kv_table_fini(trm_kv_table *table); /* pages must have been released */

typedef struct trm_kv_stats {
    uint64_t queried_tokens, found_tokens; /* of trm_kv_match */
    int used, known_idle;                  /* pages held; pages that only wait to be found */
} trm_kv_stats;
void trm_kv_get_stats(const trm_kv_cache *c, trm_kv_stats *stats_out);

#ifdef __cplusplus
}
#endif
#endif
