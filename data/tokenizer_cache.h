/* data/tokenizer_cache.h - remembers how short words were encoded (used by tokenizer.c only).
 *
 * Direct-mapped: a word has one slot, a new word takes it over. So it never grows, and what it
 * answers is what encoding the word anew would give.
 */
#ifndef ISOMOE_DATA_TOKENIZER_CACHE_H
#define ISOMOE_DATA_TOKENIZER_CACHE_H

#include <stdint.h>
#include <string.h>

#include "base/hash.h"
#include "data/tokenizer.h"

enum { CACHE_SLOTS = 1 << 16, CACHE_WORD = 22, CACHE_IDS = 12 };

typedef struct CacheSlot {
    uint8_t size;  /* bytes of the word; 0: empty */
    uint8_t count; /* ids */
    char word[CACHE_WORD];
    int32_t ids[CACHE_IDS];
} CacheSlot;

struct TokenizerCache {
    CacheSlot slot[CACHE_SLOTS];
};

/* The word's slot; whether it holds the word is for cache_holds to say. NULL: not cacheable. */
static inline CacheSlot *cache_slot(TokenizerCache *cache, const char *word, size_t size)
{
    if (!cache || size == 0 || size > CACHE_WORD) return NULL;
    return &cache->slot[hash_bytes(word, size) % CACHE_SLOTS];
}

static inline int cache_holds(const CacheSlot *slot, const char *word, size_t size)
{
    return slot->size == size && !memcmp(slot->word, word, size);
}

static inline void cache_put(CacheSlot *slot, const char *word, size_t size, const int32_t *ids,
                             int64_t count)
{
    if (count > CACHE_IDS) return;
    slot->size = (uint8_t)size;
    slot->count = (uint8_t)count;
    memcpy(slot->word, word, size);
    memcpy(slot->ids, ids, (size_t)count * sizeof *ids);
}

#endif
