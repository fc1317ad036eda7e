/* The list of ranks and hosts: arithmetic on what each rank said, and what this one has to say. */
#define _GNU_SOURCE
#include "parallel/topology.h"
#include "base/hash.h"
#include "kernels/device.h"
#include "parallel/build_id.h"
#include "parallel/cores.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool same_host(const trm_rank_info *a, const trm_rank_info *b)
{
    return strcmp(a->host, b->host) == 0 && a->machine == b->machine;
}

trm_status trm_topology_create(const trm_rank_info *infos, int ranks, trm_topology **topology_out)
{
    trm_topology *t = trm_calloc(1, sizeof(*t));

    if (t == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "topology");
    t->ranks = ranks;
    t->rank = trm_calloc((size_t)ranks, sizeof(*t->rank));
    t->host_of = trm_calloc((size_t)ranks, sizeof(*t->host_of));
    if (t->rank == NULL || t->host_of == NULL) {
        trm_topology_destroy(t);
        return trm_fail(TRM_ERR_NO_MEMORY, "topology of %d ranks", ranks);
    }
    for (int i = 0; i < ranks; i++) {
        trm_rank_info *r = &t->rank[i];
        int before = i - 1;

        *r = infos[i];
        r->host[TRM_HOST_BYTES - 1] = '\0';
        while (before >= 0 && !same_host(&t->rank[before], r))
            before--;
        r->local_rank = before >= 0 ? t->rank[before].local_rank + 1 : 0;
        r->host_index = before >= 0 ? t->rank[before].host_index : t->hosts++;
        t->host_of[i] = r->host_index;
    }
    for (int i = 0; i < ranks; i++) {
        int cores = infos[i].cores / trm_topology_local_size(t, i);

        t->rank[i].cores = cores > 0 ? cores : 1;
    }
    *topology_out = t;
    return TRM_OK;
}

trm_status trm_topology_single(trm_topology **topology_out)
{
    trm_rank_info self;

    trm_topology_self(&self);
    return trm_topology_create(&self, 1, topology_out);
}

void trm_topology_destroy(trm_topology *t)
{
    if (t == NULL)
        return;
    trm_free(t->rank);
    trm_free(t->host_of);
    trm_free(t);
}

int trm_topology_local_size(const trm_topology *t, int rank)
{
    int n = 0;

    for (int i = 0; i < t->ranks; i++)
        n += t->rank[i].host_index == t->rank[rank].host_index;
    return n;
}

char *trm_topology_rank_text(const trm_topology *t, int rank, char *buf, size_t bytes)
{
    if (rank >= 0 && rank < t->ranks)
        snprintf(buf, bytes, "rank %d (%s, pid %d)", rank, t->rank[rank].host, t->rank[rank].pid);
    else
        snprintf(buf, bytes, "rank %d", rank);
    return buf;
}

/* ---- this process ---- */

/* CPUs that the cgroup allows: the kernel cuts a wish for all of them down to those. The mask that
 * the launcher set is put back. */
static int cpus_allowed(void)
{
    size_t bytes = CPU_ALLOC_SIZE(TRM_CPUS_MAX);
    cpu_set_t *was = CPU_ALLOC(TRM_CPUS_MAX), *all = CPU_ALLOC(TRM_CPUS_MAX);
    int count = 1;

    if (was != NULL && all != NULL && sched_getaffinity(0, bytes, was) == 0) {
        CPU_ZERO_S(bytes, all);
        for (int i = 0; i < TRM_CPUS_MAX; i++)
            CPU_SET_S((size_t)i, bytes, all);
        count = CPU_COUNT_S(bytes, was);
        if (sched_setaffinity(0, bytes, all) == 0) {
            if (sched_getaffinity(0, bytes, all) == 0)
                count = CPU_COUNT_S(bytes, all);
            (void)sched_setaffinity(0, bytes, was);
        }
    }
    CPU_FREE(was);
    CPU_FREE(all);
    return count;
}

static uint64_t cgroup_memory_bytes(void)
{
    static const char *const files[] = {"/sys/fs/cgroup/memory.max",
                                        "/sys/fs/cgroup/memory/memory.limit_in_bytes"};

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        FILE *f = fopen(files[i], "re");
        unsigned long long limit = 0;
        int n;

        if (f == NULL)
            continue;
        n = fscanf(f, "%llu", &limit); /* "max": no number, no limit */
        fclose(f);
        if (n == 1)
            return limit;
    }
    return UINT64_MAX;
}

static uint64_t memory_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t all = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    uint64_t allowed = cgroup_memory_bytes();

    return allowed < all ? allowed : all;
}

static uint64_t machine(void)
{
    char text[64] = "";
    trm_hash h;
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

    if (f != NULL) {
        if (fgets(text, sizeof(text), f) == NULL)
            text[0] = '\0';
        fclose(f);
    }
    trm_hash_init(&h, 0);
    trm_hash_text(&h, text);
    return trm_hash_value(&h);
}

void trm_topology_self(trm_rank_info *info_out)
{
    trm_rank_info info = {.pid = (int)getpid(), .isa = trm_device_isa()};
    struct stat space;

    if (gethostname(info.host, sizeof(info.host) - 1) != 0 || info.host[0] == '\0')
        snprintf(info.host, sizeof(info.host), "?");
    info.cores = cpus_allowed();
    info.memory_bytes = memory_bytes();
    info.build = trmi_build_id();
    info.machine = machine();
    if (stat("/proc/self/ns/pid", &space) == 0)
        info.pid_space = (uint64_t)space.st_ino;
    *info_out = info;
}
