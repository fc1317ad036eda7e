/* A device group comes up in three rounds over the host communicator: who has what, the id, and who
 * is ready. The library's own set-up runs between them, polled and never waited for without a
 * deadline, so that a rank that does not come can be named. */
#define _GNU_SOURCE
#include "parallel/device_group.h"

#include "base/log.h"
#include "base/wait.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define POLL_NS 1000000

struct entry {
    int32_t has_group;
    char host[64], device[64];
};

struct ids {
    int32_t status;
    char text[252];
    unsigned char id[TRM_DEVICE_GROUP_ID_BYTES];
};

static trm_status gather(trm_comm *c, const void *mine, void *all, size_t each)
{
    size_t bytes[TRM_COMM_RANKS_MAX];

    for (int r = 0; r < trm_comm_size(c); r++)
        bytes[r] = each;
    return trm_comm_allgather(c, mine, all, bytes);
}

/* Why the group cannot be, for the log; "" if it can. */
static void find_reason(const struct entry *all, int size, char *text, size_t bytes)
{
    const char *shared = getenv("TRM_GROUP_SHARED");

    text[0] = '\0';
    for (int i = 0; i < size; i++) {
        if (!all[i].has_group) {
            snprintf(text, bytes, "the device of rank %d (host %s) has no collectives", i,
                     all[i].host);
            return;
        }
        for (int j = 0; j < i; j++) {
            if (strcmp(all[i].host, all[j].host) != 0 || all[i].device[0] == '\0' ||
                strcmp(all[i].device, all[j].device) != 0 ||
                (shared != NULL && strcmp(shared, "1") == 0))
                continue;
            snprintf(text, bytes, "ranks %d and %d share one device (host %s, %s)", j, i,
                     all[i].host, all[i].device);
            return;
        }
    }
}

/* Rank 0's id, or its failure, reaches all. */
static trm_status share_id(trm_comm *c, trm_device *d, unsigned char *id)
{
    struct ids *m = trm_calloc(1, sizeof(*m));
    trm_status st;

    if (m == NULL) /* the others would wait: the communicator's deadline tells them */
        return trm_fail(TRM_ERR_NO_MEMORY, "device group");
    if (trm_comm_rank(c) == 0) {
        m->status = (int32_t)d->ops->group->make_id(d, m->id);
        if (m->status != TRM_OK)
            snprintf(m->text, sizeof(m->text), "%s", trm_message());
    }
    st = trm_comm_broadcast(c, m, sizeof(*m), 0);
    if (st == TRM_OK && m->status != TRM_OK)
        st = trm_fail((trm_status)m->status, "%s", m->text);
    memcpy(id, m->id, TRM_DEVICE_GROUP_ID_BYTES);
    trm_free(m);
    return st;
}

/* Polls until this rank is ready; then all tell how it went, and who is missing is named. */
static trm_status await_all(trm_comm *c, trm_device_group *g, const struct entry *all,
                            int64_t timeout_ms)
{
    const struct timespec nap = {.tv_nsec = POLL_NS};
    int64_t deadline = trm_deadline_us(timeout_ms);
    unsigned char mine, everyone[TRM_COMM_RANKS_MAX];
    char text[400] = "", why[300] = "";
    trm_status st = TRM_OK;
    bool ready = false;

    while (st == TRM_OK && !ready && trm_now_us() < deadline) {
        st = g->ops->poll(g, &ready);
        if (st == TRM_OK && !ready)
            nanosleep(&nap, NULL);
    }
    if (st != TRM_OK)
        snprintf(why, sizeof(why), ": %s", trm_message());
    mine = ready;
    TRM_CHECK(gather(c, &mine, everyone, 1));
    for (int r = 0; r < g->size; r++) {
        size_t n = strlen(text);

        if (!everyone[r])
            snprintf(text + n, sizeof(text) - n, "%srank %d (host %s, device %s)",
                     n > 0 ? ", " : "", r, all[r].host, all[r].device);
    }
    if (text[0] == '\0')
        return TRM_OK;
    return trm_fail(TRM_ERR_COMM, "%s: not ready after %d s: %s%s", g->ops->name,
                    (int)(trm_scaled_ms(timeout_ms) / 1000), text, why);
}

/* Peers' memory for small sums: where that fails, the group goes on without. */
static trm_status meet_peers(trm_comm *c, trm_device_group *g, const struct entry *all)
{
    size_t each = g->ops->peer_bytes;
    unsigned char own[TRM_DEVICE_GROUP_PEER_BYTES] = {0}, *peers;
    bool one_host = true;
    trm_status st = TRM_OK;

    if (each == 0 || each > sizeof(own))
        return TRM_OK;
    for (int r = 1; r < g->size; r++)
        one_host = one_host && strcmp(all[r].host, all[0].host) == 0;
    if (!one_host)
        return TRM_OK;
    peers = trm_calloc((size_t)g->size, each);
    if (peers == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "device group");
    st = g->ops->peer_own(g, own);
    st = trm_comm_agree(c, st);
    if (st == TRM_OK)
        st = gather(c, own, peers, each);
    if (st == TRM_OK) {
        st = g->ops->peer_all(g, peers);
        st = trm_comm_agree(c, st);
    }
    trm_free(peers);
    if (st == TRM_ERR_UNSUPPORTED) { /* on one is on all: they have agreed */
        TRM_LOG(TRM_LOG_INFO, "group", "no direct sums between devices: %s", trm_message());
        st = g->ops->peer_all(g, NULL);
    }
    return st;
}

trm_status trm_device_group_open(trm_comm *comm, trm_device *device, int64_t timeout_ms,
                                 trm_device_group **group_out)
{
    struct entry mine = {.has_group = device->ops->group != NULL}, all[TRM_COMM_RANKS_MAX];
    unsigned char id[TRM_DEVICE_GROUP_ID_BYTES];
    trm_device_group *g = NULL;
    trm_device_info info;
    char reason[300];
    trm_status st;

    *group_out = NULL;
    device->ops->info(device, &info);
    snprintf(mine.device, sizeof(mine.device), "%.63s", info.identity);
    if (gethostname(mine.host, sizeof(mine.host) - 1) != 0)
        snprintf(mine.host, sizeof(mine.host), "?");
    TRM_CHECK(gather(comm, &mine, all, sizeof(mine)));
    find_reason(all, trm_comm_size(comm), reason, sizeof(reason));
    if (reason[0] != '\0') {
        TRM_LOG(trm_comm_rank(comm) == 0 ? TRM_LOG_INFO : TRM_LOG_DEBUG, "group",
                "collectives go over host memory: %s", reason);
        return TRM_OK;
    }
    st = share_id(comm, device, id);
    if (st == TRM_ERR_UNSUPPORTED) { /* rank 0's library is missing, and all know */
        TRM_LOG(TRM_LOG_WARN, "group", "collectives go over host memory: %s", trm_message());
        return TRM_OK;
    }
    TRM_CHECK(st);
    st = device->ops->group->begin(device, id, trm_comm_rank(comm), trm_comm_size(comm), &g);
    TRM_TRY(st, trm_comm_agree(comm, st), fail);
    TRM_TRY(st, await_all(comm, g, all, timeout_ms), fail);
    TRM_TRY(st, meet_peers(comm, g, all), fail);
    *group_out = g;
    return TRM_OK;
fail:
    trm_device_group_close(g);
    return st;
}

void trm_device_group_close(trm_device_group *group)
{
    if (group != NULL)
        group->ops->destroy(group);
}
