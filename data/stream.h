/* data/stream.h - the bytes of a file, plain or unpacked from gzip or zstd, front to back. */
#ifndef ISOMOE_DATA_STREAM_H
#define ISOMOE_DATA_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef enum StreamKind { STREAM_PLAIN, STREAM_GZIP, STREAM_ZSTD } StreamKind;

/* What stream_read gives besides a number of bytes. STREAM_BAD: the file's content is at fault (cut
 * short, corrupt), which a caller may choose to skip; STREAM_FAILED: the machine (i/o, memory). */
enum { STREAM_FAILED = -1, STREAM_BAD = -2 };

typedef struct Stream Stream;

/* "-" is standard input. NULL on error. */
Stream *stream_open(const char *path, StreamKind kind, Err *e);
void stream_close(Stream **stream);

/* Reads up to size (> 0) bytes: their number, 0 at the end, or STREAM_*. Errors of packed files
 * name the position in the packed file. */
int64_t stream_read(Stream *stream, char *out, size_t size, Err *e);

#endif
