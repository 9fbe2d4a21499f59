"""The interface of everything that segments: images and boxes in, mask logits out.

`encode` runs the image encoder, `decode` the prompt encoder and mask decoder, so one encoding serves many prompts.
Which parameters train is declared by named groups (`GROUPS`); every parameter is in exactly one. SAM, HQ-SAM and
ROS-SAM stand in `rossam.py`, SAM2 in `sam2.py`.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from rossam_core.errors import RossamError
from rossam_core.model.hq_decoder import MaskLogits
from rossam_core.model.sam import PIXEL_MEAN, PIXEL_STD

BOX_ONLY = ("vit_t", "hiera_t")
"""Backbones whose shipped weights were trained with box prompts only; the official ones know points, too."""
Points = Sequence[tuple[Tensor, Tensor]]
"""For each image: coordinates N×P×2, float, xy in input pixels (pixel edges), and labels N×P, int: 1 positive,
0 negative, -1 padding. P points belong to each of the image's N boxes; P is the same for all images."""
GROUPS = ("lora", "last_block", "encoder", "prompt_encoder", "sam_decoder", "hq_head", "decoder_copy")


class ImageEmbeddings(NamedTuple):
    """What `decode` needs of B images; G = S/16."""

    final: Tensor
    """B×256×G×G, the encoder's output."""
    early: Tensor | None
    """B×G×G×C, channels last: output of the first global-attention block; None without an HQ head, or when prepared."""
    high_resolution: tuple[Tensor, ...] = ()
    """SAM2's features for its decoder, B×32×4G×4G and B×64×2G×2G; with an HQ head, once prepared, B×32×4G×4G."""

    def select(self, index: Tensor) -> ImageEmbeddings:
        """Gather or repeat images: `index` holds image numbers, int64."""
        early = None if self.early is None else self.early[index]
        return ImageEmbeddings(self.final[index], early, tuple(features[index] for features in self.high_resolution))


class PromptableSegmenter(nn.Module, abc.ABC):
    """An image encoder, a prompt encoder and a mask decoder.

    Attributes:
        method: `sam`, `hq-sam`, `ros-sam` or `sam2`.
        backbone: name of the image encoder's architecture, whose constants stand in `arch`.
        input_size: S, the side of the square input in pixels.
        mask_size: S/4, the side of the logits.
        pixel_mean: RGB 0-255, to pad images with.
        resize: how a frame that is not square becomes the input: its longer side is scaled to S and the rest padded
            (`longest_side`), or both sides are scaled to S (`square`).
        default_mask_source: which logits make the mask: `sam`, `hq`, or their `sum` (HQ-SAM's inference).
        has_hq_head: whether `decode` gives an HQ mask.
        supports_points: whether the weights were trained with point prompts; fine-tuning uses boxes only.
    """

    pixel_mean = PIXEL_MEAN
    resize: Literal["longest_side", "square"] = "longest_side"
    default_mask_source = "sam"
    has_hq_head = False

    def __init__(self, method: str, backbone: str, arch):
        super().__init__()
        self.method, self.backbone, self.arch = method, backbone, arch
        self.supports_points = backbone not in BOX_ONLY
        self.input_size, self.mask_size = arch.input_size, arch.input_size // 4
        self.register_buffer("_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    @abc.abstractmethod
    def encode(self, images: Tensor) -> ImageEmbeddings:
        """Encode images that are already S×S.

        Args:
            images: float B×3×S×S, RGB, 0-255, B ≥ 1; smaller images stand top left, padded with `pixel_mean`.

        Raises:
            RossamError: another shape or an integer type.
        """

    def prepare(self, embeddings: ImageEmbeddings) -> ImageEmbeddings:
        """The same with all that `decode` computes of the images alone: do it once where many decodings follow."""
        return embeddings

    @abc.abstractmethod
    def decode(self, embeddings: ImageEmbeddings, boxes: Sequence[Tensor], points: Points | None = None) -> MaskLogits:
        """Segment the object in each box, which points may refine.

        Args:
            boxes: for each of the B images a float tensor N_i×4, xyxy in input pixels (pixel edges); N_i may be 0.
                The networks themselves add half a pixel to every coordinate; `arch.box_offset` may undo it.

            points: for each of the B images; None: no points.

        Raises:
            RossamError: boxes for another number of images, another shape, or an integer type; points of another
                shape.
        """

    @abc.abstractmethod
    def group_of(self, name: str) -> str:
        """The group of a parameter or buffer of that name."""

    def forward(self, images: Tensor, boxes: Sequence[Tensor]) -> MaskLogits:
        """`decode(encode(images), boxes)`."""
        return self.decode(self.encode(images), boxes)

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Every parameter by name, in exactly one of `GROUPS`; a group the model lacks is an empty list."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {group: [] for group in GROUPS}
        for name, parameter in self.named_parameters():
            groups[self.group_of(name)].append((name, parameter))
        return groups

    def _normalised(self, images: Tensor) -> Tensor:
        """Checked images, standardised by channel (SAM and SAM2 share ImageNet's mean and deviation)."""
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
        return (images - self._mean) / self._std

    def _prompts(self, embeddings: ImageEmbeddings, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Checked boxes of all images, as the network takes them, float32 ΣN×4; the image each belongs to, int64 ΣN."""
        b, device = len(embeddings.final), embeddings.final.device
        if isinstance(boxes, Tensor) or len(boxes) != b:
            found = f"a tensor of shape {tuple(boxes.shape)}" if isinstance(boxes, Tensor) else f"{len(boxes)} tensors"
            raise RossamError("boxes", f"{found} for {b} images", "pass a list with one N×4 tensor an image")
        for number, each in enumerate(boxes):
            if each.ndim != 2 or each.shape[1] != 4 or not each.is_floating_point():
                raise RossamError(
                    f"boxes[{number}]",
                    f"shape {tuple(each.shape)} of {each.dtype}, expected (N, 4) of float, x1 y1 x2 y2",
                    "an image without boxes takes torch.zeros(0, 4)",
                )
        counts = torch.tensor([len(each) for each in boxes])
        index = torch.repeat_interleave(torch.arange(b), counts).to(device)
        return torch.cat(list(boxes)).to(device, torch.float32) + self.arch.box_offset, index

    def _points(self, points: Points | None, boxes: Tensor) -> tuple[Tensor, Tensor] | None:
        """Checked points of all boxes (ΣN×4), as the network takes them: float32 ΣN×P×2 and int64 ΣN×P."""
        if points is None:
            return None
        coords, labels = (torch.cat(list(parts)).to(boxes.device) for parts in zip(*points, strict=True))
        if labels.ndim != 2 or coords.shape != (*labels.shape, 2) or len(labels) != len(boxes):
            found = f"coordinates {tuple(coords.shape)}, labels {tuple(labels.shape)} for {len(boxes)} boxes"
            raise RossamError("points", found, "pass (N×P×2, N×P) per image, padded to one P with label -1")
        return coords.float() + self.arch.box_offset, labels.long()
