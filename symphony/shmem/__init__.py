"""Shared memory without domain nouns: names, the registry, segments that describe themselves."""
