/* A language model on a device whose memory is full: steps of any size have their buffers since it
 * was loaded; one that wants more (the counts that penalties need) fails with its requests, and
 * those that come later are served as if nothing had been. */
#include "kernels/device_open.h"
#include "worker/language/lm_model.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define MODEL TRM_SOURCE_DIR "/tests/data/language/models/llama"
#define SHORT 5
#define LONG 60
#define NEW 6
#define FAILURES 6 /* more than steps that samplers keep in mind */

#define OK(call) ck_assert_msg((call) == TRM_OK, "%s", trm_message())

static trm_device_ops ops;
static trm_status (*real_alloc)(trm_device *d, trm_memory_kind kind, size_t bytes, void **out);
static bool full;
static int refused;

static trm_status alloc(trm_device *d, trm_memory_kind kind, size_t bytes, void **memory_out)
{
    if (kind == TRM_MEMORY_DEVICE && full) {
        refused++;
        return trm_fail(TRM_ERR_NO_MEMORY, "%zu bytes: the card is full", bytes);
    }
    return real_alloc(d, kind, bytes, memory_out);
}

typedef struct answer {
    int ends, count;
    trm_status status;
    int32_t ids[NEW];
} answer;

static void end(void *ctx, const trm_generation_end *e)
{
    answer *a = (answer *)ctx;

    a->ends++;
    a->status = e->status;
    a->count = e->new_tokens;
    ck_assert_int_le(e->new_tokens, NEW);
    if (e->new_tokens > 0)
        memcpy(a->ids, e->ids, (size_t)e->new_tokens * sizeof(*a->ids));
}

static trm_generation *ask(trm_lm_model *m, int prompt, bool penalty, answer *a)
{
    trm_generation *g = NULL;
    trm_sampling s;
    int32_t tokens[LONG];
    const trm_generation_options o = {.prompt = tokens,
                                      .prompt_count = (size_t)prompt,
                                      .sampling = &s,
                                      .choices = 1,
                                      .ctx = a,
                                      .end = end};

    for (int i = 0; i < prompt; i++)
        tokens[i] = (i * 37 + prompt) % 250 + 3;
    trm_sampling_init(&s);
    s.temperature = 0.7f;
    s.repetition_penalty = penalty ? 1.2f : 1.0f;
    s.seed = 5;
    s.max_tokens = NEW;
    memset(a, 0, sizeof(*a));
    OK(trm_generator_add(m->generator, &o, &g));
    return g;
}

static answer answer_of(trm_lm_model *m, int prompt, bool penalty)
{
    answer a;

    (void)ask(m, prompt, penalty, &a);
    OK(trm_generator_run(m->generator));
    ck_assert_int_eq(a.ends, 1);
    return a;
}

static void check_same(const answer *a, const answer *b)
{
    ck_assert_int_eq(a->status, TRM_OK);
    ck_assert_int_eq(a->count, NEW);
    ck_assert_int_eq(b->status, TRM_OK);
    ck_assert_int_eq(b->count, NEW);
    ck_assert_mem_eq(a->ids, b->ids, sizeof(a->ids));
}

START_TEST(later_requests_are_served)
{
    const trm_lm_options o = {
        .kv_bytes = 1 << 20, .context = 128, .batch = 3, .step_tokens = 64, .no_prefix = true};
    trm_device_pair pair;
    trm_lm_model *m = NULL;
    const trm_device_ops *real;
    answer first, whole, again, both;
    trm_lm_options options = o;

    OK(trm_device_open("cuda", 0, 1, &pair));
    real = pair.device->ops;
    ops = *real;
    real_alloc = ops.alloc;
    ops.alloc = alloc;
    pair.device->ops = &ops;
    OK(trm_lm_model_open(MODEL, pair.device, &options, &m));
    ck_assert(trm_lm_replica_looks_ahead(m->replica));
    first = answer_of(m, SHORT, false);
    full = true;
    whole = answer_of(m, LONG, false);
    ck_assert_int_eq(refused, 0); /* programs that are bound now find their buffers */
    check_same(&whole, &whole);
    for (int i = 0; i < FAILURES; i++) {
        refused = 0;
        again = answer_of(m, LONG, true);
        ck_assert_int_eq(again.status, TRM_ERR_NO_MEMORY);
        ck_assert_int_gt(refused, 0);
        again = answer_of(m, SHORT, false);
        check_same(&first, &again);
    }
    /* one that comes while another's step is under way */
    (void)ask(m, SHORT, false, &again);
    OK(trm_generator_step(m->generator));
    (void)ask(m, LONG, true, &both);
    OK(trm_generator_run(m->generator));
    ck_assert_int_eq(both.status, TRM_ERR_NO_MEMORY);
    ck_assert_int_eq(again.ends, 1);
    again = answer_of(m, SHORT, false);
    check_same(&first, &again);
    full = false;
    both = answer_of(m, LONG, true);
    ck_assert_int_eq(both.status, TRM_OK);
    ck_assert_int_eq(both.count, NEW);
    again = answer_of(m, SHORT, false);
    check_same(&first, &again);
    again = answer_of(m, LONG, false);
    check_same(&whole, &again);
    trm_lm_model_close(m);
    pair.device->ops = real;
    trm_device_close(&pair);
}
END_TEST

/* Steps that are run for nothing leave pages and samplers as they are. */
START_TEST(warming_changes_nothing)
{
    const trm_lm_options o = {.kv_bytes = 1 << 20, .context = 128, .batch = 3, .step_tokens = 64};
    trm_device_pair pair;
    trm_lm_model *m = NULL;
    answer first, again;

    OK(trm_device_open("cuda", 0, 1, &pair));
    OK(trm_lm_model_open(MODEL, pair.device, &o, &m));
    first = answer_of(m, LONG, true);
    ck_assert(trm_generator_warms(m->generator));
    while (trm_generator_warms(m->generator))
        OK(trm_generator_warm(m->generator));
    again = answer_of(m, LONG, true); /* reads pages of the first one */
    check_same(&first, &again);
    trm_lm_model_close(m);
    trm_device_close(&pair);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lm_failures");
    TCase *t = tcase_create("lm_failures");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 120);
    tcase_add_test(t, later_requests_are_served);
    tcase_add_test(t, warming_changes_nothing);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
