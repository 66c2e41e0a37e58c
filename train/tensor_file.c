/* train/tensor_file.c - see tensor_file.h. */
#include "train/tensor_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/h5.h"

/* How a type is stored. A function: these HDF5 names are variables. */
static hid_t stored_type(DType type)
{
    switch (type) {
    case DT_F32: return H5T_IEEE_F32LE;
    case DT_BF16: return H5T_STD_U16LE;
    case DT_I32: return H5T_STD_I32LE;
    case DT_F64: return H5T_IEEE_F64LE;
    default: return -1;
    }
}

/* HDF5 1.10 ends in a crash at exit when a file could not be closed for lack of space. Everything
 * here closes its files, so nothing is left for it to do at exit. Must come before any other HDF5
 * call. */
__attribute__((constructor)) static void no_work_at_exit(void) { H5dont_atexit(); }

/* ---- Writing ----------------------------------------------------------------------------------*/

static int put_list(hid_t object, const char *name, const int64_t *value, int n, const char *path,
                    Err *e)
{
    hsize_t size = (hsize_t)n;
    hid_t space = H5Screate_simple(1, &size, NULL);
    hid_t attribute = H5Acreate2(object, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    int rc = attribute < 0 || H5Awrite(attribute, H5T_NATIVE_INT64, value) < 0
                 ? h5_fail(e, path, "attribute \"%s\" cannot be written", name)
                 : 0;
    if (attribute >= 0) H5Aclose(attribute);
    if (space >= 0) H5Sclose(space);
    return rc;
}

static int create_tensor(hid_t file, hid_t plist, TensorSlot *slot, const char *path, Err *e)
{
    static const int64_t origin[TENSOR_MAX_DIM];
    const Tensor *t = &slot->tensor;
    char name[TENSOR_PATH];
    hsize_t dim[TENSOR_MAX_DIM];
    int rc = -1;
    for (int i = 0; i < t->n_dim; i++) dim[i] = (hsize_t)t->dim[i];
    hid_t space = H5Screate_simple(t->n_dim, dim, NULL);
    hid_t set = H5Dcreate2(file, tensor_slot_name(slot, name), stored_type(t->type), space,
                           H5P_DEFAULT, plist, H5P_DEFAULT);
    haddr_t at = set < 0 ? HADDR_UNDEF : H5Dget_offset(set);
    if (at == HADDR_UNDEF) {
        h5_fail(e, path, "tensor %s cannot be created", name);
        goto done;
    }
    slot->at = (int64_t)at;
    if (put_list(set, "global_shape", t->dim, t->n_dim, path, e)) goto done;
    if (put_list(set, "global_offset", origin, t->n_dim, path, e)) goto done;
    if (h5_put_u64(set, "xxh3", 0, path, e)) goto done;
    rc = 0;
done:
    if (set >= 0) H5Dclose(set);
    if (space >= 0) H5Sclose(space);
    return rc;
}

static int create_groups(hid_t file, const TensorSlots *slots, const char *path, Err *e)
{
    for (int i = 0; i < slots->count; i += tensor_slots_group(slots, i)) {
        hid_t group = H5Gcreate2(file, slots->slot[i].group, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        if (group < 0) return h5_fail(e, path, "group cannot be created");
        H5Gclose(group);
    }
    return 0;
}

int tensor_file_create(const char *path, TensorSlots *slots, Err *e)
{
    int rc = -1;
    h5_lock();
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE); /* space at once, no fill, the same bytes always */
    H5Pset_layout(plist, H5D_CONTIGUOUS);
    H5Pset_alloc_time(plist, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(plist, H5D_FILL_TIME_NEVER);
    H5Pset_obj_track_times(plist, 0);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (file < 0) {
        h5_fail(e, path, "cannot be created");
        goto done;
    }
    if (create_groups(file, slots, path, e)) goto done;
    for (int i = 0; i < slots->count; i++)
        if (create_tensor(file, plist, &slots->slot[i], path, e)) goto done;
    rc = 0;
done:
    if (file >= 0 && H5Fclose(file) < 0 && !rc) rc = h5_fail(e, path, "cannot be written");
    if (plist >= 0) H5Pclose(plist);
    h5_unlock();
    return rc;
}

static int seal_tensor(hid_t file, const TensorSlot *slot, const char *path, Err *e)
{
    char name[TENSOR_PATH];
    hid_t set = H5Dopen2(file, tensor_slot_name(slot, name), H5P_DEFAULT);
    hid_t attribute = set < 0 ? -1 : H5Aopen(set, "xxh3", H5P_DEFAULT);
    int rc = attribute < 0 || H5Awrite(attribute, H5T_NATIVE_UINT64, &slot->hash) < 0
                 ? h5_fail(e, path, "checksum of %s cannot be written", name)
                 : 0;
    if (attribute >= 0) H5Aclose(attribute);
    if (set >= 0) H5Dclose(set);
    return rc;
}

int tensor_file_seal(const char *path, const TensorSlots *slots, Err *e)
{
    int rc = 0;
    h5_lock();
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    if (file < 0) rc = h5_fail(e, path, "cannot be opened again");
    for (int i = 0; i < slots->count && !rc; i++)
        rc = seal_tensor(file, &slots->slot[i], path, e);
    if (file >= 0 && H5Fclose(file) < 0 && !rc) rc = h5_fail(e, path, "cannot be written");
    h5_unlock();
    return rc;
}

/* ---- Reading ----------------------------------------------------------------------------------*/

/* Is `name` an ordinary link (a soft or external one could lead into another file)? */
static bool is_hard_link(hid_t file, const char *name)
{
    H5L_info_t info;
    return H5Lexists(file, name, H5P_DEFAULT) > 0 &&
           H5Lget_info(file, name, &info, H5P_DEFAULT) >= 0 && info.type == H5L_TYPE_HARD;
}

/* A group exists and has as many tensors as the list, so none is left unread; only a part of the
 * model's state may be wanted. */
static int check_group(hid_t file, const TensorSlots *slots, int first, const char *path, Err *e)
{
    const char *name = slots->slot[first].group;
    int want = tensor_slots_group(slots, first);
    H5G_info_t info;
    if (!is_hard_link(file, name)) return err_set(e, "%s: has no group %s", path, name);
    hid_t group = H5Gopen2(file, name, H5P_DEFAULT);
    bool good = group >= 0 && H5Gget_info(group, &info) >= 0;
    if (!good) h5_fail(e, path, "group %s cannot be listed", name);
    if (group >= 0) H5Gclose(group);
    if (!good) return -1;
    bool some = !slots->whole && !strcmp(name, "model");
    if (info.nlinks == (hsize_t)want || (some && info.nlinks > (hsize_t)want)) return 0;
    return err_set(e, "%s: group %s has %llu tensors, the model has %d", path, name,
                   (unsigned long long)info.nlinks, want);
}

static int check_groups(hid_t file, const TensorSlots *slots, const char *path, Err *e)
{
    H5G_info_t info;
    int groups = 0;
    if (H5Gget_info(file, &info) < 0) return h5_fail(e, path, "cannot be listed");
    for (int i = 0; i < slots->count; i += tensor_slots_group(slots, i), groups++)
        if (check_group(file, slots, i, path, e)) return -1;
    if (!slots->whole || info.nlinks == (hsize_t)groups) return 0;
    return err_set(e, "%s: has %llu groups, expected %d", path, (unsigned long long)info.nlinks,
                   groups);
}

static bool list_equals(hid_t set, const char *name, const int64_t *want, int n)
{
    int64_t value[TENSOR_MAX_DIM];
    hid_t attribute = H5Aopen(set, name, H5P_DEFAULT);
    if (attribute < 0) return false;
    hid_t space = H5Aget_space(attribute), type = H5Aget_type(attribute);
    bool good = H5Sget_simple_extent_ndims(space) == 1 &&
                H5Sget_simple_extent_npoints(space) == n && H5Tget_class(type) == H5T_INTEGER &&
                H5Aread(attribute, H5T_NATIVE_INT64, value) >= 0;
    H5Tclose(type);
    H5Sclose(space);
    H5Aclose(attribute);
    return good && !memcmp(value, want, (size_t)n * sizeof *value);
}

static bool has_shape(hid_t set, const Tensor *t)
{
    hsize_t dim[H5S_MAX_RANK];
    hid_t space = H5Dget_space(set);
    bool good = H5Sget_simple_extent_ndims(space) == t->n_dim &&
                H5Sget_simple_extent_dims(space, dim, NULL) >= 0;
    H5Sclose(space);
    for (int i = 0; good && i < t->n_dim; i++) good = dim[i] == (hsize_t)t->dim[i];
    return good;
}

/* Plain little-endian numbers of this type, in this file, in one piece? */
static bool is_plain(hid_t set, DType want)
{
    hid_t type = H5Dget_type(set), plist = H5Dget_create_plist(set);
    bool good = H5Tequal(type, stored_type(want)) > 0 && H5Pget_layout(plist) == H5D_CONTIGUOUS &&
                H5Pget_external_count(plist) == 0;
    H5Pclose(plist);
    H5Tclose(type);
    return good;
}

static int inspect_open(hid_t set, TensorSlot *slot, int64_t file_bytes, const char *path, Err *e)
{
    static const int64_t origin[TENSOR_MAX_DIM];
    const Tensor *t = &slot->tensor;
    char name[TENSOR_PATH];
    tensor_slot_name(slot, name);
    if (!has_shape(set, t) || !list_equals(set, "global_shape", t->dim, t->n_dim) ||
        !list_equals(set, "global_offset", origin, t->n_dim))
        return err_set(e, "%s: tensor %s has not the model's shape", path, name);
    if (!is_plain(set, t->type))
        return err_set(e, "%s: tensor %s is not stored as contiguous %s", path, name,
                       dtype_name(t->type));
    haddr_t at = H5Dget_offset(set);
    if (at == HADDR_UNDEF || at > (haddr_t)file_bytes ||
        tensor_bytes(*t) > file_bytes - (int64_t)at)
        return err_set(e, "%s: tensor %s lies outside the file", path, name);
    slot->at = (int64_t)at;
    return h5_get_u64(set, "xxh3", &slot->hash, path, e);
}

static int inspect_tensor(hid_t file, TensorSlot *slot, int64_t file_bytes, const char *path,
                          Err *e)
{
    char name[TENSOR_PATH];
    if (!is_hard_link(file, tensor_slot_name(slot, name)))
        return err_set(e, "%s: has no tensor %s", path, name);
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    if (set < 0) return h5_fail(e, path, "tensor %s cannot be opened", name);
    int rc = inspect_open(set, slot, file_bytes, path, e);
    H5Dclose(set);
    return rc;
}

int tensor_file_inspect(const char *path, TensorSlots *slots, Err *e)
{
    struct stat info;
    if (stat(path, &info)) return err_errno(e, "%s: cannot be opened", path);
    h5_lock();
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    int rc = file < 0 ? h5_fail(e, path, "cannot be opened")
                      : check_groups(file, slots, path, e);
    for (int i = 0; i < slots->count && !rc; i++)
        rc = inspect_tensor(file, &slots->slot[i], info.st_size, path, e);
    if (file >= 0) H5Fclose(file);
    h5_unlock();
    return rc;
}
