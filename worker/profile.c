/* What the executor tells of its last run: numbers, and time per kernel. */
#include "worker/engine_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void trm_engine_get_stats(const trm_engine *e, trm_engine_stats *stats)
{
    memset(stats, 0, sizeof(*stats));
    for (const trmi_segment *s = e->root.children; s != NULL; s = s->next)
        stats->programs++;
    stats->segments = e->segment_count;
    for (int i = 0; i < e->level_count; i++)
        stats->arena_bytes += e->arenas[TRMI_DEVICE][i].bytes;
    stats->constant_bytes = e->constant_bytes;
    stats->workspace_bytes = e->workspace[TRMI_DEVICE].bytes;
    for (const trmi_segment *s = e->ran; s != NULL && s != &e->root; s = s->parent) {
        stats->kernels += s->step_count;
        stats->copied_bytes += s->copied_bytes;
        for (int i = 0; i < s->step_count; i++)
            stats->host_kernels += s->steps[i].place == TRMI_HOST;
        for (int i = 0; i < s->stretch_count; i++)
            stats->captures += s->stretches[i].taken[0].capture != NULL ||
                               s->stretches[i].taken[1].capture != NULL;
    }
}

void trm_engine_host_operators(const trm_engine *e, char *text, size_t bytes)
{
    text[0] = '\0';
    for (const trmi_segment *s = e->ran; s != NULL && s != &e->root; s = s->parent) {
        for (int i = 0; i < s->step_count; i++) {
            const trmi_step *step = &s->steps[i];
            const char *name;

            if (step->place != TRMI_HOST || step->node < 0)
                continue;
            name = trm_op_get(e->graph->nodes[step->node].op)->name;
            if (strstr(text, name) == NULL && strlen(text) + strlen(name) + 3 < bytes) {
                if (text[0] != '\0')
                    strcat(text, ", ");
                strcat(text, name);
            }
        }
    }
}

struct profile_row {
    const trmi_step *step;
};

static int slower_first(const void *a, const void *b)
{
    const trmi_step *x = ((const struct profile_row *)a)->step,
                    *y = ((const struct profile_row *)b)->step;

    return x->ns < y->ns ? 1 : x->ns > y->ns ? -1 : 0;
}

void trm_engine_profile(const trm_engine *e, void *file)
{
    FILE *f = file;
    struct profile_row *rows;
    int count = 0, n = 0;
    uint64_t total = 0;

    for (const trmi_segment *s = e->ran; s != NULL && s != &e->root; s = s->parent)
        count += s->step_count;
    rows = trm_malloc((size_t)count + 1, sizeof(*rows));
    if (rows == NULL)
        return;
    for (const trmi_segment *s = e->ran; s != NULL && s != &e->root; s = s->parent) {
        for (int i = 0; i < s->step_count; i++) {
            rows[n++].step = &s->steps[i];
            total += s->steps[i].ns;
        }
    }
    qsort(rows, (size_t)count, sizeof(*rows), slower_first);
    fprintf(f, "%10s %6s %6s  %-22s %-28s %s\n", "us/run", "share", "runs", "operator", "kernel",
            "node");
    for (int i = 0; i < count; i++) {
        const trmi_step *s = rows[i].step;
        const trm_node *node = s->node >= 0 ? &e->graph->nodes[s->node] : NULL;

        fprintf(f, "%10.1f %5.1f%% %6" PRIu64 "  %-22s %-28s %s\n",
                s->runs == 0 ? 0.0 : (double)s->ns / 1e3 / (double)s->runs,
                total == 0 ? 0.0 : 100.0 * (double)s->ns / (double)total, s->runs,
                node == NULL ? "reorder" : trm_op_get(node->op)->name,
                s->kernel == NULL ? "body" : s->kernel->ops->name, node == NULL ? "" : node->name);
    }
    trm_free(rows);
}
