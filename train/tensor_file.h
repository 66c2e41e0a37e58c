/* train/tensor_file.h - one rank's tensors in HDF5: /<group>/<name>, each a contiguous
 * little-endian dataset (bf16 as unsigned 16-bit) with the attributes global_shape, global_offset
 * (of this piece in the global tensor) and xxh3 (XXH3-64 of its bytes).
 *
 * HDF5 lays the file out and describes it; the bytes themselves go by write() and pread() at the
 * dataset's place in the file, so that a full disk is an ordinary error and a read needs no trust
 * in the library's conversions. Used by checkpoint.c and checkpoint_read.c.
 */
#ifndef ISOMOE_TRAIN_TENSOR_FILE_H
#define ISOMOE_TRAIN_TENSOR_FILE_H

#include "train/tensor_slots.h"

/* Makes the file with all datasets allocated and no data; fills `at`. */
int tensor_file_create(const char *path, TensorSlots *slots, Err *e);

/* Writes the hashes into their attributes. */
int tensor_file_seal(const char *path, const TensorSlots *slots, Err *e);

/* Checks that the file holds these tensors (and no others, if the slots are the whole), with these
 * shapes and types, each wholly inside the file; fills `at` and `hash`. */
int tensor_file_inspect(const char *path, TensorSlots *slots, Err *e);

#endif
