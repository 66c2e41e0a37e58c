/* train/sweep_run.c - see sweep_run.h. */
#include "train/sweep_run.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include "scaling/cell_build.h"
#include "scaling/driver.h"
#include "train/command.h"
#include "train/json_out.h"
#include "train/sweep_plan.h"
#include "train/sweep_print.h"

enum { BASE_MAX = 1 << 20, SHOW_SECONDS = 20 };

int sweep_program(char *out, Err *e)
{
    ssize_t n = readlink("/proc/self/exe", out, IO_PATH_MAX - 1);
    if (n <= 0) return err_errno(e, "/proc/self/exe: cannot be read");
    out[n] = 0;
    return 0;
}

/* ---- Running ----------------------------------------------------------------------------------*/

/* With the times that were measured: the first estimate of the end. */
static int add_cells(Ledger *l, const SweepRun *r, const CellList *cells, Err *e)
{
    CellList list = {0};
    int added, rc = 0;
    for (int i = 0; i < cells->count && !rc; i++) {
        Cell c = cells->cell[i];
        if (c.left_out[0]) cell_leave_out(&c);
        rc = cell_list_add(&list, &c, e);
    }
    if (!rc) rc = sweep_times_kept(r->s, &list, e);
    if (!rc) rc = ledger_add(l, &list, &added, e);
    if (!rc && added < list.count)
        log_info("%d of %d cells stand in the record already", list.count - added, list.count);
    cell_list_clear(&list);
    return rc;
}

/* What the data's paths held when the sweep was begun they must hold now. */
static int check_content(Ledger *l, const SweepRun *r, Err *e)
{
    for (int i = 0; i < r->source->contents; i++) {
        const SweepContent *c = &r->source->content[i];
        char key[IO_PATH_MAX + 32], now[HASH_HEX], *then = NULL;
        if (!c->hash) continue;
        snprintf(key, sizeof key, "data %s %s", c->split, c->path);
        hash_hex(c->hash, now);
        if (ledger_note_get(l, key, &then, e)) return -1;
        bool other = then && strcmp(then, now) != 0;
        int rc = then ? 0 : ledger_note_set(l, key, now, e);
        if (other)
            err_set(e, "%s: %s (%s) holds other data than when this sweep was begun: %s then, %s "
                    "now", r->s->out, c->path, c->split, then, now);
        free(then);
        if (other)
            return err_hint(e, "give another sweep.out, or put the old data back: runs on different"
                            " text are no points of one study");
        if (rc) return -1;
    }
    return 0;
}

int sweep_record_read(SweepRecord *out, const char *folder, Err *e)
{
    char path[IO_PATH_MAX];
    *out = (SweepRecord){0};
    if (io_join(path, folder, "ledger.sqlite", e)) return -1;
    if (!io_exists(path)) return 0;
    Ledger *l = ledger_open(folder, true, e);
    if (!l) return -1;
    int rc = ledger_cells(l, &out->have, &out->n, e);
    ledger_close(&l);
    return rc;
}

/* The base configuration as the study's folder keeps it; another one there is an error. */
static int keep_base(const SweepConfig *s, Err *e)
{
    char path[IO_PATH_MAX], *text, *old = NULL;
    size_t size, old_size = 0;
    if (io_join(path, s->out, "base.yaml", e) || io_read_all(s->base, BASE_MAX, &text, &size, e))
        return -1;
    int rc = io_exists(path) ? io_read_all(path, BASE_MAX, &old, &old_size, e)
                             : io_write_atomic(path, text, size, e);
    if (!rc && old && (size != old_size || memcmp(text, old, size) != 0)) {
        rc = err_set(e, "%s is not %s, which this sweep was begun with", s->base, path);
        err_hint(e, "give another sweep.out, or put the old text back");
    }
    free(text);
    free(old);
    return rc;
}

