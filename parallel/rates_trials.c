/* What the probe measures: the shapes of common networks, whole and as tensor parallelism cuts
 * them, and some between. Each row becomes a node as the executor would meet it. */
#include "parallel/rates_impl.h"

#include "model/shape/shape.h"

#include <string.h>

typedef struct trial_row {
    trmi_class kind;
    bool crowded;
    int p[6];
} trial_row;

#define D TRMI_DENSE, false
#define DC TRMI_DENSE, true
#define C TRMI_CONV, false
#define CC TRMI_CONV, true
#define F TRMI_CONV_FEW, false
#define W TRMI_DEPTHWISE, false
#define WC TRMI_DEPTHWISE, true

static const trial_row rows[] = {
    /* m, n, k */
    {D, {1, 256, 256}},
    {D, {1, 768, 768}},
    {D, {1, 500, 2048}},
    {DC, {1, 1000, 2048}},
    {D, {1, 1000, 1280}},
    {D, {1, 3072, 768}},
    {D, {8, 64, 64}},
    {D, {8, 768, 768}},
    {D, {8, 1000, 1280}},
    {D, {8, 1000, 2048}},
    {D, {16, 512, 512}},
    {D, {32, 768, 768}},
    {D, {32, 3072, 768}},
    {D, {64, 64, 64}},
    {D, {64, 256, 1024}},
    {D, {64, 1024, 256}},
    {D, {128, 256, 256}},
    {D, {128, 64, 768}},
    {D, {128, 256, 768}},
    {D, {128, 384, 768}},
    {DC, {128, 768, 768}},
    {D, {128, 1536, 768}},
    {D, {128, 2304, 768}},
    {D, {128, 3072, 768}},
    {D, {128, 768, 384}},
    {D, {128, 768, 1536}},
    {D, {128, 768, 3072}},
    {D, {197, 384, 768}},
    {D, {197, 768, 768}},
    {D, {197, 1152, 768}},
    {D, {197, 2304, 768}},
    {D, {197, 768, 384}},
    {D, {197, 768, 1536}},
    {D, {197, 1536, 768}},
    {D, {197, 3072, 768}},
    {DC, {197, 768, 3072}},
    {D, {1024, 64, 64}},
    {D, {1024, 256, 256}},
    {D, {1024, 384, 768}},
    {D, {1024, 768, 384}},
    {D, {1024, 768, 768}},
    {D, {1024, 1536, 768}},
    {D, {1024, 768, 1536}},
    {D, {1576, 384, 768}},
    {D, {1576, 768, 768}},
    /* m, n, k, batch */
    {TRMI_PRODUCT, false, {128, 128, 64, 12}},
    {TRMI_PRODUCT, false, {128, 64, 128, 12}},
    {TRMI_PRODUCT, false, {197, 197, 64, 12}},
    {TRMI_PRODUCT, false, {49, 49, 32, 24}},
    {TRMI_PRODUCT, false, {16, 16, 16, 8}},
    /* in, out channels, side of the output, images, kernel, stride: bottlenecks */
    {C, {64, 64, 56, 1, 1, 1}},
    {C, {64, 256, 56, 1, 1, 1}},
    {CC, {256, 64, 56, 1, 1, 1}},
    {C, {256, 128, 56, 1, 1, 1}},
    {C, {128, 512, 28, 1, 1, 1}},
    {C, {512, 128, 28, 1, 1, 1}},
    {C, {512, 256, 28, 1, 1, 1}},
    {C, {256, 1024, 14, 1, 1, 1}},
    {C, {1024, 256, 14, 1, 1, 1}},
    {C, {512, 2048, 7, 1, 1, 1}},
    {CC, {2048, 512, 7, 1, 1, 1}},
    {C, {256, 512, 28, 1, 1, 2}},
    {C, {512, 1024, 14, 1, 1, 2}},
    {C, {1024, 2048, 7, 1, 1, 2}},
    {C, {32, 256, 56, 1, 1, 1}},
    {C, {256, 32, 56, 1, 1, 1}},
    {C, {64, 512, 28, 1, 1, 1}},
    {C, {512, 64, 28, 1, 1, 1}},
    {C, {128, 1024, 14, 1, 1, 1}},
    {C, {1024, 128, 14, 1, 1, 1}},
    {C, {256, 2048, 7, 1, 1, 1}},
    {C, {2048, 256, 7, 1, 1, 1}},
    {C, {512, 512, 14, 1, 1, 2}},
    {C, {1024, 85, 14, 1, 1, 1}},
    {C, {64, 64, 56, 8, 1, 1}},
    {C, {64, 256, 56, 8, 1, 1}},
    {C, {256, 64, 56, 8, 1, 1}},
    {C, {128, 512, 28, 8, 1, 1}},
    {C, {512, 128, 28, 8, 1, 1}},
    {C, {256, 1024, 14, 8, 1, 1}},
    {C, {1024, 256, 14, 8, 1, 1}},
    {C, {512, 2048, 7, 8, 1, 1}},
    {C, {2048, 512, 7, 8, 1, 1}},
    {C, {512, 1024, 14, 8, 1, 2}},
    {C, {32, 256, 56, 8, 1, 1}},
    {C, {1024, 128, 14, 8, 1, 1}},
    {C, {128, 1024, 14, 8, 1, 1}},
    {C, {64, 64, 56, 1, 3, 1}},
    {C, {128, 128, 28, 1, 3, 1}},
    {CC, {256, 256, 14, 1, 3, 1}},
    {C, {512, 512, 7, 1, 3, 1}},
    {C, {128, 128, 28, 1, 3, 2}},
    {C, {256, 256, 14, 1, 3, 2}},
    {C, {512, 512, 7, 1, 3, 2}},
    {C, {64, 32, 56, 1, 3, 1}},
    {C, {32, 64, 56, 1, 3, 1}},
    {C, {128, 64, 28, 1, 3, 1}},
    {C, {64, 128, 28, 1, 3, 1}},
    {C, {256, 128, 14, 1, 3, 1}},
    {C, {128, 256, 14, 1, 3, 1}},
    {C, {512, 256, 7, 1, 3, 1}},
    {C, {256, 512, 7, 1, 3, 1}},
    {C, {256, 85, 14, 1, 3, 1}},
    {C, {16, 16, 112, 1, 3, 1}},
    {C, {64, 64, 112, 1, 3, 1}},
    {C, {128, 32, 28, 1, 3, 1}},
    {C, {128, 32, 14, 1, 3, 1}},
    {C, {64, 64, 56, 8, 3, 1}},
    {C, {128, 128, 28, 8, 3, 1}},
    {C, {256, 256, 14, 8, 3, 1}},
    {C, {512, 512, 7, 8, 3, 1}},
    {C, {256, 128, 14, 8, 3, 1}},
    {C, {16, 16, 32, 1, 5, 1}},
    /* inverted bottlenecks */
    {C, {32, 16, 112, 1, 1, 1}},
    {C, {16, 96, 112, 1, 1, 1}},
    {C, {96, 24, 56, 1, 1, 1}},
    {C, {24, 144, 56, 1, 1, 1}},
    {C, {144, 24, 56, 1, 1, 1}},
    {C, {32, 192, 28, 1, 1, 1}},
    {C, {192, 32, 28, 1, 1, 1}},
    {C, {64, 384, 14, 1, 1, 1}},
    {C, {384, 64, 14, 1, 1, 1}},
    {C, {96, 576, 14, 1, 1, 1}},
    {C, {576, 96, 14, 1, 1, 1}},
    {C, {160, 960, 7, 1, 1, 1}},
    {C, {960, 160, 7, 1, 1, 1}},
    {C, {320, 1280, 7, 1, 1, 1}},
    {C, {16, 48, 112, 1, 1, 1}},
    {C, {32, 96, 28, 1, 1, 1}},
    {C, {96, 32, 28, 1, 1, 1}},
    {C, {16, 96, 112, 8, 1, 1}},
    {C, {144, 24, 56, 8, 1, 1}},
    {C, {32, 192, 28, 8, 1, 1}},
    {C, {96, 576, 14, 8, 1, 1}},
    {C, {576, 96, 14, 8, 1, 1}},
    {C, {160, 960, 7, 8, 1, 1}},
    /* first layers */
    {F, {3, 64, 112, 1, 7, 2}},
    {F, {3, 32, 112, 1, 7, 2}},
    {F, {3, 32, 112, 1, 3, 2}},
    {F, {3, 64, 112, 1, 3, 1}},
    {F, {3, 768, 14, 1, 16, 16}},
    {F, {1, 16, 28, 1, 3, 1}},
    {F, {3, 64, 112, 8, 7, 2}},
    {F, {3, 32, 112, 8, 3, 2}},
    {F, {3, 768, 14, 8, 16, 16}},
    /* channels, -, side of the output, images, kernel, stride */
    {W, {32, 0, 112, 1, 3, 1}},
    {W, {96, 0, 56, 1, 3, 2}},
    {WC, {144, 0, 56, 1, 3, 1}},
    {W, {144, 0, 28, 1, 3, 2}},
    {W, {192, 0, 28, 1, 3, 1}},
    {W, {384, 0, 14, 1, 3, 1}},
    {W, {576, 0, 7, 1, 3, 2}},
    {W, {960, 0, 7, 1, 3, 1}},
    {W, {480, 0, 7, 1, 3, 1}},
    {W, {96, 0, 28, 1, 3, 1}},
    {W, {96, 0, 56, 8, 3, 2}},
    {W, {144, 0, 56, 8, 3, 1}},
    {W, {384, 0, 14, 8, 3, 1}},
    {W, {960, 0, 7, 8, 3, 1}},
    /* of a group: in, out channels; side, images, kernel, groups */
    {TRMI_GROUPED, false, {4, 4, 56, 1, 3, 32}},
    {TRMI_GROUPED, false, {16, 16, 14, 1, 3, 32}},
    {TRMI_GROUPED, false, {8, 8, 28, 1, 1, 8}},
    /* in, out channels, side of the output, images, kernel, stride */
    {TRMI_CONV_UP, false, {128, 64, 64, 1, 2, 2}},
    {TRMI_CONV_UP, false, {64, 32, 32, 1, 4, 2}},
    {TRMI_CONV_UP, false, {16, 16, 16, 1, 3, 1}},
    /* heads, query, key length, head dim */
    {TRMI_ATTENTION, false, {2, 16, 16, 16}},
    {TRMI_ATTENTION, false, {6, 128, 128, 64}},
    {TRMI_ATTENTION, true, {12, 128, 128, 64}},
    {TRMI_ATTENTION, false, {6, 197, 197, 64}},
    {TRMI_ATTENTION, false, {12, 197, 197, 64}},
    {TRMI_ATTENTION, false, {96, 128, 128, 64}},
    {TRMI_ATTENTION, false, {48, 197, 197, 64}},
    {TRMI_ATTENTION, false, {4, 512, 512, 64}},
    {TRMI_ATTENTION, false, {12, 1, 256, 64}},
    /* steps, batch, input, hidden */
    {TRMI_RECURRENT, false, {16, 1, 64, 64}},
    {TRMI_RECURRENT, false, {60, 4, 200, 256}},
    {TRMI_RECURRENT, false, {16, 8, 256, 256}},
    /* elements [, row] */
    {TRMI_ADD, false, {256}},
    {TRMI_ADD, false, {16384}},
    {TRMI_ADD, false, {131072}},
    {TRMI_ADD, false, {1048576}},
    {TRMI_ADD, true, {3145728}},
    {TRMI_MATH, false, {256}},
    {TRMI_MATH, false, {16384}},
    {TRMI_MATH, false, {393216}},
    {TRMI_MATH, true, {3145728}},
    {TRMI_NORM, false, {768, 768}},
    {TRMI_NORM, false, {98304, 768}},
    {TRMI_NORM, false, {151296, 768}},
    {TRMI_NORM, false, {32768, 64}},
    {TRMI_NORM, false, {1210368, 768}},
    {TRMI_SOFTMAX, false, {1000, 1000}},
    {TRMI_SOFTMAX, false, {196608, 128}},
    {TRMI_SOFTMAX, false, {1572864, 128}},
    /* channels, side of the output, images, kernel, stride */
    {TRMI_POOL, false, {64, 56, 1, 3, 2}},
    {TRMI_POOL, false, {64, 56, 8, 3, 2}},
    {TRMI_POOL, false, {64, 32, 1, 2, 2}},
    {TRMI_POOL, false, {32, 16, 1, 3, 1}},
    /* channels, side, images */
    {TRMI_REDUCE, false, {2048, 7, 1}},
    {TRMI_REDUCE, false, {2048, 7, 8}},
    {TRMI_REDUCE, false, {64, 56, 1}},
    /* [a, b, c] to [b, a, c], or (1) to [b, c, a] */
    {TRMI_MOVE, false, {4, 4, 16}},
    {TRMI_MOVE, false, {128, 12, 64}},
    {TRMI_MOVE, false, {128, 12, 64, 1}},
    {TRMI_MOVE, false, {197, 12, 64}},
    {TRMI_MOVE, false, {197, 12, 64, 1}},
    {TRMI_MOVE, false, {1024, 12, 64}},
    {TRMI_MOVE, false, {1024, 12, 64, 1}},
    {TRMI_MOVE, false, {1024, 48, 64}},
    /* rows, row, table */
    {TRMI_GATHER, false, {1, 768, 1000}},
    {TRMI_GATHER, false, {128, 768, 8000}},
    {TRMI_GATHER, false, {1024, 768, 8000}},
};

