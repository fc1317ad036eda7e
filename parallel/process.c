/* Processes of this host. */
#define _GNU_SOURCE
#include "parallel/process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool trm_process_read(int pid, char *state_out, uint64_t *start_out)
{
    char path[32], line[512], *p;
    unsigned long long start = 0;
    FILE *f;
    size_t n;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    f = fopen(path, "re");
    if (f == NULL)
        return false;
    n = fread(line, 1, sizeof(line) - 1, f);
    fclose(f);
    line[n] = '\0';
    p = strrchr(line, ')'); /* the name before it may hold anything */
    if (p == NULL || p[1] != ' ')
        return false;
    *state_out = p[2];
    p += 2;
    for (int field = 3; field < 22; field++) { /* start time is field 22 */
        p = strchr(p, ' ');
        if (p == NULL)
            return false;
        p++;
    }
    start = strtoull(p, NULL, 10);
    *start_out = start;
    return true;
}

bool trm_process_dead(int pid, uint64_t start)
{
    uint64_t now = 0;
    char state = '?';

    if (kill(pid, 0) != 0 && errno == ESRCH)
        return true;
    if (!trm_process_read(pid, &state, &now))
        return false; /* /proc may be hidden; kill has found it */
    return state == 'Z' || state == 'X' || (start != 0 && now != start);
}