static int more(void *self, const LedgerCell *have, int n, CellList *out, Err *e)
{
    const SweepRun *r = self;
    if (!r->adapt) return 0;
    if (sweep_more(r->s, r->inspector, have, n, out, e)) return -1;
    int run = 0;
    for (int i = 0; i < out->count; i++) {
        const Cell *c = &out->cell[i];
        run += !c->left_out[0];
        if (c->left_out[0]) log_info("%s: %s", c->name, c->left_out);
    }
    if (run) log_info("%d cells added: a least loss is not bracketed yet", run);
    return 0;
}

static void show(void *self, const DriverProgress *p)
{
    static double last;
    char line[512];
    (void)self;
    if (p->event) log_info("%s", p->event);
    if (log_seconds() - last < SHOW_SECONDS) return;
    driver_progress_line(p, line, sizeof line);
    last = log_seconds();
    log_info("%s", line);
}

/* Which least losses have no two sizes on each side; of a comparison at one size none has. */
static int say_brackets(Ledger *l, const SweepRun *r, Err *e)
{
    SweepBracket *b = malloc(SWEEP_BUDGETS * SWEEP_VARIANTS * sizeof *b);
    LedgerCell *cells = NULL;
    int n = 0, count = 0, rc = -1;
    if (!b)
        err_set(e, "out of memory");
    else if (!ledger_cells(l, &cells, &n, e))
        rc = sweep_brackets(r->s, r->inspector, cells, n, b, &count, e);
    for (int i = 0; i < count && !rc && (r->s->sizes > 1 || r->s->adaptive); i++)
        if (b[i].below < 2 || b[i].above < 2)
            log_warn("%g FLOPs%s%s: the least loss has %d sizes below and %d above: it is not "
                     "bracketed by two on each side: %s", b[i].budget, b[i].variant ? ", " : "",
                     b[i].variant ? b[i].variant : "", b[i].below, b[i].above, b[i].why);
    free(b);
    free(cells);
    return rc;
}

/* Did the cell itself diverge, or a trunk that it would have started from? */
static bool diverged(const LedgerCell *all, int n, const LedgerCell *c)
{
    while (c && c->state != STATE_DIVERGED) {
        const LedgerCell *parent = NULL;
        for (int i = 0; i < n && !parent && c->cell.parent[0]; i++)
            if (!strcmp(all[i].cell.id, c->cell.parent)) parent = &all[i];
        c = c->state == STATE_FAILED ? parent : NULL;
    }
    return c != NULL;
}

typedef struct Outcome { /* of the study's points, or of a check of its own */
    int done, diverged, other; /* other: failed, cancelled, left out */
} Outcome;

static int find_outcome(Ledger *l, const SweepRun *r, const CellList *asked, Outcome *o, Err *e)
{
    LedgerCell *all = NULL;
    int n = 0;
    *o = (Outcome){0};
    if (ledger_cells(l, &all, &n, e)) return -1;
    for (int i = 0; i < n; i++) {
        bool counts = r->adapt && all[i].cell.kind == CELL_POINT;
        for (int j = 0; j < asked->count && !r->adapt; j++)
            counts |= !strcmp(all[i].cell.id, asked->cell[j].id);
        if (!counts) continue;
        if (all[i].state == STATE_DONE) o->done++;
        else if (diverged(all, n, &all[i])) o->diverged++;
        else if (!all[i].cell.left_out[0]) o->other++;
    }
    free(all);
    return 0;
}

