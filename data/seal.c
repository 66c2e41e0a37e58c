/* data/seal.c - see seal.h. */
#include "data/seal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/size.h"

static const char MAGIC[8] = "ISOMOESH";
enum { BLOCK = 1 << 18, AT_FORMAT = 8, AT_FILE = 16, AT_OFFSET = 24, AT_BYTES = 32, AT_REST = 40,
       AT_SELF = SEAL_SIZE - 8 };

static void put_u64(unsigned char *p, uint64_t value)
{
    for (int i = 0; i < 8; i++) p[i] = (unsigned char)(value >> (8 * i));
}

static uint64_t get_u64(const unsigned char *p)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value |= (uint64_t)p[i] << (8 * i);
    return value;
}

static int hash_range(int fd, int64_t from, int64_t to, XXH3_state_t *state, const char *path,
                      Err *e)
{
    unsigned char *block = malloc(BLOCK);
    int rc = block ? 0 : err_set(e, "%s: out of memory", path);
    for (int64_t at = from; at < to && !rc; at += BLOCK) {
        size_t n = (size_t)size_min(BLOCK, to - at);
        rc = io_pread_full(fd, block, n, at, path, e);
        if (!rc) XXH3_64bits_update(state, block, n);
    }
    free(block);
    return rc;
}

/* Hash of everything behind the block but the tokens. */
static int hash_rest(int fd, const Seal *seal, uint64_t *out, const char *path, Err *e)
{
    XXH3_state_t *state = XXH3_createState();
    if (!state) return err_set(e, "%s: out of memory", path);
    XXH3_64bits_reset(state);
    int rc = hash_range(fd, SEAL_SIZE, seal->tokens_offset, state, path, e);
    if (!rc)
        rc = hash_range(fd, seal->tokens_offset + seal->tokens_bytes, seal->file_size, state, path,
                        e);
    *out = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return rc;
}

/* The tokens must lie behind the block and within the file. */
static int check_range(const Seal *seal, const char *path, Err *e)
{
    int64_t end;
    if (seal->tokens_offset < SEAL_SIZE ||
        !size_add(seal->tokens_offset, seal->tokens_bytes, &end) || end > seal->file_size)
        return err_set(e, "%s: damaged: tokens at %lld + %lld in a file of %lld bytes", path,
                       (long long)seal->tokens_offset, (long long)seal->tokens_bytes,
                       (long long)seal->file_size);
    return 0;
}

static int file_size(int fd, int64_t *out, const char *path, Err *e)
{
    struct stat info;
    if (fstat(fd, &info)) return err_errno(e, "%s: cannot be read", path);
    if (!S_ISREG(info.st_mode)) return err_set(e, "%s: not a file", path);
    *out = info.st_size;
    return 0;
}

int seal_write(int fd, int64_t tokens_offset, int64_t tokens_bytes, const char *path, Err *e)
{
    Seal seal = {.tokens_offset = tokens_offset, .tokens_bytes = tokens_bytes};
    unsigned char block[SEAL_SIZE] = {0};
    if (file_size(fd, &seal.file_size, path, e) || check_range(&seal, path, e) ||
        hash_rest(fd, &seal, &seal.rest_hash, path, e))
        return -1;
    memcpy(block, MAGIC, sizeof MAGIC);
    put_u64(block + AT_FORMAT, SEAL_FORMAT);
    put_u64(block + AT_FILE, (uint64_t)seal.file_size);
    put_u64(block + AT_OFFSET, (uint64_t)tokens_offset);
    put_u64(block + AT_BYTES, (uint64_t)tokens_bytes);
    put_u64(block + AT_REST, seal.rest_hash);
    put_u64(block + AT_SELF, hash_bytes(block, AT_SELF));
    if (pwrite(fd, block, sizeof block, 0) != (ssize_t)sizeof block)
        return err_errno(e, "%s: write error", path);
    return 0;
}

int seal_check(int fd, Seal *seal, const char *path, Err *e)
{
    unsigned char block[SEAL_SIZE];
    int64_t size = 0;
    uint64_t rest;
    if (file_size(fd, &size, path, e)) return -1;
    if (size < SEAL_SIZE) {
        return err_set(e, "%s: not a shard: %lld bytes are fewer than its header has", path,
                       (long long)size);
    }
    if (io_pread_full(fd, block, sizeof block, 0, path, e)) return -1;
    if (memcmp(block, MAGIC, sizeof MAGIC)) {
        err_set(e, "%s: not a shard made by isomoe prepare", path);
        return err_hint(e, "shards are named train-00000.h5 and so on, beside prepare.json");
    }
    if (get_u64(block + AT_SELF) != hash_bytes(block, AT_SELF))
        return err_set(e, "%s: damaged: wrong checksum of the header", path);
    if (get_u64(block + AT_FORMAT) != SEAL_FORMAT)
        return err_set(e, "%s: shard format %llu, this program reads format %d", path,
                       (unsigned long long)get_u64(block + AT_FORMAT), SEAL_FORMAT);
    *seal = (Seal){(int64_t)get_u64(block + AT_FILE), (int64_t)get_u64(block + AT_OFFSET),
                   (int64_t)get_u64(block + AT_BYTES), get_u64(block + AT_REST)};
    if (seal->file_size != size) {
        err_set(e, "%s: damaged: %lld bytes, but %lld were written", path, (long long)size,
                (long long)seal->file_size);
        return err_hint(e, "an interrupted copy? copy the file again or run isomoe prepare anew");
    }
    if (check_range(seal, path, e) || hash_rest(fd, seal, &rest, path, e)) return -1;
    if (rest != seal->rest_hash)
        return err_set(e, "%s: damaged: wrong checksum of its structure", path);
    return 0;
}
