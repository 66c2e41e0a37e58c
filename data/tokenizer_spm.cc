/* data/tokenizer_spm.cc - see tokenizer_spm.h; the only C++ of the data folder. */
#include "data/tokenizer_spm.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <unordered_map>
#include <vector>

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

struct Spm {
    sentencepiece::SentencePieceProcessor processor;
};

namespace {

void explain(char why[SPM_WHY], const char *reason)
{
    std::snprintf(why, SPM_WHY, "%s", reason);
}

/* Hands the caller's sentences to the trainer. An exception in Next() would be ours: none. */
class Sentences : public sentencepiece::SentenceIterator {
  public:
    Sentences(SpmNextSentence next, void *context) : next_(next), context_(context) { Next(); }
    bool done() const override { return done_; }
    const std::string &value() const override { return value_; }
    sentencepiece::util::Status status() const override { return {}; }
    void Next() override
    {
        const char *text = nullptr;
        size_t size = 0;
        done_ = !next_(context_, &text, &size);
        if (!done_) value_.assign(text, size);
    }

  private:
    SpmNextSentence next_;
    void *context_;
    bool done_ = false;
    std::string value_;
};

} // namespace

extern "C" Spm *spm_load(const char *bytes, size_t size, char why[SPM_WHY])
{
    Spm *spm = nullptr;
    try {
        spm = new Spm;
        const auto status = spm->processor.LoadFromSerializedProto(std::string_view(bytes, size));
        if (status.ok()) return spm;
        explain(why, status.error_message());
    } catch (const std::exception &error) {
        explain(why, error.what());
    } catch (...) {
        explain(why, "unknown failure");
    }
    delete spm;
    return nullptr;
}

extern "C" void spm_free(Spm *spm) { delete spm; }

extern "C" int spm_count(const Spm *spm) { return spm->processor.GetPieceSize(); }

extern "C" const char *spm_piece(const Spm *spm, int id, size_t *size)
{
    const std::string &piece = spm->processor.IdToPiece(id);
    *size = piece.size();
    return piece.data();
}

extern "C" int64_t spm_encode(const Spm *spm, const char *text, size_t size, int32_t *ids,
                              int64_t capacity)
{
    try {
        std::vector<int> out;
        if (!spm->processor.Encode(std::string_view(text, size), &out).ok()) return -1;
        const int64_t count = static_cast<int64_t>(out.size());
        if (count <= capacity)
            for (int64_t i = 0; i < count; i++) ids[i] = out[i];
        return count;
    } catch (...) {
        return -1;
    }
}

extern "C" int spm_train(int vocab_size, SpmNextSentence next, void *context, char **bytes,
                         size_t *size, char why[SPM_WHY])
{
    const std::unordered_map<std::string, std::string> options = {
        {"model_type", "bpe"},
        {"vocab_size", std::to_string(vocab_size)},
        {"hard_vocab_limit", "false"}, /* the caller sees how many pieces there are */
        {"normalization_rule_name", "identity"},
        {"add_dummy_prefix", "false"},
        {"remove_extra_whitespaces", "false"},
        {"allow_whitespace_only_pieces", "true"},
        {"split_digits", "true"},
        {"byte_fallback", "true"},
        {"character_coverage", "1.0"}, /* the caller has chosen the characters */
        {"user_defined_symbols", "\n"},
        {"max_sentence_length", "1000000"},
        {"input_sentence_size", "0"},
        {"shuffle_input_sentence", "false"},
        {"num_threads", "1"}, /* it only speeds up normalisation, of which there is none */
        {"minloglevel", "3"},
    };
    try {
        Sentences sentences(next, context);
        std::string model;
        const auto status =
            sentencepiece::SentencePieceTrainer::Train(options, &sentences, &model);
        if (!status.ok()) {
            explain(why, status.error_message());
            return -1;
        }
        *bytes = static_cast<char *>(std::malloc(model.size() + 1));
        if (!*bytes) {
            explain(why, "out of memory");
            return -1;
        }
        std::memcpy(*bytes, model.data(), model.size());
        *size = model.size();
        return 0;
    } catch (const std::exception &error) {
        explain(why, error.what());
    } catch (...) {
        explain(why, "unknown failure");
    }
    return -1;
}
