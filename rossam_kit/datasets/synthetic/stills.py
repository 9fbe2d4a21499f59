"""Still scenes of other kinds of objects, in towns: courts, tanks and harbours, or crowded with small objects.

`still_life` shows objects as NWPU VHR-10 holds them, `crowded_town` as iSAID's aerial images do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rossam_kit.datasets.synthetic.builder import SceneBuilder, paint_water
from rossam_kit.datasets.synthetic.geometry import Axes, Path, curve_through, rectangle, rotation, unit
from rossam_kit.datasets.synthetic.objects import LONGEST_CAR, Actor, Part, aeroplane, car, listed_parts, rigid
from rossam_kit.datasets.synthetic.paint import PALETTES, Canvas, octave_noise, vary

STATIC_CATEGORIES = (
    "tennis court", "storage tank", "ground track field", "vehicle", "bridge", "baseball diamond",
    "basketball court", "harbor",
)  # fmt: skip
AERIAL_CATEGORIES = (
    "small vehicle", "swimming pool", "large vehicle", "roundabout", "plane", "storage tank", "tennis court",
)  # fmt: skip
_PITCH = {"small vehicle": 5.5, "large vehicle": 9.0}
"""Frame pixels from one parked vehicle to the next beside it."""
_LINE = np.array([222.0, 222, 216])


def still_life(b: SceneBuilder, leading: str) -> None:
    """About half a dozen objects, of `leading` first, and cars on the streets."""
    rng = b.rng
    b.paint_ground(50)
    angle = rng.uniform(0, np.pi)
    has_water = leading in _AT_WATER
    if has_water:
        _AT_WATER[leading](b)
    others = [name for name in _STATIC_PLOTS if name != leading]
    wishes = [leading] * int(rng.integers(2, 5)) if leading in _STATIC_PLOTS else []
    wishes += [str(rng.choice(others)) for _ in range(rng.integers(1, 4))]
    road = _through_road(b, angle)
    if not has_water:
        b.paint_road(road, rng.uniform(4.0, 5.5))
    _settle(b, wishes, angle)
    b.plan_town(rotation(angle), 0.65, woods=0.2)
    b.draw_buildings()
    if not has_water:
        _add_vehicles(b, road, 14 if leading == "vehicle" else 5, "vehicle", "vehicle")


def crowded_town(b: SceneBuilder, leading: str) -> None:
    """About a dozen objects: one park of vehicles at least, and `leading` where it is no vehicle."""
    rng = b.rng
    b.paint_ground(40)
    angle = rng.uniform(0, np.pi)
    road = _through_road(b, angle)
    b.paint_road(road, rng.uniform(4.5, 6.0))
    _add_vehicle_park(b, leading if leading in _PITCH else str(rng.choice(list(_PITCH))), angle)
    wishes = [leading] * int(rng.integers(2, 4)) if leading in _AERIAL_PLOTS else []
    wishes += [str(rng.choice(_AERIAL_PLOTS)) for _ in range(rng.integers(2, 5))]
    _settle(b, wishes, angle)
    b.plan_town(rotation(angle), 0.7, woods=0.15)
    b.draw_buildings()
    _add_vehicles(b, road, 3, "small vehicle", "large vehicle")


def _through_road(b: SceneBuilder, angle: float) -> Path:
    """A nearly straight road that crosses the scene somewhere, at about `angle`."""
    bend = b.rng.normal(0, 0.2)
    return curve_through(angle, 2.4 * b.size_wh.sum(), bend, b.rng.uniform(0.2, 0.8, 2) * b.size_wh)


def _settle(b: SceneBuilder, wishes: list[str], angle: float) -> None:
    """Each wished object on a free plot of its own, along the streets (`angle`) or across; without room, left out."""
    rng = b.rng
    for name in wishes:
        for _ in range(12):
            centre = rng.uniform(0.08, 0.92, 2) * b.size_wh
            turn = angle + rng.choice([0, np.pi / 2]) + rng.normal(0, 0.02)
            parts = _MAKERS[name](b)
            points = np.concatenate([part.outline for part in parts])
            plot = Axes(rotation(turn), centre).box(*(points.min(axis=0) - 3), *(points.max(axis=0) + 3))
            if b.canvas.is_free(plot):
                b.canvas.fill(plot, vary(rng, b.place.fields[0], 8), grain=6)
                b.canvas.reserve(plot)
                b.stand(name, parts, centre, turn)
                break


def _add_vehicles(b: SceneBuilder, road: Path, most: int, small: str, large: str) -> None:
    """Cars (category `small`) and lorries (`large`) on both lanes of a road, at most `most`."""
    rng, s = b.rng, b.rng.uniform(0, 30)
    while s < road.length and most:
        point = road.at(s)
        if (point > -5).all() and (point < b.size_wh + 5).all():
            lane = road.offset(rng.choice([-2.2, 2.2]))
            length = rng.uniform(5.5, 7.5) if rng.random() < 0.75 else rng.uniform(9, 15)
            length /= min(b.metres, 1.0)
            category = small if length < LONGEST_CAR else large
            b.actors.append(Actor(1, category, lane, s, 0.0, rigid(car(rng, length))))
            most -= 1
        s += 24 + rng.exponential(12)


def _add_vehicle_park(b: SceneBuilder, kind: str, angle: float) -> None:
    """A paved lot with two rows of parked vehicles, most places taken; nothing where no plot of its size is free."""
    rng, small, pitch = b.rng, kind == "small vehicle", _PITCH[kind]
    places, depth = (int(rng.integers(4, 7)), 9.5) if small else (int(rng.integers(2, 4)), 20.0)
    half = np.array([places * pitch / 2 + 2, depth + 5])
    for _ in range(24):
        axes = Axes(rotation(angle), rng.uniform(0.15, 0.85, 2) * b.size_wh)
        lot = axes.box(*-half, *half)
        if b.canvas.is_free(lot):
            break
    else:
        return
    b.canvas.fill(lot, vary(rng, b.place.asphalt, 8), grain=4)
    b.canvas.reserve(lot)
    for row in (-0.5, 0.5):
        for x in (np.arange(places) - (places - 1) / 2) * pitch:
            if rng.random() < 0.8:
                length = rng.uniform(6.2, 6.9) if small else rng.uniform(13, 18)
                heading = angle + rng.choice([-0.5, 0.5]) * np.pi + rng.normal(0, 0.03)
                b.stand(kind, car(rng, length), axes.at((x, row * (depth + 4))), heading)


def _tennis_court(b: SceneBuilder) -> list[Part]:
    half = b.rng.uniform(26, 36) / b.metres / 2
    inner = _court_colour(b)
    outer = inner if b.rng.random() < 0.4 else _court_colour(b)
    paints = {"inner": inner, "outer": outer, "line": _LINE}
    return listed_parts(b.rng, "tennis court", (half, 0.52 * half), paints)


def _court_colour(b: SceneBuilder) -> np.ndarray:
    return vary(b.rng, b.rng.choice(PALETTES["courts"]), 8)


def _basketball_court(b: SceneBuilder) -> list[Part]:
    half = b.rng.uniform(13, 17) / b.metres
    base = vary(b.rng, np.add(b.rng.choice(PALETTES["courts"]), (150, 146, 140)) / 2, 10)
    return listed_parts(b.rng, "basketball court", (half, 0.56 * half), {"base": base, "line": _LINE})


def _storage_tank(b: SceneBuilder) -> list[Part]:
    radius = np.exp(b.rng.uniform(np.log(5), np.log(20))) / b.metres
    roof = vary(b.rng, b.rng.choice(PALETTES["tanks"]), 8)
    height = b.rng.uniform(0.5, 1.0) * radius
    spoke = rectangle(0, -0.2, 0.9 * radius, 0.2)
    spokes = [Part(spoke @ rotation(angle).T, roof * 0.9) for angle in b.rng.uniform(0, 6.3, 2)]
    return listed_parts(b.rng, "storage tank", (radius, radius), {"roof": roof}, unit=height) + spokes


def _track_field(b: SceneBuilder) -> list[Part]:
    half = b.rng.uniform(36, 58)
    radius = b.rng.uniform(0.46, 0.52) * half
    tartan = vary(b.rng, b.rng.choice(PALETTES["tracks"]), 10)
    grass = vary(b.rng, b.place.fields[1], 8) * (0.85, 1.0, 0.8)
    paints = {"tartan": tartan, "grass": grass, "line": _LINE}
    return listed_parts(b.rng, "ground track field", (half, radius), paints)


def _baseball_diamond(b: SceneBuilder) -> list[Part]:
    reach = b.rng.uniform(34, 62)
    paints = {"soil": vary(b.rng, (170, 138, 106), 10), "grass": vary(b.rng, (100, 122, 78), 8)}
    return listed_parts(b.rng, "baseball diamond", (reach, reach), paints)


def _swimming_pool(b: SceneBuilder) -> list[Part]:
    length = b.rng.uniform(8, 18) / b.metres
    scale = length / 2, b.rng.uniform(0.22, 0.36) * length
    water = vary(b.rng, (74, 158, 178), 12)
    return listed_parts(b.rng, "oval pool" if b.rng.random() < 0.4 else "swimming pool", scale, {"water": water})


def _roundabout(b: SceneBuilder) -> list[Part]:
    """The island and the lane around it, as iSAID outlines a roundabout."""
    radius = b.rng.uniform(11, 18) / b.metres
    lane, lawn = vary(b.rng, b.place.asphalt, 8), vary(b.rng, b.place.fields[0], 10)
    paints = {"lane": lane, "lawn": lawn, "kerb": vary(b.rng, (190, 186, 176), 6)}
    return listed_parts(b.rng, "roundabout", (radius, radius), paints)


def _parked_plane(b: SceneBuilder) -> list[Part]:
    kind = str(b.rng.choice(["narrow", "regional", "turboprop", "business"]))
    return aeroplane(b.rng, b.rng.uniform(18, 34) / b.metres, kind, vary(b.rng, (222, 222, 220), 10))


_MAKERS: dict[str, Callable[[SceneBuilder], list[Part]]] = {
    "tennis court": _tennis_court,
    "basketball court": _basketball_court,
    "storage tank": _storage_tank,
    "ground track field": _track_field,
    "baseball diamond": _baseball_diamond,
    "swimming pool": _swimming_pool,
    "roundabout": _roundabout,
    "plane": _parked_plane,
}
_STATIC_PLOTS = ["tennis court", "basketball court", "storage tank", "ground track field", "baseball diamond"]
_AERIAL_PLOTS = ["swimming pool", "roundabout", "plane", "storage tank", "tennis court"]


def _paint_river(b: SceneBuilder, half_width: float) -> Path:
    """Water across the scene; nothing is built in it."""
    canvas, rng, reach = b.canvas, b.rng, b.diagonal
    heading, bend = rng.uniform(0, np.pi), rng.normal(0, 0.4)
    line = curve_through(heading, 2 * reach, bend, b.size_wh * rng.uniform(0.4, 0.6, 2))
    water = Canvas(np.zeros_like(canvas.rgb), canvas.labels, canvas.grain, canvas.light)
    paint_water(water, rng, vary(rng, b.place.water, 8), rng.uniform(1, 3))
    outline = line.strip(0, line.length, half_width)
    outline += octave_noise(rng, (len(outline), 2), (6,)) * 1.5
    banks = line.strip(0, line.length, half_width + 3)
    canvas.fill(banks, vary(rng, b.place.soil, 8), grain=8)
    window, mask = canvas.mask(outline)
    canvas.rgb[window][mask] = water.rgb[window][mask]
    canvas.reserve(banks)
    return line


def _add_bridges(b: SceneBuilder) -> None:
    """A river and one or two bridges, on which roads cross it."""
    rng, shorter = b.rng, b.size_wh.min()
    half = rng.uniform(0.11, 0.2) * shorter
    river = _paint_river(b, half)
    first = river.length / 2 + rng.uniform(-0.25, 0.25) * shorter
    for s in (first, first + 70)[: rng.integers(1, 3)]:
        centre, angle = river.at(s), river.heading(s) + np.pi / 2 + rng.normal(0, 0.15)
        wide, long = rng.uniform(3.2, 7.0), half * 1.06 + 3
        far = Path([centre - unit(angle) * 600, centre + unit(angle) * 600])
        for start, end in ((0, 600 - long + 1), (600 + long - 1, 1200)):
            b.paint_road(Path([far.at(start), far.at(end)]), 0.8 * wide)
        paints = {"deck": vary(rng, (176, 172, 166), 12), "lane": vary(rng, b.place.asphalt, 8)}
        parts = listed_parts(rng, "bridge", (long, wide), paints)
        parts.append(Part(rectangle(-long, -0.25, long, 0.25), _LINE * 0.9))
        b.stand("bridge", parts, centre, angle)


def _add_harbor(b: SceneBuilder) -> None:
    """Piers with fingers in a wide water; boats beside them belong to the background."""
    rng = b.rng
    half = rng.uniform(0.3, 0.4) * b.size_wh.min()
    river = _paint_river(b, half)
    for s in river.length / 2 + np.array([-60.0, 0.0, 60.0]) + rng.uniform(-10, 10):
        inland = river.heading(s) + np.pi / 2
        long = half * rng.uniform(0.6, 1.1)
        colour = vary(rng, (186, 180, 170), 10)
        parts = [Part(rectangle(-long / 2, -1.4, long / 2, 1.4), colour, 1.2)]
        berths = []
        for x in np.arange(-long / 2 + 2, long / 2 - 4, 6.5):
            for side in (-1, 1):
                parts.append(Part(rectangle(x, min(0, side * 9), x + 1.2, max(0, side * 9)), colour * 0.95, 1.0))
                if rng.random() < 0.7:
                    berths.append((x + 3.9, side * rng.uniform(5.2, 6.2)))
        axes = Axes(rotation(inland), river.at(s) + unit(inland) * (half - long / 2 + 1))
        for berth in berths:
            away = inland + np.sign(berth[1]) * np.pi / 2
            b.stand("clutter", car(rng, rng.uniform(5, 7)), axes.at(berth), away, annotated=False)
        b.stand("harbor", parts, axes.origin, inland)


_AT_WATER = {"harbor": _add_harbor, "bridge": _add_bridges}
STILLS = {"static": (still_life, STATIC_CATEGORIES), "aerial": (crowded_town, AERIAL_CATEGORIES)}
"""Of each variant: the scene, and its leading objects, taken in turn."""
