/* tests/test_ledger.c - the record of a sweep: ways between states, tries, leases of drivers that
 * die or live, and files that are locked, full, foreign, another host's or damaged. */
#include "tests/sweep_help.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/vfs.h>

#include "base/philox.h"
#include "scaling/process.h"

static const LedgerTries three = {3, 1, 0.5};

static LedgerCell take(Ledger *l, const char *name)
{
    LedgerCell c;
    double factor;
    bool found;
    OK(ledger_take(l, &c, &factor, &found, e));
    if (!found != !name) fail_msg("expected %s", name ? name : "nothing");
    if (name) assert_string_equal(c.cell.name, name);
    return c;
}

static void join(Ledger *l)
{
    int first;
    OK(ledger_join(l, 2, &first, e));
}

static const CellResult good = {.loss = 3, .train_loss = 3.1, .tokens = 10, .flops = 20,
                                .seconds = 1, .b_noise = 5e3, .steps = 7};

static void finish(Ledger *l, const char *name) { OK(ledger_finish(l, id_of(name), 0, &good, e)); }

static CellState end(Ledger *l, const char *name, CellState how, const char *why)
{
    CellState now;
    OK(ledger_end_try(l, id_of(name), how, why, &three, &now, e));
    return now;
}

/* ---- Cells ------------------------------------------------------------------------------------*/

static void test_add(void **state)
{
    (void)state;
    char *folder = new_sweep("add");
    Ledger *l = open_ledger(folder);
    Cell a = make_cell("a", NULL, CELL_TRUNK, "x=1\ny=2"), b = make_cell("b", "a", CELL_POINT, ""),
         c = make_cell("c", NULL, CELL_CHECK, "");
    snprintf(c.left_out, sizeof c.left_out, "needs 3.1 GiB");
    b.seconds = 12.5;
    int added;
    CellList list = {(Cell[]){a, b}, 2, 2};
    OK(ledger_add(l, &list, &added, e));
    assert_int_equal(added, 2);
    list = (CellList){(Cell[]){a, b, c}, 3, 3};
    OK(ledger_add(l, &list, &added, e));
    assert_int_equal(added, 1);
    ledger_close(&l);
    l = open_ledger(folder);
    LedgerCell *cells;
    int n;
    OK(ledger_cells(l, &cells, &n, e));
    assert_int_equal(n, 3);
    Cell want[] = {a, b, c};
    for (int i = 0; i < 3; i++) {
        const Cell *x = &cells[i].cell, *y = &want[i];
        assert_string_equal(x->id, y->id);
        assert_string_equal(x->name, y->name);
        assert_string_equal(x->parent, y->parent);
        assert_string_equal(x->overrides, y->overrides);
        assert_true(x->kind == y->kind && x->budget == y->budget && x->steps == y->steps);
        assert_true(x->batch == y->batch && x->seq_len == y->seq_len && x->seed == y->seed);
        assert_true(x->N == y->N && x->N_no_embed == y->N_no_embed && x->N_total == y->N_total);
        assert_true(x->D == y->D && x->C == y->C && x->own_flops == y->own_flops);
        assert_true(x->lr == y->lr && x->lr_law_ratio == 1.25 && x->batch_law_ratio == 0.8);
        assert_true(x->memory == y->memory && isnan(x->seconds) == isnan(y->seconds));
        assert_true(isnan(cells[i].result.loss) && cells[i].lr_factor == 1 && !cells[i].tries);
    }
    assert_true(cells[1].cell.seconds == 12.5);
    assert_true(cells[0].state == STATE_PLANNED && cells[2].state == STATE_CANCELLED);
    assert_string_equal(cells[2].reason, "left out: needs 3.1 GiB");
    free(cells);
    check_ledger(l);
    ledger_close(&l);
}

/* A list is added whole or not at all. */
static void test_add_refused(void **state)
{
    (void)state;
    Err e = {0};
    Ledger *l = open_ledger(new_sweep("refused"));
    Cell a = make_cell("a", NULL, CELL_POINT, ""), twin = a,
         lost = make_cell("b", "z", CELL_POINT, "");
    twin.id[0] = 'f';
    CellList list = {(Cell[]){a, twin}, 2, 2};
    assert_int_equal(ledger_add(l, &list, NULL, &e), -1);
    assert_has(e.message, "the name 'a' is taken by another cell\nhint: the study has changed");
    list = (CellList){(Cell[]){a, lost}, 2, 2};
    assert_int_equal(ledger_add(l, &list, NULL, &e), -1);
    assert_has(e.message, "the cell 'b' starts from ");
    assert_int_equal(ask(l, "SELECT count(*) FROM cell"), 0);
    assert_int_equal(ask(l, "SELECT count(*) FROM event"), 0);
    ledger_close(&l);
}

