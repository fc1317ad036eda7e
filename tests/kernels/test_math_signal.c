/* Einsum, Det, losses, windows, Fourier transforms, rotary embedding: values worked out by hand or
 * by a direct sum. */
#include "tests/kernels/math_harness.h"

START_TEST(einsum)
{
    trm_tensor m[2] = {H_FILL(H_TENSOR(TRM_DTYPE_F32, 2, 3), 1, 2, 3, 4, 5, 6),
                       H_FILL(H_TENSOR(TRM_DTYPE_F32, 3, 2), 1, 2, 3, 4, 5, 6)};
    trm_tensor q = H_FILL(H_TENSOR(TRM_DTYPE_I64, 2, 2), 1, 2, 3, 4);
    trm_tensor out = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {2, 2}};
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {3, 2}};
    trm_tensor s = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {2}};
    trm_tensor d = {.dtype = TRM_DTYPE_I64, .rank = 1, .dims = {2}}, one = {.dtype = TRM_DTYPE_I64};
    trm_tensor b[2] = {H_FILL(H_TENSOR(TRM_DTYPE_F32, 2, 1, 2), 1, 2, 3, 4),
                       H_FILL(H_TENSOR(TRM_DTYPE_F32, 1, 2, 1), 5, 6)};
    trm_tensor c = {.dtype = TRM_DTYPE_F32, .rank = 3, .dims = {2, 1, 1}};

#define EQ(text) h_string(h_attrs(), "equation", text)
    h_ok(TRM_OP_Einsum, EQ("ij,jk->ik"), m, 2, &out, 1);
    H_WANT(out, 0, 22, 28, 49, 64);
    h_ok(TRM_OP_Einsum, EQ("ij , jk"), m, 2, &out, 1);
    H_WANT(out, 0, 22, 28, 49, 64);
    h_ok(TRM_OP_Einsum, EQ("ij->ji"), m, 1, &t, 1);
    H_WANT(t, 0, 1, 4, 2, 5, 3, 6);
    h_ok(TRM_OP_Einsum, EQ("ij->i"), m, 1, &s, 1);
    H_WANT(s, 0, 6, 15);
    h_ok(TRM_OP_Einsum, EQ("ii->i"), &q, 1, &d, 1);
    H_WANT(d, 0, 1, 4);
    h_ok(TRM_OP_Einsum, EQ("ii"), &q, 1, &one, 1);
    H_WANT(one, 0, 5);
    h_ok(TRM_OP_Einsum, EQ("...ij,...jk->...ik"), b, 2, &c, 1);
    H_WANT(c, 0, 17, 39);
    ck_assert_int_eq(h_run(TRM_OP_Einsum, EQ("ij,jk->iq"), m, 2, &out, 1), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(h_run(TRM_OP_Einsum, EQ("ijk,jk->i"), m, 2, &out, 1), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(h_run(TRM_OP_Einsum, EQ("ij"), m, 2, &out, 1), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(h_run(TRM_OP_Einsum, EQ("ij,ik->jk"), m, 2, &out, 1), TRM_ERR_INVALID_ARG);
}
END_TEST

START_TEST(det)
{
    trm_tensor x = H_FILL(H_TENSOR(TRM_DTYPE_F32, 3, 2, 2), 1, 2, 3, 4, 0, 1, 1, 0, 1, 2, 2, 4);
    trm_tensor out = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {3}};

    h_ok(TRM_OP_Det, NULL, &x, 1, &out, 1);
    H_WANT(out, 1e-6, -2, -1, 0);
}
END_TEST

START_TEST(losses)
{
    trm_tensor in[3] = {H_FILL(H_TENSOR(TRM_DTYPE_F32, 2, 2, 2), 1, 2, 2, 2, 3, 2, 1, 2),
                        H_FILL(H_TENSOR(TRM_DTYPE_I64, 2, 2), 0, 1, 1, 0),
                        H_FILL(H_TENSOR(TRM_DTYPE_F32, 2), 2, 4)};
    trm_tensor each = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {2, 2}};
    trm_tensor two[2] = {{.dtype = TRM_DTYPE_F32},
                         {.dtype = TRM_DTYPE_F32, .rank = 3, .dims = {2, 2, 2}}};

    h_ok(TRM_OP_NegativeLogLikelihoodLoss, h_string(h_attrs(), "reduction", "none"), in, 2, &each,
         1);
    H_WANT(each, 0, -1, -2, -1, -2);
    h_ok(TRM_OP_NegativeLogLikelihoodLoss, NULL, in, 3, two, 1);
    H_WANT(two[0], 1e-6, -18.0 / 12);
    h_ok(TRM_OP_NegativeLogLikelihoodLoss, h_int(h_attrs(), "ignore_index", 1), in, 3, two, 1);
    H_WANT(two[0], 1e-6, -6.0 / 4);
    h_ok(TRM_OP_SoftmaxCrossEntropyLoss, h_string(h_attrs(), "reduction", "sum"), in, 2, two, 2);
    H_WANT(two[0], 1e-6, log(1 + exp(1)) + log(2) + log(1 + exp(2)) + log(2));
    h_near(&two[1], 1, -log(2), 1e-6, 0, "log prob");
    trm_tensor_set_i64(&in[1], 3, 7);
    ck_assert_int_eq(h_run(TRM_OP_NegativeLogLikelihoodLoss, NULL, in, 2, two, 1),
                     TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "target 3 is class 7"));
}
END_TEST

