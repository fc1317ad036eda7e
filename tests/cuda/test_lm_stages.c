/* Pipeline stages of a language model on devices that take their time (forked ranks, each with a
 * device; TRM_EMU_SLOW): the bits of one rank with several steps under way, which do overlap; steps
 * that fail on one stage, a rank that is lost, and an end with steps under way. */
#include "tests/cuda/group_kit.h"
#include "kernels/language.h"
#include "worker/language/lm_model.h"

#define MODEL TRM_SOURCE_DIR "/tests/data/language/models/llama"
#define SLOTS 12 /* sequences, dealt out to the steps that are under way */
#define ROUNDS 6 /* tokens of each */
#define PROMPT 5 /* and as many more as the slot's number */
#define PAGES_EACH 2
#define CONTEXT (PAGES_EACH * TRM_KV_PAGE)
#define STEP_TOKENS 160
#define WORDS "a step that was made to fail"
#define AT_ONCE_US 20000000

static struct shared {
    trm_sampled want[SLOTS][ROUNDS];
} * shared;

typedef struct world {
    const char *name;
    int tensor, pipeline;
    int bad_rank, bad_call; /* whose step of that number fails; 0: nobody's */
    bool lost;              /* the rank ends there instead */
    char *settings[4];
} world;

static const world *here;
static trm_segment *all, *stages[RANKS_MAX];

static trm_device_ops ops;
static trm_status (*real_encode)(trm_device *d, const struct trm_step *step, void *host,
                                 size_t host_max, size_t *bytes_out);
static int calls;

static trm_status encode(trm_device *d, const struct trm_step *step, void *host, size_t host_max,
                         size_t *bytes_out)
{
    if (host_max > 0 && ++calls == here->bad_call) { /* 0: it asks for the size */
        if (here->lost)
            _exit(0);
        return trm_fail(TRM_ERR_INTERNAL, WORDS);
    }
    return real_encode(d, step, host, host_max, bytes_out);
}

/* ---- a rank's part of the model ---- */

typedef struct part {
    trm_language *language;
    trm_tensor_model model;
    trm_lm_replica *replica;
} part;

static int plan(const group_rank *r, part *p)
{
    trm_tensor *inputs = NULL;
    trm_plan_options o = {.parallel = {1, here->tensor, here->pipeline},
                          .ranks = r->size,
                          .batch = SLOTS,
                          .threads = 1,
                          .kv_tokens = SLOTS * CONTEXT,
                          .kv_dtype = TRM_DTYPE_F32};
    trm_rates *rates = NULL;

    RANK_OK(r, trm_rates_describe("cuda:h200", &rates));
    RANK_OK(r, trm_lm_plan_inputs(p->model.graph, STEP_TOKENS, SLOTS, &inputs));
    o.rates = rates;
    o.inputs = inputs;
    RANK_OK(r, trm_plan_make(p->model.graph, &o, &p->model.plan));
    trm_rates_destroy(rates);
    trm_free(inputs);
    p->model.parallel = o.parallel;
    p->model.place = trm_parallel_place(&o.parallel, r->rank);
    RANK_OK(r, trm_comm_shm_create(all, r->rank, r->size, 0, &p->model.replica_comm));
    if (here->tensor > 1)
        RANK_OK(r, trm_comm_shm_create(stages[p->model.place.stage], p->model.place.shard,
                                       here->tensor, 0, &p->model.stage_comm));
    return 0;
}

static int open_part(const group_rank *r, part *p)
{
    trm_language_options lo = {.no_tokenizer = true, .context = CONTEXT};
    trm_lm_replica_options o = {
        .kv_dtype = TRM_DTYPE_F32, .batch = SLOTS, .step_tokens = STEP_TOKENS, .picks = SLOTS};

    memset(p, 0, sizeof(*p));
    RANK_OK(r, trm_language_open(MODEL, &lo, &p->language));
    p->model = (trm_tensor_model){.language = p->language,
                                  .path = MODEL,
                                  .graph = p->language->graph,
                                  .device = r->gpu,
                                  .parallel = {1, 1, 1}};
    RANK_OK(r, trm_pass_prepare(p->model.graph, NULL));
    if (r->size > 1 && plan(r, p) != 0)
        return 1;
    o.model = &p->model;
    RANK_OK(r, trm_lm_replica_create(&o, &p->replica));
    RANK_OK(r, trm_lm_replica_begin(p->replica, SLOTS * PAGES_EACH, CONTEXT));
    if (here->bad_call > 0 && here->bad_rank == r->rank) {
        ops = *r->gpu->ops;
        real_encode = ops.step_encode;
        ops.step_encode = encode;
        r->gpu->ops = &ops;
    }
    return 0;
}

static void close_part(part *p)
{
    trm_lm_replica_destroy(p->replica);
    trm_comm_destroy(p->model.stage_comm);
    trm_comm_destroy(p->model.replica_comm);
    trm_plan_destroy(p->model.plan);
    trm_language_close(p->language);
}

