/* Waiting in a shared window: a short spin, then sleep; a sleeper wakes about ten times a second to
 * see whether the others still live. What died, left or is late is named; then the window is marked
 * as broken, so that every rank leaves at once and says the same. */
#define _GNU_SOURCE
#include "parallel/comm_shm_impl.h"
#include "parallel/process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_US 100000     /* between looks at who lives: death is noticed well within 2 s ... */
#define LOOK_EACH_US 10000 /* ... and a look costs about 15 us a rank: 0.15 % of a core at most */

enum { NOT_YET = 0, HERE = 1, LEFT = 2 };

static bool dead(const trmi_shm_peer *peer)
{
    return trm_process_dead(peer->pid, peer->start);
}

static uint32_t here(const trmi_shm_peer *peer)
{
    return __atomic_load_n(&peer->here, __ATOMIC_ACQUIRE);
}

void trmi_shm_join(const trmi_shm *s, trmi_shm_window *w)
{
    trmi_shm_peer *me = &w->peers[s->base.rank];
    char state;

    me->pid = (int32_t)getpid();
    me->world = s->world;
    (void)trm_process_read(me->pid, &state, &me->start);
    if (gethostname(me->host, sizeof(me->host)) != 0)
        snprintf(me->host, sizeof(me->host), "?");
    me->host[sizeof(me->host) - 1] = '\0';
    __atomic_store_n(&me->here, HERE, __ATOMIC_RELEASE); /* read by here() */
}

static void wake_all(trmi_shm_window *w)
{
    int size = w->head->size;

    for (int r = 0; r < size; r++)
        trm_wait_post(&trmi_shm_line_of(w, r)->flag.bell);
    for (int i = 0; i < size * size; i++) {
        trm_wait_post(&w->rings[i].sent.bell);
        trm_wait_post(&w->rings[i].freed.bell);
    }
}

void trmi_shm_leave(trmi_shm *s)
{
    __atomic_store_n(&s->w.peers[s->base.rank].here, LEFT, __ATOMIC_RELEASE);
    wake_all(&s->w);
}

void trmi_shm_break(trmi_shm_window *w, const char *why)
{
    uint32_t whole = 0;

    if (__atomic_compare_exchange_n(&w->head->broken, &whole, 1, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_RELAXED)) {
        snprintf(w->head->why, sizeof(w->head->why), "%s", why);
        __atomic_store_n(&w->head->broken, 2, __ATOMIC_RELEASE); /* read by is_broken */
        wake_all(w);
    }
}

static bool is_broken(const trmi_shm_window *w)
{
    return __atomic_load_n(&w->head->broken, __ATOMIC_ACQUIRE) == 2;
}

void trmi_shm_post(trmi_shm_flag *flag, uint32_t seq)
{
    __atomic_store_n(&flag->seq, seq, __ATOMIC_RELEASE); /* read by trmi_shm_reached */
    trm_wait_post(&flag->bell);
}

bool trmi_shm_reached(const trmi_shm_flag *flag, uint32_t want)
{
    return (int32_t)(__atomic_load_n(&flag->seq, __ATOMIC_ACQUIRE) - want) >= 0;
}

static void name(const trmi_shm *s, int rank, char *buf, size_t bytes)
{
    const trmi_shm_peer *peer = &s->w.peers[rank];
    char world[32] = "";

    if (here(peer) == NOT_YET) {
        snprintf(buf, bytes, "rank %d (never joined)", rank);
        return;
    }
    if (peer->world >= 0)
        snprintf(world, sizeof(world), "rank %d of the job, ", peer->world);
    snprintf(buf, bytes, "rank %d (%shost %s, pid %d)", rank, world, peer->host, peer->pid);
}

/* Breaks the window in the name of what `rank` did. */
static trm_status lose(trmi_shm *s, int rank, const char *did, int from)
{
    char who[160], awaited[96] = "";
    trm_status st;

    name(s, rank, who, sizeof(who));
    if (rank != from)
        snprintf(awaited, sizeof(awaited), " while rank %d was waited for", from);
    st = trm_fail(TRM_ERR_COMM, "%s: %s: %s %s%s", s->base.label, s->doing, who, did, awaited);
    trmi_shm_break(&s->w, trm_message());
    return st;
}

/* Called now and then while `flag` is not there: who will never come? */
static trm_status look(trmi_shm *s, const trmi_shm_flag *flag, uint32_t want, int from)
{
    for (int r = 0; r < s->base.size; r++) {
        const trmi_shm_peer *peer = &s->w.peers[r];
        uint32_t state = here(peer);

        if (r == s->base.rank || state == NOT_YET)
            continue;
        if (r == from && state == LEFT && !trmi_shm_reached(flag, want))
            return lose(s, r, "has left the group", from);
        /* what a rank did before it died counts; who has left in order may end */
        if (state == HERE && dead(peer) && here(peer) == HERE && !trmi_shm_reached(flag, want))
            return lose(s, r, "died", from);
    }
    return TRM_OK;
}

static int64_t between_looks(const trmi_shm *s)
{
    return s->base.size * LOOK_EACH_US > LOOK_US ? s->base.size * LOOK_EACH_US : LOOK_US;
}

trm_status trmi_shm_look(trm_comm *c, int from)
{
    trmi_shm *s = (trmi_shm *)c;
    const trmi_shm_from *f = &s->from[from];
    int64_t now;

    if (is_broken(&s->w))
        return trm_fail(TRM_ERR_COMM, "%s", s->w.head->why);
    now = trm_now_us();
    if (here(&s->w.peers[from]) != LEFT && now < s->next_look)
        return TRM_OK;
    s->doing = "receive";
    s->next_look = now + between_looks(s);
    return look(s, &trmi_shm_ring_of(&s->w, from, c->rank)->sent,
                (uint32_t)(f->taken + (f->lent ? 2 : 1)), from);
}

trm_status trmi_shm_await(trmi_shm *s, trmi_shm_flag *flag, uint32_t want, int from, bool idle)
{
    int64_t deadline, between, next;
    int spin = s->spin_us;

    if (trmi_shm_reached(flag, want))
        return TRM_OK;
    deadline = trm_now_us();
    between = between_looks(s);
    next = deadline + between;
    deadline = idle ? INT64_MAX : deadline + trm_scaled_ms(s->timeout_ms) * 1000;
    for (;;) {
        uint32_t seen = trm_wait_count(&flag->bell);

        if (trmi_shm_reached(flag, want))
            return TRM_OK;
        if (is_broken(&s->w))
            return trm_fail(TRM_ERR_COMM, "%s", s->w.head->why);
        if (here(&s->w.peers[from]) == LEFT || trm_now_us() >= next) {
            TRM_CHECK(look(s, flag, want, from));
            next = trm_now_us() + between;
        }
        if (trm_now_us() >= deadline)
            return trmi_shm_reached(flag, want) ? TRM_OK
                                                : lose(s, from, "did not take part in time", from);
        if (trm_wait_change(&flag->bell, seen, spin, next < deadline ? next : deadline) != TRM_OK)
            continue; /* time for a look */
        spin = s->spin_us;
    }
}
