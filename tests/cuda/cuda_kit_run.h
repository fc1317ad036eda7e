/* The running half of cuda_kit.h, which includes it. */
#ifndef TRM_TESTS_CUDA_CUDA_KIT_RUN_H
#define TRM_TESTS_CUDA_CUDA_KIT_RUN_H

#include "tests/cuda/cuda_kit.h"

/* Outputs of data-dependent shape are given memory here. */
struct kit_sink {
    trm_device *device;
    trm_tensor *out; /* dims and data (device memory) are filled in */
};

static inline trm_status kit_sink_alloc(void *ctx, int output, int rank, const int64_t *dims,
                                        void **data_out)
{
    struct kit_sink *s = ctx;
    trm_tensor *t = &s->out[output];
    size_t bytes;

    t->rank = rank;
    for (int i = 0; i < rank; i++)
        t->dims[i] = dims[i];
    TRM_CHECK(trm_tensor_bytes(t, &bytes));
    TRM_CHECK(s->device->ops->alloc(s->device, TRM_MEMORY_DEVICE, bytes + TRM_ALIGN, &t->data));
    *data_out = t->data;
    return TRM_OK;
}

#define KIT_OK(call) ck_assert_msg((call) == TRM_OK, "%s: %s: %s", kit_name, #call, trm_message())
static const char *kit_name = "";

static inline void *kit_device_memory(trm_device *d, size_t bytes)
{
    void *p = NULL;

    KIT_OK(d->ops->alloc(d, TRM_MEMORY_DEVICE, bytes + TRM_ALIGN, &p));
    return p;
}

static inline void kit_wait(trm_device *d)
{
    if (d->ops->stream_wait != NULL)
        KIT_OK(d->ops->stream_wait(d, NULL));
}

/* `from` (in device memory p) in another layout: new device memory. */
static inline void *kit_reorder(trm_device *d, const trm_tensor *from, void *p, trm_layout layout)
{
    trm_tensor to = *from;
    trm_kernel *k = NULL;
    size_t bytes;
    void *q, *ws;
    const void *in[1] = {p};
    void *out[1];

    to.layout = layout;
    to.data = NULL;
    KIT_OK(trm_tensor_bytes(&to, &bytes));
    q = kit_device_memory(d, bytes);
    KIT_OK(d->ops->prepare_reorder(d, from, &to, &k));
    ws = kit_device_memory(d, k->workspace_bytes);
    out[0] = q;
    KIT_OK(k->ops->run(k, NULL, in, out, ws));
    kit_wait(d);
    trm_kernel_destroy(k);
    d->ops->free(d, TRM_MEMORY_DEVICE, ws);
    return q;
}

/* A host copy in fp32 where the dtype is 16 bits wide. */
static inline trm_tensor kit_widen(trm_tensor t)
{
    trm_tensor w = t;

    if (t.dtype != TRM_DTYPE_F16 && t.dtype != TRM_DTYPE_BF16)
        return t;
    w.dtype = TRM_DTYPE_F32;
    if (t.data != NULL) {
        w = kit_data(w);
        for (size_t i = 0; i < trm_tensor_numel(&t); i++)
            trm_tensor_set_f64(&w, i, trm_tensor_get_f64(&t, i));
    }
    return w;
}

