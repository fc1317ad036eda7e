/* trireme run: one-off inference on images or tensors. */
#define _GNU_SOURCE
#include "base/npy.h"
#include "launch/commands.h"
#include "launch/inputs.h"
#include "launch/lm_options.h"
#include "launch/ranks.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOP_MAX 1000 /* as the YAML's top_k */

struct run {
    trm_common_options common;
    trm_parallel_options parallel;
    trm_ranks ranks;
    trm_option_list images, inputs;
    trm_lm_cli lm;
    const char *prompt, *prompt_file;
    bool raw_prompt;
    const char *output_dir;
    int64_t top;
    bool profile, made_dir, loaded;
    FILE *text; /* images: printed when all of them are done */
    trm_tensor_model *model;
    trm_arena *arena;
    trm_tensor *in, *out;
};

/* ---- images ---- */

static trm_status classify(struct run *r, const char *path, int scores)
{
    trm_package *p = r->model->package;
    trm_label labels[TOP_MAX];
    trm_image image = {0};
    trm_file *file = NULL;
    trm_tensor *t = &r->in[0], f32;
    int64_t dims[3];
    size_t bytes;
    int found;
    trm_status st = TRM_OK;

    TRM_TRY(st, trm_file_open(path, &file), done);
    TRM_TRY(st, trm_image_decode(trm_file_data(file), trm_file_bytes(file), path, &image), done);
    trm_preprocess_shape(&p->preprocess, image.width, image.height, dims);
    *t = (trm_tensor){
        .dtype = p->preprocess.dtype, .rank = 4, .dims = {1, dims[0], dims[1], dims[2]}};
    TRM_TRY(st, trm_tensor_bytes(t, &bytes), done);
    t->data = trm_arena_alloc_aligned(r->arena, bytes);
    if (t->data == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "%s: %zu bytes", path, bytes);
        goto done;
    }
    TRM_TRY(st, trm_preprocess_run(&p->preprocess, &image, t->data), done);
    TRM_TRY(st, trm_replica_run(r->model->replica, r->in, r->out), done);
    f32 = r->out[scores];
    if (f32.dtype != TRM_DTYPE_F32) {
        st = trm_fail(TRM_ERR_UNSUPPORTED, "output '%s' is %s: class scores want f32",
                      r->model->graph->values[r->model->graph->outputs[scores]].name,
                      trm_dtype_name(f32.dtype));
        goto done;
    }
    found = trm_package_top(p, f32.data, trm_tensor_numel(&f32), (int)r->top, labels);
    fprintf(r->text, "%s\n", path);
    for (int i = 0; i < found; i++)
        fprintf(r->text, "  %-9.6f %5d  %s\n", (double)labels[i].score, labels[i].index,
                labels[i].text != NULL ? labels[i].text : "");
done:
    trm_image_fini(&image);
    trm_file_unref(file);
    return st;
}

/* Classes of an output whose dims but the first are known; else -1. */
static int64_t classes_of(const trm_value *v)
{
    int64_t n = 1;

    for (int d = 1; d < v->desc.rank; d++)
        if (v->desc.dims[d] < 0 || !trm_mul_ok(n, v->desc.dims[d], &n))
            return -1;
    return v->desc.rank < 1 ? -1 : n;
}

/* Nothing is printed before every image is done: a bad one among them leaves no half list. */
static trm_status classify_all(struct run *r, int scores)
{
    char *text = NULL;
    size_t bytes = 0;
    trm_status st = TRM_OK;

    r->text = open_memstream(&text, &bytes);
    if (r->text == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "text of %d images", r->images.count);
    for (int i = 0; i < r->images.count && st == TRM_OK; i++)
        st = classify(r, r->images.items[i], scores);
    if (fclose(r->text) != 0 && st == TRM_OK)
        st = trm_fail(TRM_ERR_NO_MEMORY, "text of %d images", r->images.count);
    if (st == TRM_OK)
        fwrite(text, 1, bytes, stdout);
    free(text);
    return st;
}

static trm_status run_images(struct run *r)
{
    trm_package *p = r->model->package;
    const trm_value *v;
    int scores;

    if (r->model->graph->input_count != 1)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--image wants a model with one input, this one has %d",
                        r->model->graph->input_count);
    if (!p->has_preprocess)
        TRM_CHECK(trm_package_default_preprocess(p));
    TRM_CHECK(trm_tensor_model_scores(r->model, &scores));
    v = &r->model->graph->values[r->model->graph->outputs[scores]];
    if (classes_of(v) >= 0 && r->top > classes_of(v))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--top %" PRId64 ": output '%s' has only %" PRId64 " classes", r->top,
                        v->name, classes_of(v));
    if (r->top == 0)
        r->top = p->top_k > 0 ? p->top_k : 5;
    for (int i = 0; i < r->images.count;
         i++) /* unreadable files are said before anything is computed */
        if (!trm_path_exists(r->images.items[i]))
            return trm_fail(TRM_ERR_NOT_FOUND, "'%s': no such image", r->images.items[i]);
    return classify_all(r, scores);
}

