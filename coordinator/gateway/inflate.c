/* Packed bodies: Content-Encoding gzip and deflate (zlib's form, as RFC 9110 says). */
#include "coordinator/gateway/v2_impl.h"

#include <string.h>
#include <strings.h>
#include <zlib.h>

#define BODY_MAX ((size_t)32 << 20) /* as http.h's default */
#define PIECE ((size_t)1 << 30)     /* zlib counts in unsigned int */

static trm_status malformed(const char *why)
{
    return trm_fail(TRM_ERR_INVALID_ARG, "the packed body is malformed: %s",
                    why == NULL ? "it does not end" : why);
}

/* Room grows as it fills: a small body that claims nothing cannot take much. */
static trm_status grow(trmi_text *t, size_t most)
{
    size_t more = t->bytes < 16384 ? 16384 : t->bytes;

    if (t->bytes == most)
        return trm_fail(TRM_ERR_INVALID_ARG, "the body unpacks to more than %zu bytes", most);
    if (more > most - t->bytes)
        more = most - t->bytes;
    return trmi_text_reserve(t, more) ? TRM_OK
                                      : trm_fail(TRM_ERR_NO_MEMORY, "no memory to unpack a body");
}

static trm_status unpack(z_stream *z, size_t bytes, size_t most, trmi_text *t)
{
    size_t left = bytes;
    int rc = Z_OK;

    while (rc != Z_STREAM_END) {
        uInt room;

        if (z->avail_in == 0 && left > 0) {
            z->avail_in = (uInt)(left < PIECE ? left : PIECE);
            left -= z->avail_in;
        }
        TRM_CHECK(grow(t, most));
        room = (uInt)(t->room - t->bytes < PIECE ? t->room - t->bytes : PIECE);
        if (room > most - t->bytes)
            room = (uInt)(most - t->bytes);
        z->next_out = (Bytef *)t->data + t->bytes;
        z->avail_out = room;
        rc = inflate(z, Z_NO_FLUSH);
        t->bytes += room - z->avail_out;
        if (rc == Z_MEM_ERROR)
            return trm_fail(TRM_ERR_NO_MEMORY, "no memory to unpack a body");
        if (rc != Z_OK && rc != Z_STREAM_END)
            return malformed(z->msg);
        if (rc == Z_OK && z->avail_out > 0 && z->avail_in == 0 && left == 0)
            return malformed(NULL);
    }
    if (z->avail_in > 0 || left > 0)
        return malformed("there is more behind its end");
    return TRM_OK;
}

trm_status trmi_body_unpack(trm_http_exchange *x, const char **data_out, size_t *bytes_out,
                            void **owned_out)
{
    const char *encoding = trm_http_header(x, "Content-Encoding");
    const trm_gateway *g = trm_http_ctx(x);
    size_t most = g->options.http.body_max == 0 ? BODY_MAX : g->options.http.body_max, bytes = 0;
    const void *body = trm_http_body(x, &bytes);
    union {
        const void *from;
        Bytef *to; /* zlib's type without z_const; it only reads */
    } in = {.from = body};
    trmi_text t = {0};
    z_stream z;
    trm_status st;

    if (encoding == NULL || encoding[0] == '\0' || strcasecmp(encoding, "identity") == 0) {
        *data_out = body;
        *bytes_out = bytes;
        return TRM_OK;
    }
    if (strcasecmp(encoding, "gzip") != 0 && strcasecmp(encoding, "deflate") != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "Content-Encoding '%.20s', want gzip, deflate or none",
                        encoding);
    memset(&z, 0, sizeof(z));
    z.next_in = in.to;
    if (inflateInit2(&z, 15 + 32) != Z_OK) /* either form, by its head */
        return trm_fail(TRM_ERR_NO_MEMORY, "no memory to unpack a body");
    st = unpack(&z, bytes, most, &t);
    inflateEnd(&z);
    if (st != TRM_OK) {
        trmi_text_fini(&t);
        return st;
    }
    *owned_out = t.data;
    *data_out = t.data;
    *bytes_out = t.bytes;
    return TRM_OK;
}
