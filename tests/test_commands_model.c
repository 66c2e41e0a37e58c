/* tests/test_commands_model.c - `isomoe prepare`, `eval` and `generate` on a small model that this
 * program trains for a few steps: their numbers are computed again here, from logits. */
#include "tests/train_help.h"

#include <math.h>

#include "base/philox.h"
#include "train/bits.h"
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
        int64_t at = s * loader_windows(loader) / sequences; /* evenly spread, in file order */
        if (loader_batch(loader, at, 1, &b, &e)) fail_msg("%s", e.message);
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

/* Bits a byte of a text from logits: windows of SEQ_LEN inputs of BOS and the text's tokens. */
static double bits_of(OpenRun *r, const Tokenizer *tokenizer, Document d, int64_t *tokens)
{
    Err e = {0};
    int32_t *ids;
    int64_t n, V = r->config.model.vocab_size;
    double nats = 0;
    float *logits = malloc((size_t)(SEQ_LEN * V) * sizeof *logits);
    assert_int_equal(tokenizer_encode(tokenizer, d.text, d.size, &ids, &n, &e), 0);
    for (int64_t begin = 0; begin < n; begin += SEQ_LEN) {
        int32_t inputs[SEQ_LEN];
        for (int64_t t = 0; t < SEQ_LEN; t++) { /* behind the end: anything, it is not looked at */
            int64_t i = begin + t - 1;
            inputs[t] = i < 0 ? tokenizer_bos(tokenizer) : i < n ? ids[i] : 7;
        }
        model_logits(r->model, &(MicroBatch){.B = 1, .tokens = inputs}, logits);
        for (int64_t t = 0; t < SEQ_LEN && begin + t < n; t++)
            nats += nll_of(logits + t * V, V, ids[begin + t]);
    }
    *tokens = n;
    free(ids);
    free(logits);
    return nats / log(2) / (double)d.size;
}

/* Bytes of the shortest beginning of the text that has n tokens. */
static size_t size_of(const Tokenizer *tokenizer, const char *text, int64_t n)
{
    for (size_t size = 1; text[size]; size++) {
        Err e = {0};
        int32_t *ids;
        int64_t count;
        if ((text[size] & 0xC0) == 0x80) continue;
        assert_int_equal(tokenizer_encode(tokenizer, text, size, &ids, &count, &e), 0);
        free(ids);
        if (count == n) return size;
    }
    fail_msg("no beginning of the text has %lld tokens", (long long)n);
    return 0;
}

static void bits_of_documents(void **state)
{
    (void)state;
    enum { DOCS = 40 };
    Err e = {0};
    OpenRun r;
    Tokenizer *tokenizer;
    Document d[DOCS];
    double all[DOCS], one;
    char *text = read_file(at("text.jsonl"), NULL);
    int64_t tokens, whole = 0, less = 0, more = 0;
    open_here(&r, &tokenizer, NULL);
    size_t size = 1;
    for (int i = 0; i < DOCS; i++, size += 10) { /* one byte to three windows, and one window */
        while ((text[12 + size] & 0xC0) == 0x80) size++;
        d[i] = (Document){text + 12, size};
    }
    d[1].size = size_of(tokenizer, text + 12, SEQ_LEN);
    Bits *bits = bits_open(at("run"), NULL, &e);
    if (!bits) fail_msg("%s", e.message);
    assert_int_equal(bits_score(bits, d, DOCS, all, &e), 0);
    for (int i = 0; i < DOCS; i++) {
        assert_close(all[i], bits_of(&r, tokenizer, d[i], &tokens));
        whole += tokens == SEQ_LEN;
        less += tokens < SEQ_LEN;
        more += tokens > SEQ_LEN;
        assert_int_equal(bits_score(bits, &d[i], 1, &one, &e), 0);
        assert_true(one == all[i]); /* to the bit, whatever is scored beside it */
    }
    assert_true(whole && less && more);
    bits_close(&bits);
    assert_null(bits_open(at("nothing"), NULL, &e));
    free(text);
    tokenizer_close(&tokenizer);
    open_run_close(&r);
}

