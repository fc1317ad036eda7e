/* trireme devices: what can compute here. */
#include "kernels/device.h"
#include "launch/commands.h"

#include <stdio.h>
#include <string.h>

trm_status trm_cmd_devices(int argc, char **argv)
{
    trm_device *device = NULL;
    trm_device_info info;

    if (argc > 0 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
        printf("usage: trireme devices\n\n  what can compute here, and why something cannot\n");
        return TRM_OK;
    }
    if (argc > 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s': devices takes no argument", argv[0]);
    TRM_CHECK(trm_device_cpu_create(0, &device));
    device->ops->info(device, &info);
    printf("cpu   %s, %.1f GiB%s\n", info.name, (double)info.memory_bytes / 1073741824.0,
           info.bf16_fast ? ", bf16 dot products" : "");
    printf("cuda  not used: this build has no CUDA backend\n");
    trm_device_destroy(device);
    return TRM_OK;
}
