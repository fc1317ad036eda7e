/* Numbers of a benchmark, printed by rank 0; ranks tell theirs one after another. */
#include "launch/bench_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct rank_report {
    trm_place place;
    bool has_part;
    trm_replica_memory memory;
    trm_comm_stats comm; /* replica and stage together */
};

/* A JSON string. */
static void print_quoted(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20)
            printf("\\u%04x", (unsigned char)*text);
        else
            printf(*text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    }
    putchar('"');
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y ? 1 : 0;
}

static void add_stats(trm_comm_stats *to, const trm_comm *c)
{
    trm_comm_stats s;

    if (c == NULL)
        return;
    trm_comm_get_stats(c, &s);
    to->collectives += s.collectives;
    to->messages += s.messages;
    to->collective_bytes += s.collective_bytes;
    to->message_bytes += s.message_bytes;
    to->wait_us += s.wait_us;
}

static trm_status gather(trm_ranks *r, struct rank_report *all)
{
    for (int i = 0; i < r->job.size; i++) {
        struct rank_report *mine = &all[i];
        const trm_tensor_model *m = r->model;

        if (i == r->job.rank) {
            mine->place = m->place;
            mine->has_part = m->replica != NULL;
            if (mine->has_part)
                trm_replica_get_memory(m->replica, &mine->memory);
            add_stats(&mine->comm, m->replica_comm);
            add_stats(&mine->comm, m->stage_comm);
        }
        TRM_CHECK(trm_job_bcast(&r->job, mine, sizeof(*mine), i, TRM_SETUP_TIMEOUT_MS));
    }
    return TRM_OK;
}

static void print_ranks_json(const trm_ranks *r, const struct rank_report *all)
{
    const trm_tensor_model *m = r->model;
    char text[80];

    printf(", \"layout\": \"%s\", \"ranks\": [",
           trm_parallel_text(&m->parallel, text, sizeof(text)));
    for (int i = 0; i < r->job.size; i++) {
        const struct rank_report *a = &all[i];

        printf("%s{\"rank\": %d", i > 0 ? ", " : "", i);
        if (a->has_part)
            printf(", \"stage\": %d, \"shard\": %d, \"weights_private\": %zu, "
                   "\"weights_shared\": %zu, \"weights_mapped\": %zu, \"activations\": %zu, "
                   "\"communicators\": %zu, \"collectives\": %" PRIu64
                   ", \"collective_bytes\": %" PRIu64 ", \"messages\": %" PRIu64
                   ", \"message_bytes\": %" PRIu64 ", \"comm_us\": %" PRIu64,
                   a->place.stage, a->place.shard, a->memory.weights_private,
                   a->memory.weights_shared, a->memory.weights_mapped, a->memory.activations,
                   a->memory.communicators, a->comm.collectives, a->comm.collective_bytes,
                   a->comm.messages, a->comm.message_bytes, a->comm.wait_us);
        printf("}");
    }
    printf("]");
    if (m->plan != NULL && m->plan->chosen >= 0 && m->plan->chosen < m->plan->candidate_count)
        printf(", \"predicted_ms\": %.4f", m->plan->candidates[m->plan->chosen].step_us / 1e3);
}

static void print_device_json(const trm_ranks *r)
{
    trm_engine_stats stats;

    if (r->device->host_memory || r->model->replica == NULL)
        return;
    trm_engine_get_stats(trm_replica_engine(r->model->replica), &stats);
    printf(", \"kernels\": %d, \"host_kernels\": %d, \"copied_bytes\": %zu, \"captures\": %d",
           stats.kernels, stats.host_kernels, stats.copied_bytes, stats.captures);
}

static void print_json(const trm_ranks *r, const trm_bench_result *b, const double *sorted,
                       const struct rank_report *all)
{
    trm_device_info info;

    r->device->ops->info(r->device, &info);
    printf("{\"model\": ");
    print_quoted(b->path);
    printf(", \"device\": \"%s\", \"threads\": %d, \"dtype\": \"%s\", \"batch\": %" PRId64
           ", \"load_ms\": %.3f, \"first_ms\": %.3f, \"median_ms\": %.4f, \"min_ms\": %.4f",
           info.name, info.threads, b->dtype, b->batch, b->load_ms, b->first_ms,
           sorted[b->rounds / 2], sorted[0]);
    if (b->flow_ms > 0)
        printf(", \"flow_ms\": %.4f", b->flow_ms);
    print_device_json(r);
    print_ranks_json(r, all);
    printf(", \"ms\": [");
    for (int64_t i = 0; i < b->rounds; i++)
        printf("%s%.4f", i > 0 ? ", " : "", b->ms[i]);
    printf("]}\n");
}

