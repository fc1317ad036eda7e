/* By which address another host can reach a socket of ours. */
#ifndef TRM_BASE_LINK_ADDRESS_H
#define TRM_BASE_LINK_ADDRESS_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a socket that listens on all addresses of this host at `port` may be reached by, likeliest
 * first, separated by spaces: "tcp://node7:4000 tcp://10.0.0.7:4000". The host's own name, which
 * the others resolve, then its IPv4 addresses but loopback. */
void trmi_link_addresses(const char *port, char *endpoints_out, size_t bytes);

/* The first of `endpoints` that accepts a connection from here, with its number for its name:
 * "tcp://10.0.0.7:4000". Waits two seconds (scaled) for each. COMM: none does. */
TRM_MUST_USE trm_status trmi_link_reach(const char *endpoints, char *endpoint_out, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
