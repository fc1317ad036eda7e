/* Constants made of others: parts of them, and scaled ones.
 *
 * A part that is contiguous in its source is a view of it. Anything else of some size is *lazy*: it
 * has an address (reserved pages, not accessible) and a recipe. Its bytes are gathered when
 * somebody borrows it and the pages given back when the last borrower has returned it; a kernel
 * that packs its weights borrows them only while it is prepared. What is asked for by
 * trm_graph_constant stays for the graph's life. */
#define _GNU_SOURCE
#include "model/graph.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SMALL_BYTES 16384 /* copied at once: not worth pages of their own */

struct trm_lazy {
    struct trm_lazy *next;
    void *memory; /* reserved pages */
    size_t mapped_bytes;
    int borrowed;
    bool kept, made;
    /* recipe: source bytes, of which along `dim` only the ranges are taken (dim -1: all) */
    const void *source;
    trm_tensor whole; /* the source's descriptor */
    int dim, count;
    const int64_t (*ranges)[2];
    const double *scale; /* [rows of the source's dim 0]; NULL: none */
};

static trm_status check(const trm_value *v, int dim, const int64_t (*ranges)[2], int count,
                        int64_t *part_out)
{
    int64_t part = 0, last = 0;
    int64_t unit = dim == v->desc.rank - 1 ? (int64_t)trm_dtype_block_elems(v->desc.dtype) : 1;

    if (dim < 0 || dim >= v->desc.rank || count < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "part of '%s': dim %d, %d ranges", v->name, dim,
                        count);
    for (int i = 0; i < count; i++) {
        if (ranges[i][0] < last || ranges[i][1] < ranges[i][0] || ranges[i][1] > v->desc.dims[dim])
            return trm_fail(TRM_ERR_INVALID_ARG, "part of '%s': range [%lld, %lld) of %lld",
                            v->name, (long long)ranges[i][0], (long long)ranges[i][1],
                            (long long)v->desc.dims[dim]);
        if (unit > 1 && (ranges[i][0] % unit != 0 || ranges[i][1] % unit != 0))
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "part of '%s': range [%lld, %lld) cuts blocks of %lld", v->name,
                            (long long)ranges[i][0], (long long)ranges[i][1], (long long)unit);
        last = ranges[i][1];
        part += ranges[i][1] - ranges[i][0];
    }
    *part_out = part;
    return TRM_OK;
}

/* ---- making the bytes ---- */

/* `elems` floats of row `row` on. */
static void scale_rows(float *to, const struct trm_lazy *z, size_t row_first, size_t elems,
                       size_t row_elems)
{
    for (size_t i = 0; i < elems; i++)
        to[i] = (float)((double)to[i] * z->scale[row_first + i / row_elems]);
}

/* Blocks of elements that index `i` of dim `dim` on begins after, of one index of the dims before
 * it: the last dim lies in blocks, which for plain dtypes are elements. */
static size_t blocks_before(const trm_tensor *t, int dim, int64_t i)
{
    return (size_t)i * trm_tensor_count(t, dim + 1, t->rank) / trm_dtype_block_elems(t->dtype);
}

/* Writes the value: for each outer index the ranges of the dim, one after another. */
static void make(const struct trm_lazy *z, void *memory)
{
    const trm_tensor *w = &z->whole;
    int dim = z->dim < 0 ? 0 : z->dim;
    int64_t all[1][2] = {{0, w->rank > 0 ? w->dims[0] : 1}};
    const int64_t(*ranges)[2] = z->dim < 0 ? (const int64_t(*)[2])all : z->ranges;
    int count = z->dim < 0 ? 1 : z->count;
    size_t item = trm_dtype_block_bytes(w->dtype);
    size_t outer = trm_tensor_count(w, 0, dim), row = blocks_before(w, dim, w->dims[dim]);
    size_t row0 = trm_tensor_count(w, 1, w->rank); /* elements of a row of dim 0 */
    unsigned char *to = memory;

    for (size_t o = 0; o < outer; o++) {
        for (int i = 0; i < count; i++) {
            size_t n = blocks_before(w, dim, ranges[i][1] - ranges[i][0]);
            size_t at = o * row + blocks_before(w, dim, ranges[i][0]);

            if (n == 0)
                continue;
            memcpy(to, (const unsigned char *)z->source + at * item, n * item);
            if (z->scale != NULL && dim == 0)
                scale_rows((float *)(void *)to, z, at / row0, n, row0);
            else if (z->scale != NULL) /* within one row of dim 0 where the dim is a later one */
                for (size_t k = 0; k < n; k++) {
                    float *f = (float *)(void *)to + k;

                    *f = (float)((double)*f * z->scale[(at + k) / row0]);
                }
            to += n * item;
        }
    }
}

