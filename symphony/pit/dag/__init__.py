"""DAG Tracker: runs, their nodes, and what is ready. See README.md of this folder."""
