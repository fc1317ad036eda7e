/* The journal's lines. Each ends in a check of its own text, "TEXT CHECK\n"; behind the header the
 * check is seeded with the header's, so a line of another journal is none of this one.
 *
 *   trireme journal 1
 *   field NAME TEXT          ...
 *   begin COUNT              the header is whole
 *   run PID HOST             who goes on from here
 *   mark RECORDS ERRORS FROM BYTES HASH
 *   synced                   every entry above is on the disk, and so is the output it speaks of
 *   complete
 */
#define _GNU_SOURCE
#include "base/hash.h"
#include "coordinator/journal_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "trireme journal "
#define FIRST_LINE MAGIC "1"
#define CHECK_DIGITS 8
#define HEADER_SEED UINT64_C(1)
#define JOURNAL_MAX ((int64_t)1 << 30) /* a year of entries, one a second */

static uint32_t check_of(const char *text, size_t bytes, uint64_t seed)
{
    trm_hash h;

    trm_hash_init(&h, seed);
    trm_hash_add(&h, text, bytes);
    return (uint32_t)trm_hash_value(&h);
}

void trmi_journal_clean(char out[TRMI_JOURNAL_TEXT + 1], const char *text)
{
    size_t n = 0;

    for (; n < TRMI_JOURNAL_TEXT && text[n] != '\0'; n++)
        out[n] = (unsigned char)text[n] < 0x20 ? '?' : text[n];
    out[n] = '\0';
}

size_t trmi_journal_line(char line[TRMI_JOURNAL_LINE], uint64_t seed, const char *text)
{
    size_t n = strlen(text);

    TRM_ASSERT(n + CHECK_DIGITS + 3 <= TRMI_JOURNAL_LINE);
    return (size_t)snprintf(line, TRMI_JOURNAL_LINE, "%s %08" PRIx32 "\n", text,
                            check_of(text, n, seed));
}

trm_status trmi_journal_header(const trm_journal_field *fields, int count, char **text_out,
                               size_t *bytes_out, uint64_t *seed_out)
{
    char *text = trm_malloc((size_t)count + 2, TRMI_JOURNAL_LINE), line[TRMI_JOURNAL_LINE - 32];
    trm_hash h;
    size_t n;

    TRM_ASSERT(count <= TRMI_JOURNAL_FIELDS);
    if (text == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "the journal's header");
    n = trmi_journal_line(text, HEADER_SEED, FIRST_LINE);
    for (int i = 0; i < count; i++) {
        char clean[TRMI_JOURNAL_TEXT + 1];

        trmi_journal_clean(clean, fields[i].text);
        snprintf(line, sizeof(line), "field %.31s %s", fields[i].name, clean);
        n += trmi_journal_line(text + n, HEADER_SEED, line);
    }
    snprintf(line, sizeof(line), "begin %d", count);
    n += trmi_journal_line(text + n, HEADER_SEED, line);
    trm_hash_init(&h, HEADER_SEED);
    trm_hash_add(&h, text, n);
    *seed_out = trm_hash_value(&h);
    *text_out = text;
    *bytes_out = n;
    return TRM_OK;
}

/* The whole line at `at`, its check taken off and its end made a zero; NULL: torn, or the end. */
static char *next_line(trmi_journal_text *t, uint64_t seed, size_t *at)
{
    char *line = t->text + *at, *end, *rest;
    size_t n;
    unsigned long check;

    end = memchr(line, '\n', t->bytes - *at);
    if (end == NULL || end - line < CHECK_DIGITS + 1)
        return NULL;
    n = (size_t)(end - line) - CHECK_DIGITS - 1;
    if (line[n] != ' ' || memchr(line, '\0', (size_t)(end - line)) != NULL)
        return NULL;
    *end = '\0';
    check = strtoul(line + n + 1, &rest, 16);
    if (rest == end && check == check_of(line, n, seed)) {
        line[n] = '\0';
        *at = (size_t)(end - t->text) + 1;
        return line;
    }
    *end = '\n';
    return NULL;
}

static bool read_header(trmi_journal_text *t)
{
    size_t at = 0;
    char *line = next_line(t, HEADER_SEED, &at), *end;
    trm_hash h;

    if (line == NULL || strcmp(line, FIRST_LINE) != 0)
        return false;
    while ((line = next_line(t, HEADER_SEED, &at)) != NULL) {
        if (strncmp(line, "field ", 6) == 0 && t->field_count < TRMI_JOURNAL_FIELDS) {
            char *space = strchr(line + 6, ' ');

            if (space == NULL)
                return false;
            *space = '\0';
            t->names[t->field_count] = line + 6;
            t->texts[t->field_count++] = space + 1;
        } else {
            break;
        }
    }
    if (line == NULL || strncmp(line, "begin ", 6) != 0 ||
        strtol(line + 6, &end, 10) != t->field_count || *end != '\0')
        return false;
    t->header_end = at;
    /* as trmi_journal_header makes it; the text here has lost its blanks and line ends */
    trm_hash_init(&h, HEADER_SEED);
    for (int i = -1; i <= t->field_count; i++) {
        char whole[TRMI_JOURNAL_LINE - 32], checked[TRMI_JOURNAL_LINE];

        if (i < 0)
            snprintf(whole, sizeof(whole), FIRST_LINE);
        else if (i < t->field_count)
            snprintf(whole, sizeof(whole), "field %.31s %.*s", t->names[i], TRMI_JOURNAL_TEXT,
                     t->texts[i]);
        else
            snprintf(whole, sizeof(whole), "begin %d", t->field_count);
        trm_hash_add(&h, checked, trmi_journal_line(checked, HEADER_SEED, whole));
    }
    t->seed = trm_hash_value(&h);
    return true;
}

