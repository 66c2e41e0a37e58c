/* tests/test_eval_command.c - `isomoe eval` with tasks, domains and routing on a model of known
 * weights: a table of pairs of tokens, and experts by token. Every number can be computed here
 * without the model.
 *
 * One-hot embeddings and branches that add nothing: the final norm gives sqrt(D) onehot(u), and the
 * untied head row of v holds M[u][v] / sqrt(D), so log p(v | u) = M[u][v] - log sum exp M[u]. In
 * layer l token u goes to expert (u / (l + 1)) % 4. */
#include "tests/train_help.h"

#include <jansson.h>
#include <math.h>

#include "base/philox.h"
#include "data/loader.h"
#include "data/tokenizer.h"
#include "train/checkpoint.h"
#include "train/report.h"

enum { V = 300, T = 64, E = 4, LAYERS = 2, MARGIN = 2 };

static const char CONFIG[] =
    "model: {vocab_size: 300, d_model: 300, n_layers: 2, n_heads: 2, n_kv_heads: 1, head_dim: 4,\n"
    "  n_experts: 4, top_k: 1, expert_width: 4, tie_embeddings: false, router_weight: raw,\n"
    "  routing_group_tokens: 64}\n"
    "data: {train: %s, seq_len: 64}\n"
    "optim: {warmup_steps: 0}\n"
    "train: {out: run, steps: 1, batch: 3, precision: f32, eval_sequences: 1000, threads: 2}\n";

static Tokenizer *tokenizer;
static double M[V][V];

/* log p(v | u) */
static double logp(int32_t u, int32_t v)
{
    double sum = 0;
    for (int i = 0; i < V; i++) sum += exp(M[u][i]);
    return M[u][v] - log(sum);
}

static int64_t expert_of(int64_t layer, int32_t u) { return u / (layer + 1) % E; }

static void write_corpus(const char *path, const char *const *words, int n, uint64_t seed)
{
    FILE *f = fopen(path, "w");
    PhiloxKey key = {.seed = seed, .purpose = RNG_TEST};
    for (uint64_t i = 0; i < 200; i++) {
        fprintf(f, "{\"text\": \"");
        for (uint64_t k = 0; k < 40; k++)
            fputs(words[philox_u32(&key, 40 * i + k) % (uint32_t)n], f);
        fprintf(f, "\"}\n");
    }
    fclose(f);
}

static void prepare_data(void)
{
    static const char *const words[] = {"the ", "router ", "sends ", "a ", "token ", "to ",
                                        "caf\xC3\xA9 ", "expert ", "and "};
    static const char *const digits[] = {"1", "23", " ", "4", "5 ", "the "};
    Err e = {0};
    write_corpus(at("words.jsonl"), words, 9, 1);
    write_corpus(at("digits.jsonl"), digits, 6, 2);
    RUN_CODE(0, "prepare", at("words.jsonl"), at("digits.jsonl"), "--out", at("data"),
             "--vocab-size", "300", "--val-fraction", "0.1");
    RUN_CODE(0, "prepare", at("words.jsonl"), "--out", at("words"), "--tokenizer",
             at("data/tokenizer.model"), "--val-fraction", "0.1");
    RUN_CODE(0, "prepare", at("digits.jsonl"), "--out", at("digits"), "--tokenizer",
             at("data/tokenizer.model"), "--val-fraction", "0.15");
    tokenizer = tokenizer_open(at("data/tokenizer.model"), &e);
    assert_non_null(tokenizer);
}

/* The token of this one letter, which the corpus does not have: its byte. */
static int32_t letter(char c)
{
    int32_t *ids, id;
    int64_t n;
    Err e = {0};
    assert_int_equal(tokenizer_encode(tokenizer, &c, 1, &ids, &n, &e), 0);
    assert_int_equal(n, 1);
    id = *ids;
    free(ids);
    return id;
}

/* Behind A: B with 0.5, C with 0.3, D with 0.2; behind C: D with 0.9, E with 0.1; behind Q: only R,
 * behind S: only T. */
static void fill_table(void)
{
    static const struct {
        char from, to;
        double p;
    } known[] = {{'A', 'B', 0.5}, {'A', 'C', 0.3}, {'A', 'D', 0.2}, {'C', 'D', 0.9},
                 {'C', 'E', 0.1}, {'Q', 'R', 1},   {'S', 'T', 1}};
    PhiloxKey key = {.seed = 5, .purpose = RNG_TEST};
    for (int u = 0; u < V; u++)
        for (int v = 0; v < V; v++) M[u][v] = 2 * philox_normal(&key, (uint32_t)(u * V + v));
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        for (int v = 0; v < V; v++) M[letter(known[i].from)][v] = -60;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        M[letter(known[i].from)][letter(known[i].to)] = log(known[i].p);
}

