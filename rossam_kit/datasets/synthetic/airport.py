"""The airport scene: terminal, apron, taxiway and runway with parked and taxiing aeroplanes.

Boarding bridges touch the parked planes and lie over them;
they, service vehicles and shadows are background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rossam_kit.datasets.synthetic.ground import (
    Solid,
    Trees,
    build,
    paint_car_park,
    paint_ground,
    paint_road,
    plan_town,
    plan_woods,
)
from rossam_kit.datasets.synthetic.objects import Actor, Part, aeroplane, car, rigid
from rossam_kit.datasets.synthetic.paint import Canvas, Path, disc, rectangle, rotation, unit, vary
from rossam_kit.datasets.synthetic.world import Scene, World, numbered

_PLANE_METRES = {
    "narrow": (34, 45), "wide": (55, 70), "four-engined": (62, 73), "regional": (26, 36), "turboprop": (22, 30),
    "business": (14, 22), "delta": (15, 22),
}  # fmt: skip
_At = Callable[[object], np.ndarray]
_FUSELAGES = np.array([(236, 236, 234), (224, 224, 224), (206, 210, 214), (184, 188, 192)], float)
_YELLOW = np.array([196.0, 172, 88])
_WHITE = np.array([214.0, 212, 206])


@dataclass(frozen=True)
class _Plan:
    """Where the strips of an airport lie: v grows from the terminal's front (0) to the runway, u runs along it.

    Lengths in frame pixels. `at` takes (u, v) points, N×2, to the frame; u is shown from -reach to reach.
    """

    turn: np.ndarray
    origin: np.ndarray
    reach: float
    apron: float
    lane: float
    grass: float
    runway: float
    concrete: np.ndarray
    asphalt: np.ndarray

    def at(self, points) -> np.ndarray:
        return np.asarray(points, float) @ self.turn.T + self.origin

    def along(self, v: float) -> Path:
        return Path(self.at([(-self.reach, v), (self.reach, v)]))

    @property
    def taxi_v(self) -> float:
        return self.apron + self.lane / 2

    @property
    def runway_v(self) -> float:
        return self.apron + self.lane + self.grass + self.runway / 2

    @property
    def end(self) -> float:
        return self.runway_v + self.runway / 2


def airport(rng: np.random.Generator, world: World) -> Scene:
    """Terminal, apron with parked planes, taxiway and runway in parallel strips, turned as a whole."""
    canvas = Canvas.blank(world.size_hw, world.light, rng)
    paint_ground(canvas, rng, world.place, 90)
    plan = _sample_plan(rng, world)
    _paint_strips(canvas, rng, world, plan)
    solids, trees = _landside(canvas, rng, world, plan)
    actors, overlay = _first_row(canvas, rng, world, plan, solids[0].colour)
    actors += _taxiing(rng, world, plan.along(plan.taxi_v), plan, int(rng.integers(1, 4)))
    if rng.random() < 0.5:
        actors += _taxiing(rng, world, plan.along(plan.runway_v), plan, 1)
    if rng.random() < 0.4:
        actors += _light_aircraft(canvas, rng, world, plan)
    build(canvas, rng, solids, trees, world.place)
    return Scene(canvas, numbered(actors, canvas, world.frames), overlay)


def _sample_plan(rng: np.random.Generator, world: World) -> _Plan:
    height, width = world.size_hw
    m = world.metres
    turn = rotation(rng.uniform(0, 2 * np.pi))
    apron, lane, grass = rng.uniform(75, 118) / m, 26 / m, rng.uniform(45, 65) / m
    shown = rng.choice([0.3, 0.5, 0.9]) * apron + rng.uniform(-12, 12)
    if rng.random() < 0.12:
        shown = apron + lane + grass * rng.uniform(0.3, 1)
    return _Plan(
        turn=turn,
        origin=np.array([width, height]) / 2 - np.array([0, shown]) @ turn.T,
        reach=0.75 * np.hypot(width, height) + 20,
        apron=apron,
        lane=lane,
        grass=grass,
        runway=48 / m,
        concrete=vary(rng, world.place.concrete, 12),
        asphalt=vary(rng, world.place.asphalt, 10),
    )


def _paint_strips(canvas: Canvas, rng: np.random.Generator, world: World, plan: _Plan) -> None:
    """Apron, taxiway, runway, the links between them, and their markings."""
    m, reach, half = world.metres, plan.reach, plan.runway / 2
    lane_colour = plan.asphalt if rng.random() < 0.6 else plan.concrete
    _pave(canvas, rng, plan.at, (-reach, -4, reach, plan.apron), plan.concrete, 15 / m)
    _pave(canvas, rng, plan.at, (-reach, plan.apron, reach, plan.apron + plan.lane), lane_colour, 15 / m)
    _pave(canvas, rng, plan.at, (-reach, plan.runway_v - half, reach, plan.end), plan.asphalt * 0.95, 0)
    for u in np.arange(-reach, reach, rng.uniform(130, 220) / m) + rng.uniform(0, 60):
        link = (u, plan.apron + plan.lane, u + 20 / m, plan.runway_v - half)
        _pave(canvas, rng, plan.at, link, plan.asphalt, 0)
        middle = Path(plan.at([(u + 10 / m, plan.taxi_v), (u + 10 / m, plan.runway_v - half)]))
        canvas.stroke(middle, 0.3, _YELLOW, grain=4)
    canvas.stroke(plan.along(plan.taxi_v), 0.3, _YELLOW, grain=4)
    canvas.stroke(plan.along(plan.apron - 1), 0.25, _WHITE, grain=4)
    canvas.dashes(plan.along(plan.runway_v), 0.5, _WHITE, 30 / m, 22 / m)
    for side in (-1, 1):
        canvas.stroke(plan.along(plan.runway_v + side * (half - 2)), 0.45, _WHITE, grain=4)
    canvas.reserve(plan.at(rectangle(-reach, -4, reach, plan.end + 12)))


def _first_row(
    canvas: Canvas, rng: np.random.Generator, world: World, plan: _Plan, roof: np.ndarray
) -> tuple[list[Actor], list[Part]]:
    """Planes parked nose in along the terminal, each at a boarding bridge; some stands are empty."""
    actors: list[Actor] = []
    overlay: list[Part] = []
    m, at = world.metres, plan.at
    u = -plan.reach + rng.uniform(0, 40)
    while u < plan.reach:
        kind = str(rng.choice(["narrow", "wide", "four-engined", "regional"], p=[0.56, 0.2, 0.09, 0.15]))
        length, v_nose = rng.uniform(*_PLANE_METRES[kind]) / m, rng.uniform(9, 14) / m
        middle = u + (1.08 * length + 7) / 2
        u += 1.08 * length + 7
        if v_nose + length > plan.apron - 18 / m:  # it would stand in the way of taxiing wings
            continue
        canvas.stroke(Path(at([(middle, 1), (middle, plan.apron)])), 0.25, _YELLOW, grain=4)
        stain = disc((middle, v_nose + rng.uniform(0.3, 0.8) * length), rng.uniform(0.05, 0.14) * length)
        canvas.fill(at(stain), plan.concrete * 0.72, opacity=0.35)
        if rng.random() < 0.78:
            lead_in = Path(at([(middle, v_nose + length), (middle, v_nose - 1)]))
            actors.append(_plane(rng, world, kind, length, lead_in, length / 2, 0.0, plan.concrete))
            actors += _service(rng, at, middle, v_nose, length)
            overlay += _bridge(rng, at, middle, v_nose, length, roof)
        else:
            overlay += _bridge(rng, at, middle, v_nose + 6, 0.6 * length, roof)
    return actors, overlay


def _light_aircraft(canvas: Canvas, rng: np.random.Generator, world: World, plan: _Plan) -> list[Actor]:
    """Small planes on stands of their own between taxiway and runway."""
    actors = []
    v = plan.apron + plan.lane + 0.5 * plan.grass
    for u in np.arange(-plan.reach, plan.reach, rng.uniform(28, 44)):
        if rng.random() < 0.5:
            continue
        kind = str(rng.choice(["business", "turboprop", "delta"]))
        length = rng.uniform(*_PLANE_METRES[kind]) / world.metres
        half = 0.62 * length
        _pave(canvas, rng, plan.at, (u - half, v - half, u + half, v + half), plan.concrete, 0)
        heading = rng.choice([-1, 1]) * unit(rng.normal(np.pi / 2, 0.1))
        path = Path(plan.at([(u, v), (u + heading[0], v + heading[1])]))
        actors.append(_plane(rng, world, kind, length, path, 0.0, 0.0, plan.concrete))
    return actors


def _pave(canvas: Canvas, rng: np.random.Generator, at: _At, box, colour: np.ndarray, panel: float) -> None:
    """Paving over (u0, v0, u1, v1): slabs of slightly different grey with joints, patches and tyre marks."""
    u0, v0, u1, v1 = box
    canvas.fill(at(rectangle(*box)), colour, grain=4)
    if panel:
        for u in np.arange(u0, u1, 4 * panel):
            for v in np.arange(v0, v1, 2 * panel):
                slab = at(rectangle(u, v, min(u + 4 * panel, u1), min(v + 2 * panel, v1)))
                if canvas.sees(slab):
                    canvas.fill(slab, colour + rng.normal(0, 4), grain=4)
        for u in np.arange(u0, u1, panel):
            canvas.fill(at(rectangle(u, v0, u + 0.34, v1)), colour * 0.9, opacity=0.6)
        for v in np.arange(v0, v1, panel):
            canvas.fill(at(rectangle(u0, v, u1, v + 0.34)), colour * 0.9, opacity=0.6)
    for _ in range(4):
        v, half = rng.uniform(v0, v1), rng.uniform(0.5, 2.0)
        if v - half > v0 and v + half < v1 and u1 - u0 > v1 - v0:
            canvas.fill(at(rectangle(u0, v - half, u1, v + half)), colour * rng.uniform(0.75, 0.92), opacity=0.4)


def _landside(canvas: Canvas, rng: np.random.Generator, world: World, plan: _Plan) -> tuple[list[Solid], Trees]:
    """Terminal (first of the solids), road, car park and town on the far side of it."""
    m, place, at, reach = world.metres, world.place, plan.at, plan.reach
    depth = rng.uniform(24, 40) / m
    roof = vary(rng, rng.choice(np.array([(206, 206, 202), (176, 178, 180), (150, 156, 166)], float)), 8)
    solids = [Solid(at(rectangle(-reach, -depth, reach, 0)), roof, 14 / m)]
    for u in np.arange(-reach, reach, rng.uniform(60, 120) / m):
        hall = at(rectangle(u, -0.8 * depth, u + 24 / m, -0.2 * depth))
        plant = at(rectangle(u + 36 / m, -0.65 * depth, u + 48 / m, -0.35 * depth))
        solids.append(Solid(hall, vary(rng, roof * 0.92, 8), 18 / m))
        solids.append(Solid(plant, vary(rng, roof * 0.7, 8), 16 / m))
    canvas.reserve(at(rectangle(-reach, -depth - 3, reach, 0)))
    road = Path(at([(-reach, -depth - 12 / m), (reach, -depth - 12 / m)]))
    paint_road(canvas, rng, place, road, 8 / m)
    v = -depth - 24 / m
    for u in np.arange(-reach, reach, 90 / m):
        if rng.random() < 0.6 and canvas.sees(at(rectangle(u, v - 50 / m, u + 70 / m, v))):
            paint_car_park(
                canvas, rng, (u, v - 50 / m, u + 70 / m, v), plan.turn, plan.origin, vary(rng, place.asphalt, 8)
            )
    town, trees = plan_town(canvas, rng, place, plan.turn, 0.7)
    return solids + town, trees + plan_woods(canvas, rng, place, 0.25)


def _plane(
    rng: np.random.Generator,
    world: World,
    kind: str,
    length: float,
    path: Path,
    start: float,
    speed: float,
    ground: np.ndarray,
) -> Actor:
    white = rng.choice(_FUSELAGES, p=[0.4, 0.3, 0.18, 0.12])
    parts = aeroplane(rng, length, kind, world.paint_of(rng, white, ground))
    return Actor(1, "airplane", path, start, speed, rigid(parts))


def _bridge(
    rng: np.random.Generator, at: _At, u: float, v_nose: float, length: float, colour: np.ndarray
) -> list[Part]:
    """A boarding bridge from the terminal to the door behind the plane's nose, on its left side; background."""
    door = np.array([u - 0.045 * length, v_nose + 0.16 * length])
    root = np.array([u - 0.3 * length - 3, -1.0])
    elbow = np.array([door[0] - 0.16 * length - 1.5, door[1] - 0.02 * length])
    tint = vary(rng, colour * 0.92, 8)
    tube = Part(at(Path(np.array([root, elbow])).strip(0, np.linalg.norm(elbow - root) + 1, 1.3)), tint, 5, 3)
    cab = Part(at(Path(np.array([elbow, door])).strip(-0.5, np.linalg.norm(door - elbow), 1.7)), tint * 0.9, 5, 3)
    return [tube, cab, Part(at(disc(root, 2.2)), tint * 1.04, 6)]


