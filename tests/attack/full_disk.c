/* Preloaded into Python: files below a folder can be given a last number of bytes, after which the disk is full.

   cc -shared -fPIC -O1 -o full_disk.so full_disk.c -ldl

   The folder and the bytes are set with room_below(); bytes_written() says how many were written there since. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static atomic_long room = -1, written = 0; /* a negative room: no limit */

void room_below(const char *path, long bytes) {
    snprintf(folder, sizeof folder, "%s/", path);
    written = 0;
    room = bytes;
}

long bytes_written(void) { return written; }

static int is_below(int file) {
    char link[64], path[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return !strncmp(path, folder, strlen(folder));
}

/* Returns how many of some bytes fit; -1 with errno if none does. */
static ssize_t taken(int file, size_t bytes) {
    if (!bytes || !is_below(file)) return bytes;
    if (room >= 0) {
        long left = room - written;
        if (left <= 0) {
            errno = ENOSPC;
            return -1;
        }
        if ((size_t)left < bytes) bytes = left;
    }
    written += bytes;
    return bytes;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int file, const void *data, size_t bytes) {
    REAL(write);
    ssize_t fits = taken(file, bytes);
    return fits < 0 ? -1 : real(file, data, fits);
}

ssize_t pwrite(int file, const void *data, size_t bytes, off_t at) {
    REAL(pwrite);
    ssize_t fits = taken(file, bytes);
    return fits < 0 ? -1 : real(file, data, fits, at);
}

ssize_t pwrite64(int file, const void *data, size_t bytes, off64_t at) {
    REAL(pwrite64);
    ssize_t fits = taken(file, bytes);
    return fits < 0 ? -1 : real(file, data, fits, at);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(writev);
    size_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += parts[i].iov_len;
    ssize_t fits = taken(file, bytes);
    if (fits < 0) return -1;
    if ((size_t)fits == bytes) return real(file, parts, count);
    return write(file, parts[0].iov_base, parts[0].iov_len < (size_t)fits ? parts[0].iov_len : (size_t)fits);
}

ssize_t sendfile(int to, int from, off_t *at, size_t bytes) {
    REAL(sendfile);
    ssize_t fits = taken(to, bytes);
    return fits < 0 ? -1 : real(to, from, at, fits);
}

ssize_t sendfile64(int to, int from, off64_t *at, size_t bytes) {
    REAL(sendfile64);
    ssize_t fits = taken(to, bytes);
    return fits < 0 ? -1 : real(to, from, at, fits);
}

ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t bytes, unsigned flags) {
    REAL(copy_file_range);
    ssize_t fits = taken(to, bytes);
    return fits < 0 ? -1 : real(from, from_at, to, to_at, fits, flags);
}

int posix_fallocate(int file, off_t at, off_t bytes) {
    REAL(posix_fallocate);
    ssize_t fits = taken(file, bytes);
    return fits < bytes ? ENOSPC : real(file, at, bytes);
}

int posix_fallocate64(int file, off64_t at, off64_t bytes) {
    REAL(posix_fallocate64);
    ssize_t fits = taken(file, bytes);
    return fits < bytes ? ENOSPC : real(file, at, bytes);
}
