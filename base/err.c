/* base/err.c - see err.h. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int err_set(Err *e, const char *format, ...)
{
    if (!e) return -1;
    va_list args;
    va_start(args, format);
    vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
    e->set = 1;
    return -1;
}

int err_hint(Err *e, const char *format, ...)
{
    if (!e || !e->set) return -1;
    size_t used = strlen(e->message);
    int n = snprintf(e->message + used, sizeof e->message - used, "\nhint: ");
    if (n < 0 || (size_t)n >= sizeof e->message - used) return -1;
    used += (size_t)n;
    va_list args;
    va_start(args, format);
    vsnprintf(e->message + used, sizeof e->message - used, format, args);
    va_end(args);
    return -1;
}

int err_context(Err *e, const char *format, ...)
{
    if (!e || !e->set) return -1;
    char old[ERR_MESSAGE_MAX];
    memcpy(old, e->message, sizeof old);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof e->message - 2) return -1;
    size_t room = sizeof e->message - (size_t)n - 3, length = strnlen(old, room);
    memcpy(e->message + n, ": ", 2);
    memcpy(e->message + n + 2, old, length);
    e->message[(size_t)n + 2 + length] = 0;
    return -1;
}

int err_errno(Err *e, const char *format, ...)
{
    int number = errno;
    if (!e) return -1;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
    e->set = 1;
    if (n < 0 || (size_t)n >= sizeof e->message) return -1;
    snprintf(e->message + n, sizeof e->message - (size_t)n, ": %s", strerror(number));
    return -1;
}

void check_failed(const char *file, int line, const char *expression, const char *format, ...)
{
    fflush(stdout);
    fprintf(stderr, "isomoe: %s:%d: CHECK(%s) failed: ", file, line, expression);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}
