/* Runs a whole network on recorded inputs and compares with recorded outputs.
 *
 * usage: networks [--dtype bf16|f16] [--tolerance T] [--against output|ort|one] [--threads N]
 *                 [--parallel LAYOUT [--memory BYTES]] FOLDER...
 * FOLDER holds model.onnx, input_<i>.npy in the model's input order, and output_<i>.npy (PyTorch)
 * or ort_<i>.npy (onnxruntime). Floats: max |got - want| <= T * max |want|, T = 1e-4 unless told.
 * "one" compares with what one rank alone computes, T = 1e-5. With --parallel, under mpirun: all
 * ranks call it, those that lead a replica compare.
 * Integers: exact. Scores of shape [batch, classes]: the same five best classes in the same order
 * (fp32 only; classes whose scores are nearer than the tolerance may swap). Each model runs twice,
 * so that the cached program is checked too. Exit code 0: all agree. */
#include "base/npy.h"
#include "kernels/device_open.h"
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
    const char *device;
    bool given; /* the tolerance */
    trm_tensor_model_options model;
    trm_job job;
} settings;

static const char *planned_folder;

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

/* What one rank alone computes, copied. */
static trm_status run_alone(const char *folder, trm_device *device, const settings *s,
                            const trm_tensor *inputs, trm_arena *arena, trm_tensor *want)
{
    trm_tensor_model_options alone = {.dtype = s->model.dtype};
    trm_tensor_model *model = NULL;
    trm_status st = trm_tensor_model_open(folder, device, &alone, &model);

    if (st == TRM_OK)
        st = trm_replica_run(model->replica, inputs, want);
    for (int i = 0; st == TRM_OK && i < model->graph->output_count; i++) {
        size_t bytes;
        void *copy;

        if ((st = trm_tensor_bytes(&want[i], &bytes)) != TRM_OK)
            break;
        copy = trm_arena_alloc_aligned(arena, bytes + 1);
        if (copy == NULL) {
            st = trm_fail(TRM_ERR_NO_MEMORY, "copy");
            break;
        }
        memcpy(copy, want[i].data, bytes);
        want[i].data = copy;
    }
    trm_tensor_model_close(model);
    return st;
}

static trm_status lead(trm_tensor_model *model, const char *folder, const settings *s,
                       const trm_tensor *inputs, const trm_tensor *want, double *worst_out)
{
    const trm_graph *g = model->graph;
    trm_tensor got[IO_MAX];

    for (int round = 0; round < 4; round++) {
        TRM_CHECK(trm_replica_run(model->replica, inputs, got));
        for (int i = 0; i < g->output_count; i++)
            TRM_CHECK(compare(&got[i], &want[i], g->values[g->outputs[i]].name, s, worst_out));
    }
    (void)folder;
    return trm_replica_stop(model->replica);
}

static trm_status run_opened(trm_tensor_model *model, const char *folder, trm_device *device,
                             const settings *s, trm_arena *arena, double *worst_out)
{
    trm_tensor inputs[IO_MAX], want[IO_MAX];
    const trm_graph *g = model->graph;
    trm_status st = TRM_OK;

    if (g->input_count > IO_MAX || g->output_count > IO_MAX)
        return trm_fail(TRM_ERR_INTERNAL, "more than %d inputs or outputs", IO_MAX);
    if (model->replica == NULL)
        return TRM_OK;
    if (!trm_replica_leads(model->replica))
        return trm_replica_follow(model->replica);
    for (int i = 0; i < g->input_count && st == TRM_OK; i++)
        st = load(folder, "input", i, arena, &inputs[i]);
    if (st == TRM_OK && strcmp(s->against, "one") == 0)
        st = run_alone(folder, device, s, inputs, arena, want);
    else
        for (int i = 0; i < g->output_count && st == TRM_OK; i++)
            st = load(folder, s->against, i, arena, &want[i]);
    if (st == TRM_OK)
        st = lead(model, folder, s, inputs, want, worst_out);
    if (st != TRM_OK) { /* the others wait for the end */
        char text[512];

        snprintf(text, sizeof(text), "%s", trm_message());
        (void)!trm_replica_stop(model->replica);
        st = trm_fail(st, "%s", text);
    }
    return st;
}

