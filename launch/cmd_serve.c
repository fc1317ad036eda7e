/* trireme serve: a serving cluster. Under mpirun one job is all of it: rank 0 also runs the
 * coordinator's threads, and the ranks are dealt out to replicas. `trireme launch` starts the
 * coordinator and each replica as jobs of their own by --role; both forms share everything below.
 */
#define _GNU_SOURCE
#include "launch/commands.h"
#include "launch/ranks.h"
#include "launch/rendezvous.h"
#include "launch/serve_coordinator.h"

#include "base/log.h"
#include "worker/serve.h"

#include <stdio.h>
#include <string.h>

#define MEET_MS 60000

struct serve {
    trm_ranks ranks; /* job and device */
    trm_common_options common;
    const char *path, *role, *run_dir, *listen;
    int64_t replica, epoch;
    trm_serve_plan plan;
    trm_link_context *context;
    trm_serve_coordinator *coordinator; /* rank 0 of a job that has it */
    trm_rendezvous meeting;
    /* this rank's replica */
    const trm_serve_group *group; /* NULL: none, a coordinator's job */
    int number;                   /* through all groups */
    trm_job part;
    trm_comm *replica_comm, *stage_comm;
};

static bool has_role(const struct serve *s, const char *role)
{
    return s->role != NULL && strcmp(s->role, role) == 0;
}

static bool coordinates(const struct serve *s)
{
    return s->ranks.job.rank == 0 && !has_role(s, "replica");
}

/* ---- who does what ---- */

/* One job for all: every rank must have its place, and every place its rank. */
static trm_status take_place(struct serve *s)
{
    const trm_job *job = &s->ranks.job;

    if (s->plan.ranks != job->size)
        return trm_config_fail(s->plan.config, "cluster",
                               "the layout uses %d of %d ranks: start with mpirun -np %d, or lay "
                               "out otherwise",
                               s->plan.ranks, job->size, s->plan.ranks);
    for (int i = 0; i < s->plan.group_count; i++) {
        const trm_serve_group *g = &s->plan.groups[i];
        int each = g->tensor * g->pipeline;

        if (job->rank < g->first || job->rank >= g->first + g->ranks)
            continue;
        s->group = g;
        s->number = g->first_replica + (job->rank - g->first) / each;
    }
    if (s->group == NULL)
        return trm_config_fail(s->plan.config, "cluster.groups", "rank %d is in no group",
                               job->rank);
    return TRM_OK;
}

/* A job of its own for one replica. */
static trm_status take_replica(struct serve *s)
{
    for (int i = 0; i < s->plan.group_count; i++) {
        const trm_serve_group *g = &s->plan.groups[i];

        if (s->replica >= g->first_replica && s->replica < g->first_replica + g->replicas)
            s->group = g;
    }
    s->number = (int)s->replica;
    if (s->group == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "--replica %lld: the configuration has %d replicas",
                        (long long)s->replica, s->plan.replicas);
    if (s->group->tensor * s->group->pipeline != s->ranks.job.size)
        return trm_fail(TRM_ERR_INVALID_ARG, "a replica of %s wants %d ranks, this job has %d",
                        s->group->name, s->group->tensor * s->group->pipeline, s->ranks.job.size);
    return TRM_OK;
}

static trm_status read_configuration(struct serve *s)
{
    TRM_CHECK(trm_serve_plan_load(s->path, s->role == NULL ? s->ranks.job.size : 0, &s->plan));
    if (has_role(s, "coordinator"))
        return s->ranks.job.size == 1
                   ? TRM_OK
                   : trm_fail(TRM_ERR_INVALID_ARG, "--role coordinator wants one rank, not %d",
                              s->ranks.job.size);
    return has_role(s, "replica") ? take_replica(s) : take_place(s);
}

static trm_status check_options(const struct serve *s)
{
    if (s->role == NULL && (s->run_dir != NULL || s->replica >= 0 || s->epoch > 1))
        return trm_fail(
            TRM_ERR_INVALID_ARG,
            "--run-dir, --replica and --epoch want --role: they are for trireme launch");
    if (s->role != NULL && s->run_dir == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "--role %s wants --run-dir", s->role);
    if (has_role(s, "replica") && s->replica < 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "--role replica wants --replica N");
    return TRM_OK;
}

/* ---- communicators: all of them, here, on all ranks ---- */

static trm_status group_of(struct serve *s, int first, int count, const char *label,
                           trm_comm **mine)
{
    int members[TRM_COMM_RANKS_MAX];
    trm_comm *c = NULL;

    if (count > TRM_COMM_RANKS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s of %d ranks: at most %d", label, count,
                        TRM_COMM_RANKS_MAX);
    for (int i = 0; i < count; i++)
        members[i] = first + i;
    TRM_CHECK(trm_comm_group_create(&s->ranks.job, trm_job_topology(&s->ranks.job)->host_of,
                                    members, count, label, &c));
    if (c != NULL)
        *mine = c;
    return TRM_OK;
}

