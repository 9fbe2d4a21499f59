"""Reads checkpoints of any origin under official names; `rossam_core.build_model` reads by it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from rossam_kit.checkpoints.files import read_weights
from rossam_kit.checkpoints.names import from_transformers, sam2_image_part


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
