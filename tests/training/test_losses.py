"""Losses: equal to their formulas in torch, gradients where they belong, float32 under autocast."""

import doctest

import pytest
import torch
import torch.nn.functional as F

from rossam_core.training import losses
from rossam_core.training.losses import LossConfig, bce_loss, dice_loss, object_losses, sample_at, uncertain_points


def disc(size: int, radius: float, centre: float = 0.5) -> torch.Tensor:
    """1×size×size, positive inside a disc, with a slope of one a cell."""
    axis = (torch.arange(size) + 0.5) / size - centre
    return (radius - (axis[:, None] ** 2 + axis[None] ** 2).sqrt()).unsqueeze(0) * size


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_weighted_bce_is_torchs_with_pos_weight_on_hard_targets(generator):
    logits = 5 * torch.randn(3, 50, generator=generator)
    targets = (torch.rand(3, 50, generator=generator) > 0.5).float()
    theirs = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=torch.tensor(10.0), reduction="none")
    torch.testing.assert_close(bce_loss(logits, targets, foreground_weight=10), theirs.mean(1))


def test_dice_is_its_formula_and_bounded(generator):
    logits = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    targets = (torch.rand(3, 50, generator=generator) > 0.5).double()
    p = logits.sigmoid()
    expected = 1 - (2 * (p * targets).sum(1) + 1) / (p.sum(1) + targets.sum(1) + 1)
    torch.testing.assert_close(dice_loss(logits, targets), expected.float())
    assert ((expected > 0) & (expected < 1)).all()
    assert dice_loss(torch.full((1, 9), -60.0), torch.zeros(1, 9)).item() == 0  # nothing there, nothing found


@pytest.mark.parametrize("sampling", ["points", "dense"])
def test_a_perfect_mask_costs_less_than_a_shifted_one_and_a_wrong_one_most(sampling, generator):
    config = LossConfig(sampling=sampling, points=400)
    target = disc(64, 0.25) > 0
    right, shifted, wrong = (
        object_losses(4 * x, target, config, generator).mean()
        for x in (disc(16, 0.25), disc(16, 0.25, 0.6), -disc(16, 0.25))
    )
    assert 0 < right < shifted < wrong


@pytest.mark.parametrize("sampling", ["points", "dense"])
def test_gradients_agree_with_finite_differences(sampling):
    """Float64 copies of the two formulas; points fixed by the seed and by logits far from a tie."""
    config = LossConfig(sampling=sampling, points=30, importance=0.0, foreground_weight=10)
    target = disc(8, 0.3) > 0
    logits = disc(4, 0.3).requires_grad_()

    def loss(x):
        return object_losses(x, target, config, torch.Generator().manual_seed(1)).mean()

    (gradient,) = torch.autograd.grad(loss(logits), logits)
    step = torch.zeros_like(gradient)
    step[0, 1, 2] = 1e-2
    with torch.no_grad():
        numeric = (loss(logits + step) - loss(logits - step)) / 2e-2
    torch.testing.assert_close(gradient[0, 1, 2], numeric, rtol=1e-3, atol=1e-4)


def test_dense_loss_at_equal_size_is_bce_plus_dice_on_every_pixel(generator):
    logits = torch.randn(2, 8, 8, generator=generator)
    targets = torch.rand(2, 8, 8, generator=generator) > 0.5
    expected = bce_loss(logits, targets, foreground_weight=3) + 0.5 * dice_loss(logits, targets)
    config = LossConfig(sampling="dense", foreground_weight=3, dice_weight=0.5)
    torch.testing.assert_close(object_losses(logits, targets, config), expected)


def test_points_gather_at_the_outline_in_the_share_asked_for(generator):
    logits = disc(64, 0.25)
    points = uncertain_points(logits, count=1000, oversample=3, importance=0.75, generator=generator)
    assert points.shape == (1, 1000, 2)
    assert points.min() >= 0 and points.max() <= 1
    distance = ((points[0] - 0.5).norm(dim=1) - 0.25).abs()
    chosen, uniform = distance[:750], distance[750:]
    # 750 of 3000 candidates cover a quarter of the plane: a ring of half-width w with π((r+w)² − (r−w)²) = 1/4
    assert chosen.max() < 0.25 / (4 * torch.pi * 0.25) + 0.02
    assert uniform.max() > 0.4


def test_sampling_reproduces_cell_centres_and_a_ramp_between_them():
    ramp = torch.arange(8.0).repeat(8, 1).unsqueeze(0)  # value = column
    xs = torch.linspace(0.5 / 8, 7.5 / 8, 15)
    points = torch.stack([xs, torch.full_like(xs, 0.4)], dim=1).unsqueeze(0)
    torch.testing.assert_close(sample_at(ramp, points)[0], xs * 8 - 0.5)
    assert sample_at(ramp, torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])).tolist() == [[0.0, 7.0]]  # edges hold


def test_the_same_generator_gives_the_same_points(generator):
    config = LossConfig(points=100)
    logits, targets = disc(16, 0.3).repeat(3, 1, 1), (disc(64, 0.2) > 0).repeat(3, 1, 1)
    first = object_losses(logits, targets, config, torch.Generator().manual_seed(7))
    again = object_losses(logits, targets, config, torch.Generator().manual_seed(7))
    assert torch.equal(first, again)


@pytest.mark.parametrize("sampling", ["points", "dense"])
def test_autocast_does_not_reach_the_loss(sampling):
    config = LossConfig(sampling=sampling, points=200)
    logits, target = (20 * disc(16, 0.3)).requires_grad_(), disc(64, 0.28) > 0
    plain = object_losses(logits, target, config, torch.Generator().manual_seed(0)).mean()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = object_losses(logits, target, config, torch.Generator().manual_seed(0)).mean()
    assert inside.dtype == torch.float32
    assert torch.equal(plain, inside)


def test_the_docstrings_examples_hold():
    assert doctest.testmod(losses).failed == 0
