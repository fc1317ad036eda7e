/* Methods of dicts, lists, tuples and cyclers, and where methods are looked up. What would change a
 * value is refused by the sandbox (access.c). */
#include "model/template/template_impl.h"

static trm_status view(trmi_run *r, trmi_value self, const trmi_call *call, int what,
                       trmi_value *out)
{
    trmi_view *v;
    void *block;

    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    TRM_CHECK(trmi_alloc(r, 1, sizeof(*v), &block));
    v = block;
    v->dict = self.as.dict;
    v->what = what;
    out->kind = TRMI_V_VIEW;
    out->as.view = v;
    return TRM_OK;
}

static trm_status keys(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return view(r, self, call, 'k', out);
}

static trm_status values(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return view(r, self, call, 'v', out);
}

static trm_status items(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return view(r, self, call, 'i', out);
}

static trm_status get(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    trmi_value args[2], *found;

    if (call->keyword_count > 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "get() takes no keyword arguments");
    TRM_CHECK(trmi_template_bind(r, call, "key default", 1, args));
    TRM_CHECK(trmi_dict_find(r, self.as.dict, args[0], &found));
    *out = found != NULL ? *found : args[1].kind == TRMI_V_ABSENT ? trmi_none() : args[1];
    return TRM_OK;
}

static trm_status copy_dict(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    (void)r;
    *out = self; /* nobody can change either */
    return TRM_OK;
}

static trm_status fromkeys(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    trmi_value args[2], list;

    (void)self;
    TRM_CHECK(trmi_template_bind(r, call, "iterable value", 1, args));
    if (args[1].kind == TRMI_V_ABSENT)
        args[1] = trmi_none();
    TRM_CHECK(trmi_to_list(r, args[0], TRMI_V_LIST, &list));
    TRM_CHECK(trmi_make_dict(r, TRMI_V_DICT, out));
    for (size_t i = 0; i < list.as.list->count; i++)
        TRM_CHECK(trmi_dict_put(r, out->as.dict, list.as.list->items[i], args[1]));
    return TRM_OK;
}

static trm_status list_count(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    trmi_value what;
    int64_t n = 0;

    TRM_CHECK(trmi_template_bind(r, call, "value", 1, &what));
    for (size_t i = 0; i < self.as.list->count; i++) {
        bool same = false;

        TRM_CHECK(trmi_equal(r, self.as.list->items[i], what, &same));
        n += same;
    }
    *out = trmi_int(n);
    return trmi_charge(r, self.as.list->count);
}

static trm_status list_index(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    trmi_value args[3];
    int64_t n = (int64_t)self.as.list->count, bounds[2] = {0, n};

    TRM_CHECK(trmi_template_bind(r, call, "value start stop", 1, args));
    for (int i = 0; i < 2; i++) {
        if (args[1 + i].kind == TRMI_V_ABSENT)
            continue;
        if (!trmi_is_int(args[1 + i]))
            return trm_fail(TRM_ERR_INVALID_ARG, "index: a position is an integer");
        bounds[i] = trmi_as_int(args[1 + i]);
        if (bounds[i] < 0)
            bounds[i] = bounds[i] + n < 0 ? 0 : bounds[i] + n;
    }
    for (int64_t i = bounds[0]; i < bounds[1] && i < n; i++) {
        bool same = false;

        TRM_CHECK(trmi_charge(r, 1));
        TRM_CHECK(trmi_equal(r, self.as.list->items[i], args[0], &same));
        if (same) {
            *out = trmi_int(i);
            return TRM_OK;
        }
    }
    return trm_fail(TRM_ERR_INVALID_ARG, "the value is not in the %s", trmi_type_name(self));
}

static trm_status cycler_next(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    trmi_cycler *c = self.as.cycler;

    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    *out = c->items->items[c->at];
    c->at = (c->at + 1) % c->items->count;
    return TRM_OK;
}

static trm_status cycler_reset(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    self.as.cycler->at = 0;
    *out = trmi_none();
    return TRM_OK;
}

static const trmi_function *find(const trmi_function *table, const trmi_string *name)
{
    for (; table->name != NULL; table++)
        if (trmi_string_is(name, table->name))
            return table;
    return NULL;
}

const trmi_function *trmi_find_method(trmi_value of, const trmi_string *name)
{
    static const trmi_function of_dict[] = {
        {"keys", keys},      {"values", values},     {"items", items}, {"get", get},
        {"copy", copy_dict}, {"fromkeys", fromkeys}, {NULL, NULL},
    };
    static const trmi_function of_list[] = {
        {"count", list_count}, {"index", list_index}, {"copy", copy_dict}, {NULL, NULL}};
    static const trmi_function of_tuple[] = {
        {"count", list_count}, {"index", list_index}, {NULL, NULL}};
    static const trmi_function of_cycler[] = {
        {"next", cycler_next}, {"reset", cycler_reset}, {NULL, NULL}};
    static const trmi_function of_dict_class[] = {{"fromkeys", fromkeys}, {NULL, NULL}};
    static const trmi_function of_int[] = {/* attributes of numbers that nobody asks for */
                                           {"bit_length", NULL},
                                           {"to_bytes", NULL},
                                           {"as_integer_ratio", NULL},
                                           {NULL, NULL}};
    static const trmi_function of_float[] = {
        {"is_integer", NULL}, {"hex", NULL}, {"as_integer_ratio", NULL}, {NULL, NULL}};
    const trmi_function *found;

    switch (of.kind) {
    case TRMI_V_STRING:
        found = find(trmi_methods_string, name);
        return found != NULL ? found : find(trmi_methods_string_is, name);
    case TRMI_V_DICT:
        return find(of_dict, name);
    case TRMI_V_LIST:
        return find(of_list, name);
    case TRMI_V_TUPLE:
        return find(of_tuple, name);
    case TRMI_V_CYCLER:
        return find(of_cycler, name);
    case TRMI_V_FUNCTION:
        return trmi_string_is(name, "fromkeys") && of.as.function->name[0] == 'd'
                   ? find(of_dict_class, name)
                   : NULL;
    case TRMI_V_INT:
    case TRMI_V_BOOL:
        return find(of_int, name);
    case TRMI_V_FLOAT:
        return find(of_float, name);
    default:
        return NULL;
    }
}
