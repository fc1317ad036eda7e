/* See score_language.h. Calls of the leader stay under way until their last answer is there; the
 * generator mixes requests of all of them. */
#include "worker/language/score_language.h"

#include "worker/language/run.h"

#include "base/hash.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct call;

/* One record. */
struct item {
    trmi_lm_run run; /* first: callbacks get it */
    struct call *call;
    trm_wire_result *result;
    json_t *line;
    bool batch_form;
    uint64_t index;
    bool over; /* all answers are there */
};

struct call {
    struct call *next;
    trm_lm_score *s;
    trm_arena *scratch;
    struct item *items;
    int count, left;
};

struct trm_lm_score {
    trm_lm_model *model;
    char *name;
    trm_lm_request_defaults defaults;
    struct call *first, *last;
    int64_t done;
    bool rows;
};

trm_status trm_lm_score_create(trm_lm_model *model, const char *name,
                               const trm_lm_request_defaults *defaults, bool rows,
                               trm_lm_score **score_out)
{
    trm_lm_score *s = trm_calloc(1, sizeof(*s));

    if (s == NULL || (s->name = trm_strdup(name)) == NULL) {
        trm_free(s);
        return trm_fail(TRM_ERR_NO_MEMORY, "score");
    }
    s->model = model;
    s->rows = rows;
    s->defaults = *defaults;
    *score_out = s;
    return TRM_OK;
}

static void free_item(struct item *it)
{
    trmi_lm_run_fini(&it->run);
    json_decref(it->line);
    memset(it, 0, sizeof(*it));
}

/* Ends what is under way: nobody waits for it any more. */
static void drop(void *ctx)
{
    trm_lm_score *s = ctx;

    for (struct call *c = s->first; c != NULL; c = c->next)
        for (int i = 0; i < c->count; i++) {
            trmi_lm_run_cancel(&c->items[i].run);
            free_item(&c->items[i]);
        }
    s->first = s->last = NULL;
}

void trm_lm_score_destroy(trm_lm_score *s)
{
    if (s == NULL)
        return;
    drop(s);
    trm_free(s->name);
    trm_free(s);
}

/* ---- lines ---- */

static json_t *id_of(const json_t *line)
{
    json_t *id = json_object_get(line, "custom_id");

    if (id == NULL)
        id = json_object_get(line, "id");
    return id;
}

static uint64_t hash_of(const struct item *it, const trm_wire_record *r)
{
    trm_hash h;

    trm_hash_init(&h, it->index);
    trm_hash_add(&h, r->bytes, r->byte_count);
    return trm_hash_value(&h);
}

/* What the line comes to in the end, into the call's memory. */
static void set_line(struct item *it, json_t *o, const trm_lm_answer *row)
{
    trm_arena *a = it->call->scratch;
    char *text = json_dumps(o, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(9));
    size_t bytes = text != NULL ? strlen(text) : 0;
    trm_wire_tensor *t = trm_arena_alloc(a, 2, sizeof(*t));
    char *copy = trm_arena_alloc_aligned(a, bytes + 1);
    float *floats = row == NULL || row->row == NULL
                        ? NULL
                        : trm_arena_alloc_aligned(a, (size_t)row->width * sizeof(float) + 1);

    if (text == NULL || t == NULL || copy == NULL) {
        it->result->status = TRM_ERR_NO_MEMORY;
        it->result->message = "no memory for an answer";
    } else {
        memcpy(copy, text, bytes);
        t[0] = (trm_wire_tensor){
            .name = "line",
            .tensor = {.dtype = TRM_DTYPE_U8, .rank = 1, .dims = {(int64_t)bytes}, .data = copy}};
        it->result->outputs = t;
        it->result->output_count = 1;
    }
    if (floats != NULL && it->result->output_count == 1) {
        memcpy(floats, row->row, (size_t)row->width * sizeof(float));
        t[1] = (trm_wire_tensor){
            .name = "embedding",
            .tensor = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {row->width}, .data = floats}};
        it->result->output_count = 2;
    }
    free(text);
}

static void finish_item(struct item *it, json_t *o, const trm_lm_answer *row)
{
    set_line(it, o, row);
    json_decref(o);
    it->call->left--;
    free_item(it);
}

static void set_id(const struct item *it, json_t *o, const char *name)
{
    json_t *id = id_of(it->line);

    json_object_set(o, name, id != NULL ? id : json_null());
}

/* What a server would have answered, in the form of a batch's output. */
static void set_response(const struct item *it, json_t *o, int code, json_t *body)
{
    json_t *response = json_object();
    char id[40];

    snprintf(id, sizeof(id), "batch_req_%" PRIu64, it->index);
    json_object_set_new(o, "id", json_string(id));
    set_id(it, o, "custom_id");
    json_object_set_new(response, "status_code", json_integer(code));
    snprintf(id, sizeof(id), "req_%" PRIu64, it->index);
    json_object_set_new(response, "request_id", json_string(id));
    json_object_set(response, "body", body);
    json_object_set_new(o, "response", response);
}

