/* Bells: how a side that sleeps is woken.
 *
 *    sleeper                                   ringer
 *    -------                                   ------
 *    seen = load bell                          exchange tail            (its own word)
 *    exchange sleeping = 1  (its own word)     load sleeping  seq_cst   (the other's)
 *    load tail  seq_cst     (the other's)      if set: ring the bell
 *    nothing new: wait(bell, seen)
 *
 * SYNC: sleeper. Each side changes its own word by a sequentially consistent read-modify-write before it loads the
 * other's. With a release store in the place of the exchange both may miss the other: the sleeper sleeps on a record
 * that lies there, until its deadline.
 *
 * Towards an extension the bell is a futex word, which works on memory that the sleeper maps read-only. Towards the
 * Conductor it is a pipe, because the Conductor waits for many at once. */
#ifndef SYM_BELL_H
#define SYM_BELL_H
#include <stdint.h>

/* Counts the bell up and wakes whoever waits on it, in any process. */
void sym_bell_ring(uint32_t *bell);

/* Waits while *bell is still `seen`, at most timeout_ns. 1: the bell was rung or the wait was disturbed, look again;
 * 0: timed out. */
int sym_bell_wait(const uint32_t *bell, uint32_t seen, int64_t timeout_ns);

/* Writes a byte to a non-blocking pipe. 0, also when the pipe is full (its reader is due to wake anyway), or -errno. */
int sym_bell_pipe_ring(int fd);

/* Empties a non-blocking pipe. Bytes taken, or -errno; 0 also at the end of file. */
int64_t sym_bell_pipe_drain(int fd);

/* Waits on an epoll instance whose members are bell pipes (data.fd), at most timeout_ns (rounded up to a
 * millisecond; 0 looks once), and drains those that are ready. How many, 0 when timed out or disturbed, or -errno. */
int sym_park(int epfd, int64_t timeout_ns);
#endif
