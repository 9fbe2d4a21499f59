"""The ipywidgets inspector of single predictions."""
