/* Strided copies on the CUDA device, Concat and Split, equal to the CPU's to the bit: Transpose,
 * DepthToSpace, SpaceToDepth, Expand, Tile, Slice, Reshape and its kin. */
#include "tests/cuda/cuda_kit.h"

#define P TRM_LAYOUT_PLAIN
#define L TRM_LAYOUT_CHANNELS_LAST
#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static const trm_dtype widths[] = {TRM_DTYPE_U8, TRM_DTYPE_F16, TRM_DTYPE_F32, TRM_DTYPE_I64};

static trm_tensor shaped(trm_dtype dtype, int rank, const int64_t *dims)
{
    trm_tensor t = {.dtype = dtype, .rank = rank};

    memcpy(t.dims, dims, (size_t)rank * sizeof(*dims));
    return t;
}

static trm_tensor ints(int count, const int64_t *values)
{
    trm_tensor t = kit_data(KIT_T(TRM_DTYPE_I64, count));

    memcpy(t.data, values, (size_t)count * sizeof(*values));
    return t;
}

/* ---- Transpose ---- */

static const struct {
    const char *name;
    int rank;
    int64_t dims[6];
    int perm[6]; /* -1 first: none given */
    trm_layout arrives, gives;
    const char *kernel; /* NULL: it depends on the dtype */
} transposes[] = {
    {"heads", 4, {2, 7, 4, 16}, {0, 2, 1, 3}, P, P, "strided copy"},
    {"keys", 4, {1, 40, 2, 24}, {0, 2, 3, 1}, P, P, "tiled transpose"},
    {"to channels last", 4, {2, 5, 9, 11}, {0, 2, 3, 1}, P, P, "tiled transpose"},
    {"to channels first", 4, {2, 9, 11, 3}, {0, 3, 1, 2}, P, L, "flat copy"},
    {"many channels", 4, {1, 5, 7, 70}, {0, 3, 1, 2}, P, L, "flat copy"},
    {"channels first, rank 3", 3, {2, 9, 33}, {0, 2, 1}, P, P, "tiled transpose"},
    {"channels first, rank 5", 5, {1, 2, 4, 3, 9}, {0, 4, 1, 2, 3}, P, L, "flat copy"},
    {"matrix", 2, {37, 53}, {1, 0}, P, P, "tiled transpose"},
    {"square", 2, {64, 64}, {1, 0}, P, P, NULL},
    {"narrow", 2, {130, 3}, {1, 0}, P, P, "tiled transpose"},
    {"two columns", 2, {300, 2}, {-1}, P, P, NULL},
    {"row", 2, {1, 9}, {1, 0}, P, P, NULL},
    {"reversed", 3, {6, 5, 4}, {-1}, P, P, NULL},
    {"pairs", 4, {3, 10, 9, 2}, {0, 2, 1, 3}, P, P, NULL},
    {"fours", 4, {1, 20, 24, 4}, {0, 2, 1, 3}, P, P, NULL},
    {"threes", 4, {2, 6, 5, 3}, {0, 2, 1, 3}, P, P, NULL},
    {"rank 6", 6, {2, 3, 2, 5, 3, 4}, {4, 1, 5, 0, 3, 2}, P, P, NULL},
    {"windows", 6, {1, 2, 4, 3, 4, 8}, {0, 1, 3, 2, 4, 5}, P, P, NULL},
    {"negative axes", 3, {4, 5, 6}, {-1 - 9, 0, 0}, P, P, NULL},
    {"same order", 3, {4, 5, 6}, {0, 1, 2}, P, P, "flat copy"},
    {"ones", 5, {1, 6, 1, 7, 1}, {4, 3, 2, 1, 0}, P, P, NULL},
    {"empty", 3, {4, 0, 6}, {2, 0, 1}, P, P, NULL},
    {"scalar", 0, {0}, {-1}, P, P, NULL},
    {"channels last flat", 4, {2, 6, 5, 7}, {0, 2, 3, 1}, L, P, "flat copy"},
    {"channels last back", 4, {2, 6, 5, 7}, {0, 1, 2, 3}, L, P, NULL},
    {"channels last mixed", 4, {2, 40, 5, 7}, {0, 3, 1, 2}, L, P, NULL},
    {"channels last rank 3", 3, {2, 40, 7}, {2, 1, 0}, L, P, NULL},
    {"long", 3, {5, 40, 100}, {1, 0, 2}, P, P, NULL},
    {"long and odd", 3, {5, 41, 33}, {1, 0, 2}, P, P, NULL},
};

