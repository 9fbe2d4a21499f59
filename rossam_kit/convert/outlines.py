"""Outlines of masks along the edges of their pixels: exact, so that they can be filled back into the same mask.

The outline of a bool mask is a list of closed loops of corner points, or the same as SVG path data.
"""

from __future__ import annotations

import numpy as np


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Closed outlines of a mask along the edges of its pixels.

    Args:
        mask: bool h×w.

    Returns:
        One float K×2 array of corner points (x, y) a loop, pixel-edge coordinates, the last point joined to the
        first. The mask lies to the right of the direction of travel, so holes run the other way and an even-odd or
        non-zero fill leaves them open. Pixels that touch at a corner only belong to separate loops.
    """
    padded = np.pad(np.asarray(mask, dtype=bool), 1)
    steps_from: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for step, neighbour, corner in _EDGES:
        rows, columns = np.nonzero(padded & ~np.roll(padded, (-neighbour[1], -neighbour[0]), axis=(0, 1)))
        for x, y in zip((columns - 1 + corner[0]).tolist(), (rows - 1 + corner[1]).tolist(), strict=True):
            steps_from.setdefault((x, y), []).append(step)
    loops = []
    while steps_from:
        loops.append(_walk(steps_from))
    return loops


def is_hole(loop: np.ndarray) -> bool:
    """Whether a loop of `outlines` runs round a hole (its signed area is negative, y pointing down)."""
    x, y = loop.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) < 0


def outline_path(mask: np.ndarray) -> str:
    """A bool mask's outline as SVG path data in pixel-edge coordinates, along the pixels' edges."""
    parts = []
    for loop in outlines(mask):
        x, y = loop[0].astype(int)
        steps = np.diff(loop, axis=0).astype(int).tolist()
        parts.append(f"M{x} {y}" + "".join(f"h{dx}" if dx else f"v{dy}" for dx, dy in steps) + "z")
    return "".join(parts)


# A pixel's edges, mask on the right hand: (step along the edge, neighbour beyond it, corner it starts at), all (x, y).
_EDGES = (
    ((1, 0), (0, -1), (0, 0)),
    ((0, 1), (1, 0), (1, 0)),
    ((-1, 0), (0, 1), (1, 1)),
    ((0, -1), (-1, 0), (0, 1)),
)


def _walk(steps_from: dict[tuple[int, int], list[tuple[int, int]]]) -> np.ndarray:
    """Follow one loop to its end, taking its edges out of `steps_from`; float K×2 corner points."""
    first = point = next(iter(steps_from))
    first_step = step = steps_from[point][0]
    direction, corners = None, []
    while True:
        steps_from[point].remove(step)
        if not steps_from[point]:
            del steps_from[point]
        if step != direction:
            corners.append(point)
        point, direction = (point[0] + step[0], point[1] + step[1]), step
        onward, right = steps_from.get(point, ()), (-direction[1], direction[0])
        if point == first and (not onward or right == first_step):
            break
        # Where two loops share a corner, turning right stays with the same pixel.
        step = right if right in onward else onward[0]
    if direction == first_step:
        corners = corners[1:]
    return np.array(corners, dtype=float)
