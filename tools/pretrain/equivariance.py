"""Weights under which a mirrored image gives the mirrored embedding, exactly, at no cost at inference.

Channels come in fours. Number 4k is any detector; 4k + 1 is the same detector mirrored left to right, 4k + 2 top to
bottom, 4k + 3 both. Mirroring the image then mirrors every feature map and swaps channels within their four (channel
number xor 1, 2 or 3), layer after layer: a group convolution in the group's regular representation (Cohen and
Welling, Group Equivariant Convolutional Networks, ICML 2016), written as a constraint on the weights of an ordinary
network: a parameter obeys it when it equals its own mirror images. AdamW treats equal gradients equally, so weights
that obey it at first continue to if the gradients do. Patches have to tile the image and windows to fill it, as
those of `vit_t` and `hiera_t` do at their input size.

The mask decoder obeys it too, but SAM tells a box by its top left and bottom right corners. Mirrored left to right it
is given by the other two, and masks are mirrored as far as the decoder has learnt that either pair means the same box.
Mirrored both ways it is given by the same two, and masks are mirrored exactly where `box_offset` is -½.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModel, Sam2PositionalEmbedding

from rossam_core.model.hq_decoder import MaskLogits
from rossam_core.model.sam import ImageEncoder, SplitAttention
from rossam_core.model.sam2 import Sam2Segmenter
from rossam_core.model.sam_modules import LayerNorm2d, PositionEmbeddingRandom
from rossam_core.model.segmenter import ImageEmbeddings, PromptableSegmenter, SamSegmenter

FOUR = 4
"""Channels a detector takes: itself, mirrored either way, mirrored both ways."""
LEFT_RIGHT, TOP_BOTTOM = 1, 2
"""The mirrors; also the bit of a channel's number that each flips."""


class Axes(NamedTuple):
    """What the axes of a parameter count."""

    channels: tuple[int, ...] = ()
    rows: int | None = None
    columns: int | None = None
    xy: int | None = None
    """An axis of two, whose entries are multiplied with x and y measured from the image's middle."""


PLANES, ROWS = Axes((1,), rows=2, columns=3), Axes((3,), rows=1, columns=2)
"""Of feature maps: B×C×H×W, B×H×W×C."""


class Mirrorable(NamedTuple):
    """A parameter or buffer (or a part of one), its gradient, what their axes count."""

    weights: Tensor
    gradient: Tensor | None
    axes: Axes


@torch.no_grad()
def mirror_weights(model: SamSegmenter | Sam2Segmenter) -> float:
    """Keep every fourth channel of all weights, and make the other three its mirror images.

    Returns:
        The largest change of any weight.
    """
    if isinstance(model, Sam2Segmenter):
        _clear_overlap(model)
    moved = 0.0
    for weights, _, axes in _mirrorables(model):
        if not axes.channels:
            continue
        before, axis = weights.clone(), axes.channels[0]
        places = torch.arange(weights.shape[axis], device=weights.device)
        for mirror in (LEFT_RIGHT, TOP_BOTTOM):
            made = places[places % (2 * mirror) >= mirror]
            weights.index_copy_(axis, made, mirrored(weights, axes, mirror).index_select(axis, made))
        moved = max(moved, float((weights - before).abs().max()))
    first, second = _corners(model)
    moved = max(moved, float((_opposite(first.weights) - second.weights).abs().max()))
    second.weights.copy_(_opposite(first.weights))
    return moved


@torch.no_grad()
def mirror_gradients(model: SamSegmenter | Sam2Segmenter) -> None:
    """Replace every gradient by its mean over the mirrors."""
    if isinstance(model, Sam2Segmenter):
        _clear_overlap(model)
    for _, gradient, axes in _mirrorables(model):
        if gradient is not None:
            for mirror in (LEFT_RIGHT, TOP_BOTTOM):
                gradient.add_(mirrored(gradient, axes, mirror)).mul_(0.5)
    first, second = _corners(model)
    if first.gradient is not None:
        first.gradient.add_(_opposite(second.gradient)).mul_(0.5)
        second.gradient.copy_(_opposite(first.gradient))


def decode_both_ways(
    model: SamSegmenter | Sam2Segmenter, embeddings: ImageEmbeddings, boxes: list[Tensor]
) -> MaskLogits:
    """Masks of ΣN prompts, and after them the same from the embeddings and boxes mirrored left to right, mirrored back:
    2ΣN. Nothing is encoded twice."""

    def both(features: Tensor, axes: Axes) -> Tensor:
        return torch.cat([features, mirrored(features, axes, LEFT_RIGHT)])

    doubled = ImageEmbeddings(
        both(embeddings.final, PLANES),
        None if embeddings.early is None else both(embeddings.early, ROWS),
        None if embeddings.hq_features is None else both(embeddings.hq_features, PLANES),
        tuple(both(features, PLANES) for features in embeddings.high_resolution),
    )
    turned = []
    for each in boxes:
        x0, y0, x1, y1 = each.unbind(dim=1)
        turned.append(torch.stack([model.input_size - x1, y0, model.input_size - x0, y1], dim=1))
    output = model.decode(doubled, [*boxes, *turned])

    def back(masks: Tensor) -> Tensor:
        plain, mirror = masks.chunk(2)
        return torch.cat([plain, mirror.flip(-1)])

    return MaskLogits(back(output.sam), None if output.hq is None else back(output.hq), output.iou)


