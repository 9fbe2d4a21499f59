"""The objects of synthetic satellite video: aeroplanes, ships, trains and cars seen from above.

A `Body` is a stack of coloured outlines in the object's own axes (x forward, y to the right, origin amidships); an
`Actor` moves a body along a `Path`. Sizes are in frame pixels.
The outline of an object in the frame is the union of its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rossam_kit.datasets.synthetic.paint import Canvas, Path, rectangle, vary

_LIVERIES = np.array(
    [(60, 84, 140), (170, 58, 56), (62, 120, 96), (226, 150, 62), (40, 52, 74), (120, 120, 126)], float
)
_CONTAINERS = np.array(
    [(150, 62, 52), (62, 92, 140), (176, 150, 80), (92, 126, 104), (190, 190, 186), (120, 84, 66)], float
)


@dataclass(frozen=True)
class Part:
    """One coloured outline.

    Attributes:
        outline: N×2.
        colour: float RGB.
        height: of its top above ground in frame pixels, for its shadow; 0 casts none.
        base: of its underside above ground.
        round_side: half width of a cylinder along x whose sunny side shines; 0 = flat.
    """

    outline: np.ndarray
    colour: np.ndarray
    height: float = 0.0
    base: float = 0.0
    round_side: float = 0.0


@dataclass(frozen=True)
class Body:
    """A rigid stack of parts, drawn in order; it rests on its path at two arc lengths, relative to its actor's."""

    parts: tuple[Part, ...]
    front: float
    back: float


@dataclass
class Actor:
    """Something that moves along a path, at `start + speed * t` (frame pixels, t in frames).

    Attributes:
        object_id: from 1; 0 for clutter that is not annotated.
        box_only: annotate the box, no mask.
        wake: draws on the ground before the shadows, given canvas, actor and t.
    """

    object_id: int
    category: str
    path: Path
    start: float
    speed: float
    bodies: tuple[Body, ...]
    box_only: bool = False
    wake: Callable[[Canvas, Actor, float], None] | None = None

    def arc(self, t: float) -> float:
        return self.start + self.speed * t

    def placed_parts(self, t: float) -> list[tuple[Part, np.ndarray, np.ndarray]]:
        """(part, outline in the frame, unit vector to the body's right) at time t, in drawing order."""
        placed = []
        for body in self.bodies:
            s = self.arc(t)
            ahead, behind = self.path.at(s + body.front), self.path.at(s + body.back)
            forward = (ahead - behind) / np.linalg.norm(ahead - behind)
            right = np.array([-forward[1], forward[0]])
            axes = np.stack([forward, right])
            middle = (ahead + behind) / 2
            placed += [(part, part.outline @ axes + middle, right) for part in body.parts]
        return placed

    def cast(self, canvas: Canvas, t: float) -> None:
        for part, outline, _ in self.placed_parts(t):
            if part.height > 0 and canvas.sees(outline, 2 * part.height):
                canvas.cast(outline, part.height, part.base)

    def draw(self, canvas: Canvas, t: float) -> None:
        """Paint the object and write its id into the canvas's labels."""
        light = canvas.light
        for part, outline, right in self.placed_parts(t):
            if not canvas.sees(outline):
                continue
            if not part.round_side:
                canvas.fill(outline, part.colour, grain=2.5, label=self.object_id)
                continue
            side = float(np.dot(right, light.towards_sun))
            canvas.fill(outline, part.colour * (1 - 0.22 * light.strength * abs(side)), grain=2, label=self.object_id)
            # the lit strip: the outline squeezed about its axis and moved towards the sun, so it stays inside
            centre = outline.mean(axis=0)
            across = (outline - centre) @ right
            lit = outline + np.outer(-0.5 * across + 0.4 * side * part.round_side, right)
            canvas.fill(lit, np.minimum(part.colour * 1.06, 250), grain=2, label=self.object_id)


