/* Whether another process of this host still lives, as /proc tells it. */
#ifndef TRM_PARALLEL_PROCESS_H
#define TRM_PARALLEL_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* State ('R', 'S', 'Z', ...) and start time (clock ticks since boot) of a process; false: no such
 * process, or unreadable. */
bool trm_process_read(int pid, char *state_out, uint64_t *start_out);
/* It has ended, if only its parent has not yet asked, or its number is another's now (`start`
 * differs; 0: not known). */
bool trm_process_dead(int pid, uint64_t start);

#ifdef __cplusplus
}
#endif
#endif
