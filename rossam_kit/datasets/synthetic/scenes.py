"""The scenes of moving objects: airport, sea, railway, roads.

Boarding bridges, station roofs and vehicles that serve planes hide or touch objects; like wakes, piers, catenary and
shadows they are background.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import cv2
import numpy as np

from rossam_kit.datasets.synthetic.builder import MAX_SPEED, SceneBuilder, Solid, paint_water
from rossam_kit.datasets.synthetic.geometry import Axes, Path, curve, curve_through, disc, rotation, unit
from rossam_kit.datasets.synthetic.objects import PLANES, SHIPS, Actor, Part, aeroplane, car, rigid, ship, train
from rossam_kit.datasets.synthetic.paint import MARGIN, PALETTES, SUPERSAMPLING, Canvas, vary

_YELLOW = np.array([196.0, 172, 88])
_WHITE = np.array([214.0, 212, 206])


class _Airfield:
    """Strips of an airport: v grows from the terminal's front (0) to the runway, u runs along it, in frame pixels."""

    def __init__(self, b: SceneBuilder):
        rng, m = b.rng, b.metres
        turn = rotation(rng.uniform(0, 2 * np.pi))
        self.apron, grass = rng.uniform(75, 118) / m, rng.uniform(45, 65) / m  # depths
        self.taxiway_end = self.apron + 26 / m
        self.taxi_v, self.light_v = self.apron + 13 / m, self.taxiway_end + 0.5 * grass
        self.runway_start, self.runway_v = self.taxiway_end + grass, self.taxiway_end + grass + 24 / m
        self.end = self.runway_v + 24 / m
        shown = rng.choice([0.3, 0.5, 0.9]) * self.apron + rng.uniform(-12, 12)
        if rng.random() < 0.12:
            shown = self.taxiway_end + grass * rng.uniform(0.3, 1)
        self.axes = Axes(turn, b.size_wh / 2 - np.array([0, shown]) @ turn.T)
        self.reach = 0.75 * b.diagonal + 20  # u is shown from -reach to reach
        self.concrete, self.asphalt = vary(rng, b.place.concrete, 12), vary(rng, b.place.asphalt, 10)

    def strip(self, v0: float, v1: float) -> np.ndarray:
        return self.axes.box(-self.reach, v0, self.reach, v1)

    def along(self, v: float) -> Path:
        return self.axes.line(-self.reach, v, self.reach, v)


def airport(b: SceneBuilder) -> None:
    """Terminal, apron with parked planes, taxiway and runway in parallel strips, turned as a whole."""
    b.paint_ground(90)
    field = _Airfield(b)
    _paint_strips(b, field)
    roof = _plan_landside(b, field)
    _park_at_terminal(b, field, roof)
    _taxi(b, field.along(field.taxi_v), field, int(b.rng.integers(1, 4)))
    if b.rng.random() < 0.5:
        _taxi(b, field.along(field.runway_v), field, 1)
    if b.rng.random() < 0.4:
        _park_light_aircraft(b, field)
    b.draw_buildings()


def _paint_strips(b: SceneBuilder, field: _Airfield) -> None:
    """Apron, taxiway, runway, the links between them, and their markings."""
    canvas, rng, m, reach, axes = b.canvas, b.rng, b.metres, field.reach, field.axes
    lane_colour = field.asphalt if rng.random() < 0.6 else field.concrete
    _pave(b, axes, (-reach, -4, reach, field.apron), field.concrete, 15 / m)
    _pave(b, axes, (-reach, field.apron, reach, field.taxiway_end), lane_colour, 15 / m)
    _pave(b, axes, (-reach, field.runway_start, reach, field.end), field.asphalt * 0.95, 0)
    for u in np.arange(-reach, reach, rng.uniform(130, 220) / m) + rng.uniform(0, 60):
        _pave(b, axes, (u, field.taxiway_end, u + 20 / m, field.runway_start), field.asphalt, 0)
        canvas.stroke(axes.line(u + 10 / m, field.taxi_v, u + 10 / m, field.runway_start), 0.3, _YELLOW, grain=4)
    canvas.stroke(field.along(field.taxi_v), 0.3, _YELLOW, grain=4)
    canvas.stroke(field.along(field.apron - 1), 0.25, _WHITE, grain=4)
    canvas.dashes(field.along(field.runway_v), 0.5, _WHITE, 30 / m, 22 / m)
    for edge in (field.runway_start + 2, field.end - 2):
        canvas.stroke(field.along(edge), 0.45, _WHITE, grain=4)
    canvas.reserve(field.strip(-4, field.end + 12))


