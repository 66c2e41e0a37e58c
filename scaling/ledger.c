/* scaling/ledger.c - the cells of a ledger: reading, adding, trying again, cancelling. */
#include "scaling/ledger.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scaling/ledger_sql.h"

#define RETRY_LOWER 0.5 /* of a diverged cell's rate */

/* ---- Reading ----------------------------------------------------------------------------------*/

int ledger_cells(Ledger *l, LedgerCell **out, int *count, Err *e)
{
    char names[LEDGER_TEXT], sql[LEDGER_TEXT + 64];
    int room = 0, rc = 0;
    *out = NULL;
    *count = 0;
    snprintf(sql, sizeof sql, "SELECT %s FROM cell ORDER BY seq", ledger_columns(l, names, ""));
    sqlite3_stmt *s = sql_prepare(l, e, sql, "");
    if (!s) return -1;
    while ((rc = sql_step(l, s, e)) > 0) {
        if (*count == room) {
            room = room ? 2 * room : 32;
            LedgerCell *grown = realloc(*out, (size_t)room * sizeof *grown);
            if (!grown) {
                rc = err_set(e, "%s: out of memory after %d cells", l->path, *count);
                break;
            }
            *out = grown;
        }
        if (ledger_row(l, s, 0, &(*out)[*count], e)) {
            rc = -1;
            break;
        }
        (*count)++;
    }
    sqlite3_finalize(s);
    if (!rc) return 0;
    free(*out);
    *out = NULL;
    *count = 0;
    return -1;
}

int ledger_counts(Ledger *l, int counts[CELL_STATES], Err *e)
{
    for (int i = 0; i < CELL_STATES; i++) counts[i] = 0;
    sqlite3_stmt *s = sql_prepare(l, e, "SELECT state, count(*) FROM cell GROUP BY state", "");
    if (!s) return -1;
    int rc;
    while ((rc = sql_step(l, s, e)) > 0) {
        const char *name = (const char *)sqlite3_column_text(s, 0);
        for (int i = 0; name && i < CELL_STATES; i++)
            if (!strcmp(name, cell_state_name((CellState)i))) counts[i] = sqlite3_column_int(s, 1);
    }
    sqlite3_finalize(s);
    return rc;
}

/* ---- Adding -----------------------------------------------------------------------------------*/

static int check_new(Ledger *l, const Cell *c, Err *e)
{
    int64_t found;
    if (sql_number(l, e, &found, "SELECT count(*) FROM cell WHERE name = ?", "s", c->name))
        return -1;
    if (found) {
        err_set(e, "%s: the name '%s' is taken by another cell", l->path, c->name);
        return err_hint(e, "the study has changed since this sweep was planned: give it a new "
                           "folder");
    }
    if (!c->parent[0]) return 0;
    if (sql_number(l, e, &found, "SELECT count(*) FROM cell WHERE id = ?", "s", c->parent))
        return -1;
    if (found) return 0;
    return err_set(e, "%s: the cell '%s' starts from %s, which is no cell before it", l->path,
                   c->name, c->parent);
}

static int add_one(Ledger *l, sqlite3_stmt *s, const Cell *c, int *added, Err *e)
{
    int64_t found;
    LedgerCell row = {.cell = *c, .lr_factor = 1};
    if (sql_number(l, e, &found, "SELECT count(*) FROM cell WHERE id = ?", "s", c->id)) return -1;
    if (found)
        return sql_run(l, e, "UPDATE cell SET experts = ?, top_k = ?, granularity = ?, sparsity ="
                       " ? WHERE id = ? AND experts IS NULL", "dddds", c->experts, c->top_k,
                       c->granularity, c->sparsity, c->id) < 0 ? -1 : 0; /* of version 1 */
    if (check_new(l, c, e)) return -1;
    if (c->left_out[0]) {
        row.state = STATE_CANCELLED;
        snprintf(row.reason, sizeof row.reason, "left out: %s", c->left_out);
    }
    CellResult *r = &row.result;
    r->loss = r->train_loss = r->tokens = r->flops = r->seconds = r->b_noise = NAN;
    if (ledger_bind(l, s, &row, e) || sql_step(l, s, e)) return -1;
    (*added)++;
    return 0;
}

int ledger_is_cancelled(Ledger *l, bool *cancelled, Err *e)
{
    int64_t n;
    int rc = sql_number(l, e, &n, "SELECT count(*) FROM note WHERE key = 'cancelled'", "");
    *cancelled = n > 0;
    return rc;
}

