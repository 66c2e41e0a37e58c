/* data/dedup.c - see dedup.h.
 *
 * Equal ones: a table of (hash, document). Near ones: signatures in blocks; a table for each band,
 * whose slots hold the newest document of a chain that agrees in the band; each document has a link
 * to the next older one for every band.
 */
#include "data/dedup.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { BLOCK_DOCS = 1024, TABLE_MIN = 256 };

typedef struct Equal {
    uint64_t hash;
    int64_t document; /* + 1; 0: free */
} Equal;

typedef struct Band {
    uint32_t *slot; /* (size) entry + 1; 0: free */
    int64_t size, used;
} Band;

typedef struct Block {
    int64_t *document;   /* (BLOCK_DOCS) */
    uint32_t *signature; /* (BLOCK_DOCS, hashes) */
    uint32_t *link;      /* (BLOCK_DOCS, bands) entry + 1; 0: the chain ends */
} Block;

struct Dedup {
    DedupOptions o;
    int hashes;
    uint64_t *factor, *offset; /* (hashes) keys */
    Equal *equal;              /* (equal_size) */
    int64_t equal_size, equal_used;
    Band *band;                /* (bands) */
    Block *block;              /* (blocks) */
    int64_t blocks, blocks_room, entries;
    DedupCosts costs;
};

/* ---- memory -------------------------------------------------------------------------------- */

/* Zeroed memory that counts against the limit; NULL and a message if there is no more. */
static void *take(Dedup *d, int64_t n, size_t size, Err *e)
{
    int64_t bytes = n * (int64_t)size;
    void *memory = d->costs.bytes + bytes <= d->o.bytes ? calloc((size_t)n, size) : NULL;
    if (memory) {
        d->costs.bytes += bytes;
        return memory;
    }
    err_set(e, "finding duplicates among %lld documents needs more than the %lld MiB it may have",
            (long long)d->costs.documents, (long long)(d->o.bytes >> 20));
    err_hint(e, "more memory (--dedup-memory), fewer hashes (--near-bands, --near-rows), or the "
             "input in parts");
    return NULL;
}

static void drop(Dedup *d, void *memory, int64_t n, size_t size)
{
    if (memory) d->costs.bytes -= n * (int64_t)size;
    free(memory);
}

static int make_keys(Dedup *d, Err *e)
{
    d->factor = take(d, d->hashes, sizeof *d->factor, e);
    d->offset = d->factor ? take(d, d->hashes, sizeof *d->offset, e) : NULL;
    d->band = d->offset ? take(d, d->o.bands, sizeof *d->band, e) : NULL;
    if (!d->band) return -1;
    for (int i = 0; i < d->hashes; i++) {
        uint64_t number = (uint64_t)i;
        d->factor[i] = hash_more(1, &number, sizeof number) | 1;
        d->offset[i] = hash_more(2, &number, sizeof number);
    }
    return 0;
}

Dedup *dedup_create(const DedupOptions *o, Err *e)
{
    Dedup *d = calloc(1, sizeof *d);
    CHECK(o->bands >= 1 && o->rows >= 1 && o->bands <= DEDUP_HASHES_MAX / o->rows,
          "%d bands of %d rows", o->bands, o->rows);
    if (!d) {
        err_set(e, "out of memory");
        return NULL;
    }
    d->o = *o;
    d->hashes = o->bands * o->rows;
    if (o->near > 0 && make_keys(d, e)) dedup_destroy(&d);
    return d;
}

void dedup_destroy(Dedup **dedup)
{
    Dedup *d = *dedup;
    if (!d) return;
    for (int64_t i = 0; i < d->blocks; i++) {
        free(d->block[i].document);
        free(d->block[i].signature);
        free(d->block[i].link);
    }
    for (int b = 0; d->band && b < d->o.bands; b++) free(d->band[b].slot);
    free(d->block);
    free(d->band);
    free(d->factor);
    free(d->offset);
    free(d->equal);
    free(d);
    *dedup = NULL;
}

DedupCosts dedup_costs(const Dedup *dedup) { return dedup->costs; }

