/* Preloaded into a command and its children: counts the file operations below a directory, and strikes at one of them.
 *
 * faults.py makes the shared file that $FAULTS names, says in it which operation of which process is struck and how,
 * and reads there what was counted. Operations are: open for writing, write, fsync, rename, unlink, mkdir, ftruncate.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { NOTHING, KILL_BEFORE, TEAR, KILL_AFTER, FULL, FAULT, STOP };
enum {
    NOBODY = -1,
    NEXT_WORKER = -2,
    NEXT_TASK = -3,
    DRIVER = 0,
    WORKERS = 1,
    WANDB = 8,
    TASKS = 9,
    ROLES = 16,
    FILES = 4096
};

static struct shared {
    char below[1024];            /* the directory */
    char service[256];           /* what is put before the command that starts W&B's service; empty: nothing */
    int role, at, kind;          /* the strike */
    int struck;                  /* the process that was struck */
    int full;                    /* the disk is */
    int workers, tasks;          /* how many have a number */
    int counts[ROLES];           /* of operations */
    int processes[ROLES];        /* the process of each role */
    int files;                   /* how many were written */
    unsigned long inodes[FILES]; /* these; 0 once a file is on the disk */
}* shared;
static int role = NOBODY;

#define REAL(name)                 \
    static __typeof__(name)* real; \
    if (!real) real = (__typeof__(name)*)dlsym(RTLD_NEXT, #name)

void faults_begin(int as) {
    const char* path = getenv("FAULTS");
    if (!path || !*path) return;
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return;
    void* found = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (found == MAP_FAILED) return;
    shared = found;
    if (as == NEXT_WORKER) as = WORKERS + __sync_fetch_and_add(&shared->workers, 1) % (WANDB - WORKERS);
    if (as == NEXT_TASK) as = TASKS + __sync_fetch_and_add(&shared->tasks, 1) % (ROLES - TASKS);
    role = as;
    if (role >= 0) shared->processes[role] = getpid();
}

__attribute__((constructor)) static void loaded(void) {
    char words[4096] = {0};
    int file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t length = read(file, words, sizeof words - 1);
    close(file);
    for (ssize_t i = 0; i < length; i++)
        if (!words[i]) words[i] = ' ';
    if (!strstr(program_invocation_short_name, "python"))
        faults_begin(NOBODY);
    else if (strstr(words, "multiprocessing.spawn"))
        faults_begin(NEXT_WORKER);
    else if (strstr(words, "-m submitit"))
        faults_begin(NEXT_TASK);
    else if (strstr(words, "-m fractal_ifs.train"))
        faults_begin(DRIVER);
    else
        faults_begin(NOBODY);
}

static const char* absolute(int at, const char* path, char* space) {
    if (*path == '/') return path;
    char name[40];
    ssize_t length;
    snprintf(name, sizeof name, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
    if ((length = readlink(name, space, PATH_MAX)) < 0) return path;
    snprintf(space + length, PATH_MAX - length, "/%s", path);
    return space;
}

static void note(int file, int written) {
    struct stat found;
    if (fstat(file, &found) || !S_ISREG(found.st_mode)) return;
    int number = shared->files < FILES ? shared->files : FILES;
    for (int i = 0; i < number; i++)
        if (shared->inodes[i] == found.st_ino) {
            if (!written)
                shared->inodes[i] = 0;
            else
                return;
        }
    if (written && (number = __sync_fetch_and_add(&shared->files, 1)) < FILES) shared->inodes[number] = found.st_ino;
}

/* What is to happen at an operation on a path. FAULT: it fails with errno set. */
static enum kind judge(int at, const char* path, int writes, int makes) {
    char space[2 * PATH_MAX];
    if (!shared || role < 0 || !path) return NOTHING;
    path = absolute(at, path, space);
    size_t length = strlen(shared->below);
    if (strncmp(path, shared->below, length) || path[length] != '/') return NOTHING;
    if (shared->full && (writes || (makes && access(path, F_OK)))) {
        errno = ENOSPC;
        return FAULT;
    }
    int as = strstr(path + length, "/wandb/") ? WANDB : role;
    int count = __sync_add_and_fetch(&shared->counts[as], 1);
    if (as != shared->role || count != shared->at || shared->kind == NOTHING) return NOTHING;
    shared->struck = getpid();
    switch (shared->kind) {
        case STOP:
            raise(SIGSTOP); /* faults.py does something to another process, or to this one */
            return NOTHING;
        case FULL:
            shared->full = 1;
            if (writes) return TEAR;
            if (!makes) return NOTHING;
            errno = ENOSPC;
            return FAULT;
        case FAULT: errno = EIO; return FAULT;
        case TEAR:
            if (writes) return TEAR;
            /* fall through */
        case KILL_BEFORE: kill(getpid(), SIGKILL); pause();
    }
    return shared->kind;
}

static void after(enum kind kind) {
    if (kind != KILL_AFTER) return;
    kill(getpid(), SIGKILL);
    pause();
}

static enum kind judge_file(int file, int writes) {
    char name[40], path[PATH_MAX + 1];
    if (!shared || role < 0 || file < 3) return NOTHING;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, path, PATH_MAX);
    if (length <= 0 || *path != '/') return NOTHING; /* a pipe, a socket */
    path[length] = 0;
    return judge(AT_FDCWD, path, writes, 0);
}

/* Half of the bytes: then the process is killed, or the disk is full. */
static size_t half(enum kind kind, size_t length) { return kind == TEAR ? (length > 1 ? length / 2 : length) : length; }

static void torn(enum kind kind) { after(kind == TEAR && !shared->full ? KILL_AFTER : kind); }

#define OPEN(name, at_parameter, at, ...)                                                \
    int name(at_parameter const char* path, int flags, ...) {                            \
        REAL(name);                                                                      \
        va_list more;                                                                    \
        va_start(more, flags);                                                           \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;          \
        va_end(more);                                                                    \
        int writes = flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC);                    \
        enum kind kind = writes ? judge(at, path, 0, flags & O_CREAT) : NOTHING;         \
        if (kind == FAULT) return -1;                                                    \
        int file = real(__VA_ARGS__ path, flags, mode);                                  \
        if (file >= 0 && writes && shared && flags & (O_CREAT | O_TRUNC)) note(file, 1); \
        after(kind);                                                                     \
        return file;                                                                     \
    }
