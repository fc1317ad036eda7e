/* trireme top URL: a server's load, live in the terminal. */
#include "launch/commands.h"
#include "launch/options.h"
#include "launch/top_view.h"
#include "launch/url.h"

#include "base/wait.h"

#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define NCURSES_WIDECHAR 1
#include <ncurses.h>

/* Rates are taken over the last seconds: replicas tell what they did once a second, at times of
 * their own. */
enum { PAST_MAX = 8 };
#define PAST_US 4500000

typedef struct top {
    trm_url *url;
    int64_t interval_ms;
    trm_top_sort sort;
    bool paused, color;
    int keys; /* descriptor of the keyboard, -1: none */
    int scroll;
    json_t *past[PAST_MAX]; /* the newest first */
    int64_t past_us[PAST_MAX];
    int past_count;
    char problem[400]; /* why there is nothing new; "" */
} top;

static volatile sig_atomic_t interrupted;
static volatile int stop; /* the same for trm_url_get */

static void on_signal(int number)
{
    interrupted = number;
    stop = 1;
}

static void remember(top *t, json_t *status)
{
    if (t->past_count == PAST_MAX)
        json_decref(t->past[--t->past_count]);
    memmove(t->past + 1, t->past, (size_t)t->past_count * sizeof(t->past[0]));
    memmove(t->past_us + 1, t->past_us, (size_t)t->past_count * sizeof(t->past_us[0]));
    t->past[0] = status;
    t->past_us[0] = trm_now_us();
    t->past_count++;
}

/* The oldest status of the last seconds, or the one before this. */
static trm_status view(const top *t, int width, trm_top_lines *lines)
{
    int at = t->past_count > 1 ? 1 : 0;
    trm_top_options o = {.url = trm_url_base(t->url), .width = width, .sort = t->sort};

    while (at + 1 < t->past_count && t->past_us[0] - t->past_us[at + 1] <= PAST_US)
        at++;
    if (at > 0) {
        o.before = t->past[at];
        o.seconds = (double)(t->past_us[0] - t->past_us[at]) / 1e6;
    }
    return trm_top_view(t->past[0], &o, lines);
}

/* ---- plain text ---- */
static trm_status print_once(const top *t)
{
    struct winsize size = {0};
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    trm_top_lines lines;
    trm_status st = view(t, known ? size.ws_col : 160, &lines);

    if (st != TRM_OK)
        return st;
    for (int i = 0; i < lines.count; i++)
        printf("%s\n", lines.lines[i].text);
    trm_top_lines_fini(&lines);
    return TRM_OK;
}

/* ---- the terminal ---- */
static int look_of(const top *t, trm_top_look look)
{
    switch (look) {
    case TRM_TOP_TITLE:
        return (int)A_REVERSE;
    case TRM_TOP_BOLD:
        return (int)A_BOLD;
    case TRM_TOP_DIM:
        return (int)A_DIM;
    case TRM_TOP_WARN:
        return t->color ? (int)COLOR_PAIR(2) : (int)A_NORMAL;
    case TRM_TOP_BAD:
        return t->color ? (int)COLOR_PAIR(1) : (int)A_BOLD;
    case TRM_TOP_PLAIN:
        break;
    }
    return (int)A_NORMAL;
}

static trm_status draw(top *t)
{
    int rows = getmaxy(stdscr), width = getmaxx(stdscr), room = rows - 1;
    trm_top_lines lines;
    trm_status st = view(t, width, &lines);
    char foot[600];

    if (st != TRM_OK)
        return st;
    if (t->scroll > lines.count - room)
        t->scroll = lines.count - room;
    if (t->scroll < 0)
        t->scroll = 0;
    erase();
    for (int y = 0; y < room && y + t->scroll < lines.count; y++) {
        const trm_top_line *l = &lines.lines[y + t->scroll];

        attrset(look_of(t, l->look));
        mvaddnstr(y, 0, l->text, -1);
        if (l->look == TRM_TOP_TITLE)
            for (int x = getcurx(stdscr); x < width && getcury(stdscr) == y && x > 0; x++)
                if (addch(' ') == ERR)
                    break;
    }
    if (t->problem[0] != '\0')
        snprintf(foot, sizeof(foot), "no answer: %s", t->problem);
    else
        snprintf(foot, sizeof(foot), "q quit   p %s   s sort (%s)   arrows scroll%s",
                 t->paused ? "go on" : "pause", trm_top_sort_name(t->sort),
                 t->paused ? "   PAUSED" : "");
    attrset(t->problem[0] != '\0' ? look_of(t, TRM_TOP_BAD) : (int)A_DIM);
    mvaddnstr(rows - 1, 0, foot, width - 1);
    attrset(A_NORMAL);
    refresh();
    trm_top_lines_fini(&lines);
    return TRM_OK;
}

/* True: the user wants to leave. */
static bool take_keys(top *t)
{
    for (int key = getch(); key != ERR; key = getch()) {
        int page = getmaxy(stdscr) - 2;

        switch (key) {
        case 'q':
        case 'Q':
        case 3: /* Ctrl-C, where the terminal does not make a signal of it */
            return true;
        case 'p':
        case ' ':
            t->paused = !t->paused;
            break;
        case 's':
            t->sort = (trm_top_sort)((t->sort + 1) % TRM_TOP_SORT_COUNT);
            break;
        case KEY_UP:
            t->scroll--;
            break;
        case KEY_DOWN:
            t->scroll++;
            break;
        case KEY_PPAGE:
            t->scroll -= page;
            break;
        case KEY_NPAGE:
            t->scroll += page;
            break;
        case KEY_HOME:
            t->scroll = 0;
            break;
        default: /* KEY_RESIZE: drawn anew anyway */
            break;
        }
    }
    return false;
}

