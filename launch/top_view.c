/* Lines for `trireme top`. Columns that do not fit the terminal are left out, the least important
 * first; text of the server is shown in printable characters only. */
#include "launch/top_view.h"
#include "launch/top_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- lines ---- */
void trm_top_lines_fini(trm_top_lines *lines)
{
    for (int i = 0; i < lines->count; i++)
        trm_free(lines->lines[i].text);
    trm_free(lines->lines);
    memset(lines, 0, sizeof(*lines));
}

static void add_line(trm_top_lines *l, trm_top_look look, const char *text)
{
    char *copy = l->failed ? NULL : trm_strdup(text);

    if (copy != NULL && l->count == l->room) {
        int room = l->room == 0 ? 64 : 2 * l->room;
        trm_top_line *grown = trm_realloc(l->lines, (size_t)room, sizeof(*grown));

        if (grown != NULL) {
            l->lines = grown;
            l->room = room;
        }
    }
    if (copy == NULL || l->count == l->room) {
        trm_free(copy);
        l->failed = true;
        return;
    }
    l->lines[l->count++] = (trm_top_line){copy, look};
}

/* ---- members of what the server said ---- */
static const char *text_of(const json_t *o, const char *name)
{
    const char *text = json_string_value(json_object_get(o, name));

    return text == NULL ? "" : text;
}

/* NAN: missing, null, no number. */
static double number_of(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);

    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

static double or_zero(double v)
{
    return isfinite(v) ? v : 0;
}

/* ---- models ---- */
typedef struct model {
    const json_t *now;
    const char *name;
    double version, requests_s, tokens_s, prompt_s;
} model;

static const json_t *find_before(const json_t *status, const json_t *of)
{
    const json_t *o, *models = json_object_get(status, "models");
    size_t i;

    json_array_foreach(models, i, o)
    {
        if (strcmp(text_of(o, "name"), text_of(of, "name")) == 0 &&
            or_zero(number_of(o, "version")) == or_zero(number_of(of, "version")))
            return o;
    }
    return NULL;
}

/* The growth of a counter a second; `minute` where there is no earlier status. A server that was
 * started anew has smaller ones. */
static double rate(const json_t *now, const json_t *before, const char *counter, double seconds,
                   const char *minute)
{
    double grown = number_of(now, counter) - number_of(before, counter);

    if (before == NULL || seconds <= 0 || !isfinite(grown) || grown < 0)
        return number_of(now, minute);
    return grown / seconds;
}

static void read_model(model *m, const json_t *o, const trm_top_options *options)
{
    const json_t *before = options->before == NULL ? NULL : find_before(options->before, o);
    bool steps = or_zero(number_of(o, "step_generation_tokens")) > 0 ||
                 or_zero(number_of(o, "step_prompt_tokens")) > 0;
    double s = options->seconds;

    m->now = o;
    m->name = text_of(o, "name");
    m->version = number_of(o, "version");
    m->requests_s = rate(o, before, "requests", s, "requests_s");
    m->tokens_s = rate(o, before, steps ? "step_generation_tokens" : "generation_tokens", s,
                       "generation_tokens_s");
    m->prompt_s =
        rate(o, before, steps ? "step_prompt_tokens" : "prompt_tokens", s, "prompt_tokens_s");
}

static int by_name(const void *a, const void *b)
{
    const model *x = a, *y = b;
    int order = strcmp(x->name, y->name);

    return order != 0 ? order : (x->version > y->version) - (x->version < y->version);
}

static double latency(const model *m)
{
    return or_zero(number_of(json_object_get(m->now, "e2e_ms"), "p50"));
}

static int greater_first(double x, double y, const void *a, const void *b)
{
    return x > y ? -1 : x < y ? 1 : by_name(a, b);
}
static int by_running(const void *a, const void *b)
{
    const model *x = a, *y = b;

    return greater_first(
        or_zero(number_of(x->now, "running")) + or_zero(number_of(x->now, "waiting")),
        or_zero(number_of(y->now, "running")) + or_zero(number_of(y->now, "waiting")), a, b);
}
static int by_requests(const void *a, const void *b)
{
    const model *x = a, *y = b;

    return greater_first(or_zero(x->requests_s), or_zero(y->requests_s), a, b);
}
static int by_tokens(const void *a, const void *b)
{
    const model *x = a, *y = b;

    return greater_first(or_zero(x->tokens_s), or_zero(y->tokens_s), a, b);
}
static int by_latency(const void *a, const void *b)
{
    return greater_first(latency(a), latency(b), a, b);
}

