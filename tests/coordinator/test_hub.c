/* The hub with replicas that are threads: every way in which a request can end. */
#define _GNU_SOURCE
#include "coordinator/hub.h"
#include "tests/coordinator/hub_fake.h"

#include <jansson.h>

/* Nobody is given up in these tests for being slow, unless a test is about that. */
#define PATIENCE_MS 60000

/* ---- metrics: counts only ---- */
static atomic_int ended_count, stats_named, stats_unnamed, lost_count, gauges_count;
void trm_metrics_ended(trm_metrics *m, const trm_metrics_request *r)
{
    (void)m;
    ck_assert_str_eq(r->model, "m");
    ck_assert_ptr_nonnull(r->answer);
    atomic_fetch_add(&ended_count, 1);
}
void trm_metrics_tokens(trm_metrics *m, const char *model, int64_t version, uint32_t tokens,
                        uint64_t us)
{
    (void)m, (void)model, (void)version, (void)tokens, (void)us;
}
void trm_metrics_models(trm_metrics *m, const trm_metrics_model_gauges *models, int count)
{
    (void)m, (void)models, (void)count;
    atomic_fetch_add(&gauges_count, 1);
}
void trm_metrics_stats(trm_metrics *m, const char *replica, const trm_wire_stats *stats,
                       const char *const *names, const int64_t *versions)
{
    (void)m, (void)replica, (void)versions;
    for (int i = 0; i < stats->model_count; i++)
        atomic_fetch_add(names[i] != NULL ? &stats_named : &stats_unnamed, 1);
}
void trm_metrics_replica(trm_metrics *m, const char *replica, const char *state)
{
    (void)m, (void)replica, (void)state;
}
void trm_metrics_replica_gone(trm_metrics *m, const char *replica, bool lost)
{
    (void)m, (void)replica;
    atomic_fetch_add(&lost_count, lost);
}

/* ---- the rig ---- */
#define REPLICAS 4
struct rig {
    trm_link_context *context;
    trm_hub *hub;
    struct fake_replica *r[REPLICAS];
    trm_hub_options o;
    trm_hub_model models[3];
};

static void rig_init(struct rig *g, int replicas)
{
    memset(g, 0, sizeof(*g));
    g->models[0] =
        (trm_hub_model){.name = "m", .version = 1, .path = "/m/1", .settings = "{}", .load = true};
    g->o = (trm_hub_options){.endpoint = "inproc://hub",
                             .replicas = replicas,
                             .silence_ms = PATIENCE_MS,
                             .join_ms = PATIENCE_MS,
                             .models = g->models,
                             .model_count = 1};
    for (int i = 0; i < REPLICAS; i++) {
        g->r[i] = trm_calloc(1, sizeof(*g->r[i]));
        ck_assert_ptr_nonnull(g->r[i]);
    }
}

static void rig_create(struct rig *g)
{
    ck_assert_int_eq(trm_link_context_create(&g->context), TRM_OK);
    g->o.context = g->context;
    ck_assert_msg(trm_hub_create(&g->o, &g->hub) == TRM_OK, "%s", trm_message());
}

static void rig_join(struct rig *g, int i, const char *identity)
{
    fake_start(g->r[i], g->context, trm_hub_endpoint(g->hub), identity);
}

/* Hub and replicas 0/1, 1/1, ..., ready. */
static void rig_start(struct rig *g)
{
    trm_hub_info info;

    rig_create(g);
    for (int i = 0; i < g->o.replicas; i++) {
        char identity[16];

        snprintf(identity, sizeof(identity), "%d/1", i);
        rig_join(g, i, identity);
    }
    for (;;) { /* all of them, however long they take: tests may have a short join_ms */
        bool all;

        ck_assert_int_eq(trm_hub_get_info(g->hub, &info), TRM_OK);
        all = info.ready && info.ready_replicas == g->o.replicas;
        trm_hub_info_fini(&info);
        if (all)
            return;
        usleep(1000);
    }
}

static void rig_end(struct rig *g)
{
    trm_hub_destroy(g->hub);
    for (int i = 0; i < REPLICAS; i++) {
        atomic_store(&g->r[i]->die, true);
        atomic_store(&g->r[i]->mute, false);
        fake_join(g->r[i]);
        trm_free(g->r[i]);
    }
    trm_link_context_destroy(g->context);
}

/* Until the condition holds; a test that waits in vain is ended by Check. */
#define UNTIL(cond)                                                                                \
    do {                                                                                           \
        while (!(cond))                                                                            \
            usleep(500);                                                                           \
    } while (0)

/* ---- calls ---- */
struct call {
    pthread_mutex_t mu;
    char bytes[8192]; /* of parts */
    int parts;
    uint32_t tokens;
    int answers;
    trm_status status;
    char message[300], body[256], model[32];
    int64_t version;
    int outputs;
    float first, last;
    uint64_t id;
    trm_hub *cancel_at; /* cancels itself at its second part */
};

static void on_part(void *ctx, const trm_wire_part *p)
{
    struct call *c = ctx;
    size_t n;

    pthread_mutex_lock(&c->mu);
    ck_assert_int_eq(c->answers, 0);
    n = strlen(c->bytes);
    ck_assert_uint_lt(n + p->body_bytes, sizeof(c->bytes));
    memcpy(c->bytes + n, p->body, p->body_bytes);
    c->tokens += p->new_tokens;
    c->parts++;
    pthread_mutex_unlock(&c->mu);
    if (c->cancel_at != NULL && c->parts == 2)
        trm_hub_cancel(c->cancel_at, c->id);
}

