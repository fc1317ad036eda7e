/* Sort keys and heaps. */
#include "kernels/cpu/sort_key.h"

#include <math.h>
#include <string.h>

static uint64_t double_key(double v)
{
    uint64_t u;

    if (isnan(v))
        return UINT64_MAX;
    v += 0.0; /* -0 becomes +0 */
    memcpy(&u, &v, sizeof(u));
    return u >> 63 ? ~u : u | (UINT64_C(1) << 63);
}

static uint64_t signed_key(int64_t v)
{
    return (uint64_t)v ^ (UINT64_C(1) << 63);
}

uint64_t trmi_sort_key(trm_dtype dtype, const void *value)
{
    switch (dtype) {
    case TRM_DTYPE_F32:
        return double_key((double)*(const float *)value);
    case TRM_DTYPE_F64:
        return double_key(*(const double *)value);
    case TRM_DTYPE_F16:
        return double_key((double)trm_f16_to_f32(*(const uint16_t *)value));
    case TRM_DTYPE_BF16:
        return double_key((double)trm_bf16_to_f32(*(const uint16_t *)value));
    case TRM_DTYPE_I8:
        return signed_key(*(const int8_t *)value);
    case TRM_DTYPE_I16:
        return signed_key(*(const int16_t *)value);
    case TRM_DTYPE_I32:
        return signed_key(*(const int32_t *)value);
    case TRM_DTYPE_I64:
        return signed_key(*(const int64_t *)value);
    case TRM_DTYPE_U8:
    case TRM_DTYPE_BOOL:
        return *(const uint8_t *)value;
    case TRM_DTYPE_U16:
        return *(const uint16_t *)value;
    case TRM_DTYPE_U32:
        return *(const uint32_t *)value;
    case TRM_DTYPE_U64:
        return *(const uint64_t *)value;
    case TRM_DTYPE_NONE:
    default:
        break;
    }
    return 0;
}

static void swap(trmi_keyed *a, trmi_keyed *b)
{
    trmi_keyed t = *a;

    *a = *b;
    *b = t;
}

void trmi_heap_up(trmi_keyed *heap, size_t at)
{
    while (at > 0 && trmi_keyed_before(&heap[(at - 1) / 2], &heap[at])) {
        swap(&heap[at], &heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
}

void trmi_heap_down(trmi_keyed *heap, size_t count, size_t at)
{
    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= count)
            return;
        if (child + 1 < count && trmi_keyed_before(&heap[child], &heap[child + 1]))
            child++;
        if (!trmi_keyed_before(&heap[at], &heap[child]))
            return;
        swap(&heap[at], &heap[child]);
        at = child;
    }
}

void trmi_heap_sort(trmi_keyed *heap, size_t count)
{
    while (count > 1) {
        swap(&heap[0], &heap[--count]);
        trmi_heap_down(heap, count, 0);
    }
}

void trmi_keyed_sort(trmi_keyed *items, size_t count)
{
    for (size_t i = count / 2; i-- > 0;)
        trmi_heap_down(items, count, i);
    trmi_heap_sort(items, count);
}
