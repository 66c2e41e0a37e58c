/* scaling/ledger_driver.c - what drivers do in a ledger: join, take cells, end them; and how cells
 * of drivers that no longer live come back. */
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scaling/ledger_sql.h"
#include "scaling/process.h"

/* A driver whose process cannot be seen counts as gone when its heartbeat is older, by the clock of
 * the day and by that of the machine. */
#define LEASE_SECONDS 180.0

/* ---- Who lives --------------------------------------------------------------------------------*/

typedef struct DriverRow {
    int64_t id;
    ProcessId process;
    double beat_wall, beat_monotonic;
} DriverRow;

static void copy_text(char *out, size_t size, sqlite3_stmt *s, int column)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    snprintf(out, size, "%s", text ? text : "");
}

static bool is_gone(const DriverRow *d)
{
    ProcessLife life = process_life(&d->process);
    if (life != PROCESS_UNSEEN) return life == PROCESS_GONE;
    return process_wall() - d->beat_wall > LEASE_SECONDS &&
           process_monotonic() - d->beat_monotonic > LEASE_SECONDS;
}

/* A driver but this one that has not left and is gone; *found false: none. */
static int find_gone(Ledger *l, DriverRow *out, bool *found, Err *e)
{
    *found = false;
    sqlite3_stmt *s = sql_prepare(l, e, "SELECT id, pid, start, boot, pid_space, beat_wall,"
                                  " beat_monotonic FROM driver WHERE gone = 0 AND id <> ?", "i",
                                  l->driver);
    if (!s) return -1;
    int rc;
    while ((rc = sql_step(l, s, e)) > 0) {
        DriverRow d = {.id = sqlite3_column_int64(s, 0),
                       .process = {.pid = sqlite3_column_int64(s, 1),
                                   .start = sqlite3_column_int64(s, 2)},
                       .beat_wall = sqlite3_column_double(s, 5),
                       .beat_monotonic = sqlite3_column_double(s, 6)};
        copy_text(d.process.boot, sizeof d.process.boot, s, 3);
        copy_text(d.process.pid_space, sizeof d.process.pid_space, s, 4);
        if (!is_gone(&d)) continue;
        *out = d;
        *found = true;
        break;
    }
    sqlite3_finalize(s);
    return rc < 0 ? -1 : 0;
}

/* What a driver holds is planned again, or cancelled where that was asked for; it is gone. Cells
 * taken back, or -1. In a transaction. */
static int dissolve(Ledger *l, int64_t driver, const char *reason, Err *e)
{
    int cancelled = sql_run(l, e, "UPDATE cell SET state = 'cancelled', driver = NULL, stop = 0,"
                            " reason = 'cancelled on request', ended = ?2 WHERE driver = ?1 AND"
                            " stop = 1", "id", driver, process_wall());
    int planned = cancelled < 0 ? -1
                                : sql_run(l, e, "UPDATE cell SET state = 'planned', driver = NULL,"
                                          " reason = ?2 WHERE driver = ?1", "is", driver, reason);
    if (planned < 0 ||
        sql_run(l, e, "UPDATE driver SET gone = ? WHERE id = ?", "di", process_wall(), driver) < 0)
        return -1;
    return cancelled + planned;
}

static int reclaim(Ledger *l, int *reclaimed, Err *e)
{
    DriverRow d;
    char reason[128];
    bool found;
    for (;;) {
        if (find_gone(l, &d, &found, e)) return -1;
        if (!found) return 0;
        snprintf(reason, sizeof reason, "its driver %" PRId64 " (process %" PRId64 ") died", d.id,
                 d.process.pid);
        int n = dissolve(l, d.id, reason, e);
        if (n < 0) return -1;
        *reclaimed += n;
    }
}

/* ---- Join, beat, leave ------------------------------------------------------------------------*/

