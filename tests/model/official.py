"""Files in the layout of SAM's, HQ-SAM's and SAM2's own checkpoints, written from our models."""

import torch

from rossam_core.model.sam2_keys import OFFICIAL_POINTS, POINTS, official_name
from rossam_core.model.weights import _named_state


def save_official(model, path):
    """Write a `.pth` with the official names: `attn.qkv` joined; SAM2's below the key `model`, without video memory."""
    state = _named_state(model)
    torch.save({"model": to_official(state)} if model.method == "sam2" else _join_qkv(state), path)


def to_official(state):
    """SAM2's tensors under the official names; the point embeddings are four there."""
    renamed = {official_name(name): value for name, value in state.items() if name != POINTS}
    return renamed | dict(zip(OFFICIAL_POINTS, state[POINTS].split(1), strict=True))


def _join_qkv(state):
    """Q, K and V of the image encoder in one tensor; the decoder's own `q_proj` stay apart, as in SAM."""
    joined = {}
    for name, value in state.items():
        if name.startswith("image_encoder.") and ".attn.q_proj." in name:
            parts = [state[name.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"]
            joined[name.replace(".q_proj.", ".qkv.")] = torch.cat(parts)
        elif not (name.startswith("image_encoder.") and (".attn.k_proj." in name or ".attn.v_proj." in name)):
            joined[name] = value
    return joined
