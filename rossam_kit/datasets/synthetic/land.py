"""The railway and road scenes: trains on parallel tracks, cars in a town.

Station roofs hide what is below them; catenary is background.
"""

from __future__ import annotations

import numpy as np

from rossam_kit.datasets.synthetic.ground import build, paint_ground, paint_road, plan_avenue, plan_town, plan_woods
from rossam_kit.datasets.synthetic.objects import Actor, Part, car, rigid, train
from rossam_kit.datasets.synthetic.paint import Canvas, Path, curve, rotation, unit, vary
from rossam_kit.datasets.synthetic.world import MAX_SPEED, Scene, World, numbered


def rail(rng: np.random.Generator, world: World) -> Scene:
    """Parallel tracks, straight or curved, with trains on them; sometimes a station roof hides part of a train."""
    canvas = Canvas.blank(world.size_hw, world.light, rng)
    height, width = world.size_hw
    place, m = world.place, world.metres
    paint_ground(canvas, rng, place, 60)
    reach = np.hypot(width, height) + 160
    heading = rng.uniform(0, 2 * np.pi)
    bend = rng.choice([0.0, 0.0, 1.0]) * rng.normal(0, 0.9)
    centre = np.array([width, height]) / 2 + rng.normal(0, 0.1, 2) * min(height, width)
    line = curve((0, 0), heading, 2 * reach, bend, 96)
    line = Path(line.points - line.at(reach) + centre)
    train_width = rng.uniform(5.0, 8.0) / m
    spacing = 1.6 * train_width
    tracks = int(rng.choice([2, 3, 4, 6], p=[0.4, 0.25, 0.25, 0.1]))
    offsets = (np.arange(tracks) - (tracks - 1) / 2) * spacing
    if rng.random() < 0.7:
        paint_road(canvas, rng, place, line.offset(offsets[-1] + rng.uniform(16, 30)), rng.uniform(2.5, 4))
    bed = offsets[-1] + spacing
    ballast = vary(rng, (136, 126, 118), 10)
    canvas.stroke(line, bed + 2, vary(rng, place.soil, 8), grain=9)
    canvas.stroke(line, bed, ballast, grain=9)
    canvas.reserve(line.strip(0, line.length, bed + 2))
    lines = [line.offset(float(offset)) for offset in offsets]
    for track in lines:
        _lay_track(canvas, rng, track, train_width, ballast)
    solids, trees = plan_town(canvas, rng, place, rotation(heading), 0.75)
    trees += plan_woods(canvas, rng, place, 0.22)
    overlay = _station(rng, canvas, line, reach, bed, spacing) if rng.random() < 0.4 else []
    if rng.random() < 0.6:
        _cast_catenary(canvas, rng, line, bed, train_width)
    build(canvas, rng, solids, trees, place)
    busy = rng.permutation(tracks)[: max(1, int(np.ceil(tracks * rng.uniform(0.6, 1.0))))]
    actors = []
    for i in busy:
        track = lines[i] if i >= tracks / 2 else Path(lines[i].points[::-1])
        actors += _trains(rng, world, track, reach, train_width, ballast)
    return Scene(canvas, numbered(actors, canvas, world.frames), overlay)


def _cast_catenary(canvas: Canvas, rng: np.random.Generator, line: Path, bed: float, train_width: float) -> None:
    """Shadows of the portals across the tracks that carry the wires."""
    for s in np.arange(0, line.length, rng.uniform(38, 60)):
        portal = line.at(s) + np.outer([-1, 1], bed * unit(_heading(line, s) + np.pi / 2))
        if canvas.sees(portal):
            canvas.cast(Path(portal).strip(0, 2 * bed, 0.35), train_width * 1.9, train_width * 1.7)


def _heading(path: Path, s: float) -> float:
    step = path.at(s + 1) - path.at(s - 1)
    return float(np.arctan2(step[1], step[0]))


def _lay_track(canvas: Canvas, rng: np.random.Generator, track: Path, train_width: float, ballast) -> None:
    gauge = 0.25 * train_width
    canvas.stroke(track, gauge * 1.9, ballast * rng.uniform(0.8, 0.92), grain=8)
    sleepers = []
    for s in np.arange(0, track.length, 1.7):
        if canvas.sees(track.at(s)[None], 6):
            sleepers.append(track.strip(s, s + 0.6, gauge * 1.7))
    if sleepers:
        canvas.fill(sleepers, ballast * 1.15, grain=6, opacity=0.7)
    for side in (-1, 1):
        canvas.stroke(track.offset(side * gauge), 0.22, ballast * 0.55 + 30, grain=5)


