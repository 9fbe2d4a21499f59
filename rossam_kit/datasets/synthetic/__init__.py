"""Generated satellite video with exact masks."""
