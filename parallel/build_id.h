/* Which build of the program this is. */
#ifndef TRM_PARALLEL_BUILD_ID_H
#define TRM_PARALLEL_BUILD_ID_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A hash of the version and of the linker's build id, a note in the program itself that depends on
 * the code alone (not on where it lies, nor on stripping); of the program file without one. */
uint64_t trmi_build_id(void);

#ifdef __cplusplus
}
#endif
#endif
