/* Inputs from files, or made up. */
#include "launch/inputs.h"

#include "base/npy.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int find_input(const trm_graph *g, const char *name, size_t n)
{
    for (int i = 0; i < g->input_count; i++) {
        const char *have = g->values[g->inputs[i]].name;

        if (strlen(have) == n && strncmp(have, name, n) == 0)
            return i;
    }
    return -1;
}

static void input_names(const trm_graph *g, char *buf, size_t bytes)
{
    size_t n = 0;

    buf[0] = '\0';
    for (int i = 0; i < g->input_count && n + 4 < bytes; i++)
        n += (size_t)snprintf(buf + n, bytes - n, "%s'%.60s'", i > 0 ? ", " : "",
                              g->values[g->inputs[i]].name);
}

static trm_status unknown_input(const trm_graph *g, const char *name, size_t n)
{
    char names[600];

    input_names(g, names, sizeof(names));
    return trm_fail(TRM_ERR_INVALID_ARG, "the model has no input '%.*s'; it has %s", (int)n, name,
                    names);
}

static trm_status load_npz(const trm_graph *g, const char *path, trm_arena *arena, trm_tensor *out,
                           bool *given)
{
    trm_npz *z = NULL;
    trm_status st;

    TRM_CHECK(trm_npz_open(path, &z));
    st = TRM_OK;
    for (int i = 0; i < trm_npz_count(z) && st == TRM_OK; i++) {
        const char *name = trm_npz_name(z, i);
        int input = find_input(g, name, strlen(name));
        trm_npy *a = NULL;
        size_t bytes;

        if (input < 0) {
            st = trm_fail_context(unknown_input(g, name, strlen(name)), "%s", path);
            break;
        }
        TRM_TRY(st, trm_npz_get(z, i, &a), done);
        out[input] = *trm_npy_desc(a);
        st = trm_tensor_bytes(&out[input], &bytes);
        if (st == TRM_OK) {
            out[input].data = trm_arena_alloc_aligned(arena, bytes + 1);
            st = out[input].data == NULL
                     ? trm_fail(TRM_ERR_NO_MEMORY, "%s: %zu bytes", path, bytes)
                     : trm_npy_read_rows(a, 0, trm_npy_rows(a), out[input].data);
        }
        given[input] = true;
        trm_npy_close(a);
    }
done:
    trm_npz_close(z);
    return st;
}

trm_status trm_inputs_load(const trm_graph *g, const trm_option_list *specs, trm_arena *arena,
                           trm_tensor *out)
{
    bool *given = trm_arena_alloc(arena, (size_t)g->input_count + 1, sizeof(bool));

    if (given == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "inputs");
    for (int i = 0; i < specs->count; i++) {
        const char *spec = specs->items[i], *equals = strchr(spec, '=');
        const char *path = equals == NULL ? spec : equals + 1;
        int input;

        if (equals == NULL && strcmp(trm_path_extension(spec), "npz") == 0) {
            TRM_CHECK(load_npz(g, spec, arena, out, given));
            continue;
        }
        if (equals == NULL && g->input_count != 1)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "--input '%s': want NAME=FILE.npy, the model has %d inputs", spec,
                            g->input_count);
        input = equals == NULL ? 0 : find_input(g, spec, (size_t)(equals - spec));
        if (input < 0)
            return unknown_input(g, spec, (size_t)(equals - spec));
        if (given[input])
            return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is given twice",
                            g->values[g->inputs[input]].name);
        TRM_CHECK(trm_npy_load(path, arena, &out[input]));
        given[input] = true;
    }
    for (int i = 0; i < g->input_count; i++)
        if (!given[i])
            return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is missing: --input %s=FILE.npy",
                            g->values[g->inputs[i]].name, g->values[g->inputs[i]].name);
    return TRM_OK;
}

static trm_status dim_value(const char *item, const char *text, int64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoll(text, &end, 10);
    if (*end != '\0' || end == text || errno != 0 || *out < 0 || *out > TRM_DIM_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "--dim '%s': want %.*s=N, N a whole number from 0",
                        item, (int)(text - item - 1), item);
    return TRM_OK;
}

static trm_status dim_from_list(const trm_option_list *dims, const char *symbol, const char *input,
                                int64_t *out)
{
    size_t n = strlen(symbol);

    for (int i = 0; i < dims->count; i++) {
        if (strncmp(dims->items[i], symbol, n) == 0 && dims->items[i][n] == '=')
            return dim_value(dims->items[i], dims->items[i] + n + 1, out);
    }
    return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' has a free dim '%s': give it with --dim %s=N",
                    input, symbol, symbol);
}