static trm_status replica_comms(struct serve *s, const trm_serve_group *g, int first, int number)
{
    int each = g->tensor * g->pipeline;
    char label[64];

    if (each == 1)
        return TRM_OK;
    snprintf(label, sizeof(label), "replica %d", number);
    TRM_CHECK(group_of(s, first, each, label, &s->replica_comm));
    for (int stage = 0; stage < g->pipeline && g->tensor > 1; stage++) {
        snprintf(label, sizeof(label), "replica %d, stage %d", number, stage);
        TRM_CHECK(group_of(s, first + stage * g->tensor, g->tensor, label, &s->stage_comm));
    }
    return TRM_OK;
}

static trm_status make_comms(struct serve *s)
{
    if (has_role(s, "coordinator"))
        return TRM_OK;
    if (has_role(s, "replica"))
        return replica_comms(s, s->group, 0, s->number);
    for (int i = 0; i < s->plan.group_count; i++) {
        const trm_serve_group *g = &s->plan.groups[i];

        for (int r = 0; r < g->replicas; r++)
            TRM_CHECK(
                replica_comms(s, g, g->first + r * g->tensor * g->pipeline, g->first_replica + r));
    }
    return TRM_OK;
}

static trm_status make_part(struct serve *s)
{
    int each, first = 0;

    if (s->group == NULL)
        return TRM_OK;
    each = s->group->tensor * s->group->pipeline;
    if (s->role == NULL)
        first = s->group->first + (s->number - s->group->first_replica) * each;
    return trm_job_part(&s->ranks.job, first, each, &s->part);
}

/* ---- how they meet ---- */

/* Whether a replica's leader is on another host than the coordinator. */
static bool is_remote(const struct serve *s)
{
    const trm_topology *t = trm_job_topology(&s->ranks.job);

    for (int i = 0; i < s->plan.group_count && s->role == NULL; i++)
        for (int r = 0; r < s->plan.groups[i].replicas; r++) {
            const trm_serve_group *g = &s->plan.groups[i];

            if (t->host_of[g->first + r * g->tensor * g->pipeline] != t->host_of[0])
                return true;
        }
    return false;
}

static const char *endpoint_of(const struct serve *s, bool remote, char *buf, size_t bytes)
{
    const char *listen = s->plan.c->zmq->listen;

    if (listen != NULL && strcmp(listen, "ipc") != 0) {
        const char *address = strncmp(listen, "tcp://", 6) == 0 ? listen + 6 : listen;

        snprintf(buf, bytes, "tcp://%s%s", address, strchr(address, ':') == NULL ? ":*" : "");
        return buf;
    }
    if (remote)
        return "tcp";
    return s->role == NULL && s->plan.replicas == 1 ? "inproc://serve" : "ipc";
}

static trm_status make_coordinator(struct serve *s)
{
    bool remote = is_remote(s);
    char buf[TRM_LINK_ENDPOINT_BYTES];
    trm_serve_coordinator_options o = {
        .plan = &s->plan, .context = s->context, .in_job = s->role == NULL, .listen = s->listen};
    int curve = s->plan.c->zmq->curve; /* auto|on|off */

    o.endpoint = endpoint_of(s, remote, buf, sizeof(buf));
    s->meeting.encrypted = strncmp(o.endpoint, "tcp", 3) == 0 && curve != 2;
    if (s->meeting.encrypted) {
        TRM_CHECK(trm_link_keys_create(&s->meeting.keys));
        trm_link_context_encrypt(s->context, &s->meeting.keys);
    }
    TRM_CHECK(trm_serve_coordinator_create(&o, &s->coordinator));
    snprintf(s->meeting.endpoint, sizeof(s->meeting.endpoint), "%s",
             trm_serve_coordinator_endpoint(s->coordinator));
    return TRM_OK;
}

static trm_status meet(struct serve *s)
{
    trm_job *job = &s->ranks.job;
    trm_status st = trm_link_context_create(&s->context);

    if (st == TRM_OK && coordinates(s))
        st = make_coordinator(s);
    TRM_CHECK(trm_job_agree(job, st, TRM_SETUP_TIMEOUT_MS));
    TRM_CHECK(trm_rendezvous_meet(job, s->run_dir, coordinates(s), MEET_MS, &s->meeting));
    if (s->meeting.encrypted && !coordinates(s))
        trm_link_context_encrypt(s->context, &s->meeting.keys);
    return TRM_OK;
}

/* ---- running ---- */

static trm_status serve_replica(struct serve *s, bool *lost)
{
    const trm_topology *t = trm_job_topology(&s->ranks.job);
    char identity[TRM_LINK_PEER_BYTES];
    trm_serve_options o = {.job = &s->part,
                           .replica_comm = s->replica_comm,
                           .stage_comm = s->stage_comm,
                           .tensor = s->group->tensor,
                           .pipeline = s->group->pipeline,
                           .device = s->ranks.device,
                           .threads = s->ranks.threads,
                           .cores = t->rank[0].cores * trm_topology_local_size(t, 0),
                           .memory_bytes = (size_t)s->plan.c->cluster->memory,
                           .objective = TRM_OBJECTIVE_LATENCY,
                           .context = s->context,
                           .endpoint = s->meeting.endpoint,
                           .identity = identity,
                           .rank = s->ranks.job.rank};

    snprintf(identity, sizeof(identity), "%d/%lld", s->number,
             (long long)(s->epoch > 0 ? s->epoch : 1));
    return trm_serve_run(&o, lost);
}

