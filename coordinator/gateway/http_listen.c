/* What the server starts with: its options, the listening socket, the certificate. The last two are
 * opened and checked by ourselves, so that what is wrong can be said clearly. */
#include "coordinator/gateway/http_impl.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    HOST_MAX = 256,
    BACKLOG = 1024,
    PEM_MAX = 1 << 20,
    SPARE_FILES = 64 /* descriptors that others of the process need */
};

trm_status trmi_http_options_copy(trm_http *h, const trm_http_options *o)
{
    const char **texts[] = {&h->o.listen,   &h->o.keys_path,  &h->o.cert_path,
                            &h->o.key_path, &h->o.access_log, &h->o.cors_origin};
    struct rlimit files;
    bool ok = true;

    h->o = *o;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        const char *theirs = *texts[i];

        *texts[i] = ok && theirs != NULL ? trm_strdup(theirs) : NULL;
        ok = ok && (theirs == NULL || *texts[i] != NULL);
    }
    if (!ok)
        return trm_fail(TRM_ERR_NO_MEMORY, "http: options");
    if (o->listen == NULL || o->routes == NULL || o->route_count < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "http: no address or no routes");
    if (o->requests_per_key < 0 || o->connections < 0 || o->idle_ms < 0 || o->write_buffer < 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "http: a negative limit");
    h->o.body_max = o->body_max > 0 ? o->body_max : (size_t)32 << 20;
    h->o.upload_max = o->upload_max > 0 ? o->upload_max : (size_t)1 << 30;
    h->o.requests_per_key = o->requests_per_key > 0 ? o->requests_per_key : 64;
    h->o.connections = o->connections > 0 ? o->connections : 1024;
    h->o.idle_ms = o->idle_ms > 0 ? o->idle_ms : 60000;
    h->o.write_buffer = o->write_buffer > 0 ? o->write_buffer : (int64_t)8 << 20;
    if (h->o.connections > 1 << 20 || h->o.idle_ms > (int64_t)1 << 31)
        return trm_fail(TRM_ERR_INVALID_ARG, "http: over 2^20 connections or 2^31 ms idle");
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 &&
        (rlim_t)h->o.connections + SPARE_FILES > files.rlim_cur) {
        h->o.connections =
            files.rlim_cur > 2 * SPARE_FILES ? (int)files.rlim_cur - SPARE_FILES : SPARE_FILES;
        TRM_LOG(TRM_LOG_INFO, "http", "%d connections at most: the limit of open files is %llu",
                h->o.connections, (unsigned long long)files.rlim_cur);
    }
    return TRM_OK;
}

void trmi_http_options_free(trm_http *h)
{
    trm_free((void *)(uintptr_t)h->o.listen);
    trm_free((void *)(uintptr_t)h->o.keys_path);
    trm_free((void *)(uintptr_t)h->o.cert_path);
    trm_free((void *)(uintptr_t)h->o.key_path);
    trm_free((void *)(uintptr_t)h->o.access_log);
    trm_free((void *)(uintptr_t)h->o.cors_origin);
}

void trmi_http_peer_text(const struct sockaddr *address, char *out, size_t bytes)
{
    const struct sockaddr_in6 *six;

    out[0] = '\0';
    if (address == NULL)
        return;
    if (address->sa_family == AF_INET) {
        (void)inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)address)->sin_addr,
                        out, (socklen_t)bytes);
    } else if (address->sa_family == AF_INET6) {
        six = (const struct sockaddr_in6 *)(const void *)address;
        if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
            (void)inet_ntop(AF_INET, &six->sin6_addr.s6_addr[12], out, (socklen_t)bytes);
        else
            (void)inet_ntop(AF_INET6, &six->sin6_addr, out, (socklen_t)bytes);
    }
}

