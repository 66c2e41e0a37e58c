/* tests/ref/ref_route.c - who chooses whom, and who gets a place; see ref.h.
 *
 * The assignment follows the text of device.h word for word with one place table per group:
 * holder[e][c] is the choice n * k + j that has place c of expert e, or -1.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "tests/ref/ref.h"

enum { PASSES = 5 }; /* the first matching and at most 4 further ones */

static bool no_gaps(const RefRoute *a)
{
    return a->mode == ROUTE_DROPLESS || (a->mode == ROUTE_REPLAY && a->capacity == 0);
}

int64_t ref_route_rows(const RefRoute *a)
{
    if (no_gaps(a)) return a->N * a->k;
    return a->E * (a->N / a->group_tokens) * a->capacity;
}

/* Logits where nothing else enters, else score + bias, which the contract has in f32. */
static float selection_key(const RefRoute *a, int64_t n, int64_t e)
{
    if (!a->bias && !a->blocks) return (float)a->logits[n * a->E + e];
    return (float)a->probs[n * a->E + e] + (a->bias ? (float)a->bias[e] : 0.0f);
}

/* Sum of the highest keys of a block's experts, one by one. */
static float block_value(const RefRoute *a, int64_t n, int64_t b)
{
    int64_t size = a->E / a->blocks, many = a->k / a->blocks_top > 1 ? a->k / a->blocks_top : 1;
    bool used[256] = {0};
    float sum = 0;
    for (int64_t i = 0; i < many; i++) {
        int64_t best = -1;
        for (int64_t e = b * size; e < (b + 1) * size; e++)
            if (!used[e] && (best < 0 || selection_key(a, n, e) > selection_key(a, n, best)))
                best = e;
        used[best] = true;
        sum += selection_key(a, n, best);
    }
    return sum;
}

/* Whether fewer than blocks_top other blocks come before the block of expert e. */
static bool allowed(const RefRoute *a, int64_t n, int64_t e)
{
    if (!a->blocks) return true;
    int64_t own = e / (a->E / a->blocks), before = 0;
    for (int64_t b = 0; b < a->blocks; b++) {
        float mine = block_value(a, n, own), its = block_value(a, n, b);
        before += its > mine || (its == mine && b < own);
    }
    return before < a->blocks_top;
}

/* The k largest keys of each token, lower index first on a tie; with top_p until enough. */
static void choose_first(const RefRoute *a)
{
    for (int64_t n = 0; n < a->N; n++) {
        double sum = 0;
        for (int64_t j = 0; j < a->k; j++) {
            int32_t best = -1, *first = a->first + n * a->k;
            for (int32_t e = 0; e < a->E; e++) {
                bool taken = !allowed(a, n, e);
                for (int64_t i = 0; i < j; i++) taken |= first[i] == e;
                if (taken) continue;
                if (best < 0 || selection_key(a, n, e) > selection_key(a, n, best)) best = e;
            }
            first[j] = a->top_p > 0 && sum > a->top_p ? -1 : best;
            sum += a->probs[n * a->E + best];
        }
    }
}

/* Whether token m comes before token n at expert e: higher score, then earlier. The device compares
 * scores in f32, so ties there are ties here. */
static bool comes_before(const RefRoute *a, int64_t m, int64_t n, int64_t e)
{
    float x = (float)a->probs[m * a->E + e], y = (float)a->probs[n * a->E + e];
    return x > y || (x == y && m < n);
}

typedef struct Place {
    uint32_t key;
    int64_t index;   /* in the list by expert: breaks ties of keys */
    int64_t place;   /* e * C + c */
} Place;

