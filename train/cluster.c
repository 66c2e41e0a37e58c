/* train/cluster.c - see cluster.h. The assignment starts from any equal labels and cancels negative
 * rings: moving one point from each cluster to the next around a ring keeps the sizes. Edge (a, b)
 * costs the cheapest move of one of a's points to b; without negative rings the sum is least. */
#include "train/cluster.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"

typedef struct Assignment {
    const double *cost; /* (n, k) */
    int64_t n;
    int k;
    int32_t *label;
    double slack;     /* gains below this are rounding */
    double *edge;     /* (k, k) cheapest move from cluster a to b */
    int64_t *mover;   /* (k, k) the point that makes it */
    double *distance; /* (k) */
    int *from;        /* (k) */
    bool *stale;      /* (k) clusters whose edges must be found anew */
} Assignment;

static void find_edges(Assignment *s)
{
    int k = s->k;
    for (int a = 0; a < k; a++)
        for (int b = 0; b < k && s->stale[a]; b++) s->edge[a * k + b] = INFINITY;
    for (int64_t i = 0; i < s->n; i++) {
        int a = s->label[i];
        const double *cost = s->cost + i * k;
        for (int b = 0; b < k && s->stale[a]; b++) {
            if (cost[b] - cost[a] >= s->edge[a * k + b]) continue;
            s->edge[a * k + b] = cost[b] - cost[a];
            s->mover[a * k + b] = i;
        }
    }
    memset(s->stale, 0, (size_t)k * sizeof *s->stale);
}

/* Bellman-Ford from all clusters at once; a cluster on a negative ring, or -1. */
static int find_ring(Assignment *s)
{
    int k = s->k, last = -1;
    for (int a = 0; a < k; a++) {
        s->distance[a] = 0;
        s->from[a] = -1;
    }
    for (int round = 0; round <= k; round++) {
        last = -1;
        for (int a = 0; a < k; a++) {
            for (int b = 0; b < k; b++) {
                double there = s->distance[a] + s->edge[a * k + b];
                if (a == b || there >= s->distance[b] - s->slack) continue;
                s->distance[b] = there;
                s->from[b] = a;
                last = b;
            }
        }
        if (last < 0) return -1;
    }
    for (int i = 0; i < k; i++) last = s->from[last]; /* into the ring for certain */
    return last;
}

/* Moves one point along every edge of the ring; false if that would not gain anything. */
static bool turn_ring(Assignment *s, int on)
{
    double gain = 0;
    int k = s->k, b = on;
    do {
        gain += s->edge[s->from[b] * k + b];
        b = s->from[b];
    } while (b != on);
    if (gain >= -s->slack) return false;
    do {
        int a = s->from[b];
        s->label[s->mover[a * k + b]] = b;
        s->stale[a] = true;
        b = a;
    } while (b != on);
    return true;
}

/* From the labels there are, which must be of equal sizes. */
static void improve(Assignment *s)
{
    double most = 0;
    for (int64_t i = 0; i < s->n * s->k; i++) most = fmax(most, fabs(s->cost[i]));
    s->slack = 1e-13 * most;
    memset(s->stale, 1, (size_t)s->k * sizeof *s->stale);
    for (;;) {
        find_edges(s);
        int on = find_ring(s);
        if (on < 0 || !turn_ring(s, on)) return;
    }
}

static int assignment_open(Assignment *s, int64_t n, int k, Err *e)
{
    size_t pairs = (size_t)k * (size_t)k;
    CHECK(k > 0 && n % k == 0, "%lld points, %d clusters", (long long)n, k);
    *s = (Assignment){.n = n, .k = k};
    s->edge = malloc(pairs * sizeof *s->edge);
    s->mover = malloc(pairs * sizeof *s->mover);
    s->distance = malloc((size_t)k * sizeof *s->distance);
    s->from = malloc((size_t)k * sizeof *s->from);
    s->stale = malloc((size_t)k * sizeof *s->stale);
    bool there = s->edge && s->mover && s->distance && s->from && s->stale;
    return there ? 0 : err_set(e, "out of memory for %d clusters", k);
}

static void assignment_close(Assignment *s)
{
    free(s->edge);
    free(s->mover);
    free(s->distance);
    free(s->from);
    free(s->stale);
}

static void first_labels(int32_t *label, int64_t n, int k)
{
    for (int64_t i = 0; i < n; i++) label[i] = (int32_t)(i / (n / k));
}

int cluster_assign(const double *cost, int64_t n, int k, int32_t *label, Err *e)
{
    Assignment s;
    int rc = assignment_open(&s, n, k, e);
    if (!rc) {
        s.cost = cost;
        s.label = label;
        first_labels(label, n, k);
        improve(&s);
    }
    assignment_close(&s);
    return rc;
}

/* ---- means --------------------------------------------------------------------------------- */

static double squared_distance(const double *a, const double *b, int64_t d)
{
    double sum = 0;
    for (int64_t i = 0; i < d; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

static void find_costs(const ClusterPoints *p, const double *centre, double *cost)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < p->n; i++)
        for (int c = 0; c < p->k; c++)
            cost[i * p->k + c] = squared_distance(p->x + i * p->d, centre + c * p->d, p->d);
}

static void find_means(const ClusterPoints *p, const int32_t *label, double *centre)
{
    memset(centre, 0, (size_t)(p->k * p->d) * sizeof *centre);
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t j = 0; j < p->d; j++) centre[label[i] * p->d + j] += p->x[i * p->d + j];
    for (int64_t j = 0; j < p->k * p->d; j++) centre[j] /= (double)(p->n / p->k);
}

/* near (n) is scratch: distance to the nearest centre so far. */
static void first_centres(const ClusterPoints *p, double *centre, double *near)
{
    PhiloxKey key = {p->seed, RNG_SPLIT, p->stream, 0};
    int64_t next = philox_u32(&key, 0) % p->n;
    size_t row = (size_t)p->d * sizeof *centre;
    for (int64_t i = 0; i < p->n; i++) near[i] = INFINITY;
    for (int c = 0; c < p->k; c++) {
        memcpy(centre + c * p->d, p->x + next * p->d, row);
        next = 0;
        for (int64_t i = 0; i < p->n; i++) {
            near[i] = fmin(near[i], squared_distance(p->x + i * p->d, centre + c * p->d, p->d));
            if (near[i] > near[next]) next = i;
        }
    }
}

int cluster_balanced(const ClusterPoints *p, int32_t *label, Err *e)
{
    Assignment s;
    size_t n = (size_t)p->n, k = (size_t)p->k;
    double *cost = malloc(n * k * sizeof *cost);
    double *centre = malloc(k * (size_t)p->d * sizeof *centre);
    int32_t *before = malloc(n * sizeof *before);
    int rc = assignment_open(&s, p->n, p->k, e);
    if (!rc && !(cost && centre && before)) rc = err_set(e, "out of memory for %zu points", n);
    if (rc) goto done;
    s.cost = cost;
    s.label = label;
    first_centres(p, centre, cost);
    first_labels(label, p->n, p->k);
    for (int round = 0; round < CLUSTER_ROUNDS; round++) {
        memcpy(before, label, n * sizeof *label);
        find_costs(p, centre, cost);
        improve(&s);
        if (round && !memcmp(before, label, n * sizeof *label)) break;
        find_means(p, label, centre);
    }
done:
    assignment_close(&s);
    free(cost);
    free(centre);
    free(before);
    return rc;
}
