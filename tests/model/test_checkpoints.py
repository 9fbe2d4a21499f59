"""Weights survive the disk, and a file that does not fit says everything that is wrong with it."""

import pytest
import torch

from rossam_core.errors import RossamError
from rossam_core.model import checkpoints
from rossam_core.model.checkpoints import (
    default_checkpoint,
    load_checkpoint,
    official_files,
    save_weights,
    weights_hash,
)
from rossam_core.model.rossam import METHODS, build_model

from .official import save_official

FRESH = {"checkpoint": None, "depth": 2, "global_attention": (0,), "input_size": 64, "decoder_mlp_dim": 64}


def same(a, b):
    return weights_hash(a) == weights_hash(b)


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_weights_are_the_same(tiny, tmp_path, method):
    model = tiny(method)
    other = build_model(method, "vit_t", lora_rank=4, seed=9, **FRESH)
    assert not same(model, other)
    save_weights(model, tmp_path / "w.safetensors", {"steps": "12"})
    metadata = load_checkpoint(other, tmp_path / "w.safetensors")
    assert same(model, other)
    assert (metadata["steps"], metadata["method"], metadata["backbone"]) == ("12", method, "vit_t")


def test_official_files_round_trip_with_joined_qkv(tiny, tmp_path):
    model = tiny("hq-sam")
    save_official(model, tmp_path / "a.pth")
    state = torch.load(tmp_path / "a.pth", weights_only=True)
    assert state["image_encoder.blocks.0.attn.qkv.weight"].shape == (576, 192)
    assert not any("image_encoder" in name and "q_proj" in name for name in state)

    other = build_model("hq-sam", "vit_t", seed=9, **FRESH)
    load_checkpoint(other, tmp_path / "a.pth")
    save_official(other, tmp_path / "b.pth")
    again = torch.load(tmp_path / "b.pth", weights_only=True)
    assert same(model, other)
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_half_precision_storage_rounds_parameters_only(tiny, tmp_path):
    model, other = tiny("sam"), build_model("sam", "vit_t", seed=9, **FRESH)
    save_weights(model, tmp_path / "w.safetensors", half=True)
    load_checkpoint(other, tmp_path / "w.safetensors")
    for (name, value), loaded in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        rounded = value if "gaussian" in name else value.half().float()
        assert torch.equal(loaded, rounded), name


def test_adapters_alone_load_on_what_they_were_trained_on(tiny, tmp_path):
    trained, untouched = tiny("ros-sam"), tiny("ros-sam")
    with torch.no_grad():
        for group in ("lora", "hq_head"):
            for _, parameter in trained.parameter_groups()[group]:
                parameter += 1
    save_weights(trained, tmp_path / "adapters.safetensors", groups=["lora", "hq_head"])
    load_checkpoint(untouched, tmp_path / "adapters.safetensors")
    assert same(trained, untouched)
    with pytest.raises(RossamError, match="sit on weights"):
        load_checkpoint(build_model("ros-sam", "vit_t", lora_rank=4, **FRESH), tmp_path / "adapters.safetensors")
    with pytest.raises(RossamError, match="lora"):
        save_weights(tiny("sam"), tmp_path / "none.safetensors", groups=["lora"])


def test_an_hq_model_takes_a_sam_file_only_when_told_its_head_stays_fresh(tiny, tmp_path):
    save_official(tiny("sam"), tmp_path / "sam.pth")
    model = build_model("hq-sam", "vit_t", seed=9, **FRESH)
    before, head = weights_hash(model), model.mask_decoder.hf_token.weight.clone()
    with pytest.raises(RossamError, match=r"missing \(25\)(.|\n)*allow_missing"):
        load_checkpoint(model, tmp_path / "sam.pth")
    assert weights_hash(model) == before
    load_checkpoint(model, tmp_path / "sam.pth", allow_missing=["hq_head"])
    assert torch.equal(model.mask_decoder.hf_token.weight, head)
    assert weights_hash(model, without=["hq_head"]) == weights_hash(tiny("sam"))


def test_a_sam_takes_an_hq_file_only_when_told_to_leave_the_head(tiny, tmp_path):
    save_official(tiny("hq-sam"), tmp_path / "hq.pth")
    model = build_model("sam", "vit_t", seed=9, **FRESH)
    with pytest.raises(RossamError, match=r"unexpected \(25\)"):
        load_checkpoint(model, tmp_path / "hq.pth")
    load_checkpoint(model, tmp_path / "hq.pth", ignore=["hq_head"])
    assert weights_hash(model) == weights_hash(tiny("hq-sam"), without=["hq_head"])


