"""Segment Anything: `segment_anything`'s own modules, with queries, keys and values apart and fused attention.

Parameter names are those of SAM's checkpoints, but for `attn.qkv`, which is `attn.{q,k,v}_proj` here so that LoRA can
adapt Q and V alone (ROS-SAM, section 3.2.1). Every architectural constant is in `ARCHITECTURES`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rossam_core.devices import has_amx
from rossam_core.errors import RossamError
from rossam_core.model.sam_modules import ImageEncoderViT, LayerNorm2d, PromptEncoder, TwoWayTransformer

PIXEL_MEAN = (123.675, 116.28, 103.53)
"""RGB, 0-255: SAM's normalisation and the colour its input is padded with."""
PIXEL_STD = (58.395, 57.12, 57.375)
PATCH = 16
"""Side of a token in input pixels."""
FEW_TOKENS = 1024
"""Longest sequence whose attention scores are stored for the backward pass (see `_attention`)."""
SCORES = 1 << 19
"""Attention scores computed at a time: 1 MiB in bfloat16, which stays in a core's cache."""

Constants = TypeVar("Constants")


@dataclass(frozen=True)
class Architecture:
    """The constants of one SAM (Kirillov et al. 2023, appendix A; ViT-T is ours)."""

    dim: int  # width of the image encoder
    depth: int
    heads: int
    global_attention: tuple[int, ...]  # blocks that attend over the whole image; the others attend within windows
    input_size: int = 1024  # side of the square input in pixels
    window: int = 14  # side of an attention window in tokens
    prompt_dim: int = 256  # width of image embedding, prompts and mask decoder
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048
    box_offset: float = 0.0
    """Added to boxes (pixel edges), in pixels, before SAM adds its half. -½ lets mirrored boxes be mirror images."""

    @property
    def grid(self) -> int:
        """Side of the image embedding in tokens."""
        return self.input_size // PATCH


