"""How a network is trained: views of frames, losses, recipes, the loop, and the run folder it fills."""
