/* Normalisations on the CUDA device against the CPU device. */
#include "tests/cuda/cuda_kit.h"

static const trm_dtype dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64};
#define ROWS(a) (int)(sizeof(a) / sizeof((a)[0]))

/* Values of about 1 from moments whose sums run in another order: 1e-5, and the same absolutely
 * (cancellation against the mean and the bias); 16-bit results: one rounding. */
static void tolerate(cuda_case *c, trm_dtype dtype)
{
    c->as_f32 = dtype == TRM_DTYPE_F16 || dtype == TRM_DTYPE_BF16;
    c->rtol = dtype == TRM_DTYPE_F64   ? 1e-11
              : dtype == TRM_DTYPE_F32 ? 1e-5
              : dtype == TRM_DTYPE_F16 ? 0x1p-11 + 1e-5
                                       : 0x1p-8 + 1e-5;
    c->atol = dtype == TRM_DTYPE_F64 ? 1e-11 : 1e-5;
}

typedef struct layer_row {
    const char *name;
    int64_t dims[TRM_RANK_MAX + 1];
    int64_t axis;
    int64_t gain[TRM_RANK_MAX + 1]; /* its shape */
    bool bias, known;
    bool f32; /* gain and bias in f32 */
} layer_row;

static const layer_row layer_rows[] = {
    {"short", {7, 5, -1}, -1, {5, -1}, .bias = true},
    {"packs, known", {7, 64, -1}, -1, {64, -1}, .bias = true, .known = true},
    {"packs, no bias", {7, 64, -1}, -1, {64, -1}, .bias = false},
    {"few rows of 768", {2, 3, 768, -1}, -1, {768, -1}, .bias = true, .f32 = true},
    {"few rows of 771", {2, 3, 771, -1}, -1, {771, -1}, .bias = true, .f32 = true},
    {"many rows of 40", {1058, 40, -1}, -1, {40, -1}, .bias = true},
    {"many rows of 39", {1057, 39, -1}, -1, {39, -1}, .bias = true, .f32 = true},
    {"many rows of 264", {1058, 264, -1}, -1, {264, -1}, .bias = true},
    {"many rows of 261", {1057, 261, -1}, -1, {261, -1}, .bias = true},
    {"many rows of 1032", {1056, 1032, -1}, -1, {1032, -1}, .bias = true},
    {"many rows of 1029", {1056, 1029, -1}, -1, {1029, -1}, .bias = true},
    {"4096", {3, 4096, -1}, -1, {4096, -1}, .bias = true},
    {"long, in pieces", {2, 20000, -1}, -1, {20000, -1}, .bias = true},
    {"long, odd", {2, 9001, -1}, -1, {9001, -1}, .bias = true, .f32 = true},
    {"two axes", {3, 4, 6, -1}, 1, {4, 6, -1}, .bias = true},
    {"axis 0", {4, 6, -1}, 0, {4, 6, -1}, .bias = true},
    {"gain of one axis", {3, 4, 6, -1}, 1, {6, -1}, .bias = true},
    {"gain of one axis, known", {3, 4, 6, -1}, 1, {4, 1, -1}, .bias = true, .known = true},
    {"gain of one", {3, 4, 6, -1}, -1, {1, -1}, .bias = true},
    {"gain of one, known", {3, 4, 6, -1}, -1, {1, 1, 1, -1}, .bias = true, .known = true},
    {"rows of 1", {5, 1, -1}, -1, {1, -1}, .bias = true},
    {"no rows", {0, 6, -1}, -1, {6, -1}, .bias = true},
};

static bool is_big(const int64_t *dims)
{
    trm_tensor t = kit_tensor(TRM_DTYPE_F32, dims);

    return trm_tensor_numel(&t) > 30000;
}