START_TEST(windows)
{
    trm_tensor n = H_FILL(H_SCALAR(TRM_DTYPE_I64), 4);
    trm_tensor out = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {4}};

    h_ok(TRM_OP_HannWindow, NULL, &n, 1, &out, 1);
    H_WANT(out, 1e-6, 0, 0.5, 1, 0.5);
    h_ok(TRM_OP_HannWindow, h_int(h_attrs(), "periodic", 0), &n, 1, &out, 1);
    H_WANT(out, 1e-6, 0, 0.75, 0.75, 0);
    h_ok(TRM_OP_HammingWindow, NULL, &n, 1, &out, 1);
    H_WANT(out, 1e-6, 4.0 / 46, 25.0 / 46, 1, 25.0 / 46);
    h_ok(TRM_OP_BlackmanWindow, NULL, &n, 1, &out, 1);
    H_WANT(out, 1e-6, 0, 0.34, 1, 0.34);
}
END_TEST

START_TEST(fourier_against_sum)
{
    static const int64_t lengths[] = {1, 2, 3, 5, 8, 12, 30, 49, 97, 128};
    int64_t n = lengths[_i];
    trm_tensor x = h_random(H_TENSOR(TRM_DTYPE_F32, 2, n, 3, 2), -1, 1), y = x, z = x;
    trm_attrs *inverse = h_int(h_attrs(), "inverse", 1);
    trm_tensor in[3] = {x, {0}, H_FILL(H_SCALAR(TRM_DTYPE_I64), 1)};

    y.data = z.data = NULL;
    h_ok(TRM_OP_DFT, NULL, in, 3, &y, 1);
    for (size_t o = 0; o < 2; o++)
        for (size_t i = 0; i < 3; i++)
            for (size_t k = 0; k < (size_t)n; k++) {
                double re = 0, im = 0;
                size_t at = ((o * (size_t)n + k) * 3 + i) * 2;

                for (size_t t = 0; t < (size_t)n; t++) {
                    double turn = -2 * 3.14159265358979323846 * (double)(k * t) / (double)n;
                    double a = trm_tensor_get_f64(&x, ((o * (size_t)n + t) * 3 + i) * 2);
                    double b = trm_tensor_get_f64(&x, ((o * (size_t)n + t) * 3 + i) * 2 + 1);

                    re += a * cos(turn) - b * sin(turn);
                    im += a * sin(turn) + b * cos(turn);
                }
                h_near(&y, at, re, 1e-5, 1e-6, "re");
                h_near(&y, at + 1, im, 1e-5, 1e-6, "im");
            }
    in[0] = y;
    h_ok(TRM_OP_DFT, inverse, in, 3, &z, 1);
    for (size_t i = 0; i < trm_tensor_numel(&x); i++)
        h_near(&z, i, trm_tensor_get_f64(&x, i), 1e-6, 1e-6, "there and back");
}
END_TEST

