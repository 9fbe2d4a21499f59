"""The objects of generated video seen from above: aeroplanes, ships, trains, cars, and those of still scenes.

A `Body` is a stack of coloured outlines in the object's own axes (x forward, y to the right, origin amidships); an
`Actor` moves a body along a `Path`. Sizes are in frame pixels.
The outline of an object in the frame is the union of its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from rossam_kit.datasets.synthetic.geometry import Path, disc, rectangle
from rossam_kit.datasets.synthetic.paint import DRAWING, PALETTES, Canvas, vary

PLANES = DRAWING["planes"]
SHIPS = DRAWING["ships"]
LONGEST_CAR = 7.0
"""Frame pixels; what is longer is a lorry."""


@dataclass(frozen=True)
class Part:
    """One coloured outline."""

    outline: np.ndarray  # N×2
    colour: np.ndarray  # float RGB
    height: float = 0.0  # of its top above ground, for its shadow; 0 casts none
    base: float = 0.0  # of its underside above ground
    round_side: float = 0.0  # half width of a cylinder along x whose sunny side shines; 0 = flat


@dataclass(frozen=True)
class Body:
    """A rigid stack of parts, drawn in order; it rests on its path at two arc lengths, relative to its actor's."""

    parts: tuple[Part, ...]
    front: float
    back: float


@dataclass
class Actor:
    """Something that moves along a path, at `start + speed * t` (t in frames)."""

    object_id: int  # from 1; 0 for clutter that is not annotated
    category: str
    path: Path
    start: float
    speed: float
    bodies: tuple[Body, ...]
    box_only: bool = False  # annotate the box, no mask
    wake: Callable[[Canvas, Actor, float], None] | None = None  # draws on the ground before the shadows, at a time t

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
    """A polygon and its mirror image."""
    points = np.asarray(points, float)
    return [points, points * (1, -1)]


def listed_parts(
    rng: np.random.Generator,
    name: str,
    scale: tuple[float, float],
    paints: Mapping[str, np.ndarray],
    ground: float = 0.0,
    unit: float = 1.0,
) -> list[Part]:
    """The parts that `drawing.yaml` lists under `name`.

    Args:
        rng: draws the colours that are left open there.
        scale: frame pixels per unit of the outlines along x and y.
        paints: colours by the names used there.
        ground: frame pixels above ground at which heights start.
        unit: frame pixels per unit of height.
    """
    parts = []
    for entry in DRAWING["parts"][name]:
        top = ground + unit * entry["top"] if "top" in entry else 0.0
        base, round_side = ground + unit * entry.get("base", 0), scale[1] * entry.get("round", 0)
        for outline in _outlines(entry, np.asarray(scale)):
            parts.append(Part(outline, _colour(rng, entry, paints), top, base, round_side))
    return parts


def _colour(rng: np.random.Generator, entry: dict, paints: Mapping[str, np.ndarray]) -> np.ndarray:
    paint = entry["paint"]
    if isinstance(paint, str):
        paint = paints[paint] if paint in paints else rng.choice(PALETTES[paint])
    colour = np.asarray(paint, float) * entry.get("tone", 1.0)
    return vary(rng, colour, entry["vary"]) if "vary" in entry else colour


def _outlines(entry: dict, scale: np.ndarray) -> Iterator[np.ndarray]:
    """The polygons, N×2 in frame pixels, that one entry stands for; the formats are described in `drawing.yaml`."""
    half, inset = entry.get("width", 0.0) / 2, entry.get("inset", 0.0)
    match entry:
        case {"box": [x0, y0, x1, y1]}:
            count, gap = entry.get("bays", (1, 0.0))
            count = count or max(3, int(scale[0] / 9))
            step = (x1 - x0) / count
            for i in range(count):
                for y in entry.get("rows", (0.0,)):
                    yield rectangle(x0 + i * step, y + y0, x0 + (i + 1 - gap) * step, y + y1) * scale
        case {"half": points}:
            yield mirrored(points) * scale
        case {"pair": points}:
            yield from (polygon * scale for polygon in _both(points))
        case {"oval": radius}:
            yield disc((0, 0), radius) * scale
        case {"disc": [x, radius]}:
            yield disc((x * scale[0], 0), radius * scale[1] - inset, entry.get("corners", 24))
        case {"stadium": radius}:
            bend, r = np.linspace(-np.pi / 2, np.pi / 2, 16), radius * scale[1] - inset
            right = np.stack([scale[0] - scale[1] + r * np.cos(bend), r * np.sin(bend)], axis=1)
            yield np.concatenate([right, -right])
        case {"sector": [x, radius]}:
            arc = np.linspace(-np.pi / 4, np.pi / 4, 20)
            rim = np.stack([x + radius * np.cos(arc), radius * np.sin(arc)], axis=1)
            yield np.concatenate([[(x, 0)], rim]) * scale
        case {"frame": [x, y]}:
            x, y = (x, y) * scale
            yield from (rectangle(side * x - half, -y, side * x + half, y) for side in (-1, 1))
            yield from (rectangle(-x, side * y - half, x, side * y + half) for side in (-1, 1))
        case {"crossbar": y}:
            yield rectangle(-half, -y * scale[1], half, y * scale[1])


