/* trireme: finds the subcommand and turns its status into an exit code. */
#include "base/log.h"
#include "launch/commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    trm_status (*run)(int argc, char **argv);
    bool every_rank; /* false: under mpirun rank 0 does it alone and the others leave at once */
    const char *help;
} commands[] = {
#define TRM_COMMAND(name, every_rank, help) {#name, trm_cmd_##name, every_rank, help},
#include "launch/commands.def"
#undef TRM_COMMAND
};
enum { COMMAND_COUNT = sizeof(commands) / sizeof(commands[0]) };

/* This process's rank as the launcher gives it; 0 without one. */
static int launched_rank(void)
{
    const char *text = getenv("OMPI_COMM_WORLD_RANK");

    if (text == NULL)
        text = getenv("PMIX_RANK");
    return text == NULL ? 0 : atoi(text);
}

static void usage(FILE *to)
{
    fprintf(to, "usage: trireme COMMAND ...\n\n");
    for (int i = 0; i < COMMAND_COUNT; i++)
        fprintf(to, "  %-9s %s\n", commands[i].name, commands[i].help);
    fprintf(to, "\n'trireme COMMAND --help' says more.\n");
}

/* A server shares its machine, with clients at least. libgomp's threads wait spinning for
 * milliseconds before they sleep, and when the core of one is taken by another process every region
 * of a step waits for a time slice: a network of two threads answered in 166 ms (p50, 50 requests a
 * second, load 10 on 2 cores), with 2,000 turns of its loop (some 40 us) in 6 ms. It reads that
 * number once, before main: so the program begins anew with it. */
static void wait_briefly(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") != NULL || getenv("GOMP_SPINCOUNT") != NULL ||
        setenv("GOMP_SPINCOUNT", "2000", 1) != 0)
        return;
    (void)execv("/proc/self/exe", argv); /* returns where it cannot: then it spins */
}

int main(int argc, char **argv)
{
    bool speaks = launched_rank() == 0; /* what every rank would say is said once */

    if (argc >= 2 && strcmp(argv[1], "serve") == 0)
        wait_briefly(argv);
    trm_log_init(0, 1);
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
                      strcmp(argv[1], "help") == 0)) {
        if (speaks)
            usage(stdout);
        return 0;
    }
    if (argc >= 2 && strcmp(argv[1], "--version") == 0) {
        if (speaks)
            printf("trireme %s\n", TRM_VERSION);
        return 0;
    }
    if (argc < 2) {
        if (speaks)
            usage(stderr);
        return 2;
    }
    for (int i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            trm_status st = TRM_OK;

            if (commands[i].every_rank || speaks)
                st = commands[i].run(argc - 2, argv + 2);
            if ((fflush(stdout) != 0 || ferror(stdout)) && st == TRM_OK)
                st = trm_fail(TRM_ERR_IO, "standard output cannot be written: %s", strerror(errno));
            if (st != TRM_OK && trm_message()[0] != '\0')
                fprintf(stderr, "trireme %s: %s\n", argv[1], trm_message());
            if (st != TRM_OK)
                TRM_LOG(TRM_LOG_DEBUG, "launch", "that was decided in %s", trm_message_where());
            return trm_status_exit_code(st);
        }
    }
    if (speaks)
        fprintf(stderr, "trireme: unknown command '%s': 'trireme --help' lists them\n", argv[1]);
    return 2;
}
