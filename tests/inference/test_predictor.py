"""The predictor: one mask a box, in its place, whatever the window, the batch or the size of the frame."""

import tracemalloc
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, Sam
from torch import nn

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.inference.predictor import Predictor
from rossam_core.model.build import build_model
from rossam_core.model.hq_decoder import MaskLogits
from rossam_core.model.sam import build_prompt_encoder, mask_decoder_settings
from rossam_core.records import Frame, ObjectAnnotation
from rossam_core.settings import InferenceConfig

S = 256


class FakeEmbeddings(NamedTuple):
    final: torch.Tensor

    def select(self, index):
        return FakeEmbeddings(self.final[index])


class FakeSegmenter(nn.Module):
    """Knows the answer: logits are a mask cell's signed distance to the edge of the box (`box`), or the
    brightness of the input in the cell (`bright`); positive inside."""

    method, backbone, default_mask_source, supports_points, has_hq_head = "sam", "fake", "sam", False, False
    input_size, mask_size, pixel_mean, resize = S, S // 4, (10.0, 20.0, 30.0), "longest_side"

    def __init__(self, kind="box", shift=0.0):
        super().__init__()
        self.kind, self.shift, self.encoded = kind, shift, []

    def encode(self, images):
        assert not self.training and images.shape[1:] == (3, S, S) and images.dtype == torch.float32
        self.encoded.append(len(images))
        return FakeEmbeddings(torch.nn.functional.avg_pool2d(images.mean(dim=1), 4))

    def prepare(self, embeddings):
        return embeddings

    def decode(self, embeddings, boxes, points=None):
        assert len(embeddings.final) == len(boxes)
        cell = torch.arange(S // 4) * 4 + 2.0
        found = []
        for image, group in zip(embeddings.final, boxes, strict=True):
            for x0, y0, x1, y1 in group:
                rows, columns = torch.minimum(cell - y0, y1 - cell), torch.minimum(cell - x0, x1 - cell)
                distance = torch.minimum(rows[:, None], columns)
                found.append((image - 127 if self.kind == "bright" else distance) + self.shift)
        logits = torch.stack(found)
        return MaskLogits(logits, None, torch.full((len(logits),), 0.75))


def predictor(kind="box", shift=0.0, **settings):
    return Predictor(FakeSegmenter(kind, shift), InferenceConfig(**{"precision": "float32", **settings}), "cpu")


def frame_image(height, width):
    return np.zeros((height, width, 3), dtype=np.uint8)


CORNERS = [[0, 0, 24, 20], [276, 0, 300, 20], [0, 177, 24, 200], [276, 177, 300, 200], [131, 90, 158, 111]]


@pytest.mark.parametrize("mode", ["direct", "tiled", "shared", "object"])
@pytest.mark.parametrize("rate", [1, 2, 3, 4])
def test_a_mask_lands_on_exactly_the_pixels_it_was_predicted_on(mode, rate):
    boxes = [*CORNERS, [120, 30, 220, 60], [8, 50, 37, 160]]
    found = predictor(mode=mode, rate=rate, growth="context").predict(frame_image(200, 300), boxes)
    assert [mask.box_xyxy for mask in found] == [tuple(box) for box in boxes]
    for mask in found:
        assert masks.box_of(mask.full()) == mask.box_xyxy
        assert mask.status == "ok" and mask.predicted_iou == 0.75


@pytest.mark.parametrize("size_hw", [(60, 90), (200, 300)])
@pytest.mark.parametrize("rate", [1, 2, 4])
def test_what_is_bright_in_the_frame_is_the_mask(rate, size_hw):
    """Cutting and restoring together, in windows inside the frame and windows larger than it."""
    for x0, y0, x1, y1 in [
        (0, 0, 20, 12),
        (size_hw[1] - 24, size_hw[0] - 16, size_hw[1], size_hw[0]),
        (20, 24, 40, 40),
    ]:
        image = frame_image(*size_hw)
        image[y0:y1, x0:x1] = 255
        (mask,) = predictor("bright", rate=rate).predict(image, [[x0, y0, x1, y1]])
        edge_error = abs(np.subtract(masks.box_of(mask.full()), (x0, y0, x1, y1)))
        assert edge_error.max() <= np.ceil(2 / rate)  # half a mask cell


def test_odd_boxes_and_frames_have_their_mask():
    cases = [
        (frame_image(1, 1), [0, 0, 1, 1]),
        (frame_image(1, 400), [100, 0, 180, 1]),
        (frame_image(200, 300), [150.2, 99.7, 150.9, 100.1]),
        (frame_image(200, 300), [-50, -80, 900, 700]),
        (frame_image(200, 300), [290, 190, 340.5, 260]),
    ]
    for mode in ("direct", "tiled", "shared", "object"):
        for image, box in cases:
            (mask,) = predictor(mode=mode, shift=4.0, growth="context").predict(image, [box])
            height, width = image.shape[:2]
            visible = np.zeros((height, width), dtype=bool)
            x0, y0, x1, y1 = np.round(box).clip(0, (width, height) * 2).astype(int)
            visible[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
            assert mask.full().shape == (height, width) and mask.full()[visible].all(), (mode, box)


def test_no_boxes_give_no_masks():
    assert predictor().predict(frame_image(20, 30), []) == []
    assert predictor().predict(frame_image(20, 30), np.zeros((0, 4))) == []


@pytest.mark.parametrize(
    "image", [np.zeros((20, 30), np.uint8), np.zeros((20, 30, 3), np.uint16), np.zeros((0, 3, 3), np.uint8)]
)
def test_an_image_that_is_not_8_bit_rgb_is_refused_with_the_remedy(image):
    with pytest.raises(RossamError, match=r"expected uint8 H×W×3(.|\n)*8-bit RGB"):
        predictor().predict(image, [[4, 4, 6, 6]])


def test_an_empty_mask_is_kept_and_said():
    found = predictor(shift=-1000.0).predict(frame_image(200, 300), CORNERS)
    assert [mask.status for mask in found] == ["empty"] * 5
    assert [mask.area for mask in found] == [0] * 5 and not found[0].full().any()


def test_a_fixed_window_that_cuts_a_box_is_said():
    box = [20, 20, 280, 60]
    (mask,) = predictor(growth="none").predict(frame_image(200, 300), [box])
    assert mask.status == "cut" and masks.box_of(mask.full()) == (86, 20, 214, 60)
    (mask,) = predictor(growth="context").predict(frame_image(200, 300), [box])
    assert mask.status == "ok" and masks.box_of(mask.full()) == tuple(box)


def test_run_lengths_and_area_are_those_of_the_full_mask():
    boxes = [*CORNERS, [0, 0, 300, 200], [0, 60, 300, 100], [60, 0, 100, 200]]
    for shift in (-1000.0, 7.3, 1000.0):
        for mask in predictor(shift=shift).predict(frame_image(200, 300), boxes):
            np.testing.assert_array_equal(masks.decode(mask.rle(), mask.size_hw), mask.full())
            assert mask.area == mask.full().sum()


def test_the_kept_piece_is_small_and_complete():
    """Box, mask and margin; the mask may reach far beyond the box."""
    (mask,) = predictor().predict(frame_image(200, 300), [[131, 90, 158, 111]])
    assert mask.offset_xy == (129, 88) and mask.logit_crop.shape == (25, 31) and mask.logit_crop.dtype == np.float16
    for shift in (-8, 30):  # the fake's logits are distances in input pixels, at rate 1 those of the frame
        (mask,) = predictor(shift=shift, rate=1).predict(frame_image(600, 600), [[300, 300, 360, 350]])
        assert masks.box_of(mask.full()) == (300 - shift, 300 - shift, 360 + shift, 350 + shift)


def test_a_higher_threshold_is_the_same_as_predicting_with_it():
    (low,) = predictor().predict(frame_image(200, 300), [[131, 90, 158, 111]])
    (high,) = predictor(mask_threshold=3.0).predict(frame_image(200, 300), [[131, 90, 158, 111]])
    np.testing.assert_array_equal(low.with_threshold(3.0).full(), high.full())
    assert 0 < high.area < low.area
    assert low.with_threshold(1e4).status == "empty" and low.with_threshold(1e4).with_threshold(0).area == low.area


def test_memory_does_not_grow_with_boxes_times_frame(rng):
    """2,000 boxes on a frame of a million pixels: their full masks would take 2 GB, their pieces a thousandth."""
    corners = rng.integers(0, 980, (2000, 2))
    boxes = np.concatenate([corners, corners + rng.integers(8, 20, (2000, 2))], axis=1)
    image = frame_image(1000, 1000)
    tracemalloc.start()
    found = predictor().predict(image, boxes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 2000
    assert sum(mask.logit_crop.nbytes for mask in found) < 4e6
    assert peak < 80e6, f"{peak / 1e6:.0f} MB"


def still_frames(folder, counts, size_hw=(100, 140)):
    path = folder / "frame.png"
    Image.fromarray(frame_image(*size_hw)).save(path)
    for i, count in enumerate(counts):
        boxes = [(10.0 + i + 3 * j, 20.0, 40.0 + i + 3 * j, 50.0) for j in range(count)]
        yield Frame("test", "v", i + 1, Path(path), size_hw, tuple(ObjectAnnotation(*a) for a in named(boxes)))


def named(boxes):
    return [(number, "ship", box) for number, box in enumerate(boxes)]


@pytest.mark.parametrize(("threads", "encoded"), [(1, [4, 4, 1]), (2, [2, 2, 2, 2, 1])])
def test_batches_are_filled_across_frames_and_order_is_kept(tmp_path, monkeypatch, threads, encoded):
    """On a processor each of torch's threads takes a share of a batch."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    counts = [1, 0, 3, 2, 0, 1, 2, 0]
    frames = list(still_frames(tmp_path, counts))
    many, ticks = predictor(batch_size=4, prompt_batch_size=3), []
    found = list(many.predict_frames(frames, progress=ticks.append))
    assert [frame.key for frame, _ in found] == [frame.key for frame in frames] and ticks == [1] * len(frames)
    assert [len(objects) for _, objects in found] == counts
    assert many.model.encoded == encoded
    for frame, objects in found:
        alone = predictor().predict(frame.image(), frame.boxes_xyxy)
        assert [mask.rle() for mask in objects] == [mask.rle() for mask in alone]


def test_frames_are_read_only_as_far_as_needed(tmp_path):
    read = []

    def stream():
        for frame in still_frames(tmp_path, [2] * 50):
            read.append(frame.index)
            yield frame

    next(predictor(batch_size=4).predict_frames(stream()))
    assert read == [1, 2]


def test_a_frame_whose_image_has_another_size_is_named(tmp_path):
    (frame,) = still_frames(tmp_path, [1])
    wrong = Frame(frame.dataset, frame.video, 1, frame.image_path, (140, 100), frame.objects)
    with pytest.raises(RossamError, match=r"frame\.png.*100×140"):
        list(predictor().predict_frames([wrong]))


@pytest.mark.parametrize("prompts", [1, 4, 64])
def test_variants_are_other_prompts_in_their_boxs_window(prompts, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    one, image = predictor(batch_size=2, prompt_batch_size=prompts), frame_image(200, 300)
    variants = np.array(CORNERS)[:, None] + [[1, 1, 1, 1], [2, 2, -2, -2], [0, 0, 0, 0]]
    found = one.predict_variants(image, CORNERS, variants)
    assert one.model.encoded == [2, 2, 1]
    for own, box, (shifted, shrunk, same), asked in zip(found, CORNERS, (f[1:] for f in found), variants, strict=True):
        assert own[0].rle() == same.rle() == predictor().predict(image, [box])[0].rle()
        assert shifted.box_xyxy == tuple(asked[0]) and shrunk.area < own[0].area
    assert [len(own) for own in one.predict_variants(image, CORNERS, np.zeros((5, 0, 4)))] == [1] * 5
    assert one.predict_variants(image, [], np.zeros((0, 3, 4))) == []
    direct = predictor(mode="direct")
    direct.model.resize = "square"
    ((own, same),) = direct.predict_variants(image, CORNERS[4:], np.array(CORNERS[4:])[:, None])
    assert own.rle() == same.rle() == direct.predict(image, CORNERS[4:])[0].rle() != found[4][0].rle()
    with pytest.raises(RossamError, match=r"have the shape \(4, 3, 4\) for 5 boxes"):
        one.predict_variants(image, CORNERS, variants[:4])


def test_what_cannot_be_done_is_an_error_with_a_remedy():
    image, box = frame_image(50, 50), [[10, 10, 30, 30]]
    for source in ("hq", "sum"):
        with pytest.raises(RossamError, match="no HQ head"):
            predictor(mask_source=source)
    with pytest.raises(RossamError, match="NaN"):
        predictor(shift=float("nan")).predict(image, box)
    with pytest.raises(RossamError, match="box 1"):
        predictor().predict(image, [*box, [30, 30, 10, 10]])
    with pytest.raises(RossamError, match="image 1"):
        list(predictor().predict_many([(image, box), (np.zeros((0, 5, 3), np.uint8), box)]))
    with pytest.raises(RossamError, match="device"):
        Predictor(FakeSegmenter(), device="nowhere")


# --- the real model -----------------------------------------------------------------------------------------------


def noise_image(rng, size_hw):
    """Smooth blobs and fine grain, so that fresh weights give masks worth comparing."""
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(size_hw[::-1], Image.BICUBIC)
    return (np.asarray(coarse) // 2 + rng.integers(0, 128, (*size_hw, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def tiny_models():
    """Reduced `vit_t`s that take boxes as SAM does."""
    return {
        method: build_model(method, "vit_t", checkpoint=None, depth=3, box_offset=0.0) for method in ("sam", "hq-sam")
    }


def test_results_do_not_depend_on_batch_sizes(tiny_models, rng):
    image = noise_image(rng, (150, 220))
    boxes = np.array([[5, 5, 30, 40], [60, 20, 90, 80], [100, 90, 180, 140], [10, 100, 50, 150], [200, 0, 220, 30]])
    for mode in ("object", "tiled"):
        found = []
        for batch in (1, 7):
            config = InferenceConfig(mode=mode, batch_size=batch, prompt_batch_size=batch, precision="float32")
            found.append(Predictor(tiny_models["hq-sam"], config, "cpu").predict(image, boxes))
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(one.logit_crop, other.logit_crop, atol=1e-3)
            assert abs(one.predicted_iou - other.predicted_iou) < 1e-4


def test_mask_sources_are_the_models_logits(tiny_models, rng):
    image, boxes = noise_image(rng, (128, 128)), [[30, 30, 80, 90]]
    crop = {}
    for source in ("sam", "hq", "sum", "default"):
        config = InferenceConfig(mask_source=source, precision="float32", mask_threshold=-1e4)  # keeps all logits
        (mask,) = Predictor(tiny_models["hq-sam"], config, "cpu").predict(image, boxes)
        crop[source] = mask.logit_crop.astype(np.float32)
    np.testing.assert_allclose(crop["sum"], crop["sam"] + crop["hq"], atol=5e-3)
    np.testing.assert_array_equal(crop["default"], crop["sum"])


def sam_twin(ours):
    """`segment_anything`'s own model with our weights: Q, K and V joined again."""
    arch, state = ours.arch, ours.state_dict()
    encoder = ImageEncoderViT(
        img_size=arch.input_size,
        embed_dim=arch.dim,
        depth=arch.depth,
        num_heads=arch.heads,
        out_chans=arch.prompt_dim,
        use_rel_pos=True,
        window_size=arch.window,
        global_attn_indexes=arch.global_attention,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    sam = Sam(encoder, build_prompt_encoder(arch), MaskDecoder(**mask_decoder_settings(arch)))
    for name in sam.state_dict():
        if ".qkv." in name:
            state[name] = torch.cat([state.pop(name.replace("qkv", f"{part}_proj")) for part in "qkv"])
    sam.load_state_dict(state)
    return sam.eval()


@pytest.mark.parametrize("size_hw", [(200, 300), (150, 111), (600, 400)])
def test_direct_mode_is_sam_predictor(size_hw, tiny_models, rng):
    """Same weights, default settings, frames enlarged and shrunk. Logits are cut at their median, where
    fresh weights make the raggedest masks."""
    image = noise_image(rng, size_hw)
    boxes = np.array([[0, 0, 40, 60], [30.5, 40.2, 90, 100], [5, 20, 110, 148]])
    theirs = SamPredictor(sam_twin(tiny_models["sam"]))
    theirs.set_image(image)
    for box in boxes:
        (logits,), (iou,), _ = theirs.predict(box=box, multimask_output=False, return_logits=True)
        threshold = float(np.median(logits))
        config = InferenceConfig(mode="direct", precision="float32", mask_threshold=threshold)
        (mask,) = Predictor(tiny_models["sam"], config, "cpu").predict(image, [box])
        np.testing.assert_allclose(mask.predicted_iou, iou, atol=1e-4)
        assert mask_overlap(mask.full(), logits > threshold) >= 0.999
        (x, y), (h, w) = mask.offset_xy, mask.logit_crop.shape
        np.testing.assert_allclose(mask.logit_crop, logits[y : y + h, x : x + w], atol=2e-3 * abs(logits).max())


def mask_overlap(one, other):
    return (one & other).sum() / (one | other).sum()
