/* tests/test_launch.c - how trainers are started: words of a template, locks that children hold,
 * cores, last words; jobs under stand-ins for mpirun, srun and sbatch, and the real ones where they
 * are. */
#include "tests/sweep_help.h"

#include <sched.h>

#include "base/log.h"
#include "scaling/driver.h"

#define FAKE "tests/fake_trainer.sh"

static const char *const words[] = {"/bin/echo", "a b", "it's", "c"};

static LaunchJob job(const char *output)
{
    return (LaunchJob){.command = words, .n_command = 4, .id = "0123456789abcdef",
                       .name = "C1-d2", .folder = "cells/0", .output = output, .threads = 2,
                       .ranks = 3, .first_core = -1, .lock = -1};
}

/* Runs to the end; the exit code, or 1000 + the signal. */
static int finish(const LaunchMode *mode, const LaunchJob *j)
{
    pid_t pid;
    int status;
    OK(launch_start(mode, j, &pid, e));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void test_templates(void **state)
{
    static const struct { const char *start, *text; } rows[] = {
        {"{command}", "a b it's c\n"},
        {"/bin/echo {id} {name}={threads}x{ranks} {other} {", "0123456789abcdef C1-d2=2x3 {other} "
                                                              "{\n"},
        {"  /bin/echo  -n {folder}/x {command}", "cells/0/x /bin/echo a b it's c"},
        {"/bin/echo {quoted}", "exec '/bin/echo' 'a b' 'it'\\''s' 'c'\n"},
        {"/bin/sh -c {quoted}", "a b it's c\n"},
    };
    (void)state;
    for (int i = 0; i < (int)(sizeof rows / sizeof *rows); i++) {
        LaunchMode mode = {.name = "x", .start = rows[i].start};
        LaunchJob j = job(at("echo%d", i));
        assert_int_equal(finish(&mode, &j), 0);
        char *text = read_file(j.output, NULL);
        assert_string_equal(text, rows[i].text);
        free(text);
    }
    for (int i = 0; launch_mode_at(i); i++)
        assert_ptr_equal(launch_mode_find(launch_mode_at(i)->name), launch_mode_at(i));
    assert_null(launch_mode_find("cloud"));
}

/* What a mode adds to the environment, but for what is set there already. */
static void test_environment(void **state)
{
    static const char *const show[] = {"sh", "-c", "echo $ISOMOE_ONE $ISOMOE_TWO $ISOMOE_THREE"};
    static const char *const add[] = {"ISOMOE_ONE=1", "ISOMOE_TWO=2", NULL};
    LaunchMode mode = {.start = "{command}", .environment = add};
    LaunchJob j = job(at("environment"));
    (void)state;
    j.command = show;
    j.n_command = 3;
    setenv("ISOMOE_TWO", "own", 1);
    setenv("ISOMOE_THREE", "3", 1);
    assert_int_equal(finish(&mode, &j), 0);
    assert_null(getenv("ISOMOE_ONE"));
    unsetenv("ISOMOE_TWO");
    unsetenv("ISOMOE_THREE");
    char *text = read_file(j.output, NULL);
    assert_string_equal(text, "1 own 3\n");
    free(text);
}

/* A child's own signal, when the process that started it is killed. */
static void test_death(void **state)
{
    static const char *const wait[] = {
        "sh", "-c", "trap 'echo USR1; exit' USR1; trap 'echo TERM; exit' TERM; echo there;"
                    "while true; do sleep 0.01; done"};
    static const struct { int death; const char *text; } rows[] = {
        {SIGUSR1, "there\nUSR1\n"}, {SIGTERM, "there\nTERM\n"}, {0, "there\nTERM\n"}};
    (void)state;
    for (int i = 0; i < 3; i++) {
        LaunchMode mode = {.start = "{command}", .death = rows[i].death};
        LaunchJob j = job(at("death%d", i));
        char *text = NULL;
        pid_t pid, parent = fork();
        j.command = wait;
        j.n_command = 3;
        if (!parent) _exit(launch_start(&mode, &j, &pid, NULL) || pause());
        for (int k = 0; k < 4000 && !(text && strchr(text, '\n')); k++) {
            usleep(5000);
            free(text);
            text = io_exists(j.output) ? read_file(j.output, NULL) : NULL;
        }
        kill(parent, SIGKILL);
        waitpid(parent, NULL, 0);
        for (int k = 0; k < 4000 && !(text && strstr(text, rows[i].text)); k++) {
            usleep(5000);
            free(text);
            text = read_file(j.output, NULL);
        }
        assert_string_equal(text, rows[i].text);
        free(text);
    }
}

static void test_refused(void **state)
{
    (void)state;
    Err e = {0};
    pid_t pid;
    LaunchJob j = job(at("refused"));
    LaunchMode mode = {.start = "  "};
    assert_int_equal(launch_start(&mode, &j, &pid, &e), -1);
    assert_has(e.message, "the template of the start command is empty");
    mode.start = "no-such-program-here {command}";
    assert_int_equal(launch_start(&mode, &j, &pid, &e), -1);
    assert_has(e.message, "no-such-program-here: cannot be started");
    mode.start = "{command}";
    j.output = at("nowhere/out");
    assert_int_equal(launch_start(&mode, &j, &pid, &e), -1);
    const char *many[LAUNCH_WORDS + 1];
    for (int i = 0; i < LAUNCH_WORDS + 1; i++) many[i] = "x";
    j.command = many;
    j.n_command = LAUNCH_WORDS + 1;
    assert_int_equal(launch_start(&mode, &j, &pid, &e), -1);
    assert_has(e.message, "more than 512 words");
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left behind */
}

/* The lock is held as long as the child lives, and by no one else. */
static void test_lock(void **state)
{
    (void)state;
    const char *sleeper[] = {"sleep", "3"};
    const LaunchMode *mode = launch_mode_find("local");
    char *path = strdup(at("lock"));
    LaunchJob j = job(at("sleep"));
    int fd, status;
    pid_t pid;
    OK(launch_lock(path, &fd, e));
    assert_true(fd >= 0);
    j.command = sleeper;
    j.n_command = 2;
    j.lock = fd;
    OK(launch_start(mode, &j, &pid, e));
    close(fd);
    OK(launch_lock(path, &fd, e));
    assert_int_equal(fd, -1);
    kill(pid, SIGTERM); /* not blocked, not ignored, whatever this process does */
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status));
    OK(launch_lock(path, &fd, e));
    assert_true(fd >= 0);
    close(fd);
    Err e = {0};
    assert_int_equal(launch_lock(at("nowhere/lock"), &fd, &e), -1);
    free(path);
}

