"""The stepper: kills operations at every instruction and holds what is left against before and after.

`tools/stepper.py` is the program, `table.py` the list of operations, `core.py` how one is examined, `tracer.c` how a
process is stepped, `operations/` the operations themselves.
"""
