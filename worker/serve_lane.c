/* The leader's word to the other ranks of a replica, over the replica's communicator: which model's
 * steps come next, what to load and to free. Between words the others are inside the follow loop of
 * one model, which ends when the leader pauses it. */
#include "worker/serve_impl.h"

#include <string.h>

enum { WORD_RUN = 1, WORD_LOAD, WORD_FINISH, WORD_DROP, WORD_UNLOAD, WORD_STOP };

struct word {
    uint32_t magic, kind, slot, unused;
    int64_t version;
    uint32_t name, path, settings; /* bytes that follow, each with its terminating 0 */
    uint32_t unused2;
};
#define MAGIC 0x44524f57u

/* ---- leader ---- */

static trm_status tell(trmi_serve *s, const struct word *w, const trm_wire_load *load)
{
    trm_piece pieces[4] = {{w, sizeof(*w)}};
    int count = 1;

    if (load != NULL) {
        pieces[1] = (trm_piece){load->name, w->name};
        pieces[2] = (trm_piece){load->path, w->path};
        pieces[3] = (trm_piece){load->settings, w->settings};
        count = 4;
    }
    for (int to = 1; to < s->size; to++) {
        trm_status st = trm_comm_send(s->o->replica_comm, to, pieces, count);

        if (st != TRM_OK) /* some know of it, some do not */
            return st == TRM_ERR_COMM ? st : trm_fail_context(TRM_ERR_COMM, "a word to the ranks");
    }
    return TRM_OK;
}

static trm_status pause(trmi_serve *s)
{
    trmi_slot *last = s->current >= 0 ? trmi_slot_find(s, (uint32_t)s->current) : NULL;

    s->current = -1;
    if (last == NULL)
        return TRM_OK;
    if (last->served != NULL && last->served->ops->settle != NULL)
        TRM_CHECK(last->served->ops->settle(last->served));
    return last->lm != NULL ? trm_lm_replica_pause(last->lm->replica)
                            : trm_replica_pause(last->tensor->replica);
}

trm_status trmi_lane_turn(trmi_serve *s, trmi_slot *slot)
{
    struct word w = {.magic = MAGIC, .kind = WORD_RUN};

    if (s->size == 1 || (slot != NULL && s->current == (int64_t)slot->id) ||
        (slot == NULL && s->current < 0))
        return TRM_OK;
    TRM_CHECK(pause(s));
    if (slot == NULL)
        return TRM_OK;
    w.slot = slot->id;
    TRM_CHECK(tell(s, &w, NULL));
    s->current = slot->id;
    return TRM_OK;
}

trm_status trmi_lane_load(trmi_serve *s, const trm_wire_load *load)
{
    struct word w = {.magic = MAGIC,
                     .kind = WORD_LOAD,
                     .slot = load->slot,
                     .version = load->version,
                     .name = (uint32_t)strlen(load->name) + 1,
                     .path = (uint32_t)strlen(load->path) + 1,
                     .settings = (uint32_t)strlen(load->settings) + 1};

    if (s->size == 1)
        return TRM_OK;
    TRM_CHECK(pause(s));
    return tell(s, &w, load);
}

static trm_status simple(trmi_serve *s, uint32_t kind, uint32_t slot)
{
    struct word w = {.magic = MAGIC, .kind = kind, .slot = slot};

    if (s->size == 1)
        return TRM_OK;
    TRM_CHECK(pause(s));
    return tell(s, &w, NULL);
}

trm_status trmi_lane_unload(trmi_serve *s, uint32_t slot)
{
    return simple(s, WORD_UNLOAD, slot);
}

trm_status trmi_lane_finish(trmi_serve *s, uint32_t slot)
{
    return simple(s, WORD_FINISH, slot);
}

trm_status trmi_lane_drop(trmi_serve *s, uint32_t slot)
{
    return simple(s, WORD_DROP, slot);
}

trm_status trmi_lane_stop(trmi_serve *s)
{
    return simple(s, WORD_STOP, 0);
}

/* ---- everybody else ---- */

static trm_status follow_load(trmi_serve *s, const struct word *w, const char *texts, size_t bytes)
{
    trm_wire_load load = {.slot = w->slot, .version = w->version};

    if ((uint64_t)w->name + w->path + w->settings != bytes || w->name == 0 || w->path == 0 ||
        w->settings == 0 || texts[w->name - 1] != '\0' || texts[w->name + w->path - 1] != '\0' ||
        texts[bytes - 1] != '\0')
        return trm_fail(TRM_ERR_COMM, "the leader's word of a model came damaged");
    load.name = texts;
    load.path = texts + w->name;
    load.settings = texts + w->name + w->path;
    return trmi_slot_begin_load(s, &load);
}

static trm_status follow_finish(trmi_serve *s, uint32_t id)
{
    trmi_loading *l = trmi_loading_find(s, id);
    trmi_slot *slot;
    trm_status st;

    if (l == NULL)
        return trm_fail(TRM_ERR_COMM, "the leader finishes slot %u, which this rank does not load",
                        id);
    st = trmi_slot_finish_load(s, l, &slot);
    return st == TRM_ERR_COMM ? st : TRM_OK; /* the leader has had the same failure, and says it */
}

static trm_status obey(trmi_serve *s, const struct word *w, const char *texts, size_t bytes)
{
    trmi_slot *slot = trmi_slot_find(s, w->slot);

    switch (w->kind) {
    case WORD_RUN:
        if (slot == NULL)
            return trm_fail(TRM_ERR_COMM, "the leader runs slot %u, which this rank has not",
                            w->slot);
        return slot->lm != NULL ? trm_lm_replica_follow(slot->lm->replica)
                                : trm_replica_follow(slot->tensor->replica);
    case WORD_LOAD:
        return follow_load(s, w, texts, bytes);
    case WORD_FINISH:
        return follow_finish(s, w->slot);
    case WORD_DROP:
        if (trmi_loading_find(s, w->slot) != NULL)
            trmi_slot_drop_load(s, trmi_loading_find(s, w->slot));
        return TRM_OK;
    case WORD_UNLOAD:
        if (slot != NULL)
            trmi_slot_close(s, slot);
        return TRM_OK;
    default:
        return trm_fail(TRM_ERR_COMM, "the leader's word is of kind %u", w->kind);
    }
}

trm_status trmi_lane_follow(trmi_serve *s)
{
    for (;;) {
        struct word w;
        const void *data;
        size_t bytes;

        TRM_CHECK(trm_comm_receive(s->o->replica_comm, 0, true, &data, &bytes));
        if (bytes < sizeof(w))
            return trm_fail(TRM_ERR_COMM, "the leader's word is of %zu bytes", bytes);
        memcpy(&w, data, sizeof(w));
        if (w.magic != MAGIC)
            return trm_fail(TRM_ERR_COMM, "the leader's word came damaged");
        if (w.kind == WORD_STOP)
            return TRM_OK;
        TRM_CHECK(obey(s, &w, (const char *)data + sizeof(w), bytes - sizeof(w)));
    }
}
