"""SAM2 here equals transformers' `Sam2Model`, keeps the segmenters' contract, and takes official weights."""

import numpy as np
import pytest
import torch
from transformers import Sam2Model

from rossam_core.errors import RossamError
from rossam_core.inference.predictor import Predictor
from rossam_core.model import weights as checkpoints
from rossam_core.model.build import build_model
from rossam_core.model.sam import PIXEL_MEAN, PIXEL_STD
from rossam_core.model.sam2 import HIERAS, transformers_config
from rossam_core.model.sam2_keys import VIDEO_MEMORY
from rossam_core.model.segmenter import GROUPS, set_trainable
from rossam_core.model.weights import load_checkpoint, save_weights, weights_hash
from rossam_core.settings import InferenceConfig

from .official import save_official

TOLERANCE = 1e-4  # of logits, float32
BOXES = [torch.tensor([[4.0, 5, 30, 40], [20, 10, 60, 22]]), torch.zeros(0, 4), torch.tensor([[1.0, 1, 9, 9]])]
SMALL = {"blocks": (1, 1, 3, 1), "global_attention": (3,), "input_size": 64, "decoder_mlp_dim": 64}


@pytest.fixture
def small(perturb):
    """`small()`: hiera_t's widths, few blocks, input 64, every weight moved from where it starts."""
    return lambda seed=0, **over: perturb(build_model("sam2", "hiera_t", None, seed=seed, **{**SMALL, **over}))


def same(a, b):
    return weights_hash(a) == weights_hash(b)


# ---- parity


def logits_of_transformers(ours, images, boxes, **points):
    """`Sam2Model` on the same weights, called the plain way: pixels and boxes, as many of them for every image."""
    theirs = Sam2Model(transformers_config(ours.arch)).eval()
    positions = ours.state_dict()["prompt_encoder.shared_embedding.positional_embedding"]
    theirs.load_state_dict({**ours.state_dict(), "shared_image_embedding.positional_embedding": positions})
    pixels = (images - torch.tensor(PIXEL_MEAN).view(3, 1, 1)) / torch.tensor(PIXEL_STD).view(3, 1, 1)
    prompts = {"input_boxes": torch.stack(boxes) + ours.arch.box_offset, **points}
    return theirs(pixel_values=pixels, **prompts, multimask_output=False)


@pytest.mark.parametrize(
    ("backbone", "overrides"),
    [
        ("hiera_t", {}),
        ("hiera_tiny", {"blocks": (1, 2, 3, 1), "global_attention": (4,), "input_size": 256}),  # padded windows
    ],
)
@torch.no_grad()
def test_equals_transformers(perturb, images, boxes, backbone, overrides):
    ours = perturb(build_model("sam2", backbone, None, **overrides))
    out, expected = ours(images, boxes), logits_of_transformers(ours, images, boxes)
    assert out.sam.std() > 0.1  # so that the tolerance means something
    assert (out.sam - expected.pred_masks.flatten(0, 2)).abs().max() <= TOLERANCE * out.sam.abs().max().clamp(min=1)
    assert (out.iou - expected.iou_scores.flatten()).abs().max() <= TOLERANCE


@torch.no_grad()
def test_points_refine_a_box_as_in_transformers(perturb, images, boxes):
    overrides = {"blocks": (1, 2, 3, 1), "global_attention": (4,), "input_size": 256}
    ours = perturb(build_model("sam2", "hiera_tiny", None, **overrides))
    coords = torch.tensor([[[30.0, 40], [55.5, 21]]]).repeat(3, 1, 1)
    points = [(coords, torch.tensor([[1, 0]] * 3)), (coords + 7, torch.tensor([[0, 1]] * 3))]
    prompts = {
        "input_points": torch.stack([at for at, _ in points]),
        "input_labels": torch.stack([s for _, s in points]),
    }
    out, expected = (
        ours.decode(ours.encode(images), boxes, points),
        logits_of_transformers(ours, images, boxes, **prompts),
    )
    assert (out.sam - expected.pred_masks.flatten(0, 2)).abs().max() <= TOLERANCE * out.sam.abs().max().clamp(min=1)
    assert (out.sam - ours(images, boxes).sam).abs().max() > 0.05  # the points do something


