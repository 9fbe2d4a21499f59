"""The world of a synthetic video (place, light, ground resolution) and its scene (background, actors, overlay).

A scene can be drawn at any time t.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rossam_kit.datasets.synthetic.objects import Actor, Part
from rossam_kit.datasets.synthetic.paint import Canvas, Light, Place, vary

MAX_SPEED = 4.0
"""Frame pixels an object moves between successive frames, at most."""


@dataclass(frozen=True)
class World:
    """What a whole video shares.

    Attributes:
        size_hw: frame size.
        metres: ground resolution, metres a frame pixel.
        camouflage: 0 to 1, how far objects take the colour of their ground.
        frames: moments of the video.
    """

    size_hw: tuple[int, int]
    place: Place
    light: Light
    metres: float
    camouflage: float
    frames: int

    def paint_of(self, rng: np.random.Generator, colour, ground) -> np.ndarray:
        """`colour` drawn towards `ground` by the world's camouflage."""
        share = self.camouflage * rng.uniform(0.55, 0.9)
        return vary(rng, (1 - share) * np.asarray(colour, float) + share * np.asarray(ground, float), 5, 2)


@dataclass
class Scene:
    """A painted background and what moves over it; overlay parts hide objects and belong to none."""

    canvas: Canvas
    actors: list[Actor] = field(default_factory=list)
    overlay: list[Part] = field(default_factory=list)

    def draw(self, t: float) -> Canvas:
        """The canvas at moment `t`: ground, wakes, shadows, objects, overlay."""
        canvas = self.canvas.copy()
        for actor in self.actors:
            if actor.wake is not None:
                actor.wake(canvas, actor, t)
        for actor in self.actors:
            actor.cast(canvas, t)
        for part in self.overlay:
            canvas.cast(part.outline, part.height, part.base)
        canvas.settle_shadows()
        for actor in self.actors:
            actor.draw(canvas, t)
        for part in self.overlay:
            canvas.fill(part.outline, part.colour, grain=4, label=0)
        return canvas


def numbered(actors: list[Actor], canvas: Canvas, frames: int) -> list[Actor]:
    """Those ever in sight, annotated ones numbered from 1."""
    kept, number = [], 0
    for actor in actors:
        slack = 2 + actor.speed * frames / 4  # what the actor moves between two of the three moments looked at
        moments = [actor.placed_parts(t) for t in (0, frames / 2, frames)]
        if not any(canvas.sees(outline, slack) for parts in moments for _, outline, _ in parts):
            continue
        if actor.object_id:
            number += 1
            actor.object_id = number
        kept.append(actor)
    return kept
