/* What a serving configuration means: its groups of ranks, its models, its paths. The tables of
 * its settings are serve_config_tables.c. */
#define _GNU_SOURCE
#include "launch/serve_config.h"

#include "base/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANKS_MAX 65536

/* ---- groups ---- */

typedef struct group_row {
    int64_t ranks, replicas;
    const char *parallel;
} group_row;
static const trm_config_row group_rows[] = {
    {.name = "ranks",
     .type = TRM_CONFIG_INT,
     .offset = offsetof(group_row, ranks),
     .min = 1,
     .max = RANKS_MAX,
     .flags = TRM_CONFIG_REQUIRED,
     .help = "how many; groups take them in order"},
    {.name = "replicas",
     .type = TRM_CONFIG_INT,
     .offset = offsetof(group_row, replicas),
     .otherwise = "auto",
     .choices = "auto",
     .min = 1,
     .max = RANKS_MAX,
     .help = "as cluster.replicas"},
    {.name = "parallel",
     .type = TRM_CONFIG_STRING,
     .offset = offsetof(group_row, parallel),
     .otherwise = "auto",
     .help = "as cluster.parallel"},
};
static const trm_config_section group_section = {"groups", sizeof(group_row), group_rows, 3};

/* What a group's layout comes to on `ranks` of them (0: as few as it wants). */
static trm_status lay_out(trm_serve_plan *p, const char *where, int64_t replicas,
                          const char *parallel, int ranks, trm_serve_group *g)
{
    trm_parallel want = {0, 0, 0};
    trm_status st = trm_parallel_parse(parallel, &want);
    int each;

    if (st != TRM_OK)
        return trm_config_fail(p->config, where, "parallel: %s", trm_message());
    if (strcmp(parallel, "auto") == 0)
        want = (trm_parallel){0, 1, 1};
    else if (strstr(parallel, "data") == NULL)
        want.data = 0;
    g->tensor = want.tensor > 0 ? want.tensor : 1;
    g->pipeline = want.pipeline > 0 ? want.pipeline : 1;
    each = g->tensor * g->pipeline;
    if (want.data > 0 && replicas > 0 && want.data != replicas)
        return trm_config_fail(p->config, where, "replicas is %" PRId64 " and parallel has data=%d",
                               replicas, want.data);
    if (want.data > 0)
        replicas = want.data;
    if (replicas <= 0)
        replicas = ranks > 0 ? ranks / each : 1;
    if (replicas < 1 || (ranks > 0 && replicas * each > ranks))
        return trm_config_fail(p->config, where,
                               "%" PRId64 " replica%s of tensor=%d,pipeline=%d want %" PRId64
                               " ranks, there are %d: start with more, or lay out otherwise",
                               replicas < 1 ? 1 : replicas, replicas > 1 ? "s" : "", g->tensor,
                               g->pipeline, (replicas < 1 ? 1 : replicas) * each, ranks);
    g->replicas = (int)replicas;
    g->ranks = g->replicas * each;
    return TRM_OK;
}

