/* tests/test_driver_faults.c - drivers in a world that is not kind: another driver that plans the
 * same cells meanwhile, children that something else collects, folders that are not there, numbers
 * without sense. */
#include "tests/sweep_help.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "base/log.h"
#include "scaling/driver.h"

#define FAKE "tests/fake_trainer.sh"

enum { PATIENCE = 30 /* seconds until a driver that hangs is ended */ };

static DriverOptions options(const char *folder)
{
    return (DriverOptions){.folder = folder, .program = FAKE, .jobs = 2, .threads = 1, .grace = 5};
}

static void assert_counts(Ledger *l, int done, int diverged, int failed)
{
    int counts[CELL_STATES], all = 0;
    OK(ledger_counts(l, counts, e));
    for (int i = 0; i < CELL_STATES; i++) all += counts[i];
    assert_int_equal(counts[STATE_DONE], done);
    assert_int_equal(counts[STATE_DIVERGED], diverged);
    assert_int_equal(counts[STATE_FAILED], failed);
    assert_int_equal(all, done + diverged + failed);
}

/* ---- Another driver plans meanwhile -----------------------------------------------------------*/

typedef enum Other { OTHER_ADDS_SAME, OTHER_ADDS_MORE, OTHER_HAS_THEM, OTHER_CANCELS } Other;

typedef struct Study {
    const char *folder;
    Other other;
    int asked;
} Study;

/* b and c, which another driver adds before this one does. */
static int more(void *self, const LedgerCell *have, int n, CellList *out, Err *e)
{
    Study *s = self;
    Cell cells[] = {make_cell("b", NULL, CELL_POINT, ""), make_cell("c", NULL, CELL_POINT, "")};
    (void)have;
    if (s->asked++ == 0 && s->other != OTHER_HAS_THEM) {
        Ledger *l = open_ledger(s->folder);
        if (s->other == OTHER_CANCELS)
            OK(ledger_cancel(l, NULL, NULL, e));
        else
            add_cells(l, cells, 2);
        ledger_close(&l);
    }
    if (s->other == OTHER_HAS_THEM) cells[0] = cells[1] = make_cell("a", NULL, CELL_POINT, "");
    if (n > 1 || s->other == OTHER_ADDS_MORE) return 0;
    return cell_list_add(out, &cells[0], e) || cell_list_add(out, &cells[1], e) ? -1 : 0;
}

/* The driver stays as long as there is something to do, whoever planned it; and no longer, though
 * it is always offered what is there. */
static void test_planned_by_another(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "other%d", i);
        Study s = {.folder = new_sweep(name), .other = (Other)i};
        DriverOptions o = options(s.folder);
        DriverCalls calls = {.self = &s, .more = more};
        Ledger *l = open_ledger(s.folder);
        Cell a = make_cell("a", NULL, CELL_POINT, "");
        Err e = {0};
        add_cells(l, &a, 1);
        assert_int_equal(driver_run(l, &o, &calls, &e), DRIVER_DONE);
        assert_counts(l, i == OTHER_HAS_THEM ? 1 : 3, 0, 0);
        assert_int_equal(s.asked, i == OTHER_HAS_THEM ? 1 : 2);
        check_ledger(l);
        ledger_close(&l);
    }
}

/* ---- Children ---------------------------------------------------------------------------------*/

static void *collect(void *nothing)
{
    for (;;)
        if (waitpid(-1, NULL, 0) < 0) usleep(200);
    return nothing;
}

/* A driver in a process of its own that ignores SIGCHLD, or whose children another thread collects.
 * Exit code: 10 + DriverEnd, or 1 if SIGCHLD is not as it was afterwards. */
static int run_apart(const DriverOptions *o, bool thief)
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        pthread_t thread;
        struct sigaction now;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(PATIENCE);
        if (thief) pthread_create(&thread, NULL, collect, NULL);
        else signal(SIGCHLD, SIG_IGN);
        Ledger *l = ledger_open(o->folder, false, NULL);
        DriverEnd end = l ? driver_run(l, o, NULL, NULL) : DRIVER_ERROR;
        sigaction(SIGCHLD, NULL, &now);
        if (!thief && now.sa_handler != SIG_IGN) _exit(1);
        _exit(10 + end);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status)) fail_msg("the driver hung (signal %d)", WTERMSIG(status));
    return WEXITSTATUS(status) - 10;
}

