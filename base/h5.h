/* base/h5.h - the few things that every user of HDF5 needs: one caller at a time, its errors as an
 * Err, scalar attributes read with their type and size checked.
 *
 * All HDF5 calls of the program stand between h5_lock and h5_unlock, even where the installed
 * library was built thread-safe: another one may not be.
 */
#ifndef ISOMOE_BASE_H5_H
#define ISOMOE_BASE_H5_H

#include <hdf5.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Takes the program's only HDF5 mutex (not recursive) and silences HDF5's own messages. */
void h5_lock(void);
void h5_unlock(void);

/* File access properties without file locks, which some shared file systems do not have: files
 * are written under temporary names and never changed afterwards. The caller closes them; < 0:
 * error. */
hid_t h5_access(void);

/* Sets "path: <format> (HDF5: innermost reason)". Returns -1. Call it before further HDF5 calls. */
int h5_fail(Err *e, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Scalar attributes of an object: 64-bit integers (little-endian in the file) and fixed-size text.
 * Reading fails if the attribute is missing, or has another class, rank or size. Text is cut off at
 * `size` bytes only if it fits with its terminating zero. 0 or -1 (with the message set). */
int h5_put_i64(hid_t object, const char *name, int64_t value, const char *path, Err *e);
int h5_put_u64(hid_t object, const char *name, uint64_t value, const char *path, Err *e);
int h5_put_text(hid_t object, const char *name, const char *value, const char *path, Err *e);
int h5_get_i64(hid_t object, const char *name, int64_t *value, const char *path, Err *e);
int h5_get_u64(hid_t object, const char *name, uint64_t *value, const char *path, Err *e);
int h5_get_text(hid_t object, const char *name, char *value, size_t size, const char *path, Err *e);

#endif
