/* Plans of elementwise operators: how dims merge, and how a map that is too large for 32-bit
 * indices is cut into pieces that cover it. Arithmetic: no device is needed for these. And kernels
 * run on operands as the executor may give them: the output in an operand's place, pointers that
 * are not aligned to vectors. */
#include "tests/cuda/cuda_kit.h"

/* internal to the module */
#include "kernels/cuda/elementwise_map.c"
#include "kernels/cuda/prepare.c"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define CL TRM_LAYOUT_CHANNELS_LAST
#define E -1 /* end of dims */

static const struct map_row {
    const char *name;
    int64_t a[9], b[9], out[9];
    trm_layout layout; /* of a and the output */
    int rank;          /* merged */
} map_rows[] = {
    {"flat", {4, 5, 6, E}, {4, 5, 6, E}, {4, 5, 6, E}, 0, 1},
    {"scalar", {4, 5, 6, E}, {E}, {4, 5, 6, E}, 0, 1},
    {"bias", {4, 5, 6, E}, {6, E}, {4, 5, 6, E}, 0, 2},
    {"channels", {4, 5, 6, 7, E}, {5, 1, 1, E}, {4, 5, 6, 7, E}, 0, 3},
    {"channels of one image", {1, 5, 6, 7, E}, {5, 1, 1, E}, {1, 5, 6, 7, E}, 0, 2},
    {"channels, last", {4, 5, 6, 7, E}, {5, 1, 1, E}, {4, 5, 6, 7, E}, CL, 2},
    {"gates, last", {4, 5, 6, 7, E}, {4, 5, 1, 1, E}, {4, 5, 6, 7, E}, CL, 3},
    {"plain under last", {4, 5, 6, 7, E}, {4, 5, 6, 7, E}, {4, 5, 6, 7, E}, CL, 3},
    {"outer", {6, 1, E}, {1, 7, E}, {6, 7, E}, 0, 2},
    {"one element", {1, 1, E}, {1, E}, {1, 1, E}, 0, 1},
    {"nothing", {3, 0, E}, {1, E}, {3, 0, E}, 0, 1},
    {"eight dims",
     {2, 1, 2, 1, 3, 1, 2, 5, E},
     {1, 2, 1, 3, 1, 2, 1, 5, E},
     {2, 2, 2, 3, 3, 2, 2, 5, E},
     0,
     8},
};

static void make_map(const struct map_row *r, trmi_cuda_map *m, trm_tensor *in, trm_tensor *out)
{
    const trm_tensor *list[2] = {&in[0], &in[1]};
    trm_op_desc desc = {.op = TRM_OP_Add, .name = r->name, .outputs = out, .output_count = 1};

    in[0] = kit_tensor(TRM_DTYPE_F32, r->a);
    in[1] = kit_tensor(TRM_DTYPE_F32, r->b);
    *out = kit_tensor(TRM_DTYPE_F32, r->out);
    in[0].layout = out->layout = r->layout;
    ck_assert_int_eq(trmi_cuda_map_init(m, &desc, list, 2), TRM_OK);
}

START_TEST(merging)
{
    trm_tensor in[2], out;
    trmi_cuda_map m;

    make_map(&map_rows[_i], &m, in, &out);
    ck_assert_msg(m.rank == map_rows[_i].rank, "%s: rank %d", map_rows[_i].name, m.rank);
    ck_assert_int_eq(m.total, (int64_t)trm_tensor_numel(&out));
}
END_TEST

/* Where the operands of element e lie. */
static void locate(const trmi_cuda_map *m, int64_t e, int64_t *at)
{
    at[0] = at[1] = 0;
    for (int d = m->rank - 1; d >= 0; d--) {
        for (int i = 0; i < 2; i++)
            at[i] += e % m->dims[d] * m->strides[i][d];
        e /= m->dims[d];
    }
}

struct cover {
    const trmi_cuda_map *whole;
    int64_t limit, next;
};

