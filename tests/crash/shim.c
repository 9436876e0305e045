// Preloaded under Python, SQLite and everything else: counts what changes files of one folder, kills the process at the
// n-th of it, and writes down what was done, so that a test can tell what a power cut would have left.
//
// Counted: write, pwrite, fsync, fdatasync, rename, ftruncate, unlink. Also written down: the creation of files and folders.
// Threads take turns, so that the trace has the order in which things happened to the files.
// A record of the trace is: op (1 byte), inode (8), offset (8), lengths of path, second path and data (4 each), these.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[4096];
static long kill_at;    // 0: never
static int tear;        // the write at which we die is done by half
static int trace = -1;  // -1: nothing is written down
static int armed;
static atomic_long counted;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

void crash_arm(const char* where, long at, int torn, int trace_descriptor) {
  snprintf(folder, sizeof folder, "%s", where);
  kill_at = at;
  tear = torn;
  trace = trace_descriptor;
  counted = 0;
  armed = 1;
}
void crash_disarm(void) { armed = 0; }
long crash_counted(void) { return counted; }

static int inside(const char* path) {
  size_t n = strlen(folder);
  return armed && strncmp(path, folder, n) == 0 && (path[n] == '/' || path[n] == 0);
}

static int path_of(int descriptor, char* path) {  // of an open file of the folder
  char link[64];
  if (!armed) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t n = readlink(link, path, 4095);
  if (n <= 0) return 0;
  path[n] = 0;
  return inside(path);
}

static void absolute(int at, const char* path, char* out) {
  char link[64];
  if (path[0] == '/') {
    snprintf(out, 4096, "%s", path);
    return;
  }
  ssize_t n = -1;
  if (at == AT_FDCWD) {
    n = getcwd(out, 4095) ? (ssize_t)strlen(out) : -1;
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    n = readlink(link, out, 4095);
  }
  if (n < 0) n = 0;
  snprintf(out + n, 4096 - n, "/%s", path);
}

static uint64_t inode(int descriptor) {
  struct stat status;
  return fstat(descriptor, &status) ? 0 : (uint64_t)status.st_ino;
}

static void put(const void* data, size_t n) {
  const char* at = data;
  while (n) {
    ssize_t done = syscall(SYS_write, trace, at, n);
    if (done <= 0) return;
    at += done;
    n -= done;
  }
}

static void note(char op, uint64_t node, int64_t offset, const char* path, const char* second, const void* data, size_t n) {
  if (trace < 0) return;
  uint32_t lengths[3] = {(uint32_t)strlen(path), second ? (uint32_t)strlen(second) : 0, (uint32_t)n};
  put(&op, 1);
  put(&node, 8);
  put(&offset, 8);
  put(lengths, sizeof lengths);
  put(path, lengths[0]);
  if (second) put(second, lengths[1]);
  put(data, n);
}

static int dies(void) { return ++counted == kill_at; }
static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

#define REAL(name) (__typeof__(&name)) dlsym(RTLD_NEXT, #name)

static ssize_t changed(int descriptor, const void* data, size_t n, off_t offset, int at_offset) {
  static __typeof__(&write) real_write;
  static __typeof__(&pwrite) real_pwrite;
  if (!real_write) real_write = REAL(write), real_pwrite = REAL(pwrite);
  char path[4096];
  if (!path_of(descriptor, path)) return at_offset ? real_pwrite(descriptor, data, n, offset) : real_write(descriptor, data, n);
  pthread_mutex_lock(&turn);
  off_t place = at_offset ? offset : lseek(descriptor, 0, SEEK_CUR);
  int last = dies();
  size_t part = last ? (tear ? n / 2 : 0) : n;
  ssize_t done = 0;
  if (part) {
    done = at_offset ? real_pwrite(descriptor, data, part, offset) : real_write(descriptor, data, part);
    if (done > 0) note('W', inode(descriptor), place, path, NULL, data, (size_t)done);
  }
  if (last) die();
  pthread_mutex_unlock(&turn);
  return done;
}

