"""What segments: SAM, HQ-SAM and ROS-SAM behind one interface (`rossam.py`), and their weights (`checkpoints.py`)."""
