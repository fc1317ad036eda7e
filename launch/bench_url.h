/* bench --url: a load client for a server that speaks OpenAI's API or the Open Inference Protocol
 * v2 over HTTP, this program's or another. */
#ifndef TRM_LAUNCH_BENCH_URL_H
#define TRM_LAUNCH_BENCH_URL_H

#include "base/status.h"

bool trm_bench_url_wanted(int argc, char **argv); /* --url is among the arguments */
TRM_MUST_USE trm_status trm_bench_url(int argc, char **argv);

#endif
