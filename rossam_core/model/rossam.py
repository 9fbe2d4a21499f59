"""The promptable segmenter: images and boxes in, mask logits out; SAM, HQ-SAM and ROS-SAM are one class.

`encode` runs the image encoder, `decode` the prompt encoder and mask decoder, so one encoding serves many prompts.
Which parameters train is declared by named groups (`GROUPS`); every parameter is in exactly one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn

from ..config import Recipe
from ..errors import RossamError
from ..files import read_json
from .checkpoints import default_checkpoint, load_checkpoint
from .hq_decoder import BoxMaskDecoder, HQMaskDecoder, MaskLogits
from .lora import add_lora, default_rank
from .sam import (
    PIXEL_MEAN,
    PIXEL_STD,
    Architecture,
    ImageEncoder,
    architecture,
    build_prompt_encoder,
    fuse_channel_norms,
)

METHODS = ("sam", "hq-sam", "ros-sam")
GROUPS = ("lora", "last_block", "encoder", "prompt_encoder", "sam_decoder", "hq_head")
_HQ_HEAD = re.compile(r"mask_decoder\.(hf_token|hf_mlp|compress_vit_feat|embedding_encoder|embedding_maskfeature)\.")


class ImageEmbeddings(NamedTuple):
    """What `decode` needs of B images; G = S/16."""

    final: Tensor
    """B×256×G×G, the encoder's output."""
    early: Tensor | None
    """B×G×G×C, channels last: output of the first global-attention block; None without an HQ head."""

    def select(self, index: Tensor) -> ImageEmbeddings:
        """Gather or repeat images: `index` holds image numbers, int64."""
        return ImageEmbeddings(self.final[index], None if self.early is None else self.early[index])


