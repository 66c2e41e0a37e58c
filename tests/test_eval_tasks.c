/* tests/test_eval_tasks.c - multiple-choice files: what is taken, what is refused and how; scores
 * against sums of log softmax of the model's logits, in any batch. */
#include "tests/train_help.h"

#include <math.h>

#include "base/philox.h"
#include "data/tokenizer.h"
#include "tests/ref/tiny.h"
#include "train/choices_out.h"

static Tokenizer *tokenizer;

static int set_up(void **state)
{
    static const char *const words[] = {"the ", "router ", "sends ", "a ", "token ", "to ", "an ",
                                        "expert ", "and ", "adds ", "what ", "it ", "gives\n"};
    Err e = {0};
    if (help_begin(state)) return -1;
    FILE *f = fopen(at("text.txt"), "w");
    PhiloxKey key = {.seed = 3, .purpose = RNG_TEST};
    for (uint64_t i = 0; i < 6000; i++) fputs(words[philox_u32(&key, i) % 13], f);
    fclose(f);
    RUN_CODE(0, "prepare", at("text.txt"), "--out", at("data"), "--vocab-size", "300");
    tokenizer = tokenizer_open(at("data/tokenizer.model"), &e);
    return tokenizer ? 0 : -1;
}

static int tear_down(void **state)
{
    tokenizer_close(&tokenizer);
    return help_end(state);
}

/* ---- Files ------------------------------------------------------------------------------------*/

static Task read_text(const char *text)
{
    Task t;
    Err e = {0};
    write_file(at("task.jsonl"), text);
    if (task_read(&t, at("task.jsonl"), &e)) fail_msg("%s", e.message);
    return t;
}

static void files_are_read(void **state)
{
    (void)state;
    Task t = read_text(
        "{\"id\": \"q-1\", \"context\": \"one\", \"choices\": [\"two\", \"three\"], "
        "\"answer\": 1}\n"
        "\n \t\r\n"
        "{\"id\": 7, \"question\": \"\", \"choices\": [\"x\", \"y\", \"z\"], \"answer\": \"C\"}\r\n"
        "{\"context\": \"end \", \"choices\": [\"B\", \"A b\"], \"answer\": \"A b\", "
        "\"more\": []}\n"
        "{\"context\": \"c\", \"choices\": [\" x\", \"y\"], \"answer\": 0, \"id\": null}\n"
        "{\"context\": \"c\", \"choices\": [\"x\", \"x\"], \"answer\": 1, \"delimiter\": \"\"}\n"
        "{\"context\": \"c\", \"choices\": [\"A\", \"x\"], \"answer\": \"A\", "
        "\"delimiter\": \"\\n\"}");
    assert_int_equal(t.count, 6);
    assert_string_equal(t.name, "task");
    static const struct {
        int64_t line;
        const char *id, *delimiter;
        int answer, choices;
    } want[] = {{1, "q-1", " ", 1, 2}, {4, "7", "", 2, 3},   {5, NULL, "", 1, 2},
                {6, NULL, "", 0, 2},   {7, NULL, "", 1, 2},  {8, NULL, "\n", 0, 2}};
    for (int i = 0; i < 6; i++) {
        const Question *q = &t.question[i];
        assert_int_equal(q->line, want[i].line);
        assert_int_equal(q->answer, want[i].answer);
        assert_int_equal(q->n_choices, want[i].choices);
        assert_string_equal(q->delimiter.text, want[i].delimiter);
        if (want[i].id) assert_string_equal(q->id, want[i].id);
        else assert_null(q->id);
    }
    assert_string_equal(t.question[0].context.text, "one");
    assert_string_equal(t.question[0].choice[1].text, "three");
    assert_int_equal(t.question[1].context.size, 0);
    task_free(&t);
}