/* ---- equal ones ---------------------------------------------------------------------------- */

/* The slot that holds the hash, or the free one where it belongs. */
static Equal *equal_slot(const Dedup *d, uint64_t hash)
{
    uint64_t mask = (uint64_t)d->equal_size - 1, at = hash & mask;
    while (d->equal[at].document && d->equal[at].hash != hash) at = (at + 1) & mask;
    return &d->equal[at];
}

int dedup_find_equal(const Dedup *dedup, uint64_t hash, DedupMatch *out)
{
    const Equal *slot = dedup->equal ? equal_slot(dedup, hash) : NULL;
    if (!slot || !slot->document) return 0;
    *out = (DedupMatch){slot->document - 1, 1};
    return 1;
}

static int grow_equal(Dedup *d, Err *e)
{
    Equal *old = d->equal;
    int64_t size = d->equal_size;
    if (3 * (d->equal_used + 1) <= 2 * size) return 0;
    Equal *grown = take(d, size ? 2 * size : TABLE_MIN, sizeof *grown, e);
    if (!grown) return -1;
    d->equal = grown;
    d->equal_size = size ? 2 * size : TABLE_MIN;
    for (int64_t i = 0; i < size; i++)
        if (old[i].document) *equal_slot(d, old[i].hash) = old[i];
    drop(d, old, size, sizeof *old);
    return 0;
}

static int add_equal(Dedup *d, uint64_t hash, int64_t document, Err *e)
{
    if (grow_equal(d, e)) return -1;
    Equal *slot = equal_slot(d, hash);
    if (slot->document) return 0; /* the first one stays */
    *slot = (Equal){hash, document + 1};
    d->equal_used++;
    return 0;
}

/* ---- signatures ---------------------------------------------------------------------------- */

void dedup_sign(const Dedup *dedup, const DocText *t, uint32_t *signature)
{
    const DocParts *words = &t->words;
    int64_t length = words->count < DEDUP_SHINGLE ? words->count : DEDUP_SHINGLE;
    for (int i = 0; i < dedup->hashes; i++) signature[i] = UINT32_MAX;
    for (int64_t w = 0; length && w + length <= words->count; w++) {
        uint64_t word[DEDUP_SHINGLE], shingle;
        for (int64_t i = 0; i < length; i++) word[i] = words->part[w + i].hash;
        shingle = hash_bytes(word, (size_t)length * sizeof *word);
        for (int i = 0; i < dedup->hashes; i++) {
            uint32_t value = (uint32_t)((dedup->factor[i] * shingle + dedup->offset[i]) >> 32);
            if (value < signature[i]) signature[i] = value;
        }
    }
}

double dedup_likeness(const uint32_t *a, const uint32_t *b, int n)
{
    int equal = 0;
    for (int i = 0; i < n; i++) equal += a[i] == b[i];
    return (double)equal / n;
}

/* ---- near ones ----------------------------------------------------------------------------- */

static const uint32_t *signature_of(const Dedup *d, int64_t entry)
{
    return d->block[entry / BLOCK_DOCS].signature + entry % BLOCK_DOCS * d->hashes;
}

static uint32_t *link_of(const Dedup *d, int64_t entry, int band)
{
    return d->block[entry / BLOCK_DOCS].link + entry % BLOCK_DOCS * d->o.bands + band;
}

/* The slot of the chain that agrees with the signature in the band, or the free one for it. */
static uint32_t *band_slot(const Dedup *d, int band, const uint32_t *signature)
{
    const Band *b = &d->band[band];
    const uint32_t *key = signature + band * d->o.rows;
    size_t bytes = (size_t)d->o.rows * sizeof *key;
    uint64_t mask = (uint64_t)b->size - 1, at = hash_bytes(key, bytes) & mask;
    while (b->slot[at] &&
           memcmp(signature_of(d, (int64_t)b->slot[at] - 1) + band * d->o.rows, key, bytes))
        at = (at + 1) & mask;
    return &b->slot[at];
}