static void test_notes(void **state)
{
    (void)state;
    Ledger *l = open_ledger(new_sweep("notes"));
    char *text;
    OK(ledger_note_get(l, "study", &text, e));
    assert_null(text);
    OK(ledger_note_set(l, "study", "one", e));
    OK(ledger_note_set(l, "study", "two", e));
    OK(ledger_note_get(l, "study", &text, e));
    assert_string_equal(text, "two");
    free(text);
    ledger_close(&l);
}

/* ---- Ways -------------------------------------------------------------------------------------*/

static void test_order(void **state)
{
    (void)state;
    Ledger *l = open_ledger(new_sweep("order"));
    Cell cells[] = {make_cell("a", NULL, CELL_TRUNK, ""), make_cell("b", "a", CELL_POINT, ""),
                    make_cell("c", NULL, CELL_POINT, "")};
    add_cells(l, cells, 3);
    join(l);
    take(l, "a");
    take(l, "c"); /* b's parent is not done */
    take(l, NULL);
    finish(l, "a");
    LedgerCell b = take(l, "b");
    assert_true(b.state == STATE_RUNNING && b.started > 1e9 && b.ended == 0);
    finish(l, "b");
    Err e = {0};
    assert_int_equal(ledger_finish(l, id_of("b"), 0, &good, &e), -1);
    assert_has(e.message, "is not held by this driver");
    CellState now;
    assert_int_equal(ledger_end_try(l, id_of("b"), STATE_FAILED, "", &three, &now, &e), -1);
    b = cell_named(l, "b");
    assert_true(b.state == STATE_DONE && b.result.loss == 3 && b.result.b_noise == 5e3);
    assert_true(b.result.steps == 7 && b.tries == 1 && b.ended >= b.started);
    finish(l, "c");
    check_ledger(l);
    /* The file itself refuses what is no way, and to forget. */
    assert_int_equal(sql_run(l, &e, "UPDATE cell SET state = 'planned' WHERE name = 'b'", ""), -1);
    assert_has(e.message, "a cell does not go from this state to that one");
    assert_int_equal(sql_run(l, &e, "DELETE FROM event", ""), -1);
    assert_int_equal(sql_run(l, &e, "UPDATE event SET time = 0", ""), -1);
    assert_int_equal(sql_run(l, &e, "DELETE FROM cell", ""), -1);
    ledger_close(&l);
}

static void test_tries(void **state)
{
    (void)state;
    Ledger *l = open_ledger(new_sweep("tries"));
    Cell cells[] = {make_cell("a", NULL, CELL_TRUNK, ""), make_cell("b", "a", CELL_POINT, ""),
                    make_cell("c", "b", CELL_POINT, "")};
    add_cells(l, cells, 3);
    join(l);
    take(l, "a");
    assert_int_equal(end(l, "a", STATE_FAILED, "one"), STATE_PLANNED);
    assert_string_equal(cell_named(l, "a").reason, "one");
    take(l, "a");
    assert_int_equal(end(l, "a", STATE_DIVERGED, "two"), STATE_PLANNED);
    LedgerCell a = take(l, "a");
    assert_true(a.lr_factor == 0.5 && a.tries == 2);
    assert_int_equal(end(l, "a", STATE_PREEMPTED, "three"), STATE_PLANNED);
    take(l, "a");
    OK(ledger_hand_back(l, id_of("a"), "driver stops", e)); /* no try */
    assert_int_equal(cell_named(l, "a").tries, 3);
    take(l, "a");
    assert_int_equal(end(l, "a", STATE_FAILED, "four"), STATE_FAILED); /* 3 beside the divergence */
    assert_state(l, "b", STATE_FAILED);
    assert_string_equal(cell_named(l, "c").reason, "what it starts from, a, failed: four");
    int n;
    OK(ledger_retry(l, "c", &n, e)); /* takes its parents along */
    assert_int_equal(n, 3);
    assert_true(cell_named(l, "a").lr_factor == 0.5 && cell_named(l, "a").tries == 0);
    take(l, "a");
    assert_int_equal(end(l, "a", STATE_DIVERGED, "five"), STATE_PLANNED);
    take(l, "a");
    assert_int_equal(end(l, "a", STATE_DIVERGED, "six"), STATE_DIVERGED);
    assert_true(cell_named(l, "a").lr_factor == 0.25);
    OK(ledger_retry(l, NULL, &n, e));
    assert_int_equal(n, 3);
    a = take(l, "a");
    assert_true(a.lr_factor == 0.125);
    finish(l, "a");
    assert_true(take(l, "b").lr_factor == 0.125); /* at least as low as its parent's */
    check_ledger(l);
    ledger_close(&l);
}

