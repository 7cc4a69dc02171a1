"""The one door to the C operations: `ffi` and `lib` of the built module, and `check` for their codes.

Imports neither NumPy nor numba. cffi lets other threads run during every call of `lib`.
"""

try:
    from symphony.native._csym import ffi, lib
except ImportError as error:
    raise ImportError(
        f"Symphony's C part is not built for this Python ({error}); run `make build` in the source tree, "
        "or install the package with pip"
    ) from error

__all__ = ["check", "ffi", "lib"]

_MEANING = {
    "SYM_E_CORRUPT": "a shared word or a record lies outside its bounds: the memory is damaged or its writer is",
    "SYM_E_CLOSED": "the other side closed",
    "SYM_E_SIZE": "the size is not the one expected (a ring's is a power of two of at least 256 bytes)",
    "SYM_E_ALIGN": "an address is null or not aligned to 8 bytes",
    "SYM_E_FRESH": "it carries no stamp: it is not whole yet, or is being removed",
    "SYM_E_MAGIC": "these bytes are not a segment of Symphony",
    "SYM_E_ABI": "it was made by a Symphony with another ABI version",
    "SYM_E_LAYOUT": "it was made by a Symphony whose structs are laid out differently",
    "SYM_E_KIND": "it is a segment of another kind",
    "SYM_E_BUSY": "a writer was in the way, or died in the middle of a change",
}
_BY_CODE = {getattr(lib, name): meaning for name, meaning in _MEANING.items()}


def check(code: int, what: str) -> int:
    """Passes a C operation's result through if it is not negative; otherwise raises, saying `what` failed and why.

    RingCorrupt or RingClosed for a ring, AbiMismatch for a stamp of another make, SegmentError for other stamps and
    geometry, OSError for -errno."""
    if code >= 0:
        return code
    from symphony.model import errors

    message = f"{what}: {_BY_CODE.get(code, f'error {code}')}"
    if code == lib.SYM_E_CORRUPT:
        raise errors.RingCorrupt(message)
    if code == lib.SYM_E_CLOSED:
        raise errors.RingClosed(message)
    if code in (lib.SYM_E_ABI, lib.SYM_E_LAYOUT):
        raise errors.AbiMismatch(message)
    if code in _BY_CODE:
        raise errors.SegmentError(message)
    raise OSError(-code, message)
