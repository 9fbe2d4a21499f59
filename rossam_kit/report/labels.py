"""The names that readers know methods and groups of parameters by."""

LABELS = {
    "box": "Filled box",
    "ellipse": "Inscribed ellipse",
    "grabcut": "GrabCut",
    "sam": "SAM",
    "sam2": "SAM2",
    "sam3": "SAM 3",
    "hq-sam": "HQ-SAM",
    "ros-sam": "ROS-SAM",
    "ground truth": "Ground truth",
}
GROUPS = {"lora": "LoRA", "sam_decoder": "SAM decoder", "hq_head": "HQ head"}
"""Groups of parameters whose name is more than its words."""


def label(method: str) -> str:
    """The method's name as readers know it."""
    return LABELS.get(method, method)


def group_label(group: str) -> str:
    """The name of a group of parameters: `hq_head` → `HQ head`."""
    return GROUPS.get(group, group.replace("_", " "))
