"""ROS-SAM (CVPR 2025) as a thin package: the public surface, nothing else.

Names are loaded on first use, so that `import rossam_core` costs nothing.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "load_profile": "config",
    "InferenceConfig": "config",
    "RossamError": "errors",
    "build_model": "model.rossam",
    "PromptableSegmenter": "model.rossam",
    "Predictor": "inference.predictor",
    "ObjectMask": "inference.predictor",
    "mask_iou": "evaluation.metrics",
    "boundary_iou": "evaluation.metrics",
    "evaluate": "evaluation.scoring",
    "fit": "training.loop",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'rossam_core' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