static const struct {
    const char *name;
    int (*compare)(const void *, const void *);
} sorts[TRM_TOP_SORT_COUNT] = {
    [TRM_TOP_BY_NAME] = {"name", by_name},
    [TRM_TOP_BY_RUNNING] = {"running", by_running},
    [TRM_TOP_BY_REQUESTS] = {"requests/s", by_requests},
    [TRM_TOP_BY_TOKENS] = {"tokens/s", by_tokens},
    [TRM_TOP_BY_LATENCY] = {"latency", by_latency},
};

const char *trm_top_sort_name(trm_top_sort sort)
{
    return (unsigned)sort < TRM_TOP_SORT_COUNT ? sorts[sort].name : "name";
}

typedef enum format { COUNT, RATE, MS, SHARE, TEXT } format;

/* In the order in which they stand; `need`: the terminal's width from which on there is room. */
static const struct {
    const char *title, *member, *part; /* part: of a member that is an object */
    format format;
    int width, need;
} columns[] = {
    {"STATE", "state", NULL, TEXT, -8, 0},
    {"REPL", "replicas", NULL, COUNT, 4, 100},
    {"RUN", "running", NULL, COUNT, 4, 0},
    {"WAIT", "waiting", NULL, COUNT, 5, 0},
    {"REQ/S", NULL, "requests", RATE, 6, 0},
    {"TOK/S", NULL, "tokens", RATE, 6, 0},
    {"PROMPT/S", NULL, "prompt", RATE, 8, 132},
    {"TTFT", "ttft_ms", "p50", MS, 6, 0},
    {"p99", "ttft_ms", "p99", MS, 6, 110},
    {"ITL", "itl_ms", "p50", MS, 6, 0},
    {"p99", "itl_ms", "p99", MS, 6, 117},
    {"E2E", "e2e_ms", "p50", MS, 6, 0},
    {"p99", "e2e_ms", "p99", MS, 6, 124},
    {"KV", "kv_usage", NULL, SHARE, 4, 0},
    {"HITS", "prefix_hit_rate", NULL, SHARE, 4, 140},
    {"BATCH", "batch_mean", NULL, RATE, 5, 148},
    {"FAILED", "failures", NULL, COUNT, 6, 156},
};
enum { COLUMN_COUNT = sizeof(columns) / sizeof(columns[0]) };
enum { NAME_LEAST = 12, NAME_MOST = 48, WIDTH_MOST = 400 };

static void put_cell(char *out, const model *m, int c)
{
    const json_t *o = columns[c].member == NULL ? NULL : json_object_get(m->now, columns[c].member);
    double v = json_is_number(o) ? json_number_value(o) : (double)NAN;

    if (columns[c].member == NULL)
        v = columns[c].part[0] == 'r'   ? m->requests_s
            : columns[c].part[0] == 't' ? m->tokens_s
                                        : m->prompt_s;
    else if (columns[c].part != NULL)
        v = number_of(o, columns[c].part);
    if (columns[c].format == TEXT)
        (void)trmi_top_fit(out, TRMI_TOP_CELL_BYTES, json_is_string(o) ? json_string_value(o) : "-",
                           abs(columns[c].width));
    else if (columns[c].format == COUNT)
        trmi_top_count(out, v);
    else if (columns[c].format == RATE)
        trmi_top_rate(out, v);
    else if (columns[c].format == MS)
        trmi_top_ms(out, v);
    else
        trmi_top_share(out, v);
}

/* A row, `used` bytes so far: `cell` in its column; room is checked by the widths' sum. */
static size_t append(char *row, size_t used, size_t row_bytes, const char *cell, int width)
{
    int n = snprintf(row + used, row_bytes - used, " %*s", width, cell);

    return n < 0 || (size_t)n >= row_bytes - used ? used : used + (size_t)n;
}

/* What the columns leave, and not more than the names want. */
static int name_width(const model *models, size_t count, int width)
{
    char label[TRMI_TOP_CELL_BYTES];
    int left = width, most = NAME_LEAST;

    for (int c = 0; c < COLUMN_COUNT; c++)
        if (width >= columns[c].need)
            left -= abs(columns[c].width) + 1;
    for (size_t i = 0; i < count; i++) {
        int wide = trmi_top_fit(label, sizeof(label), models[i].name, NAME_MOST) + 3;

        most = wide > most ? wide : most;
    }
    return left < NAME_LEAST ? NAME_LEAST : left > most ? most : left;
}