static bool has_free_dim(const trm_graph *g, const char *name, size_t n)
{
    for (int i = 0; i < g->input_count; i++) {
        const trm_tensor *t = &g->values[g->inputs[i]].desc;

        for (int d = 0; d < t->rank; d++) {
            const char *symbol = trm_graph_dim_name(g, t->dims[d]);

            if (symbol != NULL && strlen(symbol) == n && strncmp(symbol, name, n) == 0)
                return true;
        }
    }
    return false;
}

/* Each is NAME=N, and NAME is one of the model's: a slip is not passed over. */
static trm_status check_dims(const trm_graph *g, const trm_option_list *dims)
{
    for (int i = 0; i < dims->count; i++) {
        const char *equals = strchr(dims->items[i], '=');
        int64_t value;

        if (equals == NULL || equals == dims->items[i])
            return trm_fail(TRM_ERR_INVALID_ARG, "--dim '%s': want NAME=N", dims->items[i]);
        if (!has_free_dim(g, dims->items[i], (size_t)(equals - dims->items[i])))
            return trm_fail(TRM_ERR_INVALID_ARG, "--dim '%s': no input has a free dim '%.*s'",
                            dims->items[i], (int)(equals - dims->items[i]), dims->items[i]);
        TRM_CHECK(dim_value(dims->items[i], equals + 1, &value));
    }
    return TRM_OK;
}

/* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014 */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double uniform(uint64_t *state)
{
    return ((double)(next_random(state) >> 11) + 0.5) * 0x1p-53;
}

static void fill(trm_tensor *t, size_t elems, const char *name, uint64_t *state)
{
    for (size_t i = 0; i < elems; i++) {
        if (trm_dtype_is_float(t->dtype))
            trm_tensor_set_f64(
                t, i, sqrt(-2.0 * log(uniform(state))) * cos(6.283185307179586 * uniform(state)));
        else if (strstr(name, "mask") != NULL || t->dtype == TRM_DTYPE_BOOL)
            trm_tensor_set_i64(t, i, 1);
        else if (strstr(name, "type") != NULL)
            trm_tensor_set_i64(t, i, 0);
        else
            trm_tensor_set_i64(t, i, (int64_t)(next_random(state) % 100));
    }
}

trm_status trm_inputs_shapes(const trm_graph *g, int64_t batch, const trm_option_list *dims,
                             int64_t other, trm_tensor *out)
{
    TRM_CHECK(check_dims(g, dims));
    for (int i = 0; i < g->input_count; i++) {
        const trm_value *v = &g->values[g->inputs[i]];

        out[i] = v->desc;
        out[i].data = NULL;
        if (v->desc.rank < 0 || v->desc.dtype == TRM_DTYPE_NONE)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "input '%s' declares no shape: give it with --input %s=FILE.npy",
                            v->name, v->name);
        for (int d = 0; d < out[i].rank; d++) {
            const char *symbol = trm_graph_dim_name(g, out[i].dims[d]);

            if (symbol == NULL)
                continue;
            if (dim_from_list(dims, symbol, v->name, &out[i].dims[d]) == TRM_OK)
                continue;
            if (d > 0 && other == 0)
                return dim_from_list(dims, symbol, v->name, &out[i].dims[d]);
            out[i].dims[d] = d == 0 ? batch : other;
        }
    }
    return TRM_OK;
}

trm_status trm_inputs_random(const trm_graph *g, int64_t batch, const trm_option_list *dims,
                             uint64_t seed, trm_arena *arena, trm_tensor *out)
{
    uint64_t state = seed;

    TRM_CHECK(trm_inputs_shapes(g, batch, dims, 0, out));
    for (int i = 0; i < g->input_count; i++) {
        const char *name = g->values[g->inputs[i]].name;
        size_t bytes, elems;

        TRM_CHECK(trm_tensor_bytes(&out[i], &bytes));
        TRM_CHECK(trm_tensor_elems(&out[i], &elems));
        out[i].data = trm_arena_alloc_aligned(arena, bytes + 1);
        if (out[i].data == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "input '%s' of %zu bytes", name, bytes);
        fill(&out[i], elems, name, &state);
    }
    return TRM_OK;
}