static void on_answer(void *ctx, const trm_wire_answer *a)
{
    struct call *c = ctx;

    pthread_mutex_lock(&c->mu);
    c->answers++;
    c->status = a->status;
    snprintf(c->message, sizeof(c->message), "%s", a->message);
    snprintf(c->body, sizeof(c->body), "%.*s", (int)a->body_bytes, (const char *)a->body);
    snprintf(c->model, sizeof(c->model), "%s", a->model);
    c->version = a->version;
    c->outputs = a->output_count;
    if (a->output_count > 0) {
        const trm_tensor *t = &a->outputs[0].tensor;

        memcpy(&c->first, t->data, sizeof(float));
        memcpy(&c->last, (const char *)t->data + (trm_tensor_numel(t) - 1) * sizeof(float),
               sizeof(float));
    }
    pthread_mutex_unlock(&c->mu);
}

static int answers(struct call *c)
{
    int n;

    pthread_mutex_lock(&c->mu);
    n = c->answers;
    pthread_mutex_unlock(&c->mu);
    return n;
}

static int parts(struct call *c)
{
    int n;

    pthread_mutex_lock(&c->mu);
    n = c->parts;
    pthread_mutex_unlock(&c->mu);
    return n;
}

static void call_init(struct call *c)
{
    memset(c, 0, sizeof(*c));
    pthread_mutex_init(&c->mu, NULL);
}

/* *id_out is written before the request can be answered. */
static trm_status submit(struct rig *g, struct call *c, trm_wire_request w, const char *text,
                         uint64_t *id_out)
{
    trm_hub_request q = {.wire = &w, .owner = "", .ctx = c, .part = on_part, .answer = on_answer};

    w.kind = w.kind != 0 ? w.kind : TRM_REQUEST_CHAT;
    w.model = w.model != NULL ? w.model : "m";
    w.body = text;
    w.body_bytes = strlen(text);
    return trm_hub_submit(g->hub, &q, id_out);
}

static trm_status call(struct rig *g, struct call *c, trm_wire_request w, const char *text)
{
    call_init(c);
    return submit(g, c, w, text, &c->id);
}

static void wait_answer(struct call *c, trm_status want)
{
    UNTIL(answers(c) > 0);
    ck_assert_msg(c->status == want, "status %s, wanted %s: %s", trm_status_name(c->status),
                  trm_status_name(want), c->message);
    ck_assert_int_eq(c->answers, 1);
}

/* The lines of one stream, each once and in order. */
static void check_stream(const struct call *c, int lines)
{
    const char *p = c->bytes;
    char tag[32];

    snprintf(tag, sizeof(tag), "%.24s", p);
    for (int i = 0; i < lines; i++) {
        char want[32];
        const char *colon;

        ck_assert_msg(strncmp(p, tag, 24) == 0, "line %d: %s", i, c->bytes);
        colon = strchr(p + 25, ':');
        ck_assert_ptr_nonnull(colon);
        snprintf(want, sizeof(want), ":%d:", i);
        ck_assert_msg(strncmp(colon, want, strlen(want)) == 0, "line %d: %s", i, c->bytes);
        p = strchr(p, '\n');
        ck_assert_ptr_nonnull(p);
        p++;
    }
    ck_assert_msg(*p == '\0', "more than %d lines: %s", lines, c->bytes);
    ck_assert_uint_eq(c->tokens, (unsigned)lines);
}

static trm_model_state state_of(struct rig *g, int64_t version)
{
    trm_hub_model_info info;

    ck_assert_int_eq(trm_hub_find_model(g->hub, "m", version, &info), TRM_OK);
    trm_free(info.metadata);
    return info.state;
}

