/* Devices by name. */
#include "kernels/device_open.h"

#include "base/log.h"
#include "kernels/cuda_module.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "0,2,3" into numbers; -1: not such a list. */
static int parse_list(const char *text, int *devices, int max)
{
    int count = 0;

    for (;;) {
        char *end;
        long v;

        errno = 0;
        v = strtol(text, &end, 10);
        if (end == text || errno != 0 || v < 0 || v >= TRM_CUDA_DEVICES_MAX || count == max)
            return -1;
        devices[count++] = (int)v;
        if (*end == '\0')
            return count;
        if (*end != ',')
            return -1;
        text = end + 1;
    }
}

trm_status trm_device_name_check(const char *name)
{
    int devices[TRM_CUDA_DEVICES_MAX];

    if (strcmp(name, "auto") == 0 || strcmp(name, "cpu") == 0 || strcmp(name, "cuda") == 0 ||
        (strncmp(name, "cuda:", 5) == 0 && parse_list(name + 5, devices, TRM_CUDA_DEVICES_MAX) > 0))
        return TRM_OK;
    return trm_fail(TRM_ERR_INVALID_ARG, "device '%s': want " TRM_DEVICE_FORMS, name);
}

static trm_status open_cuda(const char *name, int local_rank, trm_device *host,
                            trm_device **device_out)
{
    trm_cuda_probe_result *probe = trm_calloc(1, sizeof(*probe));
    trm_cuda_options options = {.device = 0};
    int devices[TRM_CUDA_DEVICES_MAX] = {0}, count;
    trm_status st = TRM_OK;

    if (probe == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "probe");
    trm_cuda_probe(probe);
    if (probe->why[0] != '\0') {
        st = trm_fail(TRM_ERR_UNSUPPORTED, "%s", probe->why);
    } else if (name[4] == ':') {
        count = parse_list(name + 5, devices, TRM_CUDA_DEVICES_MAX);
        options.device = devices[count > 0 ? local_rank % count : 0];
    } else {
        options.device = local_rank % probe->count;
    }
    trm_free(probe);
    TRM_CHECK(st);
    return trm_device_cuda_create(&options, host, device_out);
}

trm_status trm_device_open(const char *name, int local_rank, int threads, trm_device_pair *pair_out)
{
    trm_device_pair pair = {NULL, NULL, ""};
    bool is_auto = strcmp(name, "auto") == 0;
    trm_status st = TRM_OK;

    TRM_CHECK(trm_device_name_check(name));
    TRM_CHECK(trm_device_cpu_create(threads, &pair.host));
    pair.device = pair.host;
    if (strcmp(name, "cpu") != 0)
        st = open_cuda(is_auto ? "cuda" : name, local_rank < 0 ? 0 : local_rank, pair.host,
                       &pair.device);
    if (st != TRM_OK && is_auto) {
        snprintf(pair.note, sizeof(pair.note), "%s", trm_message());
        /* a machine without a driver is no news; one whose GPU cannot be used is */
        TRM_LOG(strncmp(pair.note, "no CUDA", 7) == 0 ? TRM_LOG_DEBUG : TRM_LOG_WARN, "device",
                "the CPU computes: %s", pair.note);
        pair.device = pair.host;
    } else if (st != TRM_OK) {
        trm_device_destroy(pair.host);
        return trm_fail_context(st, "--device %s", name);
    }
    *pair_out = pair;
    return TRM_OK;
}

void trm_device_close(trm_device_pair *pair)
{
    if (pair->device != pair->host)
        trm_device_destroy(pair->device);
    trm_device_destroy(pair->host);
    pair->device = pair->host = NULL;
}