static void prepare_filters(void **state)
{
    (void)state;
    RUN_CODE(0, "prepare", at("text.jsonl"), "--bpb-model", at("run"), "--max-bpb", "100",
             "--near-duplicates", "--gopher-repetition", "--dry-run-filters");
    assert_has(program_out, "taken out by");
    assert_has(program_out, "bits_per_byte                         0                0     0.00%");
    assert_has(program_out, "finding duplicates took");
    RUN_CODE(1, "prepare", at("text.jsonl"), "--out", at("none"), "--bpb-model", at("run"),
             "--max-bpb", "0.01", "--filter-report", at("why.jsonl"));
    assert_has(program_err, "the filters took out all 300 documents");
    Err e = {0};
    Bits *bits = bits_open(at("run"), NULL, &e);
    json_error_t error;
    FILE *text = fopen(at("text.jsonl"), "r"), *why = fopen(at("why.jsonl"), "r");
    double lowest = INFINITY, highest = 0, value;
    for (int i = 0; i < DOCUMENTS; i++) {
        json_t *line = json_loadf(text, JSON_DISABLE_EOF_CHECK, &error);
        json_t *said = json_loadf(why, JSON_DISABLE_EOF_CHECK, &error);
        json_t *member = json_object_get(line, "text");
        Document d = {json_string_value(member), json_string_length(member)};
        assert_int_equal(bits_score(bits, &d, 1, &value, &e), 0);
        assert_true(report_number(said, "value") == value);
        lowest = fmin(lowest, value);
        highest = fmax(highest, value);
        json_decref(line);
        json_decref(said);
    }
    fclose(text);
    fclose(why);
    bits_close(&bits);
    char limit[64];
    snprintf(limit, sizeof limit, "%.17g", lowest); /* a limit itself is kept */
    RUN_CODE(0, "prepare", at("text.jsonl"), "--bpb-model", at("run"), "--bpb-data", at("data"),
             "--max-bpb", limit, "--dry-run-filters", "--json");
    json_t *result = json_loads(program_out, 0, NULL);
    assert_true(report_number(result, "documents") == 1 && highest > lowest);
    json_decref(result);
}

static void prepare_refuses_filters(void **state)
{
    (void)state;
    static const struct {
        const char *option[4];
        const char *says;
    } bad[] = {
        {{"--max-words", "1", "--min-words=2"}, "filter words: keeps from 2 to 1: nothing"},
        {{"--max-symbols", "1.5"}, "filter symbols: a limit of 1.5"},
        {{"--scripts", "latin,klingon"}, "'klingon' is none"},
        {{"--scripts", ""}, "'' is none"},
        {{"--min-script-share", "0.2"}, "--min-script-share: does nothing without --scripts"},
        {{"--max-top-words", "0.2,0.1"}, "needs 3 shares"},
        {{"--max-top-words", "0.2,0.1,0.1,0.1"}, "needs 3 shares"},
        {{"--max-dup-words", "1,1,1,1,1,2"}, "needs 6 shares"},
        {{"--max-bpb", "2"}, "--max-bpb: does nothing without --bpb-model"},
        {{"--bpb-model", "x"}, "--bpb-model: does nothing without"},
        {{"--bpb-model", "x", "--max-bpb=3"}, "x"},
        {{"--near-bands", "20"}, "--near-bands: does nothing without --near-duplicates"},
        {{"--near-duplicates", "--near-bands=0"}, "--near-bands 0: must be from 1"},
        {{"--near-duplicates", "--near-bands=999", "--near-rows=9"}, "999 bands of 9 rows"},
        {{"--near-duplicates", "--near-likeness=0"}, "likeness of 0"},
        {{"--exact-duplicates", "--dedup-memory=0"}, "--dedup-memory 0: must be from 1"},
        {{"--dedup-memory", "1"}, "--dedup-memory: does nothing without"},
        {{"--filter-report", "x"}, "there is no filter"},
        {{"--dry-run-filters"}, "there is no filter"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *const *o = bad[i].option;
        int code = RUN("prepare", at("text.jsonl"), "--out", at("x"), o[0], o[1], o[2]);
        if (code != (strcmp(bad[i].says, "x") ? 2 : 1)) fail_msg("%s: exit %d", o[0], code);
        assert_has(program_err, bad[i].says);
    }
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
        cmocka_unit_test(bits_of_documents),
        cmocka_unit_test(prepare_filters),
        cmocka_unit_test(prepare_refuses_filters),
        cmocka_unit_test(report_of_a_real_run),
    };
    int failed = cmocka_run_group_tests_name("commands on a model", tests, set_up, help_end);
    free(program_out);
    free(program_err);
    return failed;
}
