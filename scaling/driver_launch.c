/* scaling/driver_launch.c - a driver's options, and the command line of a cell's trainer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scaling/cell_result.h"
#include "scaling/driver_inside.h"

enum { MAX_JOBS = 1024, OVERRIDES = 256 };

#define GRACE_SECONDS 60.0
#define LIMIT_SECONDS 600.0

static int min_int(int a, int b) { return a < b ? a : b; }
static int max_int(int a, int b) { return a > b ? a : b; }

int driver_settle(Driver *d, const DriverOptions *o)
{
    char path[IO_PATH_MAX];
    int cores = launch_cores();
    d->o = *o;
    d->mode = *(o->mode ? o->mode : launch_mode_find("local"));
    if (o->start) d->mode.start = o->start;
    d->threads = o->threads > 0 ? o->threads : o->jobs > 0 ? max_int(cores / o->jobs, 1) : 1;
    d->jobs = min_int(o->jobs > 0 ? o->jobs : max_int(cores / d->threads, 1), MAX_JOBS);
    if (d->o.ranks <= 0) d->o.ranks = 1;
    if (d->o.tries.most <= 0) d->o.tries = (LedgerTries){3, 1, 0.5};
    if (!(d->o.grace > 0)) d->o.grace = GRACE_SECONDS;
    if (d->o.time_limit == 0) d->o.time_limit = LIMIT_SECONDS;
    if (io_join(path, o->folder, "cells", d->e) || io_make_dirs(path, d->e)) return -1;
    d->slot = calloc((size_t)d->jobs, sizeof *d->slot);
    if (!d->slot) return err_set(d->e, "out of memory for %d trainers", d->jobs);
    for (int i = 0; i < d->jobs; i++) d->slot[i].lock = -1;
    return 0;
}

int driver_path(Driver *d, const char *id, const char *suffix, char out[IO_PATH_MAX])
{
    char name[64];
    snprintf(name, sizeof name, "cells/%s%s", id, suffix);
    return io_join(out, d->o.folder, name, d->e);
}

/* ---- The command line -------------------------------------------------------------------------*/

typedef struct Line {
    const char *word[OVERRIDES + 16];
    int count;
    char overrides[CELL_OVERRIDES];
    char base[IO_PATH_MAX], out[IO_PATH_MAX + 16], from[IO_PATH_MAX + 16], threads[48], lr[48];
    char label[CELL_LABEL];
} Line;

static bool is_key(const char *word, const char *key)
{
    size_t n = strlen(key);
    return !strncmp(word, key, n) && word[n] == '=';
}

/* What the driver sets itself is not the cell's to say. */
static bool is_ours(const char *word, bool lower)
{
    return is_key(word, "train.out") || is_key(word, "train.from") ||
           is_key(word, "train.threads") || (lower && is_key(word, "optim.lr"));
}

static int add_overrides(Line *w, const Cell *c, bool lower, Err *e)
{
    char *save = NULL;
    snprintf(w->overrides, sizeof w->overrides, "%s", c->overrides);
    for (char *word = strtok_r(w->overrides, "\n", &save); word;
         word = strtok_r(NULL, "\n", &save)) {
        if (w->count >= OVERRIDES)
            return err_set(e, "%s: more than %d overrides", c->name, OVERRIDES);
        if (!is_ours(word, lower)) w->word[w->count++] = word;
    }
    return 0;
}

/* program train BASE key=value ... --cell LABEL --quiet. A cell whose rate is not its parent's runs
 * alone, from its first step. */
static int make_line(Driver *d, const Slot *s, Line *w)
{
    const Cell *c = &s->cell.cell;
    char folder[IO_PATH_MAX];
    bool lower = s->cell.lr_factor != 1 && c->lr > 0;
    *w = (Line){.word = {d->o.program, "train", w->base}, .count = 3};
    if (io_join(w->base, d->o.folder, "base.yaml", d->e)) return -1;
    if (add_overrides(w, c, lower, d->e) || driver_path(d, c->id, "", folder)) return -1;
    snprintf(w->out, sizeof w->out, "train.out=%s", folder);
    w->word[w->count++] = w->out;
    if (c->parent[0] && s->cell.lr_factor == s->parent_factor) {
        if (driver_path(d, c->parent, "", folder)) return -1;
        snprintf(w->from, sizeof w->from, "train.from=%s", folder);
        w->word[w->count++] = w->from;
    }
    snprintf(w->threads, sizeof w->threads, "train.threads=%d", d->threads);
    w->word[w->count++] = w->threads;
    if (lower) {
        snprintf(w->lr, sizeof w->lr, "optim.lr=%.17g", c->lr * s->cell.lr_factor);
        w->word[w->count++] = w->lr;
    }
    cell_label(w->label, c->id, s->cell.lr_factor);
    w->word[w->count++] = "--cell";
    w->word[w->count++] = w->label;
    w->word[w->count++] = "--quiet";
    return 0;
}

/* The cores of a slot: those of this driver begin behind those of others. -1: not enough. */
static int first_core(const Driver *d, const Slot *s)
{
    bool enough = d->first_core + d->jobs * d->threads <= launch_cores();
    return d->mode.pinned && enough ? d->first_core + (int)(s - d->slot) * d->threads : -1;
}

static LaunchJob job_of(const Driver *d, const Slot *s, const char *folder, const char *output)
{
    const Cell *c = &s->cell.cell;
    return (LaunchJob){.id = c->id, .name = c->name, .folder = folder, .output = output,
                       .threads = d->threads, .ranks = d->o.ranks, .lock = s->lock,
                       .first_core = first_core(d, s)};
}

int driver_launch(Driver *d, Slot *s)
{
    char folder[IO_PATH_MAX], output[IO_PATH_MAX];
    const char *id = s->cell.cell.id;
    Line *w = malloc(sizeof *w);
    if (!w) return err_set(d->e, "out of memory");
    int rc = make_line(d, s, w);
    if (!rc) rc = driver_path(d, id, "", folder) || driver_path(d, id, ".out", output);
    if (!rc) {
        LaunchJob job = job_of(d, s, folder, output);
        job.command = w->word;
        job.n_command = w->count;
        rc = launch_start(&d->mode, &job, &s->pid, d->e);
    }
    free(w);
    return rc ? -1 : 0;
}

void driver_stop_command(Driver *d, Slot *s, bool kills)
{
    char folder[IO_PATH_MAX], output[IO_PATH_MAX];
    const char *id = s->cell.cell.id;
    if (driver_path(d, id, "", folder) || driver_path(d, id, ".out", output)) return;
    LaunchJob job = job_of(d, s, folder, output);
    if (kills)
        launch_kill(&d->mode, &job);
    else
        launch_stop(&d->mode, &job);
    ledger_beat(d->l, NULL, NULL); /* it may have taken long; many of them longer than a lease */
}
