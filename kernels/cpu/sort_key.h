/* Keys that order values of any dtype, and sorting of (key, index) pairs: larger keys first, equal
 * keys by lower index. */
#ifndef TRM_KERNELS_CPU_SORT_KEY_H
#define TRM_KERNELS_CPU_SORT_KEY_H

#include "kernels/cpu/data.h"

typedef struct trmi_keyed {
    uint64_t key;
    int64_t index;
} trmi_keyed;

/* An unsigned number in the order of the value; -0 equals +0, NaN is above everything. */
uint64_t trmi_sort_key(trm_dtype dtype, const void *value);

static inline bool trmi_keyed_before(const trmi_keyed *a, const trmi_keyed *b)
{
    return a->key > b->key || (a->key == b->key && a->index < b->index);
}

/* A heap whose root is the one that sorts last. */
void trmi_heap_up(trmi_keyed *heap, size_t at);
void trmi_heap_down(trmi_keyed *heap, size_t count, size_t at);
/* Sorts a heap in place, first to last. */
void trmi_heap_sort(trmi_keyed *heap, size_t count);
/* Sorts any array. */
void trmi_keyed_sort(trmi_keyed *items, size_t count);

#endif
