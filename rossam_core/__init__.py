"""ROS-SAM (CVPR 2025) as a thin package: the public surface, nothing else.

Names are loaded on first use, so that `import rossam_core` costs nothing.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "InferenceConfig": "settings",
    "RossamError": "errors",
    "build_model": "model.build",
    "PromptableSegmenter": "model.segmenter",
    "Predictor": "inference.predictor",
    "ObjectMask": "inference.predictor",
    "mask_iou": "metrics",
    "boundary_iou": "metrics",
    "fit": "training.train",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'rossam_core' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