def test_all_that_does_not_fit_is_listed_at_once_and_nothing_is_loaded(tiny, tmp_path):
    state = dict(tiny("sam").state_dict())
    del state["mask_decoder.iou_token.weight"]
    state["surplus"] = torch.zeros(1)
    state["image_encoder.neck.1.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "odd.pth")
    model = tiny("sam")
    before = weights_hash(model)
    with pytest.raises(RossamError) as error:
        load_checkpoint(model, tmp_path / "odd.pth")
    text = str(error.value)
    assert "missing (1): mask_decoder.iou_token.weight" in text
    assert "unexpected (1): surplus" in text
    assert "misshapen (1): image_encoder.neck.1.bias is (7,), expected (256,)" in text
    assert weights_hash(model) == before


def test_a_group_may_be_missing_altogether_but_not_in_part(tiny, tmp_path):
    state = dict(tiny("hq-sam").state_dict())
    del state["mask_decoder.hf_token.weight"]
    torch.save(state, tmp_path / "partial.pth")
    with pytest.raises(RossamError, match="hf_token"):
        load_checkpoint(tiny("hq-sam"), tmp_path / "partial.pth", allow_missing=["hq_head"])


def test_another_backbone_is_named(tiny, tmp_path):
    names = {f"image_encoder.blocks.{i}.norm1.weight": torch.zeros(768) for i in range(12)}
    torch.save(names | {"image_encoder.patch_embed.proj.weight": torch.zeros(768, 3, 16, 16)}, tmp_path / "b.pth")
    with pytest.raises(RossamError, match="looks like vit_b: dim 768, depth 12; the model is vit_t"):
        load_checkpoint(tiny("sam"), tmp_path / "b.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("keep", [0, 100, 200_000])
def test_a_truncated_file_is_an_error_that_names_it(tiny, tmp_path, name, keep):
    model, path = tiny("sam"), tmp_path / name
    (save_weights if name.endswith("tensors") else save_official)(model, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RossamError, match=rf"{name}: cannot be read .*{keep:,} bytes"):
        load_checkpoint(model, path)


def test_files_that_are_no_weights_are_refused(tiny, tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}, "epoch": 3}, tmp_path / "nested.pth")
    with pytest.raises(RossamError, match="holds model, epoch"):
        load_checkpoint(tiny("sam"), tmp_path / "nested.pth")
    with pytest.raises(RossamError, match="no such file"):
        load_checkpoint(tiny("sam"), tmp_path / "absent.pth")
    with pytest.raises(RossamError, match="is a folder"):
        load_checkpoint(tiny("sam"), tmp_path)


def test_a_known_name_with_another_hash_is_refused(tiny, tmp_path):
    path = tmp_path / "sam_vit_b_01ec64.pth"
    path.write_bytes(b"half a download")
    with pytest.raises(RossamError, match=r"sha256 is .*expected ec2df6(.|\n)*dl\.fbaipublicfiles\.com"):
        load_checkpoint(tiny("sam"), path)


def test_default_checkpoints_come_from_the_cache_or_say_what_to_place_there(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path))
    monkeypatch.setattr(checkpoints.pooch, "retrieve", offline)
    for file in official_files():
        with pytest.raises(RossamError) as error:
            default_checkpoint(file.backbone, file.hq)
        place = tmp_path / "checkpoints" / file.name
        command = f"rossam fetch {file.fetch_name}"
        assert all(part in str(error.value) for part in (str(place), file.url, file.known_hash, command))
        place.parent.mkdir(exist_ok=True)
        place.touch()
        assert default_checkpoint(file.backbone, file.hq) == place


def test_a_missing_shipped_prior_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(checkpoints.SHIPPED, "vit_t", tmp_path / "vit_t.safetensors")
    with pytest.raises(RossamError, match=r"vit_t\.safetensors.*ships with the package"):
        build_model("sam", "vit_t")


def test_shipped_prior_serves_every_method_and_recipe(tiny, tmp_path, monkeypatch):
    prior = tiny("hq-sam")
    save_weights(prior, tmp_path / "vit_t.safetensors")
    monkeypatch.setitem(checkpoints.SHIPPED, "vit_t", tmp_path / "vit_t.safetensors")
    settings = {name: value for name, value in FRESH.items() if name != "checkpoint"}
    for method in METHODS:
        model = build_model(method, "vit_t", for_training=True, **settings)
        assert weights_hash(model, without=["lora", "hq_head"]) == weights_hash(prior, without=["hq_head"])
        if method != "sam":
            assert torch.equal(model.mask_decoder.hf_token.weight, prior.mask_decoder.hf_token.weight)
    released = build_model("ros-sam", "vit_t", fresh_hq_head=True, for_training=True, **settings)
    assert not torch.equal(released.mask_decoder.hf_token.weight, prior.mask_decoder.hf_token.weight)


def test_position_embeddings_are_resized_only_when_asked(tiny, tmp_path):
    save_official(tiny("sam"), tmp_path / "small.pth")
    larger = build_model("sam", "vit_t", **FRESH | {"input_size": 128})
    with pytest.raises(RossamError, match=r"pos_embed is \(1, 4, 4, 192\), expected \(1, 8, 8, 192\)"):
        load_checkpoint(larger, tmp_path / "small.pth")
    load_checkpoint(larger, tmp_path / "small.pth", resize_positions=True)
    small, large = tiny("sam").image_encoder.pos_embed, larger.image_encoder.pos_embed
    torch.testing.assert_close(large.mean(), small.mean(), atol=0.01, rtol=0)


def test_hash_depends_on_every_value_and_on_nothing_else(tiny):
    model = tiny("ros-sam")
    before = weights_hash(model)
    assert weights_hash(tiny("ros-sam")) == before
    with torch.no_grad():
        model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix[0, 0] += 1e-3
    assert weights_hash(model) != before