def aeroplane(rng: np.random.Generator, length: float, kind: str, colour: np.ndarray) -> list[Part]:
    """Parts of an aeroplane `length` frame pixels long; its nose points to +x."""
    plane, height = PLANES[kind], 0.11 * length
    wing_colour = vary(rng, colour * rng.uniform(0.84, 0.97), 3, 1)
    livery = vary(rng, rng.choice(PALETTES["liveries"]), 12) if rng.random() < 0.7 else wing_colour
    paints, scale = {"hull": colour, "livery": livery}, (length, length)
    parts = []

    def add(outlines: list[np.ndarray], colour: np.ndarray, top: float = 0.0, base: float = 0.0) -> None:
        parts.extend(Part(outline * length, colour, top * height, base * height) for outline in outlines)

    for nacelle in _nacelles(plane):
        add(_both(nacelle), colour * 0.88, 0.6, 0.2)
    wing, flap = _wing(plane)
    for half_wing, half_flap in zip(_both(wing), _both(flap), strict=True):
        add([half_wing], wing_colour, 0.6, 0.4)
        add([half_flap], wing_colour * 0.9)
    if plane["rear_engines"]:
        parts += listed_parts(rng, "plane pods", scale, paints, unit=height)
    tip = plane["tail_span"] / 2
    add(_both([(-0.385, 0), (-0.445, tip), (-0.49, tip), (-0.475, 0)]), wing_colour, 0.8, 0.65)
    fuselage = _fuselage(plane["fuselage"]) * length
    parts.append(Part(fuselage, colour, height, 0.3 * height, plane["fuselage"] * length))
    parts += listed_parts(rng, "plane fin", scale, paints, unit=height)
    if rng.random() < 0.35:
        stripe = 0.4 * plane["fuselage"]
        add([mirrored([(0.10, stripe), (-0.3, stripe)])], livery)
    return parts


def _leading_edge(plane: dict, share: float) -> float:
    """x of the wing's leading edge at a share of the half span."""
    return plane["wing_x"] - plane["sweep"] * plane["span"] / 2 * share


def _wing(plane: dict) -> tuple[np.ndarray, np.ndarray]:
    """Right wing and the flap on it, in lengths; the trailing edge runs straight out as far as a kink."""
    half, kink = plane["span"] / 2, 0.33 * (plane["span"] / 2)
    root, tip = plane["wing_x"], _leading_edge(plane, 1.0)
    root_trailing, tip_trailing = root - plane["chord"], tip - plane["chord"] * plane["taper"]
    trailing = root_trailing - (0.02 if plane["sweep"] > 0.2 else 0.0)
    wing = [(root + 0.03, 0), (_leading_edge(plane, 0.33), kink), (tip, 0.98 * half), (tip - 0.012, half)]
    wing += [(tip_trailing, half), (trailing, kink), (root_trailing - 0.02, 0)]
    flap = [(trailing + 0.03, 0.1 * half), (trailing + 0.03, kink), (tip_trailing + 0.02, 0.9 * half)]
    flap += [(tip_trailing + 0.005, 0.9 * half), (trailing + 0.005, kink), (trailing + 0.005, 0.1 * half)]
    return np.array(wing), np.array(flap)


def _nacelles(plane: dict) -> Iterator[np.ndarray]:
    """The engines under the right wing, in lengths."""
    radius = 0.030 if plane["sweep"] > 0.2 else 0.022
    outline = np.array([(0.05, -0.8), (0.05, 0.8), (0.01, 1), (-0.06, 0.8), (-0.06, -0.8), (0.01, -1)])
    for share in plane["engines"]:
        yield outline * (1, radius) + (_leading_edge(plane, share), share * (plane["span"] / 2))


def _fuselage(half_width: float) -> np.ndarray:
    """Outline in lengths: a rounded nose, a straight middle, a tapered tail."""
    x = np.concatenate([0.5 - 0.11 * (1 - np.cos(np.linspace(0, np.pi / 2, 7))), np.linspace(0.2, -0.5, 9)])
    stations = [-0.5, -0.495, -0.48, -0.45, -0.41, 0.2, 0.34, 0.44, 0.5]  # from the nose
    profile = np.interp(-x, stations, [0.12, 0.3, 0.52, 0.78, 1.0, 1.0, 0.8, 0.45, 0.14])
    return mirrored(np.stack([x, profile * half_width], axis=1))


