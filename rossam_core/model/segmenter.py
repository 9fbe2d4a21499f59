"""Promptable segmenters: images and boxes in, mask logits out.

`encode` runs the image encoder, `decode` the prompt encoder and mask decoder, so that one encoding serves many prompts.
Every parameter belongs to exactly one named group (`GROUPS`), by which training freezes, updates and saves.
SAM, HQ-SAM and ROS-SAM are `SamSegmenter`s; SAM2 is in `sam2.py`, SAM 3 in `sam3.py`. `build.py` builds them by name.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rossam_core.errors import RossamError
from rossam_core.model import sam
from rossam_core.model.hq_decoder import BoxMaskDecoder, HQMaskDecoder, MaskLogits
from rossam_core.model.lora import is_adapter

GROUPS = ("lora", "last_block", "encoder", "prompt_encoder", "sam_decoder", "hq_head", "decoder_copy")
BOX_ONLY = ("vit_t", "hiera_t")
"""Backbones whose shipped weights were trained with box prompts only; the official ones accept points, too."""
Points = Sequence[tuple[Tensor, Tensor]]
"""For each image: coordinates N×P×2, float, xy in input pixels (pixel edges), and labels N×P, int: 1 positive,
0 negative, -1 padding. P points belong to each of the image's N boxes; P is the same for all images."""
_HQ_HEAD = re.compile(r"mask_decoder\.(hf_token|hf_mlp|compress_vit_feat|embedding_encoder|embedding_maskfeature)\.")


class ImageEmbeddings(NamedTuple):
    """What `decode` needs of B images; G = S/16, of SAM 3 S/14."""

    final: Tensor
    """B×256×G×G, the encoder's output."""
    early: Tensor | None = None
    """B×G×G×C, channels last: output of the first global-attention block. None without an HQ head, or when prepared."""
    hq_features: Tensor | None = None
    """B×32×4G×4G: the HQ head's features of the image, once `prepare` has computed them."""
    high_resolution: tuple[Tensor, ...] = ()
    """SAM2's and SAM 3's features for their decoder, B×32×4G×4G and B×64×2G×2G."""

    def select(self, index: Tensor) -> ImageEmbeddings:
        """Gather or repeat images: `index` holds image numbers, int64."""
        early, hq_features = (None if x is None else x[index] for x in (self.early, self.hq_features))
        return ImageEmbeddings(self.final[index], early, hq_features, tuple(x[index] for x in self.high_resolution))


