/* tests/test_ledger_faults.c - a ledger in a world that is not kind: a driver that is taken for
 * dead and is not, requests that come late, processes that are hidden, files of older and foreign
 * programs. */
#include "tests/sweep_help.h"

#include <sched.h>
#include <sys/mount.h>

#include "scaling/process.h"

static const LedgerTries three = {3, 1, 0.5};

static void join(Ledger *l)
{
    int first;
    OK(ledger_join(l, 2, &first, e));
}

static void take(Ledger *l, const char *name)
{
    LedgerCell c;
    double factor;
    bool found;
    OK(ledger_take(l, &c, &factor, &found, e));
    if (found != (name != NULL)) fail_msg("expected %s", name ? name : "nothing");
    if (name) assert_string_equal(c.cell.name, name);
}

/* A driver whose cells were taken back is told so, and gets none: they would run for ever. */
static void test_taken_for_dead(void **state)
{
    (void)state;
    char *folder = new_sweep("outlived");
    Ledger *l = open_ledger(folder), *other = open_ledger(folder);
    Cell cells[] = {make_cell("a", NULL, CELL_POINT, ""), make_cell("b", NULL, CELL_POINT, "")};
    int n;
    Err e = {0};
    LedgerCell c;
    double factor;
    bool found;
    add_cells(l, cells, 2);
    join(other);
    take(other, "a");
    join(l);
    OK(sql_run(l, e, "UPDATE driver SET pid_space = 'pid:[1]', beat_wall = beat_wall - 1e4,"
               " beat_monotonic = beat_monotonic - 1e4 WHERE id = 1", "") != 1);
    OK(ledger_beat(l, &n, e));
    assert_int_equal(n, 1);
    assert_int_equal(ledger_beat(other, &n, &e), -1);
    assert_has(e.message, "taken for dead");
    e = (Err){0};
    assert_int_equal(ledger_take(other, &c, &factor, &found, &e), -1);
    assert_has(e.message, "taken for dead");
    assert_false(found);
    assert_int_equal(ask(l, "SELECT count(*) FROM cell WHERE state = 'running'"), 0);
    OK(ledger_leave(other, e));
    join(other); /* as another driver it may go on */
    take(other, "a");
    OK(ledger_beat(other, &n, e));
    take(l, "b");
    check_ledger(l);
    ledger_close(&l);
    ledger_close(&other);
}

/* What was asked to be cancelled does not run again, however the try ends that was under way. */
static void test_request_stands(void **state)
{
    static const CellState ends[] = {STATE_PLANNED /* handed back */, STATE_FAILED, STATE_DIVERGED,
                                     STATE_PREEMPTED};
    (void)state;
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "request%d", i);
        Ledger *l = open_ledger(new_sweep(name));
        Cell cells[] = {make_cell("a", NULL, CELL_TRUNK, ""), make_cell("b", "a", CELL_POINT, "")};
        int n;
        CellState now = STATE_CANCELLED;
        add_cells(l, cells, 2);
        join(l);
        take(l, "a");
        OK(ledger_cancel(l, "a", &n, e));
        assert_int_equal(n, 2);
        if (ends[i] == STATE_PLANNED)
            OK(ledger_hand_back(l, id_of("a"), "its driver was stopped", e));
        else
            OK(ledger_end_try(l, id_of("a"), ends[i], "broken", &three, &now, e));
        assert_int_equal(now, STATE_CANCELLED);
        assert_state(l, "a", STATE_CANCELLED);
        assert_state(l, "b", STATE_CANCELLED);
        assert_has(cell_named(l, "a").reason, "cancelled on request");
        take(l, NULL);
        OK(ledger_retry(l, "b", &n, e)); /* the request is over then */
        assert_int_equal(n, 2);
        take(l, "a");
        OK(ledger_hand_back(l, id_of("a"), "its driver was stopped", e));
        assert_state(l, "a", STATE_PLANNED);
        check_ledger(l);
        ledger_close(&l);
    }
}

/* Each driver's cores are its own as long as it works, whoever left in between. */
static void test_cores(void **state)
{
    (void)state;
    char *folder = new_sweep("cores");
    Ledger *l[5];
    int first[5];
    for (int i = 0; i < 5; i++) l[i] = open_ledger(folder);
    OK(ledger_join(l[0], 2, &first[0], e));
    OK(ledger_join(l[1], 4, &first[1], e));
    OK(ledger_join(l[2], 1, &first[2], e));
    assert_true(first[0] == 0 && first[1] == 2 && first[2] == 6);
    OK(ledger_leave(l[0], e));
    OK(ledger_join(l[0], 3, &first[0], e)); /* 0, 1 are not enough */
    assert_int_equal(first[0], 7);
    OK(ledger_join(l[3], 2, &first[3], e));
    assert_int_equal(first[3], 0);
    OK(ledger_leave(l[1], e));
    OK(ledger_join(l[4], 3, &first[4], e));
    assert_int_equal(first[4], 2);
    for (int i = 0; i < 5; i++) ledger_close(&l[i]);
}

