/* data/sieve.c - see sieve.h. Documents are gathered into batches: all threads look at the text,
 * the model scores what is left, then one thread looks for duplicates, in order. */
#include "data/sieve.h"

#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/io.h"

enum { BATCH_DOCS = 1024, BATCH_BYTES = 1 << 24, HUGE_DOCUMENT = 1 << 24 };

typedef struct Item {
    size_t at, size; /* the text, in the batch's bytes */
    int file;        /* in the list of inputs */
    uint64_t hash;   /* DocText's */
    FilterVerdict verdict;
} Item;

struct Sieve {
    const FilterOptions *o;
    bool any;       /* is a filter on? */
    bool decided;   /* a whole reading is done: look up */
    Source *source;
    const InputList *list;
    bool ended;     /* the source has no more */
    int64_t next;   /* document of the source that is read next */
    uint64_t chain; /* hash of all documents of this reading so far */
    uint64_t whole; /* chain of the reading that decided */
    uint8_t *kept;  /* a bit for each document */
    int64_t kept_room;
    /* the batch */
    char *text;
    size_t used, capacity;
    Item item[BATCH_DOCS];
    int count, handed; /* items in the batch; of them looked at by sieve_next */
    double bits[BATCH_DOCS];
    uint32_t *signature; /* (BATCH_DOCS, hashes); NULL: no near duplicates */
    int hashes;
    DocText *scratch; /* (threads) */
    int threads;
    Dedup *dedup;
    FILE *report;
    char temporary[IO_PATH_MAX]; /* where it stands until it is complete */
    SieveResult result;
};

/* ---- making -------------------------------------------------------------------------------- */

static int open_dedup(Sieve *s, Err *e)
{
    const FilterOptions *o = s->o;
    DedupOptions d = {
        .exact = o->limit[FILTER_EXACT].on,
        .near = o->limit[FILTER_NEAR].on ? o->limit[FILTER_NEAR].high : 0,
        .bands = o->bands ? o->bands : DEDUP_BANDS,
        .rows = o->rows ? o->rows : DEDUP_ROWS,
        .bytes = o->dedup_bytes ? o->dedup_bytes : DEDUP_BYTES,
    };
    s->dedup = dedup_create(&d, e);
    if (!s->dedup) return -1;
    s->hashes = d.bands * d.rows;
    if (!(d.near > 0)) return 0;
    s->signature = malloc((size_t)BATCH_DOCS * (size_t)s->hashes * sizeof *s->signature);
    return s->signature ? 0 : err_set(e, "out of memory");
}

static int open_all(Sieve *s, Err *e)
{
    s->threads = omp_get_max_threads();
    s->scratch = calloc((size_t)s->threads, sizeof *s->scratch);
    if (!s->scratch) return err_set(e, "out of memory");
    if (open_dedup(s, e)) return -1;
    if (!s->o->report) return 0;
    int n = snprintf(s->temporary, sizeof s->temporary, "%s.tmp.%ld", s->o->report, (long)getpid());
    if (n >= (int)sizeof s->temporary) return err_set(e, "path too long: %.200s", s->o->report);
    s->report = fopen(s->temporary, "wx");
    return s->report ? 0 : err_errno(e, "%s: the report cannot be written", s->temporary);
}

Sieve *sieve_create(const FilterOptions *o, Err *e)
{
    Sieve *s = calloc(1, sizeof *s);
    if (!s) {
        err_set(e, "out of memory");
        return NULL;
    }
    s->o = o;
    s->any = filter_any(o);
    if (s->any && open_all(s, e)) sieve_destroy(&s);
    return s;
}

void sieve_destroy(Sieve **sieve)
{
    Sieve *s = *sieve;
    if (!s) return;
    for (int i = 0; s->scratch && i < s->threads; i++) doctext_free(&s->scratch[i]);
    if (s->report) { /* broken off: an older report stays */
        fclose(s->report);
        unlink(s->temporary);
    }
    dedup_destroy(&s->dedup);
    free(s->scratch);
    free(s->signature);
    free(s->text);
    free(s->kept);
    free(s);
    *sieve = NULL;
}

const SieveResult *sieve_result(const Sieve *sieve) { return &sieve->result; }

