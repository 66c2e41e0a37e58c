/* scaling/driver.c - see driver.h. One thread: it starts trainers, waits for signals with a time
 * limit, and takes in what has ended. */
#include "scaling/driver.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "scaling/cell_result.h"
#include "scaling/driver_inside.h"

enum { EXIT_DONE = 0, EXIT_STOPPED = 3, EXIT_DIVERGED = 4 }; /* of the trainer; train/command.h */
enum { NOT_TOLD = -1 }; /* in place of a status of waitpid: neither an exit nor a signal */

#define BEAT_SECONDS 2.0
#define REQUEST_SECONDS 0.5
#define SHOW_SECONDS 1.0
#define WATCH_SECONDS 0.5
#define WAIT_SECONDS 0.1 /* for a signal, before clocks and other drivers are looked at */

/* ---- Ends of tries ----------------------------------------------------------------------------*/

static void say(Driver *d, const Slot *s, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Shows what happened to a cell. */
static void say(Driver *d, const Slot *s, const char *format, ...)
{
    char text[CELL_NAME + CELL_REASON + 32];
    int n = snprintf(text, sizeof text, "%s: ", s->cell.cell.name);
    va_list args;
    va_start(args, format);
    vsnprintf(text + n, sizeof text - (size_t)n, format, args);
    va_end(args);
    driver_show(d, text);
}

static void free_slot(Slot *s)
{
    if (s->lock >= 0) close(s->lock);
    *s = (Slot){.lock = -1};
}

/* A try ended badly; the ledger says what follows. */
static int end_try(Driver *d, Slot *s, CellState how, const char *reason, bool again)
{
    LedgerTries tries = d->o.tries;
    CellState now;
    if (!again) tries.most = 0;
    if (ledger_end_try(d->l, s->cell.cell.id, how, reason, &tries, &now, d->e)) return -1;
    say(d, s, "%s%s: %s", cell_state_name(how),
        now == STATE_PLANNED ? ", to be tried again" : "", reason);
    free_slot(s);
    return 0;
}

static int hand_back(Driver *d, Slot *s, const char *reason)
{
    if (ledger_hand_back(d->l, s->cell.cell.id, reason, d->e)) return -1;
    say(d, s, "stopped: %s", reason);
    free_slot(s);
    return 0;
}

/* A result is taken in if it is of the length that was planned. */
static int finish(Driver *d, Slot *s, double lr_factor, const CellResult *r)
{
    char reason[128];
    double planned = s->cell.cell.D;
    if (planned > 0 && fabs(r->tokens - planned) > 0.5) {
        snprintf(reason, sizeof reason, "trained on %.0f tokens, %.0f were planned", r->tokens,
                 planned);
        return end_try(d, s, STATE_FAILED, reason, false);
    }
    if (ledger_finish(d->l, s->cell.cell.id, lr_factor, r, d->e)) return -1;
    say(d, s, "done, loss %.4f", r->loss);
    free_slot(s);
    return 0;
}

/* A diverged try at a higher rate lies in the cell's folder: out of the way with it. No folder is
 * none in the way. */
static int move_aside(Driver *d, const Slot *s, const char *folder, Err *e)
{
    char to[IO_PATH_MAX + 32];
    for (int i = 1; i < 1000; i++) {
        snprintf(to, sizeof to, "%s.diverged-%d", folder, i);
        if (!io_exists(to)) break;
    }
    if (!io_exists(folder)) return 0;
    if (rename(folder, to)) return err_errno(e, "%s: cannot be renamed to %s", folder, to);
    say(d, s, "what diverged is in %s", to);
    return 0;
}

/* The rate's factor in a result's label, ID@FACTOR; NaN: there is none, or it is another cell's. */
static double factor_of(const CellOutcome *out, const char *id)
{
    size_t n = strlen(id);
    return !strncmp(out->label, id, n) && out->label[n] == '@' ? strtod(out->label + n + 1, NULL)
                                                               : NAN;
}

/* What the cell's folder holds. *ended: the slot is free, nothing is left to run. */
static int take_in(Driver *d, Slot *s, bool *ended)
{
    const Cell *c = &s->cell.cell;
    char folder[IO_PATH_MAX], label[CELL_LABEL];
    CellOutcome out;
    Err why = {0};
    bool found;
    *ended = true;
    if (driver_path(d, c->id, "", folder)) return -1;
    if (cell_result_read(folder, &out, &found, &why))
        return end_try(d, s, STATE_FAILED, why.message, false);
    cell_label(label, c->id, s->cell.lr_factor);
    double lower = found && out.status == STATE_DONE ? factor_of(&out, c->id) : NAN;
    if (lower < s->cell.lr_factor) return finish(d, s, lower, &out.result); /* of a lost ledger */
    if (found && !strcmp(out.label, label)) {
        if (out.status == STATE_DONE) return finish(d, s, s->cell.lr_factor, &out.result);
        return end_try(d, s, STATE_DIVERGED, out.reason, true);
    }
    bool higher = found && out.status == STATE_DIVERGED &&
                  !strncmp(out.label, c->id, strlen(c->id));
    *ended = found && (!higher || move_aside(d, s, folder, &why));
    if (!*ended) return 0;
    if (!higher)
        err_set(&why, "%s/result.json is of another run ('%s', not '%s'): remove the folder",
                folder, out.label, label);
    return end_try(d, s, STATE_FAILED, why.message, false);
}

/* A trainer's exit code says that it diverged; its result could not be written. */
static int diverged_silently(Driver *d, Slot *s, const char *words)
{
    char folder[IO_PATH_MAX];
    Err why = {0};
    if (driver_path(d, s->cell.cell.id, "", folder)) return -1;
    if (move_aside(d, s, folder, &why)) return end_try(d, s, STATE_FAILED, why.message, false);
    return end_try(d, s, STATE_DIVERGED, words, true);
}

/* A trainer ended with this status of waitpid, or NOT_TOLD. Its result counts,
 * whatever its exit code says. */
static int ended(Driver *d, Slot *s, int status)
{
    char words[CELL_REASON - 64], reason[CELL_REASON], output[IO_PATH_MAX];
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    bool gone;
    s->pid = 0;
    if (take_in(d, s, &gone)) return -1;
    if (gone) return 0;
    if (s->cancel) return end_try(d, s, STATE_CANCELLED, "cancelled on request", false);
    if (s->hung) return end_try(d, s, STATE_FAILED, s->why, true);
    if (s->asked > 0) return hand_back(d, s, "its driver was stopped");
    if (driver_path(d, s->cell.cell.id, ".out", output)) return -1;
    launch_last_words(output, s->output_from, words, sizeof words);
    if (code == EXIT_STOPPED)
        return end_try(d, s, STATE_PREEMPTED, "stopped by a signal from elsewhere", true);
    if (code == EXIT_DIVERGED) return diverged_silently(d, s, words);
    if (status == NOT_TOLD)
        snprintf(reason, sizeof reason, "wrote no result.json; its exit code is not known: %s",
                 words);
    else if (code == EXIT_DONE)
        snprintf(reason, sizeof reason, "ended with code 0, but wrote no result.json: %s", words);
    else if (number)
        snprintf(reason, sizeof reason, "ended by signal %d (%s): %s", number, strsignal(number),
                 words);
    else
        snprintf(reason, sizeof reason, "exit code %d: %s", code, words);
    return end_try(d, s, STATE_FAILED, reason, true);
}

/* ---- Starts -----------------------------------------------------------------------------------*/

/* Takes the cell's lock, or leaves the slot waiting for it; then takes in a result that is there
 * already, or starts the trainer. */
static int begin(Driver *d, Slot *s)
{
    char path[IO_PATH_MAX];
    bool done;
    struct stat info;
    if (driver_path(d, s->cell.cell.id, ".lock", path) || launch_lock(path, &s->lock, d->e))
        return -1;
    if (s->lock < 0) {
        if (!s->waiting) say(d, s, "waits for a trainer that an earlier driver left");
        s->waiting = true;
        return 0;
    }
    s->waiting = false;
    if (take_in(d, s, &done)) return -1;
    if (done) return 0;
    if (driver_path(d, s->cell.cell.id, ".out", path)) return -1;
    s->output_from = stat(path, &info) ? 0 : info.st_size;
    driver_watch(d, s);
    if (driver_launch(d, s)) return -1;
    close(s->lock); /* the trainer holds it */
    s->lock = -1;
    say(d, s, "runs");
    return 0;
}

static Slot *free_one(Driver *d)
{
    for (int i = 0; i < d->jobs; i++)
        if (!d->slot[i].cell.cell.id[0]) return &d->slot[i];
    return NULL;
}

/* Fills free slots with cells that can run. */
static int fill_slots(Driver *d)
{
    Slot *s;
    bool found = true;
    while (!d->stopping && found && (s = free_one(d))) {
        if (ledger_take(d->l, &s->cell, &s->parent_factor, &found, d->e)) return -1;
        if (!found) *s = (Slot){.lock = -1};
        if (found && begin(d, s)) return -1;
    }
    return 0;
}

/* ---- Waiting ----------------------------------------------------------------------------------*/

/* Asks a trainer to end, by SIGTERM or the mode's own commands; or ends it. */
static void signal_slot(Driver *d, Slot *s, int number)
{
    bool far = d->mode.ask != SIGTERM; /* the process only stands for a trainer */
    if (s->pid <= 0) return;
    if (!d->mode.ask && !s->killed) driver_stop_command(d, s, number == SIGKILL);
    if (number == SIGTERM && d->mode.ask) kill(s->pid, d->mode.ask);
    if (number == SIGKILL && !far) kill(-s->pid, SIGKILL);
    if (number == SIGKILL && far && !s->killed) kill(s->pid, SIGTERM);
    if (number == SIGKILL) s->killed = true; /* at a second SIGTERM mpirun leaves its ranks alone */
    if (s->asked == 0) s->asked = log_seconds();
}

/* What was asked to end and has not is killed. */
static void check_grace(Driver *d)
{
    for (int i = 0; i < d->jobs; i++) {
        Slot *s = &d->slot[i];
        bool late = s->asked > 0 && log_seconds() - s->asked > d->o.grace;
        if (s->pid > 0 && s->asked > 0 && (late || d->stopping > 1)) signal_slot(d, s, SIGKILL);
    }
}

/* SIGINT and SIGTERM so far. They are not blocked and waited for: another thread of the process
 * might get them. */
static volatile sig_atomic_t stops;

static void count_stop(int number)
{
    (void)number;
    stops++;
}

/* The first SIGINT or SIGTERM stops, the second kills. */
static void stop(Driver *d)
{
    d->stopping++;
    for (int i = 0; d->stopping == 1 && i < d->jobs; i++) signal_slot(d, &d->slot[i], SIGTERM);
    driver_show(d, d->stopping == 1 ? "stopping: trainers write their checkpoints"
                                    : "stopping at once: trainers are killed");
}

/* For a trainer's end or a signal, at most WAIT_SECONDS. */
static void wait_signal(Driver *d)
{
    struct timespec limit = {.tv_nsec = (long)(WAIT_SECONDS * 1e9)};
    if (stops == d->heard) sigtimedwait(&d->signals.child, NULL, &limit);
    while (d->heard < stops) {
        d->heard++;
        stop(d);
    }
}

/* Where SIGCHLD is ignored, which a program inherits, no child's status is kept. */
static void take_signals(DriverSignals *s)
{
    struct sigaction count = {.sa_handler = count_stop, .sa_flags = SA_RESTART};
    struct sigaction normal = {.sa_handler = SIG_DFL};
    stops = 0;
    sigemptyset(&s->child);
    sigaddset(&s->child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &s->child, &s->before);
    sigaction(SIGCHLD, &normal, &s->old_child);
    sigaction(SIGINT, &count, &s->old_int);
    sigaction(SIGTERM, &count, &s->old_term);
}

static void give_signals_back(const DriverSignals *s)
{
    sigaction(SIGCHLD, &s->old_child, NULL);
    sigaction(SIGINT, &s->old_int, NULL);
    sigaction(SIGTERM, &s->old_term, NULL);
    sigprocmask(SIG_SETMASK, &s->before, NULL);
}

/* Cells that `sweep cancel` was asked for. */
static int heed_requests(Driver *d)
{
    char (*ids)[17];
    int n;
    if (ledger_requests(d->l, &ids, &n, d->e)) return -1;
    for (int k = 0; k < n; k++)
        for (int i = 0; i < d->jobs; i++) {
            Slot *s = &d->slot[i];
            if (strcmp(s->cell.cell.id, ids[k]) || s->cancel) continue;
            s->cancel = true;
            signal_slot(d, s, SIGTERM);
        }
    free(ids);
    return 0;
}

/* A process ended. *status: NOT_TOLD where something else of this process collected it. */
static bool has_ended(pid_t pid, int *status)
{
    pid_t got = waitpid(pid, status, WNOHANG);
    if (got < 0 && errno == ECHILD) *status = NOT_TOLD;
    return got == pid || (got < 0 && errno == ECHILD);
}

/* What slots need now: an ended trainer taken in, a lock tried again. */
static int look_after(Driver *d)
{
    for (int i = 0; i < d->jobs; i++) {
        Slot *s = &d->slot[i];
        int status, rc = 0;
        if (!s->cell.cell.id[0]) continue;
        if (s->waiting && s->cancel)
            rc = end_try(d, s, STATE_CANCELLED, "cancelled on request", false);
        else if (s->waiting && d->stopping)
            rc = hand_back(d, s, "its driver was stopped");
        else if (s->waiting)
            rc = begin(d, s);
        else if (has_ended(s->pid, &status))
            rc = ended(d, s, status);
        if (rc) return -1;
    }
    return 0;
}

/* What makes no progress is asked to end, and killed when it does not. */
static void end_hanging(Driver *d)
{
    for (int i = 0; i < d->jobs; i++) {
        Slot *s = &d->slot[i];
        if (s->pid <= 0 || s->asked > 0 || !driver_hangs(d, s)) continue;
        s->hung = true;
        say(d, s, "%s: it is ended", s->why);
        signal_slot(d, s, SIGTERM);
    }
}

static bool is_due(double *last, double every)
{
    double now = log_seconds();
    if (now - *last < every) return false;
    *last = now;
    return true;
}

static int keep_up(Driver *d)
{
    if (is_due(&d->beat, BEAT_SECONDS) && ledger_beat(d->l, NULL, d->e)) return -1;
    if (is_due(&d->request, REQUEST_SECONDS) && heed_requests(d)) return -1;
    if (is_due(&d->shown, SHOW_SECONDS)) driver_show(d, NULL);
    if (is_due(&d->watched, WATCH_SECONDS)) end_hanging(d);
    check_grace(d);
    return 0;
}

/* ---- All together -----------------------------------------------------------------------------*/

static int running(const Driver *d)
{
    int n = 0;
    for (int i = 0; i < d->jobs; i++) n += d->slot[i].cell.cell.id[0] != 0;
    return n;
}

/* Asks the study for more cells. *left: it had some, or another driver changed meanwhile what it
 * was asked about. */
static int ask_more(Driver *d, bool *left)
{
    LedgerCell *have;
    CellList more = {0};
    int n, before[CELL_STATES] = {0}, now[CELL_STATES];
    bool cancelled;
    *left = false;
    if (!d->calls->more) return 0;
    if (ledger_is_cancelled(d->l, &cancelled, d->e)) return -1;
    if (cancelled) return 0;
    if (ledger_cells(d->l, &have, &n, d->e)) return -1;
    for (int i = 0; i < n; i++) before[have[i].state]++;
    int rc = d->calls->more(d->calls->self, have, n, &more, d->e);
    if (!rc && more.count) rc = ledger_extend(d->l, &more, NULL, d->e);
    free(more.cell);
    free(have);
    if (rc || ledger_counts(d->l, now, d->e)) return -1;
    *left = now[STATE_PLANNED] || now[STATE_RUNNING] || memcmp(now, before, sizeof now);
    return 0;
}

/* *left: something is to be done or waited for. */
static int check_left(Driver *d, bool *left)
{
    int counts[CELL_STATES];
    *left = true;
    if (running(d)) return 0;
    if (d->stopping) return *left = false, 0;
    if (ledger_counts(d->l, counts, d->e)) return -1;
    if (counts[STATE_RUNNING]) return 0; /* other drivers' */
    if (counts[STATE_PLANNED]) {
        if (!d->idle++) return 0; /* another driver may have planned them just now */
        return err_set(d->e, "%s: %d cells wait for cells that will not run; `sweep retry` plans "
                       "these again", d->o.folder, counts[STATE_PLANNED]);
    }
    return ask_more(d, left);
}

static int run(Driver *d)
{
    bool left = true;
    for (;;) {
        if (fill_slots(d)) return -1;
        if (running(d)) d->idle = 0;
        if (check_left(d, &left)) return -1;
        if (!left) return 0;
        wait_signal(d);
        if (look_after(d) || keep_up(d)) return -1;
    }
}

/* After an error: trainers end as at a signal; the ledger is told if it can be. */
static void abandon(Driver *d)
{
    Err first = *d->e, more = {0};
    d->e = &more;
    d->stopping = 0;
    stop(d);
    while (running(d)) {
        wait_signal(d);
        check_grace(d);
        for (int i = 0; i < d->jobs; i++) {
            Slot *s = &d->slot[i];
            int status;
            bool over = s->pid <= 0 || has_ended(s->pid, &status);
            if (s->cell.cell.id[0] && over) free_slot(s);
        }
    }
    d->e = d->caller_e;
    *d->e = first;
}

DriverEnd driver_run(Ledger *l, const DriverOptions *o, const DriverCalls *calls, Err *e)
{
    static const DriverCalls none;
    Driver *d = calloc(1, sizeof *d);
    Err own = {0};
    if (!e) e = &own;
    if (!d) return err_set(e, "out of memory"), DRIVER_ERROR;
    d->l = l;
    d->e = d->caller_e = e;
    d->calls = calls ? calls : &none;
    d->began = d->beat = log_seconds();
    if (driver_settle(d, o)) {
        free(d);
        return DRIVER_ERROR;
    }
    take_signals(&d->signals);
    int rc = ledger_join(l, d->jobs * d->threads, &d->first_core, e);
    if (!rc) rc = run(d);
    if (rc) abandon(d);
    Err leaving = {0};
    if (ledger_leave(l, rc ? &leaving : e)) rc = -1;
    DriverEnd end = rc ? DRIVER_ERROR : d->stopping ? DRIVER_STOPPED : DRIVER_DONE;
    driver_show(d, NULL);
    give_signals_back(&d->signals);
    free(d->slot);
    free(d);
    return end;
}
