"""Still scenes with other kinds of objects, as the static remote-sensing sets hold them (iSAID, NWPU VHR-10).

The `Scene` of one moment shows a town with courts, tracks, tanks, a
harbour or a bridge in it, and vehicles, each with its exact mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rossam_kit.datasets.synthetic.ground import build, paint_ground, paint_road, paint_water, plan_town, plan_woods
from rossam_kit.datasets.synthetic.objects import Actor, Part, car, rigid
from rossam_kit.datasets.synthetic.paint import Canvas, Path, curve, disc, octave_noise, rectangle, rotation, unit, vary
from rossam_kit.datasets.synthetic.world import Scene, World, numbered

STATIC_CATEGORIES = (
    "tennis court", "storage tank", "ground track field", "vehicle", "bridge", "baseball diamond",
    "basketball court", "harbor",
)  # fmt: skip


def still_life(rng: np.random.Generator, world: World, leading: str) -> Scene:
    """A scene of about half a dozen objects, of `leading` first, and cars on its streets."""
    canvas = Canvas.blank(world.size_hw, world.light, rng)
    paint_ground(canvas, rng, world.place, 50)
    angle = rng.uniform(0, np.pi)
    actors: list[Actor] = []
    if leading in ("harbor", "bridge"):
        actors += _harbor(rng, world, canvas) if leading == "harbor" else _bridges(rng, world, canvas)
    others = [name for name in MAKERS if name != leading]
    wishes = [leading] * int(rng.integers(2, 5)) if leading in MAKERS else []
    wishes += [str(rng.choice(others)) for _ in range(rng.integers(1, 4))]
    road = through_road(rng, world, angle)
    crossing = canvas.reserved.any()
    if not crossing:
        paint_road(canvas, rng, world.place, road, rng.uniform(4.0, 5.5))
    actors += settle(rng, world, canvas, MAKERS, wishes, angle)
    solids, trees = plan_town(canvas, rng, world.place, rotation(angle), 0.65)
    trees += plan_woods(canvas, rng, world.place, 0.2)
    build(canvas, rng, solids, trees, world.place)
    if not crossing:
        actors += vehicles(rng, world, road, 14 if leading == "vehicle" else 5)
    return Scene(canvas, numbered(actors, canvas, 1))


def through_road(rng: np.random.Generator, world: World, angle: float) -> Path:
    """A nearly straight road that crosses the scene somewhere, at about `angle`."""
    height, width = world.size_hw
    road = curve((0, 0), angle, 2.4 * (height + width), rng.normal(0, 0.2))
    return Path(road.points - road.at(1.2 * (height + width)) + rng.uniform(0.2, 0.8, 2) * (width, height))


def settle(
    rng: np.random.Generator,
    world: World,
    canvas: Canvas,
    makers: Mapping[str, Callable[[np.random.Generator, World], list[Part]]],
    wishes: Sequence[str],
    angle: float,
) -> list[Actor]:
    """Each wished object on a free plot of its own, along the streets (`angle`) or across; without room, left out."""
    height, width = world.size_hw
    actors: list[Actor] = []
    for name in wishes:
        for _ in range(12):
            centre = rng.uniform(0.08, 0.92, 2) * (width, height)
            turn = angle + rng.choice([0, np.pi / 2]) + rng.normal(0, 0.02)
            parts = makers[name](rng, world)
            spot = np.concatenate([part.outline for part in parts])
            low, high = spot.min(axis=0) - 3, spot.max(axis=0) + 3
            plot = rectangle(*low, *high) @ rotation(turn).T + centre
            if canvas.is_free(plot):
                canvas.fill(plot, vary(rng, world.place.fields[0], 8), grain=6)
                canvas.reserve(plot)
                actors.append(fixed(name, parts, centre, turn))
                break
    return actors


def fixed(category: str, parts: list[Part], centre: np.ndarray, angle: float) -> Actor:
    """An object that stands at `centre` (x, y), its +x axis turned by `angle`."""
    return Actor(1, category, Path(np.array([centre, centre + unit(angle)])), 0.0, 0.0, rigid(parts))


def _box(half_length: float, half_width: float) -> np.ndarray:
    return rectangle(-half_length, -half_width, half_length, half_width)


def _frame_lines(half_length: float, half_width: float, colour, thick: float = 0.5) -> list[Part]:
    """The four lines of a rectangle's edge."""
    sides = []
    for x in (-half_length, half_length):
        sides.append(rectangle(x - thick / 2, -half_width, x + thick / 2, half_width))
    for y in (-half_width, half_width):
        sides.append(rectangle(-half_length, y - thick / 2, half_length, y + thick / 2))
    return [Part(side, colour) for side in sides]


_SURFACES = np.array([(84, 118, 84), (70, 98, 140), (158, 92, 72), (108, 132, 112), (120, 84, 110)], float)
_LINE = np.array([222.0, 222, 216])


