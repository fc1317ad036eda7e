/* A stable merge sort, bottom up. */
#include "model/template/template_impl.h"

static trm_status merge(trmi_run *r, const trmi_value *keys, const size_t *from, size_t begin,
                        size_t middle, size_t end, bool reverse, size_t *to)
{
    size_t a = begin, b = middle;

    for (size_t i = begin; i < end; i++) {
        int order = 0;
        bool second = a == middle;

        if (a < middle && b < end) {
            /* sorted(reverse=True) keeps equal ones in their order, too */
            TRM_CHECK(reverse ? trmi_order(r, keys[from[a]], keys[from[b]], "<", &order)
                              : trmi_order(r, keys[from[b]], keys[from[a]], "<", &order));
            second = order == -1;
        }
        to[i] = second ? from[b++] : from[a++];
    }
    return TRM_OK;
}

trm_status trmi_sort(trmi_run *r, trmi_value *keys, trmi_value *items, size_t count, bool reverse)
{
    size_t *order, *other;
    trmi_value *copy;
    void *block;

    TRM_CHECK(trmi_alloc(r, count * 2, sizeof(*order), &block));
    order = block;
    other = order + count;
    TRM_CHECK(trmi_alloc(r, count, 2 * sizeof(*copy), &block));
    copy = block;
    for (size_t i = 0; i < count; i++)
        order[i] = i;
    for (size_t width = 1; width < count; width *= 2) {
        size_t *swap = order;

        for (size_t begin = 0; begin < count; begin += 2 * width) {
            size_t middle = begin + width < count ? begin + width : count;
            size_t end = middle + width < count ? middle + width : count;

            TRM_CHECK(merge(r, keys, order, begin, middle, end, reverse, other));
        }
        order = other;
        other = swap;
    }
    for (size_t i = 0; i < count; i++) {
        copy[i] = keys[order[i]];
        copy[count + i] = items[order[i]];
    }
    for (size_t i = 0; i < count; i++) {
        keys[i] = copy[i];
        items[i] = copy[count + i];
    }
    return TRM_OK;
}
