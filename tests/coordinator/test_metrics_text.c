/* The metrics as text: a checker of Prometheus' format (what promtool would say), names as
 * docs/metrics.md lists them, hostile names, and the JSON. */
#include "coordinator/metrics_impl.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a checker of the text format ---- */
enum { FAMILIES_MAX = 128, SERIES_MAX = 8192 };

typedef struct family {
    char name[96], type[16], labels[96]; /* labels: of its samples, in their order, "a,b" */
    int samples;
} family;
typedef struct checker {
    family families[FAMILIES_MAX];
    int family_count;
    char *series[SERIES_MAX]; /* name{labels} of every sample */
    int series_count;
    /* of the histogram series that is being read */
    char bucket_labels[1024];
    double last_le, last_bucket;
    char wrong[256]; /* the first rule that is broken */
} checker;

static bool wrong(checker *c, const char *why, const char *line)
{
    if (c->wrong[0] == '\0')
        snprintf(c->wrong, sizeof(c->wrong), "%s: %.150s", why, line);
    return false;
}

static size_t name_length(const char *s, bool colon)
{
    size_t n = 0;

    while ((s[n] >= 'a' && s[n] <= 'z') || (s[n] >= 'A' && s[n] <= 'Z') || s[n] == '_' ||
           (colon && s[n] == ':') || (n > 0 && s[n] >= '0' && s[n] <= '9'))
        n++;
    return n;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n >= m && strcmp(s + n - m, end) == 0;
}

static bool begin_family(checker *c, const char *line)
{
    size_t n = name_length(line + 7, true);
    family *f = &c->families[c->family_count];

    if (n == 0 || n >= sizeof(f->name) || line[7 + n] != ' ' || line[8 + n] == '\0')
        return wrong(c, "HELP without name or text", line);
    if (c->family_count > 0 && c->families[c->family_count - 1].type[0] == '\0')
        return wrong(c, "HELP without TYPE", line);
    if (c->family_count == FAMILIES_MAX)
        return wrong(c, "too many families", line);
    memcpy(f->name, line + 7, n);
    for (int i = 0; i < c->family_count; i++)
        if (strcmp(c->families[i].name, f->name) == 0)
            return wrong(c, "family twice", line);
    c->family_count++;
    return true;
}

static bool type_family(checker *c, const char *line)
{
    family *f = c->family_count == 0 ? NULL : &c->families[c->family_count - 1];
    size_t n = f == NULL ? 0 : strlen(f->name);

    if (f == NULL || strncmp(line + 7, f->name, n) != 0 || line[7 + n] != ' ' || f->type[0] != '\0')
        return wrong(c, "TYPE is not behind its HELP", line);
    snprintf(f->type, sizeof(f->type), "%s", line + 8 + n);
    if (strcmp(f->type, "counter") != 0 && strcmp(f->type, "gauge") != 0 &&
        strcmp(f->type, "histogram") != 0)
        return wrong(c, "unknown TYPE", line);
    if (ends_with(f->name, "_total") != (strcmp(f->type, "counter") == 0))
        return wrong(c, "counters, and only they, end in _total", line);
    if (ends_with(f->name, "_bucket") || ends_with(f->name, "_sum") || ends_with(f->name, "_count"))
        return wrong(c, "a name that histograms use", line);
    c->bucket_labels[0] = '\0';
    c->last_le = -1;
    return true;
}

/* Labels from `{` to behind `}`; names without `le` go to names_out, the text of all but `le` to
 * others_out, the value of le to le_out. */
