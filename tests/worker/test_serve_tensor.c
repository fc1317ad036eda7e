/* Dynamic batching: the decision as a table, and the demo network's requests in batches against the
 * same requests alone (the logits of its reference file, made by PyTorch, hold them down). */
#include "base/wait.h"
#include "kernels/device.h"
#include "worker/serve_tensor.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) ck_assert_msg((call) == TRM_OK, "%s", trm_message())
#define DIGITS TRM_SOURCE_DIR "/configs/demo/digits"
enum { PIXELS = 32 * 32, CLASSES = 10, SEEN_MAX = 128 };

/* ---- the decision ---- */

static const int64_t preferred[] = {6, 12};
static const struct due_row {
    const char *name;
    int rows, last;
    int64_t delay, oldest, want;
    int preferred;
} due_rows[] = {
    {"one after one: now", 1, 1, 2000, 500, 0, 0},
    {"fewer than before wait", 3, 8, 2000, 500, 2500, 0},
    {"as many as before: now", 8, 8, 2000, 500, 0, 0},
    {"full: now", 16, 40, 2000, 500, 0, 0},
    {"over full: now", 20, 40, 2000, 500, 0, 0},
    {"a preferred size: now", 6, 12, 2000, 500, 0, 2},
    {"between preferred sizes wait", 7, 12, 2000, 500, 2500, 2},
    {"no delay: now", 1, 9, 0, 500, 0, 0},
};
START_TEST(due)
{
    const struct due_row *r = &due_rows[_i];
    const trm_batcher b = {.max_batch = 16,
                           .max_delay_us = r->delay,
                           .preferred = preferred,
                           .preferred_count = r->preferred,
                           .last_rows = r->last};

    ck_assert_msg(trm_batcher_due_us(&b, r->rows, r->oldest) == r->want, "%s", r->name);
}
END_TEST

static const struct size_row {
    int rows, want, preferred;
} size_rows[] = {{1, 1, 0}, {3, 3, 0}, {7, 7, 0}, {15, 15, 0}, {16, 16, 0}, {99, 16, 0}, {7, 7, 2}};
START_TEST(size)
{
    const struct size_row *r = &size_rows[_i];
    const trm_batcher b = {
        .max_batch = 16, .preferred = preferred, .preferred_count = r->preferred};

    ck_assert_int_eq(trm_batcher_size(&b, r->rows), r->want);
}
END_TEST

/* ---- the network ---- */

static trm_device *device;
static trm_tensor_model *model;

struct seen {
    int count;
    trm_wire_answer answers[SEEN_MAX]; /* message, outputs and labels are not kept */
    float logits[SEEN_MAX][CLASSES * 4];
    int rows[SEEN_MAX];
    char text[SEEN_MAX][256];
    int label[SEEN_MAX];
};

static void on_answer(void *ctx, const trm_wire_answer *a)
{
    struct seen *s = ctx;
    int i = (int)a->id;

    ck_assert_int_lt(i, SEEN_MAX);
    ck_assert_msg(s->answers[i].id == 0 || i == 0, "request %d was answered twice", i);
    s->answers[i] = *a;
    s->count++;
    snprintf(s->text[i], sizeof(s->text[i]), "%s", a->message);
    s->label[i] = a->label_count > 0 ? a->labels[0].index : -1;
    if (a->output_count == 1) {
        ck_assert_str_eq(a->outputs[0].name, "logits");
        s->rows[i] = (int)a->outputs[0].tensor.dims[0];
        memcpy(s->logits[i], a->outputs[0].tensor.data,
               (size_t)s->rows[i] * CLASSES * sizeof(float));
    }
}

static float image_rows[4][PIXELS];

static trm_serve_model *make(struct seen *s, int max_batch, int64_t delay_us, bool batching)
{
    trm_serve_tensor_options o = {.model = model,
                                  .name = "digits",
                                  .version = 3,
                                  .max_batch = max_batch,
                                  .batching = batching,
                                  .max_delay_us = delay_us};
    trm_serve_model *m;

    memset(s, 0, sizeof(*s));
    o.out = (trm_serve_out){.ctx = s, .answer = on_answer};
    OK(trm_serve_tensor_create(&o, &m));
    return m;
}

struct ask {
    trm_wire_request r;
    trm_wire_tensor t;
};

/* Rows first .. first + rows of the images. */
static void ask(struct ask *a, uint64_t id, int first, int rows)
{
    memset(a, 0, sizeof(*a));
    a->t.name = "image";
    a->t.tensor = (trm_tensor){
        .dtype = TRM_DTYPE_F32, .rank = 4, .dims = {rows, 1, 32, 32}, .data = image_rows[first]};
    a->r = (trm_wire_request){.id = id,
                              .kind = TRM_REQUEST_INFER,
                              .model = "digits",
                              .tag = "",
                              .tensors = &a->t,
                              .tensor_count = 1};
}

static void run_all(trm_serve_model *m)
{
    while (m->ops->count(m) > 0)
        OK(m->ops->step(m));
}

