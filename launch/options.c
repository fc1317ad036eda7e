/* Parsing and printing option tables. */
#include "launch/options.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char trm_dtype_unsaid[] = "fp32";

static size_t common_prefix(const char *a, const char *b)
{
    size_t n = 0;

    while (a[n] != '\0' && a[n] == b[n])
        n++;
    return n;
}

static trm_status unknown_option(const trm_arguments *args, const char *text)
{
    const char *near = NULL;
    size_t best = 2;

    for (int i = 0; i < args->option_count; i++) {
        size_t n = common_prefix(args->options[i].name, text + 2);

        if (n > best) {
            best = n;
            near = args->options[i].name;
        }
    }
    if (near != NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "unknown option '%s': did you mean '--%s'?", text,
                        near);
    return trm_fail(TRM_ERR_INVALID_ARG, "unknown option '%s': 'trireme %s --help' lists them",
                    text, args->command);
}

static trm_status set_int(const trm_option *o, const char *text)
{
    int64_t max = o->min == 0 && o->max == 0 ? INT64_MAX : o->max;
    char *end;
    long long v;

    errno = 0;
    v = strtoll(text, &end, 10);
    if (o->kind == TRM_OPTION_BYTES && end != text) {
        static const char units[] = "KMGT";
        const char *unit = *end != '\0' ? strchr(units, *end) : NULL;
        int64_t factor = 1;

        if (unit != NULL) {
            for (const char *u = units; u <= unit; u++)
                factor *= 1024;
            end++;
            end += strncmp(end, "iB", 2) == 0 ? 2 : *end == 'B' ? 1 : 0;
        }
        if (__builtin_mul_overflow((int64_t)v, factor, &v))
            errno = ERANGE;
    }
    if (end == text || *end != '\0' || errno != 0 || v < o->min || v > max) {
        if (o->kind == TRM_OPTION_BYTES)
            return trm_fail(TRM_ERR_INVALID_ARG, "--%s '%s': want bytes, as 800MiB or 4GiB",
                            o->name, text);
        if (max == INT64_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG, "--%s '%s': want a whole number from %" PRId64,
                            o->name, text, o->min);
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--%s '%s': want a whole number from %" PRId64 " to %" PRId64, o->name,
                        text, o->min, max);
    }
    *(int64_t *)o->target = v;
    return TRM_OK;
}

static trm_status set_float(const trm_option *o, const char *text)
{
    char *end;
    double v;

    errno = 0;
    v = strtod(text, &end);
    if (end == text || *end != '\0' || errno == ERANGE || v != v)
        return trm_fail(TRM_ERR_INVALID_ARG, "--%s '%s': want a number", o->name, text);
    *(double *)o->target = v;
    return TRM_OK;
}

static bool is_choice(const char *choices, const char *text)
{
    size_t n = strlen(text);

    for (const char *at = choices; n > 0 && (at = strstr(at, text)) != NULL; at++)
        if ((at == choices || at[-1] == '|') && (at[n] == '\0' || at[n] == '|'))
            return true;
    return false;
}

static trm_status list_add(const trm_option *o, const char *text)
{
    trm_option_list *list = o->target;
    const char **items = trm_realloc(list->items, (size_t)list->count + 1, sizeof(char *));

    if (items == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "--%s", o->name);
    items[list->count++] = text;
    list->items = items;
    return TRM_OK;
}

static trm_status set_value(const trm_option *o, const char *text)
{
    switch (o->kind) {
    case TRM_OPTION_INT:
    case TRM_OPTION_BYTES:
        return set_int(o, text);
    case TRM_OPTION_FLOAT:
        return set_float(o, text);
    case TRM_OPTION_LIST:
        return list_add(o, text);
    case TRM_OPTION_STRING:
        if (o->choices != NULL && !is_choice(o->choices, text))
            return trm_fail(TRM_ERR_INVALID_ARG, "--%s '%s': want %s", o->name, text, o->choices);
        *(const char **)o->target = text;
        return TRM_OK;
    case TRM_OPTION_FLAG:
        break;
    }
    return trm_fail(TRM_ERR_INVALID_ARG, "--%s takes no value", o->name);
}

