/* Messages over MPI. A message is copied to a buffer of our own behind a head that tells its
 * length, and sent; the buffer is free again when MPI says so. The receiver learns the length of
 * what is there before it takes it. What exceeds MPI's int counts follows in parts. */
#include "parallel/comm_mpi_impl.h"

#include <string.h>

#define HEAD TRM_ALIGN               /* the data behind it is aligned */
#define PART_BYTES ((size_t)1 << 30) /* of one MPI message */

trm_status trmi_mpi_more_messages(trmi_mpi *m, int messages)
{
    trmi_mpi_out *more;

    if (messages <= m->messages)
        return TRM_OK;
    more = trm_calloc((size_t)m->base.size * (size_t)messages, sizeof(*more));
    if (more == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%s: %d messages on their way", m->base.label, messages);
    for (int r = 0; r < m->base.size; r++)
        for (int i = 0; i < messages; i++)
            if (i < m->messages) /* MPI knows the request and the data, not this record */
                more[r * messages + i] = m->out[r * m->messages + i];
            else
                more[r * messages + i].request = MPI_REQUEST_NULL;
    trm_free(m->out);
    m->out = more;
    m->messages = messages;
    return TRM_OK;
}

/* A free buffer for `to`: one of `messages`; waits for the oldest where all are on their way. */
static trm_status buffer_get(trmi_mpi *m, int to, size_t bytes, trmi_mpi_out **out_out)
{
    trmi_mpi_out *mine = m->out + (size_t)to * (size_t)m->messages;
    trmi_mpi_pause pause;

    trmi_mpi_pause_start(m, false, &pause);
    for (;;) {
        trm_status st;

        for (int i = 0; i < m->messages; i++) {
            int done = mine[i].request == MPI_REQUEST_NULL, rc = MPI_SUCCESS;

            if (!done)
                rc = MPI_Test(&mine[i].request, &done, MPI_STATUS_IGNORE);
            if (rc != MPI_SUCCESS)
                return trmi_mpi_failed(m, "MPI_Test", rc);
            if (done) {
                *out_out = &mine[i];
                return trmi_mpi_grow(m, &mine[i].buffer, bytes);
            }
        }
        st = trmi_mpi_pause_turn(m, &pause);
        if (st == TRM_ERR_TIMEOUT)
            return trmi_mpi_lose(m, to, "did not receive in time");
        if (st != TRM_OK)
            return st;
    }
}

static trm_status one(trmi_mpi *m, MPI_Request *request, int rank, const char *late)
{
    trmi_mpi_pause pause;
    int done = 0;

    trmi_mpi_pause_start(m, false, &pause);
    for (;;) {
        int rc = MPI_Test(request, &done, MPI_STATUS_IGNORE);
        trm_status st;

        if (rc != MPI_SUCCESS)
            return trmi_mpi_failed(m, "MPI_Test", rc);
        if (done)
            return TRM_OK;
        st = trmi_mpi_pause_turn(m, &pause);
        if (st == TRM_ERR_TIMEOUT)
            return trmi_mpi_lose(m, rank, late);
        if (st != TRM_OK)
            return st;
    }
}

trm_status trmi_mpi_send(trm_comm *c, int to, const trm_piece *pieces, int count)
{
    trmi_mpi *m = (trmi_mpi *)c;
    uint64_t bytes = 0;
    trmi_mpi_out *out = NULL;
    size_t at = HEAD, total;

    m->doing = "send";
    for (int i = 0; i < count; i++)
        bytes += pieces[i].bytes;
    total = HEAD + (size_t)bytes;
    TRM_CHECK(buffer_get(m, to, total, &out));
    memset(out->buffer.data, 0, HEAD);
    memcpy(out->buffer.data, &bytes, sizeof(bytes));
    for (int i = 0; i < count; i++) {
        if (pieces[i].bytes > 0)
            memcpy(out->buffer.data + at, pieces[i].data, pieces[i].bytes);
        at += pieces[i].bytes;
    }
    for (at = 0; at < total; at += PART_BYTES) {
        size_t n = total - at < PART_BYTES ? total - at : PART_BYTES;
        int rc = MPI_Isend(out->buffer.data + at, (int)n, MPI_BYTE, m->peers[to].world,
                           TRMI_TAG_MESSAGE, m->comm, &out->request);

        if (rc != MPI_SUCCESS)
            return trmi_mpi_failed(m, "MPI_Isend", rc);
        if (at + n < total)
            TRM_CHECK(one(m, &out->request, to, "did not receive in time"));
    }
    return TRM_OK;
}

trm_status trmi_mpi_receive(trm_comm *c, int from, bool idle, const void **data_out,
                            size_t *bytes_out)
{
    trmi_mpi *m = (trmi_mpi *)c;
    trmi_mpi_buffer *b = &m->received[from];
    int world = m->peers[from].world, there = 0, n = 0, rc;
    MPI_Message message = MPI_MESSAGE_NULL;
    MPI_Status status;
    MPI_Request request;
    trmi_mpi_pause pause;
    uint64_t bytes = 0;

    m->doing = "receive";
    trmi_mpi_pause_start(m, idle, &pause);
    for (;;) {
        trm_status st;

        rc = MPI_Improbe(world, TRMI_TAG_MESSAGE, m->comm, &there, &message, &status);
        if (rc != MPI_SUCCESS)
            return trmi_mpi_failed(m, "MPI_Improbe", rc);
        if (there)
            break;
        st = trmi_mpi_pause_turn(m, &pause);
        if (st == TRM_ERR_TIMEOUT)
            return trmi_mpi_lose(m, from, "did not send in time");
        if (st != TRM_OK)
            return st;
    }
    (void)MPI_Get_count(&status, MPI_BYTE, &n);
    if (n < HEAD)
        return trmi_mpi_lose(m, from, "sent a message without a head");
    TRM_CHECK(trmi_mpi_grow(m, b, (size_t)n));
    if ((rc = MPI_Imrecv(b->data, n, MPI_BYTE, &message, &request)) != MPI_SUCCESS)
        return trmi_mpi_failed(m, "MPI_Imrecv", rc);
    TRM_CHECK(one(m, &request, from, "did not send in time"));
    memcpy(&bytes, b->data, sizeof(bytes));
    if (bytes > SIZE_MAX / 2 || bytes < (size_t)n - HEAD)
        return trmi_mpi_lose(m, from, "sent a message of another length than its head tells");
    if (HEAD + bytes > (size_t)n) {
        trmi_mpi_buffer whole = {0};
        trm_status st = trmi_mpi_grow(m, &whole, HEAD + (size_t)bytes);

        if (st != TRM_OK) /* the rest will come, and nobody could take it */
            return trmi_mpi_lose(m, c->rank, "has no memory for a message");
        memcpy(whole.data, b->data, (size_t)n);
        trm_aligned_free(b->data);
        *b = whole;
        for (size_t at = (size_t)n; at < HEAD + bytes;) {
            size_t part = HEAD + bytes - at < PART_BYTES ? HEAD + bytes - at : PART_BYTES;

            rc = MPI_Irecv(b->data + at, (int)part, MPI_BYTE, world, TRMI_TAG_MESSAGE, m->comm,
                           &request);
            if (rc != MPI_SUCCESS)
                return trmi_mpi_failed(m, "MPI_Irecv", rc);
            TRM_CHECK(one(m, &request, from, "did not send in time"));
            at += part;
        }
    }
    *data_out = b->data + HEAD;
    *bytes_out = (size_t)bytes;
    return TRM_OK;
}

bool trmi_mpi_pending(trm_comm *c, int from)
{
    trmi_mpi *m = (trmi_mpi *)c;
    int there = 0;

    return !m->job->lost &&
           MPI_Iprobe(m->peers[from].world, TRMI_TAG_MESSAGE, m->comm, &there, MPI_STATUS_IGNORE) ==
               MPI_SUCCESS &&
           there;
}
