/* base/h5.c - see h5.h. */
#include "base/h5.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

void h5_lock(void)
{
    pthread_mutex_lock(&mutex);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* per thread in a thread-safe library */
}

void h5_unlock(void) { pthread_mutex_unlock(&mutex); }

hid_t h5_access(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access >= 0 && H5Pset_file_locking(access, 0, 1) < 0) {
        H5Pclose(access);
        return -1;
    }
    return access;
}

/* The record with number 0 of an upward walk is where the error began. */
static herr_t take_first(unsigned n, const H5E_error2_t *record, void *out)
{
    if (n == 0 && record->desc) snprintf(out, 256, "%s", record->desc);
    return 0;
}

int h5_fail(Err *e, const char *path, const char *format, ...)
{
    char what[512], why[256] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, why);
    H5Eclear2(H5E_DEFAULT);
    if (!*why) return err_set(e, "%s: %s", path, what);
    return err_set(e, "%s: %s (HDF5: %s)", path, what, why);
}

static int put(hid_t object, const char *name, hid_t type, const void *value, const char *path,
               Err *e)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    int rc = attribute < 0 || H5Awrite(attribute, type, value) < 0
                 ? h5_fail(e, path, "attribute \"%s\" cannot be written", name)
                 : 0;
    if (attribute >= 0) H5Aclose(attribute);
    if (space >= 0) H5Sclose(space);
    return rc;
}

/* Integers are handed over in the file's byte order, little-endian. */
static void to_little(uint64_t value, unsigned char out[8])
{
    for (int i = 0; i < 8; i++) out[i] = (unsigned char)(value >> (8 * i));
}

int h5_put_i64(hid_t object, const char *name, int64_t value, const char *path, Err *e)
{
    unsigned char bytes[8];
    to_little((uint64_t)value, bytes);
    return put(object, name, H5T_STD_I64LE, bytes, path, e);
}

int h5_put_u64(hid_t object, const char *name, uint64_t value, const char *path, Err *e)
{
    unsigned char bytes[8];
    to_little(value, bytes);
    return put(object, name, H5T_STD_U64LE, bytes, path, e);
}

int h5_put_text(hid_t object, const char *name, const char *value, const char *path, Err *e)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    int rc = type < 0 || H5Tset_size(type, strlen(value) + 1) < 0 ||
                     H5Tset_cset(type, H5T_CSET_UTF8) < 0
                 ? h5_fail(e, path, "attribute \"%s\" cannot be written", name)
                 : put(object, name, type, value, path, e);
    if (type >= 0) H5Tclose(type);
    return rc;
}

/* Opens an attribute that must be a scalar of this class and at most max_size bytes. */
static hid_t open_scalar(hid_t object, const char *name, H5T_class_t class, size_t max_size)
{
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    if (attribute < 0) return -1;
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    int good = type >= 0 && space >= 0 && H5Tget_class(type) == class &&
               H5Tget_size(type) > 0 && H5Tget_size(type) <= max_size &&
               H5Sget_simple_extent_type(space) == H5S_SCALAR;
    if (good && class == H5T_STRING) good = H5Tis_variable_str(type) == 0;
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    if (good) return attribute;
    H5Aclose(attribute);
    return -1;
}

static int get_integer(hid_t object, const char *name, hid_t memory_type, void *value,
                       const char *path, Err *e)
{
    hid_t attribute = open_scalar(object, name, H5T_INTEGER, 8);
    int rc = attribute < 0 || H5Aread(attribute, memory_type, value) < 0
                 ? h5_fail(e, path, "integer attribute \"%s\" cannot be read", name)
                 : 0;
    if (attribute >= 0) H5Aclose(attribute);
    return rc;
}

int h5_get_i64(hid_t object, const char *name, int64_t *value, const char *path, Err *e)
{
    return get_integer(object, name, H5T_NATIVE_INT64, value, path, e);
}

int h5_get_u64(hid_t object, const char *name, uint64_t *value, const char *path, Err *e)
{
    return get_integer(object, name, H5T_NATIVE_UINT64, value, path, e);
}

int h5_get_text(hid_t object, const char *name, char *value, size_t size, const char *path, Err *e)
{
    hid_t attribute = open_scalar(object, name, H5T_STRING, size), type = -1;
    int rc = -1;
    if (attribute >= 0) type = H5Aget_type(attribute);
    if (type >= 0 && H5Aread(attribute, type, value) >= 0) rc = 0;
    if (rc) h5_fail(e, path, "text attribute \"%s\" cannot be read", name);
    else if (!memchr(value, 0, H5Tget_size(type)))
        rc = err_set(e, "%s: text attribute \"%s\" has no end", path, name);
    if (type >= 0) H5Tclose(type);
    if (attribute >= 0) H5Aclose(attribute);
    return rc;
}
