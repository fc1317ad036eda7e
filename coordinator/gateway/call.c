/* A request of the hub on behalf of an exchange: see v2_impl.h.
 *
 * Two may be the last to use a call: the thread that submits (it stores the id when trm_hub_submit
 * returns) and the answer, which may come earlier. `gone` is never under way when the exchange has
 * been answered: it needs no reference. */
#include "coordinator/gateway/v2_impl.h"

#include <string.h>

void trmi_call_ref(trmi_call *c)
{
    __atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED); /* the caller has one */
}

void trmi_call_unref(trmi_call *c)
{
    /* acquire-release: what the other one wrote is seen before the arena goes */
    if (__atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) == 0)
        trm_arena_destroy(c->arena); /* with the call itself */
}

trmi_call *trmi_call_create(trm_http_exchange *x)
{
    trm_arena *arena = NULL;
    trmi_call *c = NULL;

    if (trm_arena_create((size_t)8 << 10, &arena) == TRM_OK)
        c = trm_arena_alloc(arena, 1, sizeof(*c));
    if (c == NULL) {
        trm_arena_destroy(arena);
        trmi_gateway_fail(x, TRM_ERR_NO_MEMORY, "no memory for a request");
        return NULL;
    }
    c->x = x;
    c->g = trm_http_ctx(x);
    c->arena = arena;
    c->refs = 2;
    return c;
}

static void on_part(void *ctx, const trm_wire_part *part)
{
    trmi_call *c = ctx;

    c->part(c, part);
}

static void on_answer(void *ctx, const trm_wire_answer *answer)
{
    trmi_call *c = ctx;

    c->answer(c, answer);
    trmi_call_unref(c);
}

static void on_gone(void *ctx)
{
    trmi_call_cancel(ctx);
}

/* It may come before submit has said the id: then trmi_call_submit cancels. Sequentially
 * consistent, so that at least one of the two sees the other's word. */
void trmi_call_cancel(trmi_call *c)
{
    uint64_t id;

    __atomic_store_n(&c->cancelled, 1, __ATOMIC_SEQ_CST);
    id = __atomic_load_n(&c->id, __ATOMIC_SEQ_CST);
    if (id != 0)
        trm_hub_cancel(c->g->hub, id);
}

void trmi_call_submit(trmi_call *c, const trm_wire_request *wire)
{
    trm_hub_request request = {.wire = wire,
                               .owner = trm_http_key_name(c->x),
                               .ctx = c,
                               .part = c->part == NULL ? NULL : on_part,
                               .answer = on_answer};
    uint64_t id = 0;
    trm_status st;

    trm_http_on_gone(c->x, c, on_gone);
    st = trm_hub_submit(c->g->hub, &request, &id);
    if (st == TRM_ERR_TIMEOUT) { /* the queue is full */
        trmi_gateway_fail_http(c->x, 429, trm_message());
        trmi_call_unref(c);
        trmi_call_unref(c);
        return;
    }
    if (st != TRM_OK) {
        trmi_call_fail(c, st);
        return;
    }
    __atomic_store_n(&c->id, id, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&c->cancelled, __ATOMIC_SEQ_CST))
        trm_hub_cancel(c->g->hub, id);
    trmi_call_unref(c);
}

void trmi_call_fail(trmi_call *c, trm_status st)
{
    trmi_gateway_fail(c->x, st, trm_message());
    trmi_call_unref(c);
    trmi_call_unref(c);
}
