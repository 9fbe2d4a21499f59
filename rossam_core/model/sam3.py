"""SAM 3 on single images: transformers' `Sam3TrackerModel`, in which a box is the prompt for the one object in it.

Not its detector, which finds everything that a phrase or an example names. Beyond the paper. Parameters have
transformers' names; the constants in `SAM3S` are the defaults of its `Sam3ViTConfig`, `Sam3VisionConfig` and
`Sam3TrackerConfig` (Carion et al., SAM 3: Segment Anything with Concepts, 2025).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from rossam_core.model.sam import constants_of
from rossam_core.model.sam2 import Sam2Segmenter
from rossam_core.model.segmenter import ImageEmbeddings

PATCH = 14
"""Side of a token in input pixels: inputs are a multiple of it."""


@dataclass(frozen=True)
class Sam3:
    """The constants of one SAM 3; the defaults are the official one's."""

    dim: int = 1024  # width of the image encoder
    depth: int = 32  # blocks
    heads: int = 16
    mlp_dim: int = 4736
    global_attention: tuple[int, ...] = (7, 15, 23, 31)  # blocks that attend over the whole image
    window: int = 24  # side of the other blocks' attention windows in tokens
    position_size: int = 336  # side in pixels of the position embeddings, which are tiled over the input
    input_size: int = 1008  # side of the square input in pixels
    prompt_dim: int = 256  # width of image embedding, prompts and mask decoder
    decoder_mlp_dim: int = 2048
    box_offset: float = 0.0  # added to boxes (pixel edges), in pixels, before SAM 3 adds its half


SAM3S = {"sam3": Sam3()}


def constants(backbone: str, **overrides) -> Sam3:
    """Constants of `backbone`, some of them replaced; `RossamError` as in `constants_of`."""
    return constants_of(SAM3S, backbone, PATCH, overrides)


class Sam3Segmenter(Sam2Segmenter):
    """SAM 3's image encoder with the tracker's neck, prompt encoder and mask decoder, which has SAM2's structure.

    Input pixels are scaled to -1..1. The embedding of "no memory" is added to the coarsest features, as its authors do.
    """

    pixel_mean = pixel_std = (127.5, 127.5, 127.5)
    blocks = "vision_encoder.backbone.layers."

    def __init__(self, backbone: str, arch: Sam3):
        super().__init__(backbone, arch, "sam3")
        self.mask_size = 4 * arch.input_size // PATCH

    def _whole(self, arch: Sam3) -> nn.Module:
        from transformers import Sam3TrackerConfig, Sam3TrackerModel  # takes seconds

        return Sam3TrackerModel(Sam3TrackerConfig(**transformers_settings(arch)))

    def encode(self, images: Tensor) -> ImageEmbeddings:
        tokens = self.vision_encoder.backbone(self._normalised(images)).last_hidden_state  # B×G²×C
        grid = tokens.transpose(1, 2).unflatten(2, self.prompt_encoder.image_embedding_size)
        quarter, eighth, final = (layer(grid) for layer in self.vision_encoder.neck.fpn_layers)
        fine = (self.mask_decoder.conv_s0(quarter), self.mask_decoder.conv_s1(eighth))
        return ImageEmbeddings(final + self.no_memory_embedding.view(1, -1, 1, 1), high_resolution=fine)


def transformers_settings(arch: Sam3) -> dict:
    """The same constants as transformers' `Sam3TrackerConfig` takes them, without the neck's level of 2×2 tokens, which
    the decoder does not use."""
    size, side = arch.input_size, arch.input_size // PATCH
    backbone = {"model_type": "sam3_vit_model", "image_size": size, "patch_size": PATCH, "window_size": arch.window}
    backbone |= {"hidden_size": arch.dim, "intermediate_size": arch.mlp_dim, "num_hidden_layers": arch.depth}
    backbone |= {"num_attention_heads": arch.heads, "global_attn_indexes": list(arch.global_attention)}
    backbone |= {"pretrain_image_size": arch.position_size}
    vision = {"model_type": "sam3_vision_model", "backbone_config": backbone, "fpn_hidden_size": arch.prompt_dim}
    vision |= {"scale_factors": [4.0, 2.0, 1.0], "backbone_feature_sizes": [[n * side] * 2 for n in (4, 2, 1)]}
    prompts = {"hidden_size": arch.prompt_dim, "image_size": size, "patch_size": PATCH}
    decoder = {"hidden_size": arch.prompt_dim, "mlp_dim": arch.decoder_mlp_dim}
    return {"vision_config": vision, "prompt_encoder_config": prompts, "mask_decoder_config": decoder}
