/* The load client's options and its course. */
#include "launch/bench_url.h"
#include "launch/bench_url_impl.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_REQUESTS 100

bool trm_bench_url_wanted(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--url") == 0 || strncmp(argv[i], "--url=", 6) == 0)
            return true;
    return false;
}

/* "N:PERIOD", the period in seconds or with a unit: 16:2, 16:500ms */
static trm_status read_burst(trmi_url_options *o)
{
    const char *colon = strchr(o->burst, ':');
    char *end = NULL;
    double factor = 1;

    errno = 0;
    o->burst_size = strtoll(o->burst, &end, 10);
    if (colon != NULL && end == colon && errno == 0) {
        o->burst_period = strtod(colon + 1, &end);
        if (end != colon + 1 && strcmp(end, "ms") == 0)
            factor = 1e-3;
        else if (end == colon + 1 || (*end != '\0' && strcmp(end, "s") != 0))
            o->burst_size = 0;
        o->burst_period *= factor;
    } else {
        o->burst_size = 0;
    }
    if (o->burst_size < 1 || o->burst_size > 65536 || !(o->burst_period >= 1e-3) ||
        o->burst_period > 86400)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--burst '%s': want N:PERIOD, as 16:2s (16 requests at once every 2 s)",
                        o->burst);
    return TRM_OK;
}

static trm_status check_loop(trmi_url_options *o)
{
    if ((o->rate > 0) + (o->concurrency > 0) + (o->burst != NULL) > 1)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--rate, --concurrency and --burst exclude each other: arrivals are "
                        "random, one per answer, or in bursts");
    if (!(o->rate >= 0) || o->rate > 1e6)
        return trm_fail(TRM_ERR_INVALID_ARG, "--rate %g: want requests a second, up to 1e6",
                        o->rate);
    if (!(o->duration >= 0) || o->duration > 1e7)
        return trm_fail(TRM_ERR_INVALID_ARG, "--duration %g: want seconds", o->duration);
    if (!(o->timeout > 0) || o->timeout > 1e6)
        return trm_fail(TRM_ERR_INVALID_ARG, "--timeout %g: want seconds, over 0", o->timeout);
    if (o->burst != NULL)
        TRM_CHECK(read_burst(o));
    if (o->rate <= 0 && o->burst == NULL && o->concurrency == 0)
        o->concurrency = 1;
    if (o->requests == 0 && o->duration <= 0)
        o->requests = DEFAULT_REQUESTS;
    return TRM_OK;
}

static trm_status exclusive(const char *a, bool has_a, const char *b, bool has_b)
{
    return has_a && has_b ? trm_fail(TRM_ERR_INVALID_ARG, "--%s and --%s exclude each other", a, b)
                          : TRM_OK;
}

static trm_status check(trmi_url_options *o)
{
    bool openai = o->api != NULL && strcmp(o->api, "openai") == 0;
    bool v2 = o->api != NULL && strcmp(o->api, "v2") == 0;
    bool text = o->prompt != NULL || o->prompt_file != NULL || o->endpoint != NULL || o->stream ||
                o->no_stream || o->ignore_eos || o->max_tokens > 0;

    if (strncmp(o->url, "http://", 7) != 0 && strncmp(o->url, "https://", 8) != 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "--url '%s': want http://HOST:PORT or https://...",
                        o->url);
    TRM_CHECK(check_loop(o));
    TRM_CHECK(exclusive("stream", o->stream, "no-stream", o->no_stream));
    TRM_CHECK(exclusive("prompt", o->prompt != NULL, "prompt-file", o->prompt_file != NULL));
    TRM_CHECK(exclusive("prompt", o->prompt != NULL || o->prompt_file != NULL, "prompt-tokens",
                        o->prompt_tokens > 0));
    TRM_CHECK(exclusive("image", o->image != NULL, "input", o->inputs.count > 0));
    if ((openai || text) && (o->image != NULL || o->inputs.count > 0 || o->batch > 0))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--image, --input and --batch are for tensor models: not with --api "
                        "openai or its options");
    if (v2 && text)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--prompt, --prompt-file, --endpoint, --stream, --no-stream, --ignore-eos "
                        "and --max-tokens are for --api openai");
    if (o->api == NULL)
        o->api = text ? "openai" : o->inputs.count > 0 || o->image != NULL ? "v2" : NULL;
    return TRM_OK;
}

/* The report also tells of failures; a status only if there is nothing but failures. */
static trm_status judge(const trmi_url_result *r)
{
    if (r->interrupted)
        return trm_fail(TRM_ERR_CANCELLED, "interrupted: %lld requests were under way",
                        (long long)r->cut);
    if (r->good == 0)
        return trm_fail(TRM_ERR_IO, "no request was answered: %s",
                        r->first_failure[0] != '\0' ? r->first_failure : "none was sent");
    return TRM_OK;
}

