/* How a step's attention is divided (kernels/cuda/lm_step.h): every row meets every split of its
 * keys once, partial results have places of their own and are all merged. Nothing runs on the
 * device. */
#include "kernels/cuda/lm_step.h"
#include "tests/cuda/cuda_kit.h"

#define WANT(cond, ...)                                                                            \
    do {                                                                                           \
        if (!(cond))                                                                               \
            ck_abort_msg(__VA_ARGS__);                                                             \
    } while (0)

/* `count` sequences of `tokens` rows that end at `end` positions, each `step` more than the one
 * before. */
typedef struct crowd {
    int count, tokens, end, step;
} crowd;

static const struct division {
    const char *name;
    int rows; /* of the program */
    crowd crowds[3];
    bool all_dealt, none_dealt; /* of sequences with more than one split */
    int wide;                   /* items, -1: any */
} divisions[] = {
    {"nothing", 8, {{0, 0, 0, 0}}, true, true, 0},
    {"no tokens", 8, {{3, 0, 500, 0}, {1, 1, 700, 0}}, true, false, 0},
    {"one, short", 1, {{1, 1, 256, 0}}, true, true, 0},
    {"one, two splits", 1, {{1, 1, 257, 0}}, true, false, 0},
    {"one, 100 000", 1, {{1, 1, 100000, 0}}, true, false, 0},
    {"one, as many as fit", 1, {{1, 1, 1028 * TRMI_LM_SPLIT, 0}}, true, false, 0},
    {"one, one more", 1, {{1, 1, 1028 * TRMI_LM_SPLIT + 1, 0}}, false, true, 0},
    {"64 of 1024", 64, {{64, 1, 1024, 0}}, true, false, 0},
    {"64 of 32768", 64, {{64, 1, 32768, 0}}, false, false, 0},
    {"64 of any length", 64, {{64, 1, 100, 211}}, false, false, 0},
    {"64 of any length, falling", 64, {{64, 1, 20000, -301}}, false, false, 0},
    {"256 of 300", 256, {{256, 1, 300, 0}}, true, false, 0},
    {"one long among short",
     64,
     {{20, 1, 300, 7}, {1, 1, 200000, 0}, {40, 1, 900, 3}},
     false,
     false,
     0},
    {"prompts", 8192, {{4, 2048, 2048, 0}}, true, true, 64},
    {"a piece of a prompt, and others",
     700,
     {{1, 512, 4096, 0}, {100, 1, 700, 5}, {8, 8, 600, 9}},
     false,
     false,
     4},
    {"a small piece of a prompt", 64, {{1, 40, 1000, 0}, {3, 3, 280, 0}}, true, false, 0},
    {"narrow beside wide", 65, {{1, 9, 1000, 0}, {7, 8, 280, 0}}, true, false, 1},
};
#define DIVISIONS (int)(sizeof(divisions) / sizeof(divisions[0]))
#define SEQUENCES_MAX 320

static int make_step(const struct division *v, trm_step *step, trm_step_sequence *sequences)
{
    int count = 0, row = 0;

    for (int c = 0; c < 3; c++)
        for (int i = 0; i < v->crowds[c].count; i++) {
            const crowd *w = &v->crowds[c];

            sequences[count++] = (trm_step_sequence){
                .row = row, .tokens = w->tokens, .position = w->end + i * w->step - w->tokens};
            row += w->tokens;
        }
    WANT(row <= v->rows && count <= SEQUENCES_MAX, "%s: %d rows", v->name, row);
    *step = (trm_step){.tokens = row,
                       .sequence_count = count,
                       .sequences_padded = count,
                       .sequences = sequences,
                       .token_rows = v->rows,
                       .token_max = v->rows};
    return count;
}

/* Splits of what row r of a sequence sees. */
static int splits_of(const trm_step_sequence *q, int r)
{
    return (q->position + r) / TRMI_LM_SPLIT + 1;
}

