/* Time and the identity of a process. Tables hold CLOCK_MONOTONIC in nanoseconds. */
#ifndef SYM_CLOCK_H
#define SYM_CLOCK_H
#include <stdint.h>

/* Nanoseconds of CLOCK_MONOTONIC; about 25 ns a call. */
int64_t sym_now_ns(void);

/* The same clock in steps of a scheduler tick (1 to 4 ms); about 5 ns a call. */
int64_t sym_now_coarse_ns(void);

/* One turn of a spinning loop. */
void sym_pause(void);

/* Start time of a process in clock ticks after boot; 0 when there is none. With the pid it names one process. */
uint64_t sym_process_start(int pid);
#endif