static void test_signals_of_child(void **state)
{
    (void)state;
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    signal(SIGTERM, SIG_IGN);
    test_lock(state);
    signal(SIGTERM, SIG_DFL);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static void test_cores(void **state)
{
    (void)state;
    const char *show[] = {"grep", "-E", "Cpus_allowed_list", "/proc/self/status"};
    cpu_set_t may;
    int second = -1, seen = 0;
    assert_int_equal(sched_getaffinity(0, sizeof may, &may), 0);
    assert_int_equal(launch_cores(), CPU_COUNT(&may));
    if (launch_cores() < 2) skip();
    for (int i = 0; second < 0; i++)
        if (CPU_ISSET(i, &may) && seen++ == 1) second = i;
    LaunchJob j = job(at("cores"));
    char want[32];
    j.command = show;
    j.first_core = 1;
    j.threads = 1;
    assert_int_equal(finish(launch_mode_find("local"), &j), 0);
    char *text = read_file(j.output, NULL);
    snprintf(want, sizeof want, ":\t%d\n", second);
    assert_has(text, want);
    free(text);
}

static void test_last_words(void **state)
{
    (void)state;
    char out[40], *path = at("words");
    launch_last_words(at("no such file"), 0, out, sizeof out);
    assert_string_equal(out, "");
    write_file(path, "from the try before\none\n\ntwo \t\xc3\xbc\n\n");
    launch_last_words(path, 20, out, sizeof out);
    assert_string_equal(out, "one |  | two ???");
    launch_last_words(path, 35, out, sizeof out);
    assert_string_equal(out, "");
    char many[4000];
    for (int i = 0; i < 1000; i++) memcpy(many + 4 * i, "ab \n", 4);
    many[sizeof many - 1] = 0;
    write_file(path, many);
    launch_last_words(path, 0, out, sizeof out);
    assert_true(strlen(out) < sizeof out && strlen(out) > 30);
    assert_has(out, "ab  | ab");
}

/* ---- Slurm ------------------------------------------------------------------------------------*/

/* Stand-ins in a folder that comes first in PATH; each notes its words in a file. */
static void make_stand_ins(void)
{
    static const struct { const char *name, *text; } rows[] = {
        {"srun", "#!/bin/sh\necho \"srun $*\" >>%s/calls\n"
                 "while case $1 in -*) true ;; *) false ;; esac; do shift; done\nexec \"$@\"\n"},
        /* Hands SIGUSR1 on; at SIGTERM kills after a while, and at a second one just leaves: as
         * Open MPI does. */
        {"mpirun", "#!/bin/sh\necho \"mpirun $*\" >>%s/calls\nshift 2\n"
                   "setsid \"$@\" &\njob=$!\ntrap 'kill -USR1 $job' USR1\n"
                   "trap 'trap exit TERM; sleep 0.3; kill -KILL $job' TERM\n"
                   "wait $job; code=$?\n"
                   "while kill -0 $job 2>/dev/null; do wait $job; code=$?; done\nexit $code\n"},
        {"sbatch", "#!/bin/sh\necho \"sbatch $*\" >>%s/calls\n"
                   "while [ \"$1\" != --wrap ]; do shift; done\n"
                   "setsid sh -c \"echo \\$\\$ >>${0%%/*}/jobs; $2\" &\nwait $!\n"},
        {"scancel", "#!/bin/sh\necho \"scancel $*\" >>%s/calls\n"
                    "case $1 in --name*) how=KILL ;; *) how=TERM ;; esac\n"
                    "kill -$how -$(tail -n 1 ${0%%/*}/jobs)\n"},
    };
    char path[PATH * 4], text[2048];
    OK(io_make_dirs(at("bin"), e));
    for (int i = 0; i < 4; i++) {
        snprintf(text, sizeof text, rows[i].text, scratch);
        write_file(at("bin/%s", rows[i].name), text);
        chmod(at("bin/%s", rows[i].name), 0755);
    }
    snprintf(path, sizeof path, "%s:%s", at("bin"), getenv("PATH"));
    setenv("PATH", path, 1);
}

static void test_stand_ins(void **state)
{
    static const char *const modes[] = {"mpi", "srun", "sbatch"};
    char *path = strdup(getenv("PATH"));
    (void)state;
    make_stand_ins();
    for (int i = 0; i < 3; i++) {
        char *folder = strdup(new_sweep(modes[i]));
        Ledger *l = open_ledger(folder);
        Cell cells[] = {make_cell("a", NULL, CELL_TRUNK, ""), make_cell("b", "a", CELL_POINT, ""),
                        make_cell("c", NULL, CELL_POINT, "fake=wreck"),
                        make_cell("d", NULL, CELL_POINT, "fake=fail")};
        add_cells(l, cells, 4);
        DriverOptions o = {.folder = folder, .program = FAKE, .mode = launch_mode_find(modes[i]),
                           .jobs = 2, .threads = 1, .ranks = 2};
        Err e = {0};
        if (driver_run(l, &o, NULL, &e) != DRIVER_DONE) fail_msg("%s", e.message);
        assert_state(l, "b", STATE_DONE);
        assert_state(l, "c", STATE_DIVERGED);
        assert_state(l, "d", STATE_FAILED);
        assert_has(cell_named(l, "d").reason, "error: broken on purpose");
        check_ledger(l);
        ledger_close(&l);
        free(folder);
    }
    char *calls = read_file(at("calls"), NULL), want[200];
    assert_has(calls, "mpirun -np 2 tests/fake_trainer.sh train ");
    assert_has(calls, "srun --ntasks=2 --cpus-per-task=1 --job-name=isomoe-");
    snprintf(want, sizeof want, "--dependency=singleton --ntasks=2 --cpus-per-task=1 --job-name="
             "isomoe-%s", id_of("a"));
    assert_has(calls, want);
    free(calls);
    setenv("PATH", path, 1);
    free(path);
}

static pid_t start_driver(const char *folder, const char *mode, double grace)
{
    pid_t pid = fork();
    if (pid) return pid;
    DriverOptions o = {.folder = folder, .program = FAKE, .mode = launch_mode_find(mode),
                       .jobs = 1, .threads = 1, .grace = grace};
    Ledger *l = ledger_open(folder, false, NULL);
    _exit(10 + driver_run(l, &o, NULL, NULL));
}

/* Until the trainers' log has this text, 20 s at most. */
static void wait_for(const char *folder, const char *part)
{
    char path[PATH * 2], *text = NULL;
    snprintf(path, sizeof path, "%s/log", folder);
    for (int i = 0; i < 4000 && !(text && strstr(text, part)); i++) {
        usleep(5000);
        free(text);
        text = io_exists(path) ? read_file(path, NULL) : strdup("");
    }
    assert_has(text, part);
    free(text);
}

static char *long_sweep(const char *name, const char *overrides)
{
    char *folder = strdup(new_sweep(name));
    Ledger *l = open_ledger(folder);
    Cell a = make_cell("a", NULL, CELL_POINT, overrides);
    add_cells(l, &a, 1);
    ledger_close(&l);
    return folder;
}

/* The driver is asked to stop: so is the trainer, wherever it runs. */
static void check_stop(const char *name, const char *mode, const char *kind)
{
    char overrides[64];
    snprintf(overrides, sizeof overrides, "steps=3000\nms=0.01\n%s", kind);
    char *folder = long_sweep(name, overrides);
    int status;
    pid_t pid = start_driver(folder, mode, 0);
    wait_for(folder, "start ");
    kill(pid, SIGTERM);
    waitpid(pid, &status, 0);
    assert_int_equal(WEXITSTATUS(status), 10 + DRIVER_STOPPED);
    wait_for(folder, "\nstop ");
    Ledger *l = open_ledger(folder);
    assert_state(l, "a", STATE_PLANNED);
    ledger_close(&l);
    free(folder);
}

/* A trainer that does not heed the signal is killed, wherever it runs: none is left behind. */
static void check_killed(const char *name, const char *mode)
{
    char *folder = long_sweep(name, "steps=3000\nms=0.01\nfake=stubborn"), path[PATH * 2];
    int status, lock = -1;
    pid_t pid = start_driver(folder, mode, 0.2);
    wait_for(folder, "start ");
    kill(pid, SIGTERM);
    waitpid(pid, &status, 0);
    assert_int_equal(WEXITSTATUS(status), 10 + DRIVER_STOPPED);
    snprintf(path, sizeof path, "%s/cells/%s/alone", folder, id_of("a"));
    for (int i = 0; i < 400 && lock < 0; i++) { /* its last command may end after it */
        OK(launch_lock(path, &lock, e));
        if (lock < 0) usleep(5000);
    }
    assert_true(lock >= 0);
    close(lock);
    free(folder);
}

/* A driver dies while its job runs: the next one's job waits for it, and nothing is done twice. */
static void check_death(const char *name, const char *mode)
{
    char *folder = long_sweep(name, "steps=60\nms=0.02"), path[PATH * 2];
    int status;
    pid_t pid = start_driver(folder, mode, 0);
    wait_for(folder, "start ");
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    pid = start_driver(folder, mode, 0);
    waitpid(pid, &status, 0);
    assert_int_equal(WEXITSTATUS(status), 10 + DRIVER_DONE);
    Ledger *l = open_ledger(folder);
    assert_state(l, "a", STATE_DONE);
    ledger_close(&l);
    snprintf(path, sizeof path, "%s/log", folder);
    char *text = read_file(path, NULL), *first = strstr(text, "finish ");
    assert_null(strstr(text, "overlap"));
    assert_non_null(first);
    assert_null(strstr(first + 1, "finish "));
    free(text);
    free(folder);
}

/* A job that was handed to sbatch is no child of the driver: to stop it is another command. */
static void test_batch_stop(void **state)
{
    (void)state;
    char *path = strdup(getenv("PATH")), want[100];
    make_stand_ins();
    check_stop("batch", "sbatch", "");
    check_death("batch-death", "srun");
    snprintf(want, sizeof want, "scancel --full --signal=TERM --name=isomoe-%s", id_of("a"));
    char *text = read_file(at("calls"), NULL);
    assert_has(text, want);
    free(text);
    setenv("PATH", path, 1);
    free(path);
}

/* mpirun stands for its trainer, at every end. */
static void test_mpi_stop(void **state)
{
    (void)state;
    char *path = strdup(getenv("PATH"));
    make_stand_ins();
    check_stop("mpi-stop", "mpi", "");
    check_killed("mpi-killed", "mpi");
    check_death("mpi-death", "mpi");
    setenv("PATH", path, 1);
    free(path);
}

/* A job that hangs and ignores SIGTERM is cancelled for good; its time in the queue is no hanging.
 */
static void test_batch_hangs(void **state)
{
    (void)state;
    char *path = strdup(getenv("PATH")), want[100];
    make_stand_ins();
    char *folder = long_sweep("batch-hangs", "fake=hang-once"), text[2048];
    snprintf(text, sizeof text, "#!/bin/sh\nsleep 3\nexec %s \"$@\"\n", at("bin/sbatch-at-once"));
    rename(at("bin/sbatch"), at("bin/sbatch-at-once"));
    write_file(at("bin/sbatch"), text);
    chmod(at("bin/sbatch"), 0755);
    Ledger *l = open_ledger(folder);
    Cell b = make_cell("b", NULL, CELL_POINT, "");
    add_cells(l, &b, 1);
    DriverOptions o = {.folder = folder, .program = FAKE, .mode = launch_mode_find("sbatch"),
                       .jobs = 1, .threads = 1, .time_limit = 1.5, .grace = 1};
    Err e = {0};
    if (driver_run(l, &o, NULL, &e) != DRIVER_DONE) fail_msg("%s", e.message);
    assert_state(l, "a", STATE_DONE);
    assert_state(l, "b", STATE_DONE);
    assert_int_equal(cell_named(l, "a").tries, 2);
    check_ledger(l);
    ledger_close(&l);
    snprintf(want, sizeof want, "\nscancel --name=isomoe-%s", id_of("a"));
    char *calls = read_file(at("calls"), NULL);
    assert_has(calls, want);
    snprintf(want, sizeof want, "scancel --state=PENDING --name=isomoe-%s", id_of("b"));
    assert_null(strstr(calls, want));
    free(calls);
    setenv("PATH", path, 1);
    free(path);
    free(folder);
}

/* A command that hangs is not waited for without end, and the next one runs. */
static void test_stop_hangs(void **state)
{
    (void)state;
    if (getenv("ISOMOE_FAST")) skip();
    LaunchMode mode = {.name = "x", .start = "{command}", .stop = {"sleep 60", "/bin/echo {id}"}};
    LaunchJob j = job(at("hangs"));
    double began = log_seconds();
    launch_stop(&mode, &j);
    assert_true(log_seconds() - began < 30);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing of it is left */
    char *text = read_file(j.output, NULL);
    assert_string_equal(text, "0123456789abcdef\n");
    free(text);
}

/* The real thing: one node of one machine, where it is set up. */
static void test_slurm(void **state)
{
    (void)state;
    if (!getenv("ISOMOE_LONG")) skip();
    if (system("srun --ntasks=1 true >/dev/null 2>&1")) {
        print_message("no Slurm answers here: only stand-ins were tried\n");
        skip();
    }
    static const char *const modes[] = {"srun", "sbatch"};
    for (int i = 0; i < 2; i++) {
        char *folder = strdup(new_sweep(i ? "real-sbatch" : "real-srun"));
        Ledger *l = open_ledger(folder);
        Cell cells[] = {make_cell("a", NULL, CELL_TRUNK, ""), make_cell("b", "a", CELL_POINT, ""),
                        make_cell("c", NULL, CELL_POINT, "fake=wreck")};
        add_cells(l, cells, 3);
        DriverOptions o = {.folder = folder, .program = FAKE, .mode = launch_mode_find(modes[i]),
                           .jobs = 1, .threads = 1};
        Err e = {0};
        if (driver_run(l, &o, NULL, &e) != DRIVER_DONE) fail_msg("%s", e.message);
        assert_state(l, "b", STATE_DONE);
        assert_state(l, "c", STATE_DIVERGED);
        ledger_close(&l);
        free(folder);
        check_stop(i ? "stop-sbatch" : "stop-srun", modes[i], "fake=slow");
        check_death(i ? "death-sbatch" : "death-srun", modes[i]);
    }
}

/* Open MPI itself: more ranks than cores, all cores for each of them, root or not; then as above.
 */
static void test_mpi(void **state)
{
    static const char *const show[] = {"sh", "-c", "echo $(nproc) cores"};
    char want[32];
    (void)state;
    if (!getenv("ISOMOE_LONG")) skip();
    if (system("mpirun --version 2>&1 | grep -q 'Open MPI'")) {
        print_message("no Open MPI here: only a stand-in was tried\n");
        skip();
    }
    LaunchJob j = job(at("ranks"));
    j.command = show;
    j.n_command = 3;
    j.ranks = launch_cores() + 3;
    assert_int_equal(finish(launch_mode_find("mpi"), &j), 0);
    char *text = read_file(j.output, NULL), *line = text;
    snprintf(want, sizeof want, "%d cores\n", launch_cores());
    for (int i = 0; i < j.ranks; i++, line += strlen(want))
        if (strncmp(line, want, strlen(want))) fail_msg("expected: %s\nfound: %s", want, text);
    assert_string_equal(line, ""); /* not a word of its own */
    free(text);
    check_stop("real-mpi-stop", "mpi", "fake=slow");
    check_killed("real-mpi-killed", "mpi");
    check_death("real-mpi-death", "mpi");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_templates),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_lock),       cmocka_unit_test(test_signals_of_child),
        cmocka_unit_test(test_cores),      cmocka_unit_test(test_last_words),
        cmocka_unit_test(test_stand_ins),  cmocka_unit_test(test_batch_stop),
        cmocka_unit_test(test_batch_hangs),
        cmocka_unit_test(test_stop_hangs), cmocka_unit_test(test_environment),
        cmocka_unit_test(test_death),      cmocka_unit_test(test_mpi_stop),
        cmocka_unit_test(test_mpi),        cmocka_unit_test(test_slurm),
    };
    log_set_quiet(1);
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
