/* What the ranks of a replica tell each other: a head, descriptors, and tensors, each at a multiple
 * of TRM_ALIGN so that kernels read them where they lie. */
#include "worker/replica_impl.h"

#include <stdio.h>
#include <string.h>

#define MAGIC 0x334d5254u /* "TRM3" */
#define TENSORS_MAX 4096

struct wire_desc {
    int32_t dtype, rank;
    int64_t dims[TRM_RANK_MAX];
};

static const unsigned char zeros[TRM_ALIGN];

static size_t head_bytes(int count)
{
    return trm_align_up(sizeof(trmi_message_head) + (size_t)count * sizeof(struct wire_desc),
                        TRM_ALIGN);
}

static trm_status reserve(trmi_scratch *s, size_t bytes, int pieces)
{
    if (bytes > s->max) {
        unsigned char *grown = trm_realloc(s->bytes, bytes, 1);

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "a message's head of %zu bytes", bytes);
        s->bytes = grown;
        s->max = bytes;
    }
    if (pieces > s->piece_max) {
        trm_piece *grown = trm_realloc(s->pieces, (size_t)pieces, sizeof(*grown));

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "a message of %d pieces", pieces);
        s->pieces = grown;
        s->piece_max = pieces;
    }
    return TRM_OK;
}

trm_status trmi_message_send(trm_comm *c, int to, const trmi_message_head *head,
                             const trm_tensor *tensors, bool with_data, trmi_scratch *scratch)
{
    size_t bytes = head_bytes(head->count);
    int pieces = 1;

    TRM_CHECK(reserve(scratch, bytes, 1 + 2 * head->count));
    memset(scratch->bytes, 0, bytes);
    memcpy(scratch->bytes, head, sizeof(*head));
    ((trmi_message_head *)scratch->bytes)->magic = MAGIC;
    for (int i = 0; i < head->count; i++) {
        struct wire_desc d = {.dtype = (int32_t)tensors[i].dtype, .rank = tensors[i].rank};
        size_t data;

        memcpy(d.dims, tensors[i].dims, sizeof(d.dims));
        memcpy(scratch->bytes + sizeof(*head) + (size_t)i * sizeof(d), &d, sizeof(d));
        if (!with_data)
            continue;
        TRM_CHECK(trm_tensor_bytes(&tensors[i], &data));
        if (data == 0)
            continue;
        scratch->pieces[pieces++] = (trm_piece){.data = tensors[i].data, .bytes = data};
        if (data % TRM_ALIGN != 0)
            scratch->pieces[pieces++] =
                (trm_piece){.data = zeros, .bytes = TRM_ALIGN - data % TRM_ALIGN};
    }
    scratch->pieces[0] = (trm_piece){.data = scratch->bytes, .bytes = bytes};
    return trm_comm_send(c, to, scratch->pieces, pieces);
}

static trm_status bad(const char *what)
{
    return trm_fail(TRM_ERR_INVALID_ARG, "a message between ranks is damaged: %s", what);
}

trm_status trmi_message_parse(const void *data, size_t bytes, trmi_message *m)
{
    const unsigned char *p = data;
    size_t at;

    if (bytes < sizeof(m->head))
        return bad("too short");
    memcpy(&m->head, p, sizeof(m->head));
    m->head.text[sizeof(m->head.text) - 1] = '\0';
    if (m->head.magic != MAGIC)
        return bad("not one of ours");
    if (m->head.count < 0 || m->head.count > TENSORS_MAX || bytes < head_bytes(m->head.count))
        return bad("its count of tensors");
    if (m->head.count > m->max) {
        trm_tensor *grown = trm_realloc(m->tensors, (size_t)m->head.count, sizeof(*grown));

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "a message of %d tensors", m->head.count);
        m->tensors = grown;
        m->max = m->head.count;
    }
    at = head_bytes(m->head.count);
    for (int i = 0; i < m->head.count; i++) {
        trm_tensor *t = &m->tensors[i];
        struct wire_desc d;
        size_t size;

        memcpy(&d, p + sizeof(m->head) + (size_t)i * sizeof(d), sizeof(d));
        if (d.dtype <= TRM_DTYPE_NONE || d.dtype >= TRM_DTYPE_PLAIN_COUNT || d.rank < 0 ||
            d.rank > TRM_RANK_MAX)
            return bad("a tensor's dtype or rank");
        *t = (trm_tensor){.dtype = (trm_dtype)d.dtype, .rank = d.rank};
        memcpy(t->dims, d.dims, sizeof(d.dims));
        TRM_CHECK(trm_tensor_bytes(t, &size));
        if (m->head.kind != TRMI_MESSAGE_DATA && m->head.kind != TRMI_MESSAGE_DECISION)
            continue;
        if (size > bytes - at)
            return bad("its length");
        t->data = (void *)(uintptr_t)(p + at);
        at += trm_align_up(size, TRM_ALIGN);
        if (at > bytes)
            return bad("its length");
    }
    return TRM_OK;
}
