/* tests/test_driver.c - sweeps run by drivers with a trainer of a few milliseconds
 * (tests/fake_trainer.sh): kills at random moments, two drivers, divergence, failure, signals. */
#include "tests/sweep_help.h"

#include <pthread.h>
#include <sys/prctl.h>

#include "base/log.h"
#include "base/philox.h"
#include "scaling/driver.h"

#define FAKE "tests/fake_trainer.sh"

/* A folder whose name lasts. */
static char *sweep(const char *name)
{
    static char path[PATH * 2];
    snprintf(path, sizeof path, "%s", new_sweep(name));
    return path;
}

/* ---- Running ----------------------------------------------------------------------------------*/

static DriverOptions options(const char *folder)
{
    return (DriverOptions){.folder = folder, .program = FAKE, .jobs = 3, .threads = 1, .grace = 5};
}

static int extra_pages; /* that the next driver's ledger may grow by; 0: any */

/* As the threads that a measurement leaves behind: it blocks no signal. */
static void *idle(void *nothing)
{
    for (;;) pause();
    return nothing;
}

/* A driver in a process of its own; its exit code is 10 + DriverEnd, its error goes to *.err. What
 * SQLite has open must not go through a fork: *l (or l NULL) is closed and opened around it. */
static pid_t start_driver(const char *folder, Ledger **l0, const DriverOptions *o)
{
    if (l0) ledger_close(l0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid && l0) *l0 = open_ledger(folder);
    if (pid) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* even if the test fails */
    Err e = {0};
    char path[PATH * 2];
    pthread_t thread;
    pthread_create(&thread, NULL, idle, NULL);
    Ledger *l = ledger_open(folder, false, &e);
    if (l && extra_pages) {
        snprintf(path, sizeof path, "PRAGMA max_page_count=%d",
                 (int)ask(l, "PRAGMA page_count") + extra_pages);
        ask(l, path);
    }
    DriverEnd end = l ? driver_run(l, o, NULL, &e) : DRIVER_ERROR;
    snprintf(path, sizeof path, "%s.err", folder);
    if (end == DRIVER_ERROR) io_write_atomic(path, e.message, strlen(e.message), NULL);
    if (l) ledger_close(&l);
    _exit(10 + end);
}

static int wait_driver(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) - 10 : 1000 + WTERMSIG(status);
}

static void run_to_end(const char *folder, Ledger **l, const DriverOptions *o)
{
    int end = wait_driver(start_driver(folder, l, o));
    if (end == DRIVER_DONE) return;
    char path[PATH * 2];
    snprintf(path, sizeof path, "%s.err", folder);
    fail_msg("driver ended with %d: %s", end, io_exists(path) ? read_file(path, NULL) : "");
}

/* Lines of the trainers' log that begin with `what` and are the cell `id`'s (or any). */
static int logged(const char *folder, const char *what, const char *id)
{
    char path[PATH * 2], mark[32], *save = NULL;
    int n = 0;
    snprintf(mark, sizeof mark, " %s", id ? id : "");
    snprintf(path, sizeof path, "%s/log", folder);
    if (!io_exists(path)) return 0;
    char *text = read_file(path, NULL);
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        n += !strncmp(line, what, strlen(what)) && strstr(line, mark) != NULL;
    free(text);
    return n;
}

/* Nothing ran twice at a time, before its parent, or to its end twice. */
static void check_log(const char *folder, Ledger *l)
{
    LedgerCell *cells;
    int n;
    assert_int_equal(logged(folder, "overlap", NULL), 0);
    assert_int_equal(logged(folder, "orphan", NULL), 0);
    assert_int_equal(logged(folder, "complete", NULL), 0);
    OK(ledger_cells(l, &cells, &n, e));
    for (int i = 0; i < n; i++) {
        int times = logged(folder, "finish", cells[i].cell.id);
        if (times != (cells[i].state == STATE_DONE))
            fail_msg("%s is %s and was finished %d times", cells[i].cell.name,
                     cell_state_name(cells[i].state), times);
    }
    free(cells);
}

