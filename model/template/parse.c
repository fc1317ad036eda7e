/* Statements, after jinja2.parser. Which names a body speaks of (`loop`, `caller`, `varargs`,
 * `kwargs`) is seen from its tokens. */
#include "model/template/template_impl.h"

#include <stdio.h>
#include <string.h>

#define STATEMENT_NEST_MAX 100

static trm_status parse_statements(trmi_parser *p, const char *const *ends, trmi_body *out);

trm_status trmi_parse_fail(trmi_parser *p, trm_status status, int line, const char *fmt, ...)
{
    char text[256];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (p->t->fail_line == 0)
        p->t->fail_line = line;
    return trm_fail(status, "%s", text);
}

bool trmi_parse_is(const trmi_parser *p, const char *name)
{
    return p->at->kind == TRMI_TOK_NAME && trmi_string_is(p->at->text, name);
}

bool trmi_parse_skip(trmi_parser *p, const char *name)
{
    if (!trmi_parse_is(p, name))
        return false;
    p->at++;
    return true;
}

static const char *token_text(trmi_token_kind kind)
{
    static const char *const names[] = {
        [TRMI_TOK_END] = "the end",
        [TRMI_TOK_DATA] = "text",
        [TRMI_TOK_VARIABLE_BEGIN] = "{{",
        [TRMI_TOK_VARIABLE_END] = "}}",
        [TRMI_TOK_BLOCK_BEGIN] = "{%",
        [TRMI_TOK_BLOCK_END] = "%}",
        [TRMI_TOK_NAME] = "a name",
        [TRMI_TOK_STRING] = "a string",
        [TRMI_TOK_INT] = "an integer",
        [TRMI_TOK_FLOAT] = "a number",
        [TRMI_TOK_ADD] = "+",
        [TRMI_TOK_SUB] = "-",
        [TRMI_TOK_DIV] = "/",
        [TRMI_TOK_FLOORDIV] = "//",
        [TRMI_TOK_MUL] = "*",
        [TRMI_TOK_MOD] = "%",
        [TRMI_TOK_POW] = "**",
        [TRMI_TOK_TILDE] = "~",
        [TRMI_TOK_LBRACKET] = "[",
        [TRMI_TOK_RBRACKET] = "]",
        [TRMI_TOK_LPAREN] = "(",
        [TRMI_TOK_RPAREN] = ")",
        [TRMI_TOK_LBRACE] = "{",
        [TRMI_TOK_RBRACE] = "}",
        [TRMI_TOK_EQ] = "==",
        [TRMI_TOK_NE] = "!=",
        [TRMI_TOK_GT] = ">",
        [TRMI_TOK_GE] = ">=",
        [TRMI_TOK_LT] = "<",
        [TRMI_TOK_LE] = "<=",
        [TRMI_TOK_ASSIGN] = "=",
        [TRMI_TOK_DOT] = ".",
        [TRMI_TOK_COLON] = ":",
        [TRMI_TOK_PIPE] = "|",
        [TRMI_TOK_COMMA] = ",",
        [TRMI_TOK_SEMICOLON] = ";",
        [TRMI_TOK_IN] = "in",
        [TRMI_TOK_NOT_IN] = "not in",
    };

    return names[kind];
}

trm_status trmi_parse_expect(trmi_parser *p, trmi_token_kind kind)
{
    if (p->at->kind != kind)
        return trmi_parse_fail(p, TRM_ERR_BAD_FILE, p->at->line, "%s, wanted %s",
                               p->at->kind == TRMI_TOK_NAME ? p->at->text->data
                                                            : token_text(p->at->kind),
                               token_text(kind));
    if (kind != TRMI_TOK_END)
        p->at++;
    return TRM_OK;
}

trm_status trmi_parse_node(trmi_parser *p, trmi_node_kind kind, int line, trmi_node **out)
{
    *out = trm_arena_alloc(p->t->arena, 1, sizeof(**out));
    if (*out == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "chat template");
    (*out)->kind = kind;
    (*out)->line = line;
    (*out)->depth = 1;
    return TRM_OK;
}

trm_status trmi_parse_push(trmi_parser *p, trmi_node ***items, size_t *count, trmi_node *item)
{
    if ((*count & (*count - 1)) == 0) { /* full: room is a power of two */
        trmi_node **grown =
            trm_arena_alloc(p->t->arena, *count == 0 ? 1 : *count * 2, sizeof(*grown));

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "chat template");
        if (*count > 0)
            memcpy(grown, *items, *count * sizeof(*grown));
        *items = grown;
    }
    (*items)[(*count)++] = item;
    return TRM_OK;
}

