/* data/seal.h - the first 512 bytes of a shard: what must hold before HDF5 may read the file.
 *
 * HDF5 crashes or hangs on some damaged files. HDF5 leaves a "user block" at the start of a file to
 * its user; ours holds a hash of everything in the file but the tokens (they have their own), so
 * that damage to HDF5's structures is found by us and not by HDF5. h5dump and h5py read such files
 * as any other. A file made to deceive can carry a right hash: then HDF5's own checks are all.
 *
 * Bytes, little-endian: 0 magic "ISOMOESH", 8 format (1), 16 file size, 24 offset of the tokens,
 * 32 bytes of the tokens, 40 XXH3-64 of the file's bytes from 512 on without the tokens, then
 * zeros, 504 XXH3-64 of the bytes 0..503.
 */
#ifndef ISOMOE_DATA_SEAL_H
#define ISOMOE_DATA_SEAL_H

#include <stdint.h>

#include "base/err.h"

enum { SEAL_SIZE = 512, SEAL_FORMAT = 1 };

typedef struct Seal {
    int64_t file_size;
    int64_t tokens_offset, tokens_bytes; /* in the file */
    uint64_t rest_hash;
} Seal;

/* Seals a finished file that is open for reading and writing: hashes it and writes the block. */
int seal_write(int fd, int64_t tokens_offset, int64_t tokens_bytes, const char *path, Err *e);

/* Reads and checks the block of a file open for reading, its size and hash included. */
int seal_check(int fd, Seal *seal, const char *path, Err *e);

#endif