static void check_counts(Ledger *l, int done, int diverged, int failed)
{
    int counts[CELL_STATES], n;
    LedgerCell *cells;
    OK(ledger_counts(l, counts, e));
    OK(ledger_cells(l, &cells, &n, e));
    for (int i = 0; i < n && counts[STATE_DONE] != done; i++)
        if (cells[i].state != STATE_DONE)
            print_message("%s is %s after %d tries: %s\n", cells[i].cell.name,
                          cell_state_name(cells[i].state), cells[i].tries, cells[i].reason);
    free(cells);
    assert_int_equal(counts[STATE_DONE], done);
    assert_int_equal(counts[STATE_DIVERGED], diverged);
    assert_int_equal(counts[STATE_FAILED], failed);
    assert_int_equal(counts[STATE_PLANNED] + counts[STATE_RUNNING], 0);
}

/* ---- One driver -------------------------------------------------------------------------------*/

static void test_all(void **state)
{
    (void)state;
    char *folder = sweep("all");
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    add_thirty(l, NULL);
    run_to_end(folder, &l, &o);
    check_counts(l, 30, 0, 0);
    check_ledger(l);
    check_log(folder, l);
    LedgerCell c = cell_named(l, "3q");
    assert_true(c.result.loss == 3.5 && c.result.flops == 2e9 && c.result.tokens == 1280);
    assert_true(c.result.train_loss == 3.25 && c.result.seconds == 0.5 && c.result.steps == 2);
    assert_true(isnan(c.result.b_noise) && c.tries == 1 && c.lr_factor == 1 && !c.reason[0]);
    assert_true(c.started > 1e9 && c.ended >= c.started);
    char line[200];
    snprintf(line, sizeof line, "start %s lr= from=%s", id_of("3q"), id_of("3t"));
    assert_int_equal(logged(folder, line, NULL), 1);
    ledger_close(&l);
}

static void test_bad_cells(void **state)
{
    (void)state;
    char *folder = sweep("bad");
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    Cell cells[] = {
        make_cell("t", NULL, CELL_TRUNK, "fake=diverge\nsteps=1"),
        make_cell("tp", "t", CELL_POINT, "fake=ok"),
        make_cell("w", NULL, CELL_TRUNK, "fake=wreck"),
        make_cell("wp", "w", CELL_POINT, "fake=ok"),
        make_cell("wq", "wp", CELL_POINT, "fake=ok"),
        make_cell("u", NULL, CELL_TRUNK, "fake=ok"),
        make_cell("up", "u", CELL_POINT, "optim.lr=0.01\nfake=diverge\ntrain.out=elsewhere"),
        make_cell("f", NULL, CELL_POINT, "fake=fail"),
        make_cell("g", NULL, CELL_POINT, "fake=fail-once"),
        make_cell("m", NULL, CELL_POINT, "fake=mute"),
        make_cell("p", NULL, CELL_POINT, "fake=preempt-once"),
        make_cell("s", NULL, CELL_POINT, "fake=stranger"),
        make_cell("x", NULL, CELL_POINT, ""),
        make_cell("n", NULL, CELL_POINT, "fake=nan"),
    };
    cells[12].D = 1281;
    add_cells(l, cells, sizeof cells / sizeof *cells);
    run_to_end(folder, &l, &o);
    check_ledger(l);
    LedgerCell c = cell_named(l, "t");
    char line[200];
    assert_true(c.state == STATE_DONE && c.lr_factor == 0.5 && c.tries == 2);
    assert_int_equal(ask(l, "SELECT count(*) FROM event WHERE now = 'diverged' AND reason ="
                            " 'too fast' AND lr_factor = 1"), 3);
    snprintf(line, sizeof line, "finish %s@0.5 lr=0.0050000000000000001 from=", c.cell.id);
    assert_int_equal(logged(folder, line, NULL), 1);
    assert_true(io_exists(at("bad/cells/%s.diverged-1/result.json", c.cell.id)));
    c = cell_named(l, "tp"); /* at its trunk's rate, from its trunk */
    assert_true(c.state == STATE_DONE && c.lr_factor == 0.5 && c.tries == 1);
    snprintf(line, sizeof line, "finish %s@0.5 lr=0.0050000000000000001 from=%s", c.cell.id,
             id_of("t"));
    assert_int_equal(logged(folder, line, NULL), 1);
    c = cell_named(l, "up"); /* at a lower one than its trunk's: alone */
    assert_true(c.state == STATE_DONE && c.lr_factor == 0.5 && c.tries == 2);
    snprintf(line, sizeof line, "start %s lr=0.01 from=%s", c.cell.id, id_of("u"));
    assert_int_equal(logged(folder, line, NULL), 1);
    snprintf(line, sizeof line, "finish %s@0.5 lr=0.0050000000000000001 from=", c.cell.id);
    assert_int_equal(logged(folder, line, NULL), 1);
    snprintf(line, sizeof line, "finish %s@0.5 lr=0.0050000000000000001 from=%s", c.cell.id,
             id_of("u"));
    assert_int_equal(logged(folder, line, NULL), 0);
    c = cell_named(l, "w");
    assert_true(c.state == STATE_DIVERGED && c.tries == 2);
    c = cell_named(l, "wq");
    assert_int_equal(c.state, STATE_FAILED);
    assert_string_equal(c.reason, "what it starts from, w, diverged: too fast");
    assert_int_equal(logged(folder, "start", id_of("wp")), 0);
    c = cell_named(l, "f");
    assert_true(c.state == STATE_FAILED && c.tries == 3);
    assert_string_equal(c.reason, "exit code 1: first line | error: broken on purpose");
    assert_true(cell_named(l, "g").tries == 2 && cell_named(l, "n").tries == 2);
    assert_has(cell_named(l, "m").reason, "ended with code 0, but wrote no result.json");
    assert_int_equal(logged(folder, "start", id_of("m")), 3);
    c = cell_named(l, "p");
    assert_true(c.state == STATE_DONE && c.tries == 2);
    c = cell_named(l, "s");
    assert_true(c.state == STATE_FAILED && c.tries == 1);
    assert_has(c.reason, "result.json is of another run ('ffffffffffffffff', not '");
    c = cell_named(l, "x");
    assert_true(c.state == STATE_FAILED && c.tries == 1 && isnan(c.result.loss));
    assert_string_equal(c.reason, "trained on 1280 tokens, 1281 were planned");
    assert_true(cell_named(l, "n").lr_factor == 0.5); /* diverged, not failed */
    assert_int_equal(ask(l, "SELECT count(*) FROM event WHERE reason LIKE '%not finite'"), 2);
    ledger_close(&l);
}

