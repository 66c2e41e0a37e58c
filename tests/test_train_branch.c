/* tests/test_train_branch.c - the program: experts' rates in records and over a resume, the
 * three-phase schedule, and runs that branch from another one's checkpoint. */
#include "tests/train_runs.h"

#include <math.h>

#include "train/resume.h"

/* ---- Experts' rates ---------------------------------------------------------------------------*/

#define ALL_ON                                                                                     \
    "optim.expert_lr=load", "optim.noise=measured", "optim.noise_unit=1", "train.micro_batch=1",   \
        "model.routing=dropless", "model.routing_group_tokens=32", "optim.load_decay=0.7",         \
        "optim.schedule=three_phase", "optim.decay_steps=0", "train.steps=24",                     \
        "train.eval_every=0"

/* Everything of the rates' lines but what a clock says. */
static void same_rates(const char *a, const char *b, int from, int steps)
{
    static const char *const keys[] = {"expert_lr", "b_noise", "expert_rates"};
    Record x, y;
    record_read(&x, a);
    record_read(&y, b);
    for (int i = from; i < steps; i++)
        for (int k = 0; k < 3; k++) {
            const json_t *p = json_object_get(record_find(&x, NULL, i), keys[k]);
            const json_t *q = json_object_get(record_find(&y, NULL, i), keys[k]);
            if (!p || !q || !json_equal((json_t *)(uintptr_t)p, (json_t *)(uintptr_t)q))
                fail_msg("step %d: %s differs between %s and %s", i + 1, keys[k], a, b);
        }
    record_free(&x);
    record_free(&y);
}

/* Moving averages, steps counted and the estimate in force go on as if nothing had been. */
static void test_resume_rates(void **state)
{
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("ra"), ALL_ON);
    RUN_CODE(0, "train", at("c.yaml"), out("rb"), ALL_ON, "train.checkpoint_every=14");
    assert_int_equal(io_remove_tree(at("rb/checkpoints/step-000000024"), NULL), 0);
    RUN_CODE(0, "train", at("c.yaml"), out("rb"), ALL_ON, "train.threads=2");
    assert_has(program_err, "resumed at step 14 from");
    same_steps("ra", "rb", 24);
    same_rates("ra", "rb", 0, 24);
    same_tensors("ra", "rb", 24);
    json_t *saved = manifest("ra", 24), *tensors = json_object_get(saved, "tensors");
    assert_non_null(json_object_get(tensors, "optim/expert_rates"));
    assert_non_null(json_object_get(tensors, "optim/expert_loads"));
    json_decref(saved);
}

/* What a line says: rates around the step's, each expert's factor in ten-thousandths at every
 * log_every steps, no noise scale before it is known. */
static void test_rate_lines(void **state)
{
    Record r;
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("la"), ALL_ON, "train.log_every=3",
             "optim.lr_ratio.expert=0.5");
    record_read(&r, "la");
    for (int i = 0; i < 24; i++) {
        const json_t *line = record_find(&r, NULL, i), *lr = json_object_get(line, "expert_lr");
        const json_t *layers = json_object_get(line, "expert_rates");
        double base = 0.5 * number(line, "lr"), least = 1e9, most = 0, sum = 0;
        assert_int_equal(json_is_null(json_object_get(line, "b_noise")), i < 10);
        assert_int_equal(layers != NULL, (i + 1) % 3 == 0);
        if (!layers) continue;
        assert_int_equal(json_array_size(layers), 2);
        for (size_t k = 0; k < 8; k++) {
            const json_t *layer = json_array_get(layers, k / 4);
            double factor = 1e-4 * (double)json_integer_value(json_array_get(layer, k % 4));
            assert_int_equal(json_array_size(layer), 4);
            least = fmin(least, factor);
            most = fmax(most, factor);
            sum += factor / 8;
        }
        assert_true(fabs(number(lr, "min") - base * least) <= 1e-4 * base);
        assert_true(fabs(number(lr, "max") - base * most) <= 1e-4 * base);
        assert_true(fabs(number(lr, "mean") - base * sum) <= 1e-4 * base);
    }
    record_free(&r);
}

/* The noise scale from the loss: before the first step, that of an even guess over the vocabulary;
 * then of the smoothed loss of the steps before. */
