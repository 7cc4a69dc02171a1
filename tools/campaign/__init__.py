"""The campaign: random kills under real load, and what came of each."""
