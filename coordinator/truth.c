/* A sorted table of (file, label) in one arena. */
#define _GNU_SOURCE
#include "coordinator/truth.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row {
    const char *file, *label;
};

struct trm_truth {
    trm_arena *arena;
    struct row *rows;
    size_t count, count_max;
};

static int by_file(const void *a, const void *b)
{
    return strcmp(((const struct row *)a)->file, ((const struct row *)b)->file);
}

static trm_status add(trm_truth *t, char *line, size_t number, const char *path)
{
    char *comma = strchr(line, ',');
    struct row *row;

    if (comma == NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "%s:%zu: want file,label", path, number);
    *comma = '\0';
    if (number == 1 && strcmp(comma + 1, "label") == 0)
        return TRM_OK;
    if (t->count == t->count_max) {
        size_t room = t->count_max == 0 ? 256 : t->count_max * 2;
        struct row *grown = trm_realloc(t->rows, room, sizeof(*grown));

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "%s: %zu labels", path, room);
        t->rows = grown;
        t->count_max = room;
    }
    row = &t->rows[t->count];
    row->file = trm_arena_strdup(t->arena, line);
    row->label = trm_arena_strdup(t->arena, comma + 1);
    if (row->file == NULL || row->label == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%s: a label", path);
    t->count++;
    return TRM_OK;
}

static trm_status read_lines(trm_truth *t, FILE *file, const char *path)
{
    char *line = NULL;
    size_t room = 0, number = 0;
    trm_status st = TRM_OK;
    ssize_t n;

    while (st == TRM_OK && (n = getline(&line, &room, file)) >= 0) {
        number++;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = '\0';
        if (n > 0)
            st = add(t, line, number, path);
    }
    if (st == TRM_OK && ferror(file))
        st = trm_fail(TRM_ERR_IO, "%s: %s", path, strerror(errno));
    free(line);
    return st;
}

trm_status trm_truth_open(const char *path, trm_truth **truth_out)
{
    trm_truth *t = NULL;
    FILE *file = fopen(path, "re");
    trm_status st;

    if (file == NULL)
        return trm_fail(errno == ENOENT ? TRM_ERR_NOT_FOUND : TRM_ERR_IO, "labels '%s': %s", path,
                        strerror(errno));
    t = trm_calloc(1, sizeof(*t));
    if (t == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "labels");
        goto fail;
    }
    TRM_TRY(st, trm_arena_create(0, &t->arena), fail);
    TRM_TRY(st, read_lines(t, file, path), fail);
    if (t->count == 0) {
        st = trm_fail(TRM_ERR_BAD_FILE, "labels '%s': no file,label line in it", path);
        goto fail;
    }
    qsort(t->rows, t->count, sizeof(*t->rows), by_file);
    for (size_t i = 1; i < t->count; i++) {
        if (strcmp(t->rows[i].file, t->rows[i - 1].file) == 0) {
            st = trm_fail(TRM_ERR_BAD_FILE, "labels '%s': '%s' is listed twice", path,
                          t->rows[i].file);
            goto fail;
        }
    }
    fclose(file);
    *truth_out = t;
    return TRM_OK;

fail:
    fclose(file);
    trm_truth_close(t);
    return st;
}

void trm_truth_close(trm_truth *truth)
{
    if (truth == NULL)
        return;
    trm_arena_destroy(truth->arena);
    trm_free(truth->rows);
    trm_free(truth);
}

const char *trm_truth_label(const trm_truth *truth, const char *name)
{
    struct row key = {.file = name};
    const struct row *hit;
    const char *slash = strrchr(name, '/');

    hit = bsearch(&key, truth->rows, truth->count, sizeof(*truth->rows), by_file);
    if (hit == NULL && slash != NULL) {
        key.file = slash + 1;
        hit = bsearch(&key, truth->rows, truth->count, sizeof(*truth->rows), by_file);
    }
    return hit != NULL ? hit->label : NULL;
}