static trm_status run(struct serve *s)
{
    bool lost = false;
    char text[1024] = "";
    trm_status st = TRM_OK, theirs = TRM_OK;

    if (s->coordinator != NULL && s->group == NULL) {
        st = trm_serve_coordinator_run(s->coordinator);
        trm_rendezvous_withdraw(s->run_dir);
        return st;
    }
    if (s->coordinator != NULL)
        TRM_CHECK(trm_serve_coordinator_start(s->coordinator));
    st = serve_replica(s, &lost);
    if (st != TRM_OK)
        snprintf(text, sizeof(text), "%s", trm_message());
    if (s->coordinator != NULL) {
        theirs = trm_serve_coordinator_join(s->coordinator);
        lost = lost || trm_serve_coordinator_lost(s->coordinator);
    }
    if (lost)
        s->ranks.job.lost = true;
    if (theirs != TRM_OK)
        return theirs; /* the coordinator's word is the cause, the replica's its consequence */
    return st == TRM_OK ? TRM_OK : trm_fail(st, "%s", text);
}

static trm_status set_up(struct serve *s)
{
    trm_job *job = &s->ranks.job;
    trm_status st = trm_common_apply(&s->common);

    if (st == TRM_OK)
        st = check_options(s);
    if (st == TRM_OK)
        st = read_configuration(s);
    TRM_CHECK(trm_job_agree(job, st, TRM_SETUP_TIMEOUT_MS));
    if (s->group != NULL) {
        s->common.device = s->plan.c->cluster->device;
        s->common.deterministic = s->plan.c->cluster->deterministic;
        if (s->plan.c->cluster->threads > 0)
            s->common.threads = s->plan.c->cluster->threads;
        st = trm_ranks_device(&s->ranks, &s->common, s->plan.c->cluster->bind == 0);
    }
    TRM_CHECK(trm_job_agree(job, st, TRM_SETUP_TIMEOUT_MS));
    TRM_CHECK(trm_job_agree(job, make_comms(s), TRM_SETUP_TIMEOUT_MS));
    TRM_CHECK(make_part(s));
    if (job->rank == 0 && s->role == NULL && job->size > 1)
        fprintf(stderr,
                "trireme serve: %d ranks in one job: a rank that is lost ends it all; "
                "trireme launch restarts what is lost\n",
                job->size);
    return meet(s);
}

static void clean_up(struct serve *s)
{
    trm_serve_coordinator_destroy(s->coordinator);
    if (!s->ranks.job.lost)
        trm_link_context_destroy(s->context);
    trm_comm_destroy(s->stage_comm);
    trm_comm_destroy(s->replica_comm);
    if (s->part.topology != NULL)
        trm_job_part_end(&s->part, &s->ranks.job);
    trm_serve_plan_fini(&s->plan);
}

trm_status trm_cmd_serve(int argc, char **argv)
{
    struct serve s = {.common = TRM_COMMON_DEFAULTS, .replica = -1, .ranks = {.command = "serve"}};
    const trm_option options[] = {
        {"listen", TRM_OPTION_STRING, "ADDRESS:PORT", 0, 0, NULL,
         "instead of the configuration's gateway.listen", &s.listen},
        {"role", TRM_OPTION_STRING, "ROLE", 0, 0, "coordinator|replica",
         "this job is only that part (trireme launch)", &s.role},
        {"run-dir", TRM_OPTION_STRING, "DIR", 0, 0, NULL,
         "where the parts find each other: yours, mode 0700", &s.run_dir},
        {"replica", TRM_OPTION_INT, "N", 0, 65535, NULL, "which replica", &s.replica},
        {"epoch", TRM_OPTION_INT, "E", 1, INT32_MAX, NULL,
         "which of its lives: greater than any before", &s.epoch},
        TRM_LOG_OPTION(s.common),
    };
    trm_arguments args = {.command = "serve",
                          .usage = "CONFIG.yaml [--listen ADDRESS:PORT]",
                          .options = options,
                          .option_count = sizeof(options) / sizeof(options[0]),
                          .positional_min = 1,
                          .positional_max = 1};
    char text[1024] = "";
    trm_status st;

    trm_serve_block_signals();
    TRM_CHECK(trm_job_init(&s.ranks.job));
    if (trm_ranks_silent(&s.ranks, argc, argv))
        return trm_ranks_end(&s.ranks, TRM_OK);
    st = trm_options_parse(&args, argc, argv);
    if (st == TRM_OK && args.help)
        return trm_ranks_end(&s.ranks, TRM_OK);
    if (st == TRM_OK) {
        s.path = args.positionals[0];
        st = set_up(&s);
    }
    if (st == TRM_OK)
        st = run(&s);
    if (st != TRM_OK)
        snprintf(text, sizeof(text), "%s", trm_message());
    clean_up(&s);
    return trm_ranks_end(&s.ranks, st == TRM_OK ? TRM_OK : trm_fail(st, "%s", text));
}
