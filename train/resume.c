/* train/resume.c - see resume.h. */
#include "train/resume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Keys that change how long, where and how often, but no loss of a step; micro_batch, threads and
 * device change no more than the order of sums. The data may move: its hash decides. */
static const char *const free_keys[] = {
    "data.train",           "data.val",       "train.out",       "train.steps",
    "train.micro_batch",    "train.device",   "train.threads",   "train.eval_every",
    "train.checkpoint_every", "train.keep_checkpoints", "train.log_every", "train.minutes",
    "train.routing_record", NULL,
};

bool resume_may_change(const char *key)
{
    for (int i = 0; free_keys[i]; i++)
        if (!strcmp(free_keys[i], key)) return true;
    return false;
}

/* One key's value as text, fresh; conf_write of a table of one row ends in "key: value\n". */
static char *value_text(const ConfRow *row, const RunConfig *c)
{
    char *text = conf_write(&(ConfTable){row, 1}, c);
    if (!text) return NULL;
    size_t n = strlen(text);
    if (n) text[n - 1] = 0;
    char *line = strrchr(text, '\n');
    char *value = strstr(line ? line : text, ": ");
    if (value) memmove(text, value + 2, strlen(value + 2) + 1);
    return text;
}

int resume_check(const RunConfig *saved, const RunConfig *now, const char *folder, Err *e)
{
    const ConfTable *table = run_config_table();
    char list[1200] = "", keys[512] = "";
    size_t used = 0, n = 0;
    for (int i = 0; i < table->count && used + 1 < sizeof list; i++) {
        const ConfRow *row = &table->rows[i];
        if (resume_may_change(row->key)) continue;
        char *before = value_text(row, saved), *after = value_text(row, now);
        if (!before || !after)
            used = sizeof list;
        else if (strcmp(before, after))
            used += (size_t)snprintf(list + used, sizeof list - used,
                                     "\n  %s: %s in the checkpoint, %s now", row->key, before,
                                     after);
        free(before);
        free(after);
    }
    if (!used) return 0;
    if (!list[0]) return err_set(e, "%s: out of memory", folder);
    for (int i = 0; free_keys[i]; i++)
        n += (size_t)snprintf(keys + n, sizeof keys - n, "%s%s", i ? ", " : "", free_keys[i]);
    err_set(e, "%s: cannot be resumed with another configuration:%s", folder, list);
    return err_hint(e, "choose another run folder with train.out=...; on a resume only these may "
                       "change: %s", keys);
}
