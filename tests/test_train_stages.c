/* tests/test_train_stages.c - runs of several stages and sources from outside: what each stage
 * trains on, resumes at every step, evaluation and generation in the shape of the checkpoint. */
#include "tests/stage_runs.h"

#include <math.h>

#include "train/open_run.h"

/* Tensors and state of two checkpoints. */
static void same_checkpoint(const char *a, const char *b, int step)
{
    json_t *x = manifest(a, step), *y = manifest(b, step);
    json_t *p = json_object_get(x, "state"), *q = json_object_get(y, "state");
    static const char *const own[] =
        {"seconds", "run", "from_run", "from_step", "replay_run"}; /* clock; origin */
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        json_object_del(p, own[i]);
        json_object_del(q, own[i]);
    }
    if (!json_equal(p, q)) fail_msg("%s and %s: step %d: state differs", a, b, step);
    if (!json_equal(json_object_get(x, "tensors"), json_object_get(y, "tensors")))
        fail_msg("%s and %s: step %d: tensors differ", a, b, step);
    json_decref(x);
    json_decref(y);
}

/* Held-out losses of run `b`, which began at step `from`, are those of `a`. */
static void same_evals(const char *a, const char *b, int from, int steps)
{
    json_t *x[64], *y[64];
    int n = read_lines(a, "eval", x), m = read_lines(b, "eval", y);
    assert_int_equal(n, steps);
    for (int i = 0; i < m; i++) {
        int step = (int)number(y[i], "step");
        assert_true(step >= from);
        assert_true(number(y[i], "loss") == number(x[step - 1], "loss"));
        assert_true(number(y[i], "targets") == number(x[step - 1], "targets"));
    }
    assert_true(m >= steps - from);
    free_lines(x, n);
    free_lines(y, m);
}

/* A run folder with the checkpoint of one step, and nothing else, goes on to the same end. */
static void resume_everywhere(const char *run, const char *config)
{
    bool all = !strcmp(run, "everything");
    int steps = all ? ALL_STEPS : STEPS;
    for (int from = 1; from < steps; from += getenv("ISOMOE_FAST") ? 3 : 1) {
        char command[PATH * 6], name[64];
        snprintf(name, sizeof name, "%s-from-%d", run, from);
        snprintf(command, sizeof command, "mkdir -p %s/%s/checkpoints && cp -r "
                 "%s/%s/checkpoints/step-%09d %s/%s/checkpoints/", scratch, name, scratch, run,
                 from, scratch, name);
        assert_int_equal(system(command), 0);
        if (all)
            RUN_CODE(0, "train", at("%s.yaml", config), out(name), EVERYTHING);
        else
            RUN_CODE(0, "train", at("%s.yaml", config), out(name), "--resume", "required");
        for (int step = from + 1; step <= steps; step++) same_checkpoint(run, name, step);
        same_evals(run, name, from, steps);
        Err e = {0};
        assert_int_equal(io_remove_tree(at("%s", name), &e), 0);
    }
}