/* The lowest core behind which `cores` of them are no living driver's. */
static int free_cores(Ledger *l, int cores, int64_t *first, Err *e)
{
    *first = 0;
    sqlite3_stmt *s = sql_prepare(l, e, "SELECT first, cores FROM driver WHERE gone = 0 ORDER BY"
                                  " first", "");
    if (!s) return -1;
    int rc;
    while ((rc = sql_step(l, s, e)) > 0) {
        int64_t at = sqlite3_column_int(s, 0), behind = at + sqlite3_column_int(s, 1);
        if (at - *first >= cores) break;
        if (behind > *first) *first = behind;
    }
    sqlite3_finalize(s);
    return rc < 0 ? -1 : 0;
}

int ledger_join(Ledger *l, int cores, int *first, Err *e)
{
    ProcessId self = process_self();
    int64_t at = 0;
    int reclaimed = 0;
    if (sql_begin(l, e)) return -1;
    int rc = reclaim(l, &reclaimed, e);
    if (!rc) rc = free_cores(l, cores, &at, e);
    if (!rc)
        rc = sql_run(l, e, "INSERT INTO driver(pid, start, boot, pid_space, cores, joined,"
                     " beat_wall, beat_monotonic, first) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7,"
                     " ?8)", "iissiddi", self.pid, self.start, self.boot, self.pid_space,
                     (int64_t)cores, process_wall(), process_monotonic(), at) < 0 ? -1 : 0;
    int64_t id = sqlite3_last_insert_rowid(l->db);
    if (sql_end(l, rc, e)) return -1;
    l->driver = id;
    *first = (int)(at < INT_MAX / 2 ? at : INT_MAX / 2); /* room for a sum with it */
    return 0;
}

/* -1 with e filled for a driver that others took for dead: what it held is no longer its own, and
 * no one would take back what it took now. */
static int check_living(Ledger *l, Err *e)
{
    int64_t living;
    if (sql_number(l, e, &living, "SELECT count(*) FROM driver WHERE id = ? AND gone = 0", "i",
                   l->driver))
        return -1;
    if (living) return 0;
    err_set(e, "%s: this driver did not move for more than %.0f s and was taken for dead; its cells"
            " are planned again", l->path, LEASE_SECONDS);
    return err_hint(e, "start it again: its trainers go on from their checkpoints");
}

int ledger_beat(Ledger *l, int *reclaimed, Err *e)
{
    int n = 0;
    CHECK(l->driver, "%s: ledger_join comes first", l->path);
    if (sql_begin(l, e)) return -1;
    int rc = check_living(l, e);
    if (!rc)
        rc = sql_run(l, e, "UPDATE driver SET beat_wall = ?, beat_monotonic = ? WHERE id = ?",
                     "ddi", process_wall(), process_monotonic(), l->driver) < 0 ? -1 : 0;
    if (!rc) rc = reclaim(l, &n, e);
    if (sql_end(l, rc, e)) return -1;
    if (reclaimed) *reclaimed = n;
    return 0;
}

int ledger_leave(Ledger *l, Err *e)
{
    if (!l->driver) return 0;
    if (sql_begin(l, e)) return -1;
    int rc = dissolve(l, l->driver, "its driver left", e) < 0 ? -1 : 0;
    if (sql_end(l, rc, e)) return -1;
    l->driver = 0;
    return 0;
}

/* ---- A cell's way -----------------------------------------------------------------------------*/