static const char *read_labels(checker *c, const char *line, const char *s, char *names_out,
                               char *others_out, char *le_out)
{
    s++;
    while (*s != '}') {
        size_t n = name_length(s, false);
        const char *start = s, *value;
        bool is_le = n == 2 && strncmp(s, "le", 2) == 0;

        if (n == 0 || strncmp(s + n, "=\"", 2) != 0)
            return wrong(c, "label", line) ? s : NULL;
        value = s += n + 2;
        while (*s != '"') {
            if (*s == '\0' || (*s == '\\' && strchr("\\\"n", s[1]) == NULL))
                return wrong(c, "label's value", line) ? s : NULL;
            s += *s == '\\' ? 2 : 1;
        }
        if (is_le) {
            snprintf(le_out, 32, "%.*s", (int)(s - value), value);
        } else {
            if (names_out[0] != '\0')
                strncat(names_out, ",", 2);
            strncat(names_out, start, n);
            strncat(others_out, start, (size_t)(s - start));
        }
        s++;
        if (*s == ',')
            s++;
        else if (*s != '}')
            return wrong(c, "behind a label", line) ? s : NULL;
        if (s[-1] == ',' && *s == '}')
            return wrong(c, "comma before }", line) ? s : NULL;
    }
    return s + 1;
}

static bool check_bucket(checker *c, const char *line, const char *others, const char *le,
                         double value, const char *suffix)
{
    double bound = strcmp(le, "+Inf") == 0 ? INFINITY : strtod(le, NULL);

    if (strcmp(suffix, "_bucket") == 0) {
        if (le[0] == '\0')
            return wrong(c, "bucket without le", line);
        if (strcmp(others, c->bucket_labels) != 0 || c->last_le < 0) {
            snprintf(c->bucket_labels, sizeof(c->bucket_labels), "%s", others);
            c->last_le = c->last_bucket = 0;
        }
        if (bound <= c->last_le || value < c->last_bucket)
            return wrong(c, "buckets do not grow", line);
        c->last_le = bound;
        c->last_bucket = value;
    } else if (strcmp(others, c->bucket_labels) != 0 || !isinf(c->last_le)) {
        return wrong(c, "no +Inf before _sum and _count", line);
    } else if (strcmp(suffix, "_count") == 0) {
        if (value != c->last_bucket)
            return wrong(c, "_count is not +Inf's", line);
        c->last_le = -1;
    } else if (strcmp(suffix, "_sum") != 0) {
        return wrong(c, "a histogram has no such sample", line);
    }
    return true;
}

static bool check_sample(checker *c, const char *line)
{
    family *f = c->family_count == 0 ? NULL : &c->families[c->family_count - 1];
    size_t n = name_length(line, true), base = f == NULL ? 0 : strlen(f->name);
    char names[256] = "", others[1024] = "", le[32] = "", suffix[32] = "";
    const char *s = line + n;
    char *end;
    double value;

    if (f == NULL || f->type[0] == '\0' || n < base || strncmp(line, f->name, base) != 0)
        return wrong(c, "sample outside its family", line);
    snprintf(suffix, sizeof(suffix), "%.*s", (int)(n - base), line + base);
    if (*s == '{' && (s = read_labels(c, line, s, names, others, le)) == NULL)
        return false;
    for (int i = 0; i < c->series_count; i++)
        if (strncmp(c->series[i], line, (size_t)(s - line)) == 0 && c->series[i][s - line] == '\0')
            return wrong(c, "sample twice", line);
    if (c->series_count == SERIES_MAX)
        return wrong(c, "too many samples", line);
    c->series[c->series_count++] = strndup(line, (size_t)(s - line));
    if (*s != ' ')
        return wrong(c, "no space before the value", line);
    value = strtod(s + 1, &end);
    if (end == s + 1 || *end != '\0' || strchr("0123456789", s[1]) == NULL)
        return wrong(c, "value", line);
    if (f->samples++ == 0)
        snprintf(f->labels, sizeof(f->labels), "%.95s", names);
    else if (strcmp(f->labels, names) != 0)
        return wrong(c, "other labels than the sample before", line);
    if (strcmp(f->type, "histogram") == 0)
        return check_bucket(c, line, others, le, value, suffix);
    return (suffix[0] == '\0' && le[0] == '\0') || wrong(c, "not the family's name", line);
}

