/* MatMul and Gemm.
 *
 * A constant right operand is packed (fp32 ones to 16 bits where the left one has those). Of what
 * follows the product (Gemm's C, posts) the library takes what it can, exactly: a bias of one row,
 * an addend of the whole shape as its C, then ReLU or GELU's tanh form; what comes after that is
 * one kernel in place (posts.cu), or our own product does it all. */
#include "kernels/cuda/dense.h"

#include <string.h>

typedef struct dense_kernel {
    trmi_cuda_kernel base;
    trmi_dense dense;
    trmi_post_plan posts; /* what the library has not taken */
    trmi_pack *b, *bias;
    int bias_input, c_input; /* -1: none, or packed */
    size_t elems, channels;
} dense_kernel;

/* A product with what follows it, as the prepare functions see it. */
typedef struct job {
    trmi_product product;
    trmi_post_plan posts;
    bool along_n; /* channels are columns of the product */
} job;

static void dense_destroy(trm_kernel *base)
{
    dense_kernel *k = (dense_kernel *)base;

    trmi_dense_fini(&k->dense);
    trmi_cuda_posts_fini(k->base.cuda, &k->posts);
    trmi_cuda_pack_release(k->base.cuda, k->b);
    trmi_cuda_pack_release(k->base.cuda, k->bias);
    trm_free(k);
}

static trm_status dense_run(trm_kernel *base, trm_stream *s, const void *const *in,
                            void *const *out, void *workspace)
{
    const dense_kernel *k = (const dense_kernel *)base;
    const void *bias = k->bias != NULL ? k->bias->memory : NULL;
    trmi_posts posts = trmi_cuda_posts_bind(&k->posts, in);

    if (k->bias_input >= 0)
        bias = in[k->bias_input];
    return trmi_dense_run(k->base.cuda, &k->dense, trmi_cuda_stream(base, s), in[0],
                          k->b != NULL ? k->b->memory : in[1],
                          k->c_input >= 0 ? in[k->c_input] : NULL, out[0], bias, workspace,
                          k->elems, k->channels, &posts);
}

static const trm_kernel_ops library_ops = {
    .name = "cublaslt matmul", .run = dense_run, .destroy = dense_destroy};
static const trm_kernel_ops own_ops = {
    .name = "tiled matmul", .run = dense_run, .destroy = dense_destroy};

/* Steps that the library takes: indices into the job's posts; -1: none. */
typedef struct taken {
    int bias, addend, activation;
} taken;

static bool takes_bias(const trm_op_desc *desc, const job *j, int i)
{
    const trmi_post_step *s = &j->posts.posts.steps[i];
    const trm_tensor *t = &desc->inputs[j->posts.input[i]];

    return s->mode == TRMI_POST_CHANNEL && j->along_n &&
           (t->data != NULL || (t->dtype == j->product.d && s->alpha == 1.0f));
}

/* Additions, each kind once and in any order, then one activation. */
static taken take(const trm_op_desc *desc, const job *j)
{
    const trmi_posts *p = &j->posts.posts;
    taken t = {-1, -1, -1};

    if (j->product.ab == TRM_DTYPE_F64 || !trm_dtype_is_float(j->product.ab))
        return t;
    for (int i = 0; i < p->count; i++) {
        const trmi_post_step *s = &p->steps[i];

        if (s->op == TRM_OP_Relu || (s->op == TRM_OP_Gelu && s->alpha == 1.0f)) {
            t.activation = i;
            break;
        }
        if (s->op != TRM_OP_Add)
            break;
        if (t.bias < 0 && takes_bias(desc, j, i))
            t.bias = i;
        else if (t.addend < 0 && s->mode == TRMI_POST_SAME && !s->wide &&
                 desc->inputs[j->posts.input[i]].data == NULL)
            t.addend = i;
        else
            break;
    }
    return t;
}