static void test_noise_loss(void **state)
{
    Record r;
    double smooth = 0;
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("nl"), "optim.expert_lr=auto");
    record_read(&r, "nl");
    for (int i = 0; i < 6; i++) {
        const json_t *line = record_find(&r, NULL, i);
        double loss = i ? smooth : log(VOCAB), noise = 2.1e8 * pow(loss, -1 / 0.21);
        double factor = sqrt(2) * (1 + 128 / noise) / (2 + 128 / noise);
        assert_true(fabs(number(line, "b_noise") / noise - 1) < 1e-9);
        const json_t *lr = json_object_get(line, "expert_lr");
        assert_true(fabs(number(lr, "mean") / (factor * number(line, "lr")) - 1) < 1e-6);
        assert_true(number(lr, "min") == number(lr, "max"));
        smooth = i ? 0.98 * smooth + 0.02 * number(line, "loss") : number(line, "loss");
    }
    record_free(&r);
}

/* Measuring the noise changes no bit of a run that does not use it: here n = 1, and every factor
 * is 1. */
static void test_measuring_is_free(void **state)
{
    static const char *const one[] = {"model.n_experts=1", "model.top_k=1", "train.micro_batch=2"};
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("fa"), one[0], one[1], one[2]);
    RUN_CODE(0, "train", at("c.yaml"), out("fb"), one[0], one[1], one[2], "optim.expert_lr=auto",
             "optim.noise=measured", "optim.noise_unit=2");
    same_steps("fa", "fb", 6);
}

/* Full capacity loads all experts alike: `load` then is `auto`. */
static void test_equal_loads(void **state)
{
    static const char *const one[] = {"model.top_k=1", "optim.noise=given",
                                      "optim.noise_tokens=300"};
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("ea"), one[0], one[1], one[2], "optim.expert_lr=auto");
    RUN_CODE(0, "train", at("c.yaml"), out("eb"), one[0], one[1], one[2], "optim.expert_lr=load");
    same_steps("ea", "eb", 6);
}

