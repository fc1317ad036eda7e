/* Finds the sink for a path. */
#include "coordinator/sink.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define ENTRY_BYTES                                                                                \
    (256 << 10) /* an entry for each row of a .npy would be as large as a small row */

static const struct {
    const char *extension;
    trm_status (*open)(const char *path, const trm_sink_options *options,
                       const trm_journal_mark *from, trm_sink **sink_out);
} formats[] = {
    {"jsonl", trmi_sink_jsonl},
    {"ndjson", trmi_sink_jsonl},
    {"csv", trmi_sink_csv},
    {"npy", trmi_sink_npy},
};

static int format_of(const char *path)
{
    for (int i = 0; i < (int)(sizeof(formats) / sizeof(formats[0])); i++)
        if (strcasecmp(trm_path_extension(path), formats[i].extension) == 0)
            return i;
    return -1;
}

/* Opens an output that is there. Whether one can be made, its journal tells, which is made first:
 * to make it here would take it from a run that has made it a moment ago. */
static trm_status try_to_write(const char *path)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd >= 0) {
        close(fd);
        return TRM_OK;
    }
    if (errno == ENOENT)
        return TRM_OK;
    return trm_fail(errno == EIO ? TRM_ERR_IO : TRM_ERR_INVALID_ARG,
                    "output '%s' cannot be written: %s", path, strerror(errno));
}

trm_status trm_sink_check(const char *path, const trm_sink_options *options)
{
    int format = format_of(path);
    char *dir;
    bool there;

    if (format < 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "output '%s': want .jsonl, .csv or .npy", path);
    if (options->requests && formats[format].open == trmi_sink_csv)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "output '%s': answers want .jsonl, embeddings .jsonl or .npy", path);
    if (options->resume && options->overwrite)
        return trm_fail(TRM_ERR_INVALID_ARG, "--resume and --overwrite exclude each other");
    if (trm_path_is_dir(path))
        return trm_fail(TRM_ERR_INVALID_ARG, "output '%s' is a folder: want a file", path);
    if (!options->resume && !options->overwrite && trm_path_exists(path))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "output '%s' exists: --resume goes on with it, --overwrite replaces it",
                        path);
    dir = trm_path_dir(path);
    there = dir != NULL && trm_path_is_dir(dir);
    trm_free(dir);
    if (!there)
        return trm_fail(TRM_ERR_NOT_FOUND, "output '%s': its folder does not exist", path);
    if (formats[format].open == trmi_sink_csv && options->label_count == 0 && options->columns < 0)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "output '%s': this model's output has no fixed number of columns: want "
                        ".jsonl",
                        path);
    return try_to_write(path);
}

trm_status trm_sink_open(const char *path, const trm_sink_options *options, trm_journal *journal,
                         trm_sink **sink_out)
{
    trm_journal_mark from = {0};
    trm_sink *s = NULL;

    TRM_CHECK(trm_sink_check(path, options));
    if (journal != NULL)
        from = *trm_journal_last(journal);
    TRM_CHECK(formats[format_of(path)].open(path, options, &from, &s));
    s->journal = journal;
    s->rows = from.records;
    s->errors = from.errors;
    s->at = from;
    s->from = from.bytes;
    trm_hash_init(&s->hash, 0);
    *sink_out = s;
    return TRM_OK;
}

/* Enters in the journal what was written since, if it is a good deal, or `all` of it. */
static trm_status enter(trm_sink *s, bool all)
{
    if (s->journal == NULL || s->at.bytes == s->from ||
        (!all && s->at.bytes - s->from < ENTRY_BYTES))
        return TRM_OK;
    TRM_CHECK(trm_journal_add(s->journal, &s->at, s->from, trm_hash_value(&s->hash)));
    s->from = s->at.bytes;
    trm_hash_init(&s->hash, 0);
    return TRM_OK;
}

trm_status trm_sink_write(trm_sink *s, const trm_taken *taken)
{
    bool failed = taken->result.status != TRM_OK;
    trm_status st;

    s->rows++;
    s->errors += failed;
    st = s->ops->write(s, taken);
    if (st != TRM_OK) {
        s->rows--;
        s->errors -= failed;
        return st;
    }
    return enter(s, false);
}

trm_status trm_sink_flush(trm_sink *s)
{
    TRM_CHECK(s->ops->flush(s));
    return enter(s, true);
}

trm_status trm_sink_close(trm_sink *s)
{
    char text[1024];
    trm_status st, closed;

    if (s == NULL)
        return TRM_OK;
    st = trm_sink_flush(s);
    if (st != TRM_OK)
        snprintf(text, sizeof(text), "%s", trm_message());
    closed = s->ops->close(s);
    return st == TRM_OK ? closed : trm_fail(st, "%s", text);
}

const trm_wire_tensor *trmi_sink_output(const trm_wire_result *result, const char *name)
{
    for (int i = 0; i < result->output_count; i++)
        if (name == NULL || strcmp(result->outputs[i].name, name) == 0)
            return &result->outputs[i];
    return NULL;
}
