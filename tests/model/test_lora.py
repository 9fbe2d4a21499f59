"""LoRA's identities: fresh adapters change nothing, W' = W + scale·B·A, merging is exact and idempotent."""

import pytest
import torch

from rossam_core.errors import RossamError
from rossam_core.model.lora import add_lora, default_rank, merge_lora
from rossam_core.model.rossam import build_model

BOXES = [torch.tensor([[4.0, 5, 30, 40]])] * 3


def test_fresh_adapters_change_nothing(tiny, small_images):
    model = tiny("hq-sam")
    before = model(small_images, BOXES)
    add_lora(model, rank=4)
    after = model(small_images, BOXES)
    assert torch.equal(before.sam, after.sam)
    assert torch.equal(before.hq, after.hq)


def test_adapters_sit_on_q_and_v_of_every_block_and_nowhere_else(tiny):
    names = [name for name, _ in tiny("ros-sam").parameter_groups()["lora"]]
    modules = sorted({name.split(".lora_")[0] for name in names})
    assert modules == [f"image_encoder.blocks.{block}.attn.{letter}_proj" for block in (0, 1) for letter in "qv"]


def test_nothing_is_frozen_by_adding(tiny):
    assert all(parameter.requires_grad for parameter in tiny("ros-sam").parameters())


def test_merged_weight_is_w_plus_scale_b_a(tiny):
    model = tiny("hq-sam")
    add_lora(model, rank=3, scale=0.5)
    adapted = model.image_encoder.blocks[1].attn.v_proj
    a, b = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    torch.nn.init.normal_(b, generator=torch.Generator().manual_seed(0))
    expected = adapted.base_layer.weight + 0.5 * b @ a
    merge_lora(model)
    torch.testing.assert_close(model.image_encoder.blocks[1].attn.v_proj.weight, expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_merging_keeps_the_output_and_is_idempotent(tiny, small_images):
    model = tiny("ros-sam")  # perturbed, so B is not zero
    before = model.encode(small_images)
    merge_lora(model)
    names = list(model.state_dict())
    merged = model.encode(small_images)
    merge_lora(model)
    assert (merged.final - before.final).abs().max() <= 1e-5
    assert list(model.state_dict()) == names == list(tiny("hq-sam").state_dict())
    assert torch.equal(model.encode(small_images).final, merged.final)


def test_default_rank_is_half_the_width(tiny):
    assert default_rank(1024) == 512  # released code, ViT-L
    model = build_model("ros-sam", "vit_t", checkpoint=None, depth=1, global_attention=(0,))
    assert model.image_encoder.blocks[0].attn.q_proj.lora_A["default"].weight.shape == (96, 192)


def test_rank_zero_is_refused(tiny):
    with pytest.raises(RossamError, match="rank"):
        add_lora(tiny("sam"), rank=0)