static int by_key(const void *x, const void *y)
{
    const Place *a = x, *b = y;
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

/* Free places of the group listed by expert, then sorted by the keys of this pass. */
static int64_t free_places(const RefRoute *a, int64_t g, int pass, const int32_t *holder,
                           Place *out)
{
    PhiloxKey key = {.seed = a->seed,
                     .purpose = RNG_RECYCLE,
                     .stream = a->layer,
                     .position = (uint64_t)a->step << 32 | (uint64_t)(a->group0 + g)};
    int64_t count = 0;
    for (int64_t place = 0; place < a->E * a->capacity; place++)
        if (holder[place] < 0) {
            out[count].place = place;
            out[count].index = count;
            out[count].key = philox_u32(&key, (uint64_t)pass << 20 | (uint64_t)count);
            count++;
        }
    qsort(out, (size_t)count, sizeof *out, by_key);
    return count;
}

/* An expert's places are all alike: a choice gets the lowest free one, whatever place was matched.
 */
static void put(const RefRoute *a, int64_t g, int32_t choice, int64_t e, int32_t *holder)
{
    holder[e * a->capacity + a->load[g * a->E + e]++] = choice;
    a->expert[choice] = (int32_t)e;
}

static bool token_has(const RefRoute *a, int32_t choice, int64_t e)
{
    int64_t n = choice / a->k;
    for (int64_t j = 0; j < a->k; j++)
        if (a->expert[n * a->k + j] == e) return true;
    return false;
}

/* One pass over the lost choices, in order; returns how many stay lost, moved to the front. */
static int64_t match(const RefRoute *a, int64_t g, int32_t *lost, int64_t count,
                     const Place *places, int64_t n_places, int32_t *holder)
{
    int64_t left = 0;
    for (int64_t i = 0; i < count; i++) {
        if (i < n_places && !token_has(a, lost[i], places[i].place / a->capacity))
            put(a, g, lost[i], places[i].place / a->capacity, holder);
        else
            lost[left++] = lost[i];
    }
    return left;
}

/* Whether the choice has no room: fewer than C others that come first at its expert. */
static bool outscored(const RefRoute *a, int64_t g, int32_t choice)
{
    int64_t R = a->group_tokens, before = 0;
    for (int64_t i = g * R * a->k; i < (g + 1) * R * a->k; i++)
        before += a->first[i] == a->first[choice] &&
                  comes_before(a, i / a->k, choice / a->k, a->first[choice]);
    return before >= a->capacity;
}

static void capacity_group(const RefRoute *a, int64_t g)
{
    int64_t R = a->group_tokens, k = a->k, slots = a->E * a->capacity, n_lost = 0;
    int32_t *holder = malloc(sizeof *holder * (size_t)slots);
    int32_t *lost = malloc(sizeof *lost * (size_t)(R * k));
    Place *places = malloc(sizeof *places * (size_t)slots);
    bool by_score = a->mode == ROUTE_DROP && a->drop_by_score;
    for (int64_t i = 0; i < slots; i++) holder[i] = -1;
    for (int64_t j = 0; j < k; j++)
        for (int64_t n = g * R; n < (g + 1) * R; n++) {
            int32_t choice = (int32_t)(n * k + j), e = a->first[choice];
            if (e < 0) continue;
            bool room = by_score ? !outscored(a, g, choice)
                                 : a->load[g * a->E + e] < a->capacity;
            if (room) put(a, g, choice, e, holder);
            else lost[n_lost++] = choice;
        }
    double *stats = a->stats + g * STAT_COUNT;
    stats[STAT_OVERFLOW] = (double)n_lost;
    for (int pass = 0; pass < PASSES && n_lost && a->mode == ROUTE_RECYCLE; pass++) {
        int64_t n_places = free_places(a, g, pass, holder, places);
        n_lost = match(a, g, lost, n_lost, places, n_places, holder);
    }
    stats[STAT_UNPLACED] = (double)n_lost;
    stats[STAT_RECYCLED] = stats[STAT_OVERFLOW] - stats[STAT_UNPLACED];
    free(holder);
    free(lost);
    free(places);
}

/* Expert e takes a token if fewer than C tokens of the group come before it. */
static void expert_choice_group(const RefRoute *a, int64_t g)
{
    int64_t R = a->group_tokens;
    int32_t *holder = malloc(sizeof *holder * (size_t)(a->E * a->capacity));
    for (int64_t n = g * R; n < (g + 1) * R; n++) {
        int64_t used = 0;
        for (int32_t e = 0; e < a->E; e++) {
            int64_t before = 0;
            for (int64_t m = g * R; m < (g + 1) * R; m++) before += comes_before(a, m, n, e);
            if (before >= a->capacity) continue;
            a->first[n * a->k + used] = e;
            put(a, g, (int32_t)(n * a->k + used++), e, holder);
        }
    }
    free(holder);
}

/* Choices as given; those that are made again here only count as overflow where they differ. */
static void replay_group(const RefRoute *a, int64_t g)
{
    int64_t R = a->group_tokens;
    double *stats = a->stats + g * STAT_COUNT;
    for (int64_t i = g * R * a->k; i < (g + 1) * R * a->k; i++) {
        int32_t e = a->expert[i], wanted = a->first[i];
        if (wanted >= 0 && e != wanted) stats[e < 0 ? STAT_UNPLACED : STAT_RECYCLED]++;
        if (wanted >= 0 && e != wanted) stats[STAT_OVERFLOW]++;
        if (e >= 0) a->load[g * a->E + e]++;
    }
}

/* Every first choice in force. */
static void dropless_group(const RefRoute *a, int64_t g)
{
    int64_t R = a->group_tokens;
    for (int64_t i = g * R * a->k; i < (g + 1) * R * a->k; i++) {
        a->expert[i] = a->first[i];
        if (a->first[i] >= 0) a->load[g * a->E + a->first[i]]++;
    }
}

/* Rows by expert, then by group, then by choice; with capacity C rows an expert and group. */
static void give_rows(const RefRoute *a)
{
    int64_t row = 0, part = a->group_tokens * a->k;
    for (int32_t e = 0; e < a->E; e++) {
        a->row_begin[e] = (int32_t)row;
        for (int64_t first = 0; first < a->N * a->k; first += part) {
            int64_t begin = row;
            for (int64_t i = first; i < first + part; i++) {
                if (a->expert[i] != e) continue;
                a->row[i] = (int32_t)row;
                a->row_src[row++] = (int32_t)i;
            }
            if (!no_gaps(a)) row = begin + a->capacity;
        }
    }
    a->row_begin[a->E] = (int32_t)row;
}

static void count_choices(const RefRoute *a, int64_t g)
{
    double *stats = a->stats + g * STAT_COUNT;
    for (int64_t e = 0; e < a->E; e++) {
        int64_t count = 0;
        for (int64_t i = g * a->group_tokens * a->k; i < (g + 1) * a->group_tokens * a->k; i++)
            count += a->first[i] == e;
        a->count[g * a->E + e] = (int32_t)count;
        stats[STAT_CHOICES] += (double)count;
        stats[STAT_MAX_LOAD] = fmax(stats[STAT_MAX_LOAD], (double)count);
    }
}

void ref_route_assign(const RefRoute *a)
{
    int64_t groups = a->N / a->group_tokens, rows = ref_route_rows(a);
    bool by_expert = a->mode == ROUTE_EXPERT_CHOICE, replay = a->mode == ROUTE_REPLAY;
    for (int64_t i = 0; i < a->N * a->k; i++) {
        a->first[i] = a->row[i] = -1;
        if (!replay) a->expert[i] = -1;
    }
    if (!by_expert) choose_first(a);
    for (int64_t i = 0; i < rows; i++) a->row_src[i] = -1;
    memset(a->load, 0, sizeof *a->load * (size_t)(groups * a->E));
    memset(a->stats, 0, sizeof *a->stats * (size_t)(groups * STAT_COUNT));
    for (int64_t g = 0; g < groups; g++) {
        if (by_expert) expert_choice_group(a, g);
        else if (replay) replay_group(a, g);
        else if (a->mode == ROUTE_DROPLESS) dropless_group(a, g);
        else capacity_group(a, g);
        count_choices(a, g);
    }
    give_rows(a);
}

void ref_route_fwd(const RefRoute *a)
{
    ref_route_scores(a);
    ref_route_assign(a);
    ref_route_values(a);
}
