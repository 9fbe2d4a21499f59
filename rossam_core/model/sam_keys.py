"""Names of SAM's and HQ-SAM's weights in transformers (`SamModel`, `SamHQModel`), and in SAM's own checkpoints.

In: names or tensors by name. Out: the same under the other names. No tensor changes its shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

SHARED = "shared_image_embedding.positional_embedding"
"""Transformers' name of the one positional embedding; `prompt_encoder.shared_embedding` is the same again."""
_SHARED_AGAIN = "prompt_encoder.shared_embedding.positional_embedding"
_THREE_LAYERS = r"(iou_prediction_head|hq_mask_mlp|output_hypernetworks_mlps\.\d)"

_RENAMED = (  # SAM's and HQ-SAM's -> transformers', one after the other
    (r"^image_encoder\.", "vision_encoder."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"vision_encoder\.blocks\.", "vision_encoder.layers."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.neck\.0\.", ".neck.conv1."),
    (r"\.neck\.1\.", ".neck.layer_norm1."),
    (r"\.neck\.2\.", ".neck.conv2."),
    (r"\.neck\.3\.", ".neck.layer_norm2."),
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix", SHARED),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.hf_token\.", ".hq_token."),
    (r"\.hf_mlp\.", ".hq_mask_mlp."),
    (rf"{_THREE_LAYERS}\.layers\.0\.", r"\1.proj_in."),
    (rf"{_THREE_LAYERS}\.layers\.2\.", r"\1.proj_out."),
    (rf"{_THREE_LAYERS}\.layers\.1\.", r"\1.layers.0."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"\.compress_vit_feat\.0\.", ".compress_vit_conv1."),
    (r"\.compress_vit_feat\.1\.", ".compress_vit_norm."),
    (r"\.compress_vit_feat\.3\.", ".compress_vit_conv2."),
    (r"\.embedding_encoder\.0\.", ".encoder_conv1."),
    (r"\.embedding_encoder\.1\.", ".encoder_norm."),
    (r"\.embedding_encoder\.3\.", ".encoder_conv2."),
    (r"\.embedding_maskfeature\.0\.", ".mask_conv1."),
    (r"\.embedding_maskfeature\.1\.", ".mask_norm."),
    (r"\.embedding_maskfeature\.3\.", ".mask_conv2."),
)


def transformers_name(name: str) -> str:
    """Transformers' name of one of SAM's or HQ-SAM's tensors."""
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def one_shared_embedding(state: Mapping[str, Tensor], kept: str) -> dict[str, Tensor]:
    """The positional embedding that transformers holds under two names, and stores under either, as `kept` alone."""
    value = next((state[name] for name in (kept, SHARED, _SHARED_AGAIN) if name in state), None)
    others = {name: tensor for name, tensor in state.items() if name not in (SHARED, _SHARED_AGAIN)}
    return others if value is None else {**others, kept: value}


def from_transformers(state: Mapping[str, Tensor], sam_names: Iterable[str]) -> dict[str, Tensor]:
    """Transformers' tensors under SAM's names; those with a name SAM has no counterpart for keep it.

    Args:
        sam_names: the names in a checkpoint of the same network (`attn.qkv` joined).
    """
    theirs = {transformers_name(name): name for name in sam_names}
    return {theirs.get(name, name): value for name, value in one_shared_embedding(state, SHARED).items()}
