/* Progress and summary of a scoring job. */
#include "launch/score_progress.h"
#include "base/wait.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REDRAW_US 200000
#define LINE_US 10000000

void trm_score_progress_start(trm_score_progress *p)
{
    p->start_us = p->shown_us = trm_now_us();
    p->terminal = isatty(STDERR_FILENO) != 0;
}

static void judge(trm_score_progress *p, const trm_taken *taken)
{
    const trm_wire_label *best = taken->result.labels;
    const char *want = trm_truth_label(p->truth, taken->name);
    char number[16];

    if (want == NULL)
        return;
    p->judged++;
    if (taken->result.status != TRM_OK || taken->result.label_count < 1)
        return;
    snprintf(number, sizeof(number), "%d", best->index);
    p->right += strcmp(best->text, want) == 0 || strcmp(number, want) == 0;
}

static void show(trm_score_progress *p, int64_t now)
{
    double seconds = (double)(now - p->start_us) / 1e6;
    double rate = seconds > 0 ? (double)p->records / seconds : 0;
    int64_t done = p->skipped + p->records;
    char line[160], eta[48] = "";

    if (p->total >= 0) {
        int64_t left = rate > 0 ? (int64_t)((double)(p->total - done) / rate) : 0;

        if (rate > 0)
            snprintf(eta, sizeof(eta), "  ETA %lld:%02lld:%02lld", (long long)(left / 3600),
                     (long long)(left / 60 % 60), (long long)(left % 60));
        snprintf(line, sizeof(line), "%lld/%lld  %.0f%%  %.1f records/s%s", (long long)done,
                 (long long)p->total, 100.0 * (double)done / (double)(p->total > 0 ? p->total : 1),
                 rate, eta);
    } else {
        snprintf(line, sizeof(line), "%lld records  %.1f records/s", (long long)done, rate);
    }
    if (p->terminal)
        fprintf(stderr, "\r%-70s", line);
    else
        fprintf(stderr, "score: %s\n", line);
    p->drawn = true;
    p->shown_us = now;
}

void trm_score_progress_seen(void *ctx, const trm_taken *taken)
{
    trm_score_progress *p = ctx;
    int64_t now;

    if (taken != NULL) {
        p->records++;
        if (taken->result.status != TRM_OK && p->errors++ == 0)
            snprintf(p->first_error, sizeof(p->first_error), "record '%.80s': %.160s", taken->name,
                     taken->result.message);
        if (p->truth != NULL)
            judge(p, taken);
        return;
    }
    now = trm_now_us();
    if (now - p->shown_us >= (p->terminal ? REDRAW_US : LINE_US))
        show(p, now);
}

void trm_score_progress_end(trm_score_progress *p, bool first_error)
{
    double seconds = (double)(trm_now_us() - p->start_us) / 1e6;

    if (p->terminal && p->drawn)
        fprintf(stderr, "\r%-70s\r", "");
    fprintf(stderr, "%lld records, %lld errors, %.2f s, %.1f records/s\n", (long long)p->records,
            (long long)p->errors, seconds, seconds > 0 ? (double)p->records / seconds : 0.0);
    if (p->skipped > 0)
        fprintf(stderr, "with those of earlier runs: %lld records, %lld errors\n",
                (long long)(p->skipped + p->records), (long long)(p->skipped_errors + p->errors));
    if (p->errors > 0 && first_error)
        fprintf(stderr, "first error: %s\n", p->first_error);
    if (p->truth != NULL)
        fprintf(stderr, "accuracy %lld/%lld\n", (long long)p->right, (long long)p->judged);
}
