/* Layouts as text, places of ranks, and plans as bytes: also hostile ones. */
#include "parallel/planner.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *text;
    int data, tensor, pipeline; /* data -1: refused */
    const char *message;        /* part of it; or the text again, NULL: as given */
} layouts[] = {
    {"auto", 0, 0, 0, NULL},
    {"data=2,tensor=4,pipeline=3", 2, 4, 3, NULL},
    {"tensor=4", 1, 4, 1, "data=1,tensor=4,pipeline=1"},
    {"pipeline=2,data=3", 3, 1, 2, "data=3,tensor=1,pipeline=2"},
    {"data=auto,tensor=2", 0, 2, 1, "data=auto,tensor=2,pipeline=1"},
    {"data=4096", 4096, 1, 1, "data=4096,tensor=1,pipeline=1"},
    {"tensor=8,pipeline=8", 1, 8, 8, "data=1,tensor=8,pipeline=8"},
    {"", -1, 0, 0, "'' is none of data=N, tensor=N, pipeline=N"},
    {"AUTO", -1, 0, 0, "'AUTO' is none of"},
    {"tensor", -1, 0, 0, "tensor must be a number from 1 to 4096, or auto"},
    {"tensor=", -1, 0, 0, "tensor must be a number"},
    {"tensor=0", -1, 0, 0, "tensor must be a number"},
    {"tensor=-1", -1, 0, 0, "tensor must be a number"},
    {"tensor=+1", -1, 0, 0, "tensor must be a number"},
    {"tensor= 1", -1, 0, 0, "tensor must be a number"},
    {"tensor=2x", -1, 0, 0, "tensor must be a number"},
    {"tensor=autox", -1, 0, 0, "tensor must be a number"},
    {"tensor=99999999999999999999", -1, 0, 0, "tensor must be a number"},
    {"tensor=4097", -1, 0, 0, "tensor must be a number"},
    {"tensor=2,tensor=2", -1, 0, 0, "tensor is given twice"},
    {"tensor=2,", -1, 0, 0, "'' is none of"},
    {",tensor=2", -1, 0, 0, "'' is none of"},
    {"tensors=2", -1, 0, 0, "'tensors=2' is none of"},
    {"tensor=2 ,data=2", -1, 0, 0, "tensor must be a number"},
    {"tensor=2;data=2", -1, 0, 0, "tensor must be a number"},
    {"tensor=16,pipeline=8", -1, 0, 0, "a replica of 128 ranks; tensor x pipeline is at most 64"},
    {"tensor=4096,pipeline=4096", -1, 0, 0, "tensor x pipeline is at most 64"},
};

START_TEST(layout_texts)
{
    trm_parallel p = {7, 7, 7};
    char text[64];
    trm_status st = trm_parallel_parse(layouts[_i].text, &p);

    if (layouts[_i].data < 0) {
        ck_assert_int_eq(st, TRM_ERR_INVALID_ARG);
        ck_assert_msg(strstr(trm_message(), layouts[_i].message) != NULL, "%s", trm_message());
        ck_assert_int_eq(p.data, 7); /* untouched */
        return;
    }
    ck_assert_msg(st == TRM_OK, "%s", trm_message());
    ck_assert_int_eq(p.data, layouts[_i].data);
    ck_assert_int_eq(p.tensor, layouts[_i].tensor);
    ck_assert_int_eq(p.pipeline, layouts[_i].pipeline);
    trm_parallel_text(&p, text, sizeof(text));
    ck_assert_str_eq(text, layouts[_i].message != NULL ? layouts[_i].message : layouts[_i].text);
    /* a short buffer is cut, not overrun */
    text[8] = 'x';
    trm_parallel_text(&p, text, 8);
    ck_assert_int_eq(text[8], 'x');
}
END_TEST

START_TEST(places_are_a_bijection)
{
    trm_parallel p = {.data = 3, .tensor = 2, .pipeline = 4};
    int rank = 0;

    for (int replica = 0; replica < 3; replica++)
        for (int stage = 0; stage < 4; stage++)
            for (int shard = 0; shard < 2; shard++, rank++) {
                trm_place at = trm_parallel_place(&p, rank);

                ck_assert_int_eq(at.replica, replica);
                ck_assert_int_eq(at.stage, stage);
                ck_assert_int_eq(at.shard, shard);
            }
}
END_TEST

