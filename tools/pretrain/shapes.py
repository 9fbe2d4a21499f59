"""Random silhouettes of drawn scenes, and their rasterisation.

Shapes are generic, with one exception to know about: a body with swept limbs in pairs and nubs on them (`limbed`, 19%
of objects) is often taken for an aircraft. Networks trained on these have seen aircraft-like outlines.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from rossam_kit.datasets.synthetic.geometry import rectangle, rotation, unit

Silhouette = list[tuple[np.ndarray, bool]]
"""Polygons (float K×2, xy) in painting order; True paints, False cuts a hole."""


def sample_silhouette(rng: np.random.Generator) -> Silhouette:
    """One silhouette of a random family, normalised to the unit frame."""
    family = FAMILIES[rng.choice(len(FAMILIES), p=FAMILY_WEIGHTS)]
    return normalise(family(rng))


def normalise(silhouette: Silhouette) -> Silhouette:
    """Centred, and scaled so that the longer side of the painted polygons' bounding box is 1."""
    painted = np.concatenate([polygon for polygon, paints in silhouette if paints])
    low, high = painted.min(axis=0), painted.max(axis=0)
    centre, extent = (low + high) / 2, max(float((high - low).max()), 1e-6)
    return [((polygon - centre) / extent, paints) for polygon, paints in silhouette]


def rasterise(
    silhouette: Silhouette, matrix: np.ndarray, size: int
) -> tuple[np.ndarray, tuple[slice, slice], float] | None:
    """Area coverage of a silhouette on a size×size canvas.

    Args:
        silhouette: polygons in the unit frame.
        matrix: 2×3 affine map from the unit frame to canvas pixels (pixel-edge coordinates).
        size: side of the canvas in pixels.

    Returns:
        Coverage as float32 h×w in 0..1, the (rows, columns) of the canvas it lies on, and the fraction of the
        bounding box that is on the canvas; None where nothing of it is.
    """
    polygons = [polygon @ matrix[:, :2].T + matrix[:, 2] for polygon, _ in silhouette]
    points = np.concatenate([p for p, (_, paints) in zip(polygons, silhouette, strict=True) if paints])
    low, high = points.min(axis=0), points.max(axis=0)
    start = np.clip(np.floor(low) - 1, 0, size).astype(int)
    stop = np.clip(np.ceil(high) + 1, 0, size).astype(int)
    if (stop - start).min() < 2:
        return None
    inside = np.clip(high, 0, size) - np.clip(low, 0, size)
    w, h = (stop - start).tolist()
    factor = 4 if max(w, h) <= 96 else 2
    fine = np.zeros((h * factor, w * factor), np.uint8)
    for polygon, (_, paints) in zip(polygons, silhouette, strict=True):
        # cv2 puts whole coordinates on pixel centres: minus half a fine pixel; 4 fractional bits.
        vertices = ((polygon - start) * factor - 0.5) * 16
        cv2.fillPoly(fine, [np.round(vertices).astype(np.int32)], 255 if paints else 0, shift=4)
    coverage = cv2.resize(fine, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    fraction = float(np.prod(inside / np.maximum(high - low, 1e-6)))
    return coverage, (slice(start[1], stop[1]), slice(start[0], stop[0])), fraction


# ---- building blocks -------------------------------------------------------------------------------------------


def ellipse(a: float, b: float, centre=(0.0, 0.0), count: int = 32) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([a * np.cos(angle), b * np.sin(angle)], axis=1) + centre


def _ribbon(spine: np.ndarray, half_width: np.ndarray) -> np.ndarray:
    """Polygon around a K×2 polyline with a half width at each vertex."""
    tangent = np.gradient(spine, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    offset = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) * half_width[:, None]
    return np.concatenate([spine + offset, (spine - offset)[::-1]])


def _limb(root: np.ndarray, angle: float, length: float, root_width: float, tip_width: float) -> np.ndarray:
    """Tapered quadrilateral leaving `root` at `angle`; its ends run along x, like those of a swept limb."""
    tip = root + length * unit(angle)
    along = np.array([1.0, 0.0]) if abs(np.sin(angle)) > 0.35 else np.array([0.0, 1.0])
    return np.array(
        [root - along * root_width, root + along * root_width, tip + along * tip_width, tip - along * tip_width]
    )


def _body(rng: np.random.Generator, width: float) -> np.ndarray:
    """An elongated body of length 1 on the x axis whose ends are square, rounded, tapered or pointed."""
    s = np.linspace(0, 1, 25)
    profile = np.ones_like(s)
    for end in (s, 1 - s):
        reach = rng.uniform(0.04, 0.5)
        near = np.clip(end / reach, 0, 1)
        kind = rng.integers(4)
        if kind == 1:
            profile *= np.sqrt(1 - (1 - near) ** 2)
        elif kind == 2:
            profile *= rng.uniform(0.3, 0.9) + (1 - rng.uniform(0.3, 0.9)) * near
        elif kind == 3:
            profile *= near
    return _ribbon(np.stack([s - 0.5, np.zeros_like(s)], axis=1), np.minimum(profile, 1) * width / 2 + 1e-3)


def _curve(rng: np.random.Generator, count: int, bend: float) -> np.ndarray:
    """A smooth polyline of `count` vertices and length 1 with a random, slowly changing heading."""
    knots = rng.normal(0, bend, 4)
    heading = np.interp(np.linspace(0, 3, count), np.arange(4), np.cumsum(knots))
    heading = np.convolve(np.pad(heading, 3, mode="edge"), np.ones(7) / 7, mode="valid")
    return np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0) / count


