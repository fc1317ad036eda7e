/* Runs a whole network on recorded inputs and compares with recorded outputs.
 *
 * usage: networks [--dtype bf16|f16] [--tolerance T] [--against output|ort] [--threads N] FOLDER...
 * FOLDER holds model.onnx, input_<i>.npy in the model's input order, and output_<i>.npy (PyTorch)
 * or ort_<i>.npy (onnxruntime). Floats: max |got - want| <= T * max |want|, T = 1e-4 unless told.
 * Integers: exact. Scores of shape [batch, classes]: the same five best classes in the same order
 * (fp32 only; classes whose scores are nearer than the tolerance may swap). Each model runs twice,
 * so that the cached program is checked too. Exit code 0: all agree. */
#include "base/npy.h"
#include "worker/tensor_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IO_MAX = 64, TOP = 5 };

typedef struct settings {
    const char *against;
    double tolerance;
    int threads;
    trm_tensor_model_options model;
} settings;

static double scale_of(const trm_tensor *t)
{
    double scale = 0;

    for (size_t i = 0; i < trm_tensor_numel(t); i++)
        scale = fmax(scale, fabs(trm_tensor_get_f64(t, i)));
    return scale > 0 ? scale : 1;
}

/* Indices of the best TOP of `n` scores, best first, lower index first among equals. */
static int best(const trm_tensor *t, size_t row, size_t n, size_t *order)
{
    int count = 0;

    for (size_t i = 0; i < n; i++) {
        double s = trm_tensor_get_f64(t, row * n + i);
        int at = count;

        while (at > 0 && trm_tensor_get_f64(t, row * n + order[at - 1]) < s)
            at--;
        if (at >= TOP)
            continue;
        if (count < TOP)
            count++;
        for (int j = count - 1; j > at; j--)
            order[j] = order[j - 1];
        order[at] = i;
    }
    return count;
}

static bool same_top(const trm_tensor *got, const trm_tensor *want, double margin)
{
    size_t rows = (size_t)want->dims[0], n = (size_t)want->dims[1];

    for (size_t r = 0; r < rows; r++) {
        size_t a[TOP], b[TOP];
        int count = best(want, r, n, a);

        (void)best(got, r, n, b);
        for (int i = 0; i < count; i++)
            if (a[i] != b[i] && fabs(trm_tensor_get_f64(want, r * n + a[i]) -
                                     trm_tensor_get_f64(want, r * n + b[i])) > margin)
                return false;
    }
    return true;
}

/* Compares one output; *worst_io grows to the largest error as a share of the scale. */
static trm_status compare(const trm_tensor *got, const trm_tensor *want, const char *name,
                          const settings *s, double *worst_io)
{
    char a[TRM_SHAPE_TEXT_BYTES], b[TRM_SHAPE_TEXT_BYTES];
    double scale, error = 0;

    if (got->dtype != want->dtype || !trm_tensor_same_shape(got, want))
        return trm_fail(TRM_ERR_INTERNAL, "output '%s' is %s %s, should be %s %s", name,
                        trm_dtype_name(got->dtype), trm_tensor_shape_text(got, a, sizeof(a)),
                        trm_dtype_name(want->dtype), trm_tensor_shape_text(want, b, sizeof(b)));
    if (!trm_dtype_is_float(want->dtype)) {
        for (size_t i = 0; i < trm_tensor_numel(want); i++)
            if (trm_tensor_get_i64(got, i) != trm_tensor_get_i64(want, i))
                return trm_fail(TRM_ERR_INTERNAL, "output '%s' differs at element %zu", name, i);
        return TRM_OK;
    }
    scale = scale_of(want);
    for (size_t i = 0; i < trm_tensor_numel(want); i++) {
        double d = fabs(trm_tensor_get_f64(got, i) - trm_tensor_get_f64(want, i));

        if (!(d <= error)) /* NaN counts as the worst */
            error = isnan(d) ? HUGE_VAL : d;
    }
    *worst_io = fmax(*worst_io, error / scale);
    if (error > s->tolerance * scale)
        return trm_fail(TRM_ERR_INTERNAL, "output '%s': error %.3g of the scale %.3g, allowed %.3g",
                        name, error / scale, scale, s->tolerance);
    if (s->model.dtype == TRM_DTYPE_NONE && want->rank == 2 && want->dims[1] >= TOP &&
        !same_top(got, want, 2 * s->tolerance * scale))
        return trm_fail(TRM_ERR_INTERNAL, "output '%s': other best five classes", name);
    return TRM_OK;
}

