/* train/sweep_measure.c - sweep_measure of sweep_plan.h: short real runs, and what follows for a
 * cell's time. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include "train/json_out.h"
#include "train/sweep_plan.h"
#include "train/version.h"

enum { WARM_STEPS = 2, TIMED_STEPS = 10, MEASURE_STEPS = WARM_STEPS + TIMED_STEPS };

typedef struct Measured { /* of a size and batch */
    double step;   /* seconds, median */
    double beside; /* seconds of a run that are no steps */
} Measured;

typedef struct Measuring {
    const SweepConfig *s;
    const char *program;
    char folder[IO_PATH_MAX], run[IO_PATH_MAX]; /* of the study, and of the short run in it */
    json_t *kept; /* {key: [step, beside]} */
} Measuring;

/* No step takes longer or shorter for these. */
static bool is_idle(const char *word)
{
    static const char *const keys[] = {
        "optim.lr=", "optim.schedule=", "optim.warmup_steps=", "optim.decay_steps=",
        "optim.final_lr_ratio=", "train.steps=", "train.seed="};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strncmp(word, keys[i], strlen(keys[i]))) return true;
    return false;
}

/* What the times depend on: the base's text, the cell's overrides without length, rate and seed,
 * the program, the machine's threads. */
static int key_of(const Measuring *m, const Cell *c, char out[HASH_HEX], Err *e)
{
    char host[256] = "", text[CELL_OVERRIDES];
    uint64_t base;
    const char *words[SWEEP_WORDS];
    if (hash_file(m->s->base, &base, e)) return -1;
    gethostname(host, sizeof host - 1);
    memcpy(text, c->overrides, sizeof text);
    int n = sweep_words(text, words);
    uint64_t h = hash_bytes(host, strlen(host));
    h = hash_more(h, version_text(), strlen(version_text()));
    h = hash_more(h, &base, sizeof base);
    h = hash_more(h, &m->s->cores, sizeof m->s->cores);
    for (int i = 0; i < n; i++)
        if (!is_idle(words[i])) h = hash_more(h, words[i], strlen(words[i]) + 1);
    hash_hex(h, out);
    return 0;
}

/* Runs `words` (ends with NULL) with its output in FOLDER/measure.out; its exit code. */
static int run_child(const Measuring *m, char *const *words, Err *e)
{
    char path[IO_PATH_MAX];
    int status;
    if (io_join(path, m->folder, "measure.out", e)) return -1;
    struct sigaction normal = {.sa_handler = SIG_DFL}, before;
    sigaction(SIGCHLD, &normal, &before); /* where it is ignored no status is kept */
    pid_t pid = fork();
    if (!pid) {
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        if (fd >= 0) {
            dup2(fd, 1);
            dup2(fd, 2);
        }
        execv(words[0], words);
        _exit(127);
    }
    int got = -1;
    if (pid > 0)
        do got = waitpid(pid, &status, 0);
        while (got < 0 && errno == EINTR);
    int why = errno;
    sigaction(SIGCHLD, &before, NULL);
    errno = why;
    if (pid < 0) return err_errno(e, "%s: cannot be started", m->program);
    if (got < 0) return err_errno(e, "%s: cannot be waited for", m->program);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
    err_set(e, "%s: a run of %d steps failed", m->program, MEASURE_STEPS);
    return err_hint(e, "%s says why", path);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* From the run's record: the median of the timed steps. */
static int read_steps(const Measuring *m, double *median, double *all, Err *e)
{
    char path[IO_PATH_MAX], *text, *rest = NULL;
    size_t size;
    double seconds[MEASURE_STEPS];
    int n = 0;
    if (io_join(path, m->run, "log.jsonl", e) || io_read_all(path, 1 << 24, &text, &size, e))
        return -1;
    *all = 0;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        json_t *o = json_loads(line, 0, NULL);
        const json_t *value = json_object_get(o, "step_seconds");
        if (!json_object_get(o, "event") && json_is_number(value) && n < MEASURE_STEPS)
            *all += seconds[n++] = json_number_value(value);
        json_decref(o);
    }
    free(text);
    if (n != MEASURE_STEPS)
        return err_set(e, "%s: %d steps, expected %d", path, n, MEASURE_STEPS);
    qsort(seconds + WARM_STEPS, TIMED_STEPS, sizeof *seconds, by_value);
    *median = (seconds[WARM_STEPS + TIMED_STEPS / 2 - 1] + seconds[WARM_STEPS + TIMED_STEPS / 2])
              / 2;
    return 0;
}