static trm_status run(trmi_url_options *o)
{
    trmi_url_result warm = {0}, result = {0};
    trmi_url_target t = {0};
    trmi_url_bodies b = {0};
    trm_status st;

    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return trm_fail(TRM_ERR_INTERNAL, "libcurl cannot start");
    TRM_TRY(st, trm_arena_create(0, &t.arena), done);
    TRM_TRY(st, trmi_url_target_find(o, &t), done);
    TRM_TRY(st, trmi_url_bodies_make(o, &t, &b), done);
    if (o->warmup > 0) {
        TRM_TRY(st, trmi_url_load(&b, INT64_MAX / 2, true, &warm), done);
        TRM_TRY(st, judge(&warm), done);
    }
    TRM_TRY(st, trmi_url_load(&b, 0, false, &result), done);
    TRM_TRY(st, trmi_url_report(o, &t, &result), done);
    st = judge(&result);

done:
    trmi_url_result_fini(&warm);
    trmi_url_result_fini(&result);
    trmi_url_target_fini(&t);
    curl_global_cleanup();
    return st;
}

trm_status trm_bench_url(int argc, char **argv)
{
    trm_common_options common = TRM_COMMON_DEFAULTS;
    trmi_url_options o = {.seed = 1, .timeout = 600, .connections = 1024};
    const trm_option options[] = {
        {"url", TRM_OPTION_STRING, "URL", 0, 0, NULL, "the server, http://HOST:PORT", &o.url},
        {"api", TRM_OPTION_STRING, "API", 0, 0, "openai|v2",
         "what to speak (what fits the model, as /v1/models says)", &o.api},
        {"endpoint", TRM_OPTION_STRING, "E", 0, 0, "completions|chat|embeddings",
         "of openai (completions; embeddings of an encoder)", &o.endpoint},
        {"model", TRM_OPTION_STRING, "NAME", 0, 0, NULL, "the model (the first that is ready)",
         &o.model},
        {"rate", TRM_OPTION_FLOAT, "R", 0, 0, NULL,
         "open loop: requests a second, Poisson arrivals", &o.rate},
        {"concurrency", TRM_OPTION_INT, "N", 1, 65536, NULL,
         "closed loop: N requests under way at any time (1)", &o.concurrency},
        {"burst", TRM_OPTION_STRING, "N:PERIOD", 0, 0, NULL,
         "N requests at once every PERIOD (2, 500ms)", &o.burst},
        {"requests", TRM_OPTION_INT, "N", 1, INT64_C(1) << 40, NULL, "requests in all (100)",
         &o.requests},
        {"duration", TRM_OPTION_FLOAT, "S", 0, 0, NULL,
         "send for S seconds, or until --requests are sent", &o.duration},
        {"warmup", TRM_OPTION_INT, "N", 0, 1000000, NULL, "requests before that do not count (0)",
         &o.warmup},
        {"timeout", TRM_OPTION_FLOAT, "S", 0, 0, NULL, "of a request (600)", &o.timeout},
        {"connections", TRM_OPTION_INT, "N", 1, 65536, NULL,
         "open loop, bursts: requests under way at most (1024)", &o.connections},
        {"prompt-tokens", TRM_OPTION_INT, "N", 1, 1 << 20, NULL,
         "random prompts of N tokens; v2: other free dims (128)", &o.prompt_tokens},
        {"prompt", TRM_OPTION_STRING, "TEXT", 0, 0, NULL, "this prompt each time", &o.prompt},
        {"prompt-file", TRM_OPTION_STRING, "FILE", 0, 0, NULL, "its lines in turn", &o.prompt_file},
        {"max-tokens", TRM_OPTION_INT, "N", 1, 1 << 24, NULL, "of an answer (128)", &o.max_tokens},
        {"ignore-eos", TRM_OPTION_FLAG, NULL, 0, 0, NULL,
         "answers of exactly --max-tokens (a field that not every server takes)", &o.ignore_eos},
        {"stream", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "stream answers (so it is with openai)",
         &o.stream},
        {"no-stream", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "whole answers", &o.no_stream},
        {"input", TRM_OPTION_LIST, "NAME=FILE.npy...", 0, 0, NULL,
         "v2: inputs from files instead of random ones", &o.inputs},
        {"batch", TRM_OPTION_INT, "N", 1, 65536, NULL,
         "v2: records of a request, where the first dim is free (1)", &o.batch},
        {"image", TRM_OPTION_STRING, "FILE", 0, 0, NULL, "post it to /predictions/MODEL", &o.image},
        {"key", TRM_OPTION_STRING, "KEY", 0, 0, NULL, "API key", &o.key},
        {"insecure", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "take any TLS certificate", &o.insecure},
        {"json", TRM_OPTION_STRING, "FILE", 0, 0, NULL,
         "write all numbers there, too (-: print them instead of the table)", &o.json},
        {"seed", TRM_OPTION_INT, "S", 0, INT64_MAX, NULL, "of prompts, inputs and arrivals (1)",
         &o.seed},
        TRM_LOG_OPTION(common),
    };
    trm_arguments args = {.command = "bench",
                          .usage = "--url URL [--rate R | --concurrency N | --burst N:PERIOD] "
                                   "[--requests N] [--model NAME]",
                          .options = options,
                          .option_count = sizeof(options) / sizeof(options[0])};
    trm_status st = trm_options_parse(&args, argc, argv);

    if (st == TRM_OK && !args.help) {
        TRM_TRY(st, trm_common_apply(&common), done);
        TRM_TRY(st, check(&o), done);
        st = run(&o);
    }
done:
    trm_options_free_list(&o.inputs);
    return st;
}
