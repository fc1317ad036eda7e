/* Rates of devices by description, and of a device that is here. */
#include "parallel/rates_impl.h"

#include "base/log.h"
#include "kernels/cuda_module.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define GPU_PROBE_MS 2000
#define GIB 1073741824.0

/* ---- descriptions ---- */

static bool number(const char *text, const char *unit, double min, double max, double *value_out)
{
    char *end;
    double v = strtod(text, &end);

    if (end == text || strcmp(end, unit) != 0 || !(v >= min) || !(v <= max))
        return false;
    *value_out = v;
    return true;
}

static trm_status bad_description(const char *device)
{
    char names[200] = "";
    size_t used = 0;

    for (int i = 0; i < trmi_card_count(); i++)
        used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", i > 0 ? ", " : "",
                                 trmi_card_get(i)->name);
    return trm_fail(TRM_ERR_INVALID_ARG,
                    "device '%s': want cpu:CORES (cpu:16), cuda:MEMORY (cuda:80GiB) or cuda:CARD "
                    "(%s)",
                    device, names);
}

/* The card that "cuda:..." means; NULL: none. *gib_out: memory that was given; 0: the card's. */
static const trmi_card *find_card(const char *text, double *gib_out)
{
    *gib_out = 0;
    if (number(text, "GiB", 1, 4096, gib_out) || number(text, "", 1, 4096, gib_out))
        return trmi_card_by_memory(*gib_out);
    return trmi_card_by_name(text);
}

trm_status trm_rates_describe(const char *device, trm_rates **rates_out)
{
    bool cuda = strncmp(device, "cuda:", 5) == 0;
    const trmi_card *card = NULL;
    double cores = 0, gib = 0;
    trm_rates *r = NULL;
    trm_status st;

    if (cuda)
        card = find_card(device + 5, &gib);
    else if (strncmp(device, "cpu:", 4) != 0 || !number(device + 4, "", 1, 4096, &cores) ||
             cores != floor(cores))
        return bad_description(device);
    if (cuda && card == NULL)
        return bad_description(device);
    TRM_CHECK(trmi_rates_builtin(&r));
    if (!cuda) {
        trmi_rates_plain_cpu(r, (int)cores);
        snprintf(r->source, sizeof(r->source), "data sheet (%s)", device);
        *rates_out = r;
        return TRM_OK;
    }
    st = trmi_gpu_from_card(r, card);
    if (st != TRM_OK) {
        trm_rates_destroy(r);
        return st;
    }
    if (gib > 0)
        r->memory_bytes = (size_t)(gib * GIB);
    snprintf(r->source, sizeof(r->source), "data sheet (%s: %s)", device, card->title);
    *rates_out = r;
    return TRM_OK;
}

/* ---- a device that is here ---- */

/* The links that the driver sees between this device and others; the table's where it is alone. */
static void find_links(const trm_device_info *info, trmi_gpu *g)
{
    trm_cuda_probe_result *p = trm_calloc(1, sizeof(*p));

    if (p == NULL)
        return;
    trm_cuda_probe(p);
    for (int i = 0; i < p->count; i++) {
        bool nvlink = false;

        if (p->count == 1 || info->identity[0] == '\0' ||
            strcasecmp(p->found[i].pci, info->identity) != 0)
            continue;
        for (int k = 0; k < p->count; k++)
            nvlink = nvlink || (k != i && p->found[i].link[k] == TRM_CUDA_LINK_NVLINK);
        if (!nvlink && g->link == TRMI_CARD_NVLINK)
            g->link_gb_s = g->copy_gb_s;
        g->link = nvlink ? TRMI_CARD_NVLINK : TRMI_CARD_PCIE;
    }
    trm_free(p);
}

/* The driver's name without "(cuda:0, sm_90)": cards of a kind share what was measured. */
static void name_card(const trm_device_info *info, trm_rates *r)
{
    int length = (int)strcspn(info->name, "(");

    while (length > 0 && info->name[length - 1] == ' ')
        length--;
    snprintf(r->machine, sizeof(r->machine), "%.*s, %zu MiB, " TRM_VERSION, length, info->name,
             info->memory_bytes >> 20);
}

static trm_status from_table(trm_device *device, trm_rates **rates_out)
{
    trm_device_info info;
    const trmi_card *card;
    trm_rates *r;
    bool exact;
    trm_status st;

    device->ops->info(device, &info);
    card = trmi_card_of_device(info.name, (double)info.memory_bytes / GIB, &exact);
    TRM_CHECK(trmi_rates_builtin(&r));
    st = trmi_gpu_from_card(r, card);
    if (st != TRM_OK) {
        trm_rates_destroy(r);
        return st;
    }
    r->memory_bytes = info.memory_bytes;
    name_card(&info, r);
    find_links(&info, &r->gpu);
    snprintf(r->source, sizeof(r->source), "data sheet (%s%s)", exact ? "" : "not known, taken as ",
             card->title);
    *rates_out = r;
    return TRM_OK;
}

static trm_status measure(trm_device *device, const char *path, trm_rates *r)
{
    trm_status st = trmi_gpu_probe(device, GPU_PROBE_MS, r);

    if (st != TRM_OK)
        return trm_fail_context(st, "measuring rates");
    r->probes = 1;
    trmi_rates_dated(r);
    st = path == NULL ? trm_fail(TRM_ERR_NOT_FOUND, "no cache folder") : trmi_rates_store(path, r);
    if (st != TRM_OK)
        TRM_LOG(TRM_LOG_INFO, "rates", "not cached: %s", trm_message());
    return TRM_OK;
}

/* probe: measures where nothing is cached; refresh: in any case. */
static trm_status of_gpu(trm_device *device, bool probe, bool refresh, trm_rates **rates_out)
{
    trm_rates *r = NULL;
    trm_status st;
    char *path;

    TRM_CHECK(from_table(device, &r));
    path = trmi_rates_cache_path(r->machine);
    st = path == NULL || refresh ? TRM_ERR_NOT_FOUND : trmi_rates_load(path, r);
    if (st == TRM_OK) {
        snprintf(r->source, sizeof(r->source), "cache, measured %s", r->date);
    } else {
        if (st != TRM_ERR_NOT_FOUND)
            TRM_LOG(TRM_LOG_INFO, "rates", "cache ignored: %s", trm_message());
        st = probe || refresh ? measure(device, path, r) : TRM_OK;
    }
    trm_free(path);
    if (st == TRM_OK)
        *rates_out = r;
    else
        trm_rates_destroy(r);
    return st;
}

trm_status trm_rates_of_device(trm_device *device, bool refresh, trm_rates **rates_out)
{
    return device->host_memory ? trm_rates_cpu(device, refresh, rates_out)
                               : of_gpu(device, true, refresh, rates_out);
}

trm_status trm_rates_known(trm_device *device, trm_rates **rates_out)
{
    return device->host_memory ? trm_rates_cpu(NULL, false, rates_out)
                               : of_gpu(device, false, false, rates_out);
}
