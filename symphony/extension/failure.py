"""What a handler raised, as a value: type, message and traceback text, without the host's own frames."""

from __future__ import annotations

from symphony.model import value

MESSAGE_CHARACTERS = 16384
TRACEBACK_CHARACTERS = 32768
"""Together, at four bytes a character, below what the engine takes of an error (SYM_LIMIT_LOOP_COPY_BYTES)."""


def describe(error: BaseException, skip: int = 0) -> value.Encoded:
    """The error's value. `skip` frames of the traceback belong to the host and are left out. Never raises: an
    exception whose own text cannot be made still fails the step by name."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except Exception as second:
        message = f"(its text raised {type(second).__name__})"
    return value.encode_error(name, message[:MESSAGE_CHARACTERS], _traceback(error, skip))


def _traceback(error: BaseException, skip: int) -> str:
    import traceback

    frames = error.__traceback__
    for _ in range(skip):
        if frames is not None and frames.tb_next is not None:
            frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception:
        text = "".join(traceback.format_tb(frames))
    return text[-TRACEBACK_CHARACTERS:]
