/* model/widths.c - see widths.h. */
#include "model/widths.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"

/* Relative width of expert i of E; 0: the profile has none for this E. */
static int64_t arithmetic(int64_t i, int64_t E) { return E < 2 ? 0 : 9 * (E - 1) + 14 * i; }

/* Beyond 28 experts the sum of the powers exceeds every total: the first would get nothing. */
static int64_t geometric(int64_t i, int64_t E)
{
    return E < 2 || E > 28 ? 0 : (int64_t)1 << i;
}

static int64_t hybrid(int64_t i, int64_t E)
{
    if (E % 4) return 0;
    return i < E / 2 ? 1 : i < E / 2 + E / 4 ? 2 : 4;
}

static const struct {
    const char *name;
    int64_t (*relative)(int64_t i, int64_t E);
    const char *needs;
} profiles[] = {
    {"arithmetic", arithmetic, "needs at least 2 experts"},
    {"geometric", geometric, "needs 2 .. 28 experts"},
    {"hybrid", hybrid, "needs a multiple of 4 experts"},
};
enum { PROFILES = sizeof profiles / sizeof *profiles };

/* Shares `units` in proportion to `relative`: rounded down, then one more for the largest
 * remainders. Products stay below 2^28 * 2^28. */
static void share_out(int64_t units, const int64_t *relative, int64_t E, int64_t *out)
{
    int64_t sum = 0, left = units, remainder[EXPERTS_EACH_MAX];
    for (int64_t i = 0; i < E; i++) sum += relative[i];
    for (int64_t i = 0; i < E; i++) {
        out[i] = units * relative[i] / sum;
        remainder[i] = units * relative[i] % sum;
        left -= out[i];
    }
    for (; left > 0; left--) {
        int64_t best = 0;
        for (int64_t i = 1; i < E; i++)
            if (remainder[i] > remainder[best]) best = i;
        out[best]++;
        remainder[best] = -1;
    }
}

static bool fill_by_unit(int64_t total, int64_t unit, const int64_t *relative, int64_t E,
                         int32_t *widths)
{
    int64_t out[EXPERTS_EACH_MAX];
    if (total % unit) return false;
    share_out(total / unit, relative, E, out);
    for (int64_t i = 0; i < E; i++) {
        if (out[i] < 1) return false;
        widths[i] = (int32_t)(out[i] * unit);
    }
    return true;
}

static int fill_profile(int p, int64_t E, int64_t mean, int32_t *widths, Err *e)
{
    int64_t relative[EXPERTS_EACH_MAX];
    if (mean < 1)
        return err_set(e, "%s shares out n_experts * expert_width: give model.expert_width",
                       profiles[p].name);
    for (int64_t i = 0; i < E; i++) relative[i] = profiles[p].relative(i, E);
    if (!relative[0])
        return err_set(e, "%s %s, there are %lld", profiles[p].name, profiles[p].needs,
                       (long long)E);
    if (fill_by_unit(E * mean, 8, relative, E, widths) ||
        fill_by_unit(E * mean, 1, relative, E, widths))
        return 0;
    return err_set(e, "%s leaves the narrowest of %lld experts nothing of a total width of %lld",
                   profiles[p].name, (long long)E, (long long)(E * mean));
}

static int read_list(const char *text, int64_t E, int32_t *widths, int64_t *sum, Err *e)
{
    enum { WIDEST = 1 << 20 };
    int64_t n = 0;
    *sum = 0;
    for (const char *at = text + strspn(text, " "); *at; at += strspn(at, " ")) {
        int length = (int)strcspn(at, " ");
        if ((int)strspn(at, "0123456789") != length || length > 7)
            return err_set(e, "'%.*s' is neither arithmetic, geometric or hybrid nor a width",
                           length > 40 ? 40 : length, at);
        int64_t width = strtoll(at, NULL, 10);
        if (width < 1 || width > WIDEST)
            return err_set(e, "a width of %lld, must be 1 .. %d", (long long)width, WIDEST);
        if (n < E) widths[n] = (int32_t)width;
        *sum += width;
        n++;
        at += length;
    }
    if (n != E)
        return err_set(e, "%lld widths for model.n_experts %lld", (long long)n, (long long)E);
    return 0;
}

static int fill_list(const char *text, int64_t E, int64_t *mean, int32_t *widths, Err *e)
{
    int64_t sum;
    if (read_list(text, E, widths, &sum, e)) return -1;
    if (sum % E)
        return err_set(e, "the widths sum up to %lld, which is no multiple of %lld experts: the "
                       "mean must be an integer", (long long)sum, (long long)E);
    if (*mean && *mean != sum / E)
        return err_set(e, "the mean of the widths is %lld, model.expert_width %lld: leave that out",
                       (long long)(sum / E), (long long)*mean);
    *mean = sum / E;
    return 0;
}

int widths_resolve(const char *text, int64_t E, int64_t *mean, int32_t *widths, Err *e)
{
    if (E < 1) return err_set(e, "there are no experts (model.n_experts is 0)");
    if (E > EXPERTS_EACH_MAX)
        return err_set(e, "at most %d experts can have widths of their own, there are %lld",
                       EXPERTS_EACH_MAX, (long long)E);
    for (int p = 0; p < PROFILES; p++)
        if (!strcmp(text, profiles[p].name)) return fill_profile(p, E, *mean, widths, e);
    return fill_list(text, E, mean, widths, e);
}