#define NONE
#define COMMA ,
OPEN(open, NONE, AT_FDCWD, NONE)
OPEN(open64, NONE, AT_FDCWD, NONE)
OPEN(openat, int directory COMMA, directory, directory COMMA)
OPEN(openat64, int directory COMMA, directory, directory COMMA)

#define WRITE(name, parameters, ...)                        \
    ssize_t name parameters {                               \
        REAL(name);                                         \
        enum kind kind = judge_file(file, 1);               \
        if (kind == FAULT) return -1;                       \
        if (shared && role >= 0 && file > 2) note(file, 1); \
        ssize_t done = real(__VA_ARGS__);                   \
        torn(kind);                                         \
        return done;                                        \
    }
WRITE(write, (int file, const void* bytes, size_t length), file, bytes, half(kind, length))
WRITE(pwrite, (int file, const void* bytes, size_t length, off_t place), file, bytes, half(kind, length), place)
WRITE(pwrite64, (int file, const void* bytes, size_t length, off64_t place), file, bytes, half(kind, length), place)
WRITE(writev, (int file, const struct iovec* parts, int number), file, parts, (int)half(kind, number))

#define OF_FILE(name, parameters, synced, ...)                   \
    int name parameters {                                        \
        REAL(name);                                              \
        enum kind kind = judge_file(file, 0);                    \
        if (kind == FAULT) return -1;                            \
        int failed = real(__VA_ARGS__);                          \
        if (!failed && shared && role >= 0) note(file, !synced); \
        after(kind);                                             \
        return failed;                                           \
    }
OF_FILE(fsync, (int file), 1, file)
OF_FILE(fdatasync, (int file), 1, file)
OF_FILE(ftruncate, (int file, off_t length), 0, file, length)
OF_FILE(ftruncate64, (int file, off64_t length), 0, file, length)

#define OF_PATH(name, parameters, at, path, makes, ...) \
    int name parameters {                               \
        REAL(name);                                     \
        enum kind kind = judge(at, path, 0, makes);     \
        if (kind == FAULT) return -1;                   \
        int failed = real(__VA_ARGS__);                 \
        after(kind);                                    \
        return failed;                                  \
    }
OF_PATH(rename, (const char* from, const char* to), AT_FDCWD, to, 0, from, to)
OF_PATH(renameat, (int one, const char* from, int other, const char* to), other, to, 0, one, from, other, to)
OF_PATH(unlink, (const char* path), AT_FDCWD, path, 0, path)
OF_PATH(unlinkat, (int directory, const char* path, int flags), directory, path, 0, directory, path, flags)
OF_PATH(rmdir, (const char* path), AT_FDCWD, path, 0, path)
OF_PATH(mkdir, (const char* path, mode_t mode), AT_FDCWD, path, 1, path, mode)
OF_PATH(mkdirat, (int directory, const char* path, mode_t mode), directory, path, 1, directory, path, mode)

/* W&B's service makes system calls without libc: strace strikes it, see faults.py. */
int execve(const char* path, char* const words[], char* const environment[]) {
    REAL(execve);
    size_t length = strlen(path);
    if (!shared || role < 0 || !*shared->service || length < 11 || strcmp(path + length - 11, "/wandb-core"))
        return real(path, words, environment);
    char space[sizeof shared->service], *rest = space, *all[64];
    int number = 0;
    strcpy(space, shared->service);
    while (number < 30 && (all[number] = strsep(&rest, " "))) number++;
    all[number++] = (char*)path;
    for (int i = 1; words[i] && number < 63; i++) all[number++] = words[i];
    all[number] = NULL;
    return real(all[0], all, environment);
}
