"""Boxes of tracking datasets to masks."""
