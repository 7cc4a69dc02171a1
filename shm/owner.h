/* Who holds what: a slot a process (the Conductor, members), a row an extension and a player. What a dead
 * process held is found by its slot and given back. */
#ifndef SYM_OWNER_H
#define SYM_OWNER_H
#include <stdint.h>

typedef struct {
    uint64_t word;              /* w:loop:cas r:any:acquire | {state 4 | generation 60}, enum sym_owner_state */
    uint64_t start;             /* w:loop r:any | start time of the process, clock ticks */
    uint32_t pid;               /* w:loop r:any | */
    uint32_t kind;              /* w:loop r:any | enum sym_owner_kind */
    uint8_t pad0[104];
} sym_owner_t;

typedef struct {
    uint8_t name[48];           /* w:clerk r:any | */
    uint32_t model;             /* w:clerk r:any | row of the model that is this extension itself */
    uint32_t players_max;       /* w:clerk r:any | */
    uint32_t window;            /* w:clerk r:any | dispatch window of a player */
    uint32_t level;             /* w:clerk r:any | isolation level in force */
    uint64_t starts;            /* w:clerk:relaxed r:any:relaxed | processes started */
    uint64_t deaths;            /* w:clerk:relaxed r:any:relaxed | processes that ended unasked */
    uint64_t not_before_ns;     /* w:clerk r:any | back-off: no process of it is started before */
    uint32_t recent_deaths;     /* w:clerk r:any | deaths one soon after the other; what the back-off grows with */
    uint32_t parked;            /* w:clerk r:any | 1: too many of them; tried again when the back-off is over */
    uint8_t pad0[32];
} sym_extension_t;

typedef struct {
    uint64_t state;             /* w:loop:release r:any:acquire | enum sym_player_state */
    uint64_t generation;        /* w:clerk r:any | of its channel */
    uint64_t start;             /* w:clerk r:any | start time of the process */
    uint32_t pid;               /* w:clerk r:any | */
    uint32_t extension;         /* w:clerk r:any | row */
    uint32_t instance;          /* w:clerk r:any | row in the pool */
    uint32_t out_segment;       /* w:clerk r:any | id */
    uint64_t dispatched;        /* w:loop:relaxed r:any:relaxed | records sent */
    uint64_t completed;         /* w:loop:relaxed r:any:relaxed | completions applied */
    uint64_t refused;           /* w:loop:relaxed r:any:relaxed | records that failed a check */
    uint64_t started_ns;        /* w:clerk r:any | spawn asked */
    uint64_t ready_ns;          /* w:clerk r:any | first record came */
    uint8_t pad0[48];
} sym_player_t;
#endif
