/* What a serving cluster counts: values, the last minute, replicas that come and go, threads.
 * test_metrics_text.c has the two texts. */
#include "coordinator/metrics_impl.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t clock_us;

static uint64_t now_us(void)
{
    return __atomic_load_n(&clock_us, __ATOMIC_RELAXED);
}

static trm_metrics *make(void)
{
    trm_metrics *m;

    clock_us = 1000000000;
    ck_assert_int_eq(trmi_metrics_create(now_us, &m), TRM_OK);
    return m;
}

static void end_chat(trm_metrics *m, const char *model, uint64_t total_us, uint32_t tokens)
{
    trm_wire_answer answer = {.prompt_tokens = 10,
                              .new_tokens = tokens,
                              .queue_us = 1000,
                              .first_us = 5000,
                              .run_us = total_us - 2000};
    trm_metrics_request r = {.model = model,
                             .version = 1,
                             .kind = TRM_REQUEST_CHAT,
                             .answer = &answer,
                             .wait_us = 500,
                             .total_us = total_us,
                             .attempts = 1};

    trm_metrics_ended(m, &r);
}

static double at(json_t *status, int model, const char *name)
{
    json_t *value =
        json_object_get(json_array_get(json_object_get(status, "models"), (size_t)model), name);

    ck_assert_msg(json_is_number(value), "%s is no number", name);
    return json_number_value(value);
}

static json_t *member(json_t *status, int model, const char *name)
{
    return json_object_get(json_array_get(json_object_get(status, "models"), (size_t)model), name);
}

/* ---- window ---- */
static const struct {
    const char *name;
    uint64_t from, to, step; /* us */
    double p50, p90, p99;    /* ms */
} spreads[] = {
    {"one value", 5000, 5000, 1, 5, 5, 5},
    {"microseconds", 1, 7, 1, 0.004, 0.006, 0.007},
    {"1 to 1000 ms", 1000, 1000000, 1000, 500, 900, 990},
    {"minutes", 60000000, 600000000, 1000000, 330000, 546000, 594600},
    {"beyond all buckets", 3000000000u, 3000000000u, 1, 2147483, 2147483, 2147483},
};

START_TEST(percentiles_are_near)
{
    trmi_window *w = trmi_window_create(0);
    trmi_recent r;

    for (uint64_t v = spreads[_i].from; v <= spreads[_i].to; v += spreads[_i].step)
        trmi_window_observe(w, 1000, TRMI_LATENCY_TOTAL, v, 1);
    trmi_metrics_window_read(w, 2000, &r);
    ck_assert_msg(r.ms[TRMI_LATENCY_TOTAL][0] >= spreads[_i].p50 * 0.87 &&
                      r.ms[TRMI_LATENCY_TOTAL][0] <= spreads[_i].p50 * 1.13 + 0.001,
                  "%s: p50 %f", spreads[_i].name, r.ms[TRMI_LATENCY_TOTAL][0]);
    ck_assert_msg(r.ms[TRMI_LATENCY_TOTAL][1] >= spreads[_i].p90 * 0.87 &&
                      r.ms[TRMI_LATENCY_TOTAL][1] <= spreads[_i].p90 * 1.13 + 0.001,
                  "%s: p90 %f", spreads[_i].name, r.ms[TRMI_LATENCY_TOTAL][1]);
    ck_assert_msg(r.ms[TRMI_LATENCY_TOTAL][2] >= spreads[_i].p99 * 0.87 &&
                      r.ms[TRMI_LATENCY_TOTAL][2] <= spreads[_i].p99 * 1.13 + 0.001,
                  "%s: p99 %f", spreads[_i].name, r.ms[TRMI_LATENCY_TOTAL][2]);
    trm_free(w);
}
END_TEST

