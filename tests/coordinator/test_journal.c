/* The journal: what is refused, what is gone on with, and every place where a run can have died. */
#define _GNU_SOURCE
#include "base/npy.h"
#include "base/wait.h"
#include "coordinator/sink.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64];

static void setup(void)
{
    strcpy(dir, "/tmp/trireme-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void teardown(void)
{
    char command[192];

    snprintf(command, sizeof(command), "chmod -R u+w %s && rm -rf %s", dir, dir);
    ck_assert_int_eq(system(command), 0); /* NOLINT(cert-env33-c): a folder of our own */
}

static const char *at(const char *name)
{
    static char paths[8][128];
    static int next;
    char *p = paths[next++ % 8];

    snprintf(p, sizeof(paths[0]), "%s/%s", dir, name);
    return p;
}

static void put(const char *name, const char *data, size_t bytes)
{
    FILE *f = fopen(at(name), "w");

    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, bytes, f), bytes);
    ck_assert_int_eq(fclose(f), 0);
}

/* The whole file, with a zero behind it; free. */
static char *get(const char *name, size_t *bytes_out)
{
    FILE *f = fopen(at(name), "r");
    char *text = malloc(1 << 20);

    ck_assert_ptr_nonnull(f);
    ck_assert_ptr_nonnull(text);
    *bytes_out = fread(text, 1, (1 << 20) - 1, f);
    text[*bytes_out] = '\0';
    fclose(f);
    return text;
}

static int64_t size_of(const char *name)
{
    struct stat info;

    return stat(at(name), &info) == 0 ? (int64_t)info.st_size : -1;
}

static trm_journal_field fields[] = {
    {"input", "360 images 12"}, {"model", "m.onnx 34"}, {"dtype", "fp32"}, {"content", "jsonl"}};
#define FIELDS 4

static trm_journal_options options(bool resume, bool overwrite)
{
    return (trm_journal_options){.fields = fields,
                                 .field_count = FIELDS,
                                 .resume = resume,
                                 .overwrite = overwrite,
                                 .wait_ms = 200};
}

static trm_status open_journal(const char *name, bool resume, bool overwrite, trm_journal **j)
{
    trm_journal_options o = options(resume, overwrite);

    *j = NULL;
    return trm_journal_open(at(name), &o, j);
}

/* ---- outputs through sinks: record i, whatever run writes it, is the same ---- */

static float row[3];
static const trm_wire_tensor outputs[] = {
    {.name = "y", .tensor = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {3}, .data = row}}};

/* Writes records [s->rows, to); every 5th is a failed one. Flushes behind every `every`th. */
static void write_records(trm_sink *s, int64_t to, int64_t every)
{
    for (int64_t i = s->rows; i < to; i++) {
        char name[32];
        trm_taken t = {.name = name};

        snprintf(name, sizeof(name), "%" PRId64 ".png", i);
        for (int k = 0; k < 3; k++)
            row[k] = (float)i + (float)k / 4;
        t.result = (trm_wire_result){.id = (uint64_t)i, .message = ""};
        if (i % 5 == 4) {
            t.result.status = TRM_ERR_BAD_FILE;
            t.result.message = "no image";
        } else {
            t.result.outputs = outputs;
            t.result.output_count = 1;
        }
        ck_assert_msg(trm_sink_write(s, &t) == TRM_OK, "%s", trm_message());
        if (every > 0 && (i + 1) % every == 0)
            ck_assert_msg(trm_sink_flush(s) == TRM_OK, "%s", trm_message());
    }
}

