"""Procedural satellite video with exact masks, so that the kit runs without any real data.

`generate` writes PNG frames and COCO indices to `root/<key>/<split>/` and returns the `FrameSet`. A video is a painted
scene (`scenes.py`, `stills.py`), drawn three times finer than the frame, area-averaged, and seen through a camera
(`sensor.py`). A pixel is an object's where at least half of it is covered by the object and nothing lies above;
shadows, wakes and boarding bridges are background.

Frame sides follow the paper's range (512×512 to 2160×1080, times `scale`), object areas its Table 7.
Every video has its own random stream, named by (seed, variant, split, number), and every frame its own below
that, so neither the number of videos nor which frames are kept moves a byte of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.files import sha256_of, stable_hash, write_bytes
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.cache import cached
from rossam_kit.config import Split, SyntheticConfig
from rossam_kit.datasets.coco import read_whole_index, write_coco_index
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.images import AS_IT_IS
from rossam_kit.datasets.synthetic.builder import Scene, World, build_scene
from rossam_kit.datasets.synthetic.paint import MARGIN, SUPERSAMPLING, Light, Place
from rossam_kit.datasets.synthetic.scenes import SCENES
from rossam_kit.datasets.synthetic.sensor import Sensor
from rossam_kit.datasets.synthetic.stills import STILLS

INDEX = "index.json.gz"
GENERATOR_VERSION = 1
"""To be raised with any change of code that moves a pixel or a mask: frames of older versions are not used."""
MANY_FRAMES = 60
"""Fewer are rendered in this process: worker processes need some seconds to start."""
MIN_AREA = 12
"""Square pixels; Table 7's smallest object. What shows less is left out (a car: whose box is smaller)."""
MAX_SWAY = 2
"""Frame pixels the platform strays from its mean pointing, at most, along each axis."""
PAPER_SIDES = (512, 1080, 2160)
"""Shortest side, greatest height, greatest width of the paper's frames (Table 7)."""
AERIAL_SIDE = 800
"""Of the variant `aerial`: the side of a patch of iSAID (`isaid.PATCH`)."""

_VARIANTS = ("video", "static", "zero-shot", "aerial")
_SPLITS = ("train", "val", "test")
_VIDEO_PLACES = ("temperate", "dry", "humid")
_ZERO_SHOT_PLACES = ("desert", "snow", "forest")


def generate(config: SyntheticConfig, split: Split, root: Path, progress: bool = False) -> FrameSet:
    """The frames of one split, rendered under `root` unless they are there already.

    Every `frame_stride`-th moment of a video is rendered and annotated, with its frame number kept. Files:
    `<video>/<frame>.png`, `<video>/index.json.gz` once the video is whole, and `index.json.gz` once the split
    is; so an interrupted call is taken up after its last whole video. Damaged videos are rendered again.

    Raises:
        RossamError: the folder cannot be written.
    """
    folder = _split_folder(config, split, root)
    count = {"train": config.train_videos, "val": config.val_videos, "test": config.test_videos}[split]

    def compute() -> FrameSet:
        from rossam_kit.parallel import run_tasks  # loads torch

        tasks = [(config, split, number, folder) for number in range(count)]
        workers = 1 if count * len(config.moments) < MANY_FRAMES else None
        for _ in run_tasks(_video_frames, tasks, workers=workers, desc=f"rendering {split} videos", bar=progress):
            pass
        frames = [frame for task in tasks for frame in _video_frames(*task)]
        return FrameSet(f"synthetic-{config.variant} {split}", frames)

    return _indexed(folder, compute)


def is_generated(config: SyntheticConfig, split: Split, root: Path) -> bool:
    """Whether all frames of a split have been rendered under `root`."""
    return (_split_folder(config, split, root) / INDEX).exists()


def _split_folder(config: SyntheticConfig, split: Split, root: Path) -> Path:
    return Path(root) / stable_hash([GENERATOR_VERSION, config.model_dump(mode="json")])[:16] / split


def _indexed(folder: Path, compute: Callable[[], FrameSet]) -> FrameSet:
    """Frames in `folder`, rendered unless its index is there and its images are as they were written."""
    return cached(folder / INDEX, compute, load=_unchanged, save=lambda path, frames: write_coco_index(frames, path))


def _unchanged(path: Path) -> FrameSet:
    """The frames of an index; a missing or changed image is a `RossamError`."""
    frames = read_whole_index(path)
    for frame in frames:
        if sha256_of(frame.image_path) != frame.source["sha256"]:
            raise RossamError(frame.image_path, "is not what was written there", "delete it: it is rendered again")
    return frames


def _video_frames(config: SyntheticConfig, split: Split, number: int, root: Path) -> FrameSet:
    """One video's frames, read back where they are complete."""
    name = f"{config.variant}-{split}-{number:03d}"
    dataset, folder = f"synthetic-{config.variant}", root / name

    def compute() -> FrameSet:
        video = Video(config, split, number)
        frames = []
        for moment in video.moments:
            image, objects, attributes = video.frame(moment)
            path = folder / f"{moment + 1:06d}.png"
            _, stream = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 6])
            write_bytes(path, stream.tobytes())
            place, source = (dataset, name, moment + 1, path, image.shape[:2]), {"sha256": sha256_of(path)}
            frames.append(Frame(*place, objects, attributes, AS_IT_IS, source))
        return FrameSet(f"{dataset} {split}", frames)

    return _indexed(folder, compute)


