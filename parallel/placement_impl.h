/* Between the files of the placement search: the problem with everything looked up once, and one
 * run of the dynamic program over it at given prices.
 *
 * A value is *open* if more than one form of it can come up: by what its producer may yield and its
 * readers may want. Only open values are part of a state. Constants are open only where several
 * nodes read them (a constant with one reader is part of that node's price). */
#ifndef TRM_PARALLEL_PLACEMENT_IMPL_H
#define TRM_PARALLEL_PLACEMENT_IMPL_H

#include "parallel/placement.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_MASKS (1 << TRM_FORM_COUNT)
#define TRMI_FROM_NONE 255 /* there is no way to make the form */

typedef struct trmi_open {
    int value;
    bool constant, output;
    int reader_count;
    int *readers;    /* node indices, ascending, each once */
    uint16_t *later; /* [reader_count + 1]: forms that readers i and after may want (outputs: and
                        the whole) */
    double change[TRM_FORM_COUNT][TRM_FORM_COUNT]; /* us, [from][want]; negative: not known yet */
    double bytes[TRM_FORM_COUNT];                  /* constants */
} trmi_open;

typedef struct trmi_choice {
    int strategy;
    double us;
    double bytes;          /* constants that no other node reads, in the forms it wants */
    const uint8_t *wants;  /* [read_count] */
    const uint8_t *yields; /* [write_count] */
} trmi_choice;

typedef struct trmi_step {
    int choice_count, read_count, write_count;
    trmi_choice *choices;
    const int *reads, *writes; /* indices of open values */
} trmi_step;

typedef struct trmi_problem {
    const trm_sharding *s;
    const trm_placement_costs *costs;
    trm_arena *arena;
    trmi_step *steps; /* [node_count] */
    trmi_open *opens;
    int open_count;
    uint8_t from[TRMI_MASKS][TRM_FORM_COUNT]; /* trm_form_change, tabled */
    uint16_t op[TRMI_MASKS][TRM_FORM_COUNT];
} trmi_problem;

typedef struct trmi_price {
    double us, byte; /* per microsecond and per byte of weights: the search minimises the sum */
} trmi_price;

/* The forms that exist after `change` has made `want`: a partial sum made of split parts leaves the
 * gathered whole behind. */
static inline uint32_t trmi_form_after(uint32_t have, trm_op op, trm_form want)
{
    have |= 1U << want;
    return op == TRM_OP_TrmAllGather ? have | 1U << TRM_FORM_WHOLE : have;
}
/* Do ranks talk? */
static inline bool trmi_change_talks(trm_op op)
{
    return op == TRM_OP_TrmAllReduce || op == TRM_OP_TrmAllGather ||
           op == TRM_OP_TrmReduceScatter || op == TRM_OP_TrmAllToAll;
}

trm_status trmi_problem_create(const trm_sharding *s, const trm_placement_costs *costs,
                               trmi_problem **problem_out);
void trmi_problem_destroy(trmi_problem *p);
/* Price of having `want` of an open value that exists in `mask`; infinite: no way. */
double trmi_problem_price(trmi_problem *p, trmi_open *o, uint32_t mask, int want,
                          const trmi_price *price);
/* The forms after that. */
uint32_t trmi_problem_after(const trmi_problem *p, const trmi_open *o, uint32_t mask, int want);
/* strategy_out [node_count]. */
trm_status trmi_problem_run(trmi_problem *p, const trmi_price *price, int beam, int *strategy_out,
                            double *sum_out, bool *exact_out);
/* What must be paid more, at worst, for whatever comes from having `a` instead of `b`, when only
 * forms of `later` will be wanted, and at least one of them; infinite where that is not known. */
double trmi_problem_extra(trmi_problem *p, trmi_open *o, uint32_t a, uint32_t b, uint32_t later,
                          const trmi_price *price);
/* `mask` without the forms that nothing later is dearer without. */
uint32_t trmi_problem_lean(trmi_problem *p, trmi_open *o, uint32_t mask, uint32_t later,
                           const trmi_price *price);

/* placement_memory.c: strategies that meet the limit; strategy_inout is the cheapest without. */
trm_status trmi_placement_meet(trmi_problem *p, size_t bytes_max, int beam,
                               trm_placement *placement_inout);
/* Bytes of a constant in a form on the rank with the most. */
size_t trmi_constant_bytes(const trm_sharding *s, int value, trm_form form, int rank);

#ifdef __cplusplus
}
#endif
#endif
