/* scaling/ledger_sql.c - see ledger_sql.h. */
#include "scaling/ledger_sql.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* ---- Errors -----------------------------------------------------------------------------------*/

static const struct { int code; const char *hint; } hints[] = {
    {SQLITE_BUSY, "another process has held it for too long: look with `fuser`, or try again"},
    {SQLITE_LOCKED, "another process has held it for too long: look with `fuser`, or try again"},
    {SQLITE_FULL, "the disk is full: make room and start again; nothing that was recorded is lost"},
    {SQLITE_IOERR, "the disk is full or fails: see the kernel's log, then start again"},
    {SQLITE_READONLY, "the file or its folder may not be written"},
    {SQLITE_CANTOPEN, "the folder must exist and be writable"},
    {SQLITE_CORRUPT, "the file is damaged: move it aside and start again; cells that are finished "
                     "are taken in from their folders"},
    {SQLITE_NOTADB, "the file is damaged, or is something else: move it aside and start again; "
                    "cells that are finished are taken in from their folders"},
};

int sql_fail(const Ledger *l, const char *what, Err *e)
{
    int code = sqlite3_errcode(l->db) & 0xff;
    err_set(e, "%s: cannot %s: %s", l->path, what, sqlite3_errmsg(l->db));
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        if (hints[i].code == code) return err_hint(e, "%s", hints[i].hint);
    return -1;
}

/* ---- Statements -------------------------------------------------------------------------------*/

static sqlite3_stmt *prepare(Ledger *l, Err *e, const char *sql, const char *types, va_list args)
{
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(l->db, sql, -1, &s, NULL)) {
        sql_fail(l, "be read", e);
        return NULL;
    }
    for (int i = 0; types[i]; i++) {
        int rc = SQLITE_MISUSE;
        if (types[i] == 's')
            rc = sqlite3_bind_text(s, i + 1, va_arg(args, const char *), -1, SQLITE_TRANSIENT);
        else if (types[i] == 'i')
            rc = sqlite3_bind_int64(s, i + 1, va_arg(args, int64_t));
        else if (types[i] == 'd')
            rc = sqlite3_bind_double(s, i + 1, va_arg(args, double));
        CHECK(rc == SQLITE_OK || rc == SQLITE_NOMEM || rc == SQLITE_TOOBIG, "%s: %d", sql, rc);
        if (rc) {
            sql_fail(l, "be read", e);
            sqlite3_finalize(s);
            return NULL;
        }
    }
    return s;
}

sqlite3_stmt *sql_prepare(Ledger *l, Err *e, const char *sql, const char *types, ...)
{
    va_list args;
    va_start(args, types);
    sqlite3_stmt *s = prepare(l, e, sql, types, args);
    va_end(args);
    return s;
}

int sql_step(Ledger *l, sqlite3_stmt *s, Err *e)
{
    int rc = sqlite3_step(s);
    if (rc == SQLITE_ROW) return 1;
    if (rc == SQLITE_DONE) return 0;
    return sql_fail(l, sqlite3_stmt_readonly(s) ? "be read" : "be written", e);
}

int sql_run(Ledger *l, Err *e, const char *sql, const char *types, ...)
{
    va_list args;
    va_start(args, types);
    sqlite3_stmt *s = prepare(l, e, sql, types, args);
    va_end(args);
    if (!s) return -1;
    int rc;
    do rc = sql_step(l, s, e);
    while (rc > 0);
    int changed = sqlite3_changes(l->db);
    sqlite3_finalize(s);
    return rc ? -1 : changed;
}

int sql_number(Ledger *l, Err *e, int64_t *out, const char *sql, const char *types, ...)
{
    va_list args;
    va_start(args, types);
    sqlite3_stmt *s = prepare(l, e, sql, types, args);
    va_end(args);
    *out = 0;
    if (!s) return -1;
    int rc = sql_step(l, s, e);
    if (rc > 0) *out = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return rc < 0 ? -1 : 0;
}

int sql_begin(Ledger *l, Err *e)
{
    return sql_run(l, e, "BEGIN IMMEDIATE", "") < 0 ? -1 : 0;
}

