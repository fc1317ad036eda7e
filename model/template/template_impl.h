/* What the files of the chat template interpreter share.
 *
 *   lexer.c       text to tokens; whitespace control
 *   parse.c       statements; parse_expr.c: expressions; both to one tree of nodes
 *   exec.c        statements; loop.c: for loops; eval.c: expressions
 *   access.c      attributes, subscripts, slices; call.c: macros, globals, binding of arguments
 *   operate.c     arithmetic; compare.c: truth, equality, order
 *   value.c       strings, lists, dicts; iterate.c: walking over values; print.c: str() and repr()
 *   json.c        tojson, and variables from JSON
 *   methods*.c, filters*.c, is.c   methods of strings and dicts, filters, tests
 *   format.c      %-formatting; format_braces.c: str.format; clock.c: strftime; text.c: Unicode
 *
 * Semantics are those of Jinja2 3.1 in its immutable sandbox. Values live in an arena freed with
 * the rendering; all are immutable but namespaces and loops. Everything that a template can make
 * large or deep is bounded by the TRMI_TEMPLATE_* limits: recursion by `depth`, which each level of
 * the tree, of a call and of a nested value counts in, time by `steps`, memory by `bytes`. */
#ifndef TRM_MODEL_TEMPLATE_IMPL_H
#define TRM_MODEL_TEMPLATE_IMPL_H

#include "base/memory.h"
#include "model/template/template.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_TEMPLATE_TEXT_MAX ((size_t)4 << 20)
#define TRMI_TEMPLATE_TREE_MAX 300 /* levels of the syntax tree */
#define TRMI_TEMPLATE_DEPTH_MAX                                                                    \
    1000 /* levels at run time, over all calls: about 0.5 MB of stack                              \
          */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION /* many small renderings find more than few large  \
                                                 */
#define TRMI_TEMPLATE_STEPS_MAX 200000
#define TRMI_TEMPLATE_BYTES_MAX ((size_t)16 << 20)
#else
#define TRMI_TEMPLATE_STEPS_MAX 20000000
#define TRMI_TEMPLATE_BYTES_MAX ((size_t)256 << 20) /* of values and output of a rendering */
#endif
#define TRMI_TEMPLATE_RANGE_MAX 100000 /* as jinja2.sandbox */

/* ---- values ---- */
typedef enum trmi_kind {
    TRMI_V_ABSENT = 0, /* an argument that was not given */
    TRMI_V_UNDEFINED,
    TRMI_V_NONE,
    TRMI_V_BOOL,
    TRMI_V_INT,
    TRMI_V_FLOAT,
    TRMI_V_STRING,
    TRMI_V_LIST,
    TRMI_V_TUPLE,
    TRMI_V_DICT,
    TRMI_V_RANGE,
    TRMI_V_VIEW,      /* dict.keys(), .values(), .items() */
    TRMI_V_GENERATOR, /* what lazy filters give: true, without a length, walked over once */
    TRMI_V_NAMESPACE,
    TRMI_V_LOOP,
    TRMI_V_MACRO,
    TRMI_V_METHOD,
    TRMI_V_FUNCTION,
    TRMI_V_CYCLER,
    TRMI_V_JOINER,
    TRMI_V_SLICE /* only between [ and ] */
} trmi_kind;

/* UTF-8, valid. */
typedef struct trmi_string {
    const char *data;
    size_t bytes;
    size_t chars;             /* code points; SIZE_MAX: not counted yet (never in a template) */
    struct trmi_append *room; /* NULL, or where a concatenation may grow in place */
    bool markup;              /* of the filters safe and escape: what is added is escaped */
} trmi_string;

typedef struct trmi_value {
    trmi_kind kind;
    union {
        bool truth;
        int64_t integer;
        double real;
        trmi_string *string;
        struct trmi_list *list; /* LIST, TUPLE, GENERATOR */
        struct trmi_dict *dict; /* DICT, NAMESPACE */
        struct trmi_range *range;
        struct trmi_view *view;
        struct trmi_loop *loop;
        struct trmi_macro *macro;
        struct trmi_method *method;
        const struct trmi_function *function;
        struct trmi_cycler *cycler;
        struct trmi_undefined *undefined;
        struct trmi_value *slice; /* three: start, stop, step */
    } as;
} trmi_value;

typedef struct trmi_list {
    trmi_value *items;
    size_t count;
    size_t room;
    size_t walked; /* of a generator */
} trmi_list;

