/* See rendezvous.h. */
#define _GNU_SOURCE
#include "launch/rendezvous.h"

#include "base/file.h"
#include "base/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NAME "coordinator.json"
#define LOOK_US 20000

/* The folder is ours and nobody else's: keys lie in it. */
static trm_status check_folder(const char *folder)
{
    struct stat info;

    if (stat(folder, &info) != 0 || !S_ISDIR(info.st_mode))
        return trm_fail(TRM_ERR_NOT_FOUND, "run folder '%s': there is no such folder", folder);
    if (info.st_uid != geteuid() || (info.st_mode & 077) != 0)
        return trm_fail(TRM_ERR_CONFIG,
                        "run folder '%s': others can enter it; want it yours, with mode 0700",
                        folder);
    return TRM_OK;
}

static trm_status publish(const char *folder, const trm_rendezvous *r)
{
    json_t *o = json_pack("{s:s, s:b, s:s, s:s, s:s, s:s, s:I}", "endpoint", r->endpoint,
                          "encrypted", r->encrypted, "public_key", r->keys.public_key, "secret_key",
                          r->keys.secret_key, "peer_public_key", r->keys.peer_public_key,
                          "peer_secret_key", r->keys.peer_secret_key, "pid", (json_int_t)getpid());
    char *text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
    char *path = trm_path_join(folder, FILE_NAME), *fresh = trm_path_join(folder, "." FILE_NAME);
    trm_status st = TRM_OK;
    size_t bytes = text != NULL ? strlen(text) : 0;
    int fd = -1;

    json_decref(o);
    if (text == NULL || path == NULL || fresh == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "run folder");
        goto done;
    }
    fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, bytes) != (ssize_t)bytes || rename(fresh, path) != 0)
        st = trm_fail(TRM_ERR_IO, "run folder '%s': %s", folder, strerror(errno));
done:
    if (fd >= 0)
        close(fd);
    free(text);
    trm_free(path);
    trm_free(fresh);
    return st;
}

static trm_status take_text(const json_t *o, const char *key, char *buf, size_t bytes)
{
    const char *text = json_string_value(json_object_get(o, key));

    if (text == NULL || strlen(text) >= bytes)
        return trm_fail(TRM_ERR_CONFIG, "'%s' of the run folder has no good '%s'", FILE_NAME, key);
    memcpy(buf, text, strlen(text) + 1);
    return TRM_OK;
}

static trm_status read_file(const char *path, trm_rendezvous *r)
{
    json_error_t error;
    json_t *o = json_load_file(path, 0, &error);
    trm_status st;

    memset(r, 0, sizeof(*r));
    if (o == NULL)
        return trm_fail(TRM_ERR_CONFIG, "'%s': %s", path, error.text);
    r->encrypted = json_is_true(json_object_get(o, "encrypted"));
    TRM_TRY(st, take_text(o, "endpoint", r->endpoint, sizeof(r->endpoint)), done);
    TRM_TRY(st, take_text(o, "public_key", r->keys.public_key, TRM_LINK_KEY_BYTES), done);
    TRM_TRY(st, take_text(o, "secret_key", r->keys.secret_key, TRM_LINK_KEY_BYTES), done);
    TRM_TRY(st, take_text(o, "peer_public_key", r->keys.peer_public_key, TRM_LINK_KEY_BYTES), done);
    TRM_TRY(st, take_text(o, "peer_secret_key", r->keys.peer_secret_key, TRM_LINK_KEY_BYTES), done);
done:
    json_decref(o);
    return st;
}

static trm_status wait_for(const char *folder, int64_t timeout_ms, trm_rendezvous *r)
{
    int64_t deadline_us = trm_deadline_us(timeout_ms);
    char *path = trm_path_join(folder, FILE_NAME);
    trm_status st;

    if (path == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "run folder");
    while (!trm_path_exists(path) && trm_now_us() < deadline_us)
        usleep(LOOK_US);
    if (trm_path_exists(path))
        st = read_file(path, r);
    else
        st = trm_fail(TRM_ERR_TIMEOUT, "no coordinator has come to run folder '%s' within %lld s",
                      folder, (long long)(trm_scaled_ms(timeout_ms) / 1000));
    trm_free(path);
    return st;
}

trm_status trm_rendezvous_meet(trm_job *job, const char *folder, bool publishes, int64_t timeout_ms,
                               trm_rendezvous *meeting)
{
    trm_status st = TRM_OK;

    if (job->rank == 0 && folder != NULL) {
        st = check_folder(folder);
        if (st == TRM_OK)
            st = publishes ? publish(folder, meeting) : wait_for(folder, timeout_ms, meeting);
    }
    TRM_CHECK(trm_job_agree(job, st, 2 * timeout_ms));
    return trm_job_bcast(job, meeting, sizeof(*meeting), 0, timeout_ms);
}

void trm_rendezvous_withdraw(const char *folder)
{
    char *path = folder != NULL ? trm_path_join(folder, FILE_NAME) : NULL;

    if (path != NULL)
        (void)unlink(path);
    trm_free(path);
}
