/* trireme launch: a serving cluster of several jobs on this host: the coordinator, and one mpirun a
 * replica, so that what is lost ends no more than itself. It composes their commands; supervise.c
 * keeps them running. */
#define _GNU_SOURCE
#include "launch/commands.h"
#include "launch/options.h"
#include "launch/serve_coordinator.h"
#include "launch/supervise.h"

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    WORDS_MAX = 48,
    DRAIN_MARGIN_MS = 15000 /* for what comes before and after the coordinator's own deadline */
};

typedef struct launch {
    trm_common_options common;
    const char *path, *listen, *hostfile;
    bool slurm, dry_run;
    trm_serve_plan plan;
    char program[4096]; /* this one */
    char *dir, *rendezvous;
    cpu_set_t cpus; /* that we may use */
} launch;

/* ---- commands ---- */

typedef struct words {
    char **list;
    int count;
    bool failed;
} words;

static void add(words *w, const char *word)
{
    if (w->failed || w->count == WORDS_MAX)
        w->failed = true;
    else
        w->failed = (w->list[w->count++] = trm_strdup(word)) == NULL;
}

static void add_number(words *w, const char *option, int64_t n)
{
    char text[24];

    snprintf(text, sizeof(text), "%lld", (long long)n);
    add(w, option);
    add(w, text);
}

static int ranks_of(const launch *l, int replica)
{
    for (int i = 0; i < l->plan.group_count; i++) {
        const trm_serve_group *g = &l->plan.groups[i];

        if (replica >= g->first_replica && replica < g->first_replica + g->replicas)
            return g->tensor * g->pipeline;
    }
    return 1;
}

/* mpirun's options: jobs do not know of each other, so they bind nothing by themselves, and yield
 * when idle; a rank that is lost ends its job at once; nothing listens on the network. */
static void add_launcher(words *w, int ranks)
{
    static const char *const fixed[] = {
        "--bind-to", "none",      "--oversubscribe",           "-mca", "mpi_yield_when_idle",
        "1",         "-mca",      "odls_base_sigkill_timeout", "0",    "-mca",
        "btl",       "vader,self"};
    const char *own = getenv("TRM_MPIRUN");

    add(w, own != NULL ? own : "mpirun");
    add_number(w, "-np", ranks);
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        add(w, fixed[i]);
    if (geteuid() == 0)
        add(w, "--allow-run-as-root");
}

static trm_status command(void *ctx, int job, int64_t epoch, char ***argv_out)
{
    const launch *l = ctx;
    words w = {.list = trm_calloc(WORDS_MAX + 1, sizeof(char *))};

    if (w.list == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a command");
    add_launcher(&w, job == TRM_SUPERVISE_COORDINATOR ? 1 : ranks_of(l, job - 1));
    add(&w, l->program);
    add(&w, "serve");
    add(&w, l->path);
    add(&w, "--role");
    if (job == TRM_SUPERVISE_COORDINATOR) {
        add(&w, "coordinator");
        if (l->listen != NULL) {
            add(&w, "--listen");
            add(&w, l->listen);
        }
    } else {
        add(&w, "replica");
        add_number(&w, "--replica", job - 1);
        add_number(&w, "--epoch", epoch);
    }
    add(&w, "--run-dir");
    add(&w, l->dir);
    if (l->common.log != NULL) {
        add(&w, "--log");
        add(&w, l->common.log);
    }
    if (w.failed) {
        trm_supervise_free_argv(w.list);
        return trm_fail(TRM_ERR_NO_MEMORY, "a command");
    }
    *argv_out = w.list;
    return TRM_OK;
}

/* Each replica its part of our CPUs, in proportion to its ranks: jobs that do not know of each
 * other would all take all of them. Nothing is dealt out where there are fewer CPUs than ranks. */
static bool cpus_of(void *ctx, int job, cpu_set_t *set)
{
    const launch *l = ctx;
    int have = CPU_COUNT(&l->cpus), before = 0, mine, seen = 0;

    if (job == TRM_SUPERVISE_COORDINATOR || l->plan.replicas < 2 || have < l->plan.ranks ||
        l->plan.c->cluster->bind != 0)
        return false;
    for (int i = 0; i < job - 1; i++)
        before += ranks_of(l, i);
    mine = ranks_of(l, job - 1);
    CPU_ZERO(set);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &l->cpus)) {
            if (seen >= before * have / l->plan.ranks &&
                seen < (before + mine) * have / l->plan.ranks)
                CPU_SET(cpu, set);
            seen++;
        }
    return true;
}

static void print_word(const char *word)
{
    if (word[0] != '\0' && word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                             "0123456789_-./:,=+@%")] == '\0') {
        printf("%s", word);
        return;
    }
    putchar('\'');
    for (; *word != '\0'; word++)
        if (*word == '\'')
            printf("'\\''");
        else
            putchar(*word);
    putchar('\'');
}