/* ---- Kills ------------------------------------------------------------------------------------*/

/* One sweep of 30 cells, its driver killed after random times until it is through; kills made. In
 * every second one another driver works beside it. */
static int kill_sweep(int number, int most)
{
    char name[32];
    PhiloxKey key = {.seed = 20, .purpose = RNG_TEST, .stream = (uint32_t)number};
    static const char *const kinds[30] = {[6] = "fake=diverge", [12] = "steps=8",
                                          [15] = "fake=fail-once", [29] = "steps=5"};
    snprintf(name, sizeof name, "kill%d", number);
    char *folder = strdup(new_sweep(name));
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    add_thirty(l, kinds);
    ledger_close(&l);
    int kills = 0, end = -1;
    pid_t beside = number % 2 ? start_driver(folder, NULL, &o) : 0; /* that no one kills */
    for (uint64_t i = 0; kills < most; i++) {
        pid_t pid = start_driver(folder, NULL, &o);
        usleep((useconds_t)(4000 + 90000 * philox_uniform(&key, i)));
        int status = 0;
        if (waitpid(pid, &status, WNOHANG) == pid) {
            end = WEXITSTATUS(status) - 10;
            break;
        }
        kill(pid, SIGKILL);
        kills += wait_driver(pid) == 1000 + SIGKILL;
    }
    if (beside) assert_int_equal(wait_driver(beside), DRIVER_DONE);
    if (end != DRIVER_DONE) run_to_end(folder, NULL, &o);
    l = open_ledger(folder);
    check_counts(l, 30, 0, 0);
    check_ledger(l);
    check_log(folder, l);
    ledger_close(&l);
    io_remove_tree(folder, NULL);
    free(folder);
    return kills;
}

static void test_killed(void **state)
{
    (void)state;
    int want = getenv("ISOMOE_LONG") ? 200 : getenv("ISOMOE_FAST") ? 6 : 20, kills = 0;
    for (int i = 0; kills < want; i++) {
        int more = kill_sweep(i, want - kills);
        assert_true(more > 0);
        kills += more;
    }
    print_message("%d kills\n", kills);
}

/* ---- Signals ----------------------------------------------------------------------------------*/

