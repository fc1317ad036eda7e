/* oneDNN's engine, stream, status codes, descriptors, and the kernel made of its primitives. */
#include "kernels/cpu/dnnl_util.h"

#include <stdio.h>
#include <string.h>

trm_status trmi_dnnl_status(dnnl_status_t status, const char *what)
{
    switch (status) {
    case dnnl_success:
        return TRM_OK;
    case dnnl_out_of_memory:
        return trm_fail(TRM_ERR_NO_MEMORY, "oneDNN %s: out of memory", what);
    case dnnl_unimplemented:
        return trm_fail(TRM_ERR_UNSUPPORTED, "oneDNN %s: not implemented", what);
    case dnnl_invalid_arguments:
        return trm_fail(TRM_ERR_UNSUPPORTED, "oneDNN %s: invalid arguments", what);
    default:
        return trm_fail(TRM_ERR_INTERNAL, "oneDNN %s: status %d", what, (int)status);
    }
}

trm_status trmi_dnnl_init(trm_cpu *cpu)
{
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    trm_status st;

    TRM_CHECK(trmi_dnnl_status(dnnl_engine_create(&engine, dnnl_cpu, 0), "engine"));
    st = trmi_dnnl_status(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "stream");
    if (st != TRM_OK) {
        dnnl_engine_destroy(engine);
        return st;
    }
    cpu->dnnl_engine = engine;
    cpu->dnnl_stream = stream;
    return TRM_OK;
}

void trmi_dnnl_fini(trm_cpu *cpu)
{
    dnnl_stream_destroy(trmi_cpu_stream(cpu));
    dnnl_engine_destroy(trmi_cpu_engine(cpu));
}

dnnl_data_type_t trmi_dnnl_dtype(trm_dtype dtype)
{
    switch (dtype) {
    case TRM_DTYPE_F32:
        return dnnl_f32;
    case TRM_DTYPE_BF16:
        return dnnl_bf16;
    case TRM_DTYPE_I8:
        return dnnl_s8;
    case TRM_DTYPE_U8:
        return dnnl_u8;
    case TRM_DTYPE_I32:
        return dnnl_s32;
    default:
        return dnnl_data_type_undef;
    }
}

trm_status trmi_dnnl_md_plain(int rank, const int64_t *dims, trm_dtype dtype,
                              dnnl_memory_desc_t *md_out)
{
    dnnl_dims_t copy = {1}, strides = {1}; /* oneDNN's prototypes want arrays of full length */
    dnnl_data_type_t dt = trmi_dnnl_dtype(dtype);
    int64_t stride = 1;

    if (dt == dnnl_data_type_undef || rank > DNNL_MAX_NDIMS)
        return trm_fail(TRM_ERR_UNSUPPORTED, "oneDNN: no %s tensors of rank %d",
                        trm_dtype_name(dtype), rank);
    for (int i = rank - 1; i >= 0; i--) {
        copy[i] = dims[i];
        strides[i] = stride;
        stride *= dims[i] > 0 ? dims[i] : 1;
    }
    return trmi_dnnl_status(
        dnnl_memory_desc_init_by_strides(md_out, rank == 0 ? 1 : rank, copy, dt, strides),
        "memory descriptor");
}

static dnnl_format_tag_t layout_tag(int rank, trm_layout layout)
{
    static const dnnl_format_tag_t tags[3][TRM_LAYOUT_COUNT] = {
        {dnnl_abc, dnnl_acb, dnnl_aBc8b, dnnl_aBc16b},
        {dnnl_abcd, dnnl_acdb, dnnl_aBcd8b, dnnl_aBcd16b},
        {dnnl_abcde, dnnl_acdeb, dnnl_aBcde8b, dnnl_aBcde16b},
    };

    return rank >= 3 && rank <= 5 ? tags[rank - 3][layout] : dnnl_format_tag_undef;
}

static trm_status md_by_tag(const trm_tensor *t, dnnl_data_type_t dt, dnnl_format_tag_t tag,
                            dnnl_memory_desc_t *md_out)
{
    dnnl_dims_t dims = {0};

    for (int i = 0; i < t->rank; i++)
        dims[i] = t->dims[i];
    return trmi_dnnl_status(dnnl_memory_desc_init_by_tag(md_out, t->rank, dims, dt, tag),
                            "memory descriptor");
}

