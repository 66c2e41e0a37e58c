/* base/hash.h - content hashes: XXH3-64 of bytes and files, as numbers and 16 hex digits. */
#ifndef ISOMOE_BASE_HASH_H
#define ISOMOE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { HASH_HEX = 17 }; /* 16 digits and the terminating zero */

uint64_t hash_bytes(const void *data, size_t size);

/* Continues a hash: feed the previous result as seed. */
uint64_t hash_more(uint64_t seed, const void *data, size_t size);

/* Hash of a whole file. */
int hash_file(const char *path, uint64_t *out, Err *e);

void hash_hex(uint64_t hash, char out[HASH_HEX]);

#endif