/* A ledger of version 1, made before cells had columns of their experts and (the oldest) drivers
 * their first core: read as it is; whoever writes makes it one of this version, and loses nothing.
 */
static void test_older_file(void **state)
{
    static const char *const columns[] = {"experts", "top_k", "granularity", "sparsity"};
    (void)state;
    char *folder = new_sweep("older"), sql[128];
    Ledger *l = open_ledger(folder);
    int first, n;
    Cell a = make_cell("a", NULL, CELL_POINT, "");
    CellResult good = {.loss = 3, .train_loss = 3, .tokens = 10, .flops = 20, .seconds = 1,
                       .b_noise = NAN, .steps = 7};
    RunTable t;
    LedgerCell *cells;
    add_cells(l, &a, 1);
    join(l);
    take(l, "a");
    OK(ledger_finish(l, a.id, 0, &good, e));
    OK(ledger_leave(l, e));
    OK(sql_run(l, e, "ALTER TABLE driver DROP COLUMN first", "") < 0);
    for (int i = 0; i < 4; i++) {
        snprintf(sql, sizeof sql, "ALTER TABLE cell DROP COLUMN %s", columns[i]);
        OK(sql_run(l, e, sql, "") < 0);
    }
    OK(sql_run(l, e, "PRAGMA user_version=1", "") < 0);
    ledger_close(&l);
    Err e = {0};
    for (int i = 0; i < 2; i++) { /* reading it changes nothing */
        l = ledger_open(folder, true, &e);
        if (!l || ledger_cells(l, &cells, &n, &e)) fail_msg("%s", e.message);
        assert_true(n == 1 && cells[0].result.loss == 3 && isnan(cells[0].cell.experts));
        free(cells);
        OK(ledger_runs(l, false, &t, e));
        assert_true(t.rows == 1 && !t.column[RUN_EXPERTS] && !t.column[RUN_SPARSITY]);
        run_table_clear(&t);
        assert_int_equal(ask(l, "PRAGMA user_version"), 1);
        ledger_close(&l);
    }
    for (int i = 0; i < 2; i++) {
        l = open_ledger(folder);
        assert_int_equal(ask(l, "PRAGMA user_version"), LEDGER_VERSION);
        assert_true(cell_named(l, "a").result.loss == 3);
        OK(ledger_join(l, 2, &first, e));
        assert_int_equal(first, 0);
        OK(ledger_leave(l, e));
        ledger_close(&l);
    }
    l = open_ledger(folder); /* planned again: what it lacks is filled in */
    a.experts = 16;
    a.top_k = 2;
    a.granularity = 3;
    a.sparsity = 0.875;
    add_cells(l, &a, 1);
    LedgerCell c = cell_named(l, "a");
    assert_true(c.cell.experts == 16 && c.cell.top_k == 2 && c.cell.granularity == 3);
    assert_true(c.cell.sparsity == 0.875 && c.state == STATE_DONE);
    a.experts = 17; /* what is known stands */
    add_cells(l, &a, 1);
    assert_true(cell_named(l, "a").cell.experts == 16);
    OK(ledger_runs(l, false, &t, e));
    assert_true(run_value(&t, RUN_EXPERTS, 0) == 16 && run_value(&t, RUN_GRANULARITY, 0) == 3);
    assert_true(run_value(&t, RUN_SPARSITY, 0) == 0.875);
    run_table_clear(&t);
    check_ledger(l);
    ledger_close(&l);
}

/* C_min by the law that is kept, at the measured loss; without one by what the run measured. */
static void test_c_min(void **state)
{
    (void)state;
    CriticalBatch law, kept = {2e3, 0.25}, none = {0};
    LedgerCell c = {.cell = make_cell("a", NULL, CELL_POINT, ""), .state = STATE_DONE};
    c.result = (CellResult){.loss = 2, .b_noise = 256};
    c.cell.batch = 4;
    c.cell.seq_len = 32;
    c.cell.C = 9e9;
    Ledger *l = open_ledger(new_sweep("critical"));
    OK(ledger_critical_get(l, &law, e));
    assert_true(law.b_star == 0);
    assert_true(fabs(ledger_c_min(&c, &law) / 6e9 - 1) < 1e-12); /* 1 + 128/256 */
    OK(ledger_critical_set(l, &kept, e));
    OK(ledger_critical_set(l, &none, e)); /* a study without one changes nothing */
    OK(ledger_critical_get(l, &law, e));
    assert_true(law.b_star == 2e3 && law.alpha == 0.25);
    /* B_crit = 2000 / 2^4 = 125: 9e9 / (1 + 128/125) */
    assert_true(fabs(ledger_c_min(&c, &law) / (9e9 * 125 / 253) - 1) < 1e-12);
    c.result.loss = 1; /* B_crit 2000 */
    assert_true(fabs(ledger_c_min(&c, &law) / (9e9 * 2000 / 2128) - 1) < 1e-12);
    c.result.b_noise = NAN;
    assert_true(isnan(ledger_c_min(&c, &none)));
    c.state = STATE_FAILED;
    assert_true(isnan(ledger_c_min(&c, &law)));
    ledger_close(&l);
}

