/* What a user handed over: ONNX, or something that has a name and a way to become ONNX. */
#define _GNU_SOURCE /* memmem */
#include "model/package_impl.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool starts(const trm_file *f, size_t at, const char *magic, size_t bytes)
{
    return trm_file_bytes(f) >= at + bytes && memcmp(trm_file_data(f) + at, magic, bytes) == 0;
}

static bool contains(const trm_file *f, size_t from, size_t bytes, const char *text)
{
    size_t all = trm_file_bytes(f);

    if (from > all)
        return false;
    return memmem(trm_file_data(f) + from, bytes < all - from ? bytes : all - from, text,
                  strlen(text)) != NULL;
}

/* torch.save's zip and TorchScript's both hold <name>/data.pkl; older files are bare pickles. The
 * names of members are repeated at the end of a zip, in its directory. */
static bool is_pytorch(const trm_file *f, bool *script)
{
    const unsigned char *p = trm_file_data(f);
    size_t bytes = trm_file_bytes(f), window = (size_t)1 << 20;
    size_t tail = bytes > window ? bytes - window : 0;

    *script = false;
    if (starts(f, 0, "PK\3\4", 4)) {
        *script =
            contains(f, tail, window, "/constants.pkl") || contains(f, tail, window, "/code/");
        return contains(f, 0, 4096, "/data.pkl") || contains(f, tail, window, "/data.pkl") ||
               *script;
    }
    /* protocol 2 to 5; the next opcode of torch.save is a long, a mark, or a global */
    return bytes >= 4 && p[0] == 0x80 && p[1] >= 2 && p[1] <= 5;
}

/* 8 bytes of header length, then JSON. */
static bool is_safetensors(const trm_file *f)
{
    trm_cursor c = trm_cursor_make(trm_file_data(f), trm_file_bytes(f));
    uint64_t header_bytes = trm_cursor_u64(&c);

    return !c.failed && header_bytes >= 2 && header_bytes <= trm_cursor_left(&c) &&
           trm_cursor_u8(&c) == '{';
}

static trm_status fail_pytorch(const trm_file *f, bool script)
{
    const char *path = trm_file_path(f);
    char *stem = trm_path_stem(path);
    trm_status st;

    st = trm_fail(TRM_ERR_UNSUPPORTED,
                  "'%s' is a %s file, which runs only inside PyTorch; with model = %s in Python, "
                  "call once: torch.onnx.export(model.eval(), torch.randn(1, 3, 224, 224), "
                  "\"%s.onnx\", input_names=[\"input\"], output_names=[\"output\"], "
                  "dynamic_axes={\"input\": {0: \"batch\"}, \"output\": {0: \"batch\"}}, "
                  "opset_version=17), with a second argument of the shape your model takes, and "
                  "give %s.onnx here (docs/from-pytorch.md)",
                  path, script ? "TorchScript" : "PyTorch",
                  script ? "torch.jit.load(that file)" : "your network with these weights loaded",
                  stem == NULL ? "model" : stem, stem == NULL ? "model" : stem);
    trm_free(stem);
    return st;
}

static const struct {
    size_t at;
    const char *magic;
    size_t bytes;
    const char *name, *advice;
} formats[] = {
    {0, "GGUF", 4, "a GGUF language model", ""},
    {0, "\x89HDF\r\n\x1a\n", 8, "an HDF5 file (Keras)", "; tf2onnx makes ONNX of it"},
    {4, "TFL3", 4, "a TensorFlow Lite model", "; tf2onnx makes ONNX of it"},
    {4, "ORTM", 4, "a model in onnxruntime's own .ort format", "; give the .onnx it was made from"},
    {0, "version https://git-lfs", 23, "a Git LFS pointer, not the model",
     "; 'git lfs pull' fetches it"},
    {0, "<?xml", 5, "an XML file (OpenVINO)", "; give the .onnx it was made from"},
    {0, "PK\3\4", 4, "a zip archive without a PyTorch model in it", ""},
    {0, "\x1f\x8b", 2, "a gzip file", "; unpack it first"},
    {0, "\x89PNG", 4, "a PNG image", ""},
    {0, "\xff\xd8\xff", 3, "a JPEG image", ""},
    {0, "\x93NUMPY", 6, "a NumPy array", ""},
    {0,
     "\x7f"
     "ELF",
     4, "an ELF program", ""},
};

