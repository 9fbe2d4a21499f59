"""Mask losses: weighted binary cross-entropy plus Dice, on sampled points or on every pixel.

`L = bce_weight · L_bce + dice_weight · L_dice` for each object, over P positions p of the mask plane. With
`sampling="points"` the positions are drawn where the logits are least certain (Kirillov et al. 2020, PointRend,
section 3.1, as the released code does); with `sampling="dense"` they are all H·W target pixels.
Everything is computed in float32, also under autocast.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rossam_core.settings import Config


class LossConfig(Config):
    """What is minimised."""

    sampling: Literal["points", "dense"] = "points"
    """Positions of the loss. Released code: `points`, which the recipe `paper` follows, since the paper gives none;
    corrected: `dense`."""
    points: int = Field(112 * 112, ge=1)
    """Points per object (released code: 112×112). Not used by `dense`."""
    oversample: float = Field(3.0, ge=1)
    """Candidates drawn for each point kept by uncertainty (released code, PointRend)."""
    importance: float = Field(0.75, ge=0, le=1)
    """Share of points chosen by uncertainty; the others are uniform (released code, PointRend)."""
    foreground_weight: float = Field(1.0, ge=0)
    """Cross-entropy weight of object pixels. Paper section 3.2.3: plain BCE, so 1; released code: 10."""
    background_weight: float = Field(1.0, ge=0)
    """Cross-entropy weight of the other pixels (released code: 1)."""
    bce_weight: float = Field(1.0, ge=0)
    """Weight of the cross-entropy term (paper and released code: 1)."""
    dice_weight: float = Field(1.0, ge=0)
    """Weight of the Dice term (paper and released code: 1)."""


def bce_loss(logits: Tensor, targets: Tensor, foreground_weight: float = 1.0, background_weight: float = 1.0) -> Tensor:
    """Weighted binary cross-entropy of N×P (or N×…) logits x and targets t in [0, 1]: float32 N, mean over positions.

    `L_bce = 1/P Σ_p w_p · [softplus(x_p) − t_p · x_p]`, `w_p = w_bg + (w_fg − w_bg) · t_p`

    The bracket is `−t log σ(x) − (1−t) log(1−σ(x))`.

    >>> bce_loss(torch.zeros(1, 4), torch.ones(1, 4))
    tensor([0.6931])
    """
    logits, targets = logits.flatten(1).float(), targets.flatten(1).float()
    weights = background_weight + (foreground_weight - background_weight) * targets
    return (weights * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")).mean(dim=1)


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Dice loss of N×P (or N×…) logits x and targets t in [0, 1]: float32 N in [0, 1].

    `L_dice = 1 − (2 Σ_p σ(x_p) t_p + ε) / (Σ_p σ(x_p) + Σ_p t_p + ε)`

    Milletari et al. 2016, with sums rather than squares, as in MaskFormer. An empty target met by an empty prediction
    costs 0, since ε = 1.

    >>> dice_loss(torch.full((1, 4), 50.0), torch.ones(1, 4))
    tensor([0.])
    """
    probabilities, targets = logits.flatten(1).float().sigmoid(), targets.flatten(1).float()
    overlap = (probabilities * targets).sum(dim=1)
    return 1 - (2 * overlap + 1) / (probabilities.sum(dim=1) + targets.sum(dim=1) + 1)


def sample_at(planes: Tensor, points_xy: Tensor) -> Tensor:
    """Bilinear values of N×h×w planes at N×P×2 points, x and y in [0, 1] across the plane → N×P.

    A plane's values sit at its cell centres; outside the outermost centres the edge value holds.
    """
    grid = 2 * points_xy.unsqueeze(2) - 1  # N×P×2 in [0, 1] → N×P×1×2 in [−1, 1]
    values = F.grid_sample(planes.unsqueeze(1), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return values[:, 0, :, 0]  # N×1×P×1 → N×P


def uncertain_points(
    logits: Tensor,
    count: int,
    oversample: float = 3.0,
    importance: float = 0.75,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Points near the predicted outline: of `oversample · count` uniform candidates those with the smallest |logit|.

    Args:
        logits: N×h×w.
        count: points per object; `round(importance · count)` of them by uncertainty, the rest uniform.
        generator: of the candidates, on any device (a CPU generator gives the same points on every device).

    Returns:
        float32 N×count×2, x and y in [0, 1] across the plane; no gradient flows through them.
    """
    device = generator.device if generator is not None else logits.device
    uncertain = round(importance * count)
    candidates = max(uncertain, round(oversample * count))
    shape = (len(logits), candidates + count - uncertain, 2)
    points = torch.rand(shape, generator=generator, device=device).to(logits.device)
    with torch.no_grad():
        uncertainty = -sample_at(logits.detach().float(), points[:, :candidates]).abs()
        best = uncertainty.topk(uncertain, dim=1, sorted=False).indices  # N×uncertain
    near_outline = points.gather(1, best.unsqueeze(2).expand(-1, -1, 2))
    return torch.cat([near_outline, points[:, candidates:]], dim=1)


def object_losses(
    logits: Tensor, targets: Tensor, config: LossConfig, generator: torch.Generator | None = None
) -> Tensor:
    """Weighted sum of cross-entropy and Dice for each object: float32 N.

    Args:
        logits: N×h×w, any float type.
        targets: N×H×W, bool or in [0, 1], of the same field of view (H = 4h for SAM's input).
        generator: for point sampling.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, targets = logits.float(), targets.to(logits.device, torch.float32)
        if config.sampling == "points":
            points = uncertain_points(logits, config.points, config.oversample, config.importance, generator)
            logits, targets = sample_at(logits, points), sample_at(targets, points)
        elif logits.shape != targets.shape:
            logits = F.interpolate(logits.unsqueeze(1), targets.shape[1:], mode="bilinear", align_corners=False)
        cross_entropy = bce_loss(logits, targets, config.foreground_weight, config.background_weight)
        return config.bce_weight * cross_entropy + config.dice_weight * dice_loss(logits, targets)
