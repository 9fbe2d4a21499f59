"""Adapters' identities: fresh ones change nothing, W' = W + B·A, merging is exact and idempotent."""

from typing import get_args

import pytest
import torch

from rossam_core.errors import RossamError
from rossam_core.model.build import build_model
from rossam_core.model.lora import AdapterKind, add_adapter, default_rank, is_adapter, merge_adapters
from rossam_core.model.segmenter import set_trainable
from rossam_core.model.weights import load_checkpoint, save_weights

KINDS = get_args(AdapterKind)
BOXES = [torch.tensor([[4.0, 5, 30, 40]])] * 3


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_fresh_adapters_change_nothing(kind, tiny, small_images):
    model = tiny("hq-sam")
    before = model(small_images, BOXES)
    add_adapter(model, 4, kind)
    after = model(small_images, BOXES)
    tolerance = 1e-5 if kind == "dora" else 0
    torch.testing.assert_close(after.sam, before.sam, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(after.hq, before.hq, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_the_group_lora_holds_whatever_adapter_and_a_step_on_it_moves_it_alone(kind, tiny, small_images):
    model, plain = tiny("ros-sam", adapter=kind), tiny("hq-sam")
    members = model.parameter_groups()["lora"]
    own = {name.replace(".base_layer.", ".") for name, _ in model.named_parameters() if not is_adapter(name)}
    assert own == {name for name, _ in plain.named_parameters()}
    assert {name.split(".attn.")[1].split(".")[0] for name, _ in members} == {"q_proj", "v_proj"}
    trained = set_trainable(model, ["lora"])
    model(small_images, BOXES).hq.square().mean().backward()
    assert len(trained) == len(members) and all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_saved_loaded_and_merged(kind, tiny, small_images, tmp_path):
    trained, other = tiny("ros-sam", adapter=kind), tiny("ros-sam", adapter=kind)
    for _, parameter in trained.parameter_groups()["lora"]:
        parameter += 0.05
    save_weights(trained, tmp_path / "w.safetensors", groups=["lora"])
    load_checkpoint(other, tmp_path / "w.safetensors")
    expected = trained.encode(small_images).final
    assert torch.equal(other.encode(small_images).final, expected)
    merge_adapters(other)
    assert list(other.state_dict()) == list(tiny("hq-sam").state_dict())
    torch.testing.assert_close(other.encode(small_images).final, expected, atol=1e-5, rtol=1e-5)


def test_loha_has_loras_budget_and_ia3_next_to_none(tiny):
    size = {k: sum(p.numel() for _, p in tiny("ros-sam", adapter=k).parameter_groups()["lora"]) for k in KINDS}
    assert size["loha"] == size["lora"] < size["dora"] and size["ia3"] == 2 * 2 * 192


def test_an_unknown_kind_is_refused(tiny):
    with pytest.raises(RossamError, match="dora"):
        add_adapter(tiny("sam"), 4, "prefix")


def test_adapters_sit_on_q_and_v_of_every_block_and_nowhere_else(tiny):
    names = [name for name, _ in tiny("ros-sam").parameter_groups()["lora"]]
    modules = sorted({name.split(".lora_")[0] for name in names})
    assert modules == [f"image_encoder.blocks.{block}.attn.{letter}_proj" for block in (0, 1) for letter in "qv"]


def test_nothing_is_frozen_by_adding(tiny):
    assert all(parameter.requires_grad for parameter in tiny("ros-sam").parameters())


def test_merged_weight_is_w_plus_b_a(tiny):
    model = tiny("hq-sam")
    add_adapter(model, rank=3)
    adapted = model.image_encoder.blocks[1].attn.v_proj
    a, b = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    torch.nn.init.normal_(b, generator=torch.Generator().manual_seed(0))
    expected = adapted.base_layer.weight + b @ a
    merge_adapters(model)
    torch.testing.assert_close(model.image_encoder.blocks[1].attn.v_proj.weight, expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_merging_keeps_the_output_and_is_idempotent(tiny, small_images):
    model = tiny("ros-sam")  # perturbed, so B is not zero
    before = model.encode(small_images)
    merge_adapters(model)
    names = list(model.state_dict())
    merged = model.encode(small_images)
    merge_adapters(model)
    assert (merged.final - before.final).abs().max() <= 1e-5
    assert list(model.state_dict()) == names == list(tiny("hq-sam").state_dict())
    assert torch.equal(model.encode(small_images).final, merged.final)


def test_default_rank_is_half_the_width(tiny):
    assert default_rank(1024) == 512  # released code, ViT-L
    model = build_model("ros-sam", "vit_t", checkpoint=None, depth=1, global_attention=(0,))
    assert model.image_encoder.blocks[0].attn.q_proj.lora_A["default"].weight.shape == (96, 192)


def test_rank_zero_is_refused(tiny):
    with pytest.raises(ValueError, match="positive integer"):
        add_adapter(tiny("sam"), rank=0)
