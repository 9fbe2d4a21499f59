"""The prior that ships: the file the model card describes, and what it does on scenes it has not seen."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

import rossam_core
from rossam_core.files import sha256_of
from rossam_core.model.rossam import build_model
from tools.pretrain.config import PretrainConfig
from tools.pretrain.dataset import held_out_scenes, score

WEIGHTS = Path(rossam_core.__file__).parent / "weights"
KNOWN = (
    "ff06j1OO3L302M2OO101N1O101O1O11O01GYN4k1ON2XU2",
    "hS23m1NVN0Q10mN0c00_O1o01oN137U1HhN228U1DiN34:T1GkN:U1EjN=V1BjN>X1@gNa0O@Z10gN<ODR10TOOK;V1FoNOL<S1EUO5HNQ1MXO4IM_1Ohl0",
    "b72l14MNXNNf1410OMcNOW12hNMH0_15gNMY13fNN[147IZN5i110N31L01O1O0M30\\b2",
)


@pytest.fixture(scope="module")
def sam():
    return build_model("sam", "vit_t")


@pytest.fixture(scope="module", params=[("sam", "vit_t"), ("sam2", "hiera_t")], ids="-".join)
def prior(request):
    return build_model(*request.param)


@pytest.fixture(scope="module")
def scenes():
    """40 scenes of a stream that neither training nor the choice of weights has used."""
    return held_out_scenes(PretrainConfig(seed=99, held_out_scenes=40), 256)


def masks_of(model, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """bool N×64×64."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        return (model(pixels, [torch.from_numpy(np.ascontiguousarray(boxes)).float()]).sam > 0).numpy()


def mean_iou(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a & b).sum((1, 2)) / np.maximum((a | b).sum((1, 2)), 1)).mean())


def test_the_files_are_those_the_model_card_describes():
    card = (WEIGHTS / "MODEL_CARD.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"\| `(\w+\.safetensors)` \|.*\| `([0-9a-f]{64})` \|", card))
    assert told == {path.name: sha256_of(path) for path in WEIGHTS.glob("*.safetensors")}


def test_all_weights_together_stay_under_40_megabytes():
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) <= 40e6


def test_a_known_image_and_box_give_the_known_mask(sam):
    """Masks as run-length codes, drawn once; processors round differently, so a few cells may differ."""
    image, _ = sample_scene(np.random.default_rng(7), 256)
    boxes = np.array([[40, 60, 120, 130], [128, 128, 200, 250], [10, 150, 90, 240]], dtype=np.float32)
    known = np.stack([coco.decode({"size": [64, 64], "counts": code}) for code in KNOWN]).astype(bool)
    assert mean_iou(masks_of(sam, image, boxes), known) >= 0.98


def test_predicted_iou_ranks_true_iou(prior, scenes):
    table = score(prior, scenes, torch.device("cpu"), "float32")
    assert table[["predicted", "sam"]].corr("spearman").iloc[0, 1] >= 0.5


def test_it_looks_at_the_image(prior, scenes):
    """Masks of the right images are nearer the truth than masks of other scenes' images under the same boxes."""
    own = score(prior, scenes, torch.device("cpu"), "float32")
    others = score(prior, scenes._replace(images=scenes.images[1:] + scenes.images[:1]), torch.device("cpu"), "float32")
    assert own["sam"].mean() > others["sam"].mean() + 0.1


@pytest.mark.parametrize("axis", [0, 1], ids=["upside-down", "left-right"])
def test_a_mirrored_image_gives_the_mirrored_mask(prior, scenes, axis):
    ious = []
    for image, boxes in zip(scenes.images, scenes.boxes, strict=True):
        turned = boxes.copy()
        turned[:, [1 - axis, 3 - axis]] = 256 - boxes[:, [3 - axis, 1 - axis]]
        again = np.flip(masks_of(prior, np.flip(image, axis), turned), axis + 1)
        ious.append(mean_iou(masks_of(prior, image, boxes), again))
    assert np.mean(ious) >= 0.9


def test_a_box_moved_by_a_twentieth_keeps_most_of_the_mask(prior, scenes, rng):
    """Measured 0.85 and 0.88 on other scenes (model card)."""
    ious = []
    for image, boxes in zip(scenes.images, scenes.boxes, strict=True):
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        moved = np.clip(boxes + 0.05 * sides * rng.choice([-1, 1], boxes.shape), 0, 256)
        ious.append(mean_iou(masks_of(prior, image, boxes), masks_of(prior, image, moved)))
    assert np.mean(ious) >= 0.8
