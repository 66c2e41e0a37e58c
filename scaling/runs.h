/* scaling/runs.h - finished runs as a table: what laws are fitted to. From a CSV file of anyone's
 * (hostile until checked), or from a sweep's ledger. */
#ifndef ISOMOE_SCALING_RUNS_H
#define ISOMOE_SCALING_RUNS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* What is known of a run; the letters of this folder: N parameters, D tokens, C FLOPs. */
typedef enum RunColumn {
    RUN_N,           /* activated parameters (which ones: the table's convention) */
    RUN_N_TOTAL,
    RUN_D,           /* tokens trained on */
    RUN_C,           /* FLOPs of training */
    RUN_LOSS,        /* nats a token, held out */
    RUN_EXPERTS,     /* E */
    RUN_GRANULARITY, /* G: width of a dense block's FFN over the width of an expert */
    RUN_SPARSITY,    /* S: share of the experts that a token does not use, in [0, 1) */
    RUN_LR,          /* peak learning rate */
    RUN_BATCH,       /* tokens a step */
    RUN_BUDGET,      /* FLOPs that the run was planned for: groups runs into isoFLOP curves */
    RUN_SEED,
    RUN_NOISE,       /* known standard deviation of the loss, nats */
    RUN_N_BODY,      /* activated parameters without embedding and head, where N has them */
    RUN_COLUMNS
} RunColumn;

enum { RUN_MAX_ROWS = 1000000 };

/* Rows that could not be used are not in the table; they are counted and named by run_table_read.
 */
typedef struct RunTable {
    int64_t rows;
    double *column[RUN_COLUMNS]; /* (rows), owned; NULL: not known of any run; NaN: of this one */
    int64_t *line;               /* (rows) line of the file, or number of the cell, for messages */
    char **name;                 /* (rows), owned, or NULL: what the file calls the run */
    char source[512];            /* the file's name as given */
    uint64_t hash;               /* of values in canonical order; names and lines are not in it */
} RunTable;

/* "N", "N_total", "D", "C", "loss", "experts", ... */
const char *run_column_name(RunColumn column);

/* Column of a name as a user or a known file has it ("params_active_precise", "tokens",
 * "final_loss", "N"), or -1. Names of one letter are told apart by case, others are not. */
int run_column_find(const char *name);

/* What numbers a column may hold (not NaN); the reader takes others too, hygiene.h names them. */
bool run_value_fits(RunColumn column, double value);

/* Reads a CSV file (RFC 4180 quotes; a header line; at most RUN_MAX_ROWS rows) and sorts it. A
 * column of the names that run_column_find knows is taken without being asked for; mapping (or
 * NULL) goes before: "N=name,D=name*1e9,loss=name", the right side a column's name, such a name
 * times a number, or a number (the same for all rows). A cell that is no finite decimal number is
 * an error with file, line and column, unless it is empty, "nan" or "null" (NaN: the hygiene says
 * so). Err too: no loss, two columns for one meaning, rows of unequal length, no row, what csv.h
 * refuses. Frees nothing of *out on entry; run_table_clear ends it, after a failure too. */
int run_table_read_csv(RunTable *out, const char *path, const char *mapping, Err *e);

/* The same, of the rows that `where` names: "NAME=VALUE,.." by the file's own names, all of which
 * must hold, as text or as numbers; NULL: all rows. Cells of other rows are not looked at. Err:
 * no such column, no such row. */
int run_table_read_where(RunTable *out, const char *path, const char *mapping, const char *where,
                         Err *e);

/* An empty table with room for `rows` and the columns of the bits `columns` (1u << RunColumn), all
 * NaN; lines 1, 2, .. Frees nothing of *out on entry. */
int run_table_make(RunTable *out, int64_t rows, unsigned columns, Err *e);
void run_table_clear(RunTable *t);

/* Sorts rows into the canonical order (by column values in the order of RunColumn, NaN last; equal
 * rows by name, then by line), so that the order of the input changes no bit of any answer; -0
 * becomes 0 and every NaN the same one; fills hash. */
void run_table_sort(RunTable *t);

/* A copy of the rows i with keep[i] != 0, in their order, with a hash of its own. */
int run_table_select(RunTable *out, const RunTable *t, const unsigned char *keep, Err *e);

static inline double run_value(const RunTable *t, RunColumn column, int64_t row)
{
    return t->column[column] ? t->column[column][row] : __builtin_nan("");
}

/* The N of a run's cost: that of the column N, or N_total in a table without one. */
static inline double run_size(const RunTable *t, int64_t row)
{
    return run_value(t, t->column[RUN_N] ? RUN_N : RUN_N_TOTAL, row);
}

#endif