static void open_model(void)
{
    OK(trm_device_cpu_create(1, &device));
    OK(trm_tensor_model_open(DIGITS, device, NULL, &model));
    for (int i = 0; i < 4; i++)
        for (int p = 0; p < PIXELS; p++)
            image_rows[i][p] = sinf((float)(p * (i + 3)) / 7.0f);
}

static void close_model(void)
{
    trm_tensor_model_close(model);
    trm_device_destroy(device);
}

static float alone[4][CLASSES];

static void run_alone(void)
{
    struct seen *s = calloc(1, sizeof(*s));
    trm_serve_model *m = make(s, 8, 0, false);

    for (int i = 0; i < 4; i++) {
        struct ask a;

        ask(&a, (uint64_t)i, i, 1);
        m->ops->submit(m, &a.r, trm_now_us());
        run_all(m);
        ck_assert_int_eq((int)s->answers[i].batch, 1);
        memcpy(alone[i], s->logits[i], sizeof(alone[i]));
    }
    m->ops->destroy(m);
    free(s);
}

static void same(const float *got, int image)
{
    for (int c = 0; c < CLASSES; c++)
        ck_assert_msg(fabsf(got[c] - alone[image][c]) <= 1e-4f, "image %d, class %d: %g, alone %g",
                      image, c, (double)got[c], (double)alone[image][c]);
}

START_TEST(batches)
{
    static struct ask asks[20];
    struct seen *s = calloc(1, sizeof(*s));
    trm_serve_model *m;
    trm_wire_model_stats stats;

    open_model();
    run_alone();
    m = make(s, 8, 1000000, true);
    /* 20 rows of batches of their own: 1, 2 or 3 rows */
    for (int i = 0; i < 20; i++) {
        ask(&asks[i], (uint64_t)i, i % 2, 1 + i % 3);
        m->ops->submit(m, &asks[i].r, trm_now_us());
    }
    ck_assert_int_eq(m->ops->count(m), 20);
    ck_assert_int_eq((int)m->ops->due_us(m), 0);
    run_all(m);
    ck_assert_int_eq(s->count, 20);
    for (int i = 0; i < 20; i++) {
        ck_assert_msg(s->answers[i].status == TRM_OK, "%s", s->text[i]);
        ck_assert_int_eq(s->rows[i], 1 + i % 3);
        ck_assert_int_eq((int)s->answers[i].version, 3);
        for (int k = 0; k < s->rows[i]; k++)
            same(s->logits[i] + k * CLASSES, i % 2 + k);
    }
    m->ops->stats(m, &stats);
    ck_assert_int_eq((int)stats.batched, 39);
    ck_assert_int_lt((int)stats.batches, 12);
    m->ops->destroy(m);
    free(s);
    close_model();
}
END_TEST

START_TEST(waiting)
{
    struct ask asks[12];
    struct seen *s = calloc(1, sizeof(*s));
    trm_serve_model *m;
    int64_t now;

    open_model();
    run_alone();
    m = make(s, 8, 500000, true);
    for (int i = 0; i < 4; i++) { /* four at once: the batch that comes next is awaited */
        ask(&asks[i], (uint64_t)i, i, 1);
        m->ops->submit(m, &asks[i].r, trm_now_us());
    }
    run_all(m);
    ck_assert_int_eq((int)s->answers[0].batch, 4);
    now = trm_now_us();
    ask(&asks[4], 4, 0, 1);
    m->ops->submit(m, &asks[4].r, now);
    ck_assert(m->ops->due_us(m) == now + 500000);
    OK(m->ops->step(m)); /* not due: nothing is done */
    ck_assert_int_eq(s->count, 4);
    for (int i = 5; i < 8; i++) {
        ask(&asks[i], (uint64_t)i, i - 4, 1);
        m->ops->submit(m, &asks[i].r, trm_now_us());
    }
    ck_assert_int_eq((int)m->ops->due_us(m), 0); /* as many as before */
    run_all(m);
    /* a greater priority goes first; what is cancelled is answered so */
    for (int i = 8; i < 11; i++) {
        ask(&asks[i], (uint64_t)i, i - 8, 1);
        asks[i].r.priority = i == 10 ? 5 : 0;
        m->ops->submit(m, &asks[i].r, trm_now_us());
    }
    m->ops->cancel(m, 8);
    ck_assert_int_eq((int)s->answers[8].status, TRM_ERR_CANCELLED);
    (void)trm_fail(TRM_ERR_COMM, "the end");
    (m->ops->fail)(m, TRM_ERR_COMM); /* Check has a macro of that name */
    ck_assert_int_eq(s->count, 11);
    ck_assert_str_eq(s->text[9], "the end");
    ck_assert_int_eq(m->ops->count(m), 0);
    m->ops->destroy(m);
    free(s);
    close_model();
}
END_TEST

