/* libFuzzer: any bytes as YAML, bound to a table with every type of row. */
#include "base/config.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

typedef struct inner {
    bool b;
    double f;
    const char *s;
} inner;
typedef struct outer {
    int64_t i, bytes, us;
    int choice;
    const inner *m;
    trm_config_list l, n;
    const trm_config_node *x;
} outer;

static const trm_config_row inner_rows[] = {
    {.name = "b", .type = TRM_CONFIG_BOOL, .offset = offsetof(inner, b)},
    {.name = "f", .type = TRM_CONFIG_FLOAT, .offset = offsetof(inner, f), .max = 9},
    {.name = "s", .type = TRM_CONFIG_STRING, .offset = offsetof(inner, s)},
};
static const trm_config_section inner_section = {"inner", sizeof(inner), inner_rows, 3};
static const trm_config_row outer_rows[] = {
    {.name = "i", .type = TRM_CONFIG_INT, .offset = offsetof(outer, i), .choices = "auto"},
    {.name = "z", .type = TRM_CONFIG_BYTES, .offset = offsetof(outer, bytes)},
    {.name = "d", .type = TRM_CONFIG_DURATION, .offset = offsetof(outer, us)},
    {.name = "c", .type = TRM_CONFIG_CHOICE, .offset = offsetof(outer, choice), .choices = "u|v"},
    {.name = "m", .type = TRM_CONFIG_MAP, .offset = offsetof(outer, m), .section = &inner_section},
    {.name = "l",
     .type = TRM_CONFIG_LIST,
     .offset = offsetof(outer, l),
     .item = TRM_CONFIG_FLOAT,
     .flags = TRM_CONFIG_ONE_OK},
    {.name = "n",
     .type = TRM_CONFIG_LIST,
     .offset = offsetof(outer, n),
     .item = TRM_CONFIG_MAP,
     .section = &inner_section},
    {.name = "x", .type = TRM_CONFIG_NODE, .offset = offsetof(outer, x)},
};
static const trm_config_section outer_section = {"outer", sizeof(outer), outer_rows, 8};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    trm_config *c;

    if (trm_config_parse((const char *)data, bytes, "fuzz", &outer_section, &c) == TRM_OK) {
        (void)trm_config_find(c, "m.b");
        (void)trm_config_find(c, "n.1.s");
        trm_config_destroy(c);
    }
    return 0;
}
