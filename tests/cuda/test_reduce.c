/* Reductions, ArgMax, ArgMin on the CUDA device against the CPU device. */
#include "tests/cuda/cuda_kit.h"

#define AXES_ALL 99 /* no axes input */

typedef struct reduce_row {
    const char *name;
    int64_t dims[TRM_RANK_MAX + 1]; /* ended by -1 */
    int64_t axes[TRM_RANK_MAX + 1]; /* ended by AXES_ALL */
    bool drop;                      /* keepdims 0 */
    bool last;                      /* arrives CHANNELS_LAST */
    bool noop;
} reduce_row;

static const reduce_row shapes[] = {
    {"all of a vector", {37, -1}, {AXES_ALL}, .drop = true},
    {"one element", {1, -1}, {0, AXES_ALL}, .drop = false},
    {"scalar", {-1}, {AXES_ALL}, .drop = false},
    {"rows of 5", {7, 5, -1}, {-1, AXES_ALL}, .drop = false},
    {"rows of 64, packs", {9, 64, -1}, {1, AXES_ALL}, .drop = true},
    {"rows of 3001, a block each", {2, 3001, -1}, {1, AXES_ALL}, .drop = false},
    {"rows of 9000, in parts", {3, 9000, -1}, {1, AXES_ALL}, .drop = false},
    {"many rows of 2048, a warp each", {1100, 48, -1}, {1, AXES_ALL}, .drop = false},
    {"columns", {6, 37, -1}, {0, AXES_ALL}, .drop = false},
    {"columns, packs", {10, 64, -1}, {0, AXES_ALL}, .drop = false},
    {"few columns, many rows, in parts", {3000, 3, -1}, {0, AXES_ALL}, .drop = true},
    {"the middle", {3, 11, 24, -1}, {1, AXES_ALL}, .drop = false},
    {"first and last", {5, 6, 7, -1}, {0, 2, AXES_ALL}, .drop = false},
    {"first and last, packs", {5, 3, 16, -1}, {0, -1, AXES_ALL}, .drop = false},
    {"alternating, kept inside", {3, 2, 4, 3, 5, -1}, {1, 3, AXES_ALL}, .drop = false},
    {"alternating, reduced inside", {3, 2, 4, 3, 5, -1}, {0, 2, 4, AXES_ALL}, .drop = false},
    {"an axis twice", {3, 4, -1}, {1, -1, AXES_ALL}, .drop = false},
    {"nothing: noop", {4, 5, -1}, {AXES_ALL}, .noop = true},
    {"an axis of 1", {4, 1, 5, -1}, {1, AXES_ALL}, .drop = false},
    {"empty reduction", {3, 0, 2, -1}, {1, AXES_ALL}, .drop = false},
    {"empty rows", {3, 0, -1}, {1, AXES_ALL}, .drop = false},
    {"no outputs", {0, 4, -1}, {1, AXES_ALL}, .drop = false},
    {"spatial, channels last", {2, 20, 3, 5, -1}, {2, 3, AXES_ALL}, .last = true},
    {"spatial dropped, channels last",
     {2, 16, 7, 7, -1},
     {2, 3, AXES_ALL},
     .drop = true,
     .last = true},
    {"channels, channels last", {2, 12, 3, 5, -1}, {1, AXES_ALL}, .last = true},
    {"a line, channels last stays", {2, 6, 3, 5, -1}, {2, AXES_ALL}, .last = true},
    {"a line dropped, asks for plain", {2, 6, 3, 5, -1}, {3, AXES_ALL}, .drop = true, .last = true},
    {"volume, channels last", {2, 6, 3, 2, 4, -1}, {2, 3, 4, AXES_ALL}, .last = true},
    {"batch and spatial, channels last", {3, 8, 2, 2, -1}, {0, 2, 3, AXES_ALL}, .last = true},
};

static const trm_op operators[] = {TRM_OP_ReduceL1,        TRM_OP_ReduceL2,   TRM_OP_ReduceLogSum,
                                   TRM_OP_ReduceLogSumExp, TRM_OP_ReduceMax,  TRM_OP_ReduceMean,
                                   TRM_OP_ReduceMin,       TRM_OP_ReduceProd, TRM_OP_ReduceSum,
                                   TRM_OP_ReduceSumSquare};
