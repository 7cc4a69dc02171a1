/* Counters: one writer each, padded, so that counting slows nobody; the name beside it. */
#ifndef SYM_COUNTER_H
#define SYM_COUNTER_H
#include <stdint.h>

enum sym_counter {
    SYM_COUNTER_LOOPS = 0, SYM_COUNTER_PARKS = 1, SYM_COUNTER_COMPLETIONS = 2, SYM_COUNTER_DISPATCHES = 3,
    SYM_COUNTER_REFUSED = 4, SYM_COUNTER_CLERK_JOBS = 5, SYM_COUNTER_RETRIES = 6, SYM_COUNTER_PLAYER_DEATHS = 7,
    SYM_COUNTER_RUNS = 8, SYM_COUNTER_SWEPT_SEGMENTS = 9, SYM_COUNTER_SWEPT_SEATS = 10, SYM_COUNTER_BELLS = 11,
    SYM_COUNTER_STORED_BYTES = 12, SYM_COUNTER_COUNT = 13
};

typedef struct {
    uint64_t value;             /* w:loop:relaxed r:any:relaxed | */
    uint8_t name[40];           /* w:maker r:any | */
    uint8_t pad0[80];
} sym_counter_t;

/* What the engine says of itself, in the state segment. */
typedef struct {
    uint64_t clock_ns;          /* w:loop:relaxed r:any:relaxed | CLOCK_MONOTONIC at its last turn */
    uint64_t started_ns;        /* w:conductor r:any | */
    uint64_t ready_ns;          /* w:conductor:release r:any:acquire | 0: not ready yet */
    uint64_t next_serial;       /* w:door r:any | of runs */
    uint32_t conductor_pid;     /* w:conductor r:any | */
    uint32_t keeper_pid;        /* w:conductor r:any | */
    uint32_t level;             /* w:conductor r:any | isolation level in force for extensions */
    uint32_t segments_used;     /* w:clerk r:any | rows of segments ever used */
    uint32_t models_used;       /* w:clerk r:any | */
    uint32_t instances_used;    /* w:loop r:any | */
    uint32_t seats_used;        /* w:loop r:any | */
    uint32_t players_used;      /* w:clerk r:any | highest row in use + 1 */
    uint32_t extensions_used;   /* w:clerk r:any | */
    uint32_t resources_used;    /* w:clerk r:any | */
    uint32_t restarts;          /* w:conductor r:any | Conductors that took the state over from one that ended */
    uint32_t held;              /* w:door r:any | 1: started for one client, ends with it */
    uint64_t resumed_ns;        /* w:conductor r:any | when the last of them served */
    uint8_t pad0[40];
} sym_engine_t;
#endif