/* A real run of MEASURE_STEPS steps. */
static int measure(const Measuring *m, const Cell *c, Measured *out, Err *e)
{
    enum { MORE = 12 };
    char text[CELL_OVERRIDES], folder[IO_PATH_MAX + 16], threads[48], steps[48];
    const char *words[SWEEP_WORDS + MORE] = {m->program, "train", m->s->base};
    double median = 0, all = 0;
    memcpy(text, c->overrides, sizeof text);
    int n = 3 + sweep_words(text, words + 3);
    snprintf(folder, sizeof folder, "train.out=%s", m->run);
    snprintf(threads, sizeof threads, "train.threads=%lld", (long long)m->s->cores);
    snprintf(steps, sizeof steps, "train.steps=%d", MEASURE_STEPS);
    const char *const own[] = {folder, threads, steps, "optim.warmup_steps=0",
                               "optim.decay_steps=1", "train.eval_every=0", "--quiet"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) words[n++] = own[i];
    words[n] = NULL;
    if (io_remove_tree(m->run, e)) return -1;
    double begin = log_seconds();
    if (run_child(m, (char *const *)(uintptr_t)words, e)) return err_context(e, "%s", c->name);
    double whole = log_seconds() - begin;
    if (read_steps(m, &median, &all, e)) return -1;
    *out = (Measured){median, fmax(0, whole - all)};
    return io_remove_tree(m->run, e);
}

/* The cell's times, kept or measured now; without a program those that are not kept are NaN. */
static int times_of(Measuring *m, const Cell *c, Measured *out, Err *e)
{
    char key[HASH_HEX], path[IO_PATH_MAX];
    if (key_of(m, c, key, e)) return -1;
    const json_t *kept = json_object_get(m->kept, key);
    *out = (Measured){NAN, NAN};
    if (json_is_array(kept) && json_array_size(kept) == 2) {
        *out = (Measured){json_number_value(json_array_get(kept, 0)),
                          json_number_value(json_array_get(kept, 1))};
        return 0;
    }
    if (!m->program) return 0;
    if (measure(m, c, out, e)) return -1;
    log_info("%s: %.4g s a step, %.3g s beside the steps", c->name, out->step, out->beside);
    json_object_set_new(m->kept, key, json_pack("[f, f]", out->step, out->beside));
    if (io_join(path, m->folder, "measured.json", e)) return -1;
    return json_out_save(path, m->kept, e);
}

static const Cell *parent_of(const CellList *l, const Cell *c)
{
    for (int i = 0; i < l->count && c->parent[0]; i++)
        if (!strcmp(l->cell[i].id, c->parent)) return &l->cell[i];
    return NULL;
}

bool sweep_measure_is_short(const CellList *l)
{
    double measured = 0, all = 0;
    for (int i = 0; i < l->count; i++) {
        const Cell *c = &l->cell[i];
        double step = c->C / (double)c->steps;
        bool seen = false;
        if (c->left_out[0]) continue;
        for (int j = 0; j < i && !seen; j++) {
            const Cell *b = &l->cell[j];
            seen = !b->left_out[0] && b->batch == c->batch && b->C / (double)b->steps == step;
        }
        if (!seen) measured += MEASURE_STEPS * step;
        all += c->own_flops;
    }
    return measured <= SWEEP_MEASURE_FLOPS && measured <= SWEEP_MEASURE_SHARE * all;
}

int sweep_times_kept(const SweepConfig *s, CellList *l, Err *e)
{
    return sweep_measure(s, NULL, l, e);
}

int sweep_measure(const SweepConfig *s, const char *program, CellList *l, Err *e)
{
    Measuring m = {.s = s, .program = program};
    char path[IO_PATH_MAX];
    int rc = 0;
    snprintf(m.folder, sizeof m.folder, "%s", s->out);
    if ((program && io_make_dirs(m.folder, e)) || io_join(m.run, m.folder, "measure", e) ||
        io_join(path, m.folder, "measured.json", e))
        return -1;
    m.kept = json_load_file(path, 0, NULL); /* missing or damaged: all is measured */
    if (!json_is_object(m.kept)) {
        json_decref(m.kept);
        m.kept = json_object();
    }
    for (int i = 0; i < l->count && !rc; i++) {
        Cell *c = &l->cell[i];
        const Cell *parent = parent_of(l, c);
        Measured t = {0};
        if (c->left_out[0]) continue;
        rc = times_of(&m, c, &t, e);
        double steps = (double)(c->steps - (parent ? parent->steps : 0));
        if (!rc && t.step > 0) c->seconds = t.beside + t.step * steps;
    }
    json_decref(m.kept);
    return rc;
}
