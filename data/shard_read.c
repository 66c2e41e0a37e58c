/* data/shard_read.c - the reading half of shard.h. A shard is hostile until everything is checked;
 * HDF5 sees it only once the seal holds. */
#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/io.h"
#include "base/size.h"
#include "base/h5.h"
#include "data/seal.h"
#include "data/shard.h"

enum { VERIFY_TOKENS = 1 << 18 };

struct Shard {
    char path[IO_PATH_MAX];
    int fd; /* -1: resting */
    struct timespec changed; /* of the file, when it was opened first */
    Seal seal;
    ShardInfo info;
    size_t token_bytes;
    int64_t *doc_offset; /* (n_docs + 1) */
};

/* ---- opening ------------------------------------------------------------------------------- */

static int open_file(Shard *s, Err *e)
{
    struct stat info;
    s->fd = open(s->path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) return err_errno(e, "%s: cannot be opened", s->path);
    if (fstat(s->fd, &info)) return err_errno(e, "%s: cannot be read", s->path);
    bool first = s->seal.file_size == 0;
    if (first) s->changed = info.st_mtim;
    if (!first && (info.st_size != s->seal.file_size || info.st_mtim.tv_sec != s->changed.tv_sec ||
                   info.st_mtim.tv_nsec != s->changed.tv_nsec)) {
        shard_rest(s);
        return err_set(e, "%s: the file was changed while it was in use", s->path);
    }
    return 0;
}

static int read_attributes(Shard *s, hid_t file, Err *e)
{
    ShardInfo *i = &s->info;
    const char *p = s->path;
    int64_t format;
    if (h5_get_i64(file, "format", &format, p, e)) return -1;
    if (format != SHARD_FORMAT)
        return err_set(e, "%s: shard format %lld, this program reads format %d", p,
                       (long long)format, SHARD_FORMAT);
    if (h5_get_u64(file, "tokenizer_hash", &i->tokenizer_hash, p, e) ||
        h5_get_i64(file, "vocab_size", &i->vocab_size, p, e) ||
        h5_get_i64(file, "bos", &i->bos, p, e) || h5_get_i64(file, "eos", &i->eos, p, e) ||
        h5_get_text(file, "split", i->split, sizeof i->split, p, e) ||
        h5_get_text(file, "source", i->source, sizeof i->source, p, e) ||
        h5_get_u64(file, "tokens_checksum", &i->tokens_checksum, p, e) ||
        h5_get_u64(file, "docs_checksum", &i->docs_checksum, p, e))
        return -1;
    if (i->vocab_size < 1 || i->vocab_size > INT32_MAX || i->bos < 0 || i->eos < 0 ||
        i->bos >= i->vocab_size || i->eos >= i->vocab_size || i->bos == i->eos)
        return err_set(e, "%s: vocabulary of %lld with BOS %lld and EOS %lld", p,
                       (long long)i->vocab_size, (long long)i->bos, (long long)i->eos);
    return 0;
}

/* What there is to know of a dataset that must be one contiguous row of little-endian integers. */
typedef struct Row {
    hid_t data; /* open */
    int64_t n;
    size_t bytes; /* of one */
    H5T_sign_t sign;
    int64_t offset; /* in the file */
} Row;

static int open_row(const Shard *s, hid_t file, const char *name, Row *row, Err *e)
{
    hsize_t dim = 0;
    int64_t bytes = 0, end = 0;
    int good = 0;
    row->data = H5Dopen2(file, name, H5P_DEFAULT);
    if (row->data < 0) return h5_fail(e, s->path, "dataset %s cannot be opened", name);
    hid_t type = H5Dget_type(row->data), space = H5Dget_space(row->data),
          plan = H5Dget_create_plist(row->data);
    if (type >= 0 && space >= 0 && plan >= 0 && H5Tget_class(type) == H5T_INTEGER &&
        H5Tget_order(type) == H5T_ORDER_LE && H5Sget_simple_extent_ndims(space) == 1 &&
        H5Sget_simple_extent_dims(space, &dim, NULL) == 1 &&
        H5Pget_layout(plan) == H5D_CONTIGUOUS && H5Pget_external_count(plan) == 0) {
        row->n = (int64_t)dim;
        row->bytes = H5Tget_size(type);
        row->sign = H5Tget_sign(type);
        row->offset = (int64_t)H5Dget_offset(row->data);
        good = row->n > 0 && size_mul(row->n, (int64_t)row->bytes, &bytes) &&
               H5Dget_storage_size(row->data) == (hsize_t)bytes &&
               size_add(row->offset, bytes, &end) && end <= s->seal.file_size;
    }
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    if (plan >= 0) H5Pclose(plan);
    H5Eclear2(H5E_DEFAULT);
    if (good) return 0;
    H5Dclose(row->data);
    return err_set(e, "%s: dataset %s is not one contiguous row of integers in the file", s->path,
                   name);
}