/* One run: opens, goes on, writes up to `to`, and ends as told. Returns where it went on. */
static int64_t run(const char *name, bool resume, int64_t to, int64_t every, bool complete)
{
    trm_sink_options o = {
        .resume = resume, .images = true, .columns = 3, .column_name = "y", .output = "y"};
    trm_journal *j = NULL;
    trm_sink *s = NULL;
    int64_t from;

    ck_assert_msg(open_journal(name, resume, false, &j) == TRM_OK, "%s", trm_message());
    ck_assert_msg(trm_journal_start(j) == TRM_OK, "%s", trm_message());
    ck_assert_msg(trm_sink_open(at(name), &o, j, &s) == TRM_OK, "%s", trm_message());
    from = s->rows;
    ck_assert_int_eq(s->errors, from / 5);
    write_records(s, to, every);
    ck_assert_int_eq(s->errors, to / 5);
    ck_assert_msg(trm_sink_close(s) == TRM_OK, "%s", trm_message());
    ck_assert_int_eq(trm_journal_last(j)->records, to);
    ck_assert_int_eq(trm_journal_last(j)->bytes, size_of(name));
    if (complete)
        ck_assert_int_eq(trm_journal_complete(j, to), TRM_OK);
    trm_journal_close(j);
    return from;
}

static const char *const kinds[] = {"o.jsonl", "o.csv", "o.npy"};

static const char *journal_of(const char *name)
{
    static char path[64];

    snprintf(path, sizeof(path), "%s.journal", name);
    return path;
}

/* ---- cases ---- */

START_TEST(round_trip)
{
    const char *name = kinds[_i];
    trm_journal *j = NULL;
    size_t once, parts;
    char *a, *b;

    ck_assert_int_eq(run(name, false, 40, 7, true), 0);
    a = get(name, &once);
    ck_assert_int_eq(unlink(at(name)), 0);
    ck_assert_int_eq(run(name, false, 9, 4, false), 0);
    ck_assert_int_eq(run(name, true, 9, 0, false), 9); /* nothing new */
    ck_assert_int_eq(run(name, true, 23, 5, false), 9);
    ck_assert_int_eq(run(name, true, 40, 0, true), 23);
    b = get(name, &parts);
    ck_assert_uint_eq(once, parts);
    ck_assert(memcmp(a, b, once) == 0);
    free(a);
    free(b);
    /* complete: known, and refused without resume or overwrite */
    ck_assert_int_eq(open_journal(name, true, false, &j), TRM_OK);
    ck_assert(trm_journal_is_complete(j));
    ck_assert_int_eq(trm_journal_last(j)->records, 40);
    ck_assert_int_eq(trm_journal_last(j)->errors, 8);
    trm_journal_close(j);
    ck_assert_int_eq(open_journal(name, false, false, &j), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "--resume"));
    ck_assert_int_eq(open_journal(name, false, true, &j), TRM_OK);
    ck_assert_int_eq(trm_journal_last(j)->records, 0);
    trm_journal_close(j);
    ck_assert_int_gt(size_of(name), 0); /* not started: as it was */
    ck_assert_int_gt(size_of(journal_of(name)), 0);
}
END_TEST

/* A run killed at any moment leaves a beginning of its journal, cut at any byte, and an output that
 * is at least as long as that says: here as long as it could be, and torn. */
START_TEST(cut_at_every_byte)
{
    const char *name = kinds[_i];
    size_t whole, journal, header, n;
    char *a, *log, *b;
    int64_t before = -1;

    run(name, false, 12, 3, false);
    a = get(name, &whole);
    log = get(journal_of(name), &journal);
    header = (size_t)(strstr(log, "\nbegin ") - log);
    header += strcspn(log + header + 1, "\n") + 2;
    ck_assert_uint_gt(journal, header);
    for (size_t cut = header; cut <= journal; cut++) {
        int64_t from;

        put(journal_of(name), log, cut);
        put(name, a, whole);
        from = run(name, true, 12, 3, cut % 2 == 0);
        ck_assert_msg(from >= before && from % 3 == 0, "cut at %zu: goes on at %" PRId64, cut,
                      from);
        before = from;
        b = get(name, &n);
        ck_assert_msg(n == whole && memcmp(a, b, n) == 0, "cut at %zu", cut);
        free(b);
    }
    ck_assert_int_eq(before, 12);
    /* a header that is not whole was never ours to go on with; over it, only anew */
    for (size_t cut = 1; cut < header; cut += 7) {
        trm_journal *j;

        put(journal_of(name), log, cut);
        put(name, a, whole);
        ck_assert_int_eq(open_journal(name, true, false, &j), TRM_ERR_BAD_FILE);
        if (cut < strlen("trireme journal "))
            continue;
        ck_assert_int_eq(open_journal(name, false, true, &j), TRM_OK);
        trm_journal_close(j);
    }
    free(a);
    free(log);
}
END_TEST