static void fail_item(struct item *it, trm_status st, const char *message)
{
    json_t *o = json_object(), *e = trm_lm_error(st, message), *inner;
    const char *copy = trm_arena_strdup(it->call->scratch, message);

    it->result->status = st;
    it->result->message = copy != NULL ? copy : "failed";
    inner = json_object_get(e, "error");
    if (it->batch_form) {
        bool theirs =
            strcmp(json_string_value(json_object_get(inner, "type")), "invalid_request_error") == 0;

        set_response(it, o, theirs ? 400 : 500, e);
    } else {
        json_object_set_new(o, "index", json_integer((json_int_t)it->index));
        if (id_of(it->line) != NULL)
            set_id(it, o, "id");
    }
    json_object_set(o, "error", inner);
    json_decref(e);
    finish_item(it, o, NULL);
}

/* The short form of our own. */
static json_t *plain_line(const struct item *it, json_t *body)
{
    const trm_lm_request *r = it->run.request;
    const char *what = r->endpoint == TRM_LM_EMBEDDINGS ? "data" : "choices";
    json_t *o = json_object(), *list = json_object_get(body, what), *one;
    size_t count = json_array_size(list);

    json_object_set_new(o, "index", json_integer((json_int_t)it->index));
    if (id_of(it->line) != NULL)
        set_id(it, o, "id");
    if (count == 1) {
        const char *key;
        json_t *v;

        one = json_array_get(list, 0);
        json_object_foreach(one, key, v)
        {
            if (strcmp(key, "message") == 0)
                json_object_set(o, "text", json_object_get(v, "content"));
            else if (strcmp(key, "index") != 0 && strcmp(key, "object") != 0 &&
                     !(strcmp(key, "logprobs") == 0 && json_is_null(v)))
                json_object_set(o, key, v);
        }
    } else {
        json_object_set(o, what, list);
    }
    json_object_set(o, "usage", json_object_get(body, "usage"));
    return o;
}

static json_t *batch_line(const struct item *it, json_t *body)
{
    json_t *o = json_object();

    set_response(it, o, 200, body);
    json_object_set_new(o, "error", json_null());
    return o;
}

static void complete_item(struct item *it, const trm_language *l)
{
    const trm_lm_answer *bad = trmi_lm_run_failure(&it->run);
    int count = it->run.request->prompt_count * it->run.request->choices;
    json_t *body, *o;
    char id[32], text[512];

    if (bad != NULL) {
        trm_status st = trmi_lm_failure_text(bad, text, sizeof(text));

        fail_item(it, st, text);
        return;
    }
    snprintf(id, sizeof(id), "%" PRIu64, it->index);
    body = trm_lm_response(it->run.request, l, it->run.answers, id, (int64_t)time(NULL), false);
    o = it->batch_form ? batch_line(it, body) : plain_line(it, body);
    json_decref(body);
    finish_item(it, o, count == 1 ? &it->run.answers[0] : NULL);
}

/* Finished outside: what the generator still holds is not freed under it. */
static void on_end(trmi_lm_run *run, int answer, const trm_generation_end *e)
{
    (void)answer;
    (void)e;
    if (run->left == 0)
        ((struct item *)run)->over = true;
}

/* ---- calls ---- */

/* Which endpoint a line is for, and its body. */
static trm_status sort_out(struct item *it, const trm_language *l, trm_lm_endpoint *endpoint_out,
                           json_t **body_out)
{
    const json_t *url = json_object_get(it->line, "url"), *body = json_object_get(it->line, "body");
    const char *key;
    json_t *v, *own;

    if (!json_is_object(it->line))
        return trm_fail(TRM_ERR_INVALID_ARG, "the line is no JSON object");
    if (url != NULL || body != NULL) {
        it->batch_form = true;
        if (!json_is_string(url) || !json_is_object(body))
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "a batch line wants \"url\" (text) and \"body\" (an object)");
        *endpoint_out = trm_lm_endpoint_of(json_string_value(url));
        if (*endpoint_out == TRM_LM_ENDPOINT_COUNT)
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "'url' is '%s': want /v1/completions, /v1/chat/completions or "
                            "/v1/embeddings",
                            json_string_value(url));
        *body_out = json_incref((json_t *)(uintptr_t)body);
        return TRM_OK;
    }
    own = json_object();
    if (own == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a line");
    json_object_foreach(it->line, key, v)
    {
        const char *as = strcmp(key, "text") == 0 ? (l->encoder ? "input" : "prompt") : key;

        if (strcmp(key, "id") != 0 && strcmp(key, "custom_id") != 0)
            json_object_set(own, as, v);
    }
    *endpoint_out = json_object_get(own, "messages") != NULL ? TRM_LM_CHAT
                    : json_object_get(own, "input") != NULL  ? TRM_LM_EMBEDDINGS
                                                             : TRM_LM_COMPLETIONS;
    *body_out = own;
    return TRM_OK;
}

