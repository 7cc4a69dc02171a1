"""Artifact Store: values in memory that only the Conductor writes and everybody may read. See README.md of this folder."""