trm_status trmi_dnnl_md(const trm_tensor *t, trm_layout layout, dnnl_memory_desc_t *md_out)
{
    dnnl_data_type_t dt = trmi_dnnl_dtype(t->dtype);
    dnnl_format_tag_t tag = layout_tag(t->rank, layout);

    if (layout == TRM_LAYOUT_PLAIN)
        return trmi_dnnl_md_plain(t->rank, t->dims, t->dtype, md_out);
    if (dt == dnnl_data_type_undef || tag == dnnl_format_tag_undef)
        return trm_fail(TRM_ERR_UNSUPPORTED, "oneDNN: no %s tensors of rank %d in layout %d",
                        trm_dtype_name(t->dtype), t->rank, (int)layout);
    return md_by_tag(t, dt, tag, md_out);
}

trm_status trmi_dnnl_md_any(const trm_tensor *t, dnnl_memory_desc_t *md_out)
{
    dnnl_data_type_t dt = trmi_dnnl_dtype(t->dtype);

    if (dt == dnnl_data_type_undef)
        return trm_fail(TRM_ERR_UNSUPPORTED, "oneDNN: no %s tensors", trm_dtype_name(t->dtype));
    return md_by_tag(t, dt, dnnl_format_tag_any, md_out);
}

bool trmi_dnnl_layout(const dnnl_memory_desc_t *md, const trm_tensor *t, trm_layout *layout_out)
{
    dnnl_memory_desc_t ours;

    for (int l = 0; l < TRM_LAYOUT_COUNT; l++) {
        if (trmi_dnnl_md(t, (trm_layout)l, &ours) == TRM_OK && dnnl_memory_desc_equal(md, &ours)) {
            *layout_out = (trm_layout)l;
            return true;
        }
    }
    return false;
}

bool trmi_layout_same_bytes(const trm_tensor *t, trm_layout a, trm_layout b)
{
    static const int64_t blocks[TRM_LAYOUT_COUNT] = {1, 1, 8, 16};

    if (a == b)
        return true;
    if (t->rank < 2)
        return false;
    if (t->dims[1] == 1 && blocks[a] == 1 && blocks[b] == 1)
        return true; /* one channel: plain and channels-last */
    for (int i = 2; i < t->rank; i++)
        if (t->dims[i] != 1)
            return false;
    return t->dims[1] % blocks[a] == 0 && t->dims[1] % blocks[b] == 0;
}

trm_status trmi_dnnl_attr(dnnl_primitive_attr_t *attr_out)
{
    dnnl_primitive_attr_t attr;
    trm_status st;

    TRM_CHECK(trmi_dnnl_status(dnnl_primitive_attr_create(&attr), "attributes"));
    st = trmi_dnnl_status(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user),
                          "scratchpad");
    if (st == TRM_OK)
        *attr_out = attr;
    else
        dnnl_primitive_attr_destroy(attr);
    return st;
}

bool trmi_dnnl_impl_slow(const_dnnl_primitive_desc_t pd)
{
    const char *impl = "";

    if (dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&impl) != dnnl_success)
        return true;
    return strstr(impl, "ref") != NULL || strstr(impl, "simple") != NULL;
}

static trm_status dnnl_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    trmi_dnnl_kernel *k = (trmi_dnnl_kernel *)base;

    (void)s;
    for (int i = 0; i < k->step_count; i++) {
        trmi_dnnl_step *step = &k->steps[i];

        for (int a = 0; a < step->arg_count; a++) {
            const trmi_bind *b = &step->binds[a];
            const void *p = b->fixed;

            if (b->kind == TRMI_BIND_INPUT)
                p = in[b->at];
            else if (b->kind == TRMI_BIND_OUTPUT)
                p = out[b->at];
            else if (b->kind == TRMI_BIND_WORKSPACE)
                p = (char *)workspace + b->at;
            if (p == step->handles[a])
                continue;
            /* oneDNN's memory objects know no const: inputs are only read */
            TRM_CHECK(trmi_dnnl_status(dnnl_memory_set_data_handle_v2(step->args[a].memory,
                                                                      (void *)(uintptr_t)p,
                                                                      trmi_cpu_stream(k->cpu)),
                                       "memory handle"));
            step->handles[a] = p;
        }
        TRM_CHECK(trmi_dnnl_status(dnnl_primitive_execute(step->primitive, trmi_cpu_stream(k->cpu),
                                                          step->arg_count, step->args),
                                   "execute"));
    }
    return TRM_OK;
}

