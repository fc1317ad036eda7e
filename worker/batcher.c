/* When a batch begins, and how large it is. Arithmetic. */
#include "worker/serve_tensor.h"

int64_t trm_batcher_due_us(const trm_batcher *b, int rows, int64_t oldest_us)
{
    int64_t due = oldest_us + b->max_delay_us;

    if (rows >= b->max_batch || rows >= b->last_rows || b->max_delay_us <= 0)
        return 0;
    for (int i = 0; i < b->preferred_count; i++)
        if (rows == b->preferred[i])
            return 0;
    return due > 0 ? due : 0;
}

int trm_batcher_size(const trm_batcher *b, int rows)
{
    return rows < b->max_batch ? rows : b->max_batch;
}