int trmi_trial_count(void)
{
    return (int)(sizeof(rows) / sizeof(rows[0]));
}

bool trmi_trial_crowded(int i)
{
    return rows[i].crowded;
}

static trm_tensor tensor(trm_dtype dtype, int rank, const int64_t *dims, void *data)
{
    trm_tensor t = {.dtype = dtype, .rank = rank, .data = data};

    memcpy(t.dims, dims, (size_t)rank * sizeof(int64_t));
    return t;
}
#define TENSOR(data, ...)                                                                          \
    tensor(dtype, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                       \
           (int64_t[]){__VA_ARGS__}, (data))

typedef struct maker {
    trm_arena *arena;
    trmi_trial *t;
    trm_status st;
} maker;

static void set_int(maker *m, const char *name, int64_t v)
{
    if (m->st == TRM_OK)
        m->st = trm_attr_set_int(&m->t->node.attrs, m->arena, name, v);
}

static void set_ints(maker *m, const char *name, int count, int64_t a, int64_t b, int64_t c)
{
    const int64_t v[4] = {a, b, c, c};

    if (m->st == TRM_OK)
        m->st = trm_attr_set_ints(&m->t->node.attrs, m->arena, name, v, (size_t)count);
}

static void op(maker *m, trm_op o, int inputs, int warm)
{
    m->t->node.op = o;
    m->t->node.input_count = inputs;
    m->t->node.output_count = 1;
    m->t->warm = warm;
}

