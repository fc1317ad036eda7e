/* Which of a host's addresses the others can reach is known only by trying: a name may mean
 * loopback on its own host, and there are interfaces that lead nowhere (bridges of containers). So
 * the listener tells all, and each peer takes the first that answers. */
#define _GNU_SOURCE
#include "base/link_address.h"
#include "base/wait.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECT_MS 2000
#define NAME_BYTES 256

static void add(char *list, size_t bytes, const char *host, const char *port)
{
    char one[NAME_BYTES + 16];
    size_t at = strlen(list), n;

    snprintf(one, sizeof(one), "%stcp://%.255s:%.7s", at > 0 ? " " : "", host, port);
    n = strlen(one);
    if (at + n < bytes) /* whole ones only */
        memcpy(list + at, one, n + 1);
}

void trmi_link_addresses(const char *port, char *endpoints_out, size_t bytes)
{
    char name[NAME_BYTES] = "";
    struct ifaddrs *all = NULL;

    endpoints_out[0] = '\0';
    if (gethostname(name, sizeof(name) - 1) == 0 && name[0] != '\0')
        add(endpoints_out, bytes, name, port);
    if (getifaddrs(&all) != 0)
        return;
    for (const struct ifaddrs *i = all; i != NULL; i = i->ifa_next) {
        struct sockaddr_in in;

        if (i->ifa_addr == NULL || i->ifa_addr->sa_family != AF_INET ||
            (i->ifa_flags & IFF_UP) == 0 || (i->ifa_flags & IFF_LOOPBACK) != 0)
            continue;
        memcpy(&in, i->ifa_addr, sizeof(in));
        if (inet_ntop(AF_INET, &in.sin_addr, name, sizeof(name)) != NULL)
            add(endpoints_out, bytes, name, port);
    }
    freeifaddrs(all);
}

static bool answers(const struct sockaddr_in *to)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error = 0;
    socklen_t n = sizeof(error);
    bool yes = false;

    if (fd < 0)
        return false;
    if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) == 0) {
        yes = true;
    } else if (errno == EINPROGRESS) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};

        yes = poll(&p, 1, (int)trm_scaled_ms(CONNECT_MS)) == 1 &&
              getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 && error == 0;
    }
    close(fd);
    return yes;
}

/* "tcp://name:port" tried at each IPv4 address of the name. A name that means loopback here means
 * this host, not the one that gave it; a loopback address given as a number is meant. */
static bool try_one(const char *endpoint, size_t length, char *endpoint_out, size_t bytes)
{
    char name[NAME_BYTES], port[8], number[INET_ADDRSTRLEN];
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    struct in_addr literal;
    bool yes = false, is_number;

    if (length <= strlen("tcp://") || strncmp(endpoint, "tcp://", strlen("tcp://")) != 0)
        return false;
    snprintf(name, sizeof(name), "%.*s", (int)(length - strlen("tcp://")),
             endpoint + strlen("tcp://"));
    if (strrchr(name, ':') == NULL)
        return false;
    snprintf(port, sizeof(port), "%s", strrchr(name, ':') + 1);
    *strrchr(name, ':') = '\0';
    is_number = inet_pton(AF_INET, name, &literal) == 1;
    if (getaddrinfo(name, port, &hints, &found) != 0)
        return false;
    for (const struct addrinfo *a = found; a != NULL && !yes; a = a->ai_next) {
        struct sockaddr_in in;

        memcpy(&in, a->ai_addr, sizeof(in));
        if (!is_number && (ntohl(in.sin_addr.s_addr) >> 24) == IN_LOOPBACKNET)
            continue;
        yes = answers(&in) && inet_ntop(AF_INET, &in.sin_addr, number, sizeof(number)) != NULL;
    }
    freeaddrinfo(found);
    if (yes)
        snprintf(endpoint_out, bytes, "tcp://%s:%s", number, port);
    return yes;
}

trm_status trmi_link_reach(const char *endpoints, char *endpoint_out, size_t bytes)
{
    for (const char *at = endpoints; *at != '\0';) {
        size_t n = strcspn(at, " ");

        if (try_one(at, n, endpoint_out, bytes))
            return TRM_OK;
        at += n + strspn(at + n, " ");
    }
    return trm_fail(TRM_ERR_COMM,
                    "the coordinator cannot be reached at %s: want an address that all hosts "
                    "reach in --zmq-listen",
                    endpoints);
}
