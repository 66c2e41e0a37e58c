/* tests/test_train_log.c - the run record and the run folder: bits survive, a resume leaves each
 * step once, a torn line is dropped, one process holds a folder. */
#include "tests/train_help.h"

#include <math.h>

#include "train/json_out.h"
#include "train/run_folder.h"
#include "train/runlog.h"

static void write_step(RunLog *log, int step, double loss)
{
    Err e = {0};
    json_t *record = json_pack("{s:i, s:o}", "step", step, "loss", json_out_real(loss));
    if (runlog_write(log, record, &e)) fail_msg("%s", e.message);
}

static void write_event(RunLog *log, const char *event, int step)
{
    Err e = {0};
    json_t *record = json_pack("{s:s, s:i}", "event", event, "step", step);
    if (runlog_write(log, record, &e)) fail_msg("%s", e.message);
}

static void test_bits(void **state)
{
    const double values[] = {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, 123456789.125, -0.0, 4};
    enum { N = sizeof values / sizeof *values };
    RunLog log;
    Err e = {0};
    (void)state;
    assert_int_equal(runlog_create(&log, scratch, &e), 0);
    for (int i = 0; i < N; i++) write_step(&log, i, values[i]);
    write_step(&log, N, NAN);
    write_step(&log, N + 1, INFINITY);
    assert_int_equal(runlog_sync(&log, &e), 0);
    runlog_close(&log);
    FILE *f = fopen(at("log.jsonl"), "r");
    char line[256];
    for (int i = 0; i < N + 2; i++) {
        assert_non_null(fgets(line, sizeof line, f));
        json_t *record = json_loads(line, 0, NULL);
        assert_non_null(record);
        const json_t *loss = json_object_get(record, "loss");
        if (i < N) {
            double value = json_real_value(loss);
            assert_memory_equal(&value, &values[i], sizeof value);
        } else {
            assert_true(json_is_null(loss));
        }
        json_decref(record);
    }
    assert_null(fgets(line, sizeof line, f));
    fclose(f);
}

static void test_resume(void **state)
{
    RunLog log;
    Err e = {0};
    (void)state;
    assert_int_equal(runlog_create(&log, scratch, &e), 0);
    write_event(&log, "start", 0);
    for (int i = 1; i <= 4; i++) {
        write_step(&log, i, i);
        if (i == 2 || i == 4) write_event(&log, "eval", i);
        if (i == 3) write_event(&log, "checkpoint", i);
    }
    write_event(&log, "stopped", 4);
    write_event(&log, "final", 3);
    assert_int_equal(log.last_eval, 4);
    assert_true(write(log.fd, "{\"step\": 5, \"lo", 15) == 15);
    runlog_close(&log);

    assert_int_equal(runlog_resume(&log, scratch, 3, &e), 0);
    assert_int_equal(log.last_eval, 2);
    write_step(&log, 4, 4.5);
    runlog_close(&log);
    char *text = read_file(at("log.jsonl"), NULL);
    assert_string_equal(text, "{\"event\":\"start\",\"step\":0}\n{\"step\":1,\"loss\":1.0}\n"
                              "{\"step\":2,\"loss\":2.0}\n{\"event\":\"eval\",\"step\":2}\n"
                              "{\"step\":3,\"loss\":3.0}\n{\"event\":\"checkpoint\",\"step\":3}\n"
                              "{\"step\":4,\"loss\":4.5}\n");
    free(text);
    assert_null(runlog_last(scratch, "final"));
    json_t *eval = runlog_last(scratch, "eval");
    assert_int_equal(json_integer_value(json_object_get(eval, "step")), 2);
    json_decref(eval);
}

/* Damage in the middle costs that line alone; a missing record begins anew. */
static void test_damaged(void **state)
{
    RunLog log;
    Err e = {0};
    (void)state;
    write_file(at("log.jsonl"), "{\"step\":1}\ngarbage\n{\"step\":2}\n");
    assert_int_equal(runlog_resume(&log, scratch, 2, &e), 0);
    runlog_close(&log);
    char *text = read_file(at("log.jsonl"), NULL);
    assert_string_equal(text, "{\"step\":1}\n{\"step\":2}\n");
    free(text);
    unlink(at("log.jsonl"));
    assert_int_equal(runlog_resume(&log, scratch, 2, &e), 0);
    write_step(&log, 3, 1);
    runlog_close(&log);
    assert_int_equal(runlog_create(&log, at("missing"), &e), -1);
    assert_has(e.message, "missing/log.jsonl: cannot be opened: No such file or directory");
}

static void test_lock(void **state)
{
    int lock, second;
    char pid[64];
    Err e = {0};
    (void)state;
    assert_int_equal(run_folder_lock(at("a/b"), true, &lock, &e), 0);
    assert_int_equal(run_folder_lock(at("a/b"), false, &second, &e), -1);
    snprintf(pid, sizeof pid, "a/b: process %ld is training into this folder\nhint",
             (long)getpid());
    assert_has(e.message, pid);
    run_folder_unlock(&lock);
    assert_int_equal(run_folder_lock(at("a/b"), true, &lock, &e), 0); /* only a lock file there */
    run_folder_unlock(&lock);
    write_file(at("a/b/config.yaml"), "x");
    assert_int_equal(run_folder_lock(at("a/b"), true, &lock, &e), -1);
    assert_has(e.message, "a/b: is not empty, and --fresh overwrites nothing\nhint: choose");
    assert_int_equal(lock, -1);
    assert_int_equal(run_folder_lock(at("a/b"), false, &lock, &e), 0);
    run_folder_unlock(&lock);
    assert_int_equal(run_folder_lock(at("a/b/config.yaml"), false, &lock, &e), -1);
    assert_has(e.message, "config.yaml: exists and is not a folder");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_lock),
    };
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