/* --dry-run: lines for a shell. */
static trm_status print_commands(launch *l)
{
    for (int job = 0; job <= l->plan.replicas; job++) {
        char **argv = NULL;
        cpu_set_t set;

        TRM_CHECK(command(l, job, 1, &argv));
        if (cpus_of(l, job, &set)) {
            const char *comma = "";

            printf("taskset -c ");
            for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
                if (CPU_ISSET(cpu, &set)) {
                    printf("%s%zu", comma, cpu);
                    comma = ",";
                }
            putchar(' ');
        }
        for (int i = 0; argv[i] != NULL; i++) {
            print_word(argv[i]);
            putchar(argv[i + 1] == NULL ? '\n' : ' ');
        }
        trm_supervise_free_argv(argv);
    }
    return TRM_OK;
}

/* ---- the folder where the jobs meet ---- */

static trm_status make_folder(launch *l)
{
    const char *places[] = {getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), "/tmp"};

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (places[i] == NULL || places[i][0] != '/')
            continue;
        l->dir = trm_path_join(places[i], "trireme-run-XXXXXX");
        if (l->dir == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "run folder");
        if (mkdtemp(l->dir) != NULL) { /* with mode 0700 */
            l->rendezvous = trm_path_join(l->dir, "coordinator.json");
            return l->rendezvous == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "run folder") : TRM_OK;
        }
        trm_free(l->dir);
        l->dir = NULL;
    }
    return trm_fail(TRM_ERR_IO,
                    "no run folder can be made in $XDG_RUNTIME_DIR, $TMPDIR or /tmp: %s",
                    strerror(errno));
}

/* Files, sockets and the folder; whatever else somebody has put there stays, and the folder with
 * it. */
static void remove_folder(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;

    while (d != NULL && (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            (void)unlinkat(dirfd(d), e->d_name, 0);
    if (d != NULL)
        (void)closedir(d);
    (void)rmdir(dir);
}

/* ---- the command ---- */

static trm_status check(launch *l)
{
    ssize_t n;

    if (l->hostfile != NULL || l->slurm)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "--%s: replicas are started on this host only; several hosts are for a "
                        "later version",
                        l->slurm ? "slurm" : "hostfile");
    if (getenv("OMPI_COMM_WORLD_SIZE") != NULL)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "launch starts mpirun itself: start it without mpirun");
    n = readlink("/proc/self/exe", l->program, sizeof(l->program) - 1);
    if (n <= 0)
        return trm_fail(TRM_ERR_IO, "/proc/self/exe: %s", strerror(errno));
    l->program[n] = '\0';
    if (sched_getaffinity(0, sizeof(l->cpus), &l->cpus) != 0)
        CPU_ZERO(&l->cpus);
    return trm_serve_plan_load(l->path, 0, &l->plan);
}

static trm_status supervise(launch *l)
{
    trm_supervise_options o = {.replicas = l->plan.replicas,
                               .command = command,
                               .cpus = cpus_of,
                               .ctx = l,
                               .ready_text = TRM_SERVE_READY,
                               .out = STDERR_FILENO,
                               .drain_ms =
                                   (int64_t)(l->plan.c->limits->drain_s * 1e3) + DRAIN_MARGIN_MS};
    trm_status st = make_folder(l);

    if (st != TRM_OK)
        return st;
    o.rendezvous = l->rendezvous;
    st = trm_supervise_run(&o);
    remove_folder(l->dir);
    return st;
}

trm_status trm_cmd_launch(int argc, char **argv)
{
    launch l = {.common = TRM_COMMON_DEFAULTS};
    const trm_option options[] = {
        {"listen", TRM_OPTION_STRING, "ADDRESS:PORT", 0, 0, NULL,
         "instead of the configuration's gateway.listen", &l.listen},
        {"dry-run", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "print the commands, start nothing",
         &l.dry_run},
        {"hostfile", TRM_OPTION_STRING, "FILE", 0, 0, NULL, "in a later version", &l.hostfile},
        {"slurm", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "in a later version", &l.slurm},
        TRM_LOG_OPTION(l.common),
    };
    trm_arguments args = {.command = "launch",
                          .usage = "CONFIG.yaml [--listen ADDRESS:PORT] [--dry-run]",
                          .options = options,
                          .option_count = sizeof(options) / sizeof(options[0]),
                          .positional_min = 1,
                          .positional_max = 1};
    trm_status st = trm_options_parse(&args, argc, argv);

    if (st != TRM_OK || args.help)
        return st;
    l.path = args.positionals[0];
    st = trm_common_apply(&l.common);
    if (st == TRM_OK)
        st = check(&l);
    if (st == TRM_OK && l.dry_run) {
        l.dir = trm_strdup("DIR");
        st = l.dir == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "run folder") : print_commands(&l);
    } else if (st == TRM_OK) {
        st = supervise(&l);
    }
    trm_serve_plan_fini(&l.plan);
    trm_free(l.dir);
    trm_free(l.rendezvous);
    return st;
}
