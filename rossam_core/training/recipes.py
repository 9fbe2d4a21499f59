"""Settings of a training run, and the three recipes: `paper`, `released`, `corrected`.

A recipe's name and overrides give a `TrainingConfig`, which is part of a `RunConfig`. Every place where paper, released
code and good practice differ is one field here, in `LossConfig` or in `AugmentConfig`, with the source of each value.
Which groups each step updates follows from `TrainingConfig.phases`.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

from pydantic import Field, model_validator

from rossam_core.errors import RossamError
from rossam_core.model.lora import AdapterKind
from rossam_core.settings import HQ_METHODS, Config, InferenceConfig, Recipe, TrainedMethod, merged, parse_config
from rossam_core.training.augment import AugmentConfig
from rossam_core.training.losses import LossConfig

MaskName = Literal["sam", "hq", "both"]
GroupName = Literal["lora", "last_block", "encoder", "prompt_encoder", "sam_decoder", "hq_head"]
DECODER_OF: dict[MaskName, GroupName] = {"sam": "sam_decoder", "hq": "hq_head"}
"""The decoder group that makes each mask."""


class Phase(NamedTuple):
    """What one step updates, and by which mask's loss."""

    groups: tuple[GroupName, ...]  # the parameter groups that are updated; all others are frozen in this step
    mask: MaskName  # whose loss: SAM's mask, the HQ head's, or the sum of both losses


