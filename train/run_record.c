/* train/run_record.c - see run_record.h. */
#include "train/run_record.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const field_names[STEP_FIELD_COUNT] = {
#define STEP_NAME(name) #name,
    STEP_FIELDS(STEP_NAME)
#undef STEP_NAME
};

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (json_is_true(value)) return 1;
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static bool grow(double **array, int64_t room)
{
    double *grown = realloc(*array, (size_t)room * sizeof *grown);
    if (grown) *array = grown;
    return grown != NULL;
}

static int make_room(RunRecord *r, Err *e)
{
    if (r->count < r->room) return 0;
    int64_t room = r->room ? 2 * r->room : 1024;
    bool ok = true;
    for (int i = 0; ok && i < (int)STEP_FIELD_COUNT; i++) ok = grow(&r->field[i], room);
    if (ok && r->experts) {
        float *load = realloc(r->load, (size_t)room * (size_t)r->experts * sizeof *load);
        ok = load != NULL;
        if (ok) r->load = load;
    }
    if (!ok) return err_set(e, "out of memory after %lld steps", (long long)r->count);
    r->room = room;
    return 0;
}

/* The first step that lists its experts' loads fixes how many are kept. */
static int begin_load(RunRecord *r, const json_t *load, Err *e)
{
    size_t n = json_array_size(load);
    if (r->experts || !n) return 0;
    r->experts = n < RECORD_EXPERTS ? (int)n : RECORD_EXPERTS;
    size_t values = (size_t)r->room * (size_t)r->experts;
    r->load = malloc(values * sizeof *r->load);
    if (!r->load) return err_set(e, "out of memory for the experts' loads");
    for (size_t i = 0; i < values; i++) r->load[i] = NAN;
    return 0;
}

static int add_step(RunRecord *r, const json_t *line, Err *e)
{
    double step = number(line, "step");
    if (!isfinite(step)) {
        r->bad_lines++;
        return 0;
    }
    /* A run that was resumed from a checkpoint repeats steps: the later line is what counts. */
    while (r->count && r->field[STEP_step][r->count - 1] >= step) r->count--;
    const json_t *load = json_object_get(line, "load");
    if (make_room(r, e) || begin_load(r, load, e)) return -1;
    for (int i = 0; i < (int)STEP_FIELD_COUNT; i++)
        r->field[i][r->count] = number(line, field_names[i]);
    for (int i = 0; i < r->experts; i++) {
        const json_t *share = json_array_get(load, (size_t)i);
        r->load[r->count * r->experts + i] =
            json_is_number(share) ? (float)json_number_value(share) : NAN;
    }
    r->count++;
    return 0;
}

static int add_eval(RunRecord *r, const json_t *line, Err *e)
{
    double step = number(line, "step"), loss = number(line, "loss");
    if (!isfinite(step)) {
        r->bad_lines++;
        return 0;
    }
    while (r->n_evals && r->eval_step[r->n_evals - 1] >= step) r->n_evals--;
    if (r->n_evals == r->eval_room) {
        int64_t room = r->eval_room ? 2 * r->eval_room : 64;
        if (!grow(&r->eval_step, room) || !grow(&r->eval_loss, room))
            return err_set(e, "out of memory after %lld evaluations", (long long)r->n_evals);
        r->eval_room = room;
    }
    r->eval_step[r->n_evals] = step;
    r->eval_loss[r->n_evals++] = loss;
    return 0;
}

static void keep(json_t **slot, json_t *line)
{
    json_decref(*slot);
    *slot = json_incref(line);
}

static int add_event(RunRecord *r, const char *event, json_t *line, Err *e)
{
    if (!strcmp(event, "eval")) return add_eval(r, line, e);
    bool resume = !strcmp(event, "resume"); /* the first line of an upcycled run */
    if (!strcmp(event, "start") || (resume && !r->start)) keep(&r->start, line);
    if (resume) r->resumes++;
    bool final = !strcmp(event, "final");
    if (final) keep(&r->final, line);
    if (final || !strcmp(event, "stopped") || !strcmp(event, "diverged")) keep(&r->last, line);
    return 0;
}

static int add_line(RunRecord *r, const char *text, size_t size, Err *e)
{
    if (strspn(text, " \t\r\n") == size) return 0;
    json_t *line = json_loadb(text, size, 0, NULL);
    int rc = 0;
    const json_t *event = json_object_get(line, "event");
    if (!json_is_object(line))
        r->bad_lines++;
    else if (json_is_string(event))
        rc = add_event(r, json_string_value(event), line, e);
    else
        rc = add_step(r, line, e);
    json_decref(line);
    return rc;
}

int run_record_read(RunRecord *r, const char *path, Err *e)
{
    *r = (RunRecord){0};
    FILE *f = fopen(path, "re");
    if (!f) return err_errno(e, "%s: cannot be opened", path);
    char *text = NULL;
    size_t room = 0;
    ssize_t size;
    int rc = 0;
    while (!rc && (size = getline(&text, &room, f)) >= 0) rc = add_line(r, text, (size_t)size, e);
    if (rc)
        err_context(e, "%s", path);
    else if (ferror(f))
        rc = err_errno(e, "%s: cannot be read", path);
    free(text);
    fclose(f);
    return rc;
}

void run_record_clear(RunRecord *r)
{
    for (int i = 0; i < (int)STEP_FIELD_COUNT; i++) free(r->field[i]);
    free(r->load);
    free(r->eval_step);
    free(r->eval_loss);
    json_decref(r->start);
    json_decref(r->final);
    json_decref(r->last);
    *r = (RunRecord){0};
}

double run_record_last(const RunRecord *r, StepField field)
{
    return r->count ? r->field[field][r->count - 1] : NAN;
}