static void files_are_refused(void **state)
{
    (void)state;
#define GOOD "{\"context\": \"c\", \"choices\": [\"x\", \"y\"], \"answer\": 0}\n"
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "task.jsonl: has no question"},
        {"\n\n \n", "task.jsonl: has no question"},
        {GOOD "{\"context\": ", "task.jsonl:2: is no JSON"},
        {GOOD "\n" GOOD "[1]", "task.jsonl:4: is no JSON object"},
        {"\"a\"", "task.jsonl:1: is no JSON"},
        {"{\"context\": \"c\", \"context\": \"d\"}", ":1: is no JSON: duplicate"},
        {"{\"context\": \"a\\u0000b\"}", ":1: is no JSON"},
        {"{\"context\": \"\xFF\"}", ":1: is no JSON"},
        {"{}", ":1: needs \"context\" or \"question\""},
        {"{\"context\": \"c\", \"question\": \"d\"}", ":1: needs \"context\" or \"question\""},
        {"{\"context\": 5}", ":1: the context is no text"},
        {"{\"context\": \"c\"}", ":1: \"choices\" must be a list of 2 to 256 texts"},
        {"{\"context\": \"c\", \"choices\": [\"x\"]}", "must be a list of 2 to 256"},
        {"{\"context\": \"c\", \"choices\": {\"x\": 1, \"y\": 2}}", "must be a list of 2 to 256"},
        {"{\"context\": \"c\", \"choices\": [\"x\", 3]}", ":1: choice 1 is no text, or empty"},
        {"{\"context\": \"c\", \"choices\": [\"\", \"x\"]}", ":1: choice 0 is no text, or empty"},
        {"{\"context\": \"c\", \"choices\": [\"x\", \"y\"]}", ":1: \"answer\" must be"},
        {"{\"context\": \"c\", \"choices\": [\"x\", \"y\"], \"answer\": 1.0}",
         "\"answer\" must be"},
        {"{\"context\": \"c\", \"choices\": [\"x\", \"y\"], \"answer\": 2}",
         ":1: the answer is choice 2; there are choices 0 to 1"},
        {"{\"context\": \"c\", \"choices\": [\"x\", \"y\"], \"answer\": -1}", "is choice -1"},
        {"{\"context\": \"c\", \"choices\": [\"x\", \"y\"], \"answer\": \"C\"}",
         ":1: the answer 'C' is neither a choice nor"},
        {"{\"context\": \"c\", \"choices\": [\"x\", \"y\"], \"answer\": \"\"}", "is neither"},
        {"{\"context\": \"c\", \"choices\": [\"x\", \"x\"], \"answer\": \"x\"}",
         ":1: the answer is the text of more than one choice"},
        {"{\"context\": \"c\", \"choices\": [\"B\", \"A\"], \"answer\": \"A\"}",
         ":1: the answer 'A' is the letter of choice 0 and the text of choice 1"},
        {"{\"context\": \"c\", \"choices\": [\"x\", \"y\"], \"answer\": 0, \"delimiter\": 1}",
         ":1: \"delimiter\" is no text"},
        {"{\"context\": \"c\", \"id\": [], \"choices\": [\"x\", \"y\"], \"answer\": 0}",
         ":1: \"id\" is neither"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Task t;
        Err e = {0};
        write_file(at("task.jsonl"), cases[i].text);
        assert_int_equal(task_read(&t, at("task.jsonl"), &e), -1);
        assert_has(e.message, cases[i].message);
        task_free(&t);
    }
    Task t;
    Err e = {0};
    assert_int_equal(task_read(&t, at("missing.jsonl"), &e), -1);
    assert_has(e.message, "missing.jsonl");
    task_free(&t);
}

/* Any damage of a good file is either read or refused; nothing else. */
static void damaged_files_do_no_harm(void **state)
{
    (void)state;
    static const char good[] = GOOD GOOD "{\"id\": \"q\", \"question\": \"\xE2\x82\xAC\", "
                               "\"choices\": [\"x\", \"y\"], \"answer\": \"B\"}\n";
    PhiloxKey key = {.seed = 9, .purpose = RNG_TEST};
    for (int i = 0; i < 300; i++) {
        char text[sizeof good];
        Task t;
        Err e = {0};
        memcpy(text, good, sizeof good);
        uint32_t place = philox_u32(&key, (uint64_t)(2 * i)) % (sizeof good - 1);
        text[place] = (char)philox_u32(&key, (uint64_t)(2 * i + 1));
        if (io_write_atomic(at("task.jsonl"), text, i % 3 ? sizeof good - 1 : place, &e))
            fail_msg("%s", e.message);
        if (task_read(&t, at("task.jsonl"), &e)) assert_has(e.message, "task.jsonl");
        else assert_in_range(t.count, 1, 4);
        task_free(&t);
    }
}

