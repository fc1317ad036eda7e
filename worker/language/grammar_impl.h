/* What the files of constrained decoding share.
 *
 *   grammar.c          what a request says -> rules; what can never end is cut off
 *   grammar_build.c    states and edges while they are made; code points as bytes
 *   grammar_schema.c   a JSON schema's keywords -> rules     grammar_merge.c  allOf
 *   grammar_object.c   objects and arrays                    grammar_value.c  literals, any value
 *   grammar_string.c   strings, lengths, formats             grammar_number.c numbers in ranges
 *   grammar_regex.c    regular expressions
 *   automaton.c        sets of (state, stack) as states of one automaton, made as they are met
 *   token_trie.c       a vocabulary's tokens by their bytes
 *   token_strings.c    what its tokens are within a JSON string
 *   constraint.c       masks, and where one sequence is
 *
 * A grammar is a recursive transition network: rules are automata over bytes whose edges may also
 * call rules. */
#ifndef TRM_WORKER_LANGUAGE_GRAMMAR_IMPL_H
#define TRM_WORKER_LANGUAGE_GRAMMAR_IMPL_H

#include "base/memory.h"
#include "worker/language/constraint.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- limits: what is over them is refused by name ---- */
#define TRMI_GRAMMAR_BYTES_MAX ((size_t)1 << 20) /* of a schema as text */
#define TRMI_GRAMMAR_STATES_MAX 300000
#define TRMI_GRAMMAR_EDGES_MAX 1500000
#define TRMI_GRAMMAR_RULES_MAX 50000
#define TRMI_GRAMMAR_WORK_MAX 40000 /* merges, and text of merged schemas in 64 bytes */
#define TRMI_GRAMMAR_AT_ONCE_MAX                                                                   \
    4096                            /* properties of an object, values of an enum: ways at once    \
                                     */
#define TRMI_GRAMMAR_NEST_MAX 64    /* of keywords within keywords: allOf, regular expressions */
#define TRMI_GRAMMAR_STACK_MAX 192  /* calls that a text may be inside of */
#define TRMI_GRAMMAR_DIGITS 18      /* of an integer, and behind a point */
#define TRMI_GRAMMAR_NEWLINE_MAX 32 /* blanks that may follow a newline between tokens of JSON */

/* ---- a finished grammar ---- */
typedef struct trmi_edge {
    uint32_t to;
    uint32_t rule; /* of a call */
    uint8_t lo, hi;
} trmi_edge;
typedef struct trmi_state {
    uint32_t first; /* edges: jumps, then calls, then bytes */
    uint32_t jumps, calls, bytes;
    uint32_t chain; /* its number in the grammar's chains, and 1; 0: none */
    uint16_t need;  /* calls that must be opened to come to the rule's end; UINT16_MAX: never */
    bool last;      /* the end of its rule */
} trmi_state;
static inline bool trmi_state_is_end(const trmi_state *s) /* and nothing else */
{
    return s->last && s->jumps + s->calls + s->bytes == 0;
}
typedef struct trmi_rule {
    uint32_t start, end;
} trmi_rule;
/* A state within a string: from `least` to `most` (-1: any number of) characters may come, then the
 * quote, which leads to `after`. What tokens are there is known of the vocabulary (trmi_strings).
 */
typedef struct trmi_chain {
    uint32_t after;
    int32_t least, most;
} trmi_chain;
typedef struct trmi_automaton trmi_automaton;

struct trm_grammar {
    trmi_state *states;
    trmi_edge *edges;
    trmi_rule *rules; /* 0 is the root */
    trmi_chain *chains;
    uint32_t state_count, edge_count, rule_count, chain_count;
    uint32_t char_start;   /* of the rule that chains call; UINT32_MAX: none */
    uint8_t class_of[256]; /* bytes that no edge tells apart */
    int class_count;
    trmi_automaton *automaton; /* made with the first constraint */
};

