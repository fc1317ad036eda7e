/* Bringing up the collectives between the devices of a group's ranks (kernels/device_group.h). The
 * host communicator of the same ranks carries what they must tell each other first. */
#ifndef TRM_PARALLEL_DEVICE_GROUP_H
#define TRM_PARALLEL_DEVICE_GROUP_H

#include "kernels/device_group.h"
#include "parallel/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Collective over `comm`. *group_out: ready; or NULL with OK where collectives must be staged
 * through host memory, which is logged with the reason: a rank's device has no group, or two ranks
 * share one device (TRM_GROUP_SHARED=1 tries all the same). `timeout_ms`: for all ranks' libraries
 * to come up (scaled by TRM_DEADLINE_SCALE). COMM: they did not; the message names the ranks that
 * are missing with host and device. */
TRM_MUST_USE trm_status trm_device_group_open(trm_comm *comm, trm_device *device,
                                              int64_t timeout_ms, trm_device_group **group_out);
/* Not collective, waits for nobody; takes NULL. */
void trm_device_group_close(trm_device_group *group);

#ifdef __cplusplus
}
#endif
#endif
