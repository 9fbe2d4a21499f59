"""Contact sheet of the silhouette families: `python -m tools.pretrain.sheet OUT.png`."""

import sys

import cv2
import numpy as np

from tools.pretrain.shapes import FAMILIES, normalise, rasterise


def families(columns: int = 12, side: int = 80) -> np.ndarray:
    """One row of silhouettes per family, its name before them, uint8 H×W."""
    rows = []
    for family in FAMILIES:
        row = np.full((side, (columns + 1) * side), 255, np.uint8)
        cv2.putText(row, family.__name__, (4, side // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 0, 1, cv2.LINE_AA)
        for k in range(columns):
            silhouette = normalise(family(np.random.default_rng([0, k])))
            matrix = np.array([[0.85 * side, 0, side / 2], [0, 0.85 * side, side / 2]])
            coverage, window, _ = rasterise(silhouette, matrix, side)
            row[:, (k + 1) * side : (k + 2) * side][window] = 255 - 200 * coverage
        rows.append(row)
    return np.concatenate(rows)


if __name__ == "__main__":
    cv2.imwrite(sys.argv[1], families())