/* Until the trainers' log has n lines that begin with `what`. */
static void wait_logged(const char *folder, const char *what, int n)
{
    for (int i = 0; i < 5000 && logged(folder, what, NULL) < n; i++) usleep(2000);
    assert_true(logged(folder, what, NULL) >= n);
}

static void test_stopped(void **state)
{
    (void)state;
    char *folder = sweep("stopped");
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    Cell cells[] = {make_cell("a", NULL, CELL_POINT, "steps=50\nms=0.02"),
                    make_cell("b", NULL, CELL_POINT, "steps=50\nms=0.02"),
                    make_cell("c", NULL, CELL_POINT, "steps=5\nfake=preempt-once")};
    add_cells(l, cells, 3);
    pid_t pid = start_driver(folder, &l, &o);
    wait_logged(folder, "start", 4); /* c twice */
    kill(pid, SIGTERM);
    assert_int_equal(wait_driver(pid), DRIVER_STOPPED);
    assert_int_equal(logged(folder, "stop", id_of("a")), 1);
    assert_state(l, "a", STATE_PLANNED);
    assert_int_equal(cell_named(l, "a").tries, 0);
    assert_int_equal(ask(l, "SELECT count(*) FROM event WHERE now = 'preempted' AND reason ="
                            " 'its driver was stopped'"), 2 + (cell_named(l, "c").tries < 2));
    run_to_end(folder, &l, &o);
    check_counts(l, 3, 0, 0);
    check_ledger(l);
    check_log(folder, l);
    ledger_close(&l);
}

/* One that does not heed SIGTERM is killed: after a time, or at the second signal. */
static void test_stubborn(void **state)
{
    (void)state;
    for (int second = 0; second < 2; second++) {
        char *folder = sweep(second ? "stubborn2" : "stubborn");
        DriverOptions o = options(folder);
        o.grace = second ? 60 : 0.2;
        Ledger *l = open_ledger(folder);
        Cell a = make_cell("a", NULL, CELL_POINT, "fake=stubborn\nsteps=2000\nms=0.02");
        add_cells(l, &a, 1);
        pid_t pid = start_driver(folder, &l, &o);
        wait_logged(folder, "start", 1);
        double began = log_seconds();
        kill(pid, SIGINT);
        usleep(50000);
        assert_state(l, "a", STATE_RUNNING);
        if (second) kill(pid, SIGINT);
        assert_int_equal(wait_driver(pid), DRIVER_STOPPED);
        assert_true(log_seconds() - began < 10);
        assert_state(l, "a", STATE_PLANNED);
        assert_int_equal(logged(folder, "finish", NULL), 0);
        ledger_close(&l);
    }
}

/* A trainer that outlives its driver is waited for, not doubled; its result is taken in. */
static void test_orphan(void **state)
{
    (void)state;
    char *folder = sweep("orphan");
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    Cell cells[] = {make_cell("a", NULL, CELL_TRUNK, "fake=stubborn\nsteps=25\nms=0.02"),
                    make_cell("b", "a", CELL_POINT, "")};
    add_cells(l, cells, 2);
    pid_t pid = start_driver(folder, &l, &o);
    wait_logged(folder, "start", 1);
    kill(pid, SIGKILL);
    wait_driver(pid);
    run_to_end(folder, &l, &o);
    assert_int_equal(logged(folder, "start", id_of("a")), 1);
    check_counts(l, 2, 0, 0);
    check_ledger(l);
    check_log(folder, l);
    ledger_close(&l);
}

/* One that heeds it ends with its driver, by a checkpoint. */
static void test_dies_with_driver(void **state)
{
    (void)state;
    char *folder = sweep("dies");
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    Cell a = make_cell("a", NULL, CELL_POINT, "steps=1000\nms=0.02");
    add_cells(l, &a, 1);
    pid_t pid = start_driver(folder, &l, &o);
    wait_logged(folder, "start", 1);
    kill(pid, SIGKILL);
    wait_driver(pid);
    wait_logged(folder, "stop", 1);
    ledger_close(&l);
}

