/* Bodies of JSON that hold tensors: the lists of numbers are cut out before the rest becomes a tree
 * of objects, and are read straight into the tensor's bytes. A tree would take some 40 bytes a
 * number, and could not hold a UINT64. */
#ifndef TRM_COORDINATOR_GATEWAY_LISTS_H
#define TRM_COORDINATOR_GATEWAY_LISTS_H

#include "base/tensor.h"

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_LISTS_MAX 256                    /* lists of one body */
#define TRMI_LISTS_REST_MAX ((size_t)1 << 20) /* bytes of JSON beside them */
#define TRMI_LISTS_DEPTH 64

typedef enum trmi_lists_where {
    TRMI_LISTS_INPUTS, /* {"inputs": [{"data": [..]}, ..]} */
    TRMI_LISTS_RECORD, /* {"data": [..]} and {"instances": [..]} */
} trmi_lists_where;

typedef struct trmi_list {
    const char *begin, *end; /* from '[' to behind its ']'; in the body */
} trmi_list;
typedef struct trmi_lists {
    json_t *root;     /* an object, in which each list is its number in `lists` */
    trmi_list *lists; /* in the arena */
    int count;
    size_t bytes; /* of all lists */
} trmi_lists;
/* INVALID_ARG: no JSON object, or a limit above is broken. On success the caller drops root. */
TRM_MUST_USE trm_status trmi_lists_cut(const char *body, size_t bytes, trmi_lists_where where,
                                       trm_arena *arena, trmi_lists *lists_out);
/* The list that `value` (of root) stands for; NULL: it stands for none. */
const trmi_list *trmi_lists_of(const trmi_lists *lists, const json_t *value);

/* Fills t->data, whose dtype and shape are set, from a list that is flat or nested as the shape
 * says. `what` begins messages: "input 'x'". INVALID_ARG: another number of elements, other lists
 * than the shape's, no number, or one that the dtype cannot hold. */
TRM_MUST_USE trm_status trmi_list_read(const char *what, const trmi_list *list, trm_tensor *t);
/* dtype and shape of a nested list: I64 where all numbers are integers, F32 where one is not, BOOL
 * for true and false. INVALID_ARG: ragged, more than TRM_RANK_MAX dims, no numbers. */
TRM_MUST_USE trm_status trmi_list_measure(const char *what, const trmi_list *list, trm_tensor *t);

#ifdef __cplusplus
}
#endif
#endif