ARCHITECTURES = {
    "vit_t": Architecture(192, 12, 3, (2, 5, 8, 11), input_size=256, window=8, box_offset=-0.5),
    "vit_b": Architecture(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": Architecture(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": Architecture(1280, 32, 16, (7, 15, 23, 31)),
}


def constants_of(table: Mapping[str, Constants], backbone: str, stride: int, overrides: Mapping) -> Constants:
    """The entry of `table` for `backbone`, some constants replaced.

    Raises:
        RossamError: unknown backbone or constant, or an input size that is no multiple of `stride`.
    """
    where = f"backbone {backbone}"
    if backbone not in table:
        raise RossamError(where, "is not known for this method", f"use one of {', '.join(table)}")
    arch: Any = table[backbone]
    try:
        arch = dataclasses.replace(arch, **overrides)
    except TypeError as error:
        names = ", ".join(field.name for field in dataclasses.fields(arch))
        raise RossamError(where, str(error), f"override only {names}") from error
    if arch.input_size % stride:
        remedy = f"use {max(1, arch.input_size // stride) * stride}"
        raise RossamError(where, f"input_size {arch.input_size} is no multiple of {stride}", remedy)
    return arch


def architecture(backbone: str, **overrides) -> Architecture:
    """Constants of `backbone`, some replaced; `RossamError` as in `constants_of`, or without global attention."""
    arch = constants_of(ARCHITECTURES, backbone, PATCH, overrides)
    if not any(index < arch.depth for index in arch.global_attention):
        finding = f"none of its {arch.depth} blocks has global attention (set at {arch.global_attention})"
        raise RossamError(f"backbone {backbone}", finding, "name a block below the depth in global_attention")
    return arch


class SplitAttention(nn.Module):
    """Multi-head attention over a token grid, B×H×W×C to B×H×W×C, with SAM's decomposed relative positions.

        softmax(q·kᵀ / √d + q·R_h[row] + q·R_w[column]) · v

    where R_h depends on the rows of query and key, R_w on their columns. Both terms are folded into the product,

        q·kᵀ / √d + q·R_h[row] + q·R_w[column] = [q, √d·q·R_h, √d·q·R_w] · [k, e_row, e_column]ᵀ / √d

    with unit vectors e, so that no HW×HW bias is ever stored.
    """

    def __init__(self, dim: int, heads: int, grid: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid - 1, dim // heads))

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        projections = (self.q_proj, self.k_proj, self.v_proj)
        # B×H×W×C -> B×heads×HW×d
        q, k, v = (project(x).view(b, h * w, self.heads, -1).transpose(1, 2) for project in projections)
        d = q.shape[-1]
        row_and_column = _unit_vectors(h, w, k).expand(b, self.heads, -1, -1)
        q, k = torch.cat([q, self._position_terms(q, h, w)], dim=-1), torch.cat([k, row_and_column], dim=-1)
        x = _attention(q, k, v, d**-0.5)
        # B×heads×HW×d -> B×H×W×C
        return self.proj(x.transpose(1, 2).reshape(b, h, w, c))

    def _position_terms(self, q: Tensor, h: int, w: int) -> Tensor:
        """√d·q·R_h for every row and √d·q·R_w for every column: B×heads×HW×(H+W)."""
        q = q.unflatten(2, (h, w)) * q.shape[-1] ** 0.5
        rel_h = torch.einsum("bnhwd,hdk->bnhwk", q, _relative(self.rel_pos_h, h))
        rel_w = torch.einsum("bnhwd,wdk->bnhwk", q, _relative(self.rel_pos_w, w))
        return torch.cat([rel_h, rel_w], dim=-1).flatten(2, 3)


def _attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(q·kᵀ · scale) · v. For few tokens in bfloat16 on a processor without AMX: by separate products, which are
    faster there than fused kernels (`benchmarks/attention.py`). Else: by a fused kernel, which stores no scores.
    """
    few = q.shape[-2] <= FEW_TOKENS or not torch.is_grad_enabled()
    if few and q.dtype == torch.bfloat16 and q.device.type == "cpu" and not has_amx():
        with torch.autocast("cpu", enabled=False):
            return _attention_in_parts(q, (k * scale).transpose(-1, -2), v)
    padded = F.pad(v, (0, q.shape[-1] - v.shape[-1]))  # fused kernels want one width for all three
    return F.scaled_dot_product_attention(q, k, padded, scale=scale)[..., : v.shape[-1]]


def _attention_in_parts(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q·k) · v of B×heads, at most `SCORES` scores at a time: of some heads, or of some queries of one head."""
    shape, tokens = v.shape, q.shape[-2]
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    if heads := SCORES // tokens**2:
        parts = zip(q.split(heads), k.split(heads), v.split(heads), strict=True)
        return torch.cat([(of_q @ of_k).softmax(dim=-1) @ of_v for of_q, of_k, of_v in parts]).view(shape)
    queries = max(SCORES // tokens, 1)
    each = [
        torch.cat([(rows @ of_k).softmax(dim=-1) @ of_v for rows in of_q.split(queries)])
        for of_q, of_k, of_v in zip(q, k, v, strict=True)
    ]
    return torch.stack(each).view(shape)


def _relative(table: Tensor, size: int) -> Tensor:
    """Embedding of query position i relative to key position k, table[i - k + size - 1], at [i, :, k]."""
    return table.unfold(0, size, 1).flip(-1)


def _unit_vectors(h: int, w: int, like: Tensor) -> Tensor:
    """For each of HW tokens the unit vector of its row and of its column: HW×(H+W), with the type of `like`."""
    rows, columns = (torch.eye(side, dtype=like.dtype, device=like.device) for side in (h, w))
    return torch.cat([rows.repeat_interleave(w, dim=0), columns.repeat(h, 1)], dim=1)


class ChannelNorm(LayerNorm2d):
    """`LayerNorm2d` by torch's fused kernel: layer norm over the channels of B×C×H×W."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


def fuse_channel_norms(module: nn.Module) -> None:
    """Replace every `LayerNorm2d` below `module` by a `ChannelNorm` that holds the same parameters."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is LayerNorm2d:
                fused = ChannelNorm(len(child.weight), child.eps)
                fused.weight, fused.bias = child.weight, child.bias
                setattr(parent, name, fused)


class ImageEncoder(ImageEncoderViT):
    """SAM's vision transformer. Position embeddings are learned, so the input has the one size it was built for."""

    def __init__(self, arch: Architecture):
        super().__init__(
            img_size=arch.input_size,
            patch_size=PATCH,
            embed_dim=arch.dim,
            depth=arch.depth,
            num_heads=arch.heads,
            out_chans=arch.prompt_dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=arch.window,
            global_attn_indexes=arch.global_attention,
        )
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for block in self.blocks:
            block.attn = SplitAttention(arch.dim, arch.heads, block.window_size or arch.grid)
        self.early_block = min(arch.global_attention)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode normalised images.

        Args:
            x: B×3×S×S.

        Returns:
            The image embedding, B×256×S/16×S/16 (after the neck), and the early feature, B×S/16×S/16×C, channels
            last: the output of the first block with global attention, HQ-SAM's `interm_embeddings[0]`.
        """
        x = self.patch_embed(x) + self.pos_embed
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == self.early_block:
                early = x
        return self.neck(x.permute(0, 3, 1, 2)), early  # B×H×W×C -> B×C×H×W


def build_prompt_encoder(arch: Architecture) -> PromptEncoder:
    """SAM's prompt encoder."""
    return PromptEncoder(arch.prompt_dim, (arch.grid, arch.grid), (arch.input_size, arch.input_size), mask_in_chans=16)


def mask_decoder_settings(arch: Architecture) -> dict:
    """Arguments of `segment_anything.modeling.MaskDecoder`, a fresh transformer among them."""
    transformer = TwoWayTransformer(arch.decoder_depth, arch.prompt_dim, arch.decoder_heads, arch.decoder_mlp_dim)
    return {"transformer_dim": arch.prompt_dim, "transformer": transformer}