static void test_cancel(void **state)
{
    (void)state;
    Ledger *l = open_ledger(new_sweep("cancel"));
    Cell cells[] = {make_cell("a", NULL, CELL_TRUNK, ""), make_cell("b", "a", CELL_POINT, ""),
                    make_cell("c", NULL, CELL_POINT, ""), make_cell("d", NULL, CELL_POINT, "")};
    snprintf(cells[3].left_out, sizeof cells[3].left_out, "too large");
    add_cells(l, cells, 4);
    int n;
    Err e = {0};
    assert_int_equal(ledger_cancel(l, "z", &n, &e), -1);
    assert_has(e.message, "there is no cell 'z'");
    OK(ledger_cancel(l, id_of("a"), &n, e));
    assert_int_equal(n, 2);
    assert_state(l, "b", STATE_CANCELLED);
    OK(ledger_retry(l, "a", &n, e)); /* and what went with it */
    assert_int_equal(n, 2);
    join(l);
    take(l, "a");
    OK(ledger_cancel(l, NULL, &n, e));
    assert_int_equal(n, 3);
    char (*ids)[17];
    OK(ledger_requests(l, &ids, &n, e));
    assert_int_equal(n, 1);
    assert_string_equal(ids[0], id_of("a"));
    free(ids);
    assert_state(l, "a", STATE_RUNNING);
    assert_int_equal(end(l, "a", STATE_CANCELLED, "cancelled on request"), STATE_CANCELLED);
    OK(ledger_requests(l, &ids, &n, e));
    assert_int_equal(n, 0);
    OK(ledger_retry(l, NULL, &n, e));
    assert_int_equal(n, 3);
    assert_state(l, "d", STATE_CANCELLED); /* left out */
    check_ledger(l);
    ledger_close(&l);
}

/* ---- Drivers ----------------------------------------------------------------------------------*/

/* A driver in a process of its own that takes a cell and waits. */
static pid_t start_holder(const char *folder)
{
    char ready[PATH * 2];
    snprintf(ready, sizeof ready, "%s/ready", folder);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* even if the test fails */
        int first;
        LedgerCell c;
        double factor;
        bool found;
        Ledger *l = ledger_open(folder, false, NULL);
        if (!l || ledger_join(l, 2, &first, NULL) || ledger_take(l, &c, &factor, &found, NULL))
            _exit(1);
        close(open(ready, O_CREAT | O_WRONLY, 0666));
        for (;;) pause();
    }
    while (!io_exists(ready)) usleep(1000);
    unlink(ready);
    return pid;
}

static void test_leases(void **state)
{
    (void)state;
    char *folder = new_sweep("leases");
    Ledger *l = open_ledger(folder);
    Cell cells[] = {make_cell("a", NULL, CELL_POINT, ""), make_cell("b", NULL, CELL_POINT, "")};
    int first, n;
    add_cells(l, cells, 2);
    ledger_close(&l); /* what SQLite has open must not go through a fork */
    pid_t pid = start_holder(folder);
    l = open_ledger(folder);
    OK(ledger_join(l, 4, &first, e));
    assert_int_equal(first, 2); /* the other one's cores */
    kill(pid, SIGSTOP); /* it lives, however long its heart is still */
    assert_int_equal(sql_run(l, NULL, "UPDATE driver SET beat_wall = 0, beat_monotonic = -1e9", ""),
                     2);
    OK(ledger_beat(l, &n, e));
    assert_int_equal(n, 0);
    take(l, "b");
    assert_state(l, "a", STATE_RUNNING);
    kill(pid, SIGKILL);
    int status;
    siginfo_t info;
    waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT); /* dead, not yet collected */
    OK(ledger_beat(l, &n, e));
    assert_int_equal(n, 1);
    waitpid(pid, &status, 0);
    LedgerCell a = take(l, "a");
    assert_int_equal(a.tries, 0);
    assert_int_equal(ask(l, "SELECT count(*) FROM event WHERE reason LIKE 'its driver % died'"), 1);
    OK(ledger_leave(l, e));
    assert_state(l, "a", STATE_PLANNED);
    assert_state(l, "b", STATE_PLANNED);
    check_ledger(l);
    ledger_close(&l);
}

