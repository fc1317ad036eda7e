#include "model/tokenizer/vocabulary.h"

#include "base/memory.h"

#include <string.h>

/* A good hash of honest tokens never needs nearly as many; a file made to collide stops here. */
#define PROBES_MAX 2048

void trmi_vocabulary_fini(trmi_vocabulary *v)
{
    trm_free(v->pool);
    trm_free(v->tokens);
    trm_free(v->slots);
    memset(v, 0, sizeof(*v));
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    wide p = (wide)a * b;

    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

/* Multiply and fold, eight bytes at a time. */
uint64_t trmi_hash(const void *bytes, size_t count)
{
    const unsigned char *p = bytes;
    uint64_t h = UINT64_C(0x9E3779B97F4A7C15) ^ count, last = 0;

    while (count >= 8) {
        uint64_t w;

        memcpy(&w, p, 8);
        h = mix(h ^ w, UINT64_C(0xD6E8FEB86659FD93));
        p += 8;
        count -= 8;
    }
    if (count >= 4) {
        uint32_t low, high;

        memcpy(&low, p, 4);
        memcpy(&high, p + count - 4, 4);
        last = (uint64_t)high << 32 | low;
    } else if (count > 0) {
        last = (uint64_t)p[0] | (uint64_t)p[count / 2] << 8 | (uint64_t)p[count - 1] << 16;
    }
    return mix(h ^ last, UINT64_C(0xA0761D6478BD642F));
}

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "a tokenizer's vocabulary");
}

static trm_status rehash(trmi_vocabulary *v, size_t room)
{
    uint64_t *slots = trm_calloc(room, sizeof(*slots));

    if (slots == NULL)
        return no_memory();
    for (size_t i = 0; v->slots != NULL && i <= v->mask; i++) {
        uint64_t s = v->slots[i];
        const trmi_token *t;
        size_t at;

        if (s == 0)
            continue;
        t = &v->tokens[(uint32_t)s - 1];
        at = trmi_hash(v->pool + t->at, t->bytes) & (room - 1);
        while (slots[at] != 0)
            at = (at + 1) & (room - 1);
        slots[at] = s;
    }
    trm_free(v->slots);
    v->slots = slots;
    v->mask = room - 1;
    return TRM_OK;
}

static trm_status reserve_pool(trmi_vocabulary *v, size_t more)
{
    size_t want, room = v->pool_room < 256 ? 256 : v->pool_room;
    char *pool;

    if (!trm_add_ok(v->pool_bytes, more, &want) || want > TRMI_POOL_BYTES_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a vocabulary of more than %zu bytes",
                        TRMI_POOL_BYTES_MAX);
    if (want <= v->pool_room)
        return TRM_OK;
    while (room < want)
        room += room / 2;
    pool = trm_realloc(v->pool, room, 1);
    if (pool == NULL)
        return no_memory();
    v->pool = pool;
    v->pool_room = room;
    return TRM_OK;
}

static trm_status reserve_ids(trmi_vocabulary *v, size_t ids)
{
    size_t room = v->ids_room < 64 ? 64 : v->ids_room;
    trmi_token *tokens;

    if (ids <= v->ids_room)
        return TRM_OK;
    while (room < ids)
        room += room / 2;
    tokens = trm_realloc(v->tokens, room, sizeof(*tokens));
    if (tokens == NULL)
        return no_memory();
    memset(tokens + v->ids_room, 0xFF, (room - v->ids_room) * sizeof(*tokens));
    v->tokens = tokens;
    v->ids_room = room;
    return TRM_OK;
}

trm_status trmi_vocabulary_reserve(trmi_vocabulary *v, size_t count, size_t bytes)
{
    size_t room = 64;

    if (count > TRMI_IDS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a vocabulary of %zu tokens; at most %zu", count,
                        TRMI_IDS_MAX);
    while (room < count * 2)
        room *= 2;
    TRM_CHECK(reserve_pool(v, bytes + count));
    TRM_CHECK(reserve_ids(v, count));
    return v->slots == NULL || room > v->mask + 1 ? rehash(v, room) : TRM_OK;
}

