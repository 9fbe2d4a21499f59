"""Figures, tables and the report that opens without network or kernel: pure functions over arrays and DataFrames."""