class Video:
    """One world, its scene and one camera; `frame(moment)` may be called in any order."""

    def __init__(self, config: SyntheticConfig, split: Split, number: int):
        self._entropy = config.seed
        self._key = (_VARIANTS.index(config.variant), _SPLITS.index(split), number)
        rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=self._key))
        still, other = config.is_still, config.variant == "zero-shot"
        self.moments = config.moments
        self.overcast = bool(rng.random() < (0.15 if still else 0.3))
        place = Place.named(str(rng.choice(_ZERO_SHOT_PLACES if other else _VIDEO_PLACES)))
        light = Light.sample(rng, rng.uniform(0.0, 0.35) if self.overcast else rng.uniform(0.8, 1.05))
        metres = rng.uniform(0.7, 1.0) / (rng.uniform(0.7, 1.4) if other else 1.0)
        camouflage = rng.uniform(0.6, 1.0) if self.overcast and not still else rng.uniform(0.0, 0.3)
        length = 1 if still else config.frames_per_video
        self.world = World(_frame_size(rng, config), place, light, metres, camouflage, length)
        self.sensor = Sensor.sample(rng, config.variant, self.overcast)
        if still:
            self.scene_name, (lay_out, kinds) = "still", STILLS[config.variant]
            self.scene = build_scene(rng, self.world, lay_out, kinds[number % len(kinds)])
        else:
            self.scene_name = config.scenes[number % len(config.scenes)]
            self.scene = build_scene(rng, self.world, SCENES[self.scene_name])

    def frame(self, moment: int) -> tuple[np.ndarray, tuple[ObjectAnnotation, ...], dict[str, Any]]:
        """(uint8 H×W×3 RGB, annotations, attributes) at a moment (0 = first)."""
        rng = np.random.default_rng(np.random.SeedSequence(self._entropy, spawn_key=(*self._key, moment + 1)))
        limit = SUPERSAMPLING * MAX_SWAY
        sway = np.clip(np.round(rng.normal(0, self.sensor.sway * SUPERSAMPLING, 2)), -limit, limit).astype(int)
        canvas = self.scene.draw(moment)
        top, left = sway + SUPERSAMPLING * MARGIN
        height, width = self.world.size_hw
        window = slice(top, top + SUPERSAMPLING * height), slice(left, left + SUPERSAMPLING * width)
        radiance = cv2.resize(canvas.rgb[window], (width, height), interpolation=cv2.INTER_AREA)
        objects, too_small = annotate(self.scene, canvas.labels[window])
        attributes = {
            "scene": self.scene_name,
            "place": self.world.place.name,
            "ground_resolution_m": round(self.world.metres, 4),
            "overcast": self.overcast,
            "sensor": self.sensor.attributes(),
            "left_out_too_small": too_small,
        }
        return self.sensor.expose(radiance, rng), objects, attributes


def _frame_size(rng: np.random.Generator, config: SyntheticConfig) -> tuple[int, int]:
    """Height and width: aspect ratios 1 to 2, log-uniform height; of the variant `aerial`, always one square."""
    scale = config.scale
    if config.variant == "aerial":
        return (max(1, round(scale * AERIAL_SIDE)),) * 2
    shortest, greatest_height, greatest_width = PAPER_SIDES
    height = np.exp(rng.uniform(np.log(shortest), np.log(greatest_height)))
    width = min(height * rng.choice([1.0, rng.uniform(1, 2)], p=[0.2, 0.8]), greatest_width)
    return max(1, round(scale * height)), max(1, round(scale * width))


def annotate(scene: Scene, labels: np.ndarray) -> tuple[tuple[ObjectAnnotation, ...], int]:
    """Annotations from the ids in sight (int canvas pixels), and how many objects showed too little of themselves."""
    height, width = (side // SUPERSAMPLING for side in labels.shape)
    windows = scipy.ndimage.find_objects(labels)
    objects, too_small = [], 0
    for actor in scene.actors:
        window = windows[actor.object_id - 1] if 0 < actor.object_id <= len(windows) else None
        if window is None:
            continue
        rows, columns = (slice(w.start // SUPERSAMPLING, -(-w.stop // SUPERSAMPLING)) for w in window)
        fine = labels[_finer(rows), _finer(columns)] == actor.object_id
        h, w = rows.stop - rows.start, columns.stop - columns.start
        visible = np.zeros((height, width), bool)
        visible[rows, columns] = fine.reshape(h, SUPERSAMPLING, w, SUPERSAMPLING).mean(axis=(1, 3)) >= 0.5
        box = masks.box_of(visible) if visible.any() else (0.0, 0.0, 0.0, 0.0)
        area = (box[2] - box[0]) * (box[3] - box[1]) if actor.box_only else visible.sum()
        if area < MIN_AREA:
            too_small += 1
            continue
        segmentation = None if actor.box_only else masks.encode(visible)
        objects.append(ObjectAnnotation(actor.object_id, actor.category, box, segmentation))
    return tuple(objects), too_small


def _finer(span: slice) -> slice:
    return slice(span.start * SUPERSAMPLING, span.stop * SUPERSAMPLING)