/* What became of all cells; failed ones are an error, and a study that has nothing to show. */
static int sum_up(Ledger *l, const SweepRun *r, const CellList *asked, Err *e)
{
    const char *folder = r->s->out;
    int n[CELL_STATES];
    Outcome o;
    if (ledger_counts(l, n, e) || say_brackets(l, r, e) || find_outcome(l, r, asked, &o, e))
        return EXIT_FAILED;
    log_info("%s: %d done, %d diverged, %d failed, %d cancelled or left out", folder,
             n[STATE_DONE], n[STATE_DIVERGED], n[STATE_FAILED], n[STATE_CANCELLED]);
    if (n[STATE_DIVERGED]) log_warn("diverged cells are no points: isomoe sweep status %s", folder);
    if (!o.done && !o.other && o.diverged) {
        err_set(e, "%s: no point is done: %d of %d diverged", folder, o.diverged, o.diverged);
        err_hint(e, "lower rate.value or rate.factor, and give another sweep.out");
        return EXIT_DIVERGED;
    }
    if (!n[STATE_FAILED] && o.done) return EXIT_DONE;
    if (!n[STATE_FAILED])
        err_set(e, "%s: no point is done: all were left out, cancelled or diverged", folder);
    else
        err_set(e, "%s: %d cell%s failed", folder, n[STATE_FAILED],
                n[STATE_FAILED] == 1 ? "" : "s");
    err_hint(e, "isomoe sweep status %s says why, isomoe sweep retry %s plans them again", folder,
             folder);
    return EXIT_FAILED;
}

/* The same text but for its numbers? */
static bool same_reason(const char *a, const char *b)
{
    static const char numbers[] = "0123456789.+-";
    for (;; a++, b++) {
        a += strspn(a, numbers);
        b += strspn(b, numbers);
        if (*a != *b) return false;
        if (!*a) return true;
    }
}

/* A study without a cell that can be run is an error that counts the reasons. */
static int check_runnable(const SweepRun *r, const CellList *l, Err *e)
{
    char text[ERR_MESSAGE_MAX / 2] = "";
    size_t used = 0;
    for (int i = 0; i < l->count; i++)
        if (!l->cell[i].left_out[0]) return 0;
    if (!r->adapt && l->count)
        return err_set(e, "%s: the check %s cannot be run: %s", r->s->name, l->cell[0].name,
                       l->cell[0].left_out);
    for (int i = 0; i < l->count && used < sizeof text; i++) {
        int before = 0, same = 0;
        for (int j = 0; j < l->count; j++)
            if (same_reason(l->cell[i].left_out, l->cell[j].left_out)) {
                before += j < i;
                same++;
            }
        if (before) continue;
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%d: %s", used ? "; " : "",
                                 same, l->cell[i].left_out);
    }
    err_set(e, "%s: none of its %d cells can be run: %s", r->s->name, l->count, text);
    return err_hint(e, "isomoe sweep SWEEP.yaml --dry-run shows them all");
}

/* Cells of a ledger of version 1 get what it had no columns for. */
static int fill_experts(Ledger *l, const SweepRun *r, Err *e)
{
    CellList list = {0};
    int rc = 0;
    for (int i = 0; i < r->record->n && !rc; i++) {
        Cell c = r->record->have[i].cell;
        CellFacts f;
        Err refused = {0};
        if (c.left_out[0] || !isnan(c.experts)) continue;
        if (r->inspector->inspect(r->inspector->self, c.overrides, &f, &refused)) continue;
        cell_experts(&f.model, &c);
        rc = cell_list_add(&list, &c, e);
    }
    if (!rc && list.count) rc = ledger_add(l, &list, NULL, e);
    cell_list_clear(&list);
    return rc;
}

/* All that is written before a driver begins. */
static int enter(Ledger *l, const SweepRun *r, const CellList *cells, Err *e)
{
    bool cancelled;
    if (check_content(l, r, e) || fill_experts(l, r, e) || add_cells(l, r, cells, e)) return -1;
    if (ledger_note_set(l, "name", r->s->name, e)) return -1;
    if (ledger_critical_set(l, &r->s->critical, e)) return -1;
    if (r->note && ledger_note_set(l, r->note, r->note_text, e)) return -1;
    if (ledger_is_cancelled(l, &cancelled, e)) return -1;
    if (cancelled && r->adapt)
        log_info("this sweep was cancelled: no sizes are added until isomoe sweep retry %s",
                 r->s->out);
    return 0;
}

/* Times the steps of a study that begins, for the first estimate of its end; what goes wrong is no
 * error of the study. The ledger takes the times from OUT/measured.json. */
