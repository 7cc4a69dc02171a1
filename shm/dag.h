/* DAG Tracker: a run is a row here and a segment of its own.
 *
 * The node's word {state 4 | flags 4 | attempt 12 | player 12 | run generation 32} is the truth:
 *
 *   pending --dispatch(driver)--> dispatched --complete: CAS--> done
 *      ^                             |  \--outputs to copy(loop)--> storing --copied(loop)--> done
 *      |<--retry, player's death-----|--failed for good--> failed
 *                                       storing --outputs lost with their player's memory--> pending, failed
 *   pending --> skipped, cancelled, cached;  dispatched --> cancelled
 *
 * A vertex is a node of the static graph, or a group: a fan-out whose nodes exist once its source is done.
 * A group's edges are implied. Ready sets, counts and marks are derived and made again by rebuild().
 *
 * The ready set of a lane is a bitmap over the vertices in order of rank, with two summary levels above it:
 * the first bit set is the vertex of highest rank. */
#ifndef SYM_DAG_H
#define SYM_DAG_H
#include <stdint.h>

enum {
    SYM_NODE_STATE_SHIFT = 60, SYM_NODE_FLAG_SHIFT = 56, SYM_NODE_ATTEMPT_SHIFT = 44, SYM_NODE_PLAYER_SHIFT = 32,
    SYM_NODE_ATTEMPT_MASK = 4095, SYM_NODE_PLAYER_MASK = 4095,
    SYM_NODE_LAST_ATTEMPT = 4094,       /* one below the field's end: an attempt never wraps */
    SYM_RUN_STATE_SHIFT = 60,
    SYM_LANE_VERTICES = 262144          /* 64 cubed: what three levels of 64-bit words cover */
};

/* A row of the table of runs, in the state segment. */
typedef struct {
    uint64_t word;              /* w:driver:cas r:any:acquire | {state 4 | 28 zero | generation 32}, enum sym_run_state */
    uint8_t id[16];             /* w:door r:any | the client's 128-bit request id: the same id returns the same run */
    uint8_t name[48];           /* w:door r:any | of the melody */
    uint64_t submitted_ns;      /* w:door r:any | CLOCK_MONOTONIC */
    uint64_t started_ns;        /* w:driver r:any | first dispatch */
    uint64_t ended_ns;          /* w:driver r:any | last completion */
    uint32_t segment;           /* w:door r:any | id of the run's segment */
    uint32_t driver;            /* w:door r:any | owner slot; the loop takes a dead driver's runs over */
    int32_t priority;           /* w:door r:any | */
    uint32_t step_count;        /* w:door r:any | */
    uint32_t node_count;        /* w:driver:release r:any:acquire | rows in use, groups' nodes included */
    uint32_t done_count;        /* w:driver:relaxed r:any:relaxed | done, derived */
    uint32_t failed_count;      /* w:driver:relaxed r:any:relaxed | failed for good, derived */
    uint32_t flight_count;      /* w:driver:relaxed r:any:relaxed | dispatched or storing, derived */
    uint32_t total_count;       /* w:driver:relaxed r:any:relaxed | nodes known of, derived */
    uint32_t failed_node;       /* w:driver r:any | the first that failed, ~0: none */
    uint64_t serial;            /* w:door r:any | counts runs of the engine's life: what people call it by */
    sym_ref_t score;            /* w:door r:any | the compiled melody, msgpack: what a Conductor that comes back goes on by */
    uint32_t wanted;            /* w:door:release r:loop:acquire | 1: its end was asked for, and the asker was told so */
    uint8_t pad0[76];
} sym_run_t;

/* The head of a run's segment: its geometry, written before the run is queued and never changed. */
typedef struct {
    uint64_t run_generation;    /* w:door r:any | low 32 bits stand in every node's word */
    uint32_t run;               /* w:door r:any | row of the run */
    uint32_t vertex_count;      /* w:door r:any | static nodes and groups; nodes [0, vertex_count) are theirs */
    uint32_t node_capacity;     /* w:clerk r:driver | rows of nodes, cold rows that have memory behind them; grows with a fan-out */
    uint32_t group_count;       /* w:door r:any | */
    uint32_t step_count;        /* w:door r:any | */
    uint32_t lane_count;        /* w:door r:any | */
    uint32_t edge_count;        /* w:door r:any | */
    uint32_t input_count;       /* w:door r:any | */
    uint32_t output_capacity;   /* w:clerk r:driver | rows of outputs that have memory behind them */
    uint32_t story_capacity;    /* w:door r:any | a power of two */
    uint64_t story_count;       /* w:driver:release r:any:acquire | records ever written; the last story_capacity remain */
    uint32_t output_count;      /* w:driver r:any | rows of outputs in use */
    uint32_t vertices_left;     /* w:driver:relaxed r:any:relaxed | vertices not passed on, derived */
    uint32_t delayed_count;     /* w:driver:relaxed r:any:relaxed | nodes waiting for not_before, derived */
    uint32_t order_count;       /* w:door r:any | padded positions of the ready sets */
    uint8_t pad0[56];
} sym_graph_t;

/* The hot half of a node: what dispatch and completion touch. */
typedef struct {
    uint64_t word;              /* w:any:cas r:any:acquire | {state 4 | flags 4 | attempt 12 | player 12 | run generation 32}, enum sym_node_state, enum sym_node_flag */
    uint64_t position;          /* w:driver r:any | dispatch position, written before the word */
    uint32_t step;              /* w:driver r:any | row of its step */
    uint32_t group;             /* w:driver r:any | group that it is a member of (or stands for, if the word says GROUP), ~0: none */
    uint32_t output;            /* w:driver r:any | first row of its outputs */
    uint32_t seat;              /* w:driver r:any | seat held while dispatched; written before the word */
} sym_node_t;

