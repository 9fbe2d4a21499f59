"""SAM 3 here equals transformers' `Sam3TrackerModel` and image processor, and takes the published file's names."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Sam3TrackerConfig, Sam3TrackerModel, Sam3VideoConfig, Sam3VideoModel
from transformers.models.sam3.image_processing_sam3 import Sam3ImageProcessor

from rossam_core.errors import RossamError
from rossam_core.inference import windows
from rossam_core.inference.predictor import Predictor
from rossam_core.model.build import build_model
from rossam_core.model.sam3 import SAM3S, Sam3Segmenter, transformers_settings
from rossam_core.model.segmenter import set_trainable
from rossam_core.model.weights import load_checkpoint, save_weights, weights_hash
from rossam_core.settings import InferenceConfig
from rossam_core.training.recipes import RunConfig

TOLERANCE = 1e-4  # of logits, float32
S = 112
SMALL = {"dim": 32, "depth": 3, "heads": 4, "mlp_dim": 48, "global_attention": (1,), "window": 3, "position_size": 42}
SMALL |= {"input_size": S, "decoder_mlp_dim": 64}  # windows of 3 do not divide 8 tokens, so they are padded
SHARED = "positional_embedding"


@pytest.fixture
def small(perturb):
    """`small()`: three narrow blocks, input 112, every weight moved from where it starts."""
    return lambda seed=0, **over: perturb(build_model("sam3", "sam3", None, seed=seed, **{**SMALL, **over}))


@pytest.fixture
def frames():
    """Two RGB images of 112 pixels, 0-255, and two boxes for each."""
    generator = torch.Generator().manual_seed(4)
    boxes = torch.tensor([[10.0, 20, 60, 70], [0.5, 3, 112, 50]])
    return torch.rand(2, 3, S, S, generator=generator) * 255, [boxes, boxes.flip(0) * 0.5 + 3]


def transformers_state(model):
    """The tensors of a `Sam3TrackerModel` with the same weights."""
    state = model.state_dict()
    return state | {f"shared_image_embedding.{SHARED}": state[f"prompt_encoder.shared_embedding.{SHARED}"]}


def logits_of_transformers(theirs, images, boxes):
    """`Sam3TrackerModel` called the plain way: pixels in -1..1, and the boxes of every image."""
    with torch.no_grad():
        return theirs.eval()(pixel_values=images / 127.5 - 1, input_boxes=torch.stack(boxes), multimask_output=False)


@pytest.fixture
def whole(small, tmp_path):
    """A folder with the whole SAM 3 as it is published: `Sam3VideoModel`'s tensors under its own names."""
    tracker = transformers_settings(small().arch)
    tracker["vision_config"]["scale_factors"] = [4.0, 2.0, 1.0, 0.5]
    few = {"num_layers": 1, "intermediate_size": 16}
    text = {"model_type": "clip_text_model", "vocab_size": 64, "bos_token_id": 0, "eos_token_id": 0}
    text |= {"hidden_size": 32, "intermediate_size": 32, "projection_dim": 16}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    parts = dict.fromkeys(("geometry_encoder_config", "detr_encoder_config", "detr_decoder_config"), few)
    detector = {"vision_config": tracker["vision_config"], "text_config": text, **parts}
    config = Sam3VideoConfig(detector_config=detector, tracker_config={**tracker, "memory_attention_num_layers": 1})
    config.save_pretrained(tmp_path)
    with torch.random.fork_rng():
        state = Sam3VideoModel(config).state_dict()
    state = {name: torch.full_like(value, i / 100) for i, (name, value) in enumerate(sorted(state.items()))}
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    return tmp_path


# ---- parity


@torch.no_grad()
def test_equals_transformers(small, frames):
    ours, (images, boxes) = small(), frames
    theirs = Sam3TrackerModel(Sam3TrackerConfig(**transformers_settings(ours.arch)))
    theirs.load_state_dict(transformers_state(ours))
    out, expected = ours(images, boxes), logits_of_transformers(theirs, images, boxes)
    assert out.sam.shape == (4, 32, 32) and ours.mask_size == 32 and out.hq is None
    assert out.sam.std() > 0.1  # so that the tolerance means something
    assert (out.sam - expected.pred_masks.flatten(0, 2)).abs().max() <= TOLERANCE * out.sam.abs().max().clamp(min=1)
    assert (out.iou - expected.iou_scores.flatten()).abs().max() <= TOLERANCE