class PromptableSegmenter(nn.Module):
    """An image encoder, a prompt encoder and a mask decoder with the parameter names of SAM's checkpoints.

    Attributes:
        method: `sam`, `hq-sam` (with the HQ head) or `ros-sam` (HQ head and LoRA).
        input_size: S, the side of the square input in pixels.
        mask_size: S/4, the side of the logits.
        pixel_mean: RGB 0-255, to pad images with.
        default_mask_source: which logits make the mask: `sam`, `hq`, or their `sum` (HQ-SAM's inference).
    """

    pixel_mean = PIXEL_MEAN

    def __init__(self, method: str, backbone: str, arch: Architecture):
        super().__init__()
        self.method, self.backbone, self.arch = method, backbone, arch
        self.input_size, self.mask_size = arch.input_size, arch.input_size // 4
        self.default_mask_source = {"sam": "sam", "hq-sam": "sum", "ros-sam": "hq"}[method]
        self.image_encoder = ImageEncoder(arch)
        self.prompt_encoder = build_prompt_encoder(arch)
        self.mask_decoder = BoxMaskDecoder(arch) if method == "sam" else HQMaskDecoder(arch)
        fuse_channel_norms(self)
        self.register_buffer("_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    @property
    def has_hq_head(self) -> bool:
        return isinstance(self.mask_decoder, HQMaskDecoder)

    def encode(self, images: Tensor) -> ImageEmbeddings:
        """Encode images that are already S×S.

        Args:
            images: float B×3×S×S, RGB, 0-255, B ≥ 1; smaller images stand top left, padded with `pixel_mean`.

        Raises:
            RossamError: another shape or an integer type.
        """
        s = self.input_size
        if images.ndim != 4 or len(images) == 0 or tuple(images.shape[1:]) != (3, s, s):
            raise RossamError(
                "images",
                f"shape {tuple(images.shape)}, expected (B, 3, {s}, {s}) with B of at least 1",
                f"resize and pad to {s}×{s}; this model is a {self.backbone}",
            )
        if not images.is_floating_point():
            raise RossamError(
                "images", f"dtype {images.dtype}, expected float with values 0-255", "call .float() first"
            )
        final, early = self.image_encoder((images - self._mean) / self._std)
        return ImageEmbeddings(final, early if self.has_hq_head else None)

    def decode(self, embeddings: ImageEmbeddings, boxes: Sequence[Tensor]) -> MaskLogits:
        """Segment the object in each box.

        Args:
            boxes: for each of the B images a float tensor N_i×4, xyxy in input pixels (pixel edges); N_i may be 0.
                SAM itself adds half a pixel to every coordinate.

        Raises:
            RossamError: boxes for another number of images, another shape, or an integer type.
        """
        b = len(embeddings.final)
        self._check_boxes(boxes, b)
        device = embeddings.final.device
        counts = torch.tensor([len(each) for each in boxes])
        index = torch.repeat_interleave(torch.arange(b), counts).to(device)
        with torch.autocast(device.type, enabled=False):  # coordinates times 2π need all the digits of float32
            sparse, _ = self.prompt_encoder(None, torch.cat(list(boxes)).to(device, torch.float32), None)
            image_pe = self.prompt_encoder.get_dense_pe()
        no_mask = self.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        return self.mask_decoder(embeddings.final, embeddings.early, image_pe, sparse, no_mask, index)

    def forward(self, images: Tensor, boxes: Sequence[Tensor]) -> MaskLogits:
        """`decode(encode(images), boxes)`."""
        return self.decode(self.encode(images), boxes)

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Every parameter by name, in exactly one of `GROUPS`; a group the model lacks is an empty list."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {group: [] for group in GROUPS}
        for name, parameter in self.named_parameters():
            groups[self.group_of(name)].append((name, parameter))
        return groups

    def group_of(self, name: str) -> str:
        """The group of a parameter or buffer of that name.

        `lora`: adapters; `last_block`: the rest of the encoder's last block; `encoder`: the rest of the encoder;
        `prompt_encoder`; `hq_head`: what HQ-SAM adds to the decoder; `sam_decoder`: the rest of the decoder.
        """
        if ".lora_" in name:
            return "lora"
        if name.startswith(f"image_encoder.blocks.{self.arch.depth - 1}."):
            return "last_block"
        if name.startswith("image_encoder."):
            return "encoder"
        if name.startswith("prompt_encoder."):
            return "prompt_encoder"
        return "hq_head" if _HQ_HEAD.match(name) else "sam_decoder"

    def _check_boxes(self, boxes: Sequence[Tensor], images: int) -> None:
        if isinstance(boxes, Tensor) or len(boxes) != images:
            found = f"a tensor of shape {tuple(boxes.shape)}" if isinstance(boxes, Tensor) else f"{len(boxes)} tensors"
            raise RossamError("boxes", f"{found} for {images} images", "pass a list with one N×4 tensor an image")
        for number, each in enumerate(boxes):
            if each.ndim != 2 or each.shape[1] != 4 or not each.is_floating_point():
                raise RossamError(
                    f"boxes[{number}]",
                    f"shape {tuple(each.shape)} of {each.dtype}, expected (N, 4) of float, x1 y1 x2 y2",
                    "an image without boxes takes torch.zeros(0, 4)",
                )


def set_trainable(model: PromptableSegmenter, groups: Iterable[str]) -> list[nn.Parameter]:
    """Let exactly the named groups train, freeze the rest, and return the parameters that train.

    Raises:
        RossamError: a name that is no group, or a group with no parameters in this model.
    """
    wanted, found = set(groups), model.parameter_groups()
    empty = sorted(group for group in wanted if not found.get(group))
    if empty:
        there = ", ".join(group for group, members in found.items() if members)
        raise RossamError(
            f"trainable groups {', '.join(empty)}",
            f"match no parameter of this {model.method} {model.backbone}",
            f"choose among {there}",
        )
    for group, members in found.items():
        for _, parameter in members:
            parameter.requires_grad_(group in wanted)
    return [parameter for group in GROUPS if group in wanted for _, parameter in found[group]]


def build_model(
    method: str,
    backbone: str,
    checkpoint: str | os.PathLike | None = "default",
    recipe: str = "paper",
    *,
    lora_rank: int | None = None,
    seed: int = 0,
    **overrides,
) -> PromptableSegmenter:
    """Build a segmenter, in `eval` mode, every parameter trainable.

    Args:
        method: `sam`, `hq-sam` or `ros-sam`.
        backbone: `vit_t`, `vit_b`, `vit_l` or `vit_h`.
        checkpoint: `default` (see `default_checkpoint`), a weights file of ours or an official `.pth`, the folder of
            a fine-tuning run (its best weights, see `build_from_run`), or None for fresh weights.
        recipe: `paper` and `corrected` start the HQ head from its prior. `released` starts ros-sam's HQ head fresh,
            as the released code does; a file named by path may then hold an HQ head, which is loaded, or none.
        lora_rank: of ros-sam's adapters; None: half the encoder's width. Fresh adapters change no output.
        seed: of fresh weights; torch's global generator is left as it was.
        overrides: constants of `Architecture` to replace. With another `input_size`, the checkpoint's position
            embeddings are interpolated to it.

    Raises:
        RossamError: unknown names, a checkpoint that is missing, broken, or of another model.
    """
    if method not in METHODS:
        raise RossamError(f"method {method}", "is not in this build", f"use one of {', '.join(METHODS)}")
    if recipe not in get_args(Recipe):
        raise RossamError(f"recipe {recipe}", "is not known", f"use one of {', '.join(get_args(Recipe))}")
    if checkpoint is not None and os.path.isdir(checkpoint):
        return _expect(build_from_run(checkpoint), method, backbone, checkpoint)
    arch = architecture(backbone, **overrides)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the processor's; a GPU's generator stays as it is
        model = PromptableSegmenter(method, backbone, arch)
        if method == "ros-sam":
            add_lora(model, default_rank(arch.dim) if lora_rank is None else lora_rank)
    if checkpoint is not None:
        fresh_head = method == "ros-sam" and recipe == "released"
        default = checkpoint == "default"
        load_checkpoint(
            model,
            default_checkpoint(backbone, hq=method != "sam" and not fresh_head) if default else checkpoint,
            allow_missing=("lora", "hq_head") if fresh_head else ("lora",),
            ignore=("hq_head",) if default and (method == "sam" or fresh_head) else (),
            resize_positions="input_size" in overrides,
        )
    return model.eval()


def build_from_run(run_dir: str | os.PathLike, which: str = "best") -> PromptableSegmenter:
    """The network a fine-tuning run has trained: its base with the trained groups on top, in `eval` mode.

    Args:
        run_dir: holds `run.json` and `weights_best.safetensors`, `weights_last.safetensors`.
        which: `best` (validation IoU) or `last`.

    Raises:
        RossamError: no run there, or a base that is not the one the groups were trained on.
    """
    path = Path(run_dir) / "run.json"
    run = read_json(path).get("run", {})
    try:
        training = run["training"]
        recipe = "released" if training["fresh_hq_head"] else "paper"
        chosen = {"lora_rank": training["lora_rank"], "seed": training["seed"], **run["architecture"]}
        base = (run["method"], run["backbone"], run["checkpoint"])
    except KeyError as error:
        raise RossamError(path, f"lacks {error}", "name the folder of a run that `fit` made") from error
    model = build_model(*base, recipe, **chosen)
    load_checkpoint(model, path.with_name(f"weights_{which}.safetensors"))
    return model


def _expect(model: PromptableSegmenter, method: str, backbone: str, where: str | os.PathLike) -> PromptableSegmenter:
    if (model.method, model.backbone) != (method, backbone):
        found = f"holds a run of {model.method} {model.backbone}, expected {method} {backbone}"
        raise RossamError(where, found, "ask for the method and backbone of the run, or name another folder")
    return model
