"""How long the inspector takes to answer: a moved threshold, a moved box, another object, for one method and for all.

The time is that of the kernel, from the changed control to the bytes of all pictures; what the browser needs comes on
top. The processor's time, summed over threads, means something on a busy machine, too. A BACKBONE that is named gets
random weights: it costs the same with any.
Usage: python benchmarks/inspector.py [PROFILE [ROUNDS [BACKBONE]]]
"""

import sys
import time

import numpy as np
import torch

from rossam_kit import load_profile
from rossam_kit.experiments.experiments import Experiments
from rossam_kit.inspector.widgets import Inspector, experiments_source
from rossam_kit.report.style import label


def milliseconds(act, rounds: int) -> np.ndarray:
    """Wall and processor time of `act(i)` for i below `rounds`, rounds×2; the first two calls are left out."""
    times = []
    for i in range(rounds + 2):
        started = time.perf_counter(), time.process_time()
        act(i)
        times.append([time.perf_counter() - started[0], time.process_time() - started[1]])
    return 1000 * np.array(times[2:])


def main(profile: str = "demo", rounds: int = 30, backbone: str = "") -> None:
    other = {"model.backbone": backbone, "model.checkpoint": None} if backbone else {}
    settings = load_profile(profile, other)
    inspector = Inspector(experiments_source(Experiments(settings)), order="data")
    if inspector.error.value:
        sys.exit(inspector.error.value)
    methods = list(inspector.ticks)
    choices = {label(method): {method} for method in methods} | {"all of them": set(methods)}
    actions = {
        "threshold": lambda i: setattr(inspector.threshold, "value", 0.5 + 0.1 * (i % 7)),
        "box in its window": lambda i: setattr(inspector.sides[0], "value", inspector.focus.own_box[0] - 1 - i % 3),
        "another object": lambda i: inspector.step(1),
    }
    print(f"{settings.model.backbone}, {torch.get_num_threads()} threads, of {rounds} rounds, in ms:")
    print(f"{'':<34}{'median':>8}{'90th %':>8}{'CPU':>8}")
    for name, chosen in choices.items():
        for method in sorted(methods, key=lambda m: m not in chosen):  # tick before the last one is unticked
            inspector.ticks[method].value = method in chosen
        for action, act in actions.items():
            (middle, processor), (high, _) = np.quantile(milliseconds(act, rounds), [0.5, 0.9], axis=0)
            print(f"{name:<14}{action:<20}{middle:8.1f}{high:8.1f}{processor:8.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]), *sys.argv[3:4])