START_TEST(test_transpose)
{
    int rank = transposes[_i].rank;
    int64_t perm[6];

    for (int i = 0; i < rank; i++)
        perm[i] = transposes[_i].perm[i];
    if (rank > 0 && perm[0] < -1) /* "negative axes" */
        memcpy(perm, (const int64_t[]){-1, 0, -2}, 3 * sizeof(*perm));
    for (int w = 0; w < 4; w++) {
        cuda_case c = {.name = transposes[_i].name,
                       .op = TRM_OP_Transpose,
                       .attrs = kit_attrs(),
                       .in_count = 1,
                       .out_count = 1,
                       .arrives = {transposes[_i].arrives}};
        int64_t to[6];

        for (int i = 0; i < rank; i++) {
            int64_t from = transposes[_i].perm[0] == -1 ? rank - 1 - i : perm[i];

            to[i] = transposes[_i].dims[from < 0 ? from + rank : from];
        }
        if (transposes[_i].perm[0] != -1)
            kit_ints(c.attrs, "perm", perm, (size_t)rank);
        c.in[0] = kit_random(shaped(widths[w], rank, transposes[_i].dims), 0, 120);
        c.out[0] = shaped(widths[w], rank, to);
        cuda_check(&c);
        ck_assert_int_eq(c.wanted[0], transposes[_i].arrives);
        ck_assert_int_eq(c.gave[0], transposes[_i].gives);
        if (transposes[_i].kernel != NULL)
            ck_assert_str_eq(c.kernel, transposes[_i].kernel);
    }
}
END_TEST

/* ---- DepthToSpace, SpaceToDepth ---- */

static const struct {
    const char *name, *mode;
    int64_t dims[4], block; /* of the deep tensor */
    trm_layout arrives;
} blocks[] = {
    {"DCR", "DCR", {2, 12, 3, 5}, 2, P},
    {"CRD", "CRD", {2, 12, 3, 5}, 2, P},
    {"DCR of 3", "DCR", {1, 18, 2, 40}, 3, P},
    {"CRD channels last", "CRD", {1, 16, 5, 6}, 2, L},
    {"DCR channels last", "DCR", {2, 32, 3, 5}, 2, L},
    {"block of 1", "DCR", {2, 3, 4, 5}, 1, P},
    {"empty", "DCR", {0, 4, 4, 5}, 2, P},
};

START_TEST(test_blocks)
{
    int64_t b = blocks[_i].block;

    for (int w = 0; w < 8; w++) {
        trm_tensor deep = shaped(widths[w % 4], 4, blocks[_i].dims), shallow = deep;
        cuda_case c = {.name = blocks[_i].name,
                       .op = w < 4 ? TRM_OP_DepthToSpace : TRM_OP_SpaceToDepth,
                       .attrs = kit_attrs(),
                       .in_count = 1,
                       .out_count = 1,
                       .arrives = {blocks[_i].arrives}};

        shallow.dims[1] /= b * b;
        shallow.dims[2] *= b;
        shallow.dims[3] *= b;
        kit_int(c.attrs, "blocksize", b);
        kit_string(c.attrs, "mode", blocks[_i].mode);
        c.in[0] = kit_random(w < 4 ? deep : shallow, 0, 120);
        c.out[0] = w < 4 ? shallow : deep;
        cuda_check(&c);
        ck_assert_int_eq(c.wanted[0], blocks[_i].arrives);
        ck_assert_int_eq(c.gave[0], blocks[_i].arrives);
    }
}
END_TEST

