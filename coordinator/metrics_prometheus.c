/* Prometheus' text exposition format, version 0.0.4: one table row a family, families whole and in
 * one piece, HELP and TYPE before their samples. Numbers are written without the locale. */
#include "coordinator/metrics_impl.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#ifndef TRM_VERSION
#define TRM_VERSION "unknown"
#endif

/* ---- text that grows ---- */
typedef struct text {
    char *data;
    size_t used, room;
    bool failed;
} text;

static void put_bytes(text *t, const char *data, size_t bytes)
{
    if (t->failed)
        return;
    if (bytes >= t->room - t->used) {
        size_t room = (t->room + bytes) * 2 + 4096;
        char *data_grown = trm_realloc(t->data, room, 1);

        if (data_grown == NULL) {
            t->failed = true;
            return;
        }
        t->data = data_grown;
        t->room = room;
    }
    memcpy(t->data + t->used, data, bytes);
    t->used += bytes;
    t->data[t->used] = '\0';
}

static void put(text *t, const char *fmt, ...) TRM_PRINTF(2, 3);
static void put(text *t, const char *fmt, ...)
{
    char line[512];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof(line))
        t->failed = true; /* no caller has lines so long */
    else
        put_bytes(t, line, (size_t)n);
}

/* A label, with the comma behind it. */
static void put_label(text *t, const char *name, const char *value)
{
    put(t, "%s=\"", name);
    for (const char *c = value; *c != '\0'; c++) {
        if (*c == '\\')
            put_bytes(t, "\\\\", 2);
        else if (*c == '"')
            put_bytes(t, "\\\"", 2);
        else if (*c == '\n')
            put_bytes(t, "\\n", 2);
        else
            put_bytes(t, c, 1);
    }
    put_bytes(t, "\",", 2);
}

static void drop_comma(text *t)
{
    if (!t->failed)
        t->used--;
}