/* What holds for drivers of other boots, other starts of the same number, other PID namespaces. */
static void test_gone(void **state)
{
    static const struct { const char *set; int back; } rows[] = {
        {"beat_wall = beat_wall", 0},
        {"start = start + 1", 1},
        {"boot = 'another'", 1},
        {"pid = 999999999", 1},
        {"pid_space = 'pid:[1]'", 0},
        {"pid_space = 'pid:[1]', beat_wall = beat_wall - 1e4", 0},
        {"pid_space = 'pid:[1]', beat_monotonic = beat_monotonic - 1e4", 0},
        {"pid_space = 'pid:[1]', beat_wall = beat_wall - 1e4, beat_monotonic = beat_monotonic -"
         " 1e4", 1},
    };
    (void)state;
    for (int i = 0; i < (int)(sizeof rows / sizeof *rows); i++) {
        char name[16], sql[256];
        snprintf(name, sizeof name, "gone%d", i);
        char *folder = new_sweep(name);
        Ledger *l = open_ledger(folder), *other = open_ledger(folder);
        Cell a = make_cell("a", NULL, CELL_POINT, "");
        int n;
        add_cells(l, &a, 1);
        join(other);
        take(other, "a");
        join(l);
        snprintf(sql, sizeof sql, "UPDATE driver SET %s WHERE id = 1", rows[i].set);
        assert_int_equal(sql_run(l, NULL, sql, ""), 1);
        OK(ledger_beat(l, &n, e));
        if (n != rows[i].back) fail_msg("%s: %d taken back", rows[i].set, n);
        Err e = {0};
        assert_int_equal(ledger_finish(other, id_of("a"), 0, &good, &e), n ? -1 : 0);
        ledger_close(&l);
        ledger_close(&other);
    }
}

/* ---- Files ------------------------------------------------------------------------------------*/

static void refuse(const char *folder, bool read_only, const char *text)
{
    Err e = {0};
    Ledger *l = ledger_open(folder, read_only, &e);
    assert_null(l);
    assert_has(e.message, text);
}

static void test_refused_files(void **state)
{
    (void)state;
    refuse(at("nowhere"), false, "nowhere: is no folder");
    char *folder = strdup(new_sweep("files")), *path = strdup(at("files/ledger.sqlite"));
    char command[PATH * 4];
    refuse(folder, true, "ledger.sqlite: does not exist: no sweep was planned here");
    write_file(path, "this is no database, but a text that is long enough to be looked at as one; "
                     "it goes on for more than a hundred bytes.");
    refuse(folder, false, "file is not a database\nhint: the file is damaged, or is something");
    char *text = read_file(path, NULL);
    assert_has(text, "this is no database"); /* as it was */
    free(text);
    unlink(path);
    snprintf(command, sizeof command, "sqlite3 %s 'CREATE TABLE t(x)'", path);
    if (system(command) == 0) {
        refuse(folder, false, "is not a ledger, but another program's database");
        refuse(folder, true, "is not a ledger");
    }
    unlink(path);
    Ledger *l = open_ledger(folder);
    OK(sql_run(l, e, "PRAGMA user_version=7", "") < 0);
    ledger_close(&l);
    refuse(folder, false, "has version 7, this program reads up to 2");
    unlink(path);
    l = open_ledger(folder);
    OK(ledger_note_set(l, "host", "elsewhere", e));
    ledger_close(&l);
    refuse(folder, false, "belongs to the host 'elsewhere', this is '");
    Err e = {0};
    l = ledger_open(folder, true, &e); /* to read it is fine anywhere */
    assert_non_null(l);
    assert_int_equal(ledger_note_set(l, "x", "y", &e), -1);
    assert_has(e.message, "may not be written");
    ledger_close(&l);
    free(folder);
    free(path);
}