static void test_three_stages(void **state)
{
    static const struct {
        const char *name;
        double step, T, batch, theta;
    } want[3] = {{"start", 1, 32, 4, 1e4}, {"long", 5, 64, 3, 1e6}, {"anneal", 8, 64, 2, 1e6}};
    json_t *line[64];
    (void)state;
    char val[PATH * 2]; /* one held-out text, the same in all stages */
    snprintf(val, sizeof val, "  val: %s\n", at("code"));
    write_config("c", false, val, STAGES);
    RUN_CODE(0, "train", at("c.yaml"), out("whole"));
    int n = read_lines("whole", "stage", line);
    assert_int_equal(n, 3);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(json_string_value(json_object_get(line[i], "name")), want[i].name);
        assert_true(number(line[i], "step") == want[i].step);
        assert_true(number(line[i], "seq_len") == want[i].T);
        assert_true(number(line[i], "batch") == want[i].batch);
        assert_true(number(line[i], "rope_theta") == want[i].theta);
    }
    free_lines(line, n);
    n = read_lines("whole", NULL, line);
    assert_int_equal(n, STEPS);
    double tokens = 0;
    for (int i = 0; i < n; i++) { /* tokens and shares of each step are those of its stage */
        const json_t *sources = json_object_get(line[i], "sources");
        tokens += i < 4 ? 4 * 32 : i < 7 ? 3 * 64 : 2 * 64;
        assert_true(number(line[i], "tokens") == tokens);
        double best = number(json_object_get(sources, "best"), "weight");
        double code = number(json_object_get(sources, "code"), "weight");
        assert_true(i < 7 ? best == 0 && code == 0.25 : best == 0.5 && code == 0);
        double epochs = number(json_object_get(sources, "best"), "epochs");
        assert_true(i < 7 ? epochs == 0 : epochs > 0);
    }
    free_lines(line, n);
    n = read_lines("whole", "final", line);
    assert_true(number(json_object_get(json_object_get(line[0], "sources"), "web"), "epochs") > 0);
    free_lines(line, n);
    resume_everywhere("whole", "c");
}

/* A branch has stages of its own behind the step that it begins at, and none before it. */
static void test_branch_of_stages(void **state)
{
    static const char stages[] = "stages:\n"
                                 "  - {name: start, steps: %d}\n"
                                 "  - {name: long, steps: %d, seq_len: 64, batch: 3,\n"
                                 "     rope_theta: 1e6}\n"
                                 "  - {name: cool, steps: 0, weights: best=1}\n";
    char val[PATH * 2], text[512], from[PATH * 2];
    (void)state;
    snprintf(val, sizeof val, "  val: %s\n", at("code"));
    snprintf(from, sizeof from, "train.from=%s", at("whole/checkpoints/step-000000006"));
    snprintf(text, sizeof text, stages, 4, 2);
    write_config("b", false, val, text);
    RUN_CODE(0, "train", at("b.yaml"), out("alone"), "train.steps=8");
    RUN_CODE(0, "train", at("b.yaml"), out("branch"), "train.steps=8", from);
    for (int step = 7; step <= 8; step++) same_checkpoint("alone", "branch", step);
    snprintf(text, sizeof text, stages, 3, 3);
    write_config("b", false, val, text);
    RUN_CODE(1, "train", at("b.yaml"), out("other"), "train.steps=8", from);
    assert_has(program_err, "cannot be branched from with other stages up to its step 6");
}

/* The batch of another stage, or a rotation that stays, would not give this run: stages matter. */
static void test_stages_matter(void **state)
{
    static const char *const change[] = {"stages[1].rope_theta=1e4", "stages[1].weights=code=1"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        RUN_CODE(0, "train", at("c.yaml"), out(i ? "x1" : "x0"), change[i]);
        json_t *x = manifest("whole", 4), *y = manifest(i ? "x1" : "x0", 4);
        assert_true(json_equal(json_object_get(x, "tensors"), json_object_get(y, "tensors")));
        json_decref(x);
        json_decref(y);
        x = manifest("whole", 5);
        y = manifest(i ? "x1" : "x0", 5);
        assert_false(json_equal(json_object_get(x, "tensors"), json_object_get(y, "tensors")));
        json_decref(x);
        json_decref(y);
    }
    RUN_CODE(1, "train", at("c.yaml"), out("x0"), "train.steps=9");
    assert_has(program_err, "stages[1].rope_theta: 1.0e+04 in the checkpoint, 1.0e+06 now");
}

/* `eval` gives the held-out loss that the run had at that step, in the stage's own T and rotation;
 * a checkpoint at a border belongs to the stage that made its last step. */