typedef struct trmi_pair {
    trmi_value key, value;
} trmi_pair;

typedef struct trmi_dict {
    trmi_pair *pairs; /* in order of insertion */
    size_t count, room;
    uint32_t *index; /* open addressing, pair + 1; NULL while there are few */
    size_t index_size;
} trmi_dict;

typedef struct trmi_range {
    int64_t start, stop, step;
    size_t count;
} trmi_range;

typedef struct trmi_view {
    trmi_dict *dict;
    int what; /* 'k', 'v', 'i' */
} trmi_view;

typedef struct trmi_undefined {
    const trmi_string *name;
    trmi_value of;    /* the object that has no such attribute; ABSENT: a variable */
    const char *hint; /* the whole message instead, or NULL */
    bool unsafe;
} trmi_undefined;

/* ---- the tree ---- */
typedef enum trmi_node_kind {
    TRMI_N_CONST,
    TRMI_N_NAME,
    TRMI_N_LIST,
    TRMI_N_TUPLE,
    TRMI_N_DICT, /* items: key, value, key, ... */
    TRMI_N_ATTRIBUTE,
    TRMI_N_SUBSCRIPT,
    TRMI_N_SLICE,
    TRMI_N_CALL,
    TRMI_N_FILTER,
    TRMI_N_TEST,
    TRMI_N_NOT,
    TRMI_N_NEGATIVE,
    TRMI_N_POSITIVE,
    TRMI_N_AND,
    TRMI_N_OR,
    TRMI_N_BINARY,
    TRMI_N_CONCAT,
    TRMI_N_COMPARE, /* a, then items with ops */
    TRMI_N_TERNARY, /* a if b else c */
    TRMI_N_NAMESPACE_TARGET,
    TRMI_N_DATA,
    TRMI_N_PRINT,
    TRMI_N_IF, /* items: conditions; bodies: one each, and one more for else */
    TRMI_N_FOR,
    TRMI_N_SET,
    TRMI_N_SET_BLOCK,
    TRMI_N_MACRO,
    TRMI_N_CALL_BLOCK,
    TRMI_N_FILTER_BLOCK,
    TRMI_N_WITH, /* items: target, value, target, ... */
    TRMI_N_SCOPE,
    TRMI_N_GENERATION,
    TRMI_N_BREAK,
    TRMI_N_CONTINUE
} trmi_node_kind;

typedef struct trmi_body {
    struct trmi_node **nodes;
    size_t count;
} trmi_body;

typedef struct trmi_keyword {
    trmi_string *name;
    struct trmi_node *value;
} trmi_keyword;

typedef struct trmi_arguments { /* of a call, as written */
    struct trmi_node **items;
    size_t count;
    trmi_keyword *keywords;
    size_t keyword_count;
    struct trmi_node *star, *star_star;
} trmi_arguments;

typedef struct trmi_node {
    trmi_node_kind kind;
    int op; /* BINARY and COMPARE: token */
    int line;
    int depth; /* levels below and with this one */
    trmi_value value;
    trmi_string *text, *attribute;
    struct trmi_node *a, *b, *c;
    struct trmi_node **items;
    int *ops;
    size_t count;
    trmi_body *bodies;
    trmi_arguments *arguments;
    const struct trmi_filter *filter;
    const struct trmi_test *test;
    bool flag;      /* FOR: recursive; FOR, MACRO, CALL_BLOCK below */
    bool uses_loop; /* FOR: its body speaks of `loop` */
    bool takes_caller, takes_varargs, takes_kwargs;
} trmi_node;

typedef enum trmi_token_kind {
    TRMI_TOK_END,
    TRMI_TOK_DATA,
    TRMI_TOK_VARIABLE_BEGIN,
    TRMI_TOK_VARIABLE_END,
    TRMI_TOK_BLOCK_BEGIN,
    TRMI_TOK_BLOCK_END,
    TRMI_TOK_NAME,
    TRMI_TOK_STRING,
    TRMI_TOK_INT,
    TRMI_TOK_FLOAT,
    TRMI_TOK_ADD,
    TRMI_TOK_SUB,
    TRMI_TOK_DIV,
    TRMI_TOK_FLOORDIV,
    TRMI_TOK_MUL,
    TRMI_TOK_MOD,
    TRMI_TOK_POW,
    TRMI_TOK_TILDE,
    TRMI_TOK_LBRACKET,
    TRMI_TOK_RBRACKET,
    TRMI_TOK_LPAREN,
    TRMI_TOK_RPAREN,
    TRMI_TOK_LBRACE,
    TRMI_TOK_RBRACE,
    TRMI_TOK_EQ,
    TRMI_TOK_NE,
    TRMI_TOK_GT,
    TRMI_TOK_GE,
    TRMI_TOK_LT,
    TRMI_TOK_LE,
    TRMI_TOK_ASSIGN,
    TRMI_TOK_DOT,
    TRMI_TOK_COLON,
    TRMI_TOK_PIPE,
    TRMI_TOK_COMMA,
    TRMI_TOK_SEMICOLON,
    TRMI_TOK_IN, /* these two are made by the parser, for COMPARE */
    TRMI_TOK_NOT_IN
} trmi_token_kind;