static size_t append_name(char *row, size_t row_bytes, const char *text, int width)
{
    int columns_used = trmi_top_fit(row, row_bytes, text, width);
    size_t used = strlen(row);

    for (; columns_used < width && used + 1 < row_bytes; columns_used++)
        row[used++] = ' ';
    row[used] = '\0';
    return used;
}

static void view_models(const model *models, size_t count, int width, trm_top_lines *out)
{
    char row[4 * WIDTH_MOST], cell[TRMI_TOP_CELL_BYTES];
    int name = name_width(models, count, width);
    size_t used = append_name(row, sizeof(row), "MODEL", name);

    for (int c = 0; c < COLUMN_COUNT; c++)
        if (width >= columns[c].need)
            used = append(row, used, sizeof(row), columns[c].title, columns[c].width);
    add_line(out, TRM_TOP_TITLE, row);
    for (size_t i = 0; i < count; i++) {
        const model *m = &models[i];
        const char *state = text_of(m->now, "state");
        bool failed = strcmp(state, "failed") == 0;
        char label[TRMI_TOP_CELL_BYTES];

        snprintf(label, sizeof(label), "%.400s/%.0f", m->name, or_zero(m->version));
        used = append_name(row, sizeof(row), label, name);
        for (int c = 0; c < COLUMN_COUNT; c++)
            if (width >= columns[c].need) {
                put_cell(cell, m, c);
                used = append(row, used, sizeof(row), cell, columns[c].width);
            }
        add_line(out,
                 failed                           ? TRM_TOP_BAD
                 : strcmp(state, "ready") == 0    ? TRM_TOP_PLAIN
                 : strcmp(state, "unloaded") == 0 ? TRM_TOP_DIM
                                                  : TRM_TOP_WARN,
                 row);
        if (failed && text_of(m->now, "reason")[0] != '\0') {
            snprintf(label, sizeof(label), "  %.480s", text_of(m->now, "reason"));
            (void)trmi_top_fit(row, sizeof(row), label, width);
            add_line(out, TRM_TOP_BAD, row);
        }
    }
    if (count == 0)
        add_line(out, TRM_TOP_DIM, "no model is known yet");
}

/* ---- replicas and ranks ---- */
static void view_rank(const json_t *rank, int width, trm_top_lines *out)
{
    char row[4 * WIDTH_MOST], text[3 * TRMI_TOP_CELL_BYTES], memory[TRMI_TOP_CELL_BYTES],
        use[TRMI_TOP_CELL_BYTES], bar[33];
    double share = or_zero(number_of(rank, "utilisation"));
    int full, room = width >= 100 ? 32 : width >= 80 ? 20 : 8;

    share = share < 0 ? 0 : share > 1 ? 1 : share;
    full = (int)(share * room + 0.5);
    memset(bar, '|', (size_t)full);
    memset(bar + full, ' ', (size_t)(room - full));
    bar[room] = '\0';
    trmi_top_bytes(memory, number_of(rank, "memory_bytes"));
    trmi_top_share(use, share);
    snprintf(text, sizeof(text), "  rank %-4.0f %-8.40s %9s %6.2f cpu %5s [%s] pid %.0f %.60s",
             or_zero(number_of(rank, "rank")), text_of(rank, "device"), memory,
             fmin(or_zero(number_of(rank, "cpu")), 9999), use, bar, or_zero(number_of(rank, "pid")),
             text_of(rank, "host"));
    (void)trmi_top_fit(row, sizeof(row), text, width);
    add_line(out, TRM_TOP_PLAIN, row);
}

static void view_replicas(const json_t *status, int width, trm_top_lines *out)
{
    const json_t *r, *rank, *replicas = json_object_get(status, "replicas");
    char row[4 * WIDTH_MOST], text[3 * TRMI_TOP_CELL_BYTES], done[TRMI_TOP_CELL_BYTES];
    size_t i, k;

    (void)trmi_top_fit(row, sizeof(row),
                       "REPLICA    STATE      PHASE        UNDER WAY    DONE  HOST", width);
    add_line(out, TRM_TOP_TITLE, row);
    json_array_foreach(replicas, i, r)
    {
        const char *state = text_of(r, "state"), *reason = text_of(r, "reason");
        bool dead = strcmp(state, "dead") == 0;

        trmi_top_count(done, number_of(r, "done"));
        snprintf(text, sizeof(text), "%-10.63s %-10.20s %-12.20s %9.0f %7s  %.100s%s%.300s",
                 text_of(r, "identity"), state, text_of(r, "phase"),
                 or_zero(number_of(r, "in_flight")), done, text_of(r, "host"),
                 reason[0] == '\0' ? "" : ": ", reason);
        (void)trmi_top_fit(row, sizeof(row), text, width);
        add_line(out,
                 dead                          ? TRM_TOP_BAD
                 : strcmp(state, "ready") == 0 ? TRM_TOP_BOLD
                                               : TRM_TOP_WARN,
                 row);
        json_array_foreach(json_object_get(r, "ranks"), k, rank) view_rank(rank, width, out);
    }
    if (json_array_size(replicas) == 0)
        add_line(out, TRM_TOP_DIM, "no replica has joined yet");
}

