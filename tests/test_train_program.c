/* tests/test_train_program.c - the built program from outside: exit codes and messages; a run that
 * is stopped, killed or damaged and goes on; what it leaves in its folder. */
#include "tests/train_runs.h"

#include <math.h>
#include <sys/file.h>

/* ---- The command line -------------------------------------------------------------------------*/

static void test_misuse(void **state)
{
    (void)state;
    RUN_CODE(2, "trian");
    assert_has(program_err, "isomoe: error: unknown command 'trian'; did you mean 'train'?\nhint");
    RUN_CODE(2, "train");
    assert_has(program_err, "train: needs at least 1 argument, got 0\nhint: isomoe train CONFIG");
    RUN_CODE(2, "train", at("c.yaml"), "--frehs");
    assert_has(program_err, "train: unknown option --frehs; did you mean --fresh?");
    RUN_CODE(2, "train", at("c.yaml"), "--resume", "always");
    assert_has(program_err, "train: --resume is auto or required, not 'always'");
    RUN_CODE(2, "train", at("c.yaml"), "--resume", "required", "--fresh");
    assert_has(program_err, "--fresh and --resume required exclude each other");
    RUN_CODE(2, "completion", "zsh");
    assert_has(program_err, "completion: only bash is known");
    RUN_CODE(2, "help", "nothing-near");
    assert_has(program_err, "unknown command 'nothing-near'\n");
    assert_int_equal(program_wait(program_start((const char *const[]){NULL})), 2);
    assert_has(program_err, "usage: isomoe COMMAND");
    assert_string_equal(program_out, "");
}

static void test_help(void **state)
{
    static const char *const commands[] = {"prepare", "train", "plan", "eval", "generate", "report",
                                           "info"};
    (void)state;
    RUN_CODE(0, "--help");
    for (int i = 0; i < 7; i++) assert_has(program_out, commands[i]);
    assert_has(program_out, "Exit codes: 0 done, 1 failed, 2 misuse, 3 stopped");
    for (int i = 0; i < 7; i++) {
        char usage[64];
        snprintf(usage, sizeof usage, "usage: isomoe %s", commands[i]);
        RUN_CODE(0, commands[i], "--help");
        assert_has(program_out, usage);
        assert_string_equal(program_err, "");
    }
    RUN_CODE(0, "help", "train");
    assert_has(program_out, "usage: isomoe train [options] CONFIG [key=value ...]");
    assert_has(program_out, "--fresh");
    RUN_CODE(0, "version");
    assert_has(program_out, "isomoe ");
    RUN_CODE(0, "completion", "bash");
    assert_has(program_out, "complete -o default -F _isomoe isomoe");
    write_file(at("complete.sh"), program_out);
    char command[PATH * 4];
    snprintf(command, sizeof command,
             "bash -c '. %s; COMP_WORDS=(isomoe train --fr); COMP_CWORD=2; _isomoe; "
             "echo ${COMPREPLY[@]}' > %s", at("complete.sh"), at("reply"));
    assert_int_equal(system(command), 0);
    char *reply = read_file(at("reply"), NULL);
    assert_string_equal(reply, "--fresh\n");
    free(reply);
}

static void test_failures(void **state)
{
    (void)state;
    RUN_CODE(1, "train", at("none.yaml"));
    assert_has(program_err, "none.yaml: cannot be opened: No such file or directory");
    RUN_CODE(1, "train", at("c.yaml"), "train.stepz=4");
    assert_has(program_err, "command line: unknown key 'train.stepz'; did you mean 'train.steps'?");
    RUN_CODE(1, "train", at("c.yaml"), out("f1"), "data.train=nowhere");
    assert_has(program_err, "nowhere");
    RUN_CODE(1, "train", at("c.yaml"), out("f2"), "model.vocab_size=300");
    assert_has(program_err, "300");
    RUN_CODE(1, "train", at("c.yaml"), out("f3"), "--resume=required");
    assert_has(program_err, "f3: holds no checkpoint to resume from\nhint: without --resume");
    RUN_CODE(1, "train", at("c.yaml"), out("c.yaml/x"));
    assert_has(program_err, "c.yaml");
    RUN_CODE(1, "train", at("c.yaml"), out("f4"), "train.device=cuda");
    assert_has(program_err, "cuda");
}

