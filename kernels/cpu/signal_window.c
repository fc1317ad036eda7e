/* HannWindow, HammingWindow, BlackmanWindow, MelWeightMatrix: tables made from numbers known on the
 * host. */
#include "kernels/cpu/math_util.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846

typedef struct window_kernel {
    trm_kernel base;
    trm_op op;
    trm_dtype out;
    bool periodic;
    size_t n;
    /* MelWeightMatrix: output [spectrum, bins] */
    size_t bins, spectrum;
    double dft_length, sample_rate, low, high;
} window_kernel;

static double window_value(const window_kernel *k, size_t i)
{
    double period = k->periodic ? (double)k->n : (double)k->n - 1;
    double turn = period > 0 ? 2 * PI * (double)i / period : PI; /* one sample: its peak */

    switch (k->op) {
    case TRM_OP_HannWindow:
        return 0.5 - 0.5 * cos(turn);
    case TRM_OP_HammingWindow:
        return 25.0 / 46.0 - 21.0 / 46.0 * cos(turn);
    default:
        return 0.42 - 0.5 * cos(turn) + 0.08 * cos(2 * turn);
    }
}

static void put(const window_kernel *k, void *out, size_t i, double v)
{
    trmi_convert(k->out, (char *)out + i * trm_dtype_bytes(k->out), TRM_DTYPE_F64, &v, 1);
}

/* The spectrum bin at edge `i` of bins + 2 edges, evenly spaced in mels. */
static int64_t edge_bin(const window_kernel *k, size_t i)
{
    double low = 2595 * log10(1 + k->low / 700), high = 2595 * log10(1 + k->high / 700);
    double mel = low + (high - low) / ((double)k->bins + 2) * (double)i;
    double bin = floor((k->dft_length + 1) * (700 * (pow(10, mel / 2595) - 1)) / k->sample_rate);

    return bin >= 0 && bin < 1e15 ? (int64_t)bin : 0;
}

static void mel(const window_kernel *k, void *out)
{
    memset(out, 0, k->spectrum * k->bins * trm_dtype_bytes(k->out));
    for (size_t b = 0; b < k->bins; b++) {
        int64_t left = edge_bin(k, b), centre = edge_bin(k, b + 1), right = edge_bin(k, b + 2);

        for (int64_t j = left; j <= centre && j < (int64_t)k->spectrum; j++)
            put(k, out, (size_t)j * k->bins + b,
                centre == left ? 1.0 : (double)(j - left) / (double)(centre - left));
        for (int64_t j = centre; j < right && j < (int64_t)k->spectrum; j++)
            put(k, out, (size_t)j * k->bins + b, (double)(right - j) / (double)(right - centre));
    }
}

static trm_status window_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    window_kernel *k = (window_kernel *)base;

    (void)s;
    (void)in;
    (void)workspace;
    if (k->op == TRM_OP_MelWeightMatrix) {
        mel(k, out[0]);
        return TRM_OK;
    }
    for (size_t i = 0; i < k->n; i++)
        put(k, out[0], i, window_value(k, i));
    return TRM_OK;
}

static const trm_kernel_ops window_ops = {
    .name = "window", .run = window_run, .destroy = trmi_kernel_free};

trm_status trmi_prepare_window(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    window_kernel *k;
    double value[5] = {0};

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    for (int i = 0; desc->op == TRM_OP_MelWeightMatrix && i < 5; i++) {
        if (desc->inputs[i].data == NULL || trm_tensor_numel(&desc->inputs[i]) != 1)
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "%s '%s': input %d is not one number known on the host",
                            trm_op_get(desc->op)->name, desc->name, i);
        value[i] = trm_tensor_get_f64(&desc->inputs[i], 0);
    }
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &window_ops, &k));
    k->op = desc->op;
    k->out = desc->outputs[0].dtype;
    k->n = trm_tensor_numel(&desc->outputs[0]);
    k->periodic = trm_attr_int(desc->attrs, "periodic", 1) != 0;
    if (desc->op == TRM_OP_MelWeightMatrix) {
        k->spectrum = (size_t)desc->outputs[0].dims[0];
        k->bins = (size_t)desc->outputs[0].dims[1];
        k->dft_length = value[1];
        k->sample_rate = value[2];
        k->low = value[3];
        k->high = value[4];
    }
    *kernel_out = &k->base;
    return TRM_OK;
}
