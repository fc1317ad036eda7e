#include "kernels/cuda/lm_float_tile.cuh"

extern "C" trm_status trmi_lmf_tile_f8_row(const trmi_lmf_args *a, int rows, int blocks,
                                           cudaStream_t stream)
{
    return trmi_lmf::tile_any<trmi_lmf::f8_row>(a, rows, blocks, stream);
}