/* Sleeps until a key, a signal (also of a resize) or the deadline. */
static void wait_for(const top *t, int64_t until_us)
{
    struct pollfd key = {.fd = t->keys, .events = POLLIN};
    int64_t left = until_us - trm_now_us();

    /* a signal may come between the look at `stop` and the sleep: never asleep for long */
    left = left < 0 ? 0 : left > 250000 ? 250000 : left;
    (void)poll(&key, t->keys < 0 ? 0 : 1, (int)((left + 999) / 1000));
}

static void fetch(top *t)
{
    json_t *status;
    trm_status st = trm_url_get(t->url, "/status", &stop, t->keys, &status);

    if (st == TRM_OK) {
        remember(t, status);
        t->problem[0] = '\0';
    } else if (st != TRM_ERR_CANCELLED) {
        snprintf(t->problem, sizeof(t->problem), "%s", trm_message());
    }
}

static trm_status run_live(top *t)
{
    int64_t next_us = trm_now_us() + t->interval_ms * 1000;
    trm_status st = TRM_OK;

    for (;;) {
        if (take_keys(t) || interrupted != 0)
            return TRM_OK;
        TRM_TRY(st, draw(t), done);
        wait_for(t, t->paused ? trm_now_us() + 250000 : next_us);
        if (interrupted == 0 && !t->paused && trm_now_us() >= next_us) {
            fetch(t);
            next_us = trm_now_us() + t->interval_ms * 1000;
        }
    }
done:
    return st;
}

static trm_status live(top *t)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction action = {.sa_handler = on_signal}, before[4];
    SCREEN *screen;
    trm_status st;

    /* before newterm, which has handlers of its own that end the process */
    for (int i = 0; i < 4; i++)
        sigaction(numbers[i], NULL, &before[i]);
    screen = newterm(NULL, stdout, stdin);
    if (screen == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "the terminal '%s' is not known here: use --once, or set TERM",
                        getenv("TERM") == NULL ? "" : getenv("TERM"));
    for (int i = 0; i < 4; i++) /* whatever ends this, the terminal is put back */
        if (before[i].sa_handler != SIG_IGN)
            sigaction(numbers[i], &action, NULL);
    cbreak();
    noecho();
    nonl();
    keypad(stdscr, TRUE);
    nodelay(stdscr, TRUE);
    curs_set(0);
    t->color = has_colors() && start_color() == OK;
    if (t->color) {
        use_default_colors();
        init_pair(1, COLOR_RED, -1);
        init_pair(2, COLOR_YELLOW, -1);
    }
    st = run_live(t);
    endwin();
    delscreen(screen);
    for (int i = 0; i < 4; i++)
        sigaction(numbers[i], &before[i], NULL);
    /* asked to end from outside: as if there had been no handler */
    if (st == TRM_OK && interrupted != 0 && interrupted != SIGINT)
        raise(interrupted);
    return st;
}

trm_status trm_cmd_top(int argc, char **argv)
{
    trm_common_options common = TRM_COMMON_DEFAULTS;
    top t = {.keys = -1};
    double interval = 1;
    const char *key = NULL, *sort = "name";
    bool once = false, insecure = false;
    const trm_option options[] = {
        {"once", TRM_OPTION_FLAG, NULL, 0, 0, NULL,
         "print the state once as text (so it is where the output is no terminal)", &once},
        {"interval", TRM_OPTION_FLOAT, "S", 0, 0, NULL, "seconds between two looks (1)", &interval},
        {"sort", TRM_OPTION_STRING, "BY", 0, 0, "name|running|requests/s|tokens/s|latency",
         "order of the models (name)", &sort},
        {"key", TRM_OPTION_STRING, "KEY", 0, 0, NULL, "API key", &key},
        {"insecure", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "take any TLS certificate", &insecure},
        TRM_LOG_OPTION(common),
    };
    trm_arguments args = {.command = "top",
                          .usage = "URL [--once]",
                          .options = options,
                          .option_count = sizeof(options) / sizeof(options[0]),
                          .positional_min = 1,
                          .positional_max = 1};
    json_t *status;
    trm_status st;

    TRM_CHECK(trm_options_parse(&args, argc, argv));
    if (args.help)
        return TRM_OK;
    TRM_CHECK(trm_common_apply(&common));
    if (!(interval >= 0.1 && interval <= 3600))
        return trm_fail(TRM_ERR_INVALID_ARG, "--interval %g: want 0.1 to 3600 seconds", interval);
    for (int i = 0; i < TRM_TOP_SORT_COUNT; i++)
        if (strcmp(sort, trm_top_sort_name((trm_top_sort)i)) == 0)
            t.sort = (trm_top_sort)i;
    t.interval_ms = (int64_t)(interval * 1000);
    setlocale(LC_CTYPE, ""); /* how wide characters are; numbers stay as they are */
    TRM_CHECK(trm_url_open(args.positionals[0], key, insecure, &t.url));
    TRM_TRY(st, trm_url_get(t.url, "/status", NULL, -1, &status), done);
    remember(&t, status);
    if (isatty(STDIN_FILENO))
        t.keys = STDIN_FILENO;
    st = once || !isatty(STDOUT_FILENO) ? print_once(&t) : live(&t);
done:
    for (int i = 0; i < t.past_count; i++)
        json_decref(t.past[i]);
    trm_url_close(t.url);
    return st;
}
