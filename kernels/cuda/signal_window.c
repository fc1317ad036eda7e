/* HannWindow, HammingWindow, BlackmanWindow, MelWeightMatrix: tables of numbers known on the host.
 * They are made once, as a constant in device memory; running copies it. */
#include "kernels/cuda/signal.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846

struct window {
    trmi_cuda_kernel base;
    trmi_pack *table;
    size_t bytes;
};

static trm_status window_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                             void *workspace)
{
    const struct window *w = (const struct window *)k;

    (void)in;
    (void)workspace;
    if (w->bytes == 0)
        return TRM_OK;
    return TRMI_CUDA(cudaMemcpyAsync(out[0], w->table->memory, w->bytes, cudaMemcpyDeviceToDevice,
                                     trmi_cuda_stream(k, s)));
}

static void window_destroy(trm_kernel *k)
{
    struct window *w = (struct window *)k;

    trmi_cuda_pack_release(w->base.cuda, w->table);
    trmi_cuda_kernel_free(k);
}

static const trm_kernel_ops window_ops = {
    .name = "cuda window", .run = window_run, .destroy = window_destroy};

static void fill_window(const trm_op_desc *desc, trm_tensor *y)
{
    bool periodic = trm_attr_int(desc->attrs, "periodic", 1) != 0;
    size_t n = trm_tensor_numel(y);
    double period = periodic ? (double)n : (double)n - 1;

    for (size_t i = 0; i < n; i++) {
        double turn = period > 0 ? 2 * PI * (double)i / period : PI; /* one sample: its peak */
        double v = 0.42 - 0.5 * cos(turn) + 0.08 * cos(2 * turn);

        if (desc->op == TRM_OP_HannWindow)
            v = 0.5 - 0.5 * cos(turn);
        else if (desc->op == TRM_OP_HammingWindow)
            v = 25.0 / 46.0 - 21.0 / 46.0 * cos(turn);
        trm_tensor_set_f64(y, i, v);
    }
}

typedef struct mel_spec {
    size_t bins;
    double dft_length, sample_rate, low, high;
} mel_spec;

/* The spectrum bin at edge `i` of bins + 2 edges, evenly spaced in mels. */
static int64_t edge_bin(const mel_spec *m, size_t i)
{
    double low = 2595 * log10(1 + m->low / 700), high = 2595 * log10(1 + m->high / 700);
    double mel = low + (high - low) / ((double)m->bins + 2) * (double)i;
    double bin = floor((m->dft_length + 1) * (700 * (pow(10, mel / 2595) - 1)) / m->sample_rate);

    return bin >= 0 && bin < 1e15 ? (int64_t)bin : 0;
}

static void fill_mel(const mel_spec *m, trm_tensor *y)
{
    int64_t spectrum = y->dims[0];

    for (size_t b = 0; b < m->bins; b++) {
        int64_t left = edge_bin(m, b), centre = edge_bin(m, b + 1), right = edge_bin(m, b + 2);

        for (int64_t j = left; j <= centre && j < spectrum; j++)
            trm_tensor_set_f64(y, (size_t)j * m->bins + b,
                               centre == left ? 1.0 : (double)(j - left) / (double)(centre - left));
        for (int64_t j = centre; j < right && j < spectrum; j++)
            trm_tensor_set_f64(y, (size_t)j * m->bins + b,
                               (double)(right - j) / (double)(right - centre));
    }
}

static trm_status fill(const trm_op_desc *desc, trm_tensor *y)
{
    double value[5];
    mel_spec m;

    if (desc->op != TRM_OP_MelWeightMatrix) {
        fill_window(desc, y);
        return TRM_OK;
    }
    for (int i = 0; i < 5; i++) {
        if (desc->inputs[i].data == NULL || trm_tensor_numel(&desc->inputs[i]) != 1)
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "%s '%s': input %d is not one number known on the host",
                            trm_op_get(desc->op)->name, desc->name, i);
        value[i] = trm_tensor_get_f64(&desc->inputs[i], 0);
    }
    m = (mel_spec){.bins = (size_t)y->dims[1],
                   .dft_length = value[1],
                   .sample_rate = value[2],
                   .low = value[3],
                   .high = value[4]};
    fill_mel(&m, y);
    return TRM_OK;
}

trm_status trmi_cuda_window(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_tensor table = desc->outputs[0];
    struct window *w = NULL;
    bool found;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (!trm_dtype_is_float(table.dtype))
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s' of %s, want a float type",
                        trm_op_get(desc->op)->name, desc->name, trm_dtype_name(table.dtype));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*w), &window_ops, &w));
    TRM_TRY(st, trm_tensor_bytes(&table, &w->bytes), done);
    table.data = trm_calloc(1, w->bytes + 1);
    if (table.data == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "%s '%s': table", trm_op_get(desc->op)->name, desc->name);
        goto done;
    }
    TRM_TRY(st, fill(desc, &table), done);
    TRM_TRY(st, trmi_cuda_pack(cuda, 0, "window", w->bytes, &w->table, &found), done);
    TRM_TRY(st, trmi_cuda_upload(cuda, w->table->memory, table.data, w->bytes), done);
    *kernel_out = &w->base.base;
    w = NULL;
done:
    if (w != NULL)
        window_destroy(&w->base.base);
    trm_free(table.data);
    return st;
}
