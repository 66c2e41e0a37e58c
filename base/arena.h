/* base/arena.h - a planned arena: what is to lie where in one block of memory, before the block is
 * allocated. This file allocates no such block: the device does, with arena_total bytes, and a
 * view is base + offset. `isomoe plan` prints the same table without ever allocating.
 *
 * A row's name is "group/what", e.g. "gradients/block3.moe.w1"; the printed table has a line per
 * group. Rows lie in the order of reserving, each at a multiple of ARENA_ALIGN.
 */
#ifndef ISOMOE_BASE_ARENA_H
#define ISOMOE_BASE_ARENA_H

#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

enum { ARENA_ALIGN = 64, ARENA_NAME = 96 };

typedef struct ArenaRow {
    char name[ARENA_NAME]; /* a longer one is cut */
    int64_t offset, bytes;
} ArenaRow;

/* Starts as {0}; the caller owns it and ends it with arena_clear. */
typedef struct ArenaPlan {
    ArenaRow *rows; /* (count) */
    int count, capacity;
    int64_t end;    /* first free byte, a multiple of ARENA_ALIGN */
    Err failed;     /* the first reservation that could not be planned; set: all later ones fail */
} ArenaPlan;

/* Plans `bytes` (0 is fine) and returns their offset. A size that is negative (what size_mul's
 * callers pass on for "too large") or goes past 2^63 is remembered in plan->failed and gives -1, so
 * that a caller may reserve all rows first and ask once, with arena_check. */
int64_t arena_reserve(ArenaPlan *plan, const char *name, int64_t bytes);

/* Nonzero, with e filled, if any reservation failed. */
int arena_check(const ArenaPlan *plan, Err *e);

/* Bytes to allocate: a multiple of ARENA_ALIGN; 0 for an empty plan. */
int64_t arena_total(const ArenaPlan *plan);

/* Bytes as people read them, 1024-based: "0 B", "1023 B", "1.50 KiB", "12.0 GiB"; returns out. */
enum { ARENA_HUMAN = 24 };
const char *arena_human(char out[ARENA_HUMAN], int64_t bytes);

/* Aligned table under `title`: a line per group (per row if `detail`), then the total, which counts
 * the gaps between rows too. */
void arena_print(const ArenaPlan *plan, FILE *out, const char *title, int detail);

/* {"bytes": total, "rows": [{"name", "offset", "bytes"}...]}, a new reference (Jansson); NULL when
 * out of memory. */
struct json_t *arena_json(const ArenaPlan *plan);

void arena_clear(ArenaPlan *plan);

#endif