/* "HOST:PORT", "[HOST]:PORT", ":PORT" */
static trm_status address_parse(const char *text, char *host, const char **port_out)
{
    const char *colon = strrchr(text, ':'), *from = text, *end = NULL;
    char *stop = NULL;
    long port;

    if (colon == NULL)
        return trm_fail(TRM_ERR_CONFIG, "listen: '%s' is not HOST:PORT", text);
    end = colon;
    if (*text == '[') {
        if (colon == text || colon[-1] != ']')
            return trm_fail(TRM_ERR_CONFIG, "listen: '%s' is not [HOST]:PORT", text);
        from++;
        end--;
    } else if (memchr(text, ':', (size_t)(colon - text)) != NULL) {
        return trm_fail(TRM_ERR_CONFIG, "listen: '%s': write an IPv6 address as [ADDRESS]:PORT",
                        text);
    }
    errno = 0;
    port = strtol(colon + 1, &stop, 10);
    if (colon[1] < '0' || colon[1] > '9' || *stop != '\0' || errno != 0 || port > 65535)
        return trm_fail(TRM_ERR_CONFIG, "listen: '%s' has no port of 0 to 65535", text);
    if (end - from >= HOST_MAX)
        return trm_fail(TRM_ERR_CONFIG, "listen: a host of over %d bytes", HOST_MAX - 1);
    memcpy(host, from, (size_t)(end - from));
    host[end - from] = '\0';
    if (host[0] == '\0')
        memcpy(host, "127.0.0.1", sizeof("127.0.0.1"));
    else if (strcmp(host, "*") == 0)
        memcpy(host, "0.0.0.0", sizeof("0.0.0.0"));
    *port_out = colon + 1;
    return TRM_OK;
}

static int bind_one(const struct addrinfo *a)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1, zero = 0, why;

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* accepted ones inherit */
    if (a->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    why = errno;
    (void)close(fd);
    errno = why;
    return -1;
}

static bool is_loopback(const struct sockaddr_storage *s)
{
    if (s->ss_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)(const void *)s)->sin_addr.s_addr) >> 24) == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)s)->sin6_addr);
}

trm_status trmi_http_listen(trm_http *h)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    struct sockaddr_storage s = {0};
    socklen_t bytes = sizeof(s);
    char host[HOST_MAX], shown[TRMI_HTTP_PEER_MAX];
    const char *port = "", *wild;
    int rc, why = 0;

    TRM_CHECK(address_parse(h->o.listen, host, &port));
    rc = getaddrinfo(host, port, &hints, &found);
    if (rc != 0)
        return trm_fail(TRM_ERR_CONFIG, "listen: '%s': %s", host, gai_strerror(rc));
    for (const struct addrinfo *a = found; a != NULL && h->listen_fd < 0; a = a->ai_next) {
        h->listen_fd = bind_one(a);
        why = errno;
    }
    freeaddrinfo(found);
    if (h->listen_fd < 0)
        return why == EADDRINUSE
                   ? trm_fail(TRM_ERR_IO, "listen: port %s of %s is taken by another process", port,
                              host)
                   : trm_fail(TRM_ERR_IO, "listen: %s port %s: %s", host, port, strerror(why));
    if (getsockname(h->listen_fd, (struct sockaddr *)&s, &bytes) != 0)
        return trm_fail(TRM_ERR_IO, "listen: %s", strerror(errno));
    h->port =
        ntohs(s.ss_family == AF_INET ? ((const struct sockaddr_in *)(const void *)&s)->sin_port
                                     : ((const struct sockaddr_in6 *)(const void *)&s)->sin6_port);
    trmi_http_peer_text((const struct sockaddr *)&s, shown, sizeof(shown));
    wild = strcmp(shown, "0.0.0.0") == 0 ? "127.0.0.1" : strcmp(shown, "::") == 0 ? "::1" : shown;
    snprintf(h->url, sizeof(h->url), strchr(wild, ':') != NULL ? "%s://[%s]:%d" : "%s://%s:%d",
             h->cert != NULL ? "https" : "http", wild, h->port);
    if (!is_loopback(&s) && h->keys == NULL)
        TRM_LOG(TRM_LOG_WARN, "http",
                "listening on %s without API keys: whoever reaches this port may use it", shown);
    else if (!is_loopback(&s) && h->cert == NULL)
        TRM_LOG(TRM_LOG_WARN, "http", "listening on %s without TLS: keys and texts can be read",
                shown);
    return TRM_OK;
}

