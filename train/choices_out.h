/* train/choices_out.h - scores of multiple-choice questions: text, JSON, one record an example.
 * docs/FORMATS.md says what stands in the JSON. */
#ifndef ISOMOE_TRAIN_CHOICES_OUT_H
#define ISOMOE_TRAIN_CHOICES_OUT_H

#include <jansson.h>
#include <stdio.h>

#include "train/choices.h"

/* Accuracies with standard errors and Wilson's intervals. New reference, or NULL. */
json_t *task_score_json(const Task *t, const TaskScore *s);
void task_score_print(const Task *t, const TaskScore *s, FILE *out);

/* JSON lines of all questions of n tasks, in order; the file is replaced in one move. */
int choices_save(const char *path, const Task *task, const TaskScore *score, int n, Err *e);

#endif
