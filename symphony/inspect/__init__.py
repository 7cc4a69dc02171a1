"""Looking at shared memory from outside: a live engine's, a dead one's, or a dump file.

Everything is decoded by the text that each segment carries of its own layout, so that a tool of another build can read
it. Nothing is written, and no memory is taken: rows that have none behind them are not touched. What is damaged is
reported, and the rest is decoded. Imports neither NumPy nor numba.
"""