/* ---- ordinary ---- */
START_TEST(normal)
{
    struct rig g;
    struct call c[20], s;
    trm_hub_model_info *infos, one;
    trm_hub_info info;
    int n;

    rig_init(&g, 2);
    g.o.metrics = (trm_metrics *)&g; /* the fake's functions do not look at it */
    rig_start(&g);
    ck_assert_int_eq(trm_hub_wait_ready(g.hub, 0), TRM_OK);
    for (int i = 0; i < 20; i++)
        ck_assert_msg(call(&g, &c[i], (trm_wire_request){0}, "0 hello") == TRM_OK, "%s",
                      trm_message());
    for (int i = 0; i < 20; i++) {
        wait_answer(&c[i], TRM_OK);
        ck_assert_ptr_nonnull(strstr(c[i].body, ":0 hello"));
        ck_assert_str_eq(c[i].model, "m");
        for (int k = 0; k < i; k++) /* a tag each */
            ck_assert_int_ne(strncmp(c[i].body, c[k].body, 24), 0);
    }
    ck_assert_int_gt(atomic_load(&g.r[0]->answers), 0); /* both work */
    ck_assert_int_gt(atomic_load(&g.r[1]->answers), 0);
    ck_assert_int_eq(call(&g, &s, (trm_wire_request){.stream = true}, "5 x"), TRM_OK);
    wait_answer(&s, TRM_OK);
    check_stream(&s, 5);
    ck_assert_int_eq(s.parts, 5);
    ck_assert_int_eq(
        call(&g, &s,
             (trm_wire_request){
                 .version = 1, .tag = "0123456789abcdef01234567", .seed = 9, .created = 5},
             "0 x"),
        TRM_OK);
    wait_answer(&s, TRM_OK);
    ck_assert_str_eq(s.body, "0123456789abcdef01234567:9:0 x");
    ck_assert_int_eq(atomic_load(&ended_count), 22);

    ck_assert_int_eq(trm_hub_models(g.hub, &infos, &n), TRM_OK);
    ck_assert_int_eq(n, 1);
    ck_assert_int_eq(infos[0].state, TRM_MODEL_READY);
    ck_assert_int_eq(infos[0].replicas, 2);
    ck_assert_int_eq((int)infos[0].running, 0);
    trm_hub_models_free(infos, n);
    ck_assert_int_eq(trm_hub_find_model(g.hub, "m", 0, &one), TRM_OK);
    ck_assert_str_eq(one.metadata, "{\"kind\": \"generate\"}");
    ck_assert_uint_gt(one.loaded_at, 0);
    trm_free(one.metadata);
    ck_assert_int_eq(trm_hub_find_model(g.hub, "m", 2, &one), TRM_ERR_NOT_FOUND);
    ck_assert_int_eq(trm_hub_get_info(g.hub, &info), TRM_OK);
    ck_assert(info.ready && !info.draining);
    ck_assert_int_eq(info.replicas, 2);
    ck_assert_str_eq(info.replica[0].state, "ready");
    ck_assert_str_eq(info.replica[0].host, "here");
    trm_hub_info_fini(&info);
    UNTIL(atomic_load(&stats_named) > 0 && atomic_load(&stats_unnamed) > 0);
    ck_assert(!trm_hub_stop(g.hub));
    UNTIL(atomic_load(&g.r[0]->stopped) && atomic_load(&g.r[1]->stopped));
    ck_assert(!atomic_load(&g.r[0]->stop_lost));
    rig_end(&g);
}
END_TEST

static const struct refused {
    const char *name;
    trm_wire_request wire;
    const char *model;
    trm_status want;
    const char *says;
} refusals[] = {
    {"unknown model", {0}, "n", TRM_ERR_NOT_FOUND, "no model 'n'"},
    {"unknown version", {.version = 7}, "m", TRM_ERR_NOT_FOUND, "version 7"},
    {"not loaded", {.version = 2}, "m", TRM_ERR_COMM, "not loaded"},
    {"empty name", {0}, "", TRM_ERR_INVALID_ARG, "name"},
    {"unknown kind", {.kind = (trm_request_kind)99}, "m", TRM_ERR_INVALID_ARG, "kind"},
    {"negative version", {.version = -1}, "m", TRM_ERR_INVALID_ARG, "version"},
    {"too many tensors", {.tensor_count = 257}, "m", TRM_ERR_INVALID_ARG, "257"},
};

START_TEST(refusal)
{
    const struct refused *t = &refusals[_i];
    struct rig g;
    struct call c;
    trm_wire_request w = t->wire;

    rig_init(&g, 1);
    g.models[1] = (trm_hub_model){.name = "m", .version = 2, .path = "/m/2"};
    g.o.model_count = 2;
    rig_start(&g);
    w.model = t->model;
    ck_assert_msg(call(&g, &c, w, "0 x") == t->want, "%s: %s", t->name, trm_message());
    ck_assert_msg(strstr(trm_message(), t->says) != NULL, "%s: %s", t->name, trm_message());
    rig_end(&g);
    ck_assert_int_eq(c.answers, 0);
}
END_TEST

START_TEST(tensors)
{
    static const int64_t elems = 64 << 10; /* 256 KiB */
    float *x = trm_malloc((size_t)elems, sizeof(*x));
    trm_wire_tensor t = {.name = "x",
                         .tensor = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {elems}, .data = x}};
    struct rig g;
    struct call c[4];

    for (int64_t i = 0; i < elems; i++)
        x[i] = (float)i;
    rig_init(&g, 2);
    g.r[0]->shares = _i != 1; /* 0: both, 1: neither, 2: one of two, and it dies */
    g.r[1]->shares = _i == 0;
    rig_start(&g);
    if (_i == 2)
        atomic_store(&g.r[0]->hold, true);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(
            call(&g, &c[i],
                 (trm_wire_request){.kind = TRM_REQUEST_INFER, .tensors = &t, .tensor_count = 1},
                 ""),
            TRM_OK);
    if (_i == 2) {
        UNTIL(atomic_load(&g.r[0]->requests) > 0);
        atomic_store(&g.r[0]->die, true);
    }
    for (int i = 0; i < 4; i++) {
        wait_answer(&c[i], TRM_OK);
        ck_assert_int_eq(c[i].outputs, 1);
        ck_assert(c[i].first == 0 && c[i].last == (float)(elems - 1));
    }
    if (_i == 0) {
        ck_assert_int_eq(atomic_load(&g.r[0]->shared_seen) + atomic_load(&g.r[1]->shared_seen), 4);
        UNTIL(atomic_load(&g.r[0]->releases) + atomic_load(&g.r[1]->releases) == 4);
    }
    if (_i == 1)
        ck_assert_int_eq(atomic_load(&g.r[0]->shared_seen), 0);
    rig_end(&g);
    trm_free(x);
}
END_TEST

