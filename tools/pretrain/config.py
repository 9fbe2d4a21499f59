"""Settings of a pretraining run, its phases and their learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import Field

from rossam_core.model.sam2 import HIERAS
from rossam_core.settings import Config

EXTENDABLE = ("small_samples", "sam_samples", "hq_samples", "cooldown", "workers", "threads", "validate_every")
"""Settings that may differ when a run is resumed: how long it lasts, how often it is saved, how it is computed."""


class PretrainConfig(Config):
    """How a tiny prior is trained. All values are ours: neither paper nor released code trains a prior."""

    seed: int = 0
    """Seed of fresh weights and of every scene."""
    backbone: str = "vit_t"
    """Architecture to train: SAM's (`vit_t`), or SAM2's (`hiera_t`), which has no third phase."""
    start_from: str | None = None
    """Weights file of an earlier run, from which a new folder starts; None: fresh weights."""
    photos: str | None = None
    """Folder of photographs that serve as surfaces (`photos.py`); None: drawn textures alone."""
    photo_share: float = Field(0.6, ge=0, le=1)
    """Share of surfaces filled from a photograph, where there are any."""
    small_samples: int = Field(28_800, ge=0)
    """Images of half the input's side seen first, each once; encoder, prompt encoder and SAM's decoder train."""
    sam_samples: int = Field(6_400, ge=0)
    """Full-size images seen next, each once; the same parameters train."""
    hq_samples: int = Field(2_000, ge=0)
    """Full-size images seen last; only the HQ head trains, on the finished SAM. SAM2 skips this phase."""
    batch_size: int = Field(16, ge=1)
    """Images per step, over all processes."""
    scene_reuse: int = Field(2, ge=1)
    """Images made of one drawn scene, each another window, turned and mirrored at random."""
    close_up: float = Field(0.7, ge=0, le=1)
    """Share of images that are a window around one object, as inference cuts it (context 1.3 to 4): the object asked
    for is central, so that the encoder learns to see before it must search."""
    mirrored_weights: bool = True
    """Keep the weights such that a mirrored image gives the mirrored embedding (`equivariance.py`)."""
    mirrored_decoding_every: int = Field(4, ge=0)
    """Every so many steps on full-size images, masks are decoded from the mirrored embedding too, and must agree with
    the others (`losses.agreement_loss`). 0: never. Needs `mirrored_weights`."""
    boxes_per_image: int = Field(4, ge=1)
    """Objects prompted per image, at most; large ones are drawn more often (weight: square root of the side)."""
    small_lr: float = Field(6e-4, gt=0)
    """Peak learning rate on small images."""
    sam_lr: float = Field(6e-4, gt=0)
    """Peak learning rate on full-size images."""
    hq_lr: float = Field(1e-3, gt=0)
    """Peak learning rate of the HQ head."""
    warmup_samples: int = Field(1_600, ge=0)
    """Images over which the rate rises linearly, at most a tenth of the phase."""
    cooldown: float = Field(0.6, ge=0, le=1)
    """Last share of a phase, in which the rate falls to 0 as a half cosine. It is constant before, so that a run
    can be made longer or shorter while it lasts. On small images it stays constant to the end."""
    average_decay: float = Field(0.99, ge=0, lt=1)
    """Decay per step of the moving average of the weights, which is what is scored and saved; 0: the weights."""
    weight_decay: float = Field(0.05, ge=0)
    """AdamW, on matrices only."""
    layout_weight: float = Field(1.0, ge=0)
    """Weight of the layout loss (`losses.layout_loss`), without which the encoder may stop responding to the image."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest norm of a step's gradient."""
    target_stride: int = Field(2, ge=1)
    """Pixels per cell of the planes the loss compares: logits upsampled, exact masks averaged down. Finer than the
    logits (stride 4), so that outlines of small objects are learnt to a fraction of a logit cell."""
    box_jitter: float = Field(0.05, ge=0, lt=0.3)
    """Half of the boxes are moved: each edge by a normal draw of this fraction of the side (at most three times)."""
    held_out_scenes: int = Field(96, ge=1)
    """Generated scenes, none of them trained on, by which the best weights are chosen."""
    validate_every: int = Field(1_600, ge=1)
    """Images between two evaluations on the held-out scenes; also between two checkpoints."""
    workers: int = Field(1, ge=0)
    """Processes that draw scenes ahead; 0: the training process itself."""
    threads: int | None = Field(None, ge=1)
    """Threads of the network on a CPU; None: torch's own choice. Several processes of one thread each are faster than
    one process of several threads, which synchronise at every layer."""
    precision: str = Field("auto", pattern="^(auto|float32|bfloat16)$")
    """`auto`: bfloat16 autocast where it is faster (`devices.has_fast_bfloat16`)."""


RESULT = "weights.safetensors"
"""What a finished run leaves: the last phase's best weights, float16."""


@dataclass(frozen=True)
class Phase:
    """One stage of the run."""

    name: str
    method: str
    groups: tuple[str, ...]
    """Parameter groups that train."""
    shrink: int
    """Images measure the backbone's input side divided by this."""
    samples: int
    lr: float
    cooldown: float
    weights: str
    """File of the best weights, in the run folder."""


def phases(config: PretrainConfig) -> tuple[Phase, ...]:
    """The network on small images, then on full-size ones; for SAM then the HQ head on a frozen SAM."""
    whole = ("encoder", "last_block", "prompt_encoder", "sam_decoder")
    sam2 = config.backbone in HIERAS
    method, result = ("sam2", RESULT) if sam2 else ("sam", "sam.safetensors")
    both = (
        Phase("small", method, whole, 2, config.small_samples, config.small_lr, 0.0, "small.safetensors"),
        Phase("sam", method, whole, 1, config.sam_samples, config.sam_lr, config.cooldown, result),
    )
    head = Phase("hq", "hq-sam", ("hq_head",), 1, config.hq_samples, config.hq_lr, config.cooldown, RESULT)
    return both if sam2 else (*both, head)


def learning_rate(config: PretrainConfig, phase: Phase, samples: int) -> float:
    """Rate after `samples` images: linear warm-up, constant, half a cosine to 0 over the last `cooldown` share."""
    warmup = min(config.warmup_samples, phase.samples / 10)
    start = phase.samples * (1 - phase.cooldown)
    if samples < warmup:
        return phase.lr * (samples + config.batch_size) / (warmup + config.batch_size)
    if samples <= start:
        return phase.lr
    return phase.lr * 0.5 * (1 + math.cos(math.pi * min((samples - start) / (phase.samples - start), 1)))
