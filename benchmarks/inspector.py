"""How long the inspector takes to answer: a moved threshold, a moved box, another object, for one method and for all.

The time is that of the kernel, from the changed control to the bytes of all pictures; what the browser needs comes on
top. Usage: python benchmarks/inspector.py [PROFILE [ROUNDS]]
"""

import sys
import time

import numpy as np
import torch

from rossam_core import load_profile
from rossam_core.evaluation.experiments import Experiments
from rossam_core.reporting.style import label
from rossam_core.reporting.widgets import inspect


def milliseconds(act, rounds: int) -> np.ndarray:
    """Times of `act(i)` for i below `rounds`, the first two left out."""
    times = []
    for i in range(rounds + 2):
        started = time.perf_counter()
        act(i)
        times.append(1000 * (time.perf_counter() - started))
    return np.array(times[2:])


def main(profile: str = "demo", rounds: int = 30) -> None:
    settings = load_profile(profile)
    inspector = inspect(Experiments(settings), order="data")
    if inspector.error.value:
        sys.exit(inspector.error.value)
    methods = list(inspector.ticks)
    choices = {label(method): {method} for method in methods} | {"all of them": set(methods)}
    actions = {
        "threshold": lambda i: setattr(inspector.threshold, "value", 0.5 + 0.1 * (i % 7)),
        "box in its window": lambda i: setattr(inspector.sides[0], "value", inspector.focus.own_box[0] - 1 - i % 3),
        "another object": lambda i: inspector.step(1),
    }
    print(f"{settings.model.backbone}, {torch.get_num_threads()} threads, median and 90th percentile of {rounds}, ms")
    for name, chosen in choices.items():
        for method in sorted(methods, key=lambda m: m not in chosen):  # tick before the last one is unticked
            inspector.ticks[method].value = method in chosen
        for action, act in actions.items():
            middle, high = np.quantile(milliseconds(act, rounds), [0.5, 0.9])
            print(f"{name:<14}{action:<20}{middle:8.1f}{high:8.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