static void test_children(void **state)
{
    (void)state;
    for (int thief = 0; thief < 2; thief++) {
        char *folder = new_sweep(thief ? "thief" : "ignored");
        DriverOptions o = options(folder);
        Cell cells[] = {make_cell("a", NULL, CELL_TRUNK, ""), make_cell("b", "a", CELL_POINT, ""),
                        make_cell("f", NULL, CELL_POINT, "fake=fail")};
        Ledger *l = open_ledger(folder);
        add_cells(l, cells, 3);
        ledger_close(&l); /* what SQLite has open must not go through a fork */
        assert_int_equal(run_apart(&o, thief), DRIVER_DONE);
        l = open_ledger(folder);
        assert_counts(l, 2, 0, 1);
        assert_has(cell_named(l, "f").reason, "error: broken on purpose");
        if (!thief) assert_has(cell_named(l, "f").reason, "exit code 1: ");
        check_ledger(l);
        ledger_close(&l);
    }
}

/* ---- Taken for dead ---------------------------------------------------------------------------*/

/* With the first trainer's start, others take this driver for dead and its cell back. */
static void bury(void *self, const DriverProgress *p)
{
    Study *s = self;
    if (!p->event || s->asked++) return;
    Ledger *l = open_ledger(s->folder);
    OK(sql_run(l, e, "UPDATE driver SET gone = 1", "") != 1);
    OK(sql_run(l, e, "UPDATE cell SET state = 'planned', driver = NULL", "") != 1);
    ledger_close(&l);
}

/* The driver ends with the reason, its trainer with a checkpoint; another driver goes on there. */
static void test_taken_for_dead(void **state)
{
    (void)state;
    char *folder = strdup(new_sweep("dead"));
    DriverOptions o = options(folder);
    o.jobs = 1; /* so that it asks for no second cell before the trainer has begun */
    Study s = {.folder = folder};
    DriverCalls calls = {.self = &s, .progress = bury};
    Ledger *l = open_ledger(folder);
    Cell a = make_cell("a", NULL, CELL_POINT, "steps=300\nms=0.02");
    Err e = {0};
    add_cells(l, &a, 1);
    assert_int_equal(driver_run(l, &o, &calls, &e), DRIVER_ERROR);
    assert_has(e.message, "taken for dead");
    char *text = read_file(at("dead/log"), NULL);
    assert_has(text, "\nstop ");
    assert_null(strstr(text, "finish"));
    free(text);
    e = (Err){0};
    if (driver_run(l, &o, NULL, &e) != DRIVER_DONE) fail_msg("%s", e.message);
    assert_counts(l, 1, 0, 0);
    check_ledger(l);
    ledger_close(&l);
    free(folder);
}

/* ---- Folders ----------------------------------------------------------------------------------*/

/* A trainer that says it diverged and made no folder: the try counts, the driver goes on. */
static void test_diverged_without_folder(void **state)
{
    (void)state;
    char *folder = new_sweep("nofolder"), *program = strdup(at("diverges.sh"));
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    Cell a = make_cell("a", NULL, CELL_POINT, "");
    Err e = {0};
    write_file(program, "#!/bin/sh\necho too fast\nexit 4\n");
    assert_int_equal(chmod(program, 0755), 0);
    o.program = program;
    add_cells(l, &a, 1);
    if (driver_run(l, &o, NULL, &e) != DRIVER_DONE) fail_msg("%s", e.message);
    assert_counts(l, 0, 1, 0);
    assert_int_equal(cell_named(l, "a").tries, 2);
    assert_string_equal(cell_named(l, "a").reason, "too fast");
    ledger_close(&l);
    free(program);
}

/* A folder that cannot be moved aside is that cell's failure; others run. */
static void test_not_moved_aside(void **state)
{
    (void)state;
    char *folder = strdup(new_sweep("stays"));
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    Cell cells[] = {make_cell("a", NULL, CELL_POINT, "fake=diverge"),
                    make_cell("b", NULL, CELL_POINT, "")};
    Err e = {0};
    OK(io_make_dirs(at("stays/cells"), e));
    for (int i = 1; i < 1000; i++)
        write_file(at("stays/cells/%s.diverged-%d", cells[0].id, i), "");
    add_cells(l, cells, 2);
    if (driver_run(l, &o, NULL, &e) != DRIVER_DONE) fail_msg("%s", e.message);
    assert_counts(l, 1, 0, 1);
    assert_has(cell_named(l, "a").reason, "cannot be renamed to ");
    ledger_close(&l);
    free(folder);
}

/* ---- Numbers ----------------------------------------------------------------------------------*/

/* A line that is longer than there is room is cut. */
static void test_long_line(void **state)
{
    static const double rates[] = {3.2e9, 1e40, 1.7e308, INFINITY};
    char line[4096];
    (void)state;
    for (int i = 0; i < 4; i++) {
        DriverProgress p = {.mine = DRIVER_SHOWN, .flops_done = 1e300, .flops_left = -9.9e299,
                            .rate = rates[i], .eta = 1e300};
        for (int k = 0; k < CELL_STATES; k++) p.counts[k] = 2000000000 / CELL_STATES;
        for (int k = 0; k < DRIVER_SHOWN; k++) memset(p.names[k], 'a', CELL_NAME - 1);
        memset(line, 0, sizeof line);
        driver_progress_line(&p, line, sizeof line);
        assert_has(line, "285714285 of 1714285710 done, 285714285 running, ");
        assert_true(strlen(line) < 520);
        driver_progress_line(&p, line, 20);
        assert_string_equal(line, "285714285 of 171428");
    }
}

