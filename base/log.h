/* base/log.h - messages for people, on stderr. Records for programs go to files as JSON. */
#ifndef ISOMOE_BASE_LOG_H
#define ISOMOE_BASE_LOG_H

/* One line to stderr: "isomoe: <text>", "isomoe: warning: <text>", "isomoe: error: <text>". */
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Silences log_info (warnings and errors stay). */
void log_set_quiet(int quiet);

/* Wall-clock seconds since an arbitrary start, monotonic. */
double log_seconds(void);

#endif
