/* libFuzzer: any bytes as a frame; what the reader takes, the writer writes and the reader takes
 * again. */
#include "base/wire_serve.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    trm_wire_buffer once = {0}, twice = {0};
    trm_wire_message m, again;
    trm_arena *arena;
    int count;

    if (trm_arena_create(0, &arena) != TRM_OK)
        abort();
    (void)trm_wire_peek(data, bytes);
    if (trm_wire_decode(data, bytes, arena, &m) == TRM_OK) {
        if (trm_wire_encode(&m, &once) != TRM_OK ||
            trm_wire_decode(once.data, once.bytes, arena, &again) != TRM_OK ||
            trm_wire_encode(&again, &twice) != TRM_OK || once.bytes != twice.bytes)
            abort();
        /* no segment: a reference is refused, and nothing is read */
        for (const trm_wire_tensor *t = trm_wire_tensors(&m, &count); count > 0; count--, t++)
            if (t->shared && trm_wire_resolve(&m, NULL) == TRM_OK)
                abort();
    }
    trm_wire_buffer_fini(&once);
    trm_wire_buffer_fini(&twice);
    trm_arena_destroy(arena);
    return 0;
}