/* the sum is always that of the last 60 seconds, however the clock steps */
START_TEST(window_forgets)
{
    static const uint64_t steps_s[] = {1, 1, 5, 0, 30, 59, 60, 61, 1, 200, 1, 1, 40, 25};
    trmi_window *w = trmi_window_create(0);
    uint64_t t = 0, at_s[32], n = 0;
    trmi_recent r;

    for (size_t i = 0; i < sizeof(steps_s) / sizeof(steps_s[0]); i++) {
        uint64_t want = 0;

        t += steps_s[i];
        trmi_window_count(w, t * 1000000, TRMI_RATE_REQUESTS, 1);
        trmi_window_observe(w, t * 1000000, TRMI_LATENCY_QUEUE, 100, 1);
        at_s[n++] = t;
        for (uint64_t k = 0; k < n; k++)
            want += at_s[k] + TRMI_WINDOW_SECONDS > t;
        trmi_metrics_window_read(w, t * 1000000, &r);
        ck_assert_uint_eq(r.sums[TRMI_RATE_REQUESTS], want);
        ck_assert_uint_eq(r.samples[TRMI_LATENCY_QUEUE], want);
    }
    trmi_window_count(w, 5, TRMI_RATE_REQUESTS, 1); /* a clock that goes back: now */
    trmi_metrics_window_read(w, t * 1000000, &r);
    ck_assert_uint_gt(r.sums[TRMI_RATE_REQUESTS], 1);
    trmi_metrics_window_read(w, (t + 1000) * 1000000, &r);
    ck_assert_uint_eq(r.sums[TRMI_RATE_REQUESTS], 0);
    ck_assert_uint_eq(r.samples[TRMI_LATENCY_QUEUE], 0);
    trm_free(w);
}
END_TEST

START_TEST(rates_are_per_second)
{
    trm_metrics *m = make();
    json_t *status;

    for (int s = 0; s < 120; s++) {
        end_chat(m, "m", 20000, 11);
        end_chat(m, "m", 40000, 11);
        clock_us += 1000000;
    }
    clock_us -= 500000;
    status = trm_metrics_status(m);
    ck_assert_double_eq_tol(at(status, 0, "requests_s"), 2, 0.05);
    ck_assert_double_eq_tol(at(status, 0, "generation_tokens_s"), 22, 0.5);
    ck_assert_double_eq_tol(at(status, 0, "prompt_tokens_s"), 20, 0.5);
    ck_assert_double_eq(at(status, 0, "requests"), 240);
    ck_assert_double_eq_tol(json_number_value(json_object_get(member(status, 0, "e2e_ms"), "p90")),
                            40, 5);
    ck_assert_double_eq_tol(json_number_value(json_object_get(member(status, 0, "ttft_ms"), "p50")),
                            5.5, 0.7);
    ck_assert_double_eq_tol(json_number_value(json_object_get(status, "uptime_s")), 119.5, 0.01);
    json_decref(status);
    clock_us += 61000000;
    status = trm_metrics_status(m);
    ck_assert_double_eq(at(status, 0, "requests_s"), 0);
    ck_assert(json_is_null(member(status, 0, "e2e_ms")));
    json_decref(status);
    trm_metrics_destroy(m);
}
END_TEST

/* ---- requests ---- */
START_TEST(failures_and_retries)
{
    trm_metrics *m = make();
    trm_wire_answer answer = {.status = TRM_ERR_TIMEOUT};
    trm_metrics_request r = {.model = "m",
                             .version = 3,
                             .kind = TRM_REQUEST_INFER,
                             .answer = &answer,
                             .total_us = 7,
                             .attempts = 3};
    json_t *stats;

    trm_metrics_ended(m, &r);
    answer.status = (trm_status)1000; /* a replica may say anything */
    r.attempts = 0;
    trm_metrics_ended(m, &r);
    r.kind = (trm_request_kind)99;
    trm_metrics_ended(m, &r);
    ck_assert_uint_eq(m->models[0]->failure[TRM_ERR_TIMEOUT], 1);
    ck_assert_uint_eq(m->models[0]->failure[TRM_ERR_INTERNAL], 1);
    ck_assert_uint_eq(m->models[0]->retried, 2);
    ck_assert_uint_eq(m->models[0]->total.count, 0);
    stats = trm_metrics_model_statistics(m, "m", 3);
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(stats, "fail"), "count")),
                     2);
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(stats, "fail"), "ns")),
                     14000);
    json_decref(stats);
    ck_assert_ptr_null(trm_metrics_model_statistics(m, "m", 2));
    trm_metrics_destroy(m);
}
END_TEST