/* Combinations that cannot be, with what would do; keys that would do nothing. */
static void test_refused(void **state)
{
    static const char measured[] = "optim.noise=measured", automatic[] = "optim.expert_lr=auto";
    static const struct {
        const char *words[4], *message;
    } cases[] = {
        {{automatic, measured},
         "optim.noise_unit: is needed to measure B_noise\nhint: optim.noise_unit=8 would do"},
        {{automatic, measured, "optim.noise_unit=16"},
         "optim.noise_unit: units of 16 sequences do not cut train.batch 16 into at least two "
         "equal parts\nhint: optim.noise_unit=8 would do"},
        {{automatic, measured, "optim.noise_unit=3"},
         "optim.noise_unit: units of 3 sequences do not cut"},
        {{automatic, measured, "optim.noise_unit=1"},
         "optim.noise_unit: 1 sequences of 32 tokens are not whole routing groups of 64 tokens\n"
         "hint: optim.noise_unit=8 would do"},
        {{automatic, measured, "optim.noise_unit=4", "train.micro_batch=8"},
         "train.micro_batch: 8 does not divide optim.noise_unit 4: a unit is whole micro-batches\n"
         "hint: optim.noise_unit=8 would do"},
        {{automatic, measured, "optim.noise_unit=8", "train.micro_batch=16"},
         "train.micro_batch: 16 does not divide optim.noise_unit 8: a unit is whole micro-batches\n"
         "hint: no unit would do: raise train.batch, lower train.micro_batch, or take "},
        {{automatic, measured, "train.batch=8192", "optim.noise_unit=4"},
         "optim.noise_unit: 2048 units of 4 sequences are more than 1024\nhint: "
         "optim.noise_unit=4096 would do"},
        {{automatic, "optim.noise=given"}, "optim.noise_tokens: is needed with optim.noise given"},
        {{automatic, "optim.noise_tokens=9", "optim.noise=given", "model.top_p=0.5"},
         "optim.expert_lr: auto takes an expert's batch from model.top_k, which is only the most "
         "that model.top_p chooses: use load"},
        {{automatic, "optim.load_decay=0.9"},
         "optim.load_decay: has an effect only with optim.expert_lr load"},
        {{"optim.noise=given"}, "optim.noise: has an effect only with optim.expert_lr auto or "},
        {{automatic, "optim.noise_tokens=9"}, "optim.noise_tokens: has an effect only with "},
        {{automatic, measured, "optim.noise_unit=8", "optim.noise_alpha=0.3"},
         "optim.noise_alpha: has an effect only with optim.expert_lr auto or load with optim.noise "
         "loss"},
        {{automatic, "optim.noise_unit=8"}, "optim.noise_unit: has an effect only with "},
        {{automatic, "optim.noise_decay=0.5"}, "optim.noise_decay: has an effect only with "},
        {{"optim.mid_lr_ratio=0.5"},
         "optim.mid_lr_ratio: has an effect only with optim.schedule three_phase"},
        {{"optim.schedule=three_phase", "optim.final_lr_ratio=0.4"},
         "optim.final_lr_ratio: 0.4 is above optim.mid_lr_ratio 0.3: the annealing would rise"},
        {{"optim.schedule=three_phase", "train.steps=2"},
         "optim.decay_steps: 2 behind 2 of warm-up is more than train.steps 2"},
        {{"optim.schedule=three_phase", "train.steps=2", "optim.decay_steps=0"},
         "optim.warmup_steps: 2 steps of warm-up, and the rate's last phase begins behind step 1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *words[5] = {"train.batch=16"};
        RunConfig c;
        Err e = {0};
        int n = 1;
        for (; n < 5 && cases[i].words[n - 1]; n++) words[n] = cases[i].words[n - 1];
        if (!run_config_read(&c, at("c.yaml"), words, n, &e)) fail_msg("case %zu is taken", i);
        char key[64];
        const char *reason = strstr(cases[i].message, ": "); /* between them: where it was set */
        snprintf(key, sizeof key, "%.*s", (int)(reason - cases[i].message), cases[i].message);
        assert_has(e.message, key);
        assert_has(e.message, reason);
    }
}

/* A micro-batch that is chosen divides the unit. */
static void test_chosen_micro(void **state)
{
    const char *const words[] = {"train.batch=48", "optim.noise_unit=12", "optim.expert_lr=load",
                                 "optim.noise=measured", "data.seq_len=512",
                                 "model.routing_group_tokens=1024"};
    RunConfig c;
    Err e = {0};
    (void)state;
    if (run_config_read(&c, at("c.yaml"), words, 6, &e)) fail_msg("%s", e.message);
    assert_int_equal(c.train.micro_batch, 12); /* 16 is the largest divisor of the batch */
}

static void test_dense(void **state)
{
    (void)state;
    RUN_CODE(1, "train", at("c.yaml"), out("x"), "optim.expert_lr=auto", "model.n_experts=0",
             "model.top_k=0", "model.expert_width=0", "model.routing_group_tokens=1024");
    assert_has(program_err, "optim.expert_lr: there are no experts (model.n_experts is 0)");
}

/* ---- Branches ---------------------------------------------------------------------------------*/

#define TRUNK                                                                                      \
    "train.steps=20", "optim.decay_steps=3", "train.eval_every=0", "train.keep_checkpoints=0"

/* "train.from=<scratch>/name" */
static const char *from(const char *name)
{
    char *path = strdup(at("%s", name)), *text = at("%s", "");
    snprintf(text, PATH * 2, "train.from=%s", path);
    free(path);
    return text;
}

/* The trunk that the tests branch from, made once. */
static void make_trunk(void)
{
    if (io_exists(at("trunk"))) return;
    RUN_CODE(0, "train", at("c.yaml"), out("trunk"), TRUNK, "train.checkpoint_every=4");
}

/* Lines of steps from+1 .. steps of the branch are those of the run that was trained alone. */
static void same_tail(const char *alone, const char *branch, int from, int steps)
{
    static const char *const exact[] = {"step", "loss", "aux", "z", "lr", "grad_norm", "tokens",
                                        "flops", "load_max", "recycled"};
    Record x, y;
    record_read(&x, alone);
    record_read(&y, branch);
    for (int i = from; i < steps; i++) {
        const json_t *p = record_find(&x, NULL, i), *q = record_find(&y, NULL, i - from);
        assert_non_null(q);
        for (int k = 0; k < 10; k++)
            if (number(p, exact[k]) != number(q, exact[k]))
                fail_msg("step %d: %s is %.17g alone, %.17g in the branch", i + 1, exact[k],
                         number(p, exact[k]), number(q, exact[k]));
    }
    assert_null(record_find(&y, NULL, steps - from));
    assert_true(number(record_find(&x, "final", 0), "val_loss") ==
                number(record_find(&y, "final", 0), "val_loss"));
    record_free(&x);
    record_free(&y);
}

/* Every name, size and time of change below a folder, as one text. */
static char *listing(const char *name)
{
    char command[PATH * 5];
    snprintf(command, sizeof command, "cd %s && find . -printf '%%p %%s %%T@\\n' | sort > %s",
             at("%s", name), at("%s", "listing"));
    assert_int_equal(system(command), 0);
    return read_file(at("listing"), NULL);
}

/* Steps 13 to 18 of a branch at step 12 are those of a run of 18 steps with the same decay; the
 * trunk is as it was; the record says where the branch comes from; a rerun finds it complete. */
static void test_branch(void **state)
{
    Record r, t;
    (void)state;
    make_trunk();
    char *before = listing("trunk");
    const char *const cool[] = {"train.steps=18", "optim.decay_steps=4", "train.eval_every=0"};
    RUN_CODE(0, "train", at("c.yaml"), out("alone"), cool[0], cool[1], cool[2]);
    RUN_CODE(0, "train", at("c.yaml"), out("branch"), cool[0], cool[1], cool[2],
             from("trunk/checkpoints/step-000000012"), "train.threads=2");
    assert_has(program_err, "branched at step 12 from ");
    same_tail("alone", "branch", 12, 18);
    same_tensors("alone", "branch", 18);
    char *after = listing("trunk");
    assert_string_equal(before, after);
    free(before);
    free(after);
    record_read(&r, "branch");
    record_read(&t, "trunk");
    const json_t *start = record_find(&r, "start", 0), *origin = record_find(&t, "start", 0);
    const char *run = json_string_value(json_object_get(origin, "run"));
    assert_int_equal(number(start, "step"), 12);
    assert_int_equal(number(start, "from_step"), 12);
    assert_string_equal(json_string_value(json_object_get(start, "from_run")), run);
    assert_string_not_equal(json_string_value(json_object_get(start, "run")), run);
    assert_null(json_object_get(origin, "from_run"));
    json_t *saved = manifest("branch", 18), *numbers = json_object_get(saved, "state");
    assert_int_equal(number(numbers, "from_step"), 12);
    assert_string_equal(json_string_value(json_object_get(numbers, "from_run")), run);
    json_decref(saved);
    record_free(&r);
    record_free(&t);
    RUN_CODE(0, "train", at("c.yaml"), out("branch"), cool[0], cool[1], cool[2],
             from("trunk/checkpoints/step-000000012"));
    assert_has(program_err, "branch: complete at step 18; nothing to do");
}

/* The branch's own checkpoint wins over train.from; stopped in between, it ends the same. Other
 * shapes of the fall, and the newest checkpoint of a run folder. */
static void test_branch_resumed(void **state)
{
    const char *const cool[] = {"train.steps=26", "optim.decay_steps=6", "train.eval_every=0",
                                "optim.schedule=wsd_sqrt", "optim.final_lr_ratio=0.02"};
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("base"), "optim.schedule=constant", "train.steps=17",
             "train.eval_every=0", "optim.decay_steps=0");
    RUN_CODE(0, "train", at("c.yaml"), out("a26"), cool[0], cool[1], cool[2], cool[3], cool[4]);
    RUN_CODE(0, "train", at("c.yaml"), out("b26"), cool[0], cool[1], cool[2], cool[3], cool[4],
             from("base"), "train.checkpoint_every=4");
    assert_has(program_err, "branched at step 17 from ");
    same_tail("a26", "b26", 17, 26);
    assert_int_equal(io_remove_tree(at("b26/checkpoints/step-000000026"), NULL), 0);
    RUN_CODE(0, "train", at("c.yaml"), out("b26"), cool[0], cool[1], cool[2], cool[3], cool[4],
             from("base"));
    assert_has(program_err, "resumed at step 24 from ");
    same_tail("a26", "b26", 17, 26);
    same_tensors("a26", "b26", 26);
    json_t *saved = manifest("b26", 26);
    assert_int_equal(number(json_object_get(saved, "state"), "from_step"), 17);
    json_decref(saved);
    RUN_CODE(1, "train", at("c.yaml"), out("b26"), cool[0], cool[1], cool[2], cool[3], cool[4],
             from("trunk"), "train.steps=30");
    assert_has(program_err, "b26: cannot be resumed with another configuration:\n  train.from: ");
}