static int take(Ledger *l, LedgerCell *out, double *parent_factor, bool *found, Err *e)
{
    char names[LEDGER_TEXT], sql[LEDGER_TEXT + 512];
    snprintf(sql, sizeof sql,
             "SELECT %s, c.seq, coalesce(p.lr_factor, 1) FROM cell c LEFT JOIN cell p"
             " ON p.id = c.parent WHERE c.state = 'planned' AND (c.parent = '' OR p.state = 'done')"
             " ORDER BY c.seq LIMIT 1", ledger_columns(l, names, "c."));
    sqlite3_stmt *s = sql_prepare(l, e, sql, "");
    if (!s) return -1;
    int rc = sql_step(l, s, e);
    *found = rc > 0;
    if (rc > 0) rc = ledger_row(l, s, 0, out, e);
    int64_t seq = *found ? sqlite3_column_int64(s, ledger_column_count()) : 0;
    *parent_factor = *found ? sqlite3_column_double(s, ledger_column_count() + 1) : 1;
    sqlite3_finalize(s);
    if (rc || !*found) return rc < 0 ? -1 : 0;
    out->lr_factor = fmin(out->lr_factor, *parent_factor);
    out->state = STATE_RUNNING;
    out->started = process_wall();
    out->ended = 0;
    return sql_run(l, e, "UPDATE cell SET state = 'running', driver = ?, lr_factor = ?,"
                   " started = ?, ended = 0, stop = 0, with_parent = 0, reason = '' WHERE seq = ?",
                   "iddi", l->driver, out->lr_factor, out->started, seq) < 0 ? -1 : 0;
}

int ledger_take(Ledger *l, LedgerCell *out, double *parent_factor, bool *found, Err *e)
{
    CHECK(l->driver, "%s: ledger_join comes first", l->path);
    *found = false;
    if (sql_begin(l, e)) return -1;
    int rc = check_living(l, e);
    return sql_end(l, rc ? rc : take(l, out, parent_factor, found, e), e);
}

/* -1 with e filled unless one row was changed. */
static int one(const Ledger *l, int changed, const char *id, Err *e)
{
    if (changed == 1) return 0;
    if (changed < 0) return -1;
    return err_set(e, "%s: the cell %s is not held by this driver", l->path, id);
}

int ledger_finish(Ledger *l, const char *id, double lr_factor, const CellResult *r, Err *e)
{
    if (sql_begin(l, e)) return -1;
    int n = sql_run(l, e,
                    "UPDATE cell SET state = 'done', driver = NULL, stop = 0, tries = tries + 1,"
                    " loss = ?, train_loss = ?, tokens = ?, flops = ?, seconds = ?, b_noise = ?,"
                    " steps_done = ?, reason = '', ended = ?, lr_factor = coalesce(nullif(?, 0.0),"
                    " lr_factor) WHERE id = ? AND driver = ? AND state = 'running'", "ddddddiddsi",
                    r->loss, r->train_loss, r->tokens, r->flops, r->seconds, r->b_noise, r->steps,
                    process_wall(), lr_factor, id, l->driver);
    return sql_end(l, one(l, n, id, e), e);
}

/* The state that follows a try's end; STATE_PLANNED: once more. */
static int follow(Ledger *l, const char *id, CellState how, const LedgerTries *t, CellState *now,
                  Err *e)
{
    int64_t again;
    *now = how;
    const char *sql = "SELECT divergences <= ? FROM cell WHERE id = ?";
    if (how == STATE_CANCELLED) return 0;
    if (how != STATE_DIVERGED) sql = "SELECT tries - divergences < ? FROM cell WHERE id = ?";
    if (sql_number(l, e, &again, sql, "is",
                   (int64_t)(how == STATE_DIVERGED ? t->diverged : t->most), id))
        return -1;
    if (!again) return 0;
    *now = STATE_PLANNED;
    return sql_run(l, e, "UPDATE cell SET state = 'planned', lr_factor = lr_factor * ?"
                   " WHERE id = ?", "ds", how == STATE_DIVERGED ? t->lower : 1.0, id) < 0 ? -1 : 0;
}

/* What starts from a cell that is given up has no future either. */
static int give_up(Ledger *l, const char *id, CellState how, const char *reason, Err *e)
{
    const char *state = how == STATE_CANCELLED ? "cancelled" : "failed";
    return sql_run(l, e,
                   "WITH RECURSIVE down(id) AS (SELECT id FROM cell WHERE parent = ?1 UNION SELECT"
                   " cell.id FROM cell JOIN down ON cell.parent = down.id)"
                   " UPDATE cell SET state = ?2, with_parent = 1, ended = ?4, reason = substr("
                   "'what it starts from, ' || (SELECT name FROM cell WHERE id = ?1) || ', ' || ?5"
                   " || ': ' || ?3, 1, 500) WHERE id IN down AND state = 'planned'", "sssds", id,
                   state, reason, process_wall(), cell_state_name(how)) < 0 ? -1 : 0;
}

