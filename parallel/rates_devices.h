/* Accelerators by their data sheets, for planning on machines that are not here and until a device
 * has been measured. */
#ifndef TRM_PARALLEL_RATES_DEVICES_H
#define TRM_PARALLEL_RATES_DEVICES_H

#include "base/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trmi_card_link { TRMI_CARD_PCIE, TRMI_CARD_NVLINK } trmi_card_link;

typedef struct trmi_card {
    const char *name;  /* "h200": --device cuda:h200 */
    const char *title; /* "H200 141 GB" */
    double memory_gib;
    int multiprocessors;
    double fp32;         /* Tflop/s, CUDA cores: no TF32 */
    double half;         /* Tflop/s, bf16 and fp16 on tensor cores, dense */
    double int8;         /* Top/s on tensor cores, dense */
    double memory_gb_s;  /* of its own memory */
    trmi_card_link link; /* between cards of a host */
    double link_gb_s;    /* in each direction, of one card */
    double pcie_gb_s;    /* to the host, in each direction */
} trmi_card;

int trmi_card_count(void);
const trmi_card *trmi_card_get(int i);
/* NULL: no such name; case does not matter. */
const trmi_card *trmi_card_by_name(const char *name);
/* The usual card with this memory, else the one nearest to it. */
const trmi_card *trmi_card_by_memory(double gib);
/* From a driver's name, "NVIDIA H100 80GB HBM3". *exact_out: the card is in the table; else it is
 * the nearest by memory. */
const trmi_card *trmi_card_of_device(const char *driver_name, double gib, bool *exact_out);

#ifdef __cplusplus
}
#endif
#endif