typedef struct trmi_token {
    trmi_token_kind kind;
    int line;
    trmi_string *text; /* DATA, NAME, STRING */
    int64_t integer;
    double real;
} trmi_token;

struct trm_template {
    char *name;
    trm_arena *arena;
    trmi_token *tokens; /* while compiling */
    size_t token_count, token_room;
    int fail_line;
    trmi_body body;
};

/* ---- a rendering ---- */
typedef struct trmi_variable {
    const trmi_string *name;
    trmi_value value;
} trmi_variable;

typedef struct trmi_scope {
    struct trmi_scope *parent;
    trmi_variable *variables;
    size_t count, room;
} trmi_scope;

typedef struct trmi_output {
    char *data;
    size_t bytes, room;
} trmi_output;

typedef struct trmi_run {
    const trm_template *t;
    trm_arena *arena;
    size_t bytes;
    int64_t steps;
    int depth;
    int fail_line;
    int64_t now;
    trmi_dict *context;
    trmi_scope *scope;
    trmi_output *output;
    enum { TRMI_FLOW_ON, TRMI_FLOW_BREAK, TRMI_FLOW_CONTINUE } flow;
} trmi_run;

/* Arguments of a call, evaluated. */
typedef struct trmi_call {
    const char *what; /* for messages: "filter 'join'" */
    trmi_value *items;
    size_t count;
    trmi_pair *keywords; /* keys are strings */
    size_t keyword_count;
} trmi_call;

typedef trm_status (*trmi_filter_fn)(trmi_run *r, trmi_value value, const trmi_call *call,
                                     trmi_value *out);
typedef struct trmi_filter {
    const char *name;
    trmi_filter_fn apply; /* NULL: known to Jinja, not to us */
} trmi_filter;
typedef trm_status (*trmi_test_fn)(trmi_run *r, trmi_value value, const trmi_call *call, bool *out);
typedef struct trmi_test {
    const char *name;
    trmi_test_fn apply;
} trmi_test;
typedef struct trmi_function { /* globals and methods; `self` is ABSENT for a global */
    const char *name;
    trm_status (*apply)(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out);
} trmi_function;

typedef struct trmi_macro {
    const trmi_node *node;
    trmi_scope *scope;
} trmi_macro;

typedef struct trmi_method {
    const trmi_function *function;
    trmi_value self;
} trmi_method;

typedef struct trmi_cycler {
    trmi_list *items;
    size_t at;
    trmi_string *separator;
    bool used;
} trmi_cycler;

typedef struct trmi_iterator {
    trmi_value of;
    size_t at;
} trmi_iterator;

typedef struct trmi_loop {
    const trmi_node *node;
    trmi_scope *scope;
    trmi_iterator iterator;
    int64_t length; /* -1: not asked yet */
    int64_t index0;
    int64_t depth0;
    trmi_value before, current, after; /* ABSENT: none */
    bool peeked;                       /* `after` is what comes, ABSENT: nothing more */
    bool filtered;                     /* the iterator's items have passed the condition */
    trmi_value changed;
} trmi_loop;

/* lexer.c, parse.c, parse_expr.c */
typedef struct trmi_parser {
    trm_template *t;
    const trmi_token *at;
    int depth;
    int loops;      /* for break and continue */
    int conditions; /* open `if`s: filters and tests that are not there fail when they are reached
                     */
    int nodes;
} trmi_parser;
TRM_MUST_USE trm_status trmi_template_lex(trm_template *t, const char *text, size_t bytes);
TRM_MUST_USE trm_status trmi_template_parse(trm_template *t);
TRM_MUST_USE trm_status trmi_parse_expression(trmi_parser *p, trmi_node **out);
TRM_MUST_USE trm_status trmi_parse_tuple(trmi_parser *p, bool condexpr, const char *end_name,
                                         bool parentheses, trmi_node **out);
