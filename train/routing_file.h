/* train/routing_file.h - a record of the router's choices, step by step, and its replay: for
 * debugging, and for comparing layouts and devices without flips at near ties.
 *
 * A record holds the experts in force (after capacity) of every layer, token and slot of each step,
 * tokens in the order of the global batch, so that it does not depend on micro-batches or threads.
 * Steps have the shapes of their stages, which stand in the file: a replay must have the same.
 * docs/FORMATS.md has the bytes. A run that replays its own record has the record's bits.
 */
#ifndef ISOMOE_TRAIN_ROUTING_FILE_H
#define ISOMOE_TRAIN_ROUTING_FILE_H

#include "train/run_config.h"

typedef struct RoutingFile RoutingFile;

/* What the choices depend on besides the configuration: hash of the training data, the run. */
typedef struct RoutingOrigin {
    uint64_t data_hash, run_id;
} RoutingOrigin;

/* For writing the steps from `step` on (the first step of a run is 1, as in its log). A new file,
 * or the same run's, which is cut behind step - 1; anything else that has this name is an error and
 * stays as it is. */
RoutingFile *routing_file_record(const char *path, const RunConfig *c, RoutingOrigin origin,
                                 int64_t step, Err *e);

/* For reading. The header must fit the run: model, routing, batch, stages, seed, data; and the file
 * must hold the steps first .. last (last < first: none is asked for). */
RoutingFile *routing_file_replay(const char *path, const RunConfig *c, RoutingOrigin origin,
                                 int64_t first, int64_t last, Err *e);
void routing_file_close(RoutingFile **f);

uint64_t routing_file_run(const RoutingFile *f); /* the number of the run whose record it is */

/* Choices of tokens first .. first + count - 1 of the step's batch, (L, count, slots): room to fill
 * before routing_file_put, and what routing_file_get returns; owned by the file. */
int32_t *routing_file_part(RoutingFile *f);
void routing_file_put(RoutingFile *f, int64_t first, int64_t count);
const int32_t *routing_file_get(RoutingFile *f, int64_t first, int64_t count);

/* Appends what was put as `step`; they follow one another. */
int routing_file_write(RoutingFile *f, int64_t step, Err *e);
int routing_file_sync(RoutingFile *f, Err *e); /* on disk when this returns */

/* Reads and checks a step: checksum, experts in range, none twice for a token, none beyond its
 * capacity. A step that is not in the file is an error that names it. */
int routing_file_load(RoutingFile *f, int64_t step, Err *e);

#endif
