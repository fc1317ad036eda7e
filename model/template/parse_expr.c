/* Expressions: the grammar of jinja2.parser, by descent. Nesting is counted in trmi_parser.depth.
 */
#include "model/template/template_impl.h"

#include <string.h>

#define NEST_MAX 150 /* a level of parentheses is some ten frames */

static trm_status parse_unary(trmi_parser *p, bool with_filter, trmi_node **out);
static trm_status parse_or(trmi_parser *p, trmi_node **out);
static trm_status parse_postfix(trmi_parser *p, trmi_node **node);

static trm_status deeper(trmi_parser *p)
{
    if (++p->depth > NEST_MAX)
        return trmi_parse_fail(p, TRM_ERR_UNSUPPORTED, p->at->line,
                               "expressions nest more than %d deep", NEST_MAX);
    return TRM_OK;
}

static trm_status set_child(trmi_parser *p, trmi_node *parent, trmi_node **slot, trmi_node *child)
{
    *slot = child;
    return trmi_parse_own(p, parent, child);
}

static trm_status push_child(trmi_parser *p, trmi_node *parent, trmi_node *child)
{
    TRM_CHECK(trmi_parse_push(p, &parent->items, &parent->count, child));
    return trmi_parse_own(p, parent, child);
}

static trm_status make_binary(trmi_parser *p, trmi_node_kind kind, int op, int line, trmi_node *a,
                              trmi_node *b, trmi_node **out)
{
    trmi_node *n;

    TRM_CHECK(trmi_parse_node(p, kind, line, &n));
    n->op = op;
    TRM_CHECK(set_child(p, n, &n->a, a));
    TRM_CHECK(set_child(p, n, &n->b, b));
    *out = n;
    return TRM_OK;
}

static trm_status make_const(trmi_parser *p, int line, trmi_value value, trmi_node **out)
{
    TRM_CHECK(trmi_parse_node(p, TRMI_N_CONST, line, out));
    (*out)->value = value;
    return TRM_OK;
}

static trm_status parse_sequence(trmi_parser *p, trmi_node_kind kind, trmi_token_kind close,
                                 trmi_node **out)
{
    trmi_node *n, *item;

    TRM_CHECK(trmi_parse_node(p, kind, p->at->line, &n));
    p->at++;
    while (p->at->kind != close) {
        if (n->count > 0)
            TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_COMMA));
        if (p->at->kind == close)
            break;
        TRM_CHECK(trmi_parse_expression(p, &item));
        TRM_CHECK(push_child(p, n, item));
        if (kind == TRMI_N_DICT) {
            TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_COLON));
            TRM_CHECK(trmi_parse_expression(p, &item));
            TRM_CHECK(push_child(p, n, item));
        }
    }
    p->at++;
    *out = n;
    return TRM_OK;
}

static trm_status parse_strings(trmi_parser *p, trmi_node **out)
{
    trmi_string *s = p->at->text;
    trmi_value value;
    size_t bytes = 0, n = 0;
    char *data;
    int line = p->at->line;

    for (const trmi_token *t = p->at; t->kind == TRMI_TOK_STRING; t++, n++)
        bytes += t->text->bytes;
    if (n > 1) {
        size_t at = 0, chars = 0;

        s = trm_arena_alloc(p->t->arena, 1, sizeof(*s));
        data = trm_arena_alloc(p->t->arena, bytes + 1, 1);
        if (s == NULL || data == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "chat template");
        for (size_t i = 0; i < n; i++) {
            memcpy(data + at, p->at[i].text->data, p->at[i].text->bytes);
            at += p->at[i].text->bytes;
            chars += p->at[i].text->chars;
        }
        s->data = data;
        s->bytes = bytes;
        s->chars = chars;
    }
    p->at += n;
    value.kind = TRMI_V_STRING;
    value.as.string = s;
    return make_const(p, line, value, out);
}

