/* Plans of the real cuDNN, without a GPU: graphs as kernels/cuda/dnn_graph.c builds them, for a
 * device that is described by a file, with a mock driver. Nothing is run: what is tested is that
 * cuDNN takes the graphs that the backend emits, and has exact engines for those that it counts on.
 * Argument: "slow" for the rows that take cuDNN long to compile. */
#include "kernels/cuda/dnn_graph.h"

#include "base/wait.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum want { ENGINE, PRECOMPILED } want;

/* steps: b channel, + residual, * channel product, r relu, 6 relu6, c clip, s sigmoid, i silu,
 * h hard swish, H hard sigmoid, g gelu, G gelu tanh, t tanh, l leaky relu, e elu */
typedef struct plan_row {
    const char *dtype;
    trmi_dnn_kind kind;
    int spatial;
    int64_t c, m, in, kernel, stride, begin, end, dilation, group;
    const char *steps;
    want want;
    bool slow;
} plan_row;

#define CONV TRMI_DNN_CONV
#define BACK TRMI_DNN_CONV_TRANSPOSED

static const plan_row plan_rows[] = {
    /* ResNet-50: precompiled engines for all */
    {"f16", CONV, 2, 64, 64, 56, 3, 1, 1, 1, 1, 1, "", PRECOMPILED, false},
    {"f16", CONV, 2, 64, 64, 56, 3, 1, 1, 1, 1, 1, "b", PRECOMPILED, false},
    {"f16", CONV, 2, 64, 64, 56, 3, 1, 1, 1, 1, 1, "br", PRECOMPILED, false},
    {"f16", CONV, 2, 64, 256, 56, 1, 1, 0, 0, 1, 1, "+br", PRECOMPILED, false},
    {"f16", CONV, 2, 256, 128, 56, 1, 1, 0, 0, 1, 1, "br", PRECOMPILED, false},
    {"f16", CONV, 2, 128, 128, 56, 3, 2, 1, 1, 1, 1, "br", PRECOMPILED, false},
    {"f16", CONV, 2, 256, 512, 56, 1, 2, 0, 0, 1, 1, "b", PRECOMPILED, false},
    {"f16", CONV, 2, 4, 64, 224, 7, 2, 3, 3, 1, 1, "br", PRECOMPILED, false},
    {"f16", CONV, 2, 3, 64, 224, 7, 2, 3, 3, 1, 1, "br", PRECOMPILED, false},
    {"bf16", CONV, 2, 64, 64, 56, 3, 1, 1, 1, 1, 1, "br", PRECOMPILED, false},
    {"bf16", CONV, 2, 64, 256, 56, 1, 1, 0, 0, 1, 1, "+br", PRECOMPILED, false},
    {"bf16", CONV, 2, 4, 64, 224, 7, 2, 3, 3, 1, 1, "br", PRECOMPILED, false},
    {"f32", CONV, 2, 64, 64, 56, 3, 1, 1, 1, 1, 1, "", PRECOMPILED, false},
    {"f32", CONV, 2, 64, 64, 56, 3, 1, 1, 1, 1, 1, "br", PRECOMPILED, false},
    {"f32", CONV, 2, 64, 256, 56, 1, 1, 0, 0, 1, 1, "+br", PRECOMPILED, false},
    {"f32", CONV, 2, 3, 64, 224, 7, 2, 3, 3, 1, 1, "br", PRECOMPILED, false},
    /* other shapes */
    {"f16", CONV, 2, 64, 64, 56, 3, 2, 0, 1, 1, 1, "br", PRECOMPILED, false},
    {"f32", CONV, 2, 3, 32, 224, 3, 2, 0, 1, 1, 1, "br", PRECOMPILED, false},
    {"f16", CONV, 2, 64, 64, 28, 3, 1, 2, 2, 2, 1, "br", PRECOMPILED, false},
    {"f32", CONV, 2, 64, 64, 28, 3, 1, 2, 2, 2, 1, "br", PRECOMPILED, false},
    {"f16", CONV, 2, 128, 128, 28, 3, 1, 1, 1, 1, 32, "br", PRECOMPILED, false},
    {"f32", CONV, 2, 128, 128, 28, 3, 1, 1, 1, 1, 32, "br", PRECOMPILED, false},
    {"f16", CONV, 2, 64, 255, 28, 1, 1, 0, 0, 1, 1, "b", PRECOMPILED, false},
    {"f32", CONV, 2, 64, 255, 28, 1, 1, 0, 0, 1, 1, "b", PRECOMPILED, false},
    {"f16", CONV, 2, 13, 64, 28, 3, 1, 1, 1, 1, 1, "br", PRECOMPILED, false},
    {"f16", CONV, 3, 16, 32, 16, 3, 1, 1, 1, 1, 1, "br", PRECOMPILED, false},
    {"f32", CONV, 3, 16, 32, 16, 3, 1, 1, 1, 1, 1, "br", PRECOMPILED, false},
    {"f16", CONV, 2, 4, 768, 224, 16, 16, 0, 0, 1, 1, "b", PRECOMPILED, false},
    /* transposed: alone (steps follow in a kernel of ours, or in a compiled engine) */
    {"f16", BACK, 2, 64, 32, 28, 2, 2, 0, 0, 1, 1, "", PRECOMPILED, false},
    {"f16", BACK, 2, 64, 3, 28, 4, 2, 1, 1, 1, 1, "", PRECOMPILED, false},
    {"f16", BACK, 2, 64, 64, 28, 3, 2, 1, 1, 1, 4, "", PRECOMPILED, false},
    {"bf16", BACK, 2, 64, 32, 28, 4, 2, 1, 1, 1, 1, "", PRECOMPILED, false},
    {"f32", BACK, 2, 64, 32, 28, 2, 2, 0, 0, 1, 1, "", PRECOMPILED, false},
    {"f32", BACK, 2, 64, 32, 28, 4, 2, 1, 1, 1, 1, "", PRECOMPILED, false},
    {"f32", BACK, 2, 64, 64, 28, 3, 2, 1, 1, 1, 4, "", PRECOMPILED, false},
    {"f16", BACK, 3, 16, 32, 8, 2, 2, 0, 0, 1, 1, "", PRECOMPILED, false},
    /* integers */
    {"i8", CONV, 2, 64, 64, 30, 3, 1, 0, 0, 1, 1, "", PRECOMPILED, false},
    {"i8", CONV, 2, 3, 64, 230, 7, 2, 0, 0, 1, 1, "", PRECOMPILED, false},
    {"i8", CONV, 2, 64, 10, 28, 1, 1, 0, 0, 1, 1, "", PRECOMPILED, false},
    {"i8", CONV, 2, 64, 64, 30, 3, 1, 0, 0, 1, 2, "", PRECOMPILED, false},
    {"i8", CONV, 3, 16, 64, 8, 3, 1, 0, 0, 1, 1, "", PRECOMPILED, false},
    /* activations: compiled at run time */
    {"f16", CONV, 2, 64, 64, 28, 3, 1, 1, 1, 1, 1, "bi", ENGINE, false},
    {"bf16", CONV, 2, 64, 64, 28, 3, 1, 1, 1, 1, 1, "b6", ENGINE, false},
    {"f16", CONV, 2, 64, 64, 28, 3, 1, 1, 1, 1, 1, "bh", ENGINE, false},
    {"f16", CONV, 2, 64, 64, 28, 1, 1, 0, 0, 1, 1, "bi+", ENGINE, true},
    {"f16", CONV, 2, 64, 64, 28, 3, 1, 1, 1, 1, 1, "bc", ENGINE, true},
    {"f16", CONV, 2, 64, 64, 28, 3, 1, 1, 1, 1, 1, "bH", ENGINE, true},
    {"f16", CONV, 2, 64, 64, 28, 3, 1, 1, 1, 1, 1, "bs", ENGINE, true},
    {"f16", CONV, 2, 64, 64, 28, 3, 1, 1, 1, 1, 1, "bg", ENGINE, true},
    {"f16", CONV, 2, 64, 64, 28, 3, 1, 1, 1, 1, 1, "bG", ENGINE, true},
    {"f16", CONV, 2, 64, 64, 28, 3, 1, 1, 1, 1, 1, "bt", ENGINE, true},
    {"f16", CONV, 2, 64, 64, 28, 3, 1, 1, 1, 1, 1, "bl", ENGINE, true},
    {"f16", CONV, 2, 64, 64, 28, 3, 1, 1, 1, 1, 1, "be", ENGINE, true},
    {"f16", CONV, 2, 64, 64, 28, 3, 1, 1, 1, 1, 1, "b*", ENGINE, true},
    {"f16", CONV, 3, 16, 32, 16, 3, 1, 1, 1, 1, 1, "bi", ENGINE, true},
    {"f16", BACK, 2, 64, 32, 28, 2, 2, 0, 0, 1, 1, "br", ENGINE, true},
    {"f32", CONV, 2, 64, 64, 28, 3, 1, 1, 1, 1, 1, "b6", ENGINE, true},
    {"f32", CONV, 2, 64, 64, 28, 3, 1, 1, 1, 1, 1, "bi", ENGINE, true},
};

