"""SAM2 on single images: transformers' `Sam2Model` without its video memory, as a `PromptableSegmenter`.

Parameters have transformers' names. Every architectural constant is in `HIERAS` (Ravi et al., SAM 2: Segment Anything
in Images and Videos, 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Sam2Config, Sam2Model

from rossam_core.model.hq_decoder import MaskLogits
from rossam_core.model.sam import constants_of
from rossam_core.model.segmenter import ImageEmbeddings, Points, PromptableSegmenter

STRIDE = 32
"""Width in input pixels of a last-stage token and of a first-stage window: inputs are a multiple of it."""
DECODED_PIXELS = 2**24
"""Prompts decoded at once times S²: each has a copy of its image's features, 17 MB of them at S = 1024."""


@dataclass(frozen=True)
class Hiera:
    """The constants of one SAM2; the defaults are those all official ones share."""

    dims: tuple[int, int, int, int]  # width of each stage; the stages' tokens are 4, 8, 16 and 32 pixels wide
    blocks: tuple[int, int, int, int]  # of each stage; a stage's first block (but the first stage's) pools tokens
    heads: tuple[int, int, int, int]
    global_attention: tuple[int, ...]  # blocks that attend over the whole image; not the first of a stage
    windows: tuple[int, int, int, int] = (8, 4, 14, 7)  # side of each stage's attention windows in tokens
    background: int = 7  # side of the grid of position embeddings that is stretched over the image
    input_size: int = 1024  # side of the square input in pixels
    prompt_dim: int = 256  # width of image embedding, prompts and mask decoder
    decoder_mlp_dim: int = 2048
    box_offset: float = 0.0  # added to boxes (pixel edges), in pixels, before SAM2 adds its half
    alternatives: int = 3
    """Masks the decoder has besides the single one. If there are any, it returns the best of them when the single
    mask is unstable (`dynamic_multimask_via_stability`, on in all official models)."""
    attention: Literal["sdpa", "eager"] = "sdpa"
    """`eager` trains faster on a processor where windows and image are small; its memory is quadratic in tokens."""

    @property
    def dim(self) -> int:
        return self.dims[0]

    @property
    def depth(self) -> int:
        return sum(self.blocks)


HIERAS = {
    "hiera_t": Hiera(  # ours: about the cost of ViT-T at the same input
        (48, 96, 192, 256),
        (1, 2, 7, 1),
        (1, 2, 4, 4),
        (5, 7, 9),
        windows=(8, 8, 8, 8),
        input_size=256,
        decoder_mlp_dim=768,
        alternatives=0,
        box_offset=-0.5,
        attention="eager",
    ),
    "hiera_tiny": Hiera((96, 192, 384, 768), (1, 2, 7, 2), (1, 2, 4, 8), (5, 7, 9)),
    "hiera_small": Hiera((96, 192, 384, 768), (1, 2, 11, 2), (1, 2, 4, 8), (7, 10, 13)),
    "hiera_base_plus": Hiera((112, 224, 448, 896), (2, 3, 16, 3), (2, 4, 8, 16), (12, 16, 20), background=14),
    "hiera_large": Hiera((144, 288, 576, 1152), (2, 6, 36, 4), (2, 4, 8, 16), (23, 33, 43), windows=(8, 4, 16, 8)),
}


def hiera(backbone: str, **overrides) -> Hiera:
    """Constants of `backbone`, some of them replaced; `RossamError` as in `constants_of`."""
    return constants_of(HIERAS, backbone, STRIDE, overrides)