/* ---- ends that are not ordinary ---- */
START_TEST(cancel)
{
    struct rig g;
    struct call running, waiting, own, after;

    rig_init(&g, 1);
    g.r[0]->credits = 1;
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    ck_assert_int_eq(call(&g, &running, (trm_wire_request){.stream = true}, "3 r"), TRM_OK);
    UNTIL(atomic_load(&g.r[0]->requests) == 1);
    ck_assert_int_eq(call(&g, &waiting, (trm_wire_request){0}, "0 w"), TRM_OK);
    trm_hub_cancel(g.hub, waiting.id);
    wait_answer(&waiting, TRM_ERR_CANCELLED);
    trm_hub_cancel(g.hub, running.id);
    trm_hub_cancel(g.hub, running.id);
    wait_answer(&running, TRM_ERR_CANCELLED);
    trm_hub_cancel(g.hub, running.id);
    trm_hub_cancel(g.hub, 4711);
    UNTIL(atomic_load(&g.r[0]->cancels) == 1); /* the waiting one was never told of */
    atomic_store(&g.r[0]->hold, false);
    call_init(&own); /* from its own part */
    own.cancel_at = g.hub;
    ck_assert_int_eq(submit(&g, &own, (trm_wire_request){.stream = true}, "100000 o", &own.id),
                     TRM_OK);
    wait_answer(&own, TRM_ERR_CANCELLED);
    ck_assert_int_eq(call(&g, &after, (trm_wire_request){0}, "0 a"), TRM_OK); /* credit is back */
    wait_answer(&after, TRM_OK);
    rig_end(&g);
    ck_assert_int_eq(running.answers + waiting.answers + own.answers, 3);
}
END_TEST

START_TEST(deadline)
{
    struct rig g;
    struct call running, waiting, after;

    rig_init(&g, 1);
    g.r[0]->credits = 1;
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    ck_assert_int_eq(call(&g, &running, (trm_wire_request){.deadline_ms = 60}, "0 r"), TRM_OK);
    ck_assert_int_eq(call(&g, &waiting, (trm_wire_request){.deadline_ms = 30}, "0 w"), TRM_OK);
    wait_answer(&waiting, TRM_ERR_TIMEOUT);
    wait_answer(&running, TRM_ERR_TIMEOUT);
    atomic_store(&g.r[0]->hold, false);
    ck_assert_int_eq(call(&g, &after, (trm_wire_request){0}, "0 a"), TRM_OK);
    wait_answer(&after, TRM_OK);
    rig_end(&g);
}
END_TEST

START_TEST(queue_full)
{
    struct rig g;
    struct call c[5];

    rig_init(&g, 1);
    g.o.queue_max = 2;
    g.r[0]->credits = 2;
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    for (int i = 0; i < 4; i++) /* two run, two wait: even where the hub has not looked yet */
        ck_assert_msg(call(&g, &c[i], (trm_wire_request){0}, "0 x") == TRM_OK, "%d: %s", i,
                      trm_message());
    UNTIL(atomic_load(&g.r[0]->requests) == 2);
    ck_assert_int_eq(call(&g, &c[4], (trm_wire_request){0}, "0 x"), TRM_ERR_TIMEOUT);
    ck_assert_ptr_nonnull(strstr(trm_message(), "queue is full"));
    atomic_store(&g.r[0]->hold, false);
    for (int i = 0; i < 4; i++)
        wait_answer(&c[i], TRM_OK);
    rig_end(&g);
}
END_TEST

START_TEST(priorities)
{
    static const struct {
        int32_t priority;
        const char *text;
    } rows[] = {{0, "0 a"}, {0, "0 d"}, {-5, "0 f"}, {0, "0 e"}, {7, "0 b"}, {7, "0 c"}};
    struct rig g;
    struct call c[6];

    rig_init(&g, 1);
    g.r[0]->credits = 1;
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    for (int i = 0; i < 6; i++) {
        ck_assert_int_eq(
            call(&g, &c[i], (trm_wire_request){.priority = rows[i].priority}, rows[i].text),
            TRM_OK);
        if (i == 0)
            UNTIL(atomic_load(&g.r[0]->requests) == 1);
    }
    atomic_store(&g.r[0]->hold, false);
    for (int i = 0; i < 6; i++)
        wait_answer(&c[i], TRM_OK);
    trm_hub_stop(g.hub);
    fake_join(g.r[0]);
    ck_assert_str_eq(g.r[0]->order, "abcdef");
    rig_end(&g);
}
END_TEST

/* ---- replicas that are lost ---- */
START_TEST(death_in_a_stream)
{
    struct rig g;
    struct call c[8];

    rig_init(&g, 2);
    rig_start(&g);
    atomic_store(&g.r[0]->die_at_parts, 13);
    for (int i = 0; i < 8; i++)
        ck_assert_int_eq(call(&g, &c[i], (trm_wire_request){.stream = true}, "20 s"), TRM_OK);
    for (int i = 0; i < 8; i++) {
        wait_answer(&c[i], TRM_OK);
        check_stream(&c[i], 20);
    }
    fake_join(g.r[0]);
    ck_assert(trm_hub_stop(g.hub));
    rig_end(&g);
}
END_TEST

