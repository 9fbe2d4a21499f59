"""The builder of generated scenes: ground, water, roads, towns and woods, and the objects on them.

A scene (`scenes.py`, `stills.py`) is a function that calls a `SceneBuilder`'s methods. Solids cast their shadows before
any of them is drawn, all away from the one sun.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from rossam_kit.datasets.synthetic.geometry import Axes, Path, rectangle, rotation, unit
from rossam_kit.datasets.synthetic.objects import Actor, Part, rigid
from rossam_kit.datasets.synthetic.paint import SUPERSAMPLING, Canvas, Light, Place, octave_noise, vary

MAX_SPEED = 4.0
"""Frame pixels an object moves between successive frames, at most."""


@dataclass(frozen=True)
class World:
    """What a whole video shares."""

    size_hw: tuple[int, int]  # of the frame
    place: Place
    light: Light
    metres: float  # ground resolution, metres a frame pixel
    camouflage: float  # 0 to 1, how far objects take the colour of their ground
    frames: int  # moments of the video


@dataclass
class Scene:
    """A painted background and what moves over it; overlay parts hide objects and belong to none."""

    canvas: Canvas
    actors: list[Actor] = field(default_factory=list)
    overlay: list[Part] = field(default_factory=list)

    def draw(self, t: float) -> Canvas:
        """The canvas at moment `t`: ground, wakes, shadows, objects, overlay."""
        canvas = self.canvas.copy()
        for actor in self.actors:
            if actor.wake is not None:
                actor.wake(canvas, actor, t)
        for actor in self.actors:
            actor.cast(canvas, t)
        for part in self.overlay:
            canvas.cast(part.outline, part.height, part.base)
        canvas.settle_shadows()
        for actor in self.actors:
            actor.draw(canvas, t)
        for part in self.overlay:
            canvas.fill(part.outline, part.colour, grain=4, label=0)
        return canvas


@dataclass(frozen=True)
class Solid:
    """A building: outline in frame pixels, colour, height in frame pixels, and whether the roof has a ridge."""

    outline: np.ndarray
    colour: np.ndarray
    height: float
    gabled: bool = False


def build_scene(rng: np.random.Generator, world: World, lay_out: Callable[..., None], *parameters) -> Scene:
    """The scene that `lay_out(builder, *parameters)` lays out; its annotated objects are numbered from 1."""
    builder = SceneBuilder(rng, world)
    lay_out(builder, *parameters)
    return builder.finish()


class SceneBuilder:
    """A scene under construction."""

    def __init__(self, rng: np.random.Generator, world: World):
        self.rng, self.world, self.place, self.metres = rng, world, world.place, world.metres
        self.canvas = Canvas.blank(world.size_hw, world.light, rng)
        self.size_wh = np.array(world.size_hw[::-1])
        self.diagonal = float(np.hypot(*world.size_hw))
        self.solids: list[Solid] = []  # drawn, like the trees, by `draw_buildings`
        self.trees: list[tuple[np.ndarray, float]] = []  # centre and radius of the crown
        self.actors: list[Actor] = []
        self.overlay: list[Part] = []

    def finish(self) -> Scene:
        """The scene with those actors that are ever in sight."""
        frames, kept = self.world.frames, []
        for actor in self.actors:
            slack = 2 + actor.speed * frames / 4  # what the actor moves between two of the three moments looked at
            moments = [actor.placed_parts(t) for t in (0, frames / 2, frames)]
            if any(self.canvas.sees(outline, slack) for parts in moments for _, outline, _ in parts):
                kept.append(actor)
        for number, actor in enumerate((actor for actor in kept if actor.object_id), 1):
            actor.object_id = number
        return Scene(self.canvas, kept, self.overlay)

    def speed(self, low: float, high: float) -> float:
        """Frame pixels a frame; 0 in a scene of one moment."""
        return self.rng.uniform(low, high) if self.world.frames > 1 else 0.0

    def camouflaged(self, colour, ground) -> np.ndarray:
        """`colour` drawn towards `ground` by the world's camouflage."""
        share = self.world.camouflage * self.rng.uniform(0.55, 0.9)
        return vary(self.rng, (1 - share) * np.asarray(colour, float) + share * np.asarray(ground, float), 5, 2)

    def stand(self, category: str, parts: list[Part], centre: np.ndarray, angle: float, annotated: bool = True) -> None:
        """Add an object that stands at `centre` (x, y), its +x axis turned by `angle`."""
        path = Path([centre, centre + unit(angle)])
        self.actors.append(Actor(int(annotated), category, path, 0.0, 0.0, rigid(parts)))

    def paint_ground(self, patch: float) -> None:
        """Fields of differing tone, about `patch` pixels wide, divided irregularly about one direction, under noise."""
        canvas, rng, place = self.canvas, self.rng, self.place
        canvas.rgb[:] = vary(rng, place.fields[0])
        axes = Axes(rotation(rng.uniform(0, np.pi)), self.size_wh / 2)
        reach = 0.75 * self.diagonal
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
            outline = axes.box(x0, y0, x1, y1)
            if canvas.sees(outline):
                tone = place.soil if rng.random() < 0.15 else place.fields[rng.integers(len(place.fields))]
                canvas.fill(outline, vary(rng, tone, 7, 3), grain=0)
        canvas.rgb[:] = cv2.GaussianBlur(canvas.rgb, (0, 0), 0.8 * SUPERSAMPLING)
        size_hw = canvas.labels.shape
        fine = octave_noise(rng, size_hw, (2, 5, 13), (1, 1.2, 1))
        coarse = octave_noise(rng, size_hw, (40, 120, 300), (1, 1.2, 1.2))
        tint = octave_noise(rng, size_hw, (90, 240))
        canvas.rgb += (5 * fine + 9 * coarse)[..., None] + tint[..., None] * np.array([3.5, 0, -3], np.float32)

    def paint_road(self, path: Path, half_width: float) -> None:
        """Asphalt with pale verges, worn lanes and markings; nothing may be built on it."""
        canvas, rng, place = self.canvas, self.rng, self.place
        canvas.stroke(path, half_width + 1.6, vary(rng, place.soil, 6), grain=7)
        canvas.stroke(path, half_width, vary(rng, place.asphalt, 5), grain=4)
        canvas.reserve(path.strip(0, path.length, half_width + 2))
        if half_width > 4:
            for side in (-1, 1):
                canvas.stroke(path.offset(side * half_width * 0.5), half_width * 0.12, 1.12 * place.asphalt)
            if half_width > 6:
                canvas.stroke(path, 0.9, vary(rng, place.fields[0], 5), grain=6)
            else:
                canvas.dashes(path, 0.25, (205, 203, 195), 2.5, 4)

    def paint_car_park(self, axes: Axes, x0: float, y0: float, x1: float, y1: float) -> None:
        """An asphalt lot and rows of parked cars over a rectangle along the axes, background all of it."""
        canvas, rng, lot = self.canvas, self.rng, axes.box(x0, y0, x1, y1)
        canvas.fill(lot, vary(rng, self.place.asphalt, 8), grain=4)
        canvas.reserve(lot)
        cars = []
        for y in np.arange(y0 + 3, y1 - 3, 8.5):
            for x in np.arange(x0 + 2, x1 - 2, 2.9):
                for row in (0.0, 4.6):
                    if rng.random() < 0.6 and y + row < y1 - 2:
                        spot = axes.box(x - 0.85, y + row - 1.9, x + 0.85, y + row + 1.9)
                        cars.append((spot, vary(rng, rng.choice([60.0, 130.0, 200.0, 225.0]) * np.ones(3), 12, 8)))
        for spot, tint in cars:
            canvas.fill(spot, tint, grain=1)

    def plan_town(self, turn: np.ndarray, share: float, woods: float) -> None:
        """Blocks of houses over about `share` of the free ground, in axes turned by `turn`, and `woods` beside them.

        Paints streets and yards.
        """
        canvas, rng, place = self.canvas, self.rng, self.place
        centre, reach = self.size_wh / 2, 0.6 * self.diagonal
        street = rng.uniform(1.8, 3.0)
        built_up = octave_noise(rng, (48, 48), (14,))
        limit = np.quantile(built_up, share)
        x_cuts, y_cuts = (np.cumsum(np.r_[-reach, rng.uniform(26, 60, int(2 * reach / 26) + 1)]) for _ in range(2))
        for (x0, x1), (y0, y1) in itertools.product(itertools.pairwise(x_cuts), itertools.pairwise(y_cuts)):
            row, column = (int(np.clip((edge + reach) / (2 * reach) * 47, 0, 47)) for edge in (y0, x0))
            axes = Axes(turn @ rotation(rng.normal(0, 0.03)), centre)
            block = (x0 + street, y0 + street, x1 - street, y1 - street)
            lot = axes.box(*block)
            if built_up[row, column] > limit or not canvas.sees(lot):
                continue
            around = Axes(turn, centre).box(x0 - street, y0 - street, x1 + street, y1 + street)
            if canvas.is_free(around):
                canvas.fill(around, vary(rng, place.asphalt, 4), grain=4)
                bare = rng.uniform(0.3, 0.8)
                canvas.fill(lot, vary(rng, bare * place.soil + (1 - bare) * place.fields[0], 10), grain=8)
            self._litter(axes, *block)
            self._plan_block(axes, *block)
        self._plan_woods(woods)

    def _plan_block(self, axes: Axes, x0: float, y0: float, x1: float, y1: float) -> None:
        """Fill one block with houses of one kind: large flat ones, or small ones of one or two wings, and trees."""
        canvas, rng, place = self.canvas, self.rng, self.place
        large = rng.random() < 0.22
        house = rng.uniform(14, 24) if large else rng.uniform(5.5, 9.5)
        taste = rng.dirichlet(np.full(len(place.roofs), 0.7))
        pitch = house * rng.uniform(1.05, 1.4)
        plots = itertools.product(*(np.arange(a + 0.5, b - house + 0.5, pitch) for a, b in ((x0, x1), (y0, y1))))
        for plot in map(np.array, plots):
            if rng.random() < 0.35 * place.tree_density:
                spot = axes.at(plot + rng.uniform(-0.2, 1.2, 2) * house)
                if canvas.is_free(spot + rectangle(-1, -1, 1, 1)):
                    self.trees.append((spot, rng.uniform(0.9, 2.2)))
            if rng.random() < 0.1:
                continue
            size = house * rng.uniform(0.6, 1.1, 2)
            corner = plot + rng.uniform(0, 0.25, 2) * house
            colour = vary(rng, place.roofs[rng.choice(len(place.roofs), p=taste)], 14, 3)
            tall = rng.uniform(2.2, 4.2) * (2.2 if large else 1)
            gabled = not large and rng.random() < 0.4
            wings = [(corner, size)]
            if not gabled and rng.random() < 0.7:
                part = size * rng.uniform(0.35, 0.75, 2)
                wings.append((corner + (size - 0.5 * part) * rng.integers(0, 2, 2), part))
            outlines = [axes.box(*low, *(low + extent)) for low, extent in wings]
            if all(canvas.is_free(outline) for outline in outlines):
                for k, outline in enumerate(outlines):
                    self.solids.append(Solid(outline, vary(rng, colour, 6 * k, 1), tall * (1 - 0.3 * k), gabled))

    def _litter(self, axes: Axes, x0: float, y0: float, x1: float, y1: float) -> None:
        """What lies about in yards: sheds, paths, cars, hedges; specks of a few pixels, some paler and some darker."""
        canvas, rng, low, high = self.canvas, self.rng, np.array([x0, y0]), np.array([x1, y1])
        for colour in ((58, 58, 54), (206, 200, 188)):
            count = int((high - low).prod() / 45)
            spots = rng.uniform(low, high, (count, 2))
            sizes = rng.uniform(0.3, 1.0, (count, 2)) * rng.choice([1.0, 3.0], (count, 2), p=[0.85, 0.15])
            specks = [axes.box(*(p - r), *(p + r)) for p, r in zip(spots, sizes, strict=True)]
            specks = [speck for speck in specks if canvas.is_free(speck)]
            if specks:
                canvas.fill(specks, colour, grain=6, opacity=0.5)

    def _plan_woods(self, share: float) -> None:
        """Trees in clumps over about `share` of the open ground."""
        rng, (width, height) = self.rng, self.size_wh
        share = min(share * self.place.tree_density, 0.9)
        clumps = octave_noise(rng, (height + 16, width + 16), (18, 60))
        limit = np.quantile(clumps, 1 - share)
        for _ in range(int(height * width / 16)):
            spot = np.array([rng.uniform(-7, width + 7), rng.uniform(-7, height + 7)])
            radius = rng.uniform(1.4, 3.4)
            inside = clumps[int(spot[1]) + 8, int(spot[0]) + 8] > limit
            if (inside or rng.random() < 0.004) and self.canvas.is_free(spot + rectangle(-1, -1, 1, 1) * radius):
                self.trees.append((spot, radius))

    def plan_avenue(self, path: Path, distance: float) -> None:
        """Trees in a row beside a road."""
        row = path.offset(distance)
        for spot in row.at(np.arange(0, row.length, self.rng.uniform(5, 9))):
            if self.rng.random() < 0.8 and self.canvas.sees(spot[None], 3):
                self.trees.append((spot, self.rng.uniform(1.1, 1.9)))

    def draw_buildings(self) -> None:
        """Cast all shadows, then draw roofs, then crowns."""
        canvas = self.canvas
        for solid in self.solids:
            canvas.cast(solid.outline, solid.height)
        for centre, radius in self.trees:
            canvas.cast(rectangle(-0.7, -0.7, 0.7, 0.7) * radius + centre, 1.5 * radius, 0.2 * radius)
        canvas.settle_shadows()
        for solid in self.solids:
            self._draw_roof(solid)
        for centre, radius in self.trees:
            canvas.tree(self.rng, centre, radius, self.place.tree)

    def _draw_roof(self, solid: Solid) -> None:
        canvas, rng, corners, light = self.canvas, self.rng, solid.outline, self.canvas.light
        # walls: a satellite looks straight down, so only a darker rim towards the shadow shows
        canvas.fill(corners, solid.colour * 0.72, grain=3)
        centre = corners.mean(axis=0)
        if solid.gabled:
            a, b = (corners[0] + corners[3]) / 2, (corners[1] + corners[2]) / 2
            for side in (np.stack([corners[0], corners[1], b, a]), np.stack([a, b, corners[2], corners[3]])):
                outward = side.mean(axis=0) - centre
                lit = float(outward @ light.towards_sun) / (np.linalg.norm(outward) + 1e-9)
                canvas.fill(side, solid.colour * (1 + 0.22 * lit * light.strength), grain=5)
            return
        span = np.ptp(corners, axis=0)
        shrink = 1 - 1.0 / max(float(span.min()), 3.0)
        canvas.fill((corners - centre) * shrink + centre, solid.colour, grain=6)
        for _ in range(int(min(6, span.prod() / 60))):
            spot = centre + (rng.random(2) - 0.5) * 0.45 * span
            size = rng.uniform(0.6, 1.8, 2)
            canvas.fill(rectangle(*(spot + 0.6 - size), *(spot + 0.6 + size)), solid.colour * 0.55, grain=2)
            canvas.fill(rectangle(*(spot - size), *(spot + size)), solid.colour * rng.uniform(0.7, 1.15), grain=2)


def paint_water(canvas: Canvas, rng: np.random.Generator, colour, choppiness: float) -> None:
    """Cover the canvas with open water: long swell, wind waves across it, patches of glint."""
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
    noise = octave_noise(rng, (side, int(side / stretch) + 4), (cell,))
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.0)
    stretched = turn @ np.array([[stretch, 0, 0], [0, 1, 0], [0, 0, 1]])
    stretched[:, 2] += (width / 2 - side / 2, height / 2 - side / 2)
    return cv2.warpAffine(noise, stretched, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