static cudnnBackendDescriptor_t device;
static bool slow;
static int with_engine, asked;

static void add_step(trmi_dnn_desc *d, char kind)
{
    static const struct {
        char kind;
        trm_op op;
        trmi_dnn_operand operand;
        float alpha, beta;
    } kinds[] = {
        {'b', TRM_OP_Add, TRMI_DNN_CHANNEL, 0, 0},
        {'+', TRM_OP_Add, TRMI_DNN_FULL, 0, 0},
        {'*', TRM_OP_Mul, TRMI_DNN_CHANNEL, 0, 0},
        {'r', TRM_OP_Relu, TRMI_DNN_NO_OPERAND, 0, 0},
        {'6', TRM_OP_Clip, TRMI_DNN_NO_OPERAND, 0, 6},
        {'c', TRM_OP_Clip, TRMI_DNN_NO_OPERAND, -1, 1},
        {'s', TRM_OP_Sigmoid, TRMI_DNN_NO_OPERAND, 0, 0},
        {'i', TRM_OP_TrmSilu, TRMI_DNN_NO_OPERAND, 0, 0},
        {'h', TRM_OP_HardSwish, TRMI_DNN_NO_OPERAND, 0, 0},
        {'H', TRM_OP_HardSigmoid, TRMI_DNN_NO_OPERAND, 0.2F, 0.5F},
        {'g', TRM_OP_Gelu, TRMI_DNN_NO_OPERAND, 0, 0},
        {'G', TRM_OP_Gelu, TRMI_DNN_NO_OPERAND, 1, 0},
        {'t', TRM_OP_Tanh, TRMI_DNN_NO_OPERAND, 0, 0},
        {'l', TRM_OP_LeakyRelu, TRMI_DNN_NO_OPERAND, 0.1F, 0},
        {'e', TRM_OP_Elu, TRMI_DNN_NO_OPERAND, 1, 0},
    };

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (kinds[i].kind == kind)
            d->steps[d->step_count++] = (trmi_dnn_step){.op = kinds[i].op,
                                                        .operand = kinds[i].operand,
                                                        .dtype = d->y,
                                                        .alpha = kinds[i].alpha,
                                                        .beta = kinds[i].beta};
}

