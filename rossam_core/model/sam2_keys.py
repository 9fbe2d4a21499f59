"""Names of SAM2's weights: transformers' (and ours) on one side, the official checkpoints' on the other.

In: tensors by name. Out: the same tensors under the other names. Only the point embeddings change shape: they are one
tensor here and four there. The official files also hold the video memory, which single images do not need.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from rossam_core.model.sam_keys import one_shared_embedding

VIDEO_MEMORY = (
    "memory_attention.",
    "memory_encoder.",
    "mask_downsample.",
    "obj_ptr_proj.",
    "obj_ptr_tpos_proj.",
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "no_obj_ptr",
    "no_obj_embed_spatial",
    "memory_temporal_positional_encoding",
    "no_memory_positional_encoding",
    "no_object_pointer",
    "object_pointer_proj.",
    "occlusion_spatial_embedding_parameter",
    "temporal_positional_encoding_projection_layer.",
)
"""How the names of what serves video only begin, in official checkpoints and in transformers'."""

_POINTS = "prompt_encoder.point_embed.weight"
_OFFICIAL_POINTS = [f"sam_prompt_encoder.point_embeddings.{label}.weight" for label in range(4)]
_THREE_LAYERS = r"(output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)"

_RENAMED = (  # transformers' -> official, one after the other
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
    (r"^vision_encoder\.neck\.convs\.(\d)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"\.shared_embedding\.positional_embedding$", ".pe_layer.positional_encoding_gaussian_matrix"),
    (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
    (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
    (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
    (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
    (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
    (r"^mask_decoder\.", "sam_mask_decoder."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (rf"\.{_THREE_LAYERS}\.layers\.0\.", r".\1.layers.1."),
    (rf"\.{_THREE_LAYERS}\.proj_in\.", r".\1.layers.0."),
    (rf"\.{_THREE_LAYERS}\.proj_out\.", r".\1.layers.2."),
    (r"\.mlp\.proj_in\.", ".mlp.layers.0."),
    (r"\.mlp\.proj_out\.", ".mlp.layers.1."),
    (r"\.layer_norm", ".norm"),
    (r"\.o_proj\.", ".out_proj."),
    (r"^no_memory_embedding$", "no_mem_embed"),
)


def official_name(name: str) -> str:
    """The official checkpoints' name of one of our tensors (but for the point embeddings, which are four there)."""
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def from_official(state: Mapping[str, Tensor], own: Iterable[str]) -> tuple[dict[str, Tensor], int]:
    """Official tensors, or transformers', under our names.

    Args:
        own: the names the model has.

    Returns:
        The tensors, those with a name we do not know under that name, for the caller to refuse; and how many tensors
        of the video memory were left aside.
    """
    ours = {official_name(name): name for name in own}
    kept = {name: value for name, value in state.items() if not name.startswith(VIDEO_MEMORY)}
    ignored = len(state) - len(kept)
    kept = one_shared_embedding(kept, "prompt_encoder.shared_embedding.positional_embedding")
    if all(name in kept for name in _OFFICIAL_POINTS):
        kept[official_name(_POINTS)] = torch.cat([kept.pop(name) for name in _OFFICIAL_POINTS])
    return {ours.get(name, name): value for name, value in kept.items()}, ignored
