/* One ONNX backend test case: import, passes, engine, comparison. */
#include "tests/conformance/conformance.h"

#include "kernels/device_open.h"
#include "model/onnx/onnx.h"
#include "model/passes/passes.h"
#include "worker/engine.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* How near is near: |got - want| <= atol + rtol * |want|. fp32: rtol is that of ONNX's own backend
 * runner; its atol (1e-7) is below the rounding of a sum of a few hundred terms, so 1e-5. The
 * 16-bit types: a few units in the last place (2^-11 and 2^-8). Integers and booleans are exact. */
static const struct {
    trm_dtype dtype;
    double rtol, atol;
} tolerances[] = {
    {TRM_DTYPE_F32, 1e-3, 1e-5},
    {TRM_DTYPE_F64, 1e-5, 1e-9},
    {TRM_DTYPE_F16, 4e-3, 1e-3},
    {TRM_DTYPE_BF16, 2e-2, 1e-2},
};

const char *conf_compare(const trm_tensor *got, const trm_tensor *want)
{
    static char text[400];
    char a[TRM_SHAPE_TEXT_BYTES], b[TRM_SHAPE_TEXT_BYTES];
    double rtol = 0, atol = 0;
    size_t count, wrong = 0, first = 0;

    if (got->dtype != want->dtype) {
        snprintf(text, sizeof(text), "dtype is %s, should be %s", trm_dtype_name(got->dtype),
                 trm_dtype_name(want->dtype));
        return text;
    }
    if (!trm_tensor_same_shape(got, want)) {
        snprintf(text, sizeof(text), "shape is %s, should be %s",
                 trm_tensor_shape_text(got, a, sizeof(a)),
                 trm_tensor_shape_text(want, b, sizeof(b)));
        return text;
    }
    for (size_t i = 0; i < sizeof(tolerances) / sizeof(tolerances[0]); i++) {
        if (tolerances[i].dtype == got->dtype) {
            rtol = tolerances[i].rtol;
            atol = tolerances[i].atol;
        }
    }
    count = trm_tensor_numel(want);
    for (size_t i = 0; i < count; i++) {
        bool near;

        if (trm_dtype_is_float(got->dtype)) {
            double g = trm_tensor_get_f64(got, i), w = trm_tensor_get_f64(want, i);

            /* equal infinities differ by NaN, so compare first */
            near = g == w || (isnan(g) && isnan(w)) ||
                   (isfinite(w) && fabs(g - w) <= atol + rtol * fabs(w));
        } else {
            near = trm_tensor_get_i64(got, i) == trm_tensor_get_i64(want, i);
        }
        if (!near && wrong++ == 0)
            first = i;
    }
    if (wrong == 0)
        return NULL;
    snprintf(text, sizeof(text),
             "%zu of %zu elements differ, the first at %zu: %.9g, should be %.9g", wrong, count,
             first, trm_tensor_get_f64(got, first), trm_tensor_get_f64(want, first));
    return text;
}

/* ---- operators of a model: ModelProto.graph(7).node(1).op_type(4), bodies not looked into ---- */

/* Next field of a protobuf message: its number, and its bytes if it has any (wire type 2). False:
 * end. */
static bool next_field(trm_cursor *c, uint64_t *number_out, trm_cursor *body_out)
{
    uint64_t key;

    if (trm_cursor_left(c) == 0 || c->failed)
        return false;
    key = trm_cursor_varint(c);
    *number_out = key >> 3;
    *body_out = trm_cursor_make("", 0);
    switch (key & 7) {
    case 0:
        (void)trm_cursor_varint(c);
        break;
    case 1:
        (void)trm_cursor_u64(c);
        break;
    case 2:
        *body_out = trm_cursor_sub(c, (size_t)trm_cursor_varint(c));
        break;
    case 5:
        (void)trm_cursor_u32(c);
        break;
    default:
        return false;
    }
    return !c->failed;
}

/* Appends each distinct operator to "a,b,c"; `unknown_out` gets the first that Trireme's table
 * lacks. */
