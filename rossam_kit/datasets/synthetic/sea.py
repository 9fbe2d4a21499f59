"""The sea scene: ships of many kinds under way with wakes behind them, and ships moored at piers.

Wakes, piers and shadows are background.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import cv2
import numpy as np

from rossam_kit.datasets.synthetic.ground import Solid, Trees, build, paint_water, plan_town, plan_woods
from rossam_kit.datasets.synthetic.objects import SHIPS, Actor, rigid, ship
from rossam_kit.datasets.synthetic.paint import (
    MARGIN,
    SUPERSAMPLING,
    Canvas,
    Path,
    curve,
    rectangle,
    rotation,
    unit,
    vary,
)
from rossam_kit.datasets.synthetic.world import Scene, World, numbered

_HULLS = np.array([(70, 74, 84), (96, 60, 54), (60, 78, 104), (150, 150, 150), (206, 206, 202), (54, 60, 60)], float)


def sea(rng: np.random.Generator, world: World) -> Scene:
    """Water with ships under way, wakes behind them, and sometimes a pier with ships moored to it."""
    canvas = Canvas.blank(world.size_hw, world.light, rng)
    water = vary(rng, world.place.water, 9, 5)
    paint_water(canvas, rng, water, rng.uniform(1.5, 6.5))
    solids: list[Solid] = []
    trees: Trees = []
    actors: list[Actor] = []
    if rng.random() < 0.55:
        solids, trees, actors = _harbour(rng, world, canvas)
    open_water = ~cv2.dilate(_shrunk(canvas.reserved).astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    actors += _sailing(rng, world, open_water, water)
    build(canvas, rng, solids, trees, world.place)
    return Scene(canvas, numbered(actors, canvas, world.frames))


def _sailing(rng: np.random.Generator, world: World, open_water: np.ndarray, water: np.ndarray) -> list[Actor]:
    """Ships under way mostly along one lane, both ways, on courses that keep clear of each other and of land."""
    height, width = world.size_hw
    lane, sailing = rng.uniform(0, 2 * np.pi), []
    taken = np.zeros(world.size_hw, np.uint8)
    wanted = int(np.clip(open_water.size * rng.uniform(0.8, 1.8) / 7000, 2, 9))
    for _ in range(wanted * 6):
        kind, length = _ship_size(rng, world)
        heading = lane + rng.normal(0, 0.5) + np.pi * rng.integers(2)
        length = min(length, 0.85 * min(height, width))
        speed = rng.uniform(0.25, 1.6) if world.frames > 1 else 0.0
        centre = rng.uniform((0, 0), (width, height))
        run = speed * world.frames
        start = centre - unit(heading) * (run / 2)
        path = curve(start - unit(heading) * 2.5 * length, heading, run + 5 * length, rng.normal(0, 0.12))
        sailed = path.strip(2 * length, 3 * length + run, 0.16 * length + 4)
        if not _claim(taken, open_water, sailed):
            continue
        colour = world.paint_of(rng, rng.choice(_HULLS), water)
        wake = wake_of(rng, length, water) if rng.random() < 0.85 else None
        sailing.append(Actor(1, "ship", path, 2.5 * length, speed, rigid(ship(rng, length, kind, colour)), wake=wake))
        if len(sailing) == wanted:
            break
    return sailing


def _shrunk(mask: np.ndarray) -> np.ndarray:
    """Canvas mask → frame mask, centre pixels."""
    centres = slice(SUPERSAMPLING // 2, None, SUPERSAMPLING)
    return mask[centres, centres][MARGIN:-MARGIN, MARGIN:-MARGIN]


def _claim(taken: np.ndarray, allowed: np.ndarray, outline: np.ndarray) -> bool:
    """Take the outline's pixels if all of them in the frame are allowed and free."""
    hull = np.zeros(taken.shape, np.uint8)
    cv2.fillPoly(hull, [np.round(outline).astype(np.int32)], 1)
    if not hull.any() or (hull.astype(bool) & (~allowed | taken.astype(bool))).any():
        return False
    taken |= hull
    return True


def _ship_size(rng: np.random.Generator, world: World) -> tuple[str, float]:
    """Kind and length in frame pixels: many small craft, few large ships; area stays below Table 7's 8,422."""
    kind = str(rng.choice(list(SHIPS), p=[0.16, 0.12, 0.12, 0.12, 0.08, 0.12, 0.28]))
    low, high = {"boat": (9, 24), "barge": (30, 80), "naval": (50, 150), "ferry": (30, 120)}.get(kind, (70, 230))
    return kind, min(np.exp(rng.uniform(np.log(low), np.log(high))) / world.metres, 205.0)


