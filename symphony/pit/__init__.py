"""The Pit: five rooms over tables in shared memory.

Rooms never import each other; one may read another's table through a typed view. What they share stands
here: the signed dtypes of the tables (`tables`), the commit rule (`commit`) and the private map of a run's
addresses (`run_map`)."""