def _pave(b: SceneBuilder, axes: Axes, span: tuple[float, ...], colour: np.ndarray, panel: float) -> None:
    """Paving over (u0, v0, u1, v1): slabs of slightly different grey with joints, patches and tyre marks."""
    canvas, rng, (u0, v0, u1, v1) = b.canvas, b.rng, span
    canvas.fill(axes.box(*span), colour, grain=4)
    if panel:
        for u, v in itertools.product(np.arange(u0, u1, 4 * panel), np.arange(v0, v1, 2 * panel)):
            slab = axes.box(u, v, min(u + 4 * panel, u1), min(v + 2 * panel, v1))
            if canvas.sees(slab):
                canvas.fill(slab, colour + rng.normal(0, 4), grain=4)
        joints = [axes.box(u, v0, u + 0.34, v1) for u in np.arange(u0, u1, panel)]
        joints += [axes.box(u0, v, u1, v + 0.34) for v in np.arange(v0, v1, panel)]
        for joint in joints:
            canvas.fill(joint, colour * 0.9, opacity=0.6)
    for _ in range(4):
        v, half = rng.uniform(v0, v1), rng.uniform(0.5, 2.0)
        if v - half > v0 and v + half < v1 and u1 - u0 > v1 - v0:
            canvas.fill(axes.box(u0, v - half, u1, v + half), colour * rng.uniform(0.75, 0.92), opacity=0.4)


def _plan_landside(b: SceneBuilder, field: _Airfield) -> np.ndarray:
    """Terminal, road, car park and town on the far side of it → colour of the terminal's roof."""
    canvas, rng, m, reach, axes = b.canvas, b.rng, b.metres, field.reach, field.axes
    depth = rng.uniform(24, 40) / m
    roof = vary(rng, rng.choice(PALETTES["terminals"]), 8)
    b.solids.append(Solid(field.strip(-depth, 0), roof, 14 / m))
    for u in np.arange(-reach, reach, rng.uniform(60, 120) / m):
        hall = axes.box(u, -0.8 * depth, u + 24 / m, -0.2 * depth)
        plant = axes.box(u + 36 / m, -0.65 * depth, u + 48 / m, -0.35 * depth)
        b.solids.append(Solid(hall, vary(rng, roof * 0.92, 8), 18 / m))
        b.solids.append(Solid(plant, vary(rng, roof * 0.7, 8), 16 / m))
    canvas.reserve(field.strip(-depth - 3, 0))
    b.paint_road(field.along(-depth - 12 / m), 8 / m)
    v = -depth - 24 / m
    for u in np.arange(-reach, reach, 90 / m):
        lot = (u, v - 50 / m, u + 70 / m, v)
        if rng.random() < 0.6 and canvas.sees(axes.box(*lot)):
            b.paint_car_park(axes, *lot)
    b.plan_town(axes.turn, 0.7, woods=0.25)
    return roof


def _park_at_terminal(b: SceneBuilder, field: _Airfield, roof: np.ndarray) -> None:
    """Planes parked nose in along the terminal, each at a boarding bridge; some stands are empty."""
    canvas, rng, m, axes = b.canvas, b.rng, b.metres, field.axes
    u = -field.reach + rng.uniform(0, 40)
    while u < field.reach:
        kind, length = _plane_size(b, ["narrow", "wide", "four-engined", "regional"], [0.56, 0.2, 0.09, 0.15])
        v_nose = rng.uniform(9, 14) / m
        middle = u + (1.08 * length + 7) / 2
        u += 1.08 * length + 7
        if v_nose + length > field.apron - 18 / m:  # it would stand in the way of taxiing wings
            continue
        canvas.stroke(axes.line(middle, 1, middle, field.apron), 0.25, _YELLOW, grain=4)
        stain = disc((middle, v_nose + rng.uniform(0.3, 0.8) * length), rng.uniform(0.05, 0.14) * length)
        canvas.fill(axes.at(stain), field.concrete * 0.72, opacity=0.35)
        if rng.random() < 0.78:
            lead_in = axes.line(middle, v_nose + length, middle, v_nose - 1)
            _add_plane(b, (kind, length), lead_in, length / 2, 0.0, field.concrete)
            _add_service_vehicles(b, axes, middle, v_nose, length)
            b.overlay += _bridge(b, axes, middle, v_nose, length, roof)
        else:
            b.overlay += _bridge(b, axes, middle, v_nose + 6, 0.6 * length, roof)