static void print_table(const trm_ranks *r, const trm_bench_result *b, const double *sorted,
                        const struct rank_report *all)
{
    size_t n = (size_t)b->rounds;
    trm_engine_stats stats;
    trm_device_info info;
    double sum = 0, step = b->flow_ms > 0 ? b->flow_ms : sorted[n / 2];

    for (size_t i = 0; i < n; i++)
        sum += sorted[i];
    r->device->ops->info(r->device, &info);
    trm_engine_get_stats(trm_replica_engine(r->model->replica), &stats);
    printf("model     %s (%s, batch %" PRId64 ", %s)\n", b->path, b->dtype, b->batch, info.name);
    if (!r->device->host_memory)
        printf("device    %d of %d kernels on the host, %.3f MB copied for them, %d captured "
               "stretches, "
               "weights %.1f MB\n",
               stats.host_kernels, stats.kernels, (double)stats.copied_bytes / 1e6, stats.captures,
               (double)(stats.constant_bytes + r->device->packed_bytes) / 1e6);
    printf("load      %.1f ms, first step %.1f ms, %d kernels, %.1f MB of activations\n",
           b->load_ms, b->first_ms, stats.kernels, (double)stats.arena_bytes / 1e6);
    printf("step      median %.3f ms, min %.3f, mean %.3f, p90 %.3f, p99 %.3f, max %.3f (%" PRId64
           " steps)\n",
           sorted[n / 2], sorted[0], sum / (double)n, sorted[n * 9 / 10], sorted[n * 99 / 100],
           sorted[n - 1], b->rounds);
    if (b->flow_ms > 0)
        printf("flow      %.3f ms a step with %d under way\n", b->flow_ms,
               trm_replica_depth(r->model->replica));
    printf("rate      %.2f records/s\n", 1e3 * (double)b->batch / step);
    if (r->job.size == 1)
        return;
    trm_ranks_describe(r, stdout);
    for (int i = 0; i < r->job.size; i++) {
        const struct rank_report *a = &all[i];

        if (!a->has_part) {
            printf("rank %-4d no part\n", i);
            continue;
        }
        printf("rank %-4d stage %d, shard %d: weights %.1f MB (%.1f of them mapped, %.1f shared), "
               "activations %.1f; %" PRIu64 " collectives of %.1f MB, %" PRIu64
               " messages of %.1f MB, %.1f ms in them\n",
               i, a->place.stage, a->place.shard,
               (double)(a->memory.weights_private + a->memory.weights_shared +
                        a->memory.weights_mapped) /
                   1e6,
               (double)a->memory.weights_mapped / 1e6, (double)a->memory.weights_shared / 1e6,
               (double)a->memory.activations / 1e6, a->comm.collectives,
               (double)a->comm.collective_bytes / 1e6, a->comm.messages,
               (double)a->comm.message_bytes / 1e6, (double)a->comm.wait_us / 1e3);
    }
}

trm_status trm_bench_report(trm_ranks *r, trm_status st, const trm_bench_result *b, bool json)
{
    struct rank_report *all;
    double *sorted;

    if (st == TRM_ERR_COMM)
        return st;
    TRM_CHECK(trm_job_agree(&r->job, st, TRM_WORK_TIMEOUT_MS));
    all = trm_calloc((size_t)r->job.size, sizeof(*all));
    sorted = trm_malloc((size_t)b->rounds, sizeof(*sorted));
    st = all == NULL || sorted == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "report") : gather(r, all);
    if (st == TRM_OK && r->job.rank == 0) {
        for (int64_t i = 0; i < b->rounds; i++)
            sorted[i] = b->ms[i];
        qsort(sorted, (size_t)b->rounds, sizeof(*sorted), ascending);
        if (json)
            print_json(r, b, sorted, all);
        else
            print_table(r, b, sorted, all);
    }
    trm_free(all);
    trm_free(sorted);
    return st;
}
