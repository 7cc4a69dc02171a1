"""Dtypes of the shared tables as the kernels see them.

Every integer wider than a byte appears signed: numba turns a sum of two unsigned numbers into uint64, and a mix of
that with int64 into float64, which would lose bits without a word of warning. Positions stay below 2**63 and
counts below 2**31; what another process wrote is checked for its sign too; packed words keep their top bit clear
or are masked after the shift.
"""

import numpy as np

from symphony.native.layout import constants, dtype

NONE = -1
"""An index that names nothing, as the kernels read it."""
UNSET = 0xFFFFFFFF
"""The same in an unsigned column."""

_SIGNED = {np.dtype("<u8"): np.dtype("<i8"), np.dtype("<u4"): np.dtype("<i4"), np.dtype("<u2"): np.dtype("<i2")}


def signed(record: np.dtype) -> np.dtype:
    """The same layout with signed integers, at any depth."""
    if record.subdtype is not None:
        base, shape = record.subdtype
        return np.dtype((signed(base), shape))
    if record.fields is None:
        return _SIGNED.get(record, record)
    names = list(record.names)
    return np.dtype(
        {
            "names": names,
            "formats": [signed(record.fields[name][0]) for name in names],
            "offsets": [record.fields[name][1] for name in names],
            "itemsize": record.itemsize,
        }
    )


def table_dtype(name: str) -> np.dtype:
    """Dtype of struct `name` of the ABI, with signed integers."""
    return signed(dtype(name))


RUN = table_dtype("sym_run_t")
GRAPH = table_dtype("sym_graph_t")
NODE = table_dtype("sym_node_t")
COLD = table_dtype("sym_node_cold_t")
GROUP = table_dtype("sym_group_t")
STEP = table_dtype("sym_step_t")
INPUT = table_dtype("sym_input_t")
LANE = table_dtype("sym_lane_t")
STORY = table_dtype("sym_story_t")
REF = table_dtype("sym_ref_t")
MODEL = table_dtype("sym_model_t")
INSTANCE = table_dtype("sym_instance_t")
SEAT = table_dtype("sym_seat_t")
PLAYER = table_dtype("sym_player_t")
EXTENSION = table_dtype("sym_extension_t")
OWNER = table_dtype("sym_owner_t")
RESOURCE = table_dtype("sym_resource_t")
ARTIFACT = table_dtype("sym_artifact_t")
SEGMENT = table_dtype("sym_segment_t")
COUNTER = table_dtype("sym_counter_t")
ENGINE = table_dtype("sym_engine_t")
DISPATCH = table_dtype("sym_dispatch_t")
COMPLETION = table_dtype("sym_completion_t")
OUTPUT = table_dtype("sym_output_t")
PART = table_dtype("sym_part_t")
CHANNEL_OUT = table_dtype("sym_channel_out_t")
PRODUCER = table_dtype("sym_ring_producer_t")
CHANNEL_IN = table_dtype("sym_channel_in_t")

__all__ = [name for name in dir() if name.isupper()] + ["constants", "signed", "table_dtype"]
