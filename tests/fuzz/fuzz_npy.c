/* libFuzzer: any bytes as .npy, and as .npz with all its arrays. */
#include "base/npy.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define ROW_BYTES_MAX ((size_t)1 << 20)

static void read_some(trm_npy *n)
{
    int64_t rows = trm_npy_rows(n), count = rows < 3 ? rows : 3;
    unsigned char *out;

    if (trm_npy_row_bytes(n) > ROW_BYTES_MAX)
        return;
    out = malloc(trm_npy_row_bytes(n) * (size_t)count + 1);
    if (out == NULL)
        abort();
    /* the end first, then back to the start, then what is not there */
    if (trm_npy_read_rows(n, rows - count, count, out) == TRM_OK &&
        trm_npy_read_rows(n, 0, count, out) == TRM_OK &&
        trm_npy_read_rows(n, rows, 1, out) == TRM_OK)
        abort();
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    trm_file *f;
    trm_npy *n;
    trm_npz *z;

    if (trm_file_from_memory(data, bytes, "fuzz", &f) != TRM_OK)
        abort();
    if (trm_npy_from_file(f, &n) == TRM_OK) {
        read_some(n);
        trm_npy_close(n);
    }
    if (trm_npz_from_file(f, &z) == TRM_OK) {
        for (int i = 0; i < trm_npz_count(z) && i < 16; i++)
            if (trm_npz_get(z, i, &n) == TRM_OK) {
                read_some(n);
                trm_npy_close(n);
            }
        trm_npz_close(z);
    }
    trm_file_unref(f);
    return 0;
}