/* v2: requests of two records in batches of 8, and one alone */
START_TEST(tensor_models)
{
    trm_metrics *m = make();
    trm_wire_tensor output = {.name = "y", .tensor = {.rank = 2, .dims = {2, 10}}};
    trm_wire_answer answer = {
        .batch = 8, .run_us = 800, .queue_us = 50, .outputs = &output, .output_count = 1};
    trm_metrics_request r = {.model = "net",
                             .version = 1,
                             .kind = TRM_REQUEST_INFER,
                             .answer = &answer,
                             .wait_us = 50,
                             .total_us = 1000};
    json_t *stats, *batches;

    for (int i = 0; i < 8; i++)
        trm_metrics_ended(m, &r);
    answer.batch = 1;
    output.tensor.dims[0] = 1;
    trm_metrics_ended(m, &r);
    for (uint32_t b = 100; b < 300; b++) { /* more sizes than are kept */
        answer.batch = b;
        trm_metrics_ended(m, &r);
    }
    stats = trm_metrics_model_statistics(m, "net", 1);
    ck_assert_int_eq(json_integer_value(json_object_get(stats, "inference_count")), 17 + 200);
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(stats, "queue"), "ns")),
                     209 * 100000);
    ck_assert_int_eq(
        json_integer_value(json_object_get(json_object_get(stats, "compute_output"), "ns")),
        209 * 100000);
    ck_assert_int_eq(json_integer_value(json_object_get(stats, "last_inference")),
                     (json_int_t)m->start_unix_ms);
    batches = json_object_get(stats, "batch_stats");
    ck_assert_uint_eq(json_array_size(batches), TRMI_METRICS_BATCHES_MAX);
    ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(batches, 0), "batch_size")),
                     8);
    ck_assert_int_eq(json_integer_value(json_object_get(
                         json_object_get(json_array_get(batches, 0), "compute_infer"), "count")),
                     2);
    ck_assert_int_eq(json_integer_value(json_object_get(
                         json_object_get(json_array_get(batches, 0), "compute_infer"), "ns")),
                     1600000);
    json_decref(stats);
    trm_metrics_destroy(m);
}
END_TEST

/* a streamed request's gaps come with its parts, another's are in its answer */
START_TEST(tokens_are_counted_once)
{
    trm_metrics *m = make();
    trm_wire_answer answer = {.new_tokens = 5, .queue_us = 0, .first_us = 100, .run_us = 500};
    trm_metrics_request r = {.model = "m",
                             .version = 1,
                             .kind = TRM_REQUEST_COMPLETIONS,
                             .answer = &answer,
                             .total_us = 500};

    trm_metrics_ended(m, &r);
    ck_assert_uint_eq(m->models[0]->token.count, 4);
    ck_assert_uint_eq(m->models[0]->token.sum, 400);
    r.stream = true;
    r.first_us = 250;
    trm_metrics_tokens(m, "m", 1, 0, 1000);
    trm_metrics_tokens(m, "m", 1, 1, 1000);
    trm_metrics_tokens(m, "m", 1, 3, 1500);
    trm_metrics_ended(m, &r);
    ck_assert_uint_eq(m->models[0]->token.count, 8);
    ck_assert_uint_eq(m->models[0]->token.sum, 400 + 1000 + 1500);
    ck_assert_uint_eq(m->models[0]->first.sum, 100 + 250);
    ck_assert_uint_eq(m->models[0]->per_token.count, 2);
    trm_metrics_destroy(m);
}
END_TEST

