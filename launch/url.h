/* A server that answers GET with JSON: what a client command asks again and again. One owner; uses
 * libcurl and keeps the connection. */
#ifndef TRM_LAUNCH_URL_H
#define TRM_LAUNCH_URL_H

#include "base/memory.h"

#include <jansson.h>

typedef struct trm_url trm_url;
/* `base`: "http://HOST:PORT[/PATH]", https too; without a scheme http. `key` NULL: none.
 * INVALID_ARG: another scheme, control characters. */
TRM_MUST_USE trm_status trm_url_open(const char *base, const char *key, bool insecure,
                                     trm_url **url_out);
void trm_url_close(trm_url *u); /* takes NULL */
const char *trm_url_base(const trm_url *u);

/* GET base + path. COMM: nobody answers, or not within 5 s (scaled), or with an error of the
 * server; INVALID_ARG: a key is wanted or another one, or it is no Trireme; CANCELLED: *stop has
 * become non-zero, or `wake_fd` (-1: none) has become readable, meanwhile. */
TRM_MUST_USE trm_status trm_url_get(trm_url *u, const char *path, const volatile int *stop,
                                    int wake_fd, json_t **json_out);

#endif
