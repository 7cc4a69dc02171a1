"""Arbitration Engine: named capacities, whole or nothing, reasons. See README.md of this folder."""