static trm_status parse_name(trmi_parser *p, bool namespaces, trmi_node **out)
{
    static const struct {
        const char *name;
        int what;
    } constants[] = {{"true", 1}, {"True", 1}, {"false", 0}, {"False", 0},
                     {"none", 2}, {"None", 2}, {NULL, 0}};
    const trmi_token *t = p->at++;

    for (int i = 0; constants[i].name != NULL; i++)
        if (trmi_string_is(t->text, constants[i].name))
            return make_const(p, t->line,
                              constants[i].what == 2 ? trmi_none() : trmi_bool(constants[i].what),
                              out);
    if (namespaces && p->at->kind == TRMI_TOK_DOT) {
        p->at++;
        TRM_CHECK(trmi_parse_node(p, TRMI_N_NAMESPACE_TARGET, t->line, out));
        (*out)->text = t->text;
        (*out)->attribute = p->at->text;
        return trmi_parse_expect(p, TRMI_TOK_NAME);
    }
    TRM_CHECK(trmi_parse_node(p, TRMI_N_NAME, t->line, out));
    (*out)->text = t->text;
    return TRM_OK;
}

static trm_status parse_primary(trmi_parser *p, bool namespaces, trmi_node **out)
{
    const trmi_token *t = p->at;

    switch (t->kind) {
    case TRMI_TOK_NAME:
        return parse_name(p, namespaces, out);
    case TRMI_TOK_STRING:
        return parse_strings(p, out);
    case TRMI_TOK_INT:
        p->at++;
        return make_const(p, t->line, trmi_int(t->integer), out);
    case TRMI_TOK_FLOAT:
        p->at++;
        return make_const(p, t->line, trmi_float(t->real), out);
    case TRMI_TOK_LPAREN:
        p->at++;
        TRM_CHECK(trmi_parse_tuple(p, true, NULL, true, out));
        return trmi_parse_expect(p, TRMI_TOK_RPAREN);
    case TRMI_TOK_LBRACKET:
        return parse_sequence(p, TRMI_N_LIST, TRMI_TOK_RBRACKET, out);
    case TRMI_TOK_LBRACE:
        return parse_sequence(p, TRMI_N_DICT, TRMI_TOK_RBRACE, out);
    default:
        return trmi_parse_fail(p, TRM_ERR_BAD_FILE, t->line, "an expression is missing");
    }
}

static bool is_tuple_end(const trmi_parser *p, const char *end_name)
{
    return p->at->kind == TRMI_TOK_VARIABLE_END || p->at->kind == TRMI_TOK_BLOCK_END ||
           p->at->kind == TRMI_TOK_RPAREN || (end_name != NULL && trmi_parse_is(p, end_name));
}

static trm_status parse_items(trmi_parser *p, int how, const char *end_name, bool parentheses,
                              trmi_node **out)
{
    trmi_node *tuple, *item = NULL;
    bool is_tuple = false;

    TRM_CHECK(trmi_parse_node(p, TRMI_N_TUPLE, p->at->line, &tuple));
    for (;;) {
        if (tuple->count > 0)
            TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_COMMA));
        if (is_tuple_end(p, end_name))
            break;
        if (how == 2 || how == 3)
            TRM_CHECK(parse_primary(p, how == 3, &item));
        else if (how == 1)
            TRM_CHECK(trmi_parse_expression(p, &item));
        else
            TRM_CHECK(parse_or(p, &item));
        TRM_CHECK(push_child(p, tuple, item));
        if (p->at->kind != TRMI_TOK_COMMA)
            break;
        is_tuple = true;
    }
    if (!is_tuple && item != NULL) {
        *out = item;
        return TRM_OK;
    }
    if (!is_tuple && !parentheses)
        return trmi_parse_fail(p, TRM_ERR_BAD_FILE, p->at->line, "an expression is missing");
    *out = tuple;
    return TRM_OK;
}

trm_status trmi_parse_tuple(trmi_parser *p, bool condexpr, const char *end_name, bool parentheses,
                            trmi_node **out)
{
    return parse_items(p, condexpr ? 1 : 0, end_name, parentheses, out);
}