static trm_status check_piece(void *ctx, const trmi_cuda_map *piece, const int64_t *in_at,
                              int64_t out_at)
{
    struct cover *c = ctx;

    ck_assert_int_eq(out_at, c->next);
    ck_assert_int_gt(piece->total, 0);
    ck_assert_int_le(piece->total, c->limit);
    for (int64_t e = 0; e < piece->total; e++) {
        int64_t got[2], want[2];

        locate(piece, e, got);
        locate(c->whole, out_at + e, want);
        ck_assert_int_eq(in_at[0] + got[0], want[0]);
        ck_assert_int_eq(in_at[1] + got[1], want[1]);
    }
    c->next += piece->total;
    return TRM_OK;
}

START_TEST(pieces)
{
    static const int64_t limits[] = {1, 2, 7, 30, 100, 1000, 1 << 20};

    for (size_t l = 0; l < COUNT(limits); l++) {
        trm_tensor in[2], out;
        trmi_cuda_map m;
        struct cover c = {.whole = &m, .limit = limits[l]};

        make_map(&map_rows[_i], &m, in, &out);
        ck_assert_int_eq(trmi_cuda_map_each(&m, limits[l], check_piece, &c), TRM_OK);
        ck_assert_msg(c.next == m.total, "%s in pieces of %lld: %lld of %lld", map_rows[_i].name,
                      (long long)limits[l], (long long)c.next, (long long)m.total);
    }
}
END_TEST

static trm_status fail_at_two(void *ctx, const trmi_cuda_map *piece, const int64_t *in_at,
                              int64_t out_at)
{
    (void)piece, (void)in_at, (void)out_at;
    return ++*(int *)ctx == 2 ? TRM_ERR_DEVICE : TRM_OK;
}

START_TEST(pieces_stop)
{
    trm_tensor in[2], out;
    trmi_cuda_map m;
    int calls = 0;

    make_map(&map_rows[0], &m, in, &out);
    ck_assert_int_eq(trmi_cuda_map_each(&m, 10, fail_at_two, &calls), TRM_ERR_DEVICE);
    ck_assert_int_eq(calls, 2);
}
END_TEST

/* ---- placement ---- */
static const struct place_row {
    const char *name;
    trm_op op;
    trm_dtype in[3], out;
    int inputs;
    int place;        /* the operand whose memory the output takes; -1: its own */
    uint32_t allowed; /* in_place */
} place_rows[] = {
    {"Relu", TRM_OP_Relu, {TRM_DTYPE_F32}, TRM_DTYPE_F32, 1, 0, 1},
    {"Sin", TRM_OP_Sin, {TRM_DTYPE_F16}, TRM_DTYPE_F16, 1, 0, 1},
    {"Clip", TRM_OP_Clip, {TRM_DTYPE_BF16}, TRM_DTYPE_BF16, 1, 0, 1},
    {"IsNaN", TRM_OP_IsNaN, {TRM_DTYPE_F32}, TRM_DTYPE_BOOL, 1, -1, 0},
    {"Neg of i32", TRM_OP_Neg, {TRM_DTYPE_I32}, TRM_DTYPE_I32, 1, 0, 1},
    {"Add", TRM_OP_Add, {TRM_DTYPE_F32, TRM_DTYPE_F32}, TRM_DTYPE_F32, 2, 0, 3},
    {"Sub, right", TRM_OP_Sub, {TRM_DTYPE_F16, TRM_DTYPE_F16}, TRM_DTYPE_F16, 2, 1, 3},
    {"Less", TRM_OP_Less, {TRM_DTYPE_F32, TRM_DTYPE_F32}, TRM_DTYPE_BOOL, 2, -1, 0},
    {"Equal of bool", TRM_OP_Equal, {TRM_DTYPE_BOOL, TRM_DTYPE_BOOL}, TRM_DTYPE_BOOL, 2, 1, 3},
    {"Pow of two dtypes", TRM_OP_Pow, {TRM_DTYPE_F32, TRM_DTYPE_I32}, TRM_DTYPE_F32, 2, 0, 1},
    {"Where", TRM_OP_Where, {TRM_DTYPE_BOOL, TRM_DTYPE_F32, TRM_DTYPE_F32}, TRM_DTYPE_F32, 3, 2, 6},
    {"Sum", TRM_OP_Sum, {TRM_DTYPE_F32, TRM_DTYPE_F32, TRM_DTYPE_F32}, TRM_DTYPE_F32, 3, 1, 7},
    {"Identity", TRM_OP_Identity, {TRM_DTYPE_F32}, TRM_DTYPE_F32, 1, 0, 1},
    {"Cast", TRM_OP_Cast, {TRM_DTYPE_F32}, TRM_DTYPE_F16, 1, -1, 0},
};

