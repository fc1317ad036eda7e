/* What a served language model is and how it is doing: metadata and counters. */
#include "worker/language/serve_impl.h"

void trmi_serve_stats(const trm_lm_model *model, trm_wire_model_stats *out)
{
    trm_generator_stats g;

    trm_generator_get_stats(model->generator, &g);
    *out = (trm_wire_model_stats){.running = (uint32_t)g.scheduler.running,
                                  .waiting = (uint32_t)g.scheduler.waiting,
                                  .kv_pages = (uint64_t)model->limits.pages,
                                  .kv_pages_used = (uint64_t)g.scheduler.kv.used,
                                  .prefix_queries = g.scheduler.kv.queried_tokens,
                                  .prefix_hits = g.scheduler.kv.found_tokens,
                                  .preemptions = g.scheduler.preemptions,
                                  .steps = g.scheduler.steps,
                                  .prompt_tokens = g.scheduler.prompt_tokens,
                                  .new_tokens = g.scheduler.new_tokens,
                                  .step_us = (uint64_t)g.step_us};
}

json_t *trmi_serve_metadata(const trm_lm_model *model)
{
    const trm_language *l = model->language;
    const trm_weights *w = l->weights;
    json_int_t weights_bytes = 0;
    char layout[80];

    for (size_t i = 0; w != NULL && i < trm_weights_count(w); i++) {
        size_t bytes = 0;

        if (trm_tensor_bytes(&trm_weights_at(w, i)->desc, &bytes) == TRM_OK)
            weights_bytes += (json_int_t)bytes;
    }
    return json_pack("{s:s, s:s, s:[], s:[], s:i, s:b, s:b, s:b, s:I, s:I, s:I, s:s, s:I, s:I}",
                     "kind", l->encoder ? "embed" : "generate", "platform",
                     l->gguf_file ? "gguf" : "safetensors", "inputs", "outputs", "max_batch",
                     model->limits.batch, "labels", 0, "image", 0, "chat",
                     l->chat != NULL && !l->encoder, "context", (json_int_t)model->limits.context,
                     "vocabulary", (json_int_t)l->config.vocabulary, "parameters",
                     (json_int_t)trm_graph_parameter_count(l->graph), "layout",
                     trm_parallel_text(&model->layout.parallel, layout, sizeof(layout)),
                     "weights_bytes", weights_bytes, "hidden", (json_int_t)l->config.hidden);
}