static trm_status check_target(trmi_parser *p, const trmi_node *n)
{
    if (n->kind == TRMI_N_TUPLE) {
        for (size_t i = 0; i < n->count; i++)
            TRM_CHECK(check_target(p, n->items[i]));
        return TRM_OK;
    }
    if (n->kind == TRMI_N_NAME && trmi_string_is(n->text, "loop"))
        return trmi_parse_fail(p, TRM_ERR_BAD_FILE, n->line, "'loop' cannot be assigned to");
    if (n->kind != TRMI_N_NAME && n->kind != TRMI_N_NAMESPACE_TARGET)
        return trmi_parse_fail(p, TRM_ERR_BAD_FILE, n->line, "this cannot be assigned to");
    return TRM_OK;
}

trm_status trmi_parse_target(trmi_parser *p, bool namespaces, const char *end_name, trmi_node **out)
{
    TRM_CHECK(parse_items(p, namespaces ? 3 : 2, end_name, false, out));
    return check_target(p, *out);
}

static trm_status own_arguments(trmi_parser *p, trmi_node *n)
{
    const trmi_arguments *a = n->arguments;

    for (size_t i = 0; i < a->count; i++)
        TRM_CHECK(trmi_parse_own(p, n, a->items[i]));
    for (size_t i = 0; i < a->keyword_count; i++)
        TRM_CHECK(trmi_parse_own(p, n, a->keywords[i].value));
    if (a->star != NULL)
        TRM_CHECK(trmi_parse_own(p, n, a->star));
    if (a->star_star != NULL)
        TRM_CHECK(trmi_parse_own(p, n, a->star_star));
    return TRM_OK;
}

static trm_status push_keyword(trmi_parser *p, trmi_arguments *a)
{
    trmi_keyword *k = a->keywords;

    if ((a->keyword_count & (a->keyword_count - 1)) == 0) { /* full: room is a power of two */
        k = trm_arena_alloc(p->t->arena, a->keyword_count == 0 ? 1 : a->keyword_count * 2,
                            sizeof(*k));
        if (k == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "chat template");
        if (a->keyword_count > 0)
            memcpy(k, a->keywords, a->keyword_count * sizeof(*k));
        a->keywords = k;
    }
    for (size_t i = 0; i < a->keyword_count; i++)
        if (trmi_string_same(k[i].name, p->at->text))
            return trmi_parse_fail(p, TRM_ERR_BAD_FILE, p->at->line,
                                   "keyword argument '%s' is repeated", p->at->text->data);
    k += a->keyword_count;
    k->name = p->at->text;
    p->at += 2;
    TRM_CHECK(trmi_parse_expression(p, &k->value));
    a->keyword_count++;
    return TRM_OK;
}

trm_status trmi_parse_arguments(trmi_parser *p, trmi_arguments **out)
{
    trmi_arguments *a = trm_arena_alloc(p->t->arena, 1, sizeof(*a));
    int line = p->at->line;
    bool comma = false, ok = true;
    trmi_node *item;

    if (a == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "chat template");
    TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_LPAREN));
    while (p->at->kind != TRMI_TOK_RPAREN && ok) {
        if (comma) {
            TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_COMMA));
            if (p->at->kind == TRMI_TOK_RPAREN)
                break;
        }
        comma = true;
        if (p->at->kind == TRMI_TOK_MUL) {
            ok = a->star == NULL && a->star_star == NULL;
            p->at++;
            TRM_CHECK(trmi_parse_expression(p, &a->star));
        } else if (p->at->kind == TRMI_TOK_POW) {
            ok = a->star_star == NULL;
            p->at++;
            TRM_CHECK(trmi_parse_expression(p, &a->star_star));
        } else if (p->at->kind == TRMI_TOK_NAME && p->at[1].kind == TRMI_TOK_ASSIGN) {
            ok = a->star_star == NULL;
            TRM_CHECK(push_keyword(p, a));
        } else {
            ok = a->star == NULL && a->star_star == NULL && a->keyword_count == 0;
            TRM_CHECK(trmi_parse_expression(p, &item));
            TRM_CHECK(trmi_parse_push(p, &a->items, &a->count, item));
        }
    }
    if (!ok)
        return trmi_parse_fail(p, TRM_ERR_BAD_FILE, line,
                               "arguments of a call: positional ones come first");
    *out = a;
    return trmi_parse_expect(p, TRMI_TOK_RPAREN);
}

