/* scaling/ledger_open.c - opening, making and checking a ledger's file. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "scaling/ledger_sql.h"

enum { PATIENCE_MS = 20000, HOST = 256 };

/* File systems whose locks or shared memory may not hold between machines; f_type, statfs(2). */
static const unsigned shared_types[] = {
    0x6969,     /* NFS */
    0x517b,     /* SMB */
    0xff534d42, /* CIFS */
    0xfe534d42, /* SMB 2 */
    0x564c,     /* NCP */
    0x5346414f, /* AFS */
    0x6b414653, /* kAFS */
    0x73757245, /* Coda */
    0x01021997, /* 9P */
    0x65735546, /* FUSE: sshfs, GlusterFS and the like */
    0x00c36400, /* Ceph */
    0x0bd00bd0, /* Lustre */
    0x47504653, /* GPFS */
    0x19830326, /* BeeGFS */
    0x01161970, /* GFS2 */
    0x7461636f, /* OCFS2 */
    0x20030528, /* OrangeFS */
};

bool ledger_is_local(long type)
{
    for (size_t i = 0; i < sizeof shared_types / sizeof *shared_types; i++)
        if ((unsigned)type == shared_types[i]) return false;
    return true;
}

/* ---- A new one --------------------------------------------------------------------------------*/

/* %s: the columns of a cell. Ways between states and the log are the file's own, so that no program
 * can go round them. */
static const char schema[] =
    "CREATE TABLE note(key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE driver(id INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL,"
    " start INTEGER NOT NULL, boot TEXT NOT NULL, pid_space TEXT NOT NULL,"
    " cores INTEGER NOT NULL, joined REAL NOT NULL, beat_wall REAL NOT NULL,"
    " beat_monotonic REAL NOT NULL, gone REAL NOT NULL DEFAULT 0,"
    " first INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE cell(%s, seq INTEGER PRIMARY KEY AUTOINCREMENT,"
    " driver INTEGER REFERENCES driver(id), stop INTEGER NOT NULL DEFAULT 0,"
    " divergences INTEGER NOT NULL DEFAULT 0, with_parent INTEGER NOT NULL DEFAULT 0,"
    " UNIQUE(id), UNIQUE(name), CHECK((state = 'running') = (driver IS NOT NULL)),"
    " CHECK(state <> 'done' OR loss IS NOT NULL OR kind = 'trunk'));"
    "CREATE TABLE event(seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL,"
    " driver INTEGER, cell TEXT NOT NULL, was TEXT NOT NULL, now TEXT NOT NULL,"
    " tries INTEGER NOT NULL, lr_factor REAL NOT NULL, reason TEXT NOT NULL);"
    "CREATE TRIGGER event_kept BEFORE DELETE ON event BEGIN"
    " SELECT RAISE(ABORT, 'events are never removed'); END;"
    "CREATE TRIGGER event_stands BEFORE UPDATE ON event BEGIN"
    " SELECT RAISE(ABORT, 'events are never changed'); END;"
    "CREATE TRIGGER cell_kept BEFORE DELETE ON cell BEGIN"
    " SELECT RAISE(ABORT, 'cells are never removed'); END;"
    "CREATE TRIGGER cell_way BEFORE UPDATE OF state ON cell WHEN OLD.state || '>' || NEW.state"
    " NOT IN ('planned>running', 'planned>failed', 'planned>cancelled', 'running>done',"
    " 'running>diverged', 'running>failed', 'running>preempted', 'running>cancelled',"
    " 'running>planned', 'diverged>planned', 'failed>planned', 'preempted>planned',"
    " 'cancelled>planned') BEGIN"
    " SELECT RAISE(ABORT, 'a cell does not go from this state to that one'); END;"
    "CREATE TRIGGER cell_new AFTER INSERT ON cell BEGIN"
    " INSERT INTO event(time, driver, cell, was, now, tries, lr_factor, reason)"
    " VALUES((julianday('now') - 2440587.5) * 86400, NULL, NEW.id, '', NEW.state, NEW.tries,"
    " NEW.lr_factor, NEW.reason); END;"
    "CREATE TRIGGER cell_event AFTER UPDATE OF state ON cell BEGIN"
    " INSERT INTO event(time, driver, cell, was, now, tries, lr_factor, reason)"
    " VALUES((julianday('now') - 2440587.5) * 86400, coalesce(NEW.driver, OLD.driver), NEW.id,"
    " OLD.state, NEW.state, NEW.tries, NEW.lr_factor, NEW.reason); END;";

