/* Who sums which leaves: see lm_float.h. Arithmetic. */
#include "kernels/cuda/lm_float.h"

#include <string.h>

typedef struct node {
    int lo, hi;
} node;

void trmi_lmf_plan_init(trmi_lmf_plan *plan, const trmi_lmc_leaves *leaves, int workers,
                        bool inside)
{
    /* nodes as one worker would have them that sums all; and those that this one has */
    node all[TRM_TREE_LEAVES_MAX], own[TRM_TREE_LEAVES_MAX];
    int count = leaves->count, part = 0, held = 0;

    memset(plan, 0, sizeof(*plan));
    memcpy(plan->begin, leaves->begin, sizeof(plan->begin));
    workers = workers < count ? workers : count;
    plan->workers = workers < TRMI_LMF_WORKERS ? workers : TRMI_LMF_WORKERS;
    plan->parts = leaves->parts;
    for (int w = 0; w < plan->workers; w++) {
        int depth = 0, from = count * w / plan->workers, end = count * (w + 1) / plan->workers;

        plan->first[w + 1] = (unsigned char)end;
        plan->slot[w] = (unsigned char)plan->slots;
        for (int i = from; i < end; i++) {
            all[held++] = own[depth++] = (node){i, i + 1};
            for (int j = 0; j < leaves->merges[i]; j++) {
                all[held - 2].hi = i + 1;
                held--;
                if (!inside || all[held - 1].lo < from)
                    continue;
                own[depth - 2].hi = i + 1;
                depth--;
                plan->merges[i]++;
            }
        }
        for (int s = 0; s < depth; s++, plan->slots++) {
            int last = own[s].hi;

            plan->ends[plan->slots] = (unsigned char)last;
            plan->folds[plan->slots] =
                (unsigned char)(leaves->merges[last - 1] - plan->merges[last - 1]);
            if (part < leaves->parts && last == leaves->ends[part])
                plan->last[part++] = (unsigned char)(plan->slots + 1);
        }
    }
    plan->slot[plan->workers] = (unsigned char)plan->slots;
}

int trmi_lmf_plan_depth(const trmi_lmf_plan *plan)
{
    int depth = 0, most = 0;

    for (int i = 0, s = 0; i < plan->first[plan->workers]; i++) {
        depth -= plan->merges[i];
        if (i + 1 == plan->ends[s])
            s++;
        else
            depth++;
        most = depth > most ? depth : most;
    }
    return most > 1 ? most - 1 : 0;
}
