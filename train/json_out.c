/* train/json_out.c - see json_out.h. */
#include "train/json_out.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/utf8.h"
#include "train/command.h"
#include "train/text_stream.h"

enum { INDENT = 2 };

json_t *json_out_real(double value) { return isfinite(value) ? json_real(value) : json_null(); }

json_t *json_out_hash(uint64_t hash)
{
    char hex[HASH_HEX];
    hash_hex(hash, hex);
    return json_string(hex);
}

json_t *json_out_text(const char *text, size_t size)
{
    if (utf8_valid_prefix(text, size) == size) return json_stringn(text, size);
    char *clean = NULL;
    size_t clean_size = 0;
    TextStream stream = {.out = open_memstream(&clean, &clean_size)};
    if (!stream.out) return NULL;
    text_stream_write(&stream, text, size);
    text_stream_end(&stream);
    json_t *string = fclose(stream.out) ? NULL : json_stringn(clean, clean_size);
    free(clean);
    return string;
}

int stdout_finish(Err *e)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return EXIT_DONE;
    err_errno(e, "standard output cannot be written");
    return EXIT_FAILED;
}

int json_out_print(json_t *object, Err *e)
{
    int rc = object ? json_dumpf(object, stdout, JSON_INDENT(INDENT)) : -1;
    if (!object) err_set(e, "out of memory for the answer");
    json_decref(object);
    if (rc && object) err_set(e, "standard output cannot be written");
    if (rc) return EXIT_FAILED;
    putchar('\n');
    return stdout_finish(e);
}

int json_out_save(const char *path, const json_t *object, Err *e)
{
    char *text = object ? json_dumps(object, JSON_INDENT(INDENT)) : NULL;
    if (!text) return err_set(e, "%s: out of memory", path);
    size_t size = strlen(text);
    text[size] = '\n'; /* in place of the terminating zero */
    int rc = io_write_atomic(path, text, size + 1, e);
    free(text);
    return rc;
}
