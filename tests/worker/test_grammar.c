/* Schemas and other constraints: which texts they take, which they do not, and what is refused. */
#include "tests/worker/grammar_kit.h"

#define S(schema) "{\"type\": \"json_schema\", \"schema\": " schema "}"

static const struct {
    const char *name, *what;
    const char *takes[12], *refuses[14];
} cases[] = {
    {"any object",
     "{\"type\": \"json_object\"}",
     {"{}", "{\"a\": 1}", "{\"a\":[1,2,{\"b\":null}],\"c\":\"\\u00e9\\n\"}", "{\n  \"a\": true\n}",
      "{ \"a\":-1.5e-3 }"},
     {"", "[]", "1", "{", "{}}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", " {}", "{} ",
      "{  \"a\":1}", "{\"a\":01}"}},
    {"any value",
     S("{}"),
     {"1", "\"x\"", "null", "true", "[]", "{}", "[[],{}]", "-0", "0.5", "1e5", "1E+5"},
     {"", "nul", "tru", "01", "1.", ".5", "+1", "1e", "'x'", "\"", "--1", "1e123"}},
    {"true is any", S("true"), {"1", "{\"a\":{}}"}, {"x"}},
    {"strings",
     S("{\"type\": \"string\"}"),
     {"\"\"", "\"a b\"", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\u0001\\uD83D\\uDE00\\uffff\"",
      "\"\xc3\xa9\xe4\xb8\x96\xf0\x9f\x98\x80\"", "\"\x7f\"", "\"\\ud7ff\\ue000\\u00e9\\u0100\""},
     {"\"\n\"", "\"\t\"", "\"\\x\"", "\"\\u12\"", "\"\\ud800\"", "\"\\udc00\"",
      "\"\\ud83d\\u0041\"", "\"\\u0000\"", "\"\xc3\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"",
      "\"\xf4\x90\x80\x80\"", "\"\xff\""}},
    {"lengths",
     S("{\"type\": \"string\", \"minLength\": 2, \"maxLength\": 3}"),
     {"\"ab\"", "\"abc\"", "\"\xe4\xb8\x96\xf0\x9f\x98\x80\"", "\"\\n\\u0041\"",
      "\"\\ud83d\\ude00xy\""},
     {"\"\"", "\"a\"", "\"abcd\"", "\"\xe4\xb8\x96\"", "\"\\ud83d\\ude00\""}},
    {"least length",
     S("{\"type\": \"string\", \"minLength\": 2}"),
     {"\"ab\"", "\"abcdefghijk\"", "\"\\n\\\"\\n\""},
     {"\"\"", "\"a\""}},
    {"no length", S("{\"type\": \"string\", \"maxLength\": 0}"), {"\"\""}, {"\"a\""}},
    {"integers",
     S("{\"type\": \"integer\"}"),
     {"0", "-1", "123456789012345678", "-0"},
     {"1.5", "1e3", "01", "1234567890123456789", "-", "1.0"}},
    {"range",
     S("{\"type\": \"integer\", \"minimum\": 5, \"maximum\": 120}"),
     {"5", "9", "10", "99", "100", "119", "120"},
     {"4", "0", "121", "-5", "05", "1000", "200"}},
    {"negative range",
     S("{\"type\": \"integer\", \"minimum\": -12, \"maximum\": -3}"),
     {"-3", "-12", "-9", "-10"},
     {"-2", "-13", "3", "0", "-20", "-0"}},
    {"range over zero",
     S("{\"type\": \"integer\", \"exclusiveMinimum\": -3, \"exclusiveMaximum\": 11}"),
     {"-2", "-1", "0", "10", "9"},
     {"-3", "11", "-0", "-10", "12"}},
    {"at least",
     S("{\"type\": \"integer\", \"minimum\": 42}"),
     {"42", "43", "99", "100", "100000000000000000"},
     {"41", "9", "-50", "0"}},
    {"at most",
     S("{\"type\": \"integer\", \"maximum\": -7}"),
     {"-7", "-8", "-10", "-100"},
     {"-6", "0", "7", "-1"}},
    {"draft 4",
     S("{\"type\": \"integer\", \"minimum\": 5, \"exclusiveMinimum\": true, \"maximum\": 7}"),
     {"6", "7"},
     {"5", "8"}},
    {"one number",
     S("{\"type\": \"integer\", \"minimum\": 7, \"maximum\": 7}"),
     {"7"},
     {"6", "8", "77"}},
    {"integers between fractions",
     S("{\"type\": \"integer\", \"minimum\": 0.5, \"maximum\": 2.5}"),
     {"1", "2"},
     {"0", "3"}},
    {"numbers from 0 to 1",
     S("{\"type\": \"number\", \"minimum\": 0, \"maximum\": 1}"),
     {"0", "1", "0.5", "0.0", "1.0", "1.00", "0.999"},
     {"1.1", "1.01", "-0.1", "2", "-0", "1e0", "10"}},
    {"numbers between, exclusive",
     S("{\"type\": \"number\", \"exclusiveMinimum\": 0, \"exclusiveMaximum\": 2.5}"),
     {"0.1", "0.01", "2.4", "2.49", "1", "2", "2.0"},
     {"0", "0.0", "2.5", "2.50", "2.51", "3", "-1"}},
    {"numbers below zero",
     S("{\"type\": \"number\", \"minimum\": -2.25, \"maximum\": -0.5}"),
     {"-0.5", "-0.50", "-2.25", "-2.249", "-1", "-2"},
     {"-0.4", "-0.49", "-2.26", "-2.251", "-3", "0", "1"}},
    {"boolean and null",
     S("{\"type\": [\"boolean\", \"null\"]}"),
     {"true", "false", "null"},
     {"0", "\"true\""}},
    {"nullable", S("{\"type\": \"integer\", \"nullable\": true}"), {"1", "null"}, {"true"}},
    {"enum",
     S("{\"enum\": [\"red\", \"r\\\"\\n\", 1, 1.5, null, {\"a\": [1, \"x\"]}, []]}"),
     {"\"red\"", "\"r\\\"\\n\"", "1", "1.5", "null", "{\"a\": [1, \"x\"]}", "{\"a\":[1,\"x\"]}",
      "[]"},
     {"\"re\"", "\"redd\"", "2", "{\"a\":[1]}", "true"}},
    {"enum of a type",
     S("{\"type\": \"string\", \"enum\": [\"a\", 1, null]}"),
     {"\"a\""},
     {"1", "null"}},
    {"const", S("{\"const\": \"only\"}"), {"\"only\""}, {"\"other\"", "only"}},
    {"object",
     S("{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {\"type\": "
       "\"string\"}}, \"required\": [\"a\", \"b\"], \"additionalProperties\": false}"),
     {"{\"a\":1,\"b\":\"x\"}", "{ \"a\": 1, \"b\": \"x\" }", "{\n  \"a\": 1,\n  \"b\": \"x\"\n}"},
     {"{\"b\":\"x\",\"a\":1}", "{\"a\":1}", "{}", "{\"a\":1,\"b\":\"x\",\"c\":1}",
      "{\"a\":\"x\",\"b\":\"x\"}", "{\"a\":1,\"b\":\"x\",}", "{\"a\" :1,\"b\":\"x\"}"}},
    {"optional",
     S("{\"type\": \"object\", \"properties\": {\"a\": {\"const\": 1}, \"b\": {\"const\": 2}, "
       "\"c\": {\"const\": "
       "3}}, \"required\": [\"b\"]}"),
     {"{\"b\":2}", "{\"a\":1,\"b\":2}", "{\"b\":2,\"c\":3}", "{\"a\":1,\"b\":2,\"c\":3}"},
     {"{}", "{\"a\":1}", "{\"a\":1,\"c\":3}", "{,\"b\":2}", "{\"b\":2,\"a\":1}",
      "{\"b\":2,\"d\":1}", "{\"a\":1\"b\":2}"}},
    {"all optional",
     S("{\"properties\": {\"a\": {\"const\": 1}, \"b\": {\"const\": 2}}}"),
     {"{}", "{\"a\":1}", "{\"b\":2}", "{\"a\":1,\"b\":2}"},
     {"{\"x\":1}", "{,}", "[]"}},
    {"no properties",
     S("{\"type\": \"object\", \"additionalProperties\": false}"),
     {"{}", "{ }"},
     {"{\"a\":1}"}},
    {"other properties",
     S("{\"type\": \"object\", \"properties\": {\"ab\": {\"type\": \"integer\"}, \"a\": {\"type\": "
       "\"integer\"}}, "
       "\"additionalProperties\": {\"type\": \"boolean\"}}"),
     {"{}", "{\"ab\":1}", "{\"x\":true}", "{\"ab\":1,\"a\":2,\"x\":true,\"y\":false}",
      "{\"abc\":true}", "{\"\":true}", "{\"b\":false}", "{\"\xc3\xa9\":true}", "{\"a\\n\":true}"},
     {"{\"ab\":true}", "{\"a\":true}", "{\"x\":1}", "{\"x\":true,\"a\":true}",
      "{\"\\u0061\":true}"}},
    {"map",
     S("{\"type\": \"object\", \"additionalProperties\": {\"type\": \"integer\"}}"),
     {"{}", "{\"a\":1}", "{\"a\":1,\"b\":2}"},
     {"{\"a\":\"x\"}"}},
    {"required but not described",
     S("{\"type\": \"object\", \"required\": [\"k\"]}"),
     {"{\"k\":1}", "{\"k\":[],\"x\":2}"},
     {"{}", "{\"x\":1}", "{\"x\":2,\"k\":1}"}},
    {"pattern of names",
     S("{\"type\": \"object\", \"patternProperties\": {\"^x_[a-z]+$\": {\"type\": \"integer\"}}}"),
     {"{}", "{\"x_a\":1}", "{\"x_a\":1,\"x_bc\":2}"},
     {"{\"y\":1}", "{\"x_\":1}", "{\"x_a\":true}"}},
    {"a property that cannot be",
     S("{\"type\": \"object\", \"properties\": {\"a\": false, \"b\": {\"type\": \"null\"}}}"),
     {"{}", "{\"b\":null}"},
     {"{\"a\":1}"}},
    {"array",
     S("{\"type\": \"array\", \"items\": {\"type\": \"integer\"}}"),
     {"[]", "[1]", "[1,2,3]", "[1, 2]", "[\n  1,\n  2\n]", "[ ]"},
     {"[,]", "[1,]", "[true]", "[1 2]", "1"}},
    {"counted array",
     S("{\"type\": \"array\", \"items\": {\"type\": \"integer\"}, \"minItems\": 2, \"maxItems\": "
       "3}"),
     {"[1,2]", "[1,2,3]"},
     {"[]", "[1]", "[1,2,3,4]"}},
    {"at least one",
     S("{\"type\": \"array\", \"items\": {\"const\": 1}, \"minItems\": 1}"),
     {"[1]", "[1,1,1]"},
     {"[]"}},
    {"no items", S("{\"type\": \"array\", \"maxItems\": 0}"), {"[]"}, {"[1]"}},
    {"tuple",
     S("{\"type\": \"array\", \"prefixItems\": [{\"type\": \"integer\"}, {\"type\": \"string\"}], "
       "\"items\": false, \"minItems\": 1}"),
     {"[1]", "[1,\"a\"]"},
     {"[]", "[\"a\"]", "[1,2]", "[1,\"a\",2]"}},
    {"tuple and more",
     S("{\"prefixItems\": [{\"type\": \"integer\"}], \"items\": {\"type\": \"null\"}}"),
     {"[]", "[1]", "[1,null,null]"},
     {"[null]", "[1,2]"}},
    {"tuple of old drafts",
     S("{\"type\": \"array\", \"items\": [{\"const\": 1}, {\"const\": 2}], \"additionalItems\": "
       "false}"),
     {"[1,2]", "[1]", "[]"},
     {"[2]", "[1,2,3]"}},
    {"alternatives",
     S("{\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"object\", \"properties\": {\"a\": "
       "{\"const\": 1}}, "
       "\"required\": [\"a\"]}, {\"type\": \"object\", \"properties\": {\"a\": {\"const\": 12}, "
       "\"b\": {}}, "
       "\"required\": [\"a\"]}]}"),
     {"5", "{\"a\":1}", "{\"a\":12}", "{\"a\":12,\"b\":[]}"},
     {"{\"a\":1,\"b\":1}", "{\"a\":2}", "\"x\"", "{}"}},
    {"one of",
     S("{\"oneOf\": [{\"type\": \"string\"}, {\"type\": \"null\"}]}"),
     {"\"\"", "null"},
     {"1"}},
    {"alternatives beside keywords",
     S("{\"type\": \"object\", \"properties\": {\"a\": {\"const\": 1}, \"b\": {\"const\": 2}}, "
       "\"anyOf\": "
       "[{\"required\": [\"a\"]}, {\"required\": [\"b\"]}]}"),
     {"{\"a\":1}", "{\"b\":2}", "{\"a\":1,\"b\":2}"},
     {"{}"}},
    {"all of",
     S("{\"allOf\": [{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}}, "
       "\"required\": "
       "[\"a\"]}, {\"properties\": {\"a\": {\"minimum\": 3}, \"b\": {\"const\": 2}}, \"required\": "
       "[\"b\"]}]}"),
     {"{\"a\":3,\"b\":2}", "{\"a\":45,\"b\":2}"},
     {"{\"a\":2,\"b\":2}", "{\"a\":3}", "{\"b\":2}"}},
    {"all of one reference",
     S("{\"type\": \"object\", \"properties\": {\"x\": {\"allOf\": [{\"$ref\": "
       "\"#/definitions/e\"}], "
       "\"description\": \"d\"}}, \"required\": [\"x\"], \"definitions\": {\"e\": {\"enum\": "
       "[\"u\", \"v\"]}}}"),
     {"{\"x\":\"u\"}", "{\"x\":\"v\"}"},
     {"{\"x\":\"w\"}", "{}"}},
    {"all of types",
     S("{\"allOf\": [{\"type\": [\"integer\", \"string\"]}, {\"type\": \"number\"}]}"),
     {"1"},
     {"\"a\"", "1.5"}},
    {"all of alternatives",
     S("{\"allOf\": [{\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"null\"}]}, {\"anyOf\": "
       "[{\"type\": "
       "\"number\"}, {\"type\": \"string\"}]}]}"),
     {"1"},
     {"null", "\"a\"", "1.5"}},
    {"all of, closed",
     S("{\"allOf\": [{\"type\": \"object\", \"properties\": {\"a\": {}}, \"additionalProperties\": "
       "false}, "
       "{\"properties\": {\"b\": {}}}]}"),
     {"{}", "{\"a\":1}"},
     {"{\"b\":1}"}},
    {"reference",
     S("{\"$ref\": \"#/$defs/p\", \"$defs\": {\"p\": {\"type\": \"integer\"}}}"),
     {"1"},
     {"\"1\""}},
    {"reference with others beside",
     S("{\"$ref\": \"#/$defs/p\", \"maximum\": 5, \"$defs\": {\"p\": {\"type\": \"integer\", "
       "\"minimum\": 3}}}"),
     {"3", "5"},
     {"2", "6"}},
    {"pointer with escapes",
     S("{\"$ref\": \"#/$defs/a~1b%20c~0\", \"$defs\": {\"a/b c~\": {\"const\": 7}}}"),
     {"7"},
     {"8"}},
    {"recursion",
     S("{\"$ref\": \"#/$defs/n\", \"$defs\": {\"n\": {\"type\": \"object\", \"properties\": "
       "{\"v\": {\"type\": "
       "\"integer\"}, \"next\": {\"anyOf\": [{\"$ref\": \"#/$defs/n\"}, {\"type\": \"null\"}]}}, "
       "\"required\": "
       "[\"v\", \"next\"]}}}"),
     {"{\"v\":1,\"next\":null}", "{\"v\":1,\"next\":{\"v\":2,\"next\":{\"v\":3,\"next\":null}}}"},
     {"{\"v\":1}", "{\"v\":1,\"next\":{\"v\":2}}", "{\"v\":1,\"next\":{\"v\":2,\"next\":null}"}},
    {"the whole again",
     S("{\"type\": \"array\", \"items\": {\"$ref\": \"#\"}}"),
     {"[]", "[[],[[]]]"},
     {"[1]", "[[]"}},
    {"an alternative that is the whole",
     S("{\"anyOf\": [{\"$ref\": \"#\"}, {\"type\": \"string\"}]}"),
     {"\"x\""},
     {"1"}},
    {"two recursions merged",
     S("{\"allOf\": [{\"$ref\": \"#/$defs/a\"}, {\"$ref\": \"#/$defs/b\"}], \"$defs\": {\"a\": "
       "{\"type\": "
       "\"object\", \"properties\": {\"n\": {\"$ref\": \"#/$defs/a\"}, \"x\": {\"const\": 1}}}, "
       "\"b\": {\"type\": "
       "\"object\", \"properties\": {\"n\": {\"$ref\": \"#/$defs/b\"}}}}}"),
     {"{}", "{\"n\":{\"n\":{\"x\":1}},\"x\":1}"},
     {"{\"x\":2}", "{\"n\":1}"}},
    {"pattern",
     S("{\"type\": \"string\", \"pattern\": \"^[A-Z]{2}-\\\\d+$\"}"),
     {"\"AB-1\"", "\"XY-12345\""},
     {"\"AB-\"", "\"ab-1\"", "\"ABC-1\"", "\"AB-1x\"", "AB-1"}},
    {"pattern anywhere",
     S("{\"type\": \"string\", \"pattern\": \"b+\"}"),
     {"\"b\"", "\"abbc\"", "\"\xc3\xa9 b\"", "\"\\nb\""},
     {"\"\"", "\"ac\""}},
    {"pattern with escapes of JSON",
     S("{\"type\": \"string\", \"pattern\": \"^[\\\"\\\\\\\\\\n]$\"}"),
     {"\"\\\"\"", "\"\\\\\"", "\"\\n\""},
     {"\"a\"", "\"\\t\"", "\"\""}},
    {"pattern with lengths",
     S("{\"type\": \"string\", \"pattern\": \"^[a-c]+$\", \"minLength\": 2, \"maxLength\": 3}"),
     {"\"ab\"", "\"abc\""},
     {"\"a\"", "\"abca\"", "\"xy\""}},
    {"pattern with least length",
     S("{\"type\": \"string\", \"pattern\": \"^a*b?$\", \"minLength\": 2}"),
     {"\"ab\"", "\"aa\"", "\"aaaaab\""},
     {"\"a\"", "\"b\"", "\"bb\""}},
    {"date",
     S("{\"type\": \"string\", \"format\": \"date\"}"),
     {"\"2024-02-29\"", "\"2023-12-31\"", "\"2000-02-29\"", "\"2023-04-30\""},
     {"\"2023-02-29\"", "\"1900-02-29\"", "\"2023-04-31\"", "\"2023-13-01\"", "\"2023-1-1\"",
      "\"x\""}},
    {"date-time",
     S("{\"type\": \"string\", \"format\": \"date-time\"}"),
     {"\"2024-02-29T23:59:59Z\"", "\"2024-01-01T00:00:00.123+02:00\""},
     {"\"2024-01-01\"", "\"2024-01-01T24:00:00Z\"", "\"2024-01-01T00:00:00\""}},
    {"uuid",
     S("{\"type\": \"string\", \"format\": \"uuid\"}"),
     {"\"123e4567-e89b-12d3-a456-426614174000\""},
     {"\"123e4567e89b12d3a456426614174000\"", "\"123e4567-e89b-12d3-a456-42661417400g\""}},
    {"ipv4",
     S("{\"type\": \"string\", \"format\": \"ipv4\"}"),
     {"\"127.0.0.1\"", "\"255.255.255.255\""},
     {"\"256.0.0.1\"", "\"1.2.3\"", "\"01.2.3.4\""}},
    {"email",
     S("{\"type\": \"string\", \"format\": \"email\"}"),
     {"\"a.b@c-d.org\""},
     {"\"a\"", "\"@b.c\"", "\"a@b\""}},
    {"other formats are notes",
     S("{\"type\": \"string\", \"format\": \"color\"}"),
     {"\"anything\""},
     {"1"}},
    {"choice",
     "{\"type\": \"choice\", \"choice\": [\"yes\", \"no\", \"not sure\"]}",
     {"yes", "no", "not sure"},
     {"", "y", "yess", "not", "\"yes\""}},
    {"regex",
     "{\"type\": \"regex\", \"regex\": \"(a|bc)*d{2,3}\"}",
     {"dd", "ddd", "abcadd", "bcbcddd"},
     {"", "d", "dddd", "bdd", "xdd", "ddx"}},
    {"regex of classes",
     "{\"type\": \"regex\", \"regex\": \"^[^a-z\\\\s]\\\\w\\\\W[\\\\d-]?.$\"}",
     {"A_ -x", "\xc3\xa9z\xe4\xb8\x96\xf0\x9f\x98\x80", "1a.5\t"},
     {"aa x", "A__x", "A_ -\n", "A_ "}},
    {"regex repeats groups",
     "{\"type\": \"regex\", \"regex\": \"(?:(?<n>ab?){2}c+?)*|x{0}|y{,2}\"}",
     {"", "aac",
      "abacccabab"
      "c",
      "y{,2}"},
     {"ac", "aaac", "x", "y"}},
    {"regex repeats nested",
     "{\"type\": \"regex\", \"regex\": \"((a{2}){2,}b)*((c*)*)+\"}",
     {"", "aaaab", "aaaaaabccc", "c", "aaaabaaaab"},
     {"aab", "aaab", "aaaaab", "b"}},
    {"regex unicode",
     "{\"type\": \"regex\", \"regex\": "
     "\"[\\\\u00e0-\\\\u00ff\\\\x41]+\\\\u{1F600}\\\\uD83D\\\\uDE01\"}",
     {"\xc3\xa0"
      "A\xf0\x9f\x98\x80\xf0\x9f\x98\x81"},
     {"\xc3\xa0", "B\xf0\x9f\x98\x80\xf0\x9f\x98\x81"}},
    {"tagged",
     "{\"type\": \"tagged\", \"begin\": \"<call>\", \"schema\": {\"type\": \"object\", "
     "\"properties\": {\"a\": "
     "{\"type\": \"integer\"}}, \"required\": [\"a\"]}, \"end\": \"</call>\"}",
     {"<call>{\"a\": 1}</call>"},
     {"{\"a\":1}", "<call>{\"a\":1}", "<call>{}</call>", "<call>{\"a\":1}</call>x"}},
    {"several",
     "{\"type\": \"any_of\", \"most\": 2, \"separator\": \"\\n\", \"any_of\": [{\"type\": "
     "\"tagged\", \"begin\": "
     "\"<a>\", \"schema\": {\"$ref\": \"#/d\", \"d\": {\"const\": 1}}}, {\"type\": \"tagged\", "
     "\"begin\": \"<b>\", "
     "\"schema\": {\"$ref\": \"#/d\", \"d\": {\"const\": 2}}}]}",
     {"<a>1", "<b>2", "<a>1\n<b>2", "<b>2\n<b>2"},
     {"", "<a>2", "<a>1\n", "<a>1<b>2", "<a>1\n<a>1\n<a>1"}},
};
#define CASES (sizeof(cases) / sizeof(cases[0]))