static const trm_dtype dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64,
                                   TRM_DTYPE_I8,  TRM_DTYPE_U8,  TRM_DTYPE_I16,  TRM_DTYPE_U16,
                                   TRM_DTYPE_I32, TRM_DTYPE_U32, TRM_DTYPE_I64,  TRM_DTYPE_U64,
                                   TRM_DTYPE_BOOL};

/* Sums of up to 10^4 terms of one size in different orders: 1e-5 of the result in fp32 (the CPU
 * adds 64 lanes, and columns one by one); products of n terms n roundings. 16-bit results: one
 * rounding of them. */
static void tolerate(cuda_case *c, trm_dtype dtype)
{
    c->as_f32 = dtype == TRM_DTYPE_F16 || dtype == TRM_DTYPE_BF16;
    c->rtol = dtype == TRM_DTYPE_F64    ? 1e-12
              : dtype == TRM_DTYPE_F32  ? 1e-5
              : dtype == TRM_DTYPE_F16  ? 0x1p-11 + 1e-5
              : dtype == TRM_DTYPE_BF16 ? 0x1p-8 + 1e-5
                                        : 0;
    c->atol = dtype == TRM_DTYPE_F64 ? 1e-12 : trm_dtype_is_float(dtype) ? 1e-6 : 0;
    if (dtype == TRM_DTYPE_F16)
        c->atol = 0x1p-24; /* the smallest */
}

static trm_tensor reduced(const reduce_row *s, trm_tensor in, uint32_t *mask_out)
{
    trm_tensor out = {.dtype = in.dtype};
    uint32_t mask = 0;

    for (int i = 0; s->axes[i] != AXES_ALL; i++)
        mask |= 1u << (s->axes[i] < 0 ? s->axes[i] + in.rank : s->axes[i]);
    if (s->axes[0] == AXES_ALL && !s->noop)
        mask = (1u << in.rank) - 1;
    for (int d = 0; d < in.rank; d++)
        if ((mask >> d & 1) == 0)
            out.dims[out.rank++] = in.dims[d];
        else if (!s->drop)
            out.dims[out.rank++] = 1;
    *mask_out = mask;
    return out;
}

static bool big(const reduce_row *s)
{
    trm_tensor t = kit_tensor(TRM_DTYPE_F32, s->dims);

    return trm_tensor_numel(&t) > 5000;
}

START_TEST(test_reduce)
{
    const reduce_row *s = &shapes[_i];

    for (size_t o = 0; o < sizeof(operators) / sizeof(operators[0]); o++)
        for (size_t t = 0; t < sizeof(dtypes) / sizeof(dtypes[0]); t++) {
            trm_tensor in = kit_tensor(dtypes[t], s->dims);
            bool is_float = trm_dtype_is_float(dtypes[t]);
            bool is_signed = is_float || trm_dtype_is_signed_int(dtypes[t]);
            double lo = is_signed ? -4 : 0, hi = dtypes[t] == TRM_DTYPE_BOOL ? 2 : 5;
            char name[128];
            uint32_t mask = 0;
            int axes = 0;
            cuda_case c = {.op = operators[o], .name = name, .in_count = 1, .out_count = 1};

            if (big(s) && t >= 4 && t != 8) /* one integer dtype will do there */
                continue;
            if (operators[o] == TRM_OP_ReduceLogSum)
                lo = 0.25;
            if (operators[o] == TRM_OP_ReduceProd && is_float) { /* stays in range */
                lo = 0.9;
                hi = 1.1;
            }
            if ((operators[o] == TRM_OP_ReduceSum || operators[o] == TRM_OP_ReduceMean) &&
                is_float && dtypes[t] != TRM_DTYPE_F64) {
                lo = 0.25; /* nothing cancels */
                hi = 1;
            }
            if (dtypes[t] == TRM_DTYPE_F16 && operators[o] != TRM_OP_ReduceProd) {
                lo /= 4;
                hi /= 4;
            }
            snprintf(name, sizeof(name), "%s of %s: %s", trm_op_get(operators[o])->name,
                     trm_dtype_name(dtypes[t]), s->name);
            c.attrs = kit_attrs();
            if (s->drop)
                kit_int(c.attrs, "keepdims", 0);
            if (s->noop)
                kit_int(c.attrs, "noop_with_empty_axes", 1);
            c.in[0] = kit_random(in, lo, hi);
            c.out[0] = reduced(s, in, &mask);
            c.arrives[0] = s->last ? TRM_LAYOUT_CHANNELS_LAST : TRM_LAYOUT_PLAIN;
            while (s->axes[axes] != AXES_ALL)
                axes++;
            if (axes > 0) {
                c.in_count = 2;
                c.known[1] = true;
                c.in[1] = kit_data(KIT_T(TRM_DTYPE_I64, axes));
                for (int i = 0; i < axes; i++)
                    trm_tensor_set_i64(&c.in[1], (size_t)i, s->axes[i]);
            }
            tolerate(&c, dtypes[t]);
            cuda_check(&c);
            if (s->last && strstr(s->name, "plain") == NULL)
                ck_assert_msg(c.wanted[0] == TRM_LAYOUT_CHANNELS_LAST, "%s", name);
            if (strstr(s->name, "stays") != NULL)
                ck_assert_msg(c.gave[0] == TRM_LAYOUT_CHANNELS_LAST, "%s", name);
        }
}
END_TEST

