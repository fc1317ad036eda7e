/* Chat templates: the part of Jinja2 that published models' templates use, interpreted.
 *
 * Rendered as transformers' apply_chat_template does it: trim_blocks and lstrip_blocks on, loop
 * controls (break, continue), `raise_exception(text)`, `strftime_now(format)`, filter `tojson`
 * without HTML escapes, `{% generation %}` blocks; undefined names print as nothing. Templates and
 * messages are hostile input: depth, steps and bytes are bounded (UNSUPPORTED at a limit; the
 * deepest rendering takes less than 1 MiB of stack), nothing of the machine can be reached. Errors
 * name the template's line. Threads: read-only once compiled, may be shared.
 *
 * Beyond the part: integers over 64 bits, inheritance and includes, some filters that no chat
 * template was seen to use (their names are refused), formatting of text that is escaped or safe,
 * letters whose other case is more than one letter (but for the German one). Two things differ from
 * Jinja: a macro that reads a given variable which the template itself sets only later sees what
 * was given, and errors of lazy filters come at once. */
#ifndef TRM_MODEL_TEMPLATE_TEMPLATE_H
#define TRM_MODEL_TEMPLATE_TEMPLATE_H

#include "base/status.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_template trm_template;

/* `name` is for messages ("chat template of MODEL"). BAD_FILE: syntax, with the line; UNSUPPORTED:
 * a construct outside the part, named. */
TRM_MUST_USE trm_status trm_template_compile(const char *name, const char *text, size_t bytes,
                                             trm_template **template_out);
void trm_template_destroy(trm_template *t); /* takes NULL */

/* Renders with `variables`, a JSON object of the names the template sees (messages, tools,
 * add_generation_prompt, bos_token, eos_token, ...). Objects keep their key order. `now`: seconds
 * since the epoch that strftime_now shows (UTC). *text_out: NUL-terminated, from trm_malloc.
 * INVALID_ARG: the template raised an exception (its text is the message) or did something
 * undefined, with the line. UNSUPPORTED: at a limit, or a method or filter that is reached only
 * under a condition. */
TRM_MUST_USE trm_status trm_template_render(const trm_template *t, const json_t *variables,
                                            int64_t now, char **text_out, size_t *bytes_out);

#ifdef __cplusplus
}
#endif
#endif
