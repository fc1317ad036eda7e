/* Opens the group of all ranks' CUDA devices under mpirun, waiting for 1.5 s:
 *   group_ranks           it comes up, or collectives are staged: says which
 *   group_ranks RANK      it does not, because of that rank, whose name is in the message
 * Exit code 0: as it should be. */
#define _GNU_SOURCE
#include "base/log.h"
#include "base/wait.h"
#include "kernels/device_open.h"
#include "parallel/device_group.h"
#include "parallel/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROUP_TIMEOUT_MS 1500

static trm_job job;

static int failed(const char *what, const char *why)
{
    fprintf(stderr, "rank %d: %s: %s\n", job.rank, what, why);
    return 1;
}

static int check(trm_comm *comm, trm_device *device, const char *missing)
{
    int64_t start = trm_now_us(), took;
    trm_device_group *group = NULL;
    trm_status st = trm_device_group_open(comm, device, GROUP_TIMEOUT_MS, &group);
    char want[32];

    took = trm_now_us() - start;
    trm_device_group_close(group);
    if (missing == NULL) {
        if (st != TRM_OK)
            return failed("group", trm_message());
        printf("rank %d: %s\n", job.rank, group != NULL ? "a group" : "staged");
        return 0;
    }
    snprintf(want, sizeof(want), "rank %s (host ", missing);
    if (st != TRM_ERR_COMM || strstr(trm_message(), want) == NULL)
        return failed("want the missing rank named", st == TRM_OK ? "all is well" : trm_message());
    if (took > 5 * trm_scaled_ms(GROUP_TIMEOUT_MS) * 1000)
        return failed("it took too long", trm_message());
    printf("rank %d: %s\n", job.rank, trm_message());
    return 0;
}

int main(int argc, char **argv)
{
    int members[TRM_COMM_RANKS_MAX], bad, hosts[TRM_COMM_RANKS_MAX] = {0};
    trm_device_pair devices = {NULL, NULL, ""};
    trm_comm *comm = NULL;

    trm_log_init(0, 1);
    if (trm_job_init(&job) != TRM_OK || job.size > TRM_COMM_RANKS_MAX)
        return failed("start", trm_message());
    for (int i = 0; i < job.size; i++)
        members[i] = i;
    if (trm_comm_group_create(&job, hosts, members, job.size, "all", &comm) != TRM_OK)
        bad = failed("communicator", trm_message());
    else if (trm_device_open("cuda", 0, 1, &devices) != TRM_OK)
        bad = failed("device", trm_message());
    else
        bad = check(comm, devices.device, argc > 1 ? argv[1] : NULL);
    trm_device_close(&devices);
    trm_comm_destroy(comm);
    trm_job_end(&job, bad);
    return bad;
}