static trmi_dnn_desc desc_of(const plan_row *r)
{
    int64_t extent = (r->kernel - 1) * r->dilation + 1;
    trmi_dnn_desc d;

    memset(&d, 0, sizeof(d));
    d.kind = r->kind;
    d.spatial = r->spatial;
    d.x = d.w = d.y = trm_dtype_from_name(r->dtype);
    if (d.x == TRM_DTYPE_I8)
        d.y = TRM_DTYPE_I32;
    d.batch = 4;
    d.channels = r->c;
    d.filters = r->m;
    d.group = r->group;
    for (int i = 0; i < r->spatial; i++) {
        d.in[i] = r->in;
        d.kernel[i] = r->kernel;
        d.stride[i] = r->stride;
        d.dilation[i] = r->dilation;
        d.pad_begin[i] = r->begin;
        d.pad_end[i] = r->end;
        d.out[i] = r->kind == BACK ? r->stride * (r->in - 1) + extent - r->begin - r->end
                                   : (r->in + r->begin + r->end - extent) / r->stride + 1;
    }
    for (const char *s = r->steps; *s != 0; s++)
        add_step(&d, *s);
    return d;
}

START_TEST(test_plan)
{
    const plan_row *r = &plan_rows[_i];
    static trmi_dnn_graph g;
    static trmi_dnn_candidates c;
    static trmi_dnn_candidate again;
    trmi_dnn_desc d = desc_of(r);
    int64_t from = trm_now_us();
    trm_status st;

    if (r->slow != slow)
        return;
    memset(&g, 0, sizeof(g));
    st = trmi_cuda_dnn_graph_init(&d, &g);
    if (st == TRM_OK)
        st = trmi_cuda_dnn_candidates(&d, &g, device, 1, 1000, &c);
    printf("%-4s %s %dd %lld>%lld %lldx%lld/%lld in %lld g%lld '%s': %s, engine '%s'%s, %lld ms\n",
           r->dtype, r->kind == BACK ? "back" : "conv", r->spatial, (long long)r->c,
           (long long)r->m, (long long)r->kernel, (long long)r->kernel, (long long)r->stride,
           (long long)r->in, (long long)r->group, r->steps, st == TRM_OK ? "plan" : trm_message(),
           st == TRM_OK ? c.list[0].engine : "",
           st == TRM_OK && c.list[0].compiled ? " (compiled)" : "",
           (long long)((trm_now_us() - from) / 1000));
    asked++;
    with_engine += st == TRM_OK;
    ck_assert_msg(st == TRM_OK, "no plan: %s", trm_message());
    if (st == TRM_OK) {
        ck_assert(r->want != PRECOMPILED || !c.list[0].compiled);
        /* written down and read again, as the cache on disk does */
        if (!c.list[0].compiled) {
            st = trmi_cuda_dnn_candidate(&g, device, c.list[0].engine, &again);
            ck_assert_msg(st == TRM_OK, "engine '%s': %s", c.list[0].engine, trm_message());
            ck_assert_int_eq(again.workspace_bytes, c.list[0].workspace_bytes);
            (void)cudnnBackendDestroyDescriptor(again.plan);
        }
        trmi_cuda_dnn_candidates_fini(&c);
    }
    trmi_cuda_dnn_graph_fini(&g);
}
END_TEST