/* *asked: the cell of ours is to be cancelled, and its driver has not yet heeded that. */
static int is_asked(Ledger *l, const char *id, bool *asked, Err *e)
{
    int64_t n;
    int rc = sql_number(l, e, &n, "SELECT count(*) FROM cell WHERE id = ? AND driver = ? AND"
                        " stop = 1", "si", id, l->driver);
    *asked = n > 0;
    return rc;
}

int ledger_end_try(Ledger *l, const char *id, CellState how, const char *reason,
                   const LedgerTries *tries, CellState *now, Err *e)
{
    CHECK(how == STATE_DIVERGED || how == STATE_FAILED || how == STATE_PREEMPTED ||
          how == STATE_CANCELLED, "%d", (int)how);
    *now = how;
    bool asked;
    if (sql_begin(l, e)) return -1;
    if (is_asked(l, id, &asked, e)) return sql_end(l, -1, e);
    if (asked && how != STATE_CANCELLED) {
        *now = how = STATE_CANCELLED;
        reason = "cancelled on request";
    }
    int n = sql_run(l, e,
                    "UPDATE cell SET state = ?, driver = NULL, stop = 0, tries = tries + 1,"
                    " divergences = divergences + ?, reason = substr(?, 1, 500), ended = ?"
                    " WHERE id = ? AND driver = ? AND state = 'running'", "sisdsi",
                    cell_state_name(how), (int64_t)(how == STATE_DIVERGED), reason, process_wall(),
                    id, l->driver);
    int rc = one(l, n, id, e);
    if (!rc) rc = follow(l, id, how, tries, now, e);
    if (!rc && *now != STATE_PLANNED) rc = give_up(l, id, how, reason, e);
    return sql_end(l, rc, e);
}

int ledger_hand_back(Ledger *l, const char *id, const char *reason, Err *e)
{
    bool asked;
    if (sql_begin(l, e)) return -1;
    if (is_asked(l, id, &asked, e)) return sql_end(l, -1, e);
    if (asked) reason = "cancelled on request";
    int n = sql_run(l, e, "UPDATE cell SET state = ?5, driver = NULL, stop = 0, ended = ?1, reason"
                    " = substr(?2, 1, 500) WHERE id = ?3 AND driver = ?4 AND state = 'running'",
                    "dssis", process_wall(), reason, id, l->driver,
                    cell_state_name(asked ? STATE_CANCELLED : STATE_PREEMPTED));
    int rc = one(l, n, id, e);
    if (!rc && asked) rc = give_up(l, id, STATE_CANCELLED, reason, e);
    if (!rc && !asked)
        rc = sql_run(l, e, "UPDATE cell SET state = 'planned' WHERE id = ?", "s", id) < 0 ? -1 : 0;
    return sql_end(l, rc, e);
}

int ledger_requests(Ledger *l, char (**ids)[17], int *count, Err *e)
{
    int64_t most;
    *ids = NULL;
    *count = 0;
    if (sql_number(l, e, &most, "SELECT count(*) FROM cell WHERE driver = ? AND stop = 1", "i",
                   l->driver))
        return -1;
    if (!most) return 0;
    *ids = calloc((size_t)most, sizeof **ids);
    if (!*ids) return err_set(e, "%s: out of memory", l->path);
    sqlite3_stmt *s = sql_prepare(l, e, "SELECT id FROM cell WHERE driver = ? AND stop = 1", "i",
                                  l->driver);
    int rc = s ? 0 : -1;
    while (!rc && *count < most && (rc = sql_step(l, s, e)) > 0) {
        copy_text((*ids)[(*count)++], sizeof **ids, s, 0);
        rc = 0;
    }
    sqlite3_finalize(s);
    return rc < 0 ? -1 : 0;
}