/* ---- Expand, Tile ---- */

static const struct {
    const char *name;
    trm_op op;
    int rank, out_rank;
    int64_t dims[6], out[6], shape[6];
} repeats[] = {
    {"rows", TRM_OP_Expand, 2, 2, {1, 40}, {7, 40}, {7, 40}},
    {"columns", TRM_OP_Expand, 2, 2, {7, 1}, {7, 40}, {7, 40}},
    {"columns, odd", TRM_OP_Expand, 2, 2, {7, 1}, {7, 41}, {1, 41}},
    {"new dims", TRM_OP_Expand, 2, 4, {3, 1}, {2, 5, 3, 8}, {2, 5, 1, 8}},
    {"scalar", TRM_OP_Expand, 0, 2, {0}, {3, 5}, {3, 5}},
    {"middle", TRM_OP_Expand, 4, 4, {2, 3, 1, 6}, {2, 3, 5, 6}, {2, 3, 5, 6}},
    {"nothing", TRM_OP_Expand, 2, 2, {3, 4}, {3, 4}, {1, 1}},
    {"empty", TRM_OP_Expand, 2, 2, {1, 4}, {0, 4}, {0, 4}},
    {"tile", TRM_OP_Tile, 2, 2, {3, 5}, {6, 15}, {2, 3}},
    {"tile one dim", TRM_OP_Tile, 3, 3, {2, 3, 8}, {2, 12, 8}, {1, 4, 1}},
    {"tile ones", TRM_OP_Tile, 3, 3, {1, 3, 1}, {5, 3, 7}, {5, 1, 7}},
    {"tile by 0", TRM_OP_Tile, 2, 2, {3, 5}, {0, 5}, {0, 1}},
    {"tile rank 6", TRM_OP_Tile, 6, 6, {2, 1, 3, 2, 1, 2}, {4, 2, 3, 4, 3, 4}, {2, 2, 1, 2, 3, 2}},
};

START_TEST(test_repeats)
{
    for (int w = 0; w < 4; w++) {
        int n = repeats[_i].op == TRM_OP_Tile ? repeats[_i].rank : repeats[_i].out_rank;
        cuda_case c = {.name = repeats[_i].name,
                       .op = repeats[_i].op,
                       .in_count = 2,
                       .out_count = 1,
                       .known = {false, true}};

        c.in[0] = kit_random(shaped(widths[w], repeats[_i].rank, repeats[_i].dims), 0, 120);
        c.in[1] = ints(n, repeats[_i].shape);
        c.out[0] = shaped(widths[w], repeats[_i].out_rank, repeats[_i].out);
        cuda_check(&c);
    }
}
END_TEST

/* ---- Slice ---- */