static trm_status read_item(trm_lm_score *s, struct item *it, const trm_wire_record *r)
{
    trm_lm_request_defaults d = s->defaults;
    json_error_t error;
    trm_lm_endpoint endpoint;
    json_t *body = NULL;
    trm_status st;

    it->line = json_loadb(r->bytes, r->byte_count, JSON_REJECT_DUPLICATES, &error);
    if (it->line == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "not JSON at byte %d: %s", error.position, error.text);
    TRM_CHECK(sort_out(it, s->model->language, &endpoint, &body));
    if (!d.seed_given)
        d.seed = hash_of(it, r);
    st = trm_lm_request_read(s->model->language, endpoint, body, &d, &it->run.request);
    json_decref(body);
    if (st == TRM_OK && s->rows && it->run.request->prompt_count > 1)
        st = trm_fail(TRM_ERR_INVALID_ARG, "%d inputs: for an .npy output want one a line",
                      it->run.request->prompt_count);
    if (st == TRM_OK && it->run.request->model == NULL) {
        it->run.request->model = trm_strdup(s->name);
        if (it->run.request->model == NULL)
            st = trm_fail(TRM_ERR_NO_MEMORY, "a request");
    }
    return st;
}

static void begin_item(trm_lm_score *s, struct item *it, const trm_wire_record *r)
{
    char text[512];
    trm_status st;

    memset(it->result, 0, sizeof(*it->result));
    it->result->message = "";
    it->index = r->id;
    it->run.language = s->model->language;
    it->run.generator = s->model->generator;
    it->run.end = on_end;
    st = read_item(s, it, r);
    if (st == TRM_OK)
        st = trmi_lm_run_start(&it->run);
    if (st == TRM_OK)
        return;
    snprintf(text, sizeof(text), "%s", trm_message());
    trmi_lm_run_cancel(&it->run);
    fail_item(it, st, text);
}

/* Answers that are complete become lines. */
static void sweep(trm_lm_score *s)
{
    for (struct call *c = s->first; c != NULL; c = c->next)
        for (int i = 0; i < c->count && c->left > 0; i++)
            if (c->items[i].over)
                complete_item(&c->items[i], s->model->language);
}

static trm_status run(void *ctx, trm_leader *leader, const trm_wire_record *records, int n,
                      trm_arena *scratch, trm_wire_result *results_out)
{
    trm_lm_score *s = ctx;
    struct call *c = trm_arena_alloc(scratch, 1, sizeof(*c));
    struct item *items = trm_arena_alloc(scratch, (size_t)n + 1, sizeof(*items));

    if (c == NULL || items == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a batch of %d records", n);
    memset(items, 0, (size_t)n * sizeof(*items));
    *c = (struct call){.s = s, .scratch = scratch, .items = items, .count = n, .left = n};
    if (s->last != NULL)
        s->last->next = c;
    else
        s->first = c;
    s->last = c;
    for (int i = 0; i < n; i++) {
        items[i].call = c;
        items[i].result = &results_out[i];
        begin_item(s, &items[i], &records[i]);
        if (leader != NULL)
            trm_leader_progress(leader);
    }
    return TRM_OK;
}

static int64_t done(void *ctx)
{
    trm_lm_score *s = ctx;

    for (; s->first != NULL && s->first->left == 0; s->done++) {
        s->first = s->first->next;
        if (s->first == NULL)
            s->last = NULL;
    }
    return s->done;
}

static trm_status wait_for_some(void *ctx, trm_leader *leader)
{
    trm_lm_score *s = ctx;
    trm_status st = trm_generator_step(s->model->generator);

    if (st != TRM_OK)
        return st;
    sweep(s);
    if (leader != NULL)
        trm_leader_progress(leader);
    return TRM_OK;
}

trm_leader_model trm_lm_score_callback(trm_lm_score *s)
{
    int batch = s->model->limits.batch;
    /* small calls, so that one long answer keeps few others back; enough of them to fill the batch
     */
    trm_leader_model m = {.ctx = s,
                          .batch_max = batch >= 8 ? batch / 8 : 1,
                          .credits = 2 * batch,
                          .run = run,
                          .done = done,
                          .wait = wait_for_some,
                          .drop = drop};

    return m;
}
