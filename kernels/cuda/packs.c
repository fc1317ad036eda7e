/* Weights on the device, packed once for all kernels that read them. */
#include "kernels/cuda/cuda.h"

#include <string.h>

static void pack_free(trm_cuda *cuda, trmi_pack *p)
{
    if (p == NULL)
        return;
    if (p->memory != NULL)
        cuda->base.ops->free(&cuda->base, TRM_MEMORY_DEVICE, p->memory);
    trm_free(p->form);
    trm_free(p);
}

trm_status trmi_cuda_pack(trm_cuda *cuda, uint64_t key, const char *form, size_t bytes,
                          trmi_pack **pack_out, bool *found_out)
{
    trmi_pack *p;
    trm_status st;

    *found_out = false;
    for (p = cuda->packs; p != NULL && key != 0; p = p->next) {
        if (p->key == key && strcmp(p->form, form) == 0) {
            p->holders++;
            *pack_out = p;
            *found_out = true;
            return TRM_OK;
        }
    }
    p = trm_calloc(1, sizeof(*p));
    if (p != NULL)
        p->form = trm_strdup(form);
    if (p == NULL || p->form == NULL) {
        pack_free(cuda, p);
        return trm_fail(TRM_ERR_NO_MEMORY, "packed weight of %zu bytes", bytes);
    }
    st = cuda->base.ops->alloc(&cuda->base, TRM_MEMORY_DEVICE, bytes, &p->memory);
    if (st != TRM_OK) {
        pack_free(cuda, p);
        return st;
    }
    p->key = key;
    p->bytes = bytes;
    p->holders = 1;
    cuda->base.packed_bytes += bytes;
    p->next = cuda->packs;
    cuda->packs = p;
    *pack_out = p;
    return TRM_OK;
}

void trmi_cuda_pack_release(trm_cuda *cuda, trmi_pack *pack)
{
    trmi_pack **at = &cuda->packs;

    if (pack == NULL || --pack->holders > 0)
        return;
    while (*at != pack)
        at = &(*at)->next;
    *at = pack->next;
    cuda->base.packed_bytes -= pack->bytes;
    pack_free(cuda, pack);
}

trm_status trmi_cuda_pack_plain(trm_cuda *cuda, const trm_op_desc *desc, int input,
                                trmi_pack **pack_out)
{
    const trm_tensor *t = &desc->inputs[input];
    trmi_pack *p = NULL;
    bool found;
    size_t bytes;
    trm_status st;

    if (t->data == NULL)
        return trm_fail(TRM_ERR_INTERNAL, "%s '%s': input %d is no constant",
                        trm_op_get(desc->op)->name, desc->name, input);
    TRM_CHECK(trm_tensor_bytes(t, &bytes));
    TRM_CHECK(trmi_cuda_pack(cuda, desc->weight_keys == NULL ? 0 : desc->weight_keys[input],
                             "plain", bytes, &p, &found));
    if (!found) {
        st = trmi_cuda_upload(cuda, p->memory, t->data, bytes);
        if (st != TRM_OK) {
            trmi_cuda_pack_release(cuda, p);
            return st;
        }
    }
    *pack_out = p;
    return TRM_OK;
}