static checker *check_text(const char *text)
{
    checker *c = calloc(1, sizeof(*c));
    char line[4096];

    while (*text != '\0') {
        size_t n = strcspn(text, "\n");

        ck_assert_msg(n < sizeof(line) && text[n] == '\n', "line without end: %.80s", text);
        memcpy(line, text, n);
        line[n] = '\0';
        text += n + 1;
        if (strncmp(line, "# HELP ", 7) == 0   ? !begin_family(c, line)
            : strncmp(line, "# TYPE ", 7) == 0 ? !type_family(c, line)
                                               : !check_sample(c, line))
            break;
    }
    return c;
}

static void checker_free(checker *c)
{
    for (int i = 0; i < c->series_count; i++)
        free(c->series[i]);
    free(c);
}

/* the checker finds what it is for */
static const struct {
    const char *name, *text;
    bool good;
} texts[] = {
    {"gauge", "# HELP a b\n# TYPE a gauge\na 1\n", true},
    {"labels", "# HELP a b\n# TYPE a gauge\na{b=\"\\\\\\\"\\n\",c=\"\"} 1.5\n", true},
    {"no TYPE", "# HELP a b\na 1\n", false},
    {"counter without _total", "# HELP a b\n# TYPE a counter\na 1\n", false},
    {"gauge with _total", "# HELP a_total b\n# TYPE a_total gauge\na_total 1\n", false},
    {"twice", "# HELP a b\n# TYPE a gauge\na 1\na 2\n", false},
    {"family twice", "# HELP a b\n# TYPE a gauge\na 1\n# HELP a b\n# TYPE a gauge\n", false},
    {"bad escape", "# HELP a b\n# TYPE a gauge\na{b=\"\\x\"} 1\n", false},
    {"open label", "# HELP a b\n# TYPE a gauge\na{b=\"1} 1\n", false},
    {"comma", "# HELP a b\n# TYPE a gauge\na{b=\"1\",} 1\n", false},
    {"no value", "# HELP a b\n# TYPE a gauge\na{b=\"1\"}\n", false},
    {"decimal comma", "# HELP a b\n# TYPE a gauge\na 1,5\n", false},
    {"another's sample", "# HELP a b\n# TYPE a gauge\nb 1\n", false},
    {"histogram",
     "# HELP a b\n# TYPE a histogram\na_bucket{x=\"1\",le=\"1.0\"} 1\n"
     "a_bucket{x=\"1\",le=\"+Inf\"} 2\na_sum{x=\"1\"} 4\na_count{x=\"1\"} 2\n",
     true},
    {"histogram: shrinks",
     "# HELP a b\n# TYPE a histogram\na_bucket{x=\"1\",le=\"1.0\"} 3\n"
     "a_bucket{x=\"1\",le=\"+Inf\"} 2\na_sum{x=\"1\"} 4\na_count{x=\"1\"} 2\n",
     false},
    {"histogram: no +Inf",
     "# HELP a b\n# TYPE a histogram\na_bucket{x=\"1\",le=\"1.0\"} 2\na_sum{x=\"1\"} 4\n", false},
    {"histogram: count",
     "# HELP a b\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 2\na_sum 4\na_count 3\n", false},
};

START_TEST(checker_checks)
{
    checker *c = check_text(texts[_i].text);

    ck_assert_msg((c->wrong[0] == '\0') == texts[_i].good, "%s: %s", texts[_i].name, c->wrong);
    checker_free(c);
}
END_TEST

