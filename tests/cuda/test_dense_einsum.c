/* Einsum on the CUDA device. */
#include "tests/cuda/dense_kit.h"

static const struct {
    const char *equation;
    int operands;
    int64_t in[3][6], out[6]; /* -1 ends */
    const char *kernel;
} rows[] = {
    {"ij,jk->ik", 2, {{5, 7, -1}, {7, 3, -1}}, {5, 3, -1}, "cublaslt einsum"},
    {"ij,kj->ik", 2, {{5, 7, -1}, {3, 7, -1}}, {5, 3, -1}, "cublaslt einsum"},
    {"ji,kj->ki", 2, {{7, 5, -1}, {3, 7, -1}}, {3, 5, -1}, "cublaslt einsum"},
    {"bij,bjk->bik", 2, {{2, 5, 7, -1}, {2, 7, 3, -1}}, {2, 5, 3, -1}, "cublaslt einsum"},
    {"bhqd,bhkd->bhqk",
     2,
     {{2, 3, 4, 8, -1}, {2, 3, 5, 8, -1}},
     {2, 3, 4, 5, -1},
     "cublaslt einsum"},
    {"bqhd,bkhd->bhqk",
     2,
     {{2, 4, 3, 8, -1}, {2, 5, 3, 8, -1}},
     {2, 3, 4, 5, -1},
     "cublaslt einsum"},
    {"bhqk,bkhd->bqhd",
     2,
     {{2, 3, 4, 5, -1}, {2, 5, 3, 8, -1}},
     {2, 4, 3, 8, -1},
     "cublaslt einsum"},
    {"bsi,oi->bso", 2, {{2, 5, 7, -1}, {3, 7, -1}}, {2, 5, 3, -1}, "cublaslt einsum"},
    {"bshd,hde->bse", 2, {{2, 5, 3, 4, -1}, {3, 4, 6, -1}}, {2, 5, 6, -1}, "cublaslt einsum"},
    {"i,j->ij", 2, {{5, -1}, {7, -1}}, {5, 7, -1}, "cublaslt einsum"},
    {"i,i->", 2, {{9, -1}, {9, -1}}, {-1}, "cublaslt einsum"},
    {"bhwc,hkc->bhwk", 2, {{2, 3, 4, 8, -1}, {3, 5, 8, -1}}, {2, 3, 4, 5, -1}, "cublaslt einsum"},
    {"...ij,...jk->...ik",
     2,
     {{2, 1, 5, 7, -1}, {3, 7, 4, -1}},
     {2, 3, 5, 4, -1},
     "cublaslt einsum"},
    {"abc,cd->dba", 2, {{2, 3, 4, -1}, {4, 5, -1}}, {5, 3, 2, -1}, NULL},
    {"abc,bcd->adb", 2, {{2, 3, 4, -1}, {3, 4, 5, -1}}, {2, 5, 3, -1}, NULL},
    {"aij,bji->ab", 2, {{3, 4, 5, -1}, {2, 5, 4, -1}}, {3, 2, -1}, "einsum"},
    {"ij->ji", 1, {{5, 7, -1}}, {7, 5, -1}, "einsum"},
    {"ij->", 1, {{5, 7, -1}}, {-1}, "einsum"},
    {"ij->i", 1, {{5, 170, -1}}, {5, -1}, "einsum"},
    {"ii->i", 1, {{6, 6, -1}}, {6, -1}, "einsum"},
    {"ii", 1, {{6, 6, -1}}, {-1}, "einsum"},
    {"ij,jk", 2, {{5, 7, -1}, {7, 3, -1}}, {5, 3, -1}, "cublaslt einsum"},
    {"ij,jk->k", 2, {{5, 7, -1}, {7, 3, -1}}, {3, -1}, "einsum"},
    {"i,ij,j->i", 3, {{5, -1}, {5, 7, -1}, {7, -1}}, {5, -1}, "einsum"},
    {"iij,ij->j", 2, {{4, 4, 3, -1}, {4, 3, -1}}, {3, -1}, NULL},
    {"i...,i...->...", 2, {{4, 2, 3, -1}, {4, 2, 3, -1}}, {2, 3, -1}, NULL},
    {"ij,jk->ik", 2, {{0, 7, -1}, {7, 3, -1}}, {0, 3, -1}, "einsum"},
    {"ij,jk->ik", 2, {{2, 0, -1}, {0, 3, -1}}, {2, 3, -1}, "einsum"},
};
#define ROWS ((int)(sizeof(rows) / sizeof(rows[0])))

static const trm_dtype dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16,
                                   TRM_DTYPE_F64, TRM_DTYPE_I32, TRM_DTYPE_I64};

static void fill(cuda_case *c, size_t row, trm_dtype t)
{
    bool is_float = trm_dtype_is_float(t);

    c->attrs = kit_string(kit_attrs(), "equation", rows[row].equation);
    c->in_count = rows[row].operands;
    for (int i = 0; i < c->in_count; i++)
        c->in[i] = kit_random(kit_tensor(t, rows[row].in[i]), is_float ? -1 : -9, is_float ? 1 : 9);
    c->out[0] = kit_tensor(t, rows[row].out);
}

START_TEST(test_equations)
{
    size_t row = (size_t)_i / 6, type = (size_t)_i % 6;
    trm_dtype t = dtypes[type];
    cuda_case c = {.name = rows[row].equation, .op = TRM_OP_Einsum, .out_count = 1};

    if (trm_dtype_is_float(t))
        c = float_case(rows[row].equation, TRM_OP_Einsum, type, 170);
    fill(&c, row, t);
    cuda_check(&c);
    if (rows[row].kernel != NULL && trm_dtype_is_float(t))
        ck_assert_msg(strcmp(c.kernel, rows[row].kernel) == 0, "%s: '%s' ran, want '%s'", c.name,
                      c.kernel, rows[row].kernel);
}
END_TEST

START_TEST(test_other_integers)
{
    static const trm_dtype others[] = {TRM_DTYPE_I8,  TRM_DTYPE_U8,  TRM_DTYPE_I16,
                                       TRM_DTYPE_U16, TRM_DTYPE_U32, TRM_DTYPE_U64};
    trm_dtype t = others[_i];
    cuda_case c = {.name = trm_dtype_name(t), .op = TRM_OP_Einsum, .in_count = 2, .out_count = 1};

    c.attrs = kit_string(kit_attrs(), "equation", "ij,jk->k");
    c.in[0] = kit_random(KIT_T(t, 3, 4), 0, 3);
    c.in[1] = kit_random(KIT_T(t, 4, 2), 0, 3);
    c.out[0] = KIT_T(t, 2);
    cuda_check(&c);
}
END_TEST

START_TEST(test_refused)
{
    static const char *const bad[] = {"ij,jk->il", "ij->ik",    "ijk,jk->i",
                                      "i,jk->i",   "ij,jk->ii", "ij,i%->i"};
    cuda_case c = {.name = bad[_i], .op = TRM_OP_Einsum, .in_count = 2, .out_count = 1};

    c.want_prepare = TRM_ERR_INVALID_ARG;
    c.attrs = kit_string(kit_attrs(), "equation", bad[_i]);
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 2, 3), -1, 1);
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, 3, 4), -1, 1);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 2, 4);
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("dense einsum");

    tcase_add_loop_test(t, test_equations, 0, ROWS * 6);
    tcase_add_loop_test(t, test_other_integers, 0, 6);
    tcase_add_loop_test(t, test_refused, 0, 6);
    return dense_main("cuda/dense_einsum", t);
}
