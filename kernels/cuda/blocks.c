/* Blocks are put in order of the widest unit that their numbers allow, dims that lie together
 * become one, and each launch takes neighbours of one unit. */
#include "kernels/cuda/blocks.h"

#include <stdlib.h>
#include <string.h>

struct blocks {
    trmi_cuda_kernel base;
    int launches;
    struct launch {
        int unit;
        trmi_blocks args;
    } launch[];
};

/* What a copy of units needs of the addresses, counts and steps that it uses. */
static int unit_of(const trm_block *b, int most)
{
    size_t bits = b->run | b->from_at | b->to_at;
    int unit = most;

    for (int i = 0; i < 3; i++)
        if (b->dims[i] > 1)
            bits |= b->from_step[i] | b->to_step[i];
    while (unit > 1 && bits % (size_t)unit != 0)
        unit /= 2;
    return unit;
}

/* Runs one after another on both sides become one run, planes of such runs likewise; dims that are
 * left come first among the fast ones. */
static void simplify(trm_block *b)
{
    trm_block s = *b;
    int at = 2; /* where the next dim goes, from the fastest on */

    for (int i = 0; i < 3; i++)
        s.dims[i] = 1;
    for (int i = 2; i >= 0; i--) {
        if (b->dims[i] == 1)
            continue;
        if (at == 2 && b->from_step[i] == s.run && b->to_step[i] == s.run) {
            s.run *= b->dims[i];
            continue;
        }
        if (at < 2 && b->from_step[i] == s.from_step[at + 1] * s.dims[at + 1] &&
            b->to_step[i] == s.to_step[at + 1] * s.dims[at + 1]) {
            s.dims[at + 1] *= b->dims[i];
            continue;
        }
        s.dims[at] = b->dims[i];
        s.from_step[at] = b->from_step[i];
        s.to_step[at] = b->to_step[i];
        at--;
    }
    *b = s;
}

static trmi_block in_units(const trm_block *b, int unit)
{
    size_t u = (size_t)unit;
    trmi_block x = {.count = b->run / u * b->dims[0] * b->dims[1] * b->dims[2],
                    .from_at = b->from_at / u,
                    .to_at = b->to_at / u,
                    .run = trmi_cuda_div(b->run / u),
                    .dims = {trmi_cuda_div(b->dims[2]), trmi_cuda_div(b->dims[1])}};

    for (int i = 0; i < 3; i++) {
        x.from_step[i] = b->dims[2 - i] > 1 ? b->from_step[2 - i] / u : 0;
        x.to_step[i] = b->dims[2 - i] > 1 ? b->to_step[2 - i] / u : 0;
    }
    return x;
}

/* Launches for blocks of which `unit` says how wide each may be copied. */
static int plan(const trm_block *blocks, int count, int most, struct launch *launches)
{
    int n = 0;

    for (int unit = most; unit >= 1; unit /= 2) {
        struct launch *l = NULL;

        for (int i = 0; i < count; i++) {
            if (unit_of(&blocks[i], most) != unit)
                continue;
            if (l == NULL || l->args.count == TRMI_BLOCKS_LAUNCH) {
                l = &launches[n++];
                l->unit = unit;
                l->args.count = 0;
            }
            l->args.block[l->args.count++] = in_units(&blocks[i], unit);
        }
    }
    return n;
}

/* Makes units of `to` bytes from units of `from` bytes: for pointers that are aligned less than
 * allocations are. */
static void narrow(const trmi_blocks *wide, int from, int to, trmi_blocks *out)
{
    uint64_t by = (uint64_t)(from / to);

    *out = *wide;
    for (uint32_t i = 0; i < wide->count; i++) {
        trmi_block *b = &out->block[i];

        b->count *= by;
        b->from_at *= by;
        b->to_at *= by;
        b->run = trmi_cuda_div(b->run.by * by);
        for (int d = 0; d < 3; d++) {
            b->from_step[d] *= by;
            b->to_step[d] *= by;
        }
    }
}

static trm_status blocks_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                             void *workspace)
{
    const struct blocks *b = (const struct blocks *)k;
    cudaStream_t stream = trmi_cuda_stream(k, s);
    uintptr_t bits = (uintptr_t)in[0] | (uintptr_t)out[0];
    trmi_blocks narrowed;

    (void)workspace;
    for (int i = 0; i < b->launches; i++) {
        const struct launch *l = &b->launch[i];
        const trmi_blocks *args = &l->args;
        int unit = l->unit;

        while (bits % (uintptr_t)unit != 0)
            unit /= 2;
        if (unit != l->unit) {
            narrow(args, l->unit, unit, &narrowed);
            args = &narrowed;
        }
        TRM_CHECK(trmi_cuda_blocks(b->base.cuda, stream, out[0], in[0], unit, args));
    }
    return TRM_OK;
}

static const trm_kernel_ops blocks_ops = {
    .name = "blocks", .run = blocks_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_prepare_blocks(trm_device *d, const trm_block *blocks, int count,
                                    trm_kernel **kernel_out)
{
    /* at worst a launch that is not full for each of the five units */
    size_t launches = 5 + TRM_BLOCKS_MAX / TRMI_BLOCKS_LAUNCH;
    trm_block *simple;
    struct blocks *b;
    int n = 0;
    trm_status st;

    if (count < 0 || count > TRM_BLOCKS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%d blocks in a copy: want at most %d", count,
                        TRM_BLOCKS_MAX);
    simple = trm_calloc((size_t)count + 1, sizeof(*simple));
    if (simple == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "blocks");
    for (int i = 0; i < count; i++) {
        const trm_block *x = &blocks[i];
        size_t elems;

        if (x->run == 0 || x->dims[0] == 0 || x->dims[1] == 0 || x->dims[2] == 0)
            continue;
        if (__builtin_mul_overflow(x->dims[0], x->dims[1], &elems) ||
            __builtin_mul_overflow(elems, x->dims[2], &elems) ||
            __builtin_mul_overflow(elems, x->run, &elems)) {
            trm_free(simple);
            return trm_fail(TRM_ERR_INVALID_ARG, "block %d is too large", i);
        }
        simple[n] = *x;
        simplify(&simple[n++]);
    }
    st = trmi_cuda_kernel_new((trm_cuda *)d, sizeof(*b) + launches * sizeof(b->launch[0]),
                              &blocks_ops, &b);
    if (st == TRM_OK) {
        b->launches = plan(simple, n, 16, b->launch);
        *kernel_out = &b->base.base;
    }
    trm_free(simple);
    return st;
}
