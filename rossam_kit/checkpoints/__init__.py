"""Reads checkpoints of any origin under official names; `rossam_core.build_model` reads by it.

Here: names of SAM's, HQ-SAM's and SAM2's weights in transformers, and in the checkpoints of their authors.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from torch import Tensor

from rossam_core.model.sam2_keys import SHARED_NAMES, renamed
from rossam_kit.checkpoints.files import read_weights

SHARED = "shared_image_embedding.positional_embedding"
"""Transformers' name of the one positional embedding; `prompt_encoder.shared_embedding` is the same again."""
SHARED_AGAIN = "prompt_encoder.shared_embedding.positional_embedding"
VIDEO_MEMORY = (
    "memory_attention.",
    "memory_encoder.",
    "memory_temporal_positional_encoding",
    "no_memory_positional_encoding",
    "no_object_pointer",
    "object_pointer_proj.",
    "mask_downsample.",
    "occlusion_spatial_embedding_parameter",
    "temporal_positional_encoding_projection_layer.",
)
"""Prefixes of transformers' names that serve video only."""
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
    *((re.escape(official), theirs) for theirs, official in SHARED_NAMES.items()),
    (r"\.hf_token\.", ".hq_token."),
    (r"\.hf_mlp\.", ".hq_mask_mlp."),
    (rf"{_THREE_LAYERS}\.layers\.0\.", r"\1.proj_in."),
    (rf"{_THREE_LAYERS}\.layers\.2\.", r"\1.proj_out."),
    (rf"{_THREE_LAYERS}\.layers\.1\.", r"\1.layers.0."),
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
    return renamed(name, _RENAMED)


def from_transformers(state: Mapping[str, Tensor], official_names: Iterable[str]) -> dict[str, Tensor]:
    """SAM's or HQ-SAM's tensors under official names; those without an official counterpart keep their name.

    Args:
        official_names: of the same network's checkpoint (`attn.qkv` joined).
    """
    official = {transformers_name(name): name for name in official_names}
    return {official.get(name, name): value for name, value in _one_embedding(state, SHARED).items()}


def sam2_image_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of transformers' SAM2 without its video memory, the positional embedding under one name."""
    kept = {name: value for name, value in state.items() if not name.startswith(VIDEO_MEMORY)}
    return _one_embedding(kept, SHARED_AGAIN)


def _one_embedding(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The positional embedding that transformers holds under two names, and stores under either, as `name` alone."""
    value = next((state[key] for key in (SHARED, SHARED_AGAIN) if key in state), None)
    others = {key: tensor for key, tensor in state.items() if key not in (SHARED, SHARED_AGAIN)}
    return others if value is None else {**others, name: value}


def read_checkpoint(path: Path, official_names: Collection[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors under the names of official checkpoints (SAM2: or of transformers), and metadata; see `read_weights`.

    Args:
        official_names: of the network that is to be filled.
    """
    state, metadata = read_weights(path)
    if "vision_encoder.patch_embed.projection.weight" in state:
        return from_transformers(state, official_names), metadata
    if "vision_encoder.backbone.patch_embed.projection.weight" in state:
        return sam2_image_part(state), metadata
    return state, metadata