static trm_status planned_inputs(void *ctx, const trm_graph *g, const trm_tensor **inputs_out)
{
    static trm_tensor inputs[IO_MAX];
    trm_arena **arena = ctx;

    for (int i = 0; i < g->input_count && i < IO_MAX; i++)
        TRM_CHECK(load(planned_folder, "input", i, *arena, &inputs[i]));
    *inputs_out = inputs;
    return TRM_OK;
}

static trm_status run_network(const char *folder, settings *s, double *worst_out)
{
    trm_arena *arena = NULL;
    trm_device_pair devices = {NULL, NULL, ""};
    trm_tensor_model *model = NULL;
    trm_status st;

    *worst_out = 0;
    planned_folder = folder;
    TRM_TRY(st, trm_arena_create(0, &arena), fail);
    TRM_TRY(st, trm_device_open(s->device, 0, s->threads, &devices), fail);
    s->model.inputs = planned_inputs;
    s->model.ctx = &arena;
    TRM_TRY(st, trm_tensor_model_open(folder, devices.device, &s->model, &model), fail);
    st = run_opened(model, folder, devices.device, s, arena, worst_out);
fail:
    trm_tensor_model_close(model);
    trm_device_close(&devices);
    trm_arena_destroy(arena);
    return st;
}

int main(int argc, char **argv)
{
    settings s = {.against = "output", .tolerance = 1e-4, .device = "cpu", .threads = 0};
    int i = 1, failed = 0;

    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
        const char *v = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(argv[i], "--dtype") == 0) {
            s.model.dtype = trm_dtype_from_name(v);
        } else if (strcmp(argv[i], "--tolerance") == 0) {
            s.tolerance = strtod(v, NULL);
            s.given = true;
        } else if (strcmp(argv[i], "--memory") == 0) {
            s.model.memory_bytes = (size_t)strtoull(v, NULL, 10);
        } else if (strcmp(argv[i], "--parallel") == 0) {
            if (trm_job_init(&s.job) != TRM_OK ||
                trm_parallel_parse(v, &s.model.parallel) != TRM_OK) {
                fprintf(stderr, "networks: %s\n", trm_message());
                return 2;
            }
            s.model.job = &s.job;
            s.model.threads = s.model.cores = 1;
        } else if (strcmp(argv[i], "--against") == 0) {
            s.against = v;
        } else if (strcmp(argv[i], "--device") == 0) {
            s.device = v;
        } else if (strcmp(argv[i], "--threads") == 0) {
            s.threads = (int)strtol(v, NULL, 10);
        } else {
            fprintf(stderr, "networks: unknown option '%s'\n", argv[i]);
            return 2;
        }
    }
    if (!s.given && strcmp(s.against, "one") == 0)
        s.tolerance = 1e-5;
    if (i >= argc) {
        fprintf(stderr, "usage: networks [--dtype T] [--tolerance T] [--against output|ort] "
                        "[--device D] [--threads N] FOLDER...\n");
        return 2;
    }
    for (; i < argc; i++) {
        double worst = 0;
        trm_status st = run_network(argv[i], &s, &worst);
        const char *slash = strrchr(argv[i], '/');

        if (st == TRM_OK && s.job.rank == 0)
            printf("%-16s agrees with %s: error %.1e of the scale\n",
                   slash != NULL ? slash + 1 : argv[i], s.against, worst);
        else if (st != TRM_OK)
            printf("%-16s FAILED: %s\n", slash != NULL ? slash + 1 : argv[i], trm_message());
        fflush(stdout);
        failed += st != TRM_OK;
    }
    if (s.model.job != NULL)
        trm_job_end(&s.job, failed > 0);
    return failed > 0;
}
