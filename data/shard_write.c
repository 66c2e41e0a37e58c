/* data/shard_write.c - the writing half of shard.h.
 *
 * A contiguous dataset must be made with its final size, so tokens are first spooled to a plain
 * temporary file and copied into the HDF5 file at the end: memory holds the document table alone.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/io.h"
#include "base/size.h"
#include "base/h5.h"
#include "data/seal.h"
#include "data/shard.h"

enum { BLOCK_TOKENS = 1 << 16 };

struct ShardWriter {
    char path[IO_PATH_MAX];
    char spool_path[IO_PATH_MAX], h5_path[IO_PATH_MAX]; /* temporary, beside it */
    FILE *spool;            /* the tokens as they will stand in the dataset */
    ShardInfo info;
    size_t token_bytes;     /* of one token: 2 or 4 */
    int64_t *doc_offset;    /* (n_docs + 1) */
    int64_t *doc_bytes;     /* (n_docs) */
    int64_t capacity;       /* documents */
    XXH3_state_t *hash;     /* of the tokens so far */
    unsigned char *block;   /* (BLOCK_TOKENS * token_bytes) */
};

static int name_files(ShardWriter *w, const char *path, Err *e)
{
    int n = snprintf(w->path, IO_PATH_MAX, "%s", path);
    int h = snprintf(w->h5_path, IO_PATH_MAX, "%s.tmp.%ld", path, (long)getpid());
    int s = snprintf(w->spool_path, IO_PATH_MAX, "%s.tmp.%ld.tokens", path, (long)getpid());
    if (n < 0 || h < 0 || s < 0 || s >= IO_PATH_MAX)
        return err_set(e, "path too long: %.200s...", path);
    return 0;
}

static int check_info(const ShardInfo *i, const char *path, Err *e)
{
    if (i->vocab_size < 1 || i->vocab_size > INT32_MAX || i->bos < 0 || i->eos < 0 ||
        i->bos >= i->vocab_size || i->eos >= i->vocab_size || i->bos == i->eos)
        return err_set(e, "%s: vocabulary of %lld with BOS %lld and EOS %lld", path,
                       (long long)i->vocab_size, (long long)i->bos, (long long)i->eos);
    return 0;
}

ShardWriter *shard_create(const char *path, const ShardInfo *info, Err *e)
{
    ShardWriter *w = calloc(1, sizeof *w);
    if (!w) {
        err_set(e, "%s: out of memory", path);
        return NULL;
    }
    w->info = *info;
    w->info.n_tokens = w->info.n_docs = w->info.n_bytes = 0;
    w->token_bytes = info->vocab_size <= 65536 ? 2 : 4;
    if (check_info(info, path, e) || name_files(w, path, e)) goto fail;
    w->hash = XXH3_createState();
    w->block = malloc(BLOCK_TOKENS * w->token_bytes);
    if (!w->hash || !w->block) {
        err_set(e, "%s: out of memory", path);
        goto fail;
    }
    XXH3_64bits_reset(w->hash);
    if (!(w->spool = fopen(w->spool_path, "w+be"))) {
        err_errno(e, "%s: cannot be created", w->spool_path);
        goto fail;
    }
    return w;
fail:
    shard_abandon(&w);
    return NULL;
}

void shard_abandon(ShardWriter **writer)
{
    ShardWriter *w = *writer;
    if (!w) return;
    if (w->spool) {
        fclose(w->spool);
        unlink(w->spool_path);
    }
    if (*w->h5_path) unlink(w->h5_path); /* there after a failed commit */
    XXH3_freeState(w->hash);
    free(w->doc_offset);
    free(w->doc_bytes);
    free(w->block);
    free(w);
    *writer = NULL;
}

int64_t shard_writer_tokens(const ShardWriter *writer) { return writer->info.n_tokens; }

static int spool_tokens(ShardWriter *w, const int32_t *ids, int64_t count, Err *e)
{
    for (int64_t at = 0; at < count; at += BLOCK_TOKENS) {
        int64_t n = size_min(BLOCK_TOKENS, count - at);
        for (int64_t i = 0; i < n; i++) {
            int32_t id = ids[at + i];
            CHECK(id >= 0 && id < w->info.vocab_size, "token %d, vocabulary %lld", id,
                  (long long)w->info.vocab_size);
            uint16_t two = htole16((uint16_t)id);
            uint32_t four = htole32((uint32_t)id);
            if (w->token_bytes == 2) memcpy(w->block + 2 * i, &two, 2);
            else memcpy(w->block + 4 * i, &four, 4);
        }
        size_t bytes = (size_t)n * w->token_bytes;
        XXH3_64bits_update(w->hash, w->block, bytes);
        if (fwrite(w->block, 1, bytes, w->spool) != bytes)
            return err_errno(e, "%s: write error", w->spool_path);
    }
    w->info.n_tokens += count;
    return 0;
}

