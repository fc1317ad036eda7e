/* Text and numbers as `trireme top` shows them. */
#ifndef TRM_LAUNCH_TOP_TEXT_H
#define TRM_LAUNCH_TOP_TEXT_H

#include <stddef.h>

#define TRMI_TOP_CELL_BYTES 512

/* `text` in at most `columns` columns of the locale, a '~' where it was cut; returns the columns.
 * Control characters and what the locale cannot show become '?'. */
int trmi_top_fit(char *out, size_t out_bytes, const char *text, int columns);
/* Short forms; `out` has TRMI_TOP_CELL_BYTES. NAN and what makes no sense: "-". */
void trmi_top_count(char *out, double v);
void trmi_top_rate(char *out, double v);
void trmi_top_ms(char *out, double ms);
void trmi_top_bytes(char *out, double v);
void trmi_top_share(char *out, double v); /* 0.5: "50%" */
void trmi_top_age(char *out, double s);

#endif
