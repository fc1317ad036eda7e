/* Tool calls of chats: which functions a request offers (tools, tool_choice, parallel_tool_calls),
 * and how a model's text says that it calls one. Text that may begin a call is held back until it
 * is known to be one or not; so a stream's pieces together are what the whole answer gives. */
#ifndef TRM_WORKER_LANGUAGE_TOOLS_H
#define TRM_WORKER_LANGUAGE_TOOLS_H

#include "model/language/language.h"

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A call is an object with "name" (or "function") and "arguments" (or "parameters"). */
typedef enum trm_tool_format {
    TRM_TOOLS_NONE,    /* calls are not looked for */
    TRM_TOOLS_HERMES,  /* <tool_call>{..}</tool_call>, as often as wanted: Hermes, Qwen */
    TRM_TOOLS_LLAMA,   /* {..} from the first character on, or behind <|python_tag|>; more after ";"
                        */
    TRM_TOOLS_MISTRAL, /* [TOOL_CALLS][{..}, ..], or [TOOL_CALLS]name{arguments} */
    TRM_TOOLS_JSON,    /* {..} or [{..}, ..] from the first character on */
    TRM_TOOLS_FORMAT_COUNT
} trm_tool_format;
/* "hermes" ..; "auto" and NULL: what the model's chat template writes, JSON where that is none of
 * them. INVALID_ARG: no such format. */
TRM_MUST_USE trm_status trm_tool_format_of(const char *name, const trm_language *l,
                                           trm_tool_format *format_out);

/* What a request offers. Everything in it is its own. */
typedef struct trm_tools {
    trm_tool_format format;
    bool forced;   /* the answer is a call: tool_choice "required", or a function's name */
    bool parallel; /* more than one call is wanted */
    bool bare;     /* calls may stand without a mark, in any format: the constraint has none */
    bool special;  /* calls are marked by special tokens: these must be text */
    char **names;
    size_t count;
    json_t *constraint; /* a call of one of them (constraint.h); NULL: nothing asks for it */
} trm_tools;
/* From a chat's body. *tools_out is NULL where there are none or tool_choice is "none".
 * `constrain`: the constraint is wanted though nothing is forced. INVALID_ARG: says which tool and
 * what is wrong with it. */
TRM_MUST_USE trm_status trm_tools_read(const trm_language *l, const char *format,
                                       const json_t *body, bool constrain, trm_tools **tools_out);
void trm_tools_destroy(trm_tools *t); /* takes NULL */

#define TRM_TOOL_ID_BYTES 32
/* "call_" and 24 hex digits, the same for the same tag, choice and number of the call. */
void trm_tool_id(const char *tag, int choice, int call, char id_out[TRM_TOOL_ID_BYTES]);

/* ---- reading what a model writes ---- */
typedef enum trm_tool_event {
    TRM_TOOL_TEXT,     /* of the content */
    TRM_TOOL_CALL,     /* a call begins; text: its name */
    TRM_TOOL_ARGUMENTS /* more of the call's arguments */
} trm_tool_event;
typedef void (*trm_tool_sink)(void *ctx, trm_tool_event event, int call, const char *text,
                              size_t bytes);
/* One choice's text. One owner. */
typedef struct trm_tool_parser trm_tool_parser;
/* `tools` outlives it. */
TRM_MUST_USE trm_status trm_tool_parser_create(const trm_tools *tools, trm_tool_sink sink,
                                               void *ctx, trm_tool_parser **parser_out);
void trm_tool_parser_destroy(trm_tool_parser *p); /* takes NULL */
/* More text, cut anywhere. */
TRM_MUST_USE trm_status trm_tool_parser_push(trm_tool_parser *p, const char *text, size_t bytes);
/* The text is over: what was held back and is no call comes out. */
TRM_MUST_USE trm_status trm_tool_parser_finish(trm_tool_parser *p);
int trm_tool_parser_calls(const trm_tool_parser *p); /* so far */

#ifdef __cplusplus
}
#endif
#endif
