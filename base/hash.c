/* base/hash.c - see hash.h; the hash itself is the xxHash library's XXH3-64. */
#include "base/hash.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

uint64_t hash_bytes(const void *data, size_t size) { return XXH3_64bits(data, size); }

uint64_t hash_more(uint64_t seed, const void *data, size_t size)
{
    return XXH3_64bits_withSeed(data, size, seed);
}

int hash_file(const char *path, uint64_t *out, Err *e)
{
    FILE *file = fopen(path, "rb");
    if (!file) return err_errno(e, "%s: cannot be opened", path);
    XXH3_state_t *state = XXH3_createState();
    char *buffer = malloc(1 << 20);
    int rc = -1;
    if (!state || !buffer) {
        err_set(e, "%s: out of memory while hashing", path);
        goto done;
    }
    XXH3_64bits_reset(state);
    size_t n;
    while ((n = fread(buffer, 1, 1 << 20, file)) > 0) XXH3_64bits_update(state, buffer, n);
    if (ferror(file)) {
        err_errno(e, "%s: read error", path);
        goto done;
    }
    *out = XXH3_64bits_digest(state);
    rc = 0;
done:
    free(buffer);
    XXH3_freeState(state);
    fclose(file);
    return rc;
}

void hash_hex(uint64_t hash, char out[HASH_HEX])
{
    snprintf(out, HASH_HEX, "%016llx", (unsigned long long)hash);
}