/* Any byte of an entry flipped: it and what follows do not count. */
START_TEST(flipped_bytes)
{
    size_t whole, journal, n;
    char *a, *log, *b;

    run("o.jsonl", false, 12, 3, false);
    a = get("o.jsonl", &whole);
    log = get("o.jsonl.journal", &journal);
    for (size_t i = (size_t)(strstr(log, "\nrun ") + 1 - log); i < journal; i++) {
        log[i] ^= 1;
        put("o.jsonl.journal", log, journal);
        log[i] ^= 1;
        put("o.jsonl", a, whole);
        (void)run("o.jsonl", true, 12, 3, true);
        b = get("o.jsonl", &n);
        ck_assert_msg(n == whole && memcmp(a, b, n) == 0, "byte %zu", i);
        free(b);
    }
    free(a);
    free(log);
}
END_TEST

/* Power: entries are there, some of their bytes are not. What was synced must hold. */
START_TEST(lost_bytes)
{
    trm_journal *j = NULL;
    size_t whole, journal, n;
    int64_t first = 0;
    char *a, *log, *b, *torn;

    run("o.jsonl", false, 12, 3, false); /* the entry of the first 3 records is synced, no other */
    a = get("o.jsonl", &whole);
    log = get("o.jsonl.journal", &journal);
    ck_assert_int_eq(sscanf(strstr(log, "\nmark "), "\nmark 3 0 0 %" SCNd64, &first), 1);
    torn = malloc(whole);
    for (size_t keep = (size_t)first; keep < whole; keep += 11) { /* shorter, then with a hole */
        for (int hole = 0; hole < 2; hole++) {
            int64_t from;

            memcpy(torn, a, whole);
            memset(torn + keep, 0, whole - keep);
            put("o.jsonl.journal", log, journal);
            put("o.jsonl", torn, hole ? whole : keep);
            from = run("o.jsonl", true, 12, 3, true);
            ck_assert(from >= 3 && from < 12);
            b = get("o.jsonl", &n);
            ck_assert(n == whole && memcmp(a, b, n) == 0);
            free(b);
        }
    }
    for (size_t keep = 0; keep < (size_t)first; keep += 11) { /* somebody has changed it */
        put("o.jsonl.journal", log, journal);
        put("o.jsonl", a, keep);
        ck_assert_int_eq(open_journal("o.jsonl", true, false, &j), TRM_ERR_INVALID_ARG);
        ck_assert_ptr_nonnull(strstr(trm_message(), "was changed"));
    }
    free(torn);
    free(a);
    free(log);
    /* complete and longer, shorter or other at its end */
    unlink(at("o.jsonl"));
    run("o.jsonl", false, 12, 3, true);
    a = get("o.jsonl", &whole);
    for (int i = 0; i < 3; i++) {
        put("o.jsonl", a, i == 0 ? whole - 1 : whole);
        if (i > 0) {
            FILE *f = fopen(at("o.jsonl"), "r+");

            ck_assert_ptr_nonnull(f);
            fseek(f, i == 1 ? 0 : -3, SEEK_END);
            fputs("x", f);
            fclose(f);
        }
        ck_assert_int_eq(open_journal("o.jsonl", true, false, &j), TRM_ERR_INVALID_ARG);
        ck_assert_ptr_nonnull(strstr(trm_message(), "was changed"));
    }
    put("o.jsonl", a, whole);
    ck_assert_int_eq(open_journal("o.jsonl", true, false, &j), TRM_OK);
    trm_journal_close(j);
    free(a);
}
END_TEST

