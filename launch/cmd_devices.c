/* trireme devices: what can compute here, and how fast. */
#include "launch/commands.h"
#include "kernels/cuda_module.h"
#include "kernels/device_open.h"
#include "launch/options.h"
#include "parallel/rates.h"

#include <stdio.h>

static const char *const link_names[] = {
    [TRM_CUDA_LINK_NONE] = "-", [TRM_CUDA_LINK_PCI] = "PCIe", [TRM_CUDA_LINK_NVLINK] = "NVLink"};

/* The CUDA devices, how they are linked, the libraries; or why they are not used. */
static trm_status print_cuda(void)
{
    trm_cuda_probe_result *p = trm_calloc(1, sizeof(*p));
    char versions[400];

    if (p == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "probe");
    trm_cuda_probe(p);
    if (p->why[0] != '\0')
        printf("cuda  not used: %s\n", p->why);
    for (int i = 0; i < p->count; i++) {
        const trm_cuda_found *f = &p->found[i];

        printf("cuda:%d  %s, %.1f GiB, sm_%d, %d multiprocessors, %s\n", i, f->name,
               (double)f->memory_bytes / 1073741824.0, f->capability, f->multiprocessors, f->pci);
        if (f->capability < 80)
            printf("        not used: compute capability %d.%d, the backend needs 8.0 or newer\n",
                   f->capability / 10, f->capability % 10);
        for (int j = 0, n = 0; j < p->count; j++)
            if (i != j)
                printf("%s cuda:%d %s", n++ == 0 ? "        links:" : ",", j,
                       link_names[f->link[j]]);
        if (p->count > 1)
            printf("\n");
    }
    if (p->count > 0) {
        printf("        driver: CUDA %d.%d; ", p->driver_version / 1000,
               p->driver_version % 1000 / 10);
        if (trm_cuda_module_versions(versions, sizeof(versions)) == TRM_OK)
            printf("%s\n", versions);
        else
            printf("not used: %s\n", trm_message());
    }
    trm_free(p);
    return TRM_OK;
}

/* Rates of every CUDA device that opens; those that do not have been told. */
static trm_status measure_cuda(void)
{
    trm_cuda_probe_result *p = trm_calloc(1, sizeof(*p));
    trm_status st = TRM_OK;

    if (p == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "probe");
    trm_cuda_probe(p);
    for (int i = 0; i < p->count && st == TRM_OK; i++) {
        trm_device_pair pair = {NULL, NULL, ""};
        trm_rates *rates = NULL;
        char name[24];

        snprintf(name, sizeof(name), "cuda:%d", i);
        if (p->found[i].capability < 80 || trm_device_open(name, 0, 1, &pair) != TRM_OK)
            continue;
        st = trm_rates_of_device(pair.device, true, &rates);
        if (st == TRM_OK) {
            printf("%s ", name);
            trm_rates_print(rates, stdout);
        }
        trm_rates_destroy(rates);
        trm_device_close(&pair);
    }
    trm_free(p);
    return st;
}

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
    st = print_cuda();
    if (st != TRM_OK) {
        trm_device_destroy(device);
        return st;
    }
    fflush(stdout); /* measuring takes a while */
    st = trm_rates_cpu(measure ? device : NULL, measure, &rates);
    if (st == TRM_OK) {
        trm_rates_print(rates, stdout);
        trm_rates_destroy(rates);
    }
    if (st == TRM_OK && measure) {
        fflush(stdout);
        st = measure_cuda();
    }
    trm_device_destroy(device);
    return st;
}