/* ---- tensors ---- */

static void print_output(const char *name, const trm_tensor *t)
{
    char shape[TRM_SHAPE_TEXT_BYTES];
    size_t n = trm_tensor_numel(t);

    printf("%s %s %s:", name, trm_dtype_name(t->dtype),
           trm_tensor_shape_text(t, shape, sizeof(shape)));
    for (size_t i = 0; i < n && i < 8; i++) {
        if (trm_dtype_is_float(t->dtype))
            printf(" %.7g", trm_tensor_get_f64(t, i));
        else
            printf(" %" PRId64, trm_tensor_get_i64(t, i));
    }
    printf("%s\n", n > 8 ? " ..." : "");
}

static trm_status write_output(const char *dir, const char *name, const trm_tensor *t)
{
    char file[300];
    char *path;
    size_t n = 0;
    trm_status st;

    for (; name[n] != '\0' && n < 250; n++)
        file[n] = name[n] == '/' || name[n] == '\\' ? '_' : name[n];
    memcpy(file + n, ".npy", 5);
    if (file[0] == '.')
        file[0] = '_';
    path = trm_path_join(dir, file);
    if (path == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%s", file);
    st = trm_npy_save(path, t);
    if (st == TRM_OK)
        printf("%s\n", path);
    trm_free(path);
    return st;
}

static trm_status load_inputs(struct run *r, const trm_graph *g)
{
    if (r->loaded)
        return TRM_OK;
    r->in = trm_arena_alloc(r->arena, (size_t)g->input_count + 1, sizeof(trm_tensor));
    if (r->in == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "tensors");
    TRM_CHECK(trm_inputs_load(g, &r->inputs, r->arena, r->in));
    r->loaded = true;
    return TRM_OK;
}

/* The planner plans for the very inputs. */
static trm_status planned_inputs(void *ctx, const trm_graph *g, const trm_tensor **inputs_out)
{
    struct run *r = ctx;

    TRM_CHECK(load_inputs(r, g));
    *inputs_out = r->in;
    return TRM_OK;
}

static trm_status run_tensors(struct run *r)
{
    const trm_graph *g = r->model->graph;

    TRM_CHECK(load_inputs(r, g));
    TRM_CHECK(trm_replica_check(r->model->replica, r->in));
    r->made_dir = r->output_dir != NULL && mkdir(r->output_dir, 0777) == 0;
    if (r->output_dir != NULL && !r->made_dir && errno != EEXIST)
        return trm_fail(TRM_ERR_INVALID_ARG, "--output-dir '%s': %s", r->output_dir,
                        strerror(errno));
    if (r->output_dir != NULL && !trm_path_is_dir(r->output_dir))
        return trm_fail(TRM_ERR_INVALID_ARG, "--output-dir '%s' is not a folder", r->output_dir);
    TRM_CHECK(trm_replica_run(r->model->replica, r->in, r->out));
    for (int i = 0; i < g->output_count; i++) {
        const char *name = g->values[g->outputs[i]].name;

        if (r->output_dir == NULL)
            print_output(name, &r->out[i]);
        else
            TRM_CHECK(write_output(r->output_dir, name, &r->out[i]));
    }
    return TRM_OK;
}

static trm_status run_model(struct run *r)
{
    const trm_graph *g = r->model->graph;
    trm_status st;

    r->out = trm_arena_alloc(r->arena, (size_t)g->output_count + 1, sizeof(trm_tensor));
    if (r->in == NULL)
        r->in = trm_arena_alloc(r->arena, (size_t)g->input_count + 1, sizeof(trm_tensor));
    if (r->in == NULL || r->out == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "tensors");
    st = r->images.count > 0 ? run_images(r) : run_tensors(r);
    if (st != TRM_OK && r->made_dir)
        (void)!rmdir(r->output_dir); /* stays if an output is complete */
    if (st == TRM_OK && r->profile)
        trm_engine_profile(trm_replica_engine(r->model->replica), stderr);
    return st;
}

/* Every rank: opens the model together with the others, then leads or follows. */
static trm_status on_ranks(struct run *r, const char *path)
{
    trm_tensor_model_options options = {0};
    trm_status st = trm_arena_create(0, &r->arena);

    if (st == TRM_OK)
        st = trm_ranks_device(&r->ranks, &r->common, true);
    if (st == TRM_OK)
        st = trm_ranks_options(&r->ranks, &r->common, &r->parallel, (trm_parallel){1, 0, 0},
                               TRM_OBJECTIVE_LATENCY, &options);
    if (st == TRM_OK && options.parallel.data > 1)
        st = trm_fail(TRM_ERR_INVALID_ARG, "--parallel data=%d: one run is one replica",
                      options.parallel.data);
    options.parallel.data = 1;
    options.profile = r->profile;
    options.ctx = r;
    options.inputs = r->images.count > 0 ? NULL : planned_inputs;
    options.images = r->images.count > 0;
    TRM_CHECK(trm_ranks_open(&r->ranks, path, st, &options));
    r->model = r->ranks.model;
    if (trm_ranks_lead(&r->ranks, &st))
        st = run_model(r);
    return st;
}

static trm_status run_prompt(struct run *r, const char *path)
{
    const trm_run_language o = {.ranks = &r->ranks,
                                .common = &r->common,
                                .parallel = &r->parallel,
                                .cli = &r->lm,
                                .path = path,
                                .prompt = r->prompt,
                                .prompt_file = r->prompt_file,
                                .raw = r->raw_prompt,
                                .profile = r->profile};

    if (r->images.count > 0 || r->inputs.count > 0 || r->output_dir != NULL)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "'%s' is a language model: want --prompt TEXT or --prompt-file FILE", path);
    if (r->top > 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "--top is not for language models: want --top-k");
    if ((r->prompt == NULL) == (r->prompt_file == NULL))
        return trm_fail(TRM_ERR_INVALID_ARG, "want --prompt TEXT or --prompt-file FILE");
    if (r->prompt_file != NULL && !trm_path_is_file(r->prompt_file))
        return trm_fail(TRM_ERR_NOT_FOUND, "--prompt-file '%s': no such file", r->prompt_file);
    return trm_run_language_on_ranks(&o);
}