/* ---- Scores -----------------------------------------------------------------------------------*/

enum { V = 300, WINDOW = 24, QUESTIONS = 9 };

static const char questions[] =
    "{\"context\": \"the router\", \"choices\": [\"sends\", \"an expert\", \"x\"], \"answer\": 0}\n"
    "{\"context\": \"\", \"choices\": [\"it gives\", \"what\"], \"answer\": 1}\n"
    "{\"context\": \"a tok\", \"choices\": [\"en adds\", \"ens\"], \"answer\": 1, "
    "\"delimiter\": \"\"}\n"
    "{\"context\": \"caf\xC3\xA9\", \"choices\": [\"\xE2\x82\xAC\", \"5 and\", \"token\"], "
    "\"answer\": 2}\n"
    "{\"context\": \"the router sends a token to an expert and adds what it gives the router sends "
    "a token to an expert and\", \"choices\": [\"adds what it gives\", \"it\"], \"answer\": 0}\n"
    "{\"context\": \"what it gives\\n\", \"choices\": [\"and and\", \"and and\"], \"answer\": 1}\n"
    "{\"context\": \"to\", \"choices\": [\"an\", \"the\", \"a\", \"it\", \"x\"], \"answer\": 4}\n"
    "{\"context\": \"expert\", \"choices\": [\", the\", \". the\"], \"answer\": 0}\n"
    "{\"context\": \"and\", \"choices\": [\"12\", \"345\"], \"answer\": 0}\n";

static Model *random_model(Device *d, int64_t B, DType type)
{
    ModelConfig c = tiny_config();
    c.vocab_size = V;
    return tiny_model(d, &c, (ModelShape){.type = type, .B = B, .T = WINDOW}, 6);
}

/* log p of ids[from ..] by one pass over `ids` (the first `from` of them are given), with the first
 * tokens left out that do not fit. */
static double logp_of(Model *m, const int32_t *ids, int64_t count, int64_t from)
{
    int32_t tokens[WINDOW] = {0};
    float *logits = malloc(WINDOW * V * sizeof *logits);
    int64_t cut = count - 1 > WINDOW ? count - 1 - WINDOW : 0;
    double sum = 0;
    memcpy(tokens, ids + cut, (size_t)(count - 1 - cut) * sizeof *ids);
    model_logits(m, &(MicroBatch){.B = 1, .tokens = tokens}, logits);
    for (int64_t i = from; i < count; i++) {
        const float *row = logits + (i - 1 - cut) * V;
        double most = -INFINITY, all = 0;
        for (int v = 0; v < V; v++) most = fmax(most, row[v]);
        for (int v = 0; v < V; v++) all += exp(row[v] - most);
        sum += row[ids[i]] - most - log(all);
    }
    free(logits);
    return sum;
}

/* BOS and the tokens of context + delimiter + choice. */
static int64_t tokens_of(const Question *q, int choice, int32_t *out)
{
    char text[1024];
    int32_t *ids;
    int64_t count;
    Err e = {0};
    snprintf(text, sizeof text, "%s%s%s", q->context.text, q->delimiter.text,
             q->choice[choice].text);
    if (tokenizer_encode(tokenizer, text, strlen(text), &ids, &count, &e))
        fail_msg("%s", e.message);
    out[0] = tokenizer_bos(tokenizer);
    memcpy(out + 1, ids, (size_t)count * sizeof *ids);
    free(ids);
    return count + 1;
}

