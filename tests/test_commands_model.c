/* tests/test_commands_model.c - `isomoe prepare`, `eval` and `generate` on a small model that this
 * program trains for a few steps: their numbers are computed again here, from logits. */
#include "tests/train_help.h"

#include <math.h>

#include "base/philox.h"
#include "train/heldout.h"
#include "train/json_out.h"
#include "train/open_run.h"
#include "train/report.h"

enum { DOCUMENTS = 300, SEQ_LEN = 64 };

/* Documents of words that repeat, some with letters of two and three bytes. */
static void write_corpus(const char *path)
{
    static const char *const words[] = {"the ", "router ", "sends ", "a ", "token ", "to ",
                                        "an ", "expert ", "caf\xC3\xA9 ", "\xE2\x82\xAC" "5 ",
                                        "and ", "adds.\n", "what ", "it ", "gives "};
    FILE *f = fopen(path, "w");
    PhiloxKey key = {.seed = 3, .purpose = RNG_TEST};
    uint64_t at_word = 0;
    for (int i = 0; i < DOCUMENTS; i++) {
        fputs("{\"text\": \"", f);
        for (int j = 0; j < 60; j++) {
            const char *word = words[philox_u32(&key, at_word++) % 15];
            for (; *word; word++) fputs(*word == '\n' ? "\\n" : (char[]){*word, 0}, f);
        }
        fputs("\"}\n", f);
    }
    assert_int_equal(fclose(f), 0);
}

/* The scratch folder with shards in data/ and a run in run/, made once. */
static int set_up(void **state)
{
    char data[PATH * 2], out[PATH * 2];
    if (help_begin(state)) return -1;
    write_corpus(at("text.jsonl"));
    RUN_CODE(0, "prepare", at("text.jsonl"), "--out", at("data"), "--vocab-size", "300",
             "--val-fraction", "0.1", "--json");
    json_t *result = json_loads(program_out, 0, NULL);
    assert_true(report_number(result, "documents") == DOCUMENTS);
    assert_true(report_number(result, "val_tokens") > 4 * SEQ_LEN);
    json_decref(result);
    snprintf(data, sizeof data, "data.train=%s", at("data"));
    snprintf(out, sizeof out, "train.out=%s", at("run"));
    RUN_CODE(0, "train", "configs/runs/tiny.yaml", data, out, "train.steps=12",
             "optim.warmup_steps=2", "optim.decay_steps=2", "train.eval_every=0",
             "train.precision=f32", "train.checkpoint_every=0", "train.threads=1");
    return 0;
}

/* The run's model with (B, T) activations and, if asked, its held-out loader. */
static void open_here(OpenRun *r, Tokenizer **tokenizer, Loader **loader)
{
    Err e = {0};
    if (open_run(r, at("run"), &e)) fail_msg("%s", e.message);
    ModelShape shape = {.type = DT_F32, .B = 1, .T = SEQ_LEN, .micro_batches = 1};
    if (open_run_model(r, &shape, &e)) fail_msg("%s", e.message);
    *tokenizer = open_run_tokenizer(r, NULL, &e);
    if (!*tokenizer) fail_msg("%s", e.message);
    if (!loader) return;
    LoaderOptions options = {.source = {{r->config.data.val, 1}}, .n_sources = 1, .split = "val",
                             .seq_len = SEQ_LEN, .vocab_size = r->config.model.vocab_size};
    *loader = loader_open(&options, &e);
    if (!*loader) fail_msg("%s", e.message);
}

/* -log softmax(logits)[target] in double. */
static double nll_of(const float *logits, int64_t V, int32_t target)
{
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < V; i++) most = fmax(most, logits[i]);
    for (int64_t i = 0; i < V; i++) sum += exp(logits[i] - most);
    return most + log(sum) - logits[target];
}

/* What `eval` must say of the first `sequences` windows: from logits and from decoded text. */
static HeldOut expected_of(int64_t sequences)
{
    OpenRun r;
    Tokenizer *tokenizer;
    Loader *loader;
    HeldOut h = {.sequences = sequences};
    Err e = {0};
    open_here(&r, &tokenizer, &loader);
    int64_t V = r.config.model.vocab_size;
    float *logits = malloc((size_t)(SEQ_LEN * V) * sizeof *logits);
    for (int64_t s = 0; s < sequences; s++) {
        Batch b;
        if (loader_batch(loader, s, 1, &b, &e)) fail_msg("%s", e.message);
        MicroBatch m = {.B = 1, .tokens = b.tokens, .targets = b.targets, .doc_start = b.doc_start};
        model_logits(r.model, &m, logits);
        for (int64_t t = 0; t < SEQ_LEN; t++) {
            char *piece;
            size_t size;
            if (b.targets[t] < 0) continue;
            h.nll += nll_of(logits + t * V, V, b.targets[t]);
            h.targets++;
            assert_int_equal(tokenizer_decode(tokenizer, &b.targets[t], 1, &piece, &size, &e), 0);
            h.bytes += (int64_t)size;
            free(piece);
        }
    }
    heldout_finish(&h);
    free(logits);
    loader_close(&loader);
    tokenizer_close(&tokenizer);
    open_run_close(&r);
    return h;
}

