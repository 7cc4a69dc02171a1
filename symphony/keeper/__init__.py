"""The Keeper: parent of every extension process. A process of its own, because what ends processes must not share
the fate of what computes: it is small, has one thread, maps no segment and imports neither NumPy nor numba.

`python -m symphony.keeper` is the process, `symphony.keeper.link.KeeperLink` the Conductor's end of it.
"""