/* ---- Runs -------------------------------------------------------------------------------------*/

/* A plan beyond the machine is refused before anything is allocated. */
static void test_memory(void **state)
{
    (void)state;
    RUN_CODE(1, "train", at("c.yaml"), out("huge"), "model.d_model=65536", "model.n_layers=100",
             "model.expert_width=65536");
    assert_has(program_err, "huge: the run needs ");
    assert_has(program_err, " GB of memory by plan, device cpu has room for ");
    assert_has(program_err, "hint: `isomoe plan` shows what needs it; smaller: train.micro_batch");
}

static void test_record(void **state)
{
    Record r;
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("a"), "train.precision=f32", "--json", "--quiet");
    assert_string_equal(program_err, "");
    json_t *printed = json_loads(program_out, 0, NULL);
    record_read(&r, "a");
    const json_t *final = record_find(&r, "final", 0), *start = r.line[0];
    assert_true(json_equal(printed, (json_t *)(uintptr_t)final));
    assert_ptr_equal(final, r.line[r.count - 1]);
    assert_string_equal(json_string_value(json_object_get(start, "event")), "start");
    char *config = read_file(at("a/config.yaml"), NULL);
    assert_string_equal(json_string_value(json_object_get(start, "config")), config);
    free(config);
    static const char *const hex[] = {"run", "tokenizer", "data", "val"};
    for (int i = 0; i < 4; i++)
        assert_int_equal(strlen(json_string_value(json_object_get(start, hex[i]))), 16);
    static const char *const text[] = {"code", "device", "variant", "precision"};
    for (int i = 0; i < 4; i++) assert_non_null(json_string_value(json_object_get(start, text[i])));
    assert_true(number(start, "matrix_peak") > 1e8);
    for (int i = 0; i < 3; i++)
        assert_int_equal(number(record_find(&r, "eval", i), "step"), 2 * i + 2);
    assert_true(number(final, "val_loss") == number(record_find(&r, "eval", 2), "loss"));
    assert_null(record_find(&r, "eval", 3));
    const json_t *first = record_find(&r, NULL, 0), *last = record_find(&r, NULL, 5);
    assert_true(fabs(number(first, "loss") - log(VOCAB)) < 0.3);
    assert_true(number(last, "loss") < number(first, "loss"));
    assert_true(number(last, "tokens") == 6 * 4 * 32);
    assert_true(number(last, "flops") == 6 * number(first, "flops"));
    assert_true(number(first, "lr") == 0.005 && number(last, "lr") < 0.002);
    double load = 0;
    for (size_t i = 0; i < 4; i++)
        load += json_number_value(json_array_get(json_object_get(last, "load"), i));
    assert_true(fabs(load - 1) < 1e-9);
    json_t *saved = manifest("a", 6);
    assert_int_equal(number(json_object_get(saved, "state"), "sequence"), 24);
    json_decref(saved);
    json_decref(printed);
    record_free(&r);
}

/* Done is done: the same command prints the same record; more steps go on from the last one. */
static void test_complete(void **state)
{
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("b"), "train.steps=2", "optim.warmup_steps=0", "--json");
    char *before = strdup(program_out);
    RUN_CODE(0, "train", at("c.yaml"), out("b"), "train.steps=2", "optim.warmup_steps=0", "--json");
    assert_has(program_err, "b: complete at step 2; nothing to do");
    assert_string_equal(program_out, before);
    free(before);
    RUN_CODE(1, "train", at("c.yaml"), out("b"), "--fresh");
    assert_has(program_err, "b: is not empty, and --fresh overwrites nothing\nhint: choose");
    RUN_CODE(0, "train", at("c.yaml"), out("b"), "train.steps=3", "optim.warmup_steps=0",
             "--resume=required");
    assert_has(program_err, "resumed at step 2 from");
    Record r;
    record_read(&r, "b");
    assert_int_equal(number(record_find(&r, NULL, 2), "step"), 3);
    assert_int_equal(number(record_find(&r, "final", 0), "step"), 3);
    assert_null(record_find(&r, "final", 1));
    record_free(&r);
}