static void test_eval_in_the_stage(void **state)
{
    static const struct {
        int step, T;
        double theta;
    } cases[] = {{3, 32, 1e4}, {4, 32, 1e4}, {5, 64, 1e6}, {9, 64, 1e6}};
    json_t *line[64];
    (void)state;
    int n = read_lines("whole", "eval", line);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        OpenRun r;
        Err e = {0};
        char *folder = strdup(at("whole/checkpoints/step-%09d", cases[i].step));
        if (open_run(&r, folder, &e)) fail_msg("%s", e.message);
        assert_true(r.config.data.seq_len == cases[i].T);
        assert_true(r.config.model.rope_theta == cases[i].theta);
        open_run_close(&r);
        RUN_CODE(0, "eval", folder, "--json");
        json_t *result = json_loads(program_out, 0, NULL);
        double want = number(line[cases[i].step - 1], "loss");
        assert_true(fabs(number(result, "loss") - want) < 1e-12 * want);
        json_decref(result);
        RUN_CODE(0, "generate", folder, "--tokens", "3", "--json");
        free(folder);
    }
    free_lines(line, n);
}

/* ---- Dynamic weights --------------------------------------------------------------------------*/

#define DYNAMIC "  dynamic: sheared_llama\n  dynamic_every: 2\n  dynamic_sequences: 3\n"

/* A number of a source in a line's list. */
static double of_source(const json_t *line, const char *source, const char *key)
{
    return number(json_object_get(json_object_get(line, "sources"), source), key);
}

/* The weights that a line of the record must follow from those in force, by its losses. */
static void follow(const json_t *line, double weight[3])
{
    static const char *const name[] = {"web", "code", "best"};
    double sum = 0, smooth = 1e-4;
    int K = 0;
    for (int s = 0; s < 3; s++) {
        if (weight[s] == 0) continue;
        double d = of_source(line, name[s], "loss") - of_source(line, name[s], "ref_loss");
        weight[s] *= exp(d);
        sum += weight[s];
        K++;
    }
    for (int s = 0; s < 3; s++) {
        if (weight[s] > 0) weight[s] = (1 - smooth) * weight[s] / sum + smooth / K;
        assert_true(fabs(of_source(line, name[s], "weight") - weight[s]) < 1e-12);
    }
}

/* Weights follow the recorded losses from those in force; a stage keeps them over a change of T, or
 * begins with its own; and all of it survives a resume at any step. */
static void test_dynamic(void **state)
{
    json_t *line[64], *step[64];
    double weight[3] = {0.75, 0.25, 0}, moved = 0;
    (void)state;
    write_config("d", true, DYNAMIC, STAGES);
    RUN_CODE(0, "train", at("d.yaml"), out("dynamic"));
    int n = read_lines("dynamic", "mixture", line), steps = read_lines("dynamic", NULL, step);
    assert_int_equal(n, 4); /* behind steps 2, 4, 6, 8 */
    for (int i = 0; i < n; i++) {
        assert_true(number(line[i], "step") == 2 * (i + 1));
        if (i == 3) { /* stage "anneal" began with step 8 */
            weight[0] = weight[2] = 0.5;
            weight[1] = 0;
        }
        double before = weight[0];
        follow(line[i], weight);
        moved += fabs(weight[0] - before);
        /* in force in the next step, unless that begins a stage with its own */
        assert_true(of_source(step[2 * i + 2], "web", "weight") ==
                    of_source(line[i], "web", "weight"));
    }
    assert_true(moved > 0.01);
    free_lines(line, n);
    free_lines(step, steps);
    resume_everywhere("dynamic", "d");
}

/* The same with all other state that a run can have: stages change shapes beside it. */
static void test_everything(void **state)
{
    (void)state;
    json_t *line[64];
    int skipped = 0, measured = 0;
    RUN_CODE(0, "train", at("d.yaml"), out("everything"), EVERYTHING);
    int n = read_lines("everything", NULL, line);
    assert_int_equal(n, ALL_STEPS);
    for (int i = 0; i < n; i++) {
        skipped += number(line[i], "skipped") >= 2;
        measured += json_is_real(json_object_get(line[i], "b_noise"));
    }
    assert_true(skipped > 0 && skipped < 6); /* outliers were met, and what was measured was used */
    assert_true(measured > 0);
    free_lines(line, n);
    resume_everywhere("everything", "d");
}