static void list_operators(trm_file *file, char *all, size_t all_bytes, char *unknown_out,
                           size_t unknown_bytes)
{
    trm_cursor model = trm_cursor_make(trm_file_data(file), trm_file_bytes(file)), graph, node,
               field;
    uint64_t number;

    all[0] = unknown_out[0] = '\0';
    while (next_field(&model, &number, &graph)) {
        if (number != 7)
            continue;
        while (next_field(&graph, &number, &node)) {
            if (number != 1)
                continue;
            while (next_field(&node, &number, &field)) {
                char name[80];
                size_t used = strlen(all), bytes = trm_cursor_left(&field);

                if (number != 4 || bytes >= sizeof(name))
                    continue;
                memcpy(name, field.at, bytes);
                name[bytes] = '\0';
                if (unknown_out[0] == '\0' && trm_op_from_name(name) == TRM_OP_NONE)
                    snprintf(unknown_out, unknown_bytes, "%s", name);
                if (strstr(all, name) == NULL && used + bytes + 2 < all_bytes)
                    snprintf(all + used, all_bytes - used, "%s%s", used > 0 ? "," : "", name);
            }
        }
    }
}

static trm_status open_in(const char *dir, const char *name, trm_file **file_out)
{
    char *path = trm_path_join(dir, name);
    trm_status st;

    if (path == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "path");
    st = trm_file_open(path, file_out);
    trm_free(path);
    return st;
}

const char *conf_operators(const char *path)
{
    static char all[120], unknown[80];
    trm_file *file = NULL;

    all[0] = '\0';
    if (open_in(path, "model.onnx", &file) == TRM_OK)
        list_operators(file, all, sizeof(all), unknown, sizeof(unknown));
    trm_file_unref(file);
    return all;
}

/* ---- data sets ---- */

/* Reads DIR/<kind>_0.pb, <kind>_1.pb, ... until one is absent. */
static trm_status read_tensors(const char *dir, const char *kind, trm_arena *arena,
                               trm_tensor *tensors, const char **names, int max, int *count_out)
{
    int n = 0;

    for (; n < max; n++) {
        char name[64];
        trm_file *file = NULL;
        trm_status st;
        void *bytes;

        snprintf(name, sizeof(name), "%s_%d.pb", kind, n);
        st = open_in(dir, name, &file);
        if (st == TRM_ERR_NOT_FOUND)
            break;
        TRM_CHECK(st);
        /* a copy that lives as long as the tensors, which may point into it */
        bytes = trm_arena_alloc_aligned(arena, trm_file_bytes(file) + 1);
        if (bytes == NULL) {
            trm_file_unref(file);
            return trm_fail(TRM_ERR_NO_MEMORY, "%s: %zu bytes", name, trm_file_bytes(file));
        }
        if (trm_file_bytes(file) > 0)
            memcpy(bytes, trm_file_data(file), trm_file_bytes(file));
        st = trm_onnx_read_tensor(bytes, trm_file_bytes(file), arena, &tensors[n], &names[n]);
        trm_file_unref(file);
        if (st != TRM_OK)
            return trm_fail_context(st, "%s", name);
    }
    *count_out = n;
    return TRM_OK;
}

enum { TENSORS_MAX = 64 };

/* ONNX's older test data holds bfloat16 as uint16: NumPy has no such type. The model says what is
 * meant. */
static trm_tensor as_meant(const trm_tensor *t, trm_dtype meant)
{
    trm_tensor out = *t;

    if (t->dtype == TRM_DTYPE_U16 && meant == TRM_DTYPE_BF16)
        out.dtype = TRM_DTYPE_BF16;
    return out;
}

/* Test data goes to graph inputs by name where the names match, else by position. */
static trm_status place_inputs(const trm_graph *g, const trm_tensor *given,
                               const char *const *names, int count, trm_tensor *inputs)
{
    for (int i = 0; i < g->input_count; i++) {
        const char *wanted = g->values[g->inputs[i]].name;
        int from = i < count ? i : -1;

        for (int j = 0; j < count; j++)
            if (names[j] != NULL && strcmp(names[j], wanted) == 0)
                from = j;
        if (from < 0)
            return trm_fail(TRM_ERR_INTERNAL, "the case gives %d inputs, the model wants %d", count,
                            g->input_count);
        inputs[i] = as_meant(&given[from], g->values[g->inputs[i]].desc.dtype);
    }
    return TRM_OK;
}

