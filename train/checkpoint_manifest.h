/* train/checkpoint_manifest.h - manifest.json of a checkpoint folder: everything but the tensors,
 * and the checksums of everything. Its own checksum (member "xxh3") is XXH3-64 of the rest as
 * compact JSON with sorted keys. Used by checkpoint.c and checkpoint_read.c.
 */
#ifndef ISOMOE_TRAIN_CHECKPOINT_MANIFEST_H
#define ISOMOE_TRAIN_CHECKPOINT_MANIFEST_H

#include <jansson.h>

#include "train/checkpoint.h"
#include "train/tensor_file.h"

enum { CHECKPOINT_VERSION = 2 };
#define CHECKPOINT_MANIFEST "manifest.json"
#define CHECKPOINT_TENSORS "rank-0000.h5"

/* What goes into a manifest. */
typedef struct CheckpointParts {
    const RunConfig *config;
    const TrainState *state;
    int64_t file_bytes; /* of CHECKPOINT_TENSORS */
    uint64_t file_hash;
    const TensorSlots *slots;
} CheckpointParts;

int checkpoint_manifest_write(const char *folder, const CheckpointParts *parts, Err *e);

typedef struct CheckpointManifest { /* checkpoint_manifest_free ends it */
    json_t *root;
    TrainState state;
    const char *config; /* resolved configuration; borrowed from root */
    int64_t file_bytes;
    uint64_t file_hash;
    json_t *tensors;    /* {"master/<name>": {...}}; borrowed */
} CheckpointManifest;

/* Reads and checks all of it but the tensors' names. */
int checkpoint_manifest_read(const char *folder, CheckpointManifest *out, Err *e);
void checkpoint_manifest_free(CheckpointManifest *m);

/* The manifest lists these tensors with these shapes and types, and no others (but those that may
 * stay unread, if the slots are not the whole); sets each slot's hash. */
int checkpoint_manifest_tensors(const CheckpointManifest *m, const char *folder,
                                TensorSlots *slots, Err *e);

#endif
