/* scaling/cell_result.c - see cell_result.h. */
#include "scaling/cell_result.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"

enum { RESULT_VERSION = 1, RESULT_MAX = 1 << 20 };

void cell_label(char out[CELL_LABEL], const char *id, double lr_factor)
{
    if (lr_factor == 1)
        snprintf(out, CELL_LABEL, "%s", id);
    else
        snprintf(out, CELL_LABEL, "%s@%.17g", id, lr_factor);
}

/* A number, NaN for null or nothing. */
static double number(const json_t *root, const char *key)
{
    const json_t *value = json_object_get(root, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void text(const json_t *root, const char *key, char *out, size_t size)
{
    const char *value = json_string_value(json_object_get(root, key));
    snprintf(out, size, "%s", value ? value : "");
}

static int refuse(Err *e, const char *path, const char *what)
{
    err_set(e, "%s: is no result of a run: %s", path, what);
    return err_hint(e, "remove the run's folder and start again: it is run anew");
}

static int read_root(const json_t *root, const char *path, CellOutcome *out, Err *e)
{
    char format[32], status[32];
    text(root, "format", format, sizeof format);
    text(root, "status", status, sizeof status);
    text(root, "cell", out->label, sizeof out->label);
    text(root, "reason", out->reason, sizeof out->reason);
    const json_t *version = json_object_get(root, "version");
    const json_t *step = json_object_get(root, "steps");
    CellResult *r = &out->result;
    *r = (CellResult){.loss = number(root, "loss"), .train_loss = number(root, "train_loss"),
                      .tokens = number(root, "tokens"), .flops = number(root, "flops"),
                      .seconds = number(root, "seconds"), .b_noise = number(root, "b_noise"),
                      .steps = json_integer_value(step)};
    if (strcmp(format, "isomoe-result")) return refuse(e, path, "the member format is missing");
    if (json_integer_value(version) != RESULT_VERSION)
        return refuse(e, path, "it has another version");
    bool done = !strcmp(status, "done");
    if (!done && strcmp(status, "diverged"))
        return refuse(e, path, "status is not done or diverged");
    if (done && json_is_null(json_object_get(root, "loss")) && number(root, "targets") > 0) {
        done = false; /* as older programs ended a run that went wrong in its last steps */
        snprintf(out->reason, sizeof out->reason, "its held-out loss is not finite");
    }
    out->status = done ? STATE_DONE : STATE_DIVERGED;
    if (!json_is_integer(step) || r->steps < 0) return refuse(e, path, "steps is missing");
    if (done && !(isfinite(r->loss) && r->loss >= 0)) return refuse(e, path, "loss is missing");
    if (done && !(r->tokens >= 0 && r->flops >= 0 && r->seconds >= 0))
        return refuse(e, path, "tokens, flops or seconds is missing");
    return 0;
}

int cell_result_read(const char *folder, CellOutcome *out, bool *found, Err *e)
{
    char path[IO_PATH_MAX], *data;
    size_t size;
    json_error_t why;
    *found = false;
    *out = (CellOutcome){.status = STATE_FAILED};
    if (io_join(path, folder, "result.json", e)) return -1;
    if (!io_exists(path)) return 0;
    if (io_read_all(path, RESULT_MAX, &data, &size, e)) return -1;
    json_t *root = json_loadb(data, size, JSON_REJECT_DUPLICATES, &why);
    free(data);
    if (!json_is_object(root)) {
        json_decref(root);
        return refuse(e, path, "it is no JSON object");
    }
    int rc = read_root(root, path, out, e);
    json_decref(root);
    *found = !rc;
    return rc;
}