static void test_locked(void **state)
{
    (void)state;
    char *folder = new_sweep("locked");
    Ledger *l = open_ledger(folder), *other = open_ledger(folder);
    Cell a = make_cell("a", NULL, CELL_POINT, "");
    CellList list = {&a, 1, 1};
    Err e = {0};
    OK(sql_begin(other, e));
    sqlite3_busy_timeout(l->db, 50);
    assert_int_equal(ledger_add(l, &list, NULL, &e), -1);
    assert_has(e.message, "locked\nhint: another process has held it for too long");
    Ledger *reader = ledger_open(folder, true, &e); /* readers do not mind */
    assert_non_null(reader);
    assert_int_equal(ask(reader, "SELECT count(*) FROM cell"), 0);
    ledger_close(&reader);
    assert_int_equal(sql_end(other, -1, NULL), -1);
    OK(ledger_add(l, &list, NULL, e));
    ledger_close(&l);
    ledger_close(&other);
}

/* A file that may not grow: nothing of the transaction stays, and with room it goes on. */
static void test_full(void **state)
{
    (void)state;
    char name[8];
    Ledger *l = open_ledger(new_sweep("full"));
    Err e = {0};
    Cell a = make_cell("a", NULL, CELL_POINT, "");
    add_cells(l, &a, 1);
    int64_t pages = ask(l, "PRAGMA page_count");
    char pragma[64];
    snprintf(pragma, sizeof pragma, "PRAGMA max_page_count=%d", (int)pages + 3);
    ask(l, pragma);
    Cell more[60];
    for (int i = 0; i < 60; i++) {
        snprintf(name, sizeof name, "%c%c", 'b' + i / 20, 'a' + i % 20);
        more[i] = make_cell(name, NULL, CELL_POINT, "");
        memset(more[i].overrides, 'x', 2000);
    }
    CellList list = {more, 60, 60};
    assert_int_equal(ledger_add(l, &list, NULL, &e), -1);
    assert_has(e.message, "full\nhint: the disk is full: make room and start again");
    assert_int_equal(ask(l, "SELECT count(*) FROM cell"), 1);
    ask(l, "PRAGMA max_page_count=100000");
    OK(ledger_add(l, &list, NULL, e));
    assert_int_equal(ask(l, "SELECT count(*) FROM cell"), 61);
    check_ledger(l);
    ledger_close(&l);
}

/* A real file system that is full, or may not be written: where this process may mount one. */
static void test_mounts(void **state)
{
    (void)state;
    char *folder = strdup(new_sweep("tiny"));
    bool mine = !unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    if (!mine || mount("none", folder, "tmpfs", 0, "size=96k")) {
        print_message("no mount is allowed here: full and read-only folders are not tried\n");
        free(folder);
        skip();
    }
    Err e = {0};
    Ledger *l = ledger_open(folder, false, &e);
    bool failed = !l;
    for (int i = 0; !failed && i < 200; i++) {
        char name[8];
        snprintf(name, sizeof name, "%c%c", 'a' + i / 20, 'a' + i % 20);
        Cell c = make_cell(name, NULL, CELL_POINT, "");
        memset(c.overrides, 'x', 1500);
        CellList list = {&c, 1, 1};
        failed = ledger_add(l, &list, NULL, &e) != 0;
    }
    assert_true(failed);
    assert_has(e.message, "hint: the disk is full");
    if (l) ledger_close(&l);
    umount(folder);
    l = open_ledger(folder);
    Cell a = make_cell("a", NULL, CELL_POINT, "");
    add_cells(l, &a, 1);
    ledger_close(&l);
    assert_int_equal(mount(folder, folder, NULL, MS_BIND, NULL), 0);
    assert_int_equal(mount(NULL, folder, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), 0);
    refuse(folder, false, "may not be written");
    l = ledger_open(folder, true, &e);
    bool reads = l && ask(l, "SELECT count(*) FROM cell") == 1;
    if (l) ledger_close(&l);
    umount(folder);
    if (!reads) fail_msg("%s", e.message);
    free(folder);
}