static trm_status load(const char *folder, const char *kind, int i, trm_arena *arena, trm_tensor *t)
{
    char name[64];
    char *path;
    trm_status st;

    snprintf(name, sizeof(name), "%s_%d.npy", kind, i);
    path = trm_path_join(folder, name);
    if (path == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "path");
    st = trm_npy_load(path, arena, t);
    trm_free(path);
    return st;
}

static trm_status run_network(const char *folder, const settings *s, double *worst_out)
{
    trm_tensor inputs[IO_MAX], want[IO_MAX], got[IO_MAX];
    trm_arena *arena = NULL;
    trm_device *device = NULL;
    trm_tensor_model *model = NULL;
    trm_graph *g;
    trm_status st;

    *worst_out = 0;
    TRM_TRY(st, trm_arena_create(0, &arena), fail);
    TRM_TRY(st, trm_device_cpu_create(s->threads, &device), fail);
    TRM_TRY(st, trm_tensor_model_open(folder, device, &s->model, &model), fail);
    g = model->graph;
    if (g->input_count > IO_MAX || g->output_count > IO_MAX) {
        st = trm_fail(TRM_ERR_INTERNAL, "more than %d inputs or outputs", IO_MAX);
        goto fail;
    }
    for (int i = 0; i < g->input_count; i++)
        TRM_TRY(st, load(folder, "input", i, arena, &inputs[i]), fail);
    for (int i = 0; i < g->output_count; i++)
        TRM_TRY(st, load(folder, s->against, i, arena, &want[i]), fail);
    for (int round = 0; round < 2; round++) {
        TRM_TRY(st, trm_engine_run(model->engine, inputs, got), fail);
        for (int i = 0; i < g->output_count; i++)
            TRM_TRY(st, compare(&got[i], &want[i], g->values[g->outputs[i]].name, s, worst_out),
                    fail);
    }
fail:
    trm_tensor_model_close(model);
    trm_device_destroy(device);
    trm_arena_destroy(arena);
    return st;
}

int main(int argc, char **argv)
{
    settings s = {.against = "output", .tolerance = 1e-4, .threads = 0};
    int i = 1, failed = 0;

    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
        const char *v = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(argv[i], "--dtype") == 0) {
            s.model.dtype = trm_dtype_from_name(v);
        } else if (strcmp(argv[i], "--tolerance") == 0) {
            s.tolerance = strtod(v, NULL);
        } else if (strcmp(argv[i], "--against") == 0) {
            s.against = v;
        } else if (strcmp(argv[i], "--threads") == 0) {
            s.threads = (int)strtol(v, NULL, 10);
        } else {
            fprintf(stderr, "networks: unknown option '%s'\n", argv[i]);
            return 2;
        }
    }
    if (i >= argc) {
        fprintf(stderr, "usage: networks [--dtype T] [--tolerance T] [--against output|ort] "
                        "[--threads N] FOLDER...\n");
        return 2;
    }
    for (; i < argc; i++) {
        double worst = 0;
        trm_status st = run_network(argv[i], &s, &worst);
        const char *slash = strrchr(argv[i], '/');

        if (st == TRM_OK)
            printf("%-16s agrees with %s: error %.1e of the scale\n",
                   slash != NULL ? slash + 1 : argv[i], s.against, worst);
        else
            printf("%-16s FAILED: %s\n", slash != NULL ? slash + 1 : argv[i], trm_message());
        fflush(stdout);
        failed += st != TRM_OK;
    }
    return failed > 0;
}
