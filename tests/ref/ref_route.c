/* tests/ref/ref_route.c - routing with capacity and recycling, its gradient; see ref.h.
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

int64_t ref_route_rows(const RefRoute *a)
{
    if (a->mode == ROUTE_DROPLESS) return a->N * a->k;
    return a->E * (a->N / a->group_tokens) * a->capacity;
}

/* The k largest logits of each token (softmax keeps the order), lower index first on a tie. */
static void choose_first(const RefRoute *a)
{
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t j = 0; j < a->k; j++) {
            int32_t best = -1;
            for (int32_t e = 0; e < a->E; e++) {
                bool taken = false;
                for (int64_t i = 0; i < j; i++) taken |= a->first[n * a->k + i] == e;
                if (!taken && (best < 0 || a->logits[n * a->E + e] > a->logits[n * a->E + best]))
                    best = e;
            }
            a->first[n * a->k + j] = best;
        }
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

/* An expert's places are all alike: a choice gets the lowest free one, so that rows have no holes
 * whatever place was matched. */
static void put(const RefRoute *a, int64_t g, int32_t choice, int64_t e, int32_t *holder)
{
    int64_t c = a->load[g * a->E + e], Gr = a->N / a->group_tokens;
    holder[e * a->capacity + c] = choice;
    a->expert[choice] = (int32_t)e;
    a->row[choice] = (int32_t)((e * Gr + g) * a->capacity + c);
    a->row_src[a->row[choice]] = choice;
    a->load[g * a->E + e]++;
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

static void recycle_group(const RefRoute *a, int64_t g)
{
    int64_t R = a->group_tokens, k = a->k, slots = a->E * a->capacity, n_lost = 0;
    int32_t *holder = malloc(sizeof *holder * (size_t)slots);
    int32_t *lost = malloc(sizeof *lost * (size_t)(R * k));
    Place *places = malloc(sizeof *places * (size_t)slots);
    for (int64_t i = 0; i < slots; i++) holder[i] = -1;
    for (int64_t j = 0; j < k; j++)
        for (int64_t n = g * R; n < (g + 1) * R; n++) {
            int32_t choice = (int32_t)(n * k + j), e = a->first[choice];
            if (a->load[g * a->E + e] < a->capacity) put(a, g, choice, e, holder);
            else lost[n_lost++] = choice;
        }
    double *stats = a->stats + g * STAT_COUNT;
    stats[STAT_OVERFLOW] = (double)n_lost;
    for (int pass = 0; pass < PASSES && n_lost; pass++) {
        int64_t n_places = free_places(a, g, pass, holder, places);
        n_lost = match(a, g, lost, n_lost, places, n_places, holder);
    }
    stats[STAT_UNPLACED] = (double)n_lost;
    stats[STAT_RECYCLED] = stats[STAT_OVERFLOW] - stats[STAT_UNPLACED];
    free(holder);
    free(lost);
    free(places);
}

/* Every first choice in force; rows by expert, then by token. */
static void dropless(const RefRoute *a)
{
    int32_t row = 0;
    for (int32_t e = 0; e < a->E; e++) {
        a->row_begin[e] = row;
        for (int64_t choice = 0; choice < a->N * a->k; choice++) {
            if (a->first[choice] != e) continue;
            a->expert[choice] = e;
            a->row[choice] = row;
            a->row_src[row++] = (int32_t)choice;
            a->load[choice / a->k / a->group_tokens * a->E + e]++;
        }
    }
    a->row_begin[a->E] = row;
}

static int64_t first_count(const RefRoute *a, int64_t g, int64_t e)
{
    int64_t count = 0;
    for (int64_t i = g * a->group_tokens * a->k; i < (g + 1) * a->group_tokens * a->k; i++)
        count += a->first[i] == e;
    return count;
}

void ref_route_assign(const RefRoute *a)
{
    int64_t groups = a->N / a->group_tokens, rows = ref_route_rows(a);
    choose_first(a);
    for (int64_t i = 0; i < a->N * a->k; i++) a->expert[i] = a->row[i] = -1;
    for (int64_t i = 0; i < rows; i++) a->row_src[i] = -1;
    memset(a->load, 0, sizeof *a->load * (size_t)(groups * a->E));
    memset(a->stats, 0, sizeof *a->stats * (size_t)(groups * STAT_COUNT));
    if (a->mode == ROUTE_DROPLESS) {
        dropless(a);
    } else {
        for (int64_t e = 0; e <= a->E; e++)
            a->row_begin[e] = (int32_t)(e * groups * a->capacity);
        for (int64_t g = 0; g < groups; g++) recycle_group(a, g);
    }
    for (int64_t g = 0; g < groups; g++)
        for (int64_t e = 0; e < a->E; e++)
            a->stats[g * STAT_COUNT + STAT_MAX_LOAD] =
                fmax(a->stats[g * STAT_COUNT + STAT_MAX_LOAD], (double)first_count(a, g, e));
}

static void softmax_token(const RefRoute *a, int64_t n)
{
    const double *z = a->logits + n * a->E;
    double max = z[0], sum = 0;
    for (int64_t e = 0; e < a->E; e++) max = fmax(max, z[e]);
    for (int64_t e = 0; e < a->E; e++) sum += exp(z[e] - max);
    a->lse[n] = max + log(sum);
    for (int64_t e = 0; e < a->E; e++) a->probs[n * a->E + e] = exp(z[e] - a->lse[n]);
}

/* Sum of the probabilities of a token's placed choices. */
static double placed_sum(const RefRoute *a, int64_t n)
{
    double sum = 0;
    for (int64_t i = n * a->k; i < (n + 1) * a->k; i++)
        if (a->expert[i] >= 0) sum += a->probs[n * a->E + a->expert[i]];
    return sum;
}

void ref_route_values(const RefRoute *a)
{
    int64_t R = a->group_tokens;
    for (int64_t n = 0; n < a->N; n++) {
        softmax_token(a, n);
        double sum = placed_sum(a, n);
        for (int64_t i = n * a->k; i < (n + 1) * a->k; i++) {
            int32_t e = a->expert[i];
            double p = e < 0 ? 0 : a->probs[n * a->E + e];
            a->weight[i] = a->renorm && e >= 0 ? p / sum : p;
        }
    }
    for (int64_t g = 0; g < a->N / R; g++) {
        double *stats = a->stats + g * STAT_COUNT;
        stats[STAT_AUX] = stats[STAT_Z] = 0;
        for (int64_t n = g * R; n < (g + 1) * R; n++) stats[STAT_Z] += a->lse[n] * a->lse[n];
        for (int64_t e = 0; e < a->E; e++) {
            double share = (double)first_count(a, g, e) / (double)R, mean = 0;
            for (int64_t n = g * R; n < (g + 1) * R; n++)
                mean += a->probs[n * a->E + e] / (double)R;
            stats[STAT_AUX] += (double)a->E * share * mean;
        }
    }
}

void ref_route_fwd(const RefRoute *a)
{
    ref_route_assign(a);
    ref_route_values(a);
}

/* dp of one token and the magnitude of its terms: from the weights, and aux_scale E f_e / R. */
static void dprobs(const RefRoute *a, int64_t n, const double *share, double *dp, double *mag)
{
    double sum = placed_sum(a, n), mixed = 0, mixed_mag = 0;
    for (int64_t e = 0; e < a->E; e++) {
        dp[e] = a->aux_scale * (double)a->E * share[e] / (double)a->group_tokens;
        mag[e] = fabs(dp[e]);
    }
    for (int64_t i = n * a->k; i < (n + 1) * a->k && a->renorm; i++) {
        if (a->expert[i] < 0) continue;
        double p = a->probs[n * a->E + a->expert[i]];
        mixed += a->dweight[i] * p / (sum * sum);
        mixed_mag += fabs(a->dweight[i]) * p / (sum * sum);
    }
    for (int64_t i = n * a->k; i < (n + 1) * a->k; i++) {
        if (a->expert[i] < 0) continue;
        dp[a->expert[i]] += a->renorm ? a->dweight[i] / sum - mixed : a->dweight[i];
        mag[a->expert[i]] += a->renorm ? fabs(a->dweight[i]) / sum + mixed_mag
                                       : fabs(a->dweight[i]);
    }
}

/* w_j = p_e(j) [/ sum of placed p]; dz_e = p_e (dp_e - sum p dp) + z_scale 2 lse p_e. */
void ref_route_bwd(const RefRoute *a)
{
    double *work = malloc(sizeof *work * (size_t)(3 * a->E)), *dp = work + a->E, *mag = dp + a->E;
    for (int64_t n = 0; n < a->N; n++) {
        int64_t g = n / a->group_tokens;
        for (int64_t e = 0; e < a->E && n % a->group_tokens == 0; e++)
            work[e] = (double)first_count(a, g, e) / (double)a->group_tokens;
        dprobs(a, n, work, dp, mag);
        double max = -INFINITY, sum = 0, mixed = 0, mixed_mag = 0;
        for (int64_t e = 0; e < a->E; e++) max = fmax(max, a->logits[n * a->E + e]);
        for (int64_t e = 0; e < a->E; e++) {
            double p = a->probs[n * a->E + e];
            sum += exp(a->logits[n * a->E + e] - max);
            mixed += p * dp[e];
            mixed_mag += p * mag[e];
        }
        double lse = max + log(sum);
        for (int64_t e = 0; e < a->E; e++) {
            double p = a->probs[n * a->E + e];
            a->dlogits[n * a->E + e] += p * (dp[e] - mixed) + a->z_scale * 2 * lse * p;
            if (a->dlogits_mag)
                a->dlogits_mag[n * a->E + e] +=
                    p * (mag[e] + mixed_mag + fabs(a->z_scale) * 2 * (fabs(max) + fabs(lse)));
        }
    }
    free(work);
}
