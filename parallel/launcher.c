/* PMIx: each process puts a key and commits it; asking for the key of a process that has not done
 * so waits at the launcher's daemon until it has, or until the time given is over. mpirun and srun
 * both carry such a daemon on every host. MPI itself stands on the same library, which counts how
 * often it was initialised. */
#define _GNU_SOURCE
#include "parallel/launcher.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/wait.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef TRM_HAVE_PMIX
#include <dlfcn.h>
#include <pmix.h>

#define KEY "trireme.begun"
#define MARGIN_MS 500

struct trmi_launcher {
    pmix_proc_t self;
    int size;
    pmix_status_t (*init)(pmix_proc_t *, pmix_info_t *, size_t);
    pmix_status_t (*finalize)(const pmix_info_t *, size_t);
    pmix_status_t (*put)(pmix_scope_t, const pmix_key_t, pmix_value_t *);
    pmix_status_t (*commit)(void);
    pmix_status_t (*get)(const pmix_proc_t *, const pmix_key_t, const pmix_info_t *, size_t,
                         pmix_value_cbfunc_t, void *);
};

static bool find(void *library, const char *name, void *function_out)
{
    void *f = dlsym(library, name);

    memcpy(function_out, &f, sizeof(f)); /* ISO C has no cast from object to function pointer */
    return f != NULL;
}

/* A question under way. One that is not answered in time stays allocated: the answer may come yet.
 */
struct question {
    trm_wait answered;
    bool got;
    char text[128];  /* of a text */
    uint32_t number; /* of a number */
};

/* On the library's thread; the value is the library's again afterwards. */
static void answer(pmix_status_t status, pmix_value_t *v, void *ctx)
{
    struct question *q = ctx;

    if (status == PMIX_SUCCESS && v != NULL) {
        q->got = true;
        if (v->type == PMIX_UINT32)
            q->number = v->data.uint32;
        if (v->type == PMIX_STRING && v->data.string != NULL)
            snprintf(q->text, sizeof(q->text), "%s", v->data.string);
    }
    trm_wait_post(&q->answered);
}

/* Asks for `key` of `rank` (negative: of the job). With 0 seconds only what is known here; else the
 * daemon is given that long. It does not always keep to it (measured with mpirun --enable-recovery
 * after a death: about one time in ten it never answered), so we have a deadline of our own. */
static bool ask(trmi_launcher *l, int rank, const char *key, int seconds,
                struct question *answer_out)
{
    pmix_proc_t who = l->self;
    struct question *q = trm_calloc(1, sizeof(*q));
    pmix_info_t *info = trm_calloc(1, sizeof(*info)); /* read until the answer comes */
    bool answered;

    if (q == NULL || info == NULL) {
        trm_free(q);
        trm_free(info);
        return false;
    }
    who.rank = rank < 0 ? PMIX_RANK_WILDCARD : (pmix_rank_t)rank;
    if (seconds > 0) {
        snprintf(info->key, sizeof(info->key), "%s", PMIX_TIMEOUT);
        info->value.type = PMIX_INT;
        info->value.data.integer = seconds;
    } else {
        snprintf(info->key, sizeof(info->key), "%s", PMIX_OPTIONAL);
        info->value.type = PMIX_BOOL;
        info->value.data.flag = true;
    }
    answered =
        l->get(&who, key, info, 1, answer, q) != PMIX_SUCCESS ||
        trm_wait_change(&q->answered, 0, 0, trm_deadline_us(seconds * 1000 + MARGIN_MS)) == TRM_OK;
    if (!answered)
        return false;
    *answer_out = *q;
    trm_free(q);
    trm_free(info);
    return answer_out->got;
}

trmi_launcher *trmi_launcher_open(void)
{
    trmi_launcher *l = NULL;
    struct question size;
    void *library;

    if (getenv("PMIX_RANK") == NULL)
        return NULL;
    /* global: the library's own components look for its symbols; never closed: MPI uses it too */
    library = dlopen("libpmix.so.2", RTLD_NOW | RTLD_GLOBAL);
    if (library == NULL || (l = trm_calloc(1, sizeof(*l))) == NULL)
        return NULL;
    if (!find(library, "PMIx_Init", (void *)&l->init) ||
        !find(library, "PMIx_Finalize", (void *)&l->finalize) ||
        !find(library, "PMIx_Put", (void *)&l->put) ||
        !find(library, "PMIx_Commit", (void *)&l->commit) ||
        !find(library, "PMIx_Get_nb", (void *)&l->get) ||
        l->init(&l->self, NULL, 0) != PMIX_SUCCESS) {
        TRM_LOG(TRM_LOG_DEBUG, "job", "PMIx cannot be used");
        trm_free(l);
        return NULL;
    }
    if (ask(l, -1, PMIX_JOB_SIZE, 0, &size))
        l->size = (int)size.number;
    return l;
}

void trmi_launcher_close(trmi_launcher *l)
{
    if (l == NULL)
        return;
    (void)l->finalize(NULL, 0);
    trm_free(l);
}

int trmi_launcher_rank(const trmi_launcher *l)
{
    return (int)l->self.rank;
}

int trmi_launcher_size(const trmi_launcher *l)
{
    return l->size;
}

void trmi_launcher_announce(trmi_launcher *l)
{
    pmix_value_t v;

    memset(&v, 0, sizeof(v));
    v.type = PMIX_UINT8;
    v.data.uint8 = 1;
    if (l->put(PMIX_GLOBAL, KEY, &v) != PMIX_SUCCESS || l->commit() != PMIX_SUCCESS)
        TRM_LOG(TRM_LOG_DEBUG, "job", "PMIx takes no keys");
}

bool trmi_launcher_came(trmi_launcher *l, int rank, int seconds)
{
    struct question q;

    return ask(l, rank, KEY, seconds, &q);
}

bool trmi_launcher_host(trmi_launcher *l, int rank, char *buf, size_t bytes)
{
    struct question q;

    if (!ask(l, rank, PMIX_HOSTNAME, 0, &q) || q.text[0] == '\0')
        return false;
    snprintf(buf, bytes, "%s", q.text);
    return true;
}

#else

struct trmi_launcher {
    int unused;
};

trmi_launcher *trmi_launcher_open(void)
{
    return NULL;
}

void trmi_launcher_close(trmi_launcher *l)
{
    (void)l;
}

int trmi_launcher_rank(const trmi_launcher *l)
{
    (void)l;
    return 0;
}

int trmi_launcher_size(const trmi_launcher *l)
{
    (void)l;
    return 0;
}

void trmi_launcher_announce(trmi_launcher *l)
{
    (void)l;
}

bool trmi_launcher_came(trmi_launcher *l, int rank, int seconds)
{
    (void)l;
    (void)rank;
    (void)seconds;
    return false;
}

bool trmi_launcher_host(trmi_launcher *l, int rank, char *buf, size_t bytes)
{
    (void)l;
    (void)rank;
    (void)buf;
    (void)bytes;
    return false;
}
#endif
