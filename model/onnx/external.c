/* Tensors whose bytes lie in another file. The location is a path relative to the model's folder
 * and, links resolved, must stay inside it: a model is data from strangers, and must not make us
 * read what they could not. */
#include "model/onnx/onnx_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool has_parent_step(const char *path)
{
    for (const char *p = path; (p = strstr(p, "..")) != NULL; p += 2)
        if ((p == path || p[-1] == '/') && (p[2] == '\0' || p[2] == '/'))
            return true;
    return false;
}

static trm_status model_folder(trmi_import *im)
{
    char *dir;

    if (im->folder != NULL)
        return TRM_OK;
    dir = trm_path_dir(trm_file_path(im->file));
    if (dir == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "external data");
    im->folder = realpath(dir, NULL);
    trm_free(dir);
    if (im->folder == NULL)
        return trm_fail(TRM_ERR_IO, "folder of '%s': %s", trm_file_path(im->file), strerror(errno));
    return TRM_OK;
}

static trm_status open_inside(trmi_import *im, const trmi_onnx_tensor *t, trm_file **file_out)
{
    char *path = trm_path_join(im->folder, t->location);
    char *real = NULL;
    size_t n = strlen(im->folder);
    trm_status st = TRM_OK;

    if (path == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "external data");
    real = realpath(path, NULL);
    if (real == NULL) {
        st = trm_fail(TRM_ERR_NOT_FOUND, "tensor '%s': external data file '%s': %s", t->name, path,
                      strerror(errno));
        goto done;
    }
    if (strncmp(real, im->folder, n) != 0 || (real[n] != '/' && n > 1)) {
        st = trm_fail(TRM_ERR_BAD_FILE,
                      "tensor '%s': external data '%s' leads out of the model's folder", t->name,
                      t->location);
        goto done;
    }
    st = trm_file_open(real, file_out);
    if (st != TRM_OK)
        st = trm_fail_context(st, "tensor '%s': external data", t->name);
done:
    trm_free(path);
    free(real); /* realpath's own allocation */
    return st;
}

static trm_status remember(trmi_import *im, const char *name, trm_file *file)
{
    size_t n = (size_t)im->extern_count + 1;
    trm_file **files = (trm_file **)trm_realloc(im->extern_files, n, sizeof(trm_file *));
    const char **names;

    if (files == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "external data");
    im->extern_files = files;
    names = (const char **)trm_realloc(im->extern_names, n, sizeof(const char *));
    if (names == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "external data");
    im->extern_names = names;
    files[n - 1] = file;
    names[n - 1] = name;
    im->extern_count++;
    return TRM_OK;
}

static trm_status get_file(trmi_import *im, const trmi_onnx_tensor *t, trm_file **file_out)
{
    trm_file *file = NULL;
    trm_status st;

    for (int i = 0; i < im->extern_count; i++) {
        if (strcmp(im->extern_names[i], t->location) == 0) {
            *file_out = im->extern_files[i];
            return TRM_OK;
        }
    }
    if (t->location[0] == '/' || has_parent_step(t->location))
        return trm_fail(TRM_ERR_BAD_FILE,
                        "tensor '%s': external data '%s' is not a path inside the model's folder",
                        t->name, t->location);
    TRM_CHECK(model_folder(im));
    TRM_CHECK(open_inside(im, t, &file));
    st = remember(im, t->location, file);
    if (st != TRM_OK) {
        trm_file_unref(file);
        return st;
    }
    *file_out = file;
    return TRM_OK;
}

trm_status trmi_external_open(trmi_import *im, const trmi_onnx_tensor *t, trm_file **file_out)
{
    size_t file_bytes;

    TRM_CHECK(get_file(im, t, file_out));
    if (t->length >= 0 && (uint64_t)t->length != t->bytes)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "tensor '%s' wants %zu bytes, its external data has length %" PRId64,
                        t->name, t->bytes, t->length);
    file_bytes = trm_file_bytes(*file_out);
    if (t->offset > file_bytes || t->bytes > file_bytes - t->offset)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "tensor '%s' wants bytes [%" PRIu64 ", +%zu) of external data '%s', which "
                        "has %zu bytes",
                        t->name, t->offset, t->bytes, t->location, file_bytes);
    return TRM_OK;
}
