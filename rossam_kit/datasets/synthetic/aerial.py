"""Crowded still patches of small objects, as iSAID's aerial images hold them.

The `Scene` of one moment shows a town with car parks and lorry parks full of
vehicles, and pools, roundabouts, courts, tanks and parked planes between its houses, each with its exact mask.
"""

from __future__ import annotations

import numpy as np

from rossam_kit.datasets.synthetic.ground import build, paint_ground, paint_road, plan_town, plan_woods
from rossam_kit.datasets.synthetic.objects import LONGEST_CAR, Actor, Part, aeroplane, car
from rossam_kit.datasets.synthetic.paint import Canvas, disc, rectangle, rotation, vary
from rossam_kit.datasets.synthetic.static import MAKERS, fixed, settle, through_road, vehicles
from rossam_kit.datasets.synthetic.world import Scene, World, numbered

AERIAL_CATEGORIES = (
    "small vehicle", "swimming pool", "large vehicle", "roundabout", "plane", "storage tank", "tennis court",
)  # fmt: skip
PITCH = {"small vehicle": 5.5, "large vehicle": 9.0}
"""Frame pixels from one parked vehicle to the next beside it."""


def crowded_town(rng: np.random.Generator, world: World, leading: str) -> Scene:
    """A scene of about a dozen objects: one park of vehicles at least, and `leading` where it is no vehicle."""
    canvas = Canvas.blank(world.size_hw, world.light, rng)
    paint_ground(canvas, rng, world.place, 40)
    angle = rng.uniform(0, np.pi)
    road = through_road(rng, world, angle)
    paint_road(canvas, rng, world.place, road, rng.uniform(4.5, 6.0))
    kind = leading if leading in PITCH else str(rng.choice(list(PITCH)))
    actors = _vehicle_park(rng, world, canvas, kind, angle)
    wishes = [leading] * int(rng.integers(2, 4)) if leading in _MAKERS else []
    wishes += [str(rng.choice(list(_MAKERS))) for _ in range(rng.integers(2, 5))]
    actors += settle(rng, world, canvas, _MAKERS, wishes, angle)
    solids, trees = plan_town(canvas, rng, world.place, rotation(angle), 0.7)
    trees += plan_woods(canvas, rng, world.place, 0.15)
    build(canvas, rng, solids, trees, world.place)
    for actor in vehicles(rng, world, road, 3):
        shell = actor.bodies[0].parts[0].outline
        actor.category = "small vehicle" if np.ptp(shell[:, 0]) < LONGEST_CAR else "large vehicle"
        actors.append(actor)
    return Scene(canvas, numbered(actors, canvas, 1))


def _vehicle_park(rng: np.random.Generator, world: World, canvas: Canvas, kind: str, angle: float) -> list[Actor]:
    """A paved lot with two rows of parked vehicles, most places taken; nothing where no plot of its size is free."""
    height, width = world.size_hw
    small, pitch = kind == "small vehicle", PITCH[kind]
    places, depth = (int(rng.integers(4, 7)), 9.5) if small else (int(rng.integers(2, 4)), 20.0)
    half = np.array([places * pitch / 2 + 2, depth + 5])
    for _ in range(24):
        centre = rng.uniform(0.15, 0.85, 2) * (width, height)
        turn = rotation(angle)
        lot = rectangle(*-half, *half) @ turn.T + centre
        if canvas.is_free(lot):
            break
    else:
        return []
    canvas.fill(lot, vary(rng, world.place.asphalt, 8), grain=4)
    canvas.reserve(lot)
    actors = []
    for row in (-0.5, 0.5):
        for x in (np.arange(places) - (places - 1) / 2) * pitch:
            if rng.random() < 0.8:
                spot = np.array([x, row * (depth + 4)]) @ turn.T + centre
                length = rng.uniform(6.2, 6.9) if small else rng.uniform(13, 18)
                heading = angle + rng.choice([-0.5, 0.5]) * np.pi + rng.normal(0, 0.03)
                actors.append(fixed(kind, car(rng, length), spot, heading))
    return actors


def _swimming_pool(rng: np.random.Generator, world: World) -> list[Part]:
    length = rng.uniform(8, 18) / world.metres
    half, side = length / 2, rng.uniform(0.22, 0.36) * length
    water = vary(rng, (74, 158, 178), 12)
    basin = rectangle(-half, -side, half, side)
    if rng.random() < 0.4:  # an oval one
        basin = disc((0, 0), 1.0) * (half, side)
    return [Part(basin, water), Part(basin * 0.8, water * 0.92)]


def _roundabout(rng: np.random.Generator, world: World) -> list[Part]:
    """The island and the lane around it, as iSAID outlines a roundabout."""
    radius = rng.uniform(11, 18) / world.metres
    lane, lawn = vary(rng, world.place.asphalt, 8), vary(rng, world.place.fields[0], 10)
    return [
        Part(disc((0, 0), radius, 32), lane),
        Part(disc((0, 0), 0.55 * radius), vary(rng, (190, 186, 176), 6)),
        Part(disc((0, 0), 0.5 * radius), lawn),
    ]


def _parked_plane(rng: np.random.Generator, world: World) -> list[Part]:
    kind = str(rng.choice(["narrow", "regional", "turboprop", "business"]))
    return aeroplane(rng, rng.uniform(18, 34) / world.metres, kind, vary(rng, (222, 222, 220), 10))


_MAKERS = {
    "swimming pool": _swimming_pool,
    "roundabout": _roundabout,
    "plane": _parked_plane,
    "storage tank": MAKERS["storage tank"],
    "tennis court": MAKERS["tennis court"],
}
