/* A plan as bytes: rank 0 plans, the others get these. Little endian, versioned. The reader trusts
 * no count: every one is held against what the format allows and against the bytes that are left.
 */
#include "parallel/planner_impl.h"

#include <math.h>
#include <string.h>

#define PLAN_MAGIC 0x4e4c5054u /* "TPLN" */
#define PLAN_VERSION 4u
#define NODES_MAX (1 << 24)
#define CANDIDATES_MAX 65536
#define INPUTS_MAX 4096
#define MICRO_MAX 4096

/* ---- writing ---- */
struct writer {
    unsigned char *data;
    size_t bytes, room;
    bool failed;
};

static void put(struct writer *w, const void *data, size_t bytes)
{
    if (w->failed)
        return;
    if (bytes > w->room - w->bytes) {
        size_t room = w->room * 2 + bytes + 256;
        unsigned char *grown = trm_realloc(w->data, room, 1);

        if (grown == NULL) {
            w->failed = true;
            return;
        }
        w->data = grown;
        w->room = room;
    }
    memcpy(w->data + w->bytes, data, bytes);
    w->bytes += bytes;
}

static void put_u64(struct writer *w, uint64_t value)
{
    unsigned char b[8];

    for (int i = 0; i < 8; i++)
        b[i] = (unsigned char)(value >> (8 * i));
    put(w, b, 8);
}

static void put_int(struct writer *w, int value)
{
    uint32_t u = (uint32_t)value;
    unsigned char b[4];

    for (int i = 0; i < 4; i++)
        b[i] = (unsigned char)(u >> (8 * i));
    put(w, b, 4);
}

static void put_double(struct writer *w, double value)
{
    uint64_t u;

    memcpy(&u, &value, 8);
    put_u64(w, u);
}

static void put_text(struct writer *w, const char *text)
{
    int count = (int)strlen(text);

    put_int(w, count);
    put(w, text, (size_t)count);
}

static void put_layout(struct writer *w, const trm_parallel *p)
{
    put_int(w, p->data);
    put_int(w, p->tensor);
    put_int(w, p->pipeline);
}

static void put_candidate(struct writer *w, const trm_candidate *c)
{
    put_layout(w, &c->parallel);
    put_int(w, c->fits ? 1 : 0);
    put_double(w, c->step_us);
    put_double(w, c->records_s);
    put_double(w, c->compute_us);
    put_double(w, c->collective_us);
    put_double(w, c->bubble);
    put_int(w, c->micro_batches);
    put_u64(w, c->memory);
    put_text(w, c->reason);
}

static void put_stages(struct writer *w, const trm_stages *s)
{
    put_int(w, s->count);
    for (int i = 0; i <= s->count; i++)
        put_int(w, s->cuts[i]);
    for (int i = 0; i < s->count; i++) {
        put_double(w, s->stage_us[i]);
        put_u64(w, s->stage_bytes[i]);
        put_u64(w, s->crossing_bytes[i]);
    }
}

trm_status trm_plan_encode(const trm_plan *plan, void **bytes_out, size_t *count_out)
{
    struct writer w = {0};

    put_int(&w, (int)PLAN_MAGIC);
    put_int(&w, (int)PLAN_VERSION);
    put_layout(&w, &plan->parallel);
    put_u64(&w, plan->graph_hash);
    put_int(&w, plan->micro_batches);
    put_double(&w, plan->step_us);
    put_u64(&w, plan->slot_bytes);
    put_u64(&w, plan->message_bytes);
    put_u64(&w, (uint64_t)plan->kv_tokens);
    put_text(&w, plan->reason);
    put_int(&w, plan->candidate_count);
    put_int(&w, plan->chosen);
    for (int i = 0; i < plan->candidate_count; i++)
        put_candidate(&w, &plan->candidates[i]);
    put_int(&w, plan->input_count);
    for (int i = 0; i < plan->input_count; i++) {
        put_int(&w, (int)plan->inputs[i].dtype);
        put_int(&w, plan->inputs[i].rank);
        for (int d = 0; d < plan->inputs[i].rank; d++)
            put_u64(&w, (uint64_t)plan->inputs[i].dims[d]);
    }
    put_int(&w, plan->node_count);
    for (int i = 0; i < plan->node_count; i++)
        put_int(&w, plan->strategy[i]);
    put_int(&w, plan->exact ? 1 : 0);
    put_stages(&w, &plan->stages);
    put_int(&w, plan->ledger_count);
    for (int i = 0; i < plan->ledger_count; i++) {
        const trm_ledger *l = &plan->ledger[i];

        put_u64(&w, l->weights);
        put_u64(&w, l->mapped);
        put_u64(&w, l->activations);
        put_u64(&w, l->staging);
        put_u64(&w, l->communicators);
        put_u64(&w, l->workspace);
        put_u64(&w, l->host);
        put_u64(&w, l->kv);
    }
    if (w.failed) {
        trm_free(w.data);
        return trm_fail(TRM_ERR_NO_MEMORY, "a plan of %d nodes", plan->node_count);
    }
    *bytes_out = w.data;
    *count_out = w.bytes;
    return TRM_OK;
}