START_TEST(fourier_onesided)
{
    trm_tensor x = h_random(H_TENSOR(TRM_DTYPE_F32, 1, 8, 1), -1, 1), back = x;
    trm_tensor half = {.dtype = TRM_DTYPE_F32, .rank = 3, .dims = {1, 5, 2}};
    trm_attrs *one = h_int(h_attrs(), "onesided", 1);
    trm_tensor in[4] = {
        x, H_FILL(H_SCALAR(TRM_DTYPE_I64), 2), {0}, H_FILL(H_SCALAR(TRM_DTYPE_I64), 4)};
    trm_tensor frames = {.dtype = TRM_DTYPE_F32, .rank = 4, .dims = {1, 3, 3, 2}};

    back.data = NULL;
    h_ok(TRM_OP_DFT, one, &x, 1, &half, 1);
    h_ok(TRM_OP_DFT, h_int(h_int(h_attrs(), "onesided", 1), "inverse", 1), &half, 1, &back, 1);
    for (size_t i = 0; i < 8; i++)
        h_near(&back, i, trm_tensor_get_f64(&x, i), 1e-6, 0, "real signal");
    h_ok(TRM_OP_STFT, NULL, in, 4, &frames, 1);
    for (size_t f = 0; f < 3; f++) {
        double sum = 0, alternating = 0;

        for (size_t i = 0; i < 4; i++) {
            sum += trm_tensor_get_f64(&x, 2 * f + i);
            alternating += (i % 2 == 0 ? 1 : -1) * trm_tensor_get_f64(&x, 2 * f + i);
        }
        h_near(&frames, f * 6, sum, 1e-6, 0, "bin 0");
        h_near(&frames, f * 6 + 4, alternating, 1e-6, 0, "bin 2");
    }
}
END_TEST

START_TEST(rotary)
{
    /* a quarter turn at position 1: (a, b) -> (-b, a) */
    trm_tensor in[4] = {H_FILL(H_TENSOR(TRM_DTYPE_F32, 1, 1, 2, 4), 1, 2, 3, 4, 1, 2, 3, 4),
                        H_FILL(H_TENSOR(TRM_DTYPE_F32, 2, 2), 1, 1, 0, 0),
                        H_FILL(H_TENSOR(TRM_DTYPE_F32, 2, 2), 0, 0, 1, 1),
                        H_FILL(H_TENSOR(TRM_DTYPE_I64, 1, 2), 0, 1)};
    trm_tensor out = in[0],
               g[2] = {H_FILL(H_TENSOR(TRM_DTYPE_F32, 2), 1, -2),
                       H_FILL(H_TENSOR(TRM_DTYPE_F32, 2), 3, 4)},
               h = g[0];

    out.data = h.data = NULL;
    h_ok(TRM_OP_RotaryEmbedding, NULL, in, 4, &out, 1);
    H_WANT(out, 1e-6, 1, 2, 3, 4, -3, -4, 1, 2);
    h_ok(TRM_OP_RotaryEmbedding, h_int(h_attrs(), "interleaved", 1), in, 4, &out, 1);
    H_WANT(out, 1e-6, 1, 2, 3, 4, -2, 1, -4, 3);
    trm_tensor_set_i64(&in[3], 1, 9);
    ck_assert_int_eq(h_run(TRM_OP_RotaryEmbedding, NULL, in, 4, &out, 1), TRM_ERR_INVALID_ARG);
    h_ok(TRM_OP_SwiGLU, NULL, g, 2, &h, 1);
    H_WANT(h, 1e-6, 3 / (1 + exp(-1)), -8 / (1 + exp(2)));
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("signal");

    tcase_add_test(t, einsum);
    tcase_add_test(t, det);
    tcase_add_test(t, losses);
    tcase_add_test(t, windows);
    tcase_add_loop_test(t, fourier_against_sum, 0, 10);
    tcase_add_test(t, fourier_onesided);
    tcase_add_test(t, rotary);
    return h_main("math signal", t);
}