/* Reads a whole row of int64 into a fresh array. Its size is bounded by the file's. */
static int read_table(const Shard *s, hid_t file, const char *name, int64_t **values, int64_t *n,
                      Err *e)
{
    Row row;
    int rc = -1;
    if (open_row(s, file, name, &row, e)) return -1;
    *n = row.n;
    if (row.bytes != 8 || row.sign != H5T_SGN_2)
        err_set(e, "%s: dataset %s is not of 64-bit integers", s->path, name);
    else if (!(*values = malloc((size_t)row.n * 8)))
        err_set(e, "%s: out of memory", s->path);
    else if (H5Dread(row.data, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, *values) < 0)
        h5_fail(e, s->path, "dataset %s cannot be read", name);
    else
        rc = 0;
    H5Dclose(row.data);
    return rc;
}

static int check_docs(Shard *s, const int64_t *doc_bytes, int64_t n_bytes, Err *e)
{
    const int64_t *offset = s->doc_offset;
    int64_t n = s->info.n_docs;
    if (n_bytes != n)
        return err_set(e, "%s: %lld document offsets for %lld documents", s->path, (long long)n + 1,
                       (long long)n_bytes);
    XXH3_state_t *hash = XXH3_createState();
    if (!hash) return err_set(e, "%s: out of memory", s->path);
    XXH3_64bits_reset(hash);
    int rc = offset[0] == 0 && offset[n] == s->info.n_tokens ? 0 : -1;
    for (int64_t i = 0; i < n && !rc; i++) /* BOS and EOS at least */
        if (offset[i] < 0 || offset[i] > s->info.n_tokens - 2 || offset[i + 1] < offset[i] + 2 ||
            doc_bytes[i] < 0 || !size_add(s->info.n_bytes, doc_bytes[i], &s->info.n_bytes))
            rc = -1;
    for (int64_t i = 0; i < 2 * n + 1; i++) {
        uint64_t little = htole64((uint64_t)(i <= n ? offset[i] : doc_bytes[i - n - 1]));
        XXH3_64bits_update(hash, &little, 8);
    }
    uint64_t sum = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    if (rc) return err_set(e, "%s: damaged: the document table contradicts itself", s->path);
    if (sum != s->info.docs_checksum)
        return err_set(e, "%s: damaged: wrong checksum of the document table", s->path);
    return 0;
}

static int read_docs(Shard *s, hid_t file, Err *e)
{
    int64_t *doc_bytes = NULL, n = 0, n_bytes = 0;
    int rc = read_table(s, file, "doc_offset", &s->doc_offset, &n, e) ||
             read_table(s, file, "doc_bytes", &doc_bytes, &n_bytes, e);
    s->info.n_docs = n - 1;
    if (!rc) rc = check_docs(s, doc_bytes, n_bytes, e);
    free(doc_bytes);
    return rc ? -1 : 0;
}

static int check_tokens(Shard *s, hid_t file, Err *e)
{
    Row row;
    if (open_row(s, file, "tokens", &row, e)) return -1;
    H5Dclose(row.data);
    s->info.n_tokens = row.n;
    s->token_bytes = s->info.vocab_size <= 65536 ? 2 : 4;
    if (row.bytes != s->token_bytes || row.sign != H5T_SGN_NONE)
        return err_set(e, "%s: tokens of %zu bytes for a vocabulary of %lld", s->path, row.bytes,
                       (long long)s->info.vocab_size);
    if (row.offset != s->seal.tokens_offset ||
        row.n * (int64_t)row.bytes != s->seal.tokens_bytes)
        return err_set(e, "%s: damaged: the tokens are not where the header says", s->path);
    return 0;
}

static int read_h5(Shard *s, Err *e)
{
    h5_lock();
    int rc = -1;
    hid_t access = h5_access(), file = -1;
    if (access >= 0) file = H5Fopen(s->path, H5F_ACC_RDONLY, access);
    if (file < 0) h5_fail(e, s->path, "HDF5 cannot open it");
    else rc = read_attributes(s, file, e) || check_tokens(s, file, e) || read_docs(s, file, e);
    if (file >= 0) H5Fclose(file);
    if (access >= 0) H5Pclose(access);
    h5_unlock();
    return rc;
}

Shard *shard_open(const char *path, Err *e)
{
    Shard *s = calloc(1, sizeof *s);
    size_t length = strlen(path);
    if (!s || length >= sizeof s->path) {
        err_set(e, s ? "path too long: %.200s..." : "%.200s: out of memory", path);
        free(s);
        return NULL;
    }
    memcpy(s->path, path, length + 1);
    s->fd = -1;
    if (open_file(s, e) || seal_check(s->fd, &s->seal, path, e) || read_h5(s, e)) shard_close(&s);
    if (s) shard_rest(s);
    return s;
}