void trmi_dnnl_kernel_destroy(trm_kernel *base)
{
    trmi_dnnl_kernel *k = (trmi_dnnl_kernel *)base;

    if (k == NULL)
        return;
    for (int i = 0; i < k->step_count; i++) {
        for (int a = 0; a < k->steps[i].arg_count; a++)
            dnnl_memory_destroy(k->steps[i].args[a].memory);
        dnnl_primitive_destroy(k->steps[i].primitive);
    }
    for (int i = 0; i < k->pack_count; i++)
        trmi_cpu_pack_release(k->cpu, k->packs[i]);
    trm_free(k);
}

static const trm_kernel_ops dnnl_ops = {
    .name = "dnnl",
    .run = dnnl_run,
    .destroy = trmi_dnnl_kernel_destroy,
};

trm_status trmi_dnnl_kernel_new(trm_cpu *cpu, trmi_dnnl_kernel **kernel_out)
{
    TRM_CHECK(trmi_kernel_new(sizeof(**kernel_out), &dnnl_ops, kernel_out));
    (*kernel_out)->cpu = cpu;
    return TRM_OK;
}

/* Reserves workspace; returns its byte offset. */
static size_t reserve_workspace(trmi_dnnl_kernel *k, size_t bytes)
{
    size_t at = k->base.workspace_bytes;

    k->base.workspace_bytes = at + trm_align_up(bytes, TRM_ALIGN);
    return at;
}

trm_status trmi_dnnl_step_arg(trmi_dnnl_kernel *k, trmi_dnnl_step *step, int arg,
                              const dnnl_memory_desc_t *md, trmi_bind bind)
{
    dnnl_memory_t memory;

    if (step->arg_count == TRMI_DNNL_ARGS)
        return trm_fail(TRM_ERR_INTERNAL, "oneDNN step has more than %d arguments", TRMI_DNNL_ARGS);
    TRM_CHECK(trmi_dnnl_status(
        dnnl_memory_create(&memory, md, trmi_cpu_engine(k->cpu), DNNL_MEMORY_NONE), "memory"));
    step->args[step->arg_count] = (dnnl_exec_arg_t){arg, memory};
    step->binds[step->arg_count++] = bind;
    return TRM_OK;
}

trm_status trmi_dnnl_step_add(trmi_dnnl_kernel *k, const_dnnl_primitive_desc_t pd,
                              trmi_dnnl_step **step_out)
{
    const dnnl_memory_desc_t *scratch;
    const char *impl = NULL;
    trmi_dnnl_step *step;
    size_t bytes;

    if (k->step_count == TRMI_DNNL_STEPS)
        return trm_fail(TRM_ERR_INTERNAL, "oneDNN kernel has more than %d steps", TRMI_DNNL_STEPS);
    step = &k->steps[k->step_count];
    TRM_CHECK(trmi_dnnl_status(dnnl_primitive_create(&step->primitive, pd), "primitive"));
    k->step_count++;
    if (dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&impl) == dnnl_success &&
        impl != NULL && k->impl[0] == '\0')
        snprintf(k->impl, sizeof(k->impl), "%s", impl);
    scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    bytes = scratch == NULL ? 0 : dnnl_memory_desc_get_size(scratch);
    if (bytes > 0)
        TRM_CHECK(trmi_dnnl_step_arg(k, step, DNNL_ARG_SCRATCHPAD, scratch,
                                     trmi_bind_workspace(reserve_workspace(k, bytes))));
    *step_out = step;
    return TRM_OK;
}

static trm_status reorder_pd(trm_cpu *cpu, const dnnl_memory_desc_t *from,
                             const dnnl_memory_desc_t *to, dnnl_primitive_desc_t *pd_out)
{
    dnnl_primitive_attr_t attr = NULL;
    trm_status st;

    TRM_CHECK(trmi_dnnl_attr(&attr));
    st = trmi_dnnl_status(dnnl_reorder_primitive_desc_create(pd_out, from, trmi_cpu_engine(cpu), to,
                                                             trmi_cpu_engine(cpu), attr),
                          "reorder");
    dnnl_primitive_attr_destroy(attr);
    return st;
}

trm_status trmi_dnnl_step_reorder(trmi_dnnl_kernel *k, const dnnl_memory_desc_t *from,
                                  trmi_bind from_bind, const dnnl_memory_desc_t *to,
                                  trmi_bind to_bind)
{
    dnnl_primitive_desc_t pd;
    trmi_dnnl_step *step;
    trm_status st;

    TRM_CHECK(reorder_pd(k->cpu, from, to, &pd));
    TRM_TRY(st, trmi_dnnl_step_add(k, pd, &step), done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_FROM, from, from_bind), done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_TO, to, to_bind), done);
done:
    dnnl_primitive_desc_destroy(pd);
    return st;
}

