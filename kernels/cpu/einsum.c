/* Einsum: sums of products over named dims.
 *
 * The equation becomes, for each operand, a stride for each letter (repeated letters add up: a
 * diagonal; dims of 1 are broadcast: stride 0). Letters of the result are walked in order; for each
 * result the remaining letters are summed. Operands are staged as f64 (floats) or i64 (integers).
 * Cost: one multiply-add an operand for each combination of all letters. */
#include "kernels/cpu/math_util.h"

#include <string.h>

enum { OPERANDS_MAX = 8, LETTERS_MAX = 24, NAMES = 52 + TRM_RANK_MAX };

typedef struct einsum_kernel {
    trm_kernel base;
    int operands, letters, kept; /* letters [0, kept) are the result's, the others are summed */
    trm_dtype dtype, work;
    size_t dims[LETTERS_MAX], strides[OPERANDS_MAX][LETTERS_MAX];
    size_t elems[OPERANDS_MAX], results, sums;
} einsum_kernel;

/* While parsing: dims by name (a-z, A-Z, then ellipsis dims counted from the last). */
typedef struct parse {
    const trm_op_desc *desc;
    int64_t dim[NAMES]; /* 0 with seen 0: not used */
    int seen[NAMES];
    size_t strides[OPERANDS_MAX][NAMES];
    int ellipsis; /* most dims an ellipsis stands for */
    int order[LETTERS_MAX], count;
} parse;

static int name_of(char c)
{
    return c >= 'a' && c <= 'z' ? c - 'a' : c >= 'A' && c <= 'Z' ? 26 + c - 'A' : -1;
}

static trm_status bad_equation(const parse *p, const char *why)
{
    return trm_fail(TRM_ERR_INVALID_ARG, "Einsum '%s': equation '%s': %s", p->desc->name,
                    trm_attr_string(p->desc->attrs, "equation", ""), why);
}

static trm_status use_dim(parse *p, int operand, int name, int64_t dim, size_t stride)
{
    if (p->seen[name] > 0 && p->dim[name] != dim && p->dim[name] != 1 && dim != 1)
        return bad_equation(p, "a letter stands for dims of different size");
    if (p->seen[name] == 0 || p->dim[name] == 1)
        p->dim[name] = dim;
    p->seen[name]++;
    p->strides[operand][name] += dim == 1 ? 0 : stride;
    return TRM_OK;
}

static trm_status read_operand(parse *p, int operand, const char *from, const char *to)
{
    const trm_tensor *t = &p->desc->inputs[operand];
    int letters = 0, d = 0, rest;
    bool dots = false;

    for (const char *s = from; s < to; s++)
        letters += name_of(*s) >= 0;
    rest = t->rank - letters;
    if (rest < 0)
        return bad_equation(p, "a term has more letters than its operand has dims");
    for (const char *s = from; s < to; s++) {
        if (*s == ' ')
            continue;
        if (to - s >= 3 && strncmp(s, "...", 3) == 0 && !dots) {
            dots = true;
            for (int i = 0; i < rest; i++, d++)
                TRM_CHECK(use_dim(p, operand, 52 + rest - 1 - i, t->dims[d],
                                  trm_tensor_count(t, d + 1, t->rank)));
            if (rest > p->ellipsis)
                p->ellipsis = rest;
            s += 2;
            continue;
        }
        if (name_of(*s) < 0)
            return bad_equation(p, "want letters, '...', ',' and '->'");
        TRM_CHECK(
            use_dim(p, operand, name_of(*s), t->dims[d], trm_tensor_count(t, d + 1, t->rank)));
        d++;
    }
    return d == t->rank ? TRM_OK
                        : bad_equation(p, "a term has fewer letters than its operand has dims");
}

static trm_status keep(parse *p, int name)
{
    for (int i = 0; i < p->count; i++)
        if (p->order[i] == name)
            return bad_equation(p, "the result repeats a letter");
    if (p->count == LETTERS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "Einsum '%s': more than %d letters", p->desc->name,
                        LETTERS_MAX);
    p->order[p->count++] = name;
    return TRM_OK;
}

/* result NULL: the ellipsis, then letters that occur once, in the order of characters */
static trm_status read_result(parse *p, const char *result)
{
    if (result == NULL) {
        for (int i = p->ellipsis - 1; i >= 0; i--)
            TRM_CHECK(keep(p, 52 + i));
        for (int c = 'A'; c <= 'z'; c++)
            if (name_of((char)c) >= 0 && p->seen[name_of((char)c)] == 1)
                TRM_CHECK(keep(p, name_of((char)c)));
        return TRM_OK;
    }
    for (const char *s = result; *s != '\0'; s++) {
        if (*s == ' ')
            continue;
        if (strncmp(s, "...", 3) == 0) {
            for (int i = p->ellipsis - 1; i >= 0; i--)
                TRM_CHECK(keep(p, 52 + i));
            s += 2;
            continue;
        }
        if (name_of(*s) < 0 || p->seen[name_of(*s)] == 0)
            return bad_equation(p, "the result has a letter that no term has");
        TRM_CHECK(keep(p, name_of(*s)));
    }
    return TRM_OK;
}

