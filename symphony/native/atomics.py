"""Atomic operations for compiled kernels, by the names of the C ones: the one place in Python that spells orders.

Each takes a one-dimensional array of 4- or 8-byte integers (a plain array, a record field view such as
`table["word"]`, or `table` over a raw address) and an index; it touches that one element and checks no bounds, unless
NUMBA_BOUNDSCHECK=1 makes numba check (a test does). Callable from compiled code only. Right between threads and, on
shared memory, between processes: every element is naturally aligned, so the processor's own atomics are used.

`table(address, count, dtype)` is rows of a struct over a raw address; `rows(address, count, dtype)` is the same for
what never asks how many there are. Both trust the address and keep nothing alive: the segment must stay mapped.
`dtype` has to be a global of the kernel's module (it is part of the compiled type).

Forms that work on a table `t`, nested structs and arrays included:

    t[i].position        t[i]["position"]         t["position"][i]          read; the first and last also store
    t[i].binding.first   t["binding"]["first"][i]                           a struct in a struct
    t[i].need[k]         t["need"][i, k]                                    an array in a struct
    load_acquire(t["word"], i)      load_acquire(t["binding"]["first"], i)      load_acquire(t["need"][i], k)
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np import arrayobj

_BITS = (32, 64)


def _check(operation: str, array, index, *values) -> None:
    if not isinstance(array, types.Array) or array.ndim != 1:
        raise TypingError(f"{operation} needs a one-dimensional array, got {array}")
    if not isinstance(array.dtype, types.Integer) or array.dtype.bitwidth not in _BITS:
        raise TypingError(f"{operation} needs 4- or 8-byte integers, got {array.dtype}")
    for number in (index, *values):
        # A sum of int64 and uint64 is a float64 to numba; casting it back would lose bits in silence.
        if not isinstance(number, types.Integer):
            raise TypingError(f"{operation} needs whole numbers, got {number}")
    if values and not array.mutable:
        raise TypingError(f"{operation} changes its array, and this one is read-only")


def _element(context, builder, array_type, array, index_type, index, checked=True):
    """Pointer to one element, by the array's own stride. `checked`: where numba checks bounds, so does this."""
    view = arrayobj.make_array(array_type)(context, builder, array)
    at = context.cast(builder, index, index_type, types.intp)
    checked = checked and context.enable_boundscheck
    return cgutils.get_item_pointer(context, builder, array_type, view, [at], wraparound=False, boundscheck=checked)