/* One operator on device memory that begins `shift` elements behind an aligned address. */
static trm_tensor run_at(const struct place_row *r, trm_device *d, const trm_tensor *in, int shift,
                         int place)
{
    trm_tensor inputs[3], out = kit_tensor(r->out, (const int64_t[]){77, 13, E}), result;
    uint64_t keys[3] = {0};
    trm_op_desc desc = {.op = r->op,
                        .name = r->name,
                        .inputs = inputs,
                        .outputs = &out,
                        .input_count = r->inputs,
                        .output_count = 1,
                        .weight_keys = keys};
    char *memory[4] = {NULL};
    const void *from[3] = {NULL};
    void *to[1];
    trm_kernel *k = NULL;
    size_t bytes;

    for (int i = 0; i < r->inputs; i++) {
        inputs[i] = in[i];
        inputs[i].data = NULL;
    }
    KIT_OK(d->ops->prepare(d, &desc, &k));
    if (d == kit_gpu)
        ck_assert_msg(k->in_place == r->allowed, "%s: in_place %#x", r->name, k->in_place);
    for (int i = 0; i < r->inputs; i++) {
        size_t by = (size_t)shift * trm_dtype_bytes(in[i].dtype);

        KIT_OK(trm_tensor_bytes(&in[i], &bytes));
        memory[i] = kit_device_memory(d, bytes + by);
        from[i] = memory[i] + by;
        KIT_OK(d->ops->copy_in(d, NULL, memory[i] + by, in[i].data, bytes));
    }
    KIT_OK(trm_tensor_bytes(&out, &bytes));
    memory[3] = kit_device_memory(d, bytes + 64);
    to[0] = place >= 0 ? (void *)(uintptr_t)from[place]
                       : memory[3] + (size_t)shift * trm_dtype_bytes(out.dtype);
    KIT_OK(k->ops->run(k, NULL, from, to, NULL));
    kit_wait(d);
    result = kit_data(out);
    KIT_OK(d->ops->copy_out(d, NULL, result.data, to[0], bytes));
    kit_wait(d);
    for (int i = 0; i < 4; i++)
        d->ops->free(d, TRM_MEMORY_DEVICE, memory[i]);
    trm_kernel_destroy(k);
    return result;
}

START_TEST(placement)
{
    const struct place_row *r = &place_rows[_i];
    trm_tensor in[3], want;
    size_t bytes;

    kit_name = r->name;
    for (int i = 0; i < r->inputs; i++)
        in[i] = kit_random(kit_tensor(r->in[i], (const int64_t[]){77, 13, E}), 0, 2);
    want = run_at(r, kit_gpu, in, 0, -1);
    KIT_OK(trm_tensor_bytes(&want, &bytes));
    for (int shift = 0; shift < 3; shift++) {
        trm_tensor apart = run_at(r, kit_gpu, in, shift, -1);
        trm_tensor there = run_at(r, kit_gpu, in, shift, r->place);

        ck_assert_msg(memcmp(apart.data, want.data, bytes) == 0, "%s: shifted by %d", r->name,
                      shift);
        ck_assert_msg(memcmp(there.data, want.data, bytes) == 0, "%s: in place, shifted by %d",
                      r->name, shift);
    }
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("elementwise_map");

    tcase_add_loop_test(t, merging, 0, (int)COUNT(map_rows));
    tcase_add_loop_test(t, pieces, 0, (int)COUNT(map_rows));
    tcase_add_test(t, pieces_stop);
    tcase_add_loop_test(t, placement, 0, (int)COUNT(place_rows));
    return kit_main("elementwise_map", t);
}
