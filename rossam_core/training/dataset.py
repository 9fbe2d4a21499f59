"""Training views by number: which frame a sample shows, and how, is a pure function of the seed and the number.

In: frames, the input's side, a run's settings. Out: `View`s, tensors ready to be batched. Processes, resumed runs
and loader workers therefore all see the same data, and there is no random state to keep.
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

from rossam_core.records import FrameSet
from rossam_core.settings import InferenceConfig
from rossam_core.training.augment import augment
from rossam_core.training.recipes import TrainingConfig


class View(NamedTuple):
    """One sample on its way to the network."""

    index: int
    """Number of the sample in the run."""
    frame: str
    """Key of its frame."""
    image: Tensor
    """float32 S×S×3."""
    boxes: Tensor
    """float32 N×4."""
    masks: Tensor
    """bool N×S×S."""
    dropped: Counter
    """See `augment.Sample`."""
    digest: int
    """Checksum of what the network sees."""

    def account(self) -> dict[str, Any]:
        """What the log needs of it, small enough to pass between processes."""
        return {"index": self.index, "frame": self.frame, "dropped": self.dropped, "digest": self.digest}


class Views(Dataset):
    """Sample number → `View`: a pure function of the seed and the number.

    Frames come in a new order each epoch; sample i shows the frame whose turn it is, as sample i's own generator
    draws it.
    """

    def __init__(self, frames: FrameSet, size: int, training: TrainingConfig, inference: InferenceConfig):
        self.frames, self.size, self.training, self.inference = frames, size, training, inference

    def __getitem__(self, index: int) -> View:
        epoch, turn = divmod(index, len(self.frames))
        seed = self.training.seed
        order = np.random.default_rng(stream(seed, "order", epoch)).permutation(len(self.frames))
        frame = self.frames[int(order[turn])]
        rng = np.random.default_rng(stream(seed, "view", index))
        sample = augment(frame, self.size, self.training.augment, rng, self.inference)
        digest = zlib.crc32(np.ascontiguousarray(sample.image[::4, ::4]))
        digest = zlib.crc32(sample.boxes, zlib.crc32(np.packbits(sample.masks), digest))
        tensors = (torch.from_numpy(each) for each in (sample.image, sample.boxes, sample.masks))
        return View(index, frame.key, *tensors, sample.dropped, digest)


def loader(views: Views, indices: Sequence[int], batch_size: int) -> DataLoader:
    """Lists of `View`s in the order of `indices`; a generator of its own keeps torch's global one untouched.

    Workers are spawned: a forked one inherits locks that threads of OpenCV may hold, and waits for them for ever.
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
    """Where sample `index` draws the points its losses look at; on the CPU, so that every device gets the same."""
    return torch.Generator().manual_seed(int(stream(seed, "points", index).generate_state(1, np.uint64)[0] >> 1))


def stream(seed: int, purpose: str, index: int) -> np.random.SeedSequence:
    """Independent randomness for each purpose and number."""
    return np.random.SeedSequence(seed, spawn_key=(zlib.crc32(purpose.encode()), index))


def batch_account(seen: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all processes' samples: checksum in the order of their numbers, and objects left out by reason."""
    seen = sorted(seen, key=lambda account: account["index"])
    digest = zlib.crc32(np.array([account["digest"] for account in seen], dtype=np.uint32))
    dropped = sum((account["dropped"] for account in seen), Counter())
    left_out = {f"dropped_{reason.replace(' ', '_')}": count for reason, count in sorted(dropped.items())}
    return {"first_sample": seen[0]["index"], "data": f"{digest:08x}"} | left_out