static void print_help(const trm_arguments *args)
{
    printf("usage: trireme %s %s\n\n", args->command, args->usage);
    for (int i = 0; i < args->option_count; i++) {
        const trm_option *o = &args->options[i];
        char left[64];

        snprintf(left, sizeof(left), "--%s%s%s", o->name, o->kind == TRM_OPTION_FLAG ? "" : " ",
                 o->kind == TRM_OPTION_FLAG ? ""
                 : o->choices != NULL       ? o->choices
                                            : o->value_name);
        if (strlen(left) > 30)
            printf("  %s\n  %-30s %s\n", left, "", o->help);
        else
            printf("  %-30s %s\n", left, o->help);
    }
}

static const trm_option *find_option(const trm_arguments *args, const char *name, size_t n)
{
    for (int i = 0; i < args->option_count; i++)
        if (strlen(args->options[i].name) == n && strncmp(args->options[i].name, name, n) == 0)
            return &args->options[i];
    return NULL;
}

static bool looks_like_option(const char *text)
{
    return text[0] == '-' && text[1] == '-' && text[2] != '\0';
}

/* Parses one option at argv[*at]; leaves *at on the last argument used. */
static trm_status parse_option(trm_arguments *args, int argc, char **argv, int *at)
{
    const char *text = argv[*at];
    const char *equals = strchr(text, '=');
    size_t n = equals == NULL ? strlen(text + 2) : (size_t)(equals - text - 2);
    const trm_option *o = find_option(args, text + 2, n);

    if (o == NULL)
        return unknown_option(args, text);
    if (o->kind == TRM_OPTION_FLAG) {
        if (equals != NULL)
            return set_value(o, equals + 1);
        *(bool *)o->target = true;
        return TRM_OK;
    }
    if (equals != NULL)
        return set_value(o, equals + 1);
    if (*at + 1 >= argc || looks_like_option(argv[*at + 1]))
        return trm_fail(TRM_ERR_INVALID_ARG, "--%s wants a value: --%s %s", o->name, o->name,
                        o->value_name);
    TRM_CHECK(set_value(o, argv[++*at]));
    while (o->kind == TRM_OPTION_LIST && *at + 1 < argc && !looks_like_option(argv[*at + 1]))
        TRM_CHECK(set_value(o, argv[++*at]));
    return TRM_OK;
}

trm_status trm_options_parse(trm_arguments *args, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(args);
            args->help = true;
            return TRM_OK;
        }
    }
    for (int i = 0; i < argc; i++) {
        if (looks_like_option(argv[i])) {
            TRM_CHECK(parse_option(args, argc, argv, &i));
            continue;
        }
        if (args->positional_count >= args->positional_max)
            return trm_fail(TRM_ERR_INVALID_ARG, "unexpected argument '%s': usage: trireme %s %s",
                            argv[i], args->command, args->usage);
        args->positionals[args->positional_count++] = argv[i];
    }
    if (args->positional_count < args->positional_min)
        return trm_fail(TRM_ERR_INVALID_ARG, "usage: trireme %s %s", args->command, args->usage);
    return TRM_OK;
}

void trm_options_free_list(trm_option_list *list)
{
    trm_free((void *)list->items);
    list->items = NULL;
    list->count = 0;
}

trm_status trm_common_apply(const trm_common_options *c)
{
    if (c->log != NULL)
        TRM_CHECK(trm_log_set_level(c->log));
    return trm_device_name_check(c->device);
}

trm_status trm_parallel_apply(const trm_parallel_options *c, trm_plan_options *plan)
{
    trm_status st = trm_parallel_parse(c->parallel, &plan->parallel);

    if (st != TRM_OK)
        return trm_fail_context(st, "--parallel");
    plan->objective =
        strcmp(c->objective, "latency") == 0 ? TRM_OBJECTIVE_LATENCY : TRM_OBJECTIVE_THROUGHPUT;
    plan->memory_bytes = (size_t)c->memory;
    return TRM_OK;
}
