/* train/text_stream.c - see text_stream.h. */
#include "train/text_stream.h"

#include <string.h>

#include "base/utf8.h"

static const char replacement[] = "\xEF\xBF\xBD";

/* Whether some continuation makes these n bytes one character. The bytes after the second are free
 * in 80..BF; the second is bounded below by some first bytes, above by others, never by both. */
static int can_become(const char *bytes, int n)
{
    unsigned char first = (unsigned char)bytes[0];
    int length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 0;
    if (n >= length) return 0;
    for (int end = 0; end < 2; end++) {
        char whole[4];
        memset(whole, end ? 0xBF : 0x80, sizeof whole);
        memcpy(whole, bytes, (size_t)n);
        if (utf8_valid_prefix(whole, (size_t)length) == (size_t)length) return 1;
    }
    return 0;
}

void text_stream_write(TextStream *s, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        s->pending[s->n_pending++] = bytes[i];
        while (s->n_pending) {
            size_t whole = utf8_valid_prefix(s->pending, (size_t)s->n_pending);
            if (whole) {
                fwrite(s->pending, 1, whole, s->out);
                s->n_pending = 0;
            } else if (can_become(s->pending, s->n_pending)) {
                break;
            } else {
                /* One mark for the broken start; the newest byte may begin a character itself. */
                fputs(replacement, s->out);
                int keep = s->n_pending > 1;
                s->pending[0] = s->pending[s->n_pending - 1];
                s->n_pending = keep;
            }
        }
    }
}

void text_stream_end(TextStream *s)
{
    if (s->n_pending) fputs(replacement, s->out);
    s->n_pending = 0;
}
