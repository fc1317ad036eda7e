/* Det: determinants of the matrices in the last two dims, by LU with partial pivoting in double. */
#include "kernels/cpu/math_util.h"

#include <math.h>

typedef struct det_kernel {
    trm_kernel base;
    trm_dtype dtype;
    size_t count, n;
} det_kernel;

static double determinant(double *a, size_t n)
{
    double det = 1;

    for (size_t c = 0; c < n; c++) {
        size_t pivot = c;

        for (size_t r = c + 1; r < n; r++)
            if (fabs(a[r * n + c]) > fabs(a[pivot * n + c]))
                pivot = r;
        if (a[pivot * n + c] == 0)
            return 0;
        for (size_t j = c; pivot != c && j < n; j++) {
            double t = a[c * n + j];

            a[c * n + j] = a[pivot * n + j];
            a[pivot * n + j] = t;
        }
        det *= pivot != c ? -a[c * n + c] : a[c * n + c];
        for (size_t r = c + 1; r < n; r++) {
            double f = a[r * n + c] / a[c * n + c];

            for (size_t j = c; j < n; j++)
                a[r * n + j] -= f * a[c * n + j];
        }
    }
    return det;
}

static trm_status det_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                          void *workspace)
{
    det_kernel *k = (det_kernel *)base;
    size_t size = trm_dtype_bytes(k->dtype), elems = k->n * k->n;

    (void)s;
    for (size_t i = 0; i < k->count; i++) {
        double det;

        trmi_convert(TRM_DTYPE_F64, workspace, k->dtype, (const char *)in[0] + i * elems * size,
                     elems);
        det = determinant(workspace, k->n);
        trmi_convert(k->dtype, (char *)out[0] + i * size, TRM_DTYPE_F64, &det, 1);
    }
    return TRM_OK;
}

static const trm_kernel_ops det_ops = {.name = "det", .run = det_run, .destroy = trmi_kernel_free};

trm_status trmi_prepare_det(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *in = &desc->inputs[0];
    det_kernel *k;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    if (!trm_dtype_is_float(in->dtype))
        return trmi_bad_dtype(desc, 0, "a float");
    if (in->rank < 2 || in->dims[in->rank - 1] != in->dims[in->rank - 2])
        return trm_fail(TRM_ERR_INVALID_ARG, "Det '%s': the last two dims are not a square matrix",
                        desc->name);
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &det_ops, &k));
    k->dtype = in->dtype;
    k->n = (size_t)in->dims[in->rank - 1];
    k->count = trm_tensor_count(in, 0, in->rank - 2);
    k->base.workspace_bytes = k->n * k->n * sizeof(double);
    *kernel_out = &k->base;
    return TRM_OK;
}
