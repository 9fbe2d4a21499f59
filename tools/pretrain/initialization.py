"""Initial weights under which the embedding depends on the image from the first step.

With the usual initialisation the decoder learns mean shapes from the box first, and the embedding becomes the same
for every image.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from rossam_core.model.sam2 import Sam2Segmenter
from rossam_core.model.segmenter import PromptableSegmenter, SamSegmenter
from tools.pretrain.equivariance import tile_of

TRANSFORMERS_DEVIATION = 0.02
"""Of every weight of a fresh `Sam2Model`."""


@torch.no_grad()
def initialize(model: PromptableSegmenter) -> None:
    """Patches are described by their lowest cosines (brightness and two colour differences, higher frequencies
    amplified, since images have less of them), blocks begin close to the identity, and what follows them passes its
    input on."""
    if isinstance(model, Sam2Segmenter):
        _initialize_sam2(model)
    else:
        _initialize_sam(model)


@torch.no_grad()
def start_hq_as_sam(model: SamSegmenter) -> None:
    """Let the HQ mask be SAM's at first: the HQ token and its MLP are those of SAM's single mask, the features of the
    encoder are small, and SAM's features x are passed on as GELU(x) - GELU(-x) = x, scaled by the norm between, which
    keeps the sign of every logit."""
    decoder = model.mask_decoder
    decoder.hf_token.weight.copy_(decoder.mask_tokens.weight[:1])
    decoder.hf_mlp.load_state_dict(decoder.output_hypernetworks_mlps[0].state_dict())
    widen, _, _, narrow = decoder.embedding_maskfeature
    _scale_down(widen, narrow, decoder.compress_vit_feat[-1], decoder.embedding_encoder[-1], share=0.1)
    same = torch.eye(narrow.out_channels, device=narrow.weight.device)
    widen.weight[:, :, 1, 1] += torch.cat([same, -same])
    narrow.weight[:, :, 1, 1] += torch.cat([same, -same], dim=1)


def _initialize_sam(model: SamSegmenter) -> None:
    encoder = model.image_encoder
    _describe_patches(encoder.patch_embed.proj)
    for block in encoder.blocks:
        _scale_down(block.attn.proj, block.mlp.lin2)
    smoothing = encoder.neck[2].weight  # 256×256×3×3
    smoothing.mul_(0.1)
    smoothing[:, :, 1, 1] += torch.eye(len(smoothing), device=smoothing.device)


def _initialize_sam2(model: Sam2Segmenter) -> None:
    """transformers draws every weight with one deviation; here they have torch's usual one, 1/√(3·inputs), and
    embeddings one of 1, as in SAM. Between stages, in the neck and in the decoder's lateral convolutions it is
    1/√inputs, which keeps a signal's strength."""
    encoder, decoder = model.vision_encoder, model.mask_decoder
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.weight.mul_((3 * module.weight[0].numel()) ** -0.5 / TRANSFORMERS_DEVIATION)
        elif isinstance(module, nn.Embedding):
            module.weight.mul_(1 / TRANSFORMERS_DEVIATION)
    _describe_patches(encoder.backbone.patch_embed.projection)
    for block in encoder.backbone.blocks:
        _scale_down(block.attn.proj, block.mlp.proj_out)
        if hasattr(block, "proj"):  # the first of a stage widens what it passes on
            block.proj.weight.mul_(3**0.5)
    for lateral in (*encoder.neck.convs, decoder.conv_s0, decoder.conv_s1):
        lateral.weight.mul_(3**0.5)


def _describe_patches(projection: nn.Conv2d) -> None:
    """Every fourth channel is half the sum of an even cosine, one odd from left to right, one odd from top to bottom
    and one odd both ways: its mirror images, which stand in the other three, span all four. Where patches overlap, the
    part of the kernel that tiles the image is described, the rest is 0."""
    count, patch = projection.out_channels, projection.stride[0]
    kinds = [_cosine_basis(count // 4, patch, kind) for kind in itertools.product((0, 1), repeat=2)]
    projection.weight.zero_()
    tile = projection.weight[tile_of(projection)]
    for number, (rows, columns) in enumerate(itertools.product((1, -1), repeat=2)):
        signs = (1, columns, rows, rows * columns)
        tile[number::4] = sum(sign * kind for sign, kind in zip(signs, kinds, strict=True)) / 2
    projection.bias.zero_()


def _scale_down(*layers: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, share: float = 0.2) -> None:
    for layer in layers:
        layer.weight.mul_(share)
        layer.bias.zero_()


def _cosine_basis(count: int, patch: int, kind: tuple[int, int]) -> Tensor:
    """The `count` lowest cosines of P×P patches in three colour axes, count×3×P×P; of `kind`: 0 for those even, 1 for
    those odd, from top to bottom and from left to right."""
    place, wave = torch.arange(patch) + 0.5, torch.arange(patch)
    waves = torch.cos(math.pi * wave[:, None] * place[None] / patch) * math.sqrt(2 / patch)
    waves[0] /= math.sqrt(2)
    colours = torch.tensor([[1.0, 1, 1], [1, 0, -1], [-0.5, 1, -0.5]])
    colours /= colours.norm(dim=1, keepdim=True)
    ranked = sorted(
        (math.hypot(i, j) + 3 * (c > 0), c, i, j)
        for i in range(patch)
        for j in range(patch)
        for c in range(3)
        if kind == (i % 2, j % 2)
    )
    rows = []
    for _, c, i, j in ranked[:count]:
        gain = (2 if c else 1) * (1 + math.hypot(i, j)) / patch
        rows.append(gain * colours[c][:, None, None] * waves[i][:, None] * waves[j][None, :])
    return torch.stack(rows)
