/* A hash table of names. Grows by doubling; old slots stay until the arena goes. */
#include "model/onnx/names.h"

#include <string.h>

static size_t hash(const char *name)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

    for (; *name != '\0'; name++)
        h = (h ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
    return (size_t)(h ^ (h >> 32));
}

static struct trm_names_slot *slot_of(const trm_names *names, const char *name)
{
    size_t i = hash(name) & (names->max - 1);

    while (names->slots[i].name != NULL && strcmp(names->slots[i].name, name) != 0)
        i = (i + 1) & (names->max - 1);
    return &names->slots[i];
}

int trm_names_find(const trm_names *names, const char *name)
{
    const struct trm_names_slot *slot;

    if (names->max == 0)
        return -1;
    slot = slot_of(names, name);
    return slot->name == NULL ? -1 : slot->number;
}

static trm_status grow(trm_names *names, trm_arena *arena)
{
    trm_names bigger = *names;

    bigger.max = names->max == 0 ? 16 : names->max * 2;
    bigger.slots =
        (struct trm_names_slot *)trm_arena_alloc(arena, bigger.max, sizeof(struct trm_names_slot));
    if (bigger.slots == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "table of %zu names", bigger.max);
    for (size_t i = 0; i < names->max; i++)
        if (names->slots[i].name != NULL)
            *slot_of(&bigger, names->slots[i].name) = names->slots[i];
    *names = bigger;
    return TRM_OK;
}

trm_status trm_names_put(trm_names *names, trm_arena *arena, const char *name, int number)
{
    struct trm_names_slot *slot;

    if (2 * (names->count + 1) > names->max)
        TRM_CHECK(grow(names, arena));
    slot = slot_of(names, name);
    names->count += slot->name == NULL;
    slot->name = name;
    slot->number = number;
    return TRM_OK;
}
