/* device/route_assign.c - see route_assign.h; the rules are told at dev_route_fwd in device.h.
 *
 * Keeping: choices in (rank, token) order take places while their expert has room. Recycling: what
 * was lost is matched, in that order, to the free places in a random order. So the place of a
 * recycled choice is uniform over free places, not over experts. By score, and for experts that
 * choose: one stable sort by falling score finds who is kept.
 */
#include "device/route_assign.h"

#include "base/err.h"
#include "base/size.h"

typedef struct Scratch { /* n = max(E * C, R * k) of each */
    uint64_t *order;       /* what is sorted: key << 32 | index in the list */
    uint64_t *sorted;      /* second buffer of the sort */
    int32_t *place_expert; /* expert of each free place */
    int32_t *lost;         /* choices without a place, in (rank, token) order */
} Scratch;

static int64_t scratch_items(int64_t tokens, int64_t experts, int64_t k, int64_t capacity)
{
    return size_max(experts * capacity, tokens * k);
}

int64_t route_assign_scratch(int64_t tokens, int64_t experts, int64_t k, int64_t capacity)
{
    int64_t item = 2 * (int64_t)(sizeof(uint64_t) + sizeof(int32_t));
    return size_round_up(scratch_items(tokens, experts, k, capacity) * item, 64);
}

static Scratch scratch_cut(const RouteGroup *g, void *memory)
{
    int64_t n = scratch_items(g->tokens, g->experts, g->k, g->capacity);
    Scratch s;
    s.order = memory;
    s.sorted = s.order + n;
    s.place_expert = (int32_t *)(s.sorted + n);
    s.lost = s.place_expert + n;
    return s;
}

static void choice_place(RouteGroup *g, int64_t choice, int32_t expert)
{
    g->expert[choice] = expert;
    g->load[expert]++;
}

/* Every choice takes a place at its own expert while there is room. Returns the number lost. */
static int64_t keep(RouteGroup *g, int32_t *lost)
{
    int64_t n_lost = 0;
    for (int64_t j = 0; j < g->k; j++) {
        for (int64_t n = 0; n < g->tokens; n++) {
            int64_t choice = n * g->k + j;
            int32_t expert = g->first[choice];
            if (expert >= 0 && g->load[expert] < g->capacity) {
                choice_place(g, choice, expert);
            } else {
                g->expert[choice] = -1;
                if (expert >= 0) lost[n_lost++] = (int32_t)choice;
            }
        }
    }
    return n_lost;
}

static int64_t list_free_places(const RouteGroup *g, int32_t *place_expert)
{
    int64_t n_free = 0;
    for (int64_t e = 0; e < g->experts; e++)
        for (int64_t c = g->load[e]; c < g->capacity; c++) place_expert[n_free++] = (int32_t)e;
    return n_free;
}

static void draw_keys(const PhiloxKey *key, int pass, uint64_t *order, int64_t n_free)
{
    for (int64_t i = 0; i < n_free; i += 4) {
        uint32_t word[4]; /* block b holds the draws 4 b .. 4 b + 3 */
        philox_block(key, (uint32_t)((int64_t)pass << 20 | i) / 4, word);
        for (int64_t lane = 0; lane < size_min(4, n_free - i); lane++)
            order[i + lane] = (uint64_t)word[lane] << 32 | (uint64_t)(i + lane);
    }
}

/* Sorts by the high 32 bits: four counting sorts by one byte each. They are stable, so equal keys
 * stay in the order of the list. */
static void sort_by_key(uint64_t *a, uint64_t *other, int64_t n)
{
    for (int shift = 32; shift < 64; shift += 8) {
        int64_t begin[257] = {0};
        for (int64_t i = 0; i < n; i++) begin[(a[i] >> shift & 255) + 1]++;
        for (int byte = 0; byte < 256; byte++) begin[byte + 1] += begin[byte];
        for (int64_t i = 0; i < n; i++) other[begin[a[i] >> shift & 255]++] = a[i];
        uint64_t *swap = a;
        a = other;
        other = swap;
    }
}

static bool token_has(const RouteGroup *g, int64_t token, int32_t expert)
{
    for (int64_t j = 0; j < g->k; j++)
        if (g->expert[token * g->k + j] == expert) return true;
    return false;
}