static trm_status parse_call(trmi_parser *p, trmi_node **node)
{
    trmi_node *n;

    TRM_CHECK(trmi_parse_node(p, TRMI_N_CALL, p->at->line, &n));
    TRM_CHECK(set_child(p, n, &n->a, *node));
    TRM_CHECK(trmi_parse_arguments(p, &n->arguments));
    *node = n;
    return own_arguments(p, n);
}

static trm_status dotted_name(trmi_parser *p, trmi_string **out)
{
    *out = p->at->text;
    TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_NAME));
    if (p->at->kind == TRMI_TOK_DOT)
        return trmi_parse_fail(p, TRM_ERR_UNSUPPORTED, p->at->line, "no filter or test '%s.%s'",
                               (*out)->data,
                               p->at[1].kind == TRMI_TOK_NAME ? p->at[1].text->data : "");
    return TRM_OK;
}

trm_status trmi_parse_filter(trmi_parser *p, trmi_node *of, bool inline_first, trmi_node **out)
{
    while (p->at->kind == TRMI_TOK_PIPE || inline_first) {
        trmi_string *name;
        trmi_node *n;
        int line;

        if (!inline_first)
            p->at++;
        inline_first = false;
        line = p->at->line;
        TRM_CHECK(dotted_name(p, &name));
        TRM_CHECK(trmi_parse_node(p, TRMI_N_FILTER, line, &n));
        n->filter = trmi_find_filter(name->data, name->bytes);
        n->text = name;
        if ((n->filter == NULL || n->filter->apply == NULL) && p->conditions == 0)
            return trmi_parse_fail(p, TRM_ERR_UNSUPPORTED, line, "no filter '%s'%s", name->data,
                                   n->filter != NULL ? " (Jinja has it, Trireme does not)" : "");
        if (of != NULL)
            TRM_CHECK(set_child(p, n, &n->a, of));
        if (p->at->kind == TRMI_TOK_LPAREN) {
            TRM_CHECK(trmi_parse_arguments(p, &n->arguments));
            TRM_CHECK(own_arguments(p, n));
        }
        of = n;
    }
    *out = of;
    return TRM_OK;
}

static trm_status one_argument(trmi_parser *p, trmi_node *n)
{
    trmi_node *item;
    trmi_arguments *a = trm_arena_alloc(p->t->arena, 1, sizeof(*a));

    if (a == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "chat template");
    TRM_CHECK(parse_primary(p, false, &item));
    TRM_CHECK(parse_postfix(p, &item));
    TRM_CHECK(trmi_parse_push(p, &a->items, &a->count, item));
    n->arguments = a;
    return own_arguments(p, n);
}

static trm_status parse_test(trmi_parser *p, trmi_node **node)
{
    trmi_string *name;
    trmi_node *n;
    int line = p->at->line;
    bool negated;

    p->at++;
    negated = trmi_parse_skip(p, "not");
    TRM_CHECK(dotted_name(p, &name));
    TRM_CHECK(trmi_parse_node(p, TRMI_N_TEST, line, &n));
    TRM_CHECK(set_child(p, n, &n->a, *node));
    n->test = trmi_find_test(name->data, name->bytes);
    n->text = name;
    if (n->test == NULL && p->conditions == 0)
        return trmi_parse_fail(p, TRM_ERR_UNSUPPORTED, line, "no test '%s'", name->data);
    switch (p->at->kind) {
    case TRMI_TOK_LPAREN:
        TRM_CHECK(trmi_parse_arguments(p, &n->arguments));
        TRM_CHECK(own_arguments(p, n));
        break;
    case TRMI_TOK_NAME:
        if (trmi_parse_is(p, "else") || trmi_parse_is(p, "or") || trmi_parse_is(p, "and"))
            break;
        if (trmi_parse_is(p, "is"))
            return trmi_parse_fail(p, TRM_ERR_BAD_FILE, line, "tests cannot be chained");
        TRM_CHECK(one_argument(p, n));
        break;
    case TRMI_TOK_STRING:
    case TRMI_TOK_INT:
    case TRMI_TOK_FLOAT:
    case TRMI_TOK_LBRACKET:
    case TRMI_TOK_LBRACE:
        TRM_CHECK(one_argument(p, n));
        break;
    default:
        break;
    }
    *node = n;
    if (negated) {
        TRM_CHECK(trmi_parse_node(p, TRMI_N_NOT, line, node));
        TRM_CHECK(set_child(p, *node, &(*node)->a, n));
    }
    return TRM_OK;
}