void shard_close(Shard **shard)
{
    if (!*shard) return;
    shard_rest(*shard);
    free((*shard)->doc_offset);
    free(*shard);
    *shard = NULL;
}

const ShardInfo *shard_info(const Shard *shard) { return &shard->info; }
const char *shard_path(const Shard *shard) { return shard->path; }
const int64_t *shard_doc_offset(const Shard *shard) { return shard->doc_offset; }
bool shard_resting(const Shard *shard) { return shard->fd < 0; }

void shard_rest(Shard *shard)
{
    if (shard->fd >= 0) close(shard->fd);
    shard->fd = -1;
}

/* ---- tokens -------------------------------------------------------------------------------- */

/* Reads tokens as they stand in the file. */
static int read_raw(Shard *s, int64_t first, int64_t count, void *out, Err *e)
{
    CHECK(first >= 0 && count >= 0 && first <= s->info.n_tokens - count,
          "tokens %lld + %lld of %lld", (long long)first, (long long)count,
          (long long)s->info.n_tokens);
    if (s->fd < 0 && open_file(s, e)) return -1;
    return io_pread_full(s->fd, out, (size_t)count * s->token_bytes,
                         s->seal.tokens_offset + first * (int64_t)s->token_bytes, s->path, e);
}

/* Widens in place; two-byte tokens lie in the upper half of out, so that token i is read before it
 * is written over. */
static int widen(const Shard *s, int64_t first, int64_t count, int32_t *out, Err *e)
{
    const unsigned char *raw = (const unsigned char *)out + (size_t)count * (4 - s->token_bytes);
    for (int64_t i = 0; i < count; i++) {
        uint32_t id;
        if (s->token_bytes == 2) {
            uint16_t two;
            memcpy(&two, raw + 2 * i, 2);
            id = le16toh(two);
        } else {
            memcpy(&id, raw + 4 * i, 4);
            id = le32toh(id);
        }
        if ((int64_t)id >= s->info.vocab_size)
            return err_set(e, "%s: token %lld is %u, outside the vocabulary of %lld", s->path,
                           (long long)(first + i), id, (long long)s->info.vocab_size);
        out[i] = (int32_t)id;
    }
    return 0;
}

int shard_read(Shard *shard, int64_t first, int64_t count, int32_t *out, Err *e)
{
    char *raw = (char *)out + (size_t)count * (4 - shard->token_bytes);
    if (read_raw(shard, first, count, raw, e)) return -1;
    return widen(shard, first, count, out, e);
}

/* BOS and EOS stand where the table says, and nowhere else. *doc: the document of token `first`. */
static int check_ends(const Shard *s, int64_t first, int64_t count, const int32_t *ids,
                      int64_t *doc, Err *e)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t at = first + i;
        if (at == s->doc_offset[*doc + 1]) ++*doc;
        bool begins = at == s->doc_offset[*doc], ends = at + 1 == s->doc_offset[*doc + 1];
        if ((ids[i] == s->info.bos) != begins || (ids[i] == s->info.eos) != ends)
            return err_set(e, "%s: token %lld is %d: BOS and EOS do not fit the document table",
                           s->path, (long long)at, (int)ids[i]);
    }
    return 0;
}

int shard_verify(Shard *shard, Err *e)
{
    Shard *s = shard;
    int32_t *ids = malloc(VERIFY_TOKENS * sizeof *ids);
    XXH3_state_t *hash = XXH3_createState();
    int rc = ids && hash ? 0 : err_set(e, "%s: out of memory", s->path);
    if (hash) XXH3_64bits_reset(hash);
    /* First the checksum, so that damage is called damage; then what the tokens say. */
    for (int64_t at = 0; at < s->info.n_tokens && !rc; at += VERIFY_TOKENS) {
        int64_t n = size_min(VERIFY_TOKENS, s->info.n_tokens - at);
        rc = read_raw(s, at, n, ids, e);
        if (!rc) XXH3_64bits_update(hash, ids, (size_t)n * s->token_bytes);
    }
    if (!rc && XXH3_64bits_digest(hash) != s->info.tokens_checksum)
        rc = err_set(e, "%s: damaged: wrong checksum of the tokens", s->path);
    int64_t doc = 0;
    for (int64_t at = 0; at < s->info.n_tokens && !rc; at += VERIFY_TOKENS) {
        int64_t n = size_min(VERIFY_TOKENS, s->info.n_tokens - at);
        rc = shard_read(s, at, n, ids, e) || check_ends(s, at, n, ids, &doc, e) ? -1 : 0;
    }
    XXH3_freeState(hash);
    free(ids);
    return rc;
}
