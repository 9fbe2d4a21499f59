"""Losses of the pretraining, each float32 with one value per prompt or per image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rossam_core.model.hq_decoder import MaskLogits
from rossam_core.training.losses import dice_loss
from tools.pretrain.dataset import Batch


def prompt_loss(logits: Tensor, targets: Tensor, boxes: Tensor, size: int) -> Tensor:
    """`L = ½ (BCE over the plane + BCE over the box) + Dice`, float32 ΣN.

    The second term keeps the outline of an object of 10 pixels from vanishing in the mean over the plane.

    Args:
        logits: ΣN×h×w.
        targets: float ΣN×T×T in [0, 1].
        boxes: ΣN×4, xyxy in pixels of the input.
        size: side of the input in pixels.
    """
    side = targets.shape[-1]
    logits = F.interpolate(logits[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
    cost = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    edges = boxes * (side / size)
    cells = torch.arange(side, device=boxes.device)
    # A cell counts when the box, two cells wider, touches it.
    columns = (cells > edges[:, :1] - 3) & (cells < edges[:, 2:3] + 2)  # ΣN×T
    rows = (cells > edges[:, 1:2] - 3) & (cells < edges[:, 3:] + 2)
    inside = (rows[:, :, None] & columns[:, None, :]).float()
    in_box = (cost * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)
    return 0.5 * (cost.mean(dim=(1, 2)) + in_box) + dice_loss(logits, targets)


def iou_loss(logits: Tensor, targets: Tensor, predicted: Tensor) -> Tensor:
    """Squared error of the predicted IoU against that of the thresholded logits (SAM, appendix A), float32 ΣN."""
    with torch.no_grad():
        side = targets.shape[-1]
        mask = F.interpolate(logits[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0] > 0
        truth = targets >= 0.5
        union = (mask | truth).sum(dim=(1, 2))
        iou = (mask & truth).sum(dim=(1, 2)) / union.clamp(min=1)
    return (predicted - iou) ** 2


def agreement_loss(logits: Tensor, others: Tensor) -> Tensor:
    """`Σ(p - q)² / (Σp² + Σq²)` over the plane, with the probabilities p and q of two masks, float32 ΣN: 0 to 1.

    Takes two ΣN×h×w tensors of logits.
    """
    p, q = torch.sigmoid(logits), torch.sigmoid(others)
    return (p - q).square().sum(dim=(1, 2)) / (p.square() + q.square()).sum(dim=(1, 2))


class LayoutHead(nn.Conv2d):
    """Auxiliary head on the image embedding, used in training only: where objects and their outlines are.

    Without it training from nothing may stall where the box alone explains the mask: the output of the untrained
    encoder disturbs the decoder, and the encoder's output becomes the same for every image before it is of use.
    The log's `embedding_spread` shows it.
    """

    def __init__(self, channels: int = 256):
        super().__init__(channels, 2 * 16, kernel_size=1)

    def forward(self, embedding: Tensor) -> Tensor:
        """B×C×G×G → logits B×2×4G×4G: object, outline."""
        return F.pixel_shuffle(super().forward(embedding), 4)


def layout_loss(logits: Tensor, layout: Tensor) -> Tensor:
    """BCE + Dice of both planes, float32 B. Takes B×2×h×w logits and targets in [0, 1] of the same size."""
    b, planes = logits.shape[:2]
    flat, targets = logits.float().flatten(0, 1), layout.flatten(0, 1)
    cost = F.binary_cross_entropy_with_logits(flat, targets, reduction="none").mean(dim=(1, 2))
    return (cost + dice_loss(flat, targets)).view(b, planes).mean(dim=1)


def mask_losses(phase: str, output: MaskLogits, batch: Batch, size: int) -> dict[str, Tensor]:
    """Named terms, ΣN each, whose mean sum is minimised. SAM: mask and predicted IoU. HQ head: the HQ mask alone.

    `output` has ΣN masks, or 2ΣN of `decode_both_ways`: then the mean of each two, and how they agree.
    """
    targets, boxes = batch.targets.float() / 255, torch.cat(batch.boxes)
    masks = output.hq if phase == "hq" else output.sam
    n, copies = len(targets), len(masks) // len(targets)
    targets, boxes = targets.repeat(copies, 1, 1), boxes.repeat(copies, 1)
    terms = {"mask": prompt_loss(masks, targets, boxes, size)}
    if phase != "hq":
        terms["iou"] = iou_loss(masks, targets, output.iou)
    terms = {name: term.view(copies, n).mean(dim=0) for name, term in terms.items()}
    if copies == 2:
        terms["agreement"] = agreement_loss(masks[:n], masks[n:])
    return terms