def _station(
    rng: np.random.Generator, canvas: Canvas, line: Path, reach: float, bed: float, spacing: float
) -> list[Part]:
    """A platform beside the tracks and a roof across some of them; the roof is background."""
    s = reach + rng.uniform(-60, 60)
    side = rng.choice([-1, 1])
    platform = line.offset(side * (bed + 3.5)).strip(s - 80, s + 80, 3.5)
    canvas.fill(platform, vary(rng, (176, 172, 164), 8), grain=4)
    canvas.reserve(platform)
    colour = vary(rng, rng.choice(np.array([(168, 172, 178), (120, 130, 142), (196, 194, 188)], float)), 8)
    length, inner = rng.uniform(14, 34), rng.uniform(-1, 0.6) * bed
    band = line.offset(side * (inner + bed + 7) / 2)
    roof = band.strip(s - length, s + length, (bed + 7 - inner) / 2)
    starts = s + np.arange(4 - length, length - 3, 6)
    ribs = [Part(band.strip(s0, s0 + 0.8, (bed + 7 - inner) / 2 - 0.6), colour * 0.88) for s0 in starts]
    return [Part(roof, colour, spacing * 1.1, spacing * 0.9), *ribs]


def _trains(rng: np.random.Generator, world: World, track: Path, reach: float, width: float, ballast) -> list[Actor]:
    """One train on the track, or two far apart, going one way."""
    height, frame_width = world.size_hw
    diagonal = np.hypot(height, frame_width)
    moving = rng.random() < 0.75 and world.frames > 1
    speed = rng.uniform(1.0, 3.8) if moving else 0.0
    actors, s = [], reach + rng.uniform(-0.1, 0.4) * diagonal - speed * world.frames / 2
    for _ in range(1 + (rng.random() < 0.5)):
        kind = "passenger" if rng.random() < 0.6 else "freight"
        length = width * np.exp(rng.uniform(np.log(7), np.log(19.5)))
        colours = {"passenger": ((224, 226, 228), (206, 210, 214), (70, 100, 150), (90, 120, 96), (150, 74, 66)),
                   "freight": ((112, 74, 60), (96, 92, 90), (74, 84, 96))}[kind]  # fmt: skip
        colour = world.paint_of(rng, colours[rng.integers(len(colours))], ballast)
        wagons = train(rng, width * rng.uniform(0.9, 1.05), length, kind, colour)
        actors.append(Actor(1, "train", track, s, speed, wagons))
        s -= length * 1.5 + 60
    return actors


def road(rng: np.random.Generator, world: World) -> Scene:
    """Roads through a town; cars have boxes only."""
    canvas = Canvas.blank(world.size_hw, world.light, rng)
    height, width = world.size_hw
    paint_ground(canvas, rng, world.place, 60)
    reach = np.hypot(width, height)
    heading = rng.uniform(0, 2 * np.pi)
    middle = np.array([width, height]) / 2
    trees, roads = [], []
    for i in range(int(rng.integers(2, 4))):
        angle = heading + (i % 2) * np.pi / 2 + rng.normal(0, 0.06)
        bend = rng.normal(0, 0.35)
        centre = middle + rng.uniform(-0.35, 0.35, 2) * (width, height)
        line = curve((0, 0), angle, 2 * reach, bend, 64)
        half_width = rng.uniform(3.2, 8.5) if i == 0 else rng.uniform(2.6, 5)
        roads.append((Path(line.points - line.at(reach) + centre), half_width))
    for path, half_width in reversed(roads):
        paint_road(canvas, rng, world.place, path, half_width)
        if rng.random() < 0.6:
            for distance in (half_width + 2.5, -half_width - 2.5):
                trees += plan_avenue(canvas, rng, path, distance)
    solids, garden = plan_town(canvas, rng, world.place, rotation(heading), 0.8)
    trees += garden + plan_woods(canvas, rng, world.place, 0.2)
    build(canvas, rng, solids, trees, world.place)
    actors = [actor for path, half_width in roads for actor in _traffic(rng, world, path, half_width, reach)]
    return Scene(canvas, numbered(actors, canvas, world.frames))


def _traffic(rng: np.random.Generator, world: World, path: Path, half_width: float, reach: float) -> list[Actor]:
    """Cars on the right of the road, both ways; those of one lane keep one pace, so none runs into another."""
    actors = []
    lanes = [0.5] if half_width < 4.5 else [0.3, 0.72]
    for direction in (1, -1):
        way = path if direction == 1 else Path(path.points[::-1])
        for lane in lanes:
            line = way.offset(lane * half_width)
            speed = rng.uniform(0.8, MAX_SPEED - 0.2) if world.frames > 1 else 0.0
            s = reach * 0.35 - speed * world.frames
            while s < 1.65 * reach:
                s += rng.exponential(28) + 9
                length = rng.uniform(4.2, 5.6) if rng.random() < 0.88 else rng.uniform(8, 13)
                body = rigid(car(rng, length / world.metres))
                actors.append(Actor(1, "car", line, s, speed, body, box_only=True))
    return actors
