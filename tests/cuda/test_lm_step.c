/* Tokens of a step that the device drew in the step before: the host sends which slot, and the
 * device puts the token there (kernels/cuda/lm_step.h). */
#include "kernels/cuda/lm_step.h"
#include "tests/cuda/cuda_kit.h"

#define ROWS_MAX 600
#define SLOTS 5
#define OF_SLOT(s) TRM_STEP_TOKEN_OF_SLOT(s)

static const int32_t drawn[SLOTS] = {70, 0, 71, 151935, 73};

/* Row r of a step's tokens is ids[r % 8]. */
static const struct tokens_row {
    const char *name;
    int rows;
    int32_t ids[8], want[8];
} tokens_rows[] = {
    {"known", 3, {5, 0, 9}, {5, 0, 9}},
    {"padding stays", 4, {5, -1, -1, -1}, {5, -1, -1, -1}},
    {"one", 1, {OF_SLOT(2)}, {71}},
    {"all slots, in another order",
     5,
     {OF_SLOT(4), OF_SLOT(0), OF_SLOT(3), OF_SLOT(1), OF_SLOT(2)},
     {73, 70, 151935, 0, 71}},
    {"a slot twice", 3, {OF_SLOT(3), 4, OF_SLOT(3)}, {151935, 4, 151935}},
    {"no such slot", 3, {OF_SLOT(SLOTS), OF_SLOT(1), OF_SLOT(1000000)}, {-1, 0, -1}},
    {"several blocks",
     ROWS_MAX,
     {1, OF_SLOT(0), -1, OF_SLOT(4), 2, 3, OF_SLOT(2), OF_SLOT(1)},
     {1, 70, -1, 73, 2, 3, 71, 0}},
    {"the last row of a block", 256, {1, 2, 3, 4, 5, 6, 7, OF_SLOT(2)}, {1, 2, 3, 4, 5, 6, 7, 71}},
};
#define TOKENS (int)(sizeof(tokens_rows) / sizeof(tokens_rows[0]))

/* slots: whether the step has any */
static void send_and_look(const struct tokens_row *v, bool slots)
{
    trm_device *d = kit_gpu;
    int32_t ids[ROWS_MAX], got[ROWS_MAX];
    trm_step step = {.tokens = v->rows,
                     .token_rows = v->rows,
                     .token_max = ROWS_MAX,
                     .token_ids = ids,
                     .slots = slots ? SLOTS : 0};
    size_t bytes = 0, at;
    void *host;
    unsigned char *block;

    for (int r = 0; r < v->rows; r++)
        ids[r] = v->ids[r % 8];
    if (slots) {
        step.slot_tokens = kit_device_memory(d, sizeof(drawn));
        KIT_OK(d->ops->copy_in(d, NULL, step.slot_tokens, drawn, sizeof(drawn)));
    }
    ck_assert_int_eq(d->ops->step_encode(d, &step, NULL, 0, &bytes), TRM_ERR_NO_MEMORY);
    host = trm_arena_alloc_aligned(kit_arena, bytes);
    ck_assert_ptr_nonnull(host);
    KIT_OK(d->ops->step_encode(d, &step, host, bytes, &bytes));
    block = kit_device_memory(d, bytes);
    KIT_OK(d->ops->step_send(d, NULL, &step, block, host, bytes));
    at = d->ops->step_input_at(d, &step, TRM_STEP_TOKENS);
    KIT_OK(d->ops->copy_out(d, NULL, got, block + at, (size_t)v->rows * sizeof(*got)));
    kit_wait(d);
    for (int r = 0; r < v->rows; r++) {
        int32_t want = slots ? v->want[r % 8] : ids[r];

        ck_assert_msg(got[r] == want, "%s, row %d: token %d, want %d", v->name, r, (int)got[r],
                      (int)want);
    }
    d->ops->free(d, TRM_MEMORY_DEVICE, block);
    d->ops->free(d, TRM_MEMORY_DEVICE, step.slot_tokens);
}

START_TEST(tokens_of_slots)
{
    send_and_look(&tokens_rows[_i], true);
}
END_TEST

/* without slots (a step of whole prompts) what is sent is what kernels read */
START_TEST(no_slots)
{
    send_and_look(&tokens_rows[0], false);
    send_and_look(&tokens_rows[1], false);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("lm step");

    tcase_add_loop_test(t, tokens_of_slots, 0, TOKENS);
    tcase_add_test(t, no_slots);
    return kit_main("cuda lm step", t);
}
