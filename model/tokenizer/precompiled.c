/* Sentencepiece's character maps: a double array (darts-clone) of source strings, whose values are
 * offsets into replacement strings, each ended by a NUL. Layout: u32 bytes of the array, the array
 * of u32, the strings. */
#include "model/tokenizer/tokenizer_impl.h"

#include <utf8proc.h>

#include <string.h>

struct trmi_precompiled {
    uint32_t *units;
    size_t count;
    char *strings; /* UTF-8, with a NUL at the end */
    size_t bytes;
};

trm_status trmi_precompiled_create(const char *bytes, size_t count, trmi_precompiled **map_out)
{
    trmi_precompiled *map = NULL;
    uint32_t array_bytes;
    trm_status st;

    if (count < 4)
        return trm_fail(TRM_ERR_BAD_FILE, "a character map of %zu bytes", count);
    memcpy(&array_bytes, bytes, 4);
    if (array_bytes > count - 4 || array_bytes % 4 != 0 || array_bytes == 0)
        return trm_fail(TRM_ERR_BAD_FILE, "a character map of %zu bytes says its array has %u",
                        count, (unsigned)array_bytes);
    bytes += 4;
    count -= 4 + array_bytes;
    if (trmi_utf8_good(bytes + array_bytes, count) != count)
        return trm_fail(TRM_ERR_BAD_FILE, "a character map's strings are not UTF-8");
    map = trm_calloc(1, sizeof(*map));
    if (map != NULL) {
        map->units = trm_malloc(array_bytes, 1);
        map->strings = trm_malloc(count + 1, 1);
    }
    if (map == NULL || map->units == NULL || map->strings == NULL) {
        st = trmi_no_memory("a character map");
        trmi_precompiled_destroy(map);
        return st;
    }
    memcpy(map->units, bytes, array_bytes);
    map->count = array_bytes / 4;
    memcpy(map->strings, bytes + array_bytes, count);
    map->strings[count] = '\0';
    map->bytes = count;
    *map_out = map;
    return TRM_OK;
}

void trmi_precompiled_destroy(trmi_precompiled *map)
{
    if (map == NULL)
        return;
    trm_free(map->units);
    trm_free(map->strings);
    trm_free(map);
}

static uint32_t unit_offset(uint32_t unit)
{
    return unit >> 10 << ((unit & 1u << 9) >> 6);
}

/* The first rule, or the longest, whose source the text begins with. */
static bool lookup(const trmi_precompiled *map, const char *text, size_t count, bool longest,
                   size_t *bytes_out, trm_text *to_out)
{
    uint32_t at = unit_offset(map->units[0]);
    bool found = false;

    for (size_t i = 0; i < count; i++) {
        unsigned char c = (unsigned char)text[i];
        uint32_t unit, value;

        at ^= c;
        if (c == 0 || at >= map->count)
            break;
        unit = map->units[at];
        if ((unit & (1u << 31 | 0xFFu)) != c)
            break;
        at ^= unit_offset(unit);
        if ((unit & 1u << 8) == 0)
            continue;
        if (at >= map->count)
            break;
        value = map->units[at] & 0x7FFFFFFFu;
        if (value > map->bytes || ((unsigned char)map->strings[value] & 0xC0) == 0x80)
            continue; /* not the start of a string: a damaged map */
        to_out->bytes = map->strings + value;
        to_out->count = strlen(to_out->bytes);
        *bytes_out = i + 1;
        found = true;
        if (!longest)
            break;
    }
    return found;
}

bool trmi_precompiled_longest(const trmi_precompiled *map, const char *text, size_t count,
                              size_t *bytes_out, trm_text *to_out)
{
    return lookup(map, text, count, true, bytes_out, to_out);
}

/* The `tokenizers` library's way: a grapheme cluster of less than 6 bytes is looked up whole, and
 * then the shortest rule replaces all of it; otherwise each of its characters. */
static void add_cluster(const trmi_precompiled *map, const char *p, size_t count, trmi_buf *out)
{
    trm_text to;
    size_t used;

    if (count < 6 && lookup(map, p, count, false, &used, &to)) {
        trmi_buf_add(out, to.bytes, to.count);
        return;
    }
    for (size_t i = 0; i < count;) {
        size_t bytes;

        (void)trmi_utf8_get(p + i, &bytes);
        if (lookup(map, p + i, bytes, false, &used, &to))
            trmi_buf_add(out, to.bytes, to.count);
        else
            trmi_buf_add(out, p + i, bytes);
        i += bytes;
    }
}

/* A first character that becomes nothing leaves line->head as it is: the library's alignments do
 * not see it go. */
trm_status trmi_precompiled_apply(const trmi_precompiled *map, trmi_line *line)
{
    const char *p = line->now.bytes;
    size_t count = line->now.count, start = 0, bytes;
    utf8proc_int32_t state = 0, before;

    before = (utf8proc_int32_t)trmi_utf8_get(p, &bytes);
    for (size_t i = bytes; i <= count; i += bytes) {
        utf8proc_int32_t c = i == count ? 0 : (utf8proc_int32_t)trmi_utf8_get(p + i, &bytes);

        if (i == count || utf8proc_grapheme_break_stateful(before, c, &state)) {
            add_cluster(map, p + start, i - start, &line->next);
            start = i;
            if (i == count)
                break;
        }
        before = c;
    }
    return TRM_OK;
}
