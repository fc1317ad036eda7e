/* Weight types of GGUF files against what the Python package gguf makes of them
 * (tests/oracles/quant.py), bit for bit. */
#include "base/npy.h"
#include "kernels/cpu/lm_linear.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DATA TRM_SOURCE_DIR "/tests/data/language/quant/"

static uint32_t bits_of(float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof(bits));
    return bits;
}

static const trm_dtype read_types[] = {
    TRM_DTYPE_F32,  TRM_DTYPE_F16,  TRM_DTYPE_BF16, TRM_DTYPE_Q4_0, TRM_DTYPE_Q4_1,
    TRM_DTYPE_Q5_0, TRM_DTYPE_Q5_1, TRM_DTYPE_Q8_0, TRM_DTYPE_Q2_K, TRM_DTYPE_Q3_K,
    TRM_DTYPE_Q4_K, TRM_DTYPE_Q5_K, TRM_DTYPE_Q6_K,
};

START_TEST(dequantizes_as_gguf_does)
{
    trm_dtype dtype = read_types[_i];
    unsigned char raw[8192];
    float got[512];
    char path[256];
    trm_arena *arena;
    trm_tensor want;
    size_t bytes, row;
    FILE *f;

    snprintf(path, sizeof(path), DATA "%s.npy", trm_dtype_name(dtype));
    ck_assert_int_eq(trm_arena_create(0, &arena), TRM_OK);
    ck_assert_int_eq(trm_npy_load(path, arena, &want), TRM_OK);
    ck_assert(want.rank == 2 && want.dims[1] == 512);
    snprintf(path, sizeof(path), DATA "%s.bin", trm_dtype_name(dtype));
    f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    bytes = fread(raw, 1, sizeof(raw), f);
    fclose(f);
    row = 512 / trm_dtype_block_elems(dtype) * trm_dtype_block_bytes(dtype);
    ck_assert_uint_eq(bytes, row * (size_t)want.dims[0]);
    for (size_t r = 0; r < (size_t)want.dims[0]; r++) {
        const float *w = (const float *)want.data + 512 * r;

        trmi_lm_dequantize(dtype, raw + r * row, 512, got);
        for (size_t i = 0; i < 512; i++) {
            if (bits_of(got[i]) != bits_of(w[i]))
                ck_abort_msg("%s: row %zu, element %zu is %a, gguf says %a", trm_dtype_name(dtype),
                             r, i, (double)got[i], (double)w[i]);
        }
    }
    trm_arena_destroy(arena);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("language models: weight types");
    TCase *t = tcase_create("weight types");
    SRunner *r;
    int failed;

    tcase_add_loop_test(t, dequantizes_as_gguf_does, 0,
                        (int)(sizeof(read_types) / sizeof(read_types[0])));
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
