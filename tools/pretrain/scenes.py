"""Drawn training images with exact masks; surfaces from noise or from photographs, nothing from satellites.

A scene is a structured ground, then objects of generic silhouette (`shapes.py`) one over the other, with texture,
shading, parts, shadows and attached clutter, then a camera (illumination, defocus, sharpening, resampling, noise,
JPEG). Objects are often close to the ground in colour, touch other things or consist of differently coloured parts, so
that neither colour nor convexity alone tells object from ground; where a whole and its part are both objects, the box
decides.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import cv2
import numpy as np

from rossam_kit.datasets.synthetic.geometry import rectangle, rotation, unit
from tools.pretrain.shapes import Silhouette, rasterise, sample_silhouette
from tools.pretrain.structures import lay_crossing, lay_fields, lay_group
from tools.pretrain.textures import Fill, Photos, colour, near, ramp, sample_fill

MIN_SIDE, MIN_AREA = 6, 14
"""An annotated object's longer box side and visible area are at least this many pixels."""
MIN_VISIBLE = 0.4
"""… and at least this fraction of it is visible (not occluded, not outside the image)."""


def sample_scene(
    rng: np.random.Generator, size: int = 256, photos: Photos = (), photo_share: float = 0.6
) -> tuple[np.ndarray, np.ndarray]:
    """One image and its objects.

    Args:
        rng: the only source of randomness; the same state gives the same bytes on one OpenCV version.
        size: side of the square image in pixels; at least 32.
        photos: photographs that may serve as surfaces, uint8 H×W×3.
        photo_share: share of surfaces that are filled from one of them.

    Returns:
        Image uint8 size×size×3, RGB; visible masks bool N×size×size, N ≥ 1, which overlap only where one is
        a part of the other.
    """
    while True:
        scene = _Scene(rng, size, photos, photo_share)
        scene.paint_ground()
        LAYOUTS[rng.choice(len(LAYOUTS), p=LAYOUT_WEIGHTS)](scene)
        if rng.random() < 0.2:
            scene.cast_foreign_shadows()
        masks = scene.visible_masks()
        if len(masks):
            return photograph(rng, scene.canvas), masks


# ---- the scene -------------------------------------------------------------------------------------------------


