/* data/filter.h - quality filters of `isomoe prepare`: the table of them, their limits, and the
 * verdict of those that look at one document's text. data/sieve.c applies all of them in order.
 *
 * Every filter gives a document a value and keeps it if low <= value <= high. A document is taken
 * out by the first filter of the table that does not keep it. The last three need more than the
 * text: a model, and the documents that came before.
 */
#ifndef ISOMOE_DATA_FILTER_H
#define ISOMOE_DATA_FILTER_H

#include <stdbool.h>

#include "data/doctext.h"
#include "data/source.h"

typedef enum Filter {
    FILTER_BYTES,
    FILTER_CHARS,
    FILTER_WORDS,
    FILTER_SYMBOLS,        /* characters that are no letter, mark, number, space / characters */
    FILTER_BULLETS,        /* lines that begin with a bullet / lines */
    FILTER_ELLIPSES,       /* lines that end with an ellipsis / lines */
    FILTER_SCRIPTS,        /* letters of the wanted scripts / letters; 0 without letters */
    FILTER_LINES,          /* data/repeat.h, from here */
    FILTER_LINE_CHARS,
    FILTER_TOP_2, FILTER_TOP_3, FILTER_TOP_4,
    FILTER_RUNS_5, FILTER_RUNS_6, FILTER_RUNS_7, FILTER_RUNS_8, FILTER_RUNS_9, FILTER_RUNS_10,
    FILTER_BITS,           /* bits a byte under a model */
    FILTER_EXACT,          /* 1 if an earlier kept document is the same but for white space */
    FILTER_NEAR,           /* estimated likeness to an earlier kept document (data/dedup.h) */
    FILTERS,
    FILTERS_TEXT = FILTER_BITS /* those before need the text alone */
} Filter;

typedef struct FilterLimit {
    bool on;
    double low, high; /* may be infinite */
} FilterLimit;

/* Bits a byte of n documents into bits[n]; not a number is an error of the scorer. Must not depend
 * on how documents are grouped into calls. Called by one thread at a time. */
typedef int (*FilterScore)(void *context, const Document *documents, int n, double *bits, Err *e);

/* All zero: no filter. */
typedef struct FilterOptions {
    FilterLimit limit[FILTERS]; /* FILTER_EXACT: the limits are not looked at; FILTER_NEAR: high
                                   is the likeness from which on a document is taken out */
    unsigned scripts;           /* set of 1 << UnicodeClass, for FILTER_SCRIPTS */
    int bands, rows;            /* FILTER_NEAR; 0: DEDUP_BANDS, DEDUP_ROWS */
    int64_t dedup_bytes;        /* most memory for finding duplicates; 0: DEDUP_BYTES */
    FilterScore score;          /* FILTER_BITS */
    void *score_context;
    const char *score_name;     /* noted in prepare.json */
    const char *report;         /* a file: one JSON line for each document taken out; or NULL */
} FilterOptions;

/* What a filter took out. */
typedef struct FilterCount {
    int64_t documents, bytes;
} FilterCount;

typedef struct FilterVerdict {
    Filter by;    /* FILTERS: kept so far */
    double value; /* the filter's that took it out */
} FilterVerdict;

extern const char *const filter_name[FILTERS]; /* "duplicate_lines" */

bool filter_any(const FilterOptions *o);

/* Limits in order and in range, and what a filter needs is there. Messages name the filter. */
int filter_check(const FilterOptions *o, Err *e);

/* Does the value pass? */
bool filter_keeps(const FilterOptions *o, Filter filter, double value);

/* The value of one of the first FILTERS_TEXT filters. */
int filter_value(const FilterOptions *o, Filter filter, DocText *t, double *value, Err *e);

/* Runs those of them that are on, in order, until one does not keep the document. */
int filter_text(const FilterOptions *o, DocText *t, FilterVerdict *out, Err *e);

/* Sets the published limits of Gopher's repetition filters where none is set. */
void filter_gopher(FilterOptions *o);

#endif
