"""Data steps that need no model: cut, index, search, describe, and the work of recorded workflows."""