def _service(rng: np.random.Generator, at: _At, u: float, v_nose: float, length: float) -> list[Actor]:
    """Loaders, tugs and carts about a parked plane: clutter."""
    actors = []
    for _ in range(rng.integers(1, 5)):
        side = rng.choice([-1, 1])
        spot = np.array([u + side * rng.uniform(0.10, 0.22) * length, v_nose + rng.uniform(0.05, 0.95) * length])
        path = Path(at(np.array([spot, spot + unit(rng.choice([0, np.pi / 2]))])))
        actors.append(Actor(0, "clutter", path, 0.0, 0.0, rigid(car(rng, rng.uniform(3.5, 8)))))
    return actors


def _taxiing(rng: np.random.Generator, world: World, line: Path, plan: _Plan, count: int) -> list[Actor]:
    """Planes in line, all one way and at one pace."""
    if rng.random() < 0.5:
        line = Path(line.points[::-1])
    speed = rng.uniform(0.4, 2.2) if world.frames > 1 else 0.0
    actors, s = [], plan.reach - rng.uniform(0, 0.4) * np.hypot(*world.size_hw)
    for _ in range(count):
        kind = str(rng.choice(["narrow", "wide", "regional"], p=[0.6, 0.2, 0.2]))
        length = rng.uniform(*_PLANE_METRES[kind]) / world.metres
        actors.append(_plane(rng, world, kind, length, line, s, speed, plan.asphalt))
        s += 1.5 * length + rng.uniform(20, 110)
    return actors
