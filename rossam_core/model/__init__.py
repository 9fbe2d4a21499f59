"""Segmenters, their parts and their weights."""

checkpoint_reader: str | None = "rossam_kit.checkpoints"
"""Module whose `read_checkpoint` reads more than official checkpoints (trainers' files, Hugging Face folders), used
where it is installed; None: official checkpoints and our own alone."""
