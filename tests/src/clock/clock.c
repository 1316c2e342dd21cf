/* A clock that is ahead of the machine's by the seconds that stand in a file, also while somebody waits for a time of
 * day: as if it had been set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

/* How soon a waiter sees that the clock was set. */
#define SLICE_NS 20000000
#define SECOND_NS 1000000000
/* What is earlier is no time of day but one since the machine was started. */
#define TIMES_OF_DAY_SINCE 1000000000

/* What both ways to wait for a condition look like; the second one is that of C11. */
typedef int waiting(void *, void *, const struct timespec *);

static int64_t in_order;
static volatile int64_t *ahead_s = &in_order;
static waiting *posix_wait, *c11_wait;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("HOOKLEDGER_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED)
        ahead_s = mapped;
    if (file >= 0)
        close(file);
    /* The default is the old one of two, which knows conditions of another layout. */
    posix_wait = (waiting *)dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!posix_wait)
        posix_wait = (waiting *)dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    c11_wait = (waiting *)dlsym(RTLD_NEXT, "cnd_timedwait");
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *ahead_s;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now)
        *now = precise.tv_sec;
    return precise.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

/* In slices of true time, until the clock that may be set meanwhile shows the time that is waited for. */
static int wait_by_clock(waiting *wait, void *condition, void *mutex, const struct timespec *until, int is_over) {
    struct timespec now, slice;
    int woken = is_over;
    if (until->tv_sec < TIMES_OF_DAY_SINCE)
        return wait(condition, mutex, until);
    while (woken == is_over) {
        clock_gettime(CLOCK_REALTIME, &now);
        int64_t left_s = until->tv_sec - now.tv_sec, left_ns = until->tv_nsec - now.tv_nsec;
        if (left_s == 1 && left_ns < 0) {
            left_s = 0;
            left_ns += SECOND_NS;
        }
        if (left_s < 0 || (left_s == 0 && left_ns <= 0))
            return is_over;
        int is_short = left_s == 0 && left_ns < SLICE_NS;
        syscall(SYS_clock_gettime, CLOCK_REALTIME, &slice);
        slice.tv_nsec += is_short ? left_ns : SLICE_NS;
        if (slice.tv_nsec >= SECOND_NS) {
            slice.tv_nsec -= SECOND_NS;
            slice.tv_sec += 1;
        }
        woken = wait(condition, mutex, &slice);
    }
    return woken;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    return wait_by_clock(posix_wait, condition, mutex, until, ETIMEDOUT);
}

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
    return wait_by_clock(c11_wait, condition, mutex, until, thrd_timedout);
}
