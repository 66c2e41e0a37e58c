/* data/filter_note.h - the filters and what they took out, as JSON: for prepare.json and for
 * `isomoe prepare --json`. */
#ifndef ISOMOE_DATA_FILTER_NOTE_H
#define ISOMOE_DATA_FILTER_NOTE_H

#include <jansson.h>

#include "data/sieve.h"

/* docs/FORMATS.md, "prepare.json": the member "filters". New reference; NULL when out of memory. */
json_t *filter_note(const FilterOptions *o, const SieveResult *r);

#endif