trm_status trmi_parse_own(trmi_parser *p, trmi_node *parent, const trmi_node *child)
{
    if (child->depth >= parent->depth)
        parent->depth = child->depth + 1;
    if (parent->depth > TRMI_TEMPLATE_TREE_MAX)
        return trmi_parse_fail(p, TRM_ERR_UNSUPPORTED, parent->line,
                               "an expression or block has more than %d levels",
                               TRMI_TEMPLATE_TREE_MAX);
    return TRM_OK;
}

static trm_status own(trmi_parser *p, trmi_node *parent, trmi_node **slot, trmi_node *child)
{
    *slot = child;
    return trmi_parse_own(p, parent, child);
}

/* Body number n->bodies[which], up to one of `ends`, which is not stepped over. */
static trm_status parse_body(trmi_parser *p, trmi_node *n, size_t which, const char *const *ends)
{
    trmi_body body;

    if (p->at->kind == TRMI_TOK_COLON)
        p->at++;
    TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_BLOCK_END));
    TRM_CHECK(parse_statements(p, ends, &body));
    n->bodies[which] = body;
    for (size_t i = 0; i < body.count; i++)
        TRM_CHECK(trmi_parse_own(p, n, body.nodes[i]));
    return TRM_OK;
}

static trm_status make_bodies(trmi_parser *p, trmi_node *n, size_t count)
{
    n->bodies = trm_arena_alloc(p->t->arena, count, sizeof(*n->bodies));
    return n->bodies == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "chat template") : TRM_OK;
}

/* One body up to `end`, which is stepped over. */
static trm_status parse_only_body(trmi_parser *p, trmi_node *n, const char *end)
{
    const char *ends[] = {end, NULL};

    TRM_CHECK(make_bodies(p, n, 1));
    TRM_CHECK(parse_body(p, n, 0, ends));
    p->at++;
    return TRM_OK;
}

/* Does a token between the two name it (and not an attribute of that name)? */
static bool speaks_of(const trmi_token *from, const trmi_token *to, const char *name)
{
    for (const trmi_token *t = from; t < to; t++)
        if (t->kind == TRMI_TOK_NAME && trmi_string_is(t->text, name) &&
            (t == from || t[-1].kind != TRMI_TOK_DOT))
            return true;
    return false;
}

static trm_status parse_if(trmi_parser *p, trmi_node *n)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    static const char *const end[] = {"endif", NULL};
    trmi_body *bodies = NULL;
    size_t count = 0;
    trmi_node *cond;

    for (;;) {
        TRM_CHECK(trmi_parse_tuple(p, false, NULL, false, &cond));
        TRM_CHECK(trmi_parse_push(p, &n->items, &n->count, cond));
        TRM_CHECK(trmi_parse_own(p, n, cond));
        if ((count & (count - 1)) == 0) { /* with room for else */
            bodies = n->bodies;
            TRM_CHECK(make_bodies(p, n, count == 0 ? 2 : count * 2 + 1));
            if (count > 0)
                memcpy(n->bodies, bodies, count * sizeof(*bodies));
        }
        p->conditions += count == 0;
        TRM_CHECK(parse_body(p, n, count++, ends));
        if (trmi_parse_skip(p, "elif"))
            continue;
        if (trmi_parse_skip(p, "else"))
            TRM_CHECK(parse_body(p, n, count, end));
        p->at++; /* endif */
        p->conditions--;
        return TRM_OK;
    }
}

static trm_status parse_for(trmi_parser *p, trmi_node *n)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    static const char *const end[] = {"endfor", NULL};
    trmi_node *part;
    const trmi_token *from;

    TRM_CHECK(trmi_parse_target(p, false, "in", &part));
    TRM_CHECK(own(p, n, &n->a, part));
    if (!trmi_parse_skip(p, "in"))
        return trmi_parse_fail(p, TRM_ERR_BAD_FILE, p->at->line, "for without in");
    TRM_CHECK(trmi_parse_tuple(p, false, "recursive", false, &part));
    TRM_CHECK(own(p, n, &n->b, part));
    if (trmi_parse_skip(p, "if")) {
        TRM_CHECK(trmi_parse_expression(p, &part));
        TRM_CHECK(own(p, n, &n->c, part));
    }
    n->flag = trmi_parse_skip(p, "recursive");
    TRM_CHECK(make_bodies(p, n, 2));
    from = p->at;
    p->loops++;
    TRM_CHECK(parse_body(p, n, 0, ends));
    p->loops--;
    n->uses_loop = n->flag || speaks_of(from, p->at, "loop");
    if (trmi_parse_skip(p, "else"))
        TRM_CHECK(parse_body(p, n, 1, end));
    p->at++; /* endfor */
    return TRM_OK;
}

