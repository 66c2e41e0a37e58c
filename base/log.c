/* base/log.c - see log.h. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

static int log_quiet;

static void log_line(const char *kind, const char *format, va_list args)
{
    char text[4096];
    vsnprintf(text, sizeof text, format, args);
    fprintf(stderr, "isomoe: %s%s\n", kind, text); /* one call, so that lines do not mix */
}

void log_info(const char *format, ...)
{
    if (log_quiet) return;
    va_list args;
    va_start(args, format);
    log_line("", format, args);
    va_end(args);
}

void log_warn(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line("warning: ", format, args);
    va_end(args);
}

void log_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line("error: ", format, args);
    va_end(args);
}

void log_set_quiet(int quiet) { log_quiet = quiet; }

double log_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