static void test_cancelled(void **state)
{
    (void)state;
    char *folder = sweep("cancelled");
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    Cell cells[] = {make_cell("a", NULL, CELL_TRUNK, "steps=1000\nms=0.02"),
                    make_cell("b", "a", CELL_POINT, ""), make_cell("c", NULL, CELL_POINT, "")};
    int n;
    add_cells(l, cells, 3);
    pid_t pid = start_driver(folder, &l, &o);
    wait_logged(folder, "start", 1);
    OK(ledger_cancel(l, "a", &n, e));
    assert_int_equal(wait_driver(pid), DRIVER_DONE);
    assert_state(l, "a", STATE_CANCELLED);
    assert_state(l, "b", STATE_CANCELLED);
    assert_state(l, "c", STATE_DONE);
    assert_int_equal(logged(folder, "stop", id_of("a")), 1);
    check_ledger(l);
    ledger_close(&l);
}

/* ---- Several drivers, other starts ------------------------------------------------------------*/

static void test_two(void **state)
{
    (void)state;
    char *folder = sweep("two");
    DriverOptions o = options(folder);
    o.jobs = 2;
    Ledger *l = open_ledger(folder);
    static const char *const kinds[30] = {[3] = "fake=fail-once", [8] = "fake=diverge"};
    add_thirty(l, kinds);
    pid_t a = start_driver(folder, &l, &o), b = start_driver(folder, &l, &o);
    assert_int_equal(wait_driver(a), DRIVER_DONE);
    assert_int_equal(wait_driver(b), DRIVER_DONE);
    check_counts(l, 30, 0, 0);
    check_ledger(l);
    check_log(folder, l);
    assert_true(ask(l, "SELECT count(*) FROM event WHERE now = 'done' AND driver = 1") > 4);
    assert_true(ask(l, "SELECT count(*) FROM event WHERE now = 'done' AND driver = 2") > 4);
    ledger_close(&l);
}

/* A folder that is complete is taken in; its trainer is not started. */
static void test_taken_in(void **state)
{
    (void)state;
    char *folder = sweep("taken");
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    static const char *const kinds[30] = {[7] = "fake=diverge"};
    add_thirty(l, kinds);
    run_to_end(folder, &l, &o);
    ledger_close(&l);
    int starts = logged(folder, "start", NULL);
    unlink(at("taken/ledger.sqlite"));
    write_file(at("taken/cells/%s/result.json", id_of("2s")), "{\"format\": \"isomoe-re");
    l = open_ledger(folder);
    add_thirty(l, kinds);
    run_to_end(folder, &l, &o);
    check_counts(l, 29, 0, 1);
    assert_true(cell_named(l, "1u").lr_factor == 0.5); /* tells what rate it was done at */
    assert_true(cell_named(l, "1r").lr_factor == 0.5);
    assert_has(cell_named(l, "2s").reason, "result.json: is no result of a run: it is no JSON");
    assert_int_equal(logged(folder, "start", NULL), starts);
    assert_int_equal(logged(folder, "complete", NULL), 0);
    ledger_close(&l);
}

/* What cannot be started is one mistake of the whole sweep, not a failure of every cell. */
static void test_no_program(void **state)
{
    (void)state;
    char *folder = sweep("program");
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    Err e = {0};
    o.program = "tests/no_such_trainer";
    add_thirty(l, NULL);
    assert_int_equal(driver_run(l, &o, NULL, &e), DRIVER_ERROR);
    assert_has(e.message, "tests/no_such_trainer: cannot be started");
    int counts[CELL_STATES];
    OK(ledger_counts(l, counts, e));
    assert_int_equal(counts[STATE_PLANNED], 30);
    check_ledger(l);
    ledger_close(&l);
}

/* A ledger that cannot grow: the driver ends with the reason, its trainers too; with room another
 * driver goes on. */
static void test_full(void **state)
{
    (void)state;
    char *folder = sweep("full");
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    add_thirty(l, NULL);
    extra_pages = 1;
    pid_t pid = start_driver(folder, &l, &o);
    extra_pages = 0;
    assert_int_equal(wait_driver(pid), DRIVER_ERROR);
    char *words = read_file(at("full.err"), NULL);
    assert_has(words, "hint: the disk is full");
    free(words);
    run_to_end(folder, &l, &o);
    check_counts(l, 30, 0, 0);
    check_ledger(l);
    check_log(folder, l);
    ledger_close(&l);
}

/* ---- What a study asks for, what people see ---------------------------------------------------*/

typedef struct Seen {
    int asked, shown, events;
    double last_eta, rate;
    char line[400];
} Seen;