static void make_conv(maker *m, const trial_row *r, trm_dtype dtype, void *data)
{
    int64_t ins = r->p[0], outs = r->p[1], side = r->p[2], n = r->p[3], k = r->p[4];
    int64_t s = r->p[5], group = 1, pad = (k - 1) / 2;
    bool up = r->kind == TRMI_CONV_UP, patch = s == k && k > 3;

    if (r->kind == TRMI_DEPTHWISE) {
        group = outs = ins;
    } else if (r->kind == TRMI_GROUPED) {
        group = s;
        s = 1;
        ins *= group;
        outs *= group;
    }
    if (up) {
        pad = s == 1 ? (k - 1) / 2 : (k - s) / 2;
        m->t->in[0] = TENSOR(NULL, n, ins, side / s, side / s);
        m->t->in[1] = TENSOR(data, ins, outs, k, k);
    } else {
        pad = patch ? 0 : pad;
        m->t->in[0] = TENSOR(NULL, n, ins, side * s, side * s);
        m->t->in[1] = TENSOR(data, outs, ins / group, k, k);
    }
    m->t->in[2] = TENSOR(data, outs);
    op(m, up ? TRM_OP_ConvTranspose : TRM_OP_Conv, 3, 1);
    set_int(m, "group", group);
    set_ints(m, "strides", 2, s, s, 0);
    set_ints(m, "kernel_shape", 2, k, k, 0);
    set_ints(m, "pads", 4, pad, pad, pad);
    if (!up && !patch && s > 1) { /* so that the output has exactly `side` */
        int64_t pads[4] = {pad, pad, pad, pad};

        pads[2] = pads[3] = (side - 1) * s + k - side * s - pad;
        if (pads[2] >= 0 && m->st == TRM_OK)
            m->st = trm_attr_set_ints(&m->t->node.attrs, m->arena, "pads", pads, 4);
    }
}

