"""What a frame is and where frames come from."""
