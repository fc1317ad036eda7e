#define _GNU_SOURCE
#include "parallel/comm_fault.h"
#include "base/log.h"
#include "parallel/comm_impl.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum kind { FAIL, DELAY, DIE, STOP, CORRUPT };

struct fault {
    struct trm_comm base;
    trm_comm *inner;
    enum kind kind;
    bool armed;
    long delay_ms, nth, calls;
};

static struct fault *of(const trm_comm *c)
{
    return (struct fault *)(void *)c;
}

/* What happens before a call; *corrupt_out: it is to be made with other arguments. */
static trm_status strike(struct fault *f, bool *corrupt_out)
{
    *corrupt_out = false;
    f->calls++;
    if (!f->armed || f->calls < f->nth)
        return TRM_OK;
    switch (f->kind) {
    case FAIL:
        if (f->calls == f->nth) {
            trm_status st = trm_fail(TRM_ERR_COMM, "%s: rank %d: call %ld was made to fail",
                                     f->inner->label, f->base.rank, f->calls);

            if (f->inner->ops->give_up != NULL)
                f->inner->ops->give_up(f->inner, trm_message());
            return st;
        }
        break;
    case DELAY:
        usleep((useconds_t)f->delay_ms * 1000);
        break;
    case DIE:
        (void)raise(SIGKILL);
        break;
    case STOP:
        if (f->calls == f->nth)
            (void)raise(SIGSTOP);
        break;
    case CORRUPT:
        *corrupt_out = true;
        break;
    }
    return TRM_OK;
}

static trm_status collective(trm_comm *c, const trmi_call *call)
{
    struct fault *f = of(c);
    trmi_call other = *call;
    bool corrupt = false;

    TRM_CHECK(strike(f, &corrupt));
    if (corrupt &&
        (call->kind == TRMI_CALL_ALLREDUCE || call->kind == TRMI_CALL_REDUCE_TREE ||
         call->kind == TRMI_CALL_BROADCAST) &&
        call->elems > 0) {
        other.elems--;
        f->armed = false;
    }
    return f->inner->ops->collective(f->inner, &other);
}

static trm_status slot_get(trm_comm *c, size_t bytes, void **slot_out)
{
    return trm_comm_slot_get(of(c)->inner, bytes, slot_out);
}

static size_t slot_bytes(const trm_comm *c)
{
    return trm_comm_slot_bytes(of(c)->inner);
}

static trm_status fault_send(trm_comm *c, int to, const trm_piece *pieces, int count)
{
    bool corrupt;

    TRM_CHECK(strike(of(c), &corrupt));
    return of(c)->inner->ops->send(of(c)->inner, to, pieces, count);
}

static trm_status fault_receive(trm_comm *c, int from, bool idle, const void **data_out,
                                size_t *bytes_out)
{
    bool corrupt;

    TRM_CHECK(strike(of(c), &corrupt));
    return of(c)->inner->ops->receive(of(c)->inner, from, idle, data_out, bytes_out);
}

static bool pending(trm_comm *c, int from)
{
    return trm_comm_pending(of(c)->inner, from);
}

static trm_status look(trm_comm *c, int from)
{
    return of(c)->inner->ops->look == NULL ? TRM_OK : of(c)->inner->ops->look(of(c)->inner, from);
}

static void set_timeout(trm_comm *c, int64_t timeout_ms)
{
    trm_comm_set_timeout(of(c)->inner, timeout_ms);
}

static void give_up(trm_comm *c, const char *why)
{
    if (of(c)->inner->ops->give_up != NULL)
        of(c)->inner->ops->give_up(of(c)->inner, why);
}

static void destroy(trm_comm *c)
{
    trm_comm_destroy(of(c)->inner);
    trm_free(c);
}

/* KIND:RANK:NTH[:LABEL] */
static trm_status parse(const char *spec, int rank, struct fault *f)
{
    static const char *const names[] = {
        [FAIL] = "fail", [DIE] = "die", [STOP] = "stop", [CORRUPT] = "corrupt-args"};
    const char *colon = strchr(spec, ':');
    char kind[32], *end = NULL;
    bool known = false;
    long at;

    if (colon == NULL || (size_t)(colon - spec) >= sizeof(kind))
        goto bad;
    memcpy(kind, spec, (size_t)(colon - spec));
    kind[colon - spec] = '\0';
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i] != NULL && strcmp(kind, names[i]) == 0) {
            f->kind = (enum kind)i;
            known = true;
        }
    if (strncmp(kind, "delay=", 6) == 0) {
        f->kind = DELAY;
        f->delay_ms = strtol(kind + 6, &end, 10);
        known = end != kind + 6 && *end == '\0' && f->delay_ms >= 0 && f->delay_ms <= 1000000;
    }
    if (!known)
        goto bad;
    at = strtol(colon + 1, &end, 10);
    if (end == colon + 1 || *end != ':')
        goto bad;
    colon = end;
    f->nth = strtol(colon + 1, &end, 10);
    if (end == colon + 1 || (*end != ':' && *end != '\0') || f->nth < 1)
        goto bad;
    f->armed = at == rank && (*end == '\0' || strcmp(end + 1, f->base.label) == 0);
    return TRM_OK;

bad:
    return trm_fail(TRM_ERR_INVALID_ARG,
                    "TRM_COMM_FAULT=%s: want KIND:RANK:NTH[:LABEL] with fail, delay=MS, die, stop "
                    "or corrupt-args",
                    spec);
}

trm_status trm_comm_fault_create(trm_comm *inner, const char *spec, int rank, trm_comm **comm_out)
{
    static const trm_comm_ops ops = {.name = "fault",
                                     .collective = collective,
                                     .slot_get = slot_get,
                                     .slot_bytes = slot_bytes,
                                     .send = fault_send,
                                     .receive = fault_receive,
                                     .pending = pending,
                                     .look = look,
                                     .set_timeout = set_timeout,
                                     .give_up = give_up,
                                     .destroy = destroy};
    struct fault *f = trm_calloc(1, sizeof(*f));
    trm_status st;

    if (f == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "communicator: host object");
    trmi_comm_base(&f->base, &ops, inner->rank, inner->size);
    trmi_comm_label(&f->base, inner->label);
    snprintf(f->base.name, sizeof(f->base.name), "fault(%.20s)", inner->name);
    f->inner = inner;
    st = parse(spec, rank, f);
    if (st != TRM_OK) {
        trm_free(f);
        return st;
    }
    if (f->armed)
        TRM_LOG(TRM_LOG_WARN, "comm", "%s: this rank will misbehave: %s", f->base.label, spec);
    *comm_out = &f->base;
    return TRM_OK;
}