START_TEST(test_layer)
{
    const layer_row *s = &layer_rows[_i];

    for (int variant = 0; variant < 16; variant++) {
        trm_dtype dtype = dtypes[variant & 3];
        bool rms = (variant & 4) != 0, stats = (variant & 8) != 0 && !rms;
        trm_tensor in = kit_tensor(dtype, s->dims);
        trm_dtype gain = s->f32 && dtype != TRM_DTYPE_F64 ? TRM_DTYPE_F32 : dtype;
        char name[128];
        cuda_case c = {.op = rms ? TRM_OP_RMSNormalization : TRM_OP_LayerNormalization,
                       .name = name,
                       .in_count = !rms && s->bias ? 3 : 2,
                       .out_count = stats ? 3 : 1};

        if (((variant & 8) != 0 && rms) ||
            (is_big(s->dims) && (rms != (variant & 1) || variant >= 8)))
            continue;
        snprintf(name, sizeof(name), "%s of %s: %s", trm_op_get(c.op)->name, trm_dtype_name(dtype),
                 s->name);
        c.attrs = kit_int(kit_attrs(), "axis", s->axis);
        kit_float(c.attrs, "epsilon", 1e-3f);
        c.in[0] = kit_random(in, -1, 3);
        c.in[1] = kit_random(kit_tensor(gain, s->gain), 0.5, 1.5);
        c.in[2] = kit_random(kit_tensor(gain, s->gain), -1, 1);
        c.known[1] = c.known[2] = s->known;
        c.out[0] = in;
        for (int i = 1; i < c.out_count; i++) {
            int axis = (int)(s->axis < 0 ? s->axis + in.rank : s->axis);

            c.out[i] = in;
            c.out[i].dtype = dtype == TRM_DTYPE_F64 ? dtype : TRM_DTYPE_F32;
            for (int d = axis; d < in.rank; d++)
                c.out[i].dims[d] = 1;
        }
        tolerate(&c, dtype);
        cuda_check(&c);
    }
}
END_TEST

/* A mean that is large beside the deviations: the sum of squares would cancel. */
START_TEST(test_large_mean)
{
    static const int64_t lengths[] = {100, 1000, 20000};

    for (int i = 0; i < ROWS(lengths); i++) {
        cuda_case c = {
            .op = TRM_OP_LayerNormalization, .name = "large mean", .in_count = 2, .out_count = 1};

        c.attrs = kit_attrs();
        c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 2, lengths[i]), 4095, 4097);
        c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, lengths[i]), 1, 1);
        c.out[0] = KIT_T(TRM_DTYPE_F32, 2, lengths[i]);
        c.atol =
            2e-3; /* the mean itself is only known to half an ulp of 4096, 2.4e-4, on each side */
        cuda_check(&c);
    }
}
END_TEST

typedef struct group_row {
    const char *name;
    int64_t dims[TRM_RANK_MAX + 1];
    int64_t groups; /* 0: InstanceNormalization */
    bool last, per_group, known, f32;
} group_row;

static const group_row group_rows[] = {
    {"instances", {2, 3, 5, 7, -1}, 0, .last = false},
    {"instances, packs", {2, 3, 8, 8, -1}, 0, .last = false},
    {"instances of a line", {2, 3, 40, -1}, 0, .last = false},
    {"instances, long", {1, 2, 96, 96, -1}, 0, .last = false},
    {"instances, long, odd", {1, 2, 95, 97, -1}, 0, .f32 = true},
    {"instances, channels last", {2, 3, 5, 7, -1}, 0, .last = true},
    {"instances, channels last, packs", {2, 40, 5, 7, -1}, 0, .last = true},
    {"instances, channels last, in parts", {1, 8, 30, 31, -1}, 0, .last = true},
    {"groups", {2, 6, 5, 7, -1}, 3, .f32 = true},
    {"groups, packs", {2, 8, 4, 4, -1}, 2, .last = false},
    {"groups, long", {1, 8, 48, 64, -1}, 2, .last = false},
    {"one group", {2, 6, 3, 3, -1}, 1, .last = false},
    {"groups, channels last", {2, 6, 5, 7, -1}, 3, .last = true},
    {"groups, channels last, packs", {2, 64, 5, 7, -1}, 8, .last = true, .f32 = true},
    {"groups, channels last, in parts", {1, 16, 20, 40, -1}, 4, .last = true},
    {"groups of a volume, channels last", {2, 6, 3, 4, 5, -1}, 2, .last = true},
    {"gain of groups", {2, 6, 5, 7, -1}, 3, .per_group = true},
    {"gain of groups, long", {1, 4, 96, 96, -1}, 2, .per_group = true},
    {"gain of groups, channels last", {2, 6, 5, 7, -1}, 3, .last = true, .per_group = true},
    {"no spatial dims", {3, 6, -1}, 2, .last = false},
    {"no images", {0, 6, 2, 2, -1}, 2, .last = false},
    {"empty images", {2, 6, 0, 2, -1}, 2, .last = true},
};

