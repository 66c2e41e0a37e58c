/* scaling/driver_watch.c - does a trainer still do anything? A sign of progress is a change of the
 * time of its run folder's lock, which it touches with every micro-batch, batch of held-out text
 * and part of its start, of its record, or of what it printed. Times are only compared with those
 * seen before, so that no two clocks have to agree. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "scaling/driver_inside.h"

#define STEPS 20.0     /* limit: so many steps, or pauses as long as the longest before */
#define AT_ONCE 0.2    /* of the limit, between two looks, at most: a driver that stood still itself
                          (suspended, stopped) has not watched */

/* Changes when the file does; 0: there is none. */
static int64_t mark_of(Driver *d, const char *id, const char *suffix)
{
    char path[IO_PATH_MAX];
    struct stat info;
    Err ignored = {0}, *e = d->e;
    d->e = &ignored;
    int rc = driver_path(d, id, suffix, path);
    d->e = e;
    if (rc || stat(path, &info)) return 0;
    return (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec + info.st_size;
}

/* Has anything changed since the last look? What a job's output holds may be the queue's words:
 * that it has begun its own files tell. */
static bool look(Driver *d, const Slot *s, Watch *w)
{
    static const char *const files[WATCHED] = {"/lock", "/log.jsonl", ".out"};
    bool changed = false;
    for (int i = 0; i < WATCHED; i++) {
        int64_t mark = mark_of(d, s->cell.cell.id, files[i]);
        if (mark == w->mark[i]) continue;
        w->mark[i] = mark;
        w->begun = w->begun || i < WATCHED - 1;
        changed = true;
    }
    return changed;
}

/* Seconds without a sign that are too many. */
static double limit_of(const Driver *d, const Slot *s)
{
    const Cell *c = &s->cell.cell;
    double step = c->steps > 0 ? c->seconds / (double)c->steps : NAN; /* NaN: not measured */
    return fmax(d->o.time_limit, STEPS * fmax(s->watch.longest, step));
}

void driver_watch(Driver *d, Slot *s)
{
    s->watch = (Watch){.looked = log_seconds()};
    look(d, s, &s->watch);
    s->watch.begun = false;
}

bool driver_hangs(Driver *d, Slot *s)
{
    Watch *w = &s->watch;
    bool changed = look(d, s, w);
    double now = log_seconds(), since = fmin(now - w->looked, AT_ONCE * d->o.time_limit);
    bool queued = d->mode.stop[0] && !w->begun;
    w->looked = now;
    if (d->o.time_limit < 0) return false;
    w->quiet += since;
    if (changed || queued) {
        if (w->begun) w->longest = fmax(w->longest, w->quiet);
        w->quiet = 0;
        return false;
    }
    double limit = limit_of(d, s);
    if (w->quiet <= limit) return false;
    snprintf(s->why, sizeof s->why, "no sign of progress for %.3g s (sweep.time_limit; 20 times "
             "its longest pause before was %.3g s)", w->quiet, STEPS * w->longest);
    return true;
}