static trm_status parse_set(trmi_parser *p, trmi_node *n)
{
    trmi_node *part;

    TRM_CHECK(trmi_parse_target(p, true, NULL, &part));
    TRM_CHECK(own(p, n, &n->a, part));
    if (p->at->kind == TRMI_TOK_ASSIGN) {
        p->at++;
        TRM_CHECK(trmi_parse_tuple(p, true, NULL, false, &part));
        return own(p, n, &n->b, part);
    }
    n->kind = TRMI_N_SET_BLOCK;
    TRM_CHECK(trmi_parse_filter(p, NULL, false, &part));
    if (part != NULL)
        TRM_CHECK(own(p, n, &n->b, part));
    return parse_only_body(p, n, "endset");
}

/* items: parameters and defaults (NULL: none) in turn */
static trm_status parse_signature(trmi_parser *p, trmi_node *n)
{
    bool defaults = false;

    TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_LPAREN));
    while (p->at->kind != TRMI_TOK_RPAREN) {
        trmi_node *name, *value = NULL;

        if (n->count > 0)
            TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_COMMA));
        TRM_CHECK(trmi_parse_node(p, TRMI_N_NAME, p->at->line, &name));
        name->text = p->at->text;
        TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_NAME));
        if (p->at->kind == TRMI_TOK_ASSIGN) {
            p->at++;
            TRM_CHECK(trmi_parse_expression(p, &value));
            TRM_CHECK(trmi_parse_own(p, n, value));
            defaults = true;
        } else if (defaults) {
            return trmi_parse_fail(p, TRM_ERR_BAD_FILE, p->at->line,
                                   "a parameter without a default after one with");
        }
        TRM_CHECK(trmi_parse_push(p, &n->items, &n->count, name));
        TRM_CHECK(trmi_parse_push(p, &n->items, &n->count, value));
    }
    p->at++;
    return TRM_OK;
}

static trm_status parse_macro_body(trmi_parser *p, trmi_node *n, const char *end)
{
    const trmi_token *from = p->at;
    int loops = p->loops;
    bool *const takes[] = {&n->takes_caller, &n->takes_varargs, &n->takes_kwargs};
    static const char *const names[] = {"caller", "varargs", "kwargs"};

    p->loops = 0; /* break does not leave a macro */
    TRM_CHECK(parse_only_body(p, n, end));
    p->loops = loops;
    for (int i = 0; i < 3; i++) {
        *takes[i] = speaks_of(from, p->at, names[i]);
        for (size_t k = 0; k < n->count; k += 2)
            if (trmi_string_is(n->items[k]->text, names[i]))
                *takes[i] = false; /* an ordinary parameter */
    }
    return TRM_OK;
}

static trm_status parse_macro(trmi_parser *p, trmi_node *n)
{
    n->text = p->at->text;
    TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_NAME));
    TRM_CHECK(parse_signature(p, n));
    return parse_macro_body(p, n, "endmacro");
}

static trm_status parse_call_block(trmi_parser *p, trmi_node *n)
{
    trmi_node *call;

    if (p->at->kind == TRMI_TOK_LPAREN)
        TRM_CHECK(parse_signature(p, n));
    TRM_CHECK(trmi_parse_expression(p, &call));
    if (call->kind != TRMI_N_CALL)
        return trmi_parse_fail(p, TRM_ERR_BAD_FILE, n->line, "call without a call");
    TRM_CHECK(own(p, n, &n->a, call));
    return parse_macro_body(p, n, "endcall");
}

static trm_status parse_filter_block(trmi_parser *p, trmi_node *n)
{
    trmi_node *filter;

    TRM_CHECK(trmi_parse_filter(p, NULL, true, &filter));
    TRM_CHECK(own(p, n, &n->b, filter));
    return parse_only_body(p, n, "endfilter");
}

static trm_status parse_with(trmi_parser *p, trmi_node *n)
{
    while (p->at->kind != TRMI_TOK_BLOCK_END) {
        trmi_node *part;

        if (n->count > 0)
            TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_COMMA));
        TRM_CHECK(trmi_parse_target(p, false, NULL, &part));
        TRM_CHECK(trmi_parse_push(p, &n->items, &n->count, part));
        TRM_CHECK(trmi_parse_own(p, n, part));
        TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_ASSIGN));
        TRM_CHECK(trmi_parse_expression(p, &part));
        TRM_CHECK(trmi_parse_push(p, &n->items, &n->count, part));
        TRM_CHECK(trmi_parse_own(p, n, part));
    }
    return parse_only_body(p, n, "endwith");
}

static trm_status parse_print(trmi_parser *p, trmi_node *n)
{
    trmi_node *part;

    while (p->at->kind != TRMI_TOK_BLOCK_END) {
        if (n->count > 0)
            TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_COMMA));
        TRM_CHECK(trmi_parse_expression(p, &part));
        TRM_CHECK(trmi_parse_push(p, &n->items, &n->count, part));
        TRM_CHECK(trmi_parse_own(p, n, part));
    }
    return TRM_OK;
}

