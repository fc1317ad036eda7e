/* TrmEmbed, with a table of its own or a product's weight, and TrmRows on the CUDA device against
 * the CPU device. */
#include "kernels/language.h"
#include "tests/cuda/lm_rows_kit.h"

static const trm_dtype tables[] = {TRM_DTYPE_F32,  TRM_DTYPE_F16,  TRM_DTYPE_BF16, TRM_DTYPE_Q4_0,
                                   TRM_DTYPE_Q4_1, TRM_DTYPE_Q5_0, TRM_DTYPE_Q5_1, TRM_DTYPE_Q8_0,
                                   TRM_DTYPE_Q2_K, TRM_DTYPE_Q3_K, TRM_DTYPE_Q4_K, TRM_DTYPE_Q5_K,
                                   TRM_DTYPE_Q6_K};
#define TABLES (int)(sizeof(tables) / sizeof(tables[0]))
#define IDS 8
static const double ids[IDS] = {0, 9, -1, 10, 3, 3, 2147483647, -2147483648.0};

static trm_tensor random_table(trm_dtype dtype, int64_t width)
{
    trm_tensor t = KIT_T(dtype, 10, width);
    size_t bytes;

    if (!trm_dtype_is_block(dtype))
        return kit_random(t, -9, 9);
    t = kit_data(t);
    ck_assert_int_eq(trm_tensor_bytes(&t, &bytes), TRM_OK);
    for (size_t i = 0; i < bytes; i++) /* any bits, but numbers where scales are */
        ((unsigned char *)t.data)[i] = (unsigned char)((int)kit_uniform(0, 256) & 0xbb);
    return t;
}

/* to the bit; the table with the kernel or as an input */
START_TEST(embed)
{
    static const int64_t widths[] = {77, 64, 2560};
    trm_dtype dtype = tables[_i];

    for (int w = trm_dtype_is_block(dtype) ? 2 : 0; w < 3; w++)
        for (int known = 0; known < 2; known++) {
            trm_tensor whole[1];
            cuda_case c = {
                .name = trm_dtype_name(dtype),
                .op = TRM_OP_TrmEmbed,
                .attrs = kit_attrs(),
                .in = {kit_values(KIT_T(TRM_DTYPE_I32, IDS), ids), random_table(dtype, widths[w])},
                .out = {KIT_T(TRM_DTYPE_F32, IDS, widths[w])},
                .in_count = 2,
                .out_count = 1,
                .known = {false, known != 0}};

            if (known)
                kit_float(c.attrs, "scale", 1.5f);
            cuda_check(&c);
            if (known)
                continue;
            run_with(&c, NULL, -1, whole);
            check_rows(&c, 1, whole);
        }
}
END_TEST

/* A product's weight, too: rows out of the product's form, which both keep together. */
START_TEST(embed_tied)
{
    static const struct {
        trm_dtype dtype;
        const char *act;
        bool free;
    } rows[] = {{TRM_DTYPE_BF16, "bf16", false}, {TRM_DTYPE_F16, "f16", false},
                {TRM_DTYPE_BF16, NULL, false},   {TRM_DTYPE_F32, NULL, false},
                {TRM_DTYPE_BF16, "bf16", true},  {TRM_DTYPE_Q8_0, NULL, false}};
    static const int64_t widths[] = {77, 64, 288};

    for (int r = 0; r < (int)(sizeof(rows) / sizeof(rows[0])); r++)
        for (int w = trm_dtype_is_block(rows[r].dtype) ? 1 : 0; w < 3; w++) {
            uint64_t keys[2] = {0, (uint64_t)(1000 + r * 3 + w)};
            trm_tensor table = random_table(rows[r].dtype, widths[w]),
                       x = KIT_T(TRM_DTYPE_F32, 3, widths[w]), y = KIT_T(TRM_DTYPE_F32, 3, 10);
            cuda_case c = {.name = trm_dtype_name(rows[r].dtype),
                           .op = TRM_OP_TrmEmbed,
                           .attrs = kit_attrs(),
                           .in = {kit_values(KIT_T(TRM_DTYPE_I32, IDS), ids), table},
                           .out = {KIT_T(TRM_DTYPE_F32, IDS, widths[w])},
                           .in_count = 2,
                           .out_count = 1,
                           .known = {false, true}};
            trm_op_desc again = {.op = TRM_OP_TrmEmbed,
                                 .attrs = c.attrs,
                                 .name = "embed",
                                 .input_count = 2,
                                 .output_count = 1,
                                 .inputs = c.in,
                                 .outputs = c.out,
                                 .weight_keys = keys};
            trm_op_desc linear = {.op = TRM_OP_TrmLinear,
                                  .attrs = kit_attrs(),
                                  .name = "linear",
                                  .input_count = 2,
                                  .output_count = 1,
                                  .inputs = (trm_tensor[]){x, table},
                                  .outputs = &y,
                                  .weight_keys = keys};
            size_t before = kit_gpu->packed_bytes, both;
            trm_kernel *k = NULL, *product = NULL;

            kit_name = c.name;
            kit_gpu->order_free = rows[r].free;
            kit_int(c.attrs, "tied", 1);
            if (rows[r].act != NULL) {
                kit_string(c.attrs, "act", rows[r].act);
                kit_string((trm_attrs *)(uintptr_t)linear.attrs, "act", rows[r].act);
            }
            cuda_check(&c);
            KIT_OK(kit_gpu->ops->prepare(kit_gpu, &linear, &product));
            both = kit_gpu->packed_bytes;
            KIT_OK(kit_gpu->ops->prepare(kit_gpu, &again, &k));
            ck_assert(both > before);
            ck_assert((kit_gpu->packed_bytes == both) == !trm_dtype_is_block(rows[r].dtype));
            trm_kernel_destroy(product);
            trm_kernel_destroy(k);
            ck_assert_uint_eq(kit_gpu->packed_bytes, before);
            kit_gpu->order_free = false;
        }
}
END_TEST

START_TEST(picked_rows)
{
    static const int64_t widths[] = {5, 4, 3000};

    for (int w = 0; w < 3; w++) {
        cuda_case c = {.name = "rows",
                       .op = TRM_OP_TrmRows,
                       .attrs = kit_attrs(),
                       .in = {kit_random(KIT_T(TRM_DTYPE_F32, 10, widths[w]), -9, 9),
                              kit_values(KIT_T(TRM_DTYPE_I32, IDS), ids)},
                       .out = {KIT_T(TRM_DTYPE_F32, IDS, widths[w])},
                       .in_count = 2,
                       .out_count = 1};

        cuda_check(&c);
    }
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("embed");

    tcase_add_loop_test(t, embed, 0, TABLES);
    tcase_add_test(t, embed_tied);
    tcase_add_test(t, picked_rows);
    return kit_main("lm embed", t);
}
