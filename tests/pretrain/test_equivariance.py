"""Mirrored weights: a mirrored image gives the mirrored features, and training keeps it so."""

import pytest
import torch

from rossam_core.errors import RossamError
from rossam_core.model.build import build_model
from rossam_core.model.weights import save_weights
from tools.pretrain.equivariance import (
    LEFT_RIGHT,
    PLANES,
    TOP_BOTTOM,
    decode_both_ways,
    mirror_gradients,
    mirror_weights,
    mirrored,
)
from tools.pretrain.initialization import initialize
from tools.pretrain.losses import agreement_loss
from tools.pretrain.train import pretrain

SIDE = 256
IMAGE_AXIS = {LEFT_RIGHT: -1, TOP_BOTTOM: -2}


@pytest.fixture(params=[("hq-sam", "vit_t"), ("sam2", "hiera_t")], ids="-".join)
def model(request):
    model = build_model(*request.param, checkpoint=None, box_offset=-0.5)
    initialize(model)
    mirror_weights(model)
    return model


@pytest.fixture
def images(rng):
    return torch.from_numpy(rng.uniform(0, 255, (2, 3, SIDE, SIDE))).float()


def features(model, images):
    found = model.prepare(model.encode(images))
    return found.final, *found.high_resolution


def masks(output):
    return [logits for logits in (output.sam, output.hq) if logits is not None]


@pytest.mark.parametrize("mirror", [LEFT_RIGHT, TOP_BOTTOM])
def test_a_mirrored_image_gives_the_mirrored_features(model, images, mirror):
    with torch.inference_mode():
        plain, turned = features(model, images), features(model, images.flip(IMAGE_AXIS[mirror]))
    for a, b in zip(plain, turned, strict=True):
        assert (mirrored(a, PLANES, mirror) - b).abs().max() < 1e-4 * a.std()
        assert a.std(dim=0).mean() > 0.1 * a.std()  # and other images give others


def test_an_image_upside_down_gives_the_mask_upside_down(model, images):
    box = torch.tensor([[20.0, 30.0, 90.0, 70.0]])
    turned = SIDE - box[:, [2, 3, 0, 1]]
    with torch.inference_mode():
        plain, other = model(images[:1], [box]), model(images[:1].flip((-2, -1)), [turned])
    for a, b in zip(masks(plain), masks(other), strict=True):
        assert (a - b.flip((-2, -1))).abs().max() < 1e-4 * a.std()
    assert torch.allclose(plain.iou, other.iou, atol=1e-5)


def test_decoding_both_ways_is_decoding_the_mirrored_image_too(model, images):
    boxes = [
        torch.tensor([[20.0, 30.0, 90.0, 70.0], [3.0, 8.0, 20.0, 19.0]]),
        torch.tensor([[50.0, 60.0, 99.0, 120.0]]),
    ]
    turned = [torch.stack([SIDE - b[:, 2], b[:, 1], SIDE - b[:, 0], b[:, 3]], dim=1) for b in boxes]
    with torch.inference_mode():
        plain, other = model(images, boxes), model(images.flip(-1), turned)
        both = decode_both_ways(model, model.encode(images), boxes)
    for ways, once, mirror in zip(masks(both), masks(plain), masks(other), strict=True):
        assert torch.allclose(ways, torch.cat([once, mirror.flip(-1)]), atol=1e-4 * float(once.std()))
    assert torch.allclose(both.iou, torch.cat([plain.iou, other.iou]), atol=1e-5)


def test_masks_that_agree_cost_nothing_and_disjoint_ones_one():
    a = torch.full((1, 8, 8), -20.0)
    a[:, :4] = 20
    assert float(agreement_loss(a, a)) == 0
    assert float(agreement_loss(a, a.flip(1))) == pytest.approx(1, abs=1e-6)
    assert float(agreement_loss(a, a.roll(1, 1))) == pytest.approx(0.25, abs=1e-6)  # 16 of 64 cells


def test_the_mean_gradient_is_that_of_the_mean_over_mirrored_images(model, images):
    def gradients(pictures):
        model.zero_grad()
        model.encode(pictures).final.square().square().mean().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    positions = [(), (-1,), (-2,), (-1, -2)]
    every = [gradients(images.flip(axes)) for axes in positions]
    gradients(images)
    mirror_gradients(model)
    largest = max(float(gradient.abs().max()) for gradient in every[0].values())
    for name, parameter in model.named_parameters():
        if name in every[0]:
            mean, found = sum(each[name] for each in every) / 4, parameter.grad
            if name == "vision_encoder.backbone.patch_embed.projection.weight":
                assert not found[:, :, :3].any() and not found[:, :, :, :3].any()  # patches tile
                mean, found = mean[:, :, 3:, 3:], found[:, :, 3:, 3:]
            assert (found - mean).abs().max() < 1e-3 * mean.abs().max() + 1e-6 * largest, name


def test_a_finished_run_has_mirrored_weights_and_only_such_can_be_gone_on_with(tmp_path):
    settings = {"batch_size": 2, "boxes_per_image": 1, "held_out_scenes": 1, "workers": 0, "threads": 1}
    settings |= {"small_samples": 4, "sam_samples": 4, "hq_samples": 2, "validate_every": 4, "small_lr": 1e-3}
    pretrain(settings, tmp_path / "first", "cpu", False)
    finished = tmp_path / "first" / "weights.safetensors"
    assert mirror_weights(build_model("hq-sam", "vit_t", finished)) == 0
    settings |= {"small_samples": 0, "hq_samples": 0}
    pretrain({**settings, "start_from": str(finished)}, tmp_path / "on", "cpu", False)
    assert (tmp_path / "on" / "sam.safetensors").is_file()  # SAM alone, from a file that holds an HQ head too
    with pytest.raises(RossamError, match=r"other\.safetensors: .*no mirror images"):
        save_weights(build_model("sam", "vit_t", checkpoint=None), tmp_path / "other.safetensors", {})
        pretrain({**settings, "start_from": str(tmp_path / "other.safetensors")}, tmp_path / "second", "cpu", False)
