/* train/checkpoint_folder.c - see checkpoint_folder.h. */
#include "train/checkpoint_folder.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

const char *checkpoint_name(int64_t step, char out[CHECKPOINT_NAME])
{
    snprintf(out, CHECKPOINT_NAME, "step-%09" PRId64, step);
    return out;
}

int64_t checkpoint_name_step(const char *name)
{
    char again[CHECKPOINT_NAME];
    if (strncmp(name, "step-", 5)) return -1;
    size_t n = strspn(name + 5, "0123456789");
    if (n < 9 || n > 18 || name[5 + n]) return -1;
    int64_t step = strtoll(name + 5, NULL, 10);
    return strcmp(checkpoint_name(step, again), name) ? -1 : step;
}

int checkpoint_name_temporary(const char *name)
{
    char copy[CHECKPOINT_NAME];
    const char *dot = strchr(name, '.');
    if (!dot || dot - name >= CHECKPOINT_NAME) return 0;
    if (strncmp(dot, ".tmp.", 5) && strncmp(dot, ".old.", 5)) return 0;
    snprintf(copy, sizeof copy, "%.*s", (int)(dot - name), name);
    const char *pid = dot + 5;
    return checkpoint_name_step(copy) >= 0 && *pid && strspn(pid, "0123456789") == strlen(pid);
}

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

int checkpoint_list(const char *run_folder, int warn, int64_t **steps, int *count, Err *e)
{
    char folder[IO_PATH_MAX], one[IO_PATH_MAX], path[IO_PATH_MAX], **names = NULL;
    int n = 0, rc = -1;
    *steps = NULL;
    *count = 0;
    if (io_join(folder, run_folder, "checkpoints", e)) return -1;
    if (!io_is_dir(folder)) return 0;
    if (io_list_dir(folder, &names, &n, e)) return -1;
    int64_t *list = malloc(((size_t)n + 1) * sizeof *list);
    if (!list) {
        err_set(e, "%s: out of memory", folder);
        goto done;
    }
    for (int i = 0; i < n; i++) {
        int64_t step = checkpoint_name_step(names[i]);
        if (step < 0) continue;
        if (io_join(one, folder, names[i], e) || io_join(path, one, "manifest.json", e)) goto done;
        if (io_exists(path))
            list[(*count)++] = step;
        else if (warn)
            log_warn("%s: has no manifest.json: not a complete checkpoint, passed over", one);
    }
    if (*count) qsort(list, (size_t)*count, sizeof *list, newest_first);
    *steps = list;
    list = NULL;
    rc = 0;
done:
    free(list);
    io_free_names(names, n);
    return rc;
}

int checkpoint_path(char out[IO_PATH_MAX], const char *run_folder, int64_t step, Err *e)
{
    char folder[IO_PATH_MAX], name[CHECKPOINT_NAME];
    if (io_join(folder, run_folder, "checkpoints", e)) return -1;
    return io_join(out, folder, checkpoint_name(step, name), e);
}
