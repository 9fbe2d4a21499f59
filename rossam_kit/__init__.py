"""The experiments around ROS-SAM: datasets, scoring, statistics, report, conversion.

Names are loaded on first use, so that `import rossam_kit` costs nothing.
"""

import importlib

_HOMES = {
    "load_profile": "config",
    "Experiments": "experiments.experiments",
    "evaluate": "experiments.scoring",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'rossam_kit' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