/* Runs c->op on device d; results: plain host tensors in c's arena. */
static inline trm_status kit_run(cuda_case *c, trm_device *d, trm_tensor *results)
{
    trm_tensor in[CUDA_ARGS], out[CUDA_ARGS];
    uint64_t keys[CUDA_ARGS] = {0};
    const void *in_data[CUDA_ARGS] = {NULL};
    void *out_data[CUDA_ARGS] = {NULL}, *ws;
    bool wide = c->as_f32 && d == kit_cpu;
    trm_op_desc desc = {.op = c->op,
                        .attrs = c->attrs,
                        .name = c->name,
                        .input_count = c->in_count,
                        .output_count = c->out_count,
                        .inputs = in,
                        .outputs = out,
                        .weight_keys = keys,
                        .post_count = c->post_count};
    struct kit_sink sink_context = {.device = d, .out = out};
    trm_output_sink sink = {.alloc = kit_sink_alloc, .ctx = &sink_context};
    trm_kernel *k = NULL;
    trm_status st;
    bool dynamic;

    kit_name = c->name;
    memcpy(desc.posts, c->posts, sizeof(desc.posts));
    for (int i = 0; i < c->in_count; i++) {
        in[i] = wide ? kit_widen(c->in[i]) : c->in[i];
        if (!c->known[i])
            in[i].data = NULL;
        if (d == kit_gpu)
            in[i].layout = c->arrives[i];
    }
    for (int i = 0; i < c->out_count; i++)
        out[i] = wide ? kit_widen(c->out[i]) : c->out[i];
    st = d->ops->prepare(d, &desc, &k);
    if (st != TRM_OK)
        return st;
    dynamic = k->ops->run_dynamic != NULL;
    for (int i = 0; i < c->in_count; i++) {
        trm_tensor plain = wide ? kit_widen(c->in[i]) : c->in[i];
        size_t bytes;
        void *p;

        if (d == kit_gpu)
            c->wanted[i] = in[i].layout;
        if (plain.dtype == TRM_DTYPE_NONE || (k->packed_inputs >> i & 1u) != 0)
            continue;
        KIT_OK(trm_tensor_bytes(&plain, &bytes));
        p = kit_device_memory(d, bytes);
        KIT_OK(d->ops->copy_in(d, NULL, p, plain.data, bytes));
        kit_wait(d);
        plain.layout = TRM_LAYOUT_PLAIN;
        if (in[i].layout != TRM_LAYOUT_PLAIN) {
            void *q = kit_reorder(d, &plain, p, in[i].layout);

            d->ops->free(d, TRM_MEMORY_DEVICE, p);
            p = q;
        }
        in_data[i] = p;
    }
    for (int i = 0; i < c->out_count && !dynamic; i++) {
        size_t bytes;

        if (out[i].dtype == TRM_DTYPE_NONE)
            continue;
        KIT_OK(trm_tensor_bytes(&out[i], &bytes));
        out_data[i] = kit_device_memory(d, bytes);
    }
    ws = kit_device_memory(d, k->workspace_bytes);
    st = dynamic ? k->ops->run_dynamic(k, NULL, in_data, &sink, ws)
                 : k->ops->run(k, NULL, in_data, out_data, ws);
    if (st == TRM_OK)
        kit_wait(d);
    if (d == kit_gpu)
        c->kernel = k->ops->name;
    for (int i = 0; i < c->out_count && st == TRM_OK; i++) {
        void *p = dynamic ? out[i].data : out_data[i];
        size_t bytes;

        results[i] = out[i];
        if (out[i].dtype == TRM_DTYPE_NONE)
            continue;
        if (d == kit_gpu)
            c->gave[i] = out[i].layout;
        if (out[i].layout != TRM_LAYOUT_PLAIN) {
            void *q = kit_reorder(d, &out[i], p, TRM_LAYOUT_PLAIN);

            d->ops->free(d, TRM_MEMORY_DEVICE, p);
            p = q;
        }
        results[i].layout = TRM_LAYOUT_PLAIN;
        results[i] = kit_data(results[i]);
        KIT_OK(trm_tensor_bytes(&results[i], &bytes));
        KIT_OK(d->ops->copy_out(d, NULL, results[i].data, p, bytes));
        kit_wait(d);
        d->ops->free(d, TRM_MEMORY_DEVICE, p);
    }
    for (int i = 0; i < c->in_count; i++)
        d->ops->free(d, TRM_MEMORY_DEVICE, (void *)(uintptr_t)in_data[i]);
    d->ops->free(d, TRM_MEMORY_DEVICE, ws);
    trm_kernel_destroy(k);
    return st;
}