static trm_status parse_slice(trmi_parser *p, trmi_node *first, trmi_node **out)
{
    trmi_node *n, **slots[2];

    TRM_CHECK(trmi_parse_node(p, TRMI_N_SLICE, p->at->line, &n));
    if (first != NULL)
        TRM_CHECK(set_child(p, n, &n->a, first));
    slots[0] = &n->b;
    slots[1] = &n->c;
    for (int i = 0; i < 2 && p->at->kind == TRMI_TOK_COLON; i++) {
        p->at++;
        if (p->at->kind == TRMI_TOK_COLON || p->at->kind == TRMI_TOK_RBRACKET ||
            p->at->kind == TRMI_TOK_COMMA)
            continue;
        TRM_CHECK(trmi_parse_expression(p, slots[i]));
        TRM_CHECK(trmi_parse_own(p, n, *slots[i]));
    }
    *out = n;
    return TRM_OK;
}

static trm_status parse_subscript(trmi_parser *p, trmi_node **node)
{
    trmi_node *n, *key = NULL, *tuple = NULL;
    int line = p->at->line;

    TRM_CHECK(trmi_parse_node(p, TRMI_N_SUBSCRIPT, line, &n));
    TRM_CHECK(set_child(p, n, &n->a, *node));
    p->at++;
    while (p->at->kind != TRMI_TOK_RBRACKET) {
        if (key != NULL) {
            if (tuple == NULL) {
                TRM_CHECK(trmi_parse_node(p, TRMI_N_TUPLE, line, &tuple));
                TRM_CHECK(push_child(p, tuple, key));
            }
            TRM_CHECK(trmi_parse_expect(p, TRMI_TOK_COMMA));
        }
        key = NULL;
        if (p->at->kind != TRMI_TOK_COLON)
            TRM_CHECK(trmi_parse_expression(p, &key));
        if (p->at->kind == TRMI_TOK_COLON)
            TRM_CHECK(parse_slice(p, key, &key));
        if (tuple != NULL)
            TRM_CHECK(push_child(p, tuple, key));
    }
    p->at++;
    if (key == NULL)
        return trmi_parse_fail(p, TRM_ERR_BAD_FILE, line, "[] without a key");
    TRM_CHECK(set_child(p, n, &n->b, tuple != NULL ? tuple : key));
    *node = n;
    return TRM_OK;
}

static trm_status parse_dot(trmi_parser *p, trmi_node **node)
{
    trmi_node *n, *key;
    const trmi_token *t = ++p->at;

    if (t->kind == TRMI_TOK_NAME) {
        TRM_CHECK(trmi_parse_node(p, TRMI_N_ATTRIBUTE, t->line, &n));
        n->text = t->text;
    } else if (t->kind == TRMI_TOK_INT) {
        TRM_CHECK(trmi_parse_node(p, TRMI_N_SUBSCRIPT, t->line, &n));
        TRM_CHECK(make_const(p, t->line, trmi_int(t->integer), &key));
        TRM_CHECK(set_child(p, n, &n->b, key));
    } else {
        return trmi_parse_fail(p, TRM_ERR_BAD_FILE, t->line, "a name or number must follow '.'");
    }
    p->at++;
    TRM_CHECK(set_child(p, n, &n->a, *node));
    *node = n;
    return TRM_OK;
}

