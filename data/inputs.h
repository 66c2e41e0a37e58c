/* data/inputs.h - from the names on a command line to a list of files to read. */
#ifndef ISOMOE_DATA_INPUTS_H
#define ISOMOE_DATA_INPUTS_H

#include "base/err.h"
#include "data/stream.h"

typedef enum InputKind { INPUT_TEXT, INPUT_JSONL } InputKind;

typedef struct InputFile {
    char *path; /* owned; "-" is standard input */
    InputKind kind;
    StreamKind packing;
} InputFile;

typedef struct InputList {
    InputFile *file; /* (count) in reading order */
    int count, capacity;
    int ignored; /* files in folders with a suffix that is not known, or a name with a dot first */
} InputList;

/* Folders are walked recursively, names sorted bytewise; of the files in them those that end in
 * .txt or .jsonl, or these with .gz or .zst, are taken. A file that is named itself is taken
 * whatever its name: as text, if it is not known. Nothing to read is an error. */
int inputs_expand(const char *const *names, int n, InputList *out, Err *e);

void inputs_free(InputList *list);

#endif