START_TEST(test_group)
{
    const group_row *s = &group_rows[_i];

    for (int t = 0; t < ROWS(dtypes); t++) {
        trm_tensor in = kit_tensor(dtypes[t], s->dims);
        trm_dtype gain = s->f32 && dtypes[t] != TRM_DTYPE_F64 ? TRM_DTYPE_F32 : dtypes[t];
        char name[128];
        cuda_case c = {.op = s->groups == 0 ? TRM_OP_InstanceNormalization
                                            : TRM_OP_GroupNormalization,
                       .name = name,
                       .in_count = 3,
                       .out_count = 1};

        snprintf(name, sizeof(name), "%s of %s", s->name, trm_dtype_name(dtypes[t]));
        c.attrs = kit_float(kit_attrs(), "epsilon", 1e-3f);
        if (s->groups > 0)
            kit_int(c.attrs, "num_groups", s->groups);
        if (s->per_group)
            kit_int(c.attrs, "per_group", 1);
        c.in[0] = kit_random(in, -1, 3);
        c.in[1] = kit_random(KIT_T(gain, s->per_group ? s->groups : s->dims[1]), 0.5, 1.5);
        c.in[2] = kit_random(KIT_T(gain, s->per_group ? s->groups : s->dims[1]), -1, 1);
        c.known[1] = c.known[2] = (t & 1) != 0;
        c.out[0] = in;
        c.arrives[0] = s->last ? TRM_LAYOUT_CHANNELS_LAST : TRM_LAYOUT_PLAIN;
        tolerate(&c, dtypes[t]);
        cuda_check(&c);
        if (s->last)
            ck_assert_msg(c.gave[0] == TRM_LAYOUT_CHANNELS_LAST, "%s", name);
    }
}
END_TEST

/* gain and bias of dtypes that no kernel reads as they are */
START_TEST(test_mixed)
{
    for (int known = 0; known < 2; known++)
        for (int t = 0; t < ROWS(dtypes); t++) {
            cuda_case c = {
                .op = TRM_OP_LayerNormalization, .name = "mixed", .in_count = 3, .out_count = 1};

            c.attrs = kit_attrs();
            c.in[0] = kit_random(KIT_T(dtypes[t], 3, 24), -1, 3);
            c.in[1] = kit_random(KIT_T(TRM_DTYPE_BF16, 24), 0.5, 1.5);
            c.in[2] = kit_random(KIT_T(TRM_DTYPE_F16, 24), -1, 1);
            c.known[1] = c.known[2] = known != 0;
            c.out[0] = KIT_T(dtypes[t], 3, 24);
            tolerate(&c, dtypes[t]);
            c.as_f32 = false;
            if (dtypes[t] == TRM_DTYPE_F16 || dtypes[t] == TRM_DTYPE_BF16)
                c.rtol *= 2; /* two roundings to compare */
            cuda_check(&c);
        }
}
END_TEST

typedef struct axes_row {
    const char *name;
    int64_t dims[TRM_RANK_MAX + 1];
    int64_t axes[TRM_RANK_MAX + 1]; /* ended by 99; one axis and lp: LpNormalization */
    bool lp, last;
} axes_row;