def _pixels(points: np.ndarray, matrix: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    """Unit-frame points as int32 pixels of a window, with 4 fractional bits (`shift=4`)."""
    mapped = points @ matrix[:, :2].T + matrix[:, 2] - (window[1].start, window[0].start) - 0.5
    return np.round(mapped * 16).astype(np.int32)


def _antialiased(polygon: np.ndarray, size: int) -> np.ndarray:
    """float32 size×size, 0 to 1: how far a polygon covers each pixel, about."""
    coverage = np.zeros((size, size), np.uint8)
    cv2.fillPoly(coverage, [np.round(polygon * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return coverage / np.float32(255)


@dataclass
class _Scene:
    """A canvas (float32 RGB) being painted, and the full and visible masks of the objects on it so far."""

    rng: np.random.Generator
    size: int
    photos: Photos
    photo_share: float
    canvas: np.ndarray = field(init=False)
    light: np.ndarray = field(init=False)
    masks: list[np.ndarray] = field(default_factory=list)
    full_areas: list[float] = field(default_factory=list)

    def __post_init__(self):
        self.palette = [colour(self.rng) for _ in range(5)]
        self.light = unit(self.rng.uniform(0, 2 * np.pi))
        self.shadows = self.rng.random() < 0.5
        self.shadow_length = np.exp(self.rng.uniform(np.log(0.03), np.log(0.45)))

    def any_colour(self) -> np.ndarray:
        return self.palette[self.rng.integers(5)] if self.rng.random() < 0.6 else colour(self.rng)

    def fill(self, base: np.ndarray) -> Fill:
        return sample_fill(self.rng, base, self.photos, self.photo_share)

    # -- ground

    def paint_ground(self) -> None:
        rng, size = self.rng, self.size
        self.canvas = self.fill(self.palette[0]).render(rng, size, size)
        for _ in range(rng.integers(1, 5) if rng.random() < 0.6 else 0):
            self._paint_region()
        if rng.random() < 0.35:
            self._paint_lines()
        if rng.random() < 0.2:
            self._paint_tiles()
        for _ in range(rng.integers(3, 25) if rng.random() < 0.4 else 0):
            self._paint_debris()

    def _paint_region(self) -> None:
        """A half plane, a band or a large patch of another material, as a shore, a path or a lawn."""
        rng, size = self.rng, self.size
        angle, offset = rng.uniform(0, np.pi), rng.uniform(0.1, 0.9) * size
        width = 4 * size if rng.random() < 0.4 else np.exp(rng.uniform(np.log(6), np.log(size)))
        along, across = rotation(angle).T
        edge = np.linspace(-1.5, 1.5, 24)[:, None] * size * along + offset
        ragged = rng.normal(0, 1, (24, 1)) * (0 if rng.random() < 0.6 else rng.uniform(1, 10)) * across
        polygon = np.concatenate([edge + ragged, (edge + ragged + across * width)[::-1]])
        base = near(rng, self.palette[0]) if rng.random() < 0.5 else self.any_colour()
        fill = self.fill(base).render(rng, size, size)
        self.canvas += (fill - self.canvas) * _antialiased(polygon, size)[..., None]

    def _paint_lines(self) -> None:
        """Parallel, crossing or scattered lines of one colour."""
        rng, size = self.rng, self.size
        base, angle, spacing = self.any_colour(), rng.uniform(0, np.pi), rng.uniform(6, 60)
        thickness, scattered = int(rng.integers(1, 5)), rng.random() < 0.4
        for k in range(int(rng.integers(1, 9)) if scattered else int(rng.integers(2, 20))):
            theta = rng.uniform(0, np.pi) if scattered else angle
            along, across = rotation(theta).T
            anchor = rng.uniform(0, size, 2) if scattered else size / 2 + across * (k - 6) * spacing
            ends = np.round(np.stack([anchor - 2 * size * along, anchor + 2 * size * along])).astype(int)
            cv2.line(self.canvas, ends[0].tolist(), ends[1].tolist(), base.tolist(), thickness)

    def _paint_tiles(self) -> None:
        """A grid of tiles of alternating or random brightness."""
        rng, size = self.rng, self.size
        cells = int(rng.integers(3, 40))
        grid = rng.normal(0, rng.uniform(3, 25), (cells, cells)).astype(np.float32)
        if rng.random() < 0.4:
            grid = np.indices((cells, cells)).sum(0).astype(np.float32) % 2 * rng.uniform(-40, 40)
        self.canvas += cv2.resize(grid, (size, size), interpolation=cv2.INTER_NEAREST)[..., None]

    def _paint_debris(self) -> None:
        """A small unannotated shape."""
        extent = np.exp(self.rng.uniform(np.log(3), np.log(0.25 * self.size)))
        self.paint(sample_silhouette(self.rng), self._anywhere(extent), self.fill(self.any_colour()))

    # -- layouts

    def lay_hero(self) -> None:
        """One object that fills much of the image, near its centre, among clutter and perhaps alike neighbours."""
        rng, size = self.rng, self.size
        extent = size * rng.uniform(0.2, 0.98) if rng.random() < 0.85 else size * rng.uniform(0.9, 1.5)
        centre = size / 2 + rng.normal(0, 0.06 * size, 2)
        self.scatter(int(rng.integers(0, 5)), 0.04, 0.4)
        silhouette, angle = sample_silhouette(rng), self.angle()
        matrix = self.placement(centre, extent, angle)
        if rng.random() < 0.3:
            self._attach(matrix, extent)
        material = self.material(centre)
        if rng.random() < 0.25 and extent < 0.6 * size:
            offset = unit(angle + np.pi / 2) * extent * rng.uniform(0.35, 1.1)
            for side in (-1, 1):
                self.add(silhouette, self.placement(centre + side * offset, extent, angle), material, extent)
        self.add(silhouette, matrix, material, extent)
        self.scatter(int(rng.integers(0, 4)) if rng.random() < 0.4 else 0, 0.03, 0.3)

    def lay_scatter(self) -> None:
        """Several objects of all sizes, each of its own kind."""
        self.scatter(int(self.rng.integers(3, 14)), 0.025, 0.5)

    def lay_row(self) -> None:
        """Alike objects side by side or in a grid, touching or apart, of one material or of several."""
        rng, size = self.rng, self.size
        silhouette, angle = sample_silhouette(rng), self.angle()
        extent = np.exp(rng.uniform(np.log(7), np.log(0.45 * size)))
        points = np.concatenate([polygon for polygon, paints in silhouette if paints])
        pitch = (np.ptp(points, axis=0) + 0.02) * extent * rng.uniform(0.95, 1.6, 2)
        along, across = rotation(angle).T
        columns, rows = (1, int(rng.integers(2, 8))) if rng.random() < 0.6 else rng.integers(1, 5, 2)
        origin, material = size / 2 + rng.normal(0, 0.15 * size, 2), self.material(np.full(2, size / 2))
        alike = rng.random() < 0.5
        for i in range(columns):
            for j in range(rows):
                if rng.random() < 0.15:
                    continue
                place = origin + along * pitch[0] * (i - (columns - 1) / 2) + across * pitch[1] * (j - (rows - 1) / 2)
                jitter = rng.normal(0, 0.02 * extent, 2)
                own = material if alike else self.material(place)
                turn = angle + rng.normal(0, 0.03) + (np.pi if rng.random() < 0.2 else 0)
                self.add(silhouette, self.placement(place + jitter, extent, turn), own, extent)
        self.scatter(int(rng.integers(0, 4)), 0.03, 0.3)

    def lay_leaves(self) -> None:
        """Dead leaves: many overlapping shapes, each covering what lies below."""
        self.scatter(int(self.rng.integers(20, 45)), 0.05, 0.5, plain=True)

    def scatter(self, count: int, low: float, high: float, plain: bool = False) -> None:
        for extent in np.exp(self.rng.uniform(np.log(low * self.size), np.log(high * self.size), count)):
            matrix = self._anywhere(extent)
            if not plain and self.rng.random() < 0.2:
                self._attach(matrix, extent)
            self.add(sample_silhouette(self.rng), matrix, self.material(matrix[:, 2]), extent, plain)

    def placement(self, centre: np.ndarray, extent: float, angle: float) -> np.ndarray:
        """2×3 affine map from the unit frame: scale to `extent` pixels, slight shear, mirror, turn, shift."""
        shear, mirror = self.rng.normal(0, 0.04), self.rng.choice([-1, 1]) * self.rng.uniform(0.9, 1.1)
        linear = extent * rotation(angle) @ np.array([[1, shear], [0, mirror]])
        return np.concatenate([linear, np.asarray(centre, float)[:, None]], axis=1)

    def angle(self) -> float:
        return float(self.rng.uniform(0, 2 * np.pi) if self.rng.random() < 0.8 else self.rng.integers(4) * np.pi / 2)

    def _anywhere(self, extent: float) -> np.ndarray:
        return self.placement(self.rng.uniform(0.04, 0.96, 2) * self.size, extent, self.angle())

    def material(self, centre: np.ndarray) -> Fill:
        """Camouflage against what lies at `centre`, a bright or dark extreme, or any colour."""
        rng = self.rng
        x, y = np.clip(np.asarray(centre).astype(int), 0, self.size - 1)
        kind = rng.random()
        if kind < 0.45:
            base = near(rng, self.canvas[y, x])
        elif kind < 0.6:
            base = np.float32(rng.choice([rng.uniform(200, 255), rng.uniform(5, 45)])) + np.zeros(3, np.float32)
        else:
            base = self.any_colour()
        return self.fill(base)

    # -- painting one object

    def add(self, silhouette: Silhouette, matrix: np.ndarray, material: Fill, extent: float, plain=False) -> None:
        """Paint an object, and record its mask and perhaps those of its parts."""
        rng = self.rng
        drawn = rasterise(silhouette, matrix, self.size)
        if drawn is None:
            return
        coverage, window, inside = drawn
        if self.shadows and rng.random() < 0.7:
            self._cast_shadow(coverage, window, extent)
        fill = material.render(rng, *coverage.shape)
        if len(silhouette) > 1 and rng.random() < 0.35:
            self._tint_parts(fill, silhouette, matrix, window)
        parts = [] if plain or extent < 8 else self._decorate(fill, coverage, matrix, window, extent)
        if rng.random() < 0.4:
            self._shade(fill, coverage, extent)
        self._blend(fill, coverage, window)
        self.record(coverage >= 0.5, window, inside)
        for part in parts:
            self.record(part & (coverage >= 0.5), window, inside, occludes=False)
        if not plain and rng.random() < 0.12:
            self._overlay_bar(matrix, extent)

    def _blend(self, fill: np.ndarray, coverage: np.ndarray, window: tuple[slice, slice]) -> None:
        under = self.canvas[window]
        under += (fill - under) * coverage[..., None]

    def record(self, shape: np.ndarray, window: tuple[slice, slice], inside: float, occludes: bool = True) -> None:
        """A new object on top of the others; a part (`occludes=False`) hides nothing."""
        if occludes:
            for mask in self.masks:
                mask[window] &= ~shape
        mask = np.zeros((self.size, self.size), bool)
        mask[window] = shape
        self.masks.append(mask)
        self.full_areas.append(np.count_nonzero(shape) / max(inside, 1e-3))

    def paint(self, silhouette: Silhouette, matrix: np.ndarray, material: Fill) -> None:
        """Paint without annotating; what is annotated below becomes hidden."""
        drawn = rasterise(silhouette, matrix, self.size)
        if drawn is not None:
            coverage, window, _ = drawn
            self._blend(material.render(self.rng, *coverage.shape), coverage, window)
            for mask in self.masks:
                mask[window] &= coverage < 0.5

    def _cast_shadow(self, coverage: np.ndarray, window: tuple[slice, slice], extent: float) -> None:
        """The silhouette again, dark, displaced away from the light; not part of the object."""
        reach = self.light * self.shadow_length * self.rng.uniform(0.8, 1.2) * min(extent, 90)
        shift = np.float32([[1, 0, reach[0] + window[1].start], [0, 1, reach[1] + window[0].start]])
        shadow = cv2.warpAffine(coverage, shift, (self.size, self.size))
        if self.rng.random() < 0.5:
            shadow = cv2.blur(shadow, (3, 3))
        self.canvas *= 1 - shadow[..., None] * np.float32(self.rng.uniform(0.25, 0.75))

    def cast_foreign_shadows(self) -> None:
        """Shadows of things outside the image, across ground and objects; masks stay."""
        for extent in self.size * self.rng.uniform(0.1, 0.8, self.rng.integers(1, 4)):
            drawn = rasterise(sample_silhouette(self.rng), self._anywhere(extent), self.size)
            if drawn is not None:
                self.canvas[drawn[1]] *= 1 - drawn[0][..., None] * np.float32(self.rng.uniform(0.25, 0.7))

    def _tint_parts(self, fill: np.ndarray, silhouette: Silhouette, matrix: np.ndarray, window) -> None:
        """Make the first polygon, or all others, lighter or darker: bodies and limbs are seldom of one tone."""
        tone, step = np.zeros(fill.shape[:2], np.float32), self.rng.uniform(10, 70) * self.rng.choice([-1, 1])
        for polygon, paints in silhouette[:1] if self.rng.random() < 0.5 else silhouette[1:]:
            cv2.fillPoly(tone, [_pixels(polygon, matrix, window)], step if paints else 0, shift=4)
        fill += tone[..., None]

    def _shade(self, fill: np.ndarray, coverage: np.ndarray, extent: float) -> None:
        """Relief: the blurred silhouette's slope towards the light brightens, away from it darkens."""
        sigma = float(np.clip(extent * self.rng.uniform(0.02, 0.15), 0.8, 12))
        soft = cv2.blur(cv2.blur(coverage, (int(sigma) * 2 + 1,) * 2), (int(sigma) * 2 + 1,) * 2)
        slope = cv2.Sobel(soft, -1, 1, 0) * self.light[0] + cv2.Sobel(soft, -1, 0, 1) * self.light[1]
        fill += slope[..., None] * np.float32(self.rng.uniform(20, 90) * sigma / 2)

    def _decorate(
        self,
        fill: np.ndarray,
        coverage: np.ndarray,
        matrix: np.ndarray,
        window: tuple[slice, slice],
        extent: float,
    ) -> list[np.ndarray]:
        """Draw inner structure on `fill`, along the object's own axes; masks of the parts that may be prompted."""
        rng, masks = self.rng, []
        if rng.random() < 0.45:
            return masks
        own, around = fill.mean(axis=(0, 1)), self.canvas[window][coverage < 0.5]
        inks = [self.any_colour(), near(rng, own), around.mean(axis=0) if len(around) else own]

        def quad(*corners: float) -> np.ndarray:
            return _pixels(rectangle(*corners), matrix, window)

        def ink(kinds: int = 2) -> list[float]:
            return inks[rng.integers(kinds)].tolist()

        for _ in range(rng.integers(1, 4)):
            kind = rng.integers(6)
            if kind == 0:  # cells across the main axis
                edges = np.sort(rng.uniform(-0.5, 0.5, 2)) if rng.random() < 0.5 else (-0.5, 0.5)
                cuts = np.linspace(*edges, int(rng.integers(3, 14)))
                half = rng.uniform(0.03, 0.5)
                for a, b in itertools.pairwise(cuts):
                    if rng.random() < 0.7:
                        cv2.fillPoly(fill, [quad(a, -half, a + (b - a) * 0.8, half)], ink(), shift=4)
            elif kind == 1:  # a deck, a roof, a window
                x, y = rng.uniform(-0.45, 0.45, 2) * (1, 0.5)
                w, h = rng.uniform(0.03, 0.4), rng.uniform(0.02, 0.3)
                corners = quad(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
                cv2.fillPoly(fill, [corners], ink(3), shift=4)
                if rng.random() < 0.4:
                    part = np.zeros(coverage.shape, np.uint8)
                    cv2.fillPoly(part, [corners], 1, shift=4)
                    masks.append(part > 0)
            elif kind == 2:  # one end of another colour
                cv2.fillPoly(fill, [quad(rng.uniform(0.1, 0.45), -0.6, 0.6, 0.6)], ink(), shift=4)
            elif kind == 3:  # markings
                width, shade = int(max(1, extent * rng.uniform(0.005, 0.03))), ink()
                for inset in rng.uniform(0.05, 0.5, rng.integers(1, 4)):
                    ys = inset * rng.uniform(0.2, 1)
                    cv2.polylines(fill, [quad(-inset, -ys, inset, ys)], True, shade, width, shift=4)
            elif kind == 4:  # rim
                rim = coverage - cv2.erode(coverage, np.ones((3, 3), np.uint8), iterations=int(extent * 0.015) + 1)
                fill += (ink() - fill) * np.clip(rim, 0, 1)[..., None]
            else:  # a row of dots
                radius, shade, count = max(1, int(extent * rng.uniform(0.01, 0.06))), ink(3), int(rng.integers(2, 10))
                y = rng.uniform(-0.1, 0.1)
                spots = np.stack([np.linspace(-0.45, 0.45, count), np.full(count, y)], axis=1)
                for spot in _pixels(spots, matrix, window) // 16:
                    cv2.circle(fill, spot.tolist(), radius, shade, -1)
        return masks

    def _attach(self, matrix: np.ndarray, extent: float) -> None:
        """Something that touches the object and is none of it, painted below: a streak or a bar."""
        rng, size = self.rng, self.size
        angle = np.arctan2(matrix[1, 0], matrix[0, 0]) + (0 if rng.random() < 0.6 else rng.uniform(0, 2 * np.pi))
        length, width = extent * rng.uniform(0.4, 2.5), max(2.0, extent * rng.uniform(0.03, 0.3))
        start = matrix[:, 2] + rng.normal(0, 0.05 * extent, 2)
        along, across = rotation(angle).T
        flare = rng.uniform(0.2, 2)
        end = start + along * (0.4 * extent + length)
        outline = np.stack([start - across * width / 2, start + across * width / 2])
        outline = np.concatenate([outline, [end + across * width * flare / 2, end - across * width * flare / 2]])
        alpha = _antialiased(outline, size) * np.float32(rng.uniform(0.3, 1))
        if rng.random() < 0.5:  # a streak fades out
            alpha *= np.clip(1 - ((np.arange(size) - start[0]) * along[0])[None] / length, 0, 1).astype(np.float32)
            alpha = cv2.blur(alpha, (3, 3))
        self.canvas += (self.any_colour() - self.canvas) * alpha[..., None]

    def _overlay_bar(self, matrix: np.ndarray, extent: float) -> None:
        """A bar across or up to the object, painted above it."""
        angle, reach = self.angle(), extent * self.rng.uniform(0.3, 1.2)
        centre = matrix[:, 2] + unit(angle) * reach * self.rng.uniform(0.2, 0.8)
        half = self.rng.uniform(0.01, 0.08)
        bar: Silhouette = [(rectangle(-0.5, -half, 0.5, half), True)]
        self.paint(bar, self.placement(centre, reach, angle), self.fill(self.any_colour()))

    def visible_masks(self) -> np.ndarray:
        """bool N×size×size: the objects large and visible enough to be annotated."""
        kept = []
        for mask, full in zip(self.masks, self.full_areas, strict=True):
            area = np.count_nonzero(mask)
            if area < max(MIN_AREA, MIN_VISIBLE * full):
                continue
            if max(np.count_nonzero(mask.any(axis=0)), np.count_nonzero(mask.any(axis=1))) >= MIN_SIDE:
                kept.append(mask)
        return np.stack(kept) if kept else np.zeros((0, self.size, self.size), bool)


LAYOUTS = (
    _Scene.lay_hero,
    _Scene.lay_scatter,
    _Scene.lay_row,
    _Scene.lay_leaves,
    lay_fields,
    lay_crossing,
    lay_group,
)
LAYOUT_WEIGHTS = (0.4, 0.2, 0.13, 0.05, 0.09, 0.05, 0.08)


# ---- the camera ------------------------------------------------------------------------------------------------


def photograph(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """float32 RGB canvas → uint8: illumination, tone, defocus, low resolution, noise and JPEG, each at times."""
    size = canvas.shape[0]
    image = canvas
    if rng.random() < 0.4:
        image = image * (1 + ramp(rng, size, size) * np.float32(rng.uniform(0.05, 0.4)))[..., None]
    if rng.random() < 0.3:
        grey = image.mean(axis=2, keepdims=True)
        image = grey + (image - grey) * np.float32(rng.choice([0, rng.uniform(0.2, 1.6)]))
    if rng.random() < 0.4:
        contrast, lift = rng.uniform(0.35, 1.2), rng.uniform(-30, 60)
        image = (image - 120) * np.float32(contrast) + np.float32(120 + lift)
    if rng.random() < 0.35:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6))
    if rng.random() < 0.25:  # sharpened afterwards, with halos
        image = image + (image - cv2.GaussianBlur(image, (0, 0), rng.uniform(0.7, 2))) * np.float32(rng.uniform(0.3, 2))
    factor = 1.0 if rng.random() < 0.4 else rng.uniform(1.4, 2.6) if rng.random() < 0.75 else rng.uniform(2.6, 4)
    side = max(16, round(size / factor))
    if side < size:
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.6:
        sigma = np.float32(np.exp(rng.uniform(np.log(0.7), np.log(11))))
        shape = image.shape if rng.random() < 0.6 else (side, side, 1)
        image = image + rng.standard_normal(shape, dtype=np.float32) * sigma
    image = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 96))]
        image = cv2.imdecode(cv2.imencode(".jpg", image[..., ::-1], quality)[1], cv2.IMREAD_COLOR)[..., ::-1]
    if side < size:
        kind = cv2.INTER_CUBIC if rng.random() < 0.7 else cv2.INTER_LINEAR
        image = cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=kind)
    return np.ascontiguousarray(image)