/* ---- bounds ---- */
START_TEST(unloaded_models_are_forgotten)
{
    trm_metrics *m = make();
    trm_metrics_model_gauges live = {.model = "live", .version = 1, .state = TRM_MODEL_READY};
    trm_metrics_model_gauges listed = {.model = "never", .version = 1, .state = TRM_MODEL_UNLOADED};
    char name[32];

    trm_metrics_models(m, &listed, 1);
    ck_assert_int_eq(m->model_count, 0);
    trm_metrics_models(m, &live, 1);
    for (int i = 0; i < 1000; i++) {
        clock_us += 1000;
        snprintf(name, sizeof(name), "model-%d", i);
        end_chat(m, name, 3000, 2);
    }
    ck_assert_int_eq(m->model_count, 1 + TRMI_METRICS_MODELS_GONE_MAX);
    ck_assert_ptr_nonnull(trmi_model_find(m, "live", 1));
    ck_assert_ptr_nonnull(trmi_model_find(m, "model-999", 1));
    ck_assert_ptr_null(trmi_model_find(m, "model-1", 1));
    trm_metrics_models(m, &live, 1);
    ck_assert_ptr_null(trmi_model_find(m, "model-999", 1)->window); /* gives its memory back */
    ck_assert_ptr_nonnull(trmi_model_find(m, "live", 1)->window);
    trm_metrics_destroy(m);
}
END_TEST

START_TEST(routes_and_codes_are_bounded)
{
    trm_metrics *m = make();
    char route[200];

    for (int i = 0; i < 1000; i++) {
        snprintf(route, sizeof(route), "/%0150d/%d", i, i); /* longer than is kept */
        trm_metrics_http(m, route, i - 100, 5, 1, 2);
        snprintf(route, sizeof(route), "/r%d", i);
        trm_metrics_http(m, route, 200, 5, 1, 2);
        trm_metrics_http(m, "/codes", i, 5, 1, 2);
    }
    trm_metrics_http(m, NULL, 200, 5, 1, 2);
    trm_metrics_http(m, "", 200, 5, 1, 2);
    ck_assert_int_eq(m->route_count, TRMI_METRICS_ROUTES_MAX);
    for (int i = 0; i < m->route_count; i++) {
        uint64_t sum = 0;

        for (int k = 0; k < m->routes[i].code_count; k++) {
            sum += m->routes[i].counts[k];
            for (int j = 0; j < k; j++)
                ck_assert_int_ne(m->routes[i].codes[j], m->routes[i].codes[k]);
        }
        ck_assert_uint_eq(sum, m->routes[i].duration.count);
        for (int j = 0; j < i; j++)
            ck_assert_str_ne(m->routes[i].pattern, m->routes[j].pattern);
    }
    trm_metrics_destroy(m);
}
END_TEST

/* ---- replicas ---- */
static void tell(trm_metrics *m, const char *replica, uint64_t time_us, uint64_t tokens,
                 uint64_t busy_us)
{
    static const char *const names[2] = {"m", NULL};
    static const int64_t versions[2] = {1, 0};
    trm_wire_model_stats models[2] = {{.slot = 4,
                                       .kv_pages = 100,
                                       .kv_pages_used = 25,
                                       .new_tokens = tokens,
                                       .prefix_queries = 2 * tokens,
                                       .prefix_hits = tokens,
                                       .steps = tokens},
                                      {.slot = 9, .new_tokens = 1}};
    trm_wire_rank_stats ranks[3] = {{.rank = 0,
                                     .pid = 7,
                                     .host = "a",
                                     .device = "cpu",
                                     .memory_bytes = 1 << 20,
                                     .busy_us = busy_us,
                                     .cpu_us = 2 * busy_us},
                                    {.rank = 1, .pid = 8, .host = "b", .device = "cpu"},
                                    {.rank = 1, .pid = 9, .host = "told twice", .device = "cpu"}};
    trm_wire_stats stats = {
        .time_us = time_us, .models = models, .model_count = 2, .ranks = ranks, .rank_count = 3};

    trm_metrics_stats(m, replica, &stats, names, versions);
}

