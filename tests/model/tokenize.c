/* A tool for tests/oracles/tokenizers.py: tokenizes lines of standard input.
 *
 *   tokenize FILE [plain]   FILE: tokenizer.json, or sentencepiece's tokenizer.model
 *   tokenize FILE time      the whole of standard input as one text, and how long it took
 *
 * A line is a text in hexadecimal, or two with a comma between them (a pair). A line of the output
 * is four fields with blanks between them: ids without special tokens, ids with them (a pair: ids
 * and types instead), what the latter decode to, and the same without special tokens, texts in
 * hexadecimal; lists with commas; "-" for an empty field. Streaming is compared with decoding on
 * the way. Exit status 1: something failed, 3: the tokenizer is not supported. */
#include "base/file.h"
#include "model/tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, trm_message());
    exit(1);
}

static void check(trm_status st, const char *what)
{
    if (st != TRM_OK)
        die(what);
}

static char *slurp(FILE *f, size_t *count_out)
{
    size_t room = 1 << 16, count = 0, n;
    char *all = malloc(room);

    while (all != NULL && (n = fread(all + count, 1, room - count, f)) > 0) {
        count += n;
        if (count == room)
            all = realloc(all, room *= 2);
    }
    if (all == NULL)
        exit(1);
    *count_out = count;
    return all;
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void print_list(const int32_t *v, size_t count)
{
    for (size_t i = 0; i < count; i++)
        printf(i == 0 ? "%d" : ",%d", (int)v[i]);
    if (count == 0)
        putchar('-');
}

static void print_hex(const char *p, size_t count)
{
    for (size_t i = 0; i < count; i++)
        printf("%02x", (unsigned char)p[i]);
    if (count == 0)
        putchar('-');
}

static size_t from_hex(char *text)
{
    size_t n = 0;

    for (; text[2 * n] != '\0' && text[2 * n + 1] != '\0'; n++) {
        char two[3] = {text[2 * n], text[2 * n + 1], '\0'};

        text[n] = (char)strtol(two, NULL, 16);
    }
    return n;
}

static void append(char **all, size_t *count, const char *p, size_t bytes)
{
    char *grown = realloc(*all, *count + bytes + 1);

    if (grown == NULL)
        exit(1);
    memcpy(grown + *count, p, bytes);
    *all = grown;
    *count += bytes;
}

/* What streaming gives for the ids, piece by piece, must be `text`. */
static void check_stream(const trm_tokenizer *t, const int32_t *ids, size_t count, bool skip,
                         const char *text, size_t bytes)
{
    trm_detokenizer *d;
    const char *piece;
    char *all = NULL;
    size_t all_bytes = 0, piece_bytes;

    check(trm_detokenizer_create(t, skip, &d), "detokenizer");
    for (size_t i = 0; i < count; i++) {
        check(trm_detokenizer_push(d, ids[i], &piece, &piece_bytes), "push");
        append(&all, &all_bytes, piece, piece_bytes);
    }
    check(trm_detokenizer_finish(d, &piece, &piece_bytes), "finish");
    append(&all, &all_bytes, piece, piece_bytes);
    if (all_bytes != bytes || memcmp(all, text, bytes) != 0) {
        fprintf(stderr, "streaming gives '%.*s', decoding '%.*s'\n", (int)all_bytes, all,
                (int)bytes, text);
        exit(1);
    }
    free(all);
    trm_detokenizer_destroy(d);
}

static void print_decoded(const trm_tokenizer *t, const int32_t *ids, size_t count, bool skip)
{
    char *text;
    size_t bytes;

    check(trm_tokenizer_decode(t, ids, count, skip, &text, &bytes), "decode");
    check_stream(t, ids, count, skip, text, bytes);
    print_hex(text, bytes);
    trm_free(text);
}

static void one(const trm_tokenizer *t, char *line, int flags)
{
    char *second = strchr(line, ',');
    int32_t *plain, *ids, *types = NULL;
    size_t plain_count, count, a, b;

    if (second != NULL) {
        *second++ = '\0';
        a = from_hex(line);
        b = from_hex(second);
        check(trm_tokenizer_encode_pair(t, line, a, second, b, &ids, &types, &count), "encode");
        print_list(ids, count);
        putchar(' ');
        print_list(types, count);
    } else {
        a = from_hex(line);
        check(trm_tokenizer_encode(t, line, a, flags, &plain, &plain_count), "encode");
        print_list(plain, plain_count);
        putchar(' ');
        trm_free(plain);
        check(trm_tokenizer_encode(t, line, a, flags | TRM_ENCODE_SPECIAL, &ids, &count), "encode");
        print_list(ids, count);
    }
    putchar(' ');
    print_decoded(t, ids, count, false);
    putchar(' ');
    print_decoded(t, ids, count, true);
    putchar('\n');
    trm_free(ids);
    trm_free(types);
}

static void time_it(const trm_tokenizer *t, const char *text, size_t bytes)
{
    int32_t *ids;
    size_t count = 0;
    double start = seconds(), took;

    check(trm_tokenizer_encode(t, text, bytes, 0, &ids, &count), "encode");
    took = seconds() - start;
    trm_free(ids);
    printf("%zu bytes, %zu ids, %.3f s, %.2f MB/s\n", bytes, count, took,
           (double)bytes / took * 1e-6);
}

int main(int argc, char **argv)
{
    trm_file *f;
    trm_tokenizer *t;
    const char *end;
    char *all, *line;
    size_t count;
    double start = seconds();
    trm_status st;

    if (argc < 2)
        return 1;
    check(trm_file_open(argv[1], &f), "open");
    end = argv[1] + strlen(argv[1]);
    if (strlen(argv[1]) > 6 && strcmp(end - 6, ".model") == 0)
        st = trm_tokenizer_from_sentencepiece(argv[1], trm_file_data(f), trm_file_bytes(f), &t);
    else
        st = trm_tokenizer_from_json(argv[1], trm_file_data(f), trm_file_bytes(f), &t);
    if (st != TRM_OK) {
        fprintf(stderr, "%s\n", trm_message());
        return st == TRM_ERR_UNSUPPORTED ? 3 : 1;
    }
    fprintf(stderr, "%s: %s, loaded in %.3f s\n", argv[1], trm_tokenizer_description(t),
            seconds() - start);
    all = slurp(stdin, &count);
    if (argc > 2 && strcmp(argv[2], "time") == 0) {
        time_it(t, all, count);
    } else {
        append(&all, &count, "", 0);
        all[count] = '\0';
        for (line = all; *line != '\0';) {
            char *stop = strchr(line, '\n');

            if (stop != NULL)
                *stop = '\0';
            one(t, line, argc > 2 ? TRM_ENCODE_PLAIN : 0);
            line = stop == NULL ? line + strlen(line) : stop + 1;
        }
    }
    free(all);
    trm_tokenizer_destroy(t);
    trm_file_unref(f);
    return 0;
}
