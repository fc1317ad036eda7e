/* Named tensors of mapped files. Names are found by binary search in an order made once: its time
 * cannot be spoilt by names chosen to collide. */
#include "model/language/language_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHTS_MAX ((size_t)1 << 24) /* a model has thousands; indices are 32 bits */

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "list of weights");
}

trm_status trmi_weights_create(trm_weights **weights_out)
{
    trm_weights *w = (trm_weights *)trm_calloc(1, sizeof(*w));
    trm_status st;

    if (w == NULL)
        return no_memory();
    st = trm_arena_create(0, &w->arena);
    if (st != TRM_OK) {
        trm_free(w);
        return st;
    }
    *weights_out = w;
    return TRM_OK;
}

void trm_weights_close(trm_weights *w)
{
    if (w == NULL)
        return;
    for (size_t i = 0; i < w->file_count; i++)
        trm_file_unref(w->files[i]);
    trm_free(w->files);
    trm_free(w->items);
    trm_free(w->order);
    trm_arena_destroy(w->arena);
    trm_free(w);
}

/* Room for one more of `size` bytes. */
static void *grown(void *items, size_t count, size_t *count_max, size_t size)
{
    size_t max = *count_max == 0 ? 64 : *count_max * 2;
    void *block;

    if (count < *count_max)
        return items;
    block = trm_realloc(items, max, size);
    if (block != NULL)
        *count_max = max;
    return block;
}

trm_status trmi_weights_hold(trm_weights *w, trm_file *file)
{
    trm_file **files =
        (trm_file **)grown((void *)w->files, w->file_count, &w->file_count_max, sizeof(*files));

    if (files == NULL)
        return no_memory();
    w->files = files;
    files[w->file_count++] = trm_file_ref(file);
    return TRM_OK;
}

bool trmi_name_ok(const char *name, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return false;
    return bytes > 0 && bytes <= TRMI_NAME_BYTES;
}

trm_status trmi_weights_add(trm_weights *w, const char *name, size_t name_bytes,
                            const trm_tensor *desc, trm_file *file, uint64_t offset)
{
    const char *path = trm_file_path(file);
    size_t file_bytes = trm_file_bytes(file), bytes;
    trm_weight *items, *it;

    if (!trmi_name_ok(name, name_bytes))
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': the name of tensor %zu has %zu bytes or control characters: want 1 "
                        "to %d printable ones",
                        path, w->count, name_bytes, TRMI_NAME_BYTES);
    if (trm_tensor_bytes(desc, &bytes) != TRM_OK)
        return trm_fail_context(TRM_ERR_BAD_FILE, "'%s': tensor '%.*s'", path, (int)name_bytes,
                                name);
    if (offset > file_bytes || bytes > file_bytes - offset)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': tensor '%.*s' has bytes [%" PRIu64 ", +%zu) of the file, which has "
                        "%zu: it is cut or damaged",
                        path, (int)name_bytes, name, offset, bytes, file_bytes);
    if (w->count >= WEIGHTS_MAX)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': over %zu tensors", path, WEIGHTS_MAX);
    items = (trm_weight *)grown(w->items, w->count, &w->count_max, sizeof(*items));
    if (items == NULL)
        return no_memory();
    w->items = items;
    it = &items[w->count];
    it->name = trm_arena_strndup(w->arena, name, name_bytes);
    if (it->name == NULL)
        return no_memory();
    it->fp8 = false;
    it->desc = *desc;
    it->desc.data = (void *)(uintptr_t)(trm_file_data(file) + offset); /* read-only map */
    it->file = file;
    it->offset = offset;
    w->count++;
    return TRM_OK;
}

/* ---- order and checks ---- */

typedef struct place {
    const trm_weight *weight;
    uint64_t end;
    uint32_t index;
} place;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const place *)a)->weight->name, ((const place *)b)->weight->name);
}

static int by_bytes(const void *a, const void *b)
{
    const place *x = a, *y = b;
    uintptr_t f = (uintptr_t)x->weight->file, g = (uintptr_t)y->weight->file;

    if (f != g)
        return f < g ? -1 : 1;
    if (x->weight->offset != y->weight->offset)
        return x->weight->offset < y->weight->offset ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static trm_status check_names(const trm_weights *w, const place *places)
{
    for (size_t i = 1; i < w->count; i++) {
        const trm_weight *a = places[i - 1].weight, *b = places[i].weight;

        if (strcmp(a->name, b->name) != 0)
            continue;
        if (a->file == b->file)
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': tensor '%s' is there twice: want it once",
                            trm_file_path(a->file), a->name);
        return trm_fail(TRM_ERR_BAD_FILE, "tensor '%s' is in '%s' and in '%s': want it in one file",
                        a->name, trm_file_path(a->file), trm_file_path(b->file));
    }
    return TRM_OK;
}

/* Sorted by start, so that a tensor can only overlap the ones before it that end last. */
static trm_status check_overlap(const trm_weights *w, const place *places)
{
    const place *last = NULL; /* of this file, with the largest end */

    for (size_t i = 0; i < w->count; i++) {
        const place *p = &places[i];

        if (last != NULL && last->weight->file != p->weight->file)
            last = NULL;
        if (p->end == p->weight->offset) /* no bytes */
            continue;
        if (last != NULL && p->weight->offset < last->end)
            return trm_fail(TRM_ERR_BAD_FILE,
                            "'%s': tensor '%s' at byte %" PRIu64 " overlaps tensor '%s', which "
                            "ends at %" PRIu64,
                            trm_file_path(p->weight->file), p->weight->name, p->weight->offset,
                            last->weight->name, last->end);
        if (last == NULL || p->end > last->end)
            last = p;
    }
    return TRM_OK;
}

trm_status trmi_weights_finish(trm_weights *w)
{
    place *places = (place *)trm_malloc(w->count + 1, sizeof(*places));
    trm_status st = TRM_OK;

    w->order = (uint32_t *)trm_malloc(w->count + 1, sizeof(*w->order));
    if (places == NULL || w->order == NULL) {
        st = no_memory();
        goto done;
    }
    for (size_t i = 0; i < w->count; i++) {
        size_t bytes = 0;

        TRM_TRY(st, trm_tensor_bytes(&w->items[i].desc, &bytes), done);
        places[i].weight = &w->items[i];
        places[i].end = w->items[i].offset + bytes;
        places[i].index = (uint32_t)i;
    }
    qsort(places, w->count, sizeof(*places), by_bytes);
    TRM_TRY(st, check_overlap(w, places), done);
    qsort(places, w->count, sizeof(*places), by_name);
    TRM_TRY(st, check_names(w, places), done);
    for (size_t i = 0; i < w->count; i++)
        w->order[i] = places[i].index;
done:
    trm_free(places);
    return st;
}

/* ---- asking ---- */

size_t trm_weights_count(const trm_weights *w)
{
    return w->count;
}

const trm_weight *trm_weights_at(const trm_weights *w, size_t i)
{
    return i < w->count ? &w->items[i] : NULL;
}

const trm_weight *trm_weights_find(const trm_weights *w, const char *name)
{
    size_t low = 0, high = w->count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const trm_weight *it = &w->items[w->order[mid]];
        int c = strcmp(name, it->name);

        if (c == 0)
            return it;
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}
