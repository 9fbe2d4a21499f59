"""Batches of drawn scenes with prompted objects, each a function of the seed and its number, and held-out scenes."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rossam_core.devices import autocast
from rossam_core.masks import box_of
from rossam_core.model.segmenter import PromptableSegmenter
from tools.pretrain.config import PretrainConfig
from tools.pretrain.photos import read_photos
from tools.pretrain.scenes import sample_scene

HELD_OUT = 1_000
"""Number of the held-out stream; the phases' streams count from 0."""


class Batch(NamedTuple):
    """B images and the objects prompted in them; T = S / `target_stride`."""

    images: Tensor
    """uint8 B×3×S×S, RGB."""
    boxes: list[Tensor]
    """B tensors float32 N_i×4, xyxy in pixels."""
    targets: Tensor
    """uint8 ΣN×T×T, share of each cell that the object covers, 0–255."""
    layout: Tensor
    """uint8 B×2×S/4×S/4, share of each cell that any object covers, and that any object's outline does, 0–255."""

    def to(self, device: torch.device) -> Batch:
        """On `device`, the images as float32."""
        images, targets, layout = self.images.to(device).float(), self.targets.to(device), self.layout.to(device)
        return Batch(images, [boxes.to(device) for boxes in self.boxes], targets, layout)