/* ---- metrics with every family in use ---- */
static trm_metrics *filled(const char *model, const char *host)
{
    trm_metrics *m;
    trm_wire_answer answer = {.prompt_tokens = 10,
                              .cached_tokens = 4,
                              .new_tokens = 5,
                              .queue_us = 1000,
                              .first_us = 5000,
                              .run_us = 20000};
    trm_metrics_request r = {.model = model,
                             .version = 2,
                             .kind = TRM_REQUEST_CHAT,
                             .answer = &answer,
                             .wait_us = 500,
                             .total_us = 25000,
                             .attempts = 2};
    trm_metrics_model_gauges gauges = {.model = model,
                                       .version = 2,
                                       .state = TRM_MODEL_READY,
                                       .running = 3,
                                       .waiting = 1,
                                       .replicas = 1};
    trm_wire_model_stats stats_model = {.kv_pages = 8, .kv_pages_used = 1, .step_us = 1500000};
    trm_wire_rank_stats ranks[2] = {
        {.rank = 0, .host = host, .device = "cpu", .memory_bytes = 4096, .cpu_us = 1},
        {.rank = 1, .host = host, .device = "cuda:0", .cpu_us = 12345678}};
    trm_wire_stats stats = {
        .models = &stats_model, .model_count = 1, .ranks = ranks, .rank_count = 2};
    int64_t version = 2;

    ck_assert_int_eq(trm_metrics_create(&m), TRM_OK);
    trm_metrics_models(m, &gauges, 1);
    trm_metrics_replica(m, "0/1", "ready");
    trm_metrics_stats(m, "0/1", &stats, &model, &version);
    trm_metrics_ended(m, &r);
    r.kind = TRM_REQUEST_INFER;
    answer.batch = 4;
    trm_metrics_ended(m, &r);
    answer.status = TRM_ERR_CANCELLED;
    trm_metrics_ended(m, &r);
    r.model = "another";
    trm_metrics_ended(m, &r);
    trm_metrics_replica(m, "1/1", "joining");
    trm_metrics_replica_gone(m, "1/1", true);
    trm_metrics_http(m, "/v1/chat/completions", 200, 25000, 100, 1000);
    trm_metrics_http(m, "/v1/chat/completions", 429, 2, 100, 10);
    trm_metrics_http(m, "/v2/models/{model}/infer", 0, 2, 100, 10);
    trm_metrics_connections(m, 7);
    return m;
}

static const char *const lines[] = {
    "trireme_num_requests_running{model=\"m\",version=\"2\"} 3",
    "trireme_num_requests_waiting{model=\"m\",version=\"2\"} 1",
    "trireme_model_state{model=\"m\",version=\"2\",state=\"ready\"} 1",
    "trireme_model_state{model=\"another\",version=\"2\",state=\"unloaded\"} 1",
    "trireme_request_success_total{model=\"m\",version=\"2\",kind=\"chat\"} 1",
    "trireme_request_failure_total{model=\"m\",version=\"2\",reason=\"cancelled\"} 1",
    "trireme_prompt_tokens_total{model=\"m\",version=\"2\"} 20",
    "trireme_kv_cache_usage_perc{model=\"m\",version=\"2\"} 0.125",
    "trireme_iteration_seconds_total{model=\"m\",version=\"2\"} 1.5",
    "trireme_e2e_request_latency_seconds_sum{model=\"m\",version=\"2\"} 0.05",
    "trireme_e2e_request_latency_seconds_bucket{model=\"m\",version=\"2\",le=\"0.01\"} 0",
    "trireme_e2e_request_latency_seconds_bucket{model=\"m\",version=\"2\",le=\"0.025\"} 2",
    "trireme_e2e_request_latency_seconds_bucket{model=\"m\",version=\"2\",le=\"+Inf\"} 2",
    "trireme_request_prompt_tokens_bucket{model=\"m\",version=\"2\",le=\"10.0\"} 1",
    "trireme_inter_token_latency_seconds_count{model=\"m\",version=\"2\"} 4",
    "trireme_time_to_first_token_seconds_sum{model=\"m\",version=\"2\"} 0.0055",
    "trireme_batch_size_bucket{model=\"m\",version=\"2\",le=\"4.0\"} 1",
    "trireme_request_retries_total{model=\"m\",version=\"2\"} 3",
    "trireme_rank_cpu_seconds_total{replica=\"0\",rank=\"1\",host=\"h\",device=\"cuda:0\"} "
    "12.345678",
    "trireme_rank_memory_bytes{replica=\"0\",rank=\"0\",host=\"h\",device=\"cpu\"} 4096",
    "trireme_replica_up{replica=\"0\",state=\"ready\"} 1",
    "trireme_replica_up{replica=\"1\",state=\"lost\"} 0",
    "trireme_replica_lost_total 1",
    "trireme_http_requests_total{route=\"/v1/chat/completions\",code=\"429\"} 1",
    "trireme_http_requests_total{route=\"/v2/models/{model}/infer\",code=\"other\"} 1",
    "trireme_http_connections 7",
};