def transformers_config(arch: Hiera) -> Sam2Config:
    """The same constants as transformers takes them."""
    s = arch.input_size
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": arch.dim,
        "num_attention_heads": arch.heads[0],
        "image_size": [s, s],
        "window_positional_embedding_background_size": [arch.background] * 2,
        "blocks_per_stage": list(arch.blocks),
        "embed_dim_per_stage": list(arch.dims),
        "num_attention_heads_per_stage": list(arch.heads),
        "window_size_per_stage": list(arch.windows),
        "global_attention_blocks": list(arch.global_attention),
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": list(reversed(arch.dims)),
        "backbone_feature_sizes": [[s // stride] * 2 for stride in (4, 8, 16)],
        "fpn_hidden_size": arch.prompt_dim,
    }
    decoder = {
        "hidden_size": arch.prompt_dim,
        "mlp_dim": arch.decoder_mlp_dim,
        "num_multimask_outputs": arch.alternatives,
        "dynamic_multimask_via_stability": arch.alternatives > 0,
    }
    prompts = {"hidden_size": arch.prompt_dim, "image_size": s}
    configs = {"vision_config": vision, "prompt_encoder_config": prompts, "mask_decoder_config": decoder}
    return Sam2Config(**configs, attn_implementation=arch.attention)


class Sam2Segmenter(PromptableSegmenter):
    """SAM2's image encoder, prompt encoder and mask decoder, as `Sam2Model` builds them and under its names.

    A box is two points, labelled 2 and 3; the decoder gives one mask (`multimask_output=False`) and uses the
    encoder's features at strides 4 and 8. Frames are scaled to a square, not padded, as SAM2 does it.
    """

    resize = "square"
    blocks = "vision_encoder.backbone.blocks."
    """Prefix of the names of the encoder's blocks."""

    def __init__(self, backbone: str, arch: Any, method: str = "sam2"):
        super().__init__(method, backbone, arch)
        whole = self._whole(arch)
        for part in ("vision_encoder", "prompt_encoder", "mask_decoder", "no_memory_embedding"):
            setattr(self, part, getattr(whole, part))

    def _whole(self, arch: Any) -> nn.Module:
        """Transformers' network, whose parts are taken."""
        return Sam2Model(transformers_config(arch))

    def encode(self, images: Tensor) -> ImageEmbeddings:
        stages = self.vision_encoder.backbone(self._normalised(images)).intermediate_hidden_states  # B×H×W×C each
        at_32, at_16, at_8, at_4 = self.vision_encoder.neck.convs
        coarse = F.interpolate(at_32(_channels_first(stages[3])), scale_factor=2, mode="nearest")
        final = at_16(_channels_first(stages[2])) + coarse + self.no_memory_embedding.view(1, -1, 1, 1)
        quarter = _channels_first(_as_one(stages[0], at_4, self.mask_decoder.conv_s0))
        eighth = _channels_first(_as_one(stages[1], at_8, self.mask_decoder.conv_s1))
        return ImageEmbeddings(final, high_resolution=(quarter, eighth))

    def decode(self, embeddings: ImageEmbeddings, boxes: Sequence[Tensor], points: Points | None = None) -> MaskLogits:
        prompts, index = self._prompts(embeddings, boxes)
        if not len(prompts):
            empty = embeddings.final.new_zeros(0, self.mask_size, self.mask_size, dtype=torch.float32)
            return MaskLogits(empty, None, empty[:, 0, 0])
        checked = self._points(points, prompts)
        coords, labels = (None, None) if checked is None else (part[:, None] for part in checked)
        with torch.autocast(prompts.device.type, enabled=False):  # coordinates times 2π need all digits of float32
            sparse, dense = self.prompt_encoder(coords, labels, prompts[:, None], None)  # each box as its own "image"
            image_pe = self._image_pe()
        masks, ious = [], []
        for part in torch.arange(len(prompts)).split(max(1, DECODED_PIXELS // self.input_size**2)):
            of_prompts = embeddings.select(index[part.to(index.device)])
            alternatives, iou, _, _ = self.mask_decoder(
                image_embeddings=of_prompts.final,
                image_positional_embeddings=image_pe.expand(len(part), -1, -1, -1),
                sparse_prompt_embeddings=sparse[part],
                dense_prompt_embeddings=dense[part],
                multimask_output=False,
                high_resolution_features=list(of_prompts.high_resolution),
            )
            masks.append(alternatives[:, 0, 0].float())
            ious.append(iou[:, 0, 0].float())
        return MaskLogits(torch.cat(masks), None, torch.cat(ious))

    def group_of(self, name: str) -> str:
        """As `PromptableSegmenter.group_of`.

        `last_block`: the last block of the last stage; `encoder`: the rest of the encoder, its neck and the embedding
        of "no memory"; `sam_decoder`: the mask decoder. There are no adapters.
        """
        if name.startswith(f"{self.blocks}{self.arch.depth - 1}."):
            return "last_block"
        if name.startswith("vision_encoder.") or name == "no_memory_embedding":
            return "encoder"
        return "prompt_encoder" if name.startswith("prompt_encoder.") else "sam_decoder"

    def _image_pe(self) -> Tensor:
        """Positional encoding of the embedding grid, 1×C×G×G: the same as the boxes' corners have."""
        side = self.prompt_encoder.image_embedding_size[0]
        centres = (torch.arange(side, device=self.no_memory_embedding.device) + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self.prompt_encoder.shared_embedding(torch.stack([x, y], dim=-1)).permute(2, 0, 1)[None]


def _channels_first(x: Tensor) -> Tensor:
    """B×H×W×C -> B×C×H×W."""
    return x.permute(0, 3, 1, 2)


def _as_one(x: Tensor, first: nn.Conv2d, second: nn.Conv2d) -> Tensor:
    """`second(first(x))` of two 1×1 convolutions as one linear map, B×H×W×C to B×H×W×C'.

    Between stage and decoder SAM2 widens the largest feature maps to 256 channels and narrows them at once to 32 or
    64; multiplied out, the wide maps are never made.
    """
    narrow = second.weight.flatten(1)
    return F.linear(x, narrow @ first.weight.flatten(1), narrow @ first.bias + second.bias)