static void assert_close(double a, double b)
{
    if (!(fabs(a - b) <= 2e-5 * fabs(b))) fail_msg("%.9g, expected %.9g", a, b);
}

static void eval_is_the_mean_of_token_losses(void **state)
{
    (void)state;
    RUN_CODE(0, "eval", at("run"), "--sequences", "5", "--json");
    json_t *said = json_loads(program_out, 0, NULL);
    json_t *kept = json_load_file(at("run/eval.json"), 0, NULL);
    assert_non_null(said);
    assert_true(json_equal(said, kept));
    HeldOut h = expected_of(5);
    assert_true(report_number(said, "sequences") == 5);
    assert_true(report_number(said, "tokens") == (double)h.targets);
    assert_true(report_number(said, "bytes") == (double)h.bytes);
    assert_close(report_number(said, "loss"), h.nll / (double)h.targets);
    assert_close(report_number(said, "perplexity"), exp(h.nll / (double)h.targets));
    assert_close(report_number(said, "bits_per_byte"), h.nll / 0.69314718056 / (double)h.bytes);
    assert_true(json_is_null(json_object_get(said, "xz_bytes")));
    json_decref(said);
    json_decref(kept);
}

static void eval_beside_xz(void **state)
{
    (void)state;
    RUN_CODE(0, "eval", at("run"), "--sequences", "0", "--compare-xz", "--json");
    json_t *said = json_loads(program_out, 0, NULL);
    double bytes = report_number(said, "bytes"), xz = report_number(said, "xz_bytes");
    assert_true(xz > 60 && xz < bytes);
    assert_close(report_number(said, "xz_bits_per_byte"), 8 * xz / bytes);
    json_decref(said);
    RUN_CODE(0, "eval", at("run"), "--compare-xz");
    assert_has(program_out, "xz -9");
}

static void eval_refuses_other_data(void **state)
{
    (void)state;
    RUN_CODE(1, "eval", at("nothing"));
    RUN_CODE(1, "eval", at("run"), "--data", at("nothing"));
    RUN_CODE(2, "eval", at("run"), "--sequences", "-1");
    RUN_CODE(0, "prepare", at("text.jsonl"), "--out", at("other"), "--vocab-size", "290",
             "--val-fraction", "0.1");
    RUN_CODE(1, "eval", at("run"), "--data", at("other"));
    assert_has(program_err, "is not the tokenizer that");
}

/* Size of a text of n bytes under xz: noise, or one letter. */
static int64_t packed(size_t n, bool noise)
{
    FILE *f = tmpfile();
    int64_t bytes = -1;
    Err e = {0};
    PhiloxKey key = {.seed = 8, .purpose = RNG_TEST};
    for (size_t i = 0; i < n; i++) fputc(noise ? (int)(philox_u32(&key, i) & 255) : 'a', f);
    if (xz_size(f, &bytes, &e)) fail_msg("%s", e.message);
    fclose(f);
    return bytes;
}

static void xz_measures_text(void **state)
{
    (void)state;
    assert_in_range(packed(300000, true), 300000, 301000);
    assert_in_range(packed(300000, false), 50, 400);
    assert_in_range(packed(0, false), 16, 64);
    char *path = strdup(getenv("PATH"));
    FILE *f = tmpfile();
    int64_t bytes;
    Err e = {0};
    setenv("PATH", scratch, 1);
    assert_int_equal(xz_size(f, &bytes, &e), -1);
    assert_has(e.message, "xz-utils");
    setenv("PATH", path, 1);
    free(path);
    fclose(f);
}

/* The tokens of `generate --json`; returns how many. */
static int64_t generated(int32_t *ids, int64_t room)
{
    json_t *answer = json_loads(program_out, 0, NULL), *list = json_object_get(answer, "tokens");
    int64_t n = (int64_t)json_array_size(list);
    assert_true(n <= room);
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    json_decref(answer);
    return n;
}