def rigid(parts: list[Part]) -> tuple[Body, ...]:
    """One body whose heading is the path's tangent."""
    return (Body(tuple(parts), 0.5, -0.5),)


def mirrored(points) -> np.ndarray:
    """A closed outline from its right half, given from bow to stern."""
    points = np.asarray(points, float)
    return np.concatenate([points, (points * (1, -1))[::-1]])


def _both(points) -> list[np.ndarray]:
    points = np.asarray(points, float)
    return [points, points * (1, -1)]


# ---------------------------------------------------------------------------------------------- aeroplanes


@dataclass(frozen=True)
class PlaneType:
    """Proportions, as fractions of the length."""

    span: float
    fuselage: float  # half width
    wing_x: float  # leading edge at the root, from amidships
    chord: float
    taper: float  # tip chord / root chord
    sweep: float  # tip's leading edge behind the root's, as a fraction of the half span
    engines: tuple[float, ...]  # on the half wing, as fractions of the half span
    tail_span: float
    rear_engines: bool = False


PLANES = {
    "narrow": PlaneType(0.94, 0.052, 0.13, 0.20, 0.28, 0.50, (0.33,), 0.36),
    "wide": PlaneType(0.96, 0.049, 0.14, 0.21, 0.22, 0.58, (0.32,), 0.34),
    "four-engined": PlaneType(1.0, 0.050, 0.16, 0.22, 0.22, 0.66, (0.33, 0.62), 0.34),
    "regional": PlaneType(0.82, 0.052, 0.04, 0.17, 0.32, 0.42, (), 0.30, True),
    "turboprop": PlaneType(1.02, 0.055, 0.10, 0.12, 0.60, 0.06, (0.30,), 0.34),
    "business": PlaneType(0.92, 0.058, 0.06, 0.17, 0.30, 0.45, (), 0.34, True),
    "delta": PlaneType(0.66, 0.058, 0.16, 0.50, 0.18, 1.15, (), 0.34),
}


