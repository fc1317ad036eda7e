/* The executor's loop of a serving leader: requests in, turns of models, answers out. */
#define _GNU_SOURCE
#include "worker/serve_impl.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATS_US 1000000
#define BUCKETS 1024
#define STEPS_A_TURN 8 /* a turn costs the other ranks a word: not one a step */

/* A request that has not been answered. */
struct trmi_pending {
    uint64_t id;
    trm_link_frame *frame;
    trm_arena *arena;
    trm_wire_message message;
    trmi_slot *slot;
    struct trmi_pending *next;
};

static struct trmi_pending **find_pending(trmi_serve *s, uint64_t id)
{
    struct trmi_pending **at = &s->pending[(id * 0x9e3779b97f4a7c15u) >> 54];

    while (*at != NULL && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

static void free_pending(trmi_serve *s, struct trmi_pending *p)
{
    int count = 0;
    const trm_wire_tensor *tensors = trm_wire_tensors(&p->message, &count);

    if (count > 0)
        trmi_serve_link_release(s->link, tensors, count);
    trm_arena_destroy(p->arena);
    trm_link_frame_destroy(p->frame);
    trm_free(p);
}

/* ---- what models say ---- */

static void post(trmi_serve *s, const trm_wire_message *m)
{
    trm_status st = trmi_serve_link_post(s->link, m);
    trm_wire_answer failed;
    trm_wire_message other = {.kind = TRM_WIRE_ANSWER};

    if (st == TRM_OK)
        return;
    TRM_LOG(TRM_LOG_WARN, "serve", "%s: %s", trm_wire_kind_name(m->kind), trm_message());
    if (m->kind != TRM_WIRE_ANSWER)
        return;
    /* an answer that cannot be sent (too large, say) is still one answer */
    failed = (trm_wire_answer){.id = m->u.answer->id,
                               .status = st,
                               .message = "the answer could not be sent",
                               .model = m->u.answer->model,
                               .version = m->u.answer->version};
    other.u.answer = &failed;
    if (trmi_serve_link_post(s->link, &other) != TRM_OK)
        TRM_LOG(TRM_LOG_ERROR, "serve", "a request is left without an answer: %s", trm_message());
}

static void on_part(void *ctx, const trm_wire_part *part)
{
    trm_wire_message m = {.kind = TRM_WIRE_PART};

    m.u.part = part;
    post(ctx, &m);
}

static void on_answer(void *ctx, const trm_wire_answer *answer)
{
    trmi_serve *s = ctx;
    struct trmi_pending **at = find_pending(s, answer->id), *p = *at;
    trm_wire_message m = {.kind = TRM_WIRE_ANSWER};

    m.u.answer = answer;
    post(s, &m);
    trmi_serve_link_progress(s->link);
    if (p != NULL) {
        *at = p->next;
        free_pending(s, p);
    }
}

static void answer_now(trmi_serve *s, const trm_wire_request *r, trm_status st, const char *message)
{
    trm_wire_answer a = {
        .id = r->id, .status = st, .message = message, .model = r->model, .version = r->version};

    on_answer(s, &a);
}

/* ---- models come and go ---- */

static void say_model(trmi_serve *s, uint32_t slot, trm_model_state state, const char *message,
                      const char *metadata, uint32_t credits)
{
    trm_wire_model model = {
        .slot = slot, .state = state, .message = message, .metadata = metadata, .credits = credits};
    trm_wire_message m = {.kind = TRM_WIRE_MODEL};

    m.u.model = &model;
    post(s, &m);
}

static void say_ready(trmi_serve *s, trmi_slot *slot)
{
    json_t *o = slot->served->ops->metadata(slot->served);
    char *text;

    (void)json_object_set_new(o, "load_ms", json_integer(slot->load_us / 1000));
    text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
    say_model(s, slot->id, TRM_MODEL_READY, "", text != NULL ? text : "{}",
              slot->served->ops->credits(slot->served));
    free(text);
    json_decref(o);
}

static trm_status close_everywhere(trmi_serve *s, trmi_slot *slot)
{
    uint32_t id = slot->id;

    TRM_CHECK(trmi_lane_unload(s, id));
    trmi_slot_close(s, slot);
    return TRM_OK;
}

static trm_status load(trmi_serve *s, const trm_wire_load *l)
{
    say_model(s, l->slot, TRM_MODEL_LOADING, "", "", 0);
    TRM_CHECK(trmi_lane_load(s, l));
    return trmi_slot_begin_load(s, l);
}

/* The thread has done its part. A failure of the model is told; one of the replica comes back. */
static trm_status finish_load(trmi_serve *s, trmi_loading *l)
{
    const trm_serve_out out = {.ctx = s, .part = on_part, .answer = on_answer};
    uint32_t id = l->id;
    trmi_slot *slot = NULL;
    trm_status st;

    trmi_serve_link_phase(s->link, TRM_PHASE_LOADING);
    if (l->unwanted) {
        TRM_CHECK(trmi_lane_drop(s, id));
        trmi_slot_drop_load(s, l);
        say_model(s, id, TRM_MODEL_UNLOADED, "", "", 0);
        return TRM_OK;
    }
    st = trmi_lane_finish(s, id);
    if (st == TRM_OK)
        st = trmi_slot_finish_load(s, l, &slot);
    trmi_serve_link_progress(s->link);
    if (st == TRM_OK)
        st = trmi_slot_begin(s, slot, &out);
    if (st == TRM_OK) {
        TRM_LOG(TRM_LOG_INFO, "serve", "%s version %" PRId64 " (slot %u) is ready after %.3f s",
                slot->name, slot->version, slot->id, (double)slot->load_us / 1e6);
        say_ready(s, slot);
        return TRM_OK;
    }
    if (st == TRM_ERR_DEVICE || st == TRM_ERR_COMM)
        return st; /* no fault of the model: the replica has lost what it computes on */
    say_model(s, id, TRM_MODEL_FAILED, trm_message(), "", 0);
    TRM_LOG(TRM_LOG_WARN, "serve", "slot %u was not loaded: %s", id, trm_message());
    return slot != NULL ? close_everywhere(s, slot) : TRM_OK;
}

static trm_status finish_loads(trmi_serve *s)
{
    for (trmi_loading *l = s->loading, *next; l != NULL; l = next) {
        next = l->next;
        if (__atomic_load_n(&l->done, __ATOMIC_ACQUIRE))
            TRM_CHECK(finish_load(s, l));
    }
    return TRM_OK;
}

static trm_status finish_unload(trmi_serve *s, trmi_slot *slot)
{
    uint32_t id = slot->id;

    TRM_CHECK(close_everywhere(s, slot));
    say_model(s, id, TRM_MODEL_UNLOADED, "", "", 0);
    return TRM_OK;
}

static trm_status unload(trmi_serve *s, uint32_t id)
{
    trmi_slot *slot = trmi_slot_find(s, id);
    trmi_loading *l = trmi_loading_find(s, id);

    if (l != NULL) { /* when its thread has ended */
        l->unwanted = true;
        return TRM_OK;
    }
    if (slot == NULL) {
        say_model(s, id, TRM_MODEL_UNLOADED, "", "", 0);
        return TRM_OK;
    }
    slot->draining = true;
    if (slot->served->ops->count(slot->served) == 0)
        return finish_unload(s, slot);
    say_model(s, id, TRM_MODEL_DRAINING, "", "", 0);
    return TRM_OK;
}

/* ---- what comes in ---- */

static void take_request(trmi_serve *s, struct trmi_pending *p, int64_t arrived_us)
{
    const trm_wire_request *r = p->message.u.request;
    struct trmi_pending **at = find_pending(s, r->id);
    trm_status st;

    p->id = r->id;
    if (*at != NULL) { /* the coordinator numbers them: this is no request of its */
        TRM_LOG(TRM_LOG_WARN, "serve", "request %" PRIu64 " came twice", r->id);
        free_pending(s, p);
        return;
    }
    *at = p;
    p->slot = trmi_slot_find(s, r->slot);
    st = trmi_serve_link_resolve(s->link, &p->message);
    if (st != TRM_OK)
        answer_now(s, r, st, trm_message());
    else if (p->slot == NULL || p->slot->served == NULL)
        answer_now(s, r, TRM_ERR_NOT_FOUND, "the model is not loaded on this replica");
    else
        p->slot->served->ops->submit(p->slot->served, r, arrived_us);
}

static void cancel(trmi_serve *s, uint64_t id)
{
    struct trmi_pending *p = *find_pending(s, id);

    if (p != NULL && p->slot != NULL)
        p->slot->served->ops->cancel(p->slot->served, id);
}

/* A failure ends the replica. A frame that cannot be read is nobody's request: the coordinator and
 * this program are of one build. */
static trm_status take(trmi_serve *s, trmi_serve_inbound *in)
{
    struct trmi_pending *p = trm_calloc(1, sizeof(*p));
    trm_status st = TRM_OK;

    if (p == NULL) {
        trm_link_frame_destroy(in->frame);
        return trm_fail(TRM_ERR_NO_MEMORY, "a request");
    }
    p->frame = in->frame;
    TRM_TRY(st, trm_arena_create(p->frame->bytes < 4096 ? 1024 : 0, &p->arena), done);
    TRM_TRY(st, trm_wire_decode(p->frame->data, p->frame->bytes, p->arena, &p->message), done);
    switch (p->message.kind) {
    case TRM_WIRE_REQUEST:
        take_request(s, p, in->arrived_us);
        return TRM_OK;
    case TRM_WIRE_CANCEL:
        cancel(s, p->message.u.id);
        break;
    case TRM_WIRE_LOAD:
        st = load(s, p->message.u.load);
        break;
    case TRM_WIRE_UNLOAD:
        st = unload(s, p->message.u.slot);
        break;
    default:
        break;
    }
done:
    trm_arena_destroy(p->arena);
    trm_link_frame_destroy(p->frame);
    trm_free(p);
    return st;
}

static trm_status take_all(trmi_serve *s)
{
    trmi_serve_inbound *in = trmi_serve_link_take(s->link);
    trm_status st = TRM_OK;

    while (in != NULL) {
        trmi_serve_inbound *next = in->next;

        if (st == TRM_OK)
            st = take(s, in);
        else
            trm_link_frame_destroy(in->frame);
        trm_free(in);
        in = next;
    }
    return st;
}

/* ---- statistics ---- */

/* Resident bytes and processor time of a process of this host; false: it cannot be seen. */
static bool process_stats(int pid, uint64_t *memory_out, uint64_t *cpu_us_out)
{
    static long page, hertz;
    unsigned long long size = 0, resident = 0, user = 0, kernel = 0;
    char path[64], line[1024] = "";
    const char *after;
    FILE *f;

    if (page == 0) {
        page = sysconf(_SC_PAGESIZE);
        hertz = sysconf(_SC_CLK_TCK);
    }
    snprintf(path, sizeof(path), "/proc/%d/statm", pid);
    if ((f = fopen(path, "re")) == NULL)
        return false;
    if (fscanf(f, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    fclose(f);
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    if ((f = fopen(path, "re")) == NULL)
        return false;
    after = fgets(line, sizeof(line), f) != NULL ? strrchr(line, ')') : NULL;
    fclose(f);
    /* fields 14 and 15; the name in brackets is the second */
    if (after == NULL || sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
                                &user, &kernel) != 2)
        return false;
    *memory_out = resident * (uint64_t)page;
    *cpu_us_out = (user + kernel) * 1000000u / (uint64_t)hertz;
    return true;
}

static void say_stats(trmi_serve *s, int64_t now)
{
    const trm_topology *t = trm_job_topology(s->o->job);
    trm_wire_model_stats models[64];
    trm_wire_rank_stats ranks[64];
    trm_wire_stats stats = {
        .time_us = (uint64_t)(now - s->start_us), .models = models, .ranks = ranks};
    trm_wire_message m = {.kind = TRM_WIRE_STATS};

    for (trmi_slot *slot = s->slots; slot != NULL && stats.model_count < 64; slot = slot->next) {
        if (slot->served == NULL)
            continue;
        slot->served->ops->stats(slot->served, &models[stats.model_count]);
        models[stats.model_count++].slot = slot->id;
    }
    for (int r = 0; r < s->size && r < 64; r++) {
        trm_wire_rank_stats *out = &ranks[stats.rank_count++];
        bool here = t->rank[r].host_index == t->rank[0].host_index &&
                    t->rank[r].pid_space == t->rank[0].pid_space;

        *out = (trm_wire_rank_stats){.rank = r,
                                     .pid = t->rank[r].pid,
                                     .host = t->rank[r].host,
                                     .device = s->o->device->ops->name,
                                     .busy_us = s->busy_us};
        if (here && !process_stats(out->pid, &out->memory_bytes, &out->cpu_us))
            TRM_LOG(TRM_LOG_DEBUG, "serve", "rank %d (pid %d) cannot be seen", r, out->pid);
    }
    m.u.stats = &stats;
    post(s, &m);
    s->stats_us = now + STATS_US;
}

/* ---- turns ---- */

/* The next model after the last one that has something to do now; NULL: *due_out is when one has.
 */
static trmi_slot *next_turn(trmi_serve *s, int64_t *due_out)
{
    int64_t now = trm_now_us();
    trmi_slot *from = s->turn != NULL && s->turn->next != NULL ? s->turn->next : s->slots,
              *slot = from;

    *due_out = INT64_MAX;
    while (slot != NULL) {
        int64_t due = slot->served != NULL ? slot->served->ops->due_us(slot->served) : INT64_MAX;

        if (due <= now)
            return slot;
        *due_out = due < *due_out ? due : *due_out;
        slot = slot->next != NULL ? slot->next : s->slots;
        if (slot == from)
            break;
    }
    return NULL;
}

static trm_status run_turn(trmi_serve *s, trmi_slot *slot)
{
    trm_serve_model *m = slot->served;
    uint32_t id = slot->id;

    s->turn = slot;
    trmi_serve_link_phase(s->link, TRM_PHASE_STEADY);
    for (int i = 0; i < STEPS_A_TURN; i++) {
        int64_t begun = trm_now_us();

        TRM_CHECK(trmi_lane_turn(s, slot)); /* what came after the last step may have ended it */
        TRM_CHECK(m->ops->step(m));
        trmi_serve_link_progress(s->link);
        s->busy_us += (uint64_t)(trm_now_us() - begun);
        TRM_CHECK(take_all(s));
        if (trmi_slot_find(s, id) == NULL || m->ops->due_us(m) > trm_now_us())
            return TRM_OK; /* an UNLOAD has freed the slot, or it has nothing to do now */
    }
    return TRM_OK;
}

static trm_status end_drained(trmi_serve *s)
{
    for (trmi_slot *slot = s->slots, *next; slot != NULL; slot = next) {
        next = slot->next;
        if (slot->draining && slot->served->ops->count(slot->served) == 0)
            TRM_CHECK(finish_unload(s, slot));
    }
    return TRM_OK;
}

static trm_status loop(trmi_serve *s, bool *lost_out)
{
    for (;;) {
        int64_t due, now;
        trmi_slot *slot;
        trm_status st;

        if (trmi_serve_link_over(s->link, lost_out, &st))
            return st;
        TRM_CHECK(take_all(s));
        TRM_CHECK(finish_loads(s));
        TRM_CHECK(end_drained(s));
        now = trm_now_us();
        if (now >= s->stats_us)
            say_stats(s, now);
        slot = next_turn(s, &due);
        if (slot != NULL) {
            TRM_CHECK(run_turn(s, slot));
            continue;
        }
        trmi_serve_link_phase(s->link, TRM_PHASE_IDLE);
        trmi_serve_link_wait(s->link, due < s->stats_us ? due : s->stats_us);
    }
}

/* ---- the whole ---- */

static trm_status lead(trmi_serve *s, bool *lost_out)
{
    char text[512] = "";
    trm_status st, stopped = TRM_OK;

    TRM_CHECK(trmi_serve_link_start(s->o, &s->link));
    st = loop(s, lost_out);
    if (st != TRM_OK) {
        trm_wire_message m = {.kind = TRM_WIRE_ERROR, .status = st, .message = text};

        snprintf(text, sizeof(text), "%s", trm_message());
        post(s, &m);
        *lost_out = true;
    }
    for (trmi_slot *slot = s->slots; slot != NULL; slot = slot->next)
        if (slot->served != NULL && slot->served->ops->count(slot->served) > 0) {
            (void)trm_fail(TRM_ERR_COMM, "%s", st == TRM_OK ? "the replica stops" : text);
            slot->served->ops->fail(slot->served, TRM_ERR_COMM);
        }
    if (st != TRM_ERR_COMM)
        stopped = trmi_lane_stop(s);
    while (s->loading != NULL) /* their threads know the link */
        trmi_slot_drop_load(s, s->loading);
    trmi_serve_link_end(s->link);
    s->link = NULL;
    if (st == TRM_OK && stopped != TRM_OK) {
        *lost_out = true;
        return stopped;
    }
    return st == TRM_OK ? TRM_OK : trm_fail(st, "%s", text);
}

trm_status trm_serve_run(const trm_serve_options *options, bool *lost_out)
{
    trmi_serve *s = trm_calloc(1, sizeof(*s));
    trm_status st;

    *lost_out = false;
    if (s == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "serve");
    s->o = options;
    s->size = options->tensor * options->pipeline;
    s->current = -1;
    s->start_us = trm_now_us();
    st = options->job->rank == 0 ? lead(s, lost_out) : trmi_lane_follow(s);
    if (st == TRM_ERR_COMM)
        *lost_out = true;
    while (s->loading != NULL)
        trmi_slot_drop_load(s, s->loading);
    while (s->slots != NULL)
        trmi_slot_close(s, s->slots);
    trm_free(s);
    return st;
}