static trm_status read_equation(parse *p, int *kept_out)
{
    const char *s = trm_attr_string(p->desc->attrs, "equation", "");
    const char *arrow = strstr(s, "->"), *end = arrow != NULL ? arrow : s + strlen(s);

    for (int i = 0; i < p->desc->input_count; i++) {
        const char *comma = memchr(s, ',', (size_t)(end - s));

        if ((comma != NULL) != (i + 1 < p->desc->input_count))
            return bad_equation(p, "terms and inputs differ in number");
        TRM_CHECK(read_operand(p, i, s, comma != NULL ? comma : end));
        s = comma != NULL ? comma + 1 : end;
    }
    TRM_CHECK(read_result(p, arrow != NULL ? arrow + 2 : NULL));
    *kept_out = p->count;
    for (int name = 0; name < NAMES; name++) {
        bool known = p->seen[name] == 0;

        for (int i = 0; i < *kept_out && !known; i++)
            known = p->order[i] == name;
        if (!known)
            TRM_CHECK(keep(p, name));
    }
    return TRM_OK;
}

/* ---- running ---- */
typedef struct einsum_job {
    const einsum_kernel *k;
    const void *operand[OPERANDS_MAX];
    void *out; /* work dtype */
} einsum_job;

/* Sum over letters [kept, letters) of the products at the given offsets. */
#define SUM(T)                                                                                     \
    {                                                                                              \
        const T *v[OPERANDS_MAX];                                                                  \
        T sum = 0;                                                                                 \
        for (int o = 0; o < k->operands; o++)                                                      \
            v[o] = (const T *)job->operand[o] + at[o];                                             \
        for (size_t n = 0; n < k->sums / last; n++) {                                              \
            for (size_t i = 0; i < last; i++) {                                                    \
                T product = v[0][i * step[0]];                                                     \
                for (int o = 1; o < k->operands; o++)                                              \
                    product *= v[o][i * step[o]];                                                  \
                sum += product;                                                                    \
            }                                                                                      \
            for (int l = inner - 1; l >= k->kept; l--) {                                           \
                bool carry = ++index[l] == k->dims[l];                                             \
                for (int o = 0; o < k->operands; o++)                                              \
                    v[o] = carry ? v[o] - k->strides[o][l] * (k->dims[l] - 1)                      \
                                 : v[o] + k->strides[o][l];                                        \
                if (!carry)                                                                        \
                    break;                                                                         \
                index[l] = 0;                                                                      \
            }                                                                                      \
        }                                                                                          \
        ((T *)job->out)[r] = sum;                                                                  \
    }

static void einsum_range(void *ctx, size_t begin, size_t end)
{
    const einsum_job *job = ctx;
    const einsum_kernel *k = job->k;
    int inner = k->letters - 1; /* the letter of the innermost loop, if any is summed */
    bool summed = k->letters > k->kept;
    size_t last = summed ? k->dims[inner] : 1, step[OPERANDS_MAX] = {0};

    for (int o = 0; o < k->operands && summed; o++)
        step[o] = k->strides[o][inner];
    if (last == 0)
        last = 1; /* sums is 0: nothing is read */
    for (size_t r = begin; r < end; r++) {
        size_t at[OPERANDS_MAX] = {0}, index[LETTERS_MAX] = {0}, rest = r;

        for (int l = k->kept - 1; l >= 0; l--) {
            for (int o = 0; o < k->operands; o++)
                at[o] += rest % k->dims[l] * k->strides[o][l];
            rest /= k->dims[l];
        }
        if (k->work == TRM_DTYPE_F64)
            SUM(double)
        else
            SUM(uint64_t)
    }
}

static trm_status einsum_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    einsum_kernel *k = (einsum_kernel *)base;
    einsum_job job = {.k = k};
    char *at = workspace;

    (void)s;
    for (int o = 0; o < k->operands; o++) {
        trmi_convert(k->work, at, k->dtype, in[o], k->elems[o]);
        job.operand[o] = at;
        at += k->elems[o] * 8;
    }
    job.out = at;
    trm_team_for(k->results, 1 + TRMI_GRAIN / 4 / (k->sums + 1), einsum_range, &job);
    trmi_convert(k->dtype, out[0], k->work, at, k->results);
    return TRM_OK;
}

static const trm_kernel_ops einsum_ops = {
    .name = "einsum", .run = einsum_run, .destroy = trmi_kernel_free};

trm_status trmi_prepare_einsum(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    parse p = {.desc = desc};
    einsum_kernel *k;
    size_t total = 1;
    int kept = 0;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    if (desc->input_count > OPERANDS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "Einsum '%s': %d operands: at most %d", desc->name,
                        desc->input_count, OPERANDS_MAX);
    for (int i = 0; i < desc->input_count; i++)
        if (desc->inputs[i].dtype != desc->inputs[0].dtype ||
            desc->inputs[i].dtype == TRM_DTYPE_BOOL)
            return trmi_bad_dtype(desc, i, "a number, the same for all");
    TRM_CHECK(read_equation(&p, &kept));
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &einsum_ops, &k));
    k->operands = desc->input_count;
    k->kept = kept;
    k->letters = p.count;
    k->dtype = desc->inputs[0].dtype;
    k->work = trm_dtype_is_float(k->dtype) ? TRM_DTYPE_F64 : TRM_DTYPE_U64;
    k->results = k->sums = 1;
    for (int l = 0; l < p.count; l++) {
        k->dims[l] = (size_t)p.dim[p.order[l]];
        *(l < kept ? &k->results : &k->sums) *= k->dims[l];
        for (int o = 0; o < k->operands; o++)
            k->strides[o][l] = p.strides[o][p.order[l]];
    }
    for (int o = 0; o < k->operands; o++) {
        k->elems[o] = trm_tensor_numel(&desc->inputs[o]);
        total += k->elems[o];
    }
    k->base.workspace_bytes = (total + k->results) * 8;
    if (k->results != trm_tensor_numel(&desc->outputs[0])) {
        trmi_kernel_free(&k->base);
        return bad_equation(&p, "the result does not have the output's shape");
    }
    *kernel_out = &k->base;
    return TRM_OK;
}