static trm_status take_group(trm_serve_plan *p, const trm_config_entry *e, int *first)
{
    trm_serve_group *g = &p->groups[p->group_count];
    char *json = trm_config_node_json(e->value, NULL), where[96];
    trm_config *config = NULL;
    const group_row *row;
    trm_status st;

    snprintf(where, sizeof(where), "cluster.groups.%.60s", e->key->text);
    if (json == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%s", where);
    st = trm_config_parse(json, strlen(json), where, &group_section, &config);
    trm_free(json);
    if (st != TRM_OK) /* the position is the file's, the reason the table's */
        return trm_config_fail(p->config, where, "%s", trm_message());
    row = trm_config_get(config);
    snprintf(g->name, sizeof(g->name), "%s", e->key->text);
    g->first = *first;
    st = lay_out(p, where, row->replicas, row->parallel, (int)row->ranks, g);
    *first += (int)row->ranks;
    if (st == TRM_OK)
        p->group_count++;
    trm_config_destroy(config);
    return st;
}

static trm_status make_groups(trm_serve_plan *p, int ranks)
{
    const trm_serve_cluster *c = p->c->cluster;
    bool named = c->groups != NULL && c->groups->kind == TRM_CONFIG_KIND_MAP && c->groups->count;
    int first = 0;

    if (c->groups != NULL && c->groups->kind != TRM_CONFIG_KIND_MAP)
        return trm_config_fail(p->config, "cluster.groups",
                               "want names: groups: {big: {ranks: 4, parallel: tensor=4}}");
    p->groups = trm_calloc(named ? (size_t)c->groups->count : 1, sizeof(*p->groups));
    if (p->groups == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "groups");
    if (!named) {
        snprintf(p->groups[0].name, sizeof(p->groups[0].name), "all");
        TRM_CHECK(lay_out(p, "cluster", c->replicas, c->parallel, ranks, &p->groups[0]));
        p->group_count = 1;
    } else {
        for (const trm_config_entry *e = c->groups->first; e != NULL; e = e->next)
            TRM_CHECK(take_group(p, e, &first));
        if (ranks > 0 && first > ranks)
            return trm_config_fail(p->config, "cluster.groups",
                                   "the groups want %d ranks, there are %d", first, ranks);
    }
    for (int i = 0; i < p->group_count; i++) {
        p->groups[i].first_replica = p->replicas;
        p->replicas += p->groups[i].replicas;
        if (p->groups[i].first + p->groups[i].ranks > p->ranks)
            p->ranks = p->groups[i].first + p->groups[i].ranks;
    }
    return TRM_OK;
}

/* ---- models ---- */

void trm_serve_model_name(const trm_serve_settings *m, char *buf, size_t bytes)
{
    char *copy;
    const char *extension;

    if (m->name != NULL) {
        snprintf(buf, bytes, "%s", m->name);
        return;
    }
    copy = trm_strdup(m->path);
    for (size_t n = copy != NULL ? strlen(copy) : 0; n > 1 && copy[n - 1] == '/'; n--)
        copy[n - 1] = '\0';
    snprintf(buf, bytes, "%s",
             copy == NULL                 ? "model"
             : strrchr(copy, '/') != NULL ? strrchr(copy, '/') + 1
                                          : copy);
    extension = trm_path_extension(buf);
    if (strcmp(extension, "onnx") == 0 || strcmp(extension, "gguf") == 0)
        buf[strlen(buf) - strlen(extension) - 1] = '\0';
    trm_free(copy);
}

int trm_serve_plan_group(const trm_serve_plan *p, const trm_serve_settings *m)
{
    if (m->group == NULL)
        return 0;
    for (int i = 0; i < p->group_count; i++)
        if (strcmp(p->groups[i].name, m->group) == 0)
            return i;
    return -1;
}

static bool fit_for_urls(const char *name)
{
    if (name[0] == '\0' || strlen(name) > 120)
        return false;
    for (const char *s = name; *s != '\0'; s++)
        if ((unsigned char)*s <= ' ' || *s == '/' || *s == '?' || *s == '#' || *s == '"' ||
            *s == '\\' || (unsigned char)*s == 0x7f)
            return false;
    return true;
}

static trm_status check_models(const trm_serve_plan *p)
{
    const trm_serve_settings *m = p->c->models.items;

    for (int i = 0; i < p->c->models.count; i++) {
        char where[64], name[256], other[256], *path = NULL;
        bool there;

        snprintf(where, sizeof(where), "models.%d", i);
        if (m[i].path == NULL)
            return trm_config_fail(p->config, where, "a model without a path");
        trm_serve_model_name(&m[i], name, sizeof(name));
        if (!fit_for_urls(name))
            return trm_config_fail(p->config, where,
                                   "name '%.120s': want 1 to 120 characters without blanks, "
                                   "slashes, quotes, ? and #",
                                   name);
        for (int k = 0; k < i; k++) {
            trm_serve_model_name(&m[k], other, sizeof(other));
            if (strcmp(name, other) == 0 && m[k].version == m[i].version)
                return trm_config_fail(p->config, where,
                                       "'%s' version %" PRId64 " is there twice: give one another "
                                       "name or version",
                                       name, m[i].version);
        }
        if (trm_serve_plan_group(p, &m[i]) < 0)
            return trm_config_fail(p->config, where, "there is no group '%s'", m[i].group);
        TRM_CHECK(trm_serve_plan_path(p, m[i].path, &path));
        there = trm_path_exists(path);
        trm_free(path);
        if (!there)
            return trm_config_fail(p->config, where, "path '%s' does not exist", m[i].path);
    }
    return TRM_OK;
}

static bool travels(const char *key)
{
    static const char *const stay[] = {"name", "path", "version", "group", "load"};

    for (size_t i = 0; i < sizeof(stay) / sizeof(stay[0]); i++)
        if (strcmp(key, stay[i]) == 0)
            return false;
    return true;
}

/* Files that settings name are the configuration's; replicas know nothing of its folder. */
static void make_absolute(const trm_serve_plan *p, json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    char *path = text != NULL ? trm_path_join(p->folder, text) : NULL;

    if (path != NULL)
        (void)json_object_set_new(o, key, json_string(path));
    trm_free(path);
}

trm_status trm_serve_plan_settings(const trm_serve_plan *p, int model, char **json_out)
{
    char where[32], *text = NULL, *done = NULL;
    const trm_config_node *n;
    json_t *o;

    snprintf(where, sizeof(where), "models.%d", model);
    n = trm_config_find(p->config, where);
    text = n != NULL ? trm_config_node_json(n, travels) : NULL;
    o = text != NULL ? json_loads(text, 0, NULL) : NULL;
    trm_free(text);
    make_absolute(p, o, "labels");
    make_absolute(p, o, "chat_template");
    done = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    *json_out = done != NULL ? trm_strdup(done) : NULL;
    free(done);
    return *json_out != NULL ? TRM_OK : trm_fail(TRM_ERR_NO_MEMORY, "settings of a model");
}

trm_status trm_serve_plan_path(const trm_serve_plan *p, const char *path, char **path_out)
{
    *path_out = NULL;
    if (path == NULL)
        return TRM_OK;
    *path_out = trm_path_join(p->folder, path);
    return *path_out != NULL ? TRM_OK : trm_fail(TRM_ERR_NO_MEMORY, "a path");
}

static trm_status check_words(const trm_serve_plan *p)
{
    const trm_serve_cluster *c = p->c->cluster;

    if (strcmp(c->device, "auto") != 0 && strcmp(c->device, "cpu") != 0 &&
        strncmp(c->device, "cuda", 4) != 0)
        return trm_config_fail(p->config, "cluster.device", "'%s': want auto, cpu or cuda",
                               c->device);
    if (strcmp(c->deterministic, "layout") != 0 && strcmp(c->deterministic, "off") != 0)
        return trm_config_fail(p->config, "cluster.deterministic", "'%s': want layout or off",
                               c->deterministic);
    return TRM_OK;
}

static char *absolute_folder(const char *path)
{
    char *folder = trm_path_dir(path);
    char *real = folder != NULL ? realpath(folder, NULL) : NULL;
    char *copy = real != NULL ? trm_strdup(real) : NULL;

    trm_free(folder);
    free(real);
    return copy;
}

trm_status trm_serve_plan_load(const char *path, int ranks, trm_serve_plan *plan_out)
{
    trm_serve_plan p = {0};
    trm_status st;

    TRM_CHECK(trm_config_load(path, &trmi_serve_config_section, &p.config));
    p.c = trm_config_get(p.config);
    p.folder = absolute_folder(path);
    if (p.folder == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a path");
        goto fail;
    }
    TRM_TRY(st, check_words(&p), fail);
    TRM_TRY(st, make_groups(&p, ranks), fail);
    TRM_TRY(st, check_models(&p), fail);
    *plan_out = p;
    return TRM_OK;
fail:
    trm_serve_plan_fini(&p);
    return st;
}

void trm_serve_plan_fini(trm_serve_plan *p)
{
    trm_config_destroy(p->config);
    trm_free(p->folder);
    trm_free(p->groups);
    memset(p, 0, sizeof(*p));
}
