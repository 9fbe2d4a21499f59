"""Names of SAM2's and SAM 3's weights: ours, which are transformers', and those of published checkpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

VIDEO_MEMORY = (
    *("memory_attention.", "memory_encoder.", "mask_downsample.", "obj_ptr_proj.", "obj_ptr_tpos_proj."),
    *("maskmem_tpos_enc", "no_mem_pos_enc", "no_obj_ptr", "no_obj_embed_spatial"),
)
"""Prefixes of official names that serve video only, which single images do not need."""
POINTS = "prompt_encoder.point_embed.weight"
"""The point embeddings: one tensor here, four in official checkpoints."""
OFFICIAL_POINTS = [f"sam_prompt_encoder.point_embeddings.{label}.weight" for label in range(4)]
SHARED_NAMES = {
    ".mask_embed.conv1.": ".mask_downscaling.0.",
    ".mask_embed.layer_norm1.": ".mask_downscaling.1.",
    ".mask_embed.conv2.": ".mask_downscaling.3.",
    ".mask_embed.layer_norm2.": ".mask_downscaling.4.",
    ".mask_embed.conv3.": ".mask_downscaling.6.",
    ".upscale_conv1.": ".output_upscaling.0.",
    ".upscale_layer_norm.": ".output_upscaling.1.",
    ".upscale_conv2.": ".output_upscaling.3.",
}
"""Parts of names in transformers → in official checkpoints, the same in SAM and SAM2."""
_MLP = r"\.(output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)"
_RENAMED = (  # ours -> official, applied in this order
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
    (r"^vision_encoder\.neck\.convs\.(\d)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"\.shared_embedding\.positional_embedding$", ".pe_layer.positional_encoding_gaussian_matrix"),
    (r"^mask_decoder\.", "sam_mask_decoder."),
    *((re.escape(ours), official) for ours, official in SHARED_NAMES.items()),
    (rf"{_MLP}\.layers\.0\.", r".\1.layers.1."),
    (rf"{_MLP}\.proj_in\.", r".\1.layers.0."),
    (rf"{_MLP}\.proj_out\.", r".\1.layers.2."),
    (r"\.mlp\.proj_in\.", ".mlp.layers.0."),
    (r"\.mlp\.proj_out\.", ".mlp.layers.1."),
    (r"\.layer_norm", ".norm"),
    (r"\.o_proj\.", ".out_proj."),
    (r"^no_memory_embedding$", "no_mem_embed"),
)


def renamed(name: str, rules: Iterable[tuple[str, str]]) -> str:
    """A name after all replacements, (pattern, replacement) each, in order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def official_name(name: str) -> str:
    """The official name of one of our tensors, but for `POINTS`."""
    return renamed(name, _RENAMED)


def from_official(state: Mapping[str, Tensor], own_names: Iterable[str]) -> dict[str, Tensor]:
    """Official tensors under our names, without the video memory; unknown names stay."""
    of_images = {name: value for name, value in state.items() if not name.startswith(VIDEO_MEMORY)}
    if all(name in of_images for name in OFFICIAL_POINTS):
        of_images[POINTS] = torch.cat([of_images.pop(name) for name in OFFICIAL_POINTS])
    ours = {official_name(name): name for name in own_names}
    return {ours.get(name, name): value for name, value in of_images.items()}


_TRACKER = (  # SAM 3's in transformers' `Sam3VideoModel` -> in its `Sam3TrackerModel`, by its `conversion_mapping`
    (r"^(?:tracker_model\.)*detector_model\.vision_encoder\.backbone\.", "vision_encoder.backbone."),
    (r"^(?:tracker_model\.)*tracker_neck\.", "vision_encoder.neck."),
    (r"^(?:tracker_model\.)+", ""),  # twice where transformers has saved it again
)
_NOT_FOR_IMAGES = (
    *("detector_model.", "memory_", "mask_downsample.", "object_pointer_proj.", "no_memory_positional_encoding"),
    *("no_object_pointer", "occlusion_spatial_embedding_parameter", "temporal_positional_encoding_projection_layer."),
    *("vision_encoder.neck.fpn_layers.3.", "shared_image_embedding."),
)
"""Prefixes of SAM 3's names that boxes on single images do not need: detector, video memory, the neck's coarsest level
and the positional embedding under its second name."""


def from_sam3(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SAM 3's tensors under our names, from the file of the whole model or of its tracker; unknown names stay."""
    named = {renamed(name, _TRACKER): value for name, value in state.items()}
    return {name: value for name, value in named.items() if not name.startswith(_NOT_FOR_IMAGES)}
