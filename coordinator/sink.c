/* Finds the sink for a path. */
#include "coordinator/sink.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static const struct {
    const char *extension;
    trm_status (*open)(const char *path, const trm_sink_options *options, trm_sink **sink_out);
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

/* Opens the output for writing once, and leaves everything as it was. */
static trm_status try_to_write(const char *path)
{
    bool there = trm_path_exists(path);
    int e, fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);

    if (fd >= 0) {
        close(fd);
        if (!there)
            unlink(path);
        return TRM_OK;
    }
    e = errno;
    return trm_fail(e == ENOSPC || e == EDQUOT || e == EIO ? TRM_ERR_IO : TRM_ERR_INVALID_ARG,
                    "output '%s' cannot be written: %s", path, strerror(e));
}

trm_status trm_sink_check(const char *path, const trm_sink_options *options)
{
    int format = format_of(path);
    char *dir;
    bool there;

    if (format < 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "output '%s': want .jsonl, .csv or .npy", path);
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

trm_status trm_sink_open(const char *path, const trm_sink_options *options, trm_sink **sink_out)
{
    TRM_CHECK(trm_sink_check(path, options));
    return formats[format_of(path)].open(path, options, sink_out);
}

trm_status trm_sink_write(trm_sink *s, const trm_taken *taken)
{
    TRM_CHECK(s->ops->write(s, taken));
    s->rows++;
    return TRM_OK;
}

trm_status trm_sink_flush(trm_sink *s)
{
    return s->ops->flush(s);
}

trm_status trm_sink_close(trm_sink *s)
{
    return s != NULL ? s->ops->close(s) : TRM_OK;
}

const trm_wire_tensor *trmi_sink_output(const trm_wire_result *result, const char *name)
{
    for (int i = 0; i < result->output_count; i++)
        if (name == NULL || strcmp(result->outputs[i].name, name) == 0)
            return &result->outputs[i];
    return NULL;
}
