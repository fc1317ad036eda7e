/* Operators that walk along one axis: ArgMax, ArgMin, CumSum, CumProd. Input seen as [outer, axis,
 * inner]; work is done in f64, i64 or u64 (fp32 and narrower floats: f64, rounded once an element).
 */
#include "kernels/cpu/math_util.h"

#include <string.h>

typedef struct scan_kernel {
    trm_kernel base;
    trm_op op;
    trm_dtype in, work;
    size_t outer, axis, inner;
    bool last, exclusive, reverse;
} scan_kernel;

typedef struct scan_job {
    const scan_kernel *k;
    const char *in;
    char *out;
} scan_job;

/* is b a better choice than a? NaN beats everything, as in NumPy */
#define BETTER(max, last, a, b)                                                                    \
    ((a) != (a)   ? (last) && (b) != (b)                                                           \
     : (b) != (b) ? true                                                                           \
     : (max)      ? ((b) > (a) || ((last) && (b) == (a)))                                          \
                  : ((b) < (a) || ((last) && (b) == (a))))

static void gather(const scan_kernel *k, const char *column, size_t at, size_t n, void *value)
{
    size_t size = trm_dtype_bytes(k->in);

    if (k->inner == 1) {
        trmi_convert(k->work, value, k->in, column + at * size, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        trmi_convert(k->work, (char *)value + i * 8, k->in, column + (at + i) * k->inner * size, 1);
}

static void arg_range(void *ctx, size_t begin, size_t end)
{
    const scan_job *job = ctx;
    const scan_kernel *k = job->k;
    size_t size = trm_dtype_bytes(k->in);
    bool max = k->op == TRM_OP_ArgMax;
    double value[TRMI_CHUNK + 1]; /* slot 0 carries the best so far between chunks */

    for (size_t o = begin; o < end; o++) {
        const char *column = job->in + (o / k->inner * k->axis * k->inner + o % k->inner) * size;
        int64_t best_at = 0;

        for (size_t at = 0; at < k->axis;) {
            bool first = at == 0;
            size_t carry = first ? 0 : 1;
            size_t count = k->axis - at < TRMI_CHUNK ? k->axis - at : TRMI_CHUNK;
            int64_t winner = 0;

            gather(k, column, at, count, value + carry);
#define PICK(T)                                                                                    \
    {                                                                                              \
        const T *v = (const T *)(const void *)value;                                               \
        for (size_t i = 1; i < count + carry; i++)                                                 \
            if (BETTER(max, k->last, v[winner], v[i]))                                             \
                winner = (int64_t)i;                                                               \
    }
            if (k->work == TRM_DTYPE_F64)
                PICK(double)
            else if (k->work == TRM_DTYPE_I64)
                PICK(int64_t)
            else
                PICK(uint64_t)
            if (first || winner > 0)
                best_at = (int64_t)at + winner - (int64_t)carry;
            value[0] = value[winner];
            at += count;
        }
        ((int64_t *)(void *)job->out)[o] = best_at;
    }
}

static void cumulate_range(void *ctx, size_t begin, size_t end)
{
    const scan_job *job = ctx;
    const scan_kernel *k = job->k;
    size_t size = trm_dtype_bytes(k->in);
    bool product = k->op == TRM_OP_CumProd;

    for (size_t o = begin; o < end; o++) {
        size_t base = o / k->inner * k->axis * k->inner + o % k->inner;
        double sum_f = product ? 1 : 0, f;
        uint64_t sum_u = product ? 1 : 0, u;
        bool is_float = k->work == TRM_DTYPE_F64;

        for (size_t a = 0; a < k->axis; a++) {
            size_t at = (base + (k->reverse ? k->axis - 1 - a : a) * k->inner) * size;
            double before_f = sum_f;
            uint64_t before_u = sum_u;

            if (is_float) {
                trmi_convert(TRM_DTYPE_F64, &f, k->in, job->in + at, 1);
                sum_f = product ? sum_f * f : sum_f + f;
                trmi_convert(k->in, job->out + at, TRM_DTYPE_F64, k->exclusive ? &before_f : &sum_f,
                             1);
            } else {
                trmi_convert(TRM_DTYPE_U64, &u, k->in, job->in + at, 1);
                sum_u = product ? sum_u * u : sum_u + u;
                trmi_convert(k->in, job->out + at, TRM_DTYPE_U64, k->exclusive ? &before_u : &sum_u,
                             1);
            }
        }
    }
}

static trm_status scan_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    scan_kernel *k = (scan_kernel *)base;
    scan_job job = {k, in[0], out[0]};
    bool arg = k->op == TRM_OP_ArgMax || k->op == TRM_OP_ArgMin;

    (void)s;
    (void)workspace;
    trm_team_for(k->outer * k->inner, 1 + TRMI_GRAIN / 4 / (k->axis + 1),
                 arg ? arg_range : cumulate_range, &job);
    return TRM_OK;
}

static const trm_kernel_ops scan_ops = {
    .name = "scan", .run = scan_run, .destroy = trmi_kernel_free};

trm_status trmi_prepare_scan(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *in = &desc->inputs[0];
    bool arg = desc->op == TRM_OP_ArgMax || desc->op == TRM_OP_ArgMin;
    int64_t wanted = trm_attr_int(desc->attrs, "axis", 0);
    scan_kernel *k;
    int axis = 0;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    if (in->dtype == TRM_DTYPE_BOOL)
        return trmi_bad_dtype(desc, 0, "a number");
    if (!arg) {
        const trm_tensor *t = &desc->inputs[1];

        if (t->data == NULL || trm_tensor_numel(t) != 1)
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "%s '%s': axis is not one number known on the host",
                            trm_op_get(desc->op)->name, desc->name);
        wanted = trm_tensor_get_i64(t, 0);
    }
    if (in->rank > 0)
        TRM_CHECK(trmi_axis(desc, wanted, in->rank, &axis));
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &scan_ops, &k));
    k->op = desc->op;
    k->in = in->dtype;
    k->work = trm_dtype_is_float(in->dtype)        ? TRM_DTYPE_F64
              : trm_dtype_is_signed_int(in->dtype) ? TRM_DTYPE_I64
                                                   : TRM_DTYPE_U64;
    k->outer = trm_tensor_count(in, 0, axis);
    k->axis = in->rank == 0 ? 1 : (size_t)in->dims[axis];
    k->inner = in->rank == 0 ? 1 : trm_tensor_count(in, axis + 1, in->rank);
    k->last = trm_attr_int(desc->attrs, "select_last_index", 0) != 0;
    k->exclusive = trm_attr_int(desc->attrs, "exclusive", 0) != 0;
    k->reverse = trm_attr_int(desc->attrs, "reverse", 0) != 0;
    *kernel_out = &k->base;
    return TRM_OK;
}