def wake_of(rng: np.random.Generator, length: float, water: np.ndarray) -> Callable[[Canvas, Actor, float], None]:
    """Foam behind the stern, longer than the ship, and the two arms of the bow wave."""
    reach = length * rng.uniform(1.3, 2.6) + 10
    foam = np.clip(np.asarray(water) + rng.uniform(60, 120), 0, 235)
    beam, opening, density = 0.055 * length + 0.4, rng.uniform(0.03, 0.08), rng.uniform(0.35, 0.8)

    def draw(canvas: Canvas, actor: Actor, t: float) -> None:
        stern, pieces = actor.arc(t) - 0.47 * length, 16
        ends = stern - reach * np.arange(pieces + 1) / pieces
        for i, (s1, s0) in enumerate(itertools.pairwise(ends)):
            fade = 1 - (i + 0.5) / pieces
            for share, opacity in ((1.25, 0.25), (0.9, 0.35), (0.5, 0.4)):  # thin at the sides, dense on the axis
                widths = share * (beam + opening * (stern - np.array([s0, s1])))
                outline = actor.path.strip(s0, s1, widths, 1.5)
                if canvas.sees(outline):
                    canvas.fill(outline, foam, grain=22, opacity=density * opacity * fade**1.3)
            bow_s0, bow_s1 = s0 + 0.85 * length, s1 + 0.85 * length
            forward = actor.path.at(bow_s1) - actor.path.at(bow_s0)
            across = np.array([-forward[1], forward[0]]) / np.linalg.norm(forward)
            spread = beam + 0.19 * (stern - (s0 + s1) / 2)
            for side in (-1, 1):
                arm = actor.path.strip(bow_s0, bow_s1, 0.6, 1.5) + side * spread * across
                canvas.fill(arm, foam, grain=14, opacity=0.3 * density * max(fade - 0.35, 0))

    return draw


def _harbour(rng: np.random.Generator, world: World, canvas: Canvas) -> tuple[list[Solid], Trees, list[Actor]]:
    """Land on one side with piers; ships moored alongside touch them. Leaves all of it reserved."""
    height, width = world.size_hw
    turn, reach = rotation(rng.uniform(0, 2 * np.pi)), float(np.hypot(width, height))
    distance = rng.uniform(0.15, 0.42) * min(height, width)
    origin = np.array([width, height]) / 2 - np.array([0, distance]) @ turn.T

    def at(points) -> np.ndarray:  # (u, v): along the quay, and from it out to sea
        return np.asarray(points, float) @ turn.T + origin

    piers, actors = [], []
    u = -reach + rng.uniform(0, 80)
    while u < reach:
        long, wide = (
            min(rng.uniform(40, 120) / world.metres, 0.55 * min(height, width)),
            rng.uniform(9, 22) / world.metres,
        )
        piers.append((u, -2.0, u + wide, long))
        actors += _moored(rng, world, at, u, -1, long) + _moored(rng, world, at, u + wide, 1, long)
        u += wide + rng.uniform(60, 150) / world.metres
    boxes = [(-reach, -reach, reach, 0.0), *piers]
    land = [at(rectangle(*box)) for box in boxes]
    tops = [at(rectangle(u0 + 0.7, v0 + 0.7, u1 - 0.7, v1 - 0.7)) for u0, v0, u1, v1 in boxes]
    for outline in land:
        canvas.cast(outline, 2.0)
    canvas.settle_shadows()
    concrete = vary(rng, world.place.concrete, 12)
    canvas.fill(land, concrete * 0.7, grain=5)
    canvas.fill(tops, concrete, grain=9)
    solids, trees = _quay(rng, world, canvas, turn, at, reach)
    canvas.reserved[:] = False
    canvas.reserve(land)
    for actor in actors:
        canvas.reserve([outline for _, outline, _ in actor.placed_parts(0)])
    return solids, trees, actors


def _moored(rng: np.random.Generator, world: World, at, u: float, side: int, long: float) -> list[Actor]:
    """Ships one behind the other along a pier's edge at `u`, touching it; `side` is the water's."""
    actors, v = [], 3.0
    while rng.random() < 0.75:
        kind, length = _ship_size(rng, world)
        length = min(length, long - v)
        if length < 8:
            break
        parts = ship(rng, length, kind, world.paint_of(rng, rng.choice(_HULLS), world.place.water))
        axis = u + side * (max(part.outline[:, 1].max() for part in parts) + 0.1)
        line = at([(axis, v), (axis, v + length)])
        path = Path(line if rng.random() < 0.5 else line[::-1])
        actors.append(Actor(1, "ship", path, length / 2, 0.0, rigid(parts)))
        v += length + rng.uniform(2, 8)
    return actors


def _quay(
    rng: np.random.Generator, world: World, canvas: Canvas, turn: np.ndarray, at, reach: float
) -> tuple[list[Solid], Trees]:
    """Behind the water's edge: a road, warehouses, and the town; nothing out at sea."""
    m, place = world.metres, world.place
    canvas.stroke(Path(at([(-reach, -9 / m), (reach, -9 / m)])), 4 / m, vary(rng, place.asphalt, 6), grain=5)
    canvas.reserve(at(rectangle(-reach, -14 / m, reach, reach)))
    solids = []
    for u in np.arange(-reach, reach, rng.uniform(40, 70) / m):
        if rng.random() < 0.7:
            depth, long = rng.uniform(14, 26) / m, rng.uniform(22, 40) / m
            outline = at(rectangle(u, -18 / m - depth, u + long, -18 / m))
            solids.append(Solid(outline, vary(rng, place.roofs[rng.integers(len(place.roofs))], 12), 6 / m))
            canvas.reserve(outline)
    town, trees = plan_town(canvas, rng, place, turn, 0.7)
    return solids + town, trees + plan_woods(canvas, rng, place, 0.2)