/* A plan does not need the descriptors that it was made of. */
START_TEST(test_plan_alone)
{
    static trmi_dnn_graph g;
    static trmi_dnn_candidates c;
    static char json[1 << 17];
    trmi_dnn_desc d = desc_of(&plan_rows[2]);
    int64_t n = 0;

    memset(&g, 0, sizeof(g));
    ck_assert_int_eq(trmi_cuda_dnn_graph_init(&d, &g), TRM_OK);
    ck_assert_int_eq(trmi_cuda_dnn_candidates(&d, &g, device, 1, 1000, &c), TRM_OK);
    trmi_cuda_dnn_graph_fini(&g);
    ck_assert_int_eq(cudnnBackendGetAttribute(c.list[0].plan,
                                              CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                              CUDNN_TYPE_CHAR, sizeof(json), &n, json),
                     CUDNN_STATUS_SUCCESS);
    ck_assert_msg(n > 100 && strstr(json, "[4,64,56,56]") != NULL, "%.300s", json);
    trmi_cuda_dnn_candidates_fini(&c);
}
END_TEST

/* Engines that were never written by us. */
START_TEST(test_engine_text)
{
    static const char *const texts[] = {
        "", "x", "10 2", "10 2=", "10 2=5x", "99999 2=1", "10 2=5 2=5 999=7"};
    static trmi_dnn_graph g;
    static trmi_dnn_candidate c;
    trmi_dnn_desc d = desc_of(&plan_rows[2]);

    memset(&g, 0, sizeof(g));
    ck_assert_int_eq(trmi_cuda_dnn_graph_init(&d, &g), TRM_OK);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        ck_assert_msg(trmi_cuda_dnn_candidate(&g, device, texts[i], &c) != TRM_OK, "'%s'",
                      texts[i]);
        ck_assert_ptr_null(c.plan);
    }
    trmi_cuda_dnn_graph_fini(&g);
}
END_TEST

static bool device_init(const char *path)
{
    static char json[8192];
    FILE *f = fopen(path, "r");
    size_t n = f == NULL ? 0 : fread(json, 1, sizeof(json), f);

    if (f != NULL)
        (void)fclose(f);
    return n > 0 &&
           cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &device) ==
               CUDNN_STATUS_SUCCESS &&
           cudnnBackendSetAttribute(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                    CUDNN_TYPE_CHAR, (int64_t)n, json) == CUDNN_STATUS_SUCCESS &&
           cudnnBackendFinalize(device) == CUDNN_STATUS_SUCCESS;
}

int main(int argc, char **argv)
{
    TCase *t = tcase_create("dnn_plans");
    Suite *s = suite_create("cuda/dnn_plans");
    SRunner *r;
    int failed;

    slow = argc > 2 && strcmp(argv[2], "slow") == 0;
    if (argc < 2 || !device_init(argv[1])) {
        fprintf(stderr, "dnn_plans: no description of a device\n");
        return EXIT_FAILURE;
    }
    tcase_add_loop_test(t, test_plan, 0, (int)(sizeof(plan_rows) / sizeof(plan_rows[0])));
    if (!slow) {
        tcase_add_test(t, test_plan_alone);
        tcase_add_test(t, test_engine_text);
    }
    tcase_set_timeout(t, 300);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    printf("%d of %d graphs have an engine\n", with_engine, asked);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    (void)cudnnBackendDestroyDescriptor(device);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
