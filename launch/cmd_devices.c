/* trireme devices: what can compute here, and how fast. */
#include "launch/commands.h"
#include "launch/options.h"
#include "parallel/rates.h"

#include <stdio.h>

trm_status trm_cmd_devices(int argc, char **argv)
{
    trm_common_options common = TRM_COMMON_DEFAULTS;
    bool measure = false;
    const trm_option options[] = {
        {.name = "measure",
         .kind = TRM_OPTION_FLAG,
         .help = "measure what operators cost here (seconds), as the planner does at first use",
         .target = &measure},
        TRM_LOG_OPTION(common),
    };
    trm_arguments args = {.command = "devices",
                          .usage = "[--measure]",
                          .options = options,
                          .option_count = sizeof(options) / sizeof(options[0])};
    trm_device *device = NULL;
    trm_device_info info;
    trm_rates *rates;
    trm_status st;

    TRM_CHECK(trm_options_parse(&args, argc, argv));
    if (args.help)
        return TRM_OK;
    TRM_CHECK(trm_common_apply(&common));
    TRM_CHECK(trm_device_cpu_create(0, &device));
    device->ops->info(device, &info);
    printf("cpu   %s, %.1f GiB%s\n", info.name, (double)info.memory_bytes / 1073741824.0,
           info.bf16_fast ? ", bf16 dot products" : "");
    printf("cuda  not used: this build has no CUDA backend\n");
    fflush(stdout); /* measuring takes a while */
    st = trm_rates_cpu(measure ? device : NULL, measure, &rates);
    if (st == TRM_OK) {
        trm_rates_print(rates, stdout);
        trm_rates_destroy(rates);
    }
    trm_device_destroy(device);
    return st;
}