TRM_MUST_USE trm_status trmi_parse_target(trmi_parser *p, bool namespaces, const char *end_name,
                                          trmi_node **out);
TRM_MUST_USE trm_status trmi_parse_filter(trmi_parser *p, trmi_node *of, bool inline_first,
                                          trmi_node **out);
TRM_MUST_USE trm_status trmi_parse_arguments(trmi_parser *p, trmi_arguments **out);
trm_status trmi_parse_fail(trmi_parser *p, trm_status status, int line, const char *fmt, ...)
    TRM_PRINTF(4, 5);
bool trmi_parse_is(const trmi_parser *p, const char *name); /* the next token is this name */
bool trmi_parse_skip(trmi_parser *p, const char *name);     /* and steps over it */
TRM_MUST_USE trm_status trmi_parse_expect(trmi_parser *p, trmi_token_kind kind);
TRM_MUST_USE trm_status trmi_parse_node(trmi_parser *p, trmi_node_kind kind, int line,
                                        trmi_node **out);
/* Growing array of nodes in the template's arena. */
TRM_MUST_USE trm_status trmi_parse_push(trmi_parser *p, trmi_node ***items, size_t *count,
                                        trmi_node *item);
/* Counts a child's levels into its parent's; BAD_FILE beyond TRMI_TEMPLATE_TREE_MAX. */
TRM_MUST_USE trm_status trmi_parse_own(trmi_parser *p, trmi_node *parent, const trmi_node *child);

/* exec.c, loop.c, eval.c */
TRM_MUST_USE trm_status trmi_exec(trmi_run *r, const trmi_body *body);
TRM_MUST_USE trm_status trmi_exec_for(trmi_run *r, const trmi_node *node);
TRM_MUST_USE trm_status trmi_loop_call(trmi_run *r, trmi_loop *loop, const trmi_call *call,
                                       trmi_value *out);
TRM_MUST_USE trm_status trmi_loop_attribute(trmi_run *r, trmi_loop *loop, const trmi_string *name,
                                            bool *found, trmi_value *out);
TRM_MUST_USE trm_status trmi_assign(trmi_run *r, const trmi_node *target, trmi_value value);
/* Runs `body` into a string of its own. */
TRM_MUST_USE trm_status trmi_capture(trmi_run *r, const trmi_body *body, trmi_value *out);
TRM_MUST_USE trm_status trmi_write(trmi_run *r, const char *data, size_t bytes);
TRM_MUST_USE trm_status trmi_eval(trmi_run *r, const trmi_node *node, trmi_value *out);
/* The filters of a block: `n` is a chain that begins with no value of its own. */
TRM_MUST_USE trm_status trmi_eval_chain(trmi_run *r, const trmi_node *n, trmi_value value,
                                        trmi_value *out);
TRM_MUST_USE trm_status trmi_eval_arguments(trmi_run *r, const trmi_arguments *arguments,
                                            const char *what, trmi_call *out);
TRM_MUST_USE trm_status trmi_scope_push(trmi_run *r, trmi_scope *parent);
TRM_MUST_USE trm_status trmi_scope_set(trmi_run *r, const trmi_string *name, trmi_value value);
TRM_MUST_USE trm_status trmi_enter(trmi_run *r); /* one level deeper; trmi_leave undoes it */
void trmi_leave(trmi_run *r);
TRM_MUST_USE trm_status trmi_charge(trmi_run *r, size_t work); /* in steps */

/* access.c, call.c */
TRM_MUST_USE trm_status trmi_get_attribute(trmi_run *r, trmi_value of, trmi_string *name,
                                           trmi_value *out);
TRM_MUST_USE trm_status trmi_get_item(trmi_run *r, trmi_value of, trmi_value key, trmi_value *out);
/* "a.b.0" from `of`, as filters take attributes. */
TRM_MUST_USE trm_status trmi_get_path(trmi_run *r, trmi_value of, trmi_value path, trmi_value *out);
TRM_MUST_USE trm_status trmi_call_value(trmi_run *r, trmi_value callee, trmi_call *call,
                                        trmi_value *out);
TRM_MUST_USE trm_status trmi_call_macro(trmi_run *r, const trmi_macro *macro, const trmi_call *call,
                                        trmi_value *out);
/* Binds arguments to `names` (space separated); those not given are ABSENT; the first `required`
 * must be. */
