/* train/choices_out.c - scores of multiple-choice questions: text, JSON, one record an example. */
#include "train/choices_out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "train/interval.h"
#include "train/json_out.h"

json_t *task_score_json(const Task *t, const TaskScore *s)
{
    json_t *out = json_pack("{s:o, s:o, s:o, s:I, s:o, s:I, s:I}", "name",
                            json_out_text(t->name, strlen(t->name)), "file",
                            json_out_text(t->path, strlen(t->path)), "hash",
                            json_out_hash(t->hash), "n", (json_int_t)s->count, "random",
                            json_out_real(s->random), "cut", (json_int_t)s->cut, "spanned",
                            (json_int_t)s->spanned);
    for (int rule = 0; rule < CHOICE_RULES; rule++) {
        int64_t right = s->right[rule];
        Interval i = interval_wilson(right, s->count);
        json_t *value = json_pack(
            "{s:o, s:o, s:o, s:o}", "value", json_out_real((double)right / (double)s->count),
            "error", json_out_real(interval_share_error(right, s->count)), "low",
            json_out_real(i.low), "high", json_out_real(i.high));
        json_object_set_new(out, choice_rule_names[rule], value);
    }
    return out;
}

void task_score_print(const Task *t, const TaskScore *s, FILE *out)
{
    static const char *const titles[CHOICE_RULES] = {"accuracy", "per byte", "per token"};
    fprintf(out, "%s: %lld questions, %.3f right by guessing", t->name, (long long)s->count,
            s->random);
    if (s->cut) fprintf(out, "; %lld contexts cut", (long long)s->cut);
    if (s->spanned) fprintf(out, "; %lld with a token across the border", (long long)s->spanned);
    fputc('\n', out);
    for (int rule = 0; rule < CHOICE_RULES; rule++) {
        Interval i = interval_wilson(s->right[rule], s->count);
        fprintf(out, "  %-16s %.4f, 95%% %.4f to %.4f\n", titles[rule],
                (double)s->right[rule] / (double)s->count, i.low, i.high);
    }
}

static json_t *example_json(const Task *t, const Question *q, const QuestionScore *s)
{
    json_t *choices = json_array(), *best = json_object();
    for (int i = 0; i < q->n_choices; i++)
        json_array_append_new(choices, json_pack("{s:o, s:I, s:I}", "logp",
                                                 json_out_real(s->choice[i].logp), "tokens",
                                                 (json_int_t)s->choice[i].tokens, "bytes",
                                                 (json_int_t)s->choice[i].bytes));
    for (int rule = 0; rule < CHOICE_RULES; rule++)
        json_object_set_new(best, choice_rule_names[rule], json_integer(s->best[rule]));
    return json_pack("{s:o, s:I, s:o, s:i, s:o, s:I, s:I, s:I, s:o}", "task",
                     json_out_text(t->name, strlen(t->name)), "line", (json_int_t)q->line, "id",
                     q->id ? json_out_text(q->id, strlen(q->id)) : json_null(), "answer",
                     q->answer, "best", best, "context_tokens", (json_int_t)s->context_tokens,
                     "cut_tokens", (json_int_t)s->cut_tokens, "border_bytes",
                     (json_int_t)s->border_bytes, "choices", choices);
}

static int write_records(FILE *out, const Task *task, const TaskScore *score, int n)
{
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < task[i].count; k++) {
            json_t *record = example_json(&task[i], &task[i].question[k], &score[i].question[k]);
            int rc = record ? json_dumpf(record, out, JSON_COMPACT | JSON_REAL_PRECISION(17)) : -1;
            json_decref(record);
            if (rc || fputc('\n', out) == EOF) return -1;
        }
    return 0;
}

int choices_save(const char *path, const Task *task, const TaskScore *score, int n, Err *e)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    int rc = out ? write_records(out, task, score, n) : -1;
    if (out && fclose(out)) rc = -1;
    if (rc) err_set(e, "%s: out of memory for the records", path);
    else rc = io_write_atomic(path, text, size, e);
    free(text);
    return rc;
}