@torch.no_grad()
def test_an_unstable_mask_gives_way_to_the_best_alternative_in_official_models_only(perturb, images, boxes):
    official = perturb(build_model("sam2", "hiera_tiny", None, **SMALL | {"input_size": 256}))
    stable = official(images, boxes)
    official.mask_decoder.train()
    assert not torch.equal(stable.iou, official(images, boxes).iou)  # some of these random masks are unstable
    ours = perturb(build_model("sam2", "hiera_t", None, **SMALL | {"input_size": 256}))
    before = ours(images, boxes)
    torch.testing.assert_close(ours.train()(images, boxes).sam, before.sam)


def test_published_sizes():
    millions = {"hiera_tiny": 31.4, "hiera_small": 38.5, "hiera_base_plus": 73.3, "hiera_large": 216.9}
    with torch.device("meta"):
        for name, expected in millions.items():
            model = Sam2Model(transformers_config(HIERAS[name]))
            assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(expected, abs=0.1), name


def test_the_tiny_one_fits_its_budget():
    model = build_model("sam2", "hiera_t", None)
    assert (model.input_size, model.mask_size, model.resize) == (256, 64, "square")
    assert sum(p.numel() for p in model.parameters()) * 2 <= 14e6  # bytes as float16


# ---- contract


@torch.no_grad()
def test_one_encoding_serves_many_prompts(small, small_images, monkeypatch):
    model = small()
    whole = model(small_images, BOXES)
    assert whole.hq is None and whole.sam.shape == (3, 16, 16) and whole.sam.dtype == torch.float32
    embeddings = model.encode(small_images)
    assert embeddings.final.shape == (3, 256, 4, 4)
    parts = [
        model.decode(embeddings.select(torch.tensor([image])), [box[None]])
        for image, boxes in enumerate(BOXES)
        for box in boxes
    ]
    torch.testing.assert_close(torch.cat([part.sam for part in parts]), whole.sam, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(torch.cat([part.iou for part in parts]), whole.iou, atol=TOLERANCE, rtol=0)
    monkeypatch.setattr("rossam_core.model.sam2.DECODED_PIXELS", 64**2)  # one prompt at a time
    torch.testing.assert_close(model.decode(embeddings, BOXES).sam, whole.sam, atol=TOLERANCE, rtol=0)


def test_no_boxes_give_empty_masks(small, small_images):
    out = small()(small_images, [torch.zeros(0, 4)] * 3)
    assert (out.sam.shape, out.hq, out.iou.shape) == ((0, 16, 16), None, (0,))


def test_groups_partition_the_parameters_and_train_as_named(small, small_images):
    model = small()
    groups = model.parameter_groups()
    assert tuple(groups) == GROUPS and not groups["lora"] and not groups["hq_head"] and not model.has_hq_head
    members = [id(parameter) for group in groups.values() for _, parameter in group]
    assert sorted(members) == sorted(id(parameter) for parameter in model.parameters())
    assert all(".blocks.5." in name for name, _ in groups["last_block"])
    out = model(small_images, BOXES)
    (out.sam.square().sum() + out.iou.sum()).backward()
    reached = {model.group_of(name) for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"last_block", "encoder", "prompt_encoder", "sam_decoder"}
    with pytest.raises(RossamError, match="lora"):
        set_trainable(model, ["lora"])


@torch.no_grad()
def test_bfloat16_autocast_stays_close(small, small_images):
    model = small()
    exact = model(small_images, BOXES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(small_images, BOXES)
    assert rough.sam.dtype == torch.float32
    assert (rough.sam - exact.sam).abs().mean() <= 0.05 * exact.sam.std()


def test_seed_decides_fresh_weights_and_leaves_the_global_generator():
    state = torch.random.get_rng_state()
    first, again, other = (build_model("sam2", "hiera_t", None, seed=seed, **SMALL) for seed in (1, 1, 2))
    assert same(first, again) and not same(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("mode", ["direct", "tiled", "shared", "object"])
def test_the_predictor_works_in_all_modes_and_frames_are_stretched_in_direct_mode(small, rng, mode):
    image = rng.integers(0, 256, (80, 120, 3), dtype=np.uint8)
    boxes = np.array([[10.0, 10, 30, 30], [90, 50, 118, 79]])
    predictor = Predictor(small(), InferenceConfig(mode=mode, precision="float32"), "cpu")
    seen = []
    predictor.model.mask_decoder.register_forward_pre_hook(
        lambda module, args, named: seen.append(named["sparse_prompt_embeddings"]), with_kwargs=True
    )
    found = predictor.predict(image, boxes)
    assert [mask.full().shape for mask in found] == [(80, 120)] * 2
    if mode == "direct":
        model = predictor.model
        stretched = torch.from_numpy(boxes).float() * torch.tensor([64 / 120, 64 / 80]).repeat(2)
        expected, _ = model.prompt_encoder(None, None, stretched[:, None] + model.arch.box_offset, None)
        torch.testing.assert_close(torch.cat(seen), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("images", "boxes", "message"),
    [
        (torch.zeros(1, 3, 32, 64), BOXES[:1], r"expected \(B, 3, 64, 64\)"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), BOXES[:1], "uint8"),
        (torch.zeros(1, 3, 64, 64), BOXES, "3 tensors for 1 images"),
        (torch.zeros(1, 3, 64, 64), [torch.zeros(1, 4, dtype=torch.long)], r"boxes\[0\].*int64"),
    ],
)
def test_bad_images_and_boxes_are_refused(small, images, boxes, message):
    with pytest.raises(RossamError, match=message):
        small()(images, boxes)


@pytest.mark.parametrize(
    ("backbone", "overrides", "message"),
    [
        ("vit_t", {}, "vit_t: is not known(.|\n)*hiera_large"),
        ("hiera_t", {"dephts": 3}, "dephts(.|\n)*global_attention"),
        ("hiera_t", {"input_size": 100}, "multiple of 32(.|\n)*use 96"),
    ],
)
def test_unknown_architectures_are_refused(backbone, overrides, message):
    with pytest.raises(RossamError, match=message):
        build_model("sam2", backbone, None, **overrides)


# ---- weights


def test_saved_and_loaded_weights_are_the_same(small, tmp_path):
    model, other = small(), small(seed=9)
    assert not same(model, other)
    save_weights(model, tmp_path / "w.safetensors", {"steps": "12"})
    metadata = load_checkpoint(other, tmp_path / "w.safetensors")
    assert same(model, other)
    assert (metadata["steps"], metadata["method"], metadata["backbone"]) == ("12", "sam2", "hiera_t")
    larger = build_model("sam2", "hiera_t", tmp_path / "w.safetensors", **SMALL | {"input_size": 128})
    assert same(model, larger)  # nothing in it depends on the input's size


def test_official_files_round_trip_and_their_video_memory_is_counted(small, tmp_path):
    model, other = small(), small(seed=9)
    save_official(model, tmp_path / "a.pt")
    state = torch.load(tmp_path / "a.pt", weights_only=True)["model"]
    names = {
        "image_encoder.trunk.blocks.0.attn.qkv.weight": (144, 48),
        "image_encoder.trunk.blocks.1.norm1.weight": (48,),
        "image_encoder.trunk.blocks.1.mlp.layers.1.bias": (96,),
        "image_encoder.trunk.blocks.1.proj.weight": (96, 48),
        "image_encoder.trunk.pos_embed_window": (1, 48, 8, 8),
        "image_encoder.trunk.patch_embed.proj.bias": (48,),
        "image_encoder.neck.convs.0.conv.weight": (256, 256, 1, 1),
        "no_mem_embed": (1, 1, 256),
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": (2, 128),
        "sam_prompt_encoder.point_embeddings.3.weight": (1, 256),
        "sam_prompt_encoder.not_a_point_embed.weight": (1, 256),
        "sam_prompt_encoder.mask_downscaling.6.weight": (256, 16, 1, 1),
        "sam_mask_decoder.transformer.layers.1.cross_attn_image_to_token.out_proj.weight": (256, 128),
        "sam_mask_decoder.transformer.layers.1.mlp.layers.0.weight": (64, 256),
        "sam_mask_decoder.transformer.layers.0.norm4.bias": (256,),
        "sam_mask_decoder.transformer.norm_final_attn.weight": (256,),
        "sam_mask_decoder.output_upscaling.3.bias": (32,),
        "sam_mask_decoder.output_hypernetworks_mlps.0.layers.1.weight": (256, 256),
        "sam_mask_decoder.iou_prediction_head.layers.2.weight": (1, 256),
        "sam_mask_decoder.pred_obj_score_head.layers.0.weight": (256, 256),
        "sam_mask_decoder.conv_s0.weight": (32, 256, 1, 1),
        "sam_mask_decoder.obj_score_token.weight": (1, 256),
    }
    assert {name: tuple(state[name].shape) for name in names} == names
    assert len(state) == len(model.state_dict()) + 3  # four point embeddings for one
    assert not any("layer_norm" in name or "proj_in" in name or "proj_out" in name for name in state)

    memory = {f"{start}rest" if start.endswith(".") else start: torch.zeros(1) for start in VIDEO_MEMORY}
    torch.save({"model": state | memory}, tmp_path / "whole.pt")
    assert load_checkpoint(other, tmp_path / "whole.pt") == {}
    assert same(model, other)


def test_hugging_face_folders_load(small, tmp_path):
    model, other = small(), small(seed=9)
    theirs = Sam2Model(transformers_config(model.arch))
    state = model.state_dict()
    state["shared_image_embedding.positional_embedding"] = state["prompt_encoder.shared_embedding.positional_embedding"]
    theirs.load_state_dict(state, strict=True)
    theirs.save_pretrained(tmp_path / "downloaded")
    load_checkpoint(other, tmp_path / "downloaded")
    assert same(model, other)


def test_what_does_not_fit_is_listed_at_once_and_nothing_is_loaded(small, tmp_path):
    save_official(small(), tmp_path / "a.pt")
    state = torch.load(tmp_path / "a.pt", weights_only=True)["model"]
    del state["no_mem_embed"], state["sam_prompt_encoder.point_embeddings.2.weight"]
    state["image_encoder.trunk.blocks.0.drop.weight"] = torch.zeros(1)
    torch.save({"model": state}, tmp_path / "odd.pt")
    model = small(seed=9)
    before = weights_hash(model)
    with pytest.raises(RossamError) as error:
        load_checkpoint(model, tmp_path / "odd.pt")
    text = str(error.value)
    assert "missing (2): no_memory_embedding, prompt_encoder.point_embed.weight" in text
    assert "unexpected (4)" in text and "image_encoder.trunk.blocks.0.drop.weight" in text
    assert weights_hash(model) == before


def test_another_backbone_is_named(small, tmp_path):
    save_weights(small(), tmp_path / "w.safetensors")
    with pytest.raises(RossamError, match=r"looks like no known backbone: dim 48, depth 6; the model is hiera_tiny"):
        build_model("sam2", "hiera_tiny", tmp_path / "w.safetensors", **SMALL | {"blocks": (1, 2, 3, 1)})
    with pytest.raises(RossamError, match=r"the model is vit_t"):
        build_model("sam", "vit_t", tmp_path / "w.safetensors")


def test_a_missing_shipped_prior_is_an_error(small, tmp_path, monkeypatch):
    monkeypatch.setitem(checkpoints.SHIPPED, "hiera_t", tmp_path / "hiera_t.safetensors")
    with pytest.raises(RossamError, match=r"hiera_t\.safetensors: no such file"):
        build_model("sam2", "hiera_t")
    save_weights(small(), tmp_path / "hiera_t.safetensors", half=True)
    shipped = build_model("sam2", "hiera_t", **SMALL)
    for ours, theirs in zip(shipped.parameters(), small().parameters(), strict=True):
        assert torch.equal(ours, theirs.half().float())