/* ---- while it is made ---- */
/* Errors stick: after the first, calls do nothing, and states are 0. */
typedef struct trmi_build_edge {
    int32_t from, to, rule; /* rule: TRMI_BYTES, TRMI_JUMP, or what is called */
    uint8_t lo, hi;
} trmi_build_edge;
#define TRMI_BYTES (-1)
#define TRMI_JUMP (-2)

typedef struct trmi_build_rule {
    int start, end;
    const json_t *schema; /* NULL: made by hand */
    const char *path;
} trmi_build_rule;

typedef struct trmi_build_chain {
    int state, after, least, most;
} trmi_build_chain;

typedef struct trmi_builder {
    trm_status st;
    trm_arena *arena;
    trmi_build_edge *edges;
    size_t edge_count, edge_room;
    int state_count;
    trmi_build_chain *chains;
    size_t chain_count, chain_room;
    trmi_build_rule *rules;
    size_t rule_count, rule_room;
    size_t compiled;    /* rules before it */
    json_t *memo;       /* key -> rule */
    json_t *kept;       /* merged schemas */
    const json_t *root; /* for $ref */
    const char *path;   /* of what is being compiled, for messages */
    size_t work;
} trmi_builder;

trm_status trmi_build_fail(trmi_builder *b, trm_status st, const char *fmt, ...) TRM_PRINTF(3, 4);
/* "schema '#/properties/a': " before the text. */
trm_status trmi_schema_fail(trmi_builder *b, trm_status st, const char *fmt, ...) TRM_PRINTF(3, 4);
int trmi_build_state(trmi_builder *b);
void trmi_build_bytes(trmi_builder *b, int from, int to, unsigned lo, unsigned hi);
void trmi_build_jump(trmi_builder *b, int from, int to);
void trmi_build_call(trmi_builder *b, int from, int to, int rule);
void trmi_build_chain_add(trmi_builder *b, int state, int after, int64_t least, int64_t most);
int trmi_build_rule_new(trmi_builder *b, const json_t *schema, const char *path);
/* Rules by name: the rule, or -1; and back. */
int trmi_memo_get(const trmi_builder *b, const char *key);
void trmi_memo_put(trmi_builder *b, const char *key, int rule);
/* Bytes as they are, from -> new state (returned). */
int trmi_put_text(trmi_builder *b, int from, const char *text, size_t bytes);
/* Optional blanks between tokens of JSON: one space, or a newline and up to 32 blanks. */
int trmi_put_space(trmi_builder *b, int from);

/* ---- code points ---- */
typedef struct trmi_range {
    uint32_t lo, hi;
} trmi_range;
typedef struct trmi_ranges {
    trmi_range *items; /* arena; sorted and apart once trmi_ranges_settle was called */
    size_t count, room;
} trmi_ranges;
void trmi_ranges_add(trmi_builder *b, trmi_ranges *r, uint32_t lo, uint32_t hi);
void trmi_ranges_settle(trmi_ranges *r);
void trmi_ranges_invert(trmi_builder *b, trmi_ranges *r); /* settled; without surrogates */
/* One code point of the set: as UTF-8, or (json) as JSON writes it inside a string, with escapes
 * only where they must be. */
void trmi_put_ranges(trmi_builder *b, int from, int to, const trmi_ranges *r, bool json);
/* The same by a rule that equal sets share, where the set is wide. */
void trmi_put_set(trmi_builder *b, int from, int to, const trmi_ranges *r, bool json);
/* One character of a JSON string, any legal spelling, U+0000 left out. */
void trmi_put_char(trmi_builder *b, int from, int to);
/* UTF-8 -> code point; advances *at; UINT32_MAX: not UTF-8. */
uint32_t trmi_next_code_point(const char *text, size_t bytes, size_t *at);

/* ---- pieces of JSON: from -> new state ---- */
int trmi_put_string_literal(trmi_builder *b, int from, const char *text, size_t bytes);
int trmi_put_literal(trmi_builder *b, int from, const json_t *value, int depth);
int trmi_put_any_string(trmi_builder *b, int from);
/* A string that is none of the names, spelt without needless escapes. */
int trmi_put_other_name(trmi_builder *b, int from, const json_t *names);
int trmi_put_any_object(trmi_builder *b, int from);
int trmi_put_any_array(trmi_builder *b, int from);
int trmi_put_number(trmi_builder *b, int from, bool integer);
int trmi_rule_any(trmi_builder *b); /* any value */
int trmi_put_boolean(trmi_builder *b, int from);