/* ---- plans ---- */
static trm_candidate candidates[2];
static trm_tensor inputs[2];
static int strategy[5] = {0, 3, 1, 0, 2};
static trm_ledger ledger[4];

static trm_plan sample(void)
{
    trm_plan p = {.parallel = {2, 2, 2},
                  .candidate_count = 2,
                  .chosen = 1,
                  .candidates = candidates,
                  .node_count = 5,
                  .graph_hash = 0x123456789abcdef0u,
                  .input_count = 2,
                  .inputs = inputs,
                  .strategy = strategy,
                  .exact = true,
                  .stages = {.count = 2,
                             .cuts = {0, 3, 8},
                             .stage_us = {1.5, 2.5},
                             .stage_bytes = {100, 200},
                             .crossing_bytes = {64, 0}},
                  .micro_batches = 4,
                  .step_us = 1234.5,
                  .ledger_count = 4,
                  .ledger = ledger,
                  .slot_bytes = 1 << 20,
                  .message_bytes = 4096,
                  .kv_tokens = 4096};

    memset(candidates, 0, sizeof(candidates));
    candidates[0] = (trm_candidate){.parallel = {8, 1, 1}, .memory = (size_t)5 << 32};
    strcpy(candidates[0].reason, "needs 20 GB a rank, limit 1 GB");
    candidates[1] = (trm_candidate){.parallel = {2, 2, 2},
                                    .fits = true,
                                    .step_us = 10,
                                    .records_s = 0.5,
                                    .compute_us = 7,
                                    .collective_us = 3,
                                    .bubble = 0.25,
                                    .memory = 77};
    memset(inputs, 0, sizeof(inputs));
    inputs[0] = (trm_tensor){.dtype = TRM_DTYPE_F32, .rank = 4, .dims = {1, 3, 224, 224}};
    inputs[1] = (trm_tensor){.dtype = TRM_DTYPE_I64, .rank = 0};
    for (int i = 0; i < 4; i++)
        ledger[i] = (trm_ledger){(size_t)i + 1, (size_t)i, 30, 40, 50, 60, 70, 80};
    strcpy(p.reason, "it is the fastest");
    return p;
}

static trm_plan *decoded(const void *bytes, size_t count)
{
    trm_plan *p = NULL;

    ck_assert_msg(trm_plan_decode(bytes, count, &p) == TRM_OK, "%s", trm_message());
    return p;
}

START_TEST(round_trip)
{
    trm_plan in = sample(), *out;
    unsigned char *bytes;
    void *encoded, *again;
    size_t count, count_again;

    ck_assert_int_eq(trm_plan_encode(&in, &encoded, &count), TRM_OK);
    bytes = encoded;
    ck_assert_mem_eq(bytes, "TPLN\4\0\0\0\2\0\0\0", 12); /* little endian on every machine */
    out = decoded(encoded, count);
    ck_assert_int_eq(out->parallel.data, 2);
    ck_assert_int_eq(out->parallel.tensor, 2);
    ck_assert_int_eq(out->parallel.pipeline, 2);
    ck_assert_int_eq(out->candidate_count, 2);
    ck_assert_int_eq(out->chosen, 1);
    ck_assert_str_eq(out->candidates[0].reason, candidates[0].reason);
    ck_assert_uint_eq(out->candidates[0].memory, candidates[0].memory);
    ck_assert(!out->candidates[0].fits && out->candidates[1].fits);
    ck_assert_double_eq(out->candidates[1].records_s, 0.5);
    ck_assert_double_eq(out->candidates[1].bubble, 0.25);
    ck_assert_uint_eq(out->graph_hash, in.graph_hash);
    ck_assert_int_eq(out->input_count, 2);
    ck_assert(trm_tensor_same_shape(&out->inputs[0], &inputs[0]));
    ck_assert_int_eq(out->inputs[1].dtype, TRM_DTYPE_I64);
    ck_assert_int_eq(out->node_count, 5);
    ck_assert_mem_eq(out->strategy, strategy, sizeof(strategy));
    ck_assert(out->exact);
    ck_assert_int_eq(out->stages.cuts[1], 3);
    ck_assert_int_eq(out->stages.cuts[2], 8);
    ck_assert_uint_eq(out->stages.stage_bytes[1], 200);
    ck_assert_uint_eq(out->stages.crossing_bytes[0], 64);
    ck_assert_int_eq(out->micro_batches, 4);
    ck_assert_double_eq(out->step_us, 1234.5);
    ck_assert_int_eq(out->ledger_count, 4);
    ck_assert_mem_eq(out->ledger, ledger, sizeof(ledger));
    ck_assert_uint_eq(out->slot_bytes, in.slot_bytes);
    ck_assert_uint_eq(out->message_bytes, in.message_bytes);
    ck_assert_int_eq(out->kv_tokens, 4096);
    ck_assert_str_eq(out->reason, in.reason);
    ck_assert_int_eq(trm_plan_encode(out, &again, &count_again), TRM_OK);
    ck_assert_uint_eq(count, count_again);
    ck_assert_mem_eq(encoded, again, count);
    trm_plan_destroy(out);
    trm_free(encoded);
    trm_free(again);
}
END_TEST

