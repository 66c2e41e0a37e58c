/* train/html_text.c - hostile text made safe for a page; see svg.h. */
#include <string.h>

#include "base/utf8.h"
#include "train/svg.h"

/* What stands for the byte c in HTML; NULL: itself. */
static const char *replacement(unsigned char c)
{
    switch (c) {
    case '&': return "&amp;";
    case '<': return "&lt;";
    case '>': return "&gt;";
    case '"': return "&quot;";
    case '\'': return "&#39;";
    case '\n':
    case '\t': return NULL;
    default: return c < 0x20 || c == 0x7F ? "\xEF\xBF\xBD" : NULL;
    }
}

void html_text(FILE *out, const char *text, size_t size)
{
    while (size) {
        size_t good = utf8_valid_prefix(text, size);
        for (size_t i = 0; i < good; i++) {
            const char *other = replacement((unsigned char)text[i]);
            if (other)
                fputs(other, out);
            else
                fputc(text[i], out);
        }
        if (good < size) {
            fputs("\xEF\xBF\xBD", out);
            good++;
        }
        text += good;
        size -= good;
    }
}

void html_string(FILE *out, const char *text)
{
    if (text) html_text(out, text, strlen(text));
}