/* ---- TLS ---- */
static trm_status read_pem(const char *path, const char *what, char **text_out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat info;
    char *text = NULL;
    size_t at = 0;
    ssize_t n = 1;

    if (fd < 0)
        return trm_fail(TRM_ERR_CONFIG, "TLS %s '%s': %s", what, path, strerror(errno));
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size <= PEM_MAX)
        text = trm_malloc((size_t)info.st_size + 1, 1);
    while (text != NULL && at < (size_t)info.st_size && n > 0) {
        n = read(fd, text + at, (size_t)info.st_size - at);
        at += n > 0 ? (size_t)n : 0;
    }
    (void)close(fd);
    if (text == NULL || n < 0) {
        trm_free(text);
        return trm_fail(TRM_ERR_CONFIG, "TLS %s '%s' is no ordinary file of at most 1 MiB", what,
                        path);
    }
    text[at] = '\0';
    if (strcmp(what, "key") == 0 && (info.st_mode & 077) != 0)
        TRM_LOG(TRM_LOG_WARN, "http", "TLS key '%s' has mode %04o: others may read it", path,
                (unsigned)info.st_mode & 07777);
    *text_out = text;
    return TRM_OK;
}

static void warn_expired(const gnutls_datum_t *cert, const char *path)
{
    gnutls_x509_crt_t *list = NULL;
    unsigned count = 0;

    if (gnutls_x509_crt_list_import2(&list, &count, cert, GNUTLS_X509_FMT_PEM, 0) < 0)
        return;
    if (count > 0 && gnutls_x509_crt_get_expiration_time(list[0]) < time(NULL))
        TRM_LOG(TRM_LOG_WARN, "http", "TLS certificate '%s' has expired", path);
    for (unsigned i = 0; i < count; i++)
        gnutls_x509_crt_deinit(list[i]);
    gnutls_free(list);
}

trm_status trmi_http_tls_load(trm_http *h)
{
    gnutls_certificate_credentials_t both = NULL;
    gnutls_datum_t cert, key;
    int rc;

    if (h->o.cert_path == NULL && h->o.key_path == NULL)
        return TRM_OK;
    if (h->o.cert_path == NULL || h->o.key_path == NULL)
        return trm_fail(TRM_ERR_CONFIG, "TLS wants a certificate and its key: the %s is missing",
                        h->o.cert_path == NULL ? "certificate" : "key");
    if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
        return trm_fail(TRM_ERR_UNSUPPORTED, "this libmicrohttpd was built without TLS");
    TRM_CHECK(read_pem(h->o.cert_path, "certificate", &h->cert));
    TRM_CHECK(read_pem(h->o.key_path, "key", &h->key));
    cert = (gnutls_datum_t){(unsigned char *)h->cert, (unsigned)strlen(h->cert)};
    key = (gnutls_datum_t){(unsigned char *)h->key, (unsigned)strlen(h->key)};
    if (gnutls_certificate_allocate_credentials(&both) != 0)
        return trm_fail(TRM_ERR_NO_MEMORY, "TLS");
    rc = gnutls_certificate_set_x509_key_mem(both, &cert, &key, GNUTLS_X509_FMT_PEM);
    gnutls_certificate_free_credentials(both);
    if (rc < 0)
        return trm_fail(TRM_ERR_CONFIG, "TLS certificate '%s' with key '%s': %s", h->o.cert_path,
                        h->o.key_path, gnutls_strerror(rc));
    warn_expired(&cert, h->o.cert_path);
    return TRM_OK;
}
