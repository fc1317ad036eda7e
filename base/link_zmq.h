/* The adapter over libzmq: a ROUTER for the coordinator, a DEALER for each replica.
 *
 * Frames are opaque bytes here (base/wire gives them meaning). Nothing blocks but trm_link_wait
 * and trm_link_wait_any. A link belongs to the thread that made it; only trm_link_wake may be
 * called by others. */
#ifndef TRM_BASE_LINK_ZMQ_H
#define TRM_BASE_LINK_ZMQ_H

#include "base/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_LINK_PEER_BYTES 64
#define TRM_LINK_ENDPOINT_BYTES 512

/* Sockets of one process that may meet over inproc://. Shared: any thread. */
typedef struct trm_link_context trm_link_context;
TRM_MUST_USE trm_status trm_link_context_create(trm_link_context **context_out);
/* Waits until queued frames are sent, a second at most; links must be closed before. Takes NULL. */
void trm_link_context_destroy(trm_link_context *context);

/* CURVE keys (text) of the two ends. Whoever has them may join and read: they are made anew in each
 * job. The listener proves itself by its secret key; its public one, which never travels over the
 * link in clear, is what lets a peer in. */
#define TRM_LINK_KEY_BYTES 41
typedef struct trm_link_keys {
    char public_key[TRM_LINK_KEY_BYTES], secret_key[TRM_LINK_KEY_BYTES];
    char peer_public_key[TRM_LINK_KEY_BYTES], peer_secret_key[TRM_LINK_KEY_BYTES];
} trm_link_keys;
/* UNSUPPORTED: this libzmq was built without CURVE. */
TRM_MUST_USE trm_status trm_link_keys_create(trm_link_keys *keys_out);
/* tcp links of this context that are made from now on are encrypted. */
void trm_link_context_encrypt(trm_link_context *context, const trm_link_keys *keys);

typedef struct trm_link trm_link;

/* The coordinator's end. `endpoint`: "inproc://name"; "ipc": a socket in a fresh folder (mode
 * 0700) under $TMPDIR or /tmp; "tcp://ADDRESS:*": any free port of one address (a number, a name,
 * or an interface of this host); "tcp": of all its addresses. tcp links between hosts want
 * trm_link_context_encrypt. */
TRM_MUST_USE trm_status trm_link_bind(trm_link_context *context, const char *endpoint,
                                      trm_link **link_out);
/* What a replica connects to: after "tcp" a list, of which each takes the first that it reaches. */
const char *trm_link_endpoint(const trm_link *link);
/* Removes the folder of an ipc:// link from the file system once all have connected: live
 * connections stay, and nothing is left behind if this process is killed. */
void trm_link_hide(trm_link *link);

/* A bound link takes peers too whose identity is no text (the five bytes that ZeroMQ gives to those
 * that set none): they are called "#" and hexadecimal digits. Without this they are ignored. */
void trm_link_take_anonymous(trm_link *link);

/* A replica's end. `identity` ("3/2": replica/epoch, under 64 bytes) is fresh in each incarnation:
 * a newcomer under an old name would be ignored. */
TRM_MUST_USE trm_status trm_link_connect(trm_link_context *context, const char *endpoint,
                                         const char *identity, trm_link **link_out);

/* Sends one frame (copied). `peer`: whom, for a bound link; ignored otherwise. COMM: that peer is
 * not connected (any more). TIMEOUT: its queue is full. */
TRM_MUST_USE trm_status trm_link_send(trm_link *link, const char *peer, const void *data,
                                      size_t bytes);

typedef struct trm_link_frame {
    void *data;
    size_t bytes;
    void *opaque[8]; /* the library's message */
} trm_link_frame;
/* The next frame, if one has come; `peer_out` (TRM_LINK_PEER_BYTES) gets the sender's identity on a
 * bound link. TIMEOUT: none (trm_message is left alone). The frame is the caller's:
 * trm_link_frame_destroy, on any thread. */
TRM_MUST_USE trm_status trm_link_recv(trm_link *link, char *peer_out, trm_link_frame **frame_out);
void trm_link_frame_destroy(trm_link_frame *frame); /* takes NULL */

/* Sleeps until a frame can be received, trm_link_wake is called, or timeout_ms have passed. */
void trm_link_wait(trm_link *link, int64_t timeout_ms);
/* The same for several links of one thread, TRM_LINK_WAIT_MAX at most: a frame or a wake of any
 * ends it. */
#define TRM_LINK_WAIT_MAX 4
void trm_link_wait_any(trm_link *const *links, int count, int64_t timeout_ms);
/* Ends the current or next trm_link_wait. Any thread. */
void trm_link_wake(trm_link *link);

/* Frames that were sent still go out within a second. Takes NULL. */
void trm_link_close(trm_link *link);

#ifdef __cplusplus
}
#endif
#endif
