/* Running convolutions. */
#include "kernels/cuda/conv_impl.h"

#include <string.h>

static void conv_destroy(trm_kernel *kernel)
{
    trmi_conv_kernel *k = (trmi_conv_kernel *)kernel;

    trmi_cuda_pack_release(k->base.cuda, k->weights);
    for (int i = 0; i < k->step_count; i++)
        trmi_cuda_pack_release(k->base.cuda, k->steps[i].pack);
    trm_free(k);
}

static const void *operand_of(const trmi_conv_step *s, const void *const *in)
{
    return s->operand == TRMI_CONV_NO_OPERAND ? NULL
           : s->pack != NULL                  ? s->pack->memory
                                              : in[s->input];
}

/* Steps from `first` on as posts of our own kernels. */
static void posts_of(const trmi_conv_kernel *k, const void *const *in, int first, trmi_posts *posts)
{
    static const trmi_post_mode modes[] = {TRMI_POST_UNARY, TRMI_POST_SCALAR, TRMI_POST_CHANNEL,
                                           TRMI_POST_SAME};

    memset(posts, 0, sizeof(*posts));
    for (int i = first; i < k->step_count; i++) {
        const trmi_conv_step *s = &k->steps[i];

        posts->steps[posts->count++] =
            (trmi_post_step){.op = (int)s->op,
                             .mode = (int)modes[s->operand],
                             .alpha = s->op == TRM_OP_Add ? 1.0F : s->alpha,
                             .beta = s->beta,
                             .operand = operand_of(s, in),
                             .wide = s->wide};
    }
}

static trm_status weights_of(const trmi_conv_kernel *k, cudaStream_t stream, const void *const *in,
                             void *workspace, const void **w_out)
{
    char *to = (char *)workspace + k->weights_at;

    if (k->weights != NULL) {
        *w_out = k->weights->memory;
        return TRM_OK;
    }
    *w_out = to;
    return trmi_cuda_conv_arrange(stream, &k->arrange, in[1], to);
}

static trm_status run_dnn(trm_kernel *kernel, trm_stream *s, const void *const *in,
                          void *const *out, void *workspace)
{
    trmi_conv_kernel *k = (trmi_conv_kernel *)kernel;
    cudaStream_t stream = trmi_cuda_stream(kernel, s);
    const void *operands[TRMI_POSTS_MAX], *x = in[0], *w;
    const trmi_conv_shape *shape = &k->shape;
    trmi_posts posts;
    char *work = workspace;

    TRM_CHECK(weights_of(k, stream, in, workspace, &w));
    if (k->padded) {
        TRM_CHECK(trmi_cuda_conv_pad(stream, &k->padding, x, NULL, work + k->x_at));
        x = work + k->x_at;
    }
    for (int i = 0; i < k->fused; i++)
        operands[i] = operand_of(&k->steps[i], in);
    TRM_CHECK(
        trmi_cuda_dnn_run(k->base.cuda, k->plan, stream, x, w, operands, out[0], work + k->dnn_at));
    if (k->fused == k->step_count)
        return TRM_OK;
    posts_of(k, in, k->fused, &posts);
    return trmi_cuda_posts_run(k->base.cuda, stream, k->dtype, out[0],
                               (size_t)shape->batch * (size_t)shape->filters *
                                   (size_t)shape->out[0] * (size_t)shape->out[1] *
                                   (size_t)shape->out[2],
                               (size_t)shape->filters, 1, &posts);
}

static trm_status run_own(trm_kernel *kernel, trm_stream *s, const void *const *in,
                          void *const *out, void *workspace)
{
    trmi_conv_kernel *k = (trmi_conv_kernel *)kernel;
    cudaStream_t stream = trmi_cuda_stream(kernel, s);
    trmi_posts posts;
    const void *w;

    if (k->path == TRMI_CONV_NOTHING)
        return TRM_OK;
    TRM_CHECK(weights_of(k, stream, in, workspace, &w));
    posts_of(k, in, 0, &posts);
    if (k->path == TRMI_CONV_DEPTHWISE)
        return trmi_cuda_conv_depthwise(stream, &k->shape, k->dtype, in[0], w, out[0], &posts);
    return trmi_cuda_conv_direct(stream, &k->shape, k->dtype, in[0], w, out[0], &posts);
}

const trm_kernel_ops trmi_cuda_conv_dnn_ops = {
    .name = "cudnn conv", .run = run_dnn, .destroy = conv_destroy};
const trm_kernel_ops trmi_cuda_conv_direct_ops = {
    .name = "direct conv", .run = run_own, .destroy = conv_destroy};
const trm_kernel_ops trmi_cuda_conv_depthwise_ops = {
    .name = "depthwise conv", .run = run_own, .destroy = conv_destroy};