static const struct {
    const char *name;
    int rank, count;
    int64_t dims[4], out[4], starts[4], ends[4], axes[4], steps[4]; /* step 0 first: none given */
    trm_layout arrives;
} slices[] = {
    {"rows", 2, 1, {9, 8}, {4, 8}, {2}, {6}, {0}, {0}, P},
    {"columns", 2, 1, {9, 40}, {9, 24}, {8}, {32}, {1}, {0}, P},
    {"odd columns", 2, 1, {9, 40}, {9, 20}, {3}, {23}, {-1}, {1}, P},
    {"steps", 2, 2, {9, 40}, {3, 13}, {1, 1}, {8, 40}, {0, 1}, {3, 3}, P},
    {"backwards", 2, 2, {9, 40}, {9, 40}, {-1, -1}, {INT64_MIN, INT64_MIN}, {0, 1}, {-1, -1}, P},
    {"backwards by 2", 2, 1, {9, 40}, {9, 16}, {-2}, {-34}, {1}, {-2}, P},
    {"extremes", 2, 2, {9, 40}, {9, 40}, {INT64_MIN, 0}, {INT64_MAX, INT64_MAX}, {1, 0}, {1, 1}, P},
    {"huge step", 2, 1, {9, 40}, {9, 1}, {5}, {INT64_MAX}, {1}, {INT64_MAX}, P},
    {"huge step back", 2, 1, {9, 40}, {9, 1}, {5}, {INT64_MIN}, {1}, {INT64_MIN}, P},
    {"empty", 2, 1, {9, 40}, {9, 0}, {8}, {4}, {1}, {0}, P},
    {"even rows and columns", 4, 2, {1, 3, 8, 8}, {1, 3, 4, 4}, {0, 0}, {8, 8}, {2, 3}, {2, 2}, P},
    {"channels", 4, 1, {2, 16, 5, 3}, {2, 8, 5, 3}, {4}, {12}, {1}, {0}, L},
    {"odd channels", 4, 1, {2, 16, 5, 3}, {2, 7, 5, 3}, {9}, {99}, {1}, {0}, L},
    {"image", 4, 2, {2, 16, 5, 6}, {2, 16, 3, 3}, {1, 1}, {4, 6}, {2, 3}, {1, 2}, L},
    {"image backwards", 4, 1, {2, 12, 5, 6}, {2, 12, 5, 6}, {-1}, {INT64_MIN}, {3}, {-1}, L},
    {"rank 3", 3, 1, {2, 12, 9}, {2, 12, 4}, {3}, {7}, {2}, {0}, L},
};

START_TEST(test_slice)
{
    int count = slices[_i].count, rank = slices[_i].rank;

    for (int w = 0; w < 4; w++) {
        cuda_case c = {.name = slices[_i].name,
                       .op = TRM_OP_Slice,
                       .in_count = slices[_i].steps[0] == 0 ? 4 : 5,
                       .out_count = 1,
                       .known = {false, true, true, true, true},
                       .arrives = {slices[_i].arrives}};

        c.in[0] = kit_random(shaped(widths[w], rank, slices[_i].dims), 0, 120);
        c.in[1] = ints(count, slices[_i].starts);
        c.in[2] = ints(count, slices[_i].ends);
        c.in[3] = ints(count, slices[_i].axes);
        c.in[4] = ints(count, slices[_i].steps);
        c.out[0] = shaped(widths[w], rank, slices[_i].out);
        cuda_check(&c);
        ck_assert_int_eq(c.gave[0], slices[_i].arrives);
    }
}
END_TEST

/* ---- views ---- */

START_TEST(test_views)
{
    static const struct {
        trm_op op;
        trm_dtype dtype;
        int64_t columns;
    } rows[] = {
        {TRM_OP_Reshape, TRM_DTYPE_F32, 40}, {TRM_OP_Flatten, TRM_DTYPE_U8, 333},
        {TRM_OP_Squeeze, TRM_DTYPE_F16, 7},  {TRM_OP_Unsqueeze, TRM_DTYPE_I64, 1},
        {TRM_OP_Reshape, TRM_DTYPE_F64, 0},  {TRM_OP_Flatten, TRM_DTYPE_F32, 4000},
        {TRM_OP_Flatten, TRM_DTYPE_BOOL, 5},
    };
    cuda_case c = {.op = rows[_i].op, .in_count = 1, .out_count = 1, .arrives = {L}};

    c.in[0] = kit_random(KIT_T(rows[_i].dtype, 2, 1, rows[_i].columns), 0, 2);
    c.out[0] = KIT_T(rows[_i].dtype, 2, rows[_i].columns);
    cuda_check(&c);
    ck_assert_int_eq(c.wanted[0], P);
}
END_TEST

/* ---- Concat, Split ---- */

