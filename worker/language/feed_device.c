/* See feed_device.h. */
#include "worker/language/feed_device.h"

#include "base/log.h"
#include "base/memory.h"

#include <string.h>

#define RING 4 /* steps whose copies may be under way */
#define BLOCK_LEAST ((size_t)64 << 10)

struct host_end {
    void *memory; /* pinned */
    size_t bytes;
    trm_event *sent;
    bool used;
};

struct trmi_feed_device {
    trm_device *device;
    trm_engine *engine;
    int inputs[TRM_STEP_SELF + 1];
    int slots;
    int64_t vocabulary;
    struct host_end ring[RING];
    int next;
    size_t least;
    unsigned char *block; /* device */
    size_t block_bytes;
    void *cache;
    int32_t *slot_tokens;
    uint16_t *slot_counts;
};

static trm_status device_alloc(const trmi_feed_device *f, size_t bytes, void **memory_out)
{
    const trm_device_ops *ops = f->device->ops;
    void *memory = NULL;
    trm_status st;

    TRM_CHECK(ops->alloc(f->device, TRM_MEMORY_DEVICE, bytes, &memory));
    st = ops->fill_zero(f->device, trm_engine_stream(f->engine), memory, bytes);
    if (st != TRM_OK) {
        ops->free(f->device, TRM_MEMORY_DEVICE, memory);
        return st;
    }
    *memory_out = memory;
    return TRM_OK;
}

trm_status trmi_feed_device_create(trm_device *device, trm_engine *engine, const int *inputs,
                                   int slots, int64_t vocabulary, trmi_feed_device **feed_out)
{
    trmi_feed_device *f = trm_calloc(1, sizeof(*f));
    trm_status st = TRM_OK;

    if (f == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "steps for a device");
    f->device = device;
    f->engine = engine;
    f->least = BLOCK_LEAST;
    f->slots = slots;
    f->vocabulary = vocabulary;
    memcpy(f->inputs, inputs, sizeof(f->inputs));
    for (int i = 0; i < RING; i++)
        TRM_TRY(st, device->ops->event_create(device, &f->ring[i].sent), fail);
    *feed_out = f;
    return TRM_OK;
fail:
    trmi_feed_device_destroy(f);
    return st;
}

void trmi_feed_device_expect(trmi_feed_device *f, size_t bytes)
{
    while (f->least < bytes)
        f->least *= 2;
}

void trmi_feed_device_destroy(trmi_feed_device *f)
{
    const trm_device_ops *ops;

    if (f == NULL)
        return;
    ops = f->device->ops;
    if (ops->stream_wait(f->device, trm_engine_stream(f->engine)) != TRM_OK)
        TRM_LOG(TRM_LOG_DEBUG, "language", "end: %s", trm_message());
    for (int i = 0; i < RING; i++) {
        ops->free(f->device, TRM_MEMORY_PINNED, f->ring[i].memory);
        if (f->ring[i].sent != NULL)
            ops->event_destroy(f->device, f->ring[i].sent);
    }
    ops->free(f->device, TRM_MEMORY_DEVICE, f->block);
    ops->free(f->device, TRM_MEMORY_DEVICE, f->cache);
    ops->free(f->device, TRM_MEMORY_DEVICE, f->slot_tokens);
    ops->free(f->device, TRM_MEMORY_DEVICE, f->slot_counts);
    trm_free(f);
}

trm_status trmi_feed_device_cache(trmi_feed_device *f, size_t bytes, void **memory_out)
{
    TRM_CHECK(device_alloc(f, bytes, &f->cache));
    *memory_out = f->cache;
    return TRM_OK;
}

trm_status trmi_feed_device_slots(trmi_feed_device *f, trm_step *step, bool counts)
{
    size_t slots = (size_t)f->slots, bytes;
    void *memory = NULL;

    step->slots = f->slots;
    step->vocabulary = f->vocabulary;
    step->slot_tokens = NULL;
    step->slot_counts = NULL;
    if (slots == 0)
        return TRM_OK;
    if (f->slot_tokens == NULL) {
        TRM_CHECK(device_alloc(f, slots * sizeof(int32_t), &memory));
        f->slot_tokens = memory;
    }
    if (counts && f->slot_counts == NULL) {
        if (!trm_mul_ok(slots * sizeof(uint16_t), (size_t)f->vocabulary, &bytes))
            return trm_fail(TRM_ERR_NO_MEMORY, "counts of tokens");
        TRM_CHECK(device_alloc(f, bytes, &memory));
        f->slot_counts = memory;
    }
    step->slot_tokens = f->slot_tokens;
    /* once there every step has it: slots that penalise are counted whether this one asks or not */
    step->slot_counts = f->slot_counts;
    return TRM_OK;
}

/* ---- sending ---- */

static trm_status host_room(trmi_feed_device *f, struct host_end *h, size_t bytes)
{
    const trm_device_ops *ops = f->device->ops;
    size_t room = h->bytes > f->least ? h->bytes : f->least;

    if (bytes <= h->bytes)
        return TRM_OK;
    while (room < bytes)
        room *= 2;
    ops->free(f->device, TRM_MEMORY_PINNED, h->memory);
    h->memory = NULL;
    h->bytes = 0;
    TRM_CHECK(ops->alloc(f->device, TRM_MEMORY_PINNED, room, &h->memory));
    h->bytes = room;
    return TRM_OK;
}

/* Steps under way read the old block: they end first. Captured graphs are made anew. */
static trm_status device_room(trmi_feed_device *f, const trm_step *step, size_t bytes)
{
    const trm_device_ops *ops = f->device->ops;
    void *memory = NULL;

    if (bytes <= f->block_bytes)
        return TRM_OK;
    TRM_CHECK(ops->stream_wait(f->device, trm_engine_stream(f->engine)));
    ops->free(f->device, TRM_MEMORY_DEVICE, f->block);
    f->block = NULL;
    f->block_bytes = 0;
    TRM_CHECK(device_alloc(f, bytes, &memory));
    f->block = memory;
    f->block_bytes = bytes;
    for (int i = 0; i <= TRM_STEP_SELF; i++)
        if (f->inputs[i] >= 0)
            trm_engine_place_input(f->engine, f->inputs[i],
                                   f->block +
                                       ops->step_input_at(f->device, step, (trm_step_input)i));
    return TRM_OK;
}

trm_status trmi_feed_device_send(trmi_feed_device *f, const trm_step *step)
{
    const trm_device_ops *ops = f->device->ops;
    struct host_end *h = &f->ring[f->next];
    trm_stream *stream = trm_engine_stream(f->engine);
    size_t bytes = 0;
    bool done = false;
    trm_status st;

    if (h->used) {
        TRM_CHECK(ops->event_done(f->device, h->sent, &done));
        if (!done)
            TRM_CHECK(ops->stream_wait(f->device, stream));
    }
    st = ops->step_encode(f->device, step, h->memory, h->bytes, &bytes);
    if (st == TRM_ERR_NO_MEMORY && bytes > h->bytes) {
        TRM_CHECK(host_room(f, h, bytes));
        st = ops->step_encode(f->device, step, h->memory, h->bytes, &bytes);
    }
    TRM_CHECK(st);
    TRM_CHECK(device_room(f, step, h->bytes));
    TRM_CHECK(ops->step_send(f->device, stream, step, f->block, h->memory, bytes));
    TRM_CHECK(ops->event_record(f->device, h->sent, stream));
    h->used = true;
    f->next = (f->next + 1) % RING;
    return TRM_OK;
}
