/* /v1/batches: checks of lines, running, cancelling, expiry, and going on after a restart. */
#define _GNU_SOURCE
#include "openai_world.h"

#include "base/file.h"

/* ---- batches ---- */
static json_t *create(struct world *w, const char *key, const char *input, const char *endpoint,
                      const char *window, int *status_out)
{
    char body[512];

    snprintf(body, sizeof(body),
             "{\"input_file_id\":\"%s\",\"endpoint\":\"%s\",\"completion_window\":\"%s\","
             "\"metadata\":{\"a\":\"b\"}}",
             input, endpoint, window);
    return call(w, "POST", "/v1/batches", key, NULL, NULL, body, status_out);
}

static void start(struct world *w, const char *key, const char *text, const char *window,
                  char id_out[TRMI_OPENAI_ID_BYTES])
{
    char input[TRMI_OPENAI_ID_BYTES];
    int status;
    json_t *o;

    upload(w, key, "batch", text, input);
    o = create(w, key, input, "/v1/completions", window, &status);
    ck_assert_int_eq(status, 200);
    ck_assert_str_eq(json_string_value(json_object_get(o, "status")), "validating");
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(o, "metadata"), "a")), "b");
    snprintf(id_out, TRMI_OPENAI_ID_BYTES, "%s", json_string_value(json_object_get(o, "id")));
    json_decref(o);
}

static int count_of(const json_t *batch, const char *name)
{
    return (int)json_integer_value(json_object_get(json_object_get(batch, "request_counts"), name));
}

/* Until the batch has this status, and so many lines are completed (-1: any). */
static json_t *wait_for(struct world *w, const char *key, const char *id, const char *want,
                        int completed)
{
    int64_t deadline = trm_deadline_us(KIT_PATIENCE_MS);

    for (;;) {
        int status;
        json_t *o = call(w, "GET", "/v1/batches/{id}", key, id, NULL, NULL, &status);
        const char *now = json_string_value(json_object_get(o, "status"));

        ck_assert_int_eq(status, 200);
        if (strcmp(now, want) == 0 && (completed < 0 || count_of(o, "completed") == completed))
            return o;
        ck_assert_msg(trm_now_us() < deadline, "%s is %s with %d, wanted %s with %d", id, now,
                      count_of(o, "completed"), want, completed);
        json_decref(o);
        usleep(2000);
    }
}

/* LINES lines; every third is one that the hub holds, where `hold`. */
static char *lines_of(bool hold, const char *model)
{
    char *text = calloc(LINES, 256);
    size_t n = 0;

    for (int i = 0; i < LINES; i++)
        n += (size_t)snprintf(text + n, 256,
                              "{\"custom_id\":\"id-%d\",\"method\":\"POST\",\"url\":\"/v1/"
                              "completions\",\"body\":{\"model\":\"%s\",\"n\":%d%s}}%s",
                              i, model, i, hold && i % 3 == 0 ? ",\"hold\":1" : "",
                              i + 1 < LINES ? "\n" : "");
    return text;
}

/* Each custom_id of [0, LINES) once; returns the lines. */
static int count_ids(const char *text, int *counts)
{
    int n = 0;

    for (const char *p = text; *p != '\0'; n++) {
        const char *end = strchr(p, '\n');
        json_t *o;
        const char *id;

        ck_assert_ptr_nonnull(end);
        o = json_loadb(p, (size_t)(end - p), 0, NULL);
        id = json_string_value(json_object_get(o, "custom_id"));
        ck_assert_ptr_nonnull(id);
        counts[strtol(id + 3, NULL, 10)]++;
        json_decref(o);
        p = end + 1;
    }
    return n;
}