static const axes_row axes_rows[] = {
    {"rows", {5, 33, -1}, {-1, 99}, .lp = true},
    {"columns", {33, 6, -1}, {0, 99}, .lp = true},
    {"channels", {2, 8, 3, 5, -1}, {1, 99}, .lp = true},
    {"channels, channels last", {2, 8, 3, 5, -1}, {1, 99}, .lp = true, .last = true},
    {"lines, channels last", {2, 8, 3, 5, -1}, {3, 99}, .lp = true, .last = true},
    {"long", {1, 20000, -1}, {1, 99}, .lp = true},
    {"an empty axis", {2, 0, 3, -1}, {1, 99}, .lp = true},
    {"usual axes", {3, 4, 5, 6, -1}, {99}, .lp = false},
    {"usual axes, channels last", {3, 4, 5, 6, -1}, {99}, .last = true},
    {"many images", {24, 2, 16, 17, -1}, {99}, .lp = false},
    {"spatial", {3, 4, 5, 6, -1}, {2, 3, 99}, .lp = false},
    {"channels of a position, channels last", {3, 4, 5, 6, -1}, {1, 99}, .last = true},
    {"all", {3, 4, 5, -1}, {0, 1, 2, 99}, .lp = false},
    {"the last", {4, 50, -1}, {-1, 99}, .lp = false},
    {"nothing", {3, 0, 2, 2, -1}, {99}, .lp = false},
};

START_TEST(test_axes)
{
    const axes_row *s = &axes_rows[_i];

    for (int variant = 0; variant < 8; variant++) {
        trm_dtype dtype = dtypes[variant & 3];
        trm_tensor in = kit_tensor(dtype, s->dims);
        size_t count = 0;
        char name[128];
        cuda_case c = {.op = s->lp ? TRM_OP_LpNormalization : TRM_OP_MeanVarianceNormalization,
                       .name = name,
                       .in_count = 1,
                       .out_count = 1};

        snprintf(name, sizeof(name), "%s of %s: %s", trm_op_get(c.op)->name, trm_dtype_name(dtype),
                 s->name);
        c.attrs = kit_attrs();
        while (s->axes[count] != 99)
            count++;
        if (s->lp) {
            kit_int(c.attrs, "axis", s->axes[0]);
            kit_int(c.attrs, "p", 1 + (variant >> 2));
        } else if (count > 0) {
            kit_ints(c.attrs, "axes", s->axes, count);
        }
        if (!s->lp && variant >= 4)
            continue;
        c.in[0] = kit_random(in, -1, 2);
        if (s->lp && variant == 0) /* a zero vector stays zero */
            for (size_t i = 0; i < trm_tensor_numel(&in); i++)
                trm_tensor_set_f64(&c.in[0], i, 0);
        c.out[0] = in;
        c.arrives[0] = s->last ? TRM_LAYOUT_CHANNELS_LAST : TRM_LAYOUT_PLAIN;
        tolerate(&c, dtype);
        cuda_check(&c);
        if (s->last)
            ck_assert_msg(c.gave[0] == TRM_LAYOUT_CHANNELS_LAST, "%s", name);
    }
}
END_TEST

typedef struct channel_row {
    const char *name;
    int64_t dims[TRM_RANK_MAX + 1];
    bool last, training;
    int64_t size; /* of LRN; 0: BatchNormalization */
} channel_row;

static const channel_row channel_rows[] = {
    {"batch norm", {2, 5, 3, 7, -1}, .last = false},
    {"batch norm, packs", {2, 5, 4, 8, -1}, .last = false},
    {"batch norm, packs over channels", {2, 8, 3, 3, -1}, .last = false},
    {"batch norm, channels last", {2, 5, 3, 7, -1}, .last = true},
    {"batch norm, channels last, packs", {2, 16, 3, 7, -1}, .last = true},
    {"batch norm of vectors", {9, 24, -1}, .last = false},
    {"batch norm of a line", {9, -1}, .last = false},
    {"batch norm, no images", {0, 4, 2, 2, -1}, .last = false},
    {"batch norm, training", {3, 5, 3, 7, -1}, .training = true},
    {"batch norm, training, channels last", {3, 8, 3, 7, -1}, .last = true, .training = true},
    {"lrn of 5", {2, 9, 3, 5, -1}, .size = 5},
    {"lrn of 1", {2, 9, 3, 5, -1}, .size = 1},
    {"lrn of 4", {2, 9, 3, 5, -1}, .size = 4},
    {"lrn of more than there are", {1, 3, 2, 2, -1}, .size = 11},
    {"lrn, channels last", {2, 9, 3, 5, -1}, .last = true, .size = 5},
    {"lrn of vectors", {4, 12, -1}, .size = 3},
    {"lrn of nothing", {2, 0, 3, -1}, .size = 3},
};