static int grow_docs(ShardWriter *w, Err *e)
{
    if (w->info.n_docs < w->capacity) return 0;
    int64_t capacity = w->capacity ? w->capacity * 2 : 1024;
    int64_t *offset = realloc(w->doc_offset, (size_t)(capacity + 1) * sizeof *offset);
    if (offset) w->doc_offset = offset;
    int64_t *bytes = realloc(w->doc_bytes, (size_t)capacity * sizeof *bytes);
    if (bytes) w->doc_bytes = bytes;
    if (!offset || !bytes) return err_set(e, "%s: out of memory", w->path);
    w->capacity = capacity;
    return 0;
}

int shard_add(ShardWriter *writer, const int32_t *ids, int64_t count, int64_t bytes, Err *e)
{
    ShardWriter *w = writer;
    int32_t bos = (int32_t)w->info.bos, eos = (int32_t)w->info.eos;
    if (grow_docs(w, e)) return -1;
    w->doc_offset[w->info.n_docs] = w->info.n_tokens;
    w->doc_bytes[w->info.n_docs] = bytes;
    if (spool_tokens(w, &bos, 1, e) || spool_tokens(w, ids, count, e) ||
        spool_tokens(w, &eos, 1, e))
        return -1;
    w->info.n_docs++;
    w->info.n_bytes += bytes;
    w->doc_offset[w->info.n_docs] = w->info.n_tokens;
    return 0;
}

/* ---- commit -------------------------------------------------------------------------------- */

static uint64_t hash_docs(const ShardWriter *w)
{
    XXH3_64bits_reset(w->hash);
    for (int64_t i = 0; i < 2 * w->info.n_docs + 1; i++) {
        int64_t v = i <= w->info.n_docs ? w->doc_offset[i] : w->doc_bytes[i - w->info.n_docs - 1];
        uint64_t little = htole64((uint64_t)v);
        XXH3_64bits_update(w->hash, &little, 8);
    }
    return XXH3_64bits_digest(w->hash);
}

/* Makes a contiguous dataset of n elements, with space in the file and no fill values. */
static hid_t make_dataset(hid_t file, const char *name, hid_t type, int64_t n)
{
    hsize_t dim = (hsize_t)n;
    hid_t space = H5Screate_simple(1, &dim, NULL), plan = H5Pcreate(H5P_DATASET_CREATE), data = -1;
    if (space >= 0 && plan >= 0 && H5Pset_layout(plan, H5D_CONTIGUOUS) >= 0 &&
        H5Pset_alloc_time(plan, H5D_ALLOC_TIME_EARLY) >= 0 &&
        H5Pset_fill_time(plan, H5D_FILL_TIME_NEVER) >= 0 &&
        H5Pset_obj_track_times(plan, false) >= 0) /* the same data, the same file */
        data = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plan, H5P_DEFAULT);
    if (space >= 0) H5Sclose(space);
    if (plan >= 0) H5Pclose(plan);
    return data;
}