static void fill_row(const ParamRow *row, float *w)
{
    double root = sqrt(V);
    for (int64_t i = 0; i < row->elements; i++) w[i] = row->kind == PARAM_NORM;
    for (int32_t u = 0; u < V; u++) {
        if (row->kind == PARAM_EMBED) w[(int64_t)u * V + u] = 1000;
        if (row->kind == PARAM_ROUTER) w[expert_of(row->layer, u) * V + u] = (float)(MARGIN / root);
        for (int v = 0; v < V && row->kind == PARAM_HEAD; v++)
            w[v * V + u] = (float)(M[u][v] / root);
    }
}

static int set_up(void **state)
{
    char text[2048];
    RunConfig config;
    Err e = {0};
    if (help_begin(state)) return -1;
    prepare_data();
    fill_table();
    snprintf(text, sizeof text, CONFIG, at("data"));
    if (run_config_read_text(&config, text, "text", &e)) fail_msg("%s", e.message);
    ModelShape shape = run_config_shape(&config);
    Device *d = device_create("cpu", &(DeviceOptions){.threads = 1}, &e);
    Model *m = model_create(d, &config.model, &shape, &e);
    Optimizer *o = optimizer_create(m, &config.optim, &e);
    assert_non_null(o);
    dev_fill(d, model_master(m), 0);
    for (int i = 0; i < model_params(m)->count; i++) {
        const ParamRow *row = &model_params(m)->row[i];
        fill_row(row, (float *)model_master(m).data + row->offset);
    }
    TrainState s = {.step = 1, .steps_total = 1, .tokenizer_hash = tokenizer_hash(tokenizer)};
    if (checkpoint_save(at("run"), m, o, &config, &s, &e)) fail_msg("%s", e.message);
    write_file(at("run/log.jsonl"), "{\"step\":1,\"loss\":5}\n");
    optimizer_destroy(&o);
    model_destroy(&m);
    device_destroy(&d);
    return 0;
}

static int tear_down(void **state)
{
    tokenizer_close(&tokenizer);
    return help_end(state);
}

static void assert_close(double got, double want)
{
    if (!(fabs(got - want) <= 1e-5 * fabs(want) + 1e-6)) fail_msg("%.9g, must be %.9g", got, want);
}

/* Member "a.b.2.c" of the JSON in text. */
static double number_of(const json_t *json, const char *path)
{
    char copy[128], *rest = copy, *part;
    snprintf(copy, sizeof copy, "%s", path);
    while ((part = strsep(&rest, ".")) && json)
        json = json_is_array(json) ? json_array_get(json, strtoul(part, NULL, 10))
                                   : json_object_get(json, part);
    if (!json_is_number(json)) fail_msg("%s is no number", path);
    return json_number_value(json);
}

static json_t *answer(void)
{
    json_t *json = json_loads(program_out, 0, NULL);
    assert_non_null(json);
    return json;
}

/* Line n of a file of JSON lines. */
static json_t *record(const char *path, int n)
{
    char *text = read_file(path, NULL), *line = text;
    for (; n; n--) line = strchr(line, '\n') + 1;
    json_t *json = json_loads(line, JSON_DISABLE_EOF_CHECK, NULL);
    assert_non_null(json);
    free(text);
    return json;
}

/* ---- Tasks ------------------------------------------------------------------------------------*/

static void a_known_task_comes_out_right(void **state)
{
    (void)state;
    write_file(at("known.jsonl"),
               "{\"context\": \"Q\", \"choices\": [\"T\", \"R\"], \"answer\": \"R\", "
               "\"delimiter\": \"\"}\n"
               "{\"context\": \"the S\", \"choices\": [\"T\", \"R\", \"UV\"], \"answer\": \"A\", "
               "\"delimiter\": \"\"}\n"
               "{\"context\": \"12Q\", \"choices\": [\"Q\", \"QR\", \"RT\"], \"answer\": 2, "
               "\"delimiter\": \"\"}\n");
    RUN_CODE(0, "eval", at("run"), "--tasks", at("known.jsonl"), "--json");
    json_t *said = answer();
    const char *const rules[] = {"acc", "acc_per_byte", "acc_per_token"};
    for (int i = 0; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "tasks.0.%s.value", rules[i]);
        assert_close(number_of(said, path), 1);
        snprintf(path, sizeof path, "tasks.0.%s.low", rules[i]);
        assert_close(number_of(said, path), 3 / (3 + 1.959964 * 1.959964));
        snprintf(path, sizeof path, "tasks.0.%s.error", rules[i]);
        assert_close(number_of(said, path), 0);
    }
    assert_close(number_of(said, "tasks.0.random"), (0.5 + 2 / 3.0) / 3);
    json_decref(said);
}

