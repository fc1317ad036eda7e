/* Constants made of others: parts of them, stacks of them, scaled ones; and those that a function
 * makes.
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

/* What of a dim is taken: ranges [begin, end), ascending. count 0: all of it. */
typedef struct taken {
    const int64_t (*ranges)[2];
    int count;
} taken;

struct trm_lazy {
    struct trm_lazy *next;
    void *memory; /* reserved pages */
    size_t mapped_bytes;
    int borrowed;
    bool kept, made;
    /* recipe: the source's bytes, or those of a stack: sources [dim 0 of whole], each of which is
     * one index of dim 0; of them the parts of each dim */
    const void *source;
    const void *const *sources; /* NULL: no stack */
    trm_tensor whole;           /* the source's, or the stack's descriptor */
    taken parts[TRM_RANK_MAX];
    const double *scale;     /* [rows of the source's dim 0]; NULL: none, as for stacks */
    trm_graph_maker made_by; /* NULL: there is a source; else `source` is what it is given */
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

/* Blocks of elements that index `i` of dim `dim` on begins after, of one index of the dims before
 * it: the last dim lies in blocks, which for plain dtypes are elements. */
static size_t blocks_before(const trm_tensor *t, int dim, int64_t i)
{
    return (size_t)i * trm_tensor_count(t, dim + 1, t->rank) / trm_dtype_block_elems(t->dtype);
}

typedef struct maker {
    const struct trm_lazy *z;
    const unsigned char *from; /* the source, or the one of the stack that is copied */
    unsigned char *to;
    size_t item; /* bytes of a block */
    size_t row;  /* elements of an index of dim 0 */
    int last;    /* the last dim of which only a part is taken; 0: none, or dim 0 */
} maker;

/* Multiplies `count` floats that stood at element `at` of the source. */
static void scale_run(const maker *m, float *x, size_t at, size_t count)
{
    for (size_t i = 0; i < count;) {
        size_t row = (at + i) / m->row, end = (row + 1) * m->row - at;

        if (end > count)
            end = count;
        for (; i < end; i++)
            x[i] = (float)((double)x[i] * m->z->scale[row]);
    }
}

/* A contiguous run: `count` blocks from block `at` on. */
static void copy_run(maker *m, size_t at, size_t count)
{
    if (count == 0)
        return;
    if (m->z->made_by != NULL)
        m->z->made_by(m->z->source, at, count, m->to);
    else
        memcpy(m->to, m->from + at * m->item, count * m->item);
    if (m->z->scale != NULL)
        scale_run(m, (float *)(void *)m->to, at, count);
    m->to += count * m->item;
}

/* Dim `dim` of the source, whose index of the dims before it begins at block `at`. */
static void copy_dim(maker *m, int dim, size_t at)
{
    const trm_tensor *w = &m->z->whole;
    const taken *p = &m->z->parts[dim];
    const int64_t all[1][2] = {{0, w->dims[dim]}};
    const int64_t(*ranges)[2] = p->count == 0 ? all : p->ranges;
    int count = p->count == 0 ? 1 : p->count;
    bool stack = dim == 0 && m->z->sources != NULL;

    for (int i = 0; i < count; i++) {
        if (dim >= m->last && !stack) {
            copy_run(m, at + blocks_before(w, dim, ranges[i][0]),
                     blocks_before(w, dim, ranges[i][1] - ranges[i][0]));
            continue;
        }
        for (int64_t k = ranges[i][0]; k < ranges[i][1]; k++) {
            if (stack)
                m->from = (const unsigned char *)m->z->sources[k];
            if (m->last > dim)
                copy_dim(m, dim + 1, stack ? 0 : at + blocks_before(w, dim, k));
            else
                copy_run(m, 0, blocks_before(w, dim, 1));
        }
    }
}

static void make(const struct trm_lazy *z, void *memory)
{
    maker m = {.z = z,
               .from = (const unsigned char *)z->source,
               .to = (unsigned char *)memory,
               .item = trm_dtype_block_bytes(z->whole.dtype)};

    if (z->whole.rank == 0) {
        copy_run(&m, 0, 1);
        return;
    }
    m.row = trm_tensor_count(&z->whole, 1, z->whole.rank);
    for (int d = 1; d < z->whole.rank; d++)
        if (z->parts[d].count > 0)
            m.last = d;
    copy_dim(&m, 0, 0);
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

/* Copies `bytes` of *array into the arena; NULL stays NULL. */
static bool keep_array(trm_graph *g, const void **array, size_t count, size_t size)
{
    void *copy;

    if (*array == NULL)
        return true;
    copy = trm_arena_alloc(g->arena, count, size);
    if (copy == NULL)
        return false;
    memcpy(copy, *array, count * size);
    *array = copy;
    return true;
}

/* The recipe with arrays of its own; NULL: no memory. */
static struct trm_lazy *keep_recipe(trm_graph *g, const struct trm_lazy *recipe)
{
    struct trm_lazy *z = (struct trm_lazy *)trm_arena_alloc(g->arena, 1, sizeof(*z));
    size_t rows = recipe->whole.rank > 0 ? (size_t)recipe->whole.dims[0] : 1;
    const void *array;

    if (z == NULL)
        return NULL;
    *z = *recipe;
    z->borrowed = 0;
    z->kept = z->made = false;
    for (int d = 0; d < TRM_RANK_MAX; d++) {
        array = z->parts[d].count > 0 ? (const void *)z->parts[d].ranges : NULL;
        if (!keep_array(g, &array, (size_t)z->parts[d].count, 2 * sizeof(int64_t)))
            return NULL;
        z->parts[d].ranges = (const int64_t(*)[2])array;
    }
    array = z->scale;
    if (!keep_array(g, &array, rows, sizeof(double)))
        return NULL;
    z->scale = (const double *)array;
    array = (const void *)z->sources;
    if (!keep_array(g, &array, rows, sizeof(void *)))
        return NULL;
    z->sources = (const void *const *)array;
    return z;
}

/* A value by recipe (borrowed arrays are copied): lazy, or made at once where it is small. */
static trm_status add_recipe(trm_graph *g, const char *name, const struct trm_lazy *recipe,
                             trm_tensor desc, int *value_out)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes;
    struct trm_lazy *z = NULL;

    TRM_CHECK(trm_tensor_bytes(&desc, &bytes));
    if (bytes <= SMALL_BYTES) {
        desc.data = trm_arena_alloc_aligned(g->arena, bytes == 0 ? 1 : bytes);
        if (desc.data == NULL)
            return no_memory(name, bytes);
        make(recipe, desc.data);
    } else {
        z = keep_recipe(g, recipe);
        if (z == NULL)
            return no_memory(name, bytes);
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
    struct trm_lazy z = {.source = NULL};

    if (v->lazy != NULL)
        return *v->lazy;
    z.source = v->desc.data;
    z.whole = v->desc;
    return z;
}

/* Ranges of what `old` takes, as ranges of the source: a range may go over several of the old.
 * Writes at most old->count + count - 1 of them; returns how many. */
static int compose(const taken *old, const int64_t (*ranges)[2], int count, int64_t (*out)[2])
{
    int n = 0;

    for (int i = 0; i < count; i++) {
        int64_t before = 0; /* indices that the old ranges took so far */

        for (int k = 0; k < old->count; k++) {
            int64_t size = old->ranges[k][1] - old->ranges[k][0];
            int64_t from = ranges[i][0] > before ? ranges[i][0] - before : 0;
            int64_t to = ranges[i][1] - before < size ? ranges[i][1] - before : size;

            if (from < to) {
                out[n][0] = old->ranges[k][0] + from;
                out[n++][1] = old->ranges[k][0] + to;
            }
            before += size;
        }
    }
    if (n == 0) { /* nothing is left: count 0 would mean all */
        out[0][0] = out[0][1] = 0;
        n = 1;
    }
    return n;
}

trm_status trm_graph_add_part(trm_graph *g, const char *name, const trm_graph *from, int value,
                              int dim, const int64_t (*ranges)[2], int count, int *value_out)
{
    const trm_value *v = &from->values[value];
    struct trm_lazy z = recipe_of(v);
    trm_tensor desc = v->desc;
    int64_t part = 0;
    int64_t(*both)[2] = NULL;
    trm_status st;

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
    if (z.parts[dim].count > 0) { /* a part of a part */
        both = (int64_t(*)[2])trm_malloc((size_t)z.parts[dim].count + (size_t)count,
                                         2 * sizeof(int64_t));
        if (both == NULL)
            return no_memory(name, 0);
        count = compose(&z.parts[dim], ranges, count, both);
        ranges = (const int64_t(*)[2])both;
    }
    z.parts[dim].ranges = ranges;
    z.parts[dim].count = count;
    st = add_recipe(g, name, &z, desc, value_out);
    trm_free(both);
    return st;
}

trm_status trm_graph_add_made(trm_graph *g, const char *name, const trm_tensor *desc,
                              trm_graph_maker make_bytes, const void *ctx, int *value_out)
{
    struct trm_lazy z = {.source = ctx, .whole = *desc, .made_by = make_bytes};
    size_t bytes;

    if (!trm_tensor_is_concrete(desc) || desc->rank < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "constant '%s' of no shape", name);
    TRM_CHECK(trm_tensor_bytes(desc, &bytes));
    z.whole.data = NULL;
    return add_recipe(g, name, &z, z.whole, value_out);
}

/* The stack's descriptor: all values are constants of one shape and dtype, with bytes to read. */
static trm_status check_stack(const trm_graph *g, const char *name, const int *values, int count,
                              trm_tensor *desc_out)
{
    const trm_tensor *first;

    if (count < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "stack '%s' of %d values", name, count);
    first = &g->values[values[0]].desc;
    if (first->rank < 0 || first->rank >= TRM_RANK_MAX ||
        (first->rank == 0 && trm_dtype_is_block(first->dtype)))
        return trm_fail(TRM_ERR_INVALID_ARG, "stack '%s': values of rank %d", name, first->rank);
    for (int i = 0; i < count; i++) {
        const trm_value *v = &g->values[values[i]];

        if (v->desc.data == NULL || v->lazy != NULL)
            return trm_fail(TRM_ERR_INVALID_ARG, "stack '%s': '%s' is no constant with bytes", name,
                            v->name);
        if (v->desc.dtype != first->dtype || !trm_tensor_same_shape(&v->desc, first)) {
            char a[TRM_SHAPE_TEXT_BYTES], b[TRM_SHAPE_TEXT_BYTES];

            return trm_fail(TRM_ERR_INVALID_ARG,
                            "stack '%s': '%s' is %s of %s, '%s' is %s of %s: want all the same",
                            name, v->name, trm_tensor_shape_text(&v->desc, a, sizeof(a)),
                            trm_dtype_name(v->desc.dtype), g->values[values[0]].name,
                            trm_tensor_shape_text(first, b, sizeof(b)),
                            trm_dtype_name(first->dtype));
        }
    }
    *desc_out = *first;
    desc_out->data = NULL;
    desc_out->rank = first->rank + 1;
    desc_out->dims[0] = count;
    for (int d = 0; d < first->rank; d++)
        desc_out->dims[d + 1] = first->dims[d];
    return TRM_OK;
}

trm_status trm_graph_add_stacked(trm_graph *g, const char *name, const int *values, int count,
                                 int *value_out)
{
    struct trm_lazy z = {.source = NULL};
    const void **sources;
    trm_status st;

    TRM_CHECK(check_stack(g, name, values, count, &z.whole));
    sources = (const void **)trm_malloc((size_t)count, sizeof(void *));
    if (sources == NULL)
        return no_memory(name, (size_t)count * sizeof(void *));
    for (int i = 0; i < count; i++)
        sources[i] = g->values[values[i]].desc.data;
    z.sources = sources;
    st = add_recipe(g, name, &z, z.whole, value_out);
    trm_free((void *)sources);
    return st;
}

static bool is_part(const struct trm_lazy *z)
{
    for (int d = 0; d < TRM_RANK_MAX; d++)
        if (z->parts[d].count > 0)
            return true;
    return false;
}

trm_status trm_graph_add_scaled(trm_graph *g, const char *name, int value, const double *scale,
                                int *value_out)
{
    trm_value v = g->values[value];
    struct trm_lazy z = recipe_of(&v);
    trm_tensor desc = v.desc;
    double *both = NULL;
    trm_status st;

    if (v.desc.data == NULL || v.desc.dtype != TRM_DTYPE_F32 || v.desc.rank < 1 ||
        z.sources != NULL || is_part(&z))
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