def _tennis_court(rng: np.random.Generator, world: World) -> list[Part]:
    length = rng.uniform(26, 36) / world.metres
    half, side = length / 2, 0.26 * length
    inner = vary(rng, _SURFACES[rng.integers(len(_SURFACES))], 8)
    outer = inner if rng.random() < 0.4 else vary(rng, _SURFACES[rng.integers(len(_SURFACES))], 8)
    parts = [Part(_box(half, side), outer), Part(_box(0.66 * half, 0.62 * side), inner)]
    parts += _frame_lines(0.66 * half, 0.62 * side, _LINE) + _frame_lines(0.66 * half, 0.46 * side, _LINE, 0.35)
    return [*parts, Part(rectangle(-0.25, -0.7 * side, 0.25, 0.7 * side), inner * 0.6)]


def _basketball_court(rng: np.random.Generator, world: World) -> list[Part]:
    half = rng.uniform(13, 17) / world.metres
    side = 0.56 * half
    base = vary(rng, (_SURFACES[rng.integers(len(_SURFACES))] + (150, 146, 140)) / 2, 10)
    parts = [Part(_box(half, side), base), *_frame_lines(0.92 * half, 0.88 * side, _LINE, 0.4)]
    for end in (-1, 1):
        parts.append(Part(disc((end * 0.62 * half, 0), 0.42 * side), _LINE * 0.9))
        parts.append(Part(disc((end * 0.62 * half, 0), 0.42 * side - 0.5), base * 0.9))
        parts.append(Part(_box(0.16 * half, 0.3 * side) + np.array([end * 0.76 * half, 0]), base * 0.75))
    return [*parts, Part(rectangle(-0.2, -0.88 * side, 0.2, 0.88 * side), _LINE)]


def _storage_tank(rng: np.random.Generator, world: World) -> list[Part]:
    radius = np.exp(rng.uniform(np.log(5), np.log(20))) / world.metres
    colour = vary(rng, rng.choice(np.array([(226, 226, 222), (196, 194, 188), (150, 148, 142)], float)), 8)
    tall = rng.uniform(0.5, 1.0) * radius
    roof = disc((0, 0), 0.93 * radius, 32)
    spokes = [Part(rectangle(0, -0.2, 0.9 * radius, 0.2) @ rotation(a).T, colour * 0.9) for a in rng.uniform(0, 6.3, 2)]
    return [Part(disc((0, 0), radius, 32), colour * 0.8, tall), Part(roof, colour, 0, 0, radius), *spokes]


def _track_field(rng: np.random.Generator, world: World) -> list[Part]:
    half = rng.uniform(36, 58)
    radius = rng.uniform(0.46, 0.52) * half
    tartan = vary(rng, rng.choice(np.array([(158, 88, 72), (120, 116, 116), (104, 96, 88)], float)), 10)

    def stadium(r: float) -> np.ndarray:
        bend = np.linspace(-np.pi / 2, np.pi / 2, 16)
        right = np.stack([half - radius + r * np.cos(bend), r * np.sin(bend)], axis=1)
        return np.concatenate([right, -right])

    grass = vary(rng, world.place.fields[1], 8) * (0.85, 1.0, 0.8)
    lanes = []
    for r in (0.95 * radius, 0.88 * radius):
        lanes += [Part(stadium(r), _LINE * 0.85), Part(stadium(r - 0.4), tartan)]
    pitch = [
        Part(_box(0.62 * half, 0.62 * radius), grass * 1.08),
        *_frame_lines(0.62 * half, 0.62 * radius, _LINE, 0.5),
    ]
    mid = [Part(rectangle(-0.25, -0.62 * radius, 0.25, 0.62 * radius), _LINE)]
    return [Part(stadium(radius), tartan), *lanes, Part(stadium(0.79 * radius), grass), *pitch, *mid]


def _baseball_diamond(rng: np.random.Generator, world: World) -> list[Part]:
    reach = rng.uniform(34, 62)
    arc = np.linspace(-np.pi / 4, np.pi / 4, 20)
    soil, grass = vary(rng, (170, 138, 106), 10), vary(rng, (100, 122, 78), 8)

    def sector(r: float, x: float = 0.0) -> np.ndarray:
        return np.concatenate([[(x, 0)], np.stack([x + r * np.cos(arc), r * np.sin(arc)], axis=1)])

    diamond = (_box(0.15 * reach, 0.15 * reach) + 0.15 * reach) @ rotation(-np.pi / 4).T
    parts = [
        Part(sector(reach), soil),
        Part(sector(0.95 * reach, 0.01 * reach), grass),
        Part(sector(0.5 * reach), soil),
    ]
    parts += [Part(diamond * 0.94 + (0.03 * reach, 0), grass * 1.03), Part(disc((0.2 * reach, 0), 0.035 * reach), soil)]
    parts.append(Part(disc((0.02 * reach, 0), 0.06 * reach), soil))
    return [Part(p.outline - (reach / 2, 0), p.colour) for p in parts]


MAKERS = {
    "tennis court": _tennis_court,
    "basketball court": _basketball_court,
    "storage tank": _storage_tank,
    "ground track field": _track_field,
    "baseball diamond": _baseball_diamond,
}


