"""Pretraining of the tiny priors on drawn scenes: `python -m tools.pretrain RUN_DIR`."""
