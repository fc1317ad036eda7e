/* Measured rates on disk: a text file, its first line the format, its last a checksum. Written
 * beside its place and renamed, so that a reader sees all of it or the old one. */
#define _GNU_SOURCE
#include "parallel/rates_impl.h"

#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Raise where the list of samples, their features or the baseline change: old files are measured
 * anew. */
#define FORMAT "trireme-rates 2"
#define FILE_BYTES_MAX ((size_t)1 << 20)

static uint64_t hash_bytes(const char *text, size_t n)
{
    uint64_t h = 1469598103934665603u; /* FNV-1a */

    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)text[i]) * 1099511628211u;
    return h;
}

static char *cache_folder(void)
{
    const char *own = getenv("TRM_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *base, *path;

    if (own != NULL && own[0] != '\0')
        return trm_strdup(own);
    if (xdg != NULL && xdg[0] == '/')
        return trm_path_join(xdg, "trireme");
    if (home == NULL || home[0] != '/')
        return NULL;
    base = trm_path_join(home, ".cache");
    path = base == NULL ? NULL : trm_path_join(base, "trireme");
    trm_free(base);
    return path;
}

char *trmi_rates_cache_path(const char *machine)
{
    char name[48], *folder = cache_folder(), *path;

    if (folder == NULL)
        return NULL;
    snprintf(name, sizeof(name), "rates-%016llx",
             (unsigned long long)hash_bytes(machine, strlen(machine)));
    path = trm_path_join(folder, name);
    trm_free(folder);
    return path;
}

/* ---- reading ---- */

static trm_status bad(const char *path, const char *what)
{
    return trm_fail(TRM_ERR_BAD_FILE, "%s: %s", path, what);
}

static bool finite_in(double v, double min, double max)
{
    return v >= min && v <= max; /* false for NaN */
}

static trm_status read_sample(const char *path, const char *line, trm_rates *r)
{
    trmi_sample s = {0};
    int class, at = 0, n;

    if (sscanf(line, "sample %d %lf %lf %lf%n", &class, &s.work.flops, &s.work.bytes,
               &s.work.weights, &at) != 4)
        return bad(path, "a torn sample");
    for (int i = 0; i < TRMI_FEATURES; i++, at += n)
        if (sscanf(line + at, "%lf%n", &s.work.feature[i], &n) != 1 ||
            !finite_in(s.work.feature[i], 1, 1e15))
            return bad(path, "a torn sample");
    for (int i = 0; i < TRMI_CASES; i++, at += n)
        if (sscanf(line + at, "%lf%n", &s.us[i], &n) != 1 || !finite_in(s.us[i], 0, 1e12))
            return bad(path, "a torn sample");
    if (class < 0 || class >= TRMI_CLASSES || !finite_in(s.work.flops, 0, 1e18) ||
        !finite_in(s.work.bytes, 0, 1e18) || !finite_in(s.work.weights, 0, 1e18) ||
        r->sample_count >= TRMI_SAMPLES_MAX)
        return bad(path, "a sample out of range");
    s.work.kind = (trmi_class) class;
    r->samples[r->sample_count++] = s;
    return TRM_OK;
}

/* What a probe of an accelerator changes; the rest is its data sheet's. */
static trm_status read_gpu(const char *path, const char *line, trm_rates *r)
{
    double v[10];
    int count = sscanf(line, "gpu %lf %lf %lf %lf %lf %lf %lf %lf %lf %lf", &v[0], &v[1], &v[2],
                       &v[3], &v[4], &v[5], &v[6], &v[7], &v[8], &v[9]);

    if (!r->gpu.is || count != 10)
        return bad(path, "a torn line of an accelerator");
    for (int i = 0; i < 10; i++)
        if (!finite_in(v[i], 1e-12, 1e12))
            return bad(path, "an accelerator's rate is out of range");
    for (int i = 0; i < 2; i++) {
        r->gpu.gflops[i] = v[i];
        r->gpu.dense[i] = v[2 + i];
        r->gpu.conv[i] = v[4 + i];
    }
    r->gpu.gb_s = v[6];
    r->gpu.gap_us = v[7];
    r->gpu.copy_gb_s = v[8];
    r->gpu.copy_us = v[9];
    r->probes = 1;
    return TRM_OK;
}

static trm_status read_line(const char *path, const char *line, trm_rates *r)
{
    trmi_line l;
    double *read;
    int kind, which;

    if (strncmp(line, "sample ", 7) == 0)
        return read_sample(path, line, r);
    if (sscanf(line, "link %d %d %lf %lf", &kind, &which, &l.alpha, &l.beta) == 4) {
        if (kind < 0 || kind >= TRM_LINK_KINDS || which < 0 || which > 1 ||
            !finite_in(l.alpha, 0, 1e9) || !finite_in(l.beta, 0, 1e9))
            return bad(path, "a link out of range");
        r->link[kind][which] = l;
        return TRM_OK;
    }
    if (sscanf(line, "read %d", &which) == 1) {
        read = which == 0 || which == 1 ? r->read_us_mb[which] : NULL;
        if (read == NULL || sscanf(line, "read %*d %lf %lf %lf %lf", &read[0], &read[1], &read[2],
                                   &read[3]) != TRMI_REACHES)
            return bad(path, "a torn line of reads");
        for (int i = 0; i < TRMI_REACHES; i++)
            if (!finite_in(read[i], 0, 1e9))
                return bad(path, "a read out of range");
        return TRM_OK;
    }
    if (strncmp(line, "gpu ", 4) == 0)
        return read_gpu(path, line, r);
    if (sscanf(line, "date %15s", r->date) == 1 || strncmp(line, "machine ", 8) == 0)
        return TRM_OK;
    if (sscanf(line, "team %d %lf %lf", &r->threads, &r->bf16[0], &r->bf16[1]) == 3)
        return r->threads >= 1 && r->threads <= 4096 && finite_in(r->bf16[0], 0, 100) &&
                       finite_in(r->bf16[1], 0, 100)
                   ? TRM_OK
                   : bad(path, "a team out of range");
    if (sscanf(line, "probes %d %lf", &r->probes, &r->undisturbed) == 2)
        return r->probes >= 0 && finite_in(r->undisturbed, 0, 10)
                   ? TRM_OK
                   : bad(path, "probes out of range");
    return bad(path, "an unknown line");
}

static trm_status parse(const char *path, char *text, size_t bytes, trm_rates *r)
{
    char *last = strstr(text, "\nend "), *line, *next = NULL;
    char want[200];

    if (strlen(text) != bytes || strncmp(text, FORMAT "\n", sizeof(FORMAT)) != 0)
        return bad(path, "no rates of this version");
    if (last == NULL || strtoull(last + 5, NULL, 16) != hash_bytes(text, (size_t)(last + 1 - text)))
        return bad(path, "torn");
    snprintf(want, sizeof(want), "\nmachine %s\n", r->machine);
    if (strstr(text, want) == NULL)
        return bad(path, "of another machine");
    last[1] = '\0';
    r->sample_count = 0;
    for (line = strtok_r(text + sizeof(FORMAT), "\n", &next); line != NULL;
         line = strtok_r(NULL, "\n", &next))
        TRM_CHECK(read_line(path, line, r));
    return r->sample_count > 0 || (r->gpu.is && r->probes > 0) ? TRM_OK : bad(path, "no samples");
}

trm_status trmi_rates_load(const char *path, trm_rates *r)
{
    trm_file *file;
    trm_rates read;
    trm_status st;
    size_t bytes;
    char *text;

    TRM_CHECK(trm_file_open(path, &file));
    bytes = trm_file_bytes(file);
    text = bytes > FILE_BYTES_MAX ? NULL : trm_malloc(bytes + 1, 1);
    if (text == NULL) {
        trm_file_unref(file);
        return bad(path, "no rates: too large");
    }
    if (bytes > 0)
        memcpy(text, trm_file_data(file), bytes);
    text[bytes] = '\0';
    trm_file_unref(file);
    read = *r; /* with the same samples: what a bad file left of them is not counted */
    st = parse(path, text, bytes, &read);
    if (st == TRM_OK)
        *r = read;
    trm_free(text);
    return st;
}

/* ---- writing ---- */

static void print(FILE *f, const trm_rates *r)
{
    fprintf(f, FORMAT "\nmachine %s\ndate %s\nteam %d %.9g %.9g\n", r->machine,
            r->date[0] == '\0' ? "unknown" : r->date, r->threads, r->bf16[0], r->bf16[1]);
    fprintf(f, "probes %d %.4g\n", r->probes, r->undisturbed);
    for (int k = 0; k < 2; k++)
        fprintf(f, "read %d %.9g %.9g %.9g %.9g\n", k, r->read_us_mb[k][0], r->read_us_mb[k][1],
                r->read_us_mb[k][2], r->read_us_mb[k][3]);
    for (int k = 0; k < TRM_LINK_KINDS; k++)
        for (int i = 0; i < 2; i++)
            fprintf(f, "link %d %d %.9g %.9g\n", k, i, r->link[k][i].alpha, r->link[k][i].beta);
    if (r->gpu.is)
        fprintf(f, "gpu %.9g %.9g %.9g %.9g %.9g %.9g %.9g %.9g %.9g %.9g\n", r->gpu.gflops[0],
                r->gpu.gflops[1], r->gpu.dense[0], r->gpu.dense[1], r->gpu.conv[0], r->gpu.conv[1],
                r->gpu.gb_s, r->gpu.gap_us, r->gpu.copy_gb_s, r->gpu.copy_us);
    for (int i = 0; i < r->sample_count; i++) {
        const trmi_sample *s = &r->samples[i];

        fprintf(f, "sample %d %.17g %.17g %.17g", (int)s->work.kind, s->work.flops, s->work.bytes,
                s->work.weights);
        for (int k = 0; k < TRMI_FEATURES; k++)
            fprintf(f, " %.17g", s->work.feature[k]);
        for (int k = 0; k < TRMI_CASES; k++)
            fprintf(f, " %.9g", s->us[k]);
        fputc('\n', f);
    }
}

static trm_status make_folders(const char *path)
{
    char *copy = trm_strdup(path);

    if (copy == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "rates");
    for (char *at = strchr(copy + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        if (mkdir(copy, 0755) != 0 && errno != EEXIST) {
            trm_status st = trm_fail(TRM_ERR_IO, "%s: %s", copy, strerror(errno));

            trm_free(copy);
            return st;
        }
        *at = '/';
    }
    trm_free(copy);
    return TRM_OK;
}

trm_status trmi_rates_store(const char *path, const trm_rates *r)
{
    size_t name_bytes = strlen(path) + 32, bytes = 0;
    char *beside = trm_malloc(name_bytes, 1), *text = NULL;
    FILE *f = NULL;
    trm_status st = TRM_OK;
    bool wrote;

    if (beside == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "rates");
    snprintf(beside, name_bytes, "%s.%d", path, (int)getpid());
    TRM_TRY(st, make_folders(path), done);
    f = open_memstream(&text, &bytes);
    if (f == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "rates");
        goto done;
    }
    print(f, r);
    wrote = fclose(f) == 0;
    f = wrote ? fopen(beside, "we") : NULL;
    if (f == NULL) {
        st = trm_fail(TRM_ERR_IO, "%s: %s", beside, strerror(errno));
        goto done;
    }
    wrote = fwrite(text, 1, bytes, f) == bytes &&
            fprintf(f, "end %016llx\n", (unsigned long long)hash_bytes(text, bytes)) > 0;
    wrote = fclose(f) == 0 && wrote;
    if (!wrote || rename(beside, path) != 0) {
        st = trm_fail(TRM_ERR_IO, "%s: %s", path, strerror(errno));
        unlink(beside);
    }
done:
    free(text); /* from open_memstream */
    trm_free(beside);
    return st;
}