/* ---- of schemas ---- */
enum {
    TRMI_NULL = 1,
    TRMI_BOOLEAN = 2,
    TRMI_INTEGER = 4,
    TRMI_NUMBER = 8,
    TRMI_STRING = 16,
    TRMI_ARRAY = 32,
    TRMI_OBJECT = 64,
    TRMI_ALL = 127
};
/* The rule of a schema, compiled later; `name`: its place below the current one. */
int trmi_schema_rule(trmi_builder *b, const json_t *schema, const char *name);
void trmi_schema_compile(trmi_builder *b, int rule);
/* Where a $ref leads; NULL: failed. */
const json_t *trmi_schema_resolve(trmi_builder *b, const char *ref);
/* What both allow; NULL: failed. Kept by the builder. */
const json_t *trmi_schema_merge(trmi_builder *b, const json_t *x, const json_t *y, int depth);
/* Whether it says anything but annotations, `but` (may be NULL) left out. */
bool trmi_schema_says(const json_t *schema, const char *but);
/* An integer of at least 0; `none` where it is absent. */
int64_t trmi_schema_count(trmi_builder *b, const json_t *schema, const char *key, int64_t none);
int trmi_put_object(trmi_builder *b, int from, const json_t *schema);
int trmi_put_array(trmi_builder *b, int from, const json_t *schema);
int trmi_put_string(trmi_builder *b, int from, const json_t *schema);
int trmi_put_number_schema(trmi_builder *b, int from, const json_t *schema, bool integer);
/* A regular expression; whole: it matches the whole text, else anywhere unless it is anchored.
 * json: inside a string. Lengths in characters, `most` -1: any. */
int trmi_put_regex(trmi_builder *b, int from, const char *pattern, bool whole, bool json,
                   int64_t least, int64_t most);

/* ---- the trie ---- */
#define TRMI_TOKEN_BYTES_MAX 512 /* longer tokens are never allowed */
typedef struct trmi_trie_at {
    uint64_t classes; /* kinds of bytes below it */
    uint32_t end;     /* the node behind all that begin with it */
    uint32_t tokens;  /* its first token in `ids`; the next node's is the end */
    uint16_t depth;   /* bytes: 1 and more */
    uint8_t byte;
} trmi_trie_at;
/* What tokens are behind some characters of a JSON string, as any string may be. */
#define TRMI_CHARS_MAX 32
typedef struct trmi_counted {
    uint32_t at; /* a node, or a token */
    int32_t chars;
} trmi_counted;
typedef struct trmi_strings {
    uint64_t *at_most[TRMI_CHARS_MAX + 1]; /* masks: tokens within the string that begin so many
                                              characters at most */
    trmi_counted *many;                    /* tokens that begin more */
    trmi_counted *ends; /* nodes of quotes that end the string, characters before them */
    size_t many_count, end_count;
} trmi_strings;
struct trm_token_trie {
    int64_t vocabulary;
    trmi_trie_at *nodes; /* in the order of their bytes, parents first; [count + 1] */
    uint32_t count;
    int32_t *ids;
    uint32_t id_count;
    uint32_t *offsets; /* [vocabulary + 1] a token's bytes in the pool; empty: not text */
    char *pool;
    trmi_strings strings;
};
TRM_MUST_USE trm_status trmi_strings_init(trm_token_trie *t);
void trmi_strings_fini(trmi_strings *s);
int trmi_byte_kind(unsigned byte); /* 0 to 63 */
TRM_MUST_USE trm_status trmi_token_trie_from(const trm_text *tokens, int64_t count,
                                             trm_token_trie **trie_out);

