/* Which build of the program this is. */
#ifndef TRM_PARALLEL_BUILD_ID_H
#define TRM_PARALLEL_BUILD_ID_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* FNV-1a, 64 bits. */
#define TRMI_HASH_START 0xcbf29ce484222325u
uint64_t trmi_hash(uint64_t hash, const void *data, size_t bytes);

/* A hash of the version and of the linker's build id, a note in the program itself that depends on
 * the code alone (not on where it lies, nor on stripping); of the program file without one. */
uint64_t trmi_build_id(void);

#ifdef __cplusplus
}
#endif
#endif