def ship(rng: np.random.Generator, length: float, kind: str, colour: np.ndarray) -> list[Part]:
    """Parts of a ship `length` frame pixels long; the bow points to +x. `colour` is the hull's."""
    form = SHIPS[kind]
    half = length / form["slenderness"] / 2 * rng.uniform(0.92, 1.08)
    hull = _hull(form["bow"], form["stern"]) * (length, half)
    freeboard = 0.35 * half + 0.6
    deck = vary(rng, 0.5 * np.asarray(form["deck"]) + 0.5 * colour, 10)
    paints = {"deck": deck, "white": vary(rng, (222, 222, 218), 8)}
    parts = [Part(hull, colour, freeboard), Part(hull * (0.965, 0.82), deck)]
    return parts + listed_parts(rng, kind, (length, half), paints, freeboard, half)


def _hull(bow: float, stern: float) -> np.ndarray:
    """Pointed bow (convex flare over the share `bow`), parallel middle, `stern` of the beam wide; x in lengths."""
    u = np.linspace(0, 1, 9)
    flare = np.stack([0.5 - bow * u, np.sin(u * np.pi / 2) ** 0.9], axis=1)
    rest = np.array([(-0.3, 1.0), (-0.45, 0.5 + 0.5 * stern), (-0.49, stern * 0.9), (-0.5, stern * 0.7)])
    return mirrored(np.concatenate([flare, rest]))


def train(rng: np.random.Generator, width: float, length: float, kind: str, colour: np.ndarray) -> tuple[Body, ...]:
    """Wagons coupled into a train about `length` long; each wagon's two ends follow the track.

    Couplings are part of the train: they join the wagons' outlines into one.
    """
    wagon = width * {"passenger": rng.uniform(3.2, 5.2), "freight": rng.uniform(2.3, 3.5)}[kind]
    count = max(2, round(length / wagon))
    wagon = length / count
    gap = max(0.8, 0.16 * width)
    second = vary(rng, colour * 0.8, 14, 6)
    loads = ["hopper", "tank", "container"]
    freight = rng.choice(["mixed", *loads], p=[0.4, 0.25, 0.15, 0.2])
    bodies = []
    for i in range(count):
        end = {0: "front", count - 1: "back"}.get(i, "middle")
        if kind == "passenger":
            parts = _coach(rng, wagon - gap, width, end, colour, second)
        elif i == 0:
            locomotive = vary(rng, rng.choice(PALETTES["liveries"]), 10)
            parts = _coach(rng, wagon - gap, width, "middle", locomotive, second)
        else:
            load = rng.choice(loads) if freight == "mixed" else freight
            parts = _freight_wagon(rng, wagon - gap, width, load, colour)
        # the coupling reaches over to the next wagon but does not stick out of the train's ends
        reach, inner = wagon / 2 + gap, wagon / 2 - 1
        back, front = -inner if end == "back" else -reach, inner if end == "front" else reach
        coupling = Part(rectangle(back, -0.3 * width, front, 0.3 * width), np.array([58.0, 56, 54]))
        middle = length / 2 - (i + 0.5) * wagon
        bodies.append(Body((coupling, *parts), middle + 0.4 * wagon, middle - 0.4 * wagon))
    return tuple(bodies)


def _coach(rng: np.random.Generator, length: float, width: float, end: str, colour, second) -> list[Part]:
    """A passenger coach or locomotive, pointed where it is the train's front or back end."""
    half, h = length / 2, width / 2
    nose = min(1.3 * width, 0.4 * length)
    pointed = [(half, 0.25 * h), (half - 0.35 * nose, 0.75 * h), (half - nose, h)]
    front = pointed if end == "front" else [(half, 0.96 * h)]
    rear = [(-x, y) for x, y in reversed(pointed)] if end == "back" else [(-half, 0.96 * h)]
    parts = [Part(mirrored(front + rear), colour, width, 0.0, h)]
    parts += listed_parts(rng, "coach roof", (half, h), {"second": second})
    for x in (-0.25 * length, 0.2 * length):
        parts.append(Part(rectangle(x - 0.8 * h, -0.4 * h, x + 0.8 * h, 0.4 * h), colour * 0.86))
    return parts


def _freight_wagon(rng: np.random.Generator, length: float, width: float, load: str, colour) -> list[Part]:
    if load == "hopper":
        paints = {"wagon": vary(rng, colour, 8), "load": vary(rng, (66, 62, 60), 10)}
    elif load == "tank":
        paints = {"load": vary(rng, (176, 176, 172), 16), "wagon": vary(rng, (84, 82, 80))}
    else:
        paints = {"load": vary(rng, rng.choice(PALETTES["containers"]), 12), "wagon": vary(rng, (96, 92, 88))}
    return listed_parts(rng, f"{load} wagon", (length / 2, width / 2), paints, unit=width)


def car(rng: np.random.Generator, length: float) -> list[Part]:
    """A car or, beyond `LONGEST_CAR`, a lorry; its shell comes first."""
    body = vary(rng, rng.choice(PALETTES["cars"]), 12)
    half_width = (0.23 if length < LONGEST_CAR else 0.17) * length
    return listed_parts(rng, "car", (length / 2, half_width), {"body": body}, unit=length)