def _load(name: str, order: str):
    def operation(typingctx, array, index):
        _check(name, array, index)

        def generate(context, builder, signature, args):
            pointer = _element(context, builder, signature.args[0], args[0], signature.args[1], args[1])
            return builder.load_atomic(pointer, ordering=order, align=signature.return_type.bitwidth // 8)

        return array.dtype(array, index), generate

    operation.__name__ = name
    operation.__doc__ = f"array[index] by one atomic load, order {order}."
    return intrinsic(operation)


def _store(name: str, order: str):
    def operation(typingctx, array, index, value):
        _check(name, array, index, value)

        def generate(context, builder, signature, args):
            kind = signature.args[0].dtype
            pointer = _element(context, builder, signature.args[0], args[0], signature.args[1], args[1])
            new = context.cast(builder, args[2], signature.args[2], kind)
            builder.store_atomic(new, pointer, ordering=order, align=kind.bitwidth // 8)
            return context.get_dummy_value()

        return types.none(array, index, value), generate

    operation.__name__ = name
    operation.__doc__ = f"array[index] = value by one atomic store, order {order}."
    return intrinsic(operation)


def _modify(name: str, what: str, text: str):
    def operation(typingctx, array, index, value):
        _check(name, array, index, value)

        def generate(context, builder, signature, args):
            pointer = _element(context, builder, signature.args[0], args[0], signature.args[1], args[1])
            new = context.cast(builder, args[2], signature.args[2], signature.args[0].dtype)
            return builder.atomic_rmw(what, pointer, new, "seq_cst")

        return array.dtype(array, index, value), generate

    operation.__name__ = name
    operation.__doc__ = text
    return intrinsic(operation)


load_relaxed = _load("load_relaxed", "monotonic")
load_acquire = _load("load_acquire", "acquire")
load_seq_cst = _load("load_seq_cst", "seq_cst")
store_relaxed = _store("store_relaxed", "monotonic")
store_release = _store("store_release", "release")
exchange = _modify("exchange", "xchg", "Replace array[index], sequentially consistent; returns what was there.")
fetch_add = _modify(
    "fetch_add", "add", "Add to array[index], wrapping, sequentially consistent; returns what was there."
)


@intrinsic
def compare_exchange(typingctx, array, index, expected, desired):
    """array[index] = desired if it is `expected`, in one step, acquire-release; True if it was."""
    _check("compare_exchange", array, index, expected, desired)

    def generate(context, builder, signature, args):
        kind = signature.args[0].dtype
        pointer = _element(context, builder, signature.args[0], args[0], signature.args[1], args[1])
        old = context.cast(builder, args[2], signature.args[2], kind)
        new = context.cast(builder, args[3], signature.args[3], kind)
        return builder.extract_value(builder.cmpxchg(pointer, old, new, "acq_rel", "acquire"), 1)

    return types.boolean(array, index, expected, desired), generate


@intrinsic
def prefetch(typingctx, array, index):
    """Ask for the cache line of array[index], to be written soon. A hint: it changes nothing and cannot fail."""
    if not isinstance(array, types.Array) or array.ndim != 1 or not isinstance(index, types.Integer):
        raise TypingError(f"prefetch needs a one-dimensional array and a whole number, got {array}, {index}")

    def generate(context, builder, signature, args):
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        pointer = _element(context, builder, signature.args[0], args[0], signature.args[1], args[1], checked=False)
        write, keep, data = ir.Constant(number, 1), ir.Constant(number, 3), ir.Constant(number, 1)
        builder.call(function, [builder.bitcast(pointer, byte), write, keep, data])
        return context.get_dummy_value()

    return types.none(array, index), generate


def _row_type(operation: str, dtype):
    if not isinstance(dtype, types.DTypeSpec):
        raise TypingError(f"{operation} needs a dtype that is a global of the module, got {dtype}")
    return dtype.dtype


def _view(context, builder, kind, address, length):
    """An array struct that owns nothing over raw memory."""
    view = arrayobj.make_array(kind)(context, builder)
    data = builder.inttoptr(address, view.data.type)
    width = context.get_constant(types.intp, arrayobj.get_itemsize(context, kind))
    arrayobj.populate_array(view, data, shape=[length], strides=[width], itemsize=width, meminfo=None)
    return view._getvalue()


@intrinsic
def table(typingctx, address, count, dtype):
    """`count` rows of `dtype` over the memory at `address` (int64): an array that owns nothing and checks no bounds."""
    kind = types.Array(_row_type("table", dtype), 1, "C")

    def generate(context, builder, signature, args):
        length = context.cast(builder, args[1], signature.args[1], types.intp)
        return _view(context, builder, kind, args[0], length)

    return kind(types.int64, count, dtype), generate


@intrinsic
def rows(typingctx, address, count, dtype):
    """A table whose length no kernel asks for: `len` says 0, so an index is taken as it stands. Counting a negative one
    from the end, as numba does by the length, costs three instructions at every access.

    Where numba checks bounds (NUMBA_BOUNDSCHECK=1, a test of ours) it is as long as it is.
    """
    kind = types.Array(_row_type("rows", dtype), 1, "C")

    def generate(context, builder, signature, args):
        length = context.get_constant(types.intp, 0)
        if context.enable_boundscheck:
            length = context.cast(builder, args[1], signature.args[1], types.intp)
        return _view(context, builder, kind, args[0], length)

    return kind(types.int64, count, dtype), generate
