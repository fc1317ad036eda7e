/* What goes into the journal's header: all that the output's bytes depend on, but for the ranks,
 * threads and batches that made them. */
#define _GNU_SOURCE
#include "launch/score_resume.h"
#include "base/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TEXT_BYTES 256

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

static trm_status input_text(const trm_score_what *w, char text[TEXT_BYTES])
{
    char count[32] = "";
    uint64_t hash;

    TRM_CHECK(trm_source_identity(w->source, w->input, &hash));
    if (w->source->count >= 0)
        snprintf(count, sizeof(count), "%" PRId64 " ", w->source->count);
    snprintf(text, TEXT_BYTES, "%s%s %016" PRIx64, count, w->source->images ? "images" : "records",
             hash);
    return TRM_OK;
}

static trm_status model_text(const trm_package *p, char text[TEXT_BYTES])
{
    uint64_t hash;

    TRM_CHECK(trm_package_identity(p, &hash));
    snprintf(text, TEXT_BYTES, "%.180s %016" PRIx64, base_name(p->model_path), hash);
    return TRM_OK;
}

static trm_status language_text(const trm_language *l, char text[TEXT_BYTES])
{
    uint64_t hash;

    TRM_CHECK(trm_language_identity(l, &hash));
    snprintf(text, TEXT_BYTES, "%.180s %016" PRIx64, base_name(l->path), hash);
    return TRM_OK;
}

/* What requests that say nothing get, but for a seed that nobody has asked for. */
static void answers_text(const trm_score_what *w, char text[TEXT_BYTES])
{
    trm_lm_request_defaults d = *w->defaults;
    trm_hash h;

    trm_hash_init(&h, 0);
    trm_hash_add(&h, &d.sampling.temperature, sizeof(float));
    trm_hash_add(&h, &d.sampling.top_p, sizeof(float));
    trm_hash_add(&h, &d.sampling.min_p, sizeof(float));
    trm_hash_add(&h, &d.sampling.typical_p, sizeof(float));
    trm_hash_add(&h, &d.sampling.repetition_penalty, sizeof(float));
    trm_hash_add(&h, &d.sampling.presence_penalty, sizeof(float));
    trm_hash_add(&h, &d.sampling.frequency_penalty, sizeof(float));
    trm_hash_u64(&h, (uint64_t)d.sampling.top_k);
    trm_hash_u64(&h, (uint64_t)d.sampling.max_tokens);
    trm_hash_u64(&h, (uint64_t)d.sampling.min_tokens);
    trm_hash_u64(&h, (uint64_t)(int64_t)d.sampling.logprobs);
    trm_hash_u64(&h, (uint64_t)d.sampling.end_count);
    trm_hash_u64(&h, d.seed_given ? d.seed : 0);
    trm_hash_u64(&h, (uint64_t)w->kv_dtype);
    trm_hash_text(&h, w->language->chat_text != NULL ? w->language->chat_text : "");
    if (w->language->tokenizer != NULL)
        trm_hash_text(&h, trm_tokenizer_description(w->language->tokenizer));
    for (size_t i = 0; i < d.stop_count; i++)
        trm_hash_text(&h, d.stops[i]);
    snprintf(text, TEXT_BYTES, "%s, answers %016" PRIx64, trm_path_extension(w->output),
             trm_hash_value(&h));
}

trm_status trm_score_journal_open(const trm_score_what *w, trm_journal **journal_out)
{
    char input[TEXT_BYTES], model[TEXT_BYTES], content[TEXT_BYTES];
    trm_journal_field fields[] = {
        {"input", input}, {"model", model}, {"dtype", w->dtype}, {"content", content}};
    trm_journal_options options = {.fields = fields,
                                   .field_count = sizeof(fields) / sizeof(fields[0]),
                                   .resume = w->sink->resume,
                                   .overwrite = w->sink->overwrite};

    TRM_CHECK(trm_sink_check(w->output, w->sink));
    *journal_out = NULL;
    if (trm_path_exists(w->output) && !trm_path_is_file(w->output))
        return w->sink->resume
                   ? trm_fail(TRM_ERR_INVALID_ARG,
                              "--resume: output '%s' is no regular file: it keeps nothing to go on "
                              "with",
                              w->output)
                   : TRM_OK;
    TRM_CHECK(input_text(w, input));
    TRM_CHECK(w->language != NULL ? language_text(w->language, model)
                                  : model_text(w->package, model));
    if (w->language != NULL)
        answers_text(w, content);
    else if (w->sink->label_count > 0)
        snprintf(content, sizeof(content), "%s, %d labels a record", trm_path_extension(w->output),
                 w->sink->label_count);
    else
        snprintf(content, sizeof(content), "%s, values of %s%.180s%s",
                 trm_path_extension(w->output), w->output_name != NULL ? "'" : "",
                 w->output_name != NULL ? w->output_name : "the model's outputs",
                 w->output_name != NULL ? "'" : "");
    return trm_journal_open(w->output, &options, journal_out);
}
