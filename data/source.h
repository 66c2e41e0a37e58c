/* data/source.h - documents of text, one after the other, out of a list of input files.
 *
 * Text: a file is one document. One larger than SOURCE_TEXT_MAX bytes (unpacked) is cut into
 * documents of at most that many bytes: after the last blank line in the second half of the limit,
 * else after the last newline there, else at a character. Put together the documents are the file,
 * byte for byte; nothing else (form feeds, headings) cuts.
 * JSON lines: every line is an object whose member `text_key` is a string, the document. Lines of
 * nothing but white space are passed over.
 */
#ifndef ISOMOE_DATA_SOURCE_H
#define ISOMOE_DATA_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "data/inputs.h"

enum { SOURCE_TEXT_MAX = 1 << 20, SOURCE_LINE_MAX = 1 << 28 };

/* Valid UTF-8, at least one byte; zero bytes are possible. Valid until the next call. */
typedef struct Document {
    const char *text;
    size_t size;
} Document;

/* What to do with a bad document: fail, or count it and go on, with or without a warning. */
typedef enum BadPolicy { BAD_FAILS, BAD_WARNS, BAD_QUIET } BadPolicy;

typedef struct Source Source;

/* Reads the files of the list (borrowed) in order. text_key (borrowed): NULL is "text". NULL on
 * error. */
Source *source_open(const InputList *list, const char *text_key, BadPolicy policy, Err *e);
void source_close(Source **source);

/* 1: *out is the next document; 0: no more; -1: error, naming file and position.
 * A document is bad if it is empty, not UTF-8, no JSON object with the member, or in a packed file
 * that is corrupt or cut short from there on. */
int source_next(Source *source, Document *out, Err *e);

int64_t source_skipped(const Source *source); /* bad documents passed over so far */

/* The file, by its place in the list, of the document handed out last. */
int source_file(const Source *source);

#endif
