"""Programs that made what the repository ships; not needed to use it."""