def aeroplane(rng: np.random.Generator, length: float, kind: str, colour: np.ndarray) -> list[Part]:
    """Parts of an aeroplane `length` frame pixels long; its nose points to +x."""
    k = PLANES[kind]
    wing_colour = vary(rng, colour * rng.uniform(0.84, 0.97), 3, 1)
    livery = vary(rng, rng.choice(_LIVERIES), 12) if rng.random() < 0.7 else wing_colour
    height = 0.11 * length
    half = k.span / 2

    def chord_at(share: float) -> tuple[float, float]:
        leading = k.wing_x - k.sweep * half * share
        return leading, leading - k.chord * (1 - (1 - k.taper) * share)

    parts = []
    kink = 0.33  # the trailing edge runs straight out as far as here
    lead_kink, _ = chord_at(kink)
    root_trailing = k.wing_x - k.chord
    trail_kink = root_trailing - (0.02 if k.sweep > 0.2 else 0.0)
    lead_tip, trail_tip = chord_at(1.0)
    wing = [
        (k.wing_x + 0.03, 0),
        (lead_kink, kink * half),
        (lead_tip, 0.98 * half),
        (lead_tip - 0.012, half),
        (trail_tip, half),
        (trail_kink, kink * half),
        (root_trailing - 0.02, 0),
    ]
    flap = [
        (trail_kink + 0.03, 0.1 * half),
        (trail_kink + 0.03, kink * half),
        (trail_tip + 0.02, 0.9 * half),
        (trail_tip + 0.005, 0.9 * half),
        (trail_kink + 0.005, kink * half),
        (trail_kink + 0.005, 0.1 * half),
    ]
    tail = [(-0.385, 0), (-0.445, k.tail_span / 2), (-0.49, k.tail_span / 2), (-0.475, 0)]
    for share in k.engines:
        lead, _ = chord_at(share)
        radius, y = (0.030 if k.sweep > 0.2 else 0.022), share * half
        nacelle = [
            (lead + 0.05, y - 0.8 * radius),
            (lead + 0.05, y + 0.8 * radius),
            (lead + 0.01, y + radius),
            (lead - 0.06, y + 0.8 * radius),
            (lead - 0.06, y - 0.8 * radius),
            (lead + 0.01, y - radius),
        ]
        parts += [Part(o, colour * 0.88, 0.6 * height, 0.2 * height) for o in _both(nacelle)]
    for outline, detail in zip(_both(wing), _both(flap), strict=True):
        parts += [Part(outline, wing_colour, height * 0.6, height * 0.4), Part(detail, wing_colour * 0.9)]
    if k.rear_engines:
        pod = [(-0.24, 0.045), (-0.24, 0.085), (-0.36, 0.08), (-0.36, 0.045)]
        parts += [Part(o, colour * 0.85, 0.7 * height, 0.4 * height) for o in _both(pod)]
    parts += [Part(o, wing_colour, height * 0.8, height * 0.65) for o in _both(tail)]
    x = np.concatenate([0.5 - 0.11 * (1 - np.cos(np.linspace(0, np.pi / 2, 7))), np.linspace(0.2, -0.5, 9)])
    profile = np.interp(
        -x,
        [-0.5, -0.495, -0.48, -0.45, -0.41, 0.2, 0.34, 0.44, 0.5],
        [0.12, 0.3, 0.52, 0.78, 1.0, 1.0, 0.8, 0.45, 0.14],
    )
    parts.append(Part(mirrored(np.stack([x, profile * k.fuselage], axis=1)), colour, height, 0.3 * height, k.fuselage))
    parts.append(Part(mirrored([(-0.36, 0.006), (-0.42, 0.011), (-0.5, 0.008)]), livery, 2.2 * height, height))
    if rng.random() < 0.35:
        parts.append(Part(mirrored([(0.10, 0.4 * k.fuselage), (-0.3, 0.4 * k.fuselage)]), livery))
    return [Part(p.outline * length, p.colour, p.height, p.base, p.round_side * length) for p in parts]


# --------------------------------------------------------------------------------------------------- ships


SHIPS = {"container": 7.0, "tanker": 6.2, "bulk": 6.4, "ferry": 5.4, "naval": 8.2, "barge": 4.6, "boat": 3.4}
"""Kinds of ships and their length as a multiple of their beam."""


