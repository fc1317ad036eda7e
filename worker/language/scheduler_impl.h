/* The scheduler's insides: scheduler.c has sequences from their coming to their end,
 * scheduler_fill.c decides what a step takes. */
#ifndef TRM_WORKER_LANGUAGE_SCHEDULER_IMPL_H
#define TRM_WORKER_LANGUAGE_SCHEDULER_IMPL_H

#include "worker/language/scheduler.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_PREFILL_LEAST 16 /* prompt tokens that a decoding step may always take */

/* What a sequence leaves that is removed while steps under way write into its pages and draw for
 * its slot: both are free when the last of these has ended. */
typedef struct trmi_ghost {
    trm_kv_table table;
    int slot;
    int steps; /* that are still under way; 0: nobody's */
} trmi_ghost;

typedef struct trmi_lm_part {
    trm_sequence *q;   /* NULL: removed since */
    trmi_ghost *ghost; /* then; NULL: it has left nothing */
    int tokens;
    bool draws; /* the step brings its next token */
} trmi_lm_part;

typedef struct trmi_lm_flight { /* a step under way */
    bool used, decodes;
    int part_count, pick_count, tokens, prefill;
    trmi_lm_part *parts;  /* [batch] */
    trm_sequence **picks; /* NULL: removed since */
    trm_lm_pick *pick;
} trmi_lm_flight;

typedef struct trmi_list {
    trm_sequence *first, *last;
    int count;
} trmi_list;

struct trm_scheduler {
    trm_scheduler_limits limits;
    trm_kv_cache *cache; /* NULL: encoder */
    trmi_list running, waiting;
    int *slots, slot_count; /* free ones */
    trmi_lm_flight *flights;
    trmi_ghost *ghosts; /* [flights * batch]: every one is in a part of a step under way */
    int ghost_count;
    uint64_t number; /* of the step that is filled or was filled last */
    double decode_us,
        prefill_us; /* of a step that only decodes; of one more prompt token; 0: not known */
    int force_every, since_forced;
    trm_scheduler_stats stats;
};

/* Lists are by priority. append: behind its equals; prepend: before them. */
void trmi_list_append(trmi_list *l, trm_sequence *q);
void trmi_list_prepend(trmi_list *l, trm_sequence *q);
void trmi_list_remove(trmi_list *l, trm_sequence *q);

/* Whether a sequence of `count` tokens is over by that alone. */
bool trmi_sequence_is_full(const trm_sequence *q, int count);

#ifdef __cplusplus
}
#endif
#endif
