/* What the fleet's files share. */
#ifndef TRM_COORDINATOR_FLEET_IMPL_H
#define TRM_COORDINATOR_FLEET_IMPL_H

#include "coordinator/fleet.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Room for one item more in the array that *array points to. */
TRM_MUST_USE trm_status trmi_fleet_grow(void *array, int count, int *count_max, size_t item_bytes);
TRM_MUST_USE trm_status trmi_fleet_model(trm_fleet *f, trm_fleet_replica *r,
                                         const trm_wire_model *m, uint64_t now_s,
                                         bool *changed_out);
/* It has requests, loads or unloads. */
bool trmi_fleet_busy(const trm_fleet_replica *r);
void trmi_fleet_clear(trm_fleet_replica *r); /* takes all its places away */
void trmi_fleet_free_replica(trm_fleet_replica *r);

#ifdef __cplusplus
}
#endif
#endif
