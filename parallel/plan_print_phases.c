/* What a plan says of a language model on accelerators: the times that its layout was chosen by. */
#include "parallel/planner_impl.h"

#include <inttypes.h>
#include <string.h>

bool trmi_has_phases(const trm_plan *plan, const trm_plan_options *options)
{
    return options->phase_count > 0 && plan->chosen >= 0 && plan->chosen < plan->candidate_count &&
           plan->candidates[plan->chosen].phases[0].step_us > 0;
}

static int count_of(const trm_plan_options *o)
{
    return o->phase_count < TRM_PHASES_MAX ? o->phase_count : TRM_PHASES_MAX;
}

/* "decode 64", "prefill 8x2048" */
static char *title(const trm_phase *p, char *text, size_t room)
{
    if (p->tokens == 1)
        (void)snprintf(text, room, "%s %" PRId64, p->name, p->sequences);
    else
        (void)snprintf(text, room, "%s %" PRId64 "x%" PRId64, p->name, p->sequences, p->tokens);
    return text;
}

void trmi_print_phase_candidates(const trm_plan *plan, const trm_plan_options *o, FILE *f)
{
    char text[64];

    fprintf(f, "  %-30s", "layout (tokens/s)");
    for (int i = 0; i < count_of(o); i++)
        fprintf(f, " %15s", title(&o->phases[i], text, sizeof(text)));
    fprintf(f, " %12s\n", "memory/rank");
    for (int i = 0; i < plan->candidate_count; i++) {
        const trm_candidate *c = &plan->candidates[i];

        fprintf(f, "%c %-30s", i == plan->chosen ? '*' : ' ',
                trm_parallel_text(&c->parallel, text, sizeof(text)));
        for (int k = 0; k < count_of(o) && c->fits; k++)
            fprintf(f, " %15.0f", c->phases[k].tokens_s);
        if (c->fits)
            fprintf(f, " %12s", trmi_bytes_text(c->memory, text));
        if (!c->fits)
            fprintf(f, "  out: %s", c->reason);
        fputc('\n', f);
    }
}

void trmi_print_phases(const trm_plan *plan, const trm_plan_options *o, FILE *f)
{
    const trm_candidate *c = &plan->candidates[plan->chosen];
    char text[64];

    fprintf(f, "\n  %-16s %9s %9s %9s %7s %11s %12s %14s\n", "work", "sequences", "tokens",
            "context", "steps", "a step", "tokens/s", "of a sequence");
    for (int i = 0; i < count_of(o); i++) {
        const trm_phase *p = &o->phases[i];
        const trm_phase_time *t = &c->phases[i];

        fprintf(f,
                "  %-16s %9" PRId64 " %9" PRId64 " %9" PRId64 " %7" PRId64
                " %8.3f ms %12.0f %14.1f%s\n",
                title(p, text, sizeof(text)), t->sequences, p->tokens, p->context, t->steps,
                t->step_us / 1e3, t->tokens_s, (double)p->tokens * 1e6 / t->all_us,
                t->sequences < p->sequences ? "  (no room for more)" : "");
    }
    if (plan->kv_tokens > 0)
        fprintf(f, "  KV cache: %" PRId64 " tokens of each replica (%s)\n", plan->kv_tokens,
                trm_dtype_name(o->kv_dtype));
}

static void phase_json(const trm_phase *p, const trm_phase_time *t, bool first, FILE *f)
{
    fprintf(f,
            "%s{\"name\": \"%s\", \"sequences\": %" PRId64 ", \"tokens\": %" PRId64
            ", \"context\": %" PRId64 ", \"steps\": %" PRId64
            ", \"step_us\": %.3f, \"all_us\": %.3f, \"tokens_s\": %.3f}",
            first ? "" : ", ", p->name, t->sequences, p->tokens, p->context, t->steps, t->step_us,
            t->all_us, t->tokens_s);
}

void trmi_phases_json(const trm_plan_options *o, const trm_candidate *c, FILE *f)
{
    fprintf(f, ", \"phases\": [");
    for (int i = 0; i < count_of(o) && c->phases[i].step_us > 0; i++)
        phase_json(&o->phases[i], &c->phases[i], i == 0, f);
    fputc(']', f);
}