def ship(rng: np.random.Generator, length: float, kind: str, colour: np.ndarray) -> list[Part]:
    """Parts of a ship `length` frame pixels long; the bow points to +x. `colour` is the hull's."""
    half = length / SHIPS[kind] / 2 * rng.uniform(0.92, 1.08)
    nose = {"barge": 0.06, "naval": 0.42, "boat": 0.45}.get(kind, 0.20)
    hull = _hull(length, half, nose, 0.85 if kind in ("naval", "boat") else 0.94)
    freeboard = 0.35 * half + 0.6
    deck_tint = {
        "tanker": (150, 84, 72),
        "bulk": (134, 96, 86),
        "ferry": (206, 206, 202),
        "naval": (132, 138, 142),
        "barge": (112, 106, 98),
        "boat": (200, 198, 192),
        "container": (122, 98, 90),
    }[kind]
    deck = vary(rng, 0.5 * np.asarray(deck_tint) + 0.5 * colour, 10)
    parts = [Part(hull, colour, freeboard), Part(hull * (0.965, 0.82), deck)]
    white = vary(rng, (222, 222, 218), 8)

    def block(x0, x1, share, tint, height, y=0.0):
        outline = rectangle(x0 * length, (y - share) * half, x1 * length, (y + share) * half)
        parts.append(Part(outline, tint, height, freeboard))

    if kind == "container":
        bays = max(3, int(length / 9))
        for left, right in _bays(-0.24, 0.34, bays, 0.12):
            for row in np.linspace(-0.6, 0.6, 4):
                block(left, right, 0.19, vary(rng, rng.choice(_CONTAINERS), 12), freeboard + 0.3 * half, row)
        block(-0.36, -0.27, 0.72, white, freeboard + 1.2 * half)
    elif kind == "tanker":
        block(-0.28, 0.36, 0.07, deck * 0.7, freeboard)
        for x in np.linspace(-0.2, 0.3, 4):
            block(x, x + 0.012, 0.7, deck * 0.78, freeboard)
        block(-0.42, -0.31, 0.7, white, freeboard + 1.1 * half)
        block(-0.45, -0.42, 0.3, vary(rng, (70, 66, 66)), freeboard + 1.3 * half)
    elif kind == "bulk":
        for left, right in _bays(-0.26, 0.36, 5, 0.25):
            block(left, right, 0.5, vary(rng, deck * 1.18, 6), freeboard + 0.1 * half)
        block(-0.42, -0.31, 0.68, white, freeboard + 1.1 * half)
    elif kind == "ferry":
        block(-0.42, 0.26, 0.72, white, freeboard + 0.7 * half)
        block(-0.3, 0.16, 0.42, white * 0.9, freeboard + 1.0 * half)
        block(-0.16, -0.08, 0.2, vary(rng, rng.choice(_LIVERIES), 8), freeboard + 1.4 * half)
    elif kind == "naval":
        block(-0.22, 0.16, 0.52, deck * 1.12, freeboard + 0.7 * half)
        block(-0.05, 0.10, 0.34, deck * 1.2, freeboard + 1.2 * half)
        block(-0.46, -0.28, 0.5, deck * 0.86, freeboard)
    elif kind == "barge":
        block(-0.44, 0.42, 0.7, vary(rng, (92, 84, 76), 18), freeboard + 0.1 * half)
    else:
        block(-0.30, 0.06, 0.56, white, freeboard + 0.5 * half)
        block(-0.02, 0.05, 0.5, vary(rng, (74, 82, 92)), freeboard + 0.5 * half)
    return parts


def _hull(length: float, half: float, nose: float, stern: float) -> np.ndarray:
    """Pointed bow (convex flare over `nose` of the length), parallel middle, stern `stern` of the beam wide."""
    u = np.linspace(0, 1, 9)
    bow = np.stack([0.5 - nose * u, np.sin(u * np.pi / 2) ** 0.9], axis=1)
    rest = np.array([(-0.3, 1.0), (-0.45, 0.5 + 0.5 * stern), (-0.49, stern * 0.9), (-0.5, stern * 0.7)])
    return mirrored(np.concatenate([bow, rest])) * (length, half)


def _bays(x0: float, x1: float, count: int, gap: float) -> list[tuple[float, float]]:
    step = (x1 - x0) / count
    return [(x0 + i * step, x0 + (i + 1 - gap) * step) for i in range(count)]


# -------------------------------------------------------------------------------------------------- trains


def train(rng: np.random.Generator, width: float, length: float, kind: str, colour: np.ndarray) -> tuple[Body, ...]:
    """Wagons coupled into a train about `length` long; each wagon's two ends follow the track.

    Couplings are part of the train: they join the wagons' outlines into one.
    """
    wagon = width * {"passenger": rng.uniform(3.2, 5.2), "freight": rng.uniform(2.3, 3.5)}[kind]
    count = max(2, round(length / wagon))
    wagon = length / count
    gap = max(0.8, 0.16 * width)
    second = vary(rng, colour * 0.8, 14, 6)
    freight = rng.choice(["mixed", "hopper", "tank", "container"], p=[0.4, 0.25, 0.15, 0.2])
    height = 1.0 * width
    coupling = Part(rectangle(-wagon / 2 - gap, -0.3 * width, wagon / 2 + gap, 0.3 * width), np.array([58.0, 56, 54]))
    bodies = []
    for i in range(count):
        end = {0: "front", count - 1: "back"}.get(i, "middle")
        if kind == "passenger":
            parts = _coach(wagon - gap, width, end, colour, second, height)
        elif i == 0:
            parts = _coach(wagon - gap, width, "middle", vary(rng, rng.choice(_LIVERIES), 10), second, height)
        else:
            load = rng.choice(["hopper", "tank", "container"]) if freight == "mixed" else freight
            parts = _freight_wagon(rng, wagon - gap, width, load, colour, height)
        middle = length / 2 - (i + 0.5) * wagon
        joint = Part(coupling.outline.clip(*_joint_bounds(end, wagon)), coupling.colour)
        bodies.append(Body((joint, *parts), middle + 0.4 * wagon, middle - 0.4 * wagon))
    return tuple(bodies)