START_TEST(batch)
{
    struct world w;
    char id[TRMI_OPENAI_ID_BYTES], *text = lines_of(false, "good");
    int counts[LINES] = {0}, status;
    json_t *o, *line, *response;
    const char *output;

    world_init(&w);
    w.hub.refuse = 3; /* the queue is full for a while */
    start(&w, "ann", text, "24h", id);
    free(text);
    o = wait_for(&w, "ann", id, "completed", LINES);
    ck_assert_int_eq(count_of(o, "total"), LINES);
    ck_assert_int_eq(count_of(o, "failed"), 0);
    ck_assert(json_is_null(json_object_get(o, "error_file_id")));
    ck_assert(json_is_null(json_object_get(o, "errors")));
    ck_assert(json_is_null(json_object_get(o, "failed_at")));
    ck_assert_int_gt(json_integer_value(json_object_get(o, "completed_at")), 0);
    ck_assert_int_gt(json_integer_value(json_object_get(o, "in_progress_at")), 0);
    ck_assert_int_gt(json_integer_value(json_object_get(o, "finalizing_at")), 0);
    ck_assert_int_eq(json_integer_value(json_object_get(o, "expires_at")) -
                         json_integer_value(json_object_get(o, "created_at")),
                     86400);
    output = json_string_value(json_object_get(o, "output_file_id"));
    text = content_of(&w, "ann", output);
    ck_assert_int_eq(count_ids(text, counts), LINES);
    for (int i = 0; i < LINES; i++)
        ck_assert_int_eq(counts[i], 1);
    line = json_loadb(text, (size_t)(strchr(text, '\n') - text), 0, NULL);
    response = json_object_get(line, "response");
    ck_assert_int_eq(json_integer_value(json_object_get(response, "status_code")), 200);
    ck_assert(json_is_string(json_object_get(response, "request_id")));
    ck_assert(json_is_object(json_object_get(json_object_get(response, "body"), "ok")));
    ck_assert(json_is_null(json_object_get(line, "error")));
    ck_assert(json_is_string(json_object_get(line, "id")));
    json_decref(line);
    free(text);
    pthread_mutex_lock(&w.hub.mu);
    ck_assert_int_le(w.hub.under_way_most, 4);
    ck_assert_int_lt(w.hub.last->priority, 0);
    ck_assert_str_eq(w.hub.last->owner, "ann");
    pthread_mutex_unlock(&w.hub.mu);
    json_decref(call(&w, "GET", "/v1/files/{id}", "bob", output, NULL, NULL, &status));
    ck_assert_int_eq(status, 404);
    json_decref(o);
    /* lists and owners */
    o = call(&w, "GET", "/v1/batches", "ann", NULL, NULL, NULL, &status);
    ck_assert_uint_eq(json_array_size(json_object_get(o, "data")), 1);
    json_decref(o);
    o = call(&w, "GET", "/v1/batches", "ann", NULL, "limit\000101", NULL, &status);
    ck_assert_int_eq(status, 400);
    json_decref(o);
    o = call(&w, "GET", "/v1/batches", "bob", NULL, NULL, NULL, &status);
    ck_assert_uint_eq(json_array_size(json_object_get(o, "data")), 0);
    json_decref(o);
    json_decref(call(&w, "GET", "/v1/batches/{id}", "bob", id, NULL, NULL, &status));
    ck_assert_int_eq(status, 404);
    json_decref(call(&w, "POST", "/v1/batches/{id}/cancel", "bob", id, NULL, NULL, &status));
    ck_assert_int_eq(status, 404);
    json_decref(call(&w, "POST", "/v1/batches/{id}/cancel", "ann", id, NULL, NULL, &status));
    ck_assert_int_eq(status, 409);
    /* and after a restart */
    trmi_openai_files_close(&w.g);
    world_open(&w);
    o = wait_for(&w, "ann", id, "completed", LINES);
    text = content_of(&w, "ann", json_string_value(json_object_get(o, "output_file_id")));
    ck_assert_int_eq(count_ids(text, counts), LINES);
    free(text);
    json_decref(o);
    world_fini(&w);
}
END_TEST

/* Several at once share what may be under way; each ends. */
START_TEST(several)
{
    struct world w;
    char ids[20][TRMI_OPENAI_ID_BYTES], *text = lines_of(false, "good");

    world_init(&w);
    for (int i = 0; i < 20; i++)
        start(&w, "ann", text, "24h", ids[i]);
    for (int i = 0; i < 20; i++)
        json_decref(wait_for(&w, "ann", ids[i], "completed", LINES));
    ck_assert_int_le(w.hub.under_way_most, 4);
    free(text);
    world_fini(&w);
}
END_TEST

/* Lines that fail, each in its way, beside good ones. */
#define GOOD_LINE(id)                                                                              \
    "{\"custom_id\":\"" id "\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":"