void sieve_begin(Sieve *sieve, Source *source, const InputList *list)
{
    CHECK(!sieve->next || sieve->decided, "a reading was broken off");
    sieve->source = source;
    sieve->list = list;
    sieve->next = 0;
    sieve->chain = 0;
    sieve->ended = false;
}

/* ---- a batch ------------------------------------------------------------------------------- */

static int add_item(Sieve *s, const Document *d, Err *e)
{
    if (s->used + d->size > s->capacity) {
        size_t capacity = (s->used + d->size) * 3 / 2;
        char *grown = realloc(s->text, capacity);
        if (!grown) return err_set(e, "out of memory for %zu bytes of text", capacity);
        s->text = grown;
        s->capacity = capacity;
    }
    memcpy(s->text + s->used, d->text, d->size);
    s->item[s->count++] = (Item){.at = s->used, .size = d->size, .file = source_file(s->source),
                                 .verdict.by = FILTERS};
    s->used += d->size;
    return 0;
}

static int read_batch(Sieve *s, Err *e)
{
    Document document;
    s->count = s->handed = 0;
    s->used = 0;
    while (s->count < BATCH_DOCS && s->used < BATCH_BYTES) {
        int more = source_next(s->source, &document, e);
        if (more < 0) return -1;
        s->ended = !more;
        if (!more) return 0;
        s->chain = hash_more(s->chain, document.text, document.size);
        if (add_item(s, &document, e)) return -1;
    }
    return 0;
}

static Document text_of(const Sieve *s, int i)
{
    return (Document){s->text + s->item[i].at, s->item[i].size};
}

static int judge_item(Sieve *s, int i, DocText *scratch, Err *e)
{
    Document document = text_of(s, i);
    Item *item = &s->item[i];
    if (doctext_read(scratch, document.text, document.size, e) ||
        filter_text(s->o, scratch, &item->verdict, e))
        return -1;
    item->hash = scratch->hash;
    if (s->signature && item->verdict.by == FILTERS)
        dedup_sign(s->dedup, scratch, s->signature + (size_t)i * (size_t)s->hashes);
    if (document.size > HUGE_DOCUMENT) doctext_free(scratch); /* not one for every thread */
    return 0;
}

static int judge_texts(Sieve *s, Err *e)
{
    int failed = 0;
#pragma omp parallel for schedule(dynamic) num_threads(s->threads)
    for (int i = 0; i < s->count; i++) {
        Err why = {0};
        if (judge_item(s, i, &s->scratch[omp_get_thread_num()], &why)) {
#pragma omp critical
            {
                failed = 1;
                if (e) *e = why;
            }
        }
    }
    return failed ? -1 : 0;
}

static int judge_bits(Sieve *s, Err *e)
{
    Document left[BATCH_DOCS];
    int index[BATCH_DOCS], n = 0;
    if (!s->o->limit[FILTER_BITS].on) return 0;
    for (int i = 0; i < s->count; i++) {
        if (s->item[i].verdict.by != FILTERS) continue;
        left[n] = text_of(s, i);
        index[n++] = i;
    }
    if (n && s->o->score(s->o->score_context, left, n, s->bits, e)) return -1;
    for (int k = 0; k < n; k++) {
        if (isnan(s->bits[k]))
            return err_set(e, "the model's bits per byte of document %lld are not a number",
                           (long long)(s->next + index[k]));
        if (!filter_keeps(s->o, FILTER_BITS, s->bits[k]))
            s->item[index[k]].verdict = (FilterVerdict){FILTER_BITS, s->bits[k]};
    }
    return 0;
}

/* One line about document number `document`; match: of which it is a duplicate, or NULL. */
static int write_report(Sieve *s, const Item *item, int64_t document, const DedupMatch *match,
                        Err *e)
{
    if (!s->report) return 0;
    json_t *line = json_pack("{s:I, s:I, s:s, s:f}", "document", (json_int_t)document, "bytes",
                             (json_int_t)item->size, "filter", filter_name[item->verdict.by],
                             "value", item->verdict.value);
    if (match) json_object_set_new(line, "of", json_integer(match->document));
    json_t *file = json_string(s->list->file[item->file].path); /* NULL: not UTF-8; left out */
    if (file) json_object_set_new(line, "file", file);
    int rc = line ? json_dumpf(line, s->report, JSON_COMPACT) : -1;
    json_decref(line);
    if (rc || fputc('\n', s->report) == EOF)
        return err_set(e, "%s: the report cannot be written", s->o->report);
    return 0;
}