START_TEST(another_answer)
{
    struct rig g;
    struct call c;

    rig_init(&g, 2);
    g.r[1]->says_otherwise = true;
    rig_start(&g);
    atomic_store(&g.r[1]->hold, true);
    for (;;) { /* until one runs on replica 0; of a kind that is sent by turns */
        ck_assert_int_eq(call(&g, &c,
                              (trm_wire_request){.kind = TRM_REQUEST_EMBEDDINGS, .stream = true},
                              "100000 s"),
                         TRM_OK);
        UNTIL(atomic_load(&g.r[0]->requests) + atomic_load(&g.r[1]->requests) > 0);
        if (atomic_load(&g.r[0]->requests) > 0)
            break;
        trm_hub_cancel(g.hub, c.id);
        wait_answer(&c, TRM_ERR_CANCELLED);
        atomic_store(&g.r[1]->requests, 0);
    }
    UNTIL(parts(&c) > 2);
    atomic_store(&g.r[0]->die, true);
    atomic_store(&g.r[1]->hold, false);
    wait_answer(&c, TRM_ERR_COMM);
    ck_assert_ptr_nonnull(strstr(c.message, "differs"));
    rig_end(&g);
}
END_TEST

START_TEST(death_of_all)
{
    struct rig g;
    struct call c[6], after;

    rig_init(&g, 1);
    g.o.in_job = _i == 0;
    g.o.join_ms = _i == 1 ? 200 : PATIENCE_MS;
    g.r[0]->credits = 2;
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    for (int i = 0; i < 6; i++)
        ck_assert_int_eq(call(&g, &c[i], (trm_wire_request){.stream = true}, "4 s"), TRM_OK);
    UNTIL(atomic_load(&g.r[0]->requests) == 2);
    atomic_store(&g.r[0]->die, true);
    if (_i == 2) { /* a newcomer takes them */
        fake_join(g.r[0]);
        rig_join(&g, 1, "0/2");
    }
    for (int i = 0; i < 6; i++) {
        wait_answer(&c[i], _i == 2 ? TRM_OK : TRM_ERR_COMM);
        if (_i == 2)
            check_stream(&c[i], 4);
    }
    if (_i < 2) {
        ck_assert_int_eq(call(&g, &after, (trm_wire_request){0}, "0 x"), TRM_ERR_COMM);
        ck_assert_ptr_nonnull(strstr(trm_message(), "no replica"));
    }
    rig_end(&g);
}
END_TEST

START_TEST(attempts)
{
    struct rig g;
    struct call c;

    rig_init(&g, 4);
    for (int i = 0; i < 4; i++)
        atomic_store(&g.r[i]->die_at_parts, 2);
    rig_start(&g);
    ck_assert_int_eq(call(&g, &c, (trm_wire_request){.stream = true}, "9 s"), TRM_OK);
    wait_answer(&c, TRM_ERR_COMM);
    ck_assert_ptr_nonnull(strstr(c.message, "3 replicas were lost"));
    ck_assert_int_eq(c.parts, 2);
    rig_end(&g);
}
END_TEST

static int dead_replicas(struct rig *g, char *reason, size_t bytes)
{
    trm_hub_info info;
    int n;

    ck_assert_int_eq(trm_hub_get_info(g->hub, &info), TRM_OK);
    n = info.dead_replicas;
    for (int i = 0; i < info.replicas; i++)
        if (strcmp(info.replica[i].state, "dead") == 0)
            snprintf(reason, bytes, "%s", info.replica[i].reason);
    trm_hub_info_fini(&info);
    return n;
}

START_TEST(given_up)
{
    static const char *const says[] = {"nothing heard", "msgpack|message", "stuck",
                                       "replaced by 0/2", "connection was closed"};
    struct rig g;
    struct call c;
    char reason[256] = "";

    rig_init(&g, 1);
    if (_i == 0)
        g.o.silence_ms = 1000;
    if (_i == 2)
        g.o.stuck_ms = 1000;
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    ck_assert_int_eq(call(&g, &c, (trm_wire_request){.stream = true}, "4 s"), TRM_OK);
    UNTIL(atomic_load(&g.r[0]->requests) == 1);
    if (_i == 0)
        atomic_store(&g.r[0]->mute, true);
    if (_i == 1)
        atomic_store(&g.r[0]->garbage, true);
    if (_i == 3)
        rig_join(&g, 1, "0/2");
    if (_i == 4)
        atomic_store(&g.r[0]->die, true);
    UNTIL(dead_replicas(&g, reason, sizeof(reason)) == 1);
    if (_i != 1)
        ck_assert_msg(strstr(reason, says[_i]) != NULL, "%s", reason);
    ck_assert_uint_gt(strlen(reason), 0);
    atomic_store(&g.r[0]->mute, false);
    atomic_store(&g.r[0]->hold, false); /* what it still says is ignored */
    if (_i != 3)
        rig_join(&g, 1, "0/2");
    wait_answer(&c, TRM_OK);
    check_stream(&c, 4);
    if (_i < 4) {
        UNTIL(atomic_load(&g.r[0]->stopped)); /* it lives, and is told to go */
        ck_assert(atomic_load(&g.r[0]->stop_lost));
    }
    rig_join(&g, 2, "0/1"); /* an old epoch is not let in */
    ck_assert_int_eq(call(&g, &c, (trm_wire_request){0}, "0 x"), TRM_OK);
    wait_answer(&c, TRM_OK);
    ck_assert_int_eq(atomic_load(&g.r[2]->loads), 0);
    rig_end(&g);
}
END_TEST

/* ---- models ---- */
struct end {
    atomic_int count;
    trm_status st;
    char message[512];
};

