"""Networks that segment what is in a box: SAM, HQ-SAM, ROS-SAM, SAM2."""

checkpoint_reader: str | None = None
"""Module whose `read_checkpoint` reads more than official checkpoints; `import rossam_kit` sets it."""