/* A sweep that is cancelled as a whole, though everything planned is done, asks for no more sizes:
 * not those that were worked out when the request came, and none later, until it is tried again. */
static void test_cancelled(void **state)
{
    (void)state;
    Study s = {.folder = new_sweep("cancelled"), .other = OTHER_CANCELS};
    DriverOptions o = options(s.folder);
    DriverCalls calls = {.self = &s, .more = more};
    Ledger *l = open_ledger(s.folder);
    Cell a = make_cell("a", NULL, CELL_POINT, "");
    Err e = {0};
    int n;
    add_cells(l, &a, 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(driver_run(l, &o, &calls, &e), DRIVER_DONE);
        assert_counts(l, 1, 0, 0);
        assert_int_equal(s.asked, 1);
    }
    OK(ledger_retry(l, "a", &n, e)); /* of one cell: nothing changes */
    assert_int_equal(driver_run(l, &o, &calls, &e), DRIVER_DONE);
    assert_counts(l, 1, 0, 0);
    OK(ledger_retry(l, NULL, &n, e));
    assert_int_equal(driver_run(l, &o, &calls, &e), DRIVER_DONE);
    assert_counts(l, 3, 0, 0);
    check_ledger(l);
    ledger_close(&l);
}

/* ---- Trainers that hang -----------------------------------------------------------------------*/

static int starts(const char *folder, const char *name)
{
    char path[PATH * 2];
    snprintf(path, sizeof path, "%s/cells/%s/starts", folder, id_of(name));
    char *text = read_file(path, NULL);
    int n = (int)strtol(text, NULL, 10);
    free(text);
    return n;
}

/* One that does nothing is ended, even if it ignores SIGTERM, and tried again; one that is slow and
 * shows it is left alone, and one that is not yet late by the time that its steps take. */
static void test_hanging(void **state)
{
    (void)state;
    char *folder = strdup(new_sweep("hanging"));
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    Cell cells[] = {make_cell("h", NULL, CELL_POINT, "fake=hang-once"),
                    make_cell("s", NULL, CELL_POINT, "fake=slow"),
                    make_cell("p", NULL, CELL_POINT, "fake=pause"),
                    make_cell("g", NULL, CELL_POINT, "fake=hang")};
    Err e = {0};
    o.jobs = 4;
    o.grace = 1;
    o.time_limit = 1.5;
    o.tries = (LedgerTries){2, 1, 0.5};
    cells[2].seconds = 10; /* 10 steps of a second: 20 s without a sign may pass */
    add_cells(l, cells, 4);
    alarm(4 * PATIENCE);
    assert_int_equal(driver_run(l, &o, NULL, &e), DRIVER_DONE);
    alarm(0);
    assert_counts(l, 3, 0, 1);
    LedgerCell c = cell_named(l, "h");
    assert_true(c.state == STATE_DONE && c.tries == 2);
    assert_int_equal(starts(folder, "h"), 2);
    assert_int_equal(ask(l, "SELECT count(*) FROM event WHERE now = 'failed' AND reason LIKE"
                            " 'no sign of progress for %'"), 3);
    assert_true(cell_named(l, "s").tries == 1 && cell_named(l, "p").tries == 1);
    c = cell_named(l, "g");
    assert_true(c.state == STATE_FAILED && c.tries == 2);
    assert_has(c.reason, "(sweep.time_limit");
    check_ledger(l);
    ledger_close(&l);
    free(folder);
}

/* Without a limit nothing is ended. */
static void test_no_limit(void **state)
{
    (void)state;
    char *folder = new_sweep("patient");
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    Cell cells[] = {make_cell("p", NULL, CELL_POINT, "fake=pause")};
    Err e = {0};
    o.time_limit = -1;
    add_cells(l, cells, 1);
    assert_int_equal(driver_run(l, &o, NULL, &e), DRIVER_DONE);
    assert_counts(l, 1, 0, 0);
    assert_int_equal(cell_named(l, "p").tries, 1);
    ledger_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planned_by_another), cmocka_unit_test(test_children),
        cmocka_unit_test(test_taken_for_dead),
        cmocka_unit_test(test_diverged_without_folder), cmocka_unit_test(test_not_moved_aside),
        cmocka_unit_test(test_long_line), cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_hanging), cmocka_unit_test(test_no_limit),
    };
    log_set_quiet(1);
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