int sql_end(Ledger *l, int rc, Err *e)
{
    if (!rc && sql_run(l, e, "COMMIT", "") >= 0) return 0;
    if (!sqlite3_get_autocommit(l->db)) sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
    return -1;
}

/* ---- Columns of a cell ------------------------------------------------------------------------*/

static const char *const kinds[] = {"trunk", "point", "check", NULL};
static const char *const states[] = {"planned", "running", "done", "diverged", "failed",
                                     "preempted", "cancelled", NULL};

typedef enum ColumnType {
    COLUMN_TEXT,
    COLUMN_NOTE, /* a text that may be cut short */
    COLUMN_WORD, COLUMN_INT, COLUMN_INT64, COLUMN_REAL
} ColumnType;

typedef struct Column {
    const char *name;
    ColumnType type;
    size_t offset, size;
    const char *const *words; /* of COLUMN_WORD: an enum's names */
} Column;

#define TEXT(column, member)                                                                       \
    {column, COLUMN_TEXT, offsetof(LedgerCell, member), sizeof(((LedgerCell *)0)->member), NULL}
#define NOTE(column, member)                                                                       \
    {column, COLUMN_NOTE, offsetof(LedgerCell, member), sizeof(((LedgerCell *)0)->member), NULL}
#define WORD(column, member, list) {column, COLUMN_WORD, offsetof(LedgerCell, member), 0, list}
#define INT(column, member) {column, COLUMN_INT, offsetof(LedgerCell, member), 0, NULL}
#define INT64(column, member) {column, COLUMN_INT64, offsetof(LedgerCell, member), 0, NULL}
#define REAL(column, member) {column, COLUMN_REAL, offsetof(LedgerCell, member), 0, NULL}

static const Column columns[] = {
    TEXT("id", cell.id),
    TEXT("name", cell.name),
    WORD("kind", cell.kind, kinds),
    TEXT("parent", cell.parent),
    REAL("budget", cell.budget),
    INT64("steps", cell.steps),
    INT64("batch", cell.batch),
    INT64("seq_len", cell.seq_len),
    INT64("seed", cell.seed),
    REAL("N", cell.N),
    REAL("N_no_embed", cell.N_no_embed),
    REAL("N_total", cell.N_total),
    REAL("D", cell.D),
    REAL("C", cell.C),
    REAL("own_flops", cell.own_flops),
    REAL("lr", cell.lr),
    REAL("lr_law_ratio", cell.lr_law_ratio),
    REAL("batch_law_ratio", cell.batch_law_ratio),
    INT64("memory", cell.memory),
    REAL("estimate", cell.seconds),
    TEXT("overrides", cell.overrides),
    NOTE("left_out", cell.left_out),
    WORD("state", state, states),
    INT("tries", tries),
    REAL("lr_factor", lr_factor),
    REAL("loss", result.loss),
    REAL("train_loss", result.train_loss),
    REAL("tokens", result.tokens),
    REAL("flops", result.flops),
    REAL("seconds", result.seconds),
    REAL("b_noise", result.b_noise),
    INT64("steps_done", result.steps),
    NOTE("reason", reason),
    REAL("started", started),
    REAL("ended", ended),
    REAL("experts", cell.experts), /* from here on: since version 2 */
    REAL("top_k", cell.top_k),
    REAL("granularity", cell.granularity),
    REAL("sparsity", cell.sparsity),
};

enum { COLUMNS = sizeof columns / sizeof *columns, NEW_COLUMNS = 4 };

int ledger_column_count(void) { return COLUMNS; }

const char *cell_state_name(CellState s)
{
    return (int)s >= 0 && (int)s < CELL_STATES ? states[s] : "unknown";
}

const char *ledger_columns(const Ledger *l, char out[LEDGER_TEXT], const char *prefix)
{
    size_t n = 0;
    for (int i = 0; i < COLUMNS; i++) {
        bool there = l->version > 1 || i < COLUMNS - NEW_COLUMNS;
        n += (size_t)snprintf(out + n, LEDGER_TEXT - n, "%s%s%s", i ? ", " : "",
                              there ? prefix : "", there ? columns[i].name : "NULL");
    }
    CHECK(n < LEDGER_TEXT, "%zu", n);
    return out;
}

