/* train/text_stream.h - bytes that come token by token, written out as whole UTF-8 characters.
 *
 * A token may end inside a character: its bytes wait until the rest comes. Bytes that can become no
 * character are written as U+FFFD. Used by `isomoe generate`.
 */
#ifndef ISOMOE_TRAIN_TEXT_STREAM_H
#define ISOMOE_TRAIN_TEXT_STREAM_H

#include <stddef.h>
#include <stdio.h>

typedef struct TextStream {
    FILE *out;
    char pending[4]; /* the begun character */
    int n_pending;   /* at most 3 between calls */
} TextStream;

void text_stream_write(TextStream *s, const char *bytes, size_t size);

/* No more bytes come: a character that was begun becomes U+FFFD. */
void text_stream_end(TextStream *s);

#endif