static const struct bad_row {
    const char *name;
    trm_request_kind kind;
    int rank;
    int64_t dims[5];
    trm_dtype dtype;
    const char *input, *body, *says;
} bad_rows[] = {
    {"shape", TRM_REQUEST_INFER, 4, {1, 1, 31, 32}, TRM_DTYPE_F32, "image", "", "image"},
    {"rank", TRM_REQUEST_INFER, 2, {1, 1024}, TRM_DTYPE_F32, "image", "", "image"},
    {"name", TRM_REQUEST_INFER, 4, {1, 1, 32, 32}, TRM_DTYPE_F32, "picture", "", "picture"},
    {"rows", TRM_REQUEST_INFER, 4, {9, 1, 32, 32}, TRM_DTYPE_F32, "image", "", "at most 8"},
    {"no rows", TRM_REQUEST_INFER, 4, {0, 1, 32, 32}, TRM_DTYPE_F32, "image", "", "at least 1"},
    {"wishes", TRM_REQUEST_INFER, 4, {1, 1, 32, 32}, TRM_DTYPE_F32, "image", "{", "JSON"},
    {"output",
     TRM_REQUEST_INFER,
     4,
     {1, 1, 32, 32},
     TRM_DTYPE_F32,
     "image",
     "{\"outputs\": [\"x\"]}",
     "'x'"},
    {"classes",
     TRM_REQUEST_INFER,
     4,
     {1, 1, 32, 32},
     TRM_DTYPE_F32,
     "image",
     "{\"classification\": {\"logits\": 0}}",
     "from 1"},
    {"a text", TRM_REQUEST_COMPLETIONS, 0, {0}, TRM_DTYPE_NONE, NULL, "{}", "language"},
    {"no image", TRM_REQUEST_PREDICT, 0, {0}, TRM_DTYPE_NONE, NULL, "not an image", "image"},
};
START_TEST(bad)
{
    const struct bad_row *r = &bad_rows[_i];
    static float zeros[9 * PIXELS];
    struct seen *s = calloc(1, sizeof(*s));
    trm_serve_model *m;
    struct ask a;

    open_model();
    m = make(s, 8, 0, true);
    ask(&a, 0, 0, 1);
    a.r.kind = r->kind;
    a.r.body = r->body;
    a.r.body_bytes = strlen(r->body);
    a.r.tensor_count = r->input != NULL;
    a.t.name = r->input;
    a.t.tensor = (trm_tensor){.dtype = r->dtype, .rank = r->rank, .data = zeros};
    memcpy(a.t.tensor.dims, r->dims, sizeof(r->dims));
    m->ops->submit(m, &a.r, trm_now_us());
    run_all(m);
    ck_assert_msg(s->count == 1 && s->answers[0].status != TRM_OK, "%s: answered as if good",
                  r->name);
    ck_assert_msg(strstr(s->text[0], r->says) != NULL, "%s: \"%s\" does not say '%s'", r->name,
                  s->text[0], r->says);
    m->ops->destroy(m);
    free(s);
    close_model();
}
END_TEST

/* Files of the test set as PREDICT, with a classification by INFER beside it. */
START_TEST(labels)
{
    struct seen *s = calloc(1, sizeof(*s));
    trm_serve_model *m;
    json_t *metadata;
    static char bytes[65536];
    FILE *f = fopen(DIGITS "/images/000.png", "rb");
    size_t n;
    struct ask a, b;

    ck_assert_ptr_nonnull(f);
    n = fread(bytes, 1, sizeof(bytes), f);
    fclose(f);
    open_model();
    m = make(s, 8, 0, true);
    ask(&a, 0, 0, 1);
    a.r.kind = TRM_REQUEST_PREDICT;
    a.r.tensor_count = 0;
    a.r.body = bytes;
    a.r.body_bytes = n;
    m->ops->submit(m, &a.r, trm_now_us());
    ask(&b, 1, 0, 2);
    b.r.body = "{\"classification\": {\"logits\": 3}}";
    b.r.body_bytes = strlen(b.r.body);
    m->ops->submit(m, &b.r, trm_now_us());
    run_all(m);
    ck_assert_msg(s->answers[0].status == TRM_OK, "%s", s->text[0]);
    ck_assert_int_eq(s->answers[0].label_count, 10);
    ck_assert_int_eq(s->answers[0].output_count, 0);
    ck_assert_int_eq(s->answers[1].label_count, 6);
    ck_assert_int_eq(s->answers[1].label_rows, 2);
    ck_assert_int_eq(s->answers[1].output_count, 0);
    metadata = m->ops->metadata(m);
    ck_assert_str_eq(json_string_value(json_object_get(metadata, "kind")), "tensor");
    ck_assert_int_eq((int)json_integer_value(json_object_get(metadata, "max_batch")), 8);
    ck_assert(json_is_true(json_object_get(metadata, "image")));
    json_decref(metadata);
    m->ops->destroy(m);
    free(s);
    close_model();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("serve_tensor");
    TCase *tc = tcase_create("serve_tensor");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, due, 0, sizeof(due_rows) / sizeof(due_rows[0]));
    tcase_add_loop_test(tc, size, 0, sizeof(size_rows) / sizeof(size_rows[0]));
    tcase_add_test(tc, batches);
    tcase_add_test(tc, waiting);
    tcase_add_loop_test(tc, bad, 0, sizeof(bad_rows) / sizeof(bad_rows[0]));
    tcase_add_test(tc, labels);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
