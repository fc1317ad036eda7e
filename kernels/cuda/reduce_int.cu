/* Reductions of integers and bool (reduce.h): in 64 bits, those that end in a root or a logarithm
 * in f64. The kind is a run-time value here. */
#include "kernels/cuda/reduce.cuh"

using namespace trmi_rows;

namespace
{

template <class W>
trm_status fold_ints(const trmi_reduce *r, cudaStream_t stream, const void *in, void *out,
                     void *workspace)
{
    IntIn<W> from = {in, r->in};

    if (r->kind == TRMI_REDUCE_ARGMAX || r->kind == TRMI_REDUCE_ARGMIN)
        return fold<Fold<W, kArg>>(r, stream, from, false, out, workspace);
    return fold<Fold<W, kAnyKind>>(r, stream, from, false, out, workspace);
}

} // namespace

extern "C" trm_status trmi_cuda_reduce_int(const trmi_reduce *r, cudaStream_t stream,
                                           const void *in, void *out, void *workspace)
{
    if (r->work == TRM_DTYPE_I64)
        return fold_ints<int64_t>(r, stream, in, out, workspace);
    if (r->work == TRM_DTYPE_U64)
        return fold_ints<uint64_t>(r, stream, in, out, workspace);
    IntIn<double> from = {in, r->in};

    if (r->kind == TRMI_REDUCE_EXP)
        return fold<Fold<double, TRMI_REDUCE_EXP>>(r, stream, from, false, out, workspace);
    return fold<Fold<double, kAnyKind>>(r, stream, from, false, out, workspace);
}
