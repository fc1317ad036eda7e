/* A layout: its text, and who stands where in it. */
#include "parallel/planner.h"

#include "parallel/planner_impl.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[3] = {"data", "tensor", "pipeline"};

static int *part_of(trm_parallel *p, int which)
{
    return which == 0 ? &p->data : which == 1 ? &p->tensor : &p->pipeline;
}

/* One "name=N" of `text`. */
static trm_status parse_part(const char *text, const char *item, size_t bytes, trm_parallel *p,
                             bool *seen)
{
    const char *equals = memchr(item, '=', bytes);
    size_t name = equals == NULL ? bytes : (size_t)(equals - item);
    char *end = NULL;
    long value;

    for (int i = 0; i < 3; i++) {
        if (strlen(names[i]) != name || strncmp(names[i], item, name) != 0)
            continue;
        if (seen[i])
            return trm_fail(TRM_ERR_INVALID_ARG, "'%.100s': %s is given twice", text, names[i]);
        seen[i] = true;
        if (equals != NULL && bytes - name == 5 && strncmp(equals + 1, "auto", 4) == 0) {
            *part_of(p, i) = 0;
            return TRM_OK;
        }
        /* strtol takes blanks and signs: the first character must be a digit */
        value = equals != NULL && equals[1] >= '0' && equals[1] <= '9'
                    ? strtol(equals + 1, &end, 10)
                    : -1;
        if (value < 1 || value > TRMI_RANKS_MAX || end != item + bytes)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "'%.100s': %s must be a number from 1 to %d, or auto", text, names[i],
                            TRMI_RANKS_MAX);
        *part_of(p, i) = (int)value;
        return TRM_OK;
    }
    return trm_fail(TRM_ERR_INVALID_ARG, "'%.100s': '%.*s' is none of data=N, tensor=N, pipeline=N",
                    text, (int)(bytes < 60 ? bytes : 60), item);
}

trm_status trm_parallel_parse(const char *text, trm_parallel *parallel_out)
{
    trm_parallel p = {.data = 1, .tensor = 1, .pipeline = 1};
    bool seen[3] = {false, false, false};

    if (strcmp(text, "auto") == 0) {
        *parallel_out = (trm_parallel){0};
        return TRM_OK;
    }
    for (const char *at = text;; at++) {
        size_t bytes = strcspn(at, ",");

        TRM_CHECK(parse_part(text, at, bytes, &p, seen));
        at += bytes;
        if (*at == '\0')
            break;
    }
    if (p.tensor * p.pipeline > TRMI_REPLICA_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "'%.100s': a replica of %d ranks; tensor x pipeline is at most %d", text,
                        p.tensor * p.pipeline, TRMI_REPLICA_MAX);
    *parallel_out = p;
    return TRM_OK;
}

char *trm_parallel_text(const trm_parallel *p, char *buf, size_t bytes)
{
    size_t used = 0;

    if (p->data == 0 && p->tensor == 0 && p->pipeline == 0) {
        (void)snprintf(buf, bytes, "auto");
        return buf;
    }
    for (int i = 0; i < 3 && used < bytes; i++) {
        int value = i == 0 ? p->data : i == 1 ? p->tensor : p->pipeline;
        char number[16] = "auto";

        if (value > 0)
            (void)snprintf(number, sizeof(number), "%d", value);
        used += (size_t)snprintf(buf + used, bytes - used, "%s%s=%s", i > 0 ? "," : "", names[i],
                                 number);
    }
    return buf;
}

trm_place trm_parallel_place(const trm_parallel *p, int rank)
{
    int replica_ranks = p->tensor * p->pipeline;

    return (trm_place){.replica = rank / replica_ranks,
                       .stage = rank % replica_ranks / p->tensor,
                       .shard = rank % p->tensor};
}

char *trmi_bytes_text(size_t bytes, char *buf)
{
    if (bytes >= 1000000000)
        (void)snprintf(buf, TRMI_BYTES_TEXT, "%.2f GB", (double)bytes / 1e9);
    else if (bytes >= 100000)
        (void)snprintf(buf, TRMI_BYTES_TEXT, "%.1f MB", (double)bytes / 1e6);
    else if (bytes < 100)
        (void)snprintf(buf, TRMI_BYTES_TEXT, "%zu B", bytes);
    else
        (void)snprintf(buf, TRMI_BYTES_TEXT, "%.1f kB", (double)bytes / 1e3);
    return buf;
}