static inline void kit_compare(const cuda_case *c, int output, const trm_tensor *got,
                               const trm_tensor *want)
{
    ck_assert_msg(got->rank == want->rank, "%s: output %d has rank %d, the CPU's %d", c->name,
                  output, got->rank, want->rank);
    for (int d = 0; d < want->rank; d++)
        ck_assert_msg(got->dims[d] == want->dims[d],
                      "%s: output %d: dim %d is %lld, the CPU's %lld", c->name, output, d,
                      (long long)got->dims[d], (long long)want->dims[d]);
    for (size_t i = 0; i < trm_tensor_numel(want); i++) {
        double g, w;

        if (!trm_dtype_is_float(want->dtype)) {
            int64_t a = trm_tensor_get_i64(got, i), b = trm_tensor_get_i64(want, i);

            ck_assert_msg(a == b || fabs((double)a - (double)b) <= c->atol,
                          "%s: output %d [%zu]: got %lld, the CPU says %lld", c->name, output, i,
                          (long long)a, (long long)b);
            continue;
        }
        g = trm_tensor_get_f64(got, i);
        w = trm_tensor_get_f64(want, i);
        if ((isnan(g) && isnan(w)) || g == w)
            continue;
        if (fabs(g - w) <= c->atol + c->rtol * fabs(w))
            continue; /* an assertion is a system call, elements are millions */
        ck_assert_msg(fabs(g - w) <= c->atol + c->rtol * fabs(w),
                      "%s: output %d [%zu]: got %.9g, the CPU says %.9g (allowed %.3g)", c->name,
                      output, i, g, w, c->atol + c->rtol * fabs(w));
    }
}

/* Runs the case on both devices and compares all wanted outputs. */
static inline void cuda_check(cuda_case *c)
{
    trm_tensor got[CUDA_ARGS], want[CUDA_ARGS];
    trm_status st;

    if (c->name == NULL)
        c->name = trm_op_get(c->op)->name;
    st = kit_run(c, kit_gpu, got);
    ck_assert_msg(st == c->want_prepare, "%s: the CUDA device says %s (%s), want %s", c->name,
                  trm_status_name(st), st == TRM_OK ? "" : trm_message(),
                  trm_status_name(c->want_prepare));
    if (st != TRM_OK)
        return;
    KIT_OK(kit_run(c, kit_cpu, want));
    for (int i = 0; i < c->out_count; i++)
        if (want[i].dtype != TRM_DTYPE_NONE)
            kit_compare(c, i, &got[i], &want[i]);
}

/* ---- the program ---- */

static inline void kit_setup(void)
{
    ck_assert_int_eq(trm_arena_create(0, &kit_arena), TRM_OK);
    kit_seed = 1;
}

static inline void kit_teardown(void)
{
    trm_arena_destroy(kit_arena);
    kit_arena = NULL;
}

/* Runs the case of a suite without forking; 77 (skipped) where there is no CUDA device at all. */
static inline int kit_main(const char *name, TCase *t)
{
    trm_cuda_options options = {.device = 0};
    Suite *s;
    SRunner *r;
    int failed;

    if (trm_device_cpu_create(1, &kit_cpu) != TRM_OK) {
        fprintf(stderr, "%s: %s\n", name, trm_message());
        return EXIT_FAILURE;
    }
    if (trm_device_cuda_create(&options, kit_cpu, &kit_gpu) != TRM_OK) {
        fprintf(stderr, "%s: %s\n", name, trm_message());
        trm_device_destroy(kit_cpu);
        /* with an emulated device a missing one is a failure, not a reason to skip */
        return getenv("TRM_CUDA_DRIVER") != NULL ? EXIT_FAILURE : 77;
    }
    s = suite_create(name);
    tcase_add_checked_fixture(t, kit_setup, kit_teardown);
    tcase_set_timeout(t, 120);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    trm_device_destroy(kit_gpu);
    trm_device_destroy(kit_cpu);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