/* Has the document any shingle? One that has none has the signature of nothing. */
static bool is_signed(const Dedup *d, const uint32_t *signature)
{
    for (int i = 0; i < d->hashes; i++)
        if (signature[i] != UINT32_MAX) return true;
    return false;
}

int dedup_find_near(Dedup *dedup, const uint32_t *signature, DedupMatch *out)
{
    Dedup *d = dedup;
    int compared = 0;
    if (!d->entries || !is_signed(d, signature)) return 0;
    for (int band = 0; band < d->o.bands; band++) {
        uint32_t entry = *band_slot(d, band, signature);
        for (; entry; entry = *link_of(d, (int64_t)entry - 1, band)) {
            if (compared++ == DEDUP_COMPARE_MAX) {
                d->costs.cut_short++;
                return 0;
            }
            int64_t i = (int64_t)entry - 1;
            double likeness = dedup_likeness(signature_of(d, i), signature, d->hashes);
            if (likeness < d->o.near) continue;
            *out = (DedupMatch){d->block[i / BLOCK_DOCS].document[i % BLOCK_DOCS], likeness};
            return 1;
        }
    }
    return 0;
}

static int grow_band(Dedup *d, int band, Err *e)
{
    Band *b = &d->band[band], old = *b;
    if (3 * (b->used + 1) <= 2 * b->size) return 0;
    int64_t size = old.size ? 2 * old.size : TABLE_MIN;
    uint32_t *slot = take(d, size, sizeof *slot, e);
    if (!slot) return -1;
    *b = (Band){slot, size, old.used};
    for (int64_t i = 0; i < old.size; i++)
        if (old.slot[i])
            *band_slot(d, band, signature_of(d, (int64_t)old.slot[i] - 1)) = old.slot[i];
    drop(d, old.slot, old.size, sizeof *old.slot);
    return 0;
}

static int add_block(Dedup *d, Err *e)
{
    if (d->blocks == d->blocks_room) {
        int64_t room = d->blocks_room ? 2 * d->blocks_room : 16;
        Block *grown = take(d, room, sizeof *grown, e);
        if (!grown) return -1;
        if (d->blocks) memcpy(grown, d->block, (size_t)d->blocks * sizeof *grown);
        drop(d, d->block, d->blocks_room, sizeof *grown);
        d->block = grown;
        d->blocks_room = room;
    }
    Block *block = &d->block[d->blocks++];
    block->document = take(d, BLOCK_DOCS, sizeof *block->document, e);
    if (!block->document) return -1;
    block->signature = take(d, (int64_t)BLOCK_DOCS * d->hashes, sizeof *block->signature, e);
    if (!block->signature) return -1;
    block->link = take(d, (int64_t)BLOCK_DOCS * d->o.bands, sizeof *block->link, e);
    return block->link ? 0 : -1;
}

static int add_near(Dedup *d, const uint32_t *signature, int64_t document, Err *e)
{
    int64_t i = d->entries;
    if (!is_signed(d, signature)) return 0;
    if (i == UINT32_MAX - 1) return err_set(e, "duplicates: more than 2^32 documents");
    if (i == d->blocks * BLOCK_DOCS && add_block(d, e)) return -1;
    for (int band = 0; band < d->o.bands; band++)
        if (grow_band(d, band, e)) return -1;
    Block *block = &d->block[i / BLOCK_DOCS];
    block->document[i % BLOCK_DOCS] = document;
    memcpy(block->signature + i % BLOCK_DOCS * d->hashes, signature,
           (size_t)d->hashes * sizeof *signature);
    for (int band = 0; band < d->o.bands; band++) {
        uint32_t *slot = band_slot(d, band, signature);
        *link_of(d, i, band) = *slot;
        d->band[band].used += !*slot;
        *slot = (uint32_t)(i + 1);
    }
    d->entries++;
    return 0;
}

int dedup_add(Dedup *dedup, uint64_t hash, const uint32_t *signature, int64_t document, Err *e)
{
    if (dedup->o.exact && add_equal(dedup, hash, document, e)) return -1;
    if (dedup->o.near > 0 && add_near(dedup, signature, document, e)) return -1;
    dedup->costs.documents++;
    return 0;
}