/* Is it a duplicate? If not, later ones may be duplicates of it. */
static int judge_copy(Sieve *s, int i, int64_t document, DedupMatch *match, Err *e)
{
    Item *item = &s->item[i];
    const uint32_t *signature = s->signature ? s->signature + (size_t)i * (size_t)s->hashes : NULL;
    if (s->o->limit[FILTER_EXACT].on && dedup_find_equal(s->dedup, item->hash, match))
        item->verdict = (FilterVerdict){FILTER_EXACT, match->likeness};
    else if (signature && dedup_find_near(s->dedup, signature, match))
        item->verdict = (FilterVerdict){FILTER_NEAR, match->likeness};
    else
        return dedup_add(s->dedup, item->hash, signature, document, e);
    return 0;
}

static int judge_copies(Sieve *s, Err *e)
{
    for (int i = 0; i < s->count; i++) {
        Item *item = &s->item[i];
        int64_t document = s->next + i;
        DedupMatch match;
        bool text_kept = item->verdict.by == FILTERS;
        if (text_kept && judge_copy(s, i, document, &match, e)) return -1;
        s->result.documents++;
        s->result.bytes += (int64_t)item->size;
        if (item->verdict.by == FILTERS) {
            s->kept[document / 8] |= (uint8_t)(1 << document % 8);
            continue;
        }
        s->result.removed[item->verdict.by].documents++;
        s->result.removed[item->verdict.by].bytes += (int64_t)item->size;
        if (write_report(s, item, document, text_kept ? &match : NULL, e)) return -1;
    }
    return 0;
}

/* Room for the verdicts of the next `count` documents, all zero. */
static int grow_kept(Sieve *s, Err *e)
{
    int64_t need = (s->next + s->count) / 8 + 1;
    if (need <= s->kept_room) return 0;
    int64_t room = need * 3 / 2 + BATCH_DOCS;
    uint8_t *grown = realloc(s->kept, (size_t)room);
    if (!grown) return err_set(e, "out of memory for %lld documents", (long long)s->next);
    memset(grown + s->kept_room, 0, (size_t)(room - s->kept_room));
    s->kept = grown;
    s->kept_room = room;
    return 0;
}

static int end_deciding(Sieve *s, Err *e)
{
    s->decided = true;
    s->whole = s->chain;
    s->result.dedup = dedup_costs(s->dedup);
    if (!s->report) return 0;
    int rc = fflush(s->report) || ferror(s->report);
    rc = fclose(s->report) || rc;
    s->report = NULL;
    if (!rc) rc = rename(s->temporary, s->o->report);
    if (!rc) return 0;
    err_errno(e, "%s: the report cannot be written", s->o->report);
    unlink(s->temporary);
    return -1;
}

/* ---- handing out --------------------------------------------------------------------------- */

static bool is_kept(const Sieve *s, int64_t document)
{
    return s->kept[document / 8] >> document % 8 & 1;
}

static int decide_next(Sieve *s, Document *out, Err *e)
{
    for (;;) {
        while (s->handed < s->count) {
            int i = s->handed++;
            if (s->item[i].verdict.by != FILTERS) continue;
            *out = text_of(s, i);
            return 1;
        }
        s->next += s->count;
        s->count = s->handed = 0;
        if (s->ended) return end_deciding(s, e);
        if (read_batch(s, e) || grow_kept(s, e) || judge_texts(s, e) || judge_bits(s, e) ||
            judge_copies(s, e))
            return -1;
    }
}

static int look_up_next(Sieve *s, Document *out, Err *e)
{
    int more;
    while ((more = source_next(s->source, out, e)) > 0) {
        s->chain = hash_more(s->chain, out->text, out->size);
        if (s->next == s->result.documents) break;
        if (is_kept(s, s->next++)) return 1;
    }
    if (more < 0) return -1;
    if (more > 0 || s->next != s->result.documents || s->chain != s->whole)
        return err_set(e, "the input changed while it was read: what the filters decided does not "
                       "fit it");
    return 0;
}

int sieve_next(Sieve *sieve, Document *out, Err *e)
{
    if (!sieve->any) return source_next(sieve->source, out, e);
    return sieve->decided ? look_up_next(sieve, out, e) : decide_next(sieve, out, e);
}
