/* The journal's life: locked, compared, started, added to, completed. */
#define _GNU_SOURCE
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/wait.h"
#include "coordinator/journal_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS                                                                                    \
    30000 /* mpirun takes a second or two to end the ranks of a job it was killed in               \
           */
#define RETRY_MS 50
#define SYNC_MS 10000

struct trm_journal {
    char *output, *path, *fresh_path; /* FILE, FILE.journal, FILE.journal.new */
    int fd;
    int output_fd; /* to sync it; -1: not opened yet */
    char *header;
    size_t header_bytes;
    uint64_t seed;
    int64_t sync_us, next_sync_us;
    trm_journal_mark last;
    size_t keep;  /* bytes of the old journal that hold; 0: it starts anew */
    size_t bytes; /* of the journal as it is now */
    bool made, started, complete, unsynced;
};

static trm_status io_failed(const trm_journal *j, const char *what)
{
    return trm_fail(TRM_ERR_IO, "journal '%s': cannot %s: %s", j->path, what, strerror(errno));
}

/* ---- the lock ---- */

static void pause_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&t, NULL);
}

static trm_status open_file(trm_journal *j)
{
    j->made = false;
    j->fd = open(j->path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (j->fd < 0 && errno == ENOENT) {
        j->fd = open(j->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        j->made = j->fd >= 0;
        if (j->fd < 0 && errno == EEXIST) /* another run's, this moment */
            j->fd = open(j->path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    }
    if (j->fd < 0)
        return trm_fail(errno == ENOSPC || errno == EDQUOT || errno == EIO ? TRM_ERR_IO
                                                                           : TRM_ERR_INVALID_ARG,
                        "output '%s' cannot be written: its journal '%s': %s", j->output, j->path,
                        strerror(errno));
    return TRM_OK;
}

/* Whether the path still leads to the file that is open: a run that starts anew replaces it. */
static bool is_current(const trm_journal *j)
{
    struct stat by_path, by_fd;

    return stat(j->path, &by_path) == 0 && fstat(j->fd, &by_fd) == 0 &&
           by_path.st_dev == by_fd.st_dev && by_path.st_ino == by_fd.st_ino;
}

static trm_status held_by_another(const trm_journal *j, int64_t waited_ms)
{
    trmi_journal_text t = {0};
    trmi_journal_kind kind = TRMI_JOURNAL_EMPTY;
    trm_status st;

    if (trmi_journal_read(j->fd, j->path, &t, &kind) != TRM_OK)
        kind = TRMI_JOURNAL_EMPTY;
    st = trm_fail(TRM_ERR_TIMEOUT,
                  "output '%s' is being written by another run%s%s: waited %" PRId64
                  " s for it to end",
                  j->output, kind == TRMI_JOURNAL_READ && t.by[0] != '\0' ? ", " : "",
                  kind == TRMI_JOURNAL_READ ? t.by : "", waited_ms / 1000);
    trmi_journal_text_fini(&t);
    return st;
}

static trm_status lock(trm_journal *j, int64_t wait_ms)
{
    int64_t deadline_us = trm_deadline_us(wait_ms);
    bool told = false;

    for (;;) {
        TRM_CHECK(open_file(j));
        while (flock(j->fd, LOCK_EX | LOCK_NB) != 0 && errno != EINTR) {
            if (errno != EWOULDBLOCK) { /* a file system without locks: better than no output */
                TRM_LOG(TRM_LOG_WARN, "score", "journal '%s' cannot be locked: %s", j->path,
                        strerror(errno));
                return TRM_OK;
            }
            if (trm_now_us() > deadline_us)
                return held_by_another(j, trm_scaled_ms(wait_ms));
            if (!told)
                TRM_LOG(TRM_LOG_INFO, "score", "waiting for the run that writes '%s'", j->output);
            told = true;
            pause_ms(RETRY_MS);
        }
        if (is_current(j))
            return TRM_OK;
        close(j->fd);
        j->fd = -1;
    }
}

/* ---- what there is ---- */

static trm_status output_state(const trm_journal *j, bool *there_out, int64_t *bytes_out)
{
    struct stat info;

    *there_out = stat(j->output, &info) == 0;
    *bytes_out = *there_out ? (int64_t)info.st_size : 0;
    return *there_out || errno == ENOENT
               ? TRM_OK
               : trm_fail(TRM_ERR_IO, "output '%s': %s", j->output, strerror(errno));
}

static trm_status compare(const trm_journal *j, const trmi_journal_text *t,
                          const trm_journal_options *o)
{
    for (int i = 0; i < o->field_count || i < t->field_count; i++) {
        bool have = i < t->field_count, want = i < o->field_count;
        char now[TRMI_JOURNAL_TEXT + 1] = "nothing";

        if (want)
            trmi_journal_clean(now, o->fields[i].text);
        if (have && want && strcmp(t->names[i], o->fields[i].name) == 0 &&
            strcmp(t->texts[i], now) == 0)
            continue;
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--resume: the %s differs: journal '%s' has %s, now %s; --overwrite starts "
                        "anew",
                        want ? o->fields[i].name : t->names[i], j->path,
                        have ? t->texts[i] : "nothing", now);
    }
    return TRM_OK;
}

/* Whether the output's bytes [from, mark.bytes) are those that were written. */
static trm_status holds(int fd, const trm_journal *j, const trmi_journal_entry *e, bool *holds_out)
{
    static const size_t chunk = 65536;
    unsigned char *buffer = trm_malloc(chunk, 1);
    int64_t at = e->from;
    trm_hash h;
    ssize_t n = 0;

    if (buffer == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "output '%s'", j->output);
    trm_hash_init(&h, 0);
    while (at < e->mark.bytes) {
        int64_t left = e->mark.bytes - at;

        n = pread(fd, buffer, left < (int64_t)chunk ? (size_t)left : chunk, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        trm_hash_add(&h, buffer, (size_t)n);
        at += n;
    }
    trm_free(buffer);
    if (n < 0)
        return trm_fail(TRM_ERR_IO, "output '%s': reading: %s", j->output, strerror(errno));
    *holds_out = at == e->mark.bytes && trm_hash_value(&h) == e->hash;
    return TRM_OK;
}

static trm_status was_changed(const trm_journal *j, const trmi_journal_entry *e, int64_t bytes)
{
    return trm_fail(TRM_ERR_INVALID_ARG,
                    "--resume: output '%s' was changed since (%" PRId64 " bytes; its journal has "
                    "%" PRId64 " records in %" PRId64 "): --overwrite starts anew",
                    j->output, bytes, e->mark.records, e->mark.bytes);
}

/* The last entry up to which the output is what was written. What had reached the disk must hold,
 * or someone has changed it; behind that a loss of power may have taken something. */
static trm_status find_last(trm_journal *j, const trmi_journal_text *t, int64_t output_bytes)
{
    size_t good = 0, i = t->synced > 0 ? t->synced - 1 : 0;
    trm_status st = TRM_OK;
    bool ok = true;
    int fd;

    if (t->entry_count == 0)
        return TRM_OK;
    fd = open(j->output, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return trm_fail(TRM_ERR_IO, "output '%s': %s", j->output, strerror(errno));
    for (; i < t->entry_count; i++) {
        st = holds(fd, j, &t->entries[i], &ok);
        if (st != TRM_OK || !ok)
            break;
        good = i + 1;
    }
    close(fd);
    if (st != TRM_OK)
        return st;
    if (good < t->synced ||
        (t->complete && t->entries[t->entry_count - 1].mark.bytes != output_bytes))
        return was_changed(j, &t->entries[t->complete ? t->entry_count - 1 : t->synced - 1],
                           output_bytes);
    if (good < t->entry_count)
        TRM_LOG(TRM_LOG_WARN, "score",
                "output '%s' is not whole behind record %" PRId64 " (a loss of power?): those "
                "after it are run again",
                j->output, good > 0 ? t->entries[good - 1].mark.records : 0);
    if (good > 0) {
        j->last = t->entries[good - 1].mark;
        j->keep = t->entries[good - 1].end;
    }
    j->complete = t->complete;
    return TRM_OK;
}

static trm_status find_start(trm_journal *j, const trm_journal_options *o)
{
    trmi_journal_text t = {0};
    trmi_journal_kind kind;
    int64_t output_bytes;
    trm_status st = TRM_OK;
    bool there;

    TRM_CHECK(output_state(j, &there, &output_bytes));
    TRM_CHECK(trmi_journal_read(j->fd, j->path, &t, &kind));
    if (kind == TRMI_JOURNAL_FOREIGN) {
        st = trm_fail(TRM_ERR_BAD_FILE,
                      "'%s' is no journal of 'trireme score', but has the name of this output's: "
                      "want it moved away, or another output",
                      j->path);
    } else if (!o->resume) {
        if (there && !o->overwrite) /* by a run that this one has waited for */
            st = trm_fail(TRM_ERR_INVALID_ARG,
                          "output '%s' exists: --resume goes on with it, "
                          "--overwrite replaces it",
                          j->output);
    } else if (there && kind == TRMI_JOURNAL_DAMAGED) {
        st = trm_fail(TRM_ERR_BAD_FILE,
                      "--resume: journal '%s' is damaged or of another version: --overwrite starts "
                      "anew",
                      j->path);
    } else if (there && kind == TRMI_JOURNAL_EMPTY && output_bytes > 0) {
        st = trm_fail(TRM_ERR_INVALID_ARG,
                      "--resume: output '%s' has no journal '%s', so what is in it cannot be "
                      "known: --overwrite starts anew",
                      j->output, j->path);
    } else if (there && kind == TRMI_JOURNAL_READ) {
        st = compare(j, &t, o);
        if (st == TRM_OK) {
            j->keep = t.header_end;
            st = find_last(j, &t, output_bytes);
        }
    } else if (kind == TRMI_JOURNAL_READ && t.entry_count > 0) {
        TRM_LOG(TRM_LOG_WARN, "score", "output '%s' is gone since: starting anew", j->output);
    }
    trmi_journal_text_fini(&t);
    return st;
}

static char *with_ending(const char *path, const char *ending)
{
    size_t n = strlen(path) + strlen(ending) + 1;
    char *text = trm_malloc(n, 1);

    if (text != NULL)
        snprintf(text, n, "%s%s", path, ending);
    return text;
}

trm_status trm_journal_open(const char *output, const trm_journal_options *options,
                            trm_journal **journal_out)
{
    trm_journal *j = trm_calloc(1, sizeof(*j));
    trm_status st;

    if (j == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "journal of '%s'", output);
    j->fd = j->output_fd = -1;
    j->sync_us = (options->sync_ms > 0 ? options->sync_ms : SYNC_MS) * 1000;
    j->output = trm_strdup(output);
    j->path = with_ending(output, ".journal");
    j->fresh_path = with_ending(output, ".journal.new");
    if (j->output == NULL || j->path == NULL || j->fresh_path == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "journal of '%s'", output);
        goto fail;
    }
    TRM_TRY(st,
            trmi_journal_header(options->fields, options->field_count, &j->header, &j->header_bytes,
                                &j->seed),
            fail);
    TRM_TRY(st, lock(j, options->wait_ms > 0 ? options->wait_ms : WAIT_MS), fail);
    TRM_TRY(st, find_start(j, options), fail);
    *journal_out = j;
    return TRM_OK;

fail:
    trm_journal_close(j);
    return st;
}

const trm_journal_mark *trm_journal_last(const trm_journal *j)
{
    return &j->last;
}

bool trm_journal_is_complete(const trm_journal *j)
{
    return j->complete;
}

/* ---- writing ---- */

static trm_status append(trm_journal *j, const char *data, size_t bytes)
{
    size_t done = 0;

    while (done < bytes) {
        ssize_t n = pwrite(j->fd, data + done, bytes - done, (off_t)(j->bytes + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) { /* what is torn is not read */
            if (n == 0)
                errno = ENOSPC;
            return io_failed(j, "write");
        }
        done += (size_t)n;
    }
    j->bytes += bytes;
    return TRM_OK;
}

static trm_status append_line(trm_journal *j, const char *text)
{
    char line[TRMI_JOURNAL_LINE];

    return append(j, line, trmi_journal_line(line, j->seed, text));
}

/* The new name in the folder, too. Not every file system can; then the next sync does. */
static void sync_folder(const trm_journal *j)
{
    char *folder = trm_path_dir(j->path);
    int fd = folder != NULL ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (fd >= 0) {
        if (fsync(fd) != 0)
            TRM_LOG(TRM_LOG_DEBUG, "score", "folder '%s': fsync: %s", folder, strerror(errno));
        close(fd);
    }
    trm_free(folder);
}

/* A new journal is made whole under another name and takes the old one's place, locked already: no
 * moment is without the old or the new one. */
static trm_status start_anew(trm_journal *j)
{
    int old = j->fd;
    trm_status st;

    j->fd = open(j->fresh_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (j->fd < 0) {
        st = io_failed(j, "make it");
        j->fd = old;
        return st;
    }
    if (flock(j->fd, LOCK_EX | LOCK_NB) != 0)
        TRM_LOG(TRM_LOG_DEBUG, "score", "journal '%s': %s", j->fresh_path, strerror(errno));
    j->bytes = 0;
    st = append(j, j->header, j->header_bytes);
    if (st == TRM_OK && (fdatasync(j->fd) != 0 || rename(j->fresh_path, j->path) != 0))
        st = io_failed(j, "make it");
    if (st != TRM_OK) {
        unlink(j->fresh_path);
        close(j->fd);
        j->fd = old;
        return st;
    }
    close(old);
    sync_folder(j);
    return TRM_OK;
}

trm_status trm_journal_start(trm_journal *j)
{
    char line[128], host[64] = "";

    if (j->keep == 0) {
        TRM_CHECK(start_anew(j));
    } else {
        if (ftruncate(j->fd, (off_t)j->keep) != 0)
            return io_failed(j, "cut it");
        j->bytes = j->keep;
    }
    j->started = true;
    j->complete = false;
    if (gethostname(host, sizeof(host) - 1) != 0)
        host[0] = '\0';
    snprintf(line, sizeof(line), "run %d %s", (int)getpid(), host);
    return append_line(j, line);
}

/* The output first: an entry that is called synced must have its bytes. */
static trm_status sync_both(trm_journal *j)
{
    if (j->output_fd < 0)
        j->output_fd = open(j->output, O_RDONLY | O_CLOEXEC);
    if (j->output_fd < 0 || fdatasync(j->output_fd) != 0)
        return trm_fail(TRM_ERR_IO, "output '%s': cannot sync it: %s", j->output, strerror(errno));
    if (j->unsynced)
        TRM_CHECK(append_line(j, "synced"));
    j->unsynced = false;
    return fdatasync(j->fd) != 0 ? io_failed(j, "sync it") : TRM_OK;
}

trm_status trm_journal_add(trm_journal *j, const trm_journal_mark *mark, int64_t from,
                           uint64_t hash)
{
    int64_t now = trm_now_us();
    char text[160];

    snprintf(text, sizeof(text), "mark %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %016" PRIx64,
             mark->records, mark->errors, from, mark->bytes, hash);
    TRM_CHECK(append_line(j, text));
    j->last = *mark;
    j->unsynced = true;
    if (now < j->next_sync_us)
        return TRM_OK;
    TRM_CHECK(sync_both(j));
    j->next_sync_us = trm_now_us() + j->sync_us;
    return TRM_OK;
}

trm_status trm_journal_complete(trm_journal *j, int64_t records)
{
    if (j->last.records != records || j->complete)
        return TRM_OK;
    TRM_CHECK(sync_both(j));
    TRM_CHECK(append_line(j, "complete"));
    j->complete = true;
    return fdatasync(j->fd) != 0 ? io_failed(j, "sync it") : TRM_OK;
}

void trm_journal_close(trm_journal *j)
{
    if (j == NULL)
        return;
    if (j->made && !j->started && j->fd >= 0 && is_current(j))
        unlink(j->path);
    if (j->output_fd >= 0)
        close(j->output_fd);
    if (j->fd >= 0)
        close(j->fd); /* and the lock is gone */
    trm_free(j->header);
    trm_free(j->output);
    trm_free(j->path);
    trm_free(j->fresh_path);
    trm_free(j);
}