static void measure_first(const SweepRun *r, const char *program, const CellList *cells)
{
    CellList list = {0};
    Err e = {0};
    int rc = 0;
    if (!r->s->measure || !r->adapt || r->record->n || !sweep_measure_is_short(cells)) return;
    for (int i = 0; i < cells->count && !rc; i++) rc = cell_list_add(&list, &cells->cell[i], &e);
    if (!rc) rc = sweep_measure(r->s, program, &list, &e);
    if (rc) log_warn("the time that is left is not known yet: %s", e.message);
    cell_list_clear(&list);
}

/* A check runs alone, on all the cores that the study had, as far as there are as many. */
static void give_all_cores(DriverOptions *o)
{
    int all = o->jobs * o->threads, here = launch_cores();
    if (all > here) all = here;
    if (all > o->threads) o->threads = all;
    o->jobs = 1;
}

int sweep_run(SweepRun *r, const CellList *cells, Err *e)
{
    const SweepConfig *s = r->s;
    char program[IO_PATH_MAX];
    DriverOptions o = {.folder = s->out, .program = program, .mode = r->mode,
                       .jobs = (int)s->jobs, .threads = (int)s->cores,
                       .tries = {(int)s->tries, 1, s->retry_rate},
                       .time_limit = s->time_limit > 0 ? s->time_limit : -1};
    DriverCalls calls = {.self = (void *)(uintptr_t)r, .more = more, .progress = show};
    int code = EXIT_FAILED;
    r->ended = false;
    if (check_runnable(r, cells, e)) return EXIT_FAILED;
    for (int i = 0; i < cells->count && !r->adapt; i++)
        log_info("%s: the check is %s: %.6g activated parameters, %.6g tokens%s", s->name,
                 cells->cell[i].name, cells->cell[i].N, cells->cell[i].D,
                 s->n_variants ? "; of the variants the first only" : "");
    bool local = !strcmp(r->mode->name, "local"); /* elsewhere the data may lie elsewhere */
    if (local && sweep_data(s, cells, r->record->have, r->record->n, e)) return EXIT_FAILED;
    if (local && !r->adapt) give_all_cores(&o);
    if (sweep_program(program, e) || io_make_dirs(s->out, e) || keep_base(s, e))
        return EXIT_FAILED;
    if (local) measure_first(r, program, cells);
    Ledger *l = ledger_open(s->out, false, e);
    if (!l) return EXIT_FAILED;
    if (!enter(l, r, cells, e)) {
        DriverEnd end = driver_run(l, &o, &calls, e);
        if (end == DRIVER_STOPPED) code = EXIT_STOPPED;
        if (end == DRIVER_DONE) code = sum_up(l, r, cells, e);
        r->ended = end == DRIVER_DONE && code != EXIT_DIVERGED;
    }
    ledger_close(&l);
    return code;
}

/* ---- What is asked of a sweep -----------------------------------------------------------------*/

/* By the names that `isomoe fit` knows columns by. */
static json_t *model_json(const LedgerCell *l, const CriticalBatch *law)
{
    const Cell *c = &l->cell;
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "C_min",
                     json_out_real(ledger_c_min(l, law)), "N", json_out_real(c->N),
                     "N_total", json_out_real(c->N_total), "D", json_out_real(c->D), "C",
                     json_out_real(c->C), "experts", json_out_real(c->experts), "top_k",
                     json_out_real(c->top_k), "granularity", json_out_real(c->granularity),
                     "sparsity", json_out_real(c->sparsity));
}