START_TEST(a_restart_never_takes_away)
{
    trm_metrics *m = make();
    json_t *status;

    trm_metrics_replica(m, "0/1", "ready");
    tell(m, "0/1", 1000000, 100, 0);
    tell(m, "0/1", 2000000, 250, 500000);
    ck_assert_uint_eq(m->models[0]->step_new_tokens, 250);
    ck_assert_double_eq_tol(m->replicas[0]->ranks[0].utilisation, 0.5, 1e-9);
    ck_assert_double_eq_tol(m->replicas[0]->ranks[0].cpu, 1, 1e-9);
    ck_assert_int_eq(m->replicas[0]->rank_count, 2);
    /* the next life joins before the hub has said good-bye to the first */
    trm_metrics_replica(m, "0/2", "joining");
    trm_metrics_replica_gone(m, "0/1", true);
    ck_assert_int_eq(m->replica_count, 1);
    ck_assert(!m->replicas[0]->gone);
    ck_assert_uint_eq(m->replicas_lost, 1);
    ck_assert_double_eq(m->replicas[0]->ranks[0].utilisation, 0);
    tell(m, "0/2", 100000, 30, 20000);
    tell(m, "0/2", 200000, 40, 30000);
    ck_assert_uint_eq(m->models[0]->step_new_tokens, 290);
    ck_assert_uint_eq(m->models[0]->prefix_queries, 580);
    ck_assert_uint_eq(m->replicas[0]->ranks[0].busy_before + m->replicas[0]->ranks[0].busy_us,
                      530000);
    tell(m, "0/2", 50000, 5, 10); /* started again under the same name */
    ck_assert_uint_eq(m->models[0]->step_new_tokens, 295);
    ck_assert_uint_eq(m->replicas[0]->ranks[0].busy_before + m->replicas[0]->ranks[0].busy_us,
                      530010);
    tell(m, "1/1", 1000000, 7, 0);
    ck_assert_uint_eq(m->models[0]->step_new_tokens, 302);
    status = trm_metrics_status(m);
    ck_assert_double_eq(at(status, 0, "kv_usage"), 0.25);
    ck_assert_double_eq(at(status, 0, "prefix_hit_rate"), 0.5);
    ck_assert_double_eq(at(status, 0, "step_generation_tokens"), 302);
    json_decref(status);
    trm_metrics_replica_gone(m, "1/1", false);
    ck_assert(m->replicas[1]->gone);
    ck_assert_str_eq(m->replicas[1]->state, "left");
    trm_metrics_destroy(m);
}
END_TEST

START_TEST(gone_replicas_are_forgotten)
{
    trm_metrics *m = make();
    char identity[32];

    trm_metrics_replica(m, "stays/1", "ready");
    for (int i = 0; i < 500; i++) {
        clock_us += 10;
        snprintf(identity, sizeof(identity), "%d/1", i);
        tell(m, identity, 1000, 1, 0);
        trm_metrics_replica_gone(m, identity, i % 2 == 0);
    }
    ck_assert_int_eq(m->replica_count, 1 + TRMI_METRICS_REPLICAS_GONE_MAX);
    ck_assert_uint_eq(m->replicas_lost, 250);
    trm_metrics_replica_gone(m, "unknown/7", false);
    trm_metrics_destroy(m);
}
END_TEST

/* slots that point to models which make room for others */
START_TEST(slots_outlive_their_models)
{
    enum { MODELS = 200 };
    trm_metrics *m = make();
    trm_wire_model_stats models[MODELS] = {{0}};
    char text[MODELS][16];
    const char *names[MODELS];
    int64_t versions[MODELS];
    trm_wire_stats stats = {.models = models, .model_count = MODELS};

    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MODELS; i++) {
            snprintf(text[i], sizeof(text[i]), "m%d", i + 10 * round);
            names[i] = text[i];
            versions[i] = 1;
            models[i] = (trm_wire_model_stats){.slot = (uint32_t)i, .kv_pages = 1};
        }
        clock_us++;
        trm_metrics_stats(m, "0/1", &stats, names, versions);
        json_decref(trm_metrics_status(m));
    }
    ck_assert_int_eq(m->model_count, TRMI_METRICS_MODELS_GONE_MAX);
    stats.model_count = TRM_WIRE_STATS_MAX + 1;
    trm_metrics_stats(m, "0/1", &stats, names, versions);
    stats.model_count = -1;
    trm_metrics_stats(m, "0/1", &stats, names, versions);
    trm_metrics_destroy(m);
}
END_TEST