START_TEST(failing_lines)
{
    static const char *const text = "\xef\xbb\xbf" /* as Windows' editors begin a file */
        GOOD_LINE("id-0") "{\"model\":\"good\"}}\n" GOOD_LINE(
            "id-1") "{\"model\":\"unknown\"}}"
                    "\n\r\n  \n" GOOD_LINE("id-2") "{\"model\":\"bad\"}}\r\n" GOOD_LINE(
                        "id-3") "{\"model\":"
                                "\"good\","
                                "\"stream\":true}"
                                "}\n" GOOD_LINE("id-4") "{\"model\":17}}\n" GOOD_LINE(
                                    "id-5") "{\"model\":\"lost\"}}";
    static const int want[] = {200, 404, 400, 400, 400, 503};
    struct world w;
    char id[TRMI_OPENAI_ID_BYTES], *errors;
    int got[6] = {200, 0, 0, 0, 0, 0};
    json_t *o;

    world_init(&w);
    start(&w, "ann", text, "24h", id);
    o = wait_for(&w, "ann", id, "completed", 1);
    ck_assert_int_eq(count_of(o, "total"), 6);
    ck_assert_int_eq(count_of(o, "failed"), 5);
    errors = content_of(&w, "ann", json_string_value(json_object_get(o, "error_file_id")));
    for (const char *p = errors; *p != '\0'; p = strchr(p, '\n') + 1) {
        json_t *line = json_loadb(p, (size_t)(strchr(p, '\n') - p), 0, NULL);
        const json_t *response = json_object_get(line, "response");

        got[strtol(json_string_value(json_object_get(line, "custom_id")) + 3, NULL, 10)] =
            (int)json_integer_value(json_object_get(response, "status_code"));
        ck_assert(json_is_string(json_object_get(
            json_object_get(json_object_get(response, "body"), "error"), "message")));
        json_decref(line);
    }
    for (int i = 0; i < 6; i++)
        ck_assert_int_eq(got[i], want[i]);
    free(errors);
    json_decref(o);
    world_fini(&w);
}
END_TEST

static const struct {
    const char *name, *text, *code, *param;
    int line;
} bad_inputs[] = {
    {"empty", "", "empty_file", NULL, 0},
    {"blank", "\n \n\t\r\n", "empty_file", NULL, 0},
    {"not JSON", GOOD_LINE("a") "{}}\n{\"custom_id\":", "invalid_json_line", NULL, 2},
    {"a list", "[]", "invalid_json_line", NULL, 1},
    {"no id", "{\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{}}",
     "missing_required_parameter", "custom_id", 1},
    {"no method", "{\"custom_id\":\"a\",\"url\":\"/v1/completions\",\"body\":{}}",
     "missing_required_parameter", "method", 1},
    {"no url", "{\"custom_id\":\"a\",\"method\":\"POST\",\"body\":{}}",
     "missing_required_parameter", "url", 1},
    {"no body", "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\"}",
     "missing_required_parameter", "body", 1},
    {"an id that is a number",
     "{\"custom_id\":1,\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{}}",
     "invalid_custom_id", "custom_id", 1},
    {"an id that is not UTF-8",
     "{\"custom_id\":\"\xff\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{}}",
     "invalid_custom_id", "custom_id", 1},
    {"GET", "{\"custom_id\":\"a\",\"method\":\"GET\",\"url\":\"/v1/completions\",\"body\":{}}",
     "invalid_method", "method", 1},
    {"another url",
     "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/embeddings\",\"body\":{}}",
     "url_mismatch", "url", 1},
    {"a body that is text",
     "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":\"{}\"}",
     "invalid_body", "body", 1},
    {"an id twice", GOOD_LINE("a") "{}}\n\n" GOOD_LINE("\\u0061") "{}}", "duplicate_custom_id",
     "custom_id", 3},
};

START_TEST(bad_input)
{
    struct world w;
    char id[TRMI_OPENAI_ID_BYTES];
    json_t *o, *errors, *e;

    world_init(&w);
    start(&w, "ann", bad_inputs[_i].text, "24h", id);
    o = wait_for(&w, "ann", id, "failed", -1);
    errors = json_object_get(o, "errors");
    ck_assert_str_eq(json_string_value(json_object_get(errors, "object")), "list");
    e = json_array_get(json_object_get(errors, "data"), 0);
    ck_assert_str_eq(json_string_value(json_object_get(e, "code")), bad_inputs[_i].code);
    ck_assert_int_eq(json_integer_value(json_object_get(e, "line")), bad_inputs[_i].line);
    if (bad_inputs[_i].param != NULL)
        ck_assert_str_eq(json_string_value(json_object_get(e, "param")), bad_inputs[_i].param);
    ck_assert(json_is_string(json_object_get(e, "message")));
    ck_assert(json_is_null(json_object_get(o, "output_file_id")));
    ck_assert_int_gt(json_integer_value(json_object_get(o, "failed_at")), 0);
    ck_assert_int_eq(w.hub.submitted, 0);
    json_decref(o);
    /* and it is so after a restart */
    trmi_openai_files_close(&w.g);
    world_open(&w);
    o = wait_for(&w, "ann", id, "failed", -1);
    ck_assert_uint_gt(json_array_size(json_object_get(json_object_get(o, "errors"), "data")), 0);
    json_decref(o);
    world_fini(&w);
}
END_TEST