static trm_status parse_postfix(trmi_parser *p, trmi_node **node)
{
    for (;;) {
        switch (p->at->kind) {
        case TRMI_TOK_DOT:
            TRM_CHECK(parse_dot(p, node));
            break;
        case TRMI_TOK_LBRACKET:
            TRM_CHECK(parse_subscript(p, node));
            break;
        case TRMI_TOK_LPAREN:
            TRM_CHECK(parse_call(p, node));
            break;
        default:
            return TRM_OK;
        }
    }
}

static trm_status parse_filter_expr(trmi_parser *p, trmi_node **node)
{
    for (;;) {
        if (p->at->kind == TRMI_TOK_PIPE)
            TRM_CHECK(trmi_parse_filter(p, *node, false, node));
        else if (trmi_parse_is(p, "is"))
            TRM_CHECK(parse_test(p, node));
        else if (p->at->kind == TRMI_TOK_LPAREN)
            TRM_CHECK(parse_call(p, node));
        else
            return TRM_OK;
    }
}

static trm_status parse_unary(trmi_parser *p, bool with_filter, trmi_node **out)
{
    trmi_token_kind kind = p->at->kind;

    TRM_CHECK(deeper(p));
    if (kind == TRMI_TOK_SUB || kind == TRMI_TOK_ADD) {
        trmi_node *n, *of;

        TRM_CHECK(trmi_parse_node(p, kind == TRMI_TOK_SUB ? TRMI_N_NEGATIVE : TRMI_N_POSITIVE,
                                  p->at->line, &n));
        p->at++;
        TRM_CHECK(parse_unary(p, false, &of));
        TRM_CHECK(set_child(p, n, &n->a, of));
        *out = n;
    } else {
        TRM_CHECK(parse_primary(p, false, out));
    }
    TRM_CHECK(parse_postfix(p, out));
    if (with_filter)
        TRM_CHECK(parse_filter_expr(p, out));
    p->depth--;
    return TRM_OK;
}

/* Levels of left-associative binary operators, loosest first; `~` stands between them with a node
 * of its own. */
static trm_status parse_power(trmi_parser *p, trmi_node **out)
{
    TRM_CHECK(parse_unary(p, true, out));
    while (p->at->kind == TRMI_TOK_POW) {
        int line = p->at->line;
        trmi_node *right;

        p->at++;
        TRM_CHECK(parse_unary(p, true, &right));
        TRM_CHECK(make_binary(p, TRMI_N_BINARY, TRMI_TOK_POW, line, *out, right, out));
    }
    return TRM_OK;
}

static trm_status parse_product(trmi_parser *p, trmi_node **out)
{
    TRM_CHECK(parse_power(p, out));
    while (p->at->kind == TRMI_TOK_MUL || p->at->kind == TRMI_TOK_DIV ||
           p->at->kind == TRMI_TOK_FLOORDIV || p->at->kind == TRMI_TOK_MOD) {
        const trmi_token *op = p->at++;
        trmi_node *right;

        TRM_CHECK(parse_power(p, &right));
        TRM_CHECK(make_binary(p, TRMI_N_BINARY, (int)op->kind, op->line, *out, right, out));
    }
    return TRM_OK;
}

static trm_status parse_concat(trmi_parser *p, trmi_node **out)
{
    trmi_node *n = NULL, *item;
    int line = p->at->line;

    TRM_CHECK(parse_product(p, out));
    while (p->at->kind == TRMI_TOK_TILDE) {
        if (n == NULL) {
            TRM_CHECK(trmi_parse_node(p, TRMI_N_CONCAT, line, &n));
            TRM_CHECK(push_child(p, n, *out));
        }
        p->at++;
        TRM_CHECK(parse_product(p, &item));
        TRM_CHECK(push_child(p, n, item));
        *out = n;
    }
    return TRM_OK;
}

static trm_status parse_sum(trmi_parser *p, trmi_node **out)
{
    TRM_CHECK(parse_concat(p, out));
    while (p->at->kind == TRMI_TOK_ADD || p->at->kind == TRMI_TOK_SUB) {
        const trmi_token *op = p->at++;
        trmi_node *right;

        TRM_CHECK(parse_concat(p, &right));
        TRM_CHECK(make_binary(p, TRMI_N_BINARY, (int)op->kind, op->line, *out, right, out));
    }
    return TRM_OK;
}

