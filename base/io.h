/* base/io.h - files: read whole, write atomically, make folders. POSIX. */
#ifndef ISOMOE_BASE_IO_H
#define ISOMOE_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { IO_PATH_MAX = 4096 };

/* Reads a whole file into a fresh buffer with a terminating zero; the caller frees *data.
 * Fails above max_size bytes, so that a hostile file cannot exhaust memory. */
int io_read_all(const char *path, int64_t max_size, char **data, size_t *size, Err *e);

/* Writes path.tmp.<pid>, fsyncs, renames over path, fsyncs the folder: readers see the old or the
 * new content, never a part. */
int io_write_atomic(const char *path, const void *data, size_t size, Err *e);

/* write() until all bytes are out, EINTR handled. */
int io_write_full(int fd, const void *data, size_t size, const char *path, Err *e);

/* pread() of exactly size bytes at offset; a short file is an error naming both sizes. */
int io_pread_full(int fd, void *data, size_t size, int64_t offset, const char *path, Err *e);

int io_make_dirs(const char *path, Err *e);      /* mkdir -p */
int io_sync_dir(const char *path, Err *e);       /* fsync of a folder */
int io_remove_tree(const char *path, Err *e);    /* rm -r; a missing path is fine */
bool io_exists(const char *path);
bool io_is_dir(const char *path);

/* out = a/b; fails if it does not fit in IO_PATH_MAX. */
int io_join(char out[IO_PATH_MAX], const char *a, const char *b, Err *e);

/* Names in a folder (without . and ..), sorted bytewise; free with io_free_names. */
int io_list_dir(const char *path, char ***names, int *count, Err *e);
void io_free_names(char **names, int count);

#endif
