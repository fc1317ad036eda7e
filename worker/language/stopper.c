/* Stop strings in text that comes piece by piece: one Knuth-Morris-Pratt automaton a stop string,
 * so that the result does not depend on how the text is cut. What any of them may still need is
 * held back, and so is a code point that has not come whole. */
#include "worker/language/sampler.h"

#include "base/memory.h"

#include <string.h>

#define STOPS_MAX 64
#define STOP_BYTES_MAX 4096

typedef struct stop {
    char *text;
    size_t bytes;
    size_t *fall; /* [bytes]: length of the longest border of text[0..i] */
    size_t state; /* bytes of text that the input ends with */
} stop;

struct trm_stopper {
    stop *stops;
    size_t count;
    char *held; /* `given` bytes that are out already, then what is held back */
    size_t bytes, given, room;
    bool stopped;
};

static trm_status make_stop(stop *s, const char *text)
{
    s->bytes = strlen(text);
    if (s->bytes == 0 || s->bytes > STOP_BYTES_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "a stop string has %zu bytes, wanted 1 to %d",
                        s->bytes, STOP_BYTES_MAX);
    s->text = trm_strdup(text);
    s->fall = trm_calloc(s->bytes, sizeof(*s->fall));
    if (s->text == NULL || s->fall == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "stop string");
    for (size_t i = 1, k = 0; i < s->bytes; i++) {
        while (k > 0 && text[i] != text[k])
            k = s->fall[k - 1];
        k += text[i] == text[k];
        s->fall[i] = k;
    }
    return TRM_OK;
}

trm_status trm_stopper_create(const char *const *stops, size_t count, trm_stopper **stopper_out)
{
    trm_stopper *s;
    trm_status st;

    if (count > STOPS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "%zu stop strings, at most %d are taken", count,
                        STOPS_MAX);
    s = trm_calloc(1, sizeof(*s));
    if (s == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "stop strings");
    s->stops = trm_calloc(count, sizeof(*s->stops));
    if (s->stops == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "stop strings");
        goto fail;
    }
    for (; s->count < count; s->count++)
        TRM_TRY(st, make_stop(&s->stops[s->count], stops[s->count]), fail_one);
    *stopper_out = s;
    return TRM_OK;

fail_one:
    s->count++; /* the one that was half made */
fail:
    trm_stopper_destroy(s);
    return st;
}

void trm_stopper_destroy(trm_stopper *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->count; i++) {
        trm_free(s->stops[i].text);
        trm_free(s->stops[i].fall);
    }
    trm_free(s->stops);
    trm_free(s->held);
    trm_free(s);
}

/* Takes one byte; true where it completes the stop string. */
static bool step(stop *s, char c)
{
    while (s->state > 0 && (s->state == s->bytes || s->text[s->state] != c))
        s->state = s->fall[s->state - 1];
    s->state += s->text[s->state] == c;
    return s->state == s->bytes;
}

static trm_status append(trm_stopper *s, const char *text, size_t bytes)
{
    if (s->given > 0) {
        memmove(s->held, s->held + s->given, s->bytes - s->given);
        s->bytes -= s->given;
        s->given = 0;
    }
    if (bytes > s->room - s->bytes) {
        size_t room = s->bytes + bytes + 256;
        char *grown = trm_realloc(s->held, room, 1);

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "%zu bytes of text", room);
        s->held = grown;
        s->room = room;
    }
    if (bytes > 0)
        memcpy(s->held + s->bytes, text, bytes);
    s->bytes += bytes;
    return TRM_OK;
}

/* Bytes at the end of the first `bytes` that begin a code point but do not complete it. */
static size_t incomplete(const char *text, size_t bytes)
{
    for (size_t back = 1; back <= 3 && back <= bytes; back++) {
        unsigned char c = (unsigned char)text[bytes - back];
        size_t length = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;

        if ((c & 0xc0) == 0x80)
            continue;
        return length > back ? back : 0;
    }
    return 0;
}

trm_status trm_stopper_push(trm_stopper *s, const char *text, size_t bytes, bool include,
                            const char **text_out, size_t *bytes_out, bool *stopped_out,
                            int *which_out)
{
    size_t from, held = 0, longest = 0, end;
    int which = -1;

    TRM_CHECK(append(s, text, s->stopped ? 0 : bytes));
    from = s->bytes - (s->stopped ? 0 : bytes);
    end = s->bytes;
    for (size_t i = from; i < s->bytes && which < 0; i++)
        for (size_t k = 0; k < s->count; k++)
            if (step(&s->stops[k], s->held[i]) && s->stops[k].bytes > longest) {
                longest = s->stops[k].bytes; /* of those that end here the one that begins first */
                which = (int)k;
                end = i + 1;
            }
    if (s->stopped || which >= 0) {
        s->given = s->stopped ? 0 : include ? end : end - longest;
        s->bytes = s->given; /* the rest is gone */
        s->stopped = true;
    } else {
        for (size_t k = 0; k < s->count; k++)
            held = s->stops[k].state > held ? s->stops[k].state : held;
        s->given = s->bytes - held;
        s->given -= incomplete(s->held, s->given);
    }
    *text_out = s->held != NULL ? s->held : "";
    *bytes_out = s->given;
    *stopped_out = s->stopped;
    *which_out = which;
    return TRM_OK;
}

void trm_stopper_finish(trm_stopper *s, const char **text_out, size_t *bytes_out)
{
    *text_out = s->held != NULL ? s->held + s->given : "";
    *bytes_out = s->bytes - s->given;
    s->given = s->bytes;
}
