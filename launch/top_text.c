/* Text of elsewhere cut to columns, and numbers in few characters. */
#include "launch/top_text.h"

#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

int trmi_top_fit(char *out, size_t out_bytes, const char *text, int columns)
{
    mbstate_t state = {0};
    size_t used = 0, left = strlen(text), before_last = 0;
    int column = 0, column_before_last = 0;

    while (left > 0) {
        wchar_t w = L'?';
        size_t n = mbrtowc(&w, text, left, &state);
        int wide = n > left || !iswprint((wint_t)w) ? -1 : wcwidth(w);
        const char *from = text;

        if (n > left || n == 0) {
            n = 1;
            memset(&state, 0, sizeof(state));
        }
        if (wide < 0) {
            /* the bytes behind the first of a character that the locale does not know */
            while (n < left && ((unsigned char)text[n] & 0xc0) == 0x80)
                n++;
            from = "?";
            wide = 1;
        }
        if (used + (from == text ? n : 1) + 2 > out_bytes || column + wide > columns) {
            if (columns > 0 && column == columns) {
                used = before_last;
                column = column_before_last;
            }
            if (column < columns) {
                out[used++] = '~';
                column++;
            }
            break;
        }
        before_last = used;
        column_before_last = column;
        memcpy(out + used, from, from == text ? n : 1);
        used += from == text ? n : 1;
        column += wide;
        text += n;
        left -= n;
    }
    out[used] = '\0';
    return column;
}

void trmi_top_count(char *out, double v)
{
    if (!isfinite(v) || v < 0 || v >= 1e15)
        snprintf(out, TRMI_TOP_CELL_BYTES, "-");
    else if (v < 100000)
        snprintf(out, TRMI_TOP_CELL_BYTES, "%.0f", v);
    else if (v < 1e8)
        snprintf(out, TRMI_TOP_CELL_BYTES, v < 1e7 ? "%.1fM" : "%.0fM", v / 1e6);
    else
        snprintf(out, TRMI_TOP_CELL_BYTES, v < 1e11 ? "%.1fG" : "%.0fG", v / 1e9);
}

void trmi_top_rate(char *out, double v)
{
    if (isfinite(v) && v >= 0 && v < 1000)
        snprintf(out, TRMI_TOP_CELL_BYTES, v < 99.95 ? "%.1f" : "%.0f", v);
    else
        trmi_top_count(out, v);
}

void trmi_top_ms(char *out, double ms)
{
    if (!isfinite(ms) || ms < 0)
        snprintf(out, TRMI_TOP_CELL_BYTES, "-");
    else if (ms < 0.9995)
        snprintf(out, TRMI_TOP_CELL_BYTES, "%.0fus", ms * 1000);
    else if (ms < 9999.5)
        snprintf(out, TRMI_TOP_CELL_BYTES,
                 ms < 9.995   ? "%.2fms"
                 : ms < 99.95 ? "%.1fms"
                              : "%.0fms",
                 ms);
    else
        snprintf(out, TRMI_TOP_CELL_BYTES, ms < 99950 ? "%.1fs" : "%.0fs",
                 ms < 1e9 ? ms / 1000 : 1e6);
}

void trmi_top_bytes(char *out, double v)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;

    if (!isfinite(v) || v < 0) {
        snprintf(out, TRMI_TOP_CELL_BYTES, "-");
        return;
    }
    for (; v >= 1000 && u < 4; u++)
        v /= 1024;
    snprintf(out, TRMI_TOP_CELL_BYTES, u == 0 || v >= 99.95 ? "%.0f %s" : "%.1f %s",
             v < 1e6 ? v : 1e6, units[u]);
}

void trmi_top_share(char *out, double v)
{
    if (!isfinite(v) || v < 0 || v > 10)
        snprintf(out, TRMI_TOP_CELL_BYTES, "-");
    else
        snprintf(out, TRMI_TOP_CELL_BYTES, "%.0f%%", 100 * v);
}

void trmi_top_age(char *out, double s)
{
    int64_t n = isfinite(s) && s > 0 && s < 1e12 ? (int64_t)s : 0;

    if (n >= 86400)
        snprintf(out, TRMI_TOP_CELL_BYTES, "%" PRId64 " d %" PRId64 " h", n / 86400, n / 3600 % 24);
    else if (n >= 3600)
        snprintf(out, TRMI_TOP_CELL_BYTES, "%" PRId64 " h %" PRId64 " min", n / 3600, n / 60 % 60);
    else
        snprintf(out, TRMI_TOP_CELL_BYTES, "%" PRId64 " min %" PRId64 " s", n / 60, n % 60);
}
