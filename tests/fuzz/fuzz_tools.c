/* libFuzzer: any bytes as what a model writes, looked through for tool calls in each format: whole
 * and a byte at a time give the same. */
#include "base/memory.h"
#include "worker/language/json_out.h"
#include "worker/language/tools.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct seen {
    trmi_out content, calls;
};

static void see(void *ctx, trm_tool_event event, int call, const char *text, size_t bytes)
{
    struct seen *s = ctx;

    if (bytes == 0 || call < -1 || (event != TRM_TOOL_TEXT && call < 0))
        abort();
    if (event == TRM_TOOL_CALL)
        trmi_out_add(&s->calls, "|", 1);
    trmi_out_add(event == TRM_TOOL_TEXT ? &s->content : &s->calls, text, bytes);
}

static void run(const trm_tools *tools, const char *text, size_t bytes, size_t piece,
                struct seen *s)
{
    trm_tool_parser *p;

    memset(s, 0, sizeof(*s));
    if (trm_tool_parser_create(tools, see, s, &p) != TRM_OK)
        abort();
    for (size_t at = 0; at < bytes; at += piece)
        if (trm_tool_parser_push(p, text + at, bytes - at < piece ? bytes - at : piece) != TRM_OK)
            abort();
    if (trm_tool_parser_finish(p) != TRM_OK)
        abort();
    trm_tool_parser_destroy(p);
}

static bool equal(const trmi_out *a, const trmi_out *b)
{
    return a->bytes == b->bytes && (a->bytes == 0 || memcmp(a->data, b->data, a->bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static char name[] = "f";
    static char *names[] = {name};
    trm_tools tools = {.names = names, .count = 1};
    struct seen a, b;

    if (bytes == 0)
        return 0;
    tools.format = (trm_tool_format)(1 + data[0] % (TRM_TOOLS_FORMAT_COUNT - 1));
    tools.parallel = (data[0] & 64) != 0;
    tools.bare = (data[0] & 128) != 0;
    run(&tools, (const char *)data + 1, bytes - 1, bytes, &a);
    run(&tools, (const char *)data + 1, bytes - 1, 1, &b);
    if (!equal(&a.content, &b.content) || !equal(&a.calls, &b.calls))
        abort();
    trmi_out_fini(&a.content);
    trmi_out_fini(&a.calls);
    trmi_out_fini(&b.content);
    trmi_out_fini(&b.calls);
    return 0;
}
