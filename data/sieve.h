/* data/sieve.h - the documents of a source that the filters keep, in the order of the source.
 *
 * The first reading decides and remembers one bit a document; later readings of the same input only
 * look it up. What is kept depends on the documents and their order, not on threads. With no filter
 * on, documents pass through.
 */
#ifndef ISOMOE_DATA_SIEVE_H
#define ISOMOE_DATA_SIEVE_H

#include "data/dedup.h"
#include "data/filter.h"
#include "data/inputs.h"

typedef struct SieveResult {
    int64_t documents, bytes;     /* of the source: kept and taken out */
    FilterCount removed[FILTERS]; /* the first filter that did not keep a document took it out */
    DedupCosts dedup;
} SieveResult;

typedef struct Sieve Sieve;

/* The options must pass filter_check; they and what they point to are borrowed. NULL on error (the
 * report cannot be written). */
Sieve *sieve_create(const FilterOptions *o, Err *e);
void sieve_destroy(Sieve **sieve);

/* Begins a reading of `source` (borrowed), which must be new and of the same input each time. The
 * list (borrowed) names its files for the report. */
void sieve_begin(Sieve *sieve, Source *source, const InputList *list);

/* As source_next, but only what is kept. */
int sieve_next(Sieve *sieve, Document *out, Err *e);

/* After a whole reading. All zero when no filter is on. */
const SieveResult *sieve_result(const Sieve *sieve);

#endif