trm_status trmi_vocabulary_add(trmi_vocabulary *v, const char *token, size_t bytes, size_t id)
{
    uint64_t hash = trmi_hash(token, bytes), top = hash & UINT64_C(0xFFFFFFFF00000000);
    size_t at;
    trmi_token *t;

    if (id >= TRMI_IDS_MAX)
        return trm_fail(TRM_ERR_BAD_FILE, "token '%.*s' has id %zu, at most %zu are supported",
                        bytes > 40 ? 40 : (int)bytes, token, id, TRMI_IDS_MAX - 1);
    TRM_CHECK(reserve_pool(v, bytes + 1));
    TRM_CHECK(reserve_ids(v, id + 1));
    if (v->slots == NULL || v->used * 2 >= v->mask)
        TRM_CHECK(rehash(v, v->slots == NULL ? 64 : (v->mask + 1) * 2));
    at = hash & v->mask;
    for (size_t probes = 0; v->slots[at] != 0; probes++) {
        t = &v->tokens[(uint32_t)v->slots[at] - 1];
        if ((v->slots[at] & UINT64_C(0xFFFFFFFF00000000)) == top && t->bytes == bytes &&
            memcmp(v->pool + t->at, token, bytes) == 0)
            break;
        if (probes == PROBES_MAX)
            return trm_fail(TRM_ERR_BAD_FILE, "the vocabulary's tokens are made to collide");
        at = (at + 1) & v->mask;
    }
    if (v->slots[at] == 0)
        v->used++;
    /* an id that had another token loses that one: no slot may point to text that is not its own */
    t = &v->tokens[id];
    if (t->at != UINT32_MAX && (t->bytes != bytes || memcmp(v->pool + t->at, token, bytes) != 0) &&
        trmi_vocabulary_find(v, v->pool + t->at, t->bytes) == (int32_t)id)
        return trm_fail(TRM_ERR_BAD_FILE, "tokens '%.*s' and '%.*s' have the same id %zu",
                        t->bytes > 40 ? 40 : (int)t->bytes, v->pool + t->at,
                        bytes > 40 ? 40 : (int)bytes, token, id);
    v->slots[at] = top | (id + 1);
    t->at = (uint32_t)v->pool_bytes;
    t->bytes = (uint32_t)bytes;
    if (bytes > 0)
        memcpy(v->pool + v->pool_bytes, token, bytes);
    v->pool[v->pool_bytes + bytes] = '\0';
    v->pool_bytes += bytes + 1;
    if (id >= v->ids)
        v->ids = id + 1;
    if (bytes > v->longest)
        v->longest = bytes;
    return TRM_OK;
}

int32_t trmi_vocabulary_find(const trmi_vocabulary *v, const char *token, size_t bytes)
{
    uint64_t hash, top;

    if (bytes > v->longest || v->slots == NULL)
        return -1;
    hash = trmi_hash(token, bytes);
    top = hash & UINT64_C(0xFFFFFFFF00000000);
    for (size_t at = hash & v->mask; v->slots[at] != 0; at = (at + 1) & v->mask)
        if ((v->slots[at] & UINT64_C(0xFFFFFFFF00000000)) == top) {
            uint32_t id = (uint32_t)v->slots[at] - 1;
            const trmi_token *t = &v->tokens[id];

            if (t->bytes == bytes && memcmp(v->pool + t->at, token, bytes) == 0)
                return (int32_t)id;
        }
    return -1;
}

const char *trmi_vocabulary_token(const trmi_vocabulary *v, size_t id, size_t *bytes_out)
{
    if (id >= v->ids || v->tokens[id].at == UINT32_MAX)
        return NULL;
    *bytes_out = v->tokens[id].bytes;
    return v->pool + v->tokens[id].at;
}
