/* Slice: starts and ends are clamped as ONNX says, then it is one strided copy. */
#include "kernels/cpu/strided.h"

#include <inttypes.h>

static int64_t clamp(int64_t v, int64_t lo, int64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

trm_status trmi_cpu_slice(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t starts[TRM_RANK_MAX], ends[TRM_RANK_MAX], axes[TRM_RANK_MAX], by[TRM_RANK_MAX];
    int64_t want[TRM_RANK_MAX];
    ptrdiff_t steps[TRM_RANK_MAX], offset = 0;
    size_t dims[TRM_RANK_MAX];
    int count, end_count, axis_count, by_count;
    unsigned seen = 0;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_data_ints(desc, 1, starts, TRM_RANK_MAX, &count));
    TRM_CHECK(trmi_data_ints(desc, 2, ends, TRM_RANK_MAX, &end_count));
    TRM_CHECK(trmi_data_ints(desc, 3, axes, TRM_RANK_MAX, &axis_count));
    TRM_CHECK(trmi_data_ints(desc, 4, by, TRM_RANK_MAX, &by_count));
    if (end_count != count || count > x->rank || (trmi_has_input(desc, 3) && axis_count != count) ||
        (trmi_has_input(desc, 4) && by_count != count))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "Slice '%s': %d starts, %d ends, %d axes, %d steps on rank %d: want equal "
                        "numbers, at most the rank",
                        desc->name, count, end_count, axis_count, by_count, x->rank);
    trmi_steps(x->rank, x->dims, steps);
    for (int i = 0; i < x->rank; i++)
        want[i] = x->dims[i];
    for (int i = 0; i < count; i++) {
        int axis = i;
        int64_t d, step = by_count > 0 ? by[i] : 1, first = starts[i], last = ends[i], n;

        if (axis_count > 0)
            TRM_CHECK(trmi_data_axis(desc, axes[i], x->rank, &axis));
        if (step == 0 || (seen & (1u << axis)))
            return trm_fail(TRM_ERR_INVALID_ARG, "Slice '%s': axis %d %s", desc->name, axis,
                            step == 0 ? "has step 0" : "is named twice");
        seen |= 1u << axis;
        d = x->dims[axis];
        step = clamp(step, -TRM_DIM_MAX, TRM_DIM_MAX); /* beyond any dim: the same result */
        first = first < 0 ? clamp(first, -TRM_DIM_MAX * 2, 0) + d : first;
        last = last < 0 ? clamp(last, -TRM_DIM_MAX * 2, 0) + d : last;
        if (step > 0) {
            first = clamp(first, 0, d);
            last = clamp(last, 0, d);
            n = last > first ? (last - first + step - 1) / step : 0;
        } else {
            first = clamp(first, 0, d - 1);
            last = clamp(last, -1, d - 1);
            n = d > 0 && first > last ? (first - last - step - 1) / -step : 0;
        }
        want[axis] = n;
        if (n > 0)
            offset += (ptrdiff_t)first * steps[axis];
        steps[axis] *= (ptrdiff_t)step;
    }
    TRM_CHECK(trmi_data_expect(desc, 0, x->rank, want));
    for (int i = 0; i < x->rank; i++)
        dims[i] = (size_t)want[i];
    return trmi_strided_new(desc, x->rank, dims, steps, offset, kernel_out);
}
