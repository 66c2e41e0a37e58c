/* train/tasks.h - multiple-choice questions from a file of JSON lines. docs/FORMATS.md says what a
 * line holds. The file is hostile until read: every mistake is an error that names file and line.
 */
#ifndef ISOMOE_TRAIN_TASKS_H
#define ISOMOE_TRAIN_TASKS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { TASK_CHOICES = 256, TASK_FILE_MAX = 1 << 29 };

typedef struct Text {
    char *text; /* UTF-8, owned */
    size_t size;
} Text;

typedef struct Question {
    int64_t line;   /* in the file, from 1 */
    char *id;       /* its "id" as text, owned; NULL: it has none */
    Text context;   /* may be empty */
    Text delimiter; /* stands between context and choice; may be empty */
    int n_choices;  /* 2 .. TASK_CHOICES */
    Text *choice;   /* (n_choices), none empty */
    int answer;     /* index of the right choice */
} Question;

typedef struct Task {
    const char *path; /* borrowed */
    char name[128];   /* the file's name without folder and .jsonl */
    uint64_t hash;    /* of the file's bytes */
    Question *question; /* (count), in the file's order */
    int64_t count;
} Task;

/* *t is filled from nothing; a file without questions is an error. task_free ends it, always. */
int task_read(Task *t, const char *path, Err *e);
void task_free(Task *t);

#endif