/* One pass over the lost choices; returns how many are still lost (packed to the front). */
static int64_t recycle_pass(RouteGroup *g, const Scratch *s, int64_t n_lost, int pass)
{
    int64_t n_free = list_free_places(g, s->place_expert), n_still = 0;
    draw_keys(&g->key, pass, s->order, n_free);
    sort_by_key(s->order, s->sorted, n_free);
    for (int64_t i = 0; i < n_lost; i++) {
        int32_t choice = s->lost[i];
        int32_t expert = i < n_free ? s->place_expert[(uint32_t)s->order[i]] : -1;
        if (expert >= 0 && !token_has(g, choice / g->k, expert)) choice_place(g, choice, expert);
        else s->lost[n_still++] = choice;
    }
    return n_still;
}

static void group_begin(RouteGroup *g)
{
    CHECK(g->k >= 1 && g->k <= g->experts, "k %ld of %ld experts", (long)g->k, (long)g->experts);
    CHECK(g->capacity >= 0, "capacity %ld", (long)g->capacity);
    memset(g->load, 0, (size_t)g->experts * sizeof *g->load);
    g->overflow = g->recycled = g->unplaced = 0;
}

void route_recycle(RouteGroup *g, void *scratch)
{
    group_begin(g);
    CHECK(g->experts * g->capacity <= ROUTE_MAX_PLACES, "%ld experts, capacity %ld",
          (long)g->experts, (long)g->capacity);
    Scratch s = scratch_cut(g, scratch);
    int64_t n_lost = g->overflow = keep(g, s.lost);
    for (int pass = 0; pass < ROUTE_PASSES && n_lost > 0; pass++)
        n_lost = recycle_pass(g, &s, n_lost, pass);
    g->unplaced = n_lost;
    g->recycled = g->overflow - n_lost;
}

void route_drop(RouteGroup *g, void *scratch)
{
    group_begin(g);
    g->overflow = g->unplaced = keep(g, scratch_cut(g, scratch).lost);
}

/* Sorts first the highest score; equal ones stay in the order of their index. */
static inline uint64_t by_falling_score(float score, int64_t index)
{
    uint32_t rising = (uint32_t)route_order_key(score) ^ 0x80000000u;
    return (uint64_t)~rising << 32 | (uint64_t)index;
}

void route_drop_by_score(RouteGroup *g, void *scratch)
{
    group_begin(g);
    Scratch s = scratch_cut(g, scratch);
    int64_t n = 0;
    for (int64_t i = 0; i < g->tokens * g->k; i++) {
        g->expert[i] = -1;
        if (g->first[i] < 0) continue;
        s.order[n++] = by_falling_score(g->scores[i / g->k * g->experts + g->first[i]], i);
    }
    sort_by_key(s.order, s.sorted, n);
    for (int64_t i = 0; i < n; i++) {
        uint32_t choice = (uint32_t)s.order[i];
        int32_t expert = g->first[choice];
        if (g->load[expert] < g->capacity) choice_place(g, choice, expert);
        else g->overflow++;
    }
    g->unplaced = g->overflow;
}

void route_expert_choice(RouteGroup *g, int32_t *first, void *scratch)
{
    group_begin(g);
    CHECK(g->k == g->experts, "k %ld, %ld experts", (long)g->k, (long)g->experts);
    Scratch s = scratch_cut(g, scratch);
    int32_t *filled = s.place_expert, *taken = s.lost; /* (R): slots used; by the expert at hand */
    int64_t E = g->experts, takes = size_min(g->capacity, g->tokens);
    memset(filled, 0, (size_t)g->tokens * sizeof *filled);
    for (int64_t i = 0; i < g->tokens * E; i++) first[i] = g->expert[i] = -1;
    for (int64_t e = 0; e < E; e++) {
        memset(taken, 0, (size_t)g->tokens * sizeof *taken);
        for (int64_t n = 0; n < g->tokens; n++)
            s.order[n] = by_falling_score(g->scores[n * E + e], n);
        sort_by_key(s.order, s.sorted, g->tokens);
        for (int64_t i = 0; i < takes; i++) taken[(uint32_t)s.order[i]] = 1;
        for (int64_t n = 0; n < g->tokens; n++) {
            if (!taken[n]) continue;
            int64_t slot = n * E + filled[n]++;
            first[slot] = (int32_t)e;
            choice_place(g, slot, (int32_t)e);
        }
    }
}