/* ---- reading ---- */
struct reader {
    const unsigned char *at, *end;
    const char *wrong; /* what was first found wrong */
};

static void wrong(struct reader *r, const char *what)
{
    if (r->wrong == NULL)
        r->wrong = what;
    r->at = r->end;
}

static uint64_t get_bits(struct reader *r, int bytes)
{
    uint64_t value = 0;

    if (r->end - r->at < bytes) {
        wrong(r, "it ends early");
        return 0;
    }
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)r->at[i] << (8 * i);
    r->at += bytes;
    return value;
}

static int get_int(struct reader *r)
{
    return (int)(uint32_t)get_bits(r, 4);
}

/* A count or index in [low, high]; `low` where it is not. */
static int get_range(struct reader *r, int low, int high, const char *what)
{
    int value = get_int(r);

    if (value >= low && value <= high)
        return value;
    wrong(r, what);
    return low;
}

/* A count of items of at least `item_bytes` each: no more than the bytes that are left hold. */
static int get_count(struct reader *r, int low, int high, size_t item_bytes, const char *what)
{
    int value = get_range(r, low, high, what);

    if ((size_t)value <= (size_t)(r->end - r->at) / item_bytes)
        return value;
    wrong(r, what);
    return 0;
}

static size_t get_size(struct reader *r)
{
    uint64_t value = get_bits(r, 8);

    if (value > (uint64_t)1 << 60) {
        wrong(r, "a size is beyond any machine");
        return 0;
    }
    return (size_t)value;
}

static double get_double(struct reader *r)
{
    uint64_t u = get_bits(r, 8);
    double value;

    memcpy(&value, &u, 8);
    if (isfinite(value) && value >= 0)
        return value;
    wrong(r, "a time is no time");
    return 0;
}

static void get_text(struct reader *r, char *text, size_t room)
{
    int count = get_count(r, 0, (int)room - 1, 1, "a text is too long");

    memcpy(text, r->at, (size_t)count);
    text[count] = '\0';
    r->at += count;
}

static void get_layout(struct reader *r, trm_parallel *p)
{
    p->data = get_range(r, 1, TRMI_RANKS_MAX, "its layout is none");
    p->tensor = get_range(r, 1, TRMI_REPLICA_MAX, "its layout is none");
    p->pipeline = get_range(r, 1, TRM_STAGES_MAX, "its layout is none");
    if (p->tensor * p->pipeline > TRMI_REPLICA_MAX)
        wrong(r, "its layout has too many ranks in a replica");
}

static void get_candidate(struct reader *r, trm_candidate *c)
{
    get_layout(r, &c->parallel);
    c->fits = get_range(r, 0, 1, "a flag is neither 0 nor 1") != 0;
    c->step_us = get_double(r);
    c->records_s = get_double(r);
    c->compute_us = get_double(r);
    c->collective_us = get_double(r);
    c->bubble = get_double(r);
    c->micro_batches = get_range(r, 0, MICRO_MAX, "micro-batches are out of range");
    c->memory = get_size(r);
    get_text(r, c->reason, sizeof(c->reason));
}

static void get_input(struct reader *r, trm_tensor *t)
{
    t->dtype = (trm_dtype)get_range(r, 1, TRM_DTYPE_PLAIN_COUNT - 1, "an input has no dtype");
    t->rank = get_range(r, 0, TRM_RANK_MAX, "an input has too many dims");
    for (int d = 0; d < t->rank; d++) {
        t->dims[d] = (int64_t)get_bits(r, 8);
        if (t->dims[d] < 0 || t->dims[d] > TRM_DIM_MAX)
            wrong(r, "an input has an impossible dim");
    }
}

static void get_stages(struct reader *r, trm_stages *s, int count)
{
    s->count = get_range(r, count, count, "its stages are not those of its layout");
    for (int i = 0; i <= s->count; i++) {
        s->cuts[i] = get_range(r, 0, NODES_MAX, "a cut is out of range");
        if (i == 0 ? s->cuts[i] != 0 : s->cuts[i] <= s->cuts[i - 1])
            wrong(r, "its cuts do not ascend from 0");
    }
    for (int i = 0; i < s->count; i++) {
        s->stage_us[i] = get_double(r);
        s->stage_bytes[i] = get_size(r);
        s->crossing_bytes[i] = get_size(r);
    }
}

