/* Compiling and running translated patterns. PCRE2's own limits bound one match; a clock bounds all
 * matches of one call together, because a thousand slow matches are as bad as one. */
#include "model/tokenizer/regex.h"

#include "base/memory.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <time.h>

#define PATTERN_BYTES_MAX ((size_t)64 << 10)
#define MATCH_LIMIT 10000000u /* PCRE2's default; a second or so */
#define HEAP_LIMIT_KIB (64u << 10)
#define JIT_STACK_BYTES ((size_t)8 << 20)
/* Ordinary patterns need about 0.1 us a byte: a hundred times that, and ten seconds. */
#define BUDGET_NS INT64_C(10000000000)
#define BUDGET_NS_BYTE INT64_C(10000)

struct trmi_regex {
    pcre2_code *code;
};

struct trmi_matcher {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack; /* NULL until a match needs more than PCRE2's own 32 KiB */
    int64_t end_ns;         /* 0: no match yet */
    int64_t bytes;          /* the longest text so far: what end_ns allows for */
    unsigned calls;
};

trm_status trmi_regex_create(const char *pattern, size_t bytes, trmi_regex **regex_out)
{
    pcre2_compile_context *context = NULL;
    trmi_regex *r = NULL;
    trmi_buf translated = {0};
    trm_status st;
    int error;
    PCRE2_SIZE where;

    if (bytes > PATTERN_BYTES_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a regular expression of %zu bytes; at most %zu",
                        bytes, PATTERN_BYTES_MAX);
    TRM_TRY(st, trmi_regex_translate(pattern, bytes, &translated), end);
    r = trm_calloc(1, sizeof(*r));
    context = pcre2_compile_context_create(NULL);
    if (r == NULL || context == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a regular expression");
        goto end;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    r->code = pcre2_compile((PCRE2_SPTR)(translated.count == 0 ? "" : translated.bytes),
                            translated.count, PCRE2_UTF | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                            &error, &where, context);
    if (r->code == NULL) {
        char text[128];

        pcre2_get_error_message(error, (PCRE2_UCHAR *)text, sizeof(text));
        st =
            trm_fail(TRM_ERR_UNSUPPORTED, "regular expression '%.*s': %s (as '%.*s', at %zu)",
                     bytes > 200 ? 200 : (int)bytes, pattern, text,
                     translated.count > 200 ? 200 : (int)translated.count, translated.bytes, where);
        goto end;
    }
    /* without a JIT for this machine or pattern, PCRE2 interprets */
    (void)pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE);
    *regex_out = r;
    r = NULL;
end:
    trmi_regex_destroy(r);
    pcre2_compile_context_free(context);
    trmi_buf_fini(&translated);
    return st;
}

void trmi_regex_destroy(trmi_regex *r)
{
    if (r == NULL)
        return;
    pcre2_code_free(r->code);
    trm_free(r);
}

trm_status trmi_matcher_create(trmi_matcher **matcher_out)
{
    trmi_matcher *m = trm_calloc(1, sizeof(*m));

    if (m != NULL) {
        m->data = pcre2_match_data_create(1, NULL);
        m->context = pcre2_match_context_create(NULL);
    }
    if (m == NULL || m->data == NULL || m->context == NULL) {
        trmi_matcher_destroy(m);
        return trm_fail(TRM_ERR_NO_MEMORY, "a regular expression's match");
    }
    pcre2_set_match_limit(m->context, MATCH_LIMIT);
    pcre2_set_heap_limit(m->context, HEAP_LIMIT_KIB);
    *matcher_out = m;
    return TRM_OK;
}

void trmi_matcher_destroy(trmi_matcher *m)
{
    if (m == NULL)
        return;
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
    trm_free(m);
}

static int64_t clock_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* INVALID_ARG once the matches of this call have taken longer than any honest pattern would. */
static trm_status check_budget(trmi_matcher *m, size_t count)
{
    if (m->end_ns == 0 || (int64_t)count > m->bytes) {
        if (m->end_ns == 0)
            m->end_ns = clock_ns() + BUDGET_NS;
        m->end_ns += ((int64_t)count - m->bytes) * BUDGET_NS_BYTE;
        m->bytes = (int64_t)count;
    }
    if (m->calls++ % 8 == 0 && clock_ns() > m->end_ns)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "the tokenizer's regular expression takes too long on this text");
    return TRM_OK;
}

trm_status trmi_regex_find(const trmi_regex *r, trmi_matcher *m, const char *text, size_t count,
                           size_t from, bool *found_out, size_t *start_out, size_t *end_out)
{
    const PCRE2_SIZE *at;
    int rc;

    TRM_CHECK(check_budget(m, count));
    rc = pcre2_match(r->code, (PCRE2_SPTR)text, count, from, PCRE2_NO_UTF_CHECK, m->data,
                     m->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && m->stack == NULL) {
        m->stack = pcre2_jit_stack_create((size_t)32 << 10, JIT_STACK_BYTES, NULL);
        if (m->stack == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "a regular expression's stack");
        pcre2_jit_stack_assign(m->context, NULL, m->stack);
        rc = pcre2_match(r->code, (PCRE2_SPTR)text, count, from, PCRE2_NO_UTF_CHECK, m->data,
                         m->context);
    }
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(r->code, (PCRE2_SPTR)text, count, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         m->data, m->context);
    if (rc == PCRE2_ERROR_NOMATCH) {
        *found_out = false;
        return TRM_OK;
    }
    if (rc < 0) {
        char why[128];

        pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof(why));
        return trm_fail(TRM_ERR_INVALID_ARG, "the tokenizer's regular expression on this text: %s",
                        why);
    }
    at = pcre2_get_ovector_pointer(m->data);
    *found_out = true;
    *start_out = at[0];
    *end_out = at[1] < at[0] ? at[0] : at[1]; /* \K in a lookahead could turn them round */
    return TRM_OK;
}