/* Whether tokens 0 .. n-1 are the same in all choices and spell no more than the context. */
static bool is_context(const Question *q, int64_t n)
{
    int32_t ids[8][512];
    int64_t count[8];
    size_t bytes = 0;
    for (int i = 0; i < q->n_choices; i++) count[i] = tokens_of(q, i, ids[i]);
    for (int64_t k = 0; k < n; k++) {
        int size;
        for (int i = 0; i < q->n_choices; i++)
            if (k >= count[i] || ids[i][k] != ids[0][k]) return false;
        tokenizer_piece(tokenizer, ids[0][k], &size);
        bytes += (size_t)size;
    }
    return bytes <= q->context.size;
}

static void assert_close(double got, double want)
{
    if (!(fabs(got - want) <= 2e-5 * fabs(want) + 1e-5)) fail_msg("%.9g, must be %.9g", got, want);
}

static void scores_are_sums_of_log_softmax(void **state)
{
    (void)state;
    Device *d = tiny_device(2);
    Model *one = random_model(d, 1, DT_F32), *m = random_model(d, 4, DT_F32);
    Task t = read_text(questions);
    TaskScore s;
    Err e = {0};
    if (task_score(&s, &t, m, tokenizer, &e)) fail_msg("%s", e.message);
    assert_int_equal(t.count, QUESTIONS);
    for (int i = 0; i < QUESTIONS; i++) {
        const Question *q = &t.question[i];
        const QuestionScore *got = &s.question[i];
        int64_t from = 1, longest = 0;
        while (is_context(q, from + 1)) from++;
        assert_int_equal(got->context_tokens, from);
        for (int c = 0; c < q->n_choices; c++) {
            int32_t ids[512];
            int64_t count = tokens_of(q, c, ids);
            if (count > longest) longest = count;
        }
        for (int c = 0; c < q->n_choices; c++) {
            int32_t ids[512];
            int64_t count = tokens_of(q, c, ids), cut = longest - 1 - WINDOW;
            if (cut < 0) cut = 0;
            assert_int_equal(got->cut_tokens, cut);
            assert_int_equal(got->choice[c].tokens, count - from);
            assert_int_equal(got->choice[c].bytes, strlen(q->choice[c].text));
            assert_close(got->choice[c].logp, logp_of(one, ids + cut, count - cut, from - cut));
        }
    }
    /* What the questions were made for: a long one, and one whose border a token spans. */
    assert_int_equal(s.cut, 1);
    assert_true(s.question[4].cut_tokens > 0);
    assert_true(s.question[2].border_bytes > 0 && s.spanned >= 1);
    assert_int_equal(s.question[0].border_bytes, 0);
    assert_close(s.random, (6 * 0.5 + 2 / 3.0 + 0.2) / QUESTIONS);
    task_score_free(&s);
    task_free(&t);
    model_destroy(&m);
    model_destroy(&one);
    device_destroy(&d);
}

/* The best by each rule, anew from the scores; of equal values the first. */
static void answers_are_the_largest(void **state)
{
    (void)state;
    Device *d = tiny_device(1);
    Model *m = random_model(d, 2, DT_F32);
    Task t = read_text(questions);
    TaskScore s;
    Err e = {0};
    int64_t right[3] = {0};
    if (task_score(&s, &t, m, tokenizer, &e)) fail_msg("%s", e.message);
    for (int i = 0; i < QUESTIONS; i++)
        for (int rule = 0; rule < 3; rule++) {
            double value[8], most = -INFINITY;
            int best = -1;
            for (int c = 0; c < t.question[i].n_choices; c++) {
                const ChoiceScore *score = &s.question[i].choice[c];
                double by[] = {1, (double)score->bytes, (double)score->tokens};
                value[c] = score->logp / by[rule];
                if (value[c] > most) best = c;
                most = fmax(most, value[c]);
            }
            assert_int_equal(s.question[i].best[rule], best);
            right[rule] += best == t.question[i].answer;
        }
    for (int rule = 0; rule < 3; rule++) assert_int_equal(s.right[rule], right[rule]);
    /* Two choices of the same text: equal bits, so the first; the answer is the second. */
    assert_true(s.question[5].choice[0].logp == s.question[5].choice[1].logp);
    assert_int_equal(s.question[5].best[CHOICE_SUM], 0);
    task_score_free(&s);
    task_free(&t);
    model_destroy(&m);
    device_destroy(&d);
}