static trm_status fill(trm_graph *g, trm_value *v)
{
    struct trm_lazy *z = v->lazy;
    struct trm_lazy_bytes *b = &g->root->lazy_bytes;

    if (z->made)
        return TRM_OK;
    if (mprotect(z->memory, z->mapped_bytes, PROT_READ | PROT_WRITE) != 0)
        return trm_fail(TRM_ERR_NO_MEMORY, "constant '%s', %zu bytes: %s", v->name, v->bytes,
                        strerror(errno));
    make(z, z->memory);
    (void)mprotect(z->memory, z->mapped_bytes, PROT_READ);
    z->made = true;
    b->now += v->bytes;
    if (b->now > b->most)
        b->most = b->now;
    return TRM_OK;
}

trm_status trmi_graph_keep_lazy(trm_graph *g, int value, trm_tensor *tensor_out)
{
    trm_value *v = &g->values[value];

    TRM_CHECK(fill(g, v));
    v->lazy->kept = true;
    *tensor_out = v->desc;
    return TRM_OK;
}

trm_status trm_graph_constant_borrow(trm_graph *g, int value, trm_tensor *tensor_out)
{
    trm_value *v = &g->values[value];

    if (v->lazy == NULL)
        return trm_graph_constant(g, value, tensor_out);
    TRM_CHECK(fill(g, v));
    v->lazy->borrowed++;
    *tensor_out = v->desc;
    return TRM_OK;
}

void trm_graph_constant_return(trm_graph *g, int value)
{
    trm_value *v = &g->values[value];
    struct trm_lazy *z = v->lazy;

    if (z == NULL)
        return;
    TRM_ASSERT(z->borrowed > 0);
    if (--z->borrowed > 0 || z->kept || !z->made)
        return;
    (void)madvise(z->memory, z->mapped_bytes, MADV_DONTNEED);
    (void)mprotect(z->memory, z->mapped_bytes, PROT_NONE); /* a stray reader must not see zeros */
    z->made = false;
    g->root->lazy_bytes.now -= v->bytes;
}

void trm_graph_lazy_bytes(const trm_graph *g, size_t *now_out, size_t *most_out)
{
    *now_out = g->root->lazy_bytes.now;
    *most_out = g->root->lazy_bytes.most;
}

void trmi_graph_free_lazies(trm_graph *root)
{
    for (struct trm_lazy *z = root->lazies; z != NULL; z = z->next)
        (void)munmap(z->memory, z->mapped_bytes);
    root->lazies = NULL;
}

/* ---- adding values ---- */

/* The source's bytes from `offset` on, as they are. */
static trm_status add_view(trm_graph *g, const char *name, const trm_value *v,
                           const trm_tensor *desc, size_t offset, int *value_out)
{
    size_t bytes;

    if (v->file != NULL)
        return trm_graph_add_weight(g, name, desc, v->file, v->file_offset + offset, value_out);
    TRM_CHECK(trm_tensor_bytes(desc, &bytes));
    TRM_CHECK(trm_graph_add_value(g, name, desc, value_out));
    g->values[*value_out].desc.data = (unsigned char *)v->desc.data + offset;
    g->values[*value_out].bytes = bytes;
    return TRM_OK;
}

static trm_status no_memory(const char *name, size_t bytes)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "constant '%s' of %zu bytes", name, bytes);
}

