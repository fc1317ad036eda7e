/* Time of nodes, collectives and steps: arithmetic on rates. */
#include "parallel/rates_impl.h"

double trm_cost_node_us(const trm_cost_context *c, const trm_node *node, const trm_tensor *in,
                        const trm_tensor *out, bool fused)
{
    trmi_work w;

    if ((trm_op_get(node->op)->flags & TRM_OPF_COLLECTIVE) != 0 && node->op != TRM_OP_TrmShard)
        return 0;
    if (c->rates->gpu.is)
        return trmi_gpu_node_us(c, node, in, out, fused);
    if (!trmi_work_of(node, in, out, &w))
        return 0;
    if (fused) {
        /* its host keeps the result in registers; what it reads besides comes from memory */
        double most = 0, all = 0, extra;

        for (int i = 0; i < node->input_count; i++) {
            double bytes =
                in[i].dtype == TRM_DTYPE_NONE || in[i].rank < 0
                    ? 0
                    : (double)trm_tensor_numel(&in[i]) * (double)trm_dtype_bytes(in[i].dtype);

            all += bytes;
            most = bytes > most ? bytes : most;
        }
        extra = all - most;
        /* a plain add of that many bytes moves three times as many */
        w = (trmi_work){.kind = TRMI_ADD, .bytes = 3 * extra};
        for (int i = 0; i < TRMI_FEATURES; i++)
            w.feature[i] = i == 0 && w.bytes > 1 ? w.bytes : 1;
        return extra < 65536 ? 0
                             : trmi_rates_us(c->rates, &w, c->threads, c->busy_ranks, c->dtype) / 3;
    }
    return c->rates->dispatch_us +
           trmi_rates_us(c->rates, &w, c->threads, c->busy_ranks, c->dtype) +
           trmi_rates_far_us(c->rates, &w, c->threads, c->busy_ranks, c->step_bytes);
}

static double line(const trmi_line *l, double bytes)
{
    return l->alpha + l->beta * bytes;
}

/* Lines are of two ranks that each contribute `bytes` to a sum. With more, every rank reads more
 * contributions until the sum is divided among them (reduce-scatter, all-gather), which bounds what
 * a rank moves at about twice the vector. */
double trm_cost_collective_us(const trm_cost_context *c, trm_collective kind, int ranks,
                              size_t bytes)
{
    const trmi_line *sum = &c->rates->link[c->link][0], *message = &c->rates->link[c->link][1];
    double n = ranks, whole = (double)bytes, us;
    int used = ranks * (c->threads < 1 ? 1 : c->threads);

    if (c->rates->gpu.is)
        return trmi_gpu_collective_us(c, kind, ranks, bytes);
    if (kind == TRM_COLLECTIVE_MESSAGE)
        return line(message, whole);
    if (kind == TRM_COLLECTIVE_SHARD || ranks <= 1) {
        trmi_work w = {.kind = TRMI_MOVE, .bytes = whole * 2 / (n < 1 ? 1 : n)};

        if (kind != TRM_COLLECTIVE_SHARD)
            return 0;
        for (int i = 0; i < TRMI_FEATURES; i++)
            w.feature[i] = i == 0 && w.bytes > 1 ? w.bytes : 1;
        return trmi_rates_us(c->rates, &w, c->threads, c->busy_ranks, c->dtype);
    }
    switch (kind) {
    case TRM_COLLECTIVE_ALLGATHER: /* reads the others' parts */
        us = sum->alpha + sum->beta * whole * (n - 1) / n;
        break;
    case TRM_COLLECTIVE_REDUCE_SCATTER: /* reads its part of every contribution */
        us = sum->alpha + sum->beta * whole * 0.6;
        break;
    case TRM_COLLECTIVE_ALLTOALL: /* a rank's part, of which it keeps its own piece */
        us = sum->alpha + sum->beta * whole / n;
        break;
    default:
        us = sum->alpha + sum->beta * whole * (n < 4 ? n / 2 : 2);
        break;
    }
    us += sum->alpha * 0.5 * (n - 2); /* more ranks to wait for */
    if (c->link == TRM_LINK_HOST && used > c->rates->cpus)
        us *= (double)used / c->rates->cpus;
    return us;
}

double trm_cost_copies_us(const trm_cost_context *c, int copies, size_t bytes)
{
    const trmi_gpu *g = &c->rates->gpu;

    return g->is ? copies * g->copy_us + (double)bytes / (g->copy_gb_s * 1e3) : 0;
}

double trm_cost_step_us(const trm_cost_context *c, int nodes, int replica_ranks)
{
    /* handing over inputs and outputs; a follower sleeps on a futex until the plan arrives */
    double us = 5 + c->rates->dispatch_us * 0.1 * nodes;

    if (c->rates->gpu.is) /* launching a captured step and seeing its end */
        us += 10;
    return replica_ranks > 1 ? us + 30 + 2 * (replica_ranks - 1) : us;
}