static int number_of(Ledger *l, const char *sql, int64_t *out, Err *e)
{
    return sql_number(l, e, out, sql, "");
}

/* In one transaction; another process may have been faster. */
static int make(Ledger *l, const char *host, Err *e)
{
    char *text = malloc(2 * LEDGER_TEXT), names[LEDGER_TEXT];
    int64_t tables = 0;
    if (!text) return err_set(e, "%s: out of memory", l->path);
    snprintf(text, 2 * LEDGER_TEXT, schema, ledger_declarations(names));
    int rc = sql_begin(l, e);
    if (!rc) {
        rc = number_of(l, "SELECT count(*) FROM sqlite_schema", &tables, e);
        if (!rc && !tables) {
            if (sqlite3_exec(l->db, text, NULL, NULL, NULL)) rc = sql_fail(l, "be made", e);
            if (!rc && sql_run(l, e, "INSERT INTO note VALUES('host', ?)", "s", host) < 0) rc = -1;
            snprintf(text, LEDGER_TEXT, "PRAGMA application_id=%d; PRAGMA user_version=%d",
                     LEDGER_APPLICATION, LEDGER_VERSION);
            if (!rc && sqlite3_exec(l->db, text, NULL, NULL, NULL))
                rc = sql_fail(l, "be made", e);
        }
        rc = sql_end(l, rc, e);
    }
    free(text);
    return rc;
}

/* A file of an older version gets what it lacks, in one transaction: drivers' first cores, columns
 * of experts (not known of its cells). A driver of the older program that works on it goes on: it
 * names the columns that it writes. */
static int widen(Ledger *l, Err *e)
{
    char text[64];
    int64_t first, version;
    if (l->version == LEDGER_VERSION) return 0;
    if (sql_begin(l, e)) return -1;
    int rc = number_of(l, "PRAGMA user_version", &version, e); /* another may have been faster */
    if (!rc && version < LEDGER_VERSION) {
        rc = number_of(l, "SELECT count(*) FROM pragma_table_info('driver') WHERE name = 'first'",
                       &first, e);
        if (!rc && !first)
            rc = sql_run(l, e, "ALTER TABLE driver ADD COLUMN first INTEGER NOT NULL DEFAULT 0",
                         "") < 0 ? -1 : 0;
        if (!rc) rc = ledger_widen(l, e);
        snprintf(text, sizeof text, "PRAGMA user_version=%d", LEDGER_VERSION);
        if (!rc && sqlite3_exec(l->db, text, NULL, NULL, NULL)) rc = sql_fail(l, "be written", e);
    }
    if (sql_end(l, rc, e)) return -1;
    l->version = LEDGER_VERSION;
    return 0;
}

/* ---- Checks -----------------------------------------------------------------------------------*/

/* *empty: a file without anything, to be made. */
static int check_kind(Ledger *l, bool *empty, Err *e)
{
    int64_t application, version, tables;
    if (number_of(l, "PRAGMA application_id", &application, e) ||
        number_of(l, "PRAGMA user_version", &version, e) ||
        number_of(l, "SELECT count(*) FROM sqlite_schema", &tables, e))
        return -1;
    *empty = !application && !version && !tables;
    if (*empty) return 0;
    if (application != LEDGER_APPLICATION) {
        err_set(e, "%s: is not a ledger, but another program's database (application %" PRId64
                ", %" PRId64 " tables and indices)", l->path, application, tables);
        return err_hint(e, "give the sweep another folder, or move the file aside");
    }
    l->version = (int)version;
    if (version >= 1 && version <= LEDGER_VERSION) return 0;
    err_set(e, "%s: has version %" PRId64 ", this program reads up to %d", l->path, version,
            LEDGER_VERSION);
    return err_hint(e, "use the program that made it, or start the sweep in another folder");
}