static trm_status with_epilogue(dense_kernel *k, const trm_op_desc *desc, const job *j)
{
    const trmi_post_step *steps = j->posts.posts.steps;
    trm_cuda *cuda = k->base.cuda;
    taken t = take(desc, j);
    trmi_epilogue e = {.bias = t.bias < 0 ? TRM_DTYPE_NONE : j->product.d};
    int last = -1;

    if (t.bias < 0 && t.addend < 0 && t.activation < 0)
        return TRM_ERR_UNSUPPORTED; /* no message: another way is tried */
    if (t.addend >= 0)
        e.beta = steps[t.addend].alpha;
    if (t.activation >= 0)
        e.activation = steps[t.activation].op == TRM_OP_Relu ? TRMI_GEMM_RELU : TRMI_GEMM_GELU_TANH;
    TRM_CHECK(trmi_dense_create(cuda, &j->product, &e, &k->dense));
    if (t.bias >= 0) {
        int input = j->posts.input[t.bias];

        if (desc->inputs[input].data != NULL) {
            TRM_CHECK(
                trmi_cuda_pack_as(cuda, desc, input, j->product.d, steps[t.bias].alpha, &k->bias));
            k->base.base.packed_inputs |= 1u << input;
        } else {
            k->bias_input = input;
        }
    }
    if (t.addend >= 0) {
        k->c_input = j->posts.input[t.addend];
        k->base.base.in_place |= 1u << k->c_input;
    }
    for (int i = 0; i < j->posts.posts.count; i++)
        last = i == t.bias || i == t.addend || i == t.activation ? i : last;
    for (int i = last; i >= 0; i--) /* they are the first ones */
        trmi_cuda_posts_remove(&k->posts, i);
    return TRM_OK;
}

static trm_status build(dense_kernel *k, const trm_op_desc *desc, const job *j)
{
    trm_cuda *cuda = k->base.cuda;
    trm_status st;

    if (desc->inputs[1].data != NULL && trm_dtype_is_float(j->product.ab)) {
        TRM_CHECK(trmi_cuda_pack_as(cuda, desc, 1, j->product.ab, 1.0f, &k->b));
        k->base.base.packed_inputs |= 1u << 1;
    }
    st = with_epilogue(k, desc, j);
    if (st == TRM_ERR_UNSUPPORTED)
        st = trmi_dense_create(cuda, &j->product, NULL, &k->dense);
    TRM_CHECK(st);
    if (k->dense.gemm == NULL)
        k->base.base.ops = &own_ops;
    TRM_CHECK(trmi_cuda_posts_keep(cuda, desc, &k->posts, &k->base.base.packed_inputs));
    k->base.base.copied_inputs = k->base.base.packed_inputs;
    k->base.base.workspace_bytes = trmi_dense_workspace_bytes(&k->dense);
    return TRM_OK;
}

static trm_status finish(trm_cuda *cuda, trm_op_desc *desc, const job *j, trm_kernel **kernel_out)
{
    const trm_tensor *y = &desc->outputs[0];
    dense_kernel *k = NULL;
    trm_status st;

    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &library_ops, &k));
    k->bias_input = k->c_input = -1;
    k->posts = j->posts;
    k->elems = trm_tensor_numel(y);
    k->channels = y->rank > 0 && y->dims[y->rank - 1] > 0 ? (size_t)y->dims[y->rank - 1] : 1;
    st = build(k, desc, j);
    if (st != TRM_OK) {
        dense_destroy(&k->base.base);
        return st;
    }
    *kernel_out = &k->base.base;
    return TRM_OK;
}

/* Dtypes of A, B and the output. A constant B may be fp32 beside 16 bits. */
static trm_status settle_dtypes(const trm_op_desc *desc, trmi_product *p)
{
    const trm_tensor *a = &desc->inputs[0], *b = &desc->inputs[1], *y = &desc->outputs[0];
    bool half = a->dtype == TRM_DTYPE_F16 || a->dtype == TRM_DTYPE_BF16;

    if (a->dtype == TRM_DTYPE_BOOL || a->dtype == TRM_DTYPE_NONE)
        return trmi_cuda_bad_dtype(desc, 0, "a number");
    if (b->dtype != a->dtype && !(half && b->dtype == TRM_DTYPE_F32 && b->data != NULL))
        return trmi_cuda_bad_dtype(desc, 1, "input 0's dtype, or an fp32 constant beside 16 bits");
    if (y->dtype != a->dtype && !(half && y->dtype == TRM_DTYPE_F32))
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': %s from %s", trm_op_get(desc->op)->name,
                        desc->name, trm_dtype_name(y->dtype), trm_dtype_name(a->dtype));
    p->ab = a->dtype;
    p->d = y->dtype;
    p->alpha = 1.0f;
    return TRM_OK;
}

static void plain(trm_op_desc *desc)
{
    for (int i = 0; i < desc->input_count; i++)
        desc->inputs[i].layout = TRM_LAYOUT_PLAIN;
    desc->outputs[0].layout = TRM_LAYOUT_PLAIN;
}

