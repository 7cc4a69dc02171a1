#define _GNU_SOURCE
#include "sym_bell.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sym_atomic.h"

enum { EVENTS_AT_ONCE = 64 };

void sym_bell_ring(uint32_t *bell)
{
    /* SYNC: bell. The count changes before the wake: a sleeper between its load of the bell and its system call then
     * finds another value and does not sleep. */
    sym_fetch_add_u32(bell, 1);
    syscall(SYS_futex, bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

int sym_bell_wait(const uint32_t *bell, uint32_t seen, int64_t timeout_ns)
{
    if (timeout_ns <= 0)
        return sym_load_acquire_u32(bell) != seen;
    struct timespec limit = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    /* SYNC: bell. The kernel compares the count under its own lock, so a ring since `seen` was read is not missed. */
    long outcome = syscall(SYS_futex, bell, FUTEX_WAIT, seen, &limit, NULL, 0);
    return !(outcome < 0 && errno == ETIMEDOUT);
}

int sym_bell_pipe_ring(int fd)
{
    char one = 1;
    for (;;) {
        if (write(fd, &one, 1) >= 0 || errno == EAGAIN)
            return 0;
        if (errno != EINTR)
            return -errno;
    }
}

int64_t sym_bell_pipe_drain(int fd)
{
    char bytes[512];
    int64_t taken = 0;
    for (;;) {
        ssize_t length = read(fd, bytes, sizeof bytes);
        if (length > 0)
            taken += length;
        if (length == 0 || (length > 0 && length < (ssize_t)sizeof bytes))
            return taken;
        if (length < 0 && errno != EINTR)
            return errno == EAGAIN ? taken : -errno;
    }
}

int sym_park(int epfd, int64_t timeout_ns)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int64_t timeout_ms = timeout_ns <= 0 ? 0 : (timeout_ns + 999999) / 1000000;
    int count = epoll_wait(epfd, events, EVENTS_AT_ONCE, timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms);
    if (count < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++)
        sym_bell_pipe_drain(events[i].data.fd);
    return count;
}