/* ---- the leader ---- */

typedef struct lane { /* sequences that are in one step: slots `first`, `first + lanes`, ... */
    int first, round;
} lane;

static trm_sampling sampling[SLOTS];
static trm_sampled got[SLOTS][ROUNDS];

static void add_part(trm_lm_step *s, int slot, int round)
{
    int before = PROMPT + slot, tokens = round == 0 ? before : 1;
    int position = round == 0 ? 0 : before + round - 1;
    trm_lm_part *p = &s->parts[s->part_count++];

    *p = (trm_lm_part){.row = s->token_count,
                       .tokens = tokens,
                       .position = position,
                       .slot = slot,
                       .page_first = s->page_count,
                       .page_count = PAGES_EACH};
    for (int i = 0; i < PAGES_EACH; i++)
        s->pages[s->page_count++] = slot * PAGES_EACH + i;
    for (int i = 0; i < tokens; i++)
        s->tokens[s->token_count++] =
            round == 0 ? (slot * 31 + i * 37 + 3) % 250 : got[slot][round - 1].id;
    s->picks[s->pick_count++] = (trm_lm_pick){.row = s->token_count - 1,
                                              .slot = slot,
                                              .kind = TRM_LM_PICK_NEXT,
                                              .position = position + tokens};
    if (round > 0)
        return;
    trm_sampling_init(&sampling[slot]);
    sampling[slot].temperature = 0.8f;
    sampling[slot].seed = (uint64_t)slot + 5;
    sampling[slot].logprobs = 2;
    s->begins[s->begin_count++] = (trm_lm_begin){.slot = slot, .sampling = &sampling[slot]};
}

static int submit(const group_rank *r, part *p, trm_lm_step *s, const lane *l, int lanes)
{
    trm_lm_step_clear(s);
    for (int slot = l->first; slot < SLOTS; slot += lanes)
        add_part(s, slot, l->round);
    s->token_rows = trm_lm_grid(s->token_count);
    s->pick_rows = trm_lm_grid(s->pick_count);
    RANK_OK(r, trm_lm_replica_submit(p->replica, s));
    return 0;
}

/* All lanes under way at once, each anew when it is collected; a step that has failed once more. */
static int generate(const group_rank *r, part *p, trm_lm_step *s, int from, int to)
{
    int lanes = trm_lm_replica_depth(p->replica), left = lanes * (to - from), failures = 0;
    bool may_fail = here->bad_call > 0 && !here->lost && from > 0;
    lane l[8] = {{0}};

    for (int i = 0; i < lanes; i++) {
        l[i] = (lane){.first = i, .round = from};
        if (submit(r, p, s, &l[i], lanes) != 0)
            return 1;
    }
    RANK_OK(r,
            trm_lm_replica_submit(p->replica, s) == TRM_ERR_CANCELLED ? TRM_OK : TRM_ERR_INTERNAL);
    for (int at = 0; left > 0; at = (at + 1) % lanes) {
        trm_lm_results results;
        trm_status st;
        int k = 0;

        if (l[at].round == to)
            continue;
        st = trm_lm_replica_collect(p->replica, &results);
        if (st == TRM_ERR_INTERNAL && may_fail && failures++ == 0 &&
            strstr(trm_message(), WORDS) != NULL) {
            if (submit(r, p, s, &l[at], lanes) != 0)
                return 1;
            continue;
        }
        RANK_OK(r, st);
        for (int slot = l[at].first; slot < SLOTS; slot += lanes)
            got[slot][l[at].round] = results.picks[k++];
        left--;
        if (++l[at].round < to && submit(r, p, s, &l[at], lanes) != 0)
            return 1;
    }
    return failures == (may_fail ? 1 : 0) ? 0 : wrong(r, "%d steps have failed", failures);
}

static bool same_bytes(const void *a, const void *b, size_t bytes)
{
    return memcmp(a, b, bytes) == 0;
}

static int lead(const group_rank *r, part *p)
{
    int lanes = trm_lm_replica_depth(p->replica);
    trm_lm_step s = {0};

    RANK_OK(r, trm_lm_replica_step(p->replica, &s));
    if (generate(r, p, &s, 0, 1) != 0)
        return 1;
    RANK_OK(r, trm_lm_replica_pause(p->replica));
    if (generate(r, p, &s, 1, ROUNDS) != 0)
        return 1;
    if (r->size == 1)
        memcpy(shared->want, got, sizeof(got));
    else if (!same_bytes(shared->want, got, sizeof(got)))
        return wrong(r, "%s: other results than one rank's", here->name);
    for (int i = 0; i < lanes; i++) { /* nobody collects them */
        const lane l = {.first = i, .round = 1};

        if (submit(r, p, &s, &l, lanes) != 0)
            return 1;
    }
    RANK_OK(r, trm_lm_replica_stop(p->replica));
    trm_lm_step_fini(&s);
    return 0;
}

