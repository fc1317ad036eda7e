/* A copy of the metrics to make text of, and what the system says of this process. */
#include "coordinator/metrics_impl.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static int compare_models(const void *a, const void *b)
{
    const trmi_model *x = a, *y = b;
    int order = strcmp(x->name, y->name);

    return order != 0 ? order : x->version < y->version ? -1 : x->version > y->version;
}

/* Numbers by their value: "10" behind "9". */
static int compare_replicas(const void *a, const void *b)
{
    const trmi_replica *x = a, *y = b;
    size_t xn = strlen(x->name), yn = strlen(y->name);

    if (xn != yn && strspn(x->name, "0123456789") == xn && strspn(y->name, "0123456789") == yn)
        return xn < yn ? -1 : 1;
    return strcmp(x->name, y->name);
}

static void add_pages(const trm_metrics *m, trmi_view *v)
{
    for (int r = 0; r < m->replica_count; r++)
        for (int s = 0; s < m->replicas[r]->slot_count; s++) {
            const trmi_slot *slot = &m->replicas[r]->slots[s];

            for (int i = 0; i < m->model_count && slot->model != NULL; i++)
                if (m->models[i] == slot->model) {
                    v->models[i].kv_pages += slot->last.kv_pages;
                    v->models[i].kv_pages_used += slot->last.kv_pages_used;
                    break;
                }
        }
}

static trm_status copy_replicas(const trm_metrics *m, trmi_view *v)
{
    for (int i = 0; i < m->replica_count; i++) {
        trmi_replica *r = &v->replicas[i];
        size_t ranks = (size_t)m->replicas[i]->rank_count;

        *r = *m->replicas[i];
        r->slots = NULL;
        r->slot_count = 0;
        r->ranks = NULL;
        v->replica_count = i + 1;
        if (ranks == 0)
            continue;
        r->ranks = trm_malloc(ranks, sizeof(*r->ranks));
        if (r->ranks == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "metrics: no memory for a copy");
        memcpy(r->ranks, m->replicas[i]->ranks, ranks * sizeof(*r->ranks));
    }
    return TRM_OK;
}

trm_status trmi_view_take(trm_metrics *m, trmi_view *view_out)
{
    trmi_view v = {0};
    uint64_t now;
    trm_status st = TRM_OK;

    pthread_mutex_lock(&m->mu);
    now = m->now_us();
    v.uptime_us = now > m->start_us ? now - m->start_us : 0;
    v.start_unix_ms = m->start_unix_ms;
    v.unix_ms = m->start_unix_ms + v.uptime_us / 1000;
    v.replicas_lost = m->replicas_lost;
    v.connections = m->connections;
    v.models = trm_malloc((size_t)m->model_count, sizeof(*v.models));
    v.replicas = trm_calloc((size_t)m->replica_count, sizeof(*v.replicas));
    v.routes = trm_malloc((size_t)m->route_count, sizeof(*v.routes));
    if (v.models == NULL || v.replicas == NULL || v.routes == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "metrics: no memory for a copy");
        goto done;
    }
    for (int i = 0; i < m->model_count; i++) {
        v.models[i] = *m->models[i];
        trmi_metrics_window_read(m->models[i]->window, now, &v.models[i].recent);
        v.models[i].window = NULL;
    }
    v.model_count = m->model_count;
    memcpy(v.routes, m->routes, (size_t)m->route_count * sizeof(*v.routes));
    v.route_count = m->route_count;
    add_pages(m, &v);
    TRM_TRY(st, copy_replicas(m, &v), done);
done:
    pthread_mutex_unlock(&m->mu);
    if (st != TRM_OK) {
        trmi_view_fini(&v);
        return st;
    }
    qsort(v.models, (size_t)v.model_count, sizeof(*v.models), compare_models);
    qsort(v.replicas, (size_t)v.replica_count, sizeof(*v.replicas), compare_replicas);
    *view_out = v;
    return TRM_OK;
}

void trmi_view_fini(trmi_view *view)
{
    for (int i = 0; i < view->replica_count; i++)
        trm_free(view->replicas[i].ranks);
    trm_free(view->replicas);
    trm_free(view->models);
    trm_free(view->routes);
    memset(view, 0, sizeof(*view));
}

/* ---- this process ---- */
static bool read_line(const char *path, char *line, int bytes)
{
    FILE *f = fopen(path, "re");
    bool got = f != NULL && fgets(line, bytes, f) != NULL;

    if (f != NULL)
        fclose(f);
    return got;
}

void trmi_process_read(trmi_process *out)
{
    char line[256];
    struct rusage usage;
    struct rlimit limit;
    DIR *fds;

    memset(out, 0, sizeof(*out));
    if (read_line("/proc/self/statm", line, sizeof(line))) { /* pages: size resident ... */
        uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        char *end;

        out->virtual_bytes = strtoull(line, &end, 10) * page;
        out->resident_bytes = strtoull(end, NULL, 10) * page;
    }
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        out->cpu_us =
            ((uint64_t)usage.ru_utime.tv_sec + (uint64_t)usage.ru_stime.tv_sec) * 1000000 +
            (uint64_t)usage.ru_utime.tv_usec + (uint64_t)usage.ru_stime.tv_usec;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        out->max_fds = limit.rlim_cur;
    fds = opendir("/proc/self/fd");
    if (fds == NULL)
        return;
    for (const struct dirent *e = readdir(fds); e != NULL; e = readdir(fds))
        out->open_fds += e->d_name[0] != '.';
    closedir(fds);
    out->open_fds -= out->open_fds > 0; /* the folder itself */
}
