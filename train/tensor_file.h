/* train/tensor_file.h - one rank's tensors in HDF5: /master/<name>, /m/<name>, /v/<name>, each a
 * contiguous dataset of little-endian f32 with the attributes global_shape, global_offset (of this
 * piece in the global tensor) and xxh3 (XXH3-64 of its bytes).
 *
 * HDF5 lays the file out and describes it; the bytes themselves go by write() and pread() at the
 * dataset's place in the file, so that a full disk is an ordinary error and a read needs no trust
 * in the library's conversions. Used by checkpoint.c and checkpoint_read.c.
 */
#ifndef ISOMOE_TRAIN_TENSOR_FILE_H
#define ISOMOE_TRAIN_TENSOR_FILE_H

#include "model/params.h"

typedef struct TensorSlot {
    const char *group;   /* "master" | "m" | "v" */
    const ParamRow *row; /* name and shape */
    int64_t at;          /* first byte in the file */
    uint64_t hash;
} TensorSlot;

enum { TENSOR_GROUPS = 3, TENSOR_PATH = PARAM_NAME + 16 };
extern const char *const tensor_groups[TENSOR_GROUPS];

/* All slots of a parameter table, group by group; count = TENSOR_GROUPS * table->count. NULL when
 * out of memory; free() it. */
TensorSlot *tensor_slots(const ParamTable *table, int *count);

/* "master/<name>"; returns out. */
const char *tensor_slot_name(const TensorSlot *slot, char out[TENSOR_PATH]);

/* Makes the file with all datasets allocated and no data; fills `at`. */
int tensor_file_create(const char *path, TensorSlot *slot, int count, Err *e);

/* Writes the hashes into their attributes. */
int tensor_file_seal(const char *path, const TensorSlot *slot, int count, Err *e);

/* Checks that the file holds exactly these tensors, with these shapes, each wholly inside the file;
 * fills `at` and `hash`. */
int tensor_file_inspect(const char *path, TensorSlot *slot, int count, Err *e);

#endif
