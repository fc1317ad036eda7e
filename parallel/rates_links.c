/* What talking costs on this host: two threads, each a rank of a shared-window communicator (each
 * has its own object; that the ranks share a process changes nothing of what they do). Fills alpha
 * and beta of the lines of TRM_LINK_HOST. */
#define _GNU_SOURCE
#include "base/wait.h"
#include "parallel/comm.h"
#include "parallel/rates_impl.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS 40
#define LARGE_BYTES ((size_t)1 << 20)
#define SMALL_BYTES ((size_t)4096)
#define SKEW_US                                                                                    \
    2.0 /* ranks in step wait less for each other than ranks that compute in between               \
         */

typedef struct side {
    trm_segment *segment;
    int rank;
    void *in, *out;
    double us[2][2][ROUNDS]; /* [collective, message][small, large] */
    trm_status st;
} side;

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static trm_status ping(trm_comm *c, int rank, trm_piece piece)
{
    const void *data;
    size_t bytes;

    if (rank == 0)
        TRM_CHECK(trm_comm_send(c, 1, &piece, 1));
    TRM_CHECK(trm_comm_receive(c, 1 - rank, false, &data, &bytes));
    return rank == 0 ? TRM_OK : trm_comm_send(c, 0, &piece, 1);
}

static trm_status talk(side *s, trm_comm *c)
{
    trm_comm_set_timeout(c, 5000);
    for (int large = 0; large < 2; large++) {
        trm_piece piece = {s->in, large ? LARGE_BYTES : SMALL_BYTES};

        for (int i = 0; i < ROUNDS; i++) {
            double from = now_us();

            TRM_CHECK(trm_comm_allreduce(c, s->in, s->out, piece.bytes / sizeof(float),
                                         TRM_DTYPE_F32, TRM_REDUCE_SUM));
            s->us[0][large][i] = now_us() - from;
        }
        for (int i = 0; i < ROUNDS; i++) {
            double from = now_us();

            TRM_CHECK(ping(c, s->rank, piece));
            s->us[1][large][i] = (now_us() - from) / 2;
        }
    }
    return TRM_OK;
}

static void *take_part(void *arg)
{
    side *s = arg;
    trm_comm *c;

    s->st = trm_comm_shm_create(s->segment, s->rank, 2, TRM_WAIT_SPIN_US, &c);
    if (s->st != TRM_OK)
        return NULL;
    s->st = talk(s, c);
    trm_comm_destroy(c);
    return NULL;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* Disturbances only add. */
static double quartile(double *us)
{
    qsort(us, ROUNDS, sizeof(*us), ascending);
    return us[ROUNDS / 4];
}

static void fit(side *s, trm_rates *r)
{
    for (int kind = 0; kind < 2; kind++) {
        double small = quartile(s->us[kind][0]), large = quartile(s->us[kind][1]);
        trmi_line *line = &r->link[TRM_LINK_HOST][kind];

        if (!(small > 0) || !(large > small))
            continue;
        line->beta = (large - small) / (double)(LARGE_BYTES - SMALL_BYTES);
        line->alpha = small - line->beta * (double)SMALL_BYTES;
        line->alpha = (line->alpha > 0 ? line->alpha : 0) + SKEW_US;
    }
}

trm_status trmi_rates_probe_links(trm_rates *r)
{
    trm_comm_needs needs = {.slot_bytes = LARGE_BYTES, .message_bytes = LARGE_BYTES, .messages = 2};
    side *sides = trm_calloc(2, sizeof(*sides));
    trm_segment *segment = NULL;
    pthread_t other;
    trm_status st;

    if (sides == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "probe of links");
    TRM_TRY(st, trm_comm_shm_segment(2, &needs, &segment), done);
    for (int i = 0; i < 2; i++) {
        sides[i].segment = segment;
        sides[i].rank = i;
        sides[i].in = trm_aligned_malloc(LARGE_BYTES);
        sides[i].out = trm_aligned_malloc(LARGE_BYTES);
        if (sides[i].in == NULL || sides[i].out == NULL) {
            st = trm_fail(TRM_ERR_NO_MEMORY, "probe of links");
            goto done;
        }
        memset(sides[i].in, 0, LARGE_BYTES);
        memset(sides[i].out, 0, LARGE_BYTES);
    }
    if (pthread_create(&other, NULL, take_part, &sides[1]) != 0) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "probe of links: no thread");
        goto done;
    }
    (void)take_part(&sides[0]);
    pthread_join(other, NULL);
    st = sides[0].st != TRM_OK ? sides[0].st : sides[1].st;
    if (st == TRM_OK)
        fit(&sides[0], r);
done:
    for (int i = 0; i < 2; i++) {
        trm_aligned_free(sides[i].in);
        trm_aligned_free(sides[i].out);
    }
    trm_segment_close(segment);
    trm_free(sides);
    return st;
}