/* Each token must be the likeliest one behind all before it, by a whole pass without a cache. */
static void greedy_text_is_the_argmax(void **state)
{
    (void)state;
    enum { WANTED = 20 };
    const char *text = "the caf\xC3\xA9 router";
    int32_t ids[SEQ_LEN] = {0}, answer[WANTED], *prompt;
    int64_t n_prompt;
    OpenRun r;
    Tokenizer *tokenizer;
    Err e = {0};
    RUN_CODE(0, "generate", at("run"), "--prompt", text, "--temperature", "0", "--tokens", "20",
             "--json");
    int64_t n = generated(answer, WANTED);
    open_here(&r, &tokenizer, NULL);
    assert_int_equal(tokenizer_encode(tokenizer, text, strlen(text), &prompt, &n_prompt, &e), 0);
    assert_true(n > 0 && 1 + n_prompt + n <= SEQ_LEN);
    ids[0] = tokenizer_bos(tokenizer);
    memcpy(ids + 1, prompt, (size_t)n_prompt * sizeof *ids);
    memcpy(ids + 1 + n_prompt, answer, (size_t)n * sizeof *ids);
    int64_t V = r.config.model.vocab_size;
    float *logits = malloc((size_t)(SEQ_LEN * V) * sizeof *logits);
    model_logits(r.model, &(MicroBatch){.B = 1, .tokens = ids}, logits);
    for (int64_t i = 0; i < n; i++) {
        const float *here = logits + (n_prompt + i) * V;
        for (int64_t v = 0; v < tokenizer_vocab(tokenizer); v++)
            if (here[v] > here[answer[i]] + 1e-4f)
                fail_msg("token %lld is %d, but %lld is likelier", (long long)i, answer[i],
                         (long long)v);
    }
    free(logits);
    free(prompt);
    tokenizer_close(&tokenizer);
    open_run_close(&r);
}

static void the_seed_decides_the_text(void **state)
{
    (void)state;
    RUN_CODE(0, "generate", at("run"), "--tokens", "40", "--seed", "5");
    char *first = strdup(program_out);
    RUN_CODE(0, "generate", at("run"), "--tokens", "40", "--seed", "5");
    assert_string_equal(program_out, first);
    RUN_CODE(0, "generate", at("run"), "--tokens", "40", "--seed", "6");
    assert_string_not_equal(program_out, first);
    free(first);
    RUN_CODE(0, "generate", at("run"), "--prompt", "an expert", "--tokens", "0");
    assert_string_equal(program_out, "an expert\n");
    RUN_CODE(0, "generate", at("run"), "--tokens", "100"); /* beyond the training length */
}

static void generate_refuses(void **state)
{
    (void)state;
    RUN_CODE(2, "generate", at("run"), "--top-p", "0");
    RUN_CODE(2, "generate", at("run"), "--tokens", "-3");
    RUN_CODE(1, "generate", at("run"), "--prompt", "a\xFFz");
    assert_has(program_err, "--prompt");
    RUN_CODE(1, "generate", at("data"));
}

static void prepare_refuses(void **state)
{
    (void)state;
    RUN_CODE(2, "prepare", at("text.jsonl"));
    assert_has(program_err, "--out DIR");
    RUN_CODE(2, "prepare", at("text.jsonl"), "--out", at("x"), "--val-fraction", "1");
    RUN_CODE(2, "prepare", at("text.jsonl"), "--out", at("x"), "--shard-tokens", "0");
    RUN_CODE(1, "prepare", at("none.txt"), "--out", at("x"));
}

static void report_of_a_real_run(void **state)
{
    (void)state;
    RUN_CODE(0, "report", at("run"));
    char *page = read_file(at("run/report.html"), NULL);
    assert_has(page, "held-out loss");
    assert_has(page, "Checkpoints");
    assert_has(page, "n_experts: 4");
    assert_null(strstr(page, "The record has no end"));
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eval_is_the_mean_of_token_losses),
        cmocka_unit_test(eval_beside_xz),
        cmocka_unit_test(eval_refuses_other_data),
        cmocka_unit_test(xz_measures_text),
        cmocka_unit_test(greedy_text_is_the_argmax),
        cmocka_unit_test(the_seed_decides_the_text),
        cmocka_unit_test(generate_refuses),
        cmocka_unit_test(prepare_refuses),
        cmocka_unit_test(report_of_a_real_run),
    };
    int failed = cmocka_run_group_tests_name("commands on a model", tests, set_up, help_end);
    free(program_out);
    free(program_err);
    return failed;
}
