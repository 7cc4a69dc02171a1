/* Constants of the memory ABI: every state, kind and limit that two processes must agree on.
 * Enums only, so that C, Python, the compiled kernels and the inspector print the same names. */
#ifndef SYM_TYPES_H
#define SYM_TYPES_H
#include <stdint.h>

enum {
    SYM_ABI_VERSION = 1,
    SYM_LINE_BYTES = 128        /* two cache lines: adjacent-line prefetch must not join two writers */
};

enum sym_segment_kind {
    SYM_SEGMENT_STATE = 1,      /* the engine's fixed state: one a life of the engine */
    SYM_SEGMENT_RUN = 2,        /* one run's graph */
    SYM_SEGMENT_ARENA = 3,      /* artifact memory that only the Conductor writes */
    SYM_SEGMENT_OUT = 4,        /* channel, Conductor to extension */
    SYM_SEGMENT_IN = 5,         /* channel, extension to Conductor (a memfd, no name) */
    SYM_SEGMENT_RING = 6        /* a bare ring */
};

enum sym_segment_state { SYM_SEGMENT_FRESH = 0, SYM_SEGMENT_LIVE = 1, SYM_SEGMENT_CLOSING = 2 };

enum sym_node_state {
    SYM_NODE_PENDING = 0,       /* ready is derived: pending with no dependency left */
    SYM_NODE_DISPATCHED = 1,
    SYM_NODE_STORING = 2,
    SYM_NODE_DONE = 3,
    SYM_NODE_FAILED = 4,
    SYM_NODE_SKIPPED = 5,
    SYM_NODE_CANCELLED = 6,
    SYM_NODE_CACHED = 7
};

enum sym_run_state {
    SYM_RUN_FREE = 0,
    SYM_RUN_QUEUED = 1,         /* row and graph written, the driver has not begun */
    SYM_RUN_RUNNING = 2,
    SYM_RUN_PAUSED = 3,
    SYM_RUN_WAITING = 4,        /* for input */
    SYM_RUN_COMPLETED = 5,
    SYM_RUN_FAILED = 6,
    SYM_RUN_CANCELLED = 7,
    SYM_RUN_CANCELLING = 8,     /* nothing new is dispatched, nodes in flight come back */
    SYM_RUN_FAILING = 9         /* the same after a failure */
};

enum sym_seat_state { SYM_SEAT_CLOSED = 0, SYM_SEAT_FREE = 1, SYM_SEAT_OFFERED = 2, SYM_SEAT_HELD = 3 };

enum sym_model_state {
    SYM_MODEL_COLD = 0, SYM_MODEL_LOADING = 1, SYM_MODEL_WARMING = 2, SYM_MODEL_READY = 3,
    SYM_MODEL_ACTIVE = 4, SYM_MODEL_COOLING = 5, SYM_MODEL_FAILED = 6
};

enum sym_request_state { SYM_REQUEST_IDLE = 0, SYM_REQUEST_WAITING = 1, SYM_REQUEST_WITHDRAWN = 2 };

enum sym_verdict { SYM_VERDICT_NONE = 0, SYM_VERDICT_OFFER = 1, SYM_VERDICT_NO = 2 };

enum sym_owner_state { SYM_OWNER_FREE = 0, SYM_OWNER_LIVE = 1, SYM_OWNER_DYING = 2 };

enum sym_owner_kind { SYM_OWNER_CONDUCTOR = 1, SYM_OWNER_MEMBER = 2 };

enum sym_player_state {
    SYM_PLAYER_FREE = 0, SYM_PLAYER_STARTING = 1, SYM_PLAYER_READY = 2, SYM_PLAYER_STOPPING = 3, SYM_PLAYER_DEAD = 4
};

enum sym_artifact_state {
    SYM_ARTIFACT_FREE = 0, SYM_ARTIFACT_RESERVED = 1, SYM_ARTIFACT_BUILDING = 2, SYM_ARTIFACT_PUBLISHED = 3, SYM_ARTIFACT_RETIRED = 4
};

/* What a value is (symphony/model/value.py gives each its payload's form). */
enum sym_value_kind {
    SYM_VALUE_NONE = 0, SYM_VALUE_BYTES = 1, SYM_VALUE_TEXT = 2, SYM_VALUE_DATA = 3, SYM_VALUE_ARRAY = 4, SYM_VALUE_LIST = 5,
    SYM_VALUE_ERROR = 6         /* msgpack map {type, message, traceback} of a handler that raised */
};

/* Record kinds. 1..15 belong to the ring itself. */
enum sym_record_kind {
    SYM_RECORD_PAD = 1,         /* fills the ring up to its wrap; never delivered */
    SYM_RECORD_USER = 16,       /* the bare ring's messages */
    SYM_RECORD_DISPATCH = 32,   /* sym_dispatch_t */
    SYM_RECORD_CANCEL = 33,     /* sym_dispatch_t without inputs: the node's run was cancelled */
    SYM_RECORD_STOP = 34,       /* end after what came before it */
    SYM_RECORD_COMPLETION = 48, /* sym_completion_t */
    SYM_RECORD_PART = 49,       /* sym_part_t: a piece of an output larger than the arena holds at once */
    SYM_RECORD_READY = 50,      /* the extension has imported its handlers */
    SYM_RECORD_LOG = 51         /* sym_log_t and text */
};

enum sym_outcome { SYM_OUTCOME_OK = 1, SYM_OUTCOME_FAILED = 2, SYM_OUTCOME_CANCELLED = 3 };

enum sym_home { SYM_HOME_INLINE = 1, SYM_HOME_ARENA = 2, SYM_HOME_PARTS = 3 };

/* Why a node or run changed state: the story's last column. */
enum sym_reason {
    SYM_REASON_NONE = 0, SYM_REASON_SUBMITTED = 1, SYM_REASON_CHOSEN = 2, SYM_REASON_COMPLETED = 3, SYM_REASON_HANDLER_FAILED = 4,
    SYM_REASON_RETRY = 5, SYM_REASON_PLAYER_DIED = 6, SYM_REASON_OUTCOME_UNKNOWN = 7, SYM_REASON_DEPENDENCY_FAILED = 8,
    SYM_REASON_CANCELLED = 9, SYM_REASON_STORED = 10, SYM_REASON_RECOVERED = 11, SYM_REASON_NO_MEMORY = 12
};

enum sym_node_flag { SYM_NODE_ONCE = 1, SYM_NODE_GROUP = 2 };

enum sym_limit {
    SYM_LIMIT_OWNERS = 512, SYM_LIMIT_PLAYERS = 256, SYM_LIMIT_EXTENSIONS = 256, SYM_LIMIT_RUNS = 4096,
    SYM_LIMIT_MODELS = 1024, SYM_LIMIT_INSTANCES = 1024, SYM_LIMIT_SEATS = 16384, SYM_LIMIT_REQUESTS = 2048,
    SYM_LIMIT_ARTIFACTS = 16384, SYM_LIMIT_RESOURCES = 8, SYM_LIMIT_COUNTERS = 256, SYM_LIMIT_SEGMENTS = 16384,
    SYM_LIMIT_LANES = 64, SYM_LIMIT_NODES = 2097152, SYM_LIMIT_OUTPUTS = 16,       /* named outputs of a step */
    SYM_LIMIT_INLINE_BYTES = 4096,      /* outputs up to this ride in the completion record */
    SYM_LIMIT_LOOP_COPY_BYTES = 262144, /* larger outputs are copied by the clerk, off the loop */
    SYM_LIMIT_DEATHS = 2                /* further tries after a player's death in the middle */
};
#endif
