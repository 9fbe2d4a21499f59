"""Photographs as surfaces of drawn scenes: a random window at a random zoom, recoloured or in its own colours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from rossam_core.errors import RossamError

LONGEST = 1_024
"""Photographs are shrunk to this many pixels along the longer side when read."""
HELD_OUT_EVERY = 8
"""Every eighth photograph, sorted by name, serves the held-out scenes only."""


def read_photos(folder: str | Path | None, held_out: bool) -> tuple[np.ndarray, ...]:
    """Photographs of a folder and its subfolders, uint8 H×W×3 RGB, in order of their paths.

    Args:
        folder: holds at least `HELD_OUT_EVERY` files that OpenCV reads; None: no photographs.
        held_out: whether to return those of the held-out scenes, or those to train on.

    Raises:
        RossamError: no such folder, or too few photographs in it.
    """
    if folder is None:
        return ()
    names = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    if len(names) < HELD_OUT_EVERY:
        raise RossamError(
            folder, f"holds {len(names)} photographs", f"name a folder of at least {HELD_OUT_EVERY} .jpg or .png files"
        )
    photos = []
    for number, name in enumerate(names):
        if (number % HELD_OUT_EVERY == 0) == held_out:
            image = cv2.imread(str(name), cv2.IMREAD_COLOR)
            if image is None:
                raise RossamError(name, "cannot be read as an image", "remove it from the folder")
            scale = min(1, LONGEST / max(image.shape[:2]))
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            photos.append(np.ascontiguousarray(image[..., ::-1]))
    return tuple(photos)


@dataclass(frozen=True)
class PhotoFill:
    """A photograph's surface; each `render` cuts another window of it at the same zoom."""

    photo: np.ndarray
    """uint8 H×W×3."""
    zoom: float
    """Pixels of the scene per pixel of the photograph, larger where the photograph would be too small."""
    contrast: float
    """Factor on the deviation from the window's mean colour."""
    base: np.ndarray | None
    """float32 RGB to which the window's mean is shifted; None: it keeps its own."""

    @staticmethod
    def sample(rng: np.random.Generator, photo: np.ndarray, base: np.ndarray) -> PhotoFill:
        return PhotoFill(
            photo=photo,
            zoom=float(np.exp(rng.uniform(np.log(0.7), np.log(4)))),
            contrast=float(rng.uniform(0.35, 1.3)),
            base=base if rng.random() < 0.6 else None,
        )

    def render(self, rng: np.random.Generator, h: int, w: int) -> np.ndarray:
        """float32 h×w×3."""
        rows, columns = self.photo.shape[:2]
        zoom = max(self.zoom, h / rows, w / columns)
        ph, pw = (int(np.clip(np.ceil(n / zoom), 2, limit)) for n, limit in ((h, rows), (w, columns)))
        y, x = rng.integers(0, rows - ph + 1), rng.integers(0, columns - pw + 1)
        shrinks = ph > h or pw > w
        window = self.photo[y : y + ph, x : x + pw].astype(np.float32)
        window = cv2.resize(window, (w, h), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        if rng.random() < 0.5:
            window = window[:, ::-1]
        mean = window.mean(axis=(0, 1))
        return (window - mean) * np.float32(self.contrast) + (mean if self.base is None else self.base)
