/* See kv_cache.h. Known pages are found by a hash of their tokens and of the page before them;
 * tokens and predecessor are compared, so equal hashes do no harm. */
#include "worker/language/kv_cache.h"

#include "base/hash.h"
#include "base/memory.h"
#include "kernels/language.h"

#include <string.h>

#define NONE (-1)

struct page {
    int32_t tokens[TRM_KV_PAGE]; /* of a known page */
    uint64_t hash;
    int before;     /* the known page in front of it, NONE: it begins a sequence */
    uint32_t birth; /* of that page's content: a page that is used anew is another page */
    uint32_t life;  /* counts this page's contents */
    int holders;
    bool known;
    int chain;      /* next page of the same hash bucket */
    int prev, next; /* idle list, oldest first; free pages are in it too, at its front */
};

struct trm_kv_cache {
    int pages, idle, oldest, newest;
    bool prefix;
    struct page *page;
    int *bucket;
    unsigned mask;
    trm_kv_stats stats;
};

trm_status trm_kv_cache_create(int pages, bool prefix, trm_kv_cache **cache_out)
{
    trm_kv_cache *c;
    unsigned buckets = 16;

    if (pages < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "a KV cache of %d pages", pages);
    while (buckets < (unsigned)pages && buckets < 1u << 30)
        buckets *= 2;
    c = trm_calloc(1, sizeof(*c));
    if (c != NULL) {
        c->page = trm_calloc((size_t)pages, sizeof(*c->page));
        c->bucket = trm_calloc(buckets, sizeof(*c->bucket));
    }
    if (c == NULL || c->page == NULL || c->bucket == NULL) {
        trm_kv_cache_destroy(c);
        return trm_fail(TRM_ERR_NO_MEMORY, "a KV cache of %d pages", pages);
    }
    c->pages = c->idle = pages;
    c->prefix = prefix;
    c->mask = buckets - 1;
    for (unsigned i = 0; i < buckets; i++)
        c->bucket[i] = NONE;
    for (int p = 0; p < pages; p++) {
        c->page[p].prev = p - 1;
        c->page[p].next = p + 1 < pages ? p + 1 : NONE;
        c->page[p].before = c->page[p].chain = NONE;
    }
    c->oldest = 0;
    c->newest = pages - 1;
    *cache_out = c;
    return TRM_OK;
}

void trm_kv_cache_destroy(trm_kv_cache *c)
{
    if (c == NULL)
        return;
    trm_free(c->page);
    trm_free(c->bucket);
    trm_free(c);
}

int trm_kv_cache_available(const trm_kv_cache *c)
{
    return c->idle;
}

/* ---- the idle list ---- */

static void take(trm_kv_cache *c, int p)
{
    struct page *g = &c->page[p];

    if (g->prev != NONE)
        c->page[g->prev].next = g->next;
    else
        c->oldest = g->next;
    if (g->next != NONE)
        c->page[g->next].prev = g->prev;
    else
        c->newest = g->prev;
    g->prev = g->next = NONE;
    c->idle--;
}

/* Known pages at the end; others at the front: they are used first. */
static void let_go(trm_kv_cache *c, int p)
{
    struct page *g = &c->page[p];

    if (g->known) {
        g->prev = c->newest;
        g->next = NONE;
        if (c->newest != NONE)
            c->page[c->newest].next = p;
        else
            c->oldest = p;
        c->newest = p;
    } else {
        g->prev = NONE;
        g->next = c->oldest;
        if (c->oldest != NONE)
            c->page[c->oldest].prev = p;
        else
            c->newest = p;
        c->oldest = p;
    }
    c->idle++;
}

/* ---- known pages ---- */

static uint64_t hash_of(const trm_kv_cache *c, int before, const int32_t *tokens)
{
    trm_hash h;

    trm_hash_init(&h, before == NONE ? 1 : c->page[before].hash);
    trm_hash_add(&h, tokens, TRM_KV_PAGE * sizeof(*tokens));
    return trm_hash_value(&h);
}

static void forget(trm_kv_cache *c, int p)
{
    struct page *g = &c->page[p];

    if (g->known) {
        int *at = &c->bucket[g->hash & c->mask];

        while (*at != p)
            at = &c->page[*at].chain;
        *at = g->chain;
        g->known = false;
    }
    g->life++;
    g->before = g->chain = NONE;
}