static const struct {
    const char *name;
    int rank, axis, count;
    int64_t dims[4], sizes[5];
    trm_layout arrives[5], keeps;
} joins[] = {
    {"rows", 2, 0, 3, {0, 5}, {2, 3, 1}, {P}, P},
    {"columns", 2, -1, 3, {7, 0}, {8, 16, 4}, {P}, P},
    {"odd columns", 2, 1, 4, {7, 0}, {1, 3, 0, 5}, {P}, P},
    {"one", 3, 1, 1, {2, 0, 4}, {5}, {P}, P},
    {"empty", 3, 1, 2, {2, 0, 0}, {5, 1}, {P}, P},
    {"vectors", 1, 0, 3, {0}, {4, 4, 1}, {P}, P},
    {"channels", 4, 1, 3, {2, 0, 3, 5}, {8, 16, 8}, {P}, P},
    {"dense", 4, 1, 3, {2, 0, 3, 5}, {8, 16, 8}, {L, L, L}, L},
    {"odd dense", 4, 1, 3, {2, 0, 3, 5}, {3, 5, 4}, {L, L, L}, L},
    {"most last", 4, 1, 3, {2, 0, 3, 5}, {4, 16, 8}, {P, L, L}, L},
    {"most plain", 4, 1, 3, {2, 0, 3, 5}, {4, 16, 8}, {L, P, P}, P},
    {"image rows", 4, 2, 2, {2, 8, 0, 5}, {3, 1}, {L, L}, L},
    {"image columns", 4, 3, 2, {2, 8, 4, 0}, {3, 2}, {L, L}, L},
    {"batches", 4, 0, 2, {0, 6, 4, 3}, {1, 2}, {L, L}, L},
    {"rank 3", 3, 1, 2, {2, 0, 7}, {6, 4}, {L, L}, L},
    {"long", 2, 1, 3, {9, 0}, {800, 64, 36}, {P}, P},
};

START_TEST(test_concat)
{
    int axis = joins[_i].axis < 0 ? joins[_i].rank - 1 : joins[_i].axis;

    for (int w = 0; w < 4; w++) {
        cuda_case c = {.name = joins[_i].name,
                       .op = TRM_OP_Concat,
                       .attrs = kit_int(kit_attrs(), "axis", joins[_i].axis),
                       .in_count = joins[_i].count,
                       .out_count = 1};

        c.out[0] = shaped(widths[w], joins[_i].rank, joins[_i].dims);
        for (int i = 0; i < c.in_count; i++) {
            trm_tensor x = c.out[0];

            x.dims[axis] = joins[_i].sizes[i];
            c.in[i] = kit_random(x, 0, 120);
            c.arrives[i] = joins[_i].arrives[i];
        }
        for (int i = 0; i < c.in_count; i++)
            c.out[0].dims[axis] += joins[_i].sizes[i];
        cuda_check(&c);
        ck_assert_int_eq(c.gave[0], joins[_i].keeps);
        for (int i = 0; i < c.in_count; i++)
            ck_assert_int_eq(c.wanted[i], joins[_i].keeps);
    }
}
END_TEST

START_TEST(test_split)
{
    int axis = joins[_i].axis < 0 ? joins[_i].rank - 1 : joins[_i].axis;
    bool skip = joins[_i].count == 3; /* the middle output is not wanted */

    for (int w = 0; w < 4; w++) {
        cuda_case c = {.name = joins[_i].name,
                       .op = TRM_OP_Split,
                       .attrs = kit_int(kit_attrs(), "axis", joins[_i].axis),
                       .in_count = 1,
                       .out_count = joins[_i].count,
                       .arrives = {joins[_i].keeps}};
        trm_tensor x = shaped(widths[w], joins[_i].rank, joins[_i].dims);

        for (int i = 0; i < c.out_count; i++) {
            c.out[i] = x;
            c.out[i].dims[axis] = joins[_i].sizes[i];
        }
        for (int i = 0; i < c.out_count; i++)
            x.dims[axis] += joins[_i].sizes[i];
        c.in[0] = kit_random(x, 0, 120);
        if (skip && w % 2 == 1)
            c.out[1].dtype = TRM_DTYPE_NONE;
        cuda_check(&c);
        ck_assert_int_eq(c.wanted[0], joins[_i].keeps);
        ck_assert_int_eq(c.gave[0], joins[_i].keeps);
    }
}
END_TEST

