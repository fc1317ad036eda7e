/* Numbers with units, and the nearest word for "did you mean". */
#include "base/config_impl.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct unit {
    const char *name;
    double factor;
} unit;

/* A decimal number directly followed by a unit of the table; result in whole base units. */
static bool with_unit(const char *text, const unit *units, size_t count, int64_t *out)
{
    char *end;
    double v;

    if (text[0] < '0' || text[0] > '9') /* no sign, no inf, no nan */
        return false;
    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
        return false;
    errno = 0;
    v = strtod(text, &end);
    if (errno != 0)
        return false;
    while (*end == ' ')
        end++;
    for (size_t i = 0; i < count; i++)
        if (strcmp(end, units[i].name) == 0) {
            v *= units[i].factor;
            if (!(v < 9.2e18))
                return false;
            *out = (int64_t)llround(v);
            return true;
        }
    return false;
}

bool trmi_config_bytes(const char *text, int64_t *bytes_out)
{
    static const unit units[] = {
        {"", 1},
        {"B", 1},
        {"kB", 1e3},
        {"KB", 1e3},
        {"MB", 1e6},
        {"GB", 1e9},
        {"TB", 1e12},
        {"KiB", 1024},
        {"MiB", 1048576},
        {"GiB", 1073741824},
        {"TiB", 1099511627776},
    };

    return with_unit(text, units, sizeof(units) / sizeof(units[0]), bytes_out);
}

bool trmi_config_duration(const char *text, int64_t *us_out)
{
    static const unit units[] = {{"us", 1},   {"ms", 1e3},   {"s", 1e6},
                                 {"m", 60e6}, {"min", 60e6}, {"h", 3600e6}};

    if (strcmp(text, "0") == 0) { /* the one number that needs no unit */
        *us_out = 0;
        return true;
    }
    return with_unit(text, units, sizeof(units) / sizeof(units[0]), us_out);
}

trm_status trm_config_bytes(const char *text, const char *what, int64_t *bytes_out)
{
    if (!trmi_config_bytes(text, bytes_out))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s '%s' is not a size; right are 4096, 256MiB, 1.5GB, ...", what, text);
    return TRM_OK;
}

trm_status trm_config_duration_us(const char *text, const char *what, int64_t *us_out)
{
    if (!trmi_config_duration(text, us_out))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s '%s' is not a duration; right are 250us, 5ms, 2s, 1.5m, 1h", what,
                        text);
    return TRM_OK;
}

#define WORD_MAX 40

/* Edit distance with neighbours swapped counted once (optimal string alignment). */
static int distance(const char *a, const char *b)
{
    int rows[3][WORD_MAX + 1];
    int n = (int)strlen(a), m = (int)strlen(b);
    int *before = rows[0], *last = rows[1], *now = rows[2];

    if (n > WORD_MAX || m > WORD_MAX)
        return WORD_MAX;
    for (int j = 0; j <= m; j++)
        before[j] = last[j] = j;
    for (int i = 1; i <= n; i++) {
        int *t;

        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int v = last[j - 1] + (a[i - 1] != b[j - 1]);

            v = last[j] + 1 < v ? last[j] + 1 : v;
            v = now[j - 1] + 1 < v ? now[j - 1] + 1 : v;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < v)
                v = before[j - 2] + 1;
            now[j] = v;
        }
        t = before;
        before = last;
        last = now;
        now = t;
    }
    return last[m];
}

const char *trm_config_nearest(const char *text, const char *const *words, int count)
{
    const char *best = NULL;
    int best_distance = 1 + (int)strlen(text) / 3; /* further away is no help */

    for (int i = 0; i < count; i++) {
        int d = distance(text, words[i]);

        if (d < best_distance || (d == best_distance && best == NULL)) {
            best = words[i];
            best_distance = d;
        }
    }
    return best;
}
