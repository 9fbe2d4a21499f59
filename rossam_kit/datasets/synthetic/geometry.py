"""Geometry in frame pixels (pixel-edge coordinates, y down): directions, outlines, turned axes, paths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def unit(angle: float) -> np.ndarray:
    """Direction of `angle` (radians, from +x towards +y)."""
    return np.array([np.cos(angle), np.sin(angle)])


def rotation(angle: float) -> np.ndarray:
    """2×2 matrix R with `points @ R.T` turned by `angle`."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Corners of an axis-parallel rectangle, 4×2."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)


def disc(centre: np.ndarray, radius: float, corners: int = 24) -> np.ndarray:
    """Polygon of a circle, corners×2."""
    angles = np.arange(corners) * 2 * np.pi / corners
    return np.asarray(centre) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


@dataclass(frozen=True)
class Axes:
    """Axes u and v turned by the 2×2 matrix `turn`, with their origin in the frame."""

    turn: np.ndarray
    origin: np.ndarray

    def at(self, points) -> np.ndarray:
        """Points N×2 in (u, v) → in the frame."""
        return np.asarray(points, float) @ self.turn.T + self.origin

    def box(self, u0: float, v0: float, u1: float, v1: float) -> np.ndarray:
        """Corners of a rectangle along the axes, 4×2 in the frame."""
        return self.at(rectangle(u0, v0, u1, v1))

    def line(self, u0: float, v0: float, u1: float, v1: float) -> Path:
        """Straight from one point to another."""
        return Path(self.at([(u0, v0), (u1, v1)]))


class Path:
    """A polyline parametrised by arc length (frame pixels); it goes on straight beyond both ends."""

    def __init__(self, points: np.ndarray):
        self.points = np.asarray(points, float)
        steps = np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        self._s = np.concatenate([[0.0], np.cumsum(steps)])
        self._first = (self.points[1] - self.points[0]) / steps[0]
        self._last = (self.points[-1] - self.points[-2]) / steps[-1]

    @property
    def length(self) -> float:
        return float(self._s[-1])

    def at(self, s) -> np.ndarray:
        """Points at arc lengths `s` (scalar or N) → (2,) or N×2."""
        s = np.asarray(s, float)
        inside = np.stack([np.interp(s, self._s, self.points[:, axis]) for axis in (0, 1)], axis=-1)
        before, after = np.minimum(s, 0)[..., None], np.maximum(s - self.length, 0)[..., None]
        return inside + before * self._first + after * self._last

    def heading(self, s: float) -> float:
        """Direction at arc length `s`, radians from +x towards +y."""
        step = self.at(s + 1) - self.at(s - 1)
        return float(np.arctan2(step[1], step[0]))

    def reversed(self) -> Path:
        return Path(self.points[::-1])

    def offset(self, distance: float) -> Path:
        """The parallel path `distance` to the right of travel (y down)."""
        tangents = np.gradient(self.points, axis=0)
        tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
        return Path(self.points + distance * np.stack([-tangents[:, 1], tangents[:, 0]], axis=1))

    def strip(self, s0: float, s1: float, half_width, step: float = 4.0) -> np.ndarray:
        """Polygon along the path from s0 to s1; `half_width` a number or one value at each end."""
        count = max(2, int(abs(s1 - s0) / step) + 1)
        s = np.linspace(s0, s1, count)
        points = self.at(s)
        tangents = self.at(s + 0.5) - self.at(s - 0.5)
        normals = np.stack([-tangents[:, 1], tangents[:, 0]], axis=1) / np.linalg.norm(tangents, axis=1, keepdims=True)
        widths = np.linspace(*np.broadcast_to(half_width, 2), count)[:, None]
        return np.concatenate([points + normals * widths, (points - normals * widths)[::-1]])


def curve(heading: float, length: float, bend: float, points: int = 48) -> Path:
    """A path of constant curvature from the origin: it turns by `bend` radians over `length` pixels."""
    angles = heading + bend * np.linspace(0, 1, points)
    steps = np.stack([np.cos(angles), np.sin(angles)], axis=1) * length / (points - 1)
    return Path(np.concatenate([[[0, 0]], np.cumsum(steps[:-1], axis=0)]))


def curve_through(heading: float, length: float, bend: float, middle: np.ndarray, points: int = 48) -> Path:
    """A curve whose middle lies at `middle`; `heading` is the one at its start."""
    line = curve(heading, length, bend, points)
    return Path(line.points - line.at(length / 2) + middle)
