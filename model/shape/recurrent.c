/* Rule of RNN, GRU and LSTM: x [seq, batch, input], or [batch, seq, input] with layout 1;
 * w [directions, gates * hidden, input], r [directions, gates * hidden, hidden]. */
#include "model/shape/rule.h"

#include <string.h>

trm_status trmi_rule_recurrent(trmi_io io)
{
    bool batch_first = trm_attr_int(&io->node->attrs, "layout", 0) != 0;
    const char *direction = trm_attr_string(&io->node->attrs, "direction", "forward");
    int64_t dirs = strcmp(direction, "bidirectional") == 0 ? 2 : 1;
    int64_t hidden = trm_attr_int(&io->node->attrs, "hidden_size", TRM_DIM_UNKNOWN);
    int64_t gates = io->node->op == TRM_OP_LSTM ? 4 : io->node->op == TRM_OP_GRU ? 3 : 1;
    int64_t seq = TRM_DIM_UNKNOWN, batch = TRM_DIM_UNKNOWN, same;
    trm_dtype dtype = trmi_shape_dtype(io, 0);

    if (dirs == 1 && strcmp(direction, "forward") != 0 && strcmp(direction, "reverse") != 0)
        return trmi_shape_bad(io, "direction '%s': want forward, reverse or bidirectional",
                              direction);
    for (int i = 0; i < 3; i++)
        TRM_CHECK(trmi_shape_want_rank(io, i, 3));
    if (hidden != TRM_DIM_UNKNOWN && (hidden < 1 || hidden > TRM_DIM_MAX / 4))
        return trmi_shape_bad(io, "hidden_size is %lld", (long long)hidden);
    if (trmi_shape_rank(io, 0) == 3) {
        seq = io->in[0].dims[batch_first ? 1 : 0];
        batch = io->in[0].dims[batch_first ? 0 : 1];
        if (trmi_shape_rank(io, 1) == 3)
            TRM_CHECK(trmi_shape_same(io, "input size of data and W", io->in[0].dims[2],
                                      io->in[1].dims[2], &same));
    }
    if (trmi_shape_rank(io, 2) == 3) {
        TRM_CHECK(trmi_shape_same(io, "hidden_size and the last dim of R", hidden,
                                  io->in[2].dims[2], &hidden));
        TRM_CHECK(trmi_shape_same(io, "directions and the first dim of R", dirs, io->in[2].dims[0],
                                  &same));
    }
    for (int i = 1; i < 3; i++)
        if (trmi_shape_rank(io, i) == 3)
            TRM_CHECK(trmi_shape_same(io, i == 1 ? "gates of W" : "gates of R",
                                      trmi_shape_op(io, '*', hidden, gates), io->in[i].dims[1],
                                      &same));
    if (trmi_shape_has(io, 3)) {
        TRM_CHECK(trmi_shape_want_rank(io, 3, 2));
        if (trmi_shape_rank(io, 3) == 2)
            TRM_CHECK(trmi_shape_same(io, "entries of B", trmi_shape_op(io, '*', hidden, 2 * gates),
                                      io->in[3].dims[1], &same));
    }
    trmi_shape_out_dims(io, 0, dtype, 4,
                        batch_first ? (int64_t[4]){batch, seq, dirs, hidden}
                                    : (int64_t[4]){seq, dirs, batch, hidden});
    for (int k = 1; k < 3; k++)
        trmi_shape_out_dims(io, k, dtype, 3,
                            batch_first ? (int64_t[3]){batch, dirs, hidden}
                                        : (int64_t[3]){dirs, batch, hidden});
    return TRM_OK;
}