static trm_status run_set(const char *dir, trm_graph *g, trm_engine *engine, int rounds)
{
    trm_tensor given[TENSORS_MAX], want[TENSORS_MAX], inputs[TENSORS_MAX], outputs[TENSORS_MAX];
    const char *names[TENSORS_MAX] = {NULL}, *want_names[TENSORS_MAX] = {NULL};
    trm_arena *arena = NULL;
    int given_count = 0, want_count = 0;
    trm_status st;

    if (g->input_count > TENSORS_MAX || g->output_count > TENSORS_MAX)
        return trm_fail(TRM_ERR_INTERNAL, "more than %d inputs or outputs", TENSORS_MAX);
    memset(inputs, 0, sizeof(inputs));
    memset(outputs, 0, sizeof(outputs));
    TRM_CHECK(trm_arena_create(0, &arena));
    TRM_TRY(st, read_tensors(dir, "input", arena, given, names, TENSORS_MAX, &given_count), fail);
    TRM_TRY(st, read_tensors(dir, "output", arena, want, want_names, TENSORS_MAX, &want_count),
            fail);
    TRM_TRY(st, place_inputs(g, given, names, given_count, inputs), fail);
    /* more than once: later runs take the cached program, and must not see earlier results */
    for (int round = 0; round < rounds; round++) {
        TRM_TRY(st, trm_engine_run(engine, inputs, outputs), fail);
        for (int i = 0; i < want_count; i++) {
            trm_tensor w = as_meant(&want[i], outputs[i].dtype);
            const char *wrong = i < g->output_count ? conf_compare(&outputs[i], &w)
                                                    : "the model has no such output";

            if (wrong != NULL) {
                st = trm_fail(TRM_ERR_INTERNAL, "output %d%s: %s", i,
                              round > 0 ? ", a later run" : "", wrong);
                goto fail;
            }
        }
    }
    st = want_count > 0 ? TRM_OK : trm_fail(TRM_ERR_INTERNAL, "the case has no expected output");
fail:
    trm_arena_destroy(arena);
    return st;
}

static void count_kernels(const trm_engine *engine, const trm_device *device, conf_result *r)
{
    trm_engine_stats stats;

    if (device->host_memory)
        return;
    trm_engine_get_stats(engine, &stats);
    r->kernels = stats.kernels;
    r->host_kernels = stats.host_kernels;
    trm_engine_host_operators(engine, r->host_operators, sizeof(r->host_operators));
}

static trm_status run_case(const char *path, trm_file *file, const conf_options *options,
                           conf_result *r)
{
    trm_graph *graph = NULL;
    trm_device_pair devices = {NULL, NULL, ""};
    trm_device *device = NULL;
    trm_engine *engine = NULL;
    trm_evaluator evaluator = {NULL, NULL};
    trm_status st;

    TRM_TRY(st, trm_onnx_import(file, &graph), fail);
    TRM_TRY(st, trm_device_open(options->device, 0, options->threads, &devices), fail);
    device = devices.device;
    if (!options->no_fold)
        TRM_TRY(st, trm_evaluator_create(devices.host, &evaluator), fail);
    TRM_TRY(st, trm_pass_all(graph, options->no_fold ? NULL : &evaluator), fail);
    TRM_TRY(st, trm_engine_create(graph, device, NULL, &engine), fail);
    for (int n = 0;; n++) {
        char name[64], *dir;
        bool there;

        snprintf(name, sizeof(name), "test_data_set_%d", n);
        dir = trm_path_join(path, name);
        if (dir == NULL) {
            st = trm_fail(TRM_ERR_NO_MEMORY, "path");
            goto fail;
        }
        there = trm_path_is_dir(dir);
        st = there ? run_set(dir, graph, engine, options->rounds) : TRM_OK;
        trm_free(dir);
        if (!there && n == 0)
            st = trm_fail(TRM_ERR_INTERNAL, "the case has no test_data_set_0");
        if (!there || st != TRM_OK)
            break;
    }
    if (st == TRM_OK)
        count_kernels(engine, device, r);
fail:
    trm_engine_destroy(engine);
    if (evaluator.run != NULL)
        trm_evaluator_destroy(&evaluator);
    trm_graph_destroy(graph);
    trm_device_close(&devices);
    return st;
}

void conf_run_case(const char *path, const conf_options *options, conf_result *r)
{
    char all[120] = "", unknown[80] = "";
    trm_file *file = NULL;
    trm_status st;

    memset(r, 0, sizeof(*r));
    st = open_in(path, "model.onnx", &file);
    if (st == TRM_OK) {
        list_operators(file, all, sizeof(all), unknown, sizeof(unknown));
        st = run_case(path, file, options, r);
    }
    trm_file_unref(file);
    r->verdict = st == TRM_OK                ? CONF_PASSED
                 : st == TRM_ERR_UNSUPPORTED ? CONF_UNSUPPORTED
                                             : CONF_FAILED;
    snprintf(r->operator_name, sizeof(r->operator_name), "%s",
             st == TRM_ERR_UNSUPPORTED && unknown[0] != '\0' ? unknown : all);
    if (st != TRM_OK)
        snprintf(r->reason, sizeof(r->reason), "%s: %s", trm_status_name(st), trm_message());
}