def vehicles(rng: np.random.Generator, world: World, road: Path, most: int) -> list[Actor]:
    """Cars and lorries on both lanes of a road, at most `most`."""
    actors, s = [], rng.uniform(0, 30)
    while s < road.length and most:
        point = road.at(s)
        if all(-5 < p < side + 5 for p, side in zip(point, world.size_hw[::-1], strict=True)):
            lane = road.offset(rng.choice([-2.2, 2.2]))
            length = rng.uniform(5.5, 7.5) if rng.random() < 0.75 else rng.uniform(9, 15)
            actors.append(Actor(1, "vehicle", lane, s, 0.0, rigid(car(rng, length / min(world.metres, 1.0)))))
            most -= 1
        s += 24 + rng.exponential(12)
    return actors


def _river(rng: np.random.Generator, world: World, canvas: Canvas, half_width: float) -> Path:
    """Water across the scene; nothing is built in it."""
    height, width = world.size_hw
    reach = np.hypot(height, width)
    line = curve((0, 0), rng.uniform(0, np.pi), 2 * reach, rng.normal(0, 0.4))
    line = Path(line.points - line.at(reach) + np.array([width, height]) * rng.uniform(0.4, 0.6, 2))
    water = Canvas(np.zeros_like(canvas.rgb), canvas.labels, canvas.grain, canvas.light)
    paint_water(water, rng, vary(rng, world.place.water, 8), rng.uniform(1, 3))
    outline = line.strip(0, line.length, half_width)
    outline += octave_noise(rng, (len(outline), 2), (6,)) * 1.5
    canvas.fill(line.strip(0, line.length, half_width + 3), vary(rng, world.place.soil, 8), grain=8)
    hit = canvas.mask([outline])
    if hit is not None:
        canvas.rgb[hit[0]][hit[1]] = water.rgb[hit[0]][hit[1]]
    canvas.reserve(line.strip(0, line.length, half_width + 3))
    return line


def _bridges(rng: np.random.Generator, world: World, canvas: Canvas) -> list[Actor]:
    half = rng.uniform(0.11, 0.2) * min(world.size_hw)
    river = _river(rng, world, canvas, half)
    actors = []
    first = river.length / 2 + rng.uniform(-0.25, 0.25) * min(world.size_hw)
    for s in (first, first + 70)[: rng.integers(1, 3)]:
        centre = river.at(s)
        step = river.at(s + 1) - river.at(s - 1)
        angle = np.arctan2(step[1], step[0]) + np.pi / 2 + rng.normal(0, 0.15)
        wide, long = rng.uniform(3.2, 7.0), half * 1.06 + 3
        far = Path(np.array([centre - unit(angle) * 600, centre + unit(angle) * 600]))
        for a, b in ((0, 600 - long + 1), (600 + long - 1, 1200)):
            paint_road(canvas, rng, world.place, Path(np.array([far.at(a), far.at(b)])), 0.8 * wide)
        deck = vary(rng, (176, 172, 166), 12)
        lane = vary(rng, world.place.asphalt, 8)
        parts = [Part(_box(long, wide), deck, 4.0, 2.0), Part(_box(long, 0.8 * wide), lane)]
        parts.append(Part(_box(long, 0.25), _LINE * 0.9))
        actors.append(fixed("bridge", parts, centre, angle))
    return actors


def _harbor(rng: np.random.Generator, world: World, canvas: Canvas) -> list[Actor]:
    """Piers with fingers in a wide water; boats beside them belong to the background."""
    half = rng.uniform(0.3, 0.4) * min(world.size_hw)
    river = _river(rng, world, canvas, half)
    actors = []
    for s in river.length / 2 + np.array([-60.0, 0.0, 60.0]) + rng.uniform(-10, 10):
        step = river.at(s + 1) - river.at(s - 1)
        inland = np.arctan2(step[1], step[0]) + np.pi / 2
        long = half * rng.uniform(0.6, 1.1)
        colour = vary(rng, (186, 180, 170), 10)
        parts = [Part(rectangle(-long / 2, -1.4, long / 2, 1.4), colour, 1.2)]
        boats = []
        for x in np.arange(-long / 2 + 2, long / 2 - 4, 6.5):
            for side in (-1, 1):
                parts.append(Part(rectangle(x, min(0, side * 9), x + 1.2, max(0, side * 9)), colour * 0.95, 1.0))
                if rng.random() < 0.7:
                    boats.append((x + 3.9, side * rng.uniform(5.2, 6.2)))
        centre = river.at(s) + unit(inland) * (half - long / 2 + 1)
        turn = rotation(inland)
        for spot in boats:
            where = np.array(spot) @ turn.T + centre
            bow = unit(inland + np.pi / 2) * np.sign(spot[1])
            boat = car(rng, rng.uniform(5, 7))
            actors.append(Actor(0, "clutter", Path(np.array([where, where + bow])), 0.0, 0.0, rigid(boat)))
        actors.append(fixed("harbor", parts, centre, inland))
    return actors