/* Six steps straight are three steps, a death, and three more. The second run wrote its record up
 * to step 6 and lost the checkpoint there. more: keys for all runs, or none. */
static void resume_bitwise(const char *more[4], const char *a, const char *b)
{
    RUN_CODE(0, "train", at("c.yaml"), out(a), more[0], more[1], more[2], more[3]);
    RUN_CODE(0, "train", at("c.yaml"), out(b), "train.checkpoint_every=3", more[0], more[1],
             more[2], more[3]);
    assert_int_equal(io_remove_tree(at("%s/checkpoints/step-000000006", b), NULL), 0);
    RUN_CODE(0, "train", at("c.yaml"), out(b), "train.checkpoint_every=3", "train.threads=2",
             more[0], more[1], more[2], more[3]);
    assert_has(program_err, "resumed at step 3 from");
    same_steps(a, b, 6);
    same_tensors(a, b, 6);
    Record x, y;
    record_read(&x, a);
    record_read(&y, b);
    for (int i = 0; i < 3; i++)
        assert_true(number(record_find(&x, "eval", i), "loss") ==
                    number(record_find(&y, "eval", i), "loss"));
    assert_null(record_find(&y, "eval", 3));
    assert_non_null(record_find(&y, "resume", 0));
    record_free(&x);
    record_free(&y);
}

static void test_resume_f32(void **state)
{
    (void)state;
    resume_bitwise((const char *[4]){"train.precision=f32"}, "r32a", "r32b");
}

static void test_resume_bf16(void **state)
{
    (void)state;
    resume_bitwise((const char *[4]){"train.precision=bf16"}, "r16a", "r16b");
}

/* The window of the outliers is two steps, full before the resume, and so strict that any rise is
 * one: what is skipped behind the resume hangs on it. */
static void test_resume_optimizer(void **state)
{
    (void)state;
    Record r;
    int skipped = 0;
    resume_bitwise((const char *[4]){"optim.kind=muon", "optim.moments=bf16",
                                     "optim.skip_zscore=0.01", "optim.skip_window=2"},
                   "rma", "rmb");
    record_read(&r, "rma");
    for (int i = 3; i < 6; i++) {
        const json_t *step = record_find(&r, NULL, i);
        bool high = number(step, "z_norm") > 0.01 || number(step, "z_loss") > 0.01;
        assert_true(high == (number(step, "skipped") >= 2));
        skipped += high;
    }
    assert_true(skipped > 0);
    record_free(&r);
    resume_bitwise((const char *[4]){"optim.moments=bf16"}, "rba", "rbb");
}

/* Loads and B_noise learn nothing from a step that is skipped: the experts' rates behind it are
 * those before it; behind any other step they move. */
