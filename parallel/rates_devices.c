/* Data-sheet numbers of accelerators.
 *
 * Sources, NVIDIA's data sheets: "A100 Tensor Core GPU" (2021), "H100 Tensor Core GPU" (2023; SXM
 * and PCIe columns), "H200 Tensor Core GPU" (2024), "L40S" (2023), "HGX B200" (2024; an eighth of
 * the board), and the architecture white papers for multiprocessors. Tensor-core numbers are given
 * there with sparsity: these are half of them. NVLink is given for both directions together: these
 * are one direction. PCIe: generation 4 32 GB/s, generation 5 64 GB/s a direction with 16 lanes.
 * Memory: what the card is called by, less the share that its driver keeps (about 1 %; 6 % where
 * error correction takes its bits from it). */
#include "parallel/rates_devices.h"

#include <math.h>
#include <string.h>
#include <strings.h>

static const trmi_card cards[] = {
    /* name, title, GiB, SMs, fp32, half, int8, GB/s, link, GB/s, to the host */
    {"a100-40", "A100 40 GB", 39.6, 108, 19.5, 312, 624, 1555, TRMI_CARD_NVLINK, 300, 32},
    {"a100-80", "A100 80 GB", 79.2, 108, 19.5, 312, 624, 2039, TRMI_CARD_NVLINK, 300, 32},
    {"h100", "H100 SXM 80 GB", 79.2, 132, 67, 989, 1979, 3350, TRMI_CARD_NVLINK, 450, 64},
    {"h100-pcie", "H100 PCIe 80 GB", 79.2, 114, 51, 756, 1513, 2000, TRMI_CARD_PCIE, 64, 64},
    {"h200", "H200 141 GB", 139.6, 132, 67, 989, 1979, 4800, TRMI_CARD_NVLINK, 450, 64},
    {"l40s", "L40S 48 GB", 45, 142, 91.6, 362, 733, 864, TRMI_CARD_PCIE, 32, 32},
    {"b200", "B200 180 GB", 178.2, 148, 75, 2250, 4500, 8000, TRMI_CARD_NVLINK, 900, 64},
};
#define CARDS ((int)(sizeof(cards) / sizeof(cards[0])))

/* What --device cuda:80GiB means. */
static const struct {
    double gib;
    const char *name;
} by_memory[] = {{40, "a100-40"}, {48, "l40s"},  {80, "h100"},
                 {141, "h200"},   {180, "b200"}, {192, "b200"}};

int trmi_card_count(void)
{
    return CARDS;
}

const trmi_card *trmi_card_get(int i)
{
    return &cards[i];
}

const trmi_card *trmi_card_by_name(const char *name)
{
    for (int i = 0; i < CARDS; i++)
        if (strcasecmp(cards[i].name, name) == 0)
            return &cards[i];
    return NULL;
}

const trmi_card *trmi_card_by_memory(double gib)
{
    size_t nearest = 0;

    for (size_t i = 1; i < sizeof(by_memory) / sizeof(by_memory[0]); i++)
        if (fabs(by_memory[i].gib - gib) < fabs(by_memory[nearest].gib - gib))
            nearest = i;
    return trmi_card_by_name(by_memory[nearest].name);
}

const trmi_card *trmi_card_of_device(const char *driver_name, double gib, bool *exact_out)
{
    static const struct {
        const char *part, *name;
    } known[] = {{"H100 PCIe", "h100-pcie"},
                 {"H100", "h100"},
                 {"H200", "h200"},
                 {"L40S", "l40s"},
                 {"B200", "b200"}};

    *exact_out = true;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strstr(driver_name, known[i].part) != NULL)
            return trmi_card_by_name(known[i].name);
    if (strstr(driver_name, "A100") != NULL)
        return trmi_card_by_name(gib < 60 ? "a100-40" : "a100-80");
    *exact_out = false;
    return trmi_card_by_memory(gib);
}