/* Wrong bytes anywhere: an error with the file's name or an answer, never a crash. */
static void test_damaged(void **state)
{
    (void)state;
    char *folder = strdup(new_sweep("damaged")), *path = strdup(at("damaged/ledger.sqlite"));
    Ledger *l = open_ledger(folder);
    add_thirty(l, NULL);
    join(l);
    take(l, "0t");
    ledger_close(&l);
    size_t size;
    char *text = read_file(path, &size), *broken = malloc(size);
    int refused = 0, rounds = getenv("ISOMOE_LONG") ? 2000 : 150;
    PhiloxKey key = {.seed = 7, .purpose = RNG_TEST};
    for (uint64_t i = 0; i < (uint64_t)rounds; i++) {
        size_t n = i % 5 ? size : (size_t)(philox_uniform(&key, 64 * i) * (double)size);
        memcpy(broken, text, size);
        for (uint64_t k = 1; k < 2 + i % 40; k++)
            broken[(size_t)(philox_uniform(&key, 64 * i + k) * (double)size)] ^=
                (char)(1 + philox_u32(&key, 64 * i + k) % 255);
        Err e = {0};
        if (io_write_atomic(path, broken, n, &e)) fail_msg("%s", e.message);
        LedgerCell *cells = NULL;
        int count = 0, first;
        l = ledger_open(folder, i % 2, &e);
        if (l && !ledger_cells(l, &cells, &count, &e) && i % 2 == 0)
            ledger_join(l, 1, &first, &e);
        if (l) ledger_close(&l);
        free(cells);
        refused += e.set;
        if (e.set) assert_has(e.message, "ledger.sqlite: ");
        unlink(at("damaged/ledger.sqlite-wal"));
        unlink(at("damaged/ledger.sqlite-shm"));
    }
    print_message("%d of %d refused\n", refused, rounds);
    assert_true(refused > rounds / 3);
    free(text);
    free(broken);
    free(folder);
    free(path);
}

static void test_file_systems(void **state)
{
    (void)state;
    struct statfs fs;
    assert_true(ledger_is_local(0xef53)); /* ext4 */
    assert_true(ledger_is_local(0x9123683e)); /* btrfs */
    assert_false(ledger_is_local(0x6969)); /* NFS */
    assert_false(ledger_is_local((long)(int)0xff534d42)); /* CIFS, as a number of 32 bits */
    char *folder = new_sweep("fs");
    assert_int_equal(statfs(folder, &fs), 0);
    Ledger *l = open_ledger(folder);
    sqlite3_stmt *s = sql_prepare(l, NULL, "PRAGMA journal_mode", "");
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(s, 0),
                        ledger_is_local((long)fs.f_type) ? "wal" : "delete");
    sqlite3_finalize(s);
    assert_int_equal(ask(l, "PRAGMA synchronous"), 2);
    ledger_close(&l);
}

/* ---- Runs -------------------------------------------------------------------------------------*/

static void test_runs(void **state)
{
    (void)state;
    Ledger *l = open_ledger(new_sweep("runs"));
    Cell cells[] = {make_cell("a", NULL, CELL_TRUNK, ""), make_cell("b", "a", CELL_POINT, ""),
                    make_cell("c", NULL, CELL_CHECK, ""), make_cell("d", NULL, CELL_POINT, "")};
    cells[1].N = 2e6;
    RunTable t;
    add_cells(l, cells, 4);
    join(l);
    take(l, "a");
    finish(l, "a");
    take(l, "b");
    assert_int_equal(end(l, "b", STATE_DIVERGED, ""), STATE_PLANNED);
    take(l, "b");
    take(l, "c");
    finish(l, "b");
    finish(l, "c");
    OK(ledger_runs(l, false, &t, e));
    assert_int_equal(t.rows, 1);
    assert_string_equal(t.name[0], "b");
    assert_true(run_value(&t, RUN_N, 0) == 2e6 && run_value(&t, RUN_D, 0) == 1280);
    assert_true(run_value(&t, RUN_LOSS, 0) == 3 && run_value(&t, RUN_C, 0) == 7.68e9);
    assert_true(run_value(&t, RUN_LR, 0) == 0.005 && run_value(&t, RUN_BATCH, 0) == 128);
    assert_true(run_value(&t, RUN_BUDGET, 0) == 1e12 && run_value(&t, RUN_SEED, 0) == 1);
    assert_true(run_value(&t, RUN_N_TOTAL, 0) == 4e6 && isnan(run_value(&t, RUN_NOISE, 0)));
    run_table_clear(&t);
    OK(ledger_runs(l, true, &t, e));
    assert_int_equal(t.rows, 2);
    run_table_clear(&t);
    ledger_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add),     cmocka_unit_test(test_add_refused),
        cmocka_unit_test(test_notes),   cmocka_unit_test(test_order),
        cmocka_unit_test(test_tries),   cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_leases),  cmocka_unit_test(test_gone),
        cmocka_unit_test(test_refused_files),
        cmocka_unit_test(test_locked),  cmocka_unit_test(test_full),
        cmocka_unit_test(test_mounts),  cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_file_systems),
        cmocka_unit_test(test_runs),
    };
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