#define CONSTANT "optim.schedule=constant", "optim.decay_steps=0"

/* A run that ended where weights would have changed does it when it goes on. */
static void test_dynamic_made_up_for(void **state)
{
    (void)state;
    write_config("m", true, DYNAMIC, "");
    RUN_CODE(0, "train", at("m.yaml"), out("through"), CONSTANT);
    RUN_CODE(0, "train", at("m.yaml"), out("parts"), CONSTANT, "train.steps=4");
    RUN_CODE(0, "train", at("m.yaml"), out("parts"), CONSTANT);
    same_checkpoint("through", "parts", STEPS);
}

/* Without data.val, `eval` measures each source that has a weight as a domain of its own. */
static void test_eval_of_sources(void **state)
{
    (void)state;
    RUN_CODE(0, "eval", at("dynamic"), "--json");
    json_t *result = json_loads(program_out, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(result, "domains")), 2);
    assert_has(program_out, "\"web\"");
    assert_has(program_out, "\"code\"");
    json_decref(result);
}

/* "key=<scratch>/name"; a few buffers in turn. */
static const char *file(const char *key, const char *name)
{
    static char buffer[4][PATH * 2];
    static int next;
    char *text = buffer[next++ % 4];
    snprintf(text, sizeof buffer[0], "train.routing_%s=%s/%s", key, scratch, name);
    return text;
}

/* From byte `from` on, where another run's records begin. */
static bool same_bytes(const char *a, const char *b, size_t from)
{
    size_t n, m;
    char *x = read_file(at("%s", a), &n), *y = read_file(at("%s", b), &m);
    bool same = n == m && n > from && !memcmp(x + from, y + from, n - from);
    free(x);
    free(y);
    return same;
}

/* A record of a run of stages: a replay has its bits, whatever the weights; a resume in any stage
 * goes on with it; stages of another place or shape are refused by name. */
static void test_routing_record(void **state)
{
    enum { BEHIND = 8 * (16 + 3 * 3 + 1) };
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("recorded"), file("record", "r1"));
    same_checkpoint("whole", "recorded", STEPS);
    RUN_CODE(0, "train", at("c.yaml"), out("replayed"), file("replay", "r1"), file("record", "r2"));
    same_checkpoint("recorded", "replayed", STEPS);
    assert_true(same_bytes("r1", "r2", BEHIND));
    RUN_CODE(0, "train", at("c.yaml"), out("other"), file("record", "r3"), "model.init_std=0.1");
    RUN_CODE(0, "train", at("c.yaml"), out("foreign"), file("replay", "r3"), file("record", "r4"));
    assert_true(same_bytes("r3", "r4", BEHIND));
    assert_false(same_bytes("r1", "r4", BEHIND));
    for (int step = 2; step < STEPS; step += 3) { /* one in every stage */
        char command[PATH * 8];
        snprintf(command, sizeof command, "rm -rf %s/part && mkdir -p %s/part/checkpoints && "
                 "cp -r %s/recorded/checkpoints/step-%09d %s/part/checkpoints/ && cp %s/r1 %s/r5",
                 scratch, scratch, scratch, step, scratch, scratch, scratch);
        assert_int_equal(system(command), 0);
        RUN_CODE(0, "train", at("c.yaml"), out("part"), file("record", "r5"));
        same_checkpoint("recorded", "part", STEPS);
        assert_true(same_bytes("r1", "r5", 0));
    }
    RUN_CODE(1, "train", at("c.yaml"), out("no"), file("replay", "r1"), "stages[1].batch=4");
    assert_has(program_err, "r1: is not for this run: stages[1]: sequences of a step is 3 in the "
                            "record, 4 here");
    RUN_CODE(1, "train", at("c.yaml"), out("no"), file("replay", "r1"), "stages[0].steps=3");
    assert_has(program_err, "stages[1]: the first step is 5 in the record, 4 here");
    RUN_CODE(1, "train", at("c.yaml"), out("no"), file("replay", "r1"), "stages[2].seq_len=32");
    assert_has(program_err, "stages[2]: tokens of a sequence is 64 in the record, 32 here");
    write_config("plain", false, "", "");
    RUN_CODE(1, "train", at("plain.yaml"), out("no"), file("replay", "r1"));
    assert_has(program_err, "the number of stages is 3 in the record, 0 here");
}