START_TEST(values)
{
    trm_metrics *m = filled("m", "h");
    char *text = trm_metrics_prometheus(m), line[256];

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        snprintf(line, sizeof(line), "\n%s\n", lines[i]);
        ck_assert_msg(strstr(text, line) != NULL, "no line %s in\n%s", lines[i], text);
    }
    trm_free(text);
    trm_metrics_destroy(m);
}
END_TEST

/* docs/metrics.md: rows "| `name` | type | labels | meaning |" */
START_TEST(page_and_code_agree)
{
    trm_metrics *m = filled("m", "h");
    char *text = trm_metrics_prometheus(m), line[1024];
    checker *c = check_text(text);
    FILE *page = fopen(TRM_SOURCE_DIR "/docs/metrics.md", "re");
    int rows = 0;

    ck_assert_msg(c->wrong[0] == '\0', "%s", c->wrong);
    ck_assert_ptr_nonnull(page);
    while (fgets(line, sizeof(line), page) != NULL) {
        char name[96], type[16], labels[96] = "", *field, *rest = line;
        int at = 0;

        if (strncmp(line, "| `trireme_", 11) != 0 && strncmp(line, "| `process_", 11) != 0)
            continue;
        rows++;
        strsep(&rest, "|");
        field = strsep(&rest, "|");
        ck_assert_int_eq(sscanf(field, " `%95[^`]", name), 1);
        field = strsep(&rest, "|");
        ck_assert_int_eq(sscanf(field, " %15s", type), 1);
        for (const char *s = strsep(&rest, "|"); *s != '\0'; s++) /* "a, b" to "a,b" */
            if (*s != ' ' && *s != '`' && strlen(labels) + 2 < sizeof(labels))
                strncat(labels, s, 1);
        ck_assert_msg(rest != NULL && strlen(rest) > 8, "%s: no meaning", name);
        while (at < c->family_count && strcmp(c->families[at].name, name) != 0)
            at++;
        ck_assert_msg(at < c->family_count, "%s is on the page only", name);
        ck_assert_msg(strcmp(c->families[at].type, type) == 0, "%s is a %s, the page says %s", name,
                      c->families[at].type, type);
        ck_assert_msg(c->families[at].samples > 0, "%s has no sample", name);
        ck_assert_msg(strcmp(c->families[at].labels, labels) == 0,
                      "%s has labels %s, the page says %s", name, c->families[at].labels, labels);
    }
    fclose(page);
    ck_assert_int_eq(rows, c->family_count);
    checker_free(c);
    trm_free(text);
    trm_metrics_destroy(m);
}
END_TEST