/* NaN and infinities */
static const double odd_values[][6] = {
    {1, NAN, 3, 2, 5, 4},
    {INFINITY, 1, 2, 3, 4, 5},
    {-INFINITY, 1, 2, 3, 4, 5},
    {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY},
    {INFINITY, INFINITY, 0, 0, 0, -INFINITY},
    {NAN, INFINITY, -INFINITY, 0, 1, 2},
    {-300, -300.5, -301, -400, -500, -299},
    {700, 701, 699, 700, 650, 702},
    {0, -0.0, 0, -0.0, 0, 0},
    {1, 1, 1, 1, 1, 1},
    {2, 7, 7, 7, 1, 1},
    {NAN, NAN, NAN, NAN, NAN, NAN},
};

START_TEST(test_odd_values)
{
    static const trm_op some[] = {TRM_OP_ReduceLogSumExp, TRM_OP_ReduceMax, TRM_OP_ReduceMin,
                                  TRM_OP_ReduceSum,       TRM_OP_ArgMax,    TRM_OP_ArgMin};

    for (size_t o = 0; o < sizeof(some) / sizeof(some[0]); o++)
        for (int variant = 0; variant < 16; variant++) {
            bool columns = (variant & 1) != 0, arg = some[o] >= TRM_OP_ArgMax && o >= 4;
            trm_dtype dtype = (variant & 2) != 0 ? TRM_DTYPE_F64 : TRM_DTYPE_F32;
            int64_t n = (variant & 4) != 0 ? 6 : 1; /* 6 rows or columns of 6, or one */
            cuda_case c = {.op = some[o], .in_count = 1, .out_count = 1, .rtol = 1e-6};

            if ((variant & 8) != 0 && !arg)
                continue;
            c.in[0] = kit_data(columns ? KIT_T(dtype, 6, n) : KIT_T(dtype, n, 6));
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = 0; j < 6; j++)
                    trm_tensor_set_f64(&c.in[0], (size_t)(columns ? j * n + i : i * 6 + j),
                                       odd_values[_i][(i + j) % 6]);
            c.attrs = kit_attrs();
            if (arg) {
                kit_int(c.attrs, "axis", columns ? 0 : 1);
                kit_int(c.attrs, "select_last_index", variant >> 3);
                kit_int(c.attrs, "keepdims", 0);
                c.out[0] = KIT_T(TRM_DTYPE_I64, n);
            } else {
                c.in_count = 2;
                c.known[1] = true;
                c.in[1] = KIT_V(KIT_T(TRM_DTYPE_I64, 1), columns ? 0 : 1);
                c.out[0] = columns ? KIT_T(dtype, 1, n) : KIT_T(dtype, n, 1);
            }
            cuda_check(&c);
        }
}
END_TEST

typedef struct arg_row {
    const char *name;
    int64_t dims[TRM_RANK_MAX + 1];
    int64_t axis;
    bool drop, last;
    bool plain; /* expected to ask for it */
} arg_row;