class SceneBatches(Dataset):
    """One process's share of batch n of a phase, the same in every process and after every resumption.

    Args:
        size: side of the images in pixels.
        stream: number of the phase, part of every scene's seed.
        steps: the batches that remain to be done.
        share: example numbers of a batch that are this process's.
    """

    def __init__(self, config: PretrainConfig, size: int, stream: int, steps: range, share: range):
        self.config, self.size, self.stream, self.steps, self.share = config, size, stream, steps, share
        self._photos: tuple[np.ndarray, ...] | None = None  # read by the process that draws
        self._drawn: tuple[int, tuple[np.ndarray, np.ndarray]] | None = None

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Batch:
        start = self.steps[index] * self.config.batch_size
        examples = [self._example(start + k) for k in self.share]
        images, boxes, targets, layouts = zip(*examples, strict=True)
        # B×S×S×3 → B×3×S×S
        images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return Batch(images, list(boxes), torch.cat(targets), torch.stack(layouts))

    def _example(self, number: int) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
        config, rng = self.config, np.random.default_rng([self.config.seed, self.stream, number, 1])
        image, masks = turned(rng, *self._scene(number // config.scene_reuse))
        if rng.random() < config.close_up:
            image, masks = close_up(rng, image, masks)
        layout = torch.from_numpy(scene_layout(masks))
        masks, boxes = choose_objects(rng, masks, config.boxes_per_image)
        boxes = jitter_boxes(rng, boxes, config.box_jitter, self.size)
        planes = (masks.astype(np.uint8) * 255).transpose(1, 2, 0)
        side = self.size // config.target_stride
        coarse = [cv2.resize(planes[..., k], (side, side), interpolation=cv2.INTER_AREA) for k in range(len(masks))]
        return image, torch.from_numpy(boxes).float(), torch.from_numpy(np.stack(coarse)), layout

    def _scene(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Scene `number` of the phase; the last one is kept, since the next example may be made of it."""
        if self._drawn is None or self._drawn[0] != number:
            rng = np.random.default_rng([self.config.seed, self.stream, number])
            if self._photos is None:
                self._photos = read_photos(self.config.photos, held_out=False)
            self._drawn = number, sample_scene(rng, self.size, self._photos, self.config.photo_share)
        return self._drawn[1]


def turned(rng: np.random.Generator, image: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image S×S×3 and masks N×S×S, both in one of the square's eight positions."""
    quarters = int(rng.integers(4))
    image, masks = np.rot90(image, quarters), np.rot90(masks, quarters, axes=(1, 2))
    if rng.random() < 0.5:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(masks)


def close_up(rng: np.random.Generator, image: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A square window around one of the larger objects, enlarged to the image's size.

    Args:
        image: uint8 S×S×3.
        masks: bool N×S×S.

    Returns:
        Image uint8 S×S×3, and masks bool M×S×S of the objects that keep an eighth of their area in the window.
    """
    size = len(image)
    boxes = np.array([box_of(mask) for mask in masks])
    extents = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    large = np.flatnonzero(extents >= min(size / 5, extents.max()))
    number = rng.choice(large)
    side = float(np.clip(extents[number] * np.exp(rng.uniform(np.log(1.3), np.log(4.0))), 8, size))
    middle = (boxes[number, :2] + boxes[number, 2:]) / 2 + rng.uniform(-0.1, 0.1, 2) * side
    corner = np.clip(middle - side / 2, 0, size - side)
    matrix = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]]]) * (size / side)
    matrix[:, 2] += 0.5 * (size / side) - 0.5  # pixel edges → the pixel centres OpenCV counts in
    view = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    planes = [
        cv2.warpAffine(m.astype(np.uint8) * 255, matrix, (size, size), flags=cv2.INTER_LINEAR) > 127 for m in masks
    ]
    kept = [
        plane
        for plane, mask in zip(planes, masks, strict=True)
        if plane.sum() * (side / size) ** 2 >= max(mask.sum() / 8, 4)
    ]
    return view, np.array(kept) if kept else np.array(planes[number : number + 1])


def scene_layout(masks: np.ndarray) -> np.ndarray:
    """bool N×S×S → uint8 2×S/4×S/4: what is object, and what is within a pixel of an object's outline, 0–255."""
    planes, brush = masks.astype(np.uint8), np.ones((3, 3), np.uint8)
    covered = planes.max(axis=0) * 255
    outline = np.max([cv2.morphologyEx(plane, cv2.MORPH_GRADIENT, brush) for plane in planes], axis=0) * 255
    side = masks.shape[-1] // 4
    return np.stack([cv2.resize(p, (side, side), interpolation=cv2.INTER_AREA) for p in (covered, outline)])


def choose_objects(rng: np.random.Generator, masks: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` of the masks, larger ones rather than smaller, and their tight boxes (float64 N×4, xyxy)."""
    boxes = np.array([box_of(mask) for mask in masks])
    weights = np.sqrt((boxes[:, 2:] - boxes[:, :2]).max(axis=1))
    chosen = rng.choice(len(masks), min(count, len(masks)), replace=False, p=weights / weights.sum())
    return masks[chosen], boxes[chosen]


def jitter_boxes(rng: np.random.Generator, boxes: np.ndarray, amount: float, size: int) -> np.ndarray:
    """Move each edge of half of the boxes by a clipped normal draw of `amount` of the side, within the image."""
    sides = (boxes[:, 2:] - boxes[:, :2])[:, [0, 1, 0, 1]]
    shift = np.clip(rng.normal(0, amount, boxes.shape), -3 * amount, 3 * amount) * sides
    moved = np.clip(boxes + shift, 0, size)
    return np.where(rng.random((len(boxes), 1)) < 0.5, moved, boxes)


class HeldOut(NamedTuple):
    """Scenes the best weights are chosen by: images, tight boxes and full-size masks of each."""

    images: list[np.ndarray]
    boxes: list[np.ndarray]
    masks: list[np.ndarray]


def held_out_scenes(config: PretrainConfig, size: int) -> HeldOut:
    """Scenes of a stream of their own, with photographs of their own; every box is tight."""
    images, boxes, masks = [], [], []
    photos = read_photos(config.photos, held_out=True)
    for number in range(config.held_out_scenes):
        rng = np.random.default_rng([config.seed, HELD_OUT, number])
        image, all_masks = sample_scene(rng, size, photos, config.photo_share)
        chosen, chosen_boxes = choose_objects(rng, all_masks, config.boxes_per_image)
        images.append(image), boxes.append(chosen_boxes), masks.append(chosen)
    return HeldOut(images, boxes, masks)


def scene_loader(config: PretrainConfig, batches: SceneBatches) -> DataLoader:
    """Batches in order, drawn ahead by the config's worker processes."""
    if not config.workers:
        return DataLoader(batches, batch_size=None, shuffle=False)
    return DataLoader(
        batches,
        batch_size=None,
        shuffle=False,
        num_workers=config.workers,
        prefetch_factor=8,
        worker_init_fn=_use_one_thread,
        multiprocessing_context="spawn",  # a fork would inherit OpenCV's and OpenMP's threads, locked
    )


def _use_one_thread(_: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


@torch.inference_mode()
def score(model: PromptableSegmenter, scenes: HeldOut, device: torch.device, precision: str) -> pd.DataFrame:
    """A row a prompt: the IoU of every mask source, the predicted IoU, the IoU of the inscribed ellipse, all at full
    resolution; `extent` (longer box side, pixels); `spread`, how much the image embedding changes from image to image
    (standard deviation over 16 images, mean over channels and places): near 0, the network ignores the image."""
    model.eval()
    rows: list[dict[str, float]] = []
    for start in range(0, len(scenes.images), 16):
        part = slice(start, start + 16)
        images = torch.from_numpy(np.stack(scenes.images[part])).permute(0, 3, 1, 2).to(device, torch.float32)
        boxes = [torch.from_numpy(each).float().to(device) for each in scenes.boxes[part]]
        truth = torch.from_numpy(np.concatenate(scenes.masks[part])).to(device)
        with autocast(device, precision):
            embeddings = model.encode(images)
            output = model.decode(embeddings, boxes)
        corners = torch.cat(boxes)
        sources = {"sam": output.sam} if output.hq is None else {"hq": output.hq, "sum": output.sam + output.hq}
        scores = {"ellipse": _iou(_ellipses(corners, model.input_size), truth), "predicted": output.iou}
        for name, logits in sources.items():
            full = F.interpolate(logits[:, None], truth.shape[1:], mode="bilinear", align_corners=False)[:, 0]
            scores[name] = _iou(full > 0, truth)
        scores["spread"] = embeddings.final.float().std(dim=0, correction=0).mean().expand(len(corners))
        scores["extent"] = (corners[:, 2:] - corners[:, :2]).amax(dim=1)
        rows += pd.DataFrame({name: value.float().cpu().numpy() for name, value in scores.items()}).to_dict("records")
    return pd.DataFrame(rows)


def _iou(masks: Tensor, truth: Tensor) -> Tensor:
    return (masks & truth).sum(dim=(1, 2)) / (masks | truth).sum(dim=(1, 2)).clamp(min=1)


def _ellipses(boxes: Tensor, size: int) -> Tensor:
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    pixels = torch.arange(size, device=boxes.device) + 0.5
    x = ((pixels - centre[:, :1]) / half[:, :1]) ** 2
    y = ((pixels - centre[:, 1:]) / half[:, 1:]) ** 2
    return x[:, None, :] + y[:, :, None] <= 1