def _plane_size(b: SceneBuilder, kinds: list[str], shares: list[float] | None = None) -> tuple[str, float]:
    """Kind, and length in frame pixels."""
    kind = str(b.rng.choice(kinds, p=shares))
    return kind, b.rng.uniform(*PLANES[kind]["metres"]) / b.metres


def _add_plane(b: SceneBuilder, size: tuple[str, float], path: Path, start: float, speed: float, ground) -> None:
    white = b.rng.choice(PALETTES["fuselages"], p=[0.4, 0.3, 0.18, 0.12])
    parts = aeroplane(b.rng, size[1], size[0], b.camouflaged(white, ground))
    b.actors.append(Actor(1, "airplane", path, start, speed, rigid(parts)))


def _bridge(b: SceneBuilder, axes: Axes, u: float, v_nose: float, length: float, colour: np.ndarray) -> list[Part]:
    """A boarding bridge from the terminal to the door behind the plane's nose, on its left side."""
    door = np.array([u - 0.045 * length, v_nose + 0.16 * length])
    root = np.array([u - 0.3 * length - 3, -1.0])
    elbow = np.array([door[0] - 0.16 * length - 1.5, door[1] - 0.02 * length])
    tint = vary(b.rng, colour * 0.92, 8)
    tube, cab = Path([root, elbow]), Path([elbow, door])
    return [
        Part(axes.at(tube.strip(0, tube.length + 1, 1.3)), tint, 5, 3),
        Part(axes.at(cab.strip(-0.5, cab.length, 1.7)), tint * 0.9, 5, 3),
        Part(axes.at(disc(root, 2.2)), tint * 1.04, 6),
    ]


def _add_service_vehicles(b: SceneBuilder, axes: Axes, u: float, v_nose: float, length: float) -> None:
    """Loaders, tugs and carts about a parked plane: clutter."""
    rng = b.rng
    for _ in range(rng.integers(1, 5)):
        side = rng.choice([-1, 1])
        spot = np.array([u + side * rng.uniform(0.10, 0.22) * length, v_nose + rng.uniform(0.05, 0.95) * length])
        path = axes.line(*spot, *(spot + unit(rng.choice([0, np.pi / 2]))))
        b.actors.append(Actor(0, "clutter", path, 0.0, 0.0, rigid(car(rng, rng.uniform(3.5, 8)))))


def _park_light_aircraft(b: SceneBuilder, field: _Airfield) -> None:
    """Small planes on stands of their own between taxiway and runway."""
    v = field.light_v
    for u in np.arange(-field.reach, field.reach, b.rng.uniform(28, 44)):
        if b.rng.random() < 0.5:
            continue
        kind, length = _plane_size(b, ["business", "turboprop", "delta"])
        half = 0.62 * length
        _pave(b, field.axes, (u - half, v - half, u + half, v + half), field.concrete, 0)
        heading = b.rng.choice([-1, 1]) * unit(b.rng.normal(np.pi / 2, 0.1))
        path = field.axes.line(u, v, u + heading[0], v + heading[1])
        _add_plane(b, (kind, length), path, 0.0, 0.0, field.concrete)


def _taxi(b: SceneBuilder, line: Path, field: _Airfield, count: int) -> None:
    """Planes in line, all one way and at one pace."""
    rng = b.rng
    if rng.random() < 0.5:
        line = line.reversed()
    speed, s = b.speed(0.4, 2.2), field.reach - rng.uniform(0, 0.4) * b.diagonal
    for _ in range(count):
        kind, length = _plane_size(b, ["narrow", "wide", "regional"], [0.6, 0.2, 0.2])
        _add_plane(b, (kind, length), line, s, speed, field.asphalt)
        s += 1.5 * length + rng.uniform(20, 110)


def sea(b: SceneBuilder) -> None:
    """Water with ships under way, wakes behind them, and sometimes a pier with ships moored to it."""
    water = vary(b.rng, b.place.water, 9, 5)
    paint_water(b.canvas, b.rng, water, b.rng.uniform(1.5, 6.5))
    if b.rng.random() < 0.55:
        _add_harbour(b)
    _add_ships_under_way(b, water)
    b.draw_buildings()


