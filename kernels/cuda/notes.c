/* Notes of kernels to the host. */
#include "kernels/cuda/notes.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct trmi_notes {
    void *memory; /* device, TRMI_NOTES_MAX notes */
    int high;     /* notes [0, high) are or were taken */
    struct {
        bool taken;
        trm_op op;
        char name[64];
    } of[TRMI_NOTES_MAX];
};

static trm_status notes_init(trm_cuda *cuda)
{
    struct trmi_notes *n = trm_calloc(1, sizeof(*n));
    trm_status st;

    if (n == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "notes");
    st = cuda->base.ops->alloc(&cuda->base, TRM_MEMORY_DEVICE, TRMI_NOTES_MAX * TRMI_NOTE_BYTES,
                               &n->memory);
    if (st == TRM_OK)
        st = TRMI_CUDA(
            cudaMemsetAsync(n->memory, 0, TRMI_NOTES_MAX * TRMI_NOTE_BYTES, cuda->stream));
    if (st == TRM_OK) /* kernels run on other streams */
        st = TRMI_CUDA(cudaStreamSynchronize(cuda->stream));
    if (st != TRM_OK) {
        if (n->memory != NULL)
            cuda->base.ops->free(&cuda->base, TRM_MEMORY_DEVICE, n->memory);
        trm_free(n);
        return st;
    }
    cuda->notes = n;
    return TRM_OK;
}

void trmi_cuda_notes_fini(trm_cuda *cuda)
{
    if (cuda->notes == NULL)
        return;
    cuda->base.ops->free(&cuda->base, TRM_MEMORY_DEVICE, cuda->notes->memory);
    trm_free(cuda->notes);
    cuda->notes = NULL;
}

trm_status trmi_cuda_note_take(trm_cuda *cuda, trm_op op, const char *name, int *note_out)
{
    struct trmi_notes *n;
    int i = 0;

    if (cuda->notes == NULL)
        TRM_CHECK(notes_init(cuda));
    n = cuda->notes;
    while (i < TRMI_NOTES_MAX && n->of[i].taken)
        i++;
    if (i == TRMI_NOTES_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': more than %d kernels with indices",
                        trm_op_get(op)->name, name == NULL ? "" : name, TRMI_NOTES_MAX);
    n->of[i].taken = true;
    n->of[i].op = op;
    snprintf(n->of[i].name, sizeof(n->of[i].name), "%s", name == NULL ? "" : name);
    if (i >= n->high)
        n->high = i + 1;
    *note_out = i;
    return TRM_OK;
}

void trmi_cuda_note_release(trm_cuda *cuda, int note)
{
    if (note >= 0)
        cuda->notes->of[note].taken = false;
}

void *trmi_cuda_note_memory(const trm_cuda *cuda, int note)
{
    return note < 0 ? NULL : (unsigned char *)cuda->notes->memory + (size_t)note * TRMI_NOTE_BYTES;
}

size_t trmi_cuda_notes_bytes(const trm_cuda *cuda)
{
    return cuda->notes == NULL ? 0 : (size_t)cuda->notes->high * TRMI_NOTE_BYTES;
}

trm_status trmi_cuda_notes_fetch(trm_cuda *cuda, cudaStream_t stream, void *host, size_t bytes)
{
    void *memory = cuda->notes->memory;

    TRM_CHECK(TRMI_CUDA(cudaMemcpyAsync(host, memory, bytes, cudaMemcpyDeviceToHost, stream)));
    return TRMI_CUDA(cudaMemsetAsync(memory, 0, bytes, stream));
}

trm_status trmi_cuda_notes_check(const trm_cuda *cuda, const void *host, size_t bytes)
{
    const struct trmi_notes *n = cuda->notes;

    for (size_t i = 0; i < bytes / TRMI_NOTE_BYTES; i++) {
        int64_t v[TRMI_NOTE_BYTES / sizeof(int64_t)];

        memcpy(v, (const unsigned char *)host + i * TRMI_NOTE_BYTES, sizeof(v));
        if (v[0] != 0)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "%s '%s': index %" PRId64 " (element %" PRId64
                            ") is out of range, want %" PRId64 " to %" PRId64,
                            trm_op_get(n->of[i].op)->name, n->of[i].name, v[1], v[2], v[3], v[4]);
    }
    return TRM_OK;
}
