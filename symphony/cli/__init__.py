"""symphonyctl: one file a noun. Nothing here imports numba, and NumPy only where a verb shows an array."""