static trm_status parse_generation(trmi_parser *p, trmi_node *n)
{
    int loops = p->loops;
    trm_status st;

    p->loops = 0; /* the block is a call's body */
    st = parse_only_body(p, n, "endgeneration");
    p->loops = loops;
    return st;
}

static trm_status parse_jump(trmi_parser *p, trmi_node *n)
{
    if (p->loops == 0)
        return trmi_parse_fail(p, TRM_ERR_BAD_FILE, n->line, "%s outside of a loop",
                               n->kind == TRMI_N_BREAK ? "break" : "continue");
    return TRM_OK;
}

static trm_status parse_statement(trmi_parser *p, trmi_node **out)
{
    static const struct {
        const char *name;
        trmi_node_kind kind;
        trm_status (*parse)(trmi_parser *p, trmi_node *n);
    } statements[] = {
        {"if", TRMI_N_IF, parse_if},
        {"for", TRMI_N_FOR, parse_for},
        {"set", TRMI_N_SET, parse_set},
        {"macro", TRMI_N_MACRO, parse_macro},
        {"call", TRMI_N_CALL_BLOCK, parse_call_block},
        {"filter", TRMI_N_FILTER_BLOCK, parse_filter_block},
        {"with", TRMI_N_WITH, parse_with},
        {"print", TRMI_N_PRINT, parse_print},
        {"generation", TRMI_N_GENERATION, parse_generation},
        {"break", TRMI_N_BREAK, parse_jump},
        {"continue", TRMI_N_CONTINUE, parse_jump},
    };
    static const char *const others[] = {"block", "extends",    "include", "import",
                                         "from",  "autoescape", "do",      "trans"};
    const trmi_token *t = p->at;

    TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_NAME));
    for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++) {
        if (!trmi_string_is(t->text, statements[i].name))
            continue;
        TRM_CHECK(trmi_parse_node(p, statements[i].kind, t->line, out));
        return statements[i].parse(p, *out);
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (trmi_string_is(t->text, others[i]))
            return trmi_parse_fail(p, TRM_ERR_UNSUPPORTED, t->line,
                                   "statement '%s' is not one that chat templates may use",
                                   others[i]);
    return trmi_parse_fail(p, TRM_ERR_BAD_FILE, t->line, "no statement '%s'%s", t->text->data,
                           strncmp(t->text->data, "end", 3) == 0 || trmi_string_is(t->text, "else")
                               ? " is open here"
                               : "");
}

static bool at_end(const trmi_parser *p, const char *const *ends)
{
    for (; ends != NULL && *ends != NULL; ends++)
        if (trmi_parse_is(p, *ends))
            return true;
    return false;
}

static trm_status parse_statements(trmi_parser *p, const char *const *ends, trmi_body *out)
{
    trmi_body body = {NULL, 0};
    const trmi_token *begin = p->at;

    if (++p->nodes > STATEMENT_NEST_MAX)
        return trmi_parse_fail(p, TRM_ERR_UNSUPPORTED, begin->line,
                               "statements nest more than %d deep", STATEMENT_NEST_MAX);
    while (p->at->kind != TRMI_TOK_END) {
        trmi_node *n = NULL, *part;
        const trmi_token *t = p->at++;

        if (t->kind == TRMI_TOK_DATA) {
            TRM_CHECK(trmi_parse_node(p, TRMI_N_DATA, t->line, &n));
            n->text = t->text;
        } else if (t->kind == TRMI_TOK_VARIABLE_BEGIN) {
            TRM_CHECK(trmi_parse_node(p, TRMI_N_PRINT, t->line, &n));
            TRM_CHECK(trmi_parse_tuple(p, true, NULL, false, &part));
            TRM_CHECK(trmi_parse_push(p, &n->items, &n->count, part));
            TRM_CHECK(trmi_parse_own(p, n, part));
            TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_VARIABLE_END));
        } else {
            if (at_end(p, ends)) {
                p->nodes--;
                *out = body;
                return TRM_OK;
            }
            TRM_CHECK(parse_statement(p, &n));
            TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_BLOCK_END));
        }
        TRM_CHECK(trmi_parse_push(p, &body.nodes, &body.count, n));
    }
    if (ends != NULL)
        return trmi_parse_fail(p, TRM_ERR_BAD_FILE, begin[-1].line,
                               "a block that begins here does not end: wanted '%s'",
                               ends[1] == NULL   ? ends[0]
                               : ends[2] == NULL ? ends[1]
                                                 : ends[2]);
    p->nodes--;
    *out = body;
    return TRM_OK;
}

trm_status trmi_template_parse(trm_template *t)
{
    trmi_parser p = {.t = t, .at = t->tokens};

    return parse_statements(&p, NULL, &t->body);
}
