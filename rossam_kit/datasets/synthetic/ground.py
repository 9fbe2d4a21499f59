"""Background of synthetic satellite video: fields, water, roads, towns, woods.

Functions draw on a `Canvas`. Solids cast their shadows before any
of them is drawn, all away from the one sun.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

from rossam_kit.datasets.synthetic.paint import (
    SUPERSAMPLING,
    Canvas,
    Path,
    Place,
    octave_noise,
    rectangle,
    rotation,
    vary,
)


@dataclass(frozen=True)
class Solid:
    """A building: outline in frame pixels, colour, height in frame pixels, and whether the roof has a ridge."""

    outline: np.ndarray
    colour: np.ndarray
    height: float
    gabled: bool = False


Trees = list[tuple[np.ndarray, float]]
"""Centre and crown radius of each tree, frame pixels."""
Span = tuple[float, float, float, float]
"""x0, y0, x1, y1 of a rectangle in turned axes."""


def paint_ground(canvas: Canvas, rng: np.random.Generator, place: Place, patch: float = 70.0) -> None:
    """Fields of differing tone, divided irregularly about one direction, under noise of many scales."""
    size_hw = canvas.labels.shape
    height, width = canvas.size_hw
    canvas.rgb[:] = vary(rng, place.fields[0])
    turn, centre = rotation(rng.uniform(0, np.pi)), np.array([width, height]) / 2
    reach = 0.75 * np.hypot(width, height)
    stack = [(-reach, -reach, reach, reach)]
    while stack:
        x0, y0, x1, y1 = stack.pop()
        side = max(x1 - x0, y1 - y0)
        if side > patch and rng.random() < min(1.0, side / (4 * patch) + 0.2):
            share = rng.uniform(0.3, 0.7)
            if x1 - x0 > y1 - y0:
                cut = x0 + share * (x1 - x0)
                stack += [(x0, y0, cut, y1), (cut, y0, x1, y1)]
            else:
                cut = y0 + share * (y1 - y0)
                stack += [(x0, y0, x1, cut), (x0, cut, x1, y1)]
            continue
        outline = rectangle(x0, y0, x1, y1) @ turn.T + centre
        if canvas.sees(outline):
            tone = place.soil if rng.random() < 0.15 else place.fields[rng.integers(len(place.fields))]
            canvas.fill(outline, vary(rng, tone, 7, 3), grain=0)
    canvas.rgb[:] = cv2.GaussianBlur(canvas.rgb, (0, 0), 0.8 * SUPERSAMPLING)
    fine = octave_noise(rng, size_hw, (2, 5, 13), (1, 1.2, 1))
    coarse = octave_noise(rng, size_hw, (40, 120, 300), (1, 1.2, 1.2))
    tint = octave_noise(rng, size_hw, (90, 240))
    canvas.rgb += (5 * fine + 9 * coarse)[..., None] + tint[..., None] * np.array([3.5, 0, -3], np.float32)


def paint_water(canvas: Canvas, rng: np.random.Generator, colour, choppiness: float) -> None:
    """Open water: long swell, wind waves across it, patches of glint."""
    size_hw = canvas.labels.shape
    canvas.rgb[:] = np.asarray(colour, np.float32)
    angle = rng.uniform(0, 180)
    waves = sum(
        weight * _streaks(rng, size_hw, cell, stretch, angle + rng.uniform(-12, 12))
        for cell, stretch, weight in ((2.2, 3.0, 0.8), (5.0, 3.5, 0.9), (13.0, 4.0, 0.7))
    )
    slicks = octave_noise(rng, size_hw, (80, 220, 500), (0.5, 1, 1))
    wind = np.clip(0.8 + 0.35 * slicks, 0.15, 1.6)
    canvas.rgb += (choppiness * wind * waves + 4 * slicks)[..., None] * np.array([0.9, 1.0, 1.05], np.float32)
    glint = np.clip(waves * wind - 2.6, 0, 1.5)[..., None]
    canvas.rgb += glint * choppiness * 6


def _streaks(rng: np.random.Generator, size_hw, cell: float, stretch: float, angle: float) -> np.ndarray:
    """Noise stretched along `angle` (degrees), float32 H×W."""
    height, width = size_hw
    side = int(np.hypot(height, width)) + 4
    field = octave_noise(rng, (side, int(side / stretch) + 4), (cell,))
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.0)
    stretched = turn @ np.array([[stretch, 0, 0], [0, 1, 0], [0, 0, 1]])
    stretched[:, 2] += (width / 2 - side / 2, height / 2 - side / 2)
    return cv2.warpAffine(field, stretched, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def paint_road(canvas: Canvas, rng: np.random.Generator, place: Place, path: Path, half_width: float) -> None:
    """Asphalt with pale verges, worn lanes and markings; nothing may be built on it."""
    canvas.stroke(path, half_width + 1.6, vary(rng, place.soil, 6), grain=7)
    canvas.stroke(path, half_width, vary(rng, place.asphalt, 5), grain=4)
    canvas.reserve(path.strip(0, path.length, half_width + 2))
    if half_width > 4:
        for side in (-1, 1):
            canvas.stroke(path.offset(side * half_width * 0.5), half_width * 0.12, 1.12 * np.array(place.asphalt))
        if half_width > 6:
            canvas.stroke(path, 0.9, vary(rng, place.fields[0], 5), grain=6)
        else:
            canvas.dashes(path, 0.25, (205, 203, 195), 2.5, 4)


def paint_car_park(
    canvas: Canvas, rng: np.random.Generator, box: Span, turn: np.ndarray, origin: np.ndarray, colour: np.ndarray
) -> None:
    """Paint an asphalt lot and rows of parked cars, background all of it.

    `box` is a rectangle in axes turned by `turn` about `origin`.
    """
    x0, y0, x1, y1 = box
    lot = rectangle(x0, y0, x1, y1) @ turn.T + origin
    canvas.fill(lot, colour, grain=4)
    canvas.reserve(lot)
    cars = []
    for y in np.arange(y0 + 3, y1 - 3, 8.5):
        for x in np.arange(x0 + 2, x1 - 2, 2.9):
            for row in (0.0, 4.6):
                if rng.random() < 0.6 and y + row < y1 - 2:
                    spot = rectangle(x - 0.85, y + row - 1.9, x + 0.85, y + row + 1.9) @ turn.T + origin
                    cars.append((spot, vary(rng, rng.choice([60.0, 130.0, 200.0, 225.0]) * np.ones(3), 12, 8)))
    for spot, tint in cars:
        canvas.fill(spot, tint, grain=1)


def build(canvas: Canvas, rng: np.random.Generator, solids: list[Solid], trees: Trees, place: Place) -> None:
    """Cast all shadows, then draw roofs, then crowns."""
    for solid in solids:
        canvas.cast(solid.outline, solid.height)
    for centre, radius in trees:
        canvas.cast(rectangle(-0.7, -0.7, 0.7, 0.7) * radius + centre, 1.5 * radius, 0.2 * radius)
    canvas.settle_shadows()
    for solid in solids:
        _roof(canvas, rng, solid)
    for centre, radius in trees:
        canvas.tree(rng, centre, radius, place.tree)


def _roof(canvas: Canvas, rng: np.random.Generator, solid: Solid) -> None:
    corners, light = solid.outline, canvas.light
    # walls: a satellite looks straight down, so only a darker rim towards the shadow shows
    canvas.fill(corners, solid.colour * 0.72, grain=3)
    if solid.gabled and len(corners) == 4:
        a, b = (corners[0] + corners[3]) / 2, (corners[1] + corners[2]) / 2
        for side in (np.stack([corners[0], corners[1], b, a]), np.stack([a, b, corners[2], corners[3]])):
            outward = side.mean(axis=0) - corners.mean(axis=0)
            lit = float(outward @ light.towards_sun) / (np.linalg.norm(outward) + 1e-9)
            canvas.fill(side, solid.colour * (1 + 0.22 * lit * light.strength), grain=5)
        return
    centre = corners.mean(axis=0)
    span = corners.max(axis=0) - corners.min(axis=0)
    shrink = 1 - 1.0 / max(float(span.min()), 3.0)
    canvas.fill((corners - centre) * shrink + centre, solid.colour, grain=6)
    for _ in range(int(min(6, span.prod() / 60))):
        spot = centre + (rng.random(2) - 0.5) * 0.45 * span
        size = rng.uniform(0.6, 1.8, 2)
        canvas.fill(rectangle(*(spot + 0.6 - size), *(spot + 0.6 + size)), solid.colour * 0.55, grain=2)
        canvas.fill(rectangle(*(spot - size), *(spot + size)), solid.colour * rng.uniform(0.7, 1.15), grain=2)


def plan_town(
    canvas: Canvas, rng: np.random.Generator, place: Place, turn: np.ndarray, share: float
) -> tuple[list[Solid], Trees]:
    """Blocks of houses over about `share` of the free ground, in axes turned by `turn`; paints streets and yards."""
    height, width = canvas.size_hw
    centre, reach = np.array([width, height]) / 2, 0.6 * np.hypot(width, height)
    solids: list[Solid] = []
    trees: Trees = []
    street = rng.uniform(1.8, 3.0)
    built_up = octave_noise(rng, (48, 48), (14,))
    limit = np.quantile(built_up, share)
    x_cuts, y_cuts = (np.cumsum(np.r_[-reach, rng.uniform(26, 60, int(2 * reach / 26) + 1)]) for _ in range(2))
    for x0, x1 in itertools.pairwise(x_cuts):
        for y0, y1 in itertools.pairwise(y_cuts):
            row, column = (int(np.clip((edge + reach) / (2 * reach) * 47, 0, 47)) for edge in (y0, x0))
            axes = turn @ rotation(rng.normal(0, 0.03))
            lot = rectangle(x0 + street, y0 + street, x1 - street, y1 - street) @ axes.T + centre
            if built_up[row, column] > limit or not canvas.sees(lot):
                continue
            around = rectangle(x0 - street, y0 - street, x1 + street, y1 + street) @ turn.T + centre
            if canvas.is_free(around):
                canvas.fill(around, vary(rng, place.asphalt, 4), grain=4)
                bare = rng.uniform(0.3, 0.8)
                yard = bare * np.array(place.soil) + (1 - bare) * np.array(place.fields[0])
                canvas.fill(lot, vary(rng, yard, 10), grain=8)
            box = (x0 + street, y0 + street, x1 - street, y1 - street)
            _litter(canvas, rng, box, axes, centre)
            houses, gardens = _plan_block(canvas, rng, place, box, axes, centre)
            solids += houses
            trees += gardens
    return solids, trees


def _plan_block(
    canvas: Canvas, rng: np.random.Generator, place: Place, box: Span, axes: np.ndarray, centre: np.ndarray
) -> tuple[list[Solid], Trees]:
    """Fill one block with houses of one kind: large flat ones, or small ones of one or two wings, and trees."""
    solids: list[Solid] = []
    trees: Trees = []
    x0, y0, x1, y1 = box
    large = rng.random() < 0.22
    house = rng.uniform(14, 24) if large else rng.uniform(5.5, 9.5)
    taste = rng.dirichlet(np.full(len(place.roofs), 0.7))
    pitch = house * rng.uniform(1.05, 1.4)
    for x in np.arange(x0 + 0.5, x1 - house + 0.5, pitch):
        for y in np.arange(y0 + 0.5, y1 - house + 0.5, pitch):
            if rng.random() < 0.35 * place.tree_density:
                spot = (np.array([x, y]) + rng.uniform(-0.2, 1.2, 2) * house) @ axes.T + centre
                if canvas.is_free(spot + rectangle(-1, -1, 1, 1)):
                    trees.append((spot, rng.uniform(0.9, 2.2)))
            if rng.random() < 0.1:
                continue
            size = house * rng.uniform(0.6, 1.1, 2)
            corner = np.array([x, y]) + rng.uniform(0, 0.25, 2) * house
            colour = vary(rng, place.roofs[rng.choice(len(place.roofs), p=taste)], 14, 3)
            tall = rng.uniform(2.2, 4.2) * (2.2 if large else 1)
            gabled = not large and rng.random() < 0.4
            wings = [(corner, size)]
            if not gabled and rng.random() < 0.7:
                part = size * rng.uniform(0.35, 0.75, 2)
                wings.append((corner + (size - 0.5 * part) * rng.integers(0, 2, 2), part))
            outlines = [rectangle(*low, *(low + extent)) @ axes.T + centre for low, extent in wings]
            if all(canvas.is_free(outline) for outline in outlines):
                for k, outline in enumerate(outlines):
                    solids.append(Solid(outline, vary(rng, colour, 6 * k, 1), tall * (1 - 0.3 * k), gabled))
    return solids, trees


def _litter(canvas: Canvas, rng: np.random.Generator, box: Span, axes: np.ndarray, centre: np.ndarray) -> None:
    """What lies about in yards: sheds, paths, cars, hedges; specks of a few pixels, some paler and some darker."""
    low, high = np.array(box[:2]), np.array(box[2:])
    if (high <= low).any():
        return
    for dark in (True, False):
        count = int((high - low).prod() / 45)
        spots = rng.uniform(low, high, (count, 2))
        sizes = rng.uniform(0.3, 1.0, (count, 2)) * rng.choice([1.0, 3.0], (count, 2), p=[0.85, 0.15])
        specks = [rectangle(*(p - r), *(p + r)) @ axes.T + centre for p, r in zip(spots, sizes, strict=True)]
        specks = [speck for speck in specks if canvas.is_free(speck)]
        if specks:
            canvas.fill(specks, (58, 58, 54) if dark else (206, 200, 188), grain=6, opacity=0.5)


def plan_woods(canvas: Canvas, rng: np.random.Generator, place: Place, share: float) -> Trees:
    """Trees in clumps over about `share` of the open ground → (centre, radius) each."""
    height, width = canvas.size_hw
    share = min(share * place.tree_density, 0.9)
    field = octave_noise(rng, (height + 16, width + 16), (18, 60))
    limit = np.quantile(field, 1 - share)
    trees = []
    for _ in range(int(height * width / 16)):
        x, y = rng.uniform(-7, width + 7), rng.uniform(-7, height + 7)
        radius = rng.uniform(1.4, 3.4)
        inside = field[int(y) + 8, int(x) + 8] > limit
        if (inside or rng.random() < 0.004) and canvas.is_free(np.array([x, y]) + rectangle(-1, -1, 1, 1) * radius):
            trees.append((np.array([x, y]), radius))
    return trees


def plan_avenue(canvas: Canvas, rng: np.random.Generator, path: Path, distance: float) -> Trees:
    """Trees in a row beside a road."""
    row = path.offset(distance)
    spots = row.at(np.arange(0, row.length, rng.uniform(5, 9)))
    return [(spot, rng.uniform(1.1, 1.9)) for spot in spots if rng.random() < 0.8 and canvas.sees(spot[None], 3)]
