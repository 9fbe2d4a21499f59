"""How a network is taught: views of frames, losses, recipes, the loop, and the run folder it fills."""