START_TEST(test_texts)
{
    trm_token_trie *t = kit_bytes_trie();
    trm_grammar *g;

    if (kit_compile(cases[_i].what, &g) != TRM_OK)
        ck_abort_msg("%s: %s", cases[_i].name, trm_message());
    for (size_t i = 0; i < 12 && cases[_i].takes[i] != NULL; i++)
        ck_assert_msg(kit_takes(g, t, cases[_i].takes[i], strlen(cases[_i].takes[i])),
                      "%s: should take %s", cases[_i].name, cases[_i].takes[i]);
    for (size_t i = 0; i < 14 && cases[_i].refuses[i] != NULL; i++)
        ck_assert_msg(!kit_takes(g, t, cases[_i].refuses[i], strlen(cases[_i].refuses[i])),
                      "%s: should refuse %s", cases[_i].name, cases[_i].refuses[i]);
    trm_grammar_destroy(g);
    trm_token_trie_destroy(t);
}
END_TEST

/* What is refused, and what the message names. */
static const struct {
    const char *name, *what, *says;
    trm_status st;
} errors[] = {
    {"no type", "{}", "'type'", TRM_ERR_INVALID_ARG},
    {"no schema", "{\"type\": \"json_schema\"}", "'schema'", TRM_ERR_INVALID_ARG},
    {"not a schema", S("5"), "want a schema", TRM_ERR_INVALID_ARG},
    {"nothing", S("false"), "no value", TRM_ERR_INVALID_ARG},
    {"only itself", S("{\"$ref\": \"#\"}"), "no value", TRM_ERR_INVALID_ARG},
    {"endless",
     S("{\"type\": \"object\", \"properties\": {\"a\": {\"$ref\": \"#\"}}, \"required\": [\"a\"]}"),
     "no value", TRM_ERR_INVALID_ARG},
    {"wrong type", S("{\"type\": \"int\"}"), "'type'", TRM_ERR_INVALID_ARG},
    {"where",
     S("{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"array\", \"items\": {\"type\": "
       "5}}}}"),
     "#/properties/a/items", TRM_ERR_INVALID_ARG},
    {"not", S("{\"not\": {}}"), "'not'", TRM_ERR_UNSUPPORTED},
    {"if", S("{\"if\": {}, \"then\": {}}"), "'if'", TRM_ERR_UNSUPPORTED},
    {"unique", S("{\"type\": \"array\", \"uniqueItems\": true}"), "uniqueItems",
     TRM_ERR_UNSUPPORTED},
    {"multiple", S("{\"type\": \"number\", \"multipleOf\": 0.5}"), "multipleOf",
     TRM_ERR_UNSUPPORTED},
    {"names", S("{\"type\": \"object\", \"propertyNames\": {}}"), "propertyNames",
     TRM_ERR_UNSUPPORTED},
    {"many properties", S("{\"type\": \"object\", \"maxProperties\": 3}"), "maxProperties",
     TRM_ERR_UNSUPPORTED},
    {"far reference", S("{\"$ref\": \"http://x/y\"}"), "http://x/y", TRM_ERR_UNSUPPORTED},
    {"lost reference", S("{\"$ref\": \"#/$defs/x\"}"), "#/$defs/x", TRM_ERR_INVALID_ARG},
    {"required is closed out",
     S("{\"type\": \"object\", \"required\": [\"a\"], \"additionalProperties\": false}"), "'a'",
     TRM_ERR_INVALID_ARG},
    {"empty enum", S("{\"enum\": []}"), "enum", TRM_ERR_INVALID_ARG},
    {"empty anyOf", S("{\"anyOf\": []}"), "anyOf", TRM_ERR_INVALID_ARG},
    {"lengths cross", S("{\"type\": \"string\", \"minLength\": 3, \"maxLength\": 2}"), "minLength",
     TRM_ERR_INVALID_ARG},
    {"range crosses", S("{\"type\": \"integer\", \"minimum\": 3, \"maximum\": 2}"), "minimum",
     TRM_ERR_INVALID_ARG},
    {"range is empty",
     S("{\"type\": \"integer\", \"exclusiveMinimum\": 2, \"exclusiveMaximum\": 3}"), "no value",
     TRM_ERR_INVALID_ARG},
    {"negative length", S("{\"type\": \"string\", \"minLength\": -1}"), "minLength",
     TRM_ERR_INVALID_ARG},
    {"too long", S("{\"type\": \"string\", \"maxLength\": 1000000}"), "length",
     TRM_ERR_UNSUPPORTED},
    {"too many", S("{\"type\": \"array\", \"maxItems\": 1000000, \"items\": {\"type\": \"null\"}}"),
     "large", TRM_ERR_UNSUPPORTED},
    {"look-ahead", S("{\"type\": \"string\", \"pattern\": \"^(?=a)b$\"}"), "byte",
     TRM_ERR_UNSUPPORTED},
    {"back reference", S("{\"type\": \"string\", \"pattern\": \"^(a)\\\\1$\"}"), "reference back",
     TRM_ERR_UNSUPPORTED},
    {"word boundary", S("{\"type\": \"string\", \"pattern\": \"\\\\bx\"}"), "escape",
     TRM_ERR_UNSUPPORTED},
    {"properties of unicode", S("{\"type\": \"string\", \"pattern\": \"\\\\p{L}\"}"), "escape",
     TRM_ERR_UNSUPPORTED},
    {"anchor inside", S("{\"type\": \"string\", \"pattern\": \"a^b\"}"), "^ or $",
     TRM_ERR_UNSUPPORTED},
    {"open group", S("{\"type\": \"string\", \"pattern\": \"(a\"}"), "closed", TRM_ERR_INVALID_ARG},
    {"closed group", S("{\"type\": \"string\", \"pattern\": \"a)\"}"), "closed",
     TRM_ERR_INVALID_ARG},
    {"open class", S("{\"type\": \"string\", \"pattern\": \"[a\"}"), "class", TRM_ERR_INVALID_ARG},
    {"nothing to repeat", S("{\"type\": \"string\", \"pattern\": \"*a\"}"), "repeat",
     TRM_ERR_INVALID_ARG},
    {"exploding repetition",
     S("{\"type\": \"string\", \"pattern\": \"((((a{9}){99}){99}){99}){99}\"}"), "size",
     TRM_ERR_UNSUPPORTED},
    {"wide lengths",
     S("{\"type\": \"string\", \"pattern\": \"^[a-z]{100}$\", \"maxLength\": 100000}"), "large",
     TRM_ERR_UNSUPPORTED},
    {"two patterns", S("{\"allOf\": [{\"pattern\": \"a\"}, {\"pattern\": \"b\"}]}"), "'pattern'",
     TRM_ERR_UNSUPPORTED},
    {"allOf refers to itself", S("{\"allOf\": [{\"$ref\": \"#\"}, {\"type\": \"object\"}]}"),
     "itself", TRM_ERR_UNSUPPORTED},
    {"choice of nothing", "{\"type\": \"choice\", \"choice\": []}", "choice", TRM_ERR_INVALID_ARG},
    {"choice of numbers", "{\"type\": \"choice\", \"choice\": [1]}", "string", TRM_ERR_INVALID_ARG},
};
#define ERRORS (sizeof(errors) / sizeof(errors[0]))

