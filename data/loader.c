/* data/loader.c - see loader.h. mixture.h says which source gives a sequence, permute.h which of
 * its windows that is, corpus.h what stands in the window.
 *
 * The prefetch thread has one job at a time, the batch after the one handed out last. It works only
 * while the state is JOB_WANTED; then nobody else touches the corpora or the job's slot.
 */
#include "data/loader.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/philox.h"
#include "base/size.h"
#include "data/corpus.h"
#include "data/mixture.h"
#include "data/permute.h"

_Static_assert((int)LOADER_MAX_SOURCES == (int)MIXTURE_MAX, "a mixture holds all sources");

enum { SEQ_LEN_MAX = 1 << 28 };
static const int64_t INDEX_MAX = (int64_t)1 << 60;

/* A batch and its memory, grown when a larger one is asked for. */
typedef struct Slot {
    int64_t index, B;
    int64_t capacity;                       /* tokens */
    int32_t *tokens, *targets, *doc_start;  /* (capacity) */
    int64_t n_targets;
    int rc;
    Err error;
} Slot;

typedef enum JobState { JOB_NONE, JOB_WANTED, JOB_DONE, JOB_QUIT } JobState;

struct Loader {
    LoaderSegment segment;
    uint64_t seed;
    bool shuffle;
    int n;
    Corpus *corpus[LOADER_MAX_SOURCES];
    char *path[LOADER_MAX_SOURCES];
    int64_t windows[LOADER_MAX_SOURCES];
    Mixture mixture;
    bool once;
    MixtureOnce order; /* with once */
    int64_t spread[LOADER_MAX_SOURCES]; /* windows asked of each, of loader_spread; 0: not called */
    int32_t *window; /* (T + 1) being read */
    int64_t window_room;
    Slot slot[2];
    int job;         /* slot of the prefetch job; the other one is the caller's */
    JobState state;  /* guarded by mutex; all else passes with it */
    bool thread_runs, mutex_made, change_made;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t change;
};

/* ---- one batch ----------------------------------------------------------------------------- */

static int source_of(const Loader *l, int64_t index, int64_t *ordinal)
{
    return l->once ? mixture_once_source(&l->order, index % l->order.total, ordinal)
                   : mixture_source(&l->mixture, index - l->segment.first, ordinal);
}

int64_t loader_where(const Loader *l, int64_t index, int *source)
{
    int64_t ordinal;
    int s = *source = source_of(l, index, &ordinal);
    ordinal += l->segment.served[s];
    if (ordinal < l->spread[s])
        ordinal = (int64_t)((__int128)ordinal * l->windows[s] / l->spread[s]);
    int64_t epoch = ordinal / l->windows[s], window = ordinal % l->windows[s];
    if (l->shuffle) {
        PhiloxKey key = {l->seed, RNG_DATA, (uint32_t)s, (uint64_t)epoch};
        Permutation permutation = permute_make(&key, (uint64_t)l->windows[s]);
        window = (int64_t)permute_index(&permutation, (uint64_t)window);
    }
    return window * l->segment.T;
}

void loader_spread(Loader *l, int64_t count)
{
    CHECK(!l->shuffle && !l->thread_runs, "the order of a loader for training");
    CHECK(count >= 0 && count <= loader_windows(l), "%lld of %lld windows", (long long)count,
          (long long)loader_windows(l));
    memset(l->spread, 0, sizeof l->spread);
    for (int64_t i = 0; i < count; i++) {
        int64_t ordinal;
        l->spread[source_of(l, i, &ordinal)]++;
    }
    for (int s = 0; s < l->n; s++)
        if (l->spread[s] > l->windows[s]) l->spread[s] = 0;
}

static int reserve(const Loader *l, Slot *slot, int64_t B, Err *e)
{
    int64_t numbers, bytes;
    bool fits = size_mul(B, l->segment.T, &numbers) && size_mul(numbers, sizeof(int32_t), &bytes);
    if (fits && numbers <= slot->capacity) return 0;
    if (!fits)
        return err_set(e, "a batch of %lld sequences of %lld tokens is too large", (long long)B,
                       (long long)l->segment.T);
    int32_t **row[3] = {&slot->tokens, &slot->targets, &slot->doc_start};
    slot->capacity = 0;
    for (int i = 0; i < 3; i++) {
        free(*row[i]);
        *row[i] = malloc((size_t)bytes);
    }
    if (!slot->tokens || !slot->targets || !slot->doc_start)
        return err_set(e, "out of memory for a batch of %lld sequences of %lld tokens",
                       (long long)B, (long long)l->segment.T);
    slot->capacity = numbers;
    return 0;
}