/* The header of a .npy says more rows than there are, or fewer: the journal decides. */
START_TEST(array_header)
{
    size_t whole, journal, n;
    char *a, *log, *b;

    run("o.npy", false, 12, 3, false);
    a = get("o.npy", &whole);
    log = get("o.npy.journal", &journal);
    for (int digit = 0; digit < 10; digit++) {
        char *shape = strstr(a + 10, "(12,");

        ck_assert_ptr_nonnull(shape);
        shape[2] = (char)('0' + digit);
        put("o.npy.journal", log, journal);
        put("o.npy", a, whole);
        shape[2] = '2';
        ck_assert_int_eq(run("o.npy", true, 12, 3, true), 12);
        b = get("o.npy", &n);
        ck_assert(n == whole && memcmp(a, b, n) == 0);
        free(b);
    }
    free(a);
    free(log);
}
END_TEST

/* All first records fail: their rows are written when the first output tells their shape. */
START_TEST(failed_before_the_first_row)
{
    trm_sink_options o = {.columns = 3, .output = "y"};
    char name[] = "x";
    trm_taken t = {.name = name};
    trm_journal *j = NULL;
    trm_sink *s = NULL;

    t.result = (trm_wire_result){.status = TRM_ERR_BAD_FILE, .message = "no image"};
    ck_assert_int_eq(open_journal("o.npy", false, false, &j), TRM_OK);
    ck_assert_int_eq(trm_journal_start(j), TRM_OK);
    ck_assert_int_eq(trm_sink_open(at("o.npy"), &o, j, &s), TRM_OK);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(trm_sink_write(s, &t), TRM_OK);
    ck_assert_int_eq(trm_sink_flush(s), TRM_OK);
    ck_assert_int_eq(trm_journal_last(j)->records, 0); /* nothing of them is in the file */
    t.result = (trm_wire_result){.outputs = outputs, .output_count = 1, .message = ""};
    ck_assert_int_eq(trm_sink_write(s, &t), TRM_OK);
    ck_assert_int_eq(trm_sink_close(s), TRM_OK);
    ck_assert_int_eq(trm_journal_last(j)->records, 4);
    ck_assert_int_eq(trm_journal_last(j)->errors, 3);
    ck_assert_int_eq(trm_journal_last(j)->bytes, 256 + 4 * 12);
    trm_journal_close(j);
}
END_TEST

START_TEST(differing_header)
{
    trm_journal_field was = fields[_i];
    trm_journal *j = NULL;
    size_t whole, n;
    char *a, *b, want[64], other[400];

    run("o.jsonl", false, 12, 3, _i % 2 == 0);
    a = get("o.jsonl.journal", &whole);
    memset(other, 'x', sizeof(other)); /* longer than is kept, with a line end in it */
    other[0] = '\n';
    other[sizeof(other) - 1] = '\0';
    for (int i = 0; i < 2; i++) {
        fields[_i].text = i == 0 ? "another" : other;
        ck_assert_int_eq(open_journal("o.jsonl", true, false, &j), TRM_ERR_INVALID_ARG);
        snprintf(want, sizeof(want), "the %s differs: ", was.name);
        ck_assert_msg(strstr(trm_message(), want) != NULL, "%s", trm_message());
        snprintf(want, sizeof(want), "has %s, now ", was.text);
        ck_assert_msg(strstr(trm_message(), want) != NULL, "%s", trm_message());
    }
    b = get("o.jsonl.journal", &n);
    ck_assert(n == whole && memcmp(a, b, n) == 0); /* untouched */
    free(a);
    free(b);
    /* what was cut and cleaned is found again as equal */
    unlink(at("o.jsonl"));
    run("o.jsonl", false, 12, 3, false);
    ck_assert_int_eq(run("o.jsonl", true, 15, 3, false), 12);
    fields[_i] = was;
    /* a field more or less */
    for (int count = FIELDS - 1; count <= FIELDS; count++) {
        trm_journal_options o = options(true, false);

        o.field_count = count;
        ck_assert_int_eq(trm_journal_open(at("o.jsonl"), &o, &j), TRM_ERR_INVALID_ARG);
    }
}
END_TEST

