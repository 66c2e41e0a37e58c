/* base/utf8.h - UTF-8 as RFC 3629 defines it: no overlong forms, no surrogates, nothing above
 * U+10FFFF. Zero bytes, control characters and noncharacters are valid text. */
#ifndef ISOMOE_BASE_UTF8_H
#define ISOMOE_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

enum { UTF8_CODES = 0x110000 }; /* code points; the surrogates among them never occur */

/* Bytes of the longest valid prefix: `size` when all of the text is valid UTF-8. */
size_t utf8_valid_prefix(const char *text, size_t size);

/* Decodes the first character of valid, not empty UTF-8; returns its bytes, 1 to 4. */
int utf8_decode(const char *text, uint32_t *code);

/* Writes a code point (no surrogate, < UTF8_CODES); returns its bytes, 1 to 4. */
int utf8_encode(uint32_t code, char out[4]);

/* The largest character boundary <= at, for valid UTF-8 of more than `at` bytes. */
size_t utf8_boundary(const char *text, size_t at);

#endif
