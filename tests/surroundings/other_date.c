/* Moves the clock of the programs that preload it by CLOCK_SHIFT seconds: the date, and the times of files.
 *
 * Monotonic clocks go on as they are. libfaketime 0.9.10 moves those, too, and hangs Python 3.11 and newer, which waits
 * by clocks that it does not know.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FIRST_DATE 600000000 /* 1989: later than any monotonic clock, earlier than any date that is tried */

static long shift(void) {
    const char *seconds = getenv("CLOCK_SHIFT");
    return seconds ? atol(seconds) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = REAL(clock_gettime)(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return failed;
}

time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}

int gettimeofday(struct timeval *now, void *zone) {
    int failed = REAL(gettimeofday)(now, zone);
    if (!failed) now->tv_sec += shift();
    return failed;
}

/* Times of files, read and set */

#define MOVED(call) \
    int failed = call; \
    if (!failed) found->st_atim.tv_sec += shift(), found->st_mtim.tv_sec += shift(), found->st_ctim.tv_sec += shift(); \
    return failed;

int stat(const char *path, struct stat *found) { MOVED(REAL(stat)(path, found)) }
int lstat(const char *path, struct stat *found) { MOVED(REAL(lstat)(path, found)) }
int fstat(int file, struct stat *found) { MOVED(REAL(fstat)(file, found)) }
int fstatat(int folder, const char *path, struct stat *found, int flags) {
    MOVED(REAL(fstatat)(folder, path, found, flags))
}
int stat64(const char *path, struct stat64 *found) { MOVED(REAL(stat64)(path, found)) }
int lstat64(const char *path, struct stat64 *found) { MOVED(REAL(lstat64)(path, found)) }
int fstat64(int file, struct stat64 *found) { MOVED(REAL(fstat64)(file, found)) }
int fstatat64(int folder, const char *path, struct stat64 *found, int flags) {
    MOVED(REAL(fstatat64)(folder, path, found, flags))
}

static const struct timespec *moved_back(const struct timespec given[2], struct timespec set[2]) {
    if (!given) return NULL;
    memcpy(set, given, 2 * sizeof *set);
    for (int i = 0; i < 2; i++)
        if (set[i].tv_nsec != UTIME_NOW && set[i].tv_nsec != UTIME_OMIT) set[i].tv_sec -= shift();
    return set;
}

int utimensat(int folder, const char *path, const struct timespec given[2], int flags) {
    struct timespec set[2];
    return REAL(utimensat)(folder, path, moved_back(given, set), flags);
}

int futimens(int file, const struct timespec given[2]) {
    struct timespec set[2];
    return REAL(futimens)(file, moved_back(given, set));
}

/* Waiting until a date */

static struct timespec real_deadline(const struct timespec *given) {
    struct timespec set = *given;
    if (set.tv_sec > FIRST_DATE) set.tv_sec -= shift();
    return set;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *given) {
    struct timespec deadline = real_deadline(given);
    return REAL(pthread_cond_timedwait)(condition, mutex, &deadline);
}

int sem_timedwait(sem_t *semaphore, const struct timespec *given) {
    struct timespec deadline = real_deadline(given);
    return REAL(sem_timedwait)(semaphore, &deadline);
}

int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *given) {
    struct timespec deadline = real_deadline(given);
    return REAL(pthread_mutex_timedlock)(mutex, &deadline);
}
