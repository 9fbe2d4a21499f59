"""Training samples by number: which frame a sample shows, and how, is a pure function of the seed and the number.

Processes, resumed runs and loader workers therefore all see the same data, and there is no random state to save.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rossam_core.records import Frame
from rossam_core.settings import InferenceConfig
from rossam_core.training.augment import augment
from rossam_core.training.recipes import TrainingConfig


class View(NamedTuple):
    """An `AugmentedView` as tensors, with its number in the run."""

    number: int  # its place in the run
    frame: str  # key of its frame
    image: Tensor  # float32 S×S×3
    boxes: Tensor  # float32 N×4
    masks: Tensor  # bool N×S×S
    dropped: Counter
    digest: int  # checksum of what the network sees

    def log_entry(self) -> dict[str, Any]:
        """What the log records, small enough to send between processes."""
        return {"sample": self.number, "frame": self.frame, "dropped": self.dropped, "digest": self.digest}


class Views(Dataset):
    """Number → `View`. Frames come in a new order each epoch; view i is drawn by its own generator."""

    def __init__(self, frames: Sequence[Frame], size: int, training: TrainingConfig, inference: InferenceConfig):
        self.frames, self.size, self.training, self.inference = frames, size, training, inference

    def __getitem__(self, index: int) -> View:
        epoch, turn = divmod(index, len(self.frames))
        seed = self.training.seed
        order = np.random.default_rng(stream(seed, "order", epoch)).permutation(len(self.frames))
        frame = self.frames[int(order[turn])]
        rng = np.random.default_rng(stream(seed, "view", index))
        view = augment(frame, self.size, self.training.augment, rng, self.inference)
        digest = 0
        for part in (view.image[::4, ::4], np.packbits(view.masks), view.boxes):
            digest = zlib.crc32(part.tobytes(), digest)
        image, boxes, masks = (torch.from_numpy(part) for part in (view.image, view.boxes, view.masks))
        return View(index, frame.key, image, boxes, masks, view.dropped, digest)


def loader(views: Views, indices: Sequence[int], batch_size: int) -> DataLoader:
    """Lists of `View`s in the order of `indices`; its own generator leaves torch's global one unchanged.

    Workers are spawned: a forked one inherits locks that threads of OpenCV may hold, and waits for them forever.
    """
    workers, generator = views.training.workers, torch.Generator().manual_seed(0)
    return DataLoader(
        views,
        batch_size,
        sampler=indices,
        collate_fn=list,
        num_workers=workers,
        generator=generator,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_use_one_thread,
    )


def _use_one_thread(worker: int) -> None:
    """Workers share the cores among themselves; torch already gives each one thread."""
    cv2.setNumThreads(0)


def point_generator(seed: int, index: int) -> torch.Generator:
    """Generator of the points at which sample `index` is compared; on the CPU, so that all devices get the same."""
    return torch.Generator().manual_seed(int(stream(seed, "points", index).generate_state(1, np.uint64)[0] >> 1))


def stream(seed: int, purpose: str, index: int) -> np.random.SeedSequence:
    """Independent randomness for each purpose and number."""
    return np.random.SeedSequence(seed, spawn_key=(zlib.crc32(purpose.encode()), index))


def batch_log_entry(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all processes' samples: checksum in the order of their numbers, and objects left out by reason."""
    entries = sorted(entries, key=lambda entry: entry["sample"])
    digest = zlib.crc32(np.array([entry["digest"] for entry in entries], dtype=np.uint32).tobytes())
    dropped: Counter = sum((entry["dropped"] for entry in entries), Counter())
    left_out = {f"dropped_{reason.replace(' ', '_')}": count for reason, count in sorted(dropped.items())}
    return {"first_sample": entries[0]["sample"], "data": f"{digest:08x}"} | left_out
