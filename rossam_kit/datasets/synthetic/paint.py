"""Drawing for the generated scenes: noise, light, colours, and a supersampled canvas.

Shapes are in frame pixels. The canvas is float32 RGB (0-255), `SUPERSAMPLING` times finer than the frame, and extends
`MARGIN` frame pixels beyond it on every side, so that the platform may sway.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib.resources import files

import cv2
import numpy as np
import yaml

from rossam_kit.datasets.synthetic.geometry import Path, disc, unit

SUPERSAMPLING = 3
"""Canvas pixels per frame pixel and axis; odd, so that a coverage of exactly one half cannot occur."""
MARGIN = 8
"""Frame pixels of canvas beyond each border of the frame."""
_SHIFT = 4  # fractional bits of cv2's polygon corners
DRAWING = yaml.safe_load(files(__package__).joinpath("drawing.yaml").read_text(encoding="utf-8"))
"""Colours, places and outlines."""
PALETTES = {name: np.array(colours, float) for name, colours in DRAWING["palettes"].items()}
"""Colours to choose from, K×3 each."""


@dataclass(frozen=True)
class Place:
    """Ground colours of a region, float RGB 0-255; `fields` and `roofs` are K×3."""

    name: str
    fields: np.ndarray
    soil: np.ndarray
    tree: np.ndarray
    water: np.ndarray
    concrete: np.ndarray
    asphalt: np.ndarray
    roofs: np.ndarray
    tree_density: float

    @classmethod
    def named(cls, name: str) -> Place:
        entry = dict(DRAWING["places"][name])
        roofs, density = PALETTES["roofs"][: entry.pop("roofs")], entry.pop("tree_density")
        return cls(name, **{k: np.array(v, float) for k, v in entry.items()}, roofs=roofs, tree_density=density)


@dataclass(frozen=True)
class Light:
    """The one sun of a video."""

    shadow_xy: np.ndarray  # displacement in frame pixels of the shadow of a point one pixel above ground
    strength: float  # 0 (overcast, no shadows) to 1 (clear sky)

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float) -> Light:
        angle = rng.uniform(0, 2 * np.pi)
        return cls(rng.uniform(0.5, 1.3) * unit(angle), strength)

    @property
    def towards_sun(self) -> np.ndarray:
        return -self.shadow_xy / np.linalg.norm(self.shadow_xy)


def vary(rng: np.random.Generator, colour, brightness: float = 8.0, hue: float = 3.0) -> np.ndarray:
    """`colour` with a random change of brightness and, less, of hue."""
    return np.clip(np.asarray(colour, float) + rng.normal(0, brightness) + rng.normal(0, hue, 3), 4, 250)


def octave_noise(
    rng: np.random.Generator, size_hw: tuple[int, int], cells: tuple[float, ...], weights=None
) -> np.ndarray:
    """Sum of smooth random fields, one for each cell size (canvas pixels); float32 H×W of about unit deviation."""
    height, width = size_hw
    weights = np.ones(len(cells)) if weights is None else np.asarray(weights, float)
    total = np.zeros(size_hw, np.float32)
    for cell, weight in zip(cells, weights, strict=True):
        shape = (int(np.ceil(height / cell)) + 3, int(np.ceil(width / cell)) + 3)
        coarse = rng.standard_normal(shape, dtype=np.float32)
        zoomed = (int(shape[1] * cell), int(shape[0] * cell))
        total += np.float32(weight) * cv2.resize(coarse, zoomed, interpolation=cv2.INTER_CUBIC)[:height, :width]
    return total / np.float32(np.linalg.norm(weights))


@dataclass
class Canvas:
    """The picture under construction; arrays are H×W in canvas pixels."""

    rgb: np.ndarray  # float32 H×W×3, 0-255
    labels: np.ndarray  # int32, the object id that each pixel shows, 0 for background
    grain: np.ndarray  # float32 noise of unit deviation, shared by all fills
    light: Light
    reserved: np.ndarray = field(init=False)  # bool, where nothing may be built or planted
    _shadows: np.ndarray = field(init=False)

    def __post_init__(self):
        self.reserved = np.zeros(self.labels.shape, bool)
        self._shadows = np.zeros(self.labels.shape, np.uint8)

    @classmethod
    def blank(cls, size_hw: tuple[int, int], light: Light, rng: np.random.Generator) -> Canvas:
        height, width = ((side + 2 * MARGIN) * SUPERSAMPLING for side in size_hw)
        grain = octave_noise(rng, (height, width), (1.5, 4, 11, 40), (0.6, 1.0, 0.8, 0.6))
        return cls(np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.int32), grain, light)

    def copy(self) -> Canvas:
        return Canvas(self.rgb.copy(), self.labels.copy(), self.grain, self.light)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Frame size, without the margin."""
        return tuple(side // SUPERSAMPLING - 2 * MARGIN for side in self.labels.shape)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of the canvas in frame pixels."""
        height, width = self.size_hw
        return -MARGIN, -MARGIN, width + MARGIN, height + MARGIN

    def sees(self, outline: np.ndarray, slack: float = 0.0) -> bool:
        """Whether the bounding box of `outline`, grown by `slack`, meets the canvas."""
        x0, y0, x1, y1 = self.bounds
        low, high = outline.min(axis=0) - slack, outline.max(axis=0) + slack
        return bool(low[0] < x1 and low[1] < y1 and high[0] > x0 and high[1] > y0)

    def mask(self, outline: np.ndarray | list[np.ndarray]) -> tuple[tuple[slice, slice], np.ndarray]:
        """Rasterise a polygon or the union of several → (window into the canvas, bool mask of it; empty if outside).

        cv2 also fills the pixels the outline runs through, so shapes grow by about half a canvas pixel (a sixth of a
        frame pixel), in the picture and in the labels alike.
        """
        outlines = outline if isinstance(outline, list) else [outline]
        fine = [(np.asarray(o, float) + MARGIN) * SUPERSAMPLING - 0.5 for o in outlines]
        points = np.concatenate(fine)
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        height, width = self.labels.shape
        x0, y0 = max(math.floor(left) - 1, 0), max(math.floor(top) - 1, 0)
        x1, y1 = min(math.ceil(right) + 2, width), min(math.ceil(bottom) + 2, height)
        if x0 >= x1 or y0 >= y1:
            return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), bool)
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        for f in fine:
            cv2.fillPoly(mask, [np.round((f - (x0, y0)) * 2**_SHIFT).astype(np.int32)], 1, shift=_SHIFT)
        return (slice(y0, y1), slice(x0, x1)), mask.view(bool)

    def fill(self, outline, colour, *, grain: float = 3.0, opacity: float = 1.0, label: int | None = None) -> None:
        """Fill a polygon (or the union of a list of them) with `colour`, textured by `grain` grey levels.

        `label` marks the pixels as the object's, 0 takes them from it; None leaves labels alone.
        """
        window, mask = self.mask(outline)
        paint = np.asarray(colour, np.float32) + np.float32(grain) * self.grain[window][mask][:, None]
        view = self.rgb[window]
        view[mask] = paint if opacity >= 1 else (1 - opacity) * view[mask] + opacity * paint
        if label is not None:
            self.labels[window][mask] = label

    def reserve(self, outline) -> None:
        """Keep what is planned later off a polygon, or off several."""
        window, mask = self.mask(outline)
        self.reserved[window][mask] = True

    def is_free(self, outline: np.ndarray) -> bool:
        """Whether the polygon touches the canvas and nothing reserved."""
        window, mask = self.mask(outline)
        return mask.size > 0 and not (self.reserved[window] & mask).any()

    def stroke(self, path: Path, half_width: float, colour, **fill) -> None:
        """Fill a band along a path, from end to end."""
        self.fill(path.strip(0, path.length, half_width), colour, **fill)

    def dashes(self, path: Path, half_width: float, colour, on: float, off: float, **fill) -> None:
        """A dashed line along a path."""
        pieces = [path.strip(s, s + on, half_width) for s in np.arange(0, path.length, on + off)]
        pieces = [piece for piece in pieces if self.sees(piece)]
        if pieces:
            self.fill(pieces, colour, **fill)

    def cast(self, outline: np.ndarray, height: float, base: float = 0.0) -> None:
        """Note the shadow of a solid between `base` and `height` pixels above ground; see `settle_shadows`.

        The shadow is the sweep of the outline along the shadow's displacement, taken in short steps.
        """
        if self.light.strength <= 0:
            return
        reach = float(np.linalg.norm(self.light.shadow_xy)) * (height - base)
        lifts = np.linspace(base, height, max(2, int(reach / 1.5) + 1))
        window, mask = self.mask([outline + lift * self.light.shadow_xy for lift in lifts])
        self._shadows[window][mask] = 255

    def settle_shadows(self) -> None:
        """Darken what lies under the shadows noted so far, and forget them."""
        if not self._shadows.any():
            return
        x, y, width, height = cv2.boundingRect(self._shadows)
        window = (slice(max(y - 6, 0), y + height + 6), slice(max(x - 6, 0), x + width + 6))
        amount = cv2.GaussianBlur(self._shadows[window], (0, 0), 0.35 * SUPERSAMPLING).astype(np.float32) / 255
        amount *= np.float32(self.light.strength)
        # sky light fills a shadow, so it is bluish
        self.rgb[window] *= 1 - amount[..., None] * np.array([0.66, 0.62, 0.56], np.float32)
        self._shadows[:] = 0

    def tree(self, rng: np.random.Generator, centre: np.ndarray, radius: float, colour) -> None:
        """A crown with a bumpy edge, brighter towards the sun."""
        crown = disc((0, 0), 1.0, 11) * radius * rng.uniform(0.75, 1.15, (11, 1))
        colour = vary(rng, colour, 6)
        self.fill(crown + centre, colour * 0.85, grain=6)
        sunny = 0.6 * crown + centre + 0.3 * radius * self.light.towards_sun
        self.fill(sunny, colour * (1 + 0.25 * self.light.strength), grain=6)