static void on_done(void *ctx, trm_status st, const char *message)
{
    struct end *e = ctx;

    e->st = st;
    snprintf(e->message, sizeof(e->message), "%s", message);
    atomic_fetch_add(&e->count, 1);
}

static void wait_end(struct end *e, trm_status want)
{
    UNTIL(atomic_load(&e->count) > 0);
    ck_assert_msg(e->st == want, "%s: %s", trm_status_name(e->st), e->message);
    ck_assert_int_eq(atomic_load(&e->count), 1);
}

struct flood {
    struct rig *g;
    atomic_bool end;
    atomic_int sent;
    struct call *calls;
};
#define FLOOD_MAX 20000

static void *flood_main(void *ctx)
{
    struct flood *f = ctx;

    for (int i = 0; i < FLOOD_MAX && !atomic_load(&f->end); i++) {
        trm_status st = call(f->g, &f->calls[i], (trm_wire_request){.stream = i % 2 == 0}, "3 f");

        ck_assert_msg(st == TRM_OK, "%s", trm_message());
        atomic_store(&f->sent, i + 1);
        usleep(300);
    }
    return NULL;
}

START_TEST(reload_under_load)
{
    struct rig g;
    struct flood f = {.g = &g};
    struct end e[3] = {0};
    pthread_t thread;
    int sent;

    rig_init(&g, 2);
    rig_start(&g);
    f.calls = trm_calloc(FLOOD_MAX, sizeof(*f.calls));
    ck_assert_int_eq(pthread_create(&thread, NULL, flood_main, &f), 0);
    for (int i = 0; i < 3; i++) {
        trm_hub_model again = {.name = "m", .version = 1};
        int unloads = atomic_load(&g.r[0]->unloads);

        UNTIL(atomic_load(&f.sent) > 20 * (i + 1));
        ck_assert_int_eq(trm_hub_load(g.hub, &again, &e[i], on_done), TRM_OK);
        wait_end(&e[i], TRM_OK);
        UNTIL(atomic_load(&g.r[0]->unloads) > unloads); /* the old one has drained */
    }
    sent = atomic_load(&f.sent);
    UNTIL(atomic_load(&f.sent) > sent);
    atomic_store(&f.end, true);
    pthread_join(thread, NULL);
    sent = atomic_load(&f.sent);
    for (int i = 0; i < sent; i++) {
        wait_answer(&f.calls[i], TRM_OK);
        if (f.calls[i].parts > 0)
            check_stream(&f.calls[i], 3);
    }
    ck_assert_int_eq((int)f.calls[sent - 1].version, 4); /* the fake says its slot */
    ck_assert_int_eq(atomic_load(&g.r[1]->loads), 4);
    rig_end(&g);
    trm_free(f.calls);
}
END_TEST

START_TEST(unload)
{
    struct rig g;
    struct call running, waiting, refused, after;
    struct end e = {0}, twice = {0}, again = {0};
    trm_hub_model model = {.name = "m", .version = 1};
    trm_hub_info info;

    rig_init(&g, 2);
    g.r[0]->credits = g.r[1]->credits = 1;
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    atomic_store(&g.r[1]->hold, true);
    ck_assert_int_eq(call(&g, &running, (trm_wire_request){.stream = true}, "3 r"), TRM_OK);
    ck_assert_int_eq(call(&g, &refused, (trm_wire_request){.stream = true}, "3 r"), TRM_OK);
    UNTIL(atomic_load(&g.r[0]->requests) + atomic_load(&g.r[1]->requests) == 2);
    ck_assert_int_eq(call(&g, &waiting, (trm_wire_request){0}, "0 w"), TRM_OK);
    ck_assert_int_eq(trm_hub_unload(g.hub, "m", 0, &e, on_done), TRM_OK);
    ck_assert_int_eq(trm_hub_unload(g.hub, "m", 1, &twice, on_done), TRM_OK);
    ck_assert_int_eq(state_of(&g, 0), TRM_MODEL_DRAINING);
    ck_assert_int_eq(call(&g, &after, (trm_wire_request){0}, "0 a"), TRM_ERR_COMM);
    ck_assert_int_eq(atomic_load(&e.count), 0);
    atomic_store(&g.r[0]->hold, false);
    atomic_store(&g.r[1]->hold, false);
    wait_answer(&running, TRM_OK);
    wait_answer(&refused, TRM_OK);
    wait_answer(&waiting, TRM_OK);
    wait_end(&e, TRM_OK);
    wait_end(&twice, TRM_OK);
    ck_assert_int_eq(state_of(&g, 0), TRM_MODEL_UNLOADED);
    ck_assert_int_eq(trm_hub_get_info(g.hub, &info), TRM_OK);
    ck_assert(info.ready); /* it is not wanted any more */
    trm_hub_info_fini(&info);
    ck_assert_int_eq(trm_hub_unload(g.hub, "n", 0, &e, on_done), TRM_ERR_NOT_FOUND);
    ck_assert_int_eq(trm_hub_load(g.hub, &model, &again, on_done), TRM_OK);
    wait_end(&again, TRM_OK);
    ck_assert_int_eq(call(&g, &after, (trm_wire_request){0}, "0 a"), TRM_OK);
    wait_answer(&after, TRM_OK);
    rig_end(&g);
}
END_TEST