/* A question has the same bits alone, in batches of any size, in another order, on any number of
 * threads. */
static void scores_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    Task all = read_text(questions);
    for (int type = 0; type < 2; type++) {
        Device *d = tiny_device(1 + 2 * type);
        Model *m = random_model(d, 1, type ? DT_BF16 : DT_F32);
        TaskScore alone[QUESTIONS];
        Err e = {0};
        for (int i = 0; i < QUESTIONS; i++) {
            Task one = {.path = "one", .question = &all.question[i], .count = 1};
            assert_int_equal(task_score(&alone[i], &one, m, tokenizer, &e), 0);
        }
        model_destroy(&m);
        device_destroy(&d);
        for (int64_t B = 2; B <= 26; B += 8) {
            d = tiny_device((int)B % 5 + 1);
            m = random_model(d, B, type ? DT_BF16 : DT_F32);
            Question mixed[QUESTIONS];
            for (int i = 0; i < QUESTIONS; i++) mixed[i] = all.question[(i * 4 + B) % QUESTIONS];
            Task other = {.path = "mixed", .question = mixed, .count = QUESTIONS};
            TaskScore s;
            assert_int_equal(task_score(&s, &other, m, tokenizer, &e), 0);
            for (int i = 0; i < QUESTIONS; i++)
                assert_memory_equal(s.question[i].choice,
                                    alone[(i * 4 + B) % QUESTIONS].question[0].choice,
                                    (size_t)mixed[i].n_choices * sizeof(ChoiceScore));
            task_score_free(&s);
            model_destroy(&m);
            device_destroy(&d);
        }
        for (int i = 0; i < QUESTIONS; i++) task_score_free(&alone[i]);
    }
    task_free(&all);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    Device *d = tiny_device(1);
    Model *m = random_model(d, 2, DT_F32);
    TaskScore s;
    Err e = {0};
    /* 24 digits are 24 tokens: with one token of context they fill the window; 25 do not fit. */
    Task t = read_text(GOOD "{\"context\": \"7\", \"delimiter\": \"\", \"choices\": [\"1\", "
                       "\"123456789012345678901234\"], \"answer\": 0}\n");
    assert_int_equal(task_score(&s, &t, m, tokenizer, &e), 0);
    assert_int_equal(s.question[1].choice[1].tokens, 24);
    assert_int_equal(s.question[1].cut_tokens, 1); /* BOS */
    task_score_free(&s);
    task_free(&t);
    t = read_text(GOOD "{\"context\": \"7\", \"delimiter\": \"\", \"choices\": [\"1\", "
                  "\"1234567890123456789012345\"], \"answer\": 0}\n");
    assert_int_equal(task_score(&s, &t, m, tokenizer, &e), -1);
    assert_has(e.message, "task.jsonl:2: choice 1 has 25 tokens; the model's window has 24");
    task_score_free(&s);
    task_free(&t);
    t = read_text(GOOD);
    float *flat = model_master(m).data;
    flat[params_find(model_params(m), "final_norm.weight")->offset] = NAN;
    model_refresh_weights(m);
    assert_int_equal(task_score(&s, &t, m, tokenizer, &e), -1);
    assert_has(e.message, "task.jsonl:1: the likelihood of a choice is no finite number");
    task_score_free(&s);
    task_free(&t);
    model_destroy(&m);
    device_destroy(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(files_are_refused),
        cmocka_unit_test(damaged_files_do_no_harm),
        cmocka_unit_test(scores_are_sums_of_log_softmax),
        cmocka_unit_test(answers_are_the_largest),
        cmocka_unit_test(scores_do_not_depend_on_the_batch),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    int failed = cmocka_run_group_tests_name("multiple-choice tasks", tests, set_up, tear_down);
    free(program_out);
    free(program_err);
    return failed;
}
