/* data/dedup.h - documents that were there before: the same but for white space, or nearly.
 *
 * Nearly: likeness is Jaccard's index of the sets of shingles, runs of DEDUP_SHINGLE words (a
 * document of fewer words is one shingle; one of none has no likeness to any). It is estimated by
 * MinHash (Broder 1997): bands x rows keyed hashes, each keeping its smallest value over the
 * shingles; two documents agree in each with a probability of their likeness s. Documents are
 * compared if they agree in all rows of a band: a pair is, with probability 1 - (1 - s^rows)^bands,
 * and it is a near duplicate if the share of agreeing hashes is at least the threshold.
 *
 * Only added documents are compared with. Results depend on the order of calls alone.
 */
#ifndef ISOMOE_DATA_DEDUP_H
#define ISOMOE_DATA_DEDUP_H

#include <stdint.h>

#include "base/err.h"
#include "data/doctext.h"

enum { DEDUP_SHINGLE = 5, DEDUP_BANDS = 16, DEDUP_ROWS = 8, DEDUP_HASHES_MAX = 4096 };
enum { DEDUP_COMPARE_MAX = 1 << 14 }; /* comparisons for one document; no more are made */
#define DEDUP_BYTES ((int64_t)4 << 30)

typedef struct DedupOptions {
    int exact;       /* look for equal ones */
    double near;     /* threshold; 0: do not look for near ones */
    int bands, rows; /* at least 1, together at most DEDUP_HASHES_MAX */
    int64_t bytes;   /* most memory; more is an error */
} DedupOptions;

typedef struct DedupMatch {
    int64_t document; /* the number that was given to the earlier one */
    double likeness;  /* estimated */
} DedupMatch;

typedef struct DedupCosts {
    int64_t documents; /* added */
    int64_t bytes;     /* of memory */
    int64_t cut_short; /* documents that reached DEDUP_COMPARE_MAX */
} DedupCosts;

typedef struct Dedup Dedup;

Dedup *dedup_create(const DedupOptions *o, Err *e); /* NULL on error */
void dedup_destroy(Dedup **dedup);

/* The signature, bands x rows values, of a document. Threads may call it at the same time. */
void dedup_sign(const Dedup *dedup, const DocText *t, uint32_t *signature);

/* Share of equal values of two signatures of n. */
double dedup_likeness(const uint32_t *a, const uint32_t *b, int n);

/* 1 and *out: an added document has this DocText.hash (likeness 1); 0: none. */
int dedup_find_equal(const Dedup *dedup, uint64_t hash, DedupMatch *out);

/* 1 and *out: an added document is at least `near` alike; 0: none was found. */
int dedup_find_near(Dedup *dedup, const uint32_t *signature, DedupMatch *out);

/* Adds a document under a number of the caller's. signature: NULL without near. */
int dedup_add(Dedup *dedup, uint64_t hash, const uint32_t *signature, int64_t document, Err *e);

DedupCosts dedup_costs(const Dedup *dedup);

#endif