static void make_rows(maker *m, const trial_row *r, trm_dtype dtype, void *data)
{
    int64_t row = r->p[1] > 0 ? r->p[1] : 64, rest = r->p[0] / row;

    m->t->in[0] = TENSOR(NULL, rest, row);
    switch (r->kind) {
    case TRMI_ADD:
        m->t->in[1] = TENSOR(NULL, rest, row);
        op(m, TRM_OP_Add, 2, 3);
        break;
    case TRMI_MATH:
        op(m, TRM_OP_Gelu, 1, 1);
        break;
    case TRMI_NORM:
        m->t->in[1] = TENSOR(data, row);
        m->t->in[2] = TENSOR(data, row);
        op(m, TRM_OP_LayerNormalization, 3, 1);
        set_int(m, "axis", -1);
        break;
    default:
        op(m, TRM_OP_Softmax, 1, 1);
        set_int(m, "axis", -1);
        break;
    }
}

static void make(maker *m, const trial_row *r, trm_dtype dtype, void *data)
{
    const int *p = r->p;
    trmi_trial *t = m->t;

    switch (r->kind) {
    case TRMI_DENSE:
        t->in[0] = TENSOR(NULL, p[0], p[2]);
        t->in[1] = TENSOR(data, p[2], p[1]);
        op(m, TRM_OP_MatMul, 2, 1);
        break;
    case TRMI_PRODUCT:
        t->in[0] = TENSOR(NULL, p[3], p[0], p[2]);
        t->in[1] = TENSOR(NULL, p[3], p[2], p[1]);
        op(m, TRM_OP_MatMul, 2, 3);
        break;
    case TRMI_ATTENTION:
        t->in[0] = TENSOR(NULL, 1, p[0], p[1], p[3]);
        t->in[1] = TENSOR(NULL, 1, p[0], p[2], p[3]);
        t->in[2] = TENSOR(NULL, 1, p[0], p[2], p[3]);
        op(m, TRM_OP_TrmAttention, 3, 7);
        break;
    case TRMI_RECURRENT:
        t->in[0] = TENSOR(NULL, p[0], p[1], p[2]);
        t->in[1] = TENSOR(data, 1, 4 * (int64_t)p[3], p[2]);
        t->in[2] = TENSOR(data, 1, 4 * (int64_t)p[3], p[3]);
        op(m, TRM_OP_LSTM, 3, 1);
        set_int(m, "hidden_size", p[3]);
        break;
    case TRMI_POOL:
        t->in[0] = TENSOR(NULL, p[2], p[0], p[1] * (int64_t)p[4], p[1] * (int64_t)p[4]);
        op(m, TRM_OP_MaxPool, 1, 1);
        set_ints(m, "kernel_shape", 2, p[3], p[3], 0);
        set_ints(m, "strides", 2, p[4], p[4], 0);
        if (p[3] > 2)
            set_ints(m, "pads", 4, 1, 1, 1);
        break;
    case TRMI_REDUCE:
        t->in[0] = TENSOR(NULL, p[2], p[0], p[1], p[1]);
        op(m, TRM_OP_GlobalAveragePool, 1, 1);
        break;
    case TRMI_MOVE:
        t->in[0] = TENSOR(NULL, p[0], p[1], p[2]);
        op(m, TRM_OP_Transpose, 1, 0); /* often of what was made some nodes ago */
        set_ints(m, "perm", 3, 1, p[3] == 0 ? 0 : 2, p[3] == 0 ? 2 : 0);
        break;
    case TRMI_GATHER:
        t->in[0] = TENSOR(data, p[2], p[1]);
        t->in[1] = TENSOR(trm_arena_alloc(m->arena, (size_t)p[0], sizeof(int64_t)), p[0]);
        t->in[1].dtype = TRM_DTYPE_I64;
        if (t->in[1].data == NULL)
            m->st = trm_fail(TRM_ERR_NO_MEMORY, "probe");
        for (int k = 0; k < p[0] && m->st == TRM_OK; k++)
            ((int64_t *)t->in[1].data)[k] = (int64_t)k * 797 % p[2];
        op(m, TRM_OP_Gather, 2, 0);
        break;
    case TRMI_ADD:
    case TRMI_MATH:
    case TRMI_NORM:
    case TRMI_SOFTMAX:
        make_rows(m, r, dtype, data);
        break;
    default:
        make_conv(m, r, dtype, data);
        break;
    }
}

trm_status trmi_trial_make(int i, trm_dtype dtype, void *data, trm_arena *arena, trmi_trial *t)
{
    maker m = {.arena = arena, .t = t, .st = TRM_OK};
    trm_shape_io io = {.node = &t->node, .in = t->in, .out = t->out};
    size_t bytes;

    memset(t, 0, sizeof(*t));
    t->node.name = "rates";
    make(&m, &rows[i], dtype, data);
    TRM_CHECK(m.st);
    for (int k = 0; k < t->node.input_count; k++) {
        TRM_CHECK(trm_tensor_bytes(&t->in[k], &bytes));
        if (t->in[k].data != NULL && bytes > TRMI_TRIAL_BYTES)
            return trm_fail(TRM_ERR_INTERNAL, "trial %d: a constant of %zu bytes", i, bytes);
    }
    return trm_shape_infer(&io);
}
