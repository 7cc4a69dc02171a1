"""Instruments: steps that ask a model."""