static trm_status run_any(struct run *r, const char *path)
{
    TRM_CHECK(trm_common_apply(&r->common));
    if (trm_language_is(path))
        return run_prompt(r, path);
    if (r->prompt != NULL || r->prompt_file != NULL)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--prompt wants a language model (a folder with config.json, or .gguf), "
                        "not '%s'",
                        path);
    if (r->images.count > 0 && (r->inputs.count > 0 || r->output_dir != NULL))
        return trm_fail(TRM_ERR_INVALID_ARG, "--image goes with neither --input nor --output-dir");
    return on_ranks(r, path);
}

trm_status trm_cmd_run(int argc, char **argv)
{
    struct run r = {
        .common = TRM_COMMON_DEFAULTS, .lm = TRM_LM_CLI_DEFAULTS, .ranks = {.command = "run"}};
    const trm_option options[] = {
        {"prompt", TRM_OPTION_STRING, "TEXT", 0, 0, NULL, "language models: the text to go on with",
         &r.prompt},
        {"prompt-file", TRM_OPTION_STRING, "FILE", 0, 0, NULL, "the same from a file",
         &r.prompt_file},
        {"raw-prompt", TRM_OPTION_FLAG, NULL, 0, 0, NULL,
         "without the tokens that the model's tokenizer puts around it", &r.raw_prompt},
        {"image", TRM_OPTION_LIST, "FILE...", 0, 0, NULL,
         "classify images: top labels with probabilities", &r.images},
        {"input", TRM_OPTION_LIST, "NAME=FILE.npy...", 0, 0, NULL,
         "input tensors (or one FILE.npz)", &r.inputs},
        {"output-dir", TRM_OPTION_STRING, "DIR", 0, 0, NULL,
         "write NAME.npy per output (default: print)", &r.output_dir},
        {"top", TRM_OPTION_INT, "K", 0, TOP_MAX, NULL,
         "labels per image (default: the model's YAML, else 5)", &r.top},
        {"profile", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "print time per kernel to standard error",
         &r.profile},
        TRM_LM_SAMPLING_OPTIONS(r.lm),
        TRM_LM_LOGPROBS_OPTION(r.lm),
        TRM_LM_ENGINE_OPTIONS(r.lm),
        TRM_PARALLEL_OPTIONS(r.parallel),
        TRM_DEVICE_OPTIONS(r.common),
    };
    trm_arguments args = {.command = "run",
                          .usage =
                              "MODEL (--prompt TEXT | --image FILE... | --input NAME=FILE.npy... "
                              "[--output-dir DIR])",
                          .options = options,
                          .option_count = sizeof(options) / sizeof(options[0]),
                          .positional_min = 1,
                          .positional_max = 1};
    trm_status st;

    TRM_CHECK(trm_job_init(&r.ranks.job));
    if (trm_ranks_silent(&r.ranks, argc, argv))
        return trm_ranks_end(&r.ranks, TRM_OK);
    st = trm_options_parse(&args, argc, argv);
    if (st == TRM_OK && !args.help)
        st = run_any(&r, args.positionals[0]);
    trm_options_free_list(&r.images);
    trm_options_free_list(&r.inputs);
    trm_options_free_list(&r.lm.stop);
    st = trm_ranks_end(&r.ranks, st);
    trm_arena_destroy(r.arena);
    return st;
}