static void test_skipped_rates(void **state)
{
    (void)state;
    Record r;
    int skipped = 0, made = 0;
    RUN_CODE(0, "train", at("c.yaml"), out("skips"), "train.steps=16", "optim.skip_zscore=0.01",
             "optim.skip_window=2", "optim.expert_lr=load", "optim.load_decay=0.1",
             "optim.noise=measured", "optim.noise_unit=2", "train.micro_batch=2");
    record_read(&r, "skips");
    for (int i = 2; i + 1 < 16; i++) { /* expert_rates: those that the line's step was made with */
        const json_t *now = record_find(&r, NULL, i), *next = record_find(&r, NULL, i + 1);
        bool skip = number(now, "skipped") >= 2;
        json_t *rates = json_object_get(now, "expert_rates");
        assert_int_equal(json_array_size(rates), 2);
        if (skip != (bool)json_equal(rates, json_object_get(next, "expert_rates")) ||
            (skip && !json_equal(json_object_get(now, "b_noise"),
                                 json_object_get(next, "b_noise"))))
            fail_msg("step %d, skipped: %d", i + 1, skip);
        skipped += skip;
        made += !skip;
    }
    assert_true(skipped > 1 && made > 1);
    record_free(&r);
    static const char *const never[] = {"optim.skip_zscore=3", "optim.skip_window=6"};
    RUN_CODE(0, "plan", at("c.yaml"), never[0], never[1]);
    assert_has(program_out, "  warning: optim.skip_zscore: judges no step");
    RUN_CODE(0, "train", at("c.yaml"), out("never"), never[0], never[1]);
    assert_has(program_err, "optim.skip_zscore: judges no step");
}

/* Waits until the run's record has this many bytes more than nothing: it is in its loop. */
static void wait_for_steps(const char *run, int steps)
{
    for (int i = 0; i < 20000; i++) {
        char *path = at("%s/log.jsonl", run);
        if (io_exists(path)) {
            char *text = read_file(path, NULL), step[32];
            snprintf(step, sizeof step, "{\"step\":%d,", steps);
            bool there = strstr(text, step) != NULL;
            free(text);
            if (there) return;
        }
        usleep(1000);
    }
    fail_msg("%s: step %d did not come", run, steps);
}

/* Stopped by each of the signals, then let go to five steps more: as if nothing had been. The rate
 * is constant, so that a step does not depend on how long the run was meant to be. */
static void test_signal(void **state)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGUSR1};
    static const char endless[] = "train.steps=1000000", constant[] = "optim.decay_steps=0";
    char steps[64], said[64];
    int stopped = 0;
    (void)state;
    for (int i = 0; i < 3; i++) {
        const char *const words[] = {"train", at("c.yaml"), out("s"), endless, constant,
                                     "train.eval_every=0", "--json", NULL};
        pid_t pid = program_start(words);
        wait_for_steps("s", stopped + 5);
        kill(pid, numbers[i]);
        if (program_wait(pid) != 3) fail_msg("%s%s", program_out, program_err);
        snprintf(said, sizeof said, "stopped by signal %d at step", numbers[i]);
        assert_has(program_err, said);
        json_t *record = json_loads(program_out, 0, NULL);
        assert_string_equal(json_string_value(json_object_get(record, "event")), "stopped");
        stopped = (int)number(record, "step");
        json_decref(record);
    }
    snprintf(steps, sizeof steps, "train.steps=%d", stopped + 5);
    RUN_CODE(0, "train", at("c.yaml"), out("s"), steps, constant, "train.eval_every=0");
    RUN_CODE(0, "train", at("c.yaml"), out("t"), steps, constant, "train.eval_every=0");
    same_steps("s", "t", stopped + 5);
    same_tensors("s", "t", stopped + 5);
}

/* Killed at odd moments while it writes a checkpoint at every step, many of them in the middle of a
 * write: each time it goes on, and in the end nothing has happened. */
static void test_killed(void **state)
{
    static const char *const more[] = {"optim.decay_steps=0", "train.eval_every=0",
                                       "train.checkpoint_every=1"};
    char steps[64];
    int reached = 0;
    (void)state;
    for (int i = 0; i < 5; i++) {
        const char *const words[] = {"train", at("c.yaml"), out("k"), "train.steps=1000000",
                                     more[0], more[1], more[2], NULL};
        pid_t pid = program_start(words);
        wait_for_steps("k", reached + 2);
        usleep((useconds_t)(3700 * i));
        kill(pid, SIGKILL);
        assert_int_equal(program_wait(pid), 1000 + SIGKILL);
        Record r;
        record_read(&r, "k");
        for (int n = 0; record_find(&r, NULL, n); n++)
            reached = (int)number(record_find(&r, NULL, n), "step");
        record_free(&r);
    }
    snprintf(steps, sizeof steps, "train.steps=%d", reached + 2);
    RUN_CODE(0, "train", at("c.yaml"), out("k"), steps, more[0], more[1]);
    assert_has(program_err, "resumed at step ");
    RUN_CODE(0, "train", at("c.yaml"), out("n"), steps, more[0], more[1]);
    same_steps("k", "n", reached + 2);
    same_tensors("k", "n", reached + 2);
}