static const arg_row arg_rows[] = {
    {"rows", {5, 13, -1}, 1, .drop = false},
    {"rows, packs", {5, 64, -1}, -1, .drop = true},
    {"a row in parts", {1, 9001, -1}, 1, .drop = false},
    {"columns", {19, 40, -1}, 0, .drop = false},
    {"a column in parts", {4000, 2, -1}, 0, .drop = false},
    {"classes", {2, 21, 6, 7, -1}, 1, .drop = true},
    {"classes, channels last", {2, 21, 6, 7, -1}, 1, .drop = true, .last = true},
    {"classes kept, channels last", {2, 24, 6, 7, -1}, 1, .last = true},
    {"lines, channels last", {2, 4, 6, 7, -1}, 2, .last = true},
    {"lines dropped, channels last",
     {2, 4, 6, 7, -1},
     2,
     .drop = true,
     .last = true,
     .plain = true},
    {"scalar", {-1}, 0, .drop = true},
    {"an axis of 1", {4, 1, -1}, 1, .drop = false},
    {"an empty axis", {4, 0, -1}, 1, .drop = false},
    {"no rows", {0, 4, -1}, 1, .drop = false},
};

START_TEST(test_arg)
{
    const arg_row *s = &arg_rows[_i];

    for (size_t t = 0; t < sizeof(dtypes) / sizeof(dtypes[0]) - 1; t++)
        for (int variant = 0; variant < 4; variant++) {
            trm_tensor in = kit_tensor(dtypes[t], s->dims);
            char name[128];
            cuda_case c = {.op = (variant & 1) != 0 ? TRM_OP_ArgMax : TRM_OP_ArgMin,
                           .name = name,
                           .in_count = 1,
                           .out_count = 1};

            snprintf(name, sizeof(name), "%s of %s: %s", trm_op_get(c.op)->name,
                     trm_dtype_name(dtypes[t]), s->name);
            c.in[0] = kit_random(in, 0, variant >= 2 ? 5 : 100); /* many equals */
            c.out[0].dtype = TRM_DTYPE_I64;
            for (int d = 0; d < in.rank; d++)
                if (d != (s->axis < 0 ? s->axis + in.rank : s->axis))
                    c.out[0].dims[c.out[0].rank++] = in.dims[d];
                else if (!s->drop)
                    c.out[0].dims[c.out[0].rank++] = 1;
            c.attrs = kit_int(kit_attrs(), "axis", s->axis);
            kit_int(c.attrs, "keepdims", !s->drop);
            kit_int(c.attrs, "select_last_index", variant >> 1);
            c.arrives[0] = s->last ? TRM_LAYOUT_CHANNELS_LAST : TRM_LAYOUT_PLAIN;
            cuda_check(&c);
            if (s->last)
                ck_assert_msg(s->plain == (c.wanted[0] == TRM_LAYOUT_PLAIN), "%s", name);
        }
}
END_TEST

START_TEST(test_refused)
{
    cuda_case c = {.op = TRM_OP_ReduceSum, .in_count = 2, .out_count = 1};
    cuda_case posts;

    c.attrs = kit_attrs();
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 2, 3), 0, 1);
    c.in[1] = KIT_V(KIT_T(TRM_DTYPE_I64, 1), 1);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 2, 1);
    c.name = "axes not known";
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
    c.name = "axis out of range";
    c.known[1] = true;
    c.in[1] = KIT_V(KIT_T(TRM_DTYPE_I64, 1), 2);
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
    posts = c;
    posts.name = "posts";
    posts.post_count = 1;
    posts.posts[0] = (trm_post){.op = TRM_OP_Relu, .input = -1};
    posts.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&posts);
    c.name = "shape of the output";
    c.in[1] = KIT_V(KIT_T(TRM_DTYPE_I64, 1), 0);
    cuda_check(&c);
    c.name = "ArgMax of bool";
    c.op = TRM_OP_ArgMax;
    c.in_count = 1;
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_BOOL, 2, 3), 0, 2);
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("reduce");

#define ROWS(a) (int)(sizeof(a) / sizeof((a)[0]))
    tcase_add_loop_test(t, test_reduce, 0, ROWS(shapes));
    tcase_add_loop_test(t, test_odd_values, 0, ROWS(odd_values));
    tcase_add_loop_test(t, test_arg, 0, ROWS(arg_rows));
    tcase_add_test(t, test_refused);
    return kit_main("cuda reduce", t);
}
