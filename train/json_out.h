/* train/json_out.h - the little that Jansson does not do for the commands: numbers that may not be
 * finite, hashes, answers on stdout, files that are replaced in one move. */
#ifndef ISOMOE_TRAIN_JSON_OUT_H
#define ISOMOE_TRAIN_JSON_OUT_H

#include <jansson.h>
#include <stdint.h>

#include "base/err.h"

/* A real number, or null where JSON has none (NaN, infinity). New reference. */
json_t *json_out_real(double value);

/* 16 hex digits. New reference. */
json_t *json_out_hash(uint64_t hash);

/* Text that may not be UTF-8: what is wrong in it becomes U+FFFD. New reference. */
json_t *json_out_text(const char *text, size_t size);

/* Prints `object` (taken; NULL: out of memory) and a newline to stdout; returns an ExitCode. */
int json_out_print(json_t *object, Err *e);

/* Writes `object` (borrowed) to a file, atomically. */
int json_out_save(const char *path, const json_t *object, Err *e);

/* Flushes stdout: EXIT_DONE, or EXIT_FAILED when what was printed could not be written. */
int stdout_finish(Err *e);

#endif
