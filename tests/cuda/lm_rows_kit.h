/* Operators of rows (kernels/language.h) with memory of the test's choice, and whether a row's bits
 * depend on the rows beside it. */
#ifndef TRM_TESTS_CUDA_LM_ROWS_KIT_H
#define TRM_TESTS_CUDA_LM_ROWS_KIT_H

#include "tests/cuda/cuda_kit.h"

/* Runs c on the CUDA device: input i is `given[i]` where that is not NULL; output 0 goes where
 * input `over` lies (-1: to its own memory). Results: host memory. */
static inline void run_with(cuda_case *c, const void *const *given, int over, trm_tensor *results)
{
    trm_device *d = kit_gpu;
    trm_tensor in[CUDA_ARGS], out[CUDA_ARGS];
    const void *in_data[CUDA_ARGS] = {NULL};
    void *owned[2 * CUDA_ARGS], *out_data[CUDA_ARGS], *ws;
    trm_op_desc desc = {.op = c->op,
                        .attrs = c->attrs,
                        .name = c->name,
                        .input_count = c->in_count,
                        .output_count = c->out_count,
                        .inputs = in,
                        .outputs = out};
    trm_kernel *k = NULL;
    int count = 0;
    size_t bytes;

    kit_name = c->name;
    for (int i = 0; i < c->in_count; i++) {
        in[i] = c->in[i];
        in[i].data = NULL;
    }
    for (int i = 0; i < c->out_count; i++)
        out[i] = c->out[i];
    KIT_OK(d->ops->prepare(d, &desc, &k));
    ck_assert(over < 0 || (k->in_place >> over & 1u) != 0);
    for (int i = 0; i < c->in_count; i++) {
        in_data[i] = given == NULL ? NULL : given[i];
        if (in_data[i] != NULL || c->in[i].dtype == TRM_DTYPE_NONE)
            continue;
        KIT_OK(trm_tensor_bytes(&c->in[i], &bytes));
        in_data[i] = owned[count] = kit_device_memory(d, bytes);
        KIT_OK(d->ops->copy_in(d, NULL, owned[count++], c->in[i].data, bytes));
    }
    for (int i = 0; i < c->out_count; i++) {
        KIT_OK(trm_tensor_bytes(&out[i], &bytes));
        if (i == 0 && over >= 0)
            out_data[i] = (void *)(uintptr_t)in_data[over];
        else
            out_data[i] = owned[count++] = kit_device_memory(d, bytes);
    }
    ws = owned[count++] = kit_device_memory(d, k->workspace_bytes);
    KIT_OK(k->ops->run(k, NULL, in_data, out_data, ws));
    for (int i = 0; i < c->out_count; i++) {
        results[i] = kit_data(out[i]);
        KIT_OK(trm_tensor_bytes(&out[i], &bytes));
        KIT_OK(d->ops->copy_out(d, NULL, results[i].data, out_data[i], bytes));
    }
    kit_wait(d);
    trm_kernel_destroy(k);
    for (int i = 0; i < count; i++)
        d->ops->free(d, TRM_MEMORY_DEVICE, owned[i]);
}

/* rows [first, first + count) of a tensor of rows */
static inline trm_tensor slice(trm_tensor t, int64_t first, int64_t count)
{
    size_t bytes, row;

    ck_assert_int_eq(trm_tensor_bytes(&t, &bytes), TRM_OK);
    row = t.dims[0] > 0 ? bytes / (size_t)t.dims[0] : 0;
    t.dims[0] = count;
    if (t.data != NULL)
        t.data = (char *)t.data + (size_t)first * row;
    return t;
}

static inline void same_bits(const char *name, const trm_tensor *got, const trm_tensor *want)
{
    size_t bytes;

    ck_assert_int_eq(trm_tensor_bytes(want, &bytes), TRM_OK);
    ck_assert_msg(memcmp(got->data, want->data, bytes) == 0, "%s: other bits", name);
}

/* Rows alone and in twos have the bits that they have in `whole`; inputs below `by_row` and outputs
 * are of rows. */
static inline void check_rows(const cuda_case *c, int by_row, const trm_tensor *whole)
{
    int64_t rows = c->out[0].dims[0];

    for (int64_t r = 0; r < rows; r += 1 + rows / 4)
        for (int64_t count = 1; count <= 2 && r + count <= rows; count++) {
            cuda_case some = *c;
            trm_tensor got[CUDA_ARGS], want;

            for (int i = 0; i < by_row; i++)
                if (some.in[i].dtype != TRM_DTYPE_NONE)
                    some.in[i] = slice(some.in[i], r, count);
            for (int i = 0; i < some.out_count; i++)
                some.out[i] = slice(some.out[i], r, count);
            run_with(&some, NULL, -1, got);
            for (int i = 0; i < some.out_count; i++) {
                want = slice(whole[i], r, count);
                same_bits(c->name, &got[i], &want);
            }
        }
}

#endif