/* Zeroed, never NULL for 0 items. */
static void *get_array(struct reader *r, int count, size_t item, bool *no_memory)
{
    void *array = trm_calloc((size_t)count + 1, item);

    if (array == NULL) {
        *no_memory = true;
        wrong(r, "there is no memory for it");
    }
    return array;
}

static void get_plan(struct reader *r, trm_plan *p, bool *no_memory)
{
    get_layout(r, &p->parallel);
    p->graph_hash = get_bits(r, 8);
    p->micro_batches = get_range(r, 1, MICRO_MAX, "its micro-batches are out of range");
    p->step_us = get_double(r);
    p->slot_bytes = get_size(r);
    p->message_bytes = get_size(r);
    p->kv_tokens = (int64_t)get_size(r);
    get_text(r, p->reason, sizeof(p->reason));
    p->candidate_count = get_count(r, 0, CANDIDATES_MAX, 72, "it has too many candidates");
    p->chosen = get_range(r, p->candidate_count > 0 ? 0 : -1,
                          p->candidate_count > 0 ? p->candidate_count - 1 : 0,
                          "its choice is no candidate");
    p->candidates = get_array(r, p->candidate_count, sizeof(*p->candidates), no_memory);
    for (int i = 0; i < p->candidate_count && r->wrong == NULL; i++)
        get_candidate(r, &p->candidates[i]);
    p->input_count = get_count(r, 0, INPUTS_MAX, 8, "it has too many inputs");
    p->inputs = get_array(r, p->input_count, sizeof(*p->inputs), no_memory);
    for (int i = 0; i < p->input_count && r->wrong == NULL; i++)
        get_input(r, &p->inputs[i]);
    p->node_count = get_count(r, 0, NODES_MAX, 4, "it has too many nodes");
    p->strategy = get_array(r, p->node_count, sizeof(*p->strategy), no_memory);
    for (int i = 0; i < p->node_count && r->wrong == NULL; i++)
        p->strategy[i] = get_range(r, 0, 1 << 16, "a strategy is out of range");
    p->exact = get_range(r, 0, 1, "a flag is neither 0 nor 1") != 0;
    get_stages(r, &p->stages, p->parallel.pipeline);
    p->ledger_count = get_count(r, 0, TRMI_REPLICA_MAX, 64, "its ledger is too long");
    if (p->ledger_count != p->parallel.tensor * p->parallel.pipeline)
        wrong(r, "its ledger is not that of its layout");
    p->ledger = get_array(r, p->ledger_count, sizeof(*p->ledger), no_memory);
    for (int i = 0; i < p->ledger_count && r->wrong == NULL; i++) {
        p->ledger[i].weights = get_size(r);
        p->ledger[i].mapped = get_size(r);
        p->ledger[i].activations = get_size(r);
        p->ledger[i].staging = get_size(r);
        p->ledger[i].communicators = get_size(r);
        p->ledger[i].workspace = get_size(r);
        p->ledger[i].host = get_size(r);
        p->ledger[i].kv = get_size(r);
    }
}

trm_status trm_plan_decode(const void *bytes, size_t count, trm_plan **plan_out)
{
    struct reader r = {.at = bytes, .end = (const unsigned char *)bytes + count};
    bool no_memory = false;
    trm_plan *p;

    if ((uint32_t)get_int(&r) != PLAN_MAGIC || r.wrong != NULL)
        return trm_fail(TRM_ERR_COMM, "%zu bytes that should be a plan are none", count);
    if ((uint32_t)get_int(&r) != PLAN_VERSION || r.wrong != NULL)
        return trm_fail(TRM_ERR_COMM, "a plan of another version of Trireme");
    p = trm_calloc(1, sizeof(*p));
    if (p == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a plan");
    get_plan(&r, p, &no_memory);
    if (r.wrong == NULL && r.at != r.end)
        wrong(&r, "bytes follow it");
    if (r.wrong != NULL) {
        trm_plan_destroy(p);
        return trm_fail(no_memory ? TRM_ERR_NO_MEMORY : TRM_ERR_COMM,
                        "a plan of %zu bytes is malformed: %s", count, r.wrong);
    }
    *plan_out = p;
    return TRM_OK;
}

void trm_plan_destroy(trm_plan *plan)
{
    if (plan == NULL)
        return;
    trm_free(plan->candidates);
    trm_free(plan->inputs);
    trm_free(plan->strategy);
    trm_free(plan->ledger);
    trm_free(plan);
}
