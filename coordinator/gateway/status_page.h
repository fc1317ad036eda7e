/* The status page: status_page.html as bytes, made C by CMake. */
#ifndef TRM_COORDINATOR_GATEWAY_STATUS_PAGE_H
#define TRM_COORDINATOR_GATEWAY_STATUS_PAGE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

extern const unsigned char trmi_status_page[];
extern const size_t trmi_status_page_bytes;

#ifdef __cplusplus
}
#endif
#endif