static int64_t dim_from_end(const trm_tensor *t, int d)
{
    return d < t->rank ? t->dims[t->rank - 1 - d] : 1;
}

void trmi_cuda_matmul_product(const trm_tensor *a, const trm_tensor *b, trmi_product *p)
{
    int batch = (a->rank > b->rank ? a->rank : b->rank) - 2;
    int64_t a_all, b_all, d_all;

    p->k = dim_from_end(a, 0);
    p->m = a->rank == 1 ? 1 : dim_from_end(a, 1);
    p->n = b->rank == 1 ? 1 : dim_from_end(b, 0);
    p->a_row = p->k;
    p->a_col = 1;
    p->b_row = p->n;
    p->b_col = 1;
    p->d_row = p->n;
    p->d_col = 1;
    p->batches = batch < 0 ? 0 : batch;
    a_all = p->m * p->k;
    b_all = p->k * p->n;
    d_all = p->m * p->n;
    for (int i = p->batches - 1; i >= 0; i--) {
        int64_t da = dim_from_end(a, p->batches + 1 - i), db = dim_from_end(b, p->batches + 1 - i);

        p->dims[i] = da == 1 ? db : da;
        p->a_step[i] = da == 1 ? 0 : a_all;
        p->b_step[i] = db == 1 ? 0 : b_all;
        p->d_step[i] = d_all;
        a_all *= da;
        b_all *= db;
        d_all *= p->dims[i];
    }
}

trm_status trmi_cuda_matmul(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *a = &desc->inputs[0], *b = &desc->inputs[1], *y = &desc->outputs[0];
    job j;

    memset(&j, 0, sizeof(j));
    if (a->rank < 1 || b->rank < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "MatMul '%s' of ranks %d and %d: want 1 or more",
                        desc->name, a->rank, b->rank);
    plain(desc);
    TRM_CHECK(settle_dtypes(desc, &j.product));
    trmi_cuda_matmul_product(a, b, &j.product);
    j.along_n = b->rank > 1;
    TRM_CHECK(trmi_cuda_posts_all(desc, y->rank - 1, TRM_LAYOUT_PLAIN, &j.posts));
    return finish(cuda, desc, &j, kernel_out);
}

trm_status trmi_cuda_gemm(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *a = &desc->inputs[0], *b = &desc->inputs[1], *y = &desc->outputs[0];
    bool ta = trm_attr_int(desc->attrs, "transA", 0) != 0;
    bool tb = trm_attr_int(desc->attrs, "transB", 0) != 0;
    float beta = trm_attr_float(desc->attrs, "beta", 1.0f);
    trmi_product *p;
    job j;

    memset(&j, 0, sizeof(j));
    p = &j.product;
    if (a->rank != 2 || b->rank != 2 || y->rank != 2)
        return trm_fail(TRM_ERR_INVALID_ARG, "Gemm '%s' of ranks %d and %d: want 2", desc->name,
                        a->rank, b->rank);
    plain(desc);
    TRM_CHECK(settle_dtypes(desc, p));
    p->alpha = trm_attr_float(desc->attrs, "alpha", 1.0f);
    p->m = y->dims[0];
    p->n = y->dims[1];
    p->k = a->dims[ta ? 0 : 1];
    p->a_row = ta ? 1 : p->k;
    p->a_col = ta ? p->m : 1;
    p->b_row = tb ? 1 : p->n;
    p->b_col = tb ? p->k : 1;
    p->d_row = p->n;
    p->d_col = 1;
    j.along_n = true;
    if (trmi_cuda_has_input(desc, 2) && beta != 0.0f) {
        trm_post c = {.op = TRM_OP_Add, .input = 2};

        if (!trm_dtype_is_float(p->d))
            return trm_fail(TRM_ERR_UNSUPPORTED, "Gemm '%s' of %s with an input C", desc->name,
                            trm_dtype_name(p->d));
        TRM_CHECK(trmi_cuda_posts_add(desc, &c, 1, TRM_LAYOUT_PLAIN, &j.posts));
        j.posts.posts.steps[0].alpha = beta;
    }
    if (p->alpha != 1.0f && !trm_dtype_is_float(p->d))
        return trm_fail(TRM_ERR_UNSUPPORTED, "Gemm '%s' of %s with alpha", desc->name,
                        trm_dtype_name(p->d));
    TRM_CHECK(trmi_cuda_posts_all(desc, 1, TRM_LAYOUT_PLAIN, &j.posts));
    return finish(cuda, desc, &j, kernel_out);
}