static int check_host(Ledger *l, const char *host, Err *e)
{
    char *owner = NULL;
    if (ledger_note_get(l, "host", &owner, e)) return -1;
    int rc = 0;
    if (!owner || strcmp(owner, host)) {
        rc = err_set(e, "%s: belongs to the host '%.200s', this is '%s'", l->path,
                     owner ? owner : "", host);
        err_hint(e, "run all drivers of a sweep on one host; `sweep status`, `fit` and `report` "
                    "work on any. If the host was renamed: sqlite3 ledger.sqlite \"UPDATE note "
                    "SET value = '%s' WHERE key = 'host'\"", host);
    }
    free(owner);
    return rc;
}

static int check_sound(Ledger *l, Err *e)
{
    sqlite3_stmt *s = sql_prepare(l, e, "PRAGMA quick_check(1)", "");
    if (!s) return -1;
    int rc = sql_step(l, s, e);
    const char *word = rc > 0 ? (const char *)sqlite3_column_text(s, 0) : NULL;
    if (rc >= 0 && (!word || strcmp(word, "ok"))) {
        rc = err_set(e, "%s: is damaged: %.300s", l->path, word ? word : "no answer");
        err_hint(e, "move the file aside and start again; cells that are finished are taken in "
                    "from their folders");
    }
    sqlite3_finalize(s);
    return rc < 0 ? -1 : 0;
}

/* ---- Open and close ---------------------------------------------------------------------------*/

static int configure(Ledger *l, Err *e)
{
    sqlite3_busy_timeout(l->db, PATIENCE_MS);
    sqlite3_extended_result_codes(l->db, 1);
    sqlite3_db_config(l->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    if (sqlite3_exec(l->db, "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;"
                     "PRAGMA foreign_keys=ON", NULL, NULL, NULL))
        return sql_fail(l, "be opened", e);
    return 0;
}

/* WAL lets readers and a writer work side by side, where memory can be shared: on a disk of this
 * machine. */
static int set_journal(Ledger *l, const char *folder, Err *e)
{
    struct statfs fs;
    if (statfs(folder, &fs)) return err_errno(e, "%s: cannot be examined", folder);
    const char *mode = ledger_is_local((long)fs.f_type) ? "PRAGMA journal_mode=WAL"
                                                        : "PRAGMA journal_mode=DELETE";
    if (sql_run(l, e, mode, "") < 0) return -1;
    return sql_run(l, e, "PRAGMA synchronous=FULL", "") < 0 ? -1 : 0;
}

/* A folder that cannot be written has no room for what readers of a WAL share: such a file changes
 * under no one's hands, and is opened as one that does not. */
static int open_file(Ledger *l, const char *folder, Err *e)
{
    char wal[IO_PATH_MAX + 8], uri[3 * IO_PATH_MAX + 32];
    int flags = l->read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    const char *path = l->path;
    snprintf(wal, sizeof wal, "%s-wal", l->path);
    if (l->read_only && access(folder, W_OK) && !io_exists(wal)) {
        size_t n = (size_t)snprintf(uri, sizeof uri, "file:");
        for (const char *p = l->path; *p; p++)
            n += (size_t)snprintf(uri + n, sizeof uri - n, strchr("%?#", *p) ? "%%%02x" : "%c", *p);
        snprintf(uri + n, sizeof uri - n, "?immutable=1");
        path = uri;
        flags |= SQLITE_OPEN_URI;
    }
    if (sqlite3_open_v2(path, &l->db, flags | SQLITE_OPEN_NOMUTEX, NULL))
        return sql_fail(l, "be opened", e);
    return configure(l, e);
}

static int open_checked(Ledger *l, const char *folder, Err *e)
{
    char host[HOST] = "";
    bool empty = false;
    if (gethostname(host, sizeof host - 1)) return err_errno(e, "the host's name cannot be read");
    if (open_file(l, folder, e) || check_kind(l, &empty, e)) return -1;
    if (l->read_only && empty)
        return err_set(e, "%s: is empty: no sweep was planned here", l->path);
    if (l->read_only) return check_sound(l, e);
    if (!empty && check_sound(l, e)) return -1;
    if (!empty && check_host(l, host, e)) return -1;
    if (set_journal(l, folder, e)) return -1;
    if (!empty) return widen(l, e);
    return make(l, host, e) || check_kind(l, &empty, e) || check_host(l, host, e) ? -1 : 0;
}

/* Whether a file begins as SQLite's do. */
static bool is_sqlite(const char *path)
{
    static const char magic[16] = "SQLite format 3";
    char head[sizeof magic] = "";
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    bool same = fread(head, 1, sizeof head, f) == sizeof head && !memcmp(head, magic, sizeof head);
    fclose(f);
    return same;
}

int ledger_folder(const char *path, char *out, size_t room, Err *e)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    if (n >= room) return err_set(e, "%.200s..: the path is too long", path);
    snprintf(out, room, "%.*s", (int)n, path);
    struct stat s;
    if (stat(out, &s) || !S_ISREG(s.st_mode)) return 0;
    char *slash = strrchr(out, '/');
    if (strcmp(slash ? slash + 1 : out, "ledger.sqlite")) {
        if (!is_sqlite(out)) return 0;
        err_set(e, "%s: is an SQLite file, but a sweep's ledger is named ledger.sqlite", out);
        return err_hint(e, "give the sweep's folder");
    }
    if (!slash)
        snprintf(out, room, ".");
    else
        slash[slash == out] = 0; /* "/" keeps its slash */
    return 0;
}