/* A value by recipe `z` (borrowed arrays are copied): lazy, or made at once where it is small. */
static trm_status add_recipe(trm_graph *g, const char *name, const struct trm_lazy *recipe,
                             trm_tensor desc, int *value_out)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes, rows;
    struct trm_lazy *z = NULL;

    TRM_CHECK(trm_tensor_bytes(&desc, &bytes));
    if (bytes <= SMALL_BYTES) {
        desc.data = trm_arena_alloc_aligned(g->arena, bytes == 0 ? 1 : bytes);
        if (desc.data == NULL)
            return no_memory(name, bytes);
        make(recipe, desc.data);
    } else {
        z = (struct trm_lazy *)trm_arena_alloc(g->arena, 1, sizeof(*z));
        if (z == NULL)
            return no_memory(name, bytes);
        *z = *recipe;
        z->borrowed = 0;
        z->kept = z->made = false;
        if (z->dim >= 0) {
            int64_t(*ranges)[2] = trm_arena_alloc(g->arena, (size_t)z->count, 2 * sizeof(int64_t));

            if (ranges == NULL)
                return no_memory(name, bytes);
            memcpy(ranges, recipe->ranges, (size_t)z->count * 2 * sizeof(int64_t));
            z->ranges = (const int64_t(*)[2])ranges;
        }
        if (z->scale != NULL) {
            double *scale;

            rows = (size_t)z->whole.dims[0];
            scale = trm_arena_alloc(g->arena, rows, sizeof(double));
            if (scale == NULL)
                return no_memory(name, bytes);
            memcpy(scale, recipe->scale, rows * sizeof(double));
            z->scale = scale;
        }
        z->mapped_bytes = (bytes + page - 1) / page * page;
        z->memory = mmap(NULL, z->mapped_bytes, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (z->memory == MAP_FAILED)
            return no_memory(name, bytes);
        z->next = g->root->lazies;
        g->root->lazies = z;
        desc.data = z->memory;
    }
    TRM_CHECK(trm_graph_add_value(g, name, &desc, value_out));
    g->values[*value_out].desc.data = desc.data;
    g->values[*value_out].bytes = bytes;
    g->values[*value_out].lazy = z;
    return TRM_OK;
}

/* What a constant is made of: its own recipe, or all of its bytes. */
static struct trm_lazy recipe_of(const trm_value *v)
{
    struct trm_lazy z = {.dim = -1};

    if (v->lazy != NULL)
        return *v->lazy;
    z.source = v->desc.data;
    z.whole = v->desc;
    return z;
}

trm_status trm_graph_add_part(trm_graph *g, const char *name, const trm_graph *from, int value,
                              int dim, const int64_t (*ranges)[2], int count, int *value_out)
{
    const trm_value *v = &from->values[value];
    struct trm_lazy z = recipe_of(v);
    trm_tensor desc = v->desc;
    int64_t part = 0;

    if (v->desc.data == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "value '%s' is no constant", v->name);
    desc.data = NULL;
    if (dim == -1)
        return v->lazy == NULL ? add_view(g, name, v, &desc, 0, value_out)
                               : add_recipe(g, name, &z, desc, value_out);
    TRM_CHECK(check(v, dim, ranges, count, &part));
    desc.dims[dim] = part;
    if (v->lazy == NULL && count == 1 && trm_tensor_count(&v->desc, 0, dim) == 1)
        return add_view(g, name, v, &desc,
                        blocks_before(&v->desc, dim, ranges[0][0]) *
                            trm_dtype_block_bytes(desc.dtype),
                        value_out);
    if (z.dim >= 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "'%s' is a part already: a part of it is not built",
                        v->name);
    z.dim = dim;
    z.ranges = ranges;
    z.count = count;
    return add_recipe(g, name, &z, desc, value_out);
}

trm_status trm_graph_add_scaled(trm_graph *g, const char *name, int value, const double *scale,
                                int *value_out)
{
    trm_value v = g->values[value];
    struct trm_lazy z = recipe_of(&v);
    trm_tensor desc = v.desc;
    double *both = NULL;
    trm_status st;

    if (v.desc.data == NULL || v.desc.dtype != TRM_DTYPE_F32 || v.desc.rank < 1 || z.dim >= 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s' cannot be scaled: want a whole F32 constant",
                        v.name);
    if (z.scale != NULL) {
        both = trm_malloc((size_t)desc.dims[0], sizeof(double));
        if (both == NULL)
            return no_memory(name, (size_t)desc.dims[0] * sizeof(double));
        for (int64_t i = 0; i < desc.dims[0]; i++)
            both[i] = z.scale[i] * scale[i];
    }
    z.scale = both != NULL ? both : scale;
    desc.data = NULL;
    st = add_recipe(g, name, &z, desc, value_out);
    trm_free(both);
    return st;
}
