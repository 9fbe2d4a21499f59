"""Rows of tables, their scores and statistics, the claims of the paper."""