/* ---- the head ---- */
static void view_head(const json_t *status, const trm_top_options *o, const model *models,
                      size_t count, int width, trm_top_lines *out)
{
    const json_t *cluster = json_object_get(status, "cluster");
    const json_t *http = json_object_get(status, "http");
    bool draining = json_is_true(json_object_get(cluster, "draining"));
    bool ready = json_is_true(json_object_get(cluster, "ready"));
    const char *reason = text_of(cluster, "reason");
    char row[4 * WIDTH_MOST], text[8 * TRMI_TOP_CELL_BYTES], age[TRMI_TOP_CELL_BYTES],
        a[TRMI_TOP_CELL_BYTES], b[TRMI_TOP_CELL_BYTES], c[TRMI_TOP_CELL_BYTES],
        d[TRMI_TOP_CELL_BYTES];
    double requests = 0, tokens = 0, prompt = 0, failures = 0;

    for (size_t i = 0; i < count; i++) {
        requests += or_zero(models[i].requests_s);
        tokens += or_zero(models[i].tokens_s);
        prompt += or_zero(models[i].prompt_s);
        failures += or_zero(number_of(models[i].now, "failures"));
    }
    trmi_top_age(age, number_of(status, "uptime_s"));
    snprintf(text, sizeof(text), "trireme %.40s  %.200s  %s  up %s  %.0f of %.0f replicas ready",
             text_of(status, "version"), o->url,
             draining ? "draining"
             : ready  ? "ready"
                      : "not ready",
             age, or_zero(number_of(cluster, "ready_replicas")),
             fmax(or_zero(number_of(cluster, "expected_replicas")),
                  or_zero(number_of(cluster, "ready_replicas"))));
    (void)trmi_top_fit(row, sizeof(row), text, width);
    add_line(out, draining ? TRM_TOP_WARN : ready ? TRM_TOP_BOLD : TRM_TOP_BAD, row);
    trmi_top_rate(a, requests);
    trmi_top_rate(b, tokens);
    trmi_top_rate(c, prompt);
    trmi_top_count(d, failures);
    snprintf(text, sizeof(text),
             "%.0f running, %.0f waiting, %s failed   %s requests/s   %s tokens/s, %s prompt "
             "tokens/s   %.0f connections",
             or_zero(number_of(cluster, "running")), or_zero(number_of(cluster, "waiting")), d, a,
             b, c, or_zero(number_of(http, "connections")));
    (void)trmi_top_fit(row, sizeof(row), text, width);
    add_line(out, TRM_TOP_PLAIN, row);
    if (!ready && !draining && reason[0] != '\0') {
        (void)trmi_top_fit(row, sizeof(row), reason, width);
        add_line(out, TRM_TOP_BAD, row);
    }
    add_line(out, TRM_TOP_PLAIN, "");
}

trm_status trm_top_view(const json_t *status, const trm_top_options *o, trm_top_lines *out)
{
    const json_t *m, *list = json_object_get(status, "models");
    size_t count = json_array_size(list), i;
    model *models = trm_calloc(count, sizeof(*models));
    int width = o->width < 20 ? 20 : o->width > WIDTH_MOST ? WIDTH_MOST : o->width;

    memset(out, 0, sizeof(*out));
    if (models == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%zu models", count);
    json_array_foreach(list, i, m) read_model(&models[i], m, o);
    qsort(models, count, sizeof(*models),
          sorts[(unsigned)o->sort < TRM_TOP_SORT_COUNT ? o->sort : TRM_TOP_BY_NAME].compare);
    view_head(status, o, models, count, width, out);
    view_models(models, count, width, out);
    add_line(out, TRM_TOP_PLAIN, "");
    view_replicas(status, width, out);
    trm_free(models);
    if (out->failed) {
        trm_top_lines_fini(out);
        return trm_fail(TRM_ERR_NO_MEMORY, "lines");
    }
    return TRM_OK;
}
