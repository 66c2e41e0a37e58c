/* data/stream.c - see stream.h. Files of several gzip members or zstd frames read as one. */
#include "data/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/io.h"

enum { INPUT_SIZE = 1 << 18 };

struct Stream {
    char path[IO_PATH_MAX];
    int fd;
    StreamKind kind;
    bool ended;        /* the file has no more bytes */
    bool inside;       /* a gzip member or zstd frame is begun and not finished */
    bool any;          /* at least one member or frame was begun */
    z_stream gzip;
    ZSTD_DStream *zstd;
    unsigned char *input;     /* (INPUT_SIZE) packed bytes */
    size_t used, filled;      /* of input */
    int64_t base;             /* file position of input[0] */
};

Stream *stream_open(const char *path, StreamKind kind, Err *e)
{
    Stream *s = calloc(1, sizeof *s);
    if (!s || strlen(path) >= sizeof s->path) {
        err_set(e, s ? "path too long: %.200s..." : "%.200s: out of memory", path);
        free(s);
        return NULL;
    }
    bool standard = !strcmp(path, "-");
    snprintf(s->path, sizeof s->path, "%s", standard ? "standard input" : path);
    s->kind = kind;
    s->fd = standard ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) {
        err_errno(e, "%s: cannot be opened", s->path);
        free(s);
        return NULL;
    }
    if (kind == STREAM_GZIP && inflateInit2(&s->gzip, 15 + 16) != Z_OK) s->kind = STREAM_PLAIN;
    if (kind == STREAM_ZSTD) s->zstd = ZSTD_createDStream();
    s->input = malloc(INPUT_SIZE);
    if (!s->input || s->kind != kind || (kind == STREAM_ZSTD && !s->zstd)) {
        err_set(e, "%s: out of memory", s->path);
        stream_close(&s);
    }
    return s;
}

void stream_close(Stream **stream)
{
    Stream *s = *stream;
    if (!s) return;
    if (s->kind == STREAM_GZIP) inflateEnd(&s->gzip);
    ZSTD_freeDStream(s->zstd);
    free(s->input);
    close(s->fd);
    free(s);
    *stream = NULL;
}

static int64_t read_some(Stream *s, void *out, size_t size, Err *e)
{
    ssize_t n;
    do n = read(s->fd, out, size);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        err_errno(e, "%s: read error", s->path);
        return STREAM_FAILED;
    }
    return n;
}

/* Makes sure that input holds a byte, unless the file has ended. */
static int fill(Stream *s, Err *e)
{
    if (s->used < s->filled || s->ended) return 0;
    s->base += (int64_t)s->filled;
    s->used = s->filled = 0;
    int64_t n = read_some(s, s->input, INPUT_SIZE, e);
    if (n < 0) return STREAM_FAILED;
    s->filled = (size_t)n;
    s->ended = n == 0;
    return 0;
}

static int bad(Stream *s, const char *what, const char *detail, Err *e)
{
    err_set(e, "%s: byte %lld of the packed file: %s%s%s", s->path,
            (long long)(s->base + (int64_t)s->used), what, *detail ? ": " : "", detail);
    return STREAM_BAD;
}

static int64_t read_gzip(Stream *s, char *out, size_t size, Err *e)
{
    z_stream *z = &s->gzip;
    z->next_out = (unsigned char *)out;
    z->avail_out = (unsigned)(size < 1 << 30 ? size : 1 << 30);
    unsigned wanted = z->avail_out;
    while (z->avail_out == wanted) {
        int rc = fill(s, e);
        if (rc) return rc;
        if (s->used == s->filled)
            return s->inside || !s->any ? bad(s, "gzip data is cut short", "", e) : 0;
        if (!s->inside) {
            if (s->any && s->input[s->used] == 0) { /* padding after the last member */
                s->used++;
                continue;
            }
            if (inflateReset(z) != Z_OK) return bad(s, "gzip data cannot be read", "", e);
            s->inside = s->any = true;
        }
        z->next_in = s->input + s->used;
        z->avail_in = (unsigned)(s->filled - s->used);
        rc = inflate(z, Z_NO_FLUSH);
        s->used = s->filled - z->avail_in;
        if (rc == Z_STREAM_END) s->inside = false;
        else if (rc != Z_OK && rc != Z_BUF_ERROR)
            return bad(s, "gzip data is corrupt", z->msg ? z->msg : "", e);
    }
    return (int64_t)(wanted - z->avail_out);
}

static int64_t read_zstd(Stream *s, char *out, size_t size, Err *e)
{
    ZSTD_outBuffer to = {out, size, 0};
    while (to.pos == 0) {
        int rc = fill(s, e);
        if (rc) return rc;
        if (s->used == s->filled && !s->inside)
            return s->any ? 0 : bad(s, "zstd data is cut short", "", e);
        ZSTD_inBuffer from = {s->input, s->filled, s->used};
        size_t left = ZSTD_decompressStream(s->zstd, &to, &from);
        s->used = from.pos;
        if (ZSTD_isError(left)) return bad(s, "zstd data is corrupt", ZSTD_getErrorName(left), e);
        s->any = true;
        s->inside = left != 0;
        if (s->ended && s->inside && to.pos == 0) return bad(s, "zstd data is cut short", "", e);
    }
    return (int64_t)to.pos;
}

int64_t stream_read(Stream *stream, char *out, size_t size, Err *e)
{
    switch (stream->kind) {
    case STREAM_GZIP: return read_gzip(stream, out, size, e);
    case STREAM_ZSTD: return read_zstd(stream, out, size, e);
    default: return read_some(stream, out, size, e);
    }
}
