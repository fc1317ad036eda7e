/* strftime_now: a time of day in UTC by the directives of strftime, names in English. */
#include "model/template/template_impl.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *const days[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                   "Thursday", "Friday", "Saturday"};
static const char *const months[] = {"January",   "February", "March",    "April",
                                     "May",       "June",     "July",     "August",
                                     "September", "October",  "November", "December"};

typedef struct number {
    char directive;
    int width;
    char fill;
    int value;
} number;

/* ISO 8601 week and its year */
static void iso_week(const struct tm *t, int *year, int *week)
{
    int weekday = (t->tm_wday + 6) % 7, jan1, days_in;

    *year = t->tm_year + 1900;
    *week = (t->tm_yday - weekday + 10) / 7;
    if (*week < 1) {
        int y = --*year;
        bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;

        *week = (t->tm_yday + (leap ? 366 : 365) - weekday + 10) / 7;
        return;
    }
    days_in = ((*year % 4 == 0 && *year % 100 != 0) || *year % 400 == 0) ? 366 : 365;
    jan1 = (weekday - t->tm_yday % 7 + 7) % 7; /* of this year */
    jan1 = (jan1 + days_in) % 7;               /* of the next one */
    if (*week == 53 && jan1 <= 3) {
        *week = 1;
        ++*year;
    }
}

static bool find_number(const struct tm *t, int64_t now, char directive, number *out)
{
    int hour12 = t->tm_hour % 12 == 0 ? 12 : t->tm_hour % 12, year, week;

    iso_week(t, &year, &week);
    const number numbers[] = {
        {'d', 2, '0', t->tm_mday},
        {'e', 2, ' ', t->tm_mday},
        {'H', 2, '0', t->tm_hour},
        {'k', 2, ' ', t->tm_hour},
        {'I', 2, '0', hour12},
        {'l', 2, ' ', hour12},
        {'j', 3, '0', t->tm_yday + 1},
        {'m', 2, '0', t->tm_mon + 1},
        {'M', 2, '0', t->tm_min},
        {'S', 2, '0', t->tm_sec},
        {'f', 6, '0', 0},
        {'u', 1, '0', t->tm_wday == 0 ? 7 : t->tm_wday},
        {'w', 1, '0', t->tm_wday},
        {'U', 2, '0', (t->tm_yday + 7 - t->tm_wday) / 7},
        {'W', 2, '0', (t->tm_yday + 7 - (t->tm_wday + 6) % 7) / 7},
        {'V', 2, '0', week},
        {'G', 4, '0', year},
        {'g', 2, '0', year % 100},
        {'y', 2, '0', (t->tm_year + 1900) % 100},
        {'Y', 1, '0', t->tm_year + 1900},
        {'C', 2, '0', (t->tm_year + 1900) / 100},
    };

    (void)now;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (numbers[i].directive == directive) {
            *out = numbers[i];
            return true;
        }
    return false;
}

static const char *compound(char directive)
{
    switch (directive) {
    case 'D':
    case 'x':
        return "%m/%d/%y";
    case 'F':
        return "%Y-%m-%d";
    case 'R':
        return "%H:%M";
    case 'T':
    case 'X':
        return "%H:%M:%S";
    case 'r':
        return "%I:%M:%S %p";
    case 'c':
        return "%a %b %e %H:%M:%S %Y";
    default:
        return NULL;
    }
}

/* Compound directives hold plain ones only: one level of recursion. */
static trm_status put(trmi_run *r, const struct tm *t, const char *format, size_t bytes,
                      trmi_output *to)
{
    for (size_t i = 0; i < bytes; i++) {
        char text[32] = "", fill, flag = 0;
        number n;

        if (format[i] != '%' || i + 1 >= bytes) {
            TRM_CHECK(trmi_append(r, to, format + i, 1));
            continue;
        }
        i++;
        if (strchr("-_0", format[i]) != NULL && format[i] != '\0' && i + 1 < bytes)
            flag = format[i++];
        if (find_number(t, r->now, format[i], &n)) {
            fill = flag == '_' ? ' ' : flag == '0' ? '0' : n.fill;
            if (flag == '-')
                snprintf(text, sizeof(text), "%d", n.value);
            else if (fill == '0')
                snprintf(text, sizeof(text), "%0*d", n.width, n.value);
            else
                snprintf(text, sizeof(text), "%*d", n.width, n.value);
        } else if (format[i] == 'a' || format[i] == 'A') {
            snprintf(text, sizeof(text), "%.*s", format[i] == 'a' ? 3 : 9, days[t->tm_wday]);
        } else if (format[i] == 'b' || format[i] == 'B' || format[i] == 'h') {
            snprintf(text, sizeof(text), "%.*s", format[i] == 'B' ? 9 : 3, months[t->tm_mon]);
        } else if (format[i] == 'p' || format[i] == 'P') {
            const char *half = t->tm_hour < 12 ? "AMam" : "PMpm";

            snprintf(text, sizeof(text), "%.2s", format[i] == 'p' ? half : half + 2);
        } else if (format[i] == 's') {
            snprintf(text, sizeof(text), "%lld", (long long)r->now);
        } else if (compound(format[i]) != NULL) {
            TRM_CHECK(put(r, t, compound(format[i]), strlen(compound(format[i])), to));
        } else if (strchr("%nt", format[i]) != NULL && format[i] != '\0') {
            snprintf(text, sizeof(text), "%c",
                     format[i] == 'n'   ? '\n'
                     : format[i] == 't' ? '\t'
                                        : '%');
        } else if (format[i] != 'z' && format[i] != 'Z') { /* both empty: a time without zone */
            return trm_fail(TRM_ERR_UNSUPPORTED, "strftime_now: directive '%%%c'", format[i]);
        }
        TRM_CHECK(trmi_append_text(r, to, text));
    }
    return TRM_OK;
}

trm_status trmi_strftime(trmi_run *r, const trmi_string *format, trmi_value *out)
{
    trmi_output to = {NULL, 0, 0};
    time_t now = (time_t)r->now;
    struct tm t;

    if (r->now < -(INT64_C(1) << 36) || r->now > INT64_C(1) << 37 || gmtime_r(&now, &t) == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "strftime_now: the time is out of range");
    return trmi_take(r, put(r, &t, format->data, format->bytes, &to), &to, out);
}
