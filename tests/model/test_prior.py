"""The prior that ships: the file the model card describes, and what it does on scenes it has not seen."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco

import rossam_core
from rossam_core.files import sha256_of
from rossam_core.model.build import build_model
from tools.pretrain import scenes as drawn
from tools.pretrain.config import PretrainConfig
from tools.pretrain.dataset import held_out_scenes, score

WEIGHTS = Path(rossam_core.__file__).parent / "weights"
MASKS_OF_DRAWING = (
    "`d0`0_12N100000000000000000000000000001O0O2NaS2",
    "[S28g13M2M3O001N10000001O0O2N101N2N3Lfj0",
    "V72n16K0XNIf1;M2N3N0000O1O0O1O2N2O1M201N1O2N`b2",
)


def drawing() -> np.ndarray:
    """uint8 256×256×3: a rectangle, a disc and a triangle on noise."""
    image = np.random.default_rng(7).normal(110, 12, (256, 256, 3))
    cv2.rectangle(image, (40, 60), (119, 129), (190, 180, 150), -1)
    cv2.circle(image, (164, 189), 35, (60, 70, 90), -1)
    cv2.fillPoly(image, [np.array([[10, 150], [89, 200], [40, 239]])], (150, 60, 60))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def sam():
    return build_model("sam", "vit_t")


@pytest.fixture(scope="module", params=[("sam", "vit_t"), ("sam2", "hiera_t")], ids="-".join)
def prior(request):
    return build_model(*request.param)


@pytest.fixture(scope="module")
def scenes():
    """Scenes of seed 0, which neither training nor the choice of weights has used, of the four layouts that these
    weights were trained on; fields, crossings and groups came later."""
    weights = np.array(drawn.LAYOUT_WEIGHTS[:4])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn, "LAYOUTS", drawn.LAYOUTS[:4])
        patch.setattr(drawn, "LAYOUT_WEIGHTS", weights / weights.sum())
        return held_out_scenes(PretrainConfig(seed=0, held_out_scenes=64), 256)


@pytest.fixture(scope="module")
def scores(prior, scenes):
    return score(prior, scenes, torch.device("cpu"), "float32")


def masks_of(model, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """bool N×64×64."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        return (model(pixels, [torch.from_numpy(np.ascontiguousarray(boxes)).float()]).sam > 0).numpy()


def mean_iou(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a & b).sum((1, 2)) / np.maximum((a | b).sum((1, 2)), 1)).mean())


def test_the_files_are_those_the_model_card_describes():
    card = (WEIGHTS / "MODEL_CARD.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"\| `(\w+\.safetensors)` \|.*\| `([0-9a-f]{64})` \|", card))
    assert listed == {path.name: sha256_of(path) for path in WEIGHTS.glob("*.safetensors")}


def test_all_weights_together_stay_under_40_megabytes():
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) <= 40e6


def test_a_drawing_gives_the_recorded_masks(sam):
    """Masks as run-length codes, recorded once; processors round differently, so a few cells may differ."""
    boxes = np.array([[40, 60, 120, 130], [129, 154, 200, 225], [10, 150, 90, 240]], dtype=np.float32)
    recorded = [coco.decode({"size": [64, 64], "counts": code}) for code in MASKS_OF_DRAWING]
    assert mean_iou(masks_of(sam, drawing(), boxes), np.stack(recorded).astype(bool)) >= 0.98


def test_predicted_iou_ranks_true_iou(scores):
    assert scores[["predicted", "sam"]].corr("spearman").iloc[0, 1] >= 0.5


def test_it_looks_at_the_image(prior, scenes, scores):
    """Masks of the right images are nearer the truth than masks of other scenes' images under the same boxes."""
    others = score(prior, scenes._replace(images=scenes.images[1:] + scenes.images[:1]), torch.device("cpu"), "float32")
    assert scores["sam"].mean() > others["sam"].mean() + 0.1


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
    ious = []
    for image, boxes in zip(scenes.images, scenes.boxes, strict=True):
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        moved = np.clip(boxes + 0.05 * sides * rng.choice([-1, 1], boxes.shape), 0, 256)
        ious.append(mean_iou(masks_of(prior, image, boxes), masks_of(prior, image, moved)))
    assert np.mean(ious) >= 0.8