/* All windows of the held-out set are the same targets, however the sources are weighed. */
static void test_heldout_once(void **state)
{
    json_t *line[2][64];
    (void)state;
    write_config("h", false, "", "");
    RUN_CODE(0, "train", at("h.yaml"), out("h1"), "train.steps=4", "train.eval_every=0",
             "train.eval_sequences=100000");
    assert_has(program_err, " held-out sequences a source is used up; the rest are the others'");
    RUN_CODE(0, "train", at("h.yaml"), out("h2"), "train.steps=4", "train.eval_every=0",
             "train.eval_sequences=100000", "data.sources[1].weight=90");
    assert_int_equal(read_lines("h1", "eval", line[0]), 1);
    assert_int_equal(read_lines("h2", "eval", line[1]), 1);
    assert_true(number(line[0][0], "targets") == number(line[1][0], "targets"));
    free_lines(line[0], 1);
    free_lines(line[1], 1);
    RUN_CODE(0, "train", at("h.yaml"), out("h3"), "train.steps=4", "train.eval_every=0");
    assert_null(strstr(program_err, "is used up"));
}

/* The page has the shape and the weights of every stage, not those of the run's base. */
static void test_report(void **state)
{
    (void)state;
    RUN_CODE(0, "report", at("whole"));
    char *page = read_file(at("whole/report.html"), NULL);
    assert_has(page, "3 stages.</p>");
    assert_null(strstr(page, "sequences of 32 tokens"));
    assert_has(page, "<tr><th>start</th><td class=\"n\">1</td><td class=\"n\">4</td>"
                     "<td class=\"n\">4</td><td class=\"n\">32</td><td class=\"n\">10000</td>"
                     "<td>the run&#39;s</td></tr>");
    assert_has(page, "<tr><th>long</th><td class=\"n\">5</td><td class=\"n\">3</td>"
                     "<td class=\"n\">3</td><td class=\"n\">64</td><td class=\"n\">1e+06</td>");
    assert_has(page, "<tr><th>anneal</th><td class=\"n\">8</td><td class=\"n\">2</td>"
                     "<td class=\"n\">2</td><td class=\"n\">64</td><td class=\"n\">1e+06</td>"
                     "<td>best=1 web=1</td></tr>");
    free(page);
}

static void test_refusals(void **state)
{
    (void)state;
    RUN_CODE(1, "train", at("c.yaml"), out("no"), "stages[1].seq_len=65536", "stages[1].batch=1");
    assert_has(program_err, "stage 'long': ");
    assert_has(program_err, "tokens are not enough for one sequence of 65536");
    RUN_CODE(1, "train", at("c.yaml"), out("no"), "data.dynamic_every=5");
    assert_has(program_err, "data.dynamic_every: has no use while data.dynamic is off");
    RUN_CODE(1, "train", at("c.yaml"), out("no"), "optim.expert_lr=load", "optim.noise=measured",
             "optim.noise_unit=2");
    assert_has(program_err, "stage 'long': its 3 sequences are not two or more units of "
                            "optim.noise_unit 2 sequences");
    char *text = read_file(at("whole/checkpoints/step-000000009/manifest.json"), NULL);
    assert_has(text, "\"segment_served\"");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_stages),
        cmocka_unit_test(test_branch_of_stages),
        cmocka_unit_test(test_stages_matter),
        cmocka_unit_test(test_eval_in_the_stage),
        cmocka_unit_test(test_dynamic),
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_dynamic_made_up_for),
        cmocka_unit_test(test_eval_of_sources),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_heldout_once),
        cmocka_unit_test(test_routing_record),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, begin_all, help_end);
}