/* ---- the rest ---- */
START_TEST(nothing_is_kept_of_nobody)
{
    trm_wire_stats stats = {0};

    trm_metrics_ended(NULL, NULL);
    trm_metrics_tokens(NULL, "m", 1, 1, 1);
    trm_metrics_models(NULL, NULL, 0);
    trm_metrics_stats(NULL, "0/1", &stats, NULL, NULL);
    trm_metrics_replica(NULL, "0/1", "ready");
    trm_metrics_replica_gone(NULL, "0/1", true);
    trm_metrics_http(NULL, "/", 200, 1, 1, 1);
    trm_metrics_connections(NULL, 1);
    ck_assert_ptr_null(trm_metrics_prometheus(NULL));
    ck_assert_ptr_null(trm_metrics_status(NULL));
    ck_assert_ptr_null(trm_metrics_model_statistics(NULL, "m", 1));
    trm_metrics_destroy(NULL);
}
END_TEST

/* every allocation fails once: no crash, no leak, and the next one works */
START_TEST(no_memory)
{
    int64_t live = trm_alloc_live();

    for (int64_t n = 0; n < 60; n++) {
        trm_metrics *m = NULL;
        char *text;

        trm_alloc_fail_after(n);
        if (trmi_metrics_create(now_us, &m) == TRM_OK) {
            end_chat(m, "m", 3000, 4);
            tell(m, "0/1", 1000, 1, 1);
            trm_metrics_http(m, "/", 200, 1, 1, 1);
            trm_free(trm_metrics_prometheus(m));
            json_decref(trm_metrics_status(m));
            json_decref(trm_metrics_model_statistics(m, "m", 1));
            trm_alloc_fail_after(-1);
            text = trm_metrics_prometheus(m);
            ck_assert_ptr_nonnull(text);
            trm_free(text);
        }
        trm_alloc_fail_after(-1);
        trm_metrics_destroy(m);
        ck_assert_int_eq(trm_alloc_live(), live);
    }
}
END_TEST

enum { THREADS = 4, ROUNDS = 300 };

static void *worker(void *ctx)
{
    trm_metrics *m = ctx;
    trm_metrics_model_gauges gauges = {.model = "m", .version = 1, .state = TRM_MODEL_READY};

    for (int i = 0; i < ROUNDS; i++) {
        end_chat(m, "m", 8000, 4);
        trm_metrics_tokens(m, "m", 1, 2, 100);
        trm_metrics_models(m, &gauges, 1);
        trm_metrics_http(m, "/v1/models", 200, 10, 20, 30);
        tell(m, i % 2 == 0 ? "0/1" : "1/1", (uint64_t)i, (uint64_t)i, (uint64_t)i);
        __atomic_fetch_add(&clock_us, 10000, __ATOMIC_RELAXED);
        if (i % 50 == 0) {
            trm_free(trm_metrics_prometheus(m));
            json_decref(trm_metrics_status(m));
        }
    }
    return NULL;
}

START_TEST(threads)
{
    trm_metrics *m = make();
    pthread_t thread[THREADS];

    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, worker, m), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    ck_assert_uint_eq(m->models[0]->success[TRM_REQUEST_CHAT], THREADS * ROUNDS);
    ck_assert_uint_eq(m->models[0]->token.count, THREADS * ROUNDS * 5);
    ck_assert_uint_eq(m->routes[0].bytes_out, THREADS * ROUNDS * 30);
    trm_metrics_destroy(m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metrics");
    TCase *tc = tcase_create("metrics");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, percentiles_are_near, 0, sizeof(spreads) / sizeof(spreads[0]));
    tcase_add_test(tc, window_forgets);
    tcase_add_test(tc, rates_are_per_second);
    tcase_add_test(tc, failures_and_retries);
    tcase_add_test(tc, tensor_models);
    tcase_add_test(tc, tokens_are_counted_once);
    tcase_add_test(tc, unloaded_models_are_forgotten);
    tcase_add_test(tc, routes_and_codes_are_bounded);
    tcase_add_test(tc, a_restart_never_takes_away);
    tcase_add_test(tc, gone_replicas_are_forgotten);
    tcase_add_test(tc, slots_outlive_their_models);
    tcase_add_test(tc, nothing_is_kept_of_nobody);
    tcase_add_test(tc, no_memory);
    tcase_add_test(tc, threads);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
