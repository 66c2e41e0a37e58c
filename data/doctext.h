/* data/doctext.h - a document as the filters see it: characters, words and lines.
 *
 * A word is a run of characters that are not white space; a Han, kana or Thai character, whose
 * scripts put no space between words, is a word by itself. Lines end at '\n'; white space at both
 * ends of a line does not count, and a line of nothing else is none.
 */
#ifndef ISOMOE_DATA_DOCTEXT_H
#define ISOMOE_DATA_DOCTEXT_H

#include <stddef.h>

#include "base/err.h"
#include "data/unicode.h"

/* A word or a line. */
typedef struct DocPart {
    uint64_t hash;  /* of its bytes */
    uint32_t chars; /* code points */
} DocPart;

typedef struct DocParts {
    DocPart *part; /* (count) */
    int64_t count, capacity;
    int64_t chars; /* of all parts */
} DocParts;

/* Starts as {0} and is used for one document after the other, by one thread at a time. Its memory
 * is that of the largest document so far, about 20 bytes a word. */
typedef struct DocText {
    int64_t bytes, chars;
    int64_t class_chars[U_CLASSES]; /* characters of each UnicodeClass */
    uint64_t hash; /* of the text, with every run of white space read as one space */
    DocParts words, lines;
    int64_t bullets;  /* lines that begin with one of - * and the usual bullets */
    int64_t ellipses; /* lines that end with "..." or U+2026 */
    struct DocCount *table; /* used by data/repeat.c */
    int64_t table_size;
} DocText;

/* Reads size bytes of valid UTF-8. */
int doctext_read(DocText *t, const char *text, size_t size, Err *e);

void doctext_free(DocText *t);

#endif