/* By hand: log 0.5 against log 0.27 of two letters, and of three with one that is all but
 * impossible. */
static void rules_are_told_apart(void **state)
{
    (void)state;
    write_file(at("rules.jsonl"),
               "{\"context\": \"A\", \"choices\": [\"B\", \"CD\", \"D\"], \"answer\": 0, "
               "\"delimiter\": \"\", \"id\": \"x\"}\n");
    RUN_CODE(0, "eval", at("run"), "--tasks", at("rules.jsonl"), "--per-example", at("each.jsonl"));
    assert_has(program_out, "rules: 1 questions, 0.333 right by guessing\n");
    assert_has(program_out, "accuracy         1.0000, 95% 0.2065 to 1.0000\n");
    assert_has(program_out, "per byte         0.0000, 95% 0.0000 to 0.7935\n");
    json_t *said = record(at("each.jsonl"), 0);
    assert_close(number_of(said, "choices.0.logp"), log(0.5));
    assert_close(number_of(said, "choices.1.logp"), log(0.27));
    assert_close(number_of(said, "choices.2.logp"), log(0.2));
    assert_close(number_of(said, "choices.1.tokens"), 2);
    assert_close(number_of(said, "best.acc"), 0);
    assert_close(number_of(said, "best.acc_per_byte"), 1);
    assert_close(number_of(said, "best.acc_per_token"), 1);
    assert_close(number_of(said, "context_tokens"), 2);
    assert_string_equal(report_string(said, "id"), "x");
    json_decref(said);
}

/* Answers drawn at random are found as often as by guessing, within the interval; two task files
 * in one run. */
static void chance_lies_in_the_interval(void **state)
{
    (void)state;
    static const char *const words[] = {"the", "router", "sends", "a", "token", "expert", "23",
                                        "4"};
    FILE *f = fopen(at("random.jsonl"), "w");
    PhiloxKey key = {.seed = 12, .purpose = RNG_TEST};
    for (uint64_t i = 0; i < 300; i++) {
        uint32_t w[4];
        philox_block(&key, (uint32_t)i, w);
        fprintf(f, "{\"context\": \"%s %s\", \"choices\": [\"%s\", \"%s and\", \"%s %s\"], "
                "\"answer\": %u}\n", words[w[0] % 8], words[w[0] / 8 % 8], words[w[1] % 8],
                words[w[1] / 8 % 8], words[w[1] / 64 % 8], words[w[2] % 8], w[3] % 3);
    }
    fclose(f);
    RUN_CODE(0, "eval", at("run"), "--tasks", at("random.jsonl"), "--tasks", at("rules.jsonl"),
             "--json", "--per-example", at("each.jsonl"));
    json_t *said = answer();
    double random = number_of(said, "tasks.0.random");
    assert_close(random, 1 / 3.0);
    assert_true(number_of(said, "tasks.0.acc.low") < random);
    assert_true(number_of(said, "tasks.0.acc.high") > random);
    assert_true(number_of(said, "tasks.0.acc.high") < 0.45);
    assert_close(number_of(said, "tasks.0.n"), 300);
    assert_close(number_of(said, "tasks.1.acc.value"), 1);
    json_t *last = record(at("each.jsonl"), 300);
    assert_string_equal(report_string(last, "task"), "rules");
    json_decref(last);
    json_decref(said);
}

static void tasks_are_refused(void **state)
{
    (void)state;
    write_file(at("bad.jsonl"), "\n{\"context\": 1}\n");
    RUN_CODE(1, "eval", at("run"), "--tasks", at("bad.jsonl"));
    assert_has(program_err, "bad.jsonl:2: the context is no text");
    RUN_CODE(2, "eval", at("run"), "--per-example", at("each.jsonl"));
    assert_has(program_err, "--per-example needs --tasks");
    RUN_CODE(1, "eval", at("run"), "--tasks", at("rules.jsonl"), "--per-example",
             at("no/folder/each.jsonl"));
}

