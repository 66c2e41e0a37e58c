/* train/report.c - gathers what a run folder has to show; see report.h. */
#include "train/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/log.h"
#include "train/checkpoint_folder.h"

enum { FILE_MAX = 1 << 24 };

double report_number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

const char *report_string(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* A file of the run that may be missing: then *text stays NULL. One that cannot be read is named
 * and left out. */
static void read_optional(const Report *r, const char *name, char **text, size_t *size)
{
    char path[IO_PATH_MAX];
    Err e = {0};
    if (io_join(path, r->folder, name, &e) || !io_exists(path)) return;
    if (io_read_all(path, FILE_MAX, text, size, &e)) log_warn("%s", e.message);
}

static void read_eval(Report *r)
{
    char *text = NULL;
    size_t size = 0;
    read_optional(r, "eval.json", &text, &size);
    if (!text) return;
    r->eval = json_loadb(text, size, 0, NULL);
    if (!json_is_object(r->eval)) {
        log_warn("%s/eval.json: is no JSON object; left out", r->folder);
        json_decref(r->eval);
        r->eval = NULL;
    }
    free(text);
}

static void read_config(Report *r)
{
    Err e = {0};
    read_optional(r, "config.yaml", &r->config_text, &r->config_size);
    if (!r->config_text) return;
    r->has_config = !run_config_read_text(&r->config, r->config_text, "config.yaml", &e) &&
                    !count_params(&r->config.model, &r->params, &e);
    if (!r->has_config) log_warn("%s/%s", r->folder, e.message);
}

static int64_t folder_bytes(const char *path)
{
    char **names, file[IO_PATH_MAX];
    int count;
    int64_t sum = 0;
    struct stat info;
    if (io_list_dir(path, &names, &count, NULL)) return 0;
    for (int i = 0; i < count; i++)
        if (!io_join(file, path, names[i], NULL) && !stat(file, &info)) sum += info.st_size;
    io_free_names(names, count);
    return sum;
}

static void read_checkpoints(Report *r)
{
    int64_t *steps = NULL;
    char path[IO_PATH_MAX];
    Err e = {0};
    if (checkpoint_list(r->folder, 0, &steps, &r->n_checkpoints, &e)) {
        log_warn("%s", e.message);
        r->n_checkpoints = 0;
    }
    r->checkpoint = calloc((size_t)r->n_checkpoints + 1, sizeof *r->checkpoint);
    if (!r->checkpoint) r->n_checkpoints = 0;
    for (int i = 0; i < r->n_checkpoints; i++) {
        r->checkpoint[i].step = steps[i];
        if (!checkpoint_path(path, r->folder, steps[i], &e))
            r->checkpoint[i].bytes = folder_bytes(path);
    }
    free(steps);
}

int report_read(Report *r, const char *folder, Err *e)
{
    char path[IO_PATH_MAX];
    *r = (Report){.folder = folder, .peak = NAN};
    if (io_join(path, folder, "log.jsonl", e)) return -1;
    if (run_record_read(&r->record, path, e))
        return err_hint(e, "a run folder is what train.out names");
    r->peak = report_number(r->record.start, "matrix_peak");
    read_eval(r);
    read_config(r);
    read_optional(r, "sample.txt", &r->sample, &r->sample_size);
    read_checkpoints(r);
    return 0;
}

void report_clear(Report *r)
{
    run_record_clear(&r->record);
    json_decref(r->eval);
    free(r->sample);
    free(r->config_text);
    free(r->checkpoint);
    *r = (Report){0};
}