/* Who has which partial result: row * 8192 + split + 1. */
static void check_items(const struct division *v, const trm_step *step, const trmi_lm_block *b,
                        int32_t *owner, int *met)
{
    const trmi_lm_item *items = TRMI_LM_AT(trmi_lm_item, b, b->items_at);
    const int most = trmi_lm_partials_max(v->rows);

    WANT(b->item_count <= v->rows + most, "%s: %d items", v->name, b->item_count);
    WANT(b->wide_count <= v->rows / TRMI_LM_NARROW_TOKENS, "%s: %d wide", v->name, b->wide_count);
    for (int i = 0; i < b->item_count + b->wide_count; i++) {
        const trmi_lm_item *t = &items[i];
        const trm_step_sequence *q = &step->sequences[t->sequence];
        bool wide = i >= b->item_count;

        WANT(t->rows > 0 && t->rows <= (wide ? TRMI_LM_WIDE : TRMI_LM_NARROW) && t->row >= q->row &&
                 t->row + t->rows <= q->row + q->tokens && (!wide || t->slot == -1),
             "%s: item %d has rows %d to %d", v->name, i, t->row, t->row + t->rows);
        for (int r = t->row; r < t->row + t->rows; r++)
            for (int s = t->split_begin; s < t->split_end; s++) {
                int slot = t->slot + (r - t->row) * t->slot_step + s - t->split_begin;

                met[r] += s < splits_of(q, r - q->row);
                if (t->slot < 0)
                    continue;
                WANT(slot < most && owner[slot] == 0, "%s: item %d: partial result %d", v->name, i,
                     slot);
                owner[slot] = r * 8192 + s + 1;
            }
    }
}

static void check_merges(const struct division *v, const trm_step *step, const trmi_lm_block *b,
                         const int32_t *owner, int *merged)
{
    const trmi_lm_merge *merges = TRMI_LM_AT(trmi_lm_merge, b, b->merges_at);

    for (int i = 0; i < b->merge_count; i++) {
        const trmi_lm_merge *m = &merges[i];
        const trm_step_sequence *q = &step->sequences[m->sequence];

        WANT(merged[m->row]++ == 0, "%s: row %d is merged twice", v->name, m->row);
        WANT(m->splits >= splits_of(q, m->row - q->row), "%s: row %d: %d splits", v->name, m->row,
             m->splits);
        for (int s = 0; s < m->splits; s++)
            WANT(owner[m->slot + s] == m->row * 8192 + s + 1, "%s: row %d: split %d is not there",
                 v->name, m->row, s);
    }
}

START_TEST(division)
{
    const struct division *v = &divisions[_i];
    trm_step_sequence sequences[SEQUENCES_MAX];
    trm_step step;
    int count = make_step(v, &step, sequences);
    size_t bytes, room = 1 << 22;
    int32_t *owner = trm_arena_alloc(kit_arena, 4096, sizeof(*owner));
    int *met = trm_arena_alloc(kit_arena, (size_t)v->rows, sizeof(*met));
    int *merged = trm_arena_alloc(kit_arena, (size_t)v->rows, sizeof(*merged));
    int32_t *ids = trm_arena_alloc(kit_arena, (size_t)v->rows, sizeof(*ids));
    trmi_lm_block *b = trm_arena_alloc_aligned(kit_arena, room);
    int dealt = 0, whole = 0;

    kit_name = v->name;
    step.token_ids = ids;
    ck_assert_int_eq(kit_gpu->ops->step_encode(kit_gpu, &step, b, 64, &bytes), TRM_ERR_NO_MEMORY);
    ck_assert_uint_le(bytes, room);
    KIT_OK(kit_gpu->ops->step_encode(kit_gpu, &step, b, bytes, &bytes));
    check_items(v, &step, b, owner, met);
    check_merges(v, &step, b, owner, merged);
    for (int i = 0; i < count; i++)
        for (int r = 0; r < sequences[i].tokens; r++) {
            int row = sequences[i].row + r, splits = splits_of(&sequences[i], r);

            WANT(met[row] == splits, "%s: row %d meets %d splits of %d", v->name, row, met[row],
                 splits);
            if (splits > 1)
                *(merged[row] > 0 ? &dealt : &whole) += 1;
        }
    if (v->all_dealt && v->wide == 0)
        WANT(whole == 0, "%s: %d rows are whole", v->name, whole);
    if (v->none_dealt)
        WANT(dealt == 0, "%s: %d rows are dealt out", v->name, dealt);
    else
        WANT(dealt > 0, "%s: no row is dealt out", v->name);
    if (v->wide >= 0)
        WANT(b->wide_count == v->wide, "%s: %d wide items", v->name, b->wide_count);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("lm items");

    tcase_add_loop_test(t, division, 0, DIVISIONS);
    return kit_main("cuda lm items", t);
}