/* ---- Processes --------------------------------------------------------------------------------*/

/* /proc hides others' processes from a user (hidepid): one that cannot be seen may live. Exit code:
 * the life of p, and 16 times that of no process; 255: no mount is allowed. */
static int life_from_outside(const ProcessId *p)
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        ProcessId none = *p;
        none.pid = 999999999;
        if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
            mount("proc", "/proc", "proc", MS_REMOUNT, "hidepid=2") || setgid(65534) ||
            setuid(65534))
            _exit(255);
        _exit((int)process_life(p) + 16 * (int)process_life(&none));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WEXITSTATUS(status);
}

static void test_hidden(void **state)
{
    (void)state;
    ProcessId self = process_self(), odd = self;
    assert_int_equal(process_life(&self), PROCESS_LIVES);
    static const int64_t numbers[] = {0, -1, 999999999, (int64_t)1 << 40, INT64_MIN};
    for (int i = 0; i < 5; i++) {
        odd.pid = numbers[i];
        assert_int_equal(process_life(&odd), PROCESS_GONE);
    }
    int seen = life_from_outside(&self);
    if (seen == 255) {
        print_message("no mount is allowed here: hidden processes are not tried\n");
        skip();
    }
    assert_int_equal(seen, (int)PROCESS_UNSEEN + 16 * (int)PROCESS_GONE);
}

/* ---- What foreign files hold ------------------------------------------------------------------*/

static void test_types(void **state)
{
    static const struct { const char *set, *text; } rows[] = {
        {"tries = 'abc'", "has 'abc' as tries"},
        {"tries = 5000000000", "has '5000000000' as tries"},
        {"seed = 1.5", "has '1.5' as seed"},
        {"N = 'many'", "has 'many' as N"},
        {"budget = x'3132'", "has '12' as budget"},
        {"overrides = x'6162'", "has 'ab' as overrides"},
        {"reason = x'6162'", "has 'ab' as reason"},
        {"kind = 'line'", "has 'line' as kind"},
        {"tries = 1, N = 5, budget = NULL, seed = '12'", NULL},
    };
    (void)state;
    for (int i = 0; i < (int)(sizeof rows / sizeof *rows); i++) {
        char name[32], sql[128];
        snprintf(name, sizeof name, "types%d", i);
        Ledger *l = open_ledger(new_sweep(name));
        Cell a = make_cell("a", NULL, CELL_POINT, "");
        LedgerCell *cells;
        int n;
        Err e = {0};
        add_cells(l, &a, 1);
        snprintf(sql, sizeof sql, "UPDATE cell SET %s", rows[i].set);
        OK(sql_run(l, e, sql, "") != 1);
        assert_int_equal(ledger_cells(l, &cells, &n, &e), rows[i].text ? -1 : 0);
        if (rows[i].text) {
            assert_has(e.message, "damaged: the cell '0000000000b1d000' has '");
            if (!strstr(e.message, rows[i].text)) fail_msg("%s: %s", rows[i].set, e.message);
        } else {
            assert_true(cells[0].tries == 1 && cells[0].cell.N == 5 && cells[0].cell.seed == 12);
            assert_true(isnan(cells[0].cell.budget));
        }
        free(cells);
        ledger_close(&l);
    }
}

/* A batch of more tokens than an integer holds is a number all the same. */
static void test_batch(void **state)
{
    (void)state;
    Ledger *l = open_ledger(new_sweep("batch"));
    Cell a = make_cell("a", NULL, CELL_POINT, "");
    CellResult good = {.loss = 3, .train_loss = 3, .tokens = 10, .flops = 20, .seconds = 1,
                       .b_noise = NAN, .steps = 7};
    RunTable t;
    a.batch = a.seq_len = (int64_t)1 << 62;
    add_cells(l, &a, 1);
    join(l);
    take(l, "a");
    OK(ledger_finish(l, a.id, 0, &good, e));
    OK(ledger_runs(l, false, &t, e));
    assert_true(run_value(&t, RUN_BATCH, 0) == 0x1p124);
    run_table_clear(&t);
    ledger_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_taken_for_dead), cmocka_unit_test(test_request_stands),
        cmocka_unit_test(test_cores),          cmocka_unit_test(test_older_file),
        cmocka_unit_test(test_hidden),         cmocka_unit_test(test_types),
        cmocka_unit_test(test_batch),          cmocka_unit_test(test_c_min),
    };
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