START_TEST(failed_load)
{
    struct rig g;
    struct call c;
    struct end e[4] = {0};
    trm_hub_model bad = {.name = "m", .version = 1, .settings = "{\"fail\": 1}"},
                  good = {.name = "m", .version = 2, .path = "/m/2"},
                  unknown = {.name = "n", .version = 1},
                  mended = {.name = "m", .version = 1}; /* settings held for that load alone */

    rig_init(&g, 2);
    rig_start(&g);
    atomic_store(&g.r[0]->hold_loads, true);
    atomic_store(&g.r[1]->hold_loads, true);
    ck_assert_int_eq(trm_hub_load(g.hub, &bad, &e[0], on_done), TRM_OK);
    ck_assert_int_eq(trm_hub_load(g.hub, &bad, &e[0], on_done), TRM_ERR_INVALID_ARG);
    atomic_store(&g.r[0]->hold_loads, false);
    atomic_store(&g.r[1]->hold_loads, false);
    wait_end(&e[0], TRM_ERR_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(e[0].message, "the fake will not"));
    ck_assert_int_eq(state_of(&g, 0), TRM_MODEL_READY); /* the old one stays */
    ck_assert_int_eq(call(&g, &c, (trm_wire_request){0}, "0 a"), TRM_OK);
    wait_answer(&c, TRM_OK);
    ck_assert_int_eq((int)c.version, 1);
    ck_assert_int_eq(trm_hub_load(g.hub, &unknown, &e[1], on_done), TRM_ERR_NOT_FOUND);
    ck_assert_int_eq(trm_hub_load(g.hub, &good, &e[2], on_done), TRM_OK);
    wait_end(&e[2], TRM_OK);
    ck_assert_int_eq(call(&g, &c, (trm_wire_request){0}, "0 a"), TRM_OK); /* the newest */
    wait_answer(&c, TRM_OK);
    ck_assert_int_eq((int)c.version, 3);
    ck_assert_int_eq(trm_hub_load(g.hub, &mended, &e[3], on_done), TRM_OK);
    wait_end(&e[3], TRM_OK);
    ck_assert_int_eq(call(&g, &c, (trm_wire_request){.version = 1}, "0 a"), TRM_OK);
    wait_answer(&c, TRM_OK);
    ck_assert_int_eq((int)c.version, 4);
    rig_end(&g);
}
END_TEST

START_TEST(joins_meanwhile)
{
    struct rig g;
    struct end e = {0};
    trm_hub_model again = {.name = "m", .version = 1};

    rig_init(&g, 1);
    rig_start(&g);
    atomic_store(&g.r[0]->hold_loads, true);
    ck_assert_int_eq(trm_hub_load(g.hub, &again, &e, on_done), TRM_OK);
    UNTIL(atomic_load(&g.r[0]->loads) == 2);
    rig_join(&g, 1, "1/1");
    UNTIL(atomic_load(&g.r[1]->loads) == 2); /* the current and the pending copy */
    ck_assert_int_eq(atomic_load(&e.count), 0);
    atomic_store(&g.r[0]->hold_loads, false);
    wait_end(&e, TRM_OK);
    UNTIL(atomic_load(&g.r[1]->unloads) == 1);
    rig_end(&g);
}
END_TEST

START_TEST(groups)
{
    struct rig g;
    struct call c[6];
    struct end e = {0};
    trm_hub_model again = {.name = "m", .version = 2};

    rig_init(&g, 2);
    g.o.join_ms = 200;
    g.models[0].replicas = 1; /* version 1 on replica 0, version 2 on replica 1 */
    g.models[1] = g.models[0];
    g.models[1].version = 2;
    g.models[1].first_replica = 1;
    g.o.model_count = 2;
    rig_start(&g);
    for (int i = 0; i < 6; i++)
        ck_assert_int_eq(call(&g, &c[i], (trm_wire_request){.version = 1 + i % 2}, "0 a"), TRM_OK);
    for (int i = 0; i < 6; i++)
        wait_answer(&c[i], TRM_OK);
    ck_assert_int_eq(atomic_load(&g.r[0]->requests), 3);
    ck_assert_int_eq(atomic_load(&g.r[1]->requests), 3);
    ck_assert_int_eq(atomic_load(&g.r[0]->loads) + atomic_load(&g.r[1]->loads), 2);

    atomic_store(&g.r[1]->hold, true); /* one that names no version may go to another group */
    ck_assert_int_eq(call(&g, &c[0], (trm_wire_request){.version = 0}, "0 a"), TRM_OK);
    ck_assert_int_eq(call(&g, &c[1], (trm_wire_request){.version = 2}, "0 a"), TRM_OK);
    UNTIL(atomic_load(&g.r[1]->requests) == 5);
    atomic_store(&g.r[1]->die, true);
    wait_answer(&c[0], TRM_OK);
    wait_answer(&c[1], TRM_ERR_COMM);
    ck_assert_int_eq(trm_hub_load(g.hub, &again, &e, on_done), TRM_OK);
    wait_end(&e, TRM_ERR_COMM); /* nobody of its group comes */
    rig_end(&g);
}
END_TEST