START_TEST(foreign_files)
{
    static const char *const texts[] = {"mine\n", "{\"a\": 1}\n", "trireme", "\n",
                                        "\x7f"
                                        "ELF"};
    trm_journal *j = NULL;
    size_t n;
    char *a;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        for (int how = 0; how < 4; how++) { /* nobody's file is replaced, whatever was asked for */
            unlink(at("o.csv"));
            if (how > 1)
                put("o.csv", "a\n", 2);
            put("o.csv.journal", texts[i], strlen(texts[i]));
            ck_assert_int_eq(open_journal("o.csv", how % 2 == 0, how == 3, &j), TRM_ERR_BAD_FILE);
            ck_assert_ptr_nonnull(strstr(trm_message(), "o.csv.journal"));
            a = get("o.csv.journal", &n);
            ck_assert_str_eq(a, texts[i]);
            free(a);
        }
    /* no journal at all, or one that a crash left empty */
    unlink(at("o.csv.journal"));
    put("o.csv", "a\n", 2);
    ck_assert_int_eq(open_journal("o.csv", true, false, &j), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "has no journal"));
    ck_assert_int_eq(size_of("o.csv.journal"), -1); /* none is left either */
    put("o.csv.journal", "", 0);
    ck_assert_int_eq(open_journal("o.csv", true, false, &j), TRM_ERR_INVALID_ARG);
    put("o.csv", "", 0);
    ck_assert_int_eq(run("o.csv", true, 5, 0, true), 0);
    /* an output that is gone is begun anew */
    unlink(at("o.csv"));
    ck_assert_int_eq(run("o.csv", true, 5, 0, true), 0);
    unlink(at("o.csv"));
    ck_assert_int_eq(run("o.csv", false, 5, 0, true), 0);
    ck_assert_int_eq(mkdir(at("d.csv.journal"), 0777), 0);
    ck_assert_int_eq(open_journal("d.csv", false, false, &j), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(mkfifo(at("f.csv.journal"), 0666), 0);
    ck_assert_int_ne(open_journal("f.csv", false, false, &j), TRM_OK);
}
END_TEST

/* A crash inside trm_journal_start with --overwrite: the old or the new journal, whole. */
START_TEST(overwriting)
{
    trm_journal_options o = options(false, true);
    trm_journal_field was = fields[2];
    trm_journal *j = NULL;

    run("o.jsonl", false, 12, 3, true);
    fields[2].text = "bf16";
    ck_assert_int_eq(trm_journal_open(at("o.jsonl"), &o, &j), TRM_OK);
    ck_assert_int_eq(trm_journal_start(j), TRM_OK);
    trm_journal_close(j); /* died before the old output was emptied */
    ck_assert_int_gt(size_of("o.jsonl"), 0);
    ck_assert_int_eq(size_of("o.jsonl.journal.new"), -1);
    ck_assert_int_eq(run("o.jsonl", true, 10, 3, true), 0);
    fields[2] = was;
    put("o.jsonl.journal.new", "left by a crash", 15);
    unlink(at("o.jsonl"));
    ck_assert_int_eq(run("o.jsonl", false, 10, 3, true), 0);
}
END_TEST

/* A child that opens the journal, says so, and holds it until it is killed or told to end. */
static pid_t hold(int *say, int *tell)
{
    int up[2], down[2];
    char c = 0;
    pid_t pid;

    ck_assert_int_eq(pipe(up), 0);
    ck_assert_int_eq(pipe(down), 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        trm_journal *j = NULL;

        close(down[1]);
        if (open_journal("o.jsonl", true, false, &j) != TRM_OK || trm_journal_start(j) != TRM_OK ||
            write(up[1], "x", 1) != 1)
            _exit(1);
        (void)!read(down[0], &c, 1); /* ends with the parent, too */
        usleep(300000);
        trm_journal_close(j);
        _exit(0);
    }
    close(up[1]);
    close(down[0]);
    ck_assert_int_eq(read(up[0], &c, 1), 1);
    *say = up[0];
    *tell = down[1];
    return pid;
}