ssize_t write(int d, const void* data, size_t n) { return changed(d, data, n, 0, 0); }
ssize_t pwrite(int d, const void* data, size_t n, off_t offset) { return changed(d, data, n, offset, 1); }
ssize_t pwrite64(int d, const void* data, size_t n, off_t offset) { return changed(d, data, n, offset, 1); }

static int synced(int descriptor, int (*real)(int)) {
  char path[4096];
  if (!path_of(descriptor, path)) return real(descriptor);
  pthread_mutex_lock(&turn);
  if (dies()) die();
  int result = real(descriptor);
  note('S', inode(descriptor), 0, path, NULL, NULL, 0);
  pthread_mutex_unlock(&turn);
  return result;
}
int fsync(int d) { return synced(d, REAL(fsync)); }
int fdatasync(int d) { return synced(d, REAL(fdatasync)); }

static int cut(int descriptor, off_t size) {
  char path[4096];
  int (*real)(int, off_t) = REAL(ftruncate);
  if (!path_of(descriptor, path)) return real(descriptor, size);
  pthread_mutex_lock(&turn);
  if (dies()) die();
  int result = real(descriptor, size);
  if (!result) note('T', inode(descriptor), size, path, NULL, NULL, 0);
  pthread_mutex_unlock(&turn);
  return result;
}
int ftruncate(int d, off_t size) { return cut(d, size); }
int ftruncate64(int d, off_t size) { return cut(d, size); }

int rename(const char* from, const char* to) {
  int (*real)(const char*, const char*) = REAL(rename);
  char first[4096], second[4096];
  absolute(AT_FDCWD, from, first), absolute(AT_FDCWD, to, second);
  if (!inside(first) && !inside(second)) return real(from, to);
  pthread_mutex_lock(&turn);
  if (dies()) die();
  int result = real(from, to);
  if (!result) note('R', 0, 0, first, second, NULL, 0);
  pthread_mutex_unlock(&turn);
  return result;
}

static int removed(int at, const char* name, int flags) {
  int (*real)(int, const char*, int) = REAL(unlinkat);
  char path[4096];
  absolute(at, name, path);
  if (!inside(path)) return real(at, name, flags);
  pthread_mutex_lock(&turn);
  if (dies()) die();
  int result = real(at, name, flags);
  if (!result) note('U', 0, 0, path, NULL, NULL, 0);
  pthread_mutex_unlock(&turn);
  return result;
}
int unlink(const char* path) { return removed(AT_FDCWD, path, 0); }
int unlinkat(int at, const char* path, int flags) { return removed(at, path, flags); }

int mkdir(const char* name, mode_t mode) {
  int (*real)(const char*, mode_t) = REAL(mkdir);
  char path[4096];
  absolute(AT_FDCWD, name, path);
  if (!inside(path)) return real(name, mode);
  pthread_mutex_lock(&turn);
  int result = real(name, mode);
  if (!result) note('D', 0, 0, path, NULL, NULL, 0);
  pthread_mutex_unlock(&turn);
  return result;
}

static int opened(int at, const char* name, int flags, mode_t mode) {
  char path[4096];
  absolute(at, name, path);
  if (!inside(path)) return (int)syscall(SYS_openat, at, name, flags, mode);
  pthread_mutex_lock(&turn);
  int fresh = (flags & O_CREAT) && faccessat(at, name, F_OK, 0) != 0;
  int descriptor = (int)syscall(SYS_openat, at, name, flags, mode);
  if (descriptor >= 0 && fresh) note('C', inode(descriptor), 0, path, NULL, NULL, 0);
  if (descriptor >= 0 && !fresh && (flags & O_TRUNC)) note('T', inode(descriptor), 0, path, NULL, NULL, 0);
  pthread_mutex_unlock(&turn);
  return descriptor;
}
#define MODE                                \
  mode_t mode = 0;                          \
  if (flags & (O_CREAT | O_TMPFILE)) {      \
    va_list rest;                           \
    va_start(rest, flags);                  \
    mode = va_arg(rest, mode_t);            \
    va_end(rest);                           \
  }
int open(const char* path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
int open64(const char* path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int at, const char* path, int flags, ...) { MODE return opened(at, path, flags, mode); }
int openat64(int at, const char* path, int flags, ...) { MODE return opened(at, path, flags | O_LARGEFILE, mode); }