class GroupConfig(Config):
    """Learning rate of one parameter group."""

    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate, whatever the batch and the number of processes (paper section 3.2.3: 1e-3; released code:
    1e-3 for the HQ head, 1e-4 for LoRA and last block)."""
    schedule: Literal["constant", "step", "cosine"] = "constant"
    """Paper: not given, so constant; released code: `step` for the HQ head, constant for the encoder."""


class TrainingConfig(Config):
    """One fine-tuning run, but for the network and the data. The defaults are the recipe `paper`."""

    trained_groups: tuple[GroupName, ...] = ("lora", "last_block", "sam_decoder", "hq_head")
    """Parameter groups that are updated (paper section 3.2: LoRA, last block and both decoders); all others keep their
    weights. Empty: nothing trains, which only an untrained row of a table has."""
    alternate: Literal["masks", "groups", "none"] = "masks"
    """How steps take turns. `masks` (paper section 3.2.2): steps alternate between the losses of SAM's mask and of the
    HQ mask; each updates its own decoder and all trained groups that are no decoder. `groups` (released code): a step
    for all trained groups but the HQ head, a step for the HQ head, always by the HQ mask. `none` (`corrected`): each
    step updates all groups by the sum of both masks' losses, since one forward pass gives both masks."""
    hq_decoder: Literal["shared", "copy"] = "shared"
    """What the HQ head reads. `shared`: SAM's mask decoder, so that steps on SAM's mask move the HQ mask too (HQ-SAM's
    architecture, paper section 3.2.2). `copy` (released code): a frozen copy of it, so that they do not."""
    groups: dict[GroupName, GroupConfig] = Field(
        default_factory=lambda: {
            **{name: GroupConfig() for name in ("lora", "last_block", "sam_decoder", "hq_head")},
            **{name: GroupConfig(learning_rate=1e-4) for name in ("encoder", "prompt_encoder")},
        }
    )
    """Learning rate and schedule of each group. `encoder`, which the paper never trains, is for comparison (ours:
    1e-4); `prompt_encoder` trains in the released code only (1e-4)."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Released code: Adam (the paper names none). Corrected: AdamW."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Released code: torch's defaults."""
    weight_decay: float = Field(0.0, ge=0)
    """Released code: 0. Corrected: 0.01, AdamW's default."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest norm of the gradient over a step's groups; None = unlimited (released code). Corrected: 1."""
    step_every: float = Field(1 / 12, gt=0, le=1)
    """`step` schedules multiply by `step_factor` after each such fraction of the run (released code: 4/48 epochs)."""
    step_factor: float = Field(0.1, gt=0, le=1)
    """See `step_every` (released code: 0.1)."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Fraction of the run over which learning rates rise linearly from 0 (released code: 0). Corrected: 0.05."""

    epochs: float = Field(24.0, gt=0)
    """Passes over the training frames (paper section 3.2.3: 24; released code: 48)."""
    samples: int | None = Field(None, ge=1)
    """Views to train on, instead of `epochs`; rounded up to whole batches."""
    batch: int = Field(8, ge=1)
    """Frames per step, over all processes (paper: not given, ours 8; released code: 1 per process)."""
    micro_batch: int | None = Field(None, ge=1)
    """Frames per process in one forward and backward pass, None = all; smaller saves memory, changes only rounding."""
    augment: AugmentConfig = AugmentConfig()
    """How training samples are drawn."""
    loss: LossConfig = LossConfig()
    """The loss."""

    lora_rank: int | None = Field(None, ge=1)
    """Rank of the adapters (paper: not given; released code: 512 at ViT-L). None = half the encoder's width."""
    adapter: AdapterKind = "lora"
    """Kind of the adapters, all of the group `lora` (paper section 3.2.1: LoRA); see `model.lora.add_adapter`."""
    fresh_hq_head: bool = False
    """Start ros-sam's HQ head from random weights although a prior for it exists (released code: names HQ-SAM's
    weights but never loads them). Paper: False."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 autocast where it is faster, `devices.has_fast_bfloat16` (ours; losses stay float32)."""
    seed: int = 0
    """Seed of fresh weights, of the order of frames, and of every view."""

    validate_every: int = Field(2000, ge=1)
    """Samples between two validations; one more at the end (ours)."""
    validation_objects: int = Field(128, ge=0)
    """Objects of the validation frames that are scored, evenly spaced, in the windows of `RunConfig.inference`
    (ours); 0 = no validation, best = last."""
    checkpoint_every: int = Field(2000, ge=1)
    """Samples between two checkpoints; a killed run resumes from the last one (ours)."""
    workers: int = Field(0, ge=0)
    """Processes that prepare views for each training process; 0 = it prepares them itself."""

    @model_validator(mode="after")
    def _trained_groups_have_rates(self) -> TrainingConfig:
        missing = sorted(set(self.trained_groups) - set(self.groups))
        if missing:
            raise ValueError(f"trained_groups name {', '.join(missing)}, which `groups` gives no learning rate")
        return self

    def phases(self, has_hq_head: bool) -> tuple[Phase, ...]:
        """What successive steps update; they take the phases in turn.

        A mask is part of the loss if its decoder trains, or if no decoder does.

        >>> recipe("paper").phases(has_hq_head=True)[0]
        Phase(groups=('lora', 'last_block', 'sam_decoder'), mask='sam')
        """
        trained = self.trained_groups
        available: list[MaskName] = ["sam", "hq"] if has_hq_head else ["sam"]
        masks = [mask for mask in available if DECODER_OF[mask] in trained] or available
        if self.alternate == "masks":
            others = tuple(group for group in trained if group not in DECODER_OF.values())
            return tuple(Phase(others + tuple(g for g in trained if g == DECODER_OF[mask]), mask) for mask in masks)
        if self.alternate == "none" or not has_hq_head:
            return (Phase(trained, "both" if len(masks) == 2 else masks[0]),)
        rest = tuple(group for group in trained if group != "hq_head")
        head = tuple(group for group in trained if group == "hq_head")
        return tuple(Phase(groups, "hq") for groups in (rest, head) if groups)

    def total_samples(self, frames: int) -> int:
        """Views of the whole run on `frames` frames: a multiple of the batch, at least one."""
        samples = self.samples or max(round(self.epochs * frames), 1)
        return -(-samples // self.batch) * self.batch

    def rate_factor(self, group: GroupName, progress: float) -> float:
        """Learning rate of `group` as a fraction of its peak, after the fraction `progress` of the run's samples."""
        rise = min(progress / self.warmup, 1.0) if self.warmup else 1.0
        match self.groups[group].schedule:
            case "step":
                return rise * self.step_factor ** int(progress / self.step_every + 1e-9)
            case "cosine":
                return rise * (1 + math.cos(math.pi * max(progress - self.warmup, 0) / (1 - self.warmup))) / 2
        return rise


class RunConfig(Config):
    """A fine-tuning run: the argument of `fit`, stored in the run's folder."""

    method: TrainedMethod = "ros-sam"
    """The HQ head and its mask need `hq-sam` or `ros-sam`; sam2 has no adapters."""
    backbone: str = "vit_t"
    """A key of `ARCHITECTURES`, or of `HIERAS` for sam2."""
    checkpoint: str | None = "default"
    """Weights to start from; see `build_model`."""
    recipe: Recipe = "paper"
    """Name of the recipe that `training` was made from: a label for reports, since every effect is in `training`."""
    architecture: dict[str, Any] = Field(default_factory=dict)
    """Constants of the backbone that are replaced, e.g. `{"depth": 2}` in tests; the checkpoint must fit them."""
    training: TrainingConfig = TrainingConfig()
    """Which groups train, on which samples, how long."""
    inference: InferenceConfig = InferenceConfig()
    """Windows to validate in, and of views with `scale_of` = `window`; mask source and precision are the run's own."""
    device: str = "auto"
    """`auto` (cuda, then mps, then cpu), or a torch device."""

    @model_validator(mode="after")
    def _method_has_the_groups(self) -> RunConfig:
        lacking = {"sam2": {"lora", "hq_head"}, "sam": {"hq_head"}}.get(self.method, set())
        absent = [group for group in self.training.trained_groups if group in lacking]
        if absent or not self.training.trained_groups:
            finding = f"name {', '.join(absent)}, which {self.method} does not have" if absent else "are empty"
            allowed = [group for group in get_args(GroupName) if group not in lacking]
            raise ValueError(f"training.trained_groups {finding}: choose among {', '.join(allowed)}")
        return self

    @property
    def phases(self) -> tuple[Phase, ...]:
        """See `TrainingConfig.phases`."""
        return self.training.phases(has_hq_head=self.method in HQ_METHODS)


def _rates(schedule: str = "constant", **rates: float) -> dict[str, dict[str, Any]]:
    return {group: {"learning_rate": rate, "schedule": schedule} for group, rate in rates.items()}


RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    "released": {
        "groups": _rates(lora=1e-4, last_block=1e-4, prompt_encoder=1e-4) | _rates("step", hq_head=1e-3),
        "trained_groups": ("lora", "last_block", "prompt_encoder", "hq_head"),
        "alternate": "groups",
        "hq_decoder": "copy",
        "epochs": 48,
        "batch": 1,
        "fresh_hq_head": True,
        "loss": {"foreground_weight": 10.0},
        "augment": {
            "scale_of": "input",
            "rotation": False,
            "diagonal_flip": 0.1,
            "photometric": True,
            "keep_object_in_view": False,
            "min_area": 1,
            "max_objects": None,
        },
    },
    "corrected": {
        "groups": _rates("cosine", lora=1e-3, last_block=4e-4, sam_decoder=4e-4, hq_head=1e-3, encoder=2e-4),
        "alternate": "none",
        "optimizer": "adamw",
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "warmup": 0.05,
        "loss": {"sampling": "dense"},
        "augment": {
            "scale": (0.5, 1.25),
            "scale_of": "window",
            "mirror": 0.5,
            "pad_value": (123.675, 116.28, 103.53),
            "box_jitter": 0.1,
        },
    },
}
"""What each recipe changes of `TrainingConfig`'s defaults."""


def recipe(name: Recipe, **overrides: Any) -> TrainingConfig:
    """The named recipe with overrides; mappings are merged key by key, everything else is replaced.

    >>> recipe("paper", batch=4, augment={"scale": (1, 1)}).augment.rotation
    True

    Raises:
        RossamError: unknown recipe, unknown keys or bad values, all at once.
    """
    if name not in RECIPES:
        raise RossamError(f"recipe {name}", "is not known", f"use one of {', '.join(RECIPES)}")
    values = merged(TrainingConfig().model_dump(), RECIPES[name])
    return parse_config(TrainingConfig, merged(values, overrides), where=f"recipe {name}")