/* With all state on: moving averages go over into the branch. */
static void test_branch_rates(void **state)
{
    const char *const on[] = {"optim.expert_lr=load", "optim.noise=measured", "optim.noise_unit=2",
                              "train.micro_batch=2", "model.routing=dropless",
                              "train.eval_every=0", "optim.noise_decay=0.8"};
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("t"), on[0], on[1], on[2], on[3], on[4], on[5], on[6],
             "train.steps=12", "optim.decay_steps=0");
    RUN_CODE(0, "train", at("c.yaml"), out("p"), on[0], on[1], on[2], on[3], on[4], on[5], on[6],
             "train.steps=16", "optim.decay_steps=4");
    RUN_CODE(0, "train", at("c.yaml"), out("q"), on[0], on[1], on[2], on[3], on[4], on[5], on[6],
             "train.steps=16", "optim.decay_steps=4", from("t"));
    same_tail("p", "q", 12, 16);
    same_tensors("p", "q", 16);
}

/* Refused with the reason, exit code 1, and without a checkpoint in the new folder. */
static void test_branch_refused(void **state)
{
    static const struct {
        const char *from, *change[3], *message;
    } cases[] = {
        {"trunk", {"train.steps=30"},
         "step 20 lies inside the decay of that run, which begins behind step 17\nhint: take an "},
        {"trunk/checkpoints/step-000000016", {"train.steps=18", "optim.decay_steps=4"},
         "it is at step 16, but a run of 18 steps has its decay behind step 14\nhint: raise "},
        {"trunk/checkpoints/step-000000016", {"train.steps=16", "optim.decay_steps=0"},
         "it is at step 16, but a run of 16 steps"},
        {"trunk/checkpoints/step-000000012",
         {"optim.schedule=cosine", "train.steps=30", "optim.decay_steps=0"},
         "a run of 30 steps has its decay behind step 2"},
        {"trunk/checkpoints/step-000000012",
         {"train.steps=30", "optim.lr=0.02", "train.seed=2"},
         "cannot be branched from with another configuration:\n"
         "  optim.lr: 0.01 in the checkpoint, 0.02 now\n"
         "  train.seed: 1 in the checkpoint, 2 now\nhint: a branch may change only these: "
         "optim.schedule, optim.decay_steps, optim.final_lr_ratio, optim.mid_lr_ratio, "
         "data.train"},
        {"trunk/checkpoints/step-000000012", {"train.steps=30", "train.minutes=1"},
         "train.minutes: cannot cut a run with train.from"},
        {"nowhere", {"train.steps=30"}, "train.from: "},
        {"data", {"train.steps=30"}, "holds no checkpoint"},
    };
    (void)state;
    make_trunk();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *words[12] = {"train", at("c.yaml"), out("no"), from(cases[i].from)};
        for (int k = 0; k < 3; k++) words[4 + k] = cases[i].change[k];
        int code = program_wait(program_start(words));
        if (code != 1) fail_msg("case %zu: exit %d\n%s", i, code, program_err);
        assert_has(program_err, cases[i].message);
        assert_false(io_exists(at("no/checkpoints")));
    }
    RUN_CODE(1, "train", at("c.yaml"), out("no"), from("trunk"), "--resume=required");
    assert_has(program_err, "no: holds no checkpoint to resume from");
}