static int overlapped(const group_rank *r, const part *p)
{
    trm_lm_replica_stats stats;

    trm_lm_replica_get_stats(p->replica, &stats);
    if (stats.behind == 0 || stats.behind >= stats.steps)
        return wrong(r, "%s: %d of %d steps were begun behind another", here->name,
                     (int)stats.behind, (int)stats.steps);
    return 0;
}

static int body(group_rank *r)
{
    const trm_device_ops *real = r->gpu->ops;
    part p;

    if (open_part(r, &p) != 0)
        return 1;
    if (r->rank == 0) {
        if (lead(r, &p) != 0)
            return 1;
    } else {
        RANK_OK(r, trm_lm_replica_follow(p.replica)); /* until the pause */
        RANK_OK(r, trm_lm_replica_follow(p.replica));
    }
    if (here->pipeline > 1 && overlapped(r, &p) != 0)
        return 1;
    r->gpu->ops = real;
    close_part(&p);
    return 0;
}

/* Until there is COMM, which comes soon. */
static int losing(group_rank *r)
{
    const trm_device_ops *real = r->gpu->ops;
    int64_t since = trm_now_us();
    trm_lm_results results;
    trm_status st = TRM_OK;
    trm_lm_step s = {0};
    part p;

    if (open_part(r, &p) != 0)
        return 1;
    RANK_OK(r, trm_lm_replica_step(p.replica, &s));
    for (int i = 0; r->rank == 0 && st == TRM_OK && i < 100; i++) {
        const lane l = {.first = i % trm_lm_replica_depth(p.replica)};

        trm_lm_step_clear(&s);
        add_part(&s, l.first, 0);
        s.token_rows = trm_lm_grid(s.token_count);
        s.pick_rows = 1;
        st = trm_lm_replica_submit(p.replica, &s);
        if (st == TRM_ERR_CANCELLED) {
            st = trm_lm_replica_collect(p.replica, &results);
            since = trm_now_us();
        }
    }
    if (r->rank > 0)
        st = trm_lm_replica_follow(p.replica);
    if (st != TRM_ERR_COMM)
        return wrong(r, "%s: status %d, %s", here->name, st, trm_message());
    if (r->rank == 0 && trm_now_us() - since > AT_ONCE_US)
        return wrong(r, "%s: it took %lld us", here->name, (long long)(trm_now_us() - since));
    r->gpu->ops = real;
    trm_lm_step_fini(&s);
    close_part(&p);
    return 0;
}

static char leaks[] = "TRM_EMU_LEAKS=1", slow[] = "TRM_EMU_SLOW=15", late[] = "TRM_EMU_LATE=1",
            share[] = "TRM_GROUP_SHARED=1";

static const world worlds[] = {
    {"one rank", 1, 1, 0, 0, false, {leaks, NULL}},
    {"two stages", 1, 2, 0, 0, false, {leaks, slow, NULL}},
    {"two stages, late", 1, 2, 0, 0, false, {late, slow, NULL}},
    {"three stages", 1, 3, 0, 0, false, {slow, NULL}},
    {"four stages", 1, 4, 0, 0, false, {slow, NULL}},
    {"two stages of two", 2, 2, 0, 0, false, {slow, share, NULL}},
    {"the first of three fails", 1, 3, 0, 9, false, {leaks, slow, NULL}},
    {"the second of three fails", 1, 3, 1, 10, false, {leaks, slow, NULL}},
    {"the last of three fails", 1, 3, 2, 11, false, {leaks, slow, NULL}},
    {"the second of three is lost", 1, 3, 1, 6, true, {slow, NULL}},
    {"the last of two is lost", 1, 2, 1, 6, true, {slow, NULL}},
};

START_TEST(stages_overlap)
{
    int size;

    here = &worlds[_i];
    size = here->tensor * here->pipeline;
    ck_assert_int_eq(trm_comm_shm_segment(size, NULL, &all), TRM_OK);
    for (int i = 0; i < here->pipeline && here->tensor > 1; i++)
        ck_assert_int_eq(trm_comm_shm_segment(here->tensor, NULL, &stages[i]), TRM_OK);
    run_ranks(here->name, size, false, false, here->lost ? losing : body,
              (char *const *)here->settings);
    for (int i = 0; i < here->pipeline && here->tensor > 1; i++)
        trm_segment_close(stages[i]);
    trm_segment_close(all);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("stages");
    Suite *s = suite_create("lm_stages");
    SRunner *r;
    int failed;

    (void)setenv("TRM_EMU_IPC", "1", 1);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return EXIT_FAILURE;
    tcase_add_loop_test(t, stages_overlap, 0, (int)(sizeof(worlds) / sizeof(worlds[0])));
    tcase_set_timeout(t, 120);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