TRM_MUST_USE trm_status trmi_template_bind(trmi_run *r, const trmi_call *call, const char *names,
                                           size_t required, trmi_value *out);
const trmi_function *trmi_find_global(const trmi_string *name);
const trmi_function *trmi_find_method(trmi_value of, const trmi_string *name);
const trmi_filter *trmi_find_filter(const char *name, size_t bytes);
const trmi_test *trmi_find_test(const char *name, size_t bytes);
TRM_MUST_USE trm_status trmi_method_call(trmi_run *r, const trmi_method *m, const trmi_call *call,
                                         trmi_value *out);

/* operate.c, compare.c */
TRM_MUST_USE trm_status trmi_operate(trmi_run *r, int op, trmi_value a, trmi_value b,
                                     trmi_value *out);
TRM_MUST_USE trm_status trmi_truth(trmi_run *r, trmi_value v, bool *out);
TRM_MUST_USE trm_status trmi_equal(trmi_run *r, trmi_value a, trmi_value b, bool *out);
/* -1, 0, 1 for < == >; INVALID_ARG where Python has no order. `op` is for the message. */
TRM_MUST_USE trm_status trmi_order(trmi_run *r, trmi_value a, trmi_value b, const char *op,
                                   int *out);
TRM_MUST_USE trm_status trmi_compare(trmi_run *r, int op, trmi_value a, trmi_value b, bool *out);
TRM_MUST_USE trm_status trmi_contains(trmi_run *r, trmi_value container, trmi_value item,
                                      bool *out);
int trmi_string_order(const trmi_string *a, const trmi_string *b);
bool trmi_string_same(const trmi_string *a, const trmi_string *b);
bool trmi_string_is(const trmi_string *a, const char *text);

/* value.c, iterate.c */
TRM_MUST_USE trm_status trmi_alloc(trmi_run *r, size_t count, size_t size, void **out);
TRM_MUST_USE trm_status trmi_make_string(trmi_run *r, const char *data, size_t bytes,
                                         trmi_value *out); /* copies */
TRM_MUST_USE trm_status trmi_borrow_string(trmi_run *r, const char *data, size_t bytes,
                                           trmi_value *out);
TRM_MUST_USE trm_status trmi_join_strings(trmi_run *r, trmi_string *a, const trmi_string *b,
                                          trmi_value *out);
/* Strings marked as markup: `v` itself, or the items of a list. */
TRM_MUST_USE trm_status trmi_mark(trmi_run *r, trmi_value v, trmi_value *out);
TRM_MUST_USE trm_status trmi_escape(trmi_run *r, trmi_value v, trmi_value *out);
TRM_MUST_USE trm_status trmi_make_list(trmi_run *r, trmi_kind kind, trmi_value *out);
TRM_MUST_USE trm_status trmi_list_push(trmi_run *r, trmi_list *list, trmi_value item);
TRM_MUST_USE trm_status trmi_make_dict(trmi_run *r, trmi_kind kind, trmi_value *out);
TRM_MUST_USE trm_status trmi_dict_put(trmi_run *r, trmi_dict *dict, trmi_value key,
                                      trmi_value value);
/* NULL: not there. INVALID_ARG: a key that cannot be one. */
TRM_MUST_USE trm_status trmi_dict_find(trmi_run *r, const trmi_dict *dict, trmi_value key,
                                       trmi_value **out);
trmi_value *trmi_dict_find_name(const trmi_dict *dict, const trmi_string *name);
size_t trmi_chars(trmi_string *s);
size_t trmi_offset(trmi_string *s, size_t chars); /* byte at which code point `chars` begins */
TRM_MUST_USE trm_status trmi_make_undefined(trmi_run *r, const trmi_string *name, trmi_value of,
                                            const char *hint, trmi_value *out);