# ---- families --------------------------------------------------------------------------------------------------


def blob(rng: np.random.Generator) -> Silhouette:
    """Smooth closed contour of random Fourier harmonics."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    orders = np.arange(2, 2 + rng.integers(2, 7))
    amplitude = rng.normal(0, rng.uniform(0.1, 0.45), orders.size) / orders**0.7
    radius = 1 + (amplitude[:, None] * np.cos(orders[:, None] * angle + rng.uniform(0, 6.3, (orders.size, 1)))).sum(0)
    radius = np.maximum(radius, 0.15)
    aspect = rng.uniform(0.3, 1)
    return [(np.stack([radius * np.cos(angle), aspect * radius * np.sin(angle)], axis=1), True)]


def disc(rng: np.random.Generator) -> Silhouette:
    """Circle, ellipse, or a sector of one."""
    outline = ellipse(1, 1 if rng.random() < 0.5 else rng.uniform(0.4, 1), count=48)
    if rng.random() < 0.2:
        outline = np.concatenate([[[0.0, 0.0]], outline[: rng.integers(10, 40)]])
    return [(outline, True)]


def polygon(rng: np.random.Generator) -> Silhouette:
    """Polygon of 3 to 9 corners, seen from its centre in order, convex or not."""
    count = int(rng.integers(3, 10))
    angle = (np.arange(count) + rng.uniform(-0.35, 0.35, count)) * 2 * np.pi / count
    radius = rng.uniform(rng.uniform(0.35, 0.95), 1, count)
    return [(np.stack([radius * np.cos(angle), rng.uniform(0.4, 1) * radius * np.sin(angle)], axis=1), True)]


def block(rng: np.random.Generator) -> Silhouette:
    """Rectangle, often with a bay, a notch or an annex."""
    half = 0.5 * np.exp(rng.uniform(np.log(0.25), 0))
    parts: Silhouette = [(rectangle(-0.5, -half, 0.5, half), True)]
    for _ in range(rng.integers(0, 3) if rng.random() < 0.5 else 0):
        x, w, h = rng.uniform(-0.5, 0.3), rng.uniform(0.1, 0.4), rng.uniform(0.1, 0.5) * half
        side = rng.choice([-1, 1])
        parts.append((rectangle(x, side * half - h, min(x + w, 0.5), side * half + h), bool(rng.random() < 0.6)))
    return parts


def bar(rng: np.random.Generator) -> Silhouette:
    """Elongated straight body, 1.5 to 9 times as long as wide, its ends of any kind."""
    return [(_body(rng, np.exp(rng.uniform(np.log(0.11), np.log(0.65)))), True)]


def limbed(rng: np.random.Generator) -> Silhouette:
    """A body with one to four pairs of protruding limbs, mirrored or not, some with nubs: many look like aircraft."""
    width = np.exp(rng.uniform(np.log(0.05), np.log(0.28)))
    parts: Silhouette = [(_body(rng, width), True)]
    mirrored = rng.random() < 0.75
    sweep = rng.uniform(0.15, 0.85) * np.pi
    for pair in range(rng.integers(1, 5) if rng.random() < 0.5 else 2):
        shrink = 1 if pair == 0 else rng.uniform(0.2, 1)
        x = rng.uniform(-0.45, 0.45)
        angle = np.clip(sweep + rng.normal(0, 0.2), 0.1 * np.pi, 0.9 * np.pi)
        length = rng.uniform(0.2, 0.65) * shrink
        root_width = rng.uniform(0.02, 0.14) * (0.5 + 0.5 * shrink)
        tip_width = root_width * rng.uniform(0.1, 1.1)
        nub = rng.random() < 0.3 and (rng.uniform(0.3, 0.9), rng.uniform(0.015, 0.05), rng.uniform(0.03, 0.09))
        for side in (1, -1):
            if not mirrored:
                angle, length, x = angle + rng.normal(0, 0.3), length * rng.uniform(0.5, 1.4), x + rng.normal(0, 0.1)
            limb = _limb(np.array([x, 0.0]), angle, length, root_width, tip_width) * [1, side]
            parts.append((limb, True))
            if nub:
                place = np.array([x, 0.0]) + nub[0] * length * unit(angle)
                parts.append((ellipse(nub[2], nub[1], place * [1, side], 12), True))
    return parts


def worm(rng: np.random.Generator) -> Silhouette:
    """Thin curved ribbon of even or changing width."""
    spine = _curve(rng, 40, rng.uniform(0.1, 1.2))
    width = np.exp(rng.uniform(np.log(0.015), np.log(0.09)))
    return [(_ribbon(spine, width * np.interp(np.linspace(0, 2, 40), np.arange(3), rng.uniform(0.5, 1, 3))), True)]


def chain(rng: np.random.Generator) -> Silhouette:
    """Articulated chain: equal stiff links along a gentle curve, thinly joined."""
    count = int(rng.integers(3, 12))
    nodes = _curve(rng, count * 6 + 1, rng.uniform(0.0, 0.5))
    width = rng.uniform(0.12, 0.5) / count
    parts: Silhouette = [(_ribbon(nodes, np.full(len(nodes), width * rng.uniform(0.2, 0.7))), True)]
    for start in range(0, count * 6, 6):
        gap = int(rng.random() < 0.7)
        link = nodes[[start + gap * (start > 0), start + 6]]
        parts.append((_ribbon(link, np.full(2, width)), True))
    return parts


def comb(rng: np.random.Generator) -> Silhouette:
    """A spine with evenly spaced parallel teeth on one side or both."""
    count, spine = int(rng.integers(2, 9)), rng.uniform(0.02, 0.1)
    parts: Silhouette = [(rectangle(-0.5, -spine, 0.5, spine), True)]
    tooth, reach, both = rng.uniform(0.15, 0.7) / count / 2, rng.uniform(0.15, 0.8), rng.random() < 0.4
    for x in np.linspace(-0.5 + tooth, 0.5 - tooth, count):
        length = reach * rng.uniform(0.8, 1)
        parts.append((rectangle(x - tooth, -length if both else 0, x + tooth, length), True))
    return parts


def ring(rng: np.random.Generator) -> Silhouette:
    """A shape with its own shrunken copy cut out: rings, frames, hollow polygons, arcs."""
    outer = (disc, polygon, block, blob)[rng.integers(4)](rng)
    hole = outer[0][0] * rng.uniform(0.35, 0.85)
    parts = [*outer, (hole, False)]
    if rng.random() < 0.3:
        parts.append((rectangle(0, -3 * rng.random(), 3, 3 * rng.random()), False))
    return parts


def compound(rng: np.random.Generator) -> Silhouette:
    """Union or difference of two or three simple shapes that overlap."""
    simple: tuple[Callable[[np.random.Generator], Silhouette], ...] = (blob, disc, polygon, block, bar)
    parts = normalise(simple[rng.integers(len(simple))](rng))
    for _ in range(rng.integers(1, 3)):
        paints, angle = bool(rng.random() < 0.75), rng.uniform(0, 2 * np.pi)
        scale, shift = rng.uniform(0.3, 0.9) if paints else rng.uniform(0.15, 0.4), rng.uniform(-0.4, 0.4, 2)
        turn = scale * rotation(angle)
        other = normalise(simple[rng.integers(len(simple))](rng))
        parts += [(p @ turn.T + shift, paints and kind) for p, kind in other]
    return parts


FAMILIES = (blob, disc, polygon, block, bar, limbed, worm, chain, comb, ring, compound)
FAMILY_WEIGHTS = (0.08, 0.09, 0.08, 0.16, 0.18, 0.19, 0.04, 0.05, 0.04, 0.04, 0.05)