/* Microseconds as seconds, without zeros that say nothing. */
static void put_seconds(text *t, uint64_t us)
{
    char digits[32];
    int n = snprintf(digits, sizeof(digits), "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);

    while (digits[n - 1] == '0' && digits[n - 2] != '.')
        n--;
    put_bytes(t, digits, (size_t)n);
}

/* A share or the like with six digits, whatever the locale says of the decimal point. */
static void put_decimal(text *t, double value)
{
    put_seconds(t, value > 0 && value < 1e12 ? (uint64_t)(value * 1e6 + 0.5) : 0);
}

static void put_family(text *t, const char *name, const char *type, const char *help)
{
    put(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* `labels`: each with a comma behind it. */
static void put_histogram(text *t, const char *name, const char *labels, const trmi_bounds *bounds,
                          const trmi_histogram *h)
{
    size_t bytes = strlen(labels);
    uint64_t sum = 0;

    for (int i = 0; i <= bounds->count; i++) {
        sum += h->buckets[i];
        put(t, "%s_bucket{", name);
        put_bytes(t, labels, bytes);
        if (i == bounds->count)
            put(t, "le=\"+Inf\"} %" PRIu64 "\n", sum);
        else if (bounds->seconds) {
            put(t, "le=\"");
            put_seconds(t, bounds->upper[i]);
            put(t, "\"} %" PRIu64 "\n", sum);
        } else
            put(t, "le=\"%" PRIu64 ".0\"} %" PRIu64 "\n", bounds->upper[i], sum);
    }
    put(t, "%s_sum{", name);
    put_bytes(t, labels, bytes - 1);
    put(t, "} ");
    if (bounds->seconds)
        put_seconds(t, h->sum);
    else
        put(t, "%" PRIu64, h->sum);
    put(t, "\n%s_count{", name);
    put_bytes(t, labels, bytes - 1);
    put(t, "} %" PRIu64 "\n", h->count);
}

/* ---- families of models ---- */
typedef enum unit { UNIT_U64, UNIT_U32, UNIT_INT, UNIT_US_AS_SECONDS } unit;

typedef struct model_row {
    const char *name, *type, *help;
    size_t offset;
    unit unit;
} model_row;

#define ROW(name, type, field, unit, help)                                                         \
    {                                                                                              \
        "trireme_" name, type, help, offsetof(trmi_model, field), unit                             \
    }
static const model_row model_rows[] = {
    ROW("num_requests_running", "gauge", running, UNIT_U32, "Requests that a replica works on."),
    ROW("num_requests_waiting", "gauge", waiting, UNIT_U32,
        "Requests that wait for a replica or in its queue."),
    ROW("model_replicas", "gauge", replicas, UNIT_INT, "Replicas that have the model ready."),
    ROW("prompt_tokens_total", "counter", prompt_tokens, UNIT_U64,
        "Prompt tokens of requests that succeeded."),
    ROW("generation_tokens_total", "counter", new_tokens, UNIT_U64,
        "Generated tokens of requests that succeeded."),
    ROW("prompt_tokens_cached_total", "counter", cached_tokens, UNIT_U64,
        "Prompt tokens of requests that succeeded which the prefix cache had."),
    ROW("prefix_cache_queries_total", "counter", prefix_queries, UNIT_U64,
        "Tokens that the prefix caches were asked for."),
    ROW("prefix_cache_hits_total", "counter", prefix_hits, UNIT_U64,
        "Tokens that the prefix caches had."),
    ROW("num_preemptions_total", "counter", preemptions, UNIT_U64,
        "Sequences that gave up their KV pages and ran again later."),
    ROW("iterations_total", "counter", steps, UNIT_U64, "Steps of the engines."),
    ROW("iteration_seconds_total", "counter", step_us, UNIT_US_AS_SECONDS,
        "Time inside steps, summed over replicas."),
    ROW("iteration_prompt_tokens_total", "counter", step_prompt_tokens, UNIT_U64,
        "Prompt tokens that replicas took in, repeated work included."),
    ROW("iteration_generation_tokens_total", "counter", step_new_tokens, UNIT_U64,
        "Tokens that replicas generated, repeated work included."),
    ROW("request_retries_total", "counter", retried, UNIT_U64,
        "Requests given to another replica because one was lost."),
    ROW("inference_count_total", "counter", records, UNIT_U64,
        "Inferences: records of tensor models, requests of language models."),
    ROW("inference_request_duration_us_total", "counter", success_us, UNIT_U64,
        "Time of requests that succeeded, end to end, in microseconds."),
    ROW("inference_queue_duration_us_total", "counter", queue_us, UNIT_U64,
        "Time that they waited, in microseconds."),
    ROW("inference_compute_infer_duration_us_total", "counter", run_us, UNIT_U64,
        "Time that they ran, in microseconds."),
};

typedef struct histogram_row {
    const char *name, *help;
    size_t offset;
    const trmi_bounds *bounds;
} histogram_row;

#define HISTOGRAM(name, field, bounds, help)                                                       \
    {                                                                                              \
        "trireme_" name, help, offsetof(trmi_model, field), &trmi_bounds_##bounds                  \
    }
static const histogram_row histogram_rows[] = {
    HISTOGRAM("request_queue_time_seconds", queue, request,
              "Time from the receipt of a request to its first step."),
    HISTOGRAM("time_to_first_token_seconds", first, first,
              "Time from the receipt of a request to its first token."),
    HISTOGRAM("inter_token_latency_seconds", token, token,
              "Time between two tokens of a request, one observation a token."),
    HISTOGRAM("request_time_per_output_token_seconds", per_token, token,
              "Mean time between the tokens of a request, one observation a request."),
    HISTOGRAM("e2e_request_latency_seconds", total, request,
              "Time from the receipt of a request to its end."),
    HISTOGRAM("request_prompt_tokens", prompt, tokens, "Prompt tokens of a request."),
    HISTOGRAM("request_generation_tokens", generated, tokens, "Generated tokens of a request."),
    HISTOGRAM("batch_size", batch, batch,
              "Records of the batch that ran a request of a tensor model."),
};

static void put_value(text *t, const trmi_model *model, size_t offset, unit as)
{
    const char *field = (const char *)model + offset;
    uint64_t value = 0;
    uint32_t small = 0;
    int number = 0;

    switch (as) {
    case UNIT_U32:
        memcpy(&small, field, sizeof(small));
        put(t, "%" PRIu32, small);
        break;
    case UNIT_INT:
        memcpy(&number, field, sizeof(number));
        put(t, "%d", number);
        break;
    case UNIT_U64:
        memcpy(&value, field, sizeof(value));
        put(t, "%" PRIu64, value);
        break;
    case UNIT_US_AS_SECONDS:
        memcpy(&value, field, sizeof(value));
        put_seconds(t, value);
        break;
    }
}

static const char *const reasons[TRM_STATUS_COUNT] = {
    [TRM_OK] = "ok",
    [TRM_ERR_INVALID_ARG] = "invalid_argument",
    [TRM_ERR_BAD_FILE] = "bad_file",
    [TRM_ERR_NOT_FOUND] = "not_found",
    [TRM_ERR_UNSUPPORTED] = "unsupported",
    [TRM_ERR_CONFIG] = "configuration",
    [TRM_ERR_NO_MEMORY] = "no_memory",
    [TRM_ERR_IO] = "io",
    [TRM_ERR_COMM] = "replica_lost",
    [TRM_ERR_TIMEOUT] = "timeout",
    [TRM_ERR_CANCELLED] = "cancelled",
    [TRM_ERR_INTERNAL] = "internal",
    [TRM_ERR_DEVICE] = "device",
};
/* labels[i]: of models[i], each label with its comma. */
static void put_models(text *t, const trmi_view *v, char *const *labels)
{
    for (size_t r = 0; r < sizeof(model_rows) / sizeof(model_rows[0]); r++) {
        const model_row *row = &model_rows[r];

        put_family(t, row->name, row->type, row->help);
        for (int i = 0; i < v->model_count; i++) {
            put(t, "%s{", row->name);
            put_bytes(t, labels[i], strlen(labels[i]) - 1);
            put(t, "} ");
            put_value(t, &v->models[i], row->offset, row->unit);
            put(t, "\n");
        }
    }
    put_family(t, "trireme_model_state", "gauge", "1 for the state that the model is in.");
    for (int i = 0; i < v->model_count; i++) {
        put(t, "trireme_model_state{");
        put_bytes(t, labels[i], strlen(labels[i]));
        put(t, "state=\"%s\"} 1\n", trm_model_state_name(v->models[i].state));
    }
    put_family(t, "trireme_kv_cache_usage_perc", "gauge",
               "Share of the KV pages that is in use; 1 is all of them.");
    for (int i = 0; i < v->model_count; i++) {
        if (v->models[i].kv_pages == 0)
            continue;
        put(t, "trireme_kv_cache_usage_perc{");
        put_bytes(t, labels[i], strlen(labels[i]) - 1);
        put(t, "} ");
        put_decimal(t, (double)v->models[i].kv_pages_used / (double)v->models[i].kv_pages);
        put(t, "\n");
    }
    put_family(t, "trireme_inference_exec_count_total", "counter",
               "Executions: batches of tensor models, steps of language models.");
    for (int i = 0; i < v->model_count; i++) {
        const trmi_model *model = &v->models[i];

        put(t, "trireme_inference_exec_count_total{");
        put_bytes(t, labels[i], strlen(labels[i]) - 1);
        put(t, "} %" PRIu64 "\n", model->batches > 0 ? model->batches : model->steps);
    }
    put_family(t, "trireme_request_success_total", "counter", "Requests that succeeded.");
    for (int i = 0; i < v->model_count; i++)
        for (int k = 0; k < TRM_REQUEST_KIND_COUNT; k++)
            if (v->models[i].success[k] > 0) {
                put(t, "trireme_request_success_total{");
                put_bytes(t, labels[i], strlen(labels[i]));
                put(t, "kind=\"%s\"} %" PRIu64 "\n", trm_request_kind_name((trm_request_kind)k),
                    v->models[i].success[k]);
            }
    put_family(t, "trireme_request_failure_total", "counter", "Requests that failed, and why.");
    for (int i = 0; i < v->model_count; i++)
        for (int k = 0; k < TRM_STATUS_COUNT; k++)
            if (v->models[i].failure[k] > 0) {
                put(t, "trireme_request_failure_total{");
                put_bytes(t, labels[i], strlen(labels[i]));
                put(t, "reason=\"%s\"} %" PRIu64 "\n", reasons[k], v->models[i].failure[k]);
            }
    for (size_t r = 0; r < sizeof(histogram_rows) / sizeof(histogram_rows[0]); r++) {
        const histogram_row *row = &histogram_rows[r];

        put_family(t, row->name, "histogram", row->help);
        for (int i = 0; i < v->model_count; i++) {
            trmi_histogram h;

            memcpy(&h, (const char *)&v->models[i] + row->offset, sizeof(h));
            if (h.count > 0) /* most models are one kind and leave the others' empty */
                put_histogram(t, row->name, labels[i], row->bounds, &h);
        }
    }
}

static char **make_labels(const trmi_view *v)
{
    char **labels = trm_calloc((size_t)v->model_count, sizeof(*labels));
    bool failed = labels == NULL;

    for (int i = 0; i < v->model_count && !failed; i++) {
        text t = {0};

        put_label(&t, "model", v->models[i].name);
        put(&t, "version=\"%" PRId64 "\",", v->models[i].version);
        labels[i] = t.data;
        failed = t.failed;
    }
    if (failed && labels != NULL) {
        for (int i = 0; i < v->model_count; i++)
            trm_free(labels[i]);
        trm_free(labels);
        labels = NULL;
    }
    return labels;
}

/* ---- families of replicas, of HTTP and of the process ---- */
static void put_rank(text *t, const char *name, const trmi_replica *r, const trmi_rank *rank)
{
    put(t, "%s{", name);
    put_label(t, "replica", r->name);
    put(t, "rank=\"%d\",", rank->rank);
    put_label(t, "host", rank->host);
    put_label(t, "device", rank->device);
    drop_comma(t);
    put(t, "} ");
}

static void put_replicas(text *t, const trmi_view *v)
{
    static const char *const names[4] = {"trireme_rank_memory_bytes", "trireme_rank_utilization",
                                         "trireme_rank_busy_seconds_total",
                                         "trireme_rank_cpu_seconds_total"};
    static const char *const helps[4] = {
        "Resident memory of a rank.",
        "Share of the last second that a rank spent in steps; 1 is all of it.",
        "Time that a rank spent in steps, in all its lives.",
        "Processor time of a rank, in all its lives."};

    put_family(t, "trireme_replica_up", "gauge",
               "1: the replica is there, 0: it left or was lost.");
    for (int i = 0; i < v->replica_count; i++) {
        put(t, "trireme_replica_up{");
        put_label(t, "replica", v->replicas[i].name);
        put_label(t, "state", v->replicas[i].state);
        drop_comma(t);
        put(t, "} %d\n", !v->replicas[i].gone);
    }
    put_family(t, "trireme_replica_lost_total", "counter", "Replicas that were lost.");
    put(t, "trireme_replica_lost_total %" PRIu64 "\n", v->replicas_lost);
    for (int f = 0; f < 4; f++) {
        put_family(t, names[f], f < 2 ? "gauge" : "counter", helps[f]);
        for (int i = 0; i < v->replica_count; i++)
            for (int k = 0; k < v->replicas[i].rank_count; k++) {
                const trmi_rank *rank = &v->replicas[i].ranks[k];

                if (v->replicas[i].gone && f < 2)
                    continue; /* what is gone has no memory; its sums stay */
                put_rank(t, names[f], &v->replicas[i], rank);
                if (f == 0)
                    put(t, "%" PRIu64, rank->memory_bytes);
                else if (f == 1)
                    put_decimal(t, rank->utilisation);
                else
                    put_seconds(t, f == 2 ? rank->busy_before + rank->busy_us
                                          : rank->cpu_before + rank->cpu_us);
                put(t, "\n");
            }
    }
}

static void put_http(text *t, const trmi_view *v)
{
    put_family(t, "trireme_http_requests_total", "counter", "HTTP requests that were answered.");
    for (int i = 0; i < v->route_count; i++)
        for (int c = 0; c < v->routes[i].code_count; c++) {
            put(t, "trireme_http_requests_total{");
            put_label(t, "route", v->routes[i].pattern);
            if (v->routes[i].codes[c] == 0)
                put(t, "code=\"other\"");
            else
                put(t, "code=\"%d\"", v->routes[i].codes[c]);
            put(t, "} %" PRIu64 "\n", v->routes[i].counts[c]);
        }
    put_family(t, "trireme_http_request_duration_seconds", "histogram",
               "Time from the first byte of a request to the last of its answer.");
    for (int i = 0; i < v->route_count; i++) {
        text labels = {0};

        put_label(&labels, "route", v->routes[i].pattern);
        if (labels.failed)
            t->failed = true;
        else
            put_histogram(t, "trireme_http_request_duration_seconds", labels.data,
                          &trmi_bounds_http, &v->routes[i].duration);
        trm_free(labels.data);
    }
    for (int out = 0; out < 2; out++) {
        const char *name =
            out ? "trireme_http_response_bytes_total" : "trireme_http_request_bytes_total";

        put_family(t, name, "counter",
                   out ? "Bytes of answers' bodies." : "Bytes of requests' bodies.");
        for (int i = 0; i < v->route_count; i++) {
            put(t, "%s{", name);
            put_label(t, "route", v->routes[i].pattern);
            drop_comma(t);
            put(t, "} %" PRIu64 "\n", out ? v->routes[i].bytes_out : v->routes[i].bytes_in);
        }
    }
    put_family(t, "trireme_http_connections", "gauge", "Open HTTP connections.");
    put(t, "trireme_http_connections %d\n", v->connections);
}

static void put_process(text *t, const trmi_view *v)
{
    trmi_process p;

    trmi_process_read(&p);
    put_family(t, "process_resident_memory_bytes", "gauge", "Resident memory of the coordinator.");
    put(t, "process_resident_memory_bytes %" PRIu64 "\n", p.resident_bytes);
    put_family(t, "process_virtual_memory_bytes", "gauge", "Virtual memory of the coordinator.");
    put(t, "process_virtual_memory_bytes %" PRIu64 "\n", p.virtual_bytes);
    put_family(t, "process_cpu_seconds_total", "counter", "Processor time of the coordinator.");
    put(t, "process_cpu_seconds_total ");
    put_seconds(t, p.cpu_us);
    put(t, "\n");
    put_family(t, "process_open_fds", "gauge", "Open file descriptors.");
    put(t, "process_open_fds %" PRIu64 "\n", p.open_fds);
    put_family(t, "process_max_fds", "gauge", "Most file descriptors that may be open.");
    put(t, "process_max_fds %" PRIu64 "\n", p.max_fds);
    put_family(t, "process_start_time_seconds", "gauge", "Unix time of the start.");
    put(t, "process_start_time_seconds ");
    put_seconds(t, v->start_unix_ms * 1000);
    put(t, "\n");
    put_family(t, "trireme_build_info", "gauge", "Always 1; the label says which version runs.");
    put(t, "trireme_build_info{version=\"%s\"} 1\n", TRM_VERSION);
}

char *trm_metrics_prometheus(trm_metrics *m)
{
    trmi_view view;
    text t = {0};
    char **labels;

    if (m == NULL || trmi_view_take(m, &view) != TRM_OK)
        return NULL;
    labels = make_labels(&view);
    if (labels == NULL) {
        trmi_view_fini(&view);
        return NULL;
    }
    put_models(&t, &view, labels);
    put_replicas(&t, &view);
    put_http(&t, &view);
    put_process(&t, &view);
    for (int i = 0; i < view.model_count; i++)
        trm_free(labels[i]);
    trm_free(labels);
    trmi_view_fini(&view);
    if (t.failed) {
        trm_free(t.data);
        return NULL;
    }
    return t.data;
}