/* A frozen run holds its folder against a second one, and a second signal ends it at once. */
static void test_lock_and_second_signal(void **state)
{
    char expected[64];
    const char *const words[] = {"train", at("c.yaml"), out("l"), "train.steps=100000", NULL};
    (void)state;
    pid_t pid = program_start(words);
    wait_for_steps("l", 2);
    kill(pid, SIGSTOP);
    RUN_CODE(1, "train", at("c.yaml"), out("l"), "train.steps=100000");
    snprintf(expected, sizeof expected, "l: process %ld is training into this folder", (long)pid);
    assert_has(program_err, expected);
    kill(pid, SIGTERM);
    kill(pid, SIGINT);
    kill(pid, SIGCONT);
    int code = program_wait(pid);
    if (code != 1000 + SIGTERM && code != 1000 + SIGINT) fail_msg("exit code %d", code);
    assert_false(io_exists(at("l/checkpoints")));
    RUN_CODE(0, "train", at("c.yaml"), out("l")); /* no checkpoint: from the beginning */
    Record r;
    record_read(&r, "l");
    assert_null(record_find(&r, NULL, 6));
    record_free(&r);
}

/* Told to by its environment, a run ends with the process that started it. */
static void test_ends_with_parent(void **state)
{
    const char *const words[] = {"train", at("c.yaml"), out("p"), "train.steps=1000000", NULL};
    (void)state;
    pid_t parent = fork();
    if (!parent) {
        setenv("ISOMOE_END_WITH_PARENT", "1", 1);
        program_start(words);
        pause();
    }
    wait_for_steps("p", 2);
    char *owner = read_file(at("p/lock"), NULL);
    int fd = open(at("p/lock"), O_RDWR | O_CLOEXEC), free_now = -1;
    kill(parent, SIGKILL);
    waitpid(parent, NULL, 0);
    for (int i = 0; i < 4000 && free_now; i++) {
        usleep(5000);
        free_now = flock(fd, LOCK_EX | LOCK_NB);
    }
    if (free_now) kill((pid_t)strtol(owner, NULL, 10), SIGKILL);
    assert_int_equal(free_now, 0);
    close(fd);
    free(owner);
    RUN_CODE(0, "train", at("c.yaml"), out("p")); /* killed: no checkpoint was written */
    assert_null(strstr(program_err, "resumed"));
}

static void test_changed(void **state)
{
    char data[PATH * 2];
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("g"));
    RUN_CODE(1, "train", at("c.yaml"), out("g"), "optim.lr=0.02", "model.top_k=1", "train.steps=9");
    assert_has(program_err, "g: cannot be resumed with another configuration:\n"
                            "  model.top_k: 2 in the checkpoint, 1 now\n"
                            "  optim.lr: 0.01 in the checkpoint, 0.02 now\nhint: the "
                            "configuration that it goes on with is ");
    prepare("other", 2);
    snprintf(data, sizeof data, "data.train=%s", at("other"));
    RUN_CODE(1, "train", at("c.yaml"), out("g"), data, "train.steps=9");
    assert_has(program_err, "g: cannot be resumed on other data: the ");
    snprintf(data, sizeof data, "data.train=%s", at("./data")); /* moved, but the same */
    setenv("ISOMOE_ISA", "sse4", 1);
    RUN_CODE(0, "train", at("c.yaml"), out("g"), data, "train.steps=7");
    unsetenv("ISOMOE_ISA");
    assert_has(program_err, "this is sse4: the last bits of all results differ");
}