/* ---- Domains and routing ----------------------------------------------------------------------*/

typedef struct Expected {
    double nll, bytes, targets, sequences;
    double count[LAYERS][E];
} Expected;

static Expected expected_of(const char *folder)
{
    Expected out = {0};
    Err e = {0};
    LoaderOptions options = {.source = {{folder, 1}}, .n_sources = 1, .split = "val",
                             .seq_len = T, .vocab_size = V};
    Loader *loader = loader_open(&options, &e);
    assert_non_null(loader);
    out.sequences = (double)loader_windows(loader);
    for (int64_t s = 0; s < loader_windows(loader); s++) {
        Batch b;
        assert_int_equal(loader_batch(loader, s, 1, &b, &e), 0);
        for (int t = 0; t < T; t++) {
            int size;
            for (int l = 0; l < LAYERS; l++) out.count[l][expert_of(l, b.tokens[t])]++;
            if (b.targets[t] < 0) continue;
            tokenizer_piece(tokenizer, b.targets[t], &size);
            out.nll -= logp(b.tokens[t], b.targets[t]);
            out.bytes += size;
            out.targets++;
        }
    }
    loader_close(&loader);
    return out;
}

static double bits(const Expected *x) { return x->nll / log(2) / x->bytes; }

static void domains_are_measured_apart(void **state)
{
    (void)state;
    char words[PATH * 2], digits[PATH * 2];
    Expected each[] = {expected_of(at("words")), expected_of(at("digits"))};
    snprintf(words, sizeof words, "w=%s", at("words"));
    snprintf(digits, sizeof digits, "%s", at("digits"));
    RUN_CODE(0, "eval", at("run"), "--data", words, "--data", digits, "--json");
    json_t *said = answer();
    for (int i = 0; i < 2; i++) {
        json_t *one = json_array_get(json_object_get(said, "domains"), (size_t)i);
        assert_string_equal(report_string(one, "name"), i ? "digits" : "w");
        assert_close(number_of(one, "sequences"), each[i].sequences);
        assert_close(number_of(one, "tokens"), each[i].targets);
        assert_close(number_of(one, "bytes"), each[i].bytes);
        assert_close(number_of(one, "loss"), each[i].nll / each[i].targets);
        assert_close(number_of(one, "bits_per_byte"), bits(&each[i]));
        double low = number_of(one, "bits_per_byte_low");
        double high = number_of(one, "bits_per_byte_high");
        assert_true(low < bits(&each[i]) && bits(&each[i]) < high);
        assert_true(high - low < 0.5 * bits(&each[i]));
        assert_true(number_of(one, "loss_low") < number_of(one, "loss"));
        assert_true(number_of(one, "loss_high") > number_of(one, "loss"));
    }
    double nll = each[0].nll + each[1].nll, bytes = each[0].bytes + each[1].bytes;
    assert_close(number_of(said, "bits_per_byte"), nll / log(2) / bytes);
    assert_close(number_of(said, "loss"), nll / (each[0].targets + each[1].targets));
    assert_close(number_of(said, "mean_bits_per_byte"), (bits(&each[0]) + bits(&each[1])) / 2);
    assert_true(json_is_null(json_object_get(said, "data")));
    json_t *kept = json_load_file(at("run/eval.json"), 0, NULL);
    assert_true(json_equal(kept, said));
    json_decref(kept);
    json_decref(said);
    RUN_CODE(0, "eval", at("run"), "--data", words, "--data", digits);
    assert_has(program_out, "mean of the domains");
    RUN_CODE(1, "eval", at("run"), "--data", digits, "--data", digits);
    assert_has(program_err, "two domains are called digits");
    RUN_CODE(1, "eval", at("run"), "--data", "x=");
    assert_has(program_err, "names no folder");
}

/* sum of -p log2 p over the columns of shares. */
static double entropy(const double *p, int n)
{
    double h = 0;
    for (int i = 0; i < n; i++) h -= p[i] > 0 ? p[i] * log2(p[i]) : 0;
    return h;
}