const char *ledger_declarations(char out[LEDGER_TEXT])
{
    static const char *const types[] = {"TEXT NOT NULL", "TEXT NOT NULL", "TEXT NOT NULL",
                                        "INTEGER NOT NULL", "INTEGER NOT NULL", "REAL"};
    size_t n = 0;
    for (int i = 0; i < COLUMNS; i++)
        n += (size_t)snprintf(out + n, LEDGER_TEXT - n, "%s%s %s", i ? ", " : "", columns[i].name,
                              types[columns[i].type]);
    CHECK(n < LEDGER_TEXT, "%zu", n);
    return out;
}

int ledger_widen(Ledger *l, Err *e)
{
    for (int i = COLUMNS - NEW_COLUMNS; i < COLUMNS; i++) {
        char sql[128];
        snprintf(sql, sizeof sql, "ALTER TABLE cell ADD COLUMN %s REAL", columns[i].name);
        if (sql_run(l, e, sql, "") < 0) return -1;
    }
    return 0;
}

/* -1: not of the column's type, too long, too large or no such word. */
static int read_column(sqlite3_stmt *s, int at, const Column *c, char *base)
{
    int type = sqlite3_column_type(s, at); /* before anything converts it */
    void *to = base + c->offset;
    if (c->type == COLUMN_REAL) {
        *(double *)to = type == SQLITE_FLOAT ? sqlite3_column_double(s, at) : NAN;
        return type == SQLITE_FLOAT || type == SQLITE_NULL ? 0 : -1;
    }
    if (c->type == COLUMN_INT64 || c->type == COLUMN_INT) {
        int64_t number = sqlite3_column_int64(s, at);
        if (type != SQLITE_INTEGER) return -1;
        if (c->type == COLUMN_INT64) return *(int64_t *)to = number, 0;
        return *(int *)to = (int)number, number >= INT_MIN && number <= INT_MAX ? 0 : -1;
    }
    if (type != SQLITE_TEXT) return -1;
    const char *text = (const char *)sqlite3_column_text(s, at);
    if (!text) return -1; /* no memory */
    if (c->type == COLUMN_NOTE) snprintf(to, c->size, "%s", text);
    if (c->type == COLUMN_TEXT) {
        if (strlen(text) >= c->size) return -1;
        memcpy(to, text, strlen(text) + 1);
    }
    if (c->type != COLUMN_WORD) return 0;
    for (int i = 0; c->words[i]; i++) {
        if (strcmp(text, c->words[i])) continue;
        *(int *)to = i;
        return 0;
    }
    return -1;
}

int ledger_row(Ledger *l, sqlite3_stmt *s, int first, LedgerCell *out, Err *e)
{
    *out = (LedgerCell){0};
    for (int i = 0; i < COLUMNS; i++) {
        if (!read_column(s, first + i, &columns[i], (char *)out)) continue;
        const char *text = (const char *)sqlite3_column_text(s, first + i);
        err_set(e, "%s: damaged: the cell '%.20s' has '%.60s' as %s", l->path, out->cell.id,
                text ? text : "nothing", columns[i].name);
        return err_hint(e, "move the file aside and start again; cells that are finished are taken "
                           "in from their folders");
    }
    return 0;
}

int ledger_bind(Ledger *l, sqlite3_stmt *s, const LedgerCell *cell, Err *e)
{
    int rc = 0;
    sqlite3_reset(s);
    for (int i = 0; i < COLUMNS && !rc; i++) {
        const char *at = (const char *)cell + columns[i].offset;
        switch (columns[i].type) {
        case COLUMN_TEXT:
        case COLUMN_NOTE: rc = sqlite3_bind_text(s, i + 1, at, -1, SQLITE_TRANSIENT); break;
        case COLUMN_WORD:
            rc = sqlite3_bind_text(s, i + 1, columns[i].words[*(const int *)at], -1, SQLITE_STATIC);
            break;
        case COLUMN_INT: rc = sqlite3_bind_int64(s, i + 1, *(const int *)at); break;
        case COLUMN_INT64: rc = sqlite3_bind_int64(s, i + 1, *(const int64_t *)at); break;
        case COLUMN_REAL: rc = sqlite3_bind_double(s, i + 1, *(const double *)at); break;
        }
    }
    return rc ? sql_fail(l, "be written", e) : 0;
}
