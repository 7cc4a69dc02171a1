"""Plain frozen data shared by every floor: errors, values, the score, limits and priorities. Nothing here does I/O."""