/* Every prefix, and every byte changed in several ways: refused, or a plan within its limits. */
START_TEST(hostile_bytes)
{
    static const unsigned char changes[] = {0x01, 0x80, 0xff, 0x7f};
    trm_plan in = sample(), *out;
    unsigned char *bytes;
    void *encoded;
    size_t count;
    int64_t live;
    int refused = 0;

    ck_assert_int_eq(trm_plan_encode(&in, &encoded, &count), TRM_OK);
    live = trm_alloc_live();
    for (size_t n = 0; n < count; n++) {
        /* an exact block, so that a sanitizer sees a read beyond it */
        bytes = malloc(n + 1);
        memcpy(bytes, encoded, n);
        out = NULL;
        ck_assert_int_eq(trm_plan_decode(bytes, n, &out), TRM_ERR_COMM);
        ck_assert_ptr_null(out);
        free(bytes);
    }
    bytes = malloc(count + 1);
    for (size_t n = 0; n < count; n++) {
        for (size_t c = 0; c < sizeof(changes); c++) {
            trm_status st;

            memcpy(bytes, encoded, count);
            bytes[n] ^= changes[c];
            st = trm_plan_decode(bytes, count, &out);
            if (st != TRM_OK) {
                ck_assert_int_eq(st, TRM_ERR_COMM);
                refused++;
                continue;
            }
            ck_assert_int_eq(out->stages.count, out->parallel.pipeline);
            ck_assert_int_eq(out->ledger_count, out->parallel.tensor * out->parallel.pipeline);
            ck_assert(out->chosen >= 0 && out->chosen < out->candidate_count);
            trm_plan_destroy(out);
        }
    }
    ck_assert_int_gt(refused, 100);
    memcpy(bytes, encoded, count);
    bytes[count] = 0;
    ck_assert_int_eq(trm_plan_decode(bytes, count + 1, &out), TRM_ERR_COMM);
    ck_assert_ptr_nonnull(strstr(trm_message(), "bytes follow it"));
    ck_assert_int_eq(trm_alloc_live(), live);
    free(bytes);
    trm_free(encoded);
}
END_TEST

START_TEST(no_memory)
{
    trm_plan in = sample(), *out = NULL;
    void *encoded;
    size_t count;
    int64_t live;

    ck_assert_int_eq(trm_plan_encode(&in, &encoded, &count), TRM_OK);
    live = trm_alloc_live();
    for (int64_t nth = 0;; nth++) {
        trm_status st;

        trm_alloc_fail_after(nth);
        st = trm_plan_decode(encoded, count, &out);
        trm_alloc_fail_after(-1);
        if (st == TRM_OK)
            break;
        ck_assert_int_eq(st, TRM_ERR_NO_MEMORY);
        ck_assert_int_eq(trm_alloc_live(), live);
        ck_assert_int_lt(nth, 20);
    }
    trm_plan_destroy(out);
    trm_free(encoded);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("plan_wire");
    TCase *tc = tcase_create("plans");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tc, layout_texts, 0, (int)(sizeof(layouts) / sizeof(layouts[0])));
    tcase_add_test(tc, places_are_a_bijection);
    tcase_add_test(tc, round_trip);
    tcase_add_test(tc, hostile_bytes);
    tcase_add_test(tc, no_memory);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
