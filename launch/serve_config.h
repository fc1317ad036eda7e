/* The configuration of `trireme serve` and `trireme launch` (docs/serving.md): cluster, models,
 * gateway, zmq, limits; and what it means for a number of ranks: groups, replicas, places. */
#ifndef TRM_LAUNCH_SERVE_CONFIG_H
#define TRM_LAUNCH_SERVE_CONFIG_H

#include "parallel/planner.h"
#include "worker/serve_settings.h"

#include <jansson.h>

typedef struct trm_serve_cluster {
    int64_t replicas;          /* -1: auto */
    const char *parallel;      /* "tensor=2,pipeline=1", "auto" */
    const char *device;        /* "auto", "cpu", "cuda" */
    int64_t threads;           /* of a rank; -1: auto */
    int bind;                  /* share|keep */
    int64_t memory;            /* bytes a rank may take; 0: no limit */
    const char *deterministic; /* "layout", "off" */
    const trm_config_node *groups;
    /* how soon a replica is given up, and how long all may take to come */
    int64_t silence_us, stuck_us, join_us;
} trm_serve_cluster;

typedef struct trm_serve_tls {
    const char *cert, *key;
} trm_serve_tls;

typedef struct trm_serve_gateway {
    const char *listen; /* "off": none */
    const char *keys;
    const trm_serve_tls *tls; /* NULL: none */
    const char *access_log, *cors, *files;
    bool admin, metrics_open;
} trm_serve_gateway;

typedef struct trm_serve_zmq {
    const char *listen;  /* where replicas connect; NULL: inproc, ipc or tcp as needed */
    const char *clients; /* the public endpoint; NULL: none */
    int curve;           /* auto|on|off */
} trm_serve_zmq;

typedef struct trm_serve_limits {
    int64_t body, upload;
    int64_t requests_per_key, queue, connections, batch_requests;
    double deadline_s, idle_s, drain_s;
} trm_serve_limits;

typedef struct trm_serve_config {
    const trm_serve_cluster *cluster;
    trm_config_list models; /* trm_serve_settings */
    const trm_serve_gateway *gateway;
    const trm_serve_zmq *zmq;
    const trm_serve_limits *limits;
} trm_serve_config;

/* serve_config_tables.c */
extern const trm_config_section trmi_serve_config_section;

/* A group of ranks that are laid out alike; replicas are numbered through all groups. */
typedef struct trm_serve_group {
    char name[64];
    int first, ranks; /* in the job; ranks: replicas * tensor * pipeline */
    int replicas;     /* data */
    int tensor, pipeline;
    int first_replica;
} trm_serve_group;

typedef struct trm_serve_plan {
    trm_config *config;
    const trm_serve_config *c;
    char *folder; /* of the file: paths are relative to it */
    trm_serve_group *groups;
    int group_count;
    int replicas; /* in all */
    int ranks;    /* that are used */
} trm_serve_plan;

/* Reads and checks `path`. `ranks`: of the job that is to run it, 0: not known yet (then `auto`
 * replicas are 1). INVALID_ARG or CONFIG: file:line, what, what would be right; also where the
 * layout needs other ranks than there are. */
TRM_MUST_USE trm_status trm_serve_plan_load(const char *path, int ranks, trm_serve_plan *plan_out);
void trm_serve_plan_fini(trm_serve_plan *p);
/* A path of the configuration, from trm_malloc; NULL in: NULL out. */
TRM_MUST_USE trm_status trm_serve_plan_path(const trm_serve_plan *p, const char *path,
                                            char **path_out);
/* Group of a model's entry; -1: no such group (cannot be after load). */
int trm_serve_plan_group(const trm_serve_plan *p, const trm_serve_settings *m);
/* Name of a model's entry: its own or its path's last part, without .onnx or .gguf. */
void trm_serve_model_name(const trm_serve_settings *m, char *buf, size_t bytes);
/* Settings for LOAD, from trm_malloc. */
TRM_MUST_USE trm_status trm_serve_plan_settings(const trm_serve_plan *p, int model,
                                                char **json_out);

#endif