START_TEST(test_errors)
{
    trm_grammar *g;
    trm_status st = kit_compile(errors[_i].what, &g);

    ck_assert_msg(st == errors[_i].st && strstr(trm_message(), errors[_i].says) != NULL,
                  "%s: %s: %s", errors[_i].name, trm_status_name(st),
                  st == TRM_OK ? "" : trm_message());
}
END_TEST

/* However deep a text goes, it is always led back: brackets until no more may come, then out. */
START_TEST(test_depth)
{
    static const char *const schemas[] = {
        S("{}"), S("{\"type\": \"array\", \"items\": {\"$ref\": \"#\"}}"),
        S("{\"type\": \"array\", \"minItems\": 1, \"items\": {\"anyOf\": [{\"type\": "
          "\"null\"}, {\"type\": \"array\", \"items\": {\"$ref\": \"#\"}, \"minItems\": 2}]}}")};
    trm_token_trie *t = kit_bytes_trie();
    const int32_t end = KIT_END;

    for (size_t k = 0; k < 3; k++) {
        trm_grammar *g;
        trm_constraint *c;
        int depth = 0, steps = 0;

        ck_assert_int_eq(kit_compile(schemas[k], &g), TRM_OK);
        ck_assert_int_eq(trm_constraint_create(g, t, &end, 1, &c), TRM_OK);
        while (trm_constraint_accept(c, '[') == TRM_OK)
            depth++;
        ck_assert_int_gt(depth, 30);
        ck_assert_int_lt(depth, 1000);
        while (!trm_constraint_may_end(c)) {
            float logits[257] = {0};

            ck_assert_int_lt(steps++, 100000);
            ck_assert_int_eq(trm_constraint_mask(c, logits, 257), TRM_OK);
            for (const char *p = "]nul,["; *p != '\0'; p++)
                if (logits[(int)*p] == 0) {
                    ck_assert_int_eq(trm_constraint_accept(c, *p), TRM_OK);
                    break;
                }
        }
        trm_constraint_destroy(c);
        trm_grammar_destroy(g);
    }
    trm_token_trie_destroy(t);
}
END_TEST