/* ---- the automaton: see automaton.c ---- */
typedef struct trmi_config {
    uint32_t state, node;
} trmi_config;
typedef struct trmi_exits {
    uint32_t *at;
    size_t count, room;
} trmi_exits;
typedef struct trmi_dstate {
    uint32_t first, count, hash;
    bool accepting; /* the outermost rule may end here */
    bool looped;    /* `loops` is known */
    uint32_t reach; /* calls that its steps so far opened or saw to be needed, from the bottom */
    uint32_t local_reach; /* the same of all steps of `local` */
    uint32_t *next;       /* [classes] */
    uint64_t loops;       /* kinds of bytes that lead back here, all of each */
    uint64_t *mask;       /* of a whole state; NULL: not known */
    uint64_t *local;
    trmi_exits exits; /* where the rule ends on the way: nodes of the trie */
} trmi_dstate;
#define TRMI_DEAD 0u
#define TRMI_UNKNOWN UINT32_MAX

struct trmi_automaton {
    const trm_grammar *g;
    const trm_token_trie *trie;
    trmi_dstate *states;
    size_t state_count, state_room;
    trmi_config *configs;
    size_t config_count, config_room;
    uint32_t *state_index;
    size_t state_index_size;
    struct trmi_node *nodes; /* stacks; 0 is the bottom */
    size_t node_count, node_room;
    trmi_config *items; /* of nodes: where to go on, and the stack below */
    size_t item_count, item_room;
    uint32_t *node_index;
    size_t node_index_size;
    /* scratch of one closure */
    trmi_config *work;
    size_t work_count, work_room;
    struct trmi_call *calls;
    size_t call_count, call_room;
    uint32_t *seen; /* work + 1, open addressing */
    size_t seen_size;
    trmi_config *spare;
    size_t spare_room;
    uint32_t reach;     /* of one closure */
    int64_t budget;     /* of one operation */
    size_t bytes;       /* of masks and rows */
    size_t states_soft; /* above, what nobody is at is dropped; tests make it small */
    trm_constraint *constraints;
    uint32_t stack[TRMI_TOKEN_BYTES_MAX + 1];
};

TRM_MUST_USE trm_status trmi_automaton_create(const trm_grammar *g, const trm_token_trie *trie,
                                              trmi_automaton **automaton_out);
void trmi_automaton_destroy(trmi_automaton *a);
/* Before an operation: its budget anew, and memory given back where there is too much. */
TRM_MUST_USE trm_status trmi_automaton_begin(trmi_automaton *a);
TRM_MUST_USE trm_status trmi_automaton_start(trmi_automaton *a, uint32_t *state_out);
TRM_MUST_USE trm_status trmi_automaton_next(trmi_automaton *a, uint32_t state, uint8_t byte,
                                            uint32_t *next_out);
/* Configurations [first, first + count), which have one stack, as a state of their own; local: with
 * the bottom for their stack. */
TRM_MUST_USE trm_status trmi_automaton_part(trmi_automaton *a, uint32_t first, uint32_t count,
                                            bool local, uint32_t *state_out);
/* A state of the grammar with a stack, and all that follows without a byte. */
TRM_MUST_USE trm_status trmi_automaton_at(trmi_automaton *a, uint32_t state, uint32_t node,
                                          uint32_t *state_out);
/* Where a stack goes on. */
const trmi_config *trmi_automaton_items(const trmi_automaton *a, uint32_t node,
                                        uint32_t *count_out);
uint32_t trmi_automaton_depth(const trmi_automaton *a, uint32_t node);
/* Where the stack goes on once its topmost rule has ended. */
TRM_MUST_USE trm_status trmi_automaton_pop(trmi_automaton *a, uint32_t node, uint32_t *state_out);
/* Kinds of bytes that all lead back to the state itself. */
TRM_MUST_USE trm_status trmi_automaton_loops(trmi_automaton *a, uint32_t state,
                                             uint64_t *loops_out);

struct trm_constraint {
    trmi_automaton *a;
    trm_constraint *prev, *next;
    uint32_t at, held; /* its state; its size while memory is given back */
    bool over;         /* an end token has come */
    int end_count;
    int32_t *ends;
};

#ifdef __cplusplus
}
#endif
#endif
