"""C operations and compiled kernels as the tracer calls them: an address and integers.

A kernel is entered at its own first instruction, not through numba's dispatcher, so that what is stepped is the
operation and nothing of the interpreter's.
"""

import ctypes
import functools
from typing import Any

import numpy as np
from numba.core import types

from symphony.native import _csym
from tools.stepping.tracer import Native

_RESULT_BYTES = 256


@functools.cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(_csym.__file__)


def c_call(name: str, *arguments: int) -> Native:
    """A call of a function of csrc by its symbol."""
    return Native(ctypes.cast(getattr(_c_library(), name), ctypes.c_void_p).value or 0, arguments)


def kernel_call(kernel: Any, *arguments: Any) -> Native:
    """A call of a kernel (compiled or loaded now, for these types): arguments are integers and NumPy arrays.

    By numba's calling convention: where the result goes, where an error would go, then each argument with arrays taken
    apart. The arrays must stay where they are.
    """
    kinds = tuple(kernel.typeof_pyval(argument) for argument in arguments)
    kernel.compile(kinds)
    compiled = kernel.overloads[kinds]
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    result = np.zeros(_RESULT_BYTES, np.uint8)
    flat = [result.ctypes.data, result.ctypes.data + _RESULT_BYTES - 8]
    for argument, kind in zip(arguments, kinds, strict=True):
        flat += _flat(argument, kind)
    return Native(address, tuple(flat), (result, *arguments))


def entry_call(entry: Any, *arguments: int) -> Native:
    """A call of what the fast door calls by its address."""
    return Native(entry.address, arguments)


def _flat(argument: Any, kind: Any) -> list[int]:
    if isinstance(kind, types.Array):
        assert argument.ndim == 1
        return [
            0, 0, argument.size, argument.itemsize, argument.ctypes.data, argument.shape[0], argument.strides[0]
        ]  # fmt: skip
    assert isinstance(kind, types.Integer | types.Boolean), kind
    return [int(argument)]