@torch.no_grad()
def test_equals_transformers_with_the_necks_fourth_level_but_for_no_memory(small, frames):
    """With its default four levels, transformers adds "no memory" to the one that its decoder never sees."""
    ours, (images, boxes) = small(), frames
    settings = transformers_settings(ours.arch)
    settings["vision_config"]["scale_factors"] = [4.0, 2.0, 1.0, 0.5]
    theirs = Sam3TrackerModel(Sam3TrackerConfig(**settings))
    theirs.load_state_dict(transformers_state(ours), strict=False)
    expected = logits_of_transformers(theirs, images, boxes).pred_masks.flatten(0, 2)
    assert (ours(images, boxes).sam - expected).abs().max() > 0.01
    ours.no_memory_embedding.zero_()
    assert (ours(images, boxes).sam - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp(min=1)


def test_the_constants_are_transformers_defaults():
    ours = Sam3TrackerConfig(**transformers_settings(SAM3S["sam3"])).to_dict()
    theirs = Sam3TrackerConfig().to_dict()
    theirs["vision_config"]["scale_factors"].pop()  # the level that the decoder does not use
    assert ours == theirs
    with torch.device("meta"):
        model = build_model("sam3", "sam3", None)
    assert (model.input_size, model.mask_size, model.resize, model.supports_points) == (1008, 288, "square", True)


@pytest.mark.parametrize("size_hw", [(80, 120), (1100, 1300)])
def test_frames_are_prepared_as_by_transformers(rng, size_hw):
    image = rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    (window,) = windows.plan(np.array([[1.0, 1, 9, 9]]), size_hw, 1008, InferenceConfig(mode="direct"), "square")
    cut = windows.cut(image, window, 1008, InferenceConfig(mode="direct"), Sam3Segmenter.pixel_mean, "square")
    ours = (torch.from_numpy(cut).permute(2, 0, 1) - 127.5) / 127.5
    planes, gray_level = torch.from_numpy(image).permute(2, 0, 1), 1 / 127.5
    unrounded, rounded = (
        Sam3ImageProcessor()(pixels, return_tensors="pt")["pixel_values"][0] for pixels in (planes.float(), planes)
    )
    torch.testing.assert_close(ours, unrounded, atol=0.05 * gray_level, rtol=0)  # as SAM 3's authors do it
    torch.testing.assert_close(ours, rounded, atol=1.01 * gray_level, rtol=0)  # rounded along each axis


# ---- contract


@torch.no_grad()
def test_one_encoding_serves_many_prompts_and_points_refine_a_box(small, frames, monkeypatch):
    model, (images, boxes) = small(), frames
    whole, embeddings = model(images, boxes), model.encode(images)
    assert embeddings.final.shape == (2, 256, 8, 8)
    monkeypatch.setattr("rossam_core.model.sam2.DECODED_PIXELS", S**2)  # one prompt at a time
    torch.testing.assert_close(model.decode(embeddings, boxes).sam, whole.sam, atol=TOLERANCE, rtol=0)
    points = [(torch.full((2, 1, 2), 30.0), torch.ones(2, 1, dtype=torch.int64))] * 2
    assert (model.decode(embeddings, boxes, points).sam - whole.sam).abs().max() > 0.01
    none = model.decode(embeddings, [torch.zeros(0, 4)] * 2)
    assert (none.sam.shape, none.hq, none.iou.shape) == ((0, 32, 32), None, (0,))


def test_groups_partition_the_parameters(small):
    model = small()
    groups = model.parameter_groups()
    assert {group for group, members in groups.items() if members} == {
        *("last_block", "encoder", "prompt_encoder", "sam_decoder"),
    }
    assert all(".layers.2." in name for name, _ in groups["last_block"])
    with pytest.raises(RossamError, match="lora"):
        set_trainable(model, ["lora"])


@pytest.mark.parametrize("mode", ["direct", "tiled", "shared", "object"])
def test_masks_lie_where_the_logits_are_in_all_modes(small, rng, mode, monkeypatch):
    """A mask cell is 3.5 input pixels wide: logits that are a disk on the input are the same disk on the frame."""
    image = rng.integers(0, 256, (S, S, 3), dtype=np.uint8)
    boxes = np.array([[10.0, 20, 30, 44], [60, 40, 98, 80]])
    predictor = Predictor(small(), InferenceConfig(mode=mode, rate=1, precision="float32"), "cpu")
    centres = (np.arange(32) + 0.5) * 3.5
    disk = (20 - np.hypot(centres[:, None] - 50, centres - 70)).astype(np.float32)  # centre x 70, y 50, radius 20
    monkeypatch.setattr(predictor, "decode", lambda _, prompts, owners: (np.stack([disk] * len(owners)), owners))
    y, x = np.mgrid[:S, :S] + 0.5
    for mask in predictor.predict(image, boxes):
        expected = np.hypot(y - 50, x - 70) < 20
        assert (mask.full() != expected).sum() <= 0.02 * expected.sum()


@pytest.mark.parametrize(
    ("method", "backbone", "options", "message"),
    [
        ("sam3", "vit_t", {}, "vit_t: is not known(.|\n)*use one of sam3"),
        ("sam3", "sam3", {"input_size": 100}, "multiple of 14(.|\n)*use 98"),
        ("sam3", "sam3", {"dephts": 3}, "dephts(.|\n)*global_attention"),
        ("sam3", "sam3", {"adapter": "lora", **SMALL}, "method sam3: has no adapters"),
    ],
)
def test_what_sam_3_does_not_have_is_refused(method, backbone, options, message):
    with pytest.raises(RossamError, match=message):
        build_model(method, backbone, None, **options)


def test_it_is_not_fine_tuned():
    with pytest.raises(ValueError, match="'sam', 'hq-sam', 'ros-sam' or 'sam2'"):
        RunConfig(method="sam3", backbone="sam3")


# ---- weights


def test_the_published_file_gives_what_transformers_takes_from_it(small, whole):
    model = small()
    load_checkpoint(model, whole / "model.safetensors")
    theirs = Sam3TrackerModel.from_pretrained(whole).state_dict()
    own = model.state_dict()
    assert len(own) > 150 and all(torch.equal(value, theirs[name]) for name, value in own.items())


def test_own_files_folders_and_the_trackers_state_dict_load(small, whole, tmp_path):
    model, other = small(), small(seed=9)
    assert weights_hash(model) != weights_hash(other)
    save_weights(model, tmp_path / "own.safetensors", {"steps": "12"})
    torch.save(transformers_state(model), tmp_path / "tracker.pth")
    for name in ("own.safetensors", "tracker.pth"):
        load_checkpoint(other, tmp_path / name)
        assert weights_hash(model) == weights_hash(other)
        other = small(seed=9)
    load_checkpoint(model, whole)
    state = load_file(whole / "model.safetensors")
    again = {name.replace("tracker_model.", "tracker_model." * 2): value for name, value in state.items()}
    save_file(again, tmp_path / "again.safetensors")  # what `Sam3VideoModel.save_pretrained` writes
    load_checkpoint(other, tmp_path / "again.safetensors")
    assert weights_hash(model) == weights_hash(other)
    theirs = Sam3TrackerModel.from_pretrained(whole)
    theirs.save_pretrained(tmp_path / "folder")
    load_checkpoint(other := small(seed=9), tmp_path / "folder")
    assert weights_hash(model) == weights_hash(other)


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(small, whole, tmp_path):
    state = load_file(whole / "model.safetensors")
    del state["tracker_model.no_memory_embedding"], state["tracker_neck.fpn_layers.0.proj1.bias"]
    state["tracker_model.mask_decoder.new_token.weight"] = torch.zeros(1)
    save_file(state, tmp_path / "odd.safetensors")
    model = small(seed=9)
    before = weights_hash(model)
    with pytest.raises(RossamError) as error:
        load_checkpoint(model, tmp_path / "odd.safetensors")
    assert "missing (2): no_memory_embedding, vision_encoder.neck.fpn_layers.0.proj1.bias" in str(error.value)
    assert "unexpected (1): mask_decoder.new_token.weight" in str(error.value)
    assert weights_hash(model) == before


def test_another_network_is_named(small, whole, monkeypatch):
    monkeypatch.setitem(SAM3S, "sam3", small().arch)
    with pytest.raises(RossamError, match=r"looks like sam3: dim 32, depth 3; the model is hiera_t"):
        build_model("sam2", "hiera_t", whole)
    with pytest.raises(RossamError, match=r"looks like sam3: dim 32, depth 3; the model is sam3: dim 16"):
        build_model("sam3", "sam3", whole, dim=16, heads=2)


def test_the_authors_own_names_are_refused_with_the_remedy(small, tmp_path):
    names = ("detector.backbone.vision_backbone.trunk.pos_embed", "tracker.sam_mask_decoder.iou_token.weight")
    torch.save({"model": {name: torch.zeros(1) for name in names}}, tmp_path / "sam3.pt")
    with pytest.raises(RossamError, match=r"(?s)sam3\.pt: is SAM 3 under its authors' own names.*model\.safetensors"):
        load_checkpoint(small(), tmp_path / "sam3.pt")


def test_weights_that_are_not_there_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path))
    with pytest.raises(RossamError, match=r"(?s)sam3\.safetensors: is not in the cache.*rossam fetch sam3"):
        build_model("sam3", "sam3", **SMALL)