Ledger *ledger_open(const char *folder, bool read_only, Err *e)
{
    Ledger *l = calloc(1, sizeof *l);
    if (!l) {
        err_set(e, "%s: out of memory", folder);
        return NULL;
    }
    l->read_only = read_only;
    int rc = io_join(l->path, folder, "ledger.sqlite", e);
    if (!rc && !io_is_dir(folder)) rc = err_set(e, "%s: is no folder", folder);
    if (!rc && !read_only && access(folder, W_OK)) {
        rc = err_errno(e, "%s: may not be written", folder);
        err_hint(e, "`sweep status`, `fit` and `report` work there; drivers need to write");
    }
    if (!rc && read_only && !io_exists(l->path)) {
        rc = err_set(e, "%s: does not exist: no sweep was planned here", l->path);
        err_hint(e, "isomoe sweep SWEEP.yaml makes it");
    }
    if (rc || open_checked(l, folder, e)) ledger_close(&l);
    return l;
}

void ledger_close(Ledger **l)
{
    if (*l) sqlite3_close((*l)->db);
    free(*l);
    *l = NULL;
}

/* ---- Notes ------------------------------------------------------------------------------------*/

int ledger_note_set(Ledger *l, const char *key, const char *value, Err *e)
{
    return sql_run(l, e, "INSERT INTO note VALUES(?1, ?2) ON CONFLICT(key) DO UPDATE SET"
                   " value = ?2", "ss", key, value) < 0 ? -1 : 0;
}

int ledger_note_get(Ledger *l, const char *key, char **out, Err *e)
{
    *out = NULL;
    sqlite3_stmt *s = sql_prepare(l, e, "SELECT value FROM note WHERE key = ?", "s", key);
    if (!s) return -1;
    int rc = sql_step(l, s, e);
    if (rc > 0) {
        const char *text = (const char *)sqlite3_column_text(s, 0);
        *out = strdup(text ? text : "");
        rc = *out ? 0 : err_set(e, "%s: out of memory", l->path);
    }
    sqlite3_finalize(s);
    return rc;
}
