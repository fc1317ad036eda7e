/* The adapter over PMIx, by which the processes of a job know each other before and without MPI:
 * who has begun, and on which host the launcher put each rank. Used while the job comes up; the
 * library is opened at run time and may be absent. Shared: any thread. */
#ifndef TRM_PARALLEL_LAUNCHER_H
#define TRM_PARALLEL_LAUNCHER_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trmi_launcher trmi_launcher;

/* NULL: this launcher speaks no PMIx. */
trmi_launcher *trmi_launcher_open(void);
void trmi_launcher_close(trmi_launcher *l); /* takes NULL */
int trmi_launcher_rank(const trmi_launcher *l);
int trmi_launcher_size(const trmi_launcher *l); /* 0: not told */

/* This process has begun: the others may see it. */
void trmi_launcher_announce(trmi_launcher *l);
/* Whether `rank` has announced itself; waits for it `seconds` at most. */
bool trmi_launcher_came(trmi_launcher *l, int rank, int seconds);
/* The host of `rank` into buf; false: not told. */
bool trmi_launcher_host(trmi_launcher *l, int rank, char *buf, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