/* Blanks between tokens of JSON come to an end. */
START_TEST(test_blanks)
{
    trm_token_trie *t = kit_bytes_trie();
    trm_grammar *g;
    char text[128] = "{\n";

    ck_assert_int_eq(kit_compile("{\"type\": \"json_object\"}", &g), TRM_OK);
    memset(text + 2, ' ', TRMI_GRAMMAR_NEWLINE_MAX);
    strcpy(text + 2 + TRMI_GRAMMAR_NEWLINE_MAX, "}");
    ck_assert(kit_takes(g, t, text, strlen(text)));
    strcpy(text + 2 + TRMI_GRAMMAR_NEWLINE_MAX, " }");
    ck_assert(!kit_takes(g, t, text, strlen(text)));
    ck_assert(!kit_takes(g, t, "{\n\n}", 4));
    trm_grammar_destroy(g);
    trm_token_trie_destroy(t);
}
END_TEST

/* Memory that runs out is a status, whichever call it is. */
START_TEST(test_memory)
{
    static const char what[] =
        S("{\"type\": \"object\", \"properties\": {\"a\": {\"allOf\": [{\"type\": \"string\"}, "
          "{\"pattern\": \"^[^x]{2}$\"}]}, \"b\": {\"anyOf\": [{\"type\": \"number\"}, {\"$ref\": "
          "\"#\"}]}}, \"additionalProperties\": {\"type\": \"integer\", \"minimum\": 3}}");
    trm_token_trie *t = kit_bytes_trie();
    static const char text[] = "{\"a\":\"ab\",\"b\":{\"b\":1},\"c\":4}";
    const int32_t end = KIT_END;
    bool done = false;

    for (int64_t n = 0; !done; n++) {
        trm_grammar *g = NULL;
        trm_constraint *c = NULL;
        trm_status st;

        trm_alloc_fail_after(n);
        st = kit_compile(what, &g);
        if (st == TRM_OK)
            st = trm_constraint_create(g, t, &end, 1, &c);
        for (size_t i = 0; st == TRM_OK && i < sizeof(text) - 1; i++) {
            float logits[257] = {0};

            st = trm_constraint_mask(c, logits, 257);
            if (st == TRM_OK)
                st = trm_constraint_accept(c, text[i]);
        }
        trm_alloc_fail_after(-1);
        ck_assert_msg(st == TRM_OK || st == TRM_ERR_NO_MEMORY, "%s", trm_message());
        done = st == TRM_OK;
        trm_constraint_destroy(c);
        trm_grammar_destroy(g);
    }
    trm_token_trie_destroy(t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("grammar");
    TCase *tc = tcase_create("grammar");
    SRunner *r;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, test_texts, 0, (int)CASES);
    tcase_add_loop_test(tc, test_errors, 0, (int)ERRORS);
    tcase_add_test(tc, test_depth);
    tcase_add_test(tc, test_blanks);
    tcase_add_test(tc, test_memory);
    suite_add_tcase(s, tc);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
