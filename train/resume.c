/* train/resume.c - see resume.h. */
#include "train/resume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Keys that change how long, where and how often, but no loss of a step; micro_batch, threads and
 * device change no more than the order of sums. The data may move: its hash decides,
 * and for the record that is replayed the number of its run (train/run.c). */
static const char *const free_keys[] = {
    "data.train",           "data.val",       "data.sources[].path",
    "stages[].micro_batch",
    "train.out",            "train.steps",
    "train.micro_batch",    "train.device",   "train.threads",   "train.eval_every",
    "train.deterministic",
    "train.checkpoint_every", "train.keep_checkpoints", "train.log_every", "train.minutes",
    "train.routing_record", "train.routing_replay", NULL,
};

/* For a branch also: its own origin, and how its rate falls. */
static const char *const branch_keys[] = {
    "train.from",         "optim.schedule", "optim.decay_steps", "optim.final_lr_ratio",
    "optim.mid_lr_ratio", NULL,
};

/* Does the key fit "data.sources[].path", where [] is any element? */
static bool fits(const char *pattern, const char *key)
{
    for (; *pattern && *pattern == *key; pattern++, key++)
        if (*key == '[') key += strspn(key + 1, "0123456789");
    return *pattern == *key;
}

bool resume_may_change(const char *key)
{
    for (int i = 0; free_keys[i]; i++)
        if (fits(free_keys[i], key)) return true;
    return false;
}

static bool branch_may_change(const char *key)
{
    for (int i = 0; branch_keys[i]; i++)
        if (!strcmp(branch_keys[i], key)) return true;
    return !strncmp(key, "stages", 6) || resume_may_change(key); /* branch_open compares stages */
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

/* "\n  key: old in the checkpoint, new now" of every other key that differs, into list (n bytes);
 * -1: out of memory. */
static int list_changes(const RunConfig *saved, const RunConfig *now, bool (*may)(const char *key),
                        char *list, size_t n)
{
    const ConfTable *table = run_config_table();
    size_t used = 0;
    int rc = 0;
    list[0] = 0;
    for (int i = 0; i < table->count && used + 1 < n && !rc; i++) {
        const ConfRow *row = &table->rows[i];
        if (may(row->key)) continue;
        char *before = value_text(row, saved), *after = value_text(row, now);
        if (!before || !after)
            rc = -1;
        else if (strcmp(before, after))
            used += (size_t)snprintf(list + used, n - used, "\n  %s: %s in the checkpoint, %s now",
                                     row->key, before, after);
        free(before);
        free(after);
    }
    return rc;
}

/* "a, b, c" behind what is in out (n bytes). */
static void join(const char *const *keys, char *out, size_t n)
{
    size_t used = strlen(out);
    for (int i = 0; keys[i] && used < n; i++)
        used += (size_t)snprintf(out + used, n - used, "%s%s", used ? ", " : "", keys[i]);
}

int resume_check(const RunConfig *saved, const RunConfig *now, const char *folder, Err *e)
{
    char list[1200], keys[512] = "";
    if (list_changes(saved, now, resume_may_change, list, sizeof list))
        return err_set(e, "%s: out of memory", folder);
    if (!list[0]) return 0;
    join(free_keys, keys, sizeof keys);
    err_set(e, "%s: cannot be resumed with another configuration:%s", folder, list);
    return err_hint(e, "the configuration that it goes on with is %s/config.yaml; for another, "
                       "choose another run folder with train.out=...; on a resume only these may "
                       "change: %s", folder, keys);
}

int resume_check_branch(const RunConfig *saved, const RunConfig *now, const char *folder, Err *e)
{
    char list[1200], keys[512] = "";
    if (list_changes(saved, now, branch_may_change, list, sizeof list))
        return err_set(e, "%s: out of memory", folder);
    if (!list[0]) return 0;
    join(branch_keys + 1, keys, sizeof keys);
    join(free_keys, keys, sizeof keys);
    err_set(e, "%s: cannot be branched from with another configuration:%s", folder, list);
    return err_hint(e, "a branch may change only these: %s", keys);
}