class PromptableSegmenter(nn.Module, abc.ABC):
    """An image encoder, a prompt encoder and a mask decoder. S is `input_size`, the side of the input in pixels;
    `mask_size` = S/4 (of SAM 3 S/3.5) that of the logits; `arch` holds the constants of the backbone."""

    pixel_mean = sam.PIXEL_MEAN
    """RGB 0-255, to normalise and pad images with."""
    pixel_std = sam.PIXEL_STD
    resize: Literal["longest_side", "square"] = "longest_side"
    """How a frame becomes the square input. `longest_side`: the longer side is scaled to S, the rest padded; `square`:
    both sides are scaled to S."""
    default_mask_source = "sam"
    """Which logits make the mask: `sam`, `hq`, or their `sum` (HQ-SAM's inference)."""
    has_hq_head = False
    """Whether `decode` returns an HQ mask."""
    _mean: Tensor
    _std: Tensor

    def __init__(self, method: str, backbone: str, arch: Any):
        super().__init__()
        self.method, self.backbone, self.arch = method, backbone, arch
        self.supports_points = backbone not in BOX_ONLY  # fine-tuning uses boxes only
        self.input_size, self.mask_size = arch.input_size, arch.input_size // 4
        self.register_buffer("_mean", torch.tensor(self.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(self.pixel_std).view(3, 1, 1), persistent=False)

    @abc.abstractmethod
    def encode(self, images: Tensor) -> ImageEmbeddings:
        """Encode images, float B×3×S×S, RGB, 0-255, B ≥ 1; `RossamError` for another shape or an integer type."""

    def prepare(self, embeddings: ImageEmbeddings) -> ImageEmbeddings:
        """Compute once what `decode` derives from the images alone, so that repeated decoding does not repeat it."""
        return embeddings

    @abc.abstractmethod
    def decode(self, embeddings: ImageEmbeddings, boxes: Sequence[Tensor], points: Points | None = None) -> MaskLogits:
        """Segment the object in each box, which points may refine.

        Args:
            boxes: for each of the B images a float tensor N_i×4, xyxy in input pixels (pixel edges); N_i may be 0.
                The networks themselves add half a pixel to every coordinate; `arch.box_offset` may undo it.

        Raises:
            RossamError: boxes or points of another number, shape or type.
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
        """Checked images, standardised by channel (SAM and SAM2 by ImageNet's mean and deviation)."""
        s = self.input_size
        if images.shape[1:] != (3, s, s) or len(images) == 0 or not images.is_floating_point():
            finding = f"{images.dtype} of shape {tuple(images.shape)}, expected (B, 3, {s}, {s}) of float, B at least 1"
            raise RossamError("images", finding, f"resize and pad to {s}×{s}; this model is a {self.backbone}")
        return (images - self._mean) / self._std

    def _prompts(self, embeddings: ImageEmbeddings, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Checked boxes of all images as the network takes them, float32 ΣN×4, and each box's image, int64 ΣN."""
        b, device = len(embeddings.final), embeddings.final.device
        remedy = "pass a list with one N×4 float tensor per image; torch.zeros(0, 4) for one without boxes"
        if isinstance(boxes, Tensor) or len(boxes) != b:
            finding = f"shape {tuple(boxes.shape)}" if isinstance(boxes, Tensor) else f"{len(boxes)} tensors"
            raise RossamError("boxes", f"{finding} for {b} images", remedy)
        for i, of_image in enumerate(boxes):
            if of_image.ndim != 2 or of_image.shape[1] != 4 or not of_image.is_floating_point():
                raise RossamError(f"boxes[{i}]", f"shape {tuple(of_image.shape)} of {of_image.dtype}", remedy)
        counts = torch.tensor([len(of_image) for of_image in boxes])
        index = torch.repeat_interleave(torch.arange(b), counts).to(device)
        return torch.cat(list(boxes)).to(device, torch.float32) + self.arch.box_offset, index

    def _points(self, points: Points | None, boxes: Tensor) -> tuple[Tensor, Tensor] | None:
        """Checked points of all boxes (ΣN×4) as the network takes them: float32 ΣN×P×2 and int64 ΣN×P."""
        if points is None:
            return None
        coords, labels = (torch.cat(list(parts)).to(boxes.device) for parts in zip(*points, strict=True))
        if labels.ndim != 2 or coords.shape != (*labels.shape, 2) or len(labels) != len(boxes):
            finding = f"coordinates {tuple(coords.shape)}, labels {tuple(labels.shape)} for {len(boxes)} boxes"
            raise RossamError("points", finding, "pass (N×P×2, N×P) per image, padded to one P with label -1")
        return coords.float() + self.arch.box_offset, labels.long()


class SamSegmenter(PromptableSegmenter):
    """`sam`, `hq-sam` (SAM with the HQ head) or `ros-sam` (the same, but the HQ mask alone is the answer).

    Parameters are named as in SAM's and HQ-SAM's checkpoints. Adapters are an option of each (`build_model`).
    """

    def __init__(self, method: str, backbone: str, arch: sam.Architecture):
        super().__init__(method, backbone, arch)
        self.default_mask_source = {"sam": "sam", "hq-sam": "sum", "ros-sam": "hq"}[method]
        self.has_hq_head = method != "sam"
        self.image_encoder = sam.ImageEncoder(arch)
        self.prompt_encoder = sam.build_prompt_encoder(arch)
        self.mask_decoder = HQMaskDecoder(arch) if self.has_hq_head else BoxMaskDecoder(arch)
        sam.fuse_channel_norms(self)

    def encode(self, images: Tensor) -> ImageEmbeddings:
        final, early = self.image_encoder(self._normalised(images))
        return ImageEmbeddings(final, early if self.has_hq_head else None)

    def prepare(self, embeddings: ImageEmbeddings) -> ImageEmbeddings:
        if embeddings.early is None or not isinstance(self.mask_decoder, HQMaskDecoder):
            return embeddings
        hq_features = self.mask_decoder.hq_features(embeddings.final, embeddings.early)
        return embeddings._replace(early=None, hq_features=hq_features)

    def decode(self, embeddings: ImageEmbeddings, boxes: Sequence[Tensor], points: Points | None = None) -> MaskLogits:
        prompts, index = self._prompts(embeddings, boxes)
        prepared = self.prepare(embeddings)
        with torch.autocast(prompts.device.type, enabled=False):  # coordinates times 2π need all digits of float32
            sparse, _ = self.prompt_encoder(self._points(points, prompts), prompts, None)
            image_pe = self.prompt_encoder.get_dense_pe()
        no_mask = self.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        hq_features = None if prepared.hq_features is None else prepared.hq_features[index]
        return self.mask_decoder((prepared.final + no_mask)[index], hq_features, image_pe, sparse)

    def group_of(self, name: str) -> str:
        """As `PromptableSegmenter.group_of`.

        `lora`: adapters; `last_block`: the rest of the encoder's last block; `encoder`: the rest of the encoder, its
        neck included; `hq_head`: what HQ-SAM adds to the decoder; `decoder_copy`: the copy of SAM's decoder that the HQ
        head reads with `hq_decoder` = `copy`; `sam_decoder`: the rest of the decoder.
        """
        if is_adapter(name):
            return "lora"
        if name.startswith(f"image_encoder.blocks.{self.arch.depth - 1}."):
            return "last_block"
        if name.startswith("image_encoder."):
            return "encoder"
        if name.startswith("prompt_encoder."):
            return "prompt_encoder"
        if name.startswith("mask_decoder.hq_base."):
            return "decoder_copy"
        return "hq_head" if _HQ_HEAD.match(name) else "sam_decoder"


def set_trainable(model: PromptableSegmenter, groups: Iterable[str]) -> list[nn.Parameter]:
    """Make exactly the named groups trainable, freeze the rest, and return the trainable parameters; `RossamError` for
    a group with no parameters in this model."""
    requested, members = set(groups), model.parameter_groups()
    empty = sorted(group for group in requested if not members.get(group))
    if empty:
        available = ", ".join(group for group, parameters in members.items() if parameters)
        finding = f"match no parameter of this {model.method} {model.backbone}"
        raise RossamError(f"trainable groups {', '.join(empty)}", finding, f"choose among {available}")
    for group, parameters in members.items():
        for _, parameter in parameters:
            parameter.requires_grad_(group in requested)
    return [parameter for group in GROUPS if group in requested for _, parameter in members[group]]
