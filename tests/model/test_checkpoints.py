"""Weights survive the disk, and a file that does not fit says everything that is wrong with it."""

import argparse
import gzip
import json
import pickle
import zipfile
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import rossam_core.model
from rossam_core.errors import RossamError
from rossam_core.model import weights as checkpoints
from rossam_core.model.build import METHODS, build_model
from rossam_core.model.weights import default_checkpoint, load_checkpoint, official_files, save_weights, weights_hash

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
    with pytest.raises(RossamError, match="were trained on weights"):
        load_checkpoint(build_model("ros-sam", "vit_t", lora_rank=4, **FRESH), tmp_path / "adapters.safetensors")
    with pytest.raises(RossamError, match="lora"):
        save_weights(tiny("sam"), tmp_path / "none.safetensors", groups=["lora"])


def test_an_hq_model_takes_a_sam_file_only_when_told_its_head_stays_fresh(tiny, tmp_path):
    save_official(tiny("sam"), tmp_path / "sam.pth")
    model = build_model("hq-sam", "vit_t", seed=9, **FRESH)
    before, head = weights_hash(model), model.mask_decoder.hf_token.weight.clone()
    with pytest.raises(RossamError, match=r"missing \(25\)(.|\n)*use it with method sam"):
        load_checkpoint(model, tmp_path / "sam.pth")
    assert weights_hash(model) == before
    load_checkpoint(model, tmp_path / "sam.pth", allow_missing=["hq_head"])
    assert torch.equal(model.mask_decoder.hf_token.weight, head)
    assert weights_hash(model, without=["hq_head"]) == weights_hash(tiny("sam"))


def test_a_sam_takes_an_hq_file_only_when_told_to_leave_the_head(tiny, tmp_path):
    save_official(tiny("hq-sam"), tmp_path / "hq.pth")
    model = build_model("sam", "vit_t", seed=9, **FRESH)
    with pytest.raises(RossamError, match=r"unexpected \(25\)(.|\n)*use it with method hq-sam"):
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


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "old.pth"])
@pytest.mark.parametrize("keep", [0, 100, 200_000])
def test_a_truncated_file_is_an_error_that_names_it(tiny, tmp_path, name, keep):
    model, path = tiny("sam"), tmp_path / name
    if name == "old.pth":
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    else:
        (save_weights if name.endswith("tensors") else save_official)(model, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RossamError, match=rf"{name}: is (empty|cut off or damaged) \({keep:,} bytes"):
        load_checkpoint(model, path)


ARGUMENTS = argparse.Namespace(lr=1e-4, out=Path("runs"), device=torch.device("cpu"))
LIGHTNING = {"epoch": 3, "global_step": 10, "pytorch-lightning_version": "2.4.0"}
WRAPPINGS = {
    "DistributedDataParallel": lambda state: prefixed("module.", state),
    "torch.compile": lambda state: prefixed("_orig_mod.", state),
    "compiled, then distributed": lambda state: prefixed("module._orig_mod.", state),
    "a compiled encoder": lambda state: {
        name.replace("image_encoder.", "image_encoder._orig_mod."): value for name, value in state.items()
    },
    "a member called sam": lambda state: prefixed("sam.", state),
    "two members deep": lambda state: prefixed("net.model.", state),
    "a trainer's": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}, "epoch": 7},
    "state_dict": lambda state: {"state_dict": state},
    "model_state_dict, distributed": lambda state: {"model_state_dict": prefixed("module.", state), "best": 0.7},
    "a moving average alone": lambda state: {"ema": {"module": state}, "epoch": 1},
    "torch's AveragedModel": lambda state: {"n_averaged": torch.tensor(3)} | prefixed("module.", state),
    "an unusual key": lambda state: {"segmenter": state, "step": 12},
    "by parts": lambda state: {
        part: {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(part)}
        for part in ("image_encoder", "prompt_encoder", "mask_decoder")
    },
    "Lightning's": lambda state: LIGHTNING | {"state_dict": prefixed("model.", state)},
    "with arguments": lambda state: {"model": state, "args": ARGUMENTS, "date": datetime(2026, 1, 1)},
    "with numpy": lambda state: {"model": state, "best": np.float64(0.7), "epoch": np.int64(3), "log": np.zeros(2)},
    "beside plain values": lambda state: {**state, "epoch": 3, "name": "run 7"},
    "q, k and v apart": lambda state: checkpoints._split_qkv(state),
    "double precision": lambda state: {name: value.double() for name, value in state.items()},
}


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize("form", ["zip", "old"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_load_from_the_wrappings_people_have_them_in(tiny, tmp_path, wrapping, form):
    model, other = tiny("hq-sam"), build_model("hq-sam", "vit_t", seed=9, **FRESH)
    save_official(model, tmp_path / "a.pth")
    wrapped = WRAPPINGS[wrapping](torch.load(tmp_path / "a.pth", weights_only=True))
    torch.save(wrapped, tmp_path / "wrapped.ckpt", _use_new_zipfile_serialization=form == "zip")
    assert load_checkpoint(other, tmp_path / "wrapped.ckpt") == {}
    assert same(model, other)


def test_the_core_alone_reads_official_files_and_its_own_and_names_what_reads_others(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(rossam_core.model, "checkpoint_reader", None)
    model = tiny("hq-sam")
    save_official(model, tmp_path / "official.pth")
    save_weights(model, tmp_path / "own.safetensors")
    for name in ("official.pth", "own.safetensors"):
        other = build_model("hq-sam", "vit_t", seed=9, **FRESH)
        load_checkpoint(other, tmp_path / name)
        assert same(model, other)
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "trainer.ckpt")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "official.pth").read_bytes()[:1000])
    for name in ("trainer.ckpt", "cut.pth"):
        with pytest.raises(RossamError, match=rf"{name}: is damaged, or no official(.|\n)*need the package rossam_kit"):
            load_checkpoint(other, tmp_path / name)
    with pytest.raises(RossamError, match="no such file"):
        load_checkpoint(other, tmp_path / "absent.pth")


