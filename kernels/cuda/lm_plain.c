/* The plain family of products: weights as in the file, activations in fp32. */
#include "kernels/cuda/lm_experts.h"

static bool plain_takes(trm_dtype dtype, trm_dtype act, trm_dtype *act_out)
{
    if ((act != TRM_DTYPE_NONE && act != TRM_DTYPE_F32) ||
        (dtype != TRM_DTYPE_F32 && dtype != TRM_DTYPE_F16 && dtype != TRM_DTYPE_BF16 &&
         !trm_dtype_is_block(dtype)))
        return false;
    *act_out = TRM_DTYPE_F32;
    return true;
}

static size_t row_bytes_of(const trmi_lmc_weight *w)
{
    return w->k / trm_dtype_block_elems(w->dtype) * trm_dtype_block_bytes(w->dtype);
}

static size_t plain_bytes(const trmi_lmc_weight *w)
{
    return trm_align_up(w->n * row_bytes_of(w), 256);
}

static trm_status plain_pack(trm_cuda *cuda, const trmi_lmc_weight *w, const void *rows,
                             size_t row_bytes, bool transposed, void *to)
{
    size_t row = row_bytes_of(w);

    if (transposed)
        return trm_fail(TRM_ERR_UNSUPPORTED, "plain products with transposed weights");
    if (row == row_bytes)
        return trmi_cuda_upload(cuda, to, rows, w->n * row);
    for (size_t i = 0; i < w->n; i++)
        TRM_CHECK(trmi_cuda_upload(cuda, (unsigned char *)to + i * row,
                                   (const unsigned char *)rows + i * row_bytes, row));
    return TRM_OK;
}

static size_t plain_workspace(const trm_cuda *cuda, const trmi_lmc_product *p)
{
    (void)cuda;
    (void)p;
    return 0;
}

static trm_status plain_run(trm_cuda *cuda, const trmi_lmc_product *p, void *workspace,
                            cudaStream_t stream)
{
    (void)cuda;
    (void)workspace;
    return trmi_cuda_lm_plain(stream, p);
}

const trmi_lmc_family trmi_lmc_plain = {.name = "plain",
                                        .takes = plain_takes,
                                        .weight_bytes = plain_bytes,
                                        .pack = plain_pack,
                                        .workspace_bytes = plain_workspace,
                                        .run = plain_run};