def _add_ships_under_way(b: SceneBuilder, water: np.ndarray) -> None:
    """Ships mostly along one lane, both ways, on courses that keep clear of each other and of land."""
    rng = b.rng
    centres = slice(SUPERSAMPLING // 2, None, SUPERSAMPLING)
    land = b.canvas.reserved[centres, centres][MARGIN:-MARGIN, MARGIN:-MARGIN]
    taken = cv2.dilate(land.astype(np.uint8), np.ones((9, 9), np.uint8))
    lane = rng.uniform(0, 2 * np.pi)
    wanted, moored = int(np.clip(taken.size * rng.uniform(0.8, 1.8) / 7000, 2, 9)), len(b.actors)
    for _ in range(wanted * 6):
        kind, length = _ship_size(b)
        heading = lane + rng.normal(0, 0.5) + np.pi * rng.integers(2)
        length = min(length, 0.85 * b.size_wh.min())
        speed = b.speed(0.25, 1.6)
        run = speed * b.world.frames
        start = rng.uniform((0, 0), b.size_wh) - unit(heading) * (run / 2) - unit(heading) * 2.5 * length
        path = Path(curve(heading, run + 5 * length, rng.normal(0, 0.12)).points + start)
        course = np.zeros(taken.shape, np.uint8)
        sailed = path.strip(2 * length, 3 * length + run, 0.16 * length + 4)
        cv2.fillPoly(course, [np.round(sailed).astype(np.int32)], 1)
        if not course.any() or (course & taken).any():
            continue
        taken |= course
        colour = b.camouflaged(rng.choice(PALETTES["hulls"]), water)
        wake = wake_of(rng, length, water) if rng.random() < 0.85 else None
        body = rigid(ship(rng, length, kind, colour))
        b.actors.append(Actor(1, "ship", path, 2.5 * length, speed, body, wake=wake))
        if len(b.actors) == moored + wanted:
            break


def _ship_size(b: SceneBuilder) -> tuple[str, float]:
    """Kind and length in frame pixels: many small craft, few large ships; area stays below Table 7's 8,422."""
    kind = str(b.rng.choice(list(SHIPS), p=[form["share"] for form in SHIPS.values()]))
    length = np.exp(b.rng.uniform(*np.log(SHIPS[kind]["metres"])))
    return kind, min(length / b.metres, 205.0)


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


def _add_harbour(b: SceneBuilder) -> None:
    """Land on one side with piers; ships moored alongside touch them. Leaves all of it reserved."""
    canvas, rng, m, shorter = b.canvas, b.rng, b.metres, b.size_wh.min()
    turn, reach = rotation(rng.uniform(0, 2 * np.pi)), b.diagonal
    distance = rng.uniform(0.15, 0.42) * shorter
    axes = Axes(turn, b.size_wh / 2 - np.array([0, distance]) @ turn.T)  # u along the quay, v from it out to sea
    spans, u = [(-reach, -reach, reach, 0.0)], -reach + rng.uniform(0, 80)
    while u < reach:
        long, wide = min(rng.uniform(40, 120) / m, 0.55 * shorter), rng.uniform(9, 22) / m
        spans.append((u, -2.0, u + wide, long))
        _moor(b, axes, u, -1, long)
        _moor(b, axes, u + wide, 1, long)
        u += wide + rng.uniform(60, 150) / m
    land = [axes.box(*span) for span in spans]
    tops = [axes.box(u0 + 0.7, v0 + 0.7, u1 - 0.7, v1 - 0.7) for u0, v0, u1, v1 in spans]
    for outline in land:
        canvas.cast(outline, 2.0)
    canvas.settle_shadows()
    concrete = vary(rng, b.place.concrete, 12)
    canvas.fill(land, concrete * 0.7, grain=5)
    canvas.fill(tops, concrete, grain=9)
    _plan_quay(b, axes, reach)
    canvas.reserved[:] = False
    canvas.reserve(land)
    for actor in b.actors:
        canvas.reserve([outline for _, outline, _ in actor.placed_parts(0)])


def _moor(b: SceneBuilder, axes: Axes, u: float, side: int, long: float) -> None:
    """Ships one behind the other along a pier's edge at `u`, touching it; `side` is the water's."""
    v = 3.0
    while b.rng.random() < 0.75:
        kind, length = _ship_size(b)
        length = min(length, long - v)
        if length < 8:
            break
        parts = ship(b.rng, length, kind, b.camouflaged(b.rng.choice(PALETTES["hulls"]), b.place.water))
        axis = u + side * (max(part.outline[:, 1].max() for part in parts) + 0.1)
        path = axes.line(axis, v, axis, v + length)
        if b.rng.random() >= 0.5:
            path = path.reversed()
        b.actors.append(Actor(1, "ship", path, length / 2, 0.0, rigid(parts)))
        v += length + b.rng.uniform(2, 8)


def _plan_quay(b: SceneBuilder, axes: Axes, reach: float) -> None:
    """Behind the water's edge: a road, warehouses, and the town; nothing out at sea."""
    canvas, rng, m, roofs = b.canvas, b.rng, b.metres, b.place.roofs
    road = axes.line(-reach, -9 / m, reach, -9 / m)
    canvas.stroke(road, 4 / m, vary(rng, b.place.asphalt, 6), grain=5)
    canvas.reserve(axes.box(-reach, -14 / m, reach, reach))
    for u in np.arange(-reach, reach, rng.uniform(40, 70) / m):
        if rng.random() < 0.7:
            depth, long = rng.uniform(14, 26) / m, rng.uniform(22, 40) / m
            outline = axes.box(u, -18 / m - depth, u + long, -18 / m)
            b.solids.append(Solid(outline, vary(rng, roofs[rng.integers(len(roofs))], 12), 6 / m))
            canvas.reserve(outline)
    b.plan_town(axes.turn, 0.7, woods=0.2)


def rail(b: SceneBuilder) -> None:
    """Parallel tracks, straight or curved, with trains on them; sometimes a station roof hides part of a train."""
    canvas, rng = b.canvas, b.rng
    b.paint_ground(60)
    reach, heading = b.diagonal + 160, rng.uniform(0, 2 * np.pi)
    bend = rng.choice([0.0, 0.0, 1.0]) * rng.normal(0, 0.9)
    centre = b.size_wh / 2 + rng.normal(0, 0.1, 2) * b.size_wh.min()
    line = curve_through(heading, 2 * reach, bend, centre, 96)
    train_width = rng.uniform(5.0, 8.0) / b.metres
    spacing = 1.6 * train_width
    count = int(rng.choice([2, 3, 4, 6], p=[0.4, 0.25, 0.25, 0.1]))
    offsets = (np.arange(count) - (count - 1) / 2) * spacing
    if rng.random() < 0.7:
        b.paint_road(line.offset(offsets[-1] + rng.uniform(16, 30)), rng.uniform(2.5, 4))
    bed = offsets[-1] + spacing  # half width
    ballast = vary(rng, (136, 126, 118), 10)
    canvas.stroke(line, bed + 2, vary(rng, b.place.soil, 8), grain=9)
    canvas.stroke(line, bed, ballast, grain=9)
    canvas.reserve(line.strip(0, line.length, bed + 2))
    tracks = [line.offset(offset) for offset in offsets]
    for track in tracks:
        _lay_track(b, track, train_width, ballast)
    b.plan_town(rotation(heading), 0.75, woods=0.22)
    if rng.random() < 0.4:
        _add_station(b, line, reach, bed, spacing)
    if rng.random() < 0.6:
        _cast_catenary(b, line, bed, train_width)
    b.draw_buildings()
    for i in rng.permutation(count)[: max(1, int(np.ceil(count * rng.uniform(0.6, 1.0))))]:
        _add_trains(b, tracks[i] if i >= count / 2 else tracks[i].reversed(), reach, train_width, ballast)


def _lay_track(b: SceneBuilder, track: Path, train_width: float, ballast: np.ndarray) -> None:
    canvas, gauge = b.canvas, 0.25 * train_width
    canvas.stroke(track, gauge * 1.9, ballast * b.rng.uniform(0.8, 0.92), grain=8)
    places = [s for s in np.arange(0, track.length, 1.7) if canvas.sees(track.at(s)[None], 6)]
    if places:
        sleepers = [track.strip(s, s + 0.6, gauge * 1.7) for s in places]
        canvas.fill(sleepers, ballast * 1.15, grain=6, opacity=0.7)
    for side in (-1, 1):
        canvas.stroke(track.offset(side * gauge), 0.22, ballast * 0.55 + 30, grain=5)


def _cast_catenary(b: SceneBuilder, line: Path, bed: float, train_width: float) -> None:
    """Shadows of the portals across the tracks that carry the wires."""
    for s in np.arange(0, line.length, b.rng.uniform(38, 60)):
        portal = line.at(s) + np.outer([-1, 1], bed * unit(line.heading(s) + np.pi / 2))
        if b.canvas.sees(portal):
            b.canvas.cast(Path(portal).strip(0, 2 * bed, 0.35), train_width * 1.9, train_width * 1.7)


def _add_station(b: SceneBuilder, line: Path, reach: float, bed: float, spacing: float) -> None:
    """A platform beside the tracks and a roof across some of them; the roof is background."""
    rng = b.rng
    s = reach + rng.uniform(-60, 60)
    side = rng.choice([-1, 1])
    platform = line.offset(side * (bed + 3.5)).strip(s - 80, s + 80, 3.5)
    b.canvas.fill(platform, vary(rng, (176, 172, 164), 8), grain=4)
    b.canvas.reserve(platform)
    colour = vary(rng, rng.choice(PALETTES["stations"]), 8)
    length, inner = rng.uniform(14, 34), rng.uniform(-1, 0.6) * bed
    band, half = line.offset(side * (inner + bed + 7) / 2), (bed + 7 - inner) / 2
    b.overlay.append(Part(band.strip(s - length, s + length, half), colour, spacing * 1.1, spacing * 0.9))
    for rib in s + np.arange(4 - length, length - 3, 6):
        b.overlay.append(Part(band.strip(rib, rib + 0.8, half - 0.6), colour * 0.88))


def _add_trains(b: SceneBuilder, track: Path, reach: float, width: float, ballast: np.ndarray) -> None:
    """One train on the track, or two far apart, going one way."""
    rng = b.rng
    speed = b.speed(1.0, 3.8) if rng.random() < 0.75 else 0.0
    s = reach + rng.uniform(-0.1, 0.4) * b.diagonal - speed * b.world.frames / 2
    for _ in range(1 + (rng.random() < 0.5)):
        kind = "passenger" if rng.random() < 0.6 else "freight"
        length = width * np.exp(rng.uniform(np.log(7), np.log(19.5)))
        colour = b.camouflaged(rng.choice(PALETTES[kind]), ballast)
        wagons = train(rng, width * rng.uniform(0.9, 1.05), length, kind, colour)
        b.actors.append(Actor(1, "train", track, s, speed, wagons))
        s -= length * 1.5 + 60


def road(b: SceneBuilder) -> None:
    """Roads through a town; cars have boxes only."""
    rng, reach = b.rng, b.diagonal
    b.paint_ground(60)
    heading, roads = rng.uniform(0, 2 * np.pi), []
    for i in range(int(rng.integers(2, 4))):
        angle = heading + (i % 2) * np.pi / 2 + rng.normal(0, 0.06)
        bend = rng.normal(0, 0.35)
        centre = b.size_wh / 2 + rng.uniform(-0.35, 0.35, 2) * b.size_wh
        half_width = rng.uniform(3.2, 8.5) if i == 0 else rng.uniform(2.6, 5)
        roads.append((curve_through(angle, 2 * reach, bend, centre, 64), half_width))
    for path, half_width in reversed(roads):
        b.paint_road(path, half_width)
        if rng.random() < 0.6:
            for distance in (half_width + 2.5, -half_width - 2.5):
                b.plan_avenue(path, distance)
    b.plan_town(rotation(heading), 0.8, woods=0.2)
    b.draw_buildings()
    for path, half_width in roads:
        _add_traffic(b, path, half_width)


def _add_traffic(b: SceneBuilder, path: Path, half_width: float) -> None:
    """Cars on the right of the road, both ways; those of one lane keep one pace, so none runs into another."""
    rng, reach = b.rng, b.diagonal
    lanes = [0.5] if half_width < 4.5 else [0.3, 0.72]
    for way, lane in itertools.product((path, path.reversed()), lanes):
        line = way.offset(lane * half_width)
        speed = b.speed(0.8, MAX_SPEED - 0.2)
        s = reach * 0.35 - speed * b.world.frames
        while s < 1.65 * reach:
            s += rng.exponential(28) + 9
            length = rng.uniform(4.2, 5.6) if rng.random() < 0.88 else rng.uniform(8, 13)
            body = rigid(car(rng, length / b.metres))
            b.actors.append(Actor(1, "car", line, s, speed, body, box_only=True))


SCENES: dict[str, Callable[[SceneBuilder], None]] = {"airport": airport, "sea": sea, "rail": rail, "road": road}
