/* Inside binding: the segment being built, its slots and storages. bind.c binds segments,
 * bind_node.c nodes, bind_collective.c what ranks do together, bind_slots.c gives them memory. */
#ifndef TRM_WORKER_BIND_IMPL_H
#define TRM_WORKER_BIND_IMPL_H

#include "worker/engine_impl.h"

#define TRMI_ARGS_MAX 256

struct binder {
    trm_engine *e;
    trmi_segment *s;
    int node; /* being bound */
    trm_tensor in[TRMI_ARGS_MAX], out[TRMI_ARGS_MAX];
    uint64_t keys[TRMI_ARGS_MAX];
    /* an input of the node being bound that no value of the graph is: trmi_bind_tree_norm */
    struct {
        bool there;
        int input, slot;
        trmi_place place;
    } lent;
};

enum verdict { GO_ON, END_BEFORE, END_AFTER };

/* bind_node.c: binds node b->node to steps, or says that the segment ends before or after it. */
trm_status trmi_bind_node(struct binder *b, enum verdict *verdict_out);
/* A prepared kernel as a step, from b->in and b->out; n: node b->node, or a part of it. */
trm_status trmi_bind_kernel(struct binder *b, const trm_node *n, bool *dynamic_out);
/* Inputs that are copied to the host are plain there. */
void trmi_bind_arrive_on_host(struct binder *b, const trm_node *n);

/* bind_collective.c */
trm_status trmi_bind_prepare_collective(struct binder *b, const trm_node *n, trm_op_desc *desc,
                                        trmi_place *place_out, trm_kernel **kernel_out);
/* A sum over ranks with the residual and the norm that follow it: in one step where the devices do
 * it, else as the two operators that it is made of, with the same bits. */
trm_status trmi_bind_tree_norm(struct binder *b, const trm_node *n);

/* bind_slots.c */
trm_status trmi_bind_no_memory(void);
/* Room for one more item in an array of the segment's arena; NULL: no memory. */
void *trmi_bind_grow(trmi_segment *s, void *items, int count, int *max, size_t size);
trm_status trmi_bind_slot(trmi_segment *s, trmi_source source, int index, const void *fixed,
                          int *slot_out);
/* A slot with storage of its own for a tensor that lives until node `death`. */
trm_status trmi_bind_buffer(struct binder *b, trmi_place place, const trm_tensor *desc, int death,
                            int *slot_out);
/* A slot in `place` with what is in slot `from` of the other place: a step that copies. */
trm_status trmi_bind_copy(struct binder *b, const trm_tensor *desc, int death, trmi_place place,
                          int from, int *slot_out);
/* The storage behind a slot of this segment; NULL if its memory is not of this segment's arenas. */
trmi_storage *trmi_bind_storage(const trmi_segment *s, int slot);
/* Another slot with the storage of `slot`. */
trm_status trmi_bind_same(trmi_segment *s, int slot, int *slot_out);
int trmi_bind_last_use(const struct binder *b, int value);
trmi_step *trmi_bind_step(struct binder *b, int node, int in_count,
                          int out_count); /* NULL: no memory */
/* The slot that holds `value` in `layout` in `place`; adds copy and reorder steps where no such
 * copy exists yet. */
trm_status trmi_bind_layout(struct binder *b, int value, trm_layout layout, trmi_place place,
                            int *slot_out);
/* Where a value is, or would be put if nothing else decides. */
trmi_place trmi_bind_place(const struct binder *b, int value);
/* Copies a host tensor into the segment as the known value of `value`. */
trm_status trmi_bind_host_value(struct binder *b, int value, const trm_tensor *t);

#endif