/* Two more cells, twice. */
static int more(void *self, const LedgerCell *have, int n, CellList *out, Err *e)
{
    Seen *seen = self;
    (void)e;
    for (int i = 0; i < n; i++) assert_int_equal(have[i].state, STATE_DONE);
    assert_int_equal(n, 1 + 2 * seen->asked);
    if (seen->asked++ == 2) return 0;
    out->cell = calloc(2, sizeof *out->cell);
    out->count = out->room = 2;
    out->cell[0] = make_cell(seen->asked == 1 ? "b" : "d", "a", CELL_POINT, "");
    out->cell[1] = make_cell(seen->asked == 1 ? "c" : "e", NULL, CELL_POINT, "");
    return 0;
}

static void progress(void *self, const DriverProgress *p)
{
    Seen *seen = self;
    seen->shown++;
    seen->events += p->event != NULL;
    if (p->event && strstr(p->event, "runs") && p->counts[STATE_DONE]) {
        seen->last_eta = p->eta;
        seen->rate = p->rate / p->counts[STATE_RUNNING];
    }
    driver_progress_line(p, seen->line, sizeof seen->line);
}

static void test_more(void **state)
{
    (void)state;
    char *folder = sweep("more");
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    Seen seen = {0};
    Cell a = make_cell("a", NULL, CELL_TRUNK, "");
    DriverCalls calls = {&seen, more, progress};
    Err e = {0};
    add_cells(l, &a, 1);
    assert_int_equal(driver_run(l, &o, &calls, &e), DRIVER_DONE);
    assert_int_equal(seen.asked, 3);
    check_counts(l, 5, 0, 0);
    assert_int_equal(seen.events, 10); /* each runs and is done */
    assert_true(seen.rate == 4e9);     /* 2e9 FLOPs in 0.5 s each */
    assert_true(seen.last_eta > 0.05 && seen.last_eta <= 1.25); /* 5e9 each */
    assert_string_equal(seen.line, "5 of 5 done, 0 running; 100 %, 4.0 GFLOP/s, 0 s left");
    ledger_close(&l);
}

/* The callback's failure ends the run with its words. */
static int no_more(void *self, const LedgerCell *have, int n, CellList *out, Err *e)
{
    (void)self, (void)have, (void)n, (void)out;
    return err_set(e, "no plan");
}

static void test_more_fails(void **state)
{
    (void)state;
    char *folder = sweep("nomore");
    DriverOptions o = options(folder);
    Ledger *l = open_ledger(folder);
    DriverCalls calls = {.more = no_more};
    Err e = {0};
    assert_int_equal(driver_run(l, &o, &calls, &e), DRIVER_ERROR);
    assert_string_equal(e.message, "no plan");
    ledger_close(&l);
}

static void test_line(void **state)
{
    (void)state;
    char line[300];
    DriverProgress p = {.counts = {[STATE_DONE] = 12, [STATE_RUNNING] = 2, [STATE_FAILED] = 1,
                                   [STATE_PLANNED] = 15, [STATE_CANCELLED] = 4},
                        .mine = 1, .names = {"C1e12-d64"}, .flops_done = 41, .flops_left = 59,
                        .rate = 3.2e9, .eta = 725};
    driver_progress_line(&p, line, sizeof line);
    assert_string_equal(line, "12 of 30 done, 2 running, 1 failed; 41 %, 3.2 GFLOP/s, 12 min left: "
                              "C1e12-d64");
    p.rate = p.eta = NAN;
    p.mine = 0;
    driver_progress_line(&p, line, sizeof line);
    assert_string_equal(line, "12 of 30 done, 2 running, 1 failed; 41 %, time not known");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all),        cmocka_unit_test(test_bad_cells),
        cmocka_unit_test(test_killed),     cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_stubborn),   cmocka_unit_test(test_orphan),
        cmocka_unit_test(test_dies_with_driver),
        cmocka_unit_test(test_cancelled),  cmocka_unit_test(test_two),
        cmocka_unit_test(test_taken_in),   cmocka_unit_test(test_no_program),
        cmocka_unit_test(test_full),       cmocka_unit_test(test_more),
        cmocka_unit_test(test_more_fails), cmocka_unit_test(test_line),
    };
    log_set_quiet(1);
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
