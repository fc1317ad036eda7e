/* How a strided copy is done: decided on the host, once for a kernel. */
#include "kernels/cuda/move.h"

#include <string.h>

trmi_div trmi_cuda_div(uint64_t by)
{
    trmi_div d = {.by = by == 0 ? 1 : by};

    if (d.by >= (uint64_t)1 << 31)
        return d; /* only ever used in 64 bits */
    while (((uint64_t)1 << d.shift) < d.by)
        d.shift++;
    d.multiply = (uint32_t)((((uint64_t)1 << 32) * (((uint64_t)1 << d.shift) - d.by)) / d.by + 1);
    return d;
}

/* Least l with 2^l >= n, at most `most`. */
static int log_of(int64_t n, int most)
{
    int l = 0;

    while (l < most && ((int64_t)1 << l) < n)
        l++;
    return l;
}

bool trmi_cuda_tile_shape(trmi_move_tile *t, size_t elem)
{
    int log = TRMI_MOVE_TILE_LOG(elem);
    uint64_t blocks;

    t->a_log = log / 2;
    t->b_log = log - t->a_log;
    if (t->b_count <= t->a_count && t->b_count < (int64_t)1 << t->b_log) {
        t->b_log = log_of(t->b_count, log);
        t->a_log = log_of(t->a_count, log - t->b_log);
    } else if (t->a_count < (int64_t)1 << t->a_log) {
        t->a_log = log_of(t->a_count, log);
        t->b_log = log_of(t->b_count, log - t->a_log);
    }
    t->a_tiles = (uint64_t)(t->a_count + ((int64_t)1 << t->a_log) - 1) >> t->a_log;
    t->b_tiles = (uint64_t)(t->b_count + ((int64_t)1 << t->b_log) - 1) >> t->b_log;
    blocks = t->a_tiles * t->b_tiles;
    for (int i = 0; i < t->outer_rank; i++)
        if (__builtin_mul_overflow(blocks, t->outer[i], &blocks))
            return false;
    t->blocks = (uint32_t)blocks;
    return blocks <= INT32_MAX && t->a_count >= 2 && t->b_count >= 2 &&
           t->a_count * t->b_count >= 128;
}

struct dim {
    size_t count;
    int64_t in, out; /* steps in units */
};

static int64_t magnitude(int64_t x)
{
    return x < 0 ? -x : x;
}

/* Dims of 1 dropped, the others from the largest step in the output on. */
static int sorted(const trmi_move_copy *c, struct dim *d)
{
    int n = 0;

    for (int i = 0; i < c->rank; i++) {
        struct dim x = {c->dims[i], c->in[i], c->out[i]};
        int at = n;

        if (x.count == 1)
            continue;
        for (; at > 0 && magnitude(d[at - 1].out) < magnitude(x.out); at--)
            d[at] = d[at - 1];
        d[at] = x;
        n++;
    }
    return n;
}

static int merged(struct dim *d, int n)
{
    int m = 0;

    for (int i = 0; i < n; i++) {
        if (m > 0 && d[m - 1].in == d[i].in * (int64_t)d[i].count &&
            d[m - 1].out == d[i].out * (int64_t)d[i].count) {
            d[m - 1].count *= d[i].count;
            d[m - 1].in = d[i].in;
            d[m - 1].out = d[i].out;
        } else {
            d[m++] = d[i];
        }
    }
    return m;
}

/* Whether pairs of units can be units: the innermost dim is contiguous and even, the rest even. */
static bool can_widen(const struct dim *d, int n, int64_t in_offset, int64_t out_offset)
{
    if (n == 0 || d[n - 1].in != 1 || d[n - 1].out != 1 || d[n - 1].count % 2 != 0 ||
        in_offset % 2 != 0 || out_offset % 2 != 0)
        return false;
    for (int i = 0; i < n - 1; i++)
        if (d[i].in % 2 != 0 || d[i].out % 2 != 0)
            return false;
    return true;
}

static bool plan_tiles(const struct dim *d, int n, trmi_move_plan *p)
{
    trmi_move_tile *t = &p->tile;
    int a = -1;

    if (n < 2 || d[n - 1].out != 1 || magnitude(d[n - 1].in) <= 1)
        return false;
    for (int i = 0; i < n - 1; i++)
        if (d[i].in == 1 && (a < 0 || d[i].count > d[a].count))
            a = i;
    if (a < 0)
        return false;
    t->a_count = (int64_t)d[a].count;
    t->a_out = d[a].out;
    t->b_count = (int64_t)d[n - 1].count;
    t->b_in = d[n - 1].in;
    for (int i = 0; i < n - 1; i++) {
        if (i == a)
            continue;
        t->outer[t->outer_rank] = d[i].count;
        t->outer_in[t->outer_rank] = d[i].in;
        t->outer_out[t->outer_rank] = d[i].out;
        t->outer_rank++;
    }
    return trmi_cuda_tile_shape(t, p->unit);
}

/* Four units a thread, stored as one vector, where they lie together in the output. */
static int pack_of(const struct dim *d, int n, size_t unit, size_t widest, int64_t out_offset)
{
    if (unit > 4 || unit * 4 > widest || n == 0 || d[n - 1].out != 1 || d[n - 1].count % 4 != 0 ||
        out_offset % 4 != 0)
        return 1;
    for (int i = 0; i < n - 1; i++)
        if (d[i].out % 4 != 0)
            return 1;
    return 4;
}

static void plan_walk(const struct dim *d, int n, int pack, trmi_move_plan *p)
{
    trmi_move_walk *w = &p->walk;

    p->pack = pack;
    w->rank = n;
    w->count = 1;
    w->in_step = n > 0 ? d[n - 1].in : 0;
    for (int i = 0; i < n; i++) {
        size_t by = i == n - 1 ? (size_t)pack : 1;

        w->dims[i] = trmi_cuda_div(d[i].count / by);
        w->count *= d[i].count / by;
        w->in[i] = d[i].in * (int64_t)by;
        w->out[i] = d[i].out * (int64_t)by;
    }
}

void trmi_cuda_move_plan(const trmi_move_copy *c, size_t widest, trmi_move_plan *p)
{
    struct dim d[TRMI_MOVE_RANK];
    int64_t in_offset = c->in_offset, out_offset = c->out_offset;
    int n, pack;

    memset(p, 0, sizeof(*p));
    p->align = 1;
    for (int i = 0; i < c->rank; i++)
        if (c->dims[i] == 0)
            return;
    p->unit = p->align = c->elem;
    p->in_offset = in_offset * (int64_t)c->elem;
    p->out_offset = out_offset * (int64_t)c->elem;
    n = merged(d, sorted(c, d));
    if (n == 0 || (n == 1 && d[0].in == 1 && d[0].out == 1)) {
        p->kind = TRMI_MOVE_FLAT;
        p->bytes = c->elem * (n == 0 ? 1 : d[0].count);
        return;
    }
    while (p->unit * 2 <= widest && can_widen(d, n, in_offset, out_offset)) {
        for (int i = 0; i < n - 1; i++) {
            d[i].in /= 2;
            d[i].out /= 2;
        }
        in_offset /= 2;
        out_offset /= 2;
        p->unit *= 2;
        if ((d[n - 1].count /= 2) == 1)
            n--;
    }
    p->align = p->unit;
    if (plan_tiles(d, n, p)) {
        p->kind = TRMI_MOVE_TILES;
        return;
    }
    p->kind = TRMI_MOVE_WALK;
    pack = pack_of(d, n, p->unit, widest, out_offset);
    p->align = p->unit * (size_t)pack;
    plan_walk(d, n, pack, p);
}
