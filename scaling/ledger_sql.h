/* scaling/ledger_sql.h - inside of the ledger: statements and transactions, with SQLite's errors as
 * Err. Included by scaling/ledger*.c and their tests alone. */
#ifndef ISOMOE_SCALING_LEDGER_SQL_H
#define ISOMOE_SCALING_LEDGER_SQL_H

#include <sqlite3.h>

#include "base/io.h"
#include "scaling/ledger.h"

enum { LEDGER_APPLICATION = 0x69734d4c, LEDGER_VERSION = 2, LEDGER_TEXT = 8192 };

struct Ledger {
    sqlite3 *db;
    char path[IO_PATH_MAX];
    bool read_only;
    int64_t driver; /* of this process; 0: it is none */
    int version;    /* of the file; below LEDGER_VERSION only of one that is read alone */
};

/* "PATH: cannot WHAT: SQLite's words", with a hint by the kind of error. Returns -1. */
int sql_fail(const Ledger *l, const char *what, Err *e);

/* Prepares a statement and binds by `types`: s text, i int64_t, d double (NaN: NULL). NULL: failed.
 */
sqlite3_stmt *sql_prepare(Ledger *l, Err *e, const char *sql, const char *types, ...);

/* 1 a row, 0 the end, -1 failed. */
int sql_step(Ledger *l, sqlite3_stmt *s, Err *e);

/* Prepares, runs to its end; rows changed, or -1. */
int sql_run(Ledger *l, Err *e, const char *sql, const char *types, ...);

/* The first number of the first row; -1 failed, 0 also without a row. */
int sql_number(Ledger *l, Err *e, int64_t *out, const char *sql, const char *types, ...);

/* A transaction that may write; end: COMMIT if rc is 0, else ROLLBACK; returns rc, or -1. */
int sql_begin(Ledger *l, Err *e);
int sql_end(Ledger *l, int rc, Err *e);

/* Columns of table cell that a LedgerCell has, as "a, b, c", with `prefix` in front of each; NULL
 * in place of those that a file of an older version does not have. */
const char *ledger_columns(const Ledger *l, char out[LEDGER_TEXT], const char *prefix);

/* Adds the columns that version 1 did not have. In a transaction. */
int ledger_widen(Ledger *l, Err *e);

/* Their declarations, "id TEXT NOT NULL, ...". */
const char *ledger_declarations(char out[LEDGER_TEXT]);

/* A row of these columns from column `first` on, read and checked; or bound to a statement. */
int ledger_row(Ledger *l, sqlite3_stmt *s, int first, LedgerCell *out, Err *e);
int ledger_bind(Ledger *l, sqlite3_stmt *s, const LedgerCell *cell, Err *e);
int ledger_column_count(void);

/* May WAL be used on a file system of this type (statfs(2))? */
bool ledger_is_local(long type);

#endif