static void test_damaged(void **state)
{
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("d"), "train.checkpoint_every=2",
             "train.keep_checkpoints=0");
    const char *newest = at("d/checkpoints/step-000000006");
    assert_int_equal(truncate(at("d/checkpoints/step-000000006/rank-0000.h5"), 1000), 0);
    RUN_CODE(1, "train", at("c.yaml"), out("d"), "train.steps=7");
    assert_has(program_err, "rank-0000.h5: damaged: 1000 bytes, the manifest says ");
    assert_has(program_err, "\nhint: to go on from an older checkpoint, delete the folder ");
    assert_has(program_err, newest);
    assert_int_equal(unlink(at("d/checkpoints/step-000000006/manifest.json")), 0);
    RUN_CODE(0, "train", at("c.yaml"), out("d"), "train.steps=7");
    assert_has(program_err, "step-000000006: has no manifest.json: not a complete checkpoint");
    assert_has(program_err, "resumed at step 4 from");
}

static void test_minutes(void **state)
{
    Record r;
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("m"), "train.steps=1000000", "train.minutes=0.01",
             "optim.decay_steps=500000", "train.eval_every=0");
    assert_has(program_err, " of 1000000 steps fit into 0.01 minutes; decay over the last ");
    record_read(&r, "m");
    double total = number(record_find(&r, "final", 0), "steps_total");
    assert_true(total >= 11 && total < 20000);
    assert_true(number(record_find(&r, "final", 0), "step") == total);
    assert_true(number(record_find(&r, "length", 0), "steps_total") == total);
    assert_true(number(record_find(&r, "length", 0), "decay_steps") == llround(total / 2));
    assert_true(number(record_find(&r, NULL, (int)total - 1), "lr") < 0.0011);
    record_free(&r);
    RUN_CODE(0, "train", at("c.yaml"), out("m"), "train.steps=1000000", "train.minutes=0.01",
             "optim.decay_steps=500000", "train.eval_every=0");
    assert_has(program_err, "complete at step");
}

/* A rate that tears the model apart, to large losses or to no number at all: exit code 4, and no
 * checkpoint of the wreck. */
static void check_diverged(const char *folder, const char *decay, const char *reason)
{
    char **names, checkpoints[64];
    int count;
    RUN_CODE(4, "train", at("c.yaml"), out(folder), "train.steps=500", "optim.lr=100",
             "optim.warmup_steps=60", "train.eval_every=0", "train.checkpoint_every=40",
             "train.precision=f32", decay, "--json");
    assert_has(program_err, "error: diverged at step ");
    assert_has(program_err, reason);
    assert_has(program_err, "\nhint: lower optim.lr or lengthen optim.warmup_steps");
    assert_has(program_out, "\"event\": \"diverged\"");
    snprintf(checkpoints, sizeof checkpoints, "%s/checkpoints", folder);
    if (io_list_dir(at(checkpoints), &names, &count, NULL)) return; /* none at all */
    assert_true(count <= 1);
    io_free_names(names, count);
}

static void test_diverged(void **state)
{
    (void)state;
    check_diverged("x", "optim.weight_decay=0", " steps in a row had a loss above ");
    check_diverged("y", "optim.weight_decay=10", " steps in a row had no finite gradient");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_misuse),      cmocka_unit_test(test_help),
        cmocka_unit_test(test_failures),    cmocka_unit_test(test_memory),
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_complete),    cmocka_unit_test(test_resume_f32),
        cmocka_unit_test(test_resume_bf16), cmocka_unit_test(test_resume_optimizer),
        cmocka_unit_test(test_signal),      cmocka_unit_test(test_skipped_rates),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_lock_and_second_signal),
        cmocka_unit_test(test_ends_with_parent),
        cmocka_unit_test(test_changed),     cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_minutes),     cmocka_unit_test(test_diverged),
    };
    return cmocka_run_group_tests(tests, begin_all, help_end);
}
