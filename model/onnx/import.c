/* ModelProto: what it says about itself, its opsets, its functions and its graph. */
#include "model/onnx/onnx_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { M_IR_VERSION = 1, M_PRODUCER = 2, M_PRODUCER_VERSION = 3, M_GRAPH = 7, M_OPSET = 8 };

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "onnx model");
}

static trm_status parse_opset(trmi_import *im, trmi_bytes message, trmi_opset *o)
{
    trmi_pb r = trmi_pb_make(message, im->base, "OperatorSetIdProto");
    bool more;

    o->domain = "";
    o->version = 0;
    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            break;
        if (r.field == 1)
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &o->domain));
        else if (r.field == 2)
            TRM_CHECK(trmi_pb_int(&r, &o->version));
    }
    if (strcmp(o->domain, "ai.onnx") == 0)
        o->domain = "";
    if (o->version < 1)
        return trm_fail(TRM_ERR_BAD_FILE, "opset version of domain '%s' is %" PRId64, o->domain,
                        o->version);
    if (o->domain[0] == '\0' && o->version > TRMI_OPSET_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "opset %" PRId64 "; supported are 1 to %d", o->version,
                        TRMI_OPSET_MAX);
    return TRM_OK;
}

trm_status trmi_opsets_parse(trmi_import *im, trmi_bytes message, uint32_t field,
                             trmi_opsets *opsets)
{
    trmi_pb r = trmi_pb_make(message, im->base, "opset_import");
    size_t count = 0;
    bool more;

    for (int pass = 0; pass < 2; pass++) {
        trmi_pb p = r;

        for (;;) {
            TRM_CHECK(trmi_pb_next(&p, &more));
            if (!more)
                break;
            if (p.field != field)
                continue;
            TRM_CHECK(trmi_pb_want(&p, TRMI_PB_BYTES));
            if (pass == 0)
                count++;
            else
                TRM_CHECK(parse_opset(im, p.bytes, &opsets->items[opsets->count++]));
        }
        if (pass == 0) {
            if (count > 1000)
                return trm_fail(TRM_ERR_BAD_FILE, "%zu opset imports, want at most 1000", count);
            opsets->count = 0;
            opsets->items =
                (trmi_opset *)trm_arena_alloc(im->scratch, count + 1, sizeof(trmi_opset));
            if (opsets->items == NULL)
                return no_memory();
        }
    }
    return TRM_OK;
}

typedef struct model_info {
    const char *producer, *version;
    trmi_bytes graph;
    bool have_graph;
} model_info;

static trm_status parse_model(trmi_import *im, trmi_bytes model, model_info *info)
{
    trmi_pb r = trmi_pb_make(model, im->base, "ModelProto");
    bool more;

    info->producer = info->version = "";
    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            break;
        switch (r.field) {
        case M_IR_VERSION:
            TRM_CHECK(trmi_pb_int(&r, &im->ir_version));
            break;
        case M_PRODUCER:
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &info->producer));
            break;
        case M_PRODUCER_VERSION:
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &info->version));
            break;
        case M_GRAPH:
            TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
            info->graph = r.bytes;
            info->have_graph = true;
            break;
        default:
            break;
        }
    }
    if (!info->have_graph)
        return trm_fail(TRM_ERR_BAD_FILE, "no graph: this is no ONNX model");
    TRM_CHECK(trmi_opsets_parse(im, model, M_OPSET, &im->opsets));
    if (im->opsets.count == 0) {
        if (im->ir_version >= 3)
            return trm_fail(TRM_ERR_BAD_FILE, "the model imports no opset");
        im->opsets.items[0].domain =
            ""; /* IR versions 1 and 2 had no opsets; there is room for one */
        im->opsets.items[0].version = 1;
        im->opsets.count = 1;
    }
    return trmi_functions_parse(im, model);
}

static trm_status set_metadata(trmi_scope *s, const model_info *info)
{
    trm_graph *g = s->im->top;
    size_t bytes = strlen(info->producer) + strlen(info->version) + 2;
    char *producer = (char *)trm_arena_alloc(g->arena, bytes, 1);

    if (producer == NULL)
        return no_memory();
    snprintf(producer, bytes, "%s%s%s", info->producer, info->version[0] == '\0' ? "" : " ",
             info->version);
    g->format = "onnx";
    g->producer = producer;
    g->opset = trmi_opset_of(s, "");
    return TRM_OK;
}

static trm_status import(trmi_import *im, trmi_bytes model)
{
    trmi_body body;
    trmi_scope s;
    model_info info;

    memset(&info, 0, sizeof(info));
    memset(&body, 0, sizeof(body));
    memset(&s, 0, sizeof(s));
    if (model.bytes == 0)
        return trm_fail(TRM_ERR_BAD_FILE, "the file is empty");
    TRM_CHECK(parse_model(im, model, &info));
    TRM_CHECK(trm_graph_create(NULL, "", &im->top));
    body.g = im->top;
    s.im = im;
    s.body = &body;
    s.opsets = &im->opsets;
    s.prefix = "";
    TRM_CHECK(set_metadata(&s, &info));
    TRM_CHECK(trmi_graph_fill(&s, info.graph));
    if (im->top->output_count == 0)
        return trm_fail(TRM_ERR_BAD_FILE, "graph '%s' has no outputs", im->top->name);
    return trm_graph_sort(im->top);
}

trm_status trm_onnx_import(trm_file *file, trm_graph **graph_out)
{
    trmi_bytes model = {.data = trm_file_data(file), .bytes = trm_file_bytes(file)};
    trmi_import im;
    trm_status st;

    memset(&im, 0, sizeof(im));
    im.file = file;
    im.base = model.data;
    TRM_CHECK(trm_arena_create((size_t)64 << 10, &im.scratch));
    st = import(&im, model);
    for (int i = 0; i < im.extern_count; i++)
        trm_file_unref(im.extern_files[i]); /* the graph holds those it needs */
    trm_free(im.extern_files);
    trm_free(im.extern_names);
    free(im.folder); /* realpath's own allocation */
    trm_arena_destroy(im.scratch);
    if (st == TRM_OK) {
        *graph_out = im.top;
        return TRM_OK;
    }
    trm_graph_destroy(im.top);
    return trm_fail_context(st, "'%s'", trm_file_path(file));
}
