/* Pool Manager: models, their instances, and the seats by which an instance is used.
 *
 *   closed --open(loop)--> free --allocate(any): CAS--> held --release(any thread of the owner): CAS--> free
 *                          free --offer(loop): CAS--> offered --take(owner): CAS--> held
 *                          free --evict(loop): CAS--> closed
 *
 * The seat's word alone says who holds it: {state 3 | owner 13 | generation 48}. Everything else is derived. */
#ifndef SYM_POOL_H
#define SYM_POOL_H
#include <stdint.h>

enum {
    SYM_SEAT_STATE_SHIFT = 61, SYM_SEAT_OWNER_SHIFT = 48, SYM_SEAT_OWNER_MASK = 8191
};

typedef struct {
    uint8_t name[48];           /* w:clerk r:any | */
    uint64_t waiters;           /* w:loop:exchange r:any:seq_cst | requests in its queue, derived */
    uint32_t extension;         /* w:clerk r:any | row of the extension that hosts it */
    uint32_t seat_first;        /* w:loop:release r:any:acquire | first row of its block of seats */
    uint32_t seat_count;        /* w:loop:release r:any:acquire | rows of that block, all instances */
    uint32_t state;             /* w:loop:release r:any:acquire | enum sym_model_state, best of its instances */
    uint64_t generation;        /* w:clerk r:any | */
    uint8_t pad0[48];
} sym_model_t;

typedef struct {
    uint64_t state;             /* w:loop:release r:any:acquire | enum sym_model_state */
    uint64_t since_ns;          /* w:loop r:any | of the last change of state */
    uint32_t model;             /* w:loop r:any | row */
    uint32_t player;            /* w:loop r:any | row, ~0: none */
    uint32_t seat_first;        /* w:loop r:any | */
    uint32_t seat_count;        /* w:loop r:any | */
    uint64_t generation;        /* w:loop r:any | counts loads */
    uint32_t held;              /* w:loop:relaxed r:any:relaxed | seats that the loop holds on it, derived */
    uint32_t reason;            /* w:loop r:any | enum sym_reason of the last change */
    uint8_t pad0[80];
} sym_instance_t;

typedef struct {
    uint64_t word;              /* w:any:cas r:any:acquire | {state 3 | owner 13 | generation 48}, enum sym_seat_state */
    uint32_t model;             /* w:loop r:any | written while closed */
    uint32_t instance;          /* w:loop r:any | written while closed */
    uint8_t pad0[48];
} sym_seat_t;

/* A request that waits: a row of the calling thread's. The answer is the loop's. */
typedef struct {
    uint64_t sequence;          /* w:caller:release r:loop:acquire | counts requests of this row */
    uint32_t state;             /* w:caller:release r:loop:acquire | enum sym_request_state */
    uint32_t model;             /* w:caller r:loop | what is asked for */
    int32_t priority;           /* w:caller r:loop | */
    uint32_t owner;             /* w:caller r:loop | slot */
    uint8_t pad0[104];
    uint64_t answered;          /* w:loop:release r:caller:acquire | sequence that the verdict is for */
    uint32_t verdict;           /* w:loop r:caller | enum sym_verdict */
    uint32_t seat;              /* w:loop r:caller | the seat offered */
    uint8_t pad1[112];
} sym_request_t;
#endif
