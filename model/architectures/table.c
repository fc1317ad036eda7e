/* The table of architectures. */
#include "model/architectures/blocks.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static const trm_architecture table[] = {
    {"llama", NAMES("LlamaForCausalLM", "LlamaModel"), NAMES("llama"), false, trmi_llama_build},
    {"mistral", NAMES("MistralForCausalLM", "MistralModel"), NULL, false, trmi_llama_build},
    {"qwen2", NAMES("Qwen2ForCausalLM"), NAMES("qwen2"), false, trmi_llama_build},
    {"qwen3", NAMES("Qwen3ForCausalLM"), NAMES("qwen3"), false, trmi_llama_build},
    {"mixtral", NAMES("MixtralForCausalLM"), NULL, false, trmi_mixtral_build},
    {"qwen3moe", NAMES("Qwen3MoeForCausalLM"), NAMES("qwen3moe"), false, trmi_qwen3moe_build},
    {"gemma", NAMES("GemmaForCausalLM"), NAMES("gemma"), false, trmi_gemma_build},
    {"gemma2", NAMES("Gemma2ForCausalLM"), NAMES("gemma2"), false, trmi_gemma2_build},
    {"gemma3", NAMES("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"), NAMES("gemma3"), false,
     trmi_gemma3_build},
    {"phi3", NAMES("Phi3ForCausalLM"), NAMES("phi3"), false, trmi_phi3_build},
    {"gpt2", NAMES("GPT2LMHeadModel", "GPT2Model"), NAMES("gpt2"), false, trmi_gpt2_build},
    {"starcoder2", NAMES("Starcoder2ForCausalLM"), NAMES("starcoder2"), false,
     trmi_starcoder2_build},
    {"bert", NAMES("BertModel", "BertForSequenceClassification", "BertForMaskedLM"), NAMES("bert"),
     true, trmi_bert_build},
    {"roberta",
     NAMES("RobertaModel", "RobertaForSequenceClassification", "RobertaForMaskedLM",
           "XLMRobertaModel", "XLMRobertaForSequenceClassification", "XLMRobertaForMaskedLM"),
     NULL, true, trmi_roberta_build},
};

#define COUNT (sizeof(table) / sizeof(table[0]))

const trm_architecture *trm_architecture_find(const char *source_name, bool gguf)
{
    for (size_t i = 0; i < COUNT; i++) {
        const char *const *names = gguf ? table[i].gguf : table[i].huggingface;

        for (; names != NULL && *names != NULL; names++)
            if (strcmp(*names, source_name) == 0)
                return &table[i];
    }
    return NULL;
}

const trm_architecture *trm_architecture_named(const char *name)
{
    for (size_t i = 0; i < COUNT; i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

/* ---- for messages ---- */

static pthread_once_t lists_once = PTHREAD_ONCE_INIT;
static char lists[2][2048];

static void make_lists(void)
{
    for (int gguf = 0; gguf < 2; gguf++) {
        size_t n = 0;

        for (size_t i = 0; i < COUNT; i++) {
            const char *const *names = gguf ? table[i].gguf : table[i].huggingface;

            for (; names != NULL && *names != NULL && n < sizeof(lists[0]); names++) {
                int wrote = snprintf(lists[gguf] + n, sizeof(lists[0]) - n, "%s%s",
                                     n == 0 ? "" : ", ", *names);

                n += wrote < 0 ? 0 : (size_t)wrote;
            }
        }
    }
}

const char *trm_architecture_list(bool gguf)
{
    (void)pthread_once(&lists_once, make_lists);
    return lists[gguf];
}