static int compare_operator(trmi_parser *p)
{
    const trmi_token *t = p->at;

    if (t->kind >= TRMI_TOK_EQ && t->kind <= TRMI_TOK_LE) {
        p->at++;
        return (int)t->kind;
    }
    if (trmi_parse_skip(p, "in"))
        return TRMI_TOK_IN;
    if (trmi_parse_is(p, "not") && t[1].kind == TRMI_TOK_NAME && trmi_string_is(t[1].text, "in")) {
        p->at += 2;
        return TRMI_TOK_NOT_IN;
    }
    return 0;
}

static trm_status parse_compare(trmi_parser *p, trmi_node **out)
{
    trmi_node *n = NULL, *item;
    int line = p->at->line, op;

    TRM_CHECK(parse_sum(p, out));
    while ((op = compare_operator(p)) != 0) {
        if (n == NULL) {
            TRM_CHECK(trmi_parse_node(p, TRMI_N_COMPARE, line, &n));
            TRM_CHECK(set_child(p, n, &n->a, *out));
            *out = n;
        }
        TRM_CHECK(parse_sum(p, &item));
        if ((n->count & (n->count - 1)) == 0) {
            int *ops = trm_arena_alloc(p->t->arena, n->count == 0 ? 1 : n->count * 2, sizeof(*ops));

            if (ops == NULL)
                return trm_fail(TRM_ERR_NO_MEMORY, "chat template");
            if (n->count > 0)
                memcpy(ops, n->ops, n->count * sizeof(*ops));
            n->ops = ops;
        }
        n->ops[n->count] = op;
        TRM_CHECK(push_child(p, n, item));
    }
    return TRM_OK;
}

static trm_status parse_not(trmi_parser *p, trmi_node **out)
{
    trmi_node *n, *of;

    if (!trmi_parse_is(p, "not"))
        return parse_compare(p, out);
    TRM_CHECK(deeper(p));
    TRM_CHECK(trmi_parse_node(p, TRMI_N_NOT, p->at->line, &n));
    p->at++;
    TRM_CHECK(parse_not(p, &of));
    TRM_CHECK(set_child(p, n, &n->a, of));
    *out = n;
    p->depth--;
    return TRM_OK;
}

static trm_status parse_and(trmi_parser *p, trmi_node **out)
{
    trmi_node *right;
    int line = p->at->line;

    TRM_CHECK(parse_not(p, out));
    while (trmi_parse_skip(p, "and")) {
        TRM_CHECK(parse_not(p, &right));
        TRM_CHECK(make_binary(p, TRMI_N_AND, 0, line, *out, right, out));
    }
    return TRM_OK;
}

static trm_status parse_or(trmi_parser *p, trmi_node **out)
{
    trmi_node *right;
    int line = p->at->line;

    TRM_CHECK(parse_and(p, out));
    while (trmi_parse_skip(p, "or")) {
        TRM_CHECK(parse_and(p, &right));
        TRM_CHECK(make_binary(p, TRMI_N_OR, 0, line, *out, right, out));
    }
    return TRM_OK;
}

trm_status trmi_parse_expression(trmi_parser *p, trmi_node **out)
{
    trmi_node *n, *part;
    int line = p->at->line;

    TRM_CHECK(deeper(p));
    TRM_CHECK(parse_or(p, out));
    while (trmi_parse_skip(p, "if")) {
        TRM_CHECK(trmi_parse_node(p, TRMI_N_TERNARY, line, &n));
        TRM_CHECK(set_child(p, n, &n->a, *out));
        TRM_CHECK(parse_or(p, &part));
        TRM_CHECK(set_child(p, n, &n->b, part));
        if (trmi_parse_skip(p, "else")) {
            TRM_CHECK(trmi_parse_expression(p, &part));
            TRM_CHECK(set_child(p, n, &n->c, part));
        }
        *out = n;
    }
    p->depth--;
    return TRM_OK;
}
