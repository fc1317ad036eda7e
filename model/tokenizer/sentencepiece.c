/* Sentencepiece's tokenizer.model: the protobuf ModelProto of sentencepiece_model.proto. What the
 * file does not say, the models that come so do: BPE models (Llama, Gemma) put <s> before a text,
 * Unigram models (T5) put </s> behind it. */
#include "model/onnx/protobuf.h"
#include "model/tokenizer/tokenizer_impl.h"

#include <string.h>

enum { UNIGRAM = 1, BPE = 2 };

typedef struct model {
    trm_gguf_vocabulary v;
    trm_text *tokens;
    float *scores;
    int32_t *types;
    size_t room;
    int64_t type;
    bool suffix; /* treat_whitespace_as_suffix */
    trmi_normalizer n;
    trmi_bytes map;
} model;

static trm_status read_piece(trmi_pb outer, model *m)
{
    trmi_pb r = trmi_pb_make(outer.bytes, outer.base, "SentencePiece");
    trm_text text = {"", 0};
    float score = 0.0f;
    int64_t type = 1;
    size_t room = m->room, same = m->room, also = m->room;
    bool more;

    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            break;
        if (r.field == 1) {
            TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
            text.bytes = (const char *)r.bytes.data;
            text.count = r.bytes.bytes;
        } else if (r.field == 2) {
            TRM_CHECK(trmi_pb_want(&r, TRMI_PB_FIXED32));
            score = trmi_float_bits(r.number);
        } else if (r.field == 3) {
            TRM_CHECK(trmi_pb_int(&r, &type));
        }
    }
    if (m->v.count >= TRMI_IDS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "more than %zu pieces", TRMI_IDS_MAX);
    if (type < 1 || type > 6)
        return trm_fail(TRM_ERR_BAD_FILE, "piece %zu is of type %lld", m->v.count, (long long)type);
    if (!trmi_grow((void **)&m->tokens, &room, m->v.count + 1, sizeof(*m->tokens)) ||
        !trmi_grow((void **)&m->scores, &same, m->v.count + 1, sizeof(*m->scores)) ||
        !trmi_grow((void **)&m->types, &also, m->v.count + 1, sizeof(*m->types)))
        return trmi_no_memory("pieces");
    m->room = room;
    m->tokens[m->v.count] = text;
    m->scores[m->v.count] = score;
    m->types[m->v.count++] = (int32_t)type;
    return TRM_OK;
}

static trm_status read_trainer(trmi_pb outer, model *m)
{
    trmi_pb r = trmi_pb_make(outer.bytes, outer.base, "TrainerSpec");
    int64_t value;
    bool more;

    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            return TRM_OK;
        if (r.field != 3 && r.field != 24 && (r.field < 40 || r.field > 43))
            continue;
        TRM_CHECK(trmi_pb_int(&r, &value));
        if (r.field == 3)
            m->type = value;
        else if (r.field == 24)
            m->suffix = value != 0;
        else if (value < -1 || value >= (int64_t)TRMI_IDS_MAX)
            return trm_fail(TRM_ERR_BAD_FILE, "a special token has id %lld", (long long)value);
        else if (r.field == 40)
            m->v.unknown = (int32_t)value;
        else if (r.field == 41)
            m->v.bos = (int32_t)value;
        else if (r.field == 42)
            m->v.eos = (int32_t)value;
    }
}

static trm_status read_normalizer(trmi_pb outer, model *m)
{
    trmi_pb r = trmi_pb_make(outer.bytes, outer.base, "NormalizerSpec");
    int64_t value;
    bool more;

    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            return TRM_OK;
        if (r.field == 2) {
            TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
            m->map = r.bytes;
        } else if (r.field >= 3 && r.field <= 5) {
            TRM_CHECK(trmi_pb_int(&r, &value));
            *(r.field == 3   ? &m->n.dummy_prefix
              : r.field == 4 ? &m->n.remove_extra
                             : &m->n.escape) = value != 0;
        }
    }
}

static trm_status read_model(const void *bytes, size_t count, model *m)
{
    trmi_bytes all = {bytes, count};
    trmi_pb r = trmi_pb_make(all, bytes, "ModelProto");
    bool more;

    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            return TRM_OK;
        if (r.field < 1 || r.field > 3)
            continue;
        TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
        TRM_CHECK(r.field == 1   ? read_piece(r, m)
                  : r.field == 2 ? read_trainer(r, m)
                                 : read_normalizer(r, m));
    }
}

static trm_status build(model *m, trm_tokenizer *t)
{
    int32_t count = (int32_t)m->v.count;

    if (m->v.count == 0)
        return trm_fail(TRM_ERR_BAD_FILE, "no pieces: this is no sentencepiece model");
    if (m->type != UNIGRAM && m->type != BPE)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "sentencepiece model type %lld (supported: 1, Unigram, and 2, BPE)",
                        (long long)m->type);
    if (m->suffix)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "blanks as suffixes of words (supported: as prefixes)");
    /* the ids are defaults that a model may lack */
    m->v.unknown = m->v.unknown < count ? m->v.unknown : -1;
    m->v.bos = m->v.bos < count ? m->v.bos : -1;
    m->v.eos = m->v.eos < count ? m->v.eos : -1;
    m->v.tokens = m->tokens;
    m->v.scores = m->scores;
    m->v.types = m->types;
    if (m->map.bytes > 0)
        TRM_CHECK(trmi_precompiled_create((const char *)m->map.data, m->map.bytes, &m->n.map));
    TRM_CHECK(trmi_build_scored(t, &m->v, m->type == UNIGRAM, &m->n, true));
    TRM_CHECK(m->type == BPE ? trmi_build_post(t, m->v.bos, -1) : trmi_build_post(t, -1, m->v.eos));
    return trmi_tokenizer_finish(t, "from a sentencepiece model");
}

trm_status trm_tokenizer_from_sentencepiece(const char *name, const void *bytes, size_t count,
                                            trm_tokenizer **tokenizer_out)
{
    model m = {.v = {.unknown = 0, .bos = 1, .eos = 2},
               .type = UNIGRAM,
               .n = {.dummy_prefix = true, .remove_extra = true, .escape = true}};
    trm_tokenizer *t = NULL;
    trm_status st;

    TRM_TRY(st, trmi_tokenizer_create(&t), end);
    TRM_TRY(st, read_model(bytes, count, &m), end);
    TRM_TRY(st, build(&m, t), end);
    *tokenizer_out = t;
    t = NULL;
end:
    trm_tokenizer_destroy(t);
    trm_free(m.tokens);
    trm_free(m.scores);
    trm_free(m.types);
    return st == TRM_OK ? TRM_OK : trm_fail_context(st, "%s", name);
}