/* Runs one reorder now. */
static trm_status reorder_now(trm_cpu *cpu, const dnnl_memory_desc_t *from, const void *from_data,
                              const dnnl_memory_desc_t *to, void *to_data)
{
    trmi_dnnl_kernel *k = NULL;
    void *workspace = NULL;
    trm_status st;

    TRM_CHECK(trmi_dnnl_kernel_new(cpu, &k));
    TRM_TRY(
        st,
        trmi_dnnl_step_reorder(k, from, trmi_bind_fixed(from_data), to, trmi_bind_fixed(to_data)),
        done);
    workspace = trm_aligned_malloc(k->base.workspace_bytes);
    if (workspace == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "workspace of %zu bytes", k->base.workspace_bytes);
        goto done;
    }
    TRM_TRY(st, dnnl_run(&k->base, NULL, NULL, NULL, workspace), done);
    st = trmi_dnnl_status(dnnl_stream_wait(trmi_cpu_stream(cpu)), "stream");
done:
    trm_aligned_free(workspace);
    trmi_dnnl_kernel_destroy(&k->base);
    return st;
}

/* Text that determines what the bytes behind a blocked descriptor mean; false: another kind. */
static bool md_text(const dnnl_memory_desc_t *md, char *text, size_t bytes)
{
    const dnnl_blocking_desc_t *b = &md->format_desc.blocking;
    int at = snprintf(text, bytes, "t%d", (int)md->data_type);

    if (md->format_kind != dnnl_blocked)
        return false;
    for (int i = 0; i < md->ndims && at > 0 && (size_t)at < bytes; i++)
        at += snprintf(text + at, bytes - (size_t)at, " %lld/%lld:%lld", (long long)md->dims[i],
                       (long long)md->padded_dims[i], (long long)b->strides[i]);
    for (int i = 0; i < b->inner_nblks && at > 0 && (size_t)at < bytes; i++)
        at += snprintf(text + at, bytes - (size_t)at, " b%lld.%lld", (long long)b->inner_idxs[i],
                       (long long)b->inner_blks[i]);
    if (at > 0 && (size_t)at < bytes)
        at += snprintf(text + at, bytes - (size_t)at, " x%llx.%d.%d.%g",
                       (unsigned long long)md->extra.flags, md->extra.compensation_mask,
                       md->extra.asymm_compensation_mask, (double)md->extra.scale_adjust);
    return at > 0 && (size_t)at < bytes;
}

trm_status trmi_dnnl_weights(trmi_dnnl_kernel *k, const trm_op_desc *desc, int input,
                             const dnnl_memory_desc_t *user, const dnnl_memory_desc_t *wanted,
                             trmi_bind *bind_out)
{
    const void *data = desc->inputs[input].data;
    char form[1200];
    uint64_t key = desc->weight_keys == NULL ? 0 : desc->weight_keys[input];
    size_t half = sizeof(form) / 2, bytes = dnnl_memory_desc_get_size(wanted);
    trmi_pack *pack;
    bool found;

    if (dnnl_memory_desc_equal(user, wanted)) {
        if (data != NULL) /* stays valid for the kernel's life */
            k->base.packed_inputs |= 1u << input;
        *bind_out = data != NULL ? trmi_bind_fixed(data) : trmi_bind_input(input);
        return TRM_OK;
    }
    if (data == NULL) {
        size_t at = reserve_workspace(k, bytes);

        *bind_out = trmi_bind_workspace(at);
        return trmi_dnnl_step_reorder(k, user, trmi_bind_input(input), wanted, *bind_out);
    }
    if (!md_text(user, form, half))
        key = 0;
    else
        strcat(form, " to ");
    if (!md_text(wanted, form + strlen(form), half))
        key = 0;
    if (k->pack_count == TRMI_DNNL_PACKS)
        return trm_fail(TRM_ERR_INTERNAL, "more than %d packed weights", TRMI_DNNL_PACKS);
    TRM_CHECK(trmi_cpu_pack(k->cpu, key, form, bytes, &pack, &found));
    k->packs[k->pack_count++] = pack;
    if (!found) {
        trm_status st = reorder_now(k->cpu, user, data, wanted, pack->memory);

        trmi_cpu_pack_settle(k->cpu, pack, st == TRM_OK);
        TRM_CHECK(st);
    }
    k->base.packed_inputs |= 1u << input;
    k->base.copied_inputs |= 1u << input;
    *bind_out = trmi_bind_fixed(pack->memory);
    return TRM_OK;
}