/* ---- more pieces than one launch takes; pointers that are aligned to elements only ---- */

/* Runs c on the CUDA device with its tensors `shift` elements into their memory. */
static void check_shifted(trm_op op, trm_attrs *attrs, trm_tensor *in, int in_count,
                          const trm_tensor *y, size_t shift)
{
    trm_tensor out[2] = {*y, *y}, copies[100];
    uint64_t keys[100] = {0};
    trm_op_desc desc = {.op = op,
                        .attrs = attrs,
                        .name = "shifted",
                        .input_count = in_count,
                        .output_count = 1,
                        .inputs = copies,
                        .weight_keys = keys};
    trm_device *devices[2] = {kit_gpu, kit_cpu};
    size_t elem = trm_dtype_bytes(y->dtype), bytes;

    kit_name = "shifted";
    for (int w = 0; w < 2; w++) {
        trm_device *d = devices[w];
        size_t off = d == kit_gpu ? shift * elem : 0;
        void *memory[101];
        const void *from[100];
        void *to[1], *workspace;
        trm_kernel *k = NULL;

        memcpy(copies, in, (size_t)in_count * sizeof(*in));
        desc.outputs = &out[w];
        for (int i = 0; i < in_count; i++) {
            if (copies[i].dtype != TRM_DTYPE_I64) /* shape inputs are known */
                copies[i].data = NULL;
            KIT_OK(trm_tensor_bytes(&in[i], &bytes));
            memory[i] = kit_device_memory(d, bytes + 64);
            /* whole elements: an index stays aligned */
            from[i] = (char *)memory[i] + off / elem * trm_dtype_bytes(in[i].dtype);
            KIT_OK(d->ops->copy_in(d, NULL, (void *)(uintptr_t)from[i], in[i].data, bytes));
        }
        KIT_OK(d->ops->prepare(d, &desc, &k));
        KIT_OK(trm_tensor_bytes(y, &bytes));
        memory[in_count] = kit_device_memory(d, bytes + 64);
        to[0] = (char *)memory[in_count] + off;
        workspace = kit_device_memory(d, k->workspace_bytes);
        KIT_OK(k->ops->run(k, NULL, from, to, workspace));
        kit_wait(d);
        out[w] = kit_data(out[w]);
        KIT_OK(d->ops->copy_out(d, NULL, out[w].data, to[0], bytes));
        kit_wait(d);
        trm_kernel_destroy(k);
        d->ops->free(d, TRM_MEMORY_DEVICE, workspace);
        for (int i = 0; i <= in_count; i++)
            d->ops->free(d, TRM_MEMORY_DEVICE, memory[i]);
    }
    ck_assert_msg(memcmp(out[0].data, out[1].data, bytes) == 0, "%s of %s, %zu elements on",
                  trm_op_get(op)->name, trm_dtype_name(y->dtype), shift);
}

START_TEST(test_shifted)
{
    trm_dtype dtype = widths[_i / 3];
    size_t shift = (size_t)(_i % 3) + 1;
    trm_attrs *perm = kit_attrs(), *axis = kit_int(kit_attrs(), "axis", 1);
    trm_tensor in[3], y;

    in[0] = kit_random(KIT_T(dtype, 4, 6, 16), 0, 120);
    kit_ints(perm, "perm", (const int64_t[]){1, 0, 2}, 3);
    y = KIT_T(dtype, 6, 4, 16);
    check_shifted(TRM_OP_Transpose, perm, in, 1, &y, shift);
    y = KIT_T(dtype, 4, 6, 16);
    check_shifted(TRM_OP_Flatten, NULL, in, 1, &y, shift);
    in[1] = kit_random(KIT_T(dtype, 4, 2, 16), 0, 120);
    y = KIT_T(dtype, 4, 8, 16);
    check_shifted(TRM_OP_Concat, axis, in, 2, &y, shift);
    in[1] = kit_random(KIT_T(TRM_DTYPE_I64, 3), -6, 6);
    y = KIT_T(dtype, 4, 3, 16);
    check_shifted(TRM_OP_Gather, axis, in, 2, &y, shift);
    in[0] = ints(2, (const int64_t[]){5, 11});
    y = KIT_T(TRM_DTYPE_F32, 5, 11);
    check_shifted(TRM_OP_ConstantOfShape, NULL, in, 1, &y, shift);
}
END_TEST