static int fill_sequence(Loader *l, Slot *slot, int64_t b, Err *e)
{
    int source;
    int64_t T = l->segment.T, first = loader_where(l, slot->index + b, &source);
    Corpus *corpus = l->corpus[source];
    if (corpus_window(corpus, first, T, l->window, slot->doc_start + b * T, e)) return -1;
    int32_t eos = (int32_t)corpus_info(corpus)->eos;
    int32_t *targets = slot->targets + b * T;
    memcpy(slot->tokens + b * T, l->window, (size_t)T * sizeof *l->window);
    for (int64_t t = 0; t < T; t++) {
        bool counted = l->window[t] != eos;
        targets[t] = counted ? l->window[t + 1] : -1;
        slot->n_targets += counted;
    }
    return 0;
}

/* Reads the batch slot->index, slot->B; what went wrong stays in the slot. */
static void fill_slot(Loader *l, Slot *slot)
{
    slot->error = (Err){0};
    slot->n_targets = 0;
    slot->rc = reserve(l, slot, slot->B, &slot->error);
    for (int64_t b = 0; b < slot->B && !slot->rc; b++)
        slot->rc = fill_sequence(l, slot, b, &slot->error);
}

/* ---- the thread ---------------------------------------------------------------------------- */

static void *prefetch_main(void *argument)
{
    Loader *l = argument;
    pthread_mutex_lock(&l->mutex);
    while (l->state != JOB_QUIT) {
        if (l->state != JOB_WANTED) {
            pthread_cond_wait(&l->change, &l->mutex);
            continue;
        }
        Slot *slot = &l->slot[l->job];
        pthread_mutex_unlock(&l->mutex);
        fill_slot(l, slot);
        pthread_mutex_lock(&l->mutex);
        if (l->state == JOB_WANTED) l->state = JOB_DONE;
        pthread_cond_broadcast(&l->change);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

static int start_thread(Loader *l, Err *e)
{
    sigset_t all, before;
    sigfillset(&all); /* signals are for the caller's threads */
    l->mutex_made = pthread_mutex_init(&l->mutex, NULL) == 0;
    l->change_made = pthread_cond_init(&l->change, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (l->mutex_made && l->change_made)
        l->thread_runs = pthread_create(&l->thread, NULL, prefetch_main, l) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return l->thread_runs ? 0 : err_set(e, "the prefetch thread cannot be started");
}

static void set_state(Loader *l, JobState state)
{
    pthread_mutex_lock(&l->mutex);
    l->state = state;
    pthread_cond_broadcast(&l->change);
    pthread_mutex_unlock(&l->mutex);
}

/* Waits until the thread rests; true if it has this batch. The job is done with. */
static bool collect(Loader *l, int64_t index, int64_t B)
{
    if (!l->thread_runs) return false;
    pthread_mutex_lock(&l->mutex);
    while (l->state == JOB_WANTED) pthread_cond_wait(&l->change, &l->mutex);
    const Slot *slot = &l->slot[l->job];
    bool match = l->state == JOB_DONE && slot->index == index && slot->B == B;
    l->state = JOB_NONE;
    pthread_mutex_unlock(&l->mutex);
    return match;
}

int loader_batch(Loader *loader, int64_t index, int64_t B, Batch *out, Err *e)
{
    Loader *l = loader;
    CHECK(index >= l->segment.first && B >= 1 && index <= INDEX_MAX && B <= INDEX_MAX,
          "sequences %lld + %lld", (long long)index, (long long)B);
    Slot *slot = &l->slot[l->job];
    if (!collect(l, index, B)) {
        slot->index = index;
        slot->B = B;
        fill_slot(l, slot);
    }
    if (slot->rc) {
        if (e) *e = slot->error;
        return -1;
    }
    *out = (Batch){B, l->segment.T, slot->tokens, slot->targets, slot->doc_start, slot->n_targets};
    if (l->thread_runs) { /* the other slot, whose batch is no longer valid, takes the next one */
        l->job = !l->job;
        l->slot[l->job].index = index + B;
        l->slot[l->job].B = B;
        set_state(l, JOB_WANTED);
    }
    return 0;
}

/* ---- segments ------------------------------------------------------------------------------ */

static int64_t windows_of(const Loader *l, int s, int64_t T)
{
    return (corpus_info(l->corpus[s])->n_tokens - 1) / T;
}

/* Each source that the segment takes from has a window. */
static int check_windows(const Loader *l, const LoaderSegment *segment, Err *e)
{
    if (segment->T < 1 || segment->T > SEQ_LEN_MAX)
        return err_set(e, "seq_len %lld: must be from 1 to %d", (long long)segment->T, SEQ_LEN_MAX);
    for (int s = 0; s < l->n; s++) {
        int64_t tokens = corpus_info(l->corpus[s])->n_tokens;
        if (segment->weight[s] == 0 || windows_of(l, s, segment->T) > 0) continue;
        err_set(e, "%s: %lld tokens are not enough for one sequence of %lld and its targets",
                l->path[s], (long long)tokens, (long long)segment->T);
        return err_hint(e, "choose seq_len <= %lld, or give more text", (long long)tokens - 1);
    }
    return 0;
}

static int reserve_window(Loader *l, int64_t T, Err *e)
{
    if (T + 1 <= l->window_room) return 0;
    int32_t *window = realloc(l->window, (size_t)(T + 1) * sizeof *window);
    if (!window) return err_set(e, "out of memory for sequences of %lld tokens", (long long)T);
    l->window = window;
    l->window_room = T + 1;
    return 0;
}

static int begin_once(Loader *l, const LoaderSegment *segment, Err *e)
{
    int64_t windows[LOADER_MAX_SOURCES];
    MixtureOnce order;
    CHECK(segment->first == 0, "sequence %lld begins a segment", (long long)segment->first);
    for (int s = 0; s < l->n; s++) {
        CHECK(segment->served[s] == 0, "source %d has served", s);
        windows[s] = windows_of(l, s, segment->T);
    }
    if (mixture_once_make(&order, segment->weight, windows, l->n, e)) return -1;
    l->order = order;
    return 0;
}

int loader_begin(Loader *loader, const LoaderSegment *segment, Err *e)
{
    Loader *l = loader;
    Mixture mixture;
    CHECK(segment->first >= 0 && segment->first <= INDEX_MAX, "sequence %lld",
          (long long)segment->first);
    if (check_windows(l, segment, e) || mixture_make(&mixture, segment->weight, l->n, e)) return -1;
    collect(l, 0, 0); /* what was read ahead belongs to the old segment */
    if (reserve_window(l, segment->T, e)) return -1;
    if (l->once && begin_once(l, segment, e)) return -1;
    l->segment = *segment;
    l->mixture = mixture;
    memcpy(l->mixture.phase, segment->phase, sizeof segment->phase);
    memset(l->spread, 0, sizeof l->spread);
    for (int s = 0; s < l->n; s++) l->windows[s] = windows_of(l, s, segment->T);
    return 0;
}

/* Windows of source s served before `index`. */
static int64_t served_of(const Loader *l, int s, int64_t index)
{
    CHECK(index >= l->segment.first, "sequence %lld before the segment's %lld", (long long)index,
          (long long)l->segment.first);
    CHECK(!l->once || index == 0, "sequence %lld", (long long)index);
    return l->segment.served[s] + mixture_count(&l->mixture, s, index - l->segment.first);
}

/* `served` windows of the old length as a number of windows of length T; see loader_segment. */
static int64_t convert_served(const Loader *l, int s, int64_t served, int64_t T)
{
    int64_t m = l->windows[s], m_new = windows_of(l, s, T);
    if (T == l->segment.T || served == 0 || m == 0 || m_new == 0) return served;
    int64_t place = size_ceil_div(served % m * l->segment.T, T), epochs;
    if (!size_mul(served / m, m_new, &epochs) || epochs > INDEX_MAX) epochs = INDEX_MAX;
    return epochs + size_min(place, m_new);
}

LoaderSegment loader_segment(const Loader *loader, int64_t index, int64_t T)
{
    const Loader *l = loader;
    LoaderSegment next = l->segment;
    CHECK(T >= 1, "T %lld", (long long)T);
    next.first = index;
    next.T = T;
    mixture_phase(&l->mixture, index - l->segment.first, next.phase);
    for (int s = 0; s < l->n; s++)
        next.served[s] = convert_served(l, s, served_of(l, s, index), T);
    return next;
}

/* ---- opening ------------------------------------------------------------------------------- */

static int check_options(const LoaderOptions *o, Err *e)
{
    if (o->n_sources < 1 || o->n_sources > LOADER_MAX_SOURCES)
        return err_set(e, "%d data sources: must be from 1 to %d", o->n_sources,
                       LOADER_MAX_SOURCES);
    if (o->vocab_size < 1)
        return err_set(e, "vocab_size %lld: must be at least 1", (long long)o->vocab_size);
    return 0;
}

/* Checks source s against the model and the first source. */
static int check_source(Loader *l, const LoaderOptions *o, int s, Err *e)
{
    const ShardInfo *info = corpus_info(l->corpus[s]), *first = corpus_info(l->corpus[0]);
    const char *path = o->source[s].path;
    if (info->tokenizer_hash != first->tokenizer_hash || info->eos != first->eos) {
        err_set(e, "%s: made with another tokenizer than %s", path, o->source[0].path);
        return err_hint(e, "prepare all data with the same tokenizer.model");
    }
    if (info->vocab_size > o->vocab_size) {
        err_set(e, "%s: tokens of a vocabulary of %lld, but the model has %lld", path,
                (long long)info->vocab_size, (long long)o->vocab_size);
        return err_hint(e, "set the model's vocab_size to at least %lld",
                        (long long)info->vocab_size);
    }
    return 0;
}

static int open_sources(Loader *l, const LoaderOptions *o, Err *e)
{
    LoaderSegment segment = {.T = o->seq_len};
    for (int s = 0; s < o->n_sources; s++) {
        segment.weight[s] = o->source[s].weight;
        l->n = s + 1;
        if (!(l->path[s] = strdup(o->source[s].path))) return err_set(e, "out of memory");
        l->corpus[s] = corpus_open(o->source[s].path, o->split ? o->split : "train", e);
        if (!l->corpus[s] || check_source(l, o, s, e)) return -1;
    }
    return loader_begin(l, &segment, e);
}

Loader *loader_open(const LoaderOptions *options, Err *e)
{
    if (check_options(options, e)) return NULL;
    Loader *l = calloc(1, sizeof *l);
    if (!l) {
        err_set(e, "out of memory");
        return NULL;
    }
    l->seed = options->seed;
    l->shuffle = options->shuffle;
    l->once = options->once;
    int rc = open_sources(l, options, e);
    if (!rc && options->prefetch) rc = start_thread(l, e);
    if (rc) loader_close(&l);
    return l;
}

void loader_close(Loader **loader)
{
    Loader *l = *loader;
    if (!l) return;
    if (l->thread_runs) {
        set_state(l, JOB_QUIT);
        pthread_join(l->thread, NULL);
    }
    if (l->change_made) pthread_cond_destroy(&l->change);
    if (l->mutex_made) pthread_mutex_destroy(&l->mutex);
    for (int s = 0; s < l->n; s++) {
        corpus_close(&l->corpus[s]);
        free(l->path[s]);
    }
    for (int i = 0; i < 2; i++) {
        free(l->slot[i].tokens);
        free(l->slot[i].targets);
        free(l->slot[i].doc_start);
    }
    free(l->window);
    free(l);
    *loader = NULL;
}

/* ---- questions ----------------------------------------------------------------------------- */

int loader_sources(const Loader *loader) { return loader->n; }

int64_t loader_whole_mixture(const Loader *loader)
{
    CHECK(loader->once, "sources come round again");
    return loader->order.rounds > 1 ? loader->order.round[1].first : loader->order.total;
}

int64_t loader_windows(const Loader *loader)
{
    int64_t sum = 0;
    for (int s = 0; s < loader->n; s++)
        if (loader->mixture.weight[s]) sum += loader->windows[s];
    return sum;
}

int64_t loader_tokens(const Loader *loader)
{
    int64_t sum = 0;
    for (int s = 0; s < loader->n; s++) sum += corpus_info(loader->corpus[s])->n_tokens;
    return sum;
}

int64_t loader_bytes(const Loader *loader)
{
    int64_t sum = 0;
    for (int s = 0; s < loader->n; s++) sum += corpus_info(loader->corpus[s])->n_bytes;
    return sum;
}

uint64_t loader_tokenizer_hash(const Loader *loader)
{
    return corpus_info(loader->corpus[0])->tokenizer_hash;
}

uint64_t loader_data_hash(const Loader *loader)
{
    uint64_t hash = 0;
    for (int s = 0; s < loader->n; s++) {
        uint64_t one = corpus_hash(loader->corpus[s]);
        hash = hash_more(hash, &one, sizeof one);
    }
    return hash;
}

double loader_epochs(const Loader *loader, int s, int64_t index)
{
    CHECK(s >= 0 && s < loader->n, "source %d of %d", s, loader->n);
    if (loader->windows[s] == 0) return 0;
    return (double)served_of(loader, s, index) / (double)loader->windows[s];
}