START_TEST(locked)
{
    trm_journal_options o = options(true, false), fresh = options(false, true);
    trm_journal *j = NULL;
    char want[64];
    int say, tell, status;
    pid_t pid;

    run("o.jsonl", false, 6, 3, false);
    pid = hold(&say, &tell);
    ck_assert_int_eq(trm_journal_open(at("o.jsonl"), &o, &j), TRM_ERR_TIMEOUT);
    snprintf(want, sizeof(want), "process %d on ", (int)pid);
    ck_assert_msg(strstr(trm_message(), want) != NULL, "%s", trm_message());
    ck_assert_int_eq(trm_journal_open(at("o.jsonl"), &fresh, &j), TRM_ERR_TIMEOUT);
    /* it ends while we wait */
    o.wait_ms = 30000;
    ck_assert_int_eq(write(tell, "x", 1), 1);
    ck_assert_msg(trm_journal_open(at("o.jsonl"), &o, &j) == TRM_OK, "%s", trm_message());
    ck_assert_int_eq(trm_journal_last(j)->records, 6);
    trm_journal_close(j);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    close(say);
    close(tell);
    /* it is killed */
    pid = hold(&say, &tell);
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(trm_journal_open(at("o.jsonl"), &o, &j), TRM_OK);
    trm_journal_close(j);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    close(say);
    close(tell);
}
END_TEST

/* Two that wait for one that starts anew: the file they wait on is replaced under them. */
START_TEST(replaced_while_waiting)
{
    trm_journal_options o = options(true, false);
    trm_journal *j = NULL;
    pid_t pids[2];

    run("o.jsonl", false, 6, 3, false);
    ck_assert_int_eq(open_journal("o.jsonl", false, true, &j), TRM_OK);
    for (int i = 0; i < 2; i++) {
        pids[i] = fork();
        if (pids[i] == 0) { /* each wants to be alone in here */
            trm_journal *mine = NULL;
            int fd;

            trm_journal_close(j); /* a fork shares the lock */
            o.wait_ms = 30000;
            if (trm_journal_open(at("o.jsonl"), &o, &mine) != TRM_OK)
                _exit(1);
            fd = open(at("inside"), O_CREAT | O_EXCL | O_WRONLY, 0666);
            if (fd < 0)
                _exit(2);
            usleep(100000);
            unlink(at("inside"));
            trm_journal_close(mine);
            _exit(0);
        }
    }
    usleep(150000); /* they have opened it by now, or come later: right either way */
    ck_assert_int_eq(trm_journal_start(j), TRM_OK);
    usleep(150000);
    ck_assert_int_eq(access(at("inside"), F_OK), -1); /* still ours */
    trm_journal_close(j);
    for (int i = 0; i < 2; i++) {
        int status = -1;

        ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
        ck_assert_int_eq(status, 0);
    }
}
END_TEST

START_TEST(read_only_folder)
{
    trm_journal *j = NULL;

    if (geteuid() == 0) { /* whom rights do not stop; /proc stops him too */
        trm_journal_options o = options(false, false);

        ck_assert_int_eq(trm_journal_open("/proc/o.jsonl", &o, &j), TRM_ERR_INVALID_ARG);
    } else {
        ck_assert_int_eq(chmod(dir, 0555), 0);
        ck_assert_int_eq(open_journal("o.jsonl", false, false, &j), TRM_ERR_INVALID_ARG);
    }
    ck_assert_ptr_nonnull(strstr(trm_message(), "cannot be written"));
    ck_assert_ptr_nonnull(strstr(trm_message(), "o.jsonl.journal"));
}
END_TEST