trm_status trmi_package_check_format(const trm_file *file)
{
    const char *path = trm_file_path(file);
    const unsigned char *p = trm_file_data(file);
    size_t bytes = trm_file_bytes(file), shown = bytes < 16 ? bytes : 16;
    bool script = false, text = true;
    char hex[3 * 16 + 1] = "", readable[17] = "";

    if (bytes == 0)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s' is empty; an ONNX model is wanted", path);
    if (is_pytorch(file, &script))
        return fail_pytorch(file, script);
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        if (starts(file, formats[i].at, formats[i].magic, formats[i].bytes))
            return trm_fail(TRM_ERR_UNSUPPORTED, "'%s' is %s; this version runs ONNX files%s", path,
                            formats[i].name, formats[i].advice);
    if (is_safetensors(file))
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'%s' holds weights in safetensors; this version runs ONNX files", path);
    /* A ModelProto nearly always starts with its IR version (field 1, a varint); a name .onnx is
     * enough for the importer to look, which says what is wrong. */
    if (p[0] == 0x08 || strcmp(trm_path_extension(path), "onnx") == 0)
        return TRM_OK;
    for (size_t i = 0; i < shown; i++) {
        snprintf(hex + 3 * i, 4, "%02x%s", p[i], i + 1 < shown ? " " : "");
        text = text && (isprint(p[i]) != 0 || isspace(p[i]) != 0);
        readable[i] = isprint(p[i]) != 0 ? (char)p[i] : ' ';
    }
    return trm_fail(TRM_ERR_BAD_FILE,
                    "'%s' is no model: it starts with %s%s%s; supported is ONNX (.onnx)", path,
                    text ? "the text '" : "the bytes ", text ? readable : hex, text ? "'" : "");
}

typedef struct listing {
    int onnx, others;
    char first[256]; /* the .onnx file, if there is just one */
    char names[400]; /* some of what is there */
    const char *known;
} listing;

static void list(DIR *dir, listing *l)
{
    const struct dirent *e;
    size_t at = 0;

    while ((e = readdir(dir)) != NULL) {
        const char *ext = trm_path_extension(e->d_name);

        if (e->d_name[0] == '.')
            continue;
        if (strcmp(ext, "onnx") == 0) {
            if (l->onnx++ == 0)
                snprintf(l->first, sizeof(l->first), "%s", e->d_name);
        } else {
            l->others++;
        }
        if (strcmp(ext, "safetensors") == 0)
            l->known = "weights in safetensors";
        else if (strcmp(ext, "gguf") == 0)
            l->known = "a GGUF language model";
        else if (strcmp(ext, "pt") == 0 || strcmp(ext, "pth") == 0 ||
                 strcmp(e->d_name, "pytorch_model.bin") == 0)
            l->known = "a PyTorch model";
        else if (strcmp(e->d_name, "saved_model.pb") == 0)
            l->known = "a TensorFlow SavedModel";
        if (at + strlen(e->d_name) + 8 < sizeof(l->names))
            at += (size_t)snprintf(l->names + at, sizeof(l->names) - at, "%s%s", at > 0 ? ", " : "",
                                   e->d_name);
    }
}

trm_status trmi_package_find_model(const char *folder, char **path_out)
{
    char *path = trm_path_join(folder, "model.onnx");
    listing l;
    DIR *dir;

    if (path == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s'", folder);
    if (trm_path_exists(path)) {
        *path_out = path;
        return TRM_OK;
    }
    trm_free(path);
    dir = opendir(folder);
    if (dir == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s': %s", folder, strerror(errno));
    memset(&l, 0, sizeof(l));
    list(dir, &l);
    closedir(dir);
    if (l.onnx == 1) {
        *path_out = trm_path_join(folder, l.first);
        return *path_out == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "'%s'", folder) : TRM_OK;
    }
    if (l.onnx > 1)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "folder '%s' holds %d .onnx files and none is model.onnx: name one of them",
                        folder, l.onnx);
    if (l.known != NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "folder '%s' holds %s; this version runs ONNX files (model.onnx)", folder,
                        l.known);
    return trm_fail(TRM_ERR_NOT_FOUND, "folder '%s' holds no model.onnx%s%s", folder,
                    l.others > 0 ? "; it holds " : ": it is empty", l.names);
}