START_TEST(too_many_lines)
{
    struct world w;
    size_t each = 96, n = 0;
    char *text = malloc(each * (TRMI_OPENAI_BATCH_LINES + 2)), id[TRMI_OPENAI_ID_BYTES];
    json_t *o;

    for (int i = 0; i <= TRMI_OPENAI_BATCH_LINES; i++)
        n += (size_t)snprintf(text + n, each,
                              "{\"custom_id\":\"%d\",\"method\":\"POST\",\"url\":\"/v1/"
                              "completions\",\"body\":{}}\n",
                              i);
    world_init(&w);
    start(&w, "ann", text, "24h", id);
    o = wait_for(&w, "ann", id, "failed", -1);
    ck_assert_str_eq(
        json_string_value(json_object_get(
            json_array_get(json_object_get(json_object_get(o, "errors"), "data"), 0), "code")),
        "too_many_tasks");
    json_decref(o);
    free(text);
    world_fini(&w);
}
END_TEST

static const struct {
    const char *name, *body;
    int status;
    const char *message;
} bad_creates[] = {
    {"not JSON", "{", 400, "not JSON"},
    {"a list", "[]", 400, "not an object"},
    {"nothing", "{}", 400, "input_file_id is missing"},
    {"no endpoint", "{\"input_file_id\":\"x\"}", 400, "endpoint is missing"},
    {"a number", "{\"input_file_id\":1}", 400, "not a string"},
    {"no window", "{\"input_file_id\":\"x\",\"endpoint\":\"/v1/completions\"}", 400,
     "completion_window is missing"},
    {"a strange window",
     "{\"input_file_id\":\"x\",\"endpoint\":\"/v1/completions\",\"completion_window\":\"soon\"}",
     400, "completion_window"},
    {"a long window",
     "{\"input_file_id\":\"x\",\"endpoint\":\"/v1/completions\",\"completion_window\":\"31d\"}",
     400, "completion_window"},
    {"a strange endpoint",
     "{\"input_file_id\":\"x\",\"endpoint\":\"/v1/files\",\"completion_window\":\"24h\"}", 400,
     "endpoint is"},
    {"no such file",
     "{\"input_file_id\":\"x\",\"endpoint\":\"/v1/completions\",\"completion_window\":\"24h\"}",
     404, "no file"},
    {"metadata of numbers",
     "{\"input_file_id\":\"x\",\"endpoint\":\"/v1/completions\",\"completion_window\":\"24h\","
     "\"metadata\":{\"a\":1}}",
     400, "metadata"},
};

START_TEST(bad_create)
{
    struct world w;
    int status;
    json_t *o;

    world_init(&w);
    o = call(&w, "POST", "/v1/batches", NULL, NULL, NULL, bad_creates[_i].body, &status);
    ck_assert_msg(status == bad_creates[_i].status, "%s", bad_creates[_i].name);
    ck_assert_ptr_nonnull(
        strstr(json_string_value(json_object_get(json_object_get(o, "error"), "message")),
               bad_creates[_i].message));
    json_decref(o);
    world_fini(&w);
}
END_TEST

START_TEST(others_input)
{
    struct world w;
    char input[TRMI_OPENAI_ID_BYTES];
    int status;

    world_init(&w);
    upload(&w, "ann", "batch", "x", input);
    json_decref(create(&w, "bob", input, "/v1/completions", "24h", &status));
    ck_assert_int_eq(status, 404);
    upload(&w, "ann", "user_data", "x", input);
    json_decref(create(&w, "ann", input, "/v1/completions", "24h", &status));
    ck_assert_int_eq(status, 400);
    world_fini(&w);
}
END_TEST

