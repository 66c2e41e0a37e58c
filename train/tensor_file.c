/* train/tensor_file.c - see tensor_file.h. */
#include "train/tensor_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/h5.h"

const char *const tensor_groups[TENSOR_GROUPS] = {"master", "m", "v"};

TensorSlot *tensor_slots(const ParamTable *table, int *count)
{
    TensorSlot *slot = calloc((size_t)table->count * TENSOR_GROUPS + 1, sizeof *slot);
    *count = table->count * TENSOR_GROUPS;
    for (int i = 0; slot && i < *count; i++) {
        slot[i].group = tensor_groups[i / table->count];
        slot[i].row = &table->row[i % table->count];
    }
    return slot;
}

const char *tensor_slot_name(const TensorSlot *slot, char out[TENSOR_PATH])
{
    snprintf(out, TENSOR_PATH, "%s/%s", slot->group, slot->row->name);
    return out;
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
    const ParamRow *row = slot->row;
    char name[TENSOR_PATH];
    hsize_t dim[TENSOR_MAX_DIM];
    int rc = -1;
    for (int i = 0; i < row->n_dim; i++) dim[i] = (hsize_t)row->dim[i];
    hid_t space = H5Screate_simple(row->n_dim, dim, NULL);
    hid_t set = H5Dcreate2(file, tensor_slot_name(slot, name), H5T_IEEE_F32LE, space, H5P_DEFAULT,
                           plist, H5P_DEFAULT);
    haddr_t at = set < 0 ? HADDR_UNDEF : H5Dget_offset(set);
    if (at == HADDR_UNDEF) {
        h5_fail(e, path, "tensor %s cannot be created", name);
        goto done;
    }
    slot->at = (int64_t)at;
    if (put_list(set, "global_shape", row->dim, row->n_dim, path, e)) goto done;
    if (put_list(set, "global_offset", origin, row->n_dim, path, e)) goto done;
    if (h5_put_u64(set, "xxh3", 0, path, e)) goto done;
    rc = 0;
done:
    if (set >= 0) H5Dclose(set);
    if (space >= 0) H5Sclose(space);
    return rc;
}

static int create_groups(hid_t file, const char *path, Err *e)
{
    for (int i = 0; i < TENSOR_GROUPS; i++) {
        hid_t group = H5Gcreate2(file, tensor_groups[i], H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        if (group < 0) return h5_fail(e, path, "group cannot be created");
        H5Gclose(group);
    }
    return 0;
}

int tensor_file_create(const char *path, TensorSlot *slot, int count, Err *e)
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
    if (create_groups(file, path, e)) goto done;
    for (int i = 0; i < count; i++)
        if (create_tensor(file, plist, &slot[i], path, e)) goto done;
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

int tensor_file_seal(const char *path, const TensorSlot *slot, int count, Err *e)
{
    int rc = 0;
    h5_lock();
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    if (file < 0) rc = h5_fail(e, path, "cannot be opened again");
    for (int i = 0; i < count && !rc; i++) rc = seal_tensor(file, &slot[i], path, e);
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

/* Each group exists and has as many tensors as the model, so none is left unread. */
static int check_groups(hid_t file, int per_group, const char *path, Err *e)
{
    H5G_info_t info;
    if (H5Gget_info(file, &info) < 0) return h5_fail(e, path, "cannot be listed");
    if (info.nlinks != TENSOR_GROUPS)
        return err_set(e, "%s: has %llu groups, expected %d (master, m, v)", path,
                       (unsigned long long)info.nlinks, TENSOR_GROUPS);
    for (int i = 0; i < TENSOR_GROUPS; i++) {
        if (!is_hard_link(file, tensor_groups[i]))
            return err_set(e, "%s: has no group %s", path, tensor_groups[i]);
        hid_t group = H5Gopen2(file, tensor_groups[i], H5P_DEFAULT);
        bool good = group >= 0 && H5Gget_info(group, &info) >= 0;
        if (!good) h5_fail(e, path, "group %s cannot be listed", tensor_groups[i]);
        if (group >= 0) H5Gclose(group);
        if (!good) return -1;
        if (info.nlinks != (hsize_t)per_group)
            return err_set(e, "%s: group %s has %llu tensors, the model has %d", path,
                           tensor_groups[i], (unsigned long long)info.nlinks, per_group);
    }
    return 0;
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

static bool has_shape(hid_t set, const ParamRow *row)
{
    hsize_t dim[H5S_MAX_RANK];
    hid_t space = H5Dget_space(set);
    bool good = H5Sget_simple_extent_ndims(space) == row->n_dim &&
                H5Sget_simple_extent_dims(space, dim, NULL) >= 0;
    H5Sclose(space);
    for (int i = 0; good && i < row->n_dim; i++) good = dim[i] == (hsize_t)row->dim[i];
    return good;
}

/* Plain little-endian f32, in this file, in one piece? */
static bool is_plain_f32(hid_t set)
{
    hid_t type = H5Dget_type(set), plist = H5Dget_create_plist(set);
    bool good = H5Tequal(type, H5T_IEEE_F32LE) > 0 && H5Pget_layout(plist) == H5D_CONTIGUOUS &&
                H5Pget_external_count(plist) == 0;
    H5Pclose(plist);
    H5Tclose(type);
    return good;
}

static int inspect_open(hid_t set, TensorSlot *slot, int64_t file_bytes, const char *path, Err *e)
{
    static const int64_t origin[TENSOR_MAX_DIM];
    const ParamRow *row = slot->row;
    char name[TENSOR_PATH];
    tensor_slot_name(slot, name);
    if (!has_shape(set, row) || !list_equals(set, "global_shape", row->dim, row->n_dim) ||
        !list_equals(set, "global_offset", origin, row->n_dim))
        return err_set(e, "%s: tensor %s has not the model's shape", path, name);
    if (!is_plain_f32(set))
        return err_set(e, "%s: tensor %s is not stored as contiguous 32-bit floats", path, name);
    haddr_t at = H5Dget_offset(set);
    if (at == HADDR_UNDEF || at > (haddr_t)file_bytes ||
        row->elements * 4 > file_bytes - (int64_t)at)
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

int tensor_file_inspect(const char *path, TensorSlot *slot, int count, Err *e)
{
    struct stat info;
    if (stat(path, &info)) return err_errno(e, "%s: cannot be opened", path);
    h5_lock();
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    int rc = file < 0 ? h5_fail(e, path, "cannot be opened")
                      : check_groups(file, count / TENSOR_GROUPS, path, e);
    for (int i = 0; i < count && !rc; i++)
        rc = inspect_tensor(file, &slot[i], info.st_size, path, e);
    if (file >= 0) H5Fclose(file);
    h5_unlock();
    return rc;
}
