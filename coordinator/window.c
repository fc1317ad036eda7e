/* A ring of slots indexed by id modulo capacity; ids [first, next) are held. */
#include "coordinator/window.h"

#include <stdio.h>
#include <string.h>

enum slot_state { SLOT_QUEUED, SLOT_SENT, SLOT_DONE };

struct slot {
    enum slot_state state;
    int replica, attempts;
    trm_wire_buffer record;
    trm_taken taken; /* name from the start; the rest when DONE */
};

struct trm_window {
    struct slot *slots;
    int capacity, queued;
    uint64_t first, next; /* oldest held, next to be submitted */
    uint64_t scan;        /* no record before it is queued */
};

void trm_parcel_release(trm_parcel *parcel)
{
    if (parcel == NULL || __atomic_sub_fetch(&parcel->references, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    trm_arena_destroy(parcel->arena);
    trm_link_frame_destroy(parcel->frame);
    trm_free(parcel);
}

void trm_taken_fini(trm_taken *taken)
{
    trm_free(taken->name);
    trm_free(taken->message);
    trm_parcel_release(taken->parcel);
    memset(taken, 0, sizeof(*taken));
}

trm_status trm_window_create(int capacity, uint64_t first_id, trm_window **window_out)
{
    trm_window *w = trm_calloc(1, sizeof(*w));

    if (w != NULL && capacity > 0)
        w->slots = trm_calloc((size_t)capacity, sizeof(*w->slots));
    if (w == NULL || w->slots == NULL) {
        trm_free(w);
        return trm_fail(TRM_ERR_NO_MEMORY, "window of %d records", capacity);
    }
    w->capacity = capacity;
    w->first = w->next = w->scan = first_id;
    *window_out = w;
    return TRM_OK;
}

static struct slot *slot_of(trm_window *w, uint64_t id)
{
    return &w->slots[id % (uint64_t)w->capacity];
}

static void clear(struct slot *s)
{
    trm_wire_buffer_fini(&s->record);
    trm_taken_fini(&s->taken);
    memset(s, 0, sizeof(*s));
}

void trm_window_destroy(trm_window *w)
{
    if (w == NULL)
        return;
    for (uint64_t id = w->first; id != w->next; id++)
        clear(slot_of(w, id));
    trm_free(w->slots);
    trm_free(w);
}

bool trm_window_is_full(const trm_window *w)
{
    return w->next - w->first == (uint64_t)w->capacity;
}

int trm_window_held(const trm_window *w)
{
    return (int)(w->next - w->first);
}

int trm_window_queued(const trm_window *w)
{
    return w->queued;
}

static void done_with_error(struct slot *s, uint64_t id, trm_status st, const char *message)
{
    trm_wire_buffer_fini(&s->record);
    s->state = SLOT_DONE;
    s->taken.message = trm_strdup(message);
    s->taken.result = (trm_wire_result){
        .id = id, .status = st, .message = s->taken.message != NULL ? s->taken.message : ""};
}

trm_status trm_window_submit(trm_window *w, const trm_wire_record *record)
{
    trm_wire_record r = *record;
    struct slot *s;
    trm_status st;

    if (trm_window_is_full(w))
        return trm_fail(TRM_ERR_INVALID_ARG, "the window of %d records is full", w->capacity);
    r.id = w->next;
    s = slot_of(w, r.id);
    s->taken.name = trm_strdup(r.name != NULL ? r.name : "");
    if (s->taken.name == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "record %llu", (unsigned long long)r.id);
    if (r.kind == TRM_RECORD_ERROR) {
        done_with_error(s, r.id, TRM_ERR_BAD_FILE, r.message != NULL ? r.message : "");
    } else if ((st = trm_wire_encode_record(&r, &s->record)) == TRM_ERR_INVALID_ARG) {
        done_with_error(s, r.id, st, trm_message());
    } else if (st != TRM_OK) {
        clear(s);
        return st;
    } else {
        s->state = SLOT_QUEUED;
        w->queued++;
    }
    w->next++;
    return TRM_OK;
}

int trm_window_hand_out(trm_window *w, int replica, int max, const trm_wire_buffer **records_out)
{
    bool all_before_are_out = true;
    size_t bytes = 0;
    int n = 0;

    for (uint64_t id = w->scan; id != w->next && n < max && w->queued > 0; id++) {
        struct slot *s = slot_of(w, id);

        if (s->state != SLOT_QUEUED) {
            if (all_before_are_out)
                w->scan = id + 1;
            continue;
        }
        /* a repeated record goes alone; so does what would make a frame too large */
        if (n > 0 && (s->attempts > 0 || bytes + s->record.bytes > TRM_WIRE_FRAME_MAX / 4)) {
            all_before_are_out = false;
            if (s->attempts == 0)
                break;
            continue;
        }
        s->state = SLOT_SENT;
        s->replica = replica;
        s->attempts++;
        bytes += s->record.bytes;
        records_out[n++] = &s->record;
        w->queued--;
        if (all_before_are_out)
            w->scan = id + 1;
        if (s->attempts > 1)
            break;
    }
    return n;
}

bool trm_window_answer(trm_window *w, int replica, const trm_wire_result *result,
                       trm_parcel *parcel)
{
    struct slot *s;

    if (result->id < w->first || result->id >= w->next)
        return false;
    s = slot_of(w, result->id);
    if (s->state != SLOT_SENT || s->replica != replica)
        return false;
    trm_wire_buffer_fini(&s->record);
    s->state = SLOT_DONE;
    s->taken.result = *result;
    s->taken.parcel = parcel;
    if (parcel != NULL)
        __atomic_add_fetch(&parcel->references, 1, __ATOMIC_RELAXED);
    return true;
}

int trm_window_take_back(trm_window *w, int replica)
{
    int n = 0;

    for (uint64_t id = w->first; id != w->next; id++) {
        struct slot *s = slot_of(w, id);

        if (s->state != SLOT_SENT || s->replica != replica)
            continue;
        n++;
        if (s->attempts >= TRM_WINDOW_ATTEMPTS) {
            char text[160];

            snprintf(text, sizeof(text), "%d replicas were lost while they ran this record",
                     s->attempts);
            done_with_error(s, id, TRM_ERR_COMM, text);
            continue;
        }
        s->state = SLOT_QUEUED;
        w->queued++;
        if (id < w->scan)
            w->scan = id;
    }
    return n;
}

bool trm_window_take(trm_window *w, trm_taken *taken_out)
{
    struct slot *s;

    if (w->first == w->next)
        return false;
    s = slot_of(w, w->first);
    if (s->state != SLOT_DONE)
        return false;
    *taken_out = s->taken;
    memset(&s->taken, 0, sizeof(s->taken));
    clear(s);
    w->first++;
    if (w->scan < w->first)
        w->scan = w->first;
    return true;
}