START_TEST(cancelled)
{
    struct world w;
    char id[TRMI_OPENAI_ID_BYTES], *text = lines_of(true, "good");
    int status, counts[LINES] = {0}, completed;
    json_t *o;

    world_init(&w);
    w.hub.hold = true;
    start(&w, "ann", text, "24h", id);
    free(text);
    /* every third line is held and four may be under way: 0 to 11 are run */
    json_decref(wait_for(&w, "ann", id, "in_progress", 6));
    o = call(&w, "POST", "/v1/batches/{id}/cancel", "ann", id, NULL, NULL, &status);
    ck_assert_int_eq(status, 200);
    ck_assert_str_eq(json_string_value(json_object_get(o, "status")), "cancelling");
    json_decref(o);
    o = wait_for(&w, "ann", id, "cancelled", -1);
    completed = count_of(o, "completed");
    ck_assert_int_eq(completed, 6);
    ck_assert_int_gt(json_integer_value(json_object_get(o, "cancelling_at")), 0);
    ck_assert_int_gt(json_integer_value(json_object_get(o, "cancelled_at")), 0);
    text = content_of(&w, "ann", json_string_value(json_object_get(o, "output_file_id")));
    ck_assert_int_eq(count_ids(text, counts), completed);
    free(text);
    json_decref(o);
    world_fini(&w);
}
END_TEST

START_TEST(expired)
{
    struct world w;
    char id[TRMI_OPENAI_ID_BYTES], *text = lines_of(true, "good"), *errors;
    int counts[LINES] = {0};
    json_t *o, *line;

    world_init(&w);
    w.hub.hold = true;
    start(&w, "ann", text, "2s", id);
    free(text);
    o = wait_for(&w, "ann", id, "expired", 6);
    ck_assert_int_eq(count_of(o, "failed"), LINES - 6);
    ck_assert_int_gt(json_integer_value(json_object_get(o, "expired_at")), 0);
    text = content_of(&w, "ann", json_string_value(json_object_get(o, "output_file_id")));
    errors = content_of(&w, "ann", json_string_value(json_object_get(o, "error_file_id")));
    ck_assert_int_eq(count_ids(text, counts) + count_ids(errors, counts), LINES);
    for (int i = 0; i < LINES; i++)
        ck_assert_int_eq(counts[i], 1);
    line = json_loadb(errors, (size_t)(strchr(errors, '\n') - errors), 0, NULL);
    ck_assert(json_is_null(json_object_get(line, "response")));
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(line, "error"), "code")),
                     "batch_expired");
    json_decref(line);
    free(text);
    free(errors);
    json_decref(o);
    world_fini(&w);
}
END_TEST

/* The process ends with lines under way, the last line of an output torn; the next one goes on.
 * _i: it ends in order, while draining (what is under way is answered with COMM), or twice. */
START_TEST(restarted)
{
    struct world w;
    char id[TRMI_OPENAI_ID_BYTES], *text = lines_of(true, "good");
    int counts[LINES] = {0}, status;
    char input[TRMI_OPENAI_ID_BYTES];
    json_t *o;

    world_init(&w);
    w.hub.hold = true;
    start(&w, "ann", text, "24h", id);
    free(text);
    o = wait_for(&w, "ann", id, "in_progress", 6);
    snprintf(input, sizeof(input), "%s", json_string_value(json_object_get(o, "input_file_id")));
    json_decref(o);
    json_decref(call(&w, "DELETE", "/v1/files/{id}", "ann", input, NULL, NULL, &status));
    ck_assert_int_eq(status, 409);
    w.g.draining = _i == 1;
    pthread_mutex_lock(&w.hub.mu);
    w.hub.draining = _i == 1;
    pthread_mutex_unlock(&w.hub.mu);
    trmi_openai_files_close(&w.g);
    if (_i == 2) {
        world_open(&w);
        trmi_openai_files_close(&w.g);
    }
    world_tear(&w, "{\"custom_id\":\"id-39\",\"resp");
    w.g.draining = 0;
    pthread_mutex_lock(&w.hub.mu);
    w.hub.draining = false;
    pthread_mutex_unlock(&w.hub.mu);
    kit_hub_set_hold(&w.hub, false);
    world_open(&w);
    o = wait_for(&w, "ann", id, "completed", LINES);
    ck_assert_int_eq(count_of(o, "failed"), 0);
    text = content_of(&w, "ann", json_string_value(json_object_get(o, "output_file_id")));
    ck_assert_int_eq(count_ids(text, counts), LINES);
    for (int i = 0; i < LINES; i++) {
        ck_assert_int_eq(counts[i], 1);
        if (i < 10 && i % 3 != 0) /* was finished: not run twice */
            ck_assert_int_eq(w.seen[i], 1);
    }
    free(text);
    json_decref(o);
    json_decref(call(&w, "DELETE", "/v1/files/{id}", "ann", input, NULL, NULL, &status));
    ck_assert_int_eq(status, 200);
    world_fini(&w);
}
END_TEST