def test_the_kind_of_a_file_is_seen_in_its_bytes_not_its_name(tiny, tmp_path):
    model = tiny("sam")
    save_official(model, tmp_path / "a.pth")
    state = torch.load(tmp_path / "a.pth", weights_only=True)
    torch.save(state, tmp_path / "torch.safetensors")
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "official.pth")
    for name in ("torch.safetensors", "official.pth"):
        other = build_model("sam", "vit_t", seed=9, **FRESH)
        load_checkpoint(other, tmp_path / name)
        assert same(model, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_the_model_has_it(tiny, tmp_path, dtype):
    model, other = tiny("sam"), build_model("sam", "vit_t", seed=9, **FRESH)
    torch.save({name: value.to(dtype) for name, value in model.state_dict().items()}, tmp_path / "half.pth")
    load_checkpoint(other, tmp_path / "half.pth")
    for value, loaded in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert loaded.dtype == torch.float32 and torch.equal(loaded, value.to(dtype).float())


def test_what_is_ignored_is_said(tiny, tmp_path):
    model, state = tiny("sam"), tiny("sam").state_dict()
    average = {name: value + 1 for name, value in state.items()}
    torch.save({"model": state, "ema": average, "optimizer": {}}, tmp_path / "both.pth")
    lightning = {"state_dict": prefixed("model.", state) | {"loss.weight": torch.ones(2)}}
    torch.save(lightning, tmp_path / "lightning.ckpt")
    for name, aside in (("both.pth", "ema"), ("lightning.ckpt", "loss.weight")):
        other = build_model("sam", "vit_t", seed=9, **FRESH)
        with pytest.warns(UserWarning, match=f"{name}: ignored {aside}"):
            assert load_checkpoint(other, tmp_path / name) == {"ignored": aside}
        assert same(model, other)


@pytest.mark.parametrize(
    ("method", "form"), [("sam", "folder"), ("sam", "shards"), ("sam", "file"), ("hq-sam", "bin"), ("hq-sam", "folder")]
)
def test_hugging_face_models_load_and_segment_as_in_transformers(
    tiny, to_transformers, small_images, tmp_path, method, form
):
    as_theirs = {"decoder_mlp_dim": 2048, "box_offset": 0.0}
    model, folder = tiny(method, **as_theirs), tmp_path / "downloaded"
    theirs = to_transformers(model)
    theirs.save_pretrained(folder, max_shard_size="1MB" if form == "shards" else "5GB")
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (form == "shards")
    if form == "bin":
        torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    path = folder / "model.safetensors" if form == "file" else folder
    ours = build_model(method, "vit_t", **FRESH | as_theirs | {"checkpoint": path})
    assert same(model, ours)
    if method == "hq-sam":  # its numbers are compared in test_hq_decoder.py
        return
    boxes = torch.tensor([[[10.0, 12, 40, 50]], [[3.5, 5.25, 60, 33]], [[0, 0, 64, 64]]])
    pixels = (small_images - ours._mean) / ours._std
    with torch.inference_mode():
        expected = theirs(pixel_values=pixels, input_boxes=boxes, multimask_output=False).pred_masks[:, 0, 0]
        logits = ours(small_images, list(boxes))
    assert expected.std() > 0.5  # so that the tolerance means something
    torch.testing.assert_close(logits.sam, expected, atol=1e-3, rtol=0)


NOT_WEIGHTS = {
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 375042383\n",
    "a web page": b"\n<!DOCTYPE html><html>Virus scan warning</html>",
    "JSON text": b'{"message": "Not Found"}',
    "a gzip archive": gzip.compress(b"weights"),
    "a plain pickle": pickle.dumps({"a": 1}),
    "cut off or damaged": b"\x80",
    "no PyTorch or safetensors file": b"GGUF\x03\x00\x00\x00\x00",
}


@pytest.mark.parametrize("kind", NOT_WEIGHTS)
def test_files_that_are_no_weights_are_named_for_what_they_are(tiny, tmp_path, kind):
    (tmp_path / "w.pth").write_bytes(NOT_WEIGHTS[kind])
    with pytest.raises(RossamError, match=f"w.pth: is {kind}"):
        load_checkpoint(tiny("sam"), tmp_path / "w.pth")


def test_archives_and_folders_without_weights_are_named_for_what_they_are(tiny, tmp_path):
    model = tiny("sam")
    np.savez(tmp_path / "arrays.npz", a=np.zeros(2))
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        archive.writestr("program/constants.pkl", b"")
    (tmp_path / "distributed").mkdir()
    (tmp_path / "distributed/.metadata").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters/adapter_config.json").touch()
    for folder, names in {"no-part": {"a": "model-1.safetensors"}, "no-name": {}}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    for name, finding in (
        ("absent.pth", "no such file"),
        ("arrays.npz", r"is a zip archive that holds a\.npy"),
        ("program.pt", "is a TorchScript program"),
        ("distributed", "is a distributed checkpoint"),
        ("adapters", "holds adapters of peft alone"),
        ("no-part/model.safetensors.index.json", r"the weights that it names are not there: model-1\.safetensors"),
        ("no-name/model.safetensors.index.json", "the weights that it names are not there: all files"),
        ("empty", r"holds nothing; neither a fine-tuning run \(run\.json\) nor a Hugging Face folder"),
    ):
        path = tmp_path / name
        path = path.parent if path.name == "model.safetensors.index.json" else path
        with pytest.raises(RossamError, match=f"{name}: {finding}"):
            load_checkpoint(model, path)
        with pytest.raises(RossamError, match=f"{name}: {finding}"):
            build_model("sam", "vit_t", path)


class Settings:
    """Of a trainer; its class is no part of torch or numpy."""


@pytest.mark.parametrize("form", ["zip", "old"])
def test_what_is_not_unpickled_is_said_in_one_sentence_with_its_name(tiny, tmp_path, form):
    options = {"_use_new_zipfile_serialization": form == "zip"}
    torch.save({"model": tiny("sam").state_dict(), "settings": Settings()}, tmp_path / "settings.pth", **options)
    torch.save(tiny("sam"), tmp_path / "whole.pth", **options)
    finding = {"zip": r"is a whole pickled model \(rossam_core", "old": r"holds objects \(rossam_core"}[form]
    for name, expected in (("settings.pth", r"holds objects \(\S*Settings\) besides tensors"), ("whole.pth", finding)):
        with pytest.raises(RossamError, match=f"{name}: {expected}") as error:
            load_checkpoint(tiny("sam"), tmp_path / name)
        text = str(error.value)
        assert "torch.save(model.state_dict()" in text and len(text.splitlines()) == 2
        assert "\x1b" not in text and "damaged" not in text and "weights_only" not in text


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        ({"epoch": 3, "loss": 0.1}, "holds epoch, loss; which of it is the weights is unclear"),
        ({"first": {"a": torch.zeros(1)}, "second": {"a": torch.zeros(1)}}, "holds first, second; which"),
        ({"state": {0: {"exp_avg": torch.zeros(1)}}, "param_groups": []}, "is the state of an optimizer, not weights"),
        (
            {name: torch.zeros(1) for name in ("conv1.weight", "layer1.0.bias", "fc.weight", "fc.bias")},
            r"another kind of network .*: its tensors are conv1\.weight, layer1\.0\.bias, fc\.weight, …",
        ),
        ([torch.zeros(1)], "holds a list, expected tensors by name"),
        (
            {"student.mask_decoder.a": torch.zeros(1), "teacher.mask_decoder.a": torch.zeros(1)},
            r"holds 2 networks, below student\., teacher\.",
        ),
        ({"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(1)}, r"this is MobileSAM .*TinyViT"),
        ({"image_encoder.trunk.patch_embed.proj.weight": torch.zeros(96, 3, 7, 7)}, "dim 96.*the model is vit_t"),
    ],
)
def test_contents_that_are_not_one_such_network_are_refused(tiny, tmp_path, content, finding):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(RossamError, match=finding):
        load_checkpoint(tiny("sam"), tmp_path / "w.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tiny, tmp_path, value):
    model = tiny("sam")
    before, state = weights_hash(model), dict(model.state_dict())
    state["mask_decoder.iou_token.weight"] = torch.full_like(state["mask_decoder.iou_token.weight"], value)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(RossamError, match=r"NaN or infinite \(1\): mask_decoder.iou_token.weight(.|\n)*diverged"):
        load_checkpoint(model, tmp_path / "w.pth")
    state["mask_decoder.iou_token.weight"] = torch.zeros(1, 256, dtype=torch.int8)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(RossamError, match=r"stored as whole numbers \(quantised\) \(1\): mask_decoder.iou_token"):
        load_checkpoint(model, tmp_path / "w.pth")
    assert weights_hash(model) == before


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
    with pytest.raises(RossamError, match=r"vit_t\.safetensors: no such file"):
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