/* ---- start and end ---- */
START_TEST(start)
{
    struct rig g;
    trm_status st;

    rig_init(&g, 1);
    if (_i == 0)
        g.models[0].settings = "{\"fail\": 1}";
    if (_i == 1)
        g.o.join_ms = 30;
    rig_create(&g);
    if (_i != 1)
        rig_join(&g, 0, "0/1");
    if (_i == 2)
        atomic_store(&g.r[0]->hold_loads, true);
    st = trm_hub_wait_ready(g.hub, _i == 2 ? trm_now_us() + 30000 : trm_deadline_us(PATIENCE_MS));
    if (_i == 0) {
        ck_assert_int_eq(st, TRM_ERR_BAD_FILE);
        ck_assert_ptr_nonnull(strstr(trm_message(), "the fake will not"));
    } else {
        ck_assert_int_eq(st, _i == 1 ? TRM_ERR_COMM : TRM_ERR_TIMEOUT);
    }
    rig_end(&g);
}
END_TEST

START_TEST(not_created)
{
    struct rig g;
    static const trm_status wants[] = {TRM_ERR_COMM, TRM_ERR_COMM, TRM_ERR_INVALID_ARG,
                                       TRM_ERR_NOT_FOUND};
    trm_hub *hub = NULL;
    trm_status st;

    rig_init(&g, 1);
    if (_i == 0)
        g.o.endpoint = "nonsense://x";
    if (_i == 1)
        g.o.public_endpoint = "tcp://300.1.2.3:*";
    if (_i == 2)
        g.models[0].name = "";
    if (_i == 3)
        g.models[0].path = NULL;
    ck_assert_int_eq(trm_link_context_create(&g.context), TRM_OK);
    g.o.context = g.context;
    st = trm_hub_create(&g.o, &hub);
    ck_assert_int_eq(st, wants[_i]);
    ck_assert_ptr_null(hub);
    ck_assert_uint_gt(strlen(trm_message()), 0);
    rig_end(&g);
}
END_TEST

START_TEST(drain)
{
    struct rig g;
    struct call c, after;

    rig_init(&g, 1);
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    ck_assert_int_eq(call(&g, &c, (trm_wire_request){0}, "0 a"), TRM_OK);
    ck_assert_int_eq(trm_hub_drain(g.hub, trm_now_us() + 30000), TRM_ERR_TIMEOUT);
    ck_assert_ptr_nonnull(strstr(trm_message(), "1 request"));
    ck_assert_int_eq(call(&g, &after, (trm_wire_request){0}, "0 a"), TRM_ERR_COMM);
    atomic_store(&g.r[0]->hold, false);
    ck_assert_int_eq(trm_hub_drain(g.hub, trm_deadline_us(PATIENCE_MS)), TRM_OK);
    ck_assert_int_eq(answers(&c), 1);
    rig_end(&g);
}
END_TEST

START_TEST(stop_with_requests)
{
    struct rig g;
    struct call c[8], after;
    struct end e = {0};
    trm_hub_model again = {.name = "m", .version = 1};

    rig_init(&g, 2);
    rig_start(&g);
    for (int i = 0; i < 2; i++) {
        atomic_store(&g.r[i]->hold, true);
        atomic_store(&g.r[i]->hold_loads, true);
    }
    for (int i = 0; i < 8; i++)
        ck_assert_int_eq(call(&g, &c[i], (trm_wire_request){0}, "0 a"), TRM_OK);
    ck_assert_int_eq(trm_hub_load(g.hub, &again, &e, on_done), TRM_OK);
    trm_hub_cancel(g.hub, c[3].id);
    (void)trm_hub_stop(g.hub);
    for (int i = 0; i < 8; i++) {
        ck_assert_int_eq(c[i].answers, 1);
        ck_assert(c[i].status == TRM_ERR_COMM || (i == 3 && c[i].status == TRM_ERR_CANCELLED));
    }
    ck_assert_int_eq(atomic_load(&e.count), 1);
    ck_assert_int_eq(e.st, TRM_ERR_COMM);
    ck_assert_int_eq(call(&g, &after, (trm_wire_request){0}, "0 a"), TRM_ERR_COMM);
    trm_hub_cancel(g.hub, c[0].id);
    rig_end(&g);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("hub");
    TCase *t = tcase_create("requests"), *l = tcase_create("lost"), *m = tcase_create("models"),
          *e = tcase_create("start and end");
    SRunner *r;
    int failed;

    tcase_add_test(t, normal);
    tcase_add_loop_test(t, refusal, 0, (int)(sizeof(refusals) / sizeof(refusals[0])));
    tcase_add_loop_test(t, tensors, 0, 3);
    tcase_add_test(t, cancel);
    tcase_add_test(t, deadline);
    tcase_add_test(t, queue_full);
    tcase_add_test(t, priorities);
    tcase_add_test(l, death_in_a_stream);
    tcase_add_test(l, another_answer);
    tcase_add_loop_test(l, death_of_all, 0, 3);
    tcase_add_test(l, attempts);
    tcase_add_loop_test(l, given_up, 0, 5);
    tcase_add_test(m, reload_under_load);
    tcase_add_test(m, unload);
    tcase_add_test(m, failed_load);
    tcase_add_test(m, joins_meanwhile);
    tcase_add_test(m, groups);
    tcase_add_loop_test(e, start, 0, 3);
    tcase_add_loop_test(e, not_created, 0, 4);
    tcase_add_test(e, drain);
    tcase_add_test(e, stop_with_requests);
    for (int i = 0; i < 4; i++) {
        TCase *c = (TCase *[]){t, l, m, e}[i];

        tcase_set_timeout(c, 60);
        suite_add_tcase(s, c);
    }
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
