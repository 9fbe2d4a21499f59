"""Frames and boxes to masks: how windows are cut and restored, and the predictor that runs a model on them."""
