/* Built breadth first from sorted keys: a node's children stand side by side, so a node is 12 bytes
 * and a step is a short search among them. */
#include "model/tokenizer/vocabulary.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

typedef struct range {
    uint32_t low, high; /* keys of a node */
} range;

typedef struct ordered_key {
    trmi_trie_key key;
    size_t order;
} ordered_key;

static int compare(const void *a, const void *b)
{
    const ordered_key *x = a, *y = b;
    size_t n = x->key.count < y->key.count ? x->key.count : y->key.count;
    int c = n == 0 ? 0 : memcmp(x->key.bytes, y->key.bytes, n);

    if (c != 0)
        return c;
    if (x->key.count != y->key.count)
        return x->key.count < y->key.count ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static trm_status sort_keys(trmi_trie_key *keys, size_t count)
{
    ordered_key *sorted = trm_malloc(count, sizeof(*sorted));

    if (sorted == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a trie of %zu tokens", count);
    for (size_t i = 0; i < count; i++) {
        sorted[i].key = keys[i];
        sorted[i].order = i;
    }
    qsort(sorted, count, sizeof(*sorted), compare);
    for (size_t i = 0; i < count; i++)
        keys[i] = sorted[i].key;
    trm_free(sorted);
    return TRM_OK;
}

/* Gives node `at`, whose keys are r and agree in their first `depth` bytes, its value and its
 * children. */
static void fill(trmi_trie *t, range *ranges, size_t at, size_t depth, const trmi_trie_key *keys)
{
    range r = ranges[at];

    t->nodes[at].value = -1;
    t->nodes[at].first = (uint32_t)t->count;
    while (r.low < r.high && keys[r.low].count == depth) {
        if (depth > 0)
            t->nodes[at].value = keys[r.low].value;
        r.low++;
    }
    while (r.low < r.high) {
        unsigned char byte = (unsigned char)keys[r.low].bytes[depth];
        uint32_t next = r.low + 1;

        while (next < r.high && (unsigned char)keys[next].bytes[depth] == byte)
            next++;
        t->nodes[t->count].byte = byte;
        ranges[t->count].low = r.low;
        ranges[t->count].high = next;
        t->count++;
        t->nodes[at].children++;
        r.low = next;
    }
}

trm_status trmi_trie_create(trmi_trie_key *keys, size_t count, trmi_trie **trie_out)
{
    trmi_trie *t = NULL;
    range *ranges = NULL;
    size_t room = 1, depth = 0, level_end = 1;
    trm_status st;

    for (size_t i = 0; i < count; i++) {
        if (keys[i].count > TRMI_TRIE_BYTES_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "a token of %zu bytes ('%.40s...'); at most %d here", keys[i].count,
                            keys[i].bytes, TRMI_TRIE_BYTES_MAX);
        room += keys[i].count;
    }
    if (count > UINT32_MAX - 1 || room > UINT32_MAX - 1)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a vocabulary of %zu bytes", room);
    TRM_CHECK(sort_keys(keys, count));
    t = trm_calloc(1, sizeof(*t));
    ranges = trm_malloc(room, sizeof(*ranges));
    if (t != NULL)
        t->nodes = trm_calloc(room, sizeof(*t->nodes));
    if (t == NULL || ranges == NULL || t->nodes == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a trie of %zu tokens", count);
        goto fail;
    }
    t->count = 1;
    ranges[0].low = 0;
    ranges[0].high = (uint32_t)count;
    for (size_t at = 0; at < t->count; at++) {
        if (at == level_end) {
            depth++;
            level_end = t->count;
        }
        fill(t, ranges, at, depth, keys);
    }
    for (size_t i = 0; i < t->nodes[0].children; i++)
        t->root[t->nodes[t->nodes[0].first + i].byte] = t->nodes[0].first + (uint32_t)i;
    trm_free(ranges);
    *trie_out = t;
    return TRM_OK;
fail:
    trm_free(ranges);
    trmi_trie_destroy(t);
    return st;
}

void trmi_trie_destroy(trmi_trie *t)
{
    if (t == NULL)
        return;
    trm_free(t->nodes);
    trm_free(t);
}

uint32_t trmi_trie_step(const trmi_trie *t, uint32_t node, unsigned char byte)
{
    uint32_t low, high;

    if (node == 0)
        return t->root[byte];
    low = t->nodes[node].first;
    high = low + t->nodes[node].children;
    while (high - low > 4) {
        uint32_t middle = low + (high - low) / 2;

        if (t->nodes[middle].byte <= byte)
            low = middle;
        else
            high = middle;
    }
    for (; low < high; low++)
        if (t->nodes[low].byte == byte)
            return low;
    return 0;
}

int32_t trmi_trie_longest(const trmi_trie *t, const char *text, size_t count, size_t *bytes_out)
{
    int32_t found = -1;
    uint32_t node = 0;

    *bytes_out = 0;
    for (size_t i = 0; i < count; i++) {
        node = trmi_trie_step(t, node, (unsigned char)text[i]);
        if (node == 0)
            break;
        if (t->nodes[node].value >= 0) {
            found = t->nodes[node].value;
            *bytes_out = i + 1;
        }
    }
    return found;
}