def mirrored(tensor: Tensor, axes: Axes, mirror: int) -> Tensor:
    """What `tensor` becomes when the image is mirrored: channel c becomes channel c xor `mirror`."""
    for axis in axes.channels:
        tensor = tensor.index_select(axis, torch.arange(tensor.shape[axis], device=tensor.device) ^ mirror)
    turned = axes.columns if mirror == LEFT_RIGHT else axes.rows
    if turned is not None:
        tensor = tensor.flip(turned)
    if axes.xy is not None:
        signs = torch.tensor([-1.0, 1.0] if mirror == LEFT_RIGHT else [1.0, -1.0], device=tensor.device)
        tensor = tensor * signs.view([2 if axis == axes.xy else 1 for axis in range(tensor.ndim)])
    return tensor


def _opposite(token: Tensor) -> Tensor:
    return mirrored(mirrored(token, Axes((1,)), LEFT_RIGHT), Axes((1,)), TOP_BOTTOM)


def _corners(model: SamSegmenter | Sam2Segmenter) -> tuple[Mirrorable, Mirrorable]:
    """What marks a box's top left and bottom right corner, 1×C each. Unlike all other tokens each may say where the
    box lies of it; mirrored both ways, one becomes the other."""
    encoder = model.prompt_encoder
    if isinstance(model, Sam2Segmenter):
        kinds = encoder.point_embed.weight
        return _part(kinds, Axes((1,)), slice(2, 3)), _part(kinds, Axes((1,)), slice(3, 4))
    return tuple(_part(encoder.point_embeddings[kind].weight, Axes((1,))) for kind in (2, 3))


def _part(tensor: Tensor, axes: Axes, part: tuple[slice, ...] | slice = ()) -> Mirrorable:
    return Mirrorable(tensor[part], None if tensor.grad is None else tensor.grad[part], axes)


def _mirrorables(model: SamSegmenter | Sam2Segmenter) -> Iterator[Mirrorable]:
    """All parameters and the buffer of position frequencies, but for the two corners' tokens."""
    encoder, decoder = model.prompt_encoder, model.mask_decoder
    if isinstance(model, Sam2Segmenter):
        patches = model.vision_encoder.backbone.patch_embed.projection
        special = {
            patches.weight: _part(patches.weight, _axes(patches, "weight", patches.weight), tile_of(patches)),
            encoder.point_embed.weight: _part(encoder.point_embed.weight, Axes((1,)), slice(0, 2)),
        }
        scores = decoder.iou_prediction_head.proj_out
    else:
        special = {embedding.weight: None for embedding in encoder.point_embeddings[2:]}
        scores = decoder.iou_prediction_head.layers[-1]
    special[scores.weight] = _part(scores.weight, Axes((1,)))  # counts masks, not channels
    special[scores.bias] = None
    for module in model.modules():
        own = module.named_parameters(recurse=False), module.named_buffers(recurse=False)
        for name, tensor in itertools.chain(*own):
            if tensor not in special:
                axes = _axes(module, name, tensor)
                part = None if axes is None else _part(tensor, axes)
            else:
                part = special[tensor]
            if part is not None:
                yield part


def tile_of(patches: nn.Conv2d) -> tuple[slice, ...]:
    """The part of the overlapping patches' kernel that tiles the image."""
    start = patches.padding[0]
    tile = slice(start, start + patches.stride[0])
    return slice(None), slice(None), tile, tile


def _axes(module: nn.Module, name: str, tensor: Tensor) -> Axes | None:
    counted = tuple(axis for axis in (0, 1) if axis < tensor.ndim and tensor.shape[axis] % FOUR == 0)
    match module, name:
        case nn.Conv2d() | nn.ConvTranspose2d(), "weight":  # from three colours or one mask, or from channels
            return Axes(counted, rows=2, columns=3)
        case nn.Linear(), "weight":  # to one score, or to channels
            return Axes(counted)
        case nn.Embedding(), "weight":
            return Axes((1,))
        case nn.Linear() | nn.Conv2d() | nn.ConvTranspose2d() | nn.LayerNorm() | LayerNorm2d(), "weight" | "bias":
            return Axes(counted)
        case ImageEncoder(), "pos_embed":
            return ROWS
        case Sam2HieraDetModel(), "pos_embed" | "pos_embed_window":
            return PLANES
        case Sam2Segmenter(), "no_memory_embedding":
            return Axes((2,))
        case SplitAttention(), "rel_pos_h":
            return Axes((1,), rows=0)
        case SplitAttention(), "rel_pos_w":
            return Axes((1,), columns=0)
        case PositionEmbeddingRandom() | Sam2PositionalEmbedding(), _:
            return Axes((1,), xy=0)
        case PromptableSegmenter(), "_mean" | "_std":
            return None
    raise TypeError(f"no rule for {name} of {type(module).__name__}")


def _clear_overlap(model: Sam2Segmenter) -> None:
    """Let SAM2's patches, which overlap, tile the image, so that mirrored ones fall on mirrored places."""
    patches = model.vision_encoder.backbone.patch_embed.projection
    for tensor in (patches.weight, patches.weight.grad):
        if tensor is not None:
            kept = tensor[tile_of(patches)].clone()
            tensor.zero_()
            tensor[tile_of(patches)] = kept