/* A disk of any size: the run fails, and with room it goes on to the same bytes. */
START_TEST(full_disk)
{
    const char *name = kinds[_i];
    struct rlimit none = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
    size_t whole, n;
    int failed = 0;
    char *a, *b;

    signal(SIGXFSZ, SIG_IGN);
    run(name, false, 40, 2, true);
    a = get(name, &whole);
    for (rlim_t room = 0; room < 2000; room += 37) {
        struct rlimit limit = {.rlim_cur = room, .rlim_max = RLIM_INFINITY};
        trm_sink_options o = {.overwrite = true, .columns = 3, .column_name = "y", .images = true};
        trm_journal *j = NULL;
        trm_sink *s = NULL;
        trm_status st;

        ck_assert_int_eq(open_journal(name, false, true, &j), TRM_OK);
        /* no assertion under the limit: Check notes each one in a file of its own */
        (void)setrlimit(RLIMIT_FSIZE, &limit);
        st = trm_journal_start(j);
        if (st == TRM_OK)
            st = trm_sink_open(at(name), &o, j, &s);
        for (int64_t i = 0; i < 40 && st == TRM_OK; i++) {
            char record[32];
            trm_taken t = {.name = record};

            snprintf(record, sizeof(record), "%" PRId64 ".png", i);
            for (int k = 0; k < 3; k++)
                row[k] = (float)i + (float)k / 4;
            t.result = (trm_wire_result){.id = (uint64_t)i, .message = ""};
            t.result.status = i % 5 == 4 ? TRM_ERR_BAD_FILE : TRM_OK;
            t.result.message = i % 5 == 4 ? "no image" : "";
            t.result.outputs = i % 5 == 4 ? NULL : outputs;
            t.result.output_count = i % 5 == 4 ? 0 : 1;
            st = trm_sink_write(s, &t);
            if (st == TRM_OK)
                st = trm_sink_flush(s);
        }
        if (s != NULL && trm_sink_close(s) != TRM_OK && st == TRM_OK)
            st = TRM_ERR_IO;
        (void)setrlimit(RLIMIT_FSIZE, &none);
        trm_journal_close(j);
        failed += st != TRM_OK;
        /* where not even the header had room the old journal stands, and the old output with it */
        (void)run(name, true, 40, 2, st != TRM_OK);
        b = get(name, &n);
        ck_assert_msg(n == whole && memcmp(a, b, n) == 0, "%s with room for %d bytes", name,
                      (int)room);
        free(b);
    }
    ck_assert_int_gt(failed, 10);
    free(a);
}
END_TEST

/* Memory that ends at any call: an error, and what was there stays. */
START_TEST(no_memory)
{
    trm_journal *j = NULL;
    trm_status st = TRM_ERR_NO_MEMORY;
    int64_t live = trm_alloc_live();
    size_t whole, n;
    char *a, *b;

    run("o.jsonl", false, 6, 3, false);
    a = get("o.jsonl.journal", &whole);
    for (int64_t i = 0; st == TRM_ERR_NO_MEMORY; i++) {
        ck_assert_int_lt(i, 100);
        trm_alloc_fail_after(i);
        st = open_journal("o.jsonl", true, false, &j);
        trm_alloc_fail_after(-1);
    }
    ck_assert_int_eq(st, TRM_OK);
    trm_journal_close(j);
    ck_assert_int_eq(trm_alloc_live(), live);
    b = get("o.jsonl.journal", &n);
    ck_assert(n == whole && memcmp(a, b, n) == 0);
    free(a);
    free(b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("journal");
    TCase *tc = tcase_create("journal");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, round_trip, 0, 3);
    tcase_add_loop_test(tc, cut_at_every_byte, 0, 3);
    tcase_add_test(tc, flipped_bytes);
    tcase_add_test(tc, lost_bytes);
    tcase_add_test(tc, array_header);
    tcase_add_test(tc, failed_before_the_first_row);
    tcase_add_loop_test(tc, differing_header, 0, FIELDS);
    tcase_add_test(tc, foreign_files);
    tcase_add_test(tc, overwriting);
    tcase_add_test(tc, locked);
    tcase_add_test(tc, replaced_while_waiting);
    tcase_add_test(tc, read_only_folder);
    tcase_add_loop_test(tc, full_disk, 0, 3);
    tcase_add_test(tc, no_memory);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
