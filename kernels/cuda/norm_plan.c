/* The plan of a normalisation and its two ways (norm.h). */
#include "kernels/cuda/norm.h"

trm_status trmi_cuda_norm_plan(const trm_cuda *cuda, trmi_norm *n)
{
    size_t images = n->channels_last && n->groups > 0 ? n->rows / n->groups : n->rows;
    size_t length = n->channels_last ? n->channels * n->spatial : n->n;
    size_t blocks, most, want = 2 * (size_t)cuda->multiprocessors, work;

    if (!trm_dtype_is_float(n->dtype) ||
        (n->gain_type != n->dtype && n->gain_type != TRM_DTYPE_F32))
        return trm_fail(TRM_ERR_UNSUPPORTED, "normalisation of %s with a gain of %s",
                        trm_dtype_name(n->dtype), trm_dtype_name(n->gain_type));
    if (n->rows > INT32_MAX || length > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "normalisation of %zu rows of %zu", n->rows, n->n);
    n->multiprocessors = cuda->multiprocessors;
    n->fused = !n->channels_last && n->n <= TRMI_NORM_ROW_MAX;
    n->splits = 1;
    n->workspace_bytes = 0;
    if (n->fused)
        return TRM_OK;
    if (n->channels_last) { /* 32 channels a block, 8 threads on the positions of each, or more */
        blocks = images * ((n->channels + 31) / 32);
        most = n->spatial / 64;
    } else {
        blocks = images;
        most = length / TRMI_NORM_ROW_MAX;
    }
    if (blocks > 0 && blocks < want)
        n->splits = (int)(want / blocks < most ? want / blocks : most);
    if (n->splits < 1)
        n->splits = 1;
    if (n->splits > 256)
        n->splits = 256;
    work = n->dtype == TRM_DTYPE_F64 ? sizeof(double) : sizeof(float);
    n->workspace_bytes =
        work *
        (3 * (size_t)n->splits * images * (n->channels_last ? n->channels : 1) + 2 * n->rows);
    return TRM_OK;
}

trm_status trmi_cuda_norm_run(const trmi_norm *n, cudaStream_t stream, const trmi_norm_args *a,
                              void *workspace)
{
    if (n->fused)
        return trmi_cuda_norm_rows(n, stream, a);
    if (a->residual != NULL || a->sum != NULL)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "normalisation with a residual: rows of %zu: want one piece of up to %d",
                        n->n, TRMI_NORM_ROW_MAX);
    return trmi_cuda_norm_pieces(n, stream, a, workspace);
}
