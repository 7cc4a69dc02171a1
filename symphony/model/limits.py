"""Bounds that the plain-data floors need without the built C.

The memory ABI's are copies; a test compares them to `shm/types.h`.
"""

# Copies of enum sym_limit.
OWNERS = 512
PLAYERS = 256
EXTENSIONS = 256
RUNS = 4096
MODELS = 1024
INSTANCES = 1024
SEATS = 16384
REQUESTS = 2048
ARTIFACTS = 16384
RESOURCES = 8
COUNTERS = 256
SEGMENTS = 16384
LANES = 64
NODES = 2097152
OUTPUTS = 16
INLINE_BYTES = 4096
LOOP_COPY_BYTES = 262144
DEATHS = 2

# Bounds of a score: what a client may send.
STEPS = 262144  # what one lane's ready set covers
SLOTS = 65535  # a ref's slot is 16 bits wide
EDGES = 16777216
INPUTS = 256  # of a run
RUN_OUTPUTS = 65536
ARGUMENTS = 256  # of a step
RETRIES = 1000
BATCH = 65536
SECONDS = 31_622_400.0  # a year: any duration
NAME_BYTES = 512  # of a step: task ids of real workflows are long
FORMAT_BYTES = 65536
CONSTANT_BYTES = 1 << 20  # one constant argument, encoded
SCORE_BYTES = 256 << 20  # a whole score, encoded

# Bounds of a value.
VALUE_DEPTH = 16  # lists within lists
ARRAY_DIMENSIONS = 32
LIST_ITEMS = 1 << 31
DOOR_BYTES = 65536  # one message of the control door; larger payloads ride in a memfd
