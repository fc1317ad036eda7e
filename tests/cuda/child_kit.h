/* Runs this test program again as a child with other environment variables, for what must be said
 * by a process that then ends, and for settings that are read once.
 *
 * The child is started as `program CHILD_FLAG name`. */
#ifndef TRM_TESTS_CUDA_CHILD_KIT_H
#define TRM_TESTS_CUDA_CHILD_KIT_H

#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_FLAG "--child"
#define CHILD_KILLED 256 /* added to a signal's number */

typedef struct child_row {
    const char *name;
    const char *settings[4]; /* "NAME=value" */
    int want;                /* exit status, or CHILD_KILLED + signal */
    const char *says;        /* in what it wrote; NULL: anything */
} child_row;

/* The child's exit status; what it wrote to either output is in text. */
static inline int child_run(const child_row *row, char *text, size_t bytes)
{
    int ends[2], status = 0;
    size_t have = 0;
    ssize_t n;
    pid_t pid;

    ck_assert_int_eq(pipe(ends), 0);
    fflush(NULL);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        for (int i = 0; i < 4 && row->settings[i] != NULL; i++)
            putenv((char *)(uintptr_t)row->settings[i]);
        execl("/proc/self/exe", "child", CHILD_FLAG, row->name, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    while ((n = read(ends[0], text + have, bytes - 1 - have)) > 0)
        have += (size_t)n;
    text[have] = '\0';
    close(ends[0]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : CHILD_KILLED + WTERMSIG(status);
}

static inline void child_check(const child_row *row)
{
    char text[16384];
    int got = child_run(row, text, sizeof(text));

    ck_assert_msg(got == row->want, "%s (%s): ended with %d, want %d:\n%s", row->name,
                  row->settings[0] != NULL ? row->settings[0] : "", got, row->want, text);
    ck_assert_msg(row->says == NULL || strstr(text, row->says) != NULL,
                  "%s: does not say '%s':\n%s", row->name, row->says, text);
}

#endif
