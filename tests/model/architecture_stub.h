/* A table of architectures for tests of configurations: rows that build nothing. */
#ifndef TRM_TESTS_MODEL_ARCHITECTURE_STUB_H
#define TRM_TESTS_MODEL_ARCHITECTURE_STUB_H

#include "model/architectures/architecture.h"

#include <string.h>

static const char *const stub_classes[] = {"LlamaForCausalLM",
                                           "MistralForCausalLM",
                                           "MixtralForCausalLM",
                                           "Qwen2ForCausalLM",
                                           "Qwen3ForCausalLM",
                                           "Qwen3MoeForCausalLM",
                                           "GemmaForCausalLM",
                                           "Gemma2ForCausalLM",
                                           "Gemma3ForCausalLM",
                                           "Gemma3ForConditionalGeneration",
                                           "Phi3ForCausalLM",
                                           "GPT2LMHeadModel",
                                           "BertModel",
                                           "BertForSequenceClassification",
                                           "RobertaModel",
                                           "XLMRobertaModel",
                                           "SomethingElseForCausalLM",
                                           NULL};
static const char *const stub_gguf[] = {"llama",  "qwen2", "qwen3", "qwen3moe", "gemma", "gemma2",
                                        "gemma3", "phi3",  "gpt2",  "bert",     "odd",   NULL};
static const trm_architecture stub = {"stub", stub_classes, stub_gguf, false, NULL, NULL};
static const trm_architecture stub_encoder = {"stub-encoder", NULL, NULL, true, NULL, NULL};

const trm_architecture *trm_architecture_find(const char *source_name, bool gguf)
{
    const char *const *names = gguf ? stub_gguf : stub_classes;

    for (; *names != NULL; names++)
        if (strcmp(*names, source_name) == 0)
            return strncmp(source_name, "Bert", 4) == 0 || strcmp(source_name, "bert") == 0
                       ? &stub_encoder
                       : &stub;
    return NULL;
}

const trm_architecture *trm_architecture_named(const char *name)
{
    return strcmp(name, "stub") == 0 ? &stub : &stub_encoder;
}

const char *trm_architecture_list(bool gguf)
{
    return gguf ? "llama, gpt2" : "LlamaForCausalLM, GPT2LMHeadModel";
}

#endif
