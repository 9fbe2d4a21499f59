"""Readers of datasets, downloads, images."""