static void check_layer(const json_t *routing, const Expected *each, int l)
{
    double joint[2 * E], mean[E] = {0}, tokens[2];
    char path[64];
    for (int i = 0; i < 2; i++) {
        double most = 0, router[E], top = exp(MARGIN) / (exp(MARGIN) + 3);
        tokens[i] = each[i].sequences * T;
        for (int e = 0; e < E; e++) {
            double share = each[i].count[l][e] / tokens[i];
            joint[i * E + e] = share / 2;
            mean[e] += share / 2;
            most = fmax(most, share);
            router[e] = share * top + (1 - share) * (1 - top) / 3;
            snprintf(path, sizeof path, "domains.%d.layers.%d.load.%d", i, l, e);
            assert_close(number_of(routing, path), share);
        }
        snprintf(path, sizeof path, "domains.%d.layers.%d.max_load", i, l);
        assert_close(number_of(routing, path), most * E);
        snprintf(path, sizeof path, "domains.%d.layers.%d.mean_entropy", i, l);
        assert_close(number_of(routing, path), entropy(router, E));
        snprintf(path, sizeof path, "domains.%d.layers.%d.token_entropy", i, l);
        assert_close(number_of(routing, path),
                     entropy((double[]){top, (1 - top) / 3, (1 - top) / 3, (1 - top) / 3}, E));
    }
    double information = entropy(mean, E) + 1 - entropy(joint, 2 * E);
    snprintf(path, sizeof path, "specialization.%d.information", l);
    assert_close(number_of(routing, path), information);
    assert_true(information > 0.01);
    double bits[2];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "specialization.%d.domains.%d", l, i);
        bits[i] = number_of(routing, path);
        assert_true(bits[i] > 0);
    }
    assert_close((bits[0] + bits[1]) / 2, information);
    snprintf(path, sizeof path, "specialization.%d.distance.0.1", l);
    assert_close(number_of(routing, path), sqrt(information)); /* of two domains they are one */
}

static void routing_is_that_of_the_table(void **state)
{
    (void)state;
    char words[PATH * 2], digits[PATH * 2];
    Expected each[] = {expected_of(at("words")), expected_of(at("digits"))};
    snprintf(words, sizeof words, "w=%s", at("words"));
    snprintf(digits, sizeof digits, "%s", at("digits"));
    RUN_CODE(0, "eval", at("run"), "--data", words, "--data", digits, "--routing", "--json",
             "--tasks", at("rules.jsonl"));
    json_t *said = answer(), *routing = json_object_get(said, "routing");
    for (int l = 0; l < LAYERS; l++) check_layer(routing, each, l);
    json_decref(said);
    RUN_CODE(0, "report", at("run"));
    char *page = read_file(at("run/report.html"), NULL);
    assert_has(page, "Experts on held-out text");
    assert_has(page, "<figcaption><b>digits</b>");
    assert_has(page, "What the expert tells of the domain");
    assert_has(page, "<h2>Domains</h2>");
    assert_has(page, "<h2>Tasks</h2>");
    assert_has(page, "<tr><th>rules</th>");
    free(page);
    RUN_CODE(0, "eval", at("run"), "--data", words, "--data", digits, "--routing");
    assert_has(program_out, "specialization: what the expert tells of the domain");
}

/* eval.json may hold anything: the page stays whole. */
static void report_survives_a_hostile_record(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"domains\": {\"a\": 1}, \"tasks\": 5, \"routing\": []}",
        "{\"domains\": [1, [], {\"name\": \"<script>\"}], \"tasks\": [null, {\"acc\": 4}], "
        "\"routing\": {\"experts\": 3, \"domains\": [7, {\"layers\": [1, {\"load\": {}}, "
        "{\"load\": [1e300, \"x\", null, 4]}]}], \"specialization\": [3]}}",
        "{\"routing\": {\"experts\": 1e18, \"domains\": [{}], \"specialization\": []}}",
        "{\"routing\": {\"experts\": -1, \"domains\": [{}]}}",
        "{\"routing\": {\"experts\": 2.5, \"domains\": [{\"layers\": [[]]}, {\"layers\": []}]}}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_file(at("run/eval.json"), texts[i]);
        RUN_CODE(0, "report", at("run"));
        char *page = read_file(at("run/report.html"), NULL);
        assert_null(strstr(page, "<script"));
        assert_null(strstr(page, "nan"));
        assert_null(strstr(page, "inf\""));
        assert_has(page, "</html>");
        free(page);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_known_task_comes_out_right),
        cmocka_unit_test(rules_are_told_apart),
        cmocka_unit_test(chance_lies_in_the_interval),
        cmocka_unit_test(tasks_are_refused),
        cmocka_unit_test(domains_are_measured_apart),
        cmocka_unit_test(routing_is_that_of_the_table),
        cmocka_unit_test(report_survives_a_hostile_record),
    };
    int failed = cmocka_run_group_tests_name("evaluation command", tests, set_up, tear_down);
    free(program_out);
    free(program_err);
    return failed;
}