def _joint_bounds(end: str, wagon: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Bounds that keep the coupling from sticking out of the train's two ends."""
    inner = wagon / 2 - 1
    low, high = -inner if end == "back" else -np.inf, inner if end == "front" else np.inf
    return (low, -np.inf), (high, np.inf)


def _coach(length: float, width: float, end: str, colour, second, height: float) -> list[Part]:
    half, h = length / 2, width / 2
    nose = min(1.3 * width, 0.4 * length)
    pointed = [(half, 0.25 * h), (half - 0.35 * nose, 0.75 * h), (half - nose, h)]
    front = pointed if end == "front" else [(half, 0.96 * h)]
    rear = [(-x, y) for x, y in reversed(pointed)] if end == "back" else [(-half, 0.96 * h)]
    parts = [Part(mirrored(front + rear), colour, height, 0.0, h)]
    for y in (-0.72 * h, 0.72 * h):
        parts.append(Part(rectangle(-0.42 * length, y - 0.1 * h, 0.42 * length, y + 0.1 * h), second))
    for x in (-0.25 * length, 0.2 * length):
        parts.append(Part(rectangle(x - 0.8 * h, -0.4 * h, x + 0.8 * h, 0.4 * h), colour * 0.86))
    return parts


def _freight_wagon(
    rng: np.random.Generator, length: float, width: float, load: str, colour, height: float
) -> list[Part]:
    half, h = length / 2, width / 2
    box = rectangle(-half, -0.95 * h, half, 0.95 * h)
    if load == "hopper":
        return [Part(box, vary(rng, colour, 8), height), Part(box * (0.93, 0.72), vary(rng, (66, 62, 60), 10))]
    if load == "tank":
        barrel = Part(box * (0.94, 0.8), vary(rng, (176, 176, 172), 16), height, 0, h)
        return [Part(box, vary(rng, (84, 82, 80)), 0.4 * height), barrel]
    tint = vary(rng, rng.choice(_CONTAINERS), 12)
    return [Part(box, vary(rng, (96, 92, 88)), 0.3 * height), Part(box * (0.93, 0.92), tint, height)]


# ---------------------------------------------------------------------------------------------------- cars

_CAR_PAINTS = np.array(
    [(226, 226, 222), (200, 198, 194), (60, 62, 68), (150, 50, 48), (70, 84, 120), (140, 140, 140)], float
)


LONGEST_CAR = 7.0
"""Frame pixels; what is longer is a lorry."""


def car(rng: np.random.Generator, length: float) -> list[Part]:
    """A car or, beyond `LONGEST_CAR`, a lorry; its shell comes first."""
    colour = vary(rng, rng.choice(_CAR_PAINTS), 12)
    half, h = length / 2, (0.23 if length < LONGEST_CAR else 0.17) * length
    shell = mirrored([(half, 0.7 * h), (0.8 * half, h), (-0.9 * half, h), (-half, 0.8 * h)])
    windscreen = rectangle(0.1 * half, -0.75 * h, 0.45 * half, 0.75 * h)
    return [Part(shell, colour, 0.3 * length), Part(windscreen, colour * 0.5)]
