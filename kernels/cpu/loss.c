/* NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss: x [N, C, D...] (scores seen as [N, C, D]),
 * target [N, D...]. Sums run in double. */
#include "kernels/cpu/math_util.h"

#include <math.h>

typedef enum loss_reduction { LOSS_NONE, LOSS_SUM, LOSS_MEAN } loss_reduction;

typedef struct loss_kernel {
    trm_kernel base;
    trm_op op;
    trm_dtype x, target, out, weight; /* weight NONE: absent */
    loss_reduction reduction;
    bool has_ignore, want_log;
    int64_t ignore;
    size_t n, classes, d;
} loss_kernel;

static double number(trm_dtype dtype, const void *data, size_t i)
{
    double v;

    trmi_convert(TRM_DTYPE_F64, &v, dtype, (const char *)data + i * trm_dtype_bytes(dtype), 1);
    return v;
}

static void put(trm_dtype dtype, void *data, size_t i, double v)
{
    trmi_convert(dtype, (char *)data + i * trm_dtype_bytes(dtype), TRM_DTYPE_F64, &v, 1);
}

/* log of the sum of exponentials over the classes of position (n, d) */
static double log_sum(const loss_kernel *k, const void *x, size_t base)
{
    double max = -INFINITY, sum = 0;

    for (size_t c = 0; c < k->classes; c++)
        max = fmax(max, number(k->x, x, base + c * k->d));
    for (size_t c = 0; c < k->classes; c++)
        sum += exp(number(k->x, x, base + c * k->d) - max);
    return max + log(sum);
}

static trm_status loss_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    loss_kernel *k = (loss_kernel *)base;
    double total = 0, weights = 0;

    (void)s;
    (void)workspace;
    for (size_t i = 0; i < k->n * k->d; i++) {
        size_t at = i / k->d * k->classes * k->d + i % k->d;
        double shift = k->op == TRM_OP_SoftmaxCrossEntropyLoss ? log_sum(k, in[0], at) : 0;
        double weight = 0, loss = 0;
        int64_t class;

        trmi_convert(TRM_DTYPE_I64, &class, k->target,
                     (const char *)in[1] + i * trm_dtype_bytes(k->target), 1);
        for (size_t c = 0; k->want_log && c < k->classes; c++)
            put(k->x, out[1], at + c * k->d, number(k->x, in[0], at + c * k->d) - shift);
        if (!k->has_ignore || class != k->ignore) {
            if (class < 0 || (size_t) class >= k->classes)
                return trm_fail(TRM_ERR_INVALID_ARG, "%s: target %zu is class %lld: want 0 to %zu",
                                trm_op_get(k->op)->name, i, (long long)class, k->classes - 1);
            weight = k->weight != TRM_DTYPE_NONE ? number(k->weight, in[2], (size_t) class) : 1;
            loss = weight * (shift - number(k->x, in[0], at + (size_t) class * k->d));
        }
        if (k->reduction == LOSS_NONE)
            put(k->out, out[0], i, loss);
        total += loss;
        weights += weight;
    }
    if (k->reduction != LOSS_NONE)
        put(k->out, out[0], 0, k->reduction == LOSS_MEAN ? total / weights : total);
    return TRM_OK;
}

static const trm_kernel_ops loss_ops = {
    .name = "loss", .run = loss_run, .destroy = trmi_kernel_free};

trm_status trmi_prepare_loss(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    const trm_attr *ignore = trm_attr_find(desc->attrs, "ignore_index");
    const char *how = trm_attr_string(desc->attrs, "reduction", "mean");
    loss_kernel *k;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    if (!trm_dtype_is_float(x->dtype))
        return trmi_bad_dtype(desc, 0, "a float");
    if (desc->inputs[1].dtype != TRM_DTYPE_I32 && desc->inputs[1].dtype != TRM_DTYPE_I64)
        return trmi_bad_dtype(desc, 1, "i32 or i64");
    if (x->rank < 2 ||
        trm_tensor_numel(&desc->inputs[1]) * (size_t)x->dims[1] != trm_tensor_numel(x))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': targets do not fit scores [N, C, ...]",
                        trm_op_get(desc->op)->name, desc->name);
    if (trmi_has_input(desc, 2) && trm_tensor_numel(&desc->inputs[2]) != (size_t)x->dims[1])
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %zu class weights: want %lld",
                        trm_op_get(desc->op)->name, desc->name, trm_tensor_numel(&desc->inputs[2]),
                        (long long)x->dims[1]);
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &loss_ops, &k));
    k->op = desc->op;
    k->x = x->dtype;
    k->target = desc->inputs[1].dtype;
    k->out = desc->outputs[0].dtype;
    k->weight = trmi_has_input(desc, 2) ? desc->inputs[2].dtype : TRM_DTYPE_NONE;
    k->reduction = how[0] == 'n' ? LOSS_NONE : how[0] == 's' ? LOSS_SUM : LOSS_MEAN;
    k->has_ignore = ignore != NULL;
    k->ignore = trm_attr_int(desc->attrs, "ignore_index", 0);
    k->want_log = desc->op == TRM_OP_SoftmaxCrossEntropyLoss && trmi_has_output(desc, 1);
    k->n = (size_t)x->dims[0];
    k->classes = (size_t)x->dims[1];
    k->d = trm_tensor_count(x, 2, x->rank);
    *kernel_out = &k->base;
    return TRM_OK;
}