START_TEST(private_folder)
{
    struct world w;
    char id[TRMI_OPENAI_ID_BYTES], *folder, *text = lines_of(false, "good");

    world_init(&w);
    trmi_openai_files_close(&w.g);
    ck_assert_int_eq(setenv("TMPDIR", w.folder, 1), 0);
    w.g.options.files = NULL;
    ck_assert_int_eq(trmi_openai_files_open(&w.g), TRM_OK);
    folder = strdup(w.g.files->folder);
    ck_assert(strncmp(folder, w.folder, strlen(w.folder)) == 0);
    start(&w, "ann", text, "24h", id);
    json_decref(wait_for(&w, "ann", id, "completed", LINES));
    trmi_openai_files_close(&w.g);
    ck_assert(!trm_path_exists(folder));
    free(folder);
    free(text);
    world_fini(&w);
}
END_TEST

/* An allocation fails somewhere on the way: the batch ends all the same, and its counts agree. */
START_TEST(no_memory)
{
    int64_t live = trm_alloc_live();

    for (int n = 0; n < 60; n++) {
        struct world w;
        char id[TRMI_OPENAI_ID_BYTES], *text = lines_of(false, "good");
        json_t *o = NULL;
        const char *status;
        int64_t until = trm_deadline_us(KIT_PATIENCE_MS);

        world_init(&w);
        start(&w, "ann", text, "24h", id);
        trm_alloc_fail_after(5 * n);
        do {
            int http;

            ck_assert(trm_now_us() < until);
            json_decref(o);
            usleep(1000);
            o = call(&w, "GET", "/v1/batches/{id}", "ann", id, NULL, NULL, &http);
            status = json_string_value(json_object_get(o, "status"));
        } while (status == NULL ||
                 (strcmp(status, "completed") != 0 && strcmp(status, "failed") != 0));
        trm_alloc_fail_after(-1);
        if (strcmp(status, "completed") == 0)
            ck_assert_int_eq(count_of(o, "completed") + count_of(o, "failed"), LINES);
        json_decref(o);
        free(text);
        world_fini(&w);
    }
    ck_assert_int_eq(trm_alloc_live(), live);
}
END_TEST

START_TEST(no_memory_to_open)
{
    int64_t live = trm_alloc_live();
    struct world w;
    int opened = 0;

    world_init(&w);
    for (int n = 0; n < 40; n++) {
        trmi_openai_files_close(&w.g);
        trm_alloc_fail_after(n);
        if (trmi_openai_files_open(&w.g) != TRM_OK) {
            trm_alloc_fail_after(-1);
            ck_assert_ptr_null(w.g.files);
            continue;
        }
        trm_alloc_fail_after(-1);
        opened++;
    }
    ck_assert_int_gt(opened, 0);
    world_fini(&w);
    ck_assert_int_eq(trm_alloc_live(), live);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("openai batches");
    TCase *tc = tcase_create("all");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, batch);
    tcase_add_test(tc, several);
    tcase_add_test(tc, failing_lines);
    tcase_add_loop_test(tc, bad_input, 0, sizeof(bad_inputs) / sizeof(bad_inputs[0]));
    tcase_add_test(tc, too_many_lines);
    tcase_add_loop_test(tc, bad_create, 0, sizeof(bad_creates) / sizeof(bad_creates[0]));
    tcase_add_test(tc, others_input);
    tcase_add_test(tc, cancelled);
    tcase_add_test(tc, expired);
    tcase_add_loop_test(tc, restarted, 0, 3);
    tcase_add_test(tc, private_folder);
    tcase_add_test(tc, no_memory);
    tcase_add_test(tc, no_memory_to_open);
    suite_add_tcase(s, tc);
    runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
