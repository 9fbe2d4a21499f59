"""The camera of a synthetic satellite video: optics, atmosphere, noise, sharpening, compression.

Converts an ideal radiance image at frame resolution (float32 RGB, 0-255) to a uint8 frame.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np


@dataclass(frozen=True)
class Sensor:
    """Parameters of one video's camera and air; lengths in frame pixels, deviations in grey levels."""

    psf_sigma: float  # Gaussian blur of the optics
    read_noise: float  # standard deviation independent of the signal
    shot_noise: float  # standard deviation at full signal (255) that grows with the square root of it
    sharpening: float  # strength of the unsharp mask that ground stations apply
    contrast: float  # slope of the tone curve about mid grey
    haze: float  # share of the light that is scattered sky light
    saturation: float  # of colours, 1 as painted
    gain_rgb: tuple[float, float, float]  # colour cast
    brightness_jitter: float  # standard deviation of a frame's exposure, relative
    jpeg_quality: int  # of the compression in the downlink, cv2's 0-100
    panchromatic: bool  # one band only; the three channels are equal
    sway: float  # standard deviation of the platform's displacement from frame to frame

    @classmethod
    def sample(cls, rng: np.random.Generator, variant: str, overcast: bool) -> Sensor:
        """A camera for `variant`: `static` and `aerial` ones are sharp, `zero-shot` ones mostly panchromatic."""
        static, other = variant in ("static", "aerial"), variant == "zero-shot"
        return cls(
            psf_sigma=rng.uniform(0.3, 0.5) if static else rng.uniform(0.7, 1.1) if other else rng.uniform(0.45, 0.8),
            read_noise=rng.uniform(0.5, 1.5) if static else rng.uniform(1.5, 4.0) if other else rng.uniform(0.8, 2.2),
            shot_noise=rng.uniform(1.0, 2.0) if static else rng.uniform(3.0, 6.0) if other else rng.uniform(1.5, 4.0),
            sharpening=rng.uniform(0.2, 0.6) if static else rng.uniform(0.2, 1.3),
            contrast=rng.uniform(0.62, 0.82) if overcast else rng.uniform(0.9, 1.25),
            haze=rng.uniform(0.12, 0.3) if overcast else rng.uniform(0.0, 0.12),
            saturation=rng.uniform(0.55, 0.95),
            gain_rgb=tuple(float(g) for g in rng.normal(1.0, 0.035, 3)),
            brightness_jitter=rng.uniform(0.0, 0.015),
            jpeg_quality=int(rng.integers(80, 96) if static else rng.integers(62, 92)),
            panchromatic=bool(other and rng.random() < 0.7),
            sway=0.0 if static else rng.uniform(0.1, 0.6),
        )

    def attributes(self) -> dict[str, Any]:
        """JSON-serialisable parameters, rounded for reading."""
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return rounded | {"gain_rgb": [round(g, 4) for g in self.gain_rgb]}

    def expose(self, radiance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Float32 H×W×3 (0-255) → uint8 H×W×3."""
        sky = np.array([186, 196, 208], np.float32)
        signal = 118 + np.float32(self.contrast) * (radiance.astype(np.float32) - 118)
        grey = signal.mean(axis=2, keepdims=True)
        signal = grey + np.float32(self.saturation) * (signal - grey)
        signal = (1 - self.haze) * signal + self.haze * sky
        signal = np.clip(signal, 0, 270) * np.asarray(self.gain_rgb, np.float32)
        signal *= np.float32(1 + rng.normal(0, self.brightness_jitter))
        if self.panchromatic:
            signal = np.repeat(signal @ np.array([[0.35], [0.4], [0.25]], np.float32), 3, axis=2)
        signal = cv2.GaussianBlur(signal, (0, 0), self.psf_sigma)
        bands = 1 if self.panchromatic else 3
        noise = rng.standard_normal((*signal.shape[:2], bands), dtype=np.float32)
        signal += noise * np.sqrt(self.read_noise**2 + self.shot_noise**2 * np.maximum(signal, 0) / 255)
        signal += np.float32(self.sharpening) * (signal - cv2.GaussianBlur(signal, (0, 0), 1.0))
        frame = np.clip(np.round(signal), 0, 255).astype(np.uint8)
        _, stream = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])
        return np.ascontiguousarray(cv2.imdecode(stream, cv2.IMREAD_COLOR)[..., ::-1])
