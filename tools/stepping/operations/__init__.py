"""The operations by what they work on; `tools/stepping/table.py` lists them."""