/* Each of the keys exists, and what may change on a resume may in a branch too. */
static void test_branch_keys(void **state)
{
    RunConfig a, b;
    Err e = {0};
    (void)state;
    assert_int_equal(run_config_read(&a, at("c.yaml"), NULL, 0, &e), 0);
    const char *const free[] = {"train.from=x", "optim.schedule=three_phase", "train.steps=90",
                                "optim.decay_steps=7", "optim.final_lr_ratio=0.2",
                                "optim.mid_lr_ratio=0.4", "train.threads=3"};
    assert_int_equal(run_config_read(&b, at("c.yaml"), free, 7, &e), 0);
    assert_int_equal(resume_check_branch(&a, &b, "x", &e), 0);
    assert_int_equal(resume_check(&a, &b, "x", &e), -1);
    assert_has(e.message, "optim.schedule: wsd in the checkpoint, three_phase now");
    assert_has(e.message, "train.from: ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume_rates),   cmocka_unit_test(test_rate_lines),
        cmocka_unit_test(test_noise_loss),     cmocka_unit_test(test_measuring_is_free),
        cmocka_unit_test(test_equal_loads),    cmocka_unit_test(test_dense),
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_chosen_micro),
        cmocka_unit_test(test_branch),         cmocka_unit_test(test_branch_resumed),
        cmocka_unit_test(test_branch_rates),   cmocka_unit_test(test_branch_refused),
        cmocka_unit_test(test_branch_keys),
    };
    return cmocka_run_group_tests(tests, begin_all, help_end);
}