START_TEST(test_many_pieces)
{
    trm_tensor in[100], y = KIT_T(TRM_DTYPE_F32, 3, 0);

    for (int i = 0; i < 100; i++) {
        in[i] = kit_random(KIT_T(TRM_DTYPE_F32, 3, i % 4), -1, 1);
        y.dims[1] += i % 4;
    }
    check_shifted(TRM_OP_Concat, kit_int(kit_attrs(), "axis", 1), in, 100, &y, 0);
}
END_TEST

/* ---- refused ---- */

START_TEST(test_refused)
{
    cuda_case c = {.in_count = 1, .out_count = 1, .want_prepare = TRM_ERR_INVALID_ARG};

    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 2, 3, 4, 4), 0, 1);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 2, 3, 4, 4);
    c.attrs = kit_attrs();
    switch (_i) {
    case 0: /* an axis twice */
        c.op = TRM_OP_Transpose;
        kit_ints(c.attrs, "perm", (const int64_t[]){0, 1, 1, 2}, 4);
        break;
    case 1: /* too few axes */
        c.op = TRM_OP_Transpose;
        kit_ints(c.attrs, "perm", (const int64_t[]){0, 1}, 2);
        break;
    case 2: /* 3 channels */
        c.op = TRM_OP_DepthToSpace;
        kit_int(c.attrs, "blocksize", 2);
        break;
    case 3: /* an axis out of range */
        c.op = TRM_OP_Concat;
        kit_int(c.attrs, "axis", 4);
        break;
    case 4: /* a step of 0 */
        c.op = TRM_OP_Slice;
        c.in_count = 5;
        for (int i = 1; i < 5; i++) {
            c.in[i] = ints(1, (const int64_t[]){0});
            c.known[i] = true;
        }
        break;
    case 5: /* pieces that do not add up */
        c.op = TRM_OP_Split;
        kit_int(c.attrs, "axis", 1);
        c.out[0].dims[1] = 2;
        break;
    case 6: /* repeats that are not known on the host */
        c.op = TRM_OP_Tile;
        c.in_count = 2;
        c.in[1] = ints(4, (const int64_t[]){1, 1, 1, 1});
        c.want_prepare = TRM_ERR_UNSUPPORTED;
        break;
    default: /* fused operations */
        c.op = TRM_OP_Reshape;
        c.posts[0] = (trm_post){.op = TRM_OP_Relu, .input = -1};
        c.post_count = 1;
        c.want_prepare = TRM_ERR_UNSUPPORTED;
    }
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("move");

    tcase_add_loop_test(t, test_transpose, 0, COUNT(transposes));
    tcase_add_loop_test(t, test_blocks, 0, COUNT(blocks));
    tcase_add_loop_test(t, test_repeats, 0, COUNT(repeats));
    tcase_add_loop_test(t, test_slice, 0, COUNT(slices));
    tcase_add_loop_test(t, test_views, 0, 7);
    tcase_add_loop_test(t, test_concat, 0, COUNT(joins));
    tcase_add_loop_test(t, test_split, 0, COUNT(joins));
    tcase_add_loop_test(t, test_shifted, 0, 12);
    tcase_add_test(t, test_many_pieces);
    tcase_add_loop_test(t, test_refused, 0, 8);
    return kit_main("cuda/move", t);
}
