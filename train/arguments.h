/* train/arguments.h - one command's row against a command line: parsing and help. What is wrong
 * with a command line is found here; train/commands.c says it and leaves with exit code 2. */
#ifndef ISOMOE_TRAIN_ARGUMENTS_H
#define ISOMOE_TRAIN_ARGUMENTS_H

#include <stdio.h>

#include "train/command.h"

/* Options of a row. */
int arguments_options(const CommandRow *row);

/* Parses the count words behind the command's name: "--name value", "--name=value", flags, free
 * words in any order; "--" ends the options. Returns 0, 1 if --help was among them (nothing else is
 * looked at then), or -1 with e filled. The words must outlive *out. */
int arguments_parse(const CommandRow *row, int count, char **words, Arguments *out, Err *e);

/* "isomoe train CONFIG [key=value ...]", the help line and the options. */
void arguments_help(const CommandRow *row, FILE *out);

/* The word of list (count) nearest to `word`, or NULL when nothing is near. Dashes in front are not
 * compared. */
const char *arguments_nearest(const char *const *list, int count, const char *word);

#endif
