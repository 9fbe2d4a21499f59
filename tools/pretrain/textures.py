"""Colours and surfaces of drawn images: float32 patches in grey levels, 0–255, not yet clipped.

Noise is cut from a bank of tiles made once per process from a fixed seed; place, zoom and strength come from the
caller's generator.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from tools.pretrain.photos import PhotoFill

TILE = 512
"""Side of a noise tile in pixels."""


@functools.cache
def texture_bank() -> np.ndarray:
    """float32 T×512×512 tiles of zero mean and unit variance that repeat seamlessly; the same in every process.

    1/f noise of several exponents, isotropic and streaky; band-pass noise; ridges; speckle; random leaves.
    """
    rng = np.random.default_rng(20250101)
    fy, fx = np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None]
    tiles = []
    for index in range(40):
        angle, stretch = rng.uniform(0, np.pi), 1.0 if index % 2 else rng.uniform(2, 12)
        u, v = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
        radius = np.hypot(u, v * stretch)
        radius[0, 0] = 1
        spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE)))
        if index % 5 == 4:
            centre = np.exp(rng.uniform(np.log(0.01), np.log(0.2)))
            tile = np.fft.irfft2(spectrum * np.exp(-(((radius - centre) / (0.3 * centre)) ** 2)))
        else:
            spectrum[0, 0] = 0
            tile = np.fft.irfft2(spectrum / radius ** (0.4, 0.9, 1.4, 1.9)[index % 4])
        tiles.append(-np.abs(tile) if index % 10 in (3, 8) else tile)
    for grain in (1.5, 6.0):
        speckle = cv2.GaussianBlur(rng.exponential(1, (TILE, TILE)), (0, 0), grain, borderType=cv2.BORDER_REFLECT)
        tiles.append(speckle)
    for scale in (6, 14, 30):
        leaves = np.zeros((TILE, TILE))
        for x, y, radius, value in rng.random((12 * TILE * TILE // scale**2, 4)):
            centre = (int(x * TILE), int(y * TILE))
            cv2.circle(leaves, centre, int(scale * (0.3 + radius)), float(value), -1)
        tiles.append(leaves)
    bank = np.stack(tiles)
    bank -= bank.mean(axis=(1, 2), keepdims=True)
    return np.clip(bank / bank.std(axis=(1, 2), keepdims=True), -3, 3).astype(np.float32)


def colour(rng: np.random.Generator) -> np.ndarray:
    """float32 RGB 0–255, mostly of low saturation, of any brightness."""
    direction = rng.normal(size=3)
    direction -= direction.mean()
    direction /= max(np.abs(direction).max(), 1e-6)
    value = rng.uniform(15, 245)
    saturation = rng.beta(1, 6) if rng.random() < 0.8 else rng.uniform(0.2, 1)
    return np.clip(value * (1 + saturation * direction), 0, 255).astype(np.float32)


def noise(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """float32 h×w patch of a bank tile at a random place, zoom and quarter turn; about zero mean, unit variance."""
    bank = texture_bank()
    tile = bank[rng.integers(len(bank))]
    zoom = np.exp(rng.uniform(np.log(max(0.6, max(h, w) / TILE)), np.log(3)))
    ph, pw = min(int(h / zoom) + 2, TILE), min(int(w / zoom) + 2, TILE)
    y, x = rng.integers(0, TILE - ph + 1), rng.integers(0, TILE - pw + 1)
    patch = cv2.resize(tile[y : y + ph, x : x + pw], (w, h), interpolation=cv2.INTER_LINEAR)
    return patch if rng.random() < 0.5 else patch[::-1, ::-1]


def grating(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """float32 h×w sine or square wave of random direction and of a period of 3 to 40 pixels, −1 to 1."""
    angle, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(3), np.log(40)))
    x = np.arange(w, dtype=np.float32) * (np.cos(angle) * 2 * np.pi / period)
    y = np.arange(h, dtype=np.float32) * (np.sin(angle) * 2 * np.pi / period) + rng.uniform(0, 6)
    wave = np.sin(x[None] + y[:, None])
    return np.clip(wave * 4, -1, 1) if rng.random() < 0.5 else wave


def ramp(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """float32 h×w linear gradient of random direction, −1 to 1."""
    gx, gy = rng.normal(size=2)
    x, y = np.linspace(-gx, gx, w, dtype=np.float32), np.linspace(-gy, gy, h, dtype=np.float32)
    return (x[None] + y[:, None]) / (abs(gx) + abs(gy) + 1e-6)


@dataclass(frozen=True)
class Material:
    """A base colour and how it varies; two objects of one material look alike but not the same."""

    base: np.ndarray
    """float32 RGB 0–255."""
    grain: float
    """Standard deviation of the texture in grey levels."""
    tint: float
    """Standard deviation of a second texture along a random colour direction."""
    wave: float
    """Amplitude of a grating, mostly 0."""
    slope: float
    """Amplitude of a linear gradient."""

    @staticmethod
    def sample(rng: np.random.Generator, base: np.ndarray) -> Material:
        flat = rng.random() < 0.35
        grain = np.exp(rng.uniform(np.log(1), np.log(6 if flat else 34)))
        return Material(
            base=base,
            grain=float(grain),
            tint=0.0 if rng.random() < 0.7 else float(rng.uniform(3, 20)),
            wave=0.0 if rng.random() < 0.85 else float(rng.uniform(4, 35)),
            slope=0.0 if rng.random() < 0.5 else float(rng.uniform(3, 40)),
        )

    def render(self, rng: np.random.Generator, h: int, w: int) -> np.ndarray:
        """float32 h×w×3."""
        grey = noise(rng, h, w) * self.grain
        if self.slope:
            grey = grey + ramp(rng, h, w) * self.slope
        if self.wave:
            grey = grey + grating(rng, h, w) * self.wave
        rendered = self.base + grey[..., None]
        if self.tint:
            rendered += noise(rng, h, w)[..., None] * (rng.normal(0, 0.7, 3).astype(np.float32) * self.tint)
        return rendered


def near(rng: np.random.Generator, base: np.ndarray) -> np.ndarray:
    """A colour 8 to 40 grey levels from `base`: camouflage that can still be seen."""
    step = rng.uniform(8, 40) * rng.choice([-1, 1])
    if not 0 < base.mean() + step < 255:
        step = -step
    return np.clip(base + step + rng.normal(0, 5, 3), 0, 255).astype(np.float32)


Fill = Material | PhotoFill
Photos = Sequence[np.ndarray]


def sample_fill(rng: np.random.Generator, base: np.ndarray, photos: Photos, photo_share: float) -> Fill:
    """A surface of about the colour `base`, or one of the photographs in colours of its own."""
    if len(photos) and rng.random() < photo_share:
        return PhotoFill.sample(rng, photos[rng.integers(len(photos))], base)
    return Material.sample(rng, base)