/* ---- hostile names ---- */
static const struct {
    const char *name, *model, *label;
} hostile[] = {
    {"plain", "llama", "llama"},
    {"quotes", "a\"b\\c", "a\\\"b\\\\c"},
    {"a second line", "x\"} 1\nevil_total 9", "x\\\"} 1?evil_total 9"},
    {"markup", "<script>alert(1)</script>", "<script>alert(1)</script>"},
    {"UTF-8", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
    {"no UTF-8", "a\xff\xc0\xaf\xed\xa0\x80z", "a??????z"},
    {"cut short", "a\xe2\x82", "a??"},
    {"control characters", "a\x01\x1b[2J\x7f", "a??[2J?"},
    {"empty", "", ""},
};

START_TEST(hostile_names)
{
    trm_metrics *m = filled(hostile[_i].model, hostile[_i].model);
    char *text = trm_metrics_prometheus(m), line[256], *dump;
    checker *c = check_text(text);
    json_t *status = trm_metrics_status(m);

    ck_assert_msg(c->wrong[0] == '\0', "%s: %s", hostile[_i].name, c->wrong);
    snprintf(line, sizeof(line), "\ntrireme_num_requests_running{model=\"%s\",version=\"2\"} 3\n",
             hostile[_i].label);
    ck_assert_msg(strstr(text, line) != NULL, "%s", hostile[_i].name);
    ck_assert_ptr_nonnull(status);
    dump = json_dumps(status, 0);
    ck_assert_ptr_nonnull(dump);
    free(dump);
    json_decref(status);
    checker_free(c);
    trm_free(text);
    trm_metrics_destroy(m);
}
END_TEST

START_TEST(long_names)
{
    char name[1000];
    trm_metrics *m;
    char *text;
    checker *c;

    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    memcpy(name + 126, "\xe2\x82\xac", 3); /* would be cut in its middle */
    m = filled(name, name);
    text = trm_metrics_prometheus(m);
    c = check_text(text);
    ck_assert_msg(c->wrong[0] == '\0', "%s", c->wrong);
    ck_assert_ptr_null(strstr(text, "\xe2"));
    checker_free(c);
    trm_free(text);
    trm_metrics_destroy(m);
}
END_TEST

/* ---- JSON ---- */
static const char *const members[] = {"name",
                                      "version",
                                      "state",
                                      "replicas",
                                      "running",
                                      "waiting",
                                      "requests",
                                      "failures",
                                      "retries",
                                      "prompt_tokens",
                                      "requests_s",
                                      "generation_tokens",
                                      "prompt_tokens_s",
                                      "failures_s",
                                      "generation_tokens_s",
                                      "step_prompt_tokens",
                                      "ttft_ms",
                                      "itl_ms",
                                      "e2e_ms",
                                      "queue_ms",
                                      "kv_usage",
                                      "preemptions",
                                      "prefix_hit_rate",
                                      "batch_mean"};

START_TEST(status_has_what_it_says)
{
    trm_metrics *m = filled("m", "h");
    json_t *status = trm_metrics_status(m), *model, *replica, *rank;
    double memory;
    int lost, connections;

    model = json_array_get(json_object_get(status, "models"), 1);
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        ck_assert_msg(json_object_get(model, members[i]) != NULL, "no %s", members[i]);
    ck_assert_str_eq(json_string_value(json_object_get(model, "name")), "m");
    ck_assert_str_eq(json_string_value(json_object_get(model, "state")), "ready");
    ck_assert(json_is_null(json_object_get(model, "prefix_hit_rate")));
    ck_assert(json_is_number(json_object_get(json_object_get(model, "ttft_ms"), "p99")));
    replica = json_array_get(json_object_get(status, "replicas"), 0);
    ck_assert_str_eq(json_string_value(json_object_get(replica, "identity")), "0/1");
    rank = json_array_get(json_object_get(replica, "ranks"), 1);
    ck_assert_str_eq(json_string_value(json_object_get(rank, "device")), "cuda:0");
    ck_assert_int_eq(json_unpack(status, "{s:{s:i},s:{s:F},s:i}", "http", "connections",
                                 &connections, "process", "memory_bytes", &memory, "replicas_lost",
                                 &lost),
                     0);
    ck_assert_int_eq(connections, 7);
    ck_assert_double_gt(memory, 100000);
    ck_assert_int_eq(lost, 1);
    json_decref(status);
    trm_metrics_destroy(m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metrics_text");
    TCase *tc = tcase_create("metrics_text");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, checker_checks, 0, sizeof(texts) / sizeof(texts[0]));
    tcase_add_test(tc, values);
    tcase_add_test(tc, page_and_code_agree);
    tcase_add_loop_test(tc, hostile_names, 0, sizeof(hostile) / sizeof(hostile[0]));
    tcase_add_test(tc, long_names);
    tcase_add_test(tc, status_has_what_it_says);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