static json_t *status_json(const LedgerCell *c, int n, const CriticalBatch *law)
{
    json_t *list = json_array();
    for (int i = 0; list && i < n; i++) {
        json_t *o = json_pack(
            "{s:s, s:s, s:s, s:i, s:o, s:o, s:o, s:o, s:o}", "id", c[i].cell.id, "name",
            c[i].cell.name, "state", cell_state_name(c[i].state), "tries", c[i].tries, "lr_factor",
            json_out_real(c[i].lr_factor), "loss", json_out_real(c[i].result.loss), "seconds",
            json_out_real(c[i].result.seconds), "reason",
            json_out_text(c[i].reason, strlen(c[i].reason)), "left_out",
            json_out_text(c[i].cell.left_out, strlen(c[i].cell.left_out)));
        json_t *model = model_json(&c[i], law);
        if (json_object_update(o, model) || json_array_append_new(list, o)) {
            json_decref(list);
            list = NULL;
        }
        json_decref(model);
    }
    return list;
}

/* A reason in one line: a hint stands on a second one. */
static const char *one_line(char out[CELL_REASON], const char *reason)
{
    snprintf(out, CELL_REASON, "%s", reason);
    for (char *p = out; (p = strchr(p, '\n')); ) *p = ' ';
    return out;
}

static void print_status(const LedgerCell *c, int n)
{
    int counts[CELL_STATES] = {0};
    printf("%-36s %-10s %5s %8s %9s  %s\n", "cell", "state", "tries", "loss", "seconds", "");
    for (int i = 0; i < n; i++) {
        const char *why = c[i].cell.left_out[0] ? c[i].cell.left_out : c[i].reason;
        char loss[16] = "-", seconds[16] = "-", line[CELL_REASON];
        counts[c[i].state]++;
        if (isfinite(c[i].result.loss)) snprintf(loss, sizeof loss, "%.4f", c[i].result.loss);
        if (c[i].result.seconds > 0)
            snprintf(seconds, sizeof seconds, "%.1f", c[i].result.seconds);
        printf("%-36s %-10s %5d %8s %9s  %s\n", c[i].cell.name, cell_state_name(c[i].state),
               c[i].tries, loss, seconds, one_line(line, why));
    }
    for (int i = 0; i < CELL_STATES; i++)
        if (counts[i]) printf("%d %s  ", counts[i], cell_state_name((CellState)i));
    putchar('\n');
}

int sweep_status(const char *folder, bool json, Err *e)
{
    LedgerCell *c = NULL;
    int n = 0, code = EXIT_FAILED;
    CriticalBatch law;
    Ledger *l = ledger_open(folder, true, e);
    if (!l) return EXIT_FAILED;
    if (!ledger_cells(l, &c, &n, e) && !ledger_critical_get(l, &law, e)) {
        if (json) {
            code = json_out_print(status_json(c, n, &law), e);
        } else {
            print_status(c, n);
            code = stdout_finish(e);
        }
    }
    free(c);
    ledger_close(&l);
    return code;
}

/* Of a folder that has one: opened for writing, a ledger would be made in any other. */
static Ledger *open_known(const char *folder, Err *e)
{
    char path[IO_PATH_MAX];
    if (io_join(path, folder, "ledger.sqlite", e)) return NULL;
    if (io_exists(path)) return ledger_open(folder, false, e);
    err_set(e, "%s: is no sweep's folder: it has no ledger.sqlite", folder);
    err_hint(e, "give the folder that sweep.out names");
    return NULL;
}

/* One of the two, and how many cells it changed. */
static int change(const char *folder, const char *which, const char *done,
                  int (*call)(Ledger *l, const char *which, int *changed, Err *e), Err *e)
{
    int n;
    Ledger *l = open_known(folder, e);
    if (!l) return EXIT_FAILED;
    int rc = call(l, which, &n, e);
    if (!rc) printf("%d cell%s %s\n", n, n == 1 ? "" : "s", done);
    ledger_close(&l);
    return rc ? EXIT_FAILED : stdout_finish(e);
}

int sweep_retry(const char *folder, const char *which, Err *e)
{
    return change(folder, which, "planned again", ledger_retry, e);
}

int sweep_cancel(const char *folder, const char *which, Err *e)
{
    return change(folder, which, "cancelled or asked to stop", ledger_cancel, e);
}