/* The cold half: same index. */
typedef struct {
    uint64_t not_before_ns;     /* w:driver r:any | back-off: not dispatched before */
    uint64_t started_ns;        /* w:driver r:any | as the extension stamped it */
    uint64_t ended_ns;          /* w:driver r:any | as the extension stamped it */
    uint32_t item_node;         /* w:driver r:any | a member's first item: output row of the list that holds it */
    uint32_t item_first;        /* w:driver r:any | a member's first item: index in that list */
    uint32_t item_count;        /* w:driver r:any | a member's items, over as many lists as it takes */
    uint32_t next;              /* w:driver r:any | chain of members to run again, derived */
    uint32_t failures;          /* w:driver r:any | {last attempt counted 16 | attempts that the handler failed 16}: counted once, whatever is done again */
    uint32_t deaths;            /* w:driver r:any | {last attempt counted 16 | attempts that a player's death cut off 16} */
    uint32_t pid;               /* w:driver r:any | of the player that ran it last */
    uint8_t pad0[12];
} sym_node_cold_t;

typedef struct {
    uint32_t template;          /* w:door r:any | the vertex that stands for it */
    uint32_t source;            /* w:door r:any | vertex whose outputs it fans out over */
    uint32_t source_output;     /* w:door r:any | which of its outputs */
    uint32_t batch;             /* w:door r:any | items a node, 1 or more */
    uint32_t first;             /* w:driver r:any | first node; written before the source's last word */
    uint32_t count;             /* w:driver r:any | nodes; written before the source's last word */
    uint32_t expanded;          /* w:driver:release r:any:acquire | 1: first and count hold, derived from the source's words */
    uint32_t remaining;         /* w:driver r:any | nodes not done, derived */
    uint32_t cursor;            /* w:driver r:any | nodes below it were chosen once, derived */
    uint32_t again;             /* w:driver r:any | chain of nodes to run again, ~0: none, derived */
    uint32_t source_group;      /* w:door r:any | group of the source vertex, ~0: it is a node */
    uint8_t pad0[20];
} sym_group_t;

typedef struct {
    uint32_t model;             /* w:door r:any | row in the pool */
    uint32_t lane;              /* w:door r:any | */
    uint32_t input_first;       /* w:door r:any | its rows of inputs */
    uint32_t input_count;       /* w:door r:any | */
    uint16_t output_count;      /* w:door r:any | named outputs, 1 or more */
    uint16_t retries;           /* w:door r:any | */
    uint32_t flags;             /* w:door r:any | enum sym_node_flag */
    uint32_t group;             /* w:door r:any | ~0: a single node */
    uint32_t vertex;            /* w:door r:any | */
    uint64_t backoff_ns;        /* w:door r:any | before the first retry; doubles, to a minute at most */
    uint64_t timeout_ns;        /* w:door r:any | 0: none */
    uint64_t estimate_ns;       /* w:door r:any | run time, for ranks; 0: unknown */
    sym_ref_t binding;          /* w:door r:any | msgpack: handler, arguments, outputs */
    uint32_t need[8];           /* w:door r:any | of each of the arbiter's resources */
    uint8_t name[48];           /* w:door r:any | as the author wrote it, cut to fit */
    uint8_t pad0[24];
} sym_step_t;

enum sym_input_kind {
    SYM_INPUT_VALUE = 1,        /* a value in memory: ref */
    SYM_INPUT_VERTEX = 2,       /* an output of a vertex, whole; of a group: all its nodes' in order */
    SYM_INPUT_ITEM = 3          /* the node's own items of the step's fan-out */
};

typedef struct {
    uint32_t kind;              /* w:door r:any | enum sym_input_kind */
    uint32_t vertex;            /* w:door r:any | */
    uint32_t output;            /* w:door r:any | which of its outputs */
    uint32_t slot;              /* w:door r:any | which input of the step */
    uint32_t first;             /* w:door r:any | items of a list output */
    uint32_t count;             /* w:door r:any | 0: whole */
    uint64_t reserved;
    sym_ref_t ref;              /* w:door r:any | */
} sym_input_t;

typedef struct {
    uint32_t model;             /* w:door r:any | row in the pool that its nodes need */
    uint32_t order_first;       /* w:door r:any | first position, a multiple of 64 */
    uint32_t order_count;       /* w:door r:any | positions in use */
    uint32_t summary_first;     /* w:door r:any | first word of its middle level */
    uint64_t top;               /* w:driver r:any | top level of its ready set, derived */
    uint8_t pad0[40];
} sym_lane_t;

/* One transition. Written by the run's driver alone into a ring that overwrites its oldest. */
typedef struct {
    uint64_t time_ns;           /* w:driver r:any | CLOCK_MONOTONIC */
    uint32_t node;              /* w:driver r:any | ~0: the run itself */
    uint8_t before;             /* w:driver r:any | enum sym_node_state; of the run itself enum sym_run_state */
    uint8_t after;              /* w:driver r:any | enum sym_node_state; of the run itself enum sym_run_state */
    uint16_t reason;            /* w:driver r:any | enum sym_reason */
    uint32_t player;            /* w:driver r:any | */
    uint32_t attempt;           /* w:driver r:any | */
    uint64_t sequence;          /* w:driver:release r:any:acquire | its number + 1, last: a reader checks that it was not overtaken */
} sym_story_t;
#endif