static int find(const trm_kv_cache *c, int before, const int32_t *tokens)
{
    uint64_t hash = hash_of(c, before, tokens);

    for (int p = c->bucket[hash & c->mask]; p != NONE; p = c->page[p].chain) {
        const struct page *g = &c->page[p];

        if (g->hash == hash && g->before == before &&
            (before == NONE || g->birth == c->page[before].life) &&
            memcmp(g->tokens, tokens, sizeof(g->tokens)) == 0)
            return p;
    }
    return NONE;
}

int trm_kv_match(trm_kv_cache *c, const int32_t *tokens, int count, trm_kv_table *t)
{
    int before = NONE;

    TRM_ASSERT(t->count == 0);
    t->known = 0;
    if (!c->prefix)
        return 0;
    while ((t->count + 1) * TRM_KV_PAGE < count && t->count < t->max) {
        int p = find(c, before, tokens + (size_t)t->count * TRM_KV_PAGE);

        if (p == NONE)
            break;
        if (c->page[p].holders++ == 0)
            take(c, p);
        t->pages[t->count++] = p;
        before = p;
    }
    t->known = t->count;
    c->stats.queried_tokens += (uint64_t)count;
    c->stats.found_tokens += (uint64_t)t->count * TRM_KV_PAGE;
    return t->count * TRM_KV_PAGE;
}

bool trm_kv_grow(trm_kv_cache *c, int positions, trm_kv_table *t)
{
    int want = (positions + TRM_KV_PAGE - 1) / TRM_KV_PAGE;

    if (want - t->count > c->idle || want > t->max)
        return false;
    while (t->count < want) {
        int p = c->oldest;

        take(c, p);
        forget(c, p);
        c->page[p].holders = 1;
        t->pages[t->count++] = p;
    }
    return true;
}

void trm_kv_commit(trm_kv_cache *c, const int32_t *tokens, int positions, trm_kv_table *t)
{
    if (!c->prefix)
        return;
    for (; (t->known + 1) * TRM_KV_PAGE <= positions && t->known < t->count; t->known++) {
        const int32_t *own = tokens + (size_t)t->known * TRM_KV_PAGE;
        int before = t->known > 0 ? t->pages[t->known - 1] : NONE;
        struct page *g = &c->page[t->pages[t->known]];

        /* what stands behind a page that is not known cannot be found; where another page
         * holds the same already, this one stays private and ends the chain */
        if (g->known || (before != NONE && !c->page[before].known) || find(c, before, own) != NONE)
            continue;
        memcpy(g->tokens, own, sizeof(g->tokens));
        g->hash = hash_of(c, before, own);
        g->before = before;
        g->birth = before == NONE ? 0 : c->page[before].life;
        g->chain = c->bucket[g->hash & c->mask];
        c->bucket[g->hash & c->mask] = t->pages[t->known];
        g->known = true;
    }
}

void trm_kv_release(trm_kv_cache *c, trm_kv_table *t)
{
    /* from the end: the front of a prefix is found without its end, not the other way round */
    for (int i = t->count - 1; i >= 0; i--)
        if (--c->page[t->pages[i]].holders == 0)
            let_go(c, t->pages[i]);
    t->count = t->known = 0;
}

trm_status trm_kv_table_init(trm_kv_table *t, int positions)
{
    int max = positions / TRM_KV_PAGE + 1;

    memset(t, 0, sizeof(*t));
    t->pages = trm_malloc((size_t)max, sizeof(*t->pages));
    if (t->pages == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a list of %d pages", max);
    t->max = max;
    return TRM_OK;
}

void trm_kv_table_fini(trm_kv_table *t)
{
    TRM_ASSERT(t->count == 0);
    trm_free(t->pages);
    memset(t, 0, sizeof(*t));
}

void trm_kv_get_stats(const trm_kv_cache *c, trm_kv_stats *out)
{
    *out = c->stats;
    out->used = c->pages - c->idle;
    for (int p = c->oldest; p != NONE; p = c->page[p].next)
        out->known_idle += c->page[p].known;
}
