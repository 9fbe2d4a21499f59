"""Layouts of wholes that consist of differently coloured parts: fields with lines, crossings, groups of alike objects.

Added after looking at where masks fail on real images: at lines within fields, along strips that go on beyond the
object, at objects that are a group of others.
"""

from __future__ import annotations

import cv2
import numpy as np

from rossam_kit.datasets.synthetic.geometry import rectangle as box
from tools.pretrain.shapes import Silhouette, ellipse, sample_silhouette


def lay_fields(scene) -> None:
    """One to four alike fields with line markings, side by side on a common apron: rectangles, or ovals with lanes."""
    rng, size = scene.rng, scene.size
    extent, aspect = size * np.exp(rng.uniform(np.log(0.12), np.log(0.85))), rng.uniform(0.35, 0.75)
    oval, gap = rng.random() < 0.3, rng.uniform(1.02, 1.5)
    count = 1 if oval or extent > 0.5 * size else int(rng.integers(1, 5))
    outline = _stadium(aspect) if oval else box(-0.5, -aspect / 2, 0.5, aspect / 2)
    matrix = scene.placement(size / 2 + rng.normal(0, 0.1 * size, 2), extent, scene.angle())
    step = matrix[:, 1] * aspect * gap
    if rng.random() < 0.6:
        margin = rng.uniform(1.05, 1.5)
        width = aspect * gap * count * margin / 2
        scene.paint([(box(-0.5 * margin, -width, 0.5 * margin, width), True)], matrix, scene.fill(scene.any_colour()))
    surface, shade = scene.material(matrix[:, 2]), scene.any_colour()
    if rng.random() < 0.6:
        shade = np.full(3, rng.uniform(170, 255))
    thickness, markings = int(rng.integers(1, max(2, extent // 60) + 1)), _markings(rng, outline, aspect, oval)
    for k in range(count):
        own = matrix.copy()
        own[:, 2] += step * (k - (count - 1) / 2)
        scene.add([(outline, True)], own, surface, extent, plain=True)
        for line in markings:
            points = np.round((line @ own[:, :2].T + own[:, 2] - 0.5) * 16).astype(np.int32)
            cv2.polylines(scene.canvas, [points], False, shade.tolist(), thickness, shift=4)
    scene.scatter(int(rng.integers(0, 6)), 0.02, 0.15)


def _stadium(aspect: float) -> np.ndarray:
    """Two half circles joined by straight sides, 1 long and `aspect` wide."""
    half, straight = aspect / 2, 0.5 - aspect / 2
    arc = ellipse(half, half, count=40)
    return arc + np.sign(arc) * [straight, 0]


def _markings(rng: np.random.Generator, outline: np.ndarray, aspect: float, oval: bool) -> list[np.ndarray]:
    """Polylines in the field's unit frame: rim or lanes, lines across and along, boxes at the ends, circles."""
    closed = np.concatenate([outline, outline[:1]])
    lines = [closed * (1 - inset) for inset in np.arange(rng.integers(1, 6) if oval else rng.integers(0, 3)) * 0.04]
    lines += [box(x, -aspect / 2, x, aspect / 2)[1:3] * 0.96 for x in rng.choice([-0.25, 0, 0.25], rng.integers(0, 3))]
    for y in aspect * rng.uniform(0.2, 0.45, rng.integers(0, 2)):
        lines += [np.array([[-0.48, side * y], [0.48, side * y]]) for side in (-1, 1)]
    if rng.random() < 0.5:
        depth, half = rng.uniform(0.08, 0.25), aspect * rng.uniform(0.1, 0.3)
        lines += [box(0.48 - depth, -half, 0.48, half) * [side, 1] for side in (-1, 1)]
    if rng.random() < 0.4:
        radius = aspect * rng.uniform(0.08, 0.2)
        lines += [ellipse(radius, radius, (x, 0)) for x in ((0,), (-0.4, 0.4), (-0.4, 0, 0.4))[rng.integers(3)]]
    return lines


def lay_crossing(scene) -> None:
    """A strip across a band of another surface, as a bridge: the object is the part over the band."""
    rng, size = scene.rng, scene.size
    angle, width = scene.angle(), size * rng.uniform(0.15, 0.7)
    turn = angle + np.pi / 2 + rng.normal(0, 0.25)
    centre = size / 2 + rng.normal(0, 0.1 * size, 2)
    band: Silhouette = [(box(-4, -0.5, 4, 0.5), True)]
    scene.paint(band, scene.placement(centre, width, angle), scene.fill(scene.any_colour()))
    extent = width / abs(np.cos(turn - angle - np.pi / 2)) * rng.uniform(0.95, 1.25)
    half = size * np.exp(rng.uniform(np.log(0.008), np.log(0.07))) / extent
    matrix, surface = scene.placement(centre, extent, turn), scene.material(centre)
    offsets = (0.0,) if rng.random() < 0.7 else (-rng.uniform(1.1, 3) * half, rng.uniform(1.1, 3) * half)
    for y in offsets:
        scene.paint([(box(-4, y - half, 4, y + half), True)], matrix, surface)
        own = surface if rng.random() < 0.6 else scene.material(centre)
        scene.add([(box(-0.5, y - half, 0.5, y + half), True)], matrix, own, extent)
    scene.scatter(int(rng.integers(0, 6)), 0.02, 0.2)


def lay_group(scene) -> None:
    """Alike objects in one or two rows along a spine, as boats at a pier; the whole group is an object, too."""
    rng, size = scene.rng, scene.size
    extent, angle = size * rng.uniform(0.25, 0.9), scene.angle()
    centre, length, spine = size / 2 + rng.normal(0, 0.1 * size, 2), rng.uniform(0.08, 0.3), rng.uniform(0.004, 0.04)
    frame, count = scene.placement(centre, extent, angle), min(16, int(rng.uniform(1, 2.2) / length))
    silhouette, surface, alike = sample_silhouette(rng), scene.material(centre), rng.random() < 0.4
    first = len(scene.masks)
    if rng.random() < 0.7:
        scene.add([(box(-0.5, -spine, 0.5, spine), True)], frame, scene.material(centre), extent, plain=True)
    for side in (-1, 1) if rng.random() < 0.7 else (1,):
        for x in np.linspace(-0.5, 0.5, count):
            if rng.random() < 0.12:
                continue
            place = frame[:, :2] @ [x, side * (spine + 0.55 * length)] + frame[:, 2]
            own = surface if alike else scene.material(place)
            scene.add(
                silhouette, scene.placement(place, length * extent, angle + side * np.pi / 2), own, length * extent
            )
    members = np.any(scene.masks[first:], axis=0)
    if members.any():
        points = np.argwhere(members)[:, ::-1].astype(np.int32)
        hull = cv2.convexHull(points) if rng.random() < 0.5 else cv2.boxPoints(cv2.minAreaRect(points)).astype(np.int32)
        shape = cv2.fillPoly(np.zeros((size, size), np.uint8), [hull], 1) > 0
        scene.record(shape | members, (slice(0, size), slice(0, size)), 1.0, occludes=False)
