"""Stale Manager: what the dead held, given back; what the dead left, taken away."""
