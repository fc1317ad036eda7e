/* A hub with fake replicas, fake metrics, and requests that remember what came of them. One file of
 * an executable includes this: it defines the functions of the metrics. */
#ifndef TRM_TESTS_HUB_RIG_H
#define TRM_TESTS_HUB_RIG_H

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

static inline void rig_init(struct rig *g, int replicas)
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

static inline void rig_create(struct rig *g)
{
    ck_assert_int_eq(trm_link_context_create(&g->context), TRM_OK);
    g->o.context = g->context;
    ck_assert_msg(trm_hub_create(&g->o, &g->hub) == TRM_OK, "%s", trm_message());
}

static inline void rig_join(struct rig *g, int i, const char *identity)
{
    fake_start(g->r[i], g->context, trm_hub_endpoint(g->hub), identity);
}

/* Hub and replicas 0/1, 1/1, ..., ready. */
static inline void rig_start(struct rig *g)
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

static inline void rig_end(struct rig *g)
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

static inline void on_part(void *ctx, const trm_wire_part *p)
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

static inline void on_answer(void *ctx, const trm_wire_answer *a)
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

static inline int answers(struct call *c)
{
    int n;

    pthread_mutex_lock(&c->mu);
    n = c->answers;
    pthread_mutex_unlock(&c->mu);
    return n;
}

static inline int parts(struct call *c)
{
    int n;

    pthread_mutex_lock(&c->mu);
    n = c->parts;
    pthread_mutex_unlock(&c->mu);
    return n;
}

static inline void call_init(struct call *c)
{
    memset(c, 0, sizeof(*c));
    pthread_mutex_init(&c->mu, NULL);
}

/* *id_out is written before the request can be answered. */
static inline trm_status submit(struct rig *g, struct call *c, trm_wire_request w, const char *text,
                                uint64_t *id_out)
{
    trm_hub_request q = {.wire = &w, .owner = "", .ctx = c, .part = on_part, .answer = on_answer};

    w.kind = w.kind != 0 ? w.kind : TRM_REQUEST_CHAT;
    w.model = w.model != NULL ? w.model : "m";
    w.body = text;
    w.body_bytes = strlen(text);
    return trm_hub_submit(g->hub, &q, id_out);
}

static inline trm_status call(struct rig *g, struct call *c, trm_wire_request w, const char *text)
{
    call_init(c);
    return submit(g, c, w, text, &c->id);
}

static inline void wait_answer(struct call *c, trm_status want)
{
    UNTIL(answers(c) > 0);
    ck_assert_msg(c->status == want, "status %s, wanted %s: %s", trm_status_name(c->status),
                  trm_status_name(want), c->message);
    ck_assert_int_eq(c->answers, 1);
}

/* The lines of one stream, each once and in order. */
static inline void check_stream(const struct call *c, int lines)
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

/* ---- ends of operations ---- */
struct end {
    atomic_int count;
    trm_status st;
    char message[512];
};

static inline void on_done(void *ctx, trm_status st, const char *message)
{
    struct end *e = ctx;

    e->st = st;
    snprintf(e->message, sizeof(e->message), "%s", message);
    atomic_fetch_add(&e->count, 1);
}

static inline void wait_end(struct end *e, trm_status want)
{
    UNTIL(atomic_load(&e->count) > 0);
    ck_assert_msg(e->st == want, "%s: %s", trm_status_name(e->st), e->message);
    ck_assert_int_eq(atomic_load(&e->count), 1);
}

/* Runs the cases as one suite; the exit code. */
static inline int run_cases(const char *name, TCase **cases, int count)
{
    Suite *s = suite_create(name);
    SRunner *r;
    int failed;

    for (int i = 0; i < count; i++) {
        tcase_set_timeout(cases[i], 60);
        suite_add_tcase(s, cases[i]);
    }
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}

#endif