TRM_MUST_USE trm_status trmi_fail_undefined(trmi_run *r, trmi_value v);
/* Python's name of the type: "str", "dict", ... */
const char *trmi_type_name(trmi_value v);
static inline trmi_value trmi_none(void)
{
    trmi_value v;
    v.kind = TRMI_V_NONE;
    v.as.integer = 0;
    return v;
}
static inline trmi_value trmi_bool(bool truth)
{
    trmi_value v;
    v.kind = TRMI_V_BOOL;
    v.as.integer = 0;
    v.as.truth = truth;
    return v;
}
static inline trmi_value trmi_int(int64_t i)
{
    trmi_value v;
    v.kind = TRMI_V_INT;
    v.as.integer = i;
    return v;
}
static inline trmi_value trmi_float(double d)
{
    trmi_value v;
    v.kind = TRMI_V_FLOAT;
    v.as.real = d;
    return v;
}
static inline trmi_value trmi_absent(void)
{
    trmi_value v;
    v.kind = TRMI_V_ABSENT;
    v.as.integer = 0;
    return v;
}
/* An int or a bool, as Python takes it. */
static inline bool trmi_is_int(trmi_value v)
{
    return v.kind == TRMI_V_INT || v.kind == TRMI_V_BOOL;
}
static inline int64_t trmi_as_int(trmi_value v)
{
    return v.kind == TRMI_V_BOOL ? v.as.truth : v.as.integer;
}
static inline bool trmi_is_number(trmi_value v)
{
    return trmi_is_int(v) || v.kind == TRMI_V_FLOAT;
}
static inline double trmi_as_real(trmi_value v)
{
    return v.kind == TRMI_V_FLOAT ? v.as.real : (double)trmi_as_int(v);
}
TRM_MUST_USE trm_status trmi_iterate(trmi_run *r, trmi_value of, trmi_iterator *it);
TRM_MUST_USE trm_status trmi_next(trmi_run *r, trmi_iterator *it, bool *done, trmi_value *out);
TRM_MUST_USE trm_status trmi_to_list(trmi_run *r, trmi_value of, trmi_kind kind, trmi_value *out);
/* False: a type without len(). */
bool trmi_length(trmi_value v, int64_t *out);

/* print.c, json.c */
TRM_MUST_USE trm_status trmi_to_string(trmi_run *r, trmi_value v, trmi_string **out); /* str(v) */
TRM_MUST_USE trm_status trmi_repr(trmi_run *r, trmi_value v, trmi_output *to);
void trmi_real_text(double d, char text[40]); /* repr of a float */
TRM_MUST_USE trm_status trmi_append(trmi_run *r, trmi_output *to, const char *data, size_t bytes);
TRM_MUST_USE trm_status trmi_append_text(trmi_run *r, trmi_output *to, const char *text);
/* Passes `st` on; where it is TRM_OK the bytes gathered become a string. Frees them in any case. */
TRM_MUST_USE trm_status trmi_take(trmi_run *r, trm_status st, trmi_output *from, trmi_value *out);
/* Stable, by keys[i], which move along. */
TRM_MUST_USE trm_status trmi_sort(trmi_run *r, trmi_value *keys, trmi_value *items, size_t count,
                                  bool reverse);
TRM_MUST_USE trm_status trmi_from_json(trmi_run *r, const json_t *json, trmi_value *out);
TRM_MUST_USE trm_status trmi_filter_tojson(trmi_run *r, trmi_value value, const trmi_call *call,
                                           trmi_value *out);

/* format.c, format_braces.c, clock.c */
TRM_MUST_USE trm_status trmi_format_percent(trmi_run *r, const trmi_string *format, trmi_value args,
                                            trmi_value *out);
TRM_MUST_USE trm_status trmi_format_braces(trmi_run *r, const trmi_string *format,
                                           const trmi_call *call, trmi_value *out);
TRM_MUST_USE trm_status trmi_strftime(trmi_run *r, const trmi_string *format, trmi_value *out);

/* text.c: code points */
int32_t trmi_decode(const char *data, size_t bytes, size_t *length); /* of valid UTF-8 */
bool trmi_is_space(int32_t c);                                       /* str.isspace */
bool trmi_is_alpha(int32_t c);
bool trmi_is_decimal(int32_t c);
bool trmi_is_digit(int32_t c);
bool trmi_is_numeric(int32_t c);
bool trmi_is_upper(int32_t c);
bool trmi_is_lower(int32_t c);
bool trmi_is_title(int32_t c);
bool trmi_is_printable(int32_t c);
typedef enum trmi_case { TRMI_UPPER, TRMI_LOWER, TRMI_TITLE } trmi_case;
TRM_MUST_USE trm_status trmi_append_cased(trmi_run *r, trmi_output *to, const char *data,
                                          size_t bytes, trmi_case to_case);

/* Tables of the files that hold them; a NULL name ends each. */
extern const trmi_filter trmi_filters_text[], trmi_filters_sequence[], trmi_filters_select[];
extern const trmi_function trmi_methods_string[], trmi_methods_string_is[];

#ifdef __cplusplus
}
#endif
#endif
