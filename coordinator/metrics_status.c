/* The metrics as JSON: for the status page and `trireme top`, and a model's for v2's statistics. */
#include "coordinator/metrics_impl.h"

#include <math.h>
#include <string.h>

/* Sets a member and takes `value` over, NULL (no memory) included; false then. */
static bool set(json_t *o, const char *name, json_t *value)
{
    return json_object_set_new(o, name, value) == 0;
}

static json_t *number(uint64_t n)
{
    return json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t)n);
}

/* Three digits are enough to read, and keep the text short. */
static json_t *rounded(double value)
{
    return json_real(isfinite(value) ? round(value * 1000) / 1000 : 0);
}

static json_t *percentiles(const trmi_recent *recent, trmi_latency l)
{
    json_t *o;

    if (recent->samples[l] == 0)
        return json_null();
    o = json_object();
    if (!set(o, "p50", rounded(recent->ms[l][0])) || !set(o, "p90", rounded(recent->ms[l][1])) ||
        !set(o, "p99", rounded(recent->ms[l][2])) || !set(o, "count", number(recent->samples[l]))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *share(uint64_t part, uint64_t whole)
{
    return whole == 0 ? json_null() : rounded((double)part / (double)whole);
}

static uint64_t sum(const uint64_t *values, int count)
{
    uint64_t total = 0;

    for (int i = 0; i < count; i++)
        total += values[i];
    return total;
}

/* Tokens a second: what replicas tell while they are at it; where they tell nothing, what answers
 * say at their end. */
static double tokens_per_second(const trmi_recent *r, trmi_rate step, trmi_rate answer)
{
    return r->sums[step] > 0 ? r->per_second[step] : r->per_second[answer];
}

static json_t *model_json(const trmi_model *model)
{
    const trmi_recent *r = &model->recent;
    bool recent_prefix = r->sums[TRMI_RATE_PREFIX_QUERIES] > 0;
    bool recent_batch = r->sums[TRMI_RATE_BATCHES] > 0;
    json_t *o = json_object();
    bool ok =
        set(o, "name", json_string(model->name)) && set(o, "version", json_integer(model->version));

    ok =
        ok && set(o, "state", json_string(trm_model_state_name(model->state))) &&
        set(o, "replicas", json_integer(model->replicas)) &&
        set(o, "running", json_integer(model->running)) &&
        set(o, "waiting", json_integer(model->waiting)) &&
        set(o, "requests", number(sum(model->success, TRM_REQUEST_KIND_COUNT))) &&
        set(o, "failures", number(sum(model->failure, TRM_STATUS_COUNT))) &&
        set(o, "retries", number(model->retried)) &&
        set(o, "prompt_tokens", number(model->prompt_tokens)) &&
        set(o, "generation_tokens", number(model->new_tokens)) &&
        set(o, "prompt_tokens_s",
            rounded(tokens_per_second(r, TRMI_RATE_STEP_PROMPT, TRMI_RATE_ANSWER_PROMPT))) &&
        set(o, "generation_tokens_s",
            rounded(tokens_per_second(r, TRMI_RATE_STEP_NEW, TRMI_RATE_ANSWER_NEW))) &&
        set(o, "requests_s", rounded(r->per_second[TRMI_RATE_REQUESTS])) &&
        set(o, "failures_s", rounded(r->per_second[TRMI_RATE_FAILURES])) &&
        set(o, "step_prompt_tokens", number(model->step_prompt_tokens)) &&
        set(o, "step_generation_tokens", number(model->step_new_tokens)) &&
        set(o, "ttft_ms", percentiles(r, TRMI_LATENCY_FIRST)) &&
        set(o, "itl_ms", percentiles(r, TRMI_LATENCY_TOKEN)) &&
        set(o, "e2e_ms", percentiles(r, TRMI_LATENCY_TOTAL)) &&
        set(o, "queue_ms", percentiles(r, TRMI_LATENCY_QUEUE)) &&
        set(o, "kv_usage", share(model->kv_pages_used, model->kv_pages)) &&
        set(o, "prefix_hit_rate",
            recent_prefix ? share(r->sums[TRMI_RATE_PREFIX_HITS], r->sums[TRMI_RATE_PREFIX_QUERIES])
                          : share(model->prefix_hits, model->prefix_queries)) &&
        set(o, "preemptions", number(model->preemptions)) &&
        set(o, "batch_mean",
            recent_batch ? share(r->sums[TRMI_RATE_BATCHED], r->sums[TRMI_RATE_BATCHES])
                         : share(model->batched, model->batches));
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *rank_json(const trmi_rank *rank)
{
    json_t *o = json_object();

    if (!set(o, "rank", json_integer(rank->rank)) || !set(o, "host", json_string(rank->host)) ||
        !set(o, "pid", json_integer(rank->pid)) || !set(o, "device", json_string(rank->device)) ||
        !set(o, "memory_bytes", number(rank->memory_bytes)) ||
        !set(o, "utilisation", rounded(rank->utilisation)) || !set(o, "cpu", rounded(rank->cpu))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *replica_json(const trmi_replica *r)
{
    json_t *o = json_object(), *ranks = json_array();
    bool ok = ranks != NULL;

    for (int i = 0; i < r->rank_count && ok && !r->gone; i++)
        ok = json_array_append_new(ranks, rank_json(&r->ranks[i])) == 0;
    ok = set(o, "ranks", ranks) && ok && set(o, "replica", json_string(r->name)) &&
         set(o, "identity", json_string(r->identity)) && set(o, "state", json_string(r->state)) &&
         set(o, "up", json_boolean(!r->gone));
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *http_json(const trmi_view *v)
{
    uint64_t requests = 0, errors = 0, refused = 0, in = 0, out = 0;
    json_t *o = json_object();

    for (int i = 0; i < v->route_count; i++) {
        const trmi_route *r = &v->routes[i];

        in += r->bytes_in;
        out += r->bytes_out;
        for (int c = 0; c < r->code_count; c++) {
            requests += r->counts[c];
            refused += r->codes[c] >= 400 && r->codes[c] < 500 ? r->counts[c] : 0;
            errors += r->codes[c] >= 500 ? r->counts[c] : 0;
        }
    }
    if (!set(o, "connections", json_integer(v->connections)) ||
        !set(o, "requests", number(requests)) || !set(o, "client_errors", number(refused)) ||
        !set(o, "server_errors", number(errors)) || !set(o, "bytes_in", number(in)) ||
        !set(o, "bytes_out", number(out))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *process_json(void)
{
    json_t *o = json_object();
    trmi_process p;

    trmi_process_read(&p);
    if (!set(o, "memory_bytes", number(p.resident_bytes)) ||
        !set(o, "cpu_s", rounded((double)p.cpu_us / 1e6)) ||
        !set(o, "open_fds", number(p.open_fds))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

json_t *trm_metrics_status(trm_metrics *m)
{
    trmi_view view;
    json_t *o, *models = json_array(), *replicas = json_array();
    bool ok = models != NULL && replicas != NULL;

    if (m == NULL || trmi_view_take(m, &view) != TRM_OK) {
        json_decref(models);
        json_decref(replicas);
        return NULL;
    }
    for (int i = 0; i < view.model_count && ok; i++)
        ok = json_array_append_new(models, model_json(&view.models[i])) == 0;
    for (int i = 0; i < view.replica_count && ok; i++)
        ok = json_array_append_new(replicas, replica_json(&view.replicas[i])) == 0;
    o = json_object();
    /* both are taken over, whatever happens */
    ok = set(o, "models", models) && ok;
    ok = set(o, "replicas", replicas) && ok;
    ok = ok && set(o, "time", json_real((double)view.unix_ms / 1000)) &&
         set(o, "uptime_s", json_real((double)view.uptime_us / 1e6)) &&
         set(o, "replicas_lost", number(view.replicas_lost)) && set(o, "http", http_json(&view)) &&
         set(o, "process", process_json());
    trmi_view_fini(&view);
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* ---- v2's statistics ---- */
static json_t *duration(uint64_t count, double us)
{
    json_t *o = json_object();

    if (!set(o, "count", number(count)) ||
        !set(o, "ns", number(us > 0 ? (uint64_t)(us * 1000) : 0))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *batch_json(const trmi_batch_size *b)
{
    uint64_t executions = (uint64_t)llround(b->executions);
    json_t *o = json_object();

    if (!set(o, "batch_size", json_integer(b->size)) ||
        !set(o, "compute_input", duration(executions, 0)) ||
        !set(o, "compute_infer", duration(executions, b->run_us)) ||
        !set(o, "compute_output", duration(executions, 0))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *statistics_json(const trmi_model *model)
{
    json_t *o = json_object(), *batches = json_array();
    uint64_t success = sum(model->success, TRM_REQUEST_KIND_COUNT);
    uint64_t failure = sum(model->failure, TRM_STATUS_COUNT);
    /* What is neither waiting nor computing: messages, and making the answer. */
    double rest = (double)model->success_us - (double)model->queue_us - (double)model->run_us;
    bool ok = batches != NULL;

    for (int i = 0; i < model->size_count && ok; i++)
        ok = json_array_append_new(batches, batch_json(&model->sizes[i])) == 0;
    ok = set(o, "batch_stats", batches) && ok;
    ok = ok && set(o, "success", duration(success, (double)model->success_us)) &&
         set(o, "fail", duration(failure, (double)model->failure_us)) &&
         set(o, "queue", duration(success, (double)model->queue_us)) &&
         set(o, "compute_input", duration(success, 0)) &&
         set(o, "compute_infer", duration(success, (double)model->run_us)) &&
         set(o, "compute_output", duration(success, rest)) &&
         set(o, "last_inference", number(model->last_unix_ms)) &&
         set(o, "inference_count", number(model->records)) &&
         set(o, "execution_count", number(model->batches > 0 ? model->batches : model->steps));
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

json_t *trm_metrics_model_statistics(trm_metrics *m, const char *model, int64_t version)
{
    const trmi_model *kept;
    trmi_model *copy;
    json_t *o;

    if (m == NULL)
        return NULL;
    copy = trm_malloc(1, sizeof(*copy));
    if (copy == NULL)
        return NULL;
    pthread_mutex_lock(&m->mu);
    kept = trmi_model_find(m, model, version);
    if (kept != NULL)
        *copy = *kept;
    pthread_mutex_unlock(&m->mu);
    o = kept == NULL ? NULL : statistics_json(copy);
    trm_free(copy);
    return o;
}