START_TEST(test_channels)
{
    const channel_row *s = &channel_rows[_i];

    for (int variant = 0; variant < 16; variant++) {
        trm_dtype dtype = dtypes[variant & 3];
        trm_dtype other = (variant & 8) != 0 && dtype != TRM_DTYPE_F64 ? TRM_DTYPE_F32 : dtype;
        trm_tensor in = kit_tensor(dtype, s->dims);
        int64_t channels = in.rank > 1 ? in.dims[1] : 1;
        char name[128];
        cuda_case c = {.op = s->size > 0 ? TRM_OP_LRN : TRM_OP_BatchNormalization,
                       .name = name,
                       .in_count = s->size > 0 ? 1 : 5,
                       .out_count = s->training ? 3 : 1};

        if (s->size > 0 && variant >= 4)
            continue;
        snprintf(name, sizeof(name), "%s of %s, variant %d", s->name, trm_dtype_name(dtype),
                 variant);
        c.attrs = kit_attrs();
        c.in[0] = kit_random(in, -1, 3);
        for (int i = 1; i < c.in_count; i++) {
            c.in[i] = kit_random(KIT_T(other, channels), i == 4 ? 0.5 : -1, 2);
            c.known[i] = (variant & 4) != 0;
        }
        if (s->size > 0) {
            kit_int(c.attrs, "size", s->size);
            kit_float(c.attrs, "alpha", 0.5f);
            kit_float(c.attrs, "bias", 1.5f);
        } else {
            kit_float(c.attrs, "epsilon", 1e-3f);
            kit_float(c.attrs, "momentum", 0.75f);
        }
        if (s->training)
            kit_int(c.attrs, "training_mode", 1);
        if (variant >= 12 && !s->training) { /* the post-op that is applied */
            c.post_count = 1;
            c.posts[0] = (trm_post){.op = TRM_OP_Relu, .input = -1};
        }
        c.out[0] = in;
        c.out[1] = c.out[2] = KIT_T(other, channels);
        c.arrives[0] = s->last ? TRM_LAYOUT_CHANNELS_LAST : TRM_LAYOUT_PLAIN;
        tolerate(&c, dtype);
        cuda_check(&c);
        if (s->last)
            ck_assert_msg(c.gave[0] == TRM_LAYOUT_CHANNELS_LAST, "%s", name);
    }
}
END_TEST

START_TEST(test_refused)
{
    cuda_case c = {.op = TRM_OP_LayerNormalization, .in_count = 2, .out_count = 1};

    c.attrs = kit_attrs();
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 2, 6), 0, 1);
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, 5), 0, 1);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 2, 6);
    c.name = "gain does not broadcast";
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
    c.name = "axis out of range";
    c.attrs = kit_int(kit_attrs(), "axis", 2);
    cuda_check(&c);
    c.name = "groups do not divide";
    c.op = TRM_OP_GroupNormalization;
    c.in_count = 3;
    c.in[1] = c.in[2] = kit_random(KIT_T(TRM_DTYPE_F32, 6), 0, 1);
    c.attrs = kit_int(kit_attrs(), "num_groups", 4);
    cuda_check(&c);
    c.name = "LRN without a size";
    c.op = TRM_OP_LRN;
    c.in_count = 1;
    c.attrs = kit_attrs();
    cuda_check(&c);
    c.name = "integer gain";
    c.op = TRM_OP_LayerNormalization;
    c.in_count = 2;
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_I32, 6), 0, 9);
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
    c.name = "integers";
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_I32, 2, 6), 0, 9);
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("norm");

    tcase_add_loop_test(t, test_layer, 0, ROWS(layer_rows));
    tcase_add_test(t, test_large_mean);
    tcase_add_loop_test(t, test_group, 0, ROWS(group_rows));
    tcase_add_test(t, test_mixed);
    tcase_add_loop_test(t, test_axes, 0, ROWS(axes_rows));
    tcase_add_loop_test(t, test_channels, 0, ROWS(channel_rows));
    tcase_add_test(t, test_refused);
    return kit_main("cuda norm", t);
}