static int add(Ledger *l, const CellList *cells, bool by_itself, int *added, Err *e)
{
    char names[LEDGER_TEXT], sql[LEDGER_TEXT];
    int ignored, n = 0;
    if (!added) added = &ignored;
    *added = 0;
    ledger_columns(l, names, "");
    int at = snprintf(sql, sizeof sql, "INSERT INTO cell(%s) VALUES(", names);
    for (int i = 0; i < ledger_column_count(); i++)
        at += snprintf(sql + at, sizeof sql - (size_t)at, i ? ", ?" : "?");
    snprintf(sql + at, sizeof sql - (size_t)at, ")");
    if (sql_begin(l, e)) return -1;
    bool none = false;
    sqlite3_stmt *s = sql_prepare(l, e, sql, "");
    int rc = s ? 0 : -1;
    if (!rc && by_itself) rc = ledger_is_cancelled(l, &none, e);
    for (int i = 0; !rc && !none && i < cells->count; i++)
        rc = add_one(l, s, &cells->cell[i], &n, e);
    sqlite3_finalize(s);
    if (sql_end(l, rc, e)) return -1;
    *added = n;
    return 0;
}

int ledger_add(Ledger *l, const CellList *cells, int *added, Err *e)
{
    return add(l, cells, false, added, e);
}

int ledger_extend(Ledger *l, const CellList *cells, int *added, Err *e)
{
    return add(l, cells, true, added, e);
}

/* ---- Retry and cancel -------------------------------------------------------------------------*/

/* Puts the ids that `which` means into the temporary table `chosen`; in a transaction. */
static int choose(Ledger *l, const char *which, Err *e)
{
    if (sql_run(l, e, "CREATE TEMP TABLE IF NOT EXISTS chosen(id TEXT PRIMARY KEY)", "") < 0 ||
        sql_run(l, e, "DELETE FROM chosen", "") < 0)
        return -1;
    if (!which) return sql_run(l, e, "INSERT INTO chosen SELECT id FROM cell", "") < 0 ? -1 : 0;
    int n = sql_run(l, e, "INSERT INTO chosen SELECT id FROM cell WHERE id = ?1 OR name = ?1", "s",
                    which);
    if (n) return n < 0 ? -1 : 0;
    err_set(e, "%s: there is no cell '%.80s'", l->path, which);
    return err_hint(e, "isomoe sweep status lists ids and names");
}

/* The chosen ones, what stands in their way, and what was given up with any of these. */
static int widen_retry(Ledger *l, Err *e)
{
    return sql_run(l, e,
                   "WITH RECURSIVE up(id) AS (SELECT id FROM chosen UNION SELECT cell.parent"
                   " FROM cell JOIN up USING(id) WHERE cell.parent <> ''),"
                   " down(id) AS (SELECT up.id FROM up JOIN cell USING(id) WHERE cell.state IN"
                   " ('failed', 'diverged', 'cancelled', 'preempted') UNION SELECT cell.id"
                   " FROM cell JOIN down ON cell.parent = down.id WHERE cell.with_parent = 1)"
                   " INSERT OR IGNORE INTO chosen SELECT id FROM up UNION SELECT id FROM down",
                   "") < 0 ? -1 : 0;
}

int ledger_retry(Ledger *l, const char *which, int *changed, Err *e)
{
    int n = -1;
    if (changed) *changed = 0;
    if (sql_begin(l, e)) return -1;
    int rc = choose(l, which, e);
    if (!rc) rc = widen_retry(l, e);
    if (!rc) {
        n = sql_run(l, e,
                    "UPDATE cell SET state = 'planned', tries = 0, divergences = 0, stop = 0,"
                    " with_parent = 0, reason = 'asked to be tried again: ' || substr(reason, 1,"
                    " 400), lr_factor = CASE state WHEN 'diverged' THEN lr_factor * ? ELSE"
                    " lr_factor END WHERE id IN chosen AND left_out = '' AND state IN"
                    " ('failed', 'diverged', 'cancelled', 'preempted')", "d", RETRY_LOWER);
        rc = n < 0 ? -1 : 0;
    }
    if (!rc && !which)
        rc = sql_run(l, e, "DELETE FROM note WHERE key = 'cancelled'", "") < 0 ? -1 : 0;
    if (sql_end(l, rc, e)) return -1;
    if (changed) *changed = n;
    return 0;
}

int ledger_cancel(Ledger *l, const char *which, int *changed, Err *e)
{
    int planned = 0, asked = 0;
    if (changed) *changed = 0;
    if (sql_begin(l, e)) return -1;
    int rc = choose(l, which, e);
    if (!rc) {
        asked = sql_run(l, e, "UPDATE cell SET stop = 1 WHERE id IN chosen AND state = 'running'",
                        "");
        planned = sql_run(l, e,
                          "WITH RECURSIVE down(id) AS (SELECT id FROM chosen UNION SELECT cell.id"
                          " FROM cell JOIN down ON cell.parent = down.id)"
                          " UPDATE cell SET state = 'cancelled', with_parent = id NOT IN chosen,"
                          " reason = CASE WHEN id IN chosen THEN 'cancelled on request' ELSE"
                          " 'what it starts from was cancelled' END"
                          " WHERE id IN down AND state = 'planned'", "");
        rc = asked < 0 || planned < 0 ? -1 : 0;
    }
    if (!rc && !which) rc = ledger_note_set(l, "cancelled", "all", e);
    if (sql_end(l, rc, e)) return -1;
    if (changed) *changed = asked + planned;
    return 0;
}