static int write_table(const ShardWriter *w, hid_t file, const char *name, const int64_t *values,
                       int64_t n, Err *e)
{
    hid_t data = make_dataset(file, name, H5T_STD_I64LE, n);
    int rc = 0;
    if (data < 0 || H5Dwrite(data, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        rc = h5_fail(e, w->h5_path, "dataset %s cannot be written", name);
    if (data >= 0) H5Dclose(data);
    return rc;
}

/* Copies n tokens of the spool to position `first` of the dataset. */
static int copy_block(ShardWriter *w, hid_t data, hid_t type, int64_t first, int64_t n, Err *e)
{
    size_t bytes = (size_t)n * w->token_bytes;
    if (fread(w->block, 1, bytes, w->spool) != bytes)
        return err_errno(e, "%s: read error", w->spool_path);
    hsize_t start = (hsize_t)first, count = (hsize_t)n;
    hid_t place = H5Dget_space(data), memory = H5Screate_simple(1, &count, NULL);
    int rc = 0;
    if (place < 0 || memory < 0 ||
        H5Sselect_hyperslab(place, H5S_SELECT_SET, &start, NULL, &count, NULL) < 0 ||
        H5Dwrite(data, type, memory, place, H5P_DEFAULT, w->block) < 0)
        rc = h5_fail(e, w->h5_path, "tokens cannot be written");
    if (place >= 0) H5Sclose(place);
    if (memory >= 0) H5Sclose(memory);
    return rc;
}

/* *offset: where the tokens stand in the file. */
static int write_tokens(ShardWriter *w, hid_t file, int64_t *offset, Err *e)
{
    hid_t type = w->token_bytes == 2 ? H5T_STD_U16LE : H5T_STD_U32LE;
    hid_t data = make_dataset(file, "tokens", type, w->info.n_tokens);
    if (data < 0) return h5_fail(e, w->h5_path, "dataset tokens cannot be made");
    int rc = 0;
    if (fflush(w->spool) || fseeko(w->spool, 0, SEEK_SET))
        rc = err_errno(e, "%s: write error", w->spool_path);
    for (int64_t at = 0; at < w->info.n_tokens && !rc; at += BLOCK_TOKENS)
        rc = copy_block(w, data, type, at, size_min(BLOCK_TOKENS, w->info.n_tokens - at), e);
    haddr_t address = rc ? HADDR_UNDEF : H5Dget_offset(data);
    if (!rc && address == HADDR_UNDEF) rc = h5_fail(e, w->h5_path, "tokens have no place");
    *offset = (int64_t)address;
    H5Dclose(data);
    return rc;
}

static int write_attributes(const ShardWriter *w, hid_t file, Err *e)
{
    const ShardInfo *i = &w->info;
    const char *p = w->h5_path;
    return h5_put_i64(file, "format", SHARD_FORMAT, p, e) ||
           h5_put_u64(file, "tokenizer_hash", i->tokenizer_hash, p, e) ||
           h5_put_i64(file, "vocab_size", i->vocab_size, p, e) ||
           h5_put_i64(file, "bos", i->bos, p, e) || h5_put_i64(file, "eos", i->eos, p, e) ||
           h5_put_text(file, "split", i->split, p, e) ||
           h5_put_text(file, "source", i->source, p, e) ||
           h5_put_u64(file, "tokens_checksum", i->tokens_checksum, p, e) ||
           h5_put_u64(file, "docs_checksum", i->docs_checksum, p, e);
}

static int write_h5(ShardWriter *w, int64_t *offset, Err *e)
{
    h5_lock();
    int rc = -1;
    hid_t plan = H5Pcreate(H5P_FILE_CREATE), access = h5_access(), file = -1;
    if (plan >= 0 && access >= 0 && H5Pset_userblock(plan, SEAL_SIZE) >= 0)
        file = H5Fcreate(w->h5_path, H5F_ACC_TRUNC, plan, access);
    if (file < 0) h5_fail(e, w->h5_path, "cannot be created");
    else
        rc = write_attributes(w, file, e) || write_tokens(w, file, offset, e) ||
             write_table(w, file, "doc_offset", w->doc_offset, w->info.n_docs + 1, e) ||
             write_table(w, file, "doc_bytes", w->doc_bytes, w->info.n_docs, e);
    if (file >= 0 && H5Fclose(file) < 0 && !rc) rc = h5_fail(e, w->h5_path, "cannot be closed");
    if (plan >= 0) H5Pclose(plan);
    if (access >= 0) H5Pclose(access);
    h5_unlock();
    return rc ? -1 : 0;
}

static int seal_and_sync(const ShardWriter *w, int64_t offset, Err *e)
{
    int fd = open(w->h5_path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return err_errno(e, "%s: cannot be opened", w->h5_path);
    int rc = seal_write(fd, offset, w->info.n_tokens * (int64_t)w->token_bytes, w->h5_path, e);
    if (!rc && fsync(fd)) rc = err_errno(e, "%s: cannot be synced", w->h5_path);
    if (close(fd) && !rc) rc = err_errno(e, "%s: cannot be closed", w->h5_path);
    return rc;
}

int shard_commit(ShardWriter **writer, ShardInfo *info, Err *e)
{
    ShardWriter *w = *writer;
    char folder[IO_PATH_MAX];
    int64_t offset = 0;
    int rc = w->info.n_docs ? 0 : err_set(e, "%s: no documents to write", w->path);
    if (!rc) {
        w->info.tokens_checksum = XXH3_64bits_digest(w->hash);
        w->info.docs_checksum = hash_docs(w);
        rc = write_h5(w, &offset, e);
    }
    if (!rc) rc = seal_and_sync(w, offset, e);
    if (!rc && rename(w->h5_path, w->path))
        rc = err_errno(e, "%s: cannot be renamed into place", w->path);
    if (!rc) {
        memcpy(folder, w->path, sizeof folder);
        rc = io_sync_dir(dirname(folder), e);
    }
    if (!rc && info) *info = w->info;
    shard_abandon(writer);
    return rc;
}