static trm_status add_entry(trmi_journal_text *t, const trmi_journal_entry *e)
{
    if (t->entry_count == t->entry_max) {
        size_t room = t->entry_max == 0 ? 64 : t->entry_max * 2;
        trmi_journal_entry *grown = trm_realloc(t->entries, room, sizeof(*grown));

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "the journal's entries");
        t->entries = grown;
        t->entry_max = room;
    }
    t->entries[t->entry_count++] = *e;
    return TRM_OK;
}

/* False: not one of ours, or it does not go on from the last. */
static bool parse_mark(const trmi_journal_text *t, const char *line, trmi_journal_entry *e)
{
    const trmi_journal_entry *last = t->entry_count > 0 ? &t->entries[t->entry_count - 1] : NULL;
    int end = 0;

    if (sscanf(line, "mark %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNx64 "%n",
               &e->mark.records, &e->mark.errors, &e->from, &e->mark.bytes, &e->hash, &end) != 5 ||
        line[end] != '\0' || e->mark.errors < 0 || e->mark.errors > e->mark.records ||
        e->from < 0 || e->from > e->mark.bytes)
        return false;
    return last == NULL || (e->mark.records >= last->mark.records &&
                            e->mark.errors >= last->mark.errors && e->from == last->mark.bytes);
}

static trm_status read_entries(trmi_journal_text *t)
{
    size_t at = t->header_end;
    const char *line;

    while ((line = next_line(t, t->seed, &at)) != NULL) {
        trmi_journal_entry e = {.end = at};
        char host[64] = "";
        int pid = 0;

        if (sscanf(line, "run %d %63s", &pid, host) >= 1)
            snprintf(t->by, sizeof(t->by), "process %d on %s", pid, host);
        else if (strcmp(line, "synced") == 0)
            t->synced = t->entry_count;
        else if (strcmp(line, "complete") == 0)
            t->complete = true;
        else if (parse_mark(t, line, &e))
            TRM_CHECK(add_entry(t, &e));
        else
            break;
    }
    return TRM_OK;
}

static trm_status read_all(int fd, const char *path, trmi_journal_text *t)
{
    struct stat info;

    if (fstat(fd, &info) != 0)
        return trm_fail(TRM_ERR_IO, "journal '%s': %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return trm_fail(TRM_ERR_INVALID_ARG, "journal '%s' is not a regular file", path);
    if (info.st_size > JOURNAL_MAX)
        return trm_fail(TRM_ERR_BAD_FILE, "journal '%s' has %lld bytes: no run writes that much",
                        path, (long long)info.st_size);
    t->text = trm_malloc((size_t)info.st_size + 1, 1);
    if (t->text == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "journal '%s'", path);
    while (t->bytes < (size_t)info.st_size) {
        ssize_t n = pread(fd, t->text + t->bytes, (size_t)info.st_size - t->bytes, (off_t)t->bytes);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return trm_fail(TRM_ERR_IO, "journal '%s': reading: %s", path, strerror(errno));
        if (n == 0)
            break;
        t->bytes += (size_t)n;
    }
    return TRM_OK;
}

trm_status trmi_journal_read(int fd, const char *path, trmi_journal_text *out,
                             trmi_journal_kind *kind_out)
{
    trmi_journal_text t = {0};
    trm_status st = read_all(fd, path, &t);

    if (st != TRM_OK) {
        trmi_journal_text_fini(&t);
        return st;
    }
    if (t.bytes == 0)
        *kind_out = TRMI_JOURNAL_EMPTY;
    else if (t.bytes < strlen(MAGIC) || memcmp(t.text, MAGIC, strlen(MAGIC)) != 0)
        *kind_out = TRMI_JOURNAL_FOREIGN;
    else if (!read_header(&t))
        *kind_out = TRMI_JOURNAL_DAMAGED;
    else
        *kind_out = TRMI_JOURNAL_READ;
    if (*kind_out == TRMI_JOURNAL_READ)
        st = read_entries(&t);
    if (st != TRM_OK) {
        trmi_journal_text_fini(&t);
        return st;
    }
    *out = t;
    return TRM_OK;
}

void trmi_journal_text_fini(trmi_journal_text *t)
{
    trm_free(t->text);
    trm_free(t->entries);
    memset(t, 0, sizeof(*t));
}
